"""Report: all that the checks established about one track, as every renderer reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.findings import Finding, Severity
from converter.geometry.pixels import Floats

Status = Literal["passed", "found", "skipped"]
"""A check passed, found something, or could not run; one that could not run never passes."""
Kind = Literal["track", "bundle", "dataset", "unreadable"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""Worst first."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check established.

    Attributes
    ----------
    check
        Stable id of the check, the name of its page in docs/checks/.
    status
        Whether it passed, found something or was skipped.
    findings
        What it found, worst first.
    reason
        Why it was skipped.
    n_examined
        Number of frames, files or pictures that it looked at.
    frame_ids
        Frames at which it found something, ascending; empty where it speaks of the whole track.

    """

    check: str
    status: Status
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    n_examined: int = 0
    frame_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One number per frame, for a plot, with the frames that a check marked.

    Attributes
    ----------
    name, unit
        What is plotted: ``focal length``, ``px``.
    frame_ids
        (N,) int64.
    values
        (N,) or (N, K); NaN where it is not known.
    labels
        Names of the K columns.
    marked
        Frame ids at which a check found something, with the check's id.

    """

    name: str
    unit: str
    frame_ids: NDArray[np.int64]
    values: Floats
    labels: tuple[str, ...] = ()
    marked: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that shows the track, e.g. the crop drawn on a source frame.

    Attributes
    ----------
    caption
        One line.
    jpeg
        The encoded picture, at most 640 px wide.

    """

    caption: str
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """What validation established about one track, bundle or dataset.

    Attributes
    ----------
    path
        As the user gave it, or as it was found below what the user gave.
    name, kind, format
        Name of the track; what it is; the source's or target's name, empty if unreadable.
    n_frames
        Number of frames.
    facts
        What a reader wants to know at a glance, name -> text: size, fov, what was optimised.
    results
        One per check, in the order of the catalogue.
    series, pictures
        For the HTML page; empty unless asked for.
    seconds, reading_seconds
        How long it took, and the share that reading took.

    """

    path: str
    name: str
    kind: Kind
    format: str = ""
    n_frames: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    results: tuple[CheckResult, ...] = ()
    series: tuple[Series, ...] = ()
    pictures: tuple[Picture, ...] = ()
    seconds: float = 0.0
    reading_seconds: float = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, worst first."""
        found = (finding for result in self.results for finding in result.findings)
        return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))

    def count(self, severity: Severity) -> int:
        """Return how many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def worst(self) -> Severity | None:
        """Severity of the worst finding, None if there is none."""
        return self.findings[0].severity if self.findings else None
