"""Every kind of abuse in docs/security.md, run as a user would meet it, one process per file.

Each must end within 5 CPU seconds and 1 GB, with exit code 3 and one line that names the file, have
run and opened nothing else, and have left the folder as it was. UNCROP_ABUSE=report prints what
each item took.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.errors import printable
from fixtures.hostile.abuse import ABUSE, PLACES, SAMPLE, Abuse, Item, put, small_track
from fixtures.hostile.streams import CANARY
from tests.hostile.zygote import OPEN_TO_ALL, start

MAX_CPU_S = 5.0
MAX_WALL_S = 30.0
"""A hang is for ever; the machine may be busy."""
MAX_PEAK_MB = 1000.0
MAX_LINE = 1200
REPORT = os.environ.get("UNCROP_ABUSE") == "report"

EXPECTED_LINES = ("uncrop: ", "warning: ", "info: ", "error: ")
"""What uncrop says; a library has no word here."""

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Run]:
    """Run a command line in a process of its own; see `tests.hostile.zygote`."""
    with start() as run:
        yield run


def snapshot(*folders: Path) -> dict[str, object]:
    """Everything below: kind and mode, identity, size, and the times of the last changes.

    ctime cannot be set back, so it knows any change of contents, of mode and of names.
    """
    found: dict[str, object] = {}
    pending = [os.fsencode(folder) for folder in folders if folder.exists()]
    while pending:
        place = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                s = entry.stat(follow_symlinks=False)
                key = os.fsdecode(entry.path)
                found[key] = (s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
                if stat.S_ISDIR(s.st_mode) and len(key) < 2000:
                    pending.append(entry.path)
    return found


class Bench:
    """Small tracks into which items are put, one after the other."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self._run = folder, run
        self.temporary = folder / "tmp"
        for path in (folder, self.temporary):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)
        self._tracks = 0

    def track(self, item: Item) -> Path:
        """A track that the item's place may be changed in."""
        if item.place in ("track", "obj"):
            self._tracks += 1
            return small_track(self.folder / f"track{self._tracks}")
        name = "crops" if item.place == "image" else "whole"
        if not (self.folder / name).exists():
            small_track(self.folder / name, video=name == "whole")
        return self.folder / name

    def fails(self, item: Item) -> list[str]:
        """Run one item; what is wrong about how it ended."""
        work, out = self.track(item), self.folder / "out"
        good = None
        if item.place != "track" and (place := work / PLACES[item.place][0]).is_file():
            good = place.read_bytes()
        path = put(item, work)
        try:
            before = snapshot(work, out, self.temporary)
            arguments = self._arguments(item, work, path, out)
            nobody = "AS NOBODY" in item.options and os.geteuid() == 0
            if nobody and not OPEN_TO_ALL:
                return []  # uncrop itself could not be read
            answer = self._run(arguments, work, [work, out, self.temporary], nobody=nobody)
            FIGURES.append((answer["cpu_s"], answer["peak_mb"], item.name))
            if REPORT:
                line = f"{answer['cpu_s']:6.2f} s {answer['peak_mb']:5.0f} MB {answer['code']} "
                line += f"{item.name}: {answer['err'].strip()[:150]}\n"
                sys.stderr.write(line)
            problems = _judge(item, path, answer)
            if (work / CANARY).exists():
                problems.append("the canary is there: code ran")
            if answer["code"] == 0:
                shutil.rmtree(out, ignore_errors=True)
            after = snapshot(work, out, self.temporary)
            changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
            if changed:
                problems.append(f"files changed: {sorted(changed)[:5]}")
            return [f"{item.name}: {problem}" for problem in problems]
        finally:
            shutil.rmtree(out, ignore_errors=True)
            if item.place in ("track", "obj"):
                _remove(work)
            else:
                _remove(path)
                if good is not None:
                    path.write_bytes(good)

    @staticmethod
    def _arguments(item: Item, work: Path, path: Path, out: Path) -> list[str]:
        options = [o.replace("TRACK", str(work)) for o in item.options if o != "AS NOBODY"]
        target = PLACES[item.place][1] if item.place != "track" else "bundle"
        if target == "inspect":
            return ["inspect", str(path.parent), *options]
        if target == "fit":
            return ["fit", str(work), "--flame", str(path), "-o", str(out / "t.h5"), *options]
        given = path if item.place == "bundle" else work
        if item.place.endswith("result"):
            given = path.parent
            options += ["--source", str(work / PLACES["video"][0])]
        place = out / ("track.h5" if target == "bundle" else "dataset")
        canvas = ["--canvas", "crop"] if item.place == "image" else []
        return ["convert", str(given), "--to", target, "-o", str(place), *canvas, *options]


