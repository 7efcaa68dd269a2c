"""One item cannot end the others: real processes, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from converter.batch import executors
from converter.batch.executors import (
    DaskCluster,
    Executor,
    Failure,
    InProcess,
    LocalProcesses,
)
from converter.errors import MissingInputError
from tests.batch import workers
from tests.conftest import REPOSITORY

EXECUTORS = [InProcess(), LocalProcesses(1), LocalProcesses(2)]


def outcomes(executor: Executor, *items: str) -> list[object]:
    found = dict(executor.run(workers.act, items))
    assert sorted(found) == list(range(len(items)))
    return [found[k] for k in range(len(items))]


@pytest.mark.parametrize("executor", EXECUTORS, ids=str)
def test_what_an_item_raises_is_its_own_outcome(executor: Executor) -> None:
    fine, refused, raised, last = outcomes(executor, "fine", "refuse:a.frame", "raise:no", "last")
    assert str(fine).startswith("fine by")
    assert refused == Failure("refused", "a.frame: expected a good file, found a bad one.")
    assert isinstance(raised, Failure)
    assert raised.kind == "raised"
    assert "workers.py:" in raised.message
    assert "ValueError: no" in raised.message
    assert str(last).startswith("last by")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_worker_that_dies_costs_its_item_only(n_workers: int) -> None:
    items = ("a", "die", "b", "exit:7", "c", "die", "d")
    found = outcomes(LocalProcesses(n_workers), *items)
    failures = {k: v for k, v in enumerate(found) if isinstance(v, Failure)}
    assert sorted(failures) == [1, 3, 5]
    assert {v.kind for v in failures.values()} == {"died"}
    assert "SIGKILL" in failures[1].message
    assert "exit code 7" in failures[3].message


def test_a_result_that_cannot_be_sent_is_said() -> None:
    found = dict(LocalProcesses(1).run(workers.unsendable, ["x", "y"]))
    assert all(isinstance(v, Failure) and "cannot be sent" in v.message for v in found.values())


def test_workers_share_the_items_and_outlive_them() -> None:
    found = outcomes(LocalProcesses(2), *["sleep:0.05"] * 8)
    n_used = len({str(text).split()[-1] for text in found})
    assert n_used == 2  # neither one process for each item, nor one for all


def test_a_worker_keeps_to_one_thread() -> None:
    assert dict(LocalProcesses(1).run(workers.threads, ["x"]))[0] == (1, "1")


def test_closing_ends_what_runs(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    running = LocalProcesses(2).run(workers.act, [f"touch-and-sleep:{file}", "sleep:0.1"])
    assert next(running)[0] == 1
    pid = int(file.read_text())
    running.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "from converter.batch.executors import LocalProcesses\n"
        "from tests.batch.workers import act\n"
        "import sys\n"
        "if __name__ == '__main__':\n"
        "    for _, text in LocalProcesses(1).run(act, ['x', 'sleep:1']):\n"
        "        sys.stdout.write(text + '\\n'); sys.stdout.flush()\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert parent.stdout is not None
    worker = int(parent.stdout.readline().split()[-1])
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return  # nobody waits for it any more
        time.sleep(0.1)
    pytest.fail("the worker goes on without its parent")


# --- a cluster --------------------------------------------------------------------------------


def test_a_cluster_does_what_processes_do(cluster: Any) -> None:
    fine, refused, raised, last = outcomes(
        DaskCluster(cluster.scheduler_address), "fine", "refuse:a.frame", "raise:no", "last"
    )
    assert str(fine).startswith("fine by")
    assert refused == Failure("refused", "a.frame: expected a good file, found a bad one.")
    assert isinstance(raised, Failure)
    assert "ValueError: no" in raised.message
    assert str(last).startswith("last by")


def test_the_items_of_a_killed_worker_go_to_another(cluster: Any, tmp_path: Path) -> None:
    items = ["sleep:0.2", f"die-once:{tmp_path / 'died'}", "sleep:0.2", "x"]
    found = outcomes(DaskCluster(cluster.scheduler_address), *items)
    assert (tmp_path / "died").exists()
    assert [str(text).split(" by ")[0] for text in found] == items


def test_an_item_that_kills_every_worker_is_its_own_failure(cluster: Any) -> None:
    found = outcomes(DaskCluster(cluster.scheduler_address), "die")
    (failure,) = found
    assert isinstance(failure, Failure)
    assert failure.kind == "died"


def test_no_scheduler_and_no_workers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is absent")
    monkeypatch.setattr(executors, "_CONNECT_S", 1)
    with pytest.raises(MissingInputError, match="dask scheduler"):
        list(DaskCluster("tcp://127.0.0.1:9").run(workers.act, ["x"]))
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as idle,
        pytest.raises(MissingInputError, match="a scheduler with workers"),
    ):
        list(DaskCluster(idle.scheduler_address).run(workers.act, ["x"]))


def test_another_version_on_a_worker_is_refused() -> None:
    outcome = executors._remote("0.0", workers.act, "x")
    assert isinstance(outcome, Failure)
    assert "not 0.0" in outcome.message
