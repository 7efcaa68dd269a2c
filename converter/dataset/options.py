"""Options that targets share; a target's own options follow them.

They are apart from the code that obeys them, because ``convert --help`` reads all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.errors import MissingInputError, TargetError

MIN_SIDE = 64
_MAX_CANVAS_SIDE, _MAX_CROP_SIDE = 16384, 4096

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

    def require(self) -> None:
        """Raise TargetError for what no track could make right."""
        parse_sides(self.size)
        require_bounds(("--max-residual", self.max_residual, 1e-6, 1e6))
        if self.scale is not None and not 0 < self.scale <= 8:
            raise TargetError("--scale", "a number above 0, at most 8", f"{self.scale:g}")
        if self.canvas == "full":
            for option, value in (("--size", self.size), ("--scale", self.scale)):
                if value is not None:
                    raise TargetError(option, f"no {option} with --canvas full", f"{value}",
                                      "It writes the source frames as they are.")  # fmt: skip
        if self.canvas == "crop" and self.scale is not None:
            raise TargetError("--scale", "no --scale with --canvas crop", f"{self.scale:g}",
                              "Use --size.")  # fmt: skip


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

    def require(self) -> None:
        """Raise TargetError for what no track could make right."""
        if self.size is None:
            return
        if self.space in ("source", "window"):
            raise TargetError("--size", "--space crop with it", f"--space {self.space}")
        require_side(self.size)


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

    def require(self) -> None:
        """Raise UncropError for what no track could make right."""
        ViewOptions.require(self)
        require_bounds(("--quality", self.quality, 1, 100))
        require_folder(self.matte, "--matte")


def require_bounds(*bounds: tuple[str, float, float, float]) -> None:
    """Raise TargetError unless every (option, value, low, high) has low <= value <= high."""
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise TargetError(name, f"{low:g} to {high:g}", f"{value:g}")


def require_folder(folder: Path | None, option: str) -> None:
    """Raise MissingInputError unless what ``option`` names, if anything, is a folder."""
    if folder is not None and not folder.is_dir():
        raise MissingInputError(folder, f"what {option} names: a folder of PNG", "nothing",
                                "Check its spelling.")  # fmt: skip


def require_side(side: int) -> None:
    """Raise TargetError unless crops of that side can be made, px."""
    if not MIN_SIDE <= side <= _MAX_CROP_SIDE:
        raise TargetError("--size", f"{MIN_SIDE} to {_MAX_CROP_SIDE} px", f"{side}")


def parse_sides(text: str | None) -> tuple[int, int] | None:
    """Width and height of ``N`` or ``WIDTHxHEIGHT``; TargetError unless both are even, >= 64."""
    if text is None:
        return None
    parts = text.lower().split("x")
    ok = len(parts) in (1, 2) and all(p.isascii() and p.isdecimal() and len(p) < 6 for p in parts)
    sides = [int(p) for p in parts] if ok else []
    if not ok or any(s % 2 or s < MIN_SIDE or s > _MAX_CANVAS_SIDE for s in sides):
        raise TargetError(
            "--size", f"N or WIDTHxHEIGHT, even, at least {MIN_SIDE}", text,
            "The principal point is the image centre; odd sizes lose half a pixel.",
        )  # fmt: skip
    return sides[0], sides[-1]
