"""Recovering the lost bbox.pt of one track, or of many, of which one refusal is one line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converter.batch import NAME, MinConfidence
from converter.batch.converting import named_places
from converter.batch.discover import Found, discover
from converter.batch.executors import Executor, Outcomes
from converter.errors import MissingInputError, OutputError, RecoveryError
from converter.media.atomic import replace_file, require_free
from converter.media.files import scan_folder
from converter.media.manifest import MANIFEST
from converter.media.torchfile import write_torch
from converter.registry import Progress, ReadOptions, no_progress
from converter.sources.metrical_tracker.folders import looks_like_track
from converter.sources.metrical_tracker.lost_bbox import LostBBox, find_lost_bbox, require_crop
from converter.sources.metrical_tracker.lost_crops import (
    approximate_box,
    find_lost_crops,
    landmarks_left,
    read_source_landmarks,
    redetect,
)
from fitting.crop import CropCertificate, recover_crop

_LEVELS = {"exact": 0, "exact-up-to-build": 1, "ambiguous": 2, "consistent": 2, "approximate": 3}
_TOO_LITTLE = ("blank", "too-little-texture", "not-certain")
"""Causes of refusal that say nothing against the track: landmarks may still tell where it was."""
PICTURES = (".jpg", ".jpeg")
"""What a report is called that is one picture, and not a folder of such."""
_NO_PICTURE = "no picture: there are no crops that tell"
_NEEDED = (
    "Give --crops DIR if they exist. Landmarks of the crops give an approximate box: find the same "
    "points in source frames with the detector that made them, and give --landmarks DIR (or "
    "--redetect, with the extra named landmarks) --accept-approximate."
)


@dataclass(frozen=True, slots=True)
class RecoverJob:
    """What to do with a track; `converter.cli.recover_bbox` says what each of it means.

    Attributes
    ----------
    read
        Where the parts of the track are.
    crops, landmarks, out
        For one track alone.
    report
        A picture of the proof, or a folder of such.
    keep
        Leave a track alone that has a bbox.pt, instead of refusing it.

    """

    read: ReadOptions
    crops: Path | None = None
    landmarks: Path | None = None
    redetect: bool = False
    accept_approximate: bool = False
    out: Path | None = None
    report: Path | None = None
    n_frames: int = 3
    min_confidence: MinConfidence = "consistent"
    overwrite: bool = False
    dry_run: bool = False
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one track.

    Attributes
    ----------
    line
        For people.
    facts
        For JSON: track, out, and the certificate.

    """

    line: str
    facts: dict[str, Any]


def tracks_below(tops: Sequence[Path]) -> list[Found]:
    """Tracks at or below each of ``tops``; where there is none, actor folders never tracked.

    Raises
    ------
    FormatError
        If a folder cannot be listed.

    """
    found: list[Found] = []
    for top in tops:
        # What is not there is one line among others, and not the end of them.
        here = discover(top).found if os.path.exists(top) else [Found(top)]
        if here != [Found(top)]:  # bundles, datasets and other trackers' results have no bbox.pt
            here = [one for one in here if _is_tracked(one.path)] or [Found(top)]
        if here == [Found(top)]:
            here = [Found(actor) for actor in _untracked_actors(top)] or here
        found += here
    return list(dict.fromkeys(found))


def _is_tracked(path: Path) -> bool:
    return looks_like_track(path) and not (path / MANIFEST).exists()


def _untracked_actors(top: Path) -> list[Path]:
    """Return the folders below ``top``, or in its input/, that hold crops or landmarks of crops.

    None where ``top`` is itself an actor folder, or a track's.
    """
    held = {entry.name for entry in scan_folder(top)} if top.is_dir() else set()
    if held & {"images", "kpt", "checkpoint", "source"}:
        return []
    if (top / "input").is_dir():  # of a tracker's folder without its output
        top, held = top / "input", {entry.name for entry in scan_folder(top / "input")}
    actors = (top / name for name in held)
    return sorted(a for a in actors if (a / "images").is_dir() or (a / "kpt").is_dir())


def recover_many(
    tracks: Sequence[Found], job: RecoverJob, executor: Executor
) -> Outcomes[Recovered]:
    """Recover every track; yields (position, outcome) as they finish.

    Closing the iterator ends what is running; what was written stays.

    Parameters
    ----------
    tracks
        As `tracks_below` finds them.
    job
        For all of them; its report is a folder.
    executor
        Where the work is done.

    """
    reports: Sequence[Path | None] = [None] * len(tracks)
    if job.report is not None:
        reports = named_places(tracks, job.report / f"{NAME}.jpg")
    items = list(zip(tracks, reports, strict=True))
    with closing(executor.run(partial(_recover, job=job), items)) as outcomes:
        yield from outcomes


def _recover(item: tuple[Found, Path | None], job: RecoverJob) -> Recovered:
    found, report = item
    return recover_track(found, replace(job, report=report))


