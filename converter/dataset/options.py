"""Options that targets with a forced principal point share; a target's own options follow them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from converter.errors import TargetError

CanvasChoice = Literal["auto", "full", "window", "padded", "crop"]


@dataclass(frozen=True)
class CanvasOptions:
    """Which part of the picture is written."""

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


def require_bounds(*bounds: tuple[str, float, float, float]) -> None:
    """Raise TargetError unless every (option, value, low, high) has low <= value <= high."""
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise TargetError(name, f"{low:g} to {high:g}", f"{value:g}")
