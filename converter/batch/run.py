"""Validating many tracks: every one becomes a row, whatever happens to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from converter.batch.discover import Found
from converter.batch.executors import Executor, Failure
from converter.findings import Finding
from converter.registry import Progress, no_progress
from converter.validation.report import CheckResult, Report
from converter.validation.validate import ValidateOptions, validate

_REMEDIES = {
    "refused": "",
    "raised": "This is a defect of uncrop, not of the track; please report it.",
    "died": "Out of memory, or a crash inside a library: run it again alone, with --jobs 1.",
}


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a run established.

    Attributes
    ----------
    reports
        In the order of the tracks; of all of them, unless the run was interrupted.
    n_asked
        Number of tracks.
    n_resumed
        How many reports an earlier run had established.
    interrupted
        Whether the run was ended before its end.

    """

    reports: tuple[Report, ...]
    n_asked: int
    n_resumed: int = 0
    interrupted: bool = False


def validate_many(
    tracks: Sequence[Found],
    options: ValidateOptions,
    executor: Executor,
    progress: Progress = no_progress,
    done: Callable[[Report], None] | None = None,
) -> BatchResult:
    """Validate every path; an interrupt (Ctrl-C) keeps what is done.

    Parameters
    ----------
    tracks
        Tracks, bundles, datasets, as `converter.batch.discover` finds them.
    options
        For all of them.
    executor
        Where the work is done.
    progress
        Called after every track, as ``progress("tracks", done, total)``.
    done
        Called with every report, as soon as it is there.

    """
    reports: dict[int, Report] = {}
    interrupted = False
    outcomes = executor.run(partial(_validate, options=options), tracks)
    try:
        for position, outcome in outcomes:
            report = _row(tracks[position].path, outcome)
            reports[position] = report
            if done is not None:
                done(report)
            progress("tracks", len(reports), len(tracks))
    except KeyboardInterrupt:
        interrupted = True
    ordered = tuple(reports[position] for position in sorted(reports))
    return BatchResult(ordered, len(tracks), interrupted=interrupted)


def _validate(found: Found, options: ValidateOptions) -> Report:
    if found.actor is not None and options.read.actor is None:
        options = replace(options, read=replace(options.read, actor=found.actor))
    return validate(found.path, options)


def _row(path: Path, outcome: Report | Failure) -> Report:
    """Return the report, or one that says why there is none."""
    if isinstance(outcome, Report):
        return outcome
    check = {"refused": "unreadable", "raised": "internal-error", "died": "worker-died"}
    finding = Finding(check[outcome.kind], "error", str(path), f"{outcome.message}.",
                      fix=_REMEDIES[outcome.kind])  # fmt: skip
    result = CheckResult(finding.check, "found", (finding,))
    return Report(str(path), path.name or str(path), "unreadable", results=(result,))