FIGURES: list[tuple[float, float, str]] = []
"""CPU seconds, MB and name of every item that ran."""


def _judge(item: Item, path: Path, answer: dict[str, Any]) -> list[str]:
    problems = []
    code, text = answer["code"], answer["err"]
    if code not in item.codes:
        problems.append(f"exit code {code}, {text[-300:]!r}")
    if answer["cpu_s"] > MAX_CPU_S or answer["wall_s"] > MAX_WALL_S:
        problems.append(f"took {answer['cpu_s']:.1f} CPU s, {answer['wall_s']:.1f} s")
    if answer["peak_mb"] > MAX_PEAK_MB:
        problems.append(f"took {answer['peak_mb']:.0f} MB")
    if answer["events"]:
        problems.append(f"events {answer['events'][:3]}")
    lines = [line for line in text.splitlines() if line.startswith("uncrop: ")]
    others = [line for line in text.splitlines() if not line.startswith(EXPECTED_LINES)]
    if others or not all(line.isprintable() for line in text.splitlines()):
        problems.append(f"said {text[-300:]!r}")
    if code == 3:
        named = item.said or printable(path.name)
        if len(lines) != 1 or text.count("\n") != 1:
            problems.append(f"said {text[-900:]!r}, not one line")
        if len(lines) != 1 or named not in lines[0] or len(lines[0]) > MAX_LINE:
            problems.append(f"said {text[-300:]!r}, not one line that names {named}")
    return problems


def _remove(path: Path) -> None:
    """Remove a file or a folder however deep it is."""
    subprocess.run(["rm", "-rf", str(path)], check=True) if path.is_dir() else path.unlink(True)


@pytest.fixture
def bench(zygote: Run) -> Iterator[Bench]:
    # pytest's own folders are closed to the user that one of the items runs as.
    with tempfile.TemporaryDirectory(prefix="uncrop-abuse-") as folder:
        yield Bench(Path(folder), zygote)


@pytest.mark.parametrize("abuse", ABUSE, ids=lambda a: f"{a.number:02d}")
def test_abuse(abuse: Abuse, bench: Bench) -> None:
    problems = []
    for item in abuse.items():
        problems += bench.fails(item)
    assert not problems, "\n".join(problems)


def test_good_tracks_are_converted_by_the_same_bench(bench: Bench) -> None:
    """What the items are put into is good, so that an item alone is what is refused."""
    for place in PLACES:
        if not (SAMPLE / PLACES[place][0]).is_file():
            continue
        good = (SAMPLE / PLACES[place][0]).read_bytes()
        assert bench.fails(Item(f"good {place}", place, good, codes=frozenset({0}))) == []


def test_figures_of_all_items_that_ran() -> None:
    """The worst of them, for docs/security.md."""
    if not FIGURES:
        pytest.skip("no item ran in this process")
    cpu_s, peak_mb = (max(FIGURES, key=lambda f: f[k])[k] for k in (0, 1))
    if REPORT:
        slow, large = (max(FIGURES, key=lambda f: f[k])[2] for k in (0, 1))
        text = f"{len(FIGURES)} items; {cpu_s:.1f} CPU s ({slow}); {peak_mb:.0f} MB ({large})\n"
        sys.stderr.write(text)
    assert cpu_s <= MAX_CPU_S
    assert peak_mb <= MAX_PEAK_MB
