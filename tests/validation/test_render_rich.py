"""What a terminal shows: every track, the worst first, and what was cut or skipped."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from converter.findings import Finding
from converter.validation.render_rich import measured_text, render_rich
from converter.validation.report import CheckResult, Report
from tests.validation.made import made


def shown(reports: Sequence[Report], width: int = 120) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    for part in render_rich(reports):
        console.print(part)
    return stream.getvalue()


def test_the_worst_comes_first_with_what_was_measured() -> None:
    text = shown([made(k, illustrated=False) for k in (1, 3, 7, 39)])
    rows = [text.index(f"actor_{k:03d}") for k in (39, 7, 3, 1)]
    assert rows == sorted(rows)
    assert "measured 412.5 px, limit 0.5 px" in text
    assert "skipped pixels-match-bbox (3 of 4 tracks): there are no source frames" in text
    assert "4 tracks: 2 with errors, 1 with warnings only, 1 fine" in text


def test_five_hundred_tracks_are_cut_and_the_cut_is_said() -> None:
    text = shown([made(k, illustrated=False) for k in range(500)])
    assert text.count("\n") < 200
    assert "... and 440 more tracks, none of them worse" in text
    assert "--json or --html lists all" in text
    assert "500 tracks: 82 with errors" in text


def test_text_of_files_is_neither_markup_nor_control() -> None:
    nasty = "[red]evil[/red] [link=file:///x]\x1b[31m\nx"
    finding = Finding("x", "error", nasty, nasty, fix=nasty)
    result = CheckResult("x", "found", (finding,))
    skipped = CheckResult("y", "skipped", reason=nasty)
    report = replace(made(1, illustrated=False), path=nasty, results=(result, skipped))
    text = shown([report], 400)
    assert "\x1b" not in text
    assert text.count("evil") >= 4
    assert text.count("\\x1b") >= 4


def test_a_narrow_terminal_shows_every_track() -> None:
    text = shown([made(k, illustrated=False) for k in (0, 1)], width=60)
    squeezed = "".join(text.split())
    assert "K-naive" in squeezed
    assert "1withwarnings" not in squeezed
    assert max(map(len, text.splitlines())) <= 60


def test_numbers_without_limit_and_limits_without_number() -> None:
    def text(measured: float | None, limit: float | None, unit: str = "") -> str:
        return measured_text(Finding("x", "info", "", "", measured, limit, unit))

    assert text(None, None) == ""
    assert text(3, None) == "measured 3"
    assert text(1, 0, "frames") == "measured 1 frame, limit 0 frames"
    assert text(1, 0.8, "times") == "measured 1 times, limit 0.8 times"
    assert text(0.000123, 1e-5, "m") == "measured 0.000123 m, limit 1e-05 m"
