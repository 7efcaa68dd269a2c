"""A corrected copy of a track: what has one right answer is mended, the rest is named and left.

Only damaged .frame files are written anew; everything else is copied as it is. The copy is laid out
as the tracker does::

    OUT/NAME.yml                when there was one; its actor is input/ACTOR
    OUT/input/ACTOR/            bbox.pt, images, kpt, source, video ...
    OUT/output/NAME/            checkpoint, mesh, depth, input
    OUT/uncrop-fix.json         what was mended, and the hash of every file
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, MissingInputError, UncropError
from converter.findings import Finding, counted
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import OPENCV_FROM_PYTORCH3D, Pose, rotation_6d_from_matrix
from converter.media.atomic import replace_folder
from converter.media.files import scan_folder, sha256_of
from converter.media.manifest import to_json
from converter.media.torchfile import read_torch, write_torch
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.cameras import brief_K, leftover_frames
from converter.sources.metrical_tracker.evidence import (
    MIN_SHARE,
    landmark_residuals,
    landmark_share,
)
from converter.sources.metrical_tracker.reader import box_of_corners
from converter.validation.checking import all_checks, run_check
from converter.validation.evidence import CheckSkipped, only
from converter.validation.report import Report
from converter.validation.tracked import Tracked
from converter.validation.validate import ValidateOptions, validate

FIX_MARKER = "uncrop-fix.json"
_CLEARLY = 0.8


@dataclass(frozen=True, slots=True)
class AppliedFix:
    """One thing that was mended.

    Attributes
    ----------
    check
        Id of the check that had found it.
    where
        Quantity or file.
    before, after
        What was there, and what is there now.
    frame_ids
        The frames; empty where it speaks of the track.

    """

    check: str
    where: str
    before: str
    after: str
    frame_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FixResult:
    """What `fix` did.

    Attributes
    ----------
    path
        The corrected copy; None where there was nothing that could be mended.
    applied
        What was mended.
    left
        Findings, of severity warning or error, that the copy still has.

    """

    path: Path | None
    applied: tuple[AppliedFix, ...]
    left: tuple[Finding, ...]


Content = dict[Any, Any]


@dataclass
class _Plan:
    """What is to be done to the copy."""

    applied: list[AppliedFix] = field(default_factory=list)
    edits: dict[int, list[Callable[[Content], None]]] = field(default_factory=dict)
    """By position in `Tracked.usable`."""
    names: dict[Path, str] = field(default_factory=dict)
    """New names of .frame files."""
    dropped: set[int] = field(default_factory=set)
    """Frames that are left out, with their meshes and images."""
    stray_dumps: set[int] = field(default_factory=set)
    bbox: list[int] | None = None

    def edit(self, positions: NDArray[np.int64], make: Callable[[int], Callable[[Content], None]]
             ) -> None:  # fmt: skip
        for i in positions.tolist():
            self.edits.setdefault(i, []).append(make(i))


def fix(
    path: Path, out: Path, options: ReadOptions | None = None, *, overwrite: bool = False
) -> FixResult:
    """Write a corrected copy of a metrical-tracker track.

    Parameters
    ----------
    path
        Any of the track's folders.
    out
        Folder to write.
    options
        What the user says about the track.
    overwrite
        Replace an earlier copy that nobody has changed.

    Raises
    ------
    UncropError
        If there is no track, or ``out`` cannot be written.

    """
    options = options or ReadOptions(hash_inputs=False)
    track = Tracked(path, options, thorough=False)
    stamps = _stamps(track)
    with np.errstate(all="ignore"):
        plan = _plan(track)
    if not plan.applied:
        return FixResult(None, (), _left(validate(path, ValidateOptions(read=options))))
    with replace_folder(out, overwrite, FIX_MARKER) as new:
        _write(track, plan, new)
        _require_unchanged(stamps)
        said = ReadOptions(
            source=options.source, begin_frames=options.begin_frames, fps=options.fps,
            hash_inputs=False, limits=options.limits,
        )  # fmt: skip
        left = _left(validate(new, ValidateOptions(read=said)))
        _write_marker(new, plan)
    left = tuple(
        replace(f, where=f.where.replace(str(new), str(out)),
                message=f.message.replace(str(new), str(out)))
        for f in left
    )  # fmt: skip
    return FixResult(Path(out), tuple(plan.applied), left)


def _left(report: Report) -> tuple[Finding, ...]:
    return tuple(f for f in report.findings if f.severity != "info")


# --- what is to be mended ---------------------------------------------------------------------


def _plan(track: Tracked) -> _Plan:
    plan = _Plan()
    for step in (_names, _leftovers, _stray, _poses, _blocks, _intrinsics, _sizes, _bbox):
        try:
            step(track, plan)
        except CheckSkipped:
            continue
    return plan


def _ids(track: Tracked, positions: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(track.cameras.ids[i]) for i in positions)


def _names(track: Tracked, plan: _Plan) -> None:
    """Give renamed files the name that their frame_id and their archive say."""
    moved = [
        p for p in track.payloads
        if p.frame_id is not None and p.frame_id != int(p.path.stem)
    ]  # fmt: skip
    certain = [p for p in moved if p.written_as is not None and p.written_as.isdecimal()
               and int(p.written_as) == p.frame_id]  # fmt: skip
    wanted = [p.frame_id for p in certain]
    staying = {f.number for f in track.frames} - {int(p.path.stem) for p in certain}
    if not certain or len(set(wanted)) < len(wanted) or staying & set(wanted):
        return
    for p in certain:
        plan.names[p.path] = f"{p.frame_id:05d}.frame"
    first = certain[0]
    plan.applied.append(
        AppliedFix("frames-renamed", "checkpoint", f"{first.path.name} holds frame "
                   f"{first.frame_id:05d}", f"it is named {plan.names[first.path]}",
                   tuple(sorted(int(p.path.stem) for p in certain)))
    )  # fmt: skip


def _leftovers(track: Tracked, plan: _Plan) -> None:
    """Leave out what initialisation left behind."""
    payloads = track.payloads
    if any(p.global_step is None for p in payloads):
        return
    numbers = [int(payloads[i].path.stem) for i in leftover_frames(payloads)]
    if numbers and len(numbers) < len(track.numbers):
        plan.dropped |= set(numbers)
        plan.applied.append(
            AppliedFix("frames-leftover", "checkpoint", f"{len(numbers)} keyframe fits of "
                       "initialisation", "left out, with their meshes and images", tuple(numbers))
        )  # fmt: skip


def _stray(track: Tracked, plan: _Plan) -> None:
    """Leave out images that belong to no frame."""
    last = track.numbers[-1]
    stray = {i for i in track.files.dumps if i > last}
    if stray:
        plan.stray_dumps = stray
        plan.applied.append(
            AppliedFix(
                "dumps-stray", "input", f"{counted(len(stray), 'image')} of no frame", "left out"
            )
        )


def _poses(track: Tracked, plan: _Plan) -> None:
    """Take the pose from the camera block where the stored one is a known rewrite of it."""
    cameras = track.cameras
    for cause in sorted(set(cameras.pose_cause.tolist()) - {"", "unknown", "no block", "invalid"}):
        positions = np.flatnonzero(cameras.pose_cause == cause)
        plan.edit(positions, lambda i: _set_pose(cameras.block_pose[i]))
        check = "rotation-transposed" if cause == "R is transposed" else "pose-axes"
        plan.applied.append(
            AppliedFix(check, "opencv.R, opencv.t", cause, "the pose of the camera block",
                       _ids(track, positions))
        )  # fmt: skip


def _blocks(track: Tracked, plan: _Plan) -> None:
    """Where both blocks differ for no known reason, keep the one that fits the landmarks."""
    cameras = track.cameras
    positions = np.flatnonzero((cameras.pose_cause == "unknown") & cameras.has_block)
    if not len(positions):
        return
    winner = _better_block(track, positions)
    if winner == "opencv":
        plan.edit(positions, lambda i: _set_block(cameras.pose[i]))
        done = "camera.R, camera.t", "another camera than opencv", "that of opencv"
    elif winner == "camera":
        plan.edit(positions, lambda i: _set_pose(cameras.block_pose[i]))
        done = "opencv.R, opencv.t", "another camera than the camera block", "that of the block"
    else:
        return
    plan.applied.append(AppliedFix("pose-differs", *done, _ids(track, positions)))


def _better_block(track: Tracked, positions: NDArray[np.int64]) -> str:
    """Which block puts the mesh on the landmarks: "opencv", "camera", or "" for neither."""
    cameras = track.cameras
    scores = {}
    points = track.all_landmarks()
    meshed = set(track.with_mesh_files)
    there = [int(i) for i in positions if i in meshed and points is not None
             and np.isfinite(points[i]).all()]  # fmt: skip
    if not there or points is None:
        return ""
    for name, pose in (("opencv", cameras.pose), ("camera", cameras.block_pose)):
        chosen = np.zeros(len(cameras.ids), bool)
        chosen[positions] = True
        R = np.where(chosen[:, None, None], pose.R, cameras.pose_believed.R)
        t = np.where(chosen[:, None], pose.t, cameras.pose_believed.t)
        tried = track.track_with(cameras.K_believed, Pose(R, t))
        share = landmark_share(only(tried, there[:8]), 8) or 0.0
        off = landmark_residuals(tried, lambda i, _: points[i], there).get(0, np.inf)
        scores[name] = share, off
    fitting = [name for name, (share, _) in scores.items() if share >= MIN_SHARE]
    if len(fitting) == 1:
        return fitting[0]
    best, other = sorted(scores, key=lambda name: scores[name][1])
    return best if fitting and scores[best][1] < _CLEARLY * scores[other][1] else ""


def _intrinsics(track: Tracked, plan: _Plan) -> None:
    """Take K from the camera block where the stored one is a known rewrite, or map it back."""
    cameras = track.cameras
    meaning = track.fork_meaning
    if meaning is not None or track.says_source:
        _map_back(track, plan, "K-naive" if meaning and "taken off" in meaning.what else "K-source")
        return
    for cause in sorted(set(cameras.K_cause.tolist()) - {"", "unknown", "no block"}):
        positions = np.flatnonzero(cameras.K_cause == cause)
        _set_all_K(track, plan, f"K-{cause}", positions, cameras.block_K)
    turned = np.swapaxes(cameras.K, -1, -2)
    form = np.abs(turned[:, 2] - [0, 0, 1]).max(axis=-1) < 1e-6
    is_turned = form & (np.abs(cameras.K[:, 2, :2]).max(axis=-1) > 1e-6)
    positions = np.flatnonzero(is_turned & (cameras.K_cause == "no block"))
    if len(positions):
        _set_all_K(track, plan, "K-transposed", positions, turned)


def _map_back(track: Tracked, plan: _Plan, check: str) -> None:
    try:
        in_crop: Intrinsics = track.track.in_crop().intrinsics
    except UncropError:
        return
    n = len(track.cameras.ids)
    K = np.broadcast_to(in_crop.matrix, (n, 3, 3))
    _set_all_K(track, plan, check, np.arange(n), K)


def _set_all_K(
    track: Tracked, plan: _Plan, check: str, positions: NDArray[np.int64], K: Floats
) -> None:
    plan.edit(positions, lambda i: _set_K(K[i]))
    first = int(positions[0])
    plan.applied.append(
        AppliedFix(check, "opencv.K", brief_K(track.cameras.K[first]), brief_K(K[first]),
                   _ids(track, positions))
    )  # fmt: skip


def _sizes(track: Tracked, plan: _Plan) -> None:
    """Turn an img_size of width and height; make it the images' where K was mapped back."""
    actual = track.image_size
    if actual is None:
        return
    swapped = Size(actual.height, actual.width)
    wrong = [i for i, p in enumerate(track.usable) if p.img_size == swapped != actual]
    check = "img-size-swapped"
    if track.says_source:
        wrong = [i for i, p in enumerate(track.usable) if p.img_size == track.stated_size]
        check = "img-size-differs"
    if not wrong:
        return
    positions = np.array(wrong, np.int64)
    before = track.usable[wrong[0]].img_size
    plan.edit(positions, lambda _: _set_size(actual))
    plan.applied.append(
        AppliedFix(check, "img_size", f"{before}", f"{actual}", _ids(track, positions))
    )


