"""Writing the tracker's folders, proving them, and only then giving them their name."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.bundle.contents import BundleVideo
from converter.bundle.write import write_bundle
from converter.dataset.frame_blocks import frame_contents
from converter.dataset.proof import require_aligned
from converter.dataset.view import View, head_points
from converter.findings import counted
from converter.geometry.crop import Window
from converter.geometry.pixels import Floats, PixelAffine, index_from_pixels
from converter.media.arrays import write_npy
from converter.media.contact_sheet import ProofFrame, contact_sheet
from converter.media.depth import depth_bytes
from converter.media.images import encode_image, read_image, render_crop
from converter.media.manifest import RECORD, DatasetFolder
from converter.media.meshes import ply_bytes
from converter.media.parallel import ordered_map
from converter.media.torchfile import torch_bytes
from converter.media.video import VIDEO_SUFFIXES, VideoFrames
from converter.registry import Progress, Written
from converter.targets.metrical_tracker.options import Options
from converter.targets.metrical_tracker.plan import Plan
from converter.track import Frames, Image

_N_PROOFS = 6
_DRAWN = {
    "crop": "the tracker's crops",
    "cut": "cut from the source frames",
    "source": "whole source frames",
    "none": "no images",
}


def write_files(
    plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    folder = dataset.root
    _write_frames(plan, dataset)
    _write_meshes(plan, dataset, progress)
    _write_depth(plan, dataset)
    write_images(plan, dataset, progress)
    aligned = _require_aligned(plan, folder)
    _write_landmarks(plan, dataset)
    _write_settings(plan, dataset)
    _write_source(plan, dataset, progress)
    write_bundle(plan.original, folder / RECORD, meshes="mean")
    dataset.add(RECORD)
    proof = _proof(plan, folder)
    if proof is not None:
        dataset.write("proof.jpg", proof)
    return (_images_line(plan), aligned)


def report(plan: Plan, out: Path, options: Options) -> Written:
    """Say what was written, and what to do next."""
    return Written(
        path=out,
        findings=plan.findings,
        next_command=_next_command(plan, out),
        facts={"n_frames": len(plan.track), "size": str(plan.size)},
    )


def _next_command(plan: Plan, out: Path) -> str:
    folder = quote(str(out))
    if plan.meshes is None or plan.drawn == "none":
        return f"uncrop inspect {folder}"
    source = "" if plan.video or plan.source_files else " --source DIR_OR_VIDEO"
    return f"convert {folder} --to gaussiantalker -o OUT{source}"


def _output(plan: Plan, name: str) -> str:
    return f"output/{plan.name}/{name}"


def _actor(plan: Plan, name: str) -> str:
    return f"input/{plan.name}/{name}"


# --- files ------------------------------------------------------------------------------------


def _write_frames(plan: Plan, dataset: DatasetFolder) -> None:
    content: Any
    for content in frame_contents(plan.track):
        stem = content["frame_id"]
        name = _output(plan, f"checkpoint/{stem}.frame")
        dataset.write(name, torch_bytes(content, stem=stem, tensors=False, where=name))


def _write_meshes(plan: Plan, dataset: DatasetFolder, progress: Progress) -> None:
    if plan.meshes is None:
        return
    for i, frame_id in enumerate(plan.track.frame_ids):
        mesh = ply_bytes(plan.meshes.vertices(i), plan.meshes.faces)
        dataset.write(_output(plan, f"mesh/{frame_id:05d}.ply"), mesh)
        progress("write meshes", i + 1, len(plan.track))


def _write_depth(plan: Plan, dataset: DatasetFolder) -> None:
    if plan.depth is None:
        return
    for i, frame_id in enumerate(plan.track.frame_ids):
        depth = depth_bytes(plan.depth.read(i, plan.size))
        dataset.write(_output(plan, f"depth/{frame_id:05d}.png"), depth)


def write_images(plan: Plan, dataset: DatasetFolder, progress: Progress) -> None:
    """Every image twice, as the tracker keeps it: under its own number and under the frame's."""
    if plan.drawn == "none":
        return

    def work(item: tuple[int, Image]) -> None:
        i, image = item
        if plan.drawn == "cut":
            image = render_crop(image, plan.track.require_crop())
        names = [_output(plan, f"input/{plan.track.frame_ids[i]:05d}.png")]
        if plan.numbers is not None:
            names.append(_actor(plan, f"images/{plan.numbers.images[i]:05d}.png"))
        dataset.write(names[0], encode_image(image, ".png"), *names[1:])

    for done, _ in enumerate(ordered_map(work, enumerate(_images(plan))), start=1):
        progress("write images", done, len(plan.track))
    if plan.numbers is not None and plan.numbers.blanks:
        blank = encode_image(np.zeros((*plan.size.shape, 3), np.uint8), ".png")
        for number in plan.numbers.blanks:
            dataset.write(_actor(plan, f"images/{number:05d}.png"), blank)