def recover_track(found: Found, job: RecoverJob, progress: Progress = no_progress) -> Recovered:
    """Recover the box of one track and write it.

    Raises
    ------
    RecoveryError
        If there is no certain answer.
    UncropError
        If something is missing or cannot be read, or the output exists.

    """
    track = found.path
    if found.actor is not None and job.read.actor is None:
        job = replace(job, read=replace(job.read, actor=found.actor))
    try:
        lost = find_lost_bbox(track, job.read, job.crops)
    except MissingInputError as error:
        if job.crops is not None:
            raise
        return _approximate(job, track, error)
    out = job.out or lost.path
    if job.keep and not job.overwrite and os.path.exists(out):
        facts = {"track": str(track), "out": str(out), "verdict": "kept"}
        return Recovered(f"{lost.name}: {out} is there, and was left alone", facts)
    _require_free(out, job)
    picture = _picture_place(job, lost.name)
    certificate = recover_crop(
        lost.crops, lost.sources, lost.guesses, n_frames=job.n_frames, hints=lost.hints,
        progress=progress,
    )  # fmt: skip
    if certificate.cause in _TOO_LITTLE and (job.landmarks or job.redetect):
        return _approximate(job, track)
    require_crop(certificate, lost.crops.origin)
    if _LEVELS[certificate.verdict] > _LEVELS[job.min_confidence]:
        raise RecoveryError(
            lost.crops.origin, f"a box of verdict {job.min_confidence}", str(certificate),
            "Nothing was written.",
        )  # fmt: skip
    if not job.dry_run:
        _write_bbox(out, certificate, overwrite=job.overwrite)
        if picture is not None:
            _write_picture(picture, job, lost, certificate)
    return _recovered(job, track, lost.name, out, certificate, picture)


def _approximate(
    job: RecoverJob, track: Path, missing: MissingInputError | None = None
) -> Recovered:
    """Estimate the box from landmarks, where there are no crops that tell it."""
    lost = find_lost_crops(track, job.read)
    if job.landmarks is None and not job.redetect:
        left = landmarks_left(lost)
        if missing is None or not left:
            raise missing or RecoveryError(track, "crops or landmarks", "neither")
        raise MissingInputError(missing.where, missing.expected, f"neither, but {left}", _NEEDED)
    out = job.out or lost.path
    _require_free(out, job)
    if job.landmarks is not None:
        landmarks = read_source_landmarks(job.landmarks, job.read.limits)
    else:
        landmarks = redetect(lost)
    origin = job.landmarks or lost.sources.origin
    certificate = approximate_box(lost, landmarks, origin, job.read.limits)
    if certificate.crop is None:
        raise RecoveryError(
            origin, "landmarks of these source frames, the same points as in the crops",
            certificate.reason, "Nothing was written.",
        )  # fmt: skip
    if not job.accept_approximate:
        raise RecoveryError(
            origin, "a box that is certain", str(certificate),
            "Nothing was written; --accept-approximate writes it.",
        )  # fmt: skip
    if not job.dry_run:
        _write_bbox(out, certificate, overwrite=job.overwrite)
    found = _recovered(job, track, lost.name, out, certificate)
    return found if job.report is None else replace(found, line=f"{found.line}; {_NO_PICTURE}")


def _require_free(out: Path, job: RecoverJob) -> None:
    if job.dry_run:
        return
    if os.path.isfile(out) and not job.overwrite:
        raise OutputError(out, "no such file yet", "a file", "Give --overwrite or -o FILE.")
    require_free(out, job.overwrite)


def _picture_place(job: RecoverJob, name: str) -> Path | None:
    """Where the picture goes, judged before anything is written: a box without it is half done."""
    if job.report is None or job.dry_run:
        return None
    is_picture = job.report.suffix.lower() in PICTURES and not job.report.is_dir()
    place = job.report if is_picture else job.report / f"{name}.jpg"
    require_free(place, job.overwrite)
    return place


def _recovered(
    job: RecoverJob,
    track: Path,
    name: str,
    out: Path,
    certificate: CropCertificate,
    picture: Path | None = None,
) -> Recovered:
    ending = f"dry run, {out} was not written" if job.dry_run else f"wrote {out}"
    if job.dry_run and os.path.exists(out) and not job.overwrite:
        ending += ": it is there, and stays without --overwrite"
    ending += "" if picture is None else f" and {picture}"
    facts = {"track": str(track), "out": None if job.dry_run else str(out), **_as_json(certificate)}
    return Recovered(f"{name}: {certificate}; {ending}", facts)


def _write_bbox(out: Path, certificate: CropCertificate, *, overwrite: bool) -> None:
    """Write bbox.pt as the tracker does: torch.save of an int64 array of four."""
    box = certificate.bbox
    if box is None:
        raise RecoveryError(out, "a recovered box", certificate.reason)
    values = np.array([box.x_min, box.x_max, box.y_min, box.y_max], np.int64)
    with replace_file(out, overwrite) as path:
        write_torch(path, values, stem=out.stem, tensors=False)


def _write_picture(
    place: Path, job: RecoverJob, lost: LostBBox, certificate: CropCertificate
) -> None:
    from fitting.crop.picture import recovery_picture

    with replace_file(place, job.overwrite) as path:
        path.write_bytes(recovery_picture(certificate, lost.crops, lost.sources))


def _as_json(certificate: CropCertificate) -> dict[str, Any]:
    """Numbers that JSON cannot hold (infinity) become null."""
    fields = dataclasses.asdict(certificate)
    fields.pop("crop")
    fields["bbox"] = _four(fields["bbox"])
    fields["candidates"] = [_four(b) for b in fields["candidates"]]
    return {k: _finite(v) for k, v in fields.items()}


def _four(box: dict[str, int] | None) -> list[int] | None:
    return None if box is None else [box[k] for k in ("x_min", "x_max", "y_min", "y_max")]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
