"""Mattes (how much of a pixel is the person), moved with the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas
from converter.dataset.parsing import ParsingNames, canvas_map, numbered_paths
from converter.errors import ConventionError, MissingInputError
from converter.geometry.pixels import PixelAffine, Size
from converter.media.images import read_image, read_size
from converter.media.resampling import resample
from converter.registry import Missing
from converter.track import Image, Track

Grey = NDArray[np.uint8]


def missing_mattes(matte: Matte | None, file: str) -> tuple[Missing, ...]:
    """Say what makes mattes, where there are none."""
    if matte is not None:
        return ()
    command = (
        "python inference.py --variant resnet50 --checkpoint rvm_resnet50.pth --device cuda "
        "--input-source VIDEO_OR_FRAMES --output-type png_sequence --output-alpha MATTE_DIR"
    )
    return (Missing(file, "mattes, e.g. by RobustVideoMatting", command),)


@dataclass(frozen=True, slots=True)
class Matte:
    """A folder of grey mattes, one PNG per track frame: 0 background, 255 person."""

    paths: tuple[Path, ...]
    canvas_from_matte: PixelAffine

    @classmethod
    def given(
        cls, folder: Path | None, names: ParsingNames, track: Track, canvas: Canvas
    ) -> Matte | None:
        """What --matte names, None without it; raises as `find`."""
        if folder is None:
            return None
        return cls.find(folder, names, track, canvas)

    @classmethod
    def find(cls, folder: Path, names: ParsingNames, track: Track, canvas: Canvas) -> Matte:
        """Find the matte of every frame.

        Raises
        ------
        MissingInputError
            If a frame has none.
        ConventionError
            If more than one way of numbering fits, or a matte is neither of source nor crop size.

        """
        try:
            paths = numbered_paths(folder, names, track)
        except MissingInputError as error:
            remedy = "--matte-names says what the names count: frame, image or position."
            raise MissingInputError(
                error.where, "the matte of a frame", error.found, remedy
            ) from None
        except ConventionError as error:
            remedy = "Say which with --matte-names."
            raise ConventionError(error.where, error.expected, error.found, remedy) from None
        return cls(paths, canvas_map(read_size(paths[0]), track, canvas, str(paths[0])))

    def read(self, index: int, size: Size) -> Grey:
        """Matte (H, W) of one track frame on the canvas; nobody is outside the picture."""
        image = read_image(self.paths[index])
        drawn = resample(image, self.canvas_from_matte[index], size).max(axis=2)
        low, high = self.canvas_from_matte[index](
            [[0.0, 0.0], [float(image.shape[1]), float(image.shape[0])]]
        )
        inside = np.zeros(size.shape, np.uint8)
        x0, y0 = np.clip(np.floor(low), 0, [size.width, size.height]).astype(int)
        x1, y1 = np.clip(np.ceil(high), 0, [size.width, size.height]).astype(int)
        inside[y0:y1, x0:x1] = drawn[y0:y1, x0:x1]
        return inside


def on_white(image: Image, matte: Grey) -> Image:
    """The person over a white background, (H, W, 3)."""
    alpha = matte[..., None].astype(np.float32) / 255
    mixed = image.astype(np.float32) * alpha + 255 * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)
