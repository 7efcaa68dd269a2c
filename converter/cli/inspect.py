"""``uncrop inspect PATH``: what a track, a file or a written dataset holds, and what it lacks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from converter import registry
from converter.cli.arguments import TrackArguments, parse
from converter.cli.exits import EXIT_FINDINGS, EXIT_FINE
from converter.cli.numbers import (
    Numbers,
    crop_numbers,
    intrinsics_numbers,
    pose_numbers,
    size_numbers,
    track_numbers,
)
from converter.cli.report import Reporter
from converter.errors import FormatError
from converter.findings import Finding
from converter.geometry.crop import Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import OPENCV_FROM_OPENGL, Pose, euler_xyz_from_matrix
from converter.media.manifest import read_json
from converter.track import Track

_IDENTITY_JAW = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
_MANIFEST = "uncrop.json"

Row = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class InspectArguments(TrackArguments):
    """Say what a track, a .frame, a bbox.pt, a bundle or a written dataset holds."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A track (any of its folders), FILE.frame, bbox.pt, track.h5, or a dataset uncrop wrote."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(arguments: list[str]) -> int:
    """Print what is there; exit code 1 if a dataset fails its check; raises UncropError."""
    command = parse(arguments, "uncrop inspect", InspectArguments)
    path = command.path
    if path.is_dir() and (path / _MANIFEST).is_file():
        rows, facts, findings = _dataset(path)
        return _show(command, path, rows, facts, findings)
    if path.suffix == ".frame" and path.is_file():
        return _show(command, path, *_frame(path), [])
    if path.suffix == ".pt" and path.is_file():
        return _show(command, path, *_bbox(path), [])
    options = command.read_options(hash_inputs=False)
    track = registry.detect_source(path).read(path, options)
    return _show(command, path, track_rows(track), track_numbers(track), list(track.findings))


def _show(
    command: InspectArguments,
    path: Path,
    rows: list[Row],
    facts: Numbers,
    findings: list[Finding],
) -> int:
    failed = any(f.severity == "error" for f in findings)
    if command.json:
        listed = [dataclasses.asdict(f) for f in findings]
        steps = [text for name, text in rows if name == "step"]
        print(json.dumps({"ok": not failed, "path": str(path), "facts": facts, "steps": steps,
                          "findings": listed}, indent=1))  # fmt: skip
    else:
        with Reporter(quiet=False, json=False) as reporter:
            reporter.table(rows)
            reporter.findings(findings)
    return EXIT_FINDINGS if failed else EXIT_FINE


# --- a track ----------------------------------------------------------------------------------


def track_rows(track: Track) -> list[Row]:
    """Everything worth knowing about a track, as (name, text)."""
    rows = [("track", f"{track.name}, from {track.provenance.tracker}")]
    rows += [("frames", _frames_text(track))]
    rows += list(_camera_rows(track))
    rows += list(_pose_rows(track.w2c))
    rows += list(_flame_rows(track))
    rows += list(_part_rows(track))
    rows += [("step", step) for step in track.provenance.steps]
    return rows


def _frames_text(track: Track) -> str:
    ids = track.frame_ids
    text = f"{len(track)}, {ids[0]:05d} to {ids[-1]:05d}"
    n_missing = int(ids[-1] - ids[0]) + 1 - len(ids)
    text += f", {n_missing} missing" if n_missing else ""
    if track.times is not None:
        text += f"; {track.times[0]:.2f} s to {track.times[-1]:.2f} s at {track.fps:g} fps"
    return text


def _camera_rows(track: Track) -> Iterator[Row]:
    k = track.intrinsics
    yield f"K ({track.image_space})", _intrinsics_text(k)
    crop = track.crop
    if crop is None:
        yield (
            "crop",
            "no bbox.pt: cameras stay in the tracker's crops; give --bbox or --actor",
        )
        return
    scale = crop.crop_from_source
    yield (
        "crop",
        f"{crop.bbox} of {crop.source or 'unknown size'}, pad {crop.pad_x} and {crop.pad_y}, "
        f"resized to {crop.output} (scale {_pair(scale.sx, scale.sy)})",
    )
    if track.image_space == "source":
        yield "K (crop)", _intrinsics_text(k.map(scale, crop.output))
    else:
        size = crop.source or Size(crop.bbox.x_max, crop.bbox.y_max)
        note = "" if crop.source else " (size of the source frames unknown)"
        yield "K (source)", _intrinsics_text(k.map(crop.source_from_crop, size)) + note


