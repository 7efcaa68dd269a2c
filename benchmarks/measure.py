"""Measuring several ways of doing one thing side by side, on a machine that others use too."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cost:
    """What one run cost: seconds on the wall, CPU seconds of all threads."""

    wall_s: float
    cpu_s: float

    @property
    def alone_s(self) -> float:
        """Estimate of the wall time on an otherwise idle machine, for work that does not wait.

        Others on the machine add to the wall time, threads of its own to the CPU time.
        """
        return min(self.wall_s, self.cpu_s)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name
        What was done.
    wall_s, cpu_s
        Of the cheapest repetition; None for a row that was skipped.
    ratio
        The figure that counts, as text: against what, and how often faster.
    limit
        What it has to be; empty where the row is only there to compare with.
    ok
        Whether it is; None without a limit.
    note
        Sizes, or why the row was skipped.

    """

    name: str
    wall_s: float | None = None
    cpu_s: float | None = None
    ratio: str = ""
    limit: str = ""
    ok: bool | None = None
    note: str = ""


@dataclass
class Table:
    """The rows of one benchmark."""

    title: str
    rows: list[Row] = field(default_factory=list)


def side_by_side(ways: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, Cost]:
    """Run each way once per round, round after round, and return each way's cheapest round.

    Interleaved, so that a busy minute of the machine meets all ways alike; the minimum, because
    other programs only ever add to a time.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            costs[name].append(Cost(time.perf_counter() - wall, time.process_time() - cpu))
    return {name: cheapest(found) for name, found in costs.items()}


def cheapest(costs: Sequence[Cost]) -> Cost:
    """Smallest wall time and smallest CPU time."""
    return Cost(min(c.wall_s for c in costs), min(c.cpu_s for c in costs))


@dataclass(frozen=True)
class Child:
    """What a finished child process cost; ``peak_bytes`` is 0 unless it printed it."""

    cost: Cost
    peak_bytes: int


def run_child(arguments: Sequence[str]) -> Child:
    """Run ``python ARGUMENTS`` in a process of its own; raises if it fails.

    The peak memory that the system reports for a child includes what its parent had when it was
    started, so `benchmarks.peak` prints its own.
    """
    command = [sys.executable, *arguments]
    wall = time.perf_counter()
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}: {printed}")
    cost = Cost(time.perf_counter() - wall, usage.ru_utime + usage.ru_stime)
    last = printed.split()[-1:]
    return Child(cost, int(last[0]) if last and last[0].isdecimal() else 0)


def times(slow: float, fast: float) -> str:
    """How often ``fast`` fits into ``slow``."""
    return f"{slow / fast:.2f}x"
