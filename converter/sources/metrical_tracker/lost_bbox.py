"""The crops and source frames of a track whose bbox.pt is lost, as recovery wants them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.errors import MissingInputError, RecoveryError, UncropError
from converter.findings import Finding
from converter.geometry.crop import Crop
from converter.media.arrays import read_npy
from converter.media.files import scan_folder
from converter.media.images import ImageFiles, list_images
from converter.media.limits import Limits
from converter.media.video import VIDEO_SUFFIXES, VideoFrames
from converter.registry import Progress, ReadOptions, require_path
from converter.sources.metrical_tracker.config import require_fps
from converter.sources.metrical_tracker.folders import (
    TrackFolders,
    actor_around,
    find_folders,
    looks_like_track,
    track_around,
)
from converter.track import Frames
from fitting.crop import CropCertificate, recover_crop

_DEFAULT_FPS = 25.0
_N_STEM = 12
_MIN_FRAMES, _N_JUMPS, _MANY_TIMES = 5, 2, 6.0
_LEFT = ("images", "input", "kpt", "kpt_dense", "bbox.pt", "checkpoint")
_REMEDIES = {
    "mirrored": "The source is a mirror image of the crops: give --source the video that was "
    "tracked, or this one mirrored the same way.",
    "rotated": "Give --source the video that was tracked, or this one turned as it was, and --fps "
    "if it was not extracted at the usual rate.",
    "off-lattice": "Give --source the video that was tracked, not a resized copy, and --fps if it "
    "was not extracted at the usual rate.",
    "stretched": "Give --source the video that was tracked, or this one resized as it was.",
    "other-video": "Give --source the video that was tracked, and --fps if it was not extracted "
    "at the usual rate.",
    "not-cropped": "If --source are the crops themselves, give it the video that they were cut "
    "from; if the tracker saw whole frames, no bbox.pt is needed.",
    "two-boxes": "Restore the folder of one run, or give --crops a folder with those of one box.",
}
"""What to do about a refusal, by its cause, where something can be done."""


@dataclass(frozen=True, slots=True)
class LostBBox:
    """What there is to recover a box from.

    Attributes
    ----------
    name
        Name of the track.
    crops, sources
        The tracker's images, and source frames.
    guesses
        Position of each crop's source frame; None to guess by names.
    path
        Where the tracker would have written bbox.pt.
    hints
        Positions of crops before and after which landmarks jump: another box may begin there.

    """

    name: str
    crops: Frames
    sources: Frames
    guesses: tuple[int, ...] | None
    path: Path
    hints: tuple[int, ...] = ()


def find_lost_bbox(path: Path, options: ReadOptions, crops: Path | None = None) -> LostBBox:
    """Find a track's crops and source frames from any of its folders, tracked or not.

    Parameters
    ----------
    path
        A track, or an actor folder that has images/ but was never tracked.
    options
        Where the user said that things are: actor, source, fps.
    crops
        Folder of crops, if it is not images/ of the actor folder.

    Raises
    ------
    MissingInputError
        If there are no crops or no source frames.
    RecoveryError
        If the source frames named are the crops.
    UncropError
        If they cannot be read.

    """
    folders = lost_folders(path, options)
    sources = source_frames(folders, options)
    images, guesses = _crops(folders, crops, options.limits)
    _require_others(sources, images)
    actor = folders.inputs
    hints = landmark_jumps(images, actor / "kpt", options.limits)
    return LostBBox(folders.name, images, sources, guesses, actor / "bbox.pt", hints)


def landmark_jumps(crops: Frames, kpt: Path, limits: Limits) -> tuple[int, ...]:
    """Find between which crops the landmarks jump more than they do elsewhere.

    A face that is found in another place or at another size from one frame to the next was cut by
    another box, or moved fast; pixels tell which.
    """
    places = []
    for index in range(len(crops)):
        try:
            points = read_npy(kpt / f"{Path(crops.name(index)).stem}.npy", limits)
        except UncropError:
            continue
        if points.shape == (68, 2) and points.dtype.kind in "fiu" and points.any():
            spread = points.std(axis=0)
            places.append((index, *points.mean(axis=0), float(np.hypot(*spread))))
    if len(places) < _MIN_FRAMES:
        return ()
    table = np.asarray(places, np.float64)
    steps = np.abs(np.diff(table[:, 1:], axis=0))
    usual = np.maximum(np.median(steps, axis=0), 0.5)
    jumps = np.nan_to_num(np.max(steps / usual, axis=1))
    largest = [int(i) for i in np.argsort(-jumps)[:_N_JUMPS] if jumps[i] > _MANY_TIMES]
    return tuple(int(table[i + k, 0]) for i in largest for k in (0, 1))


def lost_folders(path: Path, options: ReadOptions) -> TrackFolders:
    """Return the folders of a track, or of an actor that was never tracked.

    Raises
    ------
    MissingInputError
        If they, or what an option names, are not there.
    ConventionError
        If --fps is no rate.

    """
    require_fps(options.fps)
    require_path(path, "a track, or an actor folder with images/")
    return find_folders(path, options) if looks_like_track(path) else _untracked(path, options)


def numbered_crops(
    dumps: Mapping[int, Path], ids: Sequence[int], begin_frames: int, limits: Limits
) -> tuple[Frames, tuple[int, ...]] | None:
    """Return the images that the tracker dumped for its frames, and where their sources are."""
    known = [i for i in ids if i in dumps]
    if not known:
        return None
    files = ImageFiles.of([dumps[i] for i in known], limits)
    return files, tuple(i + begin_frames for i in known)


def require_crop(certificate: CropCertificate, where: object) -> Crop:
    """Return what was recovered.

    Raises
    ------
    RecoveryError
        If it was refused; says what to do about the cause.

    """
    try:
        return certificate.require(where)
    except RecoveryError as error:
        remedy = f"{error.remedy} {_REMEDIES.get(certificate.cause, '')}".rstrip()
        raise RecoveryError(error.where, error.expected, error.found, remedy, error.cause) from None


def recover_or_say(
    where: object,
    crops: Frames,
    guesses: Sequence[int] | None,
    sources: Frames,
    progress: Progress,
) -> tuple[Crop | None, Finding]:
    """Recover a lost bbox while reading a track, which goes on without it if that fails."""
    fix = "Cameras stay in the tracker's crops."
    try:
        certificate = recover_crop(crops, sources, guesses, progress=progress)
    except UncropError as error:
        reason = str(error)
    else:
        if certificate.crop is not None:
            return certificate.crop, Finding(
                "bbox-recovered",
                "warning",
                str(where),
                f"bbox.pt is missing and was recovered: {certificate}.",
                fix="uncrop recover-bbox writes it.",
            )
        if certificate.cause == "not-cropped":
            # Of another shape they are no crops that were given for their source.
            is_square = sources.size.width == sources.size.height
            return Crop.whole(sources.size, crops.size), Finding(
                "images-whole",
                "warning" if is_square else "info",
                str(where),
                f"bbox.pt is missing, and is not needed: {certificate.reason}.",
                fix=_REMEDIES["not-cropped"],
            )
        reason = f"{certificate.reason}."
        fix = f"{fix} {_REMEDIES.get(certificate.cause, '')}".rstrip()
    return None, Finding(
        "bbox-not-recovered",
        "warning",
        str(where),
        f"bbox.pt is missing and could not be recovered: {reason}",
        fix=fix,
    )


def _crops(
    folders: TrackFolders, given: Path | None, limits: Limits
) -> tuple[Frames, tuple[int, ...] | None]:
    if given is not None:
        paths = list_images(given)
        if not paths:
            none = "none" if os.path.exists(given) else "nothing"
            raise MissingInputError(given, "PNG or JPEG crops", none, "--crops is a folder.")
        return ImageFiles.of(paths, limits), None
    if folders.actor is not None and (paths := list_images(folders.actor / "images")):
        return ImageFiles.of(paths, limits), None
    dumped = folders.output / "input"
    dumps = {int(p.stem): p for p in list_images(dumped) if _is_number(p.stem)}
    ids = sorted(int(p.stem) for p in folders.checkpoint.glob("*.frame") if _is_number(p.stem))
    found = numbered_crops(dumps, ids, folders.config.begin_frames or 0, limits)
    if found is None:
        raise MissingInputError(
            folders.inputs,
            "the tracker's crops, images/ or output/<name>/input/",
            "neither",
            _meant(folders) or _itself(folders) or "Give --crops DIR.",
        )
    return found


def _is_number(stem: str) -> bool:
    return stem.isascii() and stem.isdigit() and len(stem) <= _N_STEM


def source_frames(folders: TrackFolders, options: ReadOptions) -> Frames:
    """Return the source frames of a track; raises MissingInputError."""
    source = folders.source
    if source is None:
        is_bare = not any((folders.inputs / name).exists() for name in _LEFT)
        raise MissingInputError(
            folders.inputs,
            "the source frames (source/), or the video",
            "neither, nor anything of a track or an actor folder" if is_bare else "neither",
            _meant(folders) or "Give --source DIR_OR_VIDEO.",
        )
    if source.is_dir():
        return ImageFiles.of(list_images(source), options.limits)
    return VideoFrames(source, options.fps or folders.config.fps or _DEFAULT_FPS)


def _meant(folders: TrackFolders) -> str:
    """Name the actor folder, or the track, around a part of it; or say nothing."""
    if (around := actor_around(folders.inputs)) is not None:
        return f"Did you mean the actor folder {around}?"
    around = track_around(folders.output) if folders.inputs == folders.output else None
    return f"Did you mean the track {around}?" if around is not None else ""


def _itself(folders: TrackFolders) -> str:
    """Say how to use a folder of crops that was taken for an actor folder; or say nothing."""
    if not list_images(folders.inputs):
        return ""
    return f"If the images in it are the crops, add --crops {folders.inputs}."


def _require_others(sources: Frames, crops: Frames) -> None:
    if os.path.realpath(sources.origin) == os.path.realpath(crops.origin):
        raise RecoveryError(
            sources.origin, "the frames that the crops were cut from", "the crops themselves",
            "Give --source the video that was tracked, or its frames.",
        )  # fmt: skip


def _untracked(path: Path, options: ReadOptions) -> TrackFolders:
    """Take ``path`` for an actor folder without a track, or for one that --actor names."""
    if path.is_file():
        raise MissingInputError(
            path, "a track, or an actor folder with images/", "a file",
            "Give the folder; a video outside it is named with --source.",
        )  # fmt: skip
    actor = options.actor or path
    source = options.source
    if source is not None and not source.exists():
        raise MissingInputError(source, "what --source names", "nothing", "Check its spelling.")
    if source is not None and source.is_dir() and not list_images(source):
        raise MissingInputError(source, "PNG or JPEG source frames", "none")
    if source is None and list_images(actor / "source"):
        source = actor / "source"
    if source is None and actor.is_dir():
        names = sorted(e.name for e in scan_folder(actor))
        videos = [actor / n for n in names if n.lower().endswith(VIDEO_SUFFIXES)]
        source = next((v for v in videos if v.stem == "video"), None)
        source = source or (videos[0] if len(videos) == 1 else None)
    name = Path(os.path.abspath(actor)).name
    return TrackFolders(name, actor, actor, actor, source=source)
