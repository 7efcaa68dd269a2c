"""The proof in numbers: the mesh through the written cameras, held against the track's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from converter.dataset.record import Reference
from converter.findings import Finding
from converter.geometry.pixels import Floats

_MAX_POINTS = 2_000_000


def compare_projections(
    reference: Reference,
    frames: Iterable[tuple[int, int]],
    project: Callable[[int, NDArray[np.int64]], Floats],
    *,
    mesh: Floats,
    limit_px: float,
    what: str,
) -> Finding:
    """Largest distance between the mean mesh through a dataset's cameras and through the track's.

    Parameters
    ----------
    reference
        The track.
    frames
        (number of a frame in the dataset, its position in the track).
    project
        ``project(i, picks)``: edge-origin px of the vertices ``mesh[picks]`` in the i-th of
        ``frames``, as the consumer draws them.
    mesh
        (V, 3) vertices, metres.
    limit_px
        Largest distance that passes.
    what
        How the dataset calls a frame's number, for the message.

    """
    pairs = list(frames)
    step = max(1, len(mesh) * len(pairs) // _MAX_POINTS)
    picks = np.arange(0, len(mesh), step)
    worst, worst_number, lost = 0.0, -1, False
    for i, (number, position) in enumerate(pairs):
        true = reference.project(position, mesh[picks])
        difference = np.linalg.norm(project(i, picks) - true, axis=-1)
        lost |= bool(np.isnan(difference).any())
        if np.nanmax(difference, initial=0.0) > worst:
            worst, worst_number = float(np.nanmax(difference)), number
    message = f"max reprojection difference {worst:.5f} px over {len(pairs)} frames"
    if not lost and worst <= limit_px:
        return Finding("reprojection", "info", "cameras", message, worst, limit_px, "px")
    cause = "; vertices lie behind a camera" if lost else f", worst at {what} {worst_number}"
    return Finding("reprojection", "error", "cameras", f"{message}{cause}.", worst, limit_px, "px")
