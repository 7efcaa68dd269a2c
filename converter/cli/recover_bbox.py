"""``uncrop recover-bbox TRACK ...``: a lost bbox.pt, found again from crops and source frames."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from converter.cli.arguments import PlaceArguments
from converter.cli.exits import EXIT_FINDINGS, EXIT_FINE, EXIT_USAGE
from converter.cli.report import Reporter
from converter.errors import (
    MissingInputError,
    OutputError,
    RecoveryError,
    UncropError,
    printable,
)
from converter.media.atomic import replace_file
from converter.media.torchfile import write_torch
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.lost_bbox import LostBBox, find_lost_bbox
from converter.sources.metrical_tracker.lost_crops import (
    approximate_box,
    find_lost_crops,
    landmarks_left,
    read_source_landmarks,
    redetect,
)
from fitting.crop import CropCertificate, recover_crop

_LEVELS = {"exact": 0, "exact-up-to-build": 1, "ambiguous": 2, "consistent": 2, "approximate": 3}
_FOR_ONE = ("out", "source", "crops", "actor", "landmarks")
_TOO_LITTLE = ("blank", "too-little-texture", "not-certain")
"""Causes of refusal that say nothing against the track: landmarks may still tell where it was."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecoverArguments(PlaceArguments):
    """Find a lost bbox.pt again, exactly, or refuse.

    The crops are cut again from the source frames and compared pixel by pixel.
    """

    tracks: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TRACK [TRACK ...]")
    ]
    """Tracks (any of their folders), or actor folders with images/ and source/ or a video."""
    crops: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The tracker's crops, if they are not images/ of the actor folder."""
    landmarks: Annotated[Path | None, tyro.conf.arg(metavar="DIR_OR_FILE")] = None
    """Where the crops are gone: landmarks found in the source frames, NAME.npy or NAME.lms, or one
    .npy (frames, 68, 2). With kpt/ they give an approximate box."""
    redetect: bool = False
    """Where the crops are gone: find the landmarks in source frames, with face_alignment (the extra
    [landmarks])."""
    accept_approximate: bool = False
    """Write a box that landmarks gave, good to about 1 % of its side."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """Where to write the box. Default: bbox.pt of the actor folder."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE_OR_DIR")] = None
    """Write a picture of the proof: FILE.jpg, or DIR/NAME.jpg for every track."""
    frames: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """Frames to check, spread over the track; more are read where that is not enough."""
    min_verdict: Literal["exact", "exact-up-to-build", "consistent"] = "consistent"
    """Write nothing below this verdict. Ambiguous boxes, whose cameras are all the same, count as
    consistent."""
    overwrite: bool = False
    """Replace a bbox.pt, and a picture, that exist."""
    dry_run: bool = False
    """Say what would be written, write nothing."""
    quiet: bool = False
    """Print errors only."""
    json: bool = False
    """Print one JSON object to standard output: one entry for each track."""


def run(arguments: list[str]) -> int:
    """Recover every track; one that fails is an error alone, and a finding among several."""
    command = tyro.cli(
        tyro.conf.configure(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)(RecoverArguments),
        prog="uncrop recover-bbox",
        args=arguments,
    )
    if command.frames < 1:
        return _usage("--frames: expected 1 or more.")
    if not command.tracks:
        return _usage("expected a TRACK.")
    if command.redetect and command.landmarks is not None:
        return _usage("--redetect finds the landmarks that --landmarks gives: choose one")
    if command.report is not None and command.landmarks is not None:
        return _usage("--report shows crops; with --landmarks there are none")
    if len(command.tracks) > 1:
        alone = [
            n
            for n in ("out", "source", "crops", "actor", "landmarks")
            if getattr(command, n) is not None
        ]
        if alone:
            return _usage(f"--{alone[0]} belongs to one track, and {len(command.tracks)} are given")
        if command.report is not None and command.report.suffix.lower() in (".jpg", ".jpeg"):
            return _usage("--report: expected a folder, since several tracks are given")
    results: list[dict[str, Any]] = []
    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        for n_done, track in enumerate(command.tracks):
            try:
                result = _recover(command, track, reporter)
            except UncropError as error:
                if len(command.tracks) == 1:
                    raise
                print(f"uncrop: {printable(track)}: {error}", file=sys.stderr)
                result = {"track": str(track), "verdict": "refused", "error": str(error)}
            results.append(result)
            if len(command.tracks) > 1:
                reporter.progress("tracks", n_done + 1, len(command.tracks))
    failed = any("error" in r for r in results)
    if command.json:
        print(json.dumps({"ok": not failed, "tracks": results}, indent=1))
    return EXIT_FINDINGS if failed else EXIT_FINE


def _usage(message: str) -> int:
    print(f"uncrop recover-bbox: {message}", file=sys.stderr)
    return EXIT_USAGE


