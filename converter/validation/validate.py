"""Validate one path: read it leniently, run every check that applies, say which could not run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from converter.errors import FormatError, UncropError
from converter.findings import Finding
from converter.media.files import read_head
from converter.media.manifest import MANIFEST
from converter.registry import ReadOptions, Source, Target, detect_source, target
from converter.track import Track
from converter.validation.checking import all_checks, run_check, run_checks
from converter.validation.evidence import CheckSkipped, Evidence, Outcome
from converter.validation.report import CheckResult, Picture, Report, Series

_MAX_MANIFEST = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """How to validate.

    Attributes
    ----------
    read
        What the user says about the track that its files do not.
    thorough
        Look at every frame's pixels and meshes instead of a sample.
    illustrate
        Make the series and pictures that the HTML page shows.

    """

    read: ReadOptions = ReadOptions()
    thorough: bool = False
    illustrate: bool = False


def validate(path: Path, options: ValidateOptions | None = None) -> Report:
    """Validate a track, a bundle or a written dataset.

    Never raises for a bad input: what cannot be read at all is a report of kind ``unreadable``
    with one finding ``unreadable`` of severity error.
    """
    options = options or ValidateOptions()
    began = time.perf_counter()
    try:
        report = _validated(Path(path), options)
    except UncropError as error:
        report = _unreadable(Path(path), error)
    except OSError as error:  # folders that vanish or may not be entered
        where = error.filename or path
        report = _unreadable(Path(path), FormatError(where, "a readable file or folder",
                                                     error.strerror or str(error)))  # fmt: skip
    return replace(report, path=str(path), seconds=time.perf_counter() - began)


def _validated(path: Path, options: ValidateOptions) -> Report:
    writer = dataset_target(path)
    if writer is not None:
        report = _of_dataset(path, writer)
        if writer.name != "metrical_tracker":
            return report
        # The one target whose dataset is a track: both kinds of check apply.
        track_report = _of_track(path, options)
        return replace(track_report, kind="dataset", name=report.name,
                       results=(*report.results, *track_report.results))  # fmt: skip
    source = detect_source(path)
    if source.name == "metrical_tracker":
        return _of_track(path, options)
    if source.name == "bundle":
        return _of_bundle(path, source, options)
    began = time.perf_counter()
    track = source.read(path, options.read)
    seconds = time.perf_counter() - began
    evidence = Evidence(track, thorough=options.thorough)
    return replace(_of_evidence(evidence, source, options, ()), reading_seconds=seconds)


def dataset_target(path: Path) -> Target | None:
    """Return the target that wrote a folder, by its manifest; None if uncrop did not.

    Raises
    ------
    UncropError
        If the manifest is damaged, or names a target that there is not.

    """
    manifest = path / MANIFEST
    if not os.path.isdir(path) or not os.path.isfile(manifest):
        return None
    data = read_head(manifest, _MAX_MANIFEST)
    try:
        name = json.loads(data)["target"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FormatError(manifest, "uncrop's manifest", "something else") from None
    return target(str(name))


# --- tracks -----------------------------------------------------------------------------------


def _of_track(path: Path, options: ValidateOptions) -> Report:
    from converter.validation.illustrate import facts_of, pictures_of, series_of
    from converter.validation.tracked import Tracked

    evidence = Tracked(path, options.read, thorough=options.thorough)
    results = run_checks(evidence, "track")
    return Report(
        path=str(path),
        name=evidence.folders.name,
        kind="track",
        format="metrical_tracker",
        n_frames=len(evidence.numbers),
        facts=facts_of(evidence),
        results=results,
        series=_if(options.illustrate, lambda: series_of(evidence, results)),
        pictures=_if(options.illustrate, lambda: pictures_of(evidence)),
        reading_seconds=evidence.reading_seconds,
    )


def _if(wanted: bool, make: Callable[[], tuple[Series, ...] | tuple[Picture, ...]]) -> tuple:  # type: ignore[type-arg]
    return make() if wanted else ()


def _of_evidence(
    evidence: Evidence, source: Source, options: ValidateOptions, before: tuple[CheckResult, ...]
) -> Report:
    from converter.validation.illustrate import facts_of, pictures_of, series_of

    track: Track = evidence.track
    kind = "bundle" if source.name == "bundle" else "track"
    results = (*before, *run_checks(evidence, "bundle"))
    return Report(
        path="",
        name=track.name,
        kind=kind,  # type: ignore[arg-type]
        format=source.name,
        n_frames=len(track),
        facts=facts_of(evidence),
        results=results,
        series=_if(options.illustrate, lambda: series_of(evidence, results)),
        pictures=_if(options.illustrate, lambda: pictures_of(evidence)),
    )


# --- bundles and datasets ---------------------------------------------------------------------


def _of_bundle(path: Path, source: Source, options: ValidateOptions) -> Report:
    from converter.validation.checks.bundle import check_written

    began = time.perf_counter()
    result = run_check("bundle-damaged", lambda _: check_written(target("bundle"), path),
                       _NOTHING)  # fmt: skip
    try:
        track = source.read(path, options.read)
    except UncropError as error:
        if result.status != "found":
            raise
        others = [c for c in all_checks() if c != "bundle-damaged"]
        skipped = [r for r in run_checks(_Unread(error), "bundle") if r.check in others]
        return Report(str(path), path.name, "bundle", "bundle", results=(result, *skipped))
    seconds = time.perf_counter() - began
    evidence = Evidence(track, thorough=options.thorough)
    report = _of_evidence(evidence, source, options, (result,))
    return replace(report, reading_seconds=seconds)


class _Unread(Evidence):
    """What could not be read: every check is skipped, with the reason."""

    def __init__(self, error: UncropError) -> None:
        self.thorough = False
        self.damaged = {}
        self._error = error

    @property
    def track(self) -> Track:
        raise CheckSkipped(f"the bundle cannot be read: {self._error}")


_NOTHING = _Unread(FormatError("nothing"))


def _of_dataset(path: Path, writer: Target) -> Report:
    from converter.validation.checks.bundle import check_written

    found: list[Outcome] = []

    def look(_: Evidence) -> Outcome:
        found.append(check_written(writer, path))
        return found[0]

    result = run_check("dataset", look, _NOTHING)
    named = [f"{f.message} ({f.check})" if f.check else f.message for f in found[0].findings]
    findings = tuple(
        replace(f, message=message, check="dataset")
        for f, message in zip(found[0].findings, named, strict=True)
    )
    worst_first = sorted(findings, key=lambda f: ("error", "warning", "info").index(f.severity))
    result = replace(result, findings=tuple(worst_first))
    return Report(str(path), path.absolute().name, "dataset", writer.name, results=(result,))


def _unreadable(path: Path, error: UncropError) -> Report:
    message = str(error).removeprefix(f"{error.where}: ")
    finding = Finding("unreadable", "error", error.where, message)
    result = CheckResult("unreadable", "found", (finding,))
    return Report(str(path), path.name, "unreadable", results=(result,))