def _intrinsics_text(k: Intrinsics) -> str:
    first = k[0] if k.n_frames else k
    per_frame = " in the first frame; it differs between frames" if k.n_frames else ""
    off_x, off_y = first.cx - k.size.width / 2, first.cy - k.size.height / 2
    return (
        f"focal {_pair(first.fx, first.fy)} px, principal point ({first.cx:.2f}, {first.cy:.2f}), "
        f"{off_x:+.2f}, {off_y:+.2f} px off centre, {k.size}, "
        f"fov {first.fov_x_deg:.2f} x {first.fov_y_deg:.2f} deg{per_frame}"
    )


def _pair(x: float, y: float) -> str:
    return f"{x:.6g}" if x == y else f"{x:.6g} x {y:.6g}"


def _pose_rows(w2c: Pose) -> Iterator[Row]:
    """Head angles against facing the camera, and distance."""
    pitch, yaw, roll = np.degrees(euler_xyz_from_matrix(w2c.change_axes(OPENCV_FROM_OPENGL).R)).T
    for name, angle in (("pitch", pitch), ("yaw", yaw), ("roll", roll)):
        yield name, f"{angle.min():.1f} to {angle.max():.1f} deg"
    z = w2c.t[:, 2]
    yield "distance", f"{z.min():.3f} to {z.max():.3f} m"


def _flame_rows(track: Track) -> Iterator[Row]:
    flame = track.flame
    if all(getattr(flame, name) is None for name in flame.__slots__):
        yield "FLAME", "no coefficients"
    for name in flame.__slots__:
        block = getattr(flame, name)
        if block is not None:
            yield f"FLAME {name}", _block_text(name, block)


def _block_text(name: str, block: Floats) -> str:
    if name in ("shape", "texture"):
        used = (
            "not optimised (all zero)" if not block.any() else f"norm {np.linalg.norm(block):.3g}"
        )
        return f"{block.shape[-1]} values, constant, {used}"
    text = f"{'x'.join(map(str, block.shape[1:]))} a frame"
    neutral = _IDENTITY_JAW if name == "jaw" else np.tile(_IDENTITY_JAW, 2) if name == "eyes" else 0
    if np.array_equal(block, np.broadcast_to(neutral, block.shape)):
        return f"{text}, not optimised (neutral in every frame)"
    if len(block) > 1 and np.array_equal(block, np.broadcast_to(block[0], block.shape)):
        return f"{text}, the same in every frame"
    return f"{text}, optimised"


def _part_rows(track: Track) -> Iterator[Row]:
    for name, points in (
        ("landmarks", track.landmarks),
        ("dense landmarks", track.dense_landmarks),
    ):
        if points is None:
            cost = "; GaussianTalker needs them" if name == "landmarks" else ""
            yield name, f"none{cost}"
        else:
            n = int(np.isfinite(points).all(axis=(1, 2)).sum())
            yield name, f"{points.shape[1]} points in {n} of {len(points)} frames"
    meshes = track.meshes
    yield (
        "meshes",
        (
            "none; targets that start from a mesh cannot be written"
            if meshes is None
            else f"{len(meshes.mean)} vertices, {len(meshes.faces)} faces"
        ),
    )
    for name, frames, cost in (
        ("crop images", track.crop_frames, "frame numbers cannot be checked by content"),
        ("source frames", track.source_frames, "datasets stay at the crops' resolution"),
    ):
        yield name, f"none; {cost}" if frames is None else f"{frames.size} from {frames.origin}"
    if track.central is not None:
        yield "second pose", f"to a central K; it moves the mesh by {track.central.residual_text}"
    yield "sound", _sound_text(track)


def _sound_text(track: Track) -> str:
    from converter.media.video import probe

    if track.video is None:
        return "no video; no aud.wav"
    has_sound = probe(track.video.locate()).has_audio
    return track.video.name if has_sound else f"none: {track.video.name} has no sound track"


# --- single files -----------------------------------------------------------------------------