def _images(plan: Plan) -> Iterator[Image]:
    """The images that are written, one per frame; or the source frames that they are cut from."""
    crops, source = plan.track.crop_frames, plan.original.source_frames
    frames = crops if plan.drawn == "crop" else source
    return iter(()) if frames is None else frames.stream(range(len(plan.track)))


def _require_aligned(plan: Plan, folder: Path) -> str:
    """Hold images that were cut anew against the tracker's own; see `proof.require_aligned`."""
    original, source, crop = plan.original, plan.original.source_frames, plan.track.crop
    if plan.drawn != "cut" or source is None or crop is None or original.crop is None:
        return ""
    window = Window(crop.crop_from_source, plan.track.intrinsics)
    resized = PixelAffine.resize(original.crop.output, crop.output)
    view = View("crop", "source", source, original.in_source(), window, resized)
    positions = np.arange(len(plan.track))
    names = [_output(plan, f"input/{i:05d}.png") for i in plan.track.frame_ids]
    points = head_points(original, view, positions)
    return require_aligned(
        original, view, positions, points, lambda i: read_image(folder / names[i])
    )


def _write_landmarks(plan: Plan, dataset: DatasetFolder) -> None:
    """kpt/ in index coordinates, kpt_dense/ edge origin; zeros say that there are none."""
    if plan.numbers is None:
        return
    for folder, points in (
        ("kpt", plan.track.landmarks),
        ("kpt_dense", plan.track.dense_landmarks),
    ):
        if points is None:
            continue
        for number, found in zip(plan.numbers.images, points, strict=True):
            stored = np.zeros(found.shape)
            if np.isfinite(found).all():
                stored = index_from_pixels(found) if folder == "kpt" else found
                stored = stored.astype(np.float32 if folder == "kpt" else np.float64)
            dataset.write(_actor(plan, f"{folder}/{number:05d}.npy"), _npy(stored))
        for number in plan.numbers.blanks:
            lost = np.zeros(points.shape[1:])
            dataset.write(_actor(plan, f"{folder}/{number:05d}.npy"), _npy(lost))


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    write_npy(stream, array)
    return stream.getvalue()


def _write_settings(plan: Plan, dataset: DatasetFolder) -> None:
    """The yaml by which the tracker, and uncrop, find the rest; and bbox.pt."""
    height, width = plan.size.shape
    lines = [
        f"actor: './input/{plan.name}'",
        "save_folder: './output/'",
        f"fps: {plan.track.fps:.12g}",
        f"image_size: [{height}, {width}]",
        f"crop_image: {str(plan.crop_image).lower()}",
    ]
    if plan.numbers is not None:
        lines.append(f"begin_frames: {plan.numbers.begin_frames}")
    dataset.write(f"{plan.name}.yml", "\n".join(lines) + "\n")
    crop = plan.track.crop
    if crop is not None and plan.crop_image:
        b = crop.bbox
        corners = np.array([b.x_min, b.x_max, b.y_min, b.y_max], np.int64)
        dataset.write(_actor(plan, "bbox.pt"), torch_bytes(corners, stem="bbox", tensors=False))


