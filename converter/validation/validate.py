"""Validate one path: read it leniently, run every check that applies, say which could not run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from converter.errors import UncropError
from converter.findings import Finding
from converter.registry import ReadOptions, detect_source
from converter.validation.report import CheckResult, Report


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
        source = detect_source(path)
        track = source.read(path, options.read)
    except UncropError as error:
        return _unreadable(path, error, time.perf_counter() - began)
    reading = time.perf_counter() - began
    found = CheckResult("reading", "found" if track.findings else "passed", track.findings)
    return Report(
        path=str(path),
        name=track.name,
        kind="bundle" if source.name == "bundle" else "track",
        format=source.name,
        n_frames=len(track),
        results=(found,),
        seconds=time.perf_counter() - began,
        reading_seconds=reading,
    )


def _unreadable(path: Path, error: UncropError, seconds: float) -> Report:
    finding = Finding("unreadable", "error", str(path), str(error))
    result = CheckResult("unreadable", "found", (finding,))
    return Report(
        str(path),
        path.name,
        "unreadable",
        results=(result,),
        seconds=seconds,
        reading_seconds=seconds,
    )