def _recover(command: RecoverArguments, track: Path, reporter: Reporter) -> dict[str, Any]:
    options = ReadOptions(actor=command.actor, source=command.source, fps=command.fps)
    try:
        lost = find_lost_bbox(track, options, command.crops)
    except MissingInputError as error:
        if command.crops is not None:
            raise
        return _approximate(command, track, options, reporter, error)
    out = _output(command, lost.path)
    certificate = recover_crop(
        lost.crops, lost.sources, lost.guesses, n_frames=command.frames, hints=lost.hints,
        progress=reporter.progress,
    )  # fmt: skip
    if certificate.cause in _TOO_LITTLE and (command.landmarks or command.redetect):
        return _approximate(command, track, options, reporter)
    certificate.require(lost.crops.origin)
    if _LEVELS[certificate.verdict] > _LEVELS[command.min_verdict]:
        raise RecoveryError(
            lost.crops.origin, f"a box of verdict {command.min_verdict}", str(certificate),
            "Nothing was written.",
        )  # fmt: skip
    if not command.dry_run:
        _write_bbox(out, certificate, overwrite=command.overwrite)
        if command.report is not None:
            _write_picture(command, lost, certificate)
    return _said(command, track, lost.name, out, certificate, reporter)


def _approximate(
    command: RecoverArguments,
    track: Path,
    options: ReadOptions,
    reporter: Reporter,
    missing: MissingInputError | None = None,
) -> dict[str, Any]:
    """Estimate the box from landmarks, where there are no crops that tell it."""
    lost = find_lost_crops(track, options)
    if command.landmarks is None and not command.redetect:
        left = landmarks_left(lost)
        if missing is None or not left:
            raise missing or RecoveryError(track, "crops or landmarks", "neither")
        raise MissingInputError(missing.where, missing.expected, f"neither, but {left}", _NEEDED)
    out = _output(command, lost.path)
    if command.landmarks is not None:
        landmarks = read_source_landmarks(command.landmarks, options.limits)
    else:
        landmarks = redetect(lost)
    origin = command.landmarks or lost.sources.origin
    certificate = approximate_box(lost, landmarks, options.limits)
    if certificate.crop is None:
        raise RecoveryError(
            origin, "landmarks of these source frames, the same points as in the crops",
            certificate.reason, "Nothing was written.",
        )  # fmt: skip
    if not command.accept_approximate:
        raise RecoveryError(
            origin, "a box that is certain", str(certificate),
            "Nothing was written; --accept-approximate writes it.",
        )  # fmt: skip
    if not command.dry_run:
        _write_bbox(out, certificate, overwrite=command.overwrite)
    return _said(command, track, lost.name, out, certificate, reporter)


_NEEDED = (
    "Give --crops DIR if they exist. Landmarks of the crops give an approximate box: find the same "
    "points in source frames with the detector that made them, and give --landmarks DIR (or "
    "--redetect, with the extra [landmarks]) --accept-approximate."
)


def _output(command: RecoverArguments, usual: Path) -> Path:
    out = command.out or usual
    if out.exists() and not command.overwrite and not command.dry_run:
        raise OutputError(out, "no such file yet", "a bbox.pt", "Give --overwrite or -o FILE.")
    return out


def _said(
    command: RecoverArguments,
    track: Path,
    name: str,
    out: Path,
    certificate: CropCertificate,
    reporter: Reporter,
) -> dict[str, Any]:
    """Say the result in one line, and return it for --json."""
    reporter.steps([f"{name}: {certificate}; {_ending(command, out)}"])
    return {
        "track": str(track),
        "out": None if command.dry_run else str(out),
        **_as_json(certificate),
    }


def _ending(command: RecoverArguments, out: Path) -> str:
    return "dry run, nothing written" if command.dry_run else f"wrote {out}"


def _write_bbox(out: Path, certificate: CropCertificate, *, overwrite: bool) -> None:
    """Write bbox.pt as the tracker does: torch.save of an int64 array of four."""
    box = certificate.bbox
    if box is None:
        raise RecoveryError(out, "a recovered box", certificate.reason)
    values = np.array([box.x_min, box.x_max, box.y_min, box.y_max], np.int64)
    with replace_file(out, overwrite) as path:
        write_torch(path, values, stem=out.stem, tensors=False)


def _write_picture(command: RecoverArguments, lost: LostBBox, certificate: CropCertificate) -> None:
    from fitting.crop.picture import recovery_picture

    report = command.report
    if report is None:
        return
    if report.suffix.lower() not in (".jpg", ".jpeg"):
        try:
            report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(report, "a folder to write to", error.strerror or "") from None
        report = report / f"{lost.name}.jpg"
    with replace_file(report, command.overwrite) as path:
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
