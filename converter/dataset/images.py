"""The image stage: decode, draw on the canvas and write, on all cores and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas
from converter.media.parallel import ordered_map
from converter.media.resampling import scratch
from converter.registry import Progress
from converter.track import Image


def draw_images(
    canvas: Canvas,
    positions: NDArray[np.int64],
    write: Callable[[int, Image], None],
    progress: Progress,
) -> None:
    """Draw frames on the canvas and hand each to ``write``.

    Parameters
    ----------
    canvas
        The canvas.
    positions
        (M,) positions in the track, ascending.
    write
        ``write(number, image)``, number 0 to M-1; runs in several threads, in no certain order. The
        image is only its own until it returns.
    progress
        Called per image.

    """
    kept = [int(p) for p in positions]

    def work(item: tuple[int, Callable[[Image | None], Image]]) -> None:
        number, draw = item
        # Every thread draws into memory of its own, and writes before it draws the next.
        write(number, draw(scratch("canvas", (*canvas.size.shape, 3), np.uint8)))

    for done, _ in enumerate(ordered_map(work, enumerate(canvas.stream(kept))), start=1):
        progress("write images", done, len(kept))
