"""Choosing the canvas: which part of the picture, at which scale; always centred on K's centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.dataset.options import CanvasOptions
from converter.errors import MissingInputError, TargetError
from converter.findings import Finding
from converter.geometry.crop import Window
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.media.images import resample
from converter.track import Frames, Image, Track

_DEFAULT_CROP_SIZE = 512
_MIN_SIDE = 64
_NOTICEABLE = 0.005
_SMALL_FACE = 0.25


@dataclass(frozen=True, slots=True)
class Canvas:
    """The images that are written, and how they come from the images at hand.

    Attributes
    ----------
    kind
        window, padded or crop.
    base
        Which images are drawn: the source frames, or the tracker's crops where there are none.
    frames
        These images.
    track
        The track with K of these images.
    window
        Canvas size, its central intrinsics, and the map from these images.
    canvas_from_crop
        Map for everything that lives in the tracker's crop, such as landmarks; None where the crop
        is unknown and the images are source frames.

    """

    kind: Literal["window", "padded", "crop"]
    base: Literal["source", "crop"]
    frames: Frames
    track: Track
    window: Window
    canvas_from_crop: PixelAffine

    @property
    def size(self) -> Size:
        """Size of the canvas."""
        return self.window.size

    @property
    def focal(self) -> float:
        """Focal length on the canvas, px."""
        return float(self.window.intrinsics.fx)

    @property
    def title(self) -> str:
        """Kind and size, for messages."""
        return f"{self.kind} {self.size}"

    def draw(self, image: Image, position: int) -> Image:
        """Draw one image of `frames`, that of track frame ``position``."""
        return resample(image, self.window.canvas_from_image[position], self.size)

    def from_crop(self, positions: NDArray[np.int64], points: Floats) -> Floats:
        """Map crop pixels (M, P, 2) of track frames ``positions`` (M,) onto the canvas."""
        affine = self.canvas_from_crop
        if np.ndim(affine.tx):
            return np.stack([affine[int(i)](p) for i, p in zip(positions, points, strict=True)])
        return affine(points)


def choose_canvas(track: Track, options: CanvasOptions) -> tuple[Canvas, list[Finding]]:
    """Choose the canvas for a track.

    Raises
    ------
    TargetError
        If --size or --scale do not fit the canvas.
    MissingInputError
        If the canvas needs source frames, or there are no images at all.

    """
    findings: list[Finding] = []
    kind = options.canvas
    if kind == "auto":
        kind = "window" if track.source_frames is not None and track.crop is not None else "crop"
        if kind == "crop":
            lost = "source frames" if track.source_frames is None else "bbox.pt"
            findings.append(
                Finding(
                    "canvas-crop",
                    "warning",
                    track.name,
                    f"there are no {lost}, so the images come from the tracker's crops.",
                    fix="For native resolution give --source DIR_OR_VIDEO and --bbox FILE.",
                )
            )
    size = parse_size(options.size)
    if kind == "crop":
        return _crop_canvas(track, size or _square(_DEFAULT_CROP_SIZE), options), findings
    return _source_canvas(
        track, kind, size, 1.0 if options.scale is None else options.scale
    ), findings


def _source_canvas(
    track: Track, kind: Literal["window", "padded"], size: Size | None, scale: float
) -> Canvas:
    if track.source_frames is None:
        raise MissingInputError(
            track.name,
            f"source frames for --canvas {kind}",
            "none",
            "Give --source DIR_OR_VIDEO, or use --canvas crop.",
        )
    if not 0 < scale <= 8:
        raise TargetError("--scale", "a number above 0, at most 8", f"{scale:g}")
    located = track.in_source()
    k = located.intrinsics
    focal = scale * float(np.median(k.fy))
    if size is not None:
        window = Window.centred(k, size, focal)
    else:
        window = Window.inside(k, focal) if kind == "window" else Window.around(k, focal)
    if min(window.size.width, window.size.height) < _MIN_SIDE:
        raise TargetError(
            f"--canvas {kind}",
            f"at least {_MIN_SIDE} px a side",
            f"{window.size}: the principal point ({np.mean(k.cx):.0f}, {np.mean(k.cy):.0f}) lies "
            f"at the border of the {k.size} frame",
            "Use --canvas padded or --canvas crop.",
        )
    in_crop = track.require_crop().source_from_crop
    canvas_from_crop = window.canvas_from_image @ in_crop
    return Canvas(kind, "source", track.source_frames, located, window, canvas_from_crop)


def _crop_canvas(track: Track, size: Size, options: CanvasOptions) -> Canvas:
    if options.scale is not None:
        raise TargetError("--scale", "no --scale with --canvas crop", f"{options.scale:g}",
                          "Use --size.")  # fmt: skip
    from_source = track.source_frames is not None and track.crop is not None
    in_crop = track.in_crop()
    k = in_crop.intrinsics
    # The tracker's field of view over the shorter side of the canvas.
    focal = float(np.median(k.fy)) * min(size.width, size.height) / k.size.height
    if from_source:
        located = track.in_source()
        window = Window.centred(located.intrinsics, size, focal)
        in_source = track.require_crop().source_from_crop
        frames = track.source_frames
        canvas_from_crop = window.canvas_from_image @ in_source
    else:
        located, frames = in_crop, track.crop_frames
        window = Window.centred(k, size, focal)
        canvas_from_crop = window.canvas_from_image
    if frames is None:
        raise MissingInputError(
            track.name,
            "images: source frames, the video, images/ or output/<name>/input/",
            "none",
            "Give --source DIR_OR_VIDEO or --actor DIR; bundles need --with-images for this.",
        )
    return Canvas("crop", "source" if from_source else "crop", frames, located, window,
                  canvas_from_crop)  # fmt: skip


def _square(side: int) -> Size:
    return Size(side, side)


def parse_size(text: str | None) -> Size | None:
    """Size from ``N`` or ``WIDTHxHEIGHT``; raises TargetError unless both are even and >= 64."""
    if text is None:
        return None
    parts = text.lower().split("x")
    ok = len(parts) in (1, 2) and all(p.isascii() and p.isdecimal() and len(p) < 6 for p in parts)
    sides = [int(p) for p in parts] if ok else []
    if not ok or any(s % 2 or s < _MIN_SIDE or s > 16384 for s in sides):
        raise TargetError(
            "--size", f"N or WIDTHxHEIGHT, even, at least {_MIN_SIDE}", text,
            "The principal point is the image centre; odd sizes lose half a pixel.",
        )  # fmt: skip
    return Size(sides[0], sides[-1])


def canvas_doubts(canvas: Canvas) -> list[Finding]:
    """Say how much of the canvas is repeated border, and how much of the image is cut off."""
    affine, image = canvas.window.canvas_from_image, canvas.track.intrinsics.size
    corners = [[0, 0], [image.width, image.height]]
    low, high = np.moveaxis(affine(np.broadcast_to(corners, (*np.shape(affine.tx), 2, 2))), -2, 0)
    size = np.array([canvas.size.width, canvas.size.height])
    shared = np.prod(np.maximum(np.minimum(high, size) - np.maximum(low, 0), 0), axis=-1)
    invented = float(np.max(1 - shared / np.prod(size)))
    lost = float(np.max(1 - shared / np.prod(high - low, axis=-1)))
    findings = []
    if canvas.kind != "padded" and invented > _NOTICEABLE:
        findings.append(
            Finding(
                "canvas-invented",
                "warning",
                f"canvas {canvas.title}",
                f"{invented:.0%} of it lies outside the {image} image and repeats border pixels.",
                measured=invented,
                fix="Leave --size out for the largest canvas without any, or give a smaller one.",
            )
        )
    if canvas.kind == "padded" and lost > _NOTICEABLE:
        findings.append(
            Finding(
                "canvas-cut",
                "warning",
                f"canvas padded {canvas.size}",
                f"{lost:.0%} of the {image} image does not fit and is cut off.",
                measured=lost,
                fix="Leave --size out to keep the whole frame, or give a --scale below 1.",
            )
        )
    return findings


def face_doubts(canvas: Canvas, landmarks: Floats) -> list[Finding]:
    """Say in how many frames the face leaves the canvas, and whether it is small.

    Parameters
    ----------
    canvas
        The canvas.
    landmarks
        (M, P, 2) edge-origin px of the canvas.

    """
    findings, size = [], canvas.size
    x, y = landmarks[..., 0], landmarks[..., 1]
    beyond = (x < 0) | (y < 0) | (x > size.width) | (y > size.height)
    outside = float(np.mean(beyond.any(axis=1)))
    if outside > 0:
        findings.append(
            Finding(
                "face-outside",
                "warning",
                f"canvas {canvas.title}",
                f"the face leaves the canvas in {outside:.0%} of the frames.",
                fix="Use --canvas padded, or a larger --size.",
            )
        )
    height = float(np.median(np.ptp(y, axis=1))) / size.height
    if height < _SMALL_FACE:
        findings.append(
            Finding(
                "face-small",
                "info",
                f"canvas {canvas.title}",
                f"the face fills {height:.0%} of its height.",
                fix="--canvas crop --size N draws the tracker's narrower view instead.",
            )
        )
    return findings
