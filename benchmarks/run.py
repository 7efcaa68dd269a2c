"""Measure everything side by side and print one table per question.

``python -m benchmarks.run [--only NAME ...] [--quick] [--json FILE] [--markdown FILE]``
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import Row, Table

NAMES = (
    "startup",
    "frames",
    "cameras",
    "images",
    "targets",
    "memory",
    "pose",
    "validate",
    "recover",
)
_PACKAGES = ("numpy", "torch", "av", "opencv-python-headless", "pillow", "h5py")
_HEADINGS = ("", "wall s", "CPU s", "ratio", "has to be", "", "")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; the exit code does not depend on the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", choices=NAMES, action="append", help="may be given repeatedly")
    parser.add_argument("--quick", action="store_true", help="tiny inputs: figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    options = parser.parse_args(arguments)
    print(machine())
    tables = []
    for name in options.only or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        with tempfile.TemporaryDirectory(prefix="uncrop-bench-") as folder:
            tables.append(module.run(Path(folder), options.quick))
        show(tables[-1])
    if options.json:
        content = {"machine": machine(), "tables": [asdict(t) for t in tables]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        parts = [f"{machine()}\n", *(as_markdown(t) for t in tables)]
        options.markdown.write_text("\n".join(parts), encoding="utf-8")
    return 0


def machine() -> str:
    """One line on where the figures come from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join(
        [f"{cores} cores {platform.machine()} {_processor()}".strip(),
         f"{platform.system()}, Python {platform.python_version()}",
         *(f"{name} {_version(name)}" for name in _PACKAGES)]
    )  # fmt: skip


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cells(row: Row) -> list[str]:
    seconds = ["" if s is None else f"{s:.4f}" for s in (row.wall_s, row.cpu_s)]
    verdict = {True: "ok", False: "NOT MET", None: ""}[row.ok]
    return [row.name, *seconds, row.ratio, row.limit, verdict, row.note]


def show(table: Table) -> None:
    """Print a table to the terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    grid = RichTable(title=table.title, title_justify="left", title_style="bold")
    for place, heading in enumerate(_HEADINGS):
        grid.add_column(heading, justify="right" if place in (1, 2) else "left")
    for row in table.rows:
        grid.add_row(*_cells(row), style="red" if row.ok is False else None)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(grid)


def as_markdown(table: Table) -> str:
    """Give a table as Markdown."""
    lines = [_HEADINGS, ("---", "--:", "--:", "---", "---", "---", "---")]
    lines += [tuple(_cells(row)) for row in table.rows]
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"### {table.title}\n\n{rows}\n"


if __name__ == "__main__":
    sys.exit(main())
