"""Kills, full disks, interrupts and other runs: the old output or the new one, never a mixture.

UNCROP_FAULTS is the number of faults per command and kind (default 2; 0 means every point there
is), UNCROP_FAULTS_REPORT=FILE appends what was done.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.points import REMOVALS
from tests.faults.rig import N_TRIALS, Rig
from tests.hostile.zygote import OPEN_TO_ALL

pytestmark = pytest.mark.slow

_N_RANDOM = N_TRIALS or 60


def report(kind: str, rig: Rig, n: int) -> None:
    """Note how many faults were tried, for docs/security.md."""
    path = os.environ.get("UNCROP_FAULTS_REPORT")
    if path:
        with open(path, "a") as file:
            file.write(f"{kind} {rig.command.name} {n}\n")


def test_the_output_is_the_same_each_time(rig: Rig) -> None:
    """Without faults: all that follows compares with these two."""
    rig.reset(to_old=True)
    assert rig.state() == rig.old
    assert rig.go(overwrite=True)["code"] in (0, 1)
    assert rig.state() == rig.new
    assert rig.leftovers() == set()
    assert rig.old != rig.new or rig.command.first == rig.command.second
    assert len(rig.points) > 3
    assert "fsync" in rig.points


def test_what_is_renamed_into_place_is_on_the_disk_before(rig: Rig) -> None:
    """As after a power cut: every file is synchronised before its rename, the folder after."""
    kinds = [p for p in rig.points if p in ("fsync", "os.rename", "renameat2")]
    first = min(i for i, kind in enumerate(kinds) if kind != "fsync")
    assert first > 0
    assert kinds[-1] == "fsync"


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_every_kind_of_point(rig: Rig, overwrite: bool) -> None:
    problems = []
    points = rig.chosen(N_TRIALS)
    for point in points:
        rig.reset(to_old=overwrite)
        before = rig.state()
        answer = rig.go(overwrite=overwrite, fault={"at": point, "action": "kill"})
        found = rig.judge(before, answer, killed=True)
        assert answer["code"] == -signal.SIGKILL or answer["code"] == 0, answer
        # The next run cleans up, and ends with the new output.
        again = rig.go(overwrite=True)
        if again["code"] not in (0, 1) or rig.state() != rig.new or rig.leftovers():
            found.append(f"not mended by the next run: {again['err'][-300:]!r} {rig.leftovers()}")
        problems += [f"point {point} ({rig.points[point - 1]}): {p}" for p in found]
    report("kill at a point", rig, len(points))
    assert not problems, "\n".join(problems)


def test_killed_at_random_times(rig: Rig) -> None:
    chance = random.Random(rig.command.name)
    problems = []
    for trial in range(_N_RANDOM):
        rig.reset(to_old=trial % 2 == 0)
        before = rig.state()
        moment = chance.uniform(0.02, 2 * rig.cpu_s)
        answer = rig.go(overwrite=True, signal=(moment, int(signal.SIGKILL)))
        problems += rig.judge(before, answer, killed=True)
    assert rig.go(overwrite=True)["code"] in (0, 1)
    assert rig.state() == rig.new
    assert rig.leftovers() == set()
    report("kill at a random time", rig, _N_RANDOM)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupts_leave_nothing_behind(rig: Rig, name: str) -> None:
    problems = []
    points = rig.chosen(N_TRIALS)
    for trial, point in enumerate(points):
        rig.reset(to_old=trial % 2 == 0)
        before = rig.state()
        answer = rig.go(overwrite=True, fault={"at": point, "action": name})
        found = rig.judge(before, answer, killed=False)
        if "Traceback" in answer["err"]:
            found.append(f"said {answer['err'][-600:]!r}")
        problems += [f"point {point} ({rig.points[point - 1]}): {p}" for p in found]
    for trial in range(_N_RANDOM):
        rig.reset(to_old=trial % 2 == 0)
        before = rig.state()
        moment = 0.05 + 1.5 * rig.cpu_s * trial / _N_RANDOM
        answer = rig.go(overwrite=True, signal=(moment, int(getattr(signal, name))))
        problems += rig.judge(before, answer, killed=False)
    report(name, rig, len(points) + _N_RANDOM)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", ["ENOSPC", "EIO"])
def test_a_disk_that_refuses(rig: Rig, name: str) -> None:
    problems = []
    points = [p for p in rig.chosen(N_TRIALS) if rig.points[p - 1] not in REMOVALS]
    for trial, point in enumerate(points):
        rig.reset(to_old=trial % 2 == 0)
        before = rig.state()
        answer = rig.go(overwrite=True, fault={"at": point, "action": name})
        found = rig.judge(before, answer, killed=False)
        problems += [f"point {point} ({rig.points[point - 1]}): {p}" for p in found]
    report(name, rig, len(points))
    assert not problems, "\n".join(problems)


def test_files_that_may_not_grow(rig: Rig) -> None:
    """EFBIG in the middle of a write, also of those inside HDF5."""
    largest = max(
        p.stat().st_size for p in (rig.keep / "new").rglob("*") if p.is_file()
    )  # fmt: skip
    if largest < 1 << 16:
        pytest.skip("the message would be as long")
    problems = []
    for trial in range(_N_RANDOM):
        rig.reset(to_old=trial % 2 == 0)
        before = rig.state()
        size = max(1 << 13, largest * (trial + 1) // (_N_RANDOM + 2))
        answer = rig.go(overwrite=True, fault={"at": 0, "action": f"FSIZE{size}"})
        found = rig.judge(before, answer, killed=False)
        if answer["code"] not in rig.command.refusals:
            found.append(f"exit code {answer['code']}")
        problems += [f"at {size} bytes: {p}" for p in found]
    report("file size limit", rig, _N_RANDOM)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("action", ["truncate", "remove", "zero"])
def test_inputs_that_change_meanwhile(rig: Rig, action: str) -> None:
    """The output is the new one, because it was read before, or the old one; never one of both."""
    problems = []
    names = ["output/ada/checkpoint/00002.frame", "output/ada/mesh/00002.ply",
             "input/ada/images/00003.png", "input/ada/video.mp4"]  # fmt: skip
    points = rig.spread(8 if N_TRIALS else 40)
    for index, point in enumerate(points):
        rig.reset(to_old=True)
        path = rig.track / names[index % len(names)]
        good = path.read_bytes()
        answer = rig.go(overwrite=True, fault={"at": point, "action": action, "path": str(path)})
        path.write_bytes(good)
        if rig.state() not in (rig.old, rig.new):
            problems.append(f"{path.name} at point {point}: neither the old output nor the new")
        if answer["code"] not in (0, 1, 3) or rig.leftovers():
            problems.append(f"{path.name}: {answer['code']} {answer['err'][-300:]!r}")
    rig.inputs = _restamped(rig)
    report(f"input: {action}", rig, len(points))
    assert not problems, "\n".join(problems)


def _restamped(rig: Rig) -> Any:
    from tests.faults.rig import stamps

    return stamps(rig.track)


def test_files_of_others_survive(rig: Rig) -> None:
    """Somebody puts a file into the output folder while a run is about to replace it."""
    if rig.out.suffix:
        pytest.skip("the output is one file")
    problems = []
    points = rig.chosen(N_TRIALS)
    for point in points:
        rig.reset(to_old=True)
        fault = {"at": point, "action": "foreign", "path": str(rig.out)}
        answer = rig.go(overwrite=True, fault=fault)
        kept = [p for p in rig.place.rglob("mine.txt") if p.read_text() == "mine"]
        if not kept:
            problems.append(f"point {point} ({rig.points[point - 1]}): deleted, {answer['code']}")
        elif answer["code"] == 0 and kept != [rig.out / "mine.txt"]:
            problems.append(f"point {point}: moved to {kept}")
    report("foreign file", rig, len(points))
    assert not problems, "\n".join(problems)


def test_without_overwrite_what_is_there_stays(rig: Rig) -> None:
    rig.reset(to_old=True)
    answer = rig.go()
    assert answer["code"] in rig.command.refusals, answer["err"][-2000:]
    assert answer["code"] == 1 or "--overwrite" in answer["err"]
    assert rig.state() == rig.old
    assert rig.leftovers() == set()


@pytest.mark.skipif(
    os.geteuid() != 0 or not OPEN_TO_ALL, reason="this needs root, and a folder open to all"
)
def test_a_folder_that_may_not_be_written(rig: Rig) -> None:
    """As another user; the folders above are opened for it."""
    rig.reset(to_old=True)
    closed: list[tuple[Path, int]] = []
    for path in (rig.folder, *rig.folder.parents):
        mode = path.stat().st_mode & 0o7777
        if not mode & 1:
            closed.append((path, mode))
            path.chmod(mode | 0o055)
    try:
        answer = rig.go(overwrite=True, nobody=True)
    finally:
        for path, mode in closed:
            path.chmod(mode)
    assert answer["code"] in rig.command.refusals, answer["err"][-2000:]
    assert (
        answer["code"] == 1
        or "denied" in answer["err"]
        or "cannot" in answer["err"]
        or "is not" in answer["err"]
    )
    assert rig.state() == rig.old
    assert rig.leftovers() == set()
