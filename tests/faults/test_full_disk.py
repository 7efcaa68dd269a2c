"""A disk that is really full: a small tmpfs in a mount namespace of our own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.hostile.abuse import small_track
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

# Runs inside the namespace: fills the disk to leave some KiB, converts, and looks.
SCRIPT = """
import json, os, sys
from pathlib import Path
from converter.cli.main import main
from tests.faults.rig import digest
track, disk = sys.argv[1:3]
answers = []
for target, name in (("bundle", "t.h5"), ("gaussiantalker", "d")):
    out = Path(disk, name)
    line = ["convert", track, "--to", target, "-o", str(out), "--quiet"]
    line += ["--canvas", "crop", "--size", "128"] * (target == "gaussiantalker")
    assert main(line) == 0
    old = digest(out)
    for free_kib in (0, 4, 64, 256):
        filler = Path(disk, "filler")
        room = os.statvfs(disk)
        with filler.open("wb") as file:
            file.write(bytes(max(0, room.f_bavail * room.f_frsize - free_kib * 1024)))
        code = main([*line, "--overwrite"])
        kept = digest(out) == old
        filler.unlink()
        left = sorted(p.name for p in Path(disk).iterdir())
        again = main([*line, "--overwrite"])
        whole = digest(out) == old
        answers.append([target, free_kib, code, kept, left, again, whole])
print(json.dumps(answers))
"""


def test_a_full_disk_keeps_the_old_output(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4m none '{disk}'"
    tried = subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("mounting is not permitted here, not even in a namespace")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    track = small_track(tmp_path / "track")
    inner = f"{mount} && exec '{sys.executable}' '{script}' '{track}' '{disk}'"
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", inner],
        capture_output=True, text=True, cwd=REPOSITORY, env=_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused = 0
    for target, free_kib, code, kept, left, again, whole in json.loads(done.stdout):
        where = f"{target} with {free_kib} KiB free: {done.stderr[-600:]}"
        assert code in (0, 3), where
        assert kept, where
        assert set(left) <= {"t.h5", "d"}, where
        assert (again, whole) == (0, True), where
        refused += code == 3
    assert refused >= 4
    assert done.stderr.count("No space left") == refused
    assert "Traceback" not in done.stderr


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
