"""A disk that is really full: a small tmpfs in a mount namespace of our own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.faults.rig import COMMANDS, Command

pytestmark = pytest.mark.slow

# Runs inside the namespace: fills the disk to leave some KiB, runs a command, and looks.
SCRIPT = """
import json, os, sys
from pathlib import Path
from converter.cli.main import main
from tests.faults.rig import COMMANDS, digest
name, track, disk = sys.argv[1:4]
command = next(c for c in COMMANDS if c.name == name)
out = Path(disk, command.out)
line = command.line(command.first, Path(track), out)
assert main(line) in (0, 1)
old, answers = digest(out), []
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
    answers.append([free_kib, code, kept, left, again, digest(out) == old])
print("ANSWERS", json.dumps(answers))
"""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_a_full_disk_keeps_the_old_output(command: Command, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=12m none '{disk}'"
    tried = subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("mounting is not permitted here, not even in a namespace")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    track = command.made_track(tmp_path / "track")
    inner = f"{mount} && exec '{sys.executable}' '{script}' {command.name} '{track}' '{disk}'"
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", inner],
        capture_output=True, text=True, cwd=REPOSITORY, env=_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    refused = 0
    for free_kib, code, kept, left, again, whole in json.loads(done.stdout.split("ANSWERS ")[1]):
        where = f"with {free_kib} KiB free: {said[-900:]}"
        assert code in (0, 1, 3), where
        assert kept, where
        assert set(left) <= {command.out, *command.beside}, where
        assert (again, whole) in ((0, True), (1, True)), where
        refused += code in command.refusals
    assert refused >= (1 if command.name == "recover-bbox" else 2)
    assert said.count("No space left") == refused
    assert "Traceback" not in said


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
