"""Reports as tables for a terminal. Nothing is printed here: `converter.cli` does that."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from converter.errors import printable
from converter.findings import Finding, Severity, counted
from converter.validation.report import SEVERITIES, Report

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from converter.validation.fix import FixResult

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_COUNTED = ("frames", "files", "images", "maps", "odd extents")
_MAX_WORST = 20
_MAX_ROWS = 60
_MAX_SKIPPED = 12
_MESSAGE_LENGTH = 400


def render_rich(reports: Sequence[Report], *, max_rows: int = _MAX_ROWS) -> list[RenderableType]:
    """Return what to print, in order: the table of tracks, the worst findings, what was skipped.

    Long runs are cut, worst first, and every cut is said.
    """
    worst_first = sorted(reports, key=badness)
    below = _common_folder([report.path for report in reports])
    parts: list[RenderableType] = [_dim(f"below {printable(below)}")] if below else []
    parts.append(_tracks(worst_first[:max_rows], below))
    if len(reports) > max_rows:
        parts.append(_dim(f"... and {len(reports) - max_rows} more tracks, none of them worse"))
    if len(reports) == 1:
        parts.append(_facts(reports[0]))
    parts += _worst(worst_first)
    parts += _skipped(reports)
    parts.append(_summary(reports))
    return parts


def badness(report: Report) -> tuple[int, ...]:
    """Sort key, worst first: unreadable, then by the number of errors, warnings, infos."""
    unreadable = report.kind == "unreadable"
    return (-unreadable, *(-report.count(severity) for severity in SEVERITIES))


def _tracks(reports: Sequence[Report], below: str) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("track", overflow="fold", ratio=3)
    table.add_column("kind", no_wrap=True)
    table.add_column("frames", justify="right", no_wrap=True)
    for severity in SEVERITIES:
        table.add_column(f"{severity}s" if severity != "info" else "infos", justify="right")
    table.add_column("skipped", justify="right")
    table.add_column("worst", overflow="fold", ratio=2)
    for report in reports:
        counts = [_number(report.count(severity), severity) for severity in SEVERITIES]
        worst = report.findings[0] if report.worst in ("error", "warning") else None
        table.add_row(
            Text(printable(os.path.relpath(report.path, below) if below else report.path)),
            Text(report.kind, STYLES["error"] if report.kind == "unreadable" else ""),
            Text(str(report.n_frames) if report.n_frames else "-"),
            *counts,
            Text(str(sum(r.status == "skipped" for r in report.results))),
            Text("fine", "green") if worst is None else Text(worst.check, STYLES[worst.severity]),
        )
    return table


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths share and that need not stand in every row; empty if there is none.

    A single path stays whole, to be copied from the terminal.
    """
    if len(set(paths)) < 2 or len({os.path.isabs(path) for path in paths}) > 1:
        return ""
    below = os.path.commonpath(paths)
    return "" if below in ("", os.sep) or below in paths else below


def render_fixes(
    reports: Sequence[Report], fixed: Mapping[int, FixResult | object]
) -> Iterator[RenderableType]:
    """What mending did: every change with before and after, then what is left for the user."""
    from rich.padding import Padding
    from rich.text import Text

    from converter.validation.fix import FixResult

    for position, outcome in fixed.items():
        name = printable(reports[position].path)
        if not isinstance(outcome, FixResult):
            failed = printable(getattr(outcome, "message", outcome))
            yield Text.assemble(("not mended ", STYLES["error"]), (name, "bold"), f": {failed}")
            continue
        if outcome.path is None:
            yield Text.assemble(("not mended ", STYLES["warning"]), (name, "bold"),
                                ": nothing of it has one right answer")  # fmt: skip
        else:
            yield Text.assemble(("mended ", "green"), (name, "bold"), " -> ",
                                printable(outcome.path))  # fmt: skip
        for fix in outcome.applied:
            frames = f" ({counted(len(fix.frame_ids), 'frame')})" if fix.frame_ids else ""
            said = f"{fix.check}: {fix.where}: {fix.before} -> {fix.after}{frames}"
            yield Padding(Text(printable(said)), (0, 0, 0, 4))
        for finding in outcome.left:
            left = Text.assemble("left: ", (finding.severity, STYLES[finding.severity]), " ",
                                 f"{finding.check}: {finding}")  # fmt: skip
            yield Padding(left, (0, 0, 0, 4))


def _facts(report: Report) -> RenderableType:
    """What a reader wants to know of a single track."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in report.facts.items():
        table.add_row(Text(printable(name)), Text(printable(text)))
    return table


def _number(count: int, severity: Severity) -> Text:
    from rich.text import Text

    return Text(str(count), STYLES[severity] if count else "dim")


def _worst(reports: Sequence[Report]) -> Iterator[RenderableType]:
    """The worst findings, with the number behind each and its limit; of one track, all of them."""
    from rich.padding import Padding
    from rich.text import Text

    several = len(reports) > 1
    listed = [(f, r) for r in reports for f in r.findings if f.severity != "info" or not several]
    listed.sort(key=lambda pair: SEVERITIES.index(pair[0].severity))
    for finding, report in listed[:_MAX_WORST]:
        heading = Text.assemble((finding.severity, STYLES[finding.severity]), " ", finding.check)
        if several:
            heading.append(f"  {printable(report.path)}", "bold")
        if text := measured_text(finding):
            heading.append(f"  {text}", "magenta")
        yield heading
        shown = str(finding)
        more = " ..." if len(shown) > _MESSAGE_LENGTH else ""
        yield Padding(Text(shown[:_MESSAGE_LENGTH] + more), (0, 0, 0, 4))
    if len(listed) > _MAX_WORST:
        yield _dim(f"... and {len(listed) - _MAX_WORST} more; --json or --html lists all of them")


def measured_text(finding: Finding) -> str:
    """``measured 3.2 px, limit 0.5 px``; empty where there is no number."""
    parts = []
    for name, value in (("measured", finding.measured), ("limit", finding.limit)):
        if value is not None:
            unit = finding.unit
            if value == 1 and unit in _COUNTED:
                unit = unit[:-1]
            parts.append(f"{name} {value:.6g} {unit}".rstrip())
    return ", ".join(parts)


def _skipped(reports: Sequence[Report]) -> Iterator[RenderableType]:
    """Checks that could not run: they did not pass."""
    counts = Counter(
        (r.check, r.reason) for report in reports for r in report.results if r.status == "skipped"
    )
    for (check, reason), count in counts.most_common(_MAX_SKIPPED):
        tracks = f" ({count} of {len(reports)} tracks)" if len(reports) > 1 else ""
        yield _dim(f"skipped {check}{tracks}: {printable(reason)}")
    if len(counts) > _MAX_SKIPPED:
        yield _dim(f"... and {len(counts) - _MAX_SKIPPED} more reasons to skip a check")


def _summary(reports: Sequence[Report]) -> RenderableType:
    from rich.text import Text

    n = len(reports)
    wrong = sum(report.worst == "error" for report in reports)
    doubtful = sum(report.worst == "warning" for report in reports)
    text = Text(f"{counted(n, 'track')}: ")
    text.append(f"{wrong} with errors", STYLES["error"] if wrong else "")
    text.append(", ").append(
        f"{doubtful} with warnings only", STYLES["warning"] if doubtful else ""
    )
    return text.append(", ").append(f"{n - wrong - doubtful} fine", "green")


def _dim(text: str) -> Text:
    from rich.text import Text

    return Text(text, "dim")
