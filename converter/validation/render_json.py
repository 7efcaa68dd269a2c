"""Reports as JSON: docs/validate.schema.json says what every key means and how versions change."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from converter import __version__
from converter.errors import FormatError
from converter.findings import Finding
from converter.validation.report import SEVERITIES, CheckResult, Picture, Report, Series

if TYPE_CHECKING:
    from converter.validation.fix import FixResult

SCHEMA = "uncrop-validation"
SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; keys may be added without."""


def render_json(
    reports: Sequence[Report],
    *,
    complete: bool = True,
    fixed: Mapping[int, FixResult | object] | None = None,
) -> str:
    """Return the JSON document of a run.

    Parameters
    ----------
    reports
        Of all tracks.
    complete
        False if the run was interrupted: some tracks are not in it.
    fixed
        What mending them did, by position; anything but a FixResult says why it failed.

    """
    tracks = [report_to_json(report) for report in reports]
    for position, outcome in (fixed or {}).items():
        tracks[position]["fix"] = _fix_to_json(outcome)
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "creator": f"uncrop {__version__}",
        "complete": complete,
        "summary": summary(reports),
        "tracks": tracks,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def summary(reports: Sequence[Report]) -> dict[str, Any]:
    """Count tracks by their worst finding, and by check."""
    worst = Counter(report.worst for report in reports)
    checks = Counter(
        check
        for report in reports
        for check in {f.check for f in report.findings if f.severity != "info"}
    )
    return {
        "n_tracks": len(reports),
        "n_with_errors": worst["error"],
        "n_with_warnings_only": worst["warning"],
        "n_fine": worst["info"] + worst[None],
        "n_unreadable": sum(report.kind == "unreadable" for report in reports),
        "n_tracks_by_check": dict(sorted(checks.items())),
    }


def report_to_json(report: Report, *, illustrated: bool = False) -> dict[str, Any]:
    """Return one report as JSON values; ``illustrated`` keeps its series and pictures."""
    content: dict[str, Any] = {
        "path": _text(report.path),
        "name": _text(report.name),
        "kind": report.kind,
        "format": _text(report.format),
        "n_frames": int(report.n_frames),
        "worst": report.worst,
        "counts": {severity: report.count(severity) for severity in SEVERITIES},
        "facts": {_text(name): _text(text) for name, text in report.facts.items()},
        "checks": [_result_to_json(result) for result in report.results],
        "seconds": _number(report.seconds),
        "reading_seconds": _number(report.reading_seconds),
    }
    if illustrated:
        content["series"] = [_series_to_json(series) for series in report.series]
        content["pictures"] = [
            {"caption": _text(p.caption), "jpeg": base64.b64encode(p.jpeg).decode("ascii")}
            for p in report.pictures
        ]
    return content


def _fix_to_json(outcome: FixResult | object) -> dict[str, Any]:
    from converter.validation.fix import FixResult

    if not isinstance(outcome, FixResult):
        failed = _text(getattr(outcome, "message", str(outcome)))
        return {"path": None, "failed": failed, "applied": [], "left": []}
    applied = [
        {"check": fix.check, "where": _text(fix.where), "before": _text(fix.before),
         "after": _text(fix.after), "frame_ids": [int(frame) for frame in fix.frame_ids]}
        for fix in outcome.applied
    ]  # fmt: skip
    return {
        "path": None if outcome.path is None else _text(str(outcome.path)),
        "failed": "",
        "applied": applied,
        "left": [_finding_to_json(finding) for finding in outcome.left],
    }


def _result_to_json(result: CheckResult) -> dict[str, Any]:
    return {
        "check": result.check,
        "status": result.status,
        "reason": _text(result.reason),
        "n_examined": int(result.n_examined),
        "frame_ids": [int(frame) for frame in result.frame_ids],
        "findings": [_finding_to_json(finding) for finding in result.findings],
    }


def _finding_to_json(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "check": finding.check,
        "where": _text(finding.where),
        "message": _text(finding.message),
        "measured": _number(finding.measured),
        "limit": _number(finding.limit),
        "unit": finding.unit,
        "fix": _text(finding.fix),
    }


def _series_to_json(series: Series) -> dict[str, Any]:
    values = np.asarray(series.values, np.float64)
    return {
        "name": series.name,
        "unit": series.unit,
        "labels": list(series.labels),
        "frame_ids": [int(frame) for frame in series.frame_ids],
        "shape": list(values.shape),
        "values": [_number(value) for value in values.ravel().tolist()],
        "marked": [[int(frame), check] for frame, check in series.marked],
    }


def _number(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity: both become null."""
    if value is None:
        return None
    return float(value) if math.isfinite(value) else None


def _text(text: str) -> str:
    """File names need not be text: what no encoding holds becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def report_from_json(content: Any, where: str) -> Report:
    """Return the report that `report_to_json` gave; raises FormatError for anything else."""
    try:
        return Report(
            path=str(content["path"]),
            name=str(content["name"]),
            kind=content["kind"],
            format=str(content["format"]),
            n_frames=int(content["n_frames"]),
            facts={str(name): str(text) for name, text in content["facts"].items()},
            results=tuple(_result_from_json(result) for result in content["checks"]),
            series=tuple(_series_from_json(series) for series in content.get("series", ())),
            pictures=tuple(
                Picture(str(p["caption"]), base64.b64decode(p["jpeg"], validate=True))
                for p in content.get("pictures", ())
            ),
            seconds=float(content["seconds"] or 0),
            reading_seconds=float(content["reading_seconds"] or 0),
        )
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        problem = f"{type(error).__name__}: {error}"
        raise FormatError(where, "a report of uncrop validate", problem) from None


def _result_from_json(content: dict[str, Any]) -> CheckResult:
    findings = tuple(
        Finding(
            f["check"], _severity(f["severity"]), f["where"], f["message"], f["measured"],
            f["limit"], f["unit"], f["fix"],
        )
        for f in content["findings"]
    )  # fmt: skip
    return CheckResult(
        check=str(content["check"]),
        status=content["status"],
        findings=findings,
        reason=str(content["reason"]),
        n_examined=int(content["n_examined"]),
        frame_ids=tuple(int(frame) for frame in content["frame_ids"]),
    )


def _severity(text: Any) -> Any:
    if text not in SEVERITIES:
        raise ValueError(f"severity {text!r}")
    return text


def _series_from_json(content: dict[str, Any]) -> Series:
    values = [math.nan if value is None else float(value) for value in content["values"]]
    return Series(
        name=str(content["name"]),
        unit=str(content["unit"]),
        frame_ids=np.array(content["frame_ids"], np.int64),
        values=np.array(values, np.float64).reshape(content["shape"]),
        labels=tuple(str(label) for label in content["labels"]),
        marked=tuple((int(frame), str(check)) for frame, check in content["marked"]),
    )
