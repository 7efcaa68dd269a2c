"""What C libraries print is kept off the terminal, and heard where pixels are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from converter.errors import FormatError
from converter.media import chatter
from converter.media.images import decode_image
from fixtures.hostile.abuse import SAMPLE
from fixtures.hostile.files import careless_jpegs, careless_pngs, forged_jpegs, forged_pngs
from tests.conftest import REPOSITORY

GOOD = (SAMPLE / "input/ada/images/00002.png").read_bytes()
HALF = forged_jpegs(GOOD)["JPEG: half of it, and an end"]
JUNK = careless_jpegs(GOOD)["JPEG: junk before the scan"]

SCRIPT = """
import os, sys
import cv2, numpy
from converter.media.chatter import kept_apart
data = numpy.frombuffer(open(sys.argv[1], "rb").read(), numpy.uint8)
print("before", file=sys.stderr)
with kept_apart():
    assert cv2.imdecode(data, 1) is None
    print("within", file=sys.stderr)
    assert os.isatty(2) == False
    with kept_apart():
        assert cv2.imdecode(data, 1) is None
cv2.imdecode(data, 1)
print("after", file=sys.stderr)
"""


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=REPOSITORY, text=True, check=False,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_only_python_speaks_and_only_within(tmp_path: Path) -> None:
    """libpng's lines are gone inside, and back outside: the descriptor is given back."""
    path = tmp_path / "a.png"
    path.write_bytes(forged_pngs(GOOD)["an unknown filter"])
    said = run(SCRIPT, str(path)).splitlines()
    assert said == ["before", "within", "libpng error: bad adaptive filter value", "after"]


def test_without_standard_error_nothing_breaks(tmp_path: Path) -> None:
    """As in a daemon, whose descriptor 2 is closed."""
    script = "import os; os.close(2)\nfrom converter.media.chatter import kept_apart\n"
    assert run(script + "with kept_apart(): print('x')") == ""


def test_a_command_gives_back_what_it_took() -> None:
    from converter.cli.main import main

    before = os.fstat(2).st_ino, sys.stderr
    open_before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    assert main(["inspect", "/nowhere"]) == 3
    assert (os.fstat(2).st_ino, sys.stderr) == before
    if open_before:
        assert set(os.listdir("/proc/self/fd")) == open_before


def test_threads_hear_their_own_image_only() -> None:
    """A JPEG whose pixels are lost is refused, whatever is decoded beside it; no other is."""
    good = careless_jpegs(GOOD)["JPEG: junk behind the end"]
    warned = careless_pngs(GOOD)["a colour profile of nothing"]
    items = [HALF if i % 5 == 0 else (good, JUNK, warned)[i % 3] for i in range(60)]

    def refused(data: bytes) -> bool:
        try:
            decode_image(data, "a")
        except FormatError as error:
            return "lost" in str(error)
        return False

    with chatter.kept_apart(), ThreadPoolExecutor(6) as pool:
        found = list(pool.map(refused, items))
    assert found == [data is HALF for data in items]


@pytest.mark.parametrize("name", ["JPEG: half of it, and an end", "JPEG: a restart out of turn"])
def test_made_up_pixels_are_an_error(name: str) -> None:
    with chatter.kept_apart(), pytest.raises(FormatError, match="premature end of data"):
        decode_image(forged_jpegs(GOOD)[name], "a.jpg")


def test_what_is_heard_does_not_pile_up() -> None:
    """A file of 900 warnings, again and again, keeps less than it has said."""
    noisy = careless_pngs(GOOD)["nine hundred gammas"]
    with chatter.kept_apart():
        for _ in range(80):
            decode_image(noisy, "a.png")
            assert os.fstat(2).st_size < 1 << 20
