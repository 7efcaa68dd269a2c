"""The same input gives the same bytes, whatever the machine is set to."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.hostile.abuse import small_track
from tests.conftest import REPOSITORY
from tests.faults.rig import COMMANDS as FAULTS

pytestmark = pytest.mark.slow

COMMANDS = {
    "t.h5": ["convert", "TRACK", "--to", "bundle", "--with-images", "-o", "OUT"],
    "window": ["convert", "TRACK", "--to", "gaussiantalker", "-o", "OUT"],
    "crop": ["convert", "TRACK", "--to", "gaussiantalker", "-o", "OUT",
             "--canvas", "crop", "--size", "256"],
    "box.pt": ["recover-bbox", "TRACK", "-o", "OUT"],
    "fitted.h5": ["fit", "TRACK", "-o", "OUT", "--central"],
    "mended": ["validate", "WRONG", "--fix", "OUT"],
}  # fmt: skip
SETTINGS: dict[str, dict[str, str]] = {
    "plain": {},
    "east": {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1", "LC_ALL": "C", "COLUMNS": "40"},
    "west": {"TZ": "America/St_Johns", "PYTHONHASHSEED": "4294967295", "LC_ALL": "C.utf8",
             "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "1", "PYTHONOPTIMIZE": "1"},
}  # fmt: skip
UMASKS = {"plain": 0o022, "east": 0o077, "west": 0o000}

CHILD = """
import os, sys
from converter.cli.main import main
umask, cores = int(sys.argv[1]), sys.argv[2]
os.umask(umask)
if cores:
    os.sched_setaffinity(0, {int(c) for c in cores.split(",")})
sys.exit(main([*sys.argv[3:], "--quiet"]))
"""


def contents(path: Path) -> dict[str, bytes]:
    """Everything that a command wrote: the output, what is in it, and reports beside it."""
    beside = f"{path.name.split('.')[0]}.*"
    files = [p for p in (*path.parent.glob(beside), *path.rglob("*")) if p.is_file()]
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Everything written under each setting, and from a copy with other times and names."""
    folder = tmp_path_factory.mktemp("same")
    other = folder / "elsewhere" / "and deeper \u00e9"
    fix = next(c for c in FAULTS if c.name == "fix")
    tracks = {"TRACK": small_track(folder / "track"), "WRONG": fix.made_track(folder / "wrong")}
    copies = {key: Path(shutil.copytree(t, other / key)) for key, t in tracks.items()}
    for path in reversed(sorted(other.rglob("*"))):
        os.utime(path, (1, 1))
    cores = sorted(os.sched_getaffinity(0))
    places = {}
    for number, (setting, environment) in enumerate(SETTINGS.items()):
        place = places[setting] = folder / f"out-{setting}"
        place.mkdir()
        for name, line in COMMANDS.items():
            paths = {**(tracks if number < 2 else copies), "OUT": place / name}
            used = [] if number == 0 else cores[:1] if number == 1 else cores
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(UMASKS[setting]), ",".join(map(str, used)),
                 *[str(paths.get(a, a)) for a in line]],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
                cwd=place if number else REPOSITORY, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode in (0, 1), done.stderr
            assert (place / name).exists(), done.stderr
    return places


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "plain"])
@pytest.mark.parametrize("name", COMMANDS)
def test_same_bytes(name: str, setting: str, outputs: dict[str, Path]) -> None:
    """Time zone, hash seed, locale, umask, one core or all, place and times of the input."""
    plain, other = (contents(outputs[s] / name) for s in ("plain", setting))
    assert plain.keys() == other.keys() != set()
    assert [key for key in plain if plain[key] != other[key]] == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_modes_follow_the_umask(setting: str, outputs: dict[str, Path]) -> None:
    """As of any program: nothing is more open than the user wants, or more closed."""
    for path in outputs[setting].rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        full = 0o777 if path.is_dir() else 0o666
        assert mode == full & ~UMASKS[setting], path


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_order_of_workers_does_not_matter(workers: int) -> None:
    """Results come in the order of the items, whichever is ready first."""
    import random
    import time

    from converter.media.parallel import ordered_map

    chance = random.Random(workers)

    def slow(item: int) -> int:
        time.sleep(chance.uniform(0, 0.004))
        return item * item

    assert list(ordered_map(slow, range(60), workers)) == [i * i for i in range(60)]
