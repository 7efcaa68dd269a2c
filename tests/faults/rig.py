"""Commands to disturb, and what may be left of them: the old output or the new one, whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixtures.hostile.abuse import small_track
from tests.damage import edit_frame, naive_K

Run = Callable[..., dict[str, Any]]

N_TRIALS = int(os.environ.get("UNCROP_FAULTS", "2"))
"""Faults per command and kind; 2 in the ordinary tests, 0 for every point there is."""


@dataclass(frozen=True)
class Command:
    """A command line; TRACK and OUT stand for paths.

    Attributes
    ----------
    first, second
        Arguments that make the old output and those of the run that is disturbed.
    out
        Name of the output.
    beside
        Names of further outputs beside it.
    lost
        Files of the track to remove before.
    wrong_k
        Whether the track's K is spoilt before, so that there is something to mend.

    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    out: str
    beside: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    wrong_k: bool = False

    @property
    def refusals(self) -> tuple[int, ...]:
        """Exit codes for an output that was not written; of many tracks, it is one row of 1."""
        return (1, 3) if self.first[0] == "validate" else (3,)

    def made_track(self, folder: Path, side: int = 10) -> Path:
        """A small track with what the command mends; ``side`` makes another one."""
        track = small_track(folder)
        for name in self.lost:
            (track / name).unlink()
        if self.wrong_k:
            for path in (track / "output/ada/checkpoint").iterdir():
                edit_frame(path, naive_K([side, 20, 30, 40]))
        return track

    def line(self, arguments: tuple[str, ...], track: Path, out: Path) -> list[str]:
        """Return arguments with the paths in."""
        names = {"TRACK": str(track), "OUT": str(out)}
        return [names.get(a, a) for a in arguments]


_GAUSSIAN = ("convert", "TRACK", "--to", "gaussiantalker", "-o", "OUT", "--quiet")
_BUNDLE = ("convert", "TRACK", "--to", "bundle", "-o", "OUT", "--quiet")
_BOX = ("recover-bbox", "TRACK", "-o", "OUT", "--quiet")
_FIX = ("validate", "TRACK", "--fix", "OUT", "-j", "1", "--quiet")
_FIT = ("fit", "TRACK", "-o", "OUT", "--quiet")
COMMANDS = (
    Command("bundle", _BUNDLE, (*_BUNDLE, "--with-images"), "t.h5"),
    Command(
        "gaussiantalker",
        (*_GAUSSIAN, "--canvas", "crop", "--size", "128"),
        (*_GAUSSIAN, "--canvas", "crop", "--size", "192"),
        "dataset",
    ),
    Command("recover-bbox", _BOX, _BOX, "box.pt", lost=("input/ada/bbox.pt",)),
    Command("fix", _FIX, _FIX, "mended", wrong_k=True),
    Command("fit", _FIT, (*_FIT, "--central"), "fitted.h5",
            beside=("fitted.fit.jpg", "fitted.fit.csv")),
)  # fmt: skip


def digest(path: Path) -> str:
    """What lies at a path: names and contents of everything in it; empty if there is nothing."""
    if not os.path.lexists(path):
        return ""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    state = hashlib.sha256()
    for inner in sorted(path.rglob("*")):
        state.update(str(inner.relative_to(path)).encode())
        state.update(inner.read_bytes() if inner.is_file() else b"/")
    return state.hexdigest()


def stamps(folder: Path) -> dict[str, tuple[int, ...]]:
    """Identity, size and times of every input."""
    found = {}
    for path in sorted(folder.rglob("*")):
        s = path.lstat()
        found[str(path)] = (s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return found


@dataclass
class Rig:
    """One command on one track, run again and again."""

    command: Command
    folder: Path
    run: Run
    track: Path = field(init=False)
    place: Path = field(init=False)
    old: str = ""
    new: str = ""
    n_points: int = 0
    points: list[str] = field(default_factory=list)
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self.track = self.command.made_track(self.folder / "track")
        self.place = self.folder / "place"
        self.place.mkdir()
        self.new = self._reference(self.command.second)
        self.keep = self.folder / "kept"
        shutil.copytree(self.place, self.keep / "new")
        self.clear()
        self.old = self._reference(self.command.first)
        shutil.copytree(self.place, self.keep / "old")
        self.inputs = stamps(self.track)

    def _reference(self, arguments: tuple[str, ...]) -> str:
        answer = self.go(arguments=arguments, fault={"at": 0, "action": ""})
        assert answer["code"] in (0, 1), answer
        self.points, self.cpu_s = answer["points"], answer["cpu_s"]
        return self.state()

    @property
    def out(self) -> Path:
        return self.place / self.command.out

    def state(self) -> str:
        return digest(self.out)

    def clear(self) -> None:
        shutil.rmtree(self.place)
        self.place.mkdir()

    def reset(self, to_old: bool) -> None:
        """Begin from the old output, or from nothing."""
        self.clear()
        if to_old:
            shutil.copytree(self.keep / "old", self.place, dirs_exist_ok=True)

    def go(self, *, arguments: tuple[str, ...] = (), overwrite: bool = False, **more: Any) -> Any:
        """Run the command; returns what came of it."""
        line = self.command.line(arguments or self.command.second, self.track, self.out)
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return self.run(line + ["--overwrite"] * overwrite, self.folder, [temporary], **more)

    def leftovers(self) -> set[str]:
        """Names beside the output that are not the command's."""
        known = {self.command.out, *self.command.beside}
        return {p.name for p in self.place.iterdir()} - known

    def judge(self, before: str, answer: dict[str, Any], *, killed: bool) -> list[str]:
        """What is wrong after a disturbed run."""
        problems = []
        state = self.state()
        if state not in (before, self.new):
            problems.append("neither the old output nor the new one")
        if answer["code"] in {0, 1} - {*self.command.refusals} and state != self.new:
            problems.append(f"exit code {answer['code']} without the new output")
        if not killed and answer["code"] in self.command.refusals and len(_errors(answer)) != 1:
            problems.append(f"said {answer['err'][-400:]!r}")
        if not killed and answer["code"] not in (0, 1, 3, 130, 143, -2, -15):
            problems.append(f"exit code {answer['code']}: {answer['err'][-400:]!r}")
        if not killed and self.leftovers():
            problems.append(f"left {self.leftovers()}")
        if stamps(self.track) != self.inputs:
            problems.append("the inputs were changed")
        return problems

    def chosen(self, n: int) -> list[int]:
        """Points to strike at, spread over all of them; renames and truncations always."""
        if N_TRIALS == 0:
            return list(range(1, len(self.points) + 1))
        # HDF5 truncates from C, where an exception of ours can be lost.
        chosen = ("renameat2", "os.truncate")
        renames = {i + 1 for i, name in enumerate(self.points) if name.startswith(chosen)}
        return sorted({*self.spread(n)} | renames)

    def spread(self, n: int) -> list[int]:
        """About ``n`` points from the first to the last."""
        total = len(self.points)
        return sorted({1 + k * (total - 1) // max(1, n - 1) for k in range(n)})


def _errors(answer: dict[str, Any]) -> list[str]:
    return [line for line in answer["err"].splitlines() if line.startswith("uncrop: ")]
