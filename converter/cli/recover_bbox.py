"""``uncrop recover-bbox TRACK ...``: a lost bbox.pt, found again from crops and source frames."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from converter.batch import MinConfidence
from converter.cli.arguments import PlaceArguments, parse
from converter.cli.exits import EXIT_FINE, EXIT_USAGE
from converter.cli.report import Reporter, finish_many, say_refused
from converter.registry import ReadOptions

if TYPE_CHECKING:
    from converter.batch.discover import Found
    from converter.batch.executors import Failure
    from converter.batch.recovering import Recovered, RecoverJob

_OTHER_KINDS = (".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".svg", ".pdf", ".html", ".json")
_FOR_ONE = ("out", "source", "crops", "actor", "landmarks")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecoverArguments(PlaceArguments):
    """Find a lost bbox.pt again, exactly, or refuse.

    The crops are cut again from the source frames and compared pixel by pixel.
    """

    tracks: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TRACK [TRACK ...]")
    ]
    """Tracks (any of their folders), actor folders with images/ and source/ or a video, or folders
    to search for tracks."""
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
    min_confidence: MinConfidence = "consistent"
    """Write nothing below this verdict. Ambiguous boxes, whose cameras are all the same, count as
    consistent."""
    overwrite: bool = False
    """Replace a bbox.pt, and a picture, that exist. Without it, those of several tracks that have
    one are left alone."""
    jobs: Annotated[int | None, tyro.conf.arg(aliases=["-j"], metavar="N")] = None
    """Processes to work with on several tracks. Default: one for every core."""
    dry_run: bool = False
    """Say what would be written, write nothing."""
    quiet: bool = False
    """Print errors only."""
    json: bool = False
    """Print one JSON object to standard output: one entry for each track."""


def run(arguments: list[str]) -> int:
    """Recover every track; one that fails is an error alone, and a finding among several."""
    command = parse(arguments, "uncrop recover-bbox", RecoverArguments)
    if (wrong := _usage_error(command)) is not None:
        return _usage(wrong)
    from converter.batch.recovering import tracks_below

    tracks = tracks_below(command.tracks)
    if len(tracks) > 1 and (wrong := _not_for_several(command, len(tracks))) is not None:
        return _usage(wrong)
    if len(tracks) > 1:
        return _run_many(command, tracks)
    return _run_one(command, tracks[0])


def _usage(message: str) -> int:
    print(f"uncrop recover-bbox: {message}", file=sys.stderr)
    return EXIT_USAGE


def _usage_error(command: RecoverArguments) -> str | None:
    if command.frames < 1:
        return "--frames: expected 1 or more."
    if command.jobs is not None and command.jobs < 1:
        return "--jobs: expected 1 or more."
    if not command.tracks:
        return "expected a TRACK."
    if command.redetect and command.landmarks is not None:
        return "--redetect finds the landmarks that --landmarks gives: choose one"
    if command.report is not None and command.landmarks is not None:
        return "--report shows crops; with --landmarks there are none"
    if command.report is not None and command.report.suffix.lower() in _OTHER_KINDS:
        return "--report: expected FILE.jpg, or a folder"
    return None


def _not_for_several(command: RecoverArguments, n_tracks: int) -> str | None:
    from converter.batch.recovering import PICTURES

    alone = next((n for n in _FOR_ONE if getattr(command, n) is not None), None)
    if alone is not None:
        return f"--{alone} belongs to one track, and {n_tracks} are given"
    if command.report is not None and command.report.suffix.lower() in PICTURES:
        return "--report: expected a folder, since several tracks are given"
    return None


def _job(command: RecoverArguments, *, keep: bool) -> RecoverJob:
    from converter.batch.recovering import RecoverJob

    return RecoverJob(
        ReadOptions(actor=command.actor, source=command.source, fps=command.fps),
        crops=command.crops, landmarks=command.landmarks, redetect=command.redetect,
        accept_approximate=command.accept_approximate, out=command.out, report=command.report,
        n_frames=command.frames, min_confidence=command.min_confidence, overwrite=command.overwrite,
        dry_run=command.dry_run, keep=keep,
    )  # fmt: skip


def _run_one(command: RecoverArguments, track: Found) -> int:
    from converter.batch.recovering import recover_track

    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        done = recover_track(track, _job(command, keep=False), reporter.progress)
        reporter.steps([done.line])
    if command.json:
        print(json.dumps({"ok": True, "tracks": [done.facts]}, indent=1))
    return EXIT_FINE


def _run_many(command: RecoverArguments, tracks: Sequence[Found]) -> int:
    """A line for every track as it is done; an interrupt keeps what was written."""
    from converter.batch.executors import LocalProcesses
    from converter.batch.recovering import recover_many
    from converter.media.parallel import n_cores

    executor = LocalProcesses(min(command.jobs or n_cores(), len(tracks)))
    facts: dict[int, dict[str, Any]] = {}
    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        try:
            with closing(recover_many(tracks, _job(command, keep=True), executor)) as outcomes:
                for position, outcome in outcomes:
                    facts[position] = _said(outcome, tracks[position].path, reporter)
                    reporter.progress("tracks", len(facts), len(tracks))
        except KeyboardInterrupt:
            pass
    entries = [facts[position] for position in sorted(facts)]
    return finish_many(entries, len(tracks), json=command.json)


def _said(outcome: Recovered | Failure, track: Path, reporter: Reporter) -> dict[str, Any]:
    """Say what became of a track in one line, and return it for --json."""
    from converter.batch.executors import Failure

    if not isinstance(outcome, Failure):
        reporter.steps([outcome.line])
        return outcome.facts
    say_refused(track, outcome.message)
    said = {"track": str(track), "verdict": "refused", "error": outcome.message}
    return {**said, "cause": outcome.cause} if outcome.cause else said