def _frame(path: Path) -> tuple[list[Row], Numbers]:
    from converter.media.limits import DEFAULT_LIMITS
    from converter.sources.metrical_tracker.payload import read_frame

    payload = read_frame(path, DEFAULT_LIMITS)
    size = payload.img_size or Size(512, 512)
    rows = [
        ("frame id", "none" if payload.frame_id is None else f"{payload.frame_id:05d}"),
        ("written as", payload.written_as or "unknown (legacy stream)"),
        ("img_size", str(payload.img_size or "none")),
        ("K (crop)", _intrinsics_text(Intrinsics.from_matrix(payload.K, size))),
    ]
    rows += list(_pose_rows(Pose(payload.R[None], payload.t[None])))
    rows += [(f"FLAME {name}", f"{'x'.join(map(str, block.shape))}")
             for name, block in payload.flame.items()]  # fmt: skip
    rows += [("camera block", "none" if payload.camera is None else "present"),
             ("global step", str(payload.global_step))]  # fmt: skip
    facts = {
        "frame_id": payload.frame_id,
        "img_size": None if payload.img_size is None else size_numbers(payload.img_size),
        "intrinsics": intrinsics_numbers(Intrinsics.from_matrix(payload.K, size)),
        "pose": pose_numbers(Pose(payload.R[None], payload.t[None])),
        "flame": {name: list(block.shape) for name, block in payload.flame.items()},
        "has_camera_block": payload.camera is not None,
    }
    return rows, facts


def _bbox(path: Path) -> tuple[list[Row], Numbers]:
    from converter.media.limits import DEFAULT_LIMITS
    from converter.sources.metrical_tracker.reader import read_bbox

    bbox = read_bbox(path, DEFAULT_LIMITS)
    crop = Crop.from_bbox(bbox, None, Size(512, 512))
    odd = [n for n in (bbox.size.width, bbox.size.height) if n % 2]
    rows = [
        ("bbox", f"{bbox} (x_min, x_max, y_min, y_max), source pixels, half-open"),
        ("extent", f"{bbox.size}{'; odd: not written by the tracker itself' if odd else ''}"),
        ("pad", f"{crop.pad_x} left and right, {crop.pad_y} above and below"),
        ("scale", f"{_pair(crop.crop_from_source.sx, crop.crop_from_source.sy)} crop px per source "
         "px, for a 512x512 crop"),
    ]  # fmt: skip
    return rows, crop_numbers(crop)


def _dataset(path: Path) -> tuple[list[Row], Numbers, list[Finding]]:
    try:
        manifest = read_json(path / _MANIFEST)
        name = str(manifest["target"])
        if name not in registry.names("targets"):
            raise ValueError(f"that of {name}")
        target = registry.target(name)
        rows = [("dataset", f"{target.name}, from track {manifest['track']}")]
        rows += list(_canvas_rows(manifest))
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise FormatError(path / _MANIFEST, "the manifest of a dataset", str(error)) from None
    findings = target.check(path)
    failed = sum(f.severity == "error" for f in findings)
    lacking = sum(f.check == "part-missing" for f in findings)
    rows.append(("check", f"{failed} errors" if failed else "the cameras pass"))
    if lacking:
        rows.append(("training", f"not ready: {lacking} parts are missing, listed below"))
    facts = {key: manifest.get(key) for key in ("target", "track", "canvas", "image", "options")}
    facts |= {"n_frames": len(manifest["frame_ids"]), "n_errors": failed, "n_lacking": lacking}
    return rows, facts, findings


def _canvas_rows(manifest: dict[str, Any]) -> Iterator[Row]:
    canvas, image, ids = manifest.get("canvas"), manifest.get("image"), manifest["frame_ids"]
    frames = f"{len(ids)}, {ids[0]:05d} to {ids[-1]:05d}"
    if canvas is not None:
        yield (
            "canvas",
            f"{canvas['kind']} {canvas['width']}x{canvas['height']}, "
            f"focal {canvas['focal_px']:.2f} px, principal point {_centre_text(canvas)}, "
            f"drawn from the {canvas['base']} images",
        )
        if manifest["target"] == "gaussiantalker":
            frames = f"{len(ids)}; img_id 0 is {ids[0]:05d}.frame; frames.csv lists all"
    elif image is not None:
        yield "images", f"{image['width']}x{image['height']}, {image['drawn']}"
    yield "frames", frames
    yield from (("step", step) for step in manifest["steps"])


def _centre_text(canvas: dict[str, Any]) -> str:
    if "principal_px" not in canvas:
        return "at the centre"
    x, y = canvas["principal_px"]
    return f"({x:.2f}, {y:.2f})"
