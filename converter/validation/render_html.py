"""Reports as one HTML page that opens offline: tables, plots over frames, pictures.

The page holds everything and may fetch nothing (its Content-Security-Policy says so). Every text
goes through Jinja2's autoescape, and only the page's own script, named by a nonce, can run. What
makes it large is bounded: see `PICTURE_BYTES` and `PLOTTED_VALUES`. Why Plotly:
docs/decisions/2026-11-21-plots-in-the-report.md.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converter import __version__
from converter.errors import UncropError, printable
from converter.findings import Finding, Severity
from converter.geometry.pixels import Floats
from converter.validation.render_rich import badness, measured_text
from converter.validation.report import SEVERITIES, CheckResult, Picture, Report, Series

PICTURE_BYTES = 16 * 2**20
"""All pictures of a page. The worst tracks keep theirs whole, others' are reduced or left out."""
PLOTTED_VALUES = 1_500_000
"""All plotted numbers of a page; series longer than their share keep every extreme."""
_SHARE_WHOLE = 0.5
_REDUCED_WIDTH = 320
_FEWEST_POINTS, _MOST_POINTS = 120, 6000
_MAX_FINDINGS = 100
_MAX_RANGES = 300

_COLUMNS = (
    ("worst", "worst", True),
    ("name", "track", False),
    ("kind", "kind", False),
    ("frames", "frames", True),
    ("error", "errors", True),
    ("warning", "warnings", True),
    ("info", "infos", True),
    ("skipped", "skipped", True),
    ("finding", "worst finding", False),
)


def render_html(reports: Sequence[Report], *, complete: bool = True, title: str = "") -> str:
    """Return the page of a run.

    Parameters
    ----------
    reports
        Of all tracks; their series and pictures are shown where they have any.
    complete
        False if the run was interrupted: some tracks are not in it.
    title
        Heading; by default the track's name, or how many tracks there are.

    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    ordered = sorted(reports, key=badness)
    plots = _plots_of(ordered)
    tracks = [
        _track(number, report, pictures, plot)
        for number, (report, pictures, plot) in enumerate(
            zip(ordered, _bounded_pictures(ordered), plots, strict=True)
        )
    ]
    environment = Environment(
        loader=PackageLoader("converter.validation"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    content: dict[str, Any] = {
        "title": title or _title(reports),
        "version": __version__,
        "complete": complete,
        "tiles": _tiles(reports),
        "columns": [{"key": k, "label": text, "numeric": n} for k, text, n in _COLUMNS],
        "checks": _checks(reports),
        "tracks": tracks,
        # Files of this package, which need no escaping.
        "css": Markup(_own("report.css")),  # noqa: S704
        "js": Markup(_own("report.js")),  # noqa: S704
        "library": _plotting_library() if any(plots) else "",
    }
    page = environment.get_template("report.html.j2")
    # Not to be guessed by somebody who names a file: it depends on all that the page says.
    said = page.render({**content, "library": ""}, nonce="")
    nonce = hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()
    text = page.render(content, nonce=nonce[:32])
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class _Pictures:
    """The pictures of one track as the page shows them."""

    shown: list[dict[str, str]] = field(default_factory=list)
    note: str = ""


def _title(reports: Sequence[Report]) -> str:
    if len(reports) == 1:
        return f"Validation of {printable(reports[0].name)}"
    return f"Validation of {len(reports)} tracks"


def _own(name: str) -> str:
    return (files("converter.validation") / "templates" / name).read_text("utf-8")


@cache
def _plotting_library() -> str:
    """plotly.js as its wheel ships it, compressed: the page unpacks it when a plot is wanted."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode("utf-8"), 9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _tiles(reports: Sequence[Report]) -> list[dict[str, Any]]:
    worst = Counter[str](_worst(report) for report in reports)
    labels = {"error": "with errors", "warning": "with warnings only", "fine": "fine"}
    tiles: list[dict[str, Any]] = [{"value": "", "count": len(reports), "label": "tracks"}]
    for value, label in labels.items():
        tiles.append({"value": value, "count": worst[value], "label": label})
    return tiles


