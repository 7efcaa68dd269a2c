"""Validating many tracks: every one becomes a row, whatever happens to it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from converter.batch.discover import Found
from converter.batch.executors import Executor, Failure
from converter.batch.journal import Journal, inputs_of
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


@dataclass(frozen=True, slots=True)
class _Row:
    """What a worker sends back: the report, and a digest of what it depends on."""

    report: Report
    inputs: str


def validate_many(
    tracks: Sequence[Found],
    options: ValidateOptions,
    executor: Executor,
    progress: Progress = no_progress,
    journal: Journal | None = None,
) -> BatchResult:
    """Validate every track; an interrupt (Ctrl-C) keeps what is done.

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
    journal
        Takes every report as soon as it is there; tracks that it knows are not done again.

    """
    reports: dict[int, Report] = {}
    n_resumed, interrupted = 0, False
    try:
        if journal is not None and journal.known:
            reports = _resumed(tracks, options, journal)
        n_resumed = len(reports)
        progress("tracks", len(reports), len(tracks))
        places = [place for place in range(len(tracks)) if place not in reports]
        function = partial(_validate, options=options, keep=journal is not None)
        with closing(executor.run(function, [tracks[place] for place in places])) as outcomes:
            for number, outcome in outcomes:
                place = places[number]
                row = outcome if isinstance(outcome, _Row) else _failed(tracks[place].path, outcome)
                reports[place] = row.report
                if journal is not None:
                    journal.add(row.inputs, row.report)
                progress("tracks", len(reports), len(tracks))
    except KeyboardInterrupt:
        interrupted = True
    ordered = tuple(reports[place] for place in sorted(reports))
    return BatchResult(ordered, len(tracks), n_resumed, interrupted)


def _resumed(
    tracks: Sequence[Found], options: ValidateOptions, journal: Journal
) -> dict[int, Report]:
    """Reports that an earlier run made of the very same inputs."""
    inputs = ((place, inputs_of(found, options)) for place, found in enumerate(tracks))
    return {place: journal.known[key] for place, key in inputs if key in journal.known}


def _validate(found: Found, options: ValidateOptions, keep: bool) -> _Row:
    # Before the files are read: what changes meanwhile must not count as seen.
    inputs = inputs_of(found, options) if keep else ""
    if found.actor is not None and options.read.actor is None:
        options = replace(options, read=replace(options.read, actor=found.actor))
    return _Row(validate(found.path, options), inputs)


def _failed(path: Path, failure: Failure) -> _Row:
    """Return a row that says why there is no report."""
    check = {"refused": "unreadable", "raised": "internal-error", "died": "worker-died"}
    finding = Finding(check[failure.kind], "error", str(path), f"{failure.message}.",
                      fix=_REMEDIES[failure.kind])  # fmt: skip
    result = CheckResult(finding.check, "found", (finding,))
    report = Report(str(path), path.name or str(path), "unreadable", results=(result,))
    return _Row(report, "")
