"""Choosing the canvas: which part of the picture, at which scale, under a central K."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.dataset.central import with_central
from converter.dataset.options import MIN_SIDE, CanvasOptions, parse_sides
from converter.errors import ConventionError, FitError, MissingInputError, TargetError
from converter.findings import Finding
from converter.geometry.crop import Window
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.geometry.pose import Pose
from converter.media.resampling import reach, resample
from converter.media.video import Part, VideoFrames
from converter.track import CentralCameras, Frames, Image, Track

_DEFAULT_CROP_SIZE = 512
_MOST_INVENTED = {"window": 0.5, "padded": 0.75}
"""How much of a canvas may repeat border pixels. Padded by itself never exceeds three quarters."""

_HEAD_FIELD_M = 0.4
"""What trackers' crops show of the world at the head, roughly."""
_MOST = 0.75
"""Of an image that is shown to more than that, all colours are converted."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The images that are written, and how they come from the images at hand.

    Attributes
    ----------
    kind
        full, window, padded or crop.
    base
        Which images are drawn: the source frames, or the tracker's crops where there are none.
    frames
        These images.
    track
        The track with K of these images.
    window
        Canvas size, its central intrinsics, and the map from these images.
    canvas_from_crop
        Map for everything that lives in the tracker's crop, such as landmarks.

    """

    kind: Literal["full", "window", "padded", "crop"]
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
    def central(self) -> CentralCameras | None:
        """The refitted cameras that full needs; None for the exact canvases."""
        return self.track.central if self.kind == "full" else None

    @property
    def w2c(self) -> Pose:
        """Poses that belong to the canvas' intrinsics: the tracker's own, but for full."""
        return self.track.w2c if self.central is None else self.central.w2c

    @property
    def title(self) -> str:
        """Kind and size, for messages."""
        return f"{self.kind} {self.size}"

    @property
    def drawn(self) -> str:
        """``, from source frames``: what the images are drawn from, unless the title says it."""
        base = "source frames" if self.base == "source" else "the tracker's crops"
        return "" if self.title.startswith(base) else f", from {base}"

    def stream(self, positions: Sequence[int]) -> Iterator[Callable[[Image | None], Image]]:
        """Decode the images of track frames ``positions``, ascending, in one pass.

        Yields
        ------
        ``draw(out)``, one for each: draws the canvas (H, W, 3), into ``out`` if it is an array; to
        be called in any thread.

        """
        part = None
        if isinstance(self.frames, VideoFrames):
            part = self._part()
            images = self.frames.stream(positions, part)
        else:
            images = self.frames.stream(positions)
        for position, image in zip(positions, images, strict=True):
            yield partial(self._draw, image, part, position)

    def _draw(self, image: Image, part: Part | None, position: int, out: Image | None) -> Image:
        if self.kind == "full":
            return image[: self.size.height, : self.size.width]
        affine = self.window.canvas_from_image[position]
        if part is not None:
            affine = affine @ PixelAffine(1.0, 1.0, float(part.x), float(part.y))
        return resample(image, affine, self.size, out)

    def _part(self) -> Part | None:
        """Return the part of the images that the canvas shows; None if it is most of them."""
        image, canvas = self.frames.size, self.size
        if self.kind == "full" or any(side % Part.STEP for side in image.shape):
            return None
        a = self.window.canvas_from_image
        back, margin, step = a.inverse(), reach(float(np.min(a.sx)), float(np.min(a.sy))), Part.STEP
        low = np.array([np.min(back.tx), np.min(back.ty)])
        high = np.array([np.max(back.sx * canvas.width + back.tx),
                         np.max(back.sy * canvas.height + back.ty)])  # fmt: skip
        first = np.maximum(np.floor((low - margin) / step).astype(int) * step, 0)
        last = np.ceil((high + margin) / step).astype(int) * step
        width, height = np.minimum(last, (image.width, image.height)) - first
        if min(width, height) <= 0 or width * height > _MOST * image.width * image.height:
            return None
        return Part(int(first[0]), int(first[1]), Size(int(width), int(height)))

    def kept(self, track: Track) -> Track:
        """Return the track that was given to `choose_canvas` with what was fitted for it."""
        found = self.track
        return replace(track, central=found.central, provenance=found.provenance)

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
    FitError
        If full was asked for and moves the mesh by more than ``options.max_residual``.

    """
    options.require()
    sides = parse_sides(options.size)
    size = None if sides is None else Size(*sides)
    scale = 1.0 if options.scale is None else options.scale
    if options.canvas == "auto":
        return _best_canvas(track, size, scale, options)
    if options.canvas == "full":
        return _full_canvas(track, options)
    if options.canvas == "crop":
        return _crop_canvas(track, size), []
    return _source_canvas(track, options.canvas, size, scale), []


def _best_canvas(
    track: Track, size: Size | None, scale: float, options: CanvasOptions
) -> tuple[Canvas, list[Finding]]:
    """The whole frame where it can be had, else the most of it that is exact, else the crops."""
    if track.source_frames is None or track.crop is None:
        lost = "are no source frames" if track.source_frames is None else "is no bbox.pt"
        parts = {"--source DIR_OR_VIDEO": track.source_frames, "--bbox FILE": track.crop}
        wanted = " and ".join(option for option, part in parts.items() if part is None)
        finding = Finding(
            "canvas-crop",
            "warning",
            track.name,
            f"there {lost}, so the images come from the tracker's crops.",
            fix=f"For native resolution give {wanted}.",
        )
        return _crop_canvas(track, size), [finding]
    window = partial(_source_canvas, track, "window", size, scale)
    if track.meshes is None or options.size is not None or options.scale is not None:
        return window(), []
    try:
        return _full_canvas(track, options)
    except (FitError, ConventionError) as error:
        canvas = window()
        finding = Finding(
            "canvas-full-unfit",
            "info",
            f"canvas {canvas.title}",
            "it was chosen because a pose for a principal point in the centre of the whole frame "
            f"would move the mesh by {error.found}.",
            fix="--max-residual PX allows more; --canvas padded keeps the whole frame, exactly.",
        )
        return canvas, [finding]


def _full_canvas(track: Track, options: CanvasOptions) -> tuple[Canvas, list[Finding]]:
    frames = _require_source(track, "full")
    try:
        located = with_central(track, options.max_residual).in_source()
    except FitError as error:
        remedy = f"{exact_alternatives(track)} --max-residual PX allows more."
        raise FitError(error.where, error.expected, error.found, remedy) from None
    central, native = located.central, located.intrinsics.size
    if central is None:
        raise FitError(track.name, "central cameras", "none")
    window = Window(PixelAffine.identity(), central.intrinsics)
    findings = []
    if window.size != native:
        findings.append(
            Finding(
                "canvas-odd",
                "info",
                f"canvas full {window.size}",
                f"the odd last column or row of the {native} frames is left out.",
            )
        )
    in_crop = track.require_crop().source_from_crop
    return Canvas("full", "source", frames, located, window, in_crop), findings


def exact_alternatives(track: Track) -> str:
    """Say what the canvases would be that leave the pose alone."""
    k = track.in_source().intrinsics
    focal = float(np.median(k.fy))
    texts = [f"--canvas padded, {Window.around(k, focal).size} with repeated borders"]
    with suppress(ConventionError):  # the principal point lies outside the frame
        texts.insert(0, f"--canvas window, {Window.inside(k, focal).size} of the {k.size}")
    return f"Exact are {' and '.join(texts)}." if texts[1:] else f"Exact is {texts[0]}."


def residual_lines(canvas: Canvas) -> list[str]:
    """Lines for the summary: what full costs, and what the exact canvases would be."""
    if canvas.central is None:
        return []
    return [
        f"pose refitted to that principal point: the mesh moves by {canvas.central.residual_text}",
        exact_alternatives(canvas.track),
    ]


def _require_source(track: Track, kind: str) -> Frames:
    if track.source_frames is None:
        raise MissingInputError(
            track.name,
            f"source frames for --canvas {kind}",
            "none",
            "Give --source DIR_OR_VIDEO, or use --canvas crop.",
        )
    return track.source_frames


def _source_canvas(
    track: Track, kind: Literal["window", "padded"], size: Size | None, scale: float
) -> Canvas:
    frames = _require_source(track, kind)
    located = track.in_source()
    k = located.intrinsics
    focal = scale * float(np.median(k.fy))
    if size is not None:
        window = Window.centred(k, size, focal)
        invented = shares(window, k.size)[0]
        if invented > _MOST_INVENTED[kind]:
            raise TargetError(
                "--size", f"a canvas of which at most {_MOST_INVENTED[kind]:.0%} lies outside the "
                f"{k.size} image", f"{size}, of which {invented:.0%} does",
                "Leave --size out for the canvas that fits, or give a smaller one.",
            )  # fmt: skip
    else:
        window = Window.inside(k, focal) if kind == "window" else Window.around(k, focal)
    if min(window.size.width, window.size.height) < MIN_SIDE:
        raise TargetError(
            f"--canvas {kind}",
            f"at least {MIN_SIDE} px a side",
            f"{window.size}: the principal point ({np.mean(k.cx):.0f}, {np.mean(k.cy):.0f}) lies "
            f"at the border of the {k.size} frame",
            "Use --canvas padded or --canvas crop.",
        )
    in_crop = track.require_crop().source_from_crop
    canvas_from_crop = window.canvas_from_image @ in_crop
    return Canvas(kind, "source", frames, located, window, canvas_from_crop)


def shares(window: Window, image: Size) -> tuple[float, float]:
    """Return how much of a canvas lies outside its image, and of the image outside the canvas."""
    affine = window.canvas_from_image
    corners = [[0, 0], [image.width, image.height]]
    low, high = np.moveaxis(affine(np.broadcast_to(corners, (*np.shape(affine.tx), 2, 2))), -2, 0)
    size = np.array([window.size.width, window.size.height])
    shared = np.prod(np.maximum(np.minimum(high, size) - np.maximum(low, 0), 0), axis=-1)
    invented = float(np.max(1 - shared / np.prod(size)))
    return invented, float(np.max(1 - shared / np.prod(high - low, axis=-1)))


def _crop_canvas(track: Track, size: Size | None) -> Canvas:
    size = size or _square(_DEFAULT_CROP_SIZE)
    from_source = track.source_frames is not None and track.crop is not None
    in_crop = track.in_crop()
    k = in_crop.intrinsics
    # The tracker's field of view over the shorter side of the canvas.
    side = min(size.width, size.height)
    focal = float(np.median(k.fy)) * side / k.size.height
    if from_source and k.size == track.require_crop().source:
        # A tracker without a constant crop: the whole frame is no view of the head.
        focal = max(focal, side * float(np.median(in_crop.w2c.t[:, 2])) / _HEAD_FIELD_M)
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