def _write_source(plan: Plan, dataset: DatasetFolder, progress: Progress) -> None:
    video, source = plan.original.video, plan.original.source_frames
    if plan.video and isinstance(source, VideoFrames | BundleVideo):
        path = Path(source.path if isinstance(source, VideoFrames) else source.file.path)
        _copy_video(plan, dataset, path, path.name if video is None else video.name)
    elif plan.source_files and source is not None and plan.numbers is not None:
        if video is not None:  # for its sound
            _copy_video(plan, dataset, video.locate(), video.name)
        _write_source_frames(plan, dataset, source, plan.numbers.images, progress)


def _copy_video(plan: Plan, dataset: DatasetFolder, path: Path, named: str) -> None:
    suffix = Path(named).suffix.lower()
    name = _actor(plan, "video" + (suffix if suffix in VIDEO_SUFFIXES else ".mp4"))
    (dataset.root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, dataset.root / name)
    dataset.add(name)


def _write_source_frames(
    plan: Plan,
    dataset: DatasetFolder,
    source: Frames,
    numbers: NDArray[np.int64],
    progress: Progress,
) -> None:
    """The frames of the track, and black ones for all others, so that places stay places."""
    stream = source.stream(range(len(plan.track)))
    for done, (number, frame) in enumerate(zip(numbers, stream, strict=True), start=1):
        dataset.write(_actor(plan, f"source/{number:05d}.png"), encode_image(frame, ".png"))
        progress("write source frames", done, len(plan.track))
    blank = encode_image(np.zeros((*source.size.shape, 3), np.uint8), ".png")
    for number in sorted(set(range(1, int(numbers[-1]))) - set(numbers.tolist())):
        dataset.write(_actor(plan, f"source/{number:05d}.png"), blank)


# --- proof and record -------------------------------------------------------------------------


def _proof(plan: Plan, folder: Path) -> bytes | None:
    """Contact sheet of the written images under the written cameras; None without either."""
    if plan.drawn == "none" or plan.meshes is None:
        return None
    picks = np.unique(np.linspace(0, len(plan.track) - 1, _N_PROOFS).round().astype(int))
    landmarks = plan.track.landmarks
    tiles = []
    for i in picks:
        frame_id = int(plan.track.frame_ids[i])
        image = read_image(folder / _output(plan, f"input/{frame_id:05d}.png"))
        vertices = plan.meshes.vertices(int(i)).astype(np.float64)
        marks: Floats = np.full((68, 2), np.nan) if landmarks is None else landmarks[i]
        seen = plan.track.project(int(i), vertices)
        tiles.append(ProofFrame(image, seen, marks, f"frame {frame_id:05d}"))
    title = f"{plan.name}  metrical-tracker {plan.size}  mesh cyan, landmarks red"
    return contact_sheet(tiles, plan.meshes.faces, title)


def _images_line(plan: Plan) -> str:
    crop = plan.track.crop
    box = f", bbox {crop.bbox}" if crop is not None and plan.crop_image else ""
    return f"{counted(len(plan.track), 'frame')}, images {plan.size}, {_DRAWN[plan.drawn]}{box}"


def facts(plan: Plan, options: Options) -> dict[str, Any]:
    """Return what the manifest keeps."""
    affine = plan.image_from_original
    return {
        "track": plan.original.name,
        "folder": plan.name,
        "numbered": plan.numbers is not None,
        "image": {
            "width": plan.size.width,
            "height": plan.size.height,
            "drawn": _DRAWN[plan.drawn],
            "image_from_track": [affine.sx, affine.sy, affine.tx, affine.ty],
        },
        "frame_ids": plan.track.frame_ids.tolist(),
        "options": asdict(options),
        "steps": list(plan.original.provenance.steps),
        "findings": [asdict(f) for f in (*plan.original.findings, *plan.findings)],
    }
