"""``uncrop validate`` as a user meets it: tables, exit codes, files, interruption, resumption."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNCROP = [sys.executable, "-m", "converter.cli.main"]


def run(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNCROP, "validate", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, **more,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


@pytest.fixture
def sample(fixtures_dir: Path) -> Path:
    return fixtures_dir / "sample"


@pytest.fixture
def four(sample: Path, tmp_path: Path) -> Path:
    """Two good tracks, one with a damaged frame, one without any."""
    top = tmp_path / "tracks"
    for name in ("a", "b", "c", "d"):
        shutil.copytree(sample, top / name)
    (top / "c/output/ada/checkpoint/00003.frame").write_bytes(b"x")
    for frame in (top / "d/output/ada/checkpoint").iterdir():
        frame.unlink()
    return top


def test_a_good_track_and_the_severity_that_fails(sample: Path) -> None:
    done = run(sample)
    assert done.returncode == 0, done.stderr
    assert "landmarks-missing" in done.stdout
    assert done.stderr == ""  # quiet where there is no terminal
    assert run(sample, "--fail-on", "warning", "--quiet").returncode == 1


def test_a_broken_track_is_a_row_and_not_the_end(four: Path) -> None:
    done = run(four, "--jobs", "2")
    assert done.returncode == 1
    assert done.stdout.count("unreadable") >= 4
    assert "00003.frame" in done.stdout
    assert "4 tracks: 2 with errors" in done.stdout
    for name in ("a", "b", "c", "d"):
        assert f"{name}/output/ada" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "expected a TRACK"),
        (["TRACK", "--jobs", "0"], 2, "--jobs: expected 1 or more"),
        (["TRACK", "--fail-on", "info"], 2, "--fail-on"),
        (["/nowhere/at all"], 3, "/nowhere/at all"),
        (["TRACK", "/nowhere"], 3, "/nowhere"),
    ],
)
def test_typing_mistakes(sample: Path, arguments: list[str], code: int, said: str) -> None:
    done = run(*(sample if a == "TRACK" else a for a in arguments))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
