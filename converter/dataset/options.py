"""Options that targets share; a target's own options follow them.

They are apart from the code that obeys them, because ``convert --help`` reads all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.errors import TargetError

CanvasChoice = Literal["auto", "full", "window", "padded", "crop"]
Space = Literal["auto", "source", "crop", "window"]


@dataclass(frozen=True)
class CanvasOptions:
    """Which part of the picture is written, for consumers that force the principal point."""

    canvas: CanvasChoice = "auto"
    """Which part of the picture is written.
    auto: full where there are source frames and it fits, else window; without them crop.
    full: the source frames as they are; the pose is refitted to a principal point in the centre.
    window: native pixels, the largest canvas around the principal point inside the source frame.
    padded: the whole source frame at native scale, borders repeated to centre it.
    crop: the tracker's own field of view.
    The pose stays the tracker's in all but full."""
    size: str | None = None
    """Size of the canvas, N or WIDTHxHEIGHT, even. Default: what fits; 512 for crop."""
    scale: float | None = None
    """Output pixels per source pixel, for window and padded. Default: 1, native."""
    max_residual: float = 0.5
    """How far full may move the mesh, px (median); above it, auto takes window."""


@dataclass(frozen=True)
class ViewOptions:
    """Which images are written, for consumers that take any K."""

    space: Space = "auto"
    """Which images are written.
    auto: the source frames where there are any and their crop is known, else the crops.
    source: the source frames as they are.
    crop: the tracker's crops; of another --size, cut from the source frames where there are any.
    window: native pixels around the principal point, which is then the image centre."""
    size: int | None = None
    """Side of the crops, px; crop only. Default: the tracker's."""


@dataclass(frozen=True)
class SceneOptions(ViewOptions):
    """Options of targets that write a static scene."""

    matte: Path | None = None
    """Mattes as grey PNG, 255 is the person, at source or crop size: they become the masks."""
    matte_names: Literal["auto", "frame", "image", "position"] = "auto"
    """What the matte's file names count: .frame numbers, images from 1, or places from 0 (0.png,
    or 0000.png as RobustVideoMatting has it)."""
    quality: int = 95
    """JPEG quality of the written images, 1 to 100."""


def require_bounds(*bounds: tuple[str, float, float, float]) -> None:
    """Raise TargetError unless every (option, value, low, high) has low <= value <= high."""
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise TargetError(name, f"{low:g} to {high:g}", f"{value:g}")