def _bbox(track: Tracked, plan: _Plan) -> None:
    """Write a bbox of corners in the tracker's order, if the images were cut by it."""
    bbox = track.bbox
    if bbox is None or not (bbox.x_min >= bbox.x_max or bbox.y_min >= bbox.y_max):
        return
    box = box_of_corners(bbox)
    pixels = run_check("crop-pixels", all_checks()["crop-pixels"], track)
    if box is not None and pixels.status == "passed":
        plan.bbox = [box.x_min, box.x_max, box.y_min, box.y_max]
        plan.applied.append(AppliedFix("bbox-order", "bbox.pt", f"{bbox}", f"{box}"))


# --- edits of one .frame ----------------------------------------------------------------------


def _like(stored: Any, values: Floats) -> NDArray[Any]:
    """The values in the shape and dtype that the file has; whole numbers become float32."""
    array = np.asarray(stored)
    dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
    return np.asarray(values, dtype).reshape(array.shape)


def _set_K(K: Floats) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["opencv"]["K"] = _like(content["opencv"]["K"], K)

    return change


def _set_pose(pose: Pose) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["opencv"]["R"] = _like(content["opencv"]["R"], pose.R)
        content["opencv"]["t"] = _like(content["opencv"]["t"], pose.t)

    return change


def _set_block(pose: Pose) -> Callable[[Content], None]:
    d = OPENCV_FROM_PYTORCH3D

    def change(content: Content) -> None:
        block = content["camera"]
        block["R"] = _like(block["R"], rotation_6d_from_matrix((d @ pose.R).T))
        block["t"] = _like(block["t"], d @ pose.t)

    return change


