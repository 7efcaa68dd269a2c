"""The same reports wherever the work is done, in the order of the tracks."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter.batch.discover import Found, discover
from converter.batch.executors import DaskCluster, InProcess, LocalProcesses
from converter.batch.run import validate_many
from converter.registry import ReadOptions
from converter.validation.report import Report
from converter.validation.validate import ValidateOptions

OPTIONS = ValidateOptions(ReadOptions(hash_inputs=False))


@pytest.fixture
def tracks(fixtures_dir: Path, tmp_path: Path) -> list[Found]:
    """Five copies of a track; the third lacks its frames."""
    for name in "abcde":
        shutil.copytree(fixtures_dir / "sample", tmp_path / name)
    shutil.rmtree(tmp_path / "c/output/ada/checkpoint")
    (tmp_path / "c/output/ada/checkpoint").mkdir()
    return discover(tmp_path).found


def timeless(reports: tuple[Report, ...]) -> list[Report]:
    return [replace(r, seconds=0, reading_seconds=0) for r in reports]


def test_processes_find_what_one_process_finds(tracks: list[Found]) -> None:
    seen: list[tuple[int, int]] = []
    result = validate_many(
        tracks, OPTIONS, LocalProcesses(2), lambda stage, done, n: seen.append((done, n))
    )
    alone = validate_many(tracks, OPTIONS, InProcess())
    assert timeless(result.reports) == timeless(alone.reports)
    assert [r.path for r in result.reports] == [str(t.path) for t in tracks]
    assert [r.worst for r in result.reports].count("error") == 1
    assert seen == [(k, 5) for k in range(6)]
    assert (result.n_asked, result.n_resumed, result.interrupted) == (5, 0, False)


def test_a_cluster_that_loses_a_worker_finds_the_same(cluster: Any, tracks: list[Found]) -> None:
    killed: list[int] = []

    def kill_one(stage: str, done: int, total: int) -> None:
        if done == 1 and not killed:
            killed.append(next(iter(cluster.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    result = validate_many(tracks, OPTIONS, DaskCluster(cluster.scheduler_address), kill_one)
    assert killed
    assert timeless(result.reports) == timeless(validate_many(tracks, OPTIONS, InProcess()).reports)


def test_an_interrupt_keeps_what_is_done(tracks: list[Found]) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    for executor in (InProcess(), LocalProcesses(2)):
        result = validate_many(tracks, OPTIONS, executor, interrupt)
        assert result.interrupted
        assert len(result.reports) == 2
