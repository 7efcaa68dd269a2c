"""Images for consumers that take any K: source frames or the tracker's crops, as they are.

Nothing is centred and the pose is never touched; K is mapped with the image. A `View` is a `Canvas`
whose principal point is anywhere, so that everything that draws, records and proves a canvas serves
it as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas, choose_canvas
from converter.dataset.options import CanvasOptions, ViewOptions
from converter.dataset.record import canvas_facts
from converter.dataset.stand_in import StandInHead
from converter.errors import MissingInputError, TargetError
from converter.findings import Finding
from converter.geometry.crop import Window
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.track import Meshes, Track

_N_FACE_POINTS = 96


@dataclass(frozen=True, slots=True)
class View(Canvas):
    """Images under their own K."""

    @property
    def focal(self) -> float:
        """Focal length, px; the median where it varies."""
        return float(np.median(self.window.intrinsics.fx))

    @property
    def title(self) -> str:
        """Kind and size, for messages."""
        return f"{_WORDS[self.kind]} {self.size}"


_WORDS = {"padded": "source frames", "crop": "crops", "window": "window", "full": "full"}


def choose_view(track: Track, options: ViewOptions) -> tuple[Canvas, list[Finding]]:
    """Choose the images.

    Raises
    ------
    MissingInputError
        If they are not there.
    TargetError
        If --size does not fit.

    """
    options.require()
    space = options.space
    located = track.source_frames is not None and track.crop is not None
    if space == "auto":
        space = "source" if located and options.size is None else "crop"
    if space == "window":
        return choose_canvas(track, CanvasOptions(canvas="window"))
    return (_frames(track) if space == "source" else _crops(track, options.size, located)), []


def _frames(track: Track) -> View:
    if track.source_frames is None:
        raise MissingInputError(
            track.name, "source frames for --space source", "none",
            "Give --source DIR_OR_VIDEO, or use --space crop.",
        )  # fmt: skip
    placed = track.in_source()
    window = Window(PixelAffine.identity(), placed.intrinsics)
    in_crop = track.require_crop().source_from_crop
    return View("padded", "source", track.source_frames, placed, window, in_crop)


def _crops(track: Track, side: int | None, located: bool) -> View:
    cropped = track.in_crop()
    k, size = cropped.intrinsics, cropped.intrinsics.size
    if side is not None:
        if size.width != size.height:
            raise TargetError("--size", "a track of square crops", f"crops of {size}")
        size = Size(side, side)
    resized = PixelAffine.resize(k.size, size)
    kept = track.crop_frames
    if kept is not None and kept.size == size == k.size:
        window = Window(PixelAffine.identity(), k)
        return View("crop", "crop", kept, cropped, window, PixelAffine.identity())
    if located and track.source_frames is not None:
        from_source = resized @ track.require_crop().crop_from_source
        window = Window(from_source, k.map(resized, size))
        return View("crop", "source", track.source_frames, track.in_source(), window, resized)
    if track.crop_frames is None:
        raise MissingInputError(
            track.name, "images: source frames, the video, images/ or output/<name>/input/", "none",
            "Give --source DIR_OR_VIDEO or --actor DIR; bundles need --with-images for this.",
        )  # fmt: skip
    window = Window(resized, k.map(resized, size))
    return View("crop", "crop", track.crop_frames, cropped, window, resized)


def view_facts(canvas: Canvas) -> dict[str, Any]:
    """Return what the manifest keeps, as `canvas_facts`; with the principal point of a view."""
    if not isinstance(canvas, View):
        return canvas_facts(canvas)
    k = canvas.window.intrinsics
    centre = [float(np.median(k.cx)), float(np.median(k.cy))]
    return {**canvas_facts(canvas), "kind": _WORDS[canvas.kind], "principal_px": centre}


def one_intrinsics(canvas: Canvas) -> Intrinsics | None:
    """K of all written images, if one serves them all."""
    k = canvas.window.intrinsics
    if k.n_frames is None:
        return k
    spread = float(np.max(np.ptp(k.matrix, axis=0)))
    return k[0] if spread <= 1e-9 * float(np.max(k.fx)) else None


def meshes_for_proof(track: Track) -> Meshes:
    """The track's meshes, or a head-sized shell to project where it has none."""
    return StandInHead(len(track)) if track.meshes is None else track.meshes


def landmarks_on(track: Track, canvas: Canvas, positions: NDArray[np.int64]) -> Floats:
    """Landmarks (M, 68, 2) on the written images, NaN where there are none."""
    if track.landmarks is None:
        return np.full((len(positions), 68, 2), np.nan)
    return canvas.from_crop(positions, track.landmarks[positions])


def head_points(track: Track, canvas: Canvas, positions: NDArray[np.int64]) -> Floats:
    """Some points (M, P, 2) of the head on the written images: they say where the face is."""
    mean = meshes_for_proof(track).mean.astype(np.float64)
    mean = mean[:: max(1, len(mean) // _N_FACE_POINTS)]
    k, w2c = canvas.window.intrinsics, canvas.w2c
    return np.stack([k[int(p)].project(w2c[int(p)](mean)) for p in positions])