def _set_size(size: Size) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["img_size"] = np.array([size.height, size.width], np.int64)

    return change


# --- writing ----------------------------------------------------------------------------------


def _write(track: Tracked, plan: _Plan, new: Path) -> None:
    folders = track.folders
    output = new / "output" / folders.name
    _copy_output(track, plan, output)
    usable = track.usable if plan.edits else []
    for i, changes in plan.edits.items():
        payload = usable[i]
        if int(payload.path.stem) in plan.dropped:
            continue
        stored = read_torch(payload.path, track.options.limits)
        content = stored.content
        if not isinstance(content, dict):
            raise FormatError(payload.path, "a dictionary", type(content).__name__)
        for change in changes:
            change(content)
        name = plan.names.get(payload.path, payload.path.name)
        stem = stored.stem or Path(name).stem
        write_torch(output / "checkpoint" / name, content, stem=stem, tensors=False)
    actor = folders.actor
    name = actor.absolute().name if actor is not None else ""
    if actor is not None:
        _copy_actor(track, plan, actor, new / "input" / name)
    if folders.config.path is not None:
        text = folders.config.path.read_text("utf-8", "replace")
        line = "actor: './input/{}'".format(name.replace("'", "''"))
        text = re.sub(r"(?m)^actor\s*:.*$", lambda _: line, text) if name else text
        (new / f"{folders.name}.yml").write_text(text, "utf-8")