def _worst(report: Report) -> Literal["error", "warning", "fine"]:
    return "fine" if report.worst is None or report.worst == "info" else report.worst


def _checks(reports: Sequence[Report]) -> list[dict[str, Any]]:
    counts = Counter(check for report in reports for check in _found_checks(report))
    return [{"id": check, "n_tracks": n} for check, n in counts.most_common()]


def _found_checks(report: Report) -> list[str]:
    return sorted({f.check for f in report.findings})


def _track(
    number: int, report: Report, pictures: _Pictures, plots: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything that the template says about one track."""
    findings = report.findings
    skipped = [r for r in report.results if r.status == "skipped"]
    counts = {severity: report.count(severity) for severity in SEVERITIES}
    first = findings[0] if findings and findings[0].severity != "info" else None
    keys = {
        "order": number,
        "worst": -number,
        "name": f"{report.name} {report.path}",
        "kind": report.kind,
        "frames": report.n_frames,
        "error": counts["error"],
        "warning": counts["warning"],
        "info": counts["info"],
        "skipped": len(skipped),
        "finding": first.check if first else "",
    }
    return {
        "number": number,
        "report": report,
        "worst": _worst(report),
        "badge": "unreadable" if report.kind == "unreadable" else _worst(report),
        "counts": counts,
        "checks": " ".join(_found_checks(report)),
        "sort_keys": json.dumps(keys),
        "first": first,
        "first_measured": measured_text(first) if first else "",
        "findings": [_finding(f) for f in findings[:_MAX_FINDINGS]],
        "n_more": max(0, len(findings) - _MAX_FINDINGS),
        "skipped": skipped,
        "passed": [r for r in report.results if r.status == "passed"],
        "pictures": pictures.shown,
        "picture_note": pictures.note,
        "plots": plots,
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity,
        "check": finding.check,
        "where": finding.where,
        "message": finding.message,
        "fix": finding.fix,
        "measured": measured_text(finding),
    }


# --- pictures ---------------------------------------------------------------------------------


def _bounded_pictures(reports: Sequence[Report]) -> list[_Pictures]:
    """Pictures of every report, worst first, so that all fit into `PICTURE_BYTES`."""
    total = sum(_size(report.pictures) for report in reports)
    n_left = PICTURE_BYTES
    bounded = []
    for report in reports:
        pictures, note = list(report.pictures), ""
        if pictures and total > PICTURE_BYTES and n_left < PICTURE_BYTES * (1 - _SHARE_WHOLE):
            pictures = _reduced(pictures)
            note = "Reduced, to keep the page of many tracks small."
        if _size(pictures) > n_left:
            pictures, note = [], "Left out, to keep the page of many tracks small."
        n_left -= _size(pictures)
        if note:
            note += " Validate this track alone to see all of it."
        shown = [{"caption": p.caption, "uri": _data_uri(p.jpeg)} for p in pictures]
        bounded.append(_Pictures(shown, note))
    return bounded


def _size(pictures: Sequence[Picture]) -> int:
    return sum(len(picture.jpeg) for picture in pictures)


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _reduced(pictures: Sequence[Picture]) -> list[Picture]:
    import cv2

    from converter.media.images import decode_image, encode_image

    smaller = []
    for picture in pictures:
        try:
            image = decode_image(picture.jpeg, picture.caption)
        except UncropError:
            continue
        scale = min(1.0, _REDUCED_WIDTH / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        resized = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        smaller.append(Picture(picture.caption, encode_image(resized, ".jpg", 75)))
    return smaller


# --- plots ------------------------------------------------------------------------------------


def _plots_of(reports: Sequence[Report]) -> list[dict[str, Any] | None]:
    """Series of every report, as the page's script reads them; None where there are none."""
    n_columns = sum(_columns(series).shape[1] for r in reports for series in r.series)
    n_points = int(np.clip(PLOTTED_VALUES // max(n_columns, 1), _FEWEST_POINTS, _MOST_POINTS))
    return [_plots(report, n_points) if report.series else None for report in reports]


def _plots(report: Report, n_points: int) -> dict[str, Any]:
    severities = {r.check: _severity(r) for r in report.results}
    frames: list[str] = []
    plotted, n_drawn, n_all = [], 0, 0
    for series in report.series:
        values, labels = _about_medians(_columns(series), series.labels)
        ids, values = _with_gaps(series.frame_ids.astype(np.float64), values)
        kept = thinned(values, n_points)
        n_drawn, n_all = n_drawn + len(kept), n_all + len(ids)
        text = _packed(ids[kept], "<f8")
        if text not in frames:
            frames.append(text)
        plotted.append(
            {
                "name": series.name,
                "unit": series.unit,
                "labels": labels,
                "frames": frames.index(text),
                "columns": [_packed(column, "<f4") for column in values[kept].T],
                "ranges": _ranges(series, severities),
            }
        )
    note = ""
    if n_drawn < n_all:
        note = f"{n_drawn} of {n_all} points are drawn; every extreme is among them."
    return {"frames": frames, "series": plotted, "note": note}


def _columns(series: Series) -> Floats:
    """(N, K) values."""
    values = np.asarray(series.values, np.float64)
    return values[:, None] if values.ndim == 1 else values.reshape(len(values), -1)


def _about_medians(values: Floats, labels: Sequence[str]) -> tuple[Floats, list[str]]:
    """Subtract each column's median, and say so, where their distances would hide their shapes."""
    finite = values[np.isfinite(values).all(axis=1)]
    if len(finite) < 2 or values.shape[1] < 2 or len(labels) != values.shape[1]:
        return values, list(labels)
    largest = float(np.ptp(finite, axis=0).max())
    total = float(finite.max() - finite.min())
    if not 1e-4 * total < largest < total / 8:
        return values, list(labels)
    medians = np.median(finite, axis=0)
    signs = ["−" if median >= 0 else "+" for median in medians]
    said = [f"{label} {sign} {abs(median):.6g}"
            for label, sign, median in zip(labels, signs, medians, strict=True)]  # fmt: skip
    return values - medians, said


def _severity(result: CheckResult) -> Severity:
    return result.findings[0].severity if result.findings else "info"


def _packed(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode("ascii")


def _with_gaps(ids: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Put an empty point where frames are missing, so that no line is drawn across."""
    steps = np.diff(ids)
    if not len(steps):
        return ids, values
    holes = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1
    return np.insert(ids, holes, ids[holes - 1] + 1), np.insert(values, holes, np.nan, axis=0)


def thinned(values: Floats, n_points: int) -> NDArray[np.int64]:
    """Rows of (N, K) ``values`` to draw: about ``n_points``, with each bucket's extremes.

    A spike of one frame therefore stays, however long the series is.
    """
    n, n_columns = values.shape
    if n <= n_points or not n_columns:
        return np.arange(n)
    n_buckets = max(1, n_points // (2 * n_columns + 1))
    edges = np.linspace(0, n, n_buckets + 1).astype(int)
    kept = {0, n - 1}
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        bucket = values[first:last]
        known = np.isfinite(bucket)
        if not known.all():
            kept.add(int(first + np.flatnonzero(~known.all(axis=1))[0]))
        for column in np.flatnonzero(known.any(axis=0)):
            kept.add(int(first + np.nanargmin(bucket[:, column])))
            kept.add(int(first + np.nanargmax(bucket[:, column])))
    return np.array(sorted(kept), np.int64)


def _ranges(series: Series, severities: dict[str, Severity]) -> list[list[Any]]:
    """Marked frames as [first, last, check, severity]; neighbours of one check are one range."""
    ranges: list[list[Any]] = []
    for check in sorted({check for _, check in series.marked}):
        severity = severities.get(check, "info")
        open_range: list[Any] = []
        for frame in sorted({frame for frame, other in series.marked if other == check}):
            if open_range and frame <= open_range[1] + 1:
                open_range[1] = frame
            else:
                open_range = [frame, frame, check, severity]
                ranges.append(open_range)
    ranges.sort(key=lambda r: (SEVERITIES.index(r[3]), r[0] - r[1]))
    return ranges[:_MAX_RANGES]
