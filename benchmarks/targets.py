"""Image stage of every further target against the bare decode + resize + encode to its format.

The targets that share gaussiantalker's stage and format are measured there; these write PNG, or
images under any K. Judged as `benchmarks.images` is: the ratio of CPU times, and against INTER_AREA
where a target resamples the frames to smaller crops itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.images import beside, clean
from benchmarks.inputs import write_video_track
from benchmarks.measure import Row, Table, side_by_side
from converter.dataset.scene import make_scene, write_scene_images
from converter.geometry.pixels import Size
from converter.media.images import render_crop
from converter.media.manifest import DatasetFolder
from converter.media.parallel import n_cores, ordered_map
from converter.registry import ReadOptions, no_progress, source, target
from converter.targets.flame_params import dataset as flame_params
from converter.targets.flashavatar import dataset as flashavatar
from converter.targets.gaussianavatars import dataset as gaussianavatars
from converter.targets.metrical_tracker import dataset as metrical_tracker
from converter.targets.metrical_tracker.plan import make_plan
from converter.track import Image, Track

Stage = tuple[Size, str, Callable[[DatasetFolder], object]]

_RESAMPLED = frozenset({"flame_params --size 512, cut anew", "flashavatar"})
"""Stages that make smaller crops of the frames by uncrop's own kernel."""


def run(folder: Path, quick: bool) -> Table:
    """Measure every target on a synthetic 1080p video."""
    n_frames, size = (8, (640, 360)) if quick else (300, (1920, 1080))
    truth = write_video_track(folder / "track", n_frames, size, size[1] // 2)
    track = source("metrical_tracker").read(truth.folder, ReadOptions(hash_inputs=False))
    table = Table(f"Images of the other targets, {n_cores()} threads, {n_frames} frames")
    for name, (drawn, suffix, write) in _stages(track).items():
        table.rows += _pair(name, track, drawn, suffix, write, folder / "out", 1 if quick else 2)
    return table


def _stages(track: Track) -> dict[str, Stage]:
    """Size, format and image stage of every target."""
    options: Any = target("gaussianavatars").options(flavour="vhap")
    avatars = gaussianavatars.make_plan(track, options)
    params: Any = target("flame_params").options(flavour="pointavatar")
    flame = flame_params.make_plan(track, params)
    anew: Any = target("flame_params").options(flavour="pointavatar", size=512)
    cut = flame_params.make_plan(track, anew)
    flash: Any = target("flashavatar").options()
    avatar = flashavatar.make_plan(track, flash)
    scene_options: Any = target("nerfstudio").options()
    scene = make_scene(track, scene_options)
    side: Any = target("metrical_tracker").options(size=512)
    crops = make_plan(track, side)
    return {
        "gaussianavatars --flavour vhap": (
            avatars.canvas.size, ".png",
            lambda d: gaussianavatars.write_images(avatars, d, no_progress),
        ),
        "flame_params": (
            flame.canvas.size, ".png",
            lambda d: flame_params.write_images(flame, d, params, no_progress),
        ),
        "flame_params --size 512, cut anew": (
            cut.canvas.size, ".png",
            lambda d: flame_params.write_images(cut, d, anew, no_progress),
        ),
        "flashavatar": (
            avatar.canvas.size, ".jpg",
            lambda d: flashavatar.write_images(avatar, d, flash, no_progress),
        ),
        "nerfstudio, colmap": (
            scene.canvas.size, ".jpg",
            lambda d: write_scene_images(scene, d, str, scene_options, no_progress),
        ),
        "metrical_tracker --size 512": (
            crops.size, ".png", lambda d: metrical_tracker.write_images(crops, d, no_progress),
        ),
    }  # fmt: skip


def _pair(
    name: str,
    track: Track,
    drawn: Size,
    suffix: str,
    write: Callable[[DatasetFolder], object],
    out: Path,
    repetitions: int,
) -> list[Row]:
    ways: dict[str, Callable[[], object]] = {
        f"{name}: {drawn} {suffix}": lambda: write(DatasetFolder(out)),
        f"bare decode + resize to {drawn} + {suffix}": partial(_bare, track, drawn, suffix, out),
    }
    if name in _RESAMPLED:
        ways["the same with INTER_AREA"] = partial(_bare, track, drawn, suffix, out, shrink=True)
    costs = side_by_side({n: partial(clean, out, way) for n, way in ways.items()}, repetitions)
    return beside(costs, len(track))


def _bare(track: Track, size: Size, suffix: str, out: Path, *, shrink: bool = False) -> None:
    """Decode, resize whole frames (or the tracker's cut), encode and write, on all cores."""
    frames = track.source_frames
    assert frames is not None

    # A target of square crops writes other pixels than the whole frame holds: PNG takes as long as
    # its picture is rich, so the bare loop has to write the same picture.
    crop = track.require_crop().at_size(size) if size.width == size.height else None

    def work(item: tuple[int, Image]) -> None:
        index, image = item
        if crop is None:
            small = cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
        elif shrink:
            box = crop.bbox
            cut = image[box.y_min : box.y_max, box.x_min : box.x_max]
            small = np.asarray(
                cv2.resize(cut, (size.width, size.height), interpolation=cv2.INTER_AREA), np.uint8
            )
        else:
            small = render_crop(image, crop)
        flags = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []
        (out / f"{index}{suffix}").write_bytes(cv2.imencode(suffix, small, flags)[1].tobytes())

    for _ in ordered_map(work, enumerate(frames.stream(range(len(track))))):
        pass