def _stamps(track: Tracked) -> dict[Path, tuple[int, ...]]:
    """Size, time and identity of every file that is copied, before the first of them is."""
    folders = track.folders
    parts = [folders.checkpoint, *(folders.output / name for name in ("mesh", "depth", "input"))]
    files = [part / entry.name for part in parts if part.is_dir() for entry in scan_folder(part)]
    if folders.actor is not None:
        files += _actor_files(folders.actor, folders.checkpoint)
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        s = path.stat()
    except OSError:
        return ()
    return s.st_size, s.st_mtime_ns, s.st_ino, s.st_dev


def _require_unchanged(stamps: dict[Path, tuple[int, ...]]) -> None:
    """A copy of a track that somebody changes meanwhile would be of no moment at all."""
    for path, stamp in stamps.items():
        if _stamp(path) != stamp:
            raise FormatError(path, "the file that was there at first", "another, or none",
                              "It was changed meanwhile. Run this again.")  # fmt: skip


def _copy_output(track: Tracked, plan: _Plan, output: Path) -> None:
    checkpoint = output / "checkpoint"
    checkpoint.mkdir(parents=True)
    for path in track.listing.paths:
        if int(path.stem) not in plan.dropped:
            shutil.copyfile(path, checkpoint / plan.names.get(path, path.name))
    parts: tuple[tuple[str, Mapping[int, Path] | None], ...] = (
        ("mesh", track.mesh_files), ("depth", track.files_of("depth", ".png")),
        ("input", track.files.dumps),
    )  # fmt: skip
    for folder, files in parts:
        skipped = plan.dropped | (plan.stray_dumps if folder == "input" else set())
        for number, path in (files or {}).items():
            if number not in skipped:
                (output / folder).mkdir(exist_ok=True)
                shutil.copyfile(path, output / folder / path.name)
    for name in ("canonical.obj",):
        if (track.folders.output / name).is_file():
            shutil.copyfile(track.folders.output / name, output / name)


def _copy_actor(track: Tracked, plan: _Plan, actor: Path, new: Path) -> None:
    new.mkdir(parents=True)
    for path in _actor_files(actor, track.folders.checkpoint):
        place = new / path.relative_to(actor)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    if plan.bbox is not None:
        write_torch(new / "bbox.pt", np.array(plan.bbox, np.int64), stem="bbox", tensors=False)
    elif track.folders.bbox is not None and track.folders.bbox.parent != actor:
        shutil.copyfile(track.folders.bbox, new / "bbox.pt")


_ACTOR_PARTS = ("images", "kpt", "kpt_dense", "source")


def _actor_files(actor: Path, checkpoint: Path) -> Iterator[Path]:
    """Regular files of the actor folder and of its known parts; no output beside them."""
    for folder in (actor, *(actor / part for part in _ACTOR_PARTS)):
        try:
            entries = scan_folder(folder)
        except MissingInputError:
            continue
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_file() and not entry.name.startswith(".") and folder != checkpoint:
                yield folder / entry.name


def _write_marker(new: Path, plan: _Plan) -> None:
    files = sorted(p for p in new.rglob("*") if p.is_file())
    marker = {
        "format": "uncrop-fix",
        "format_version": 1,
        "applied": [asdict(f) for f in plan.applied],
        "files": {str(p.relative_to(new)): sha256_of(p) for p in files},
    }
    (new / FIX_MARKER).write_text(to_json(marker), "utf-8")
