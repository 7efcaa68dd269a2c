"""The benchmarks run; their figures are nobody's promise here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import run


@pytest.mark.parametrize("name", [n for n in run.NAMES if n != "images"])
def test_a_benchmark_runs(name: str, tmp_path: Path) -> None:
    figures, tables = tmp_path / "figures.json", tmp_path / "tables.md"
    arguments = ["--quick", "--only", name, "--json", str(figures), "--markdown", str(tables)]
    assert run.main(arguments) == 0
    (table,) = json.loads(figures.read_text())["tables"]
    assert all(row["wall_s"] is not None or row["note"] for row in table["rows"])
    assert any(row["limit"] for row in table["rows"]) or name == "frames"  # without torch
    assert tables.read_text().count("\n|") == len(table["rows"]) + 2


def test_the_image_benchmark_compares_what_a_conversion_writes(tmp_path: Path) -> None:
    from benchmarks import images

    table = images.run(tmp_path, quick=True)
    assert [row.ok is None for row in table.rows] == [*[False, True] * 4, True]
    assert [row.name.split()[-2] for row in table.rows[:8:2]] == [
        "full",
        "window",
        "padded",
        "crop",
    ]
    assert all(row.wall_s for row in table.rows)
