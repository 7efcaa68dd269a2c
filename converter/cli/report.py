"""What a verb shows while it works and when it is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from converter.cli.exits import EXIT_FINDINGS, EXIT_FINE, EXIT_INTERRUPTED
from converter.errors import printable
from converter.findings import Finding, counted
from converter.registry import Written

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_STYLES = {"info": "cyan", "warning": "yellow", "error": "bold red"}


class Reporter:
    """Progress bars on a terminal's standard error, results on standard output."""

    def __init__(self, *, quiet: bool, json: bool) -> None:
        from rich.console import Console

        self._quiet, self._json = quiet, json
        self._out: Console = Console(highlight=False, soft_wrap=True)
        self._err: Console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Reporter:
        if not self._quiet and not self._json and sys.stderr.isatty():
            self._bars = _progress(self._err)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Advance the bar of one stage."""
        if self._bars is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def _say(self, text: str = "", style: str = "") -> None:
        """Print a line to standard output, above the bars if both share a terminal."""
        shared = self._bars is not None and sys.stdout.isatty()
        console = self._err if shared else self._out
        console.print(text, markup=False, style=style)

    def steps(self, steps: Sequence[str]) -> None:
        """Say what was found out while reading."""
        if not self._quiet and not self._json:
            for step in steps:
                self._say(step)

    def findings(self, findings: Sequence[Finding]) -> None:
        """Warnings and errors go to standard error, one line each."""
        from rich.text import Text

        for finding in findings:
            if finding.severity == "info" and self._quiet:
                continue
            style = _STYLES[finding.severity]
            line = Text.assemble((f"{finding.severity}: ", style), str(finding))
            self._err.print(line)

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Two columns: names, and texts that wrap under themselves."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, text in rows:
            table.add_row(Text(name), Text(printable(text)))
        self._out.print(table, soft_wrap=False)

    def written(self, written: Written, *, wrote: bool) -> None:
        """Say what was written, what is still missing, and what to run next."""
        self.findings(written.findings)
        if self._quiet or self._json:
            return
        for line in written.summary:
            self._say(line)
        if not wrote:
            return
        self._say(f"wrote {written.path}", "bold green")
        if written.missing:
            self._say(f"\nStill missing, in this order{written.run_in}:")
            for missing in written.missing:
                self._say(f"  {missing.file}: {missing.purpose}")
                self._say(f"      {missing.command}", "dim")
        if written.next_command:
            self._say(f"\nNext: {written.next_command}")


def _progress(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Items per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.0f}/s")

    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def say_refused(track: Path, message: str) -> None:
    """One line on standard error for a track of many that was refused; it names the track once."""
    named = any(
        message.startswith((f"{printable(path)}:", f"{printable(path)}{os.sep}"))
        for path in (track, os.path.abspath(track))
    )
    print(f"uncrop: {message if named else f'{printable(track)}: {message}'}", file=sys.stderr)


def finish_many(entries: Sequence[Mapping[str, Any]], n_tracks: int, *, json: bool) -> int:
    """End a run over many tracks, of which ``entries`` were done; return the exit code.

    An entry that has an ``error`` is a track that was refused.
    """
    failed = any("error" in entry for entry in entries)
    whole = len(entries) == n_tracks
    if json:
        print(dumps({"ok": whole and not failed, "tracks": entries}, indent=1))
    if not whole:
        return say_interrupted(len(entries), n_tracks)
    return EXIT_FINDINGS if failed else EXIT_FINE


def say_interrupted(n_done: int, n_tracks: int) -> int:
    """Say how far a run over many tracks came; return the exit code."""
    print(f"uncrop: interrupted after {n_done} of {counted(n_tracks, 'track')}.", file=sys.stderr)
    return EXIT_INTERRUPTED
