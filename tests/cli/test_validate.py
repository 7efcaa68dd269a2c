"""``uncrop validate`` as a user meets it: tables, exit codes, files, interruption, resumption."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.media.torchfile import read_torch
from tests.damage import Folders, naive_K

UNCROP = [sys.executable, "-m", "converter.cli.main"]


def run(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNCROP, "validate", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, **more,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def _joined(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def sample(fixtures_dir: Path) -> Path:
    return fixtures_dir / "sample"


@pytest.fixture
def four(sample: Path, tmp_path: Path) -> Path:
    """Two good tracks, one with a damaged frame, one without any."""
    top = tmp_path / "tracks"
    for name in ("a", "b", "c", "d"):
        shutil.copytree(sample, top / name)
    (top / "c/output/ada/checkpoint/00003.frame").write_bytes(b"x")
    for frame in (top / "d/output/ada/checkpoint").iterdir():
        frame.unlink()
    return top


def test_the_severity_that_fails(sample: Path, tmp_path: Path) -> None:
    done = run(sample)
    assert done.returncode == 0, done.stderr
    assert "1 track: 0 with errors, 0 with warnings only, 1 fine" in done.stdout
    assert done.stderr == ""  # quiet where there is no terminal
    doubtful = tmp_path / "track"
    shutil.copytree(sample, doubtful)
    (doubtful / "output/ada/checkpoint/copy of 3.frame").write_bytes(b"x")  # a stray file
    assert run(doubtful).returncode == 0
    done = run(doubtful, "--fail-on", "warning", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_broken_track_is_a_row_and_not_the_end(four: Path) -> None:
    done = run(four, "--jobs", "2")
    assert done.returncode == 1
    assert "00003.frame" in done.stdout
    assert "4 tracks: 2 with errors, 0 with warnings only, 2 fine" in done.stdout
    for name in ("a", "b", "c", "d"):
        assert f"{name}/output/ada" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "expected a TRACK"),
        (["TRACK", "--resume"], 2, "--json FILE"),
        (["TRACK", "TRACK", "--bbox", "x.pt"], 2, "--bbox belongs to one track"),
        (["TRACK", "TRACK", "--begin-frames", "1"], 2, "--begin-frames belongs"),
        (["TRACK", "--jobs", "0"], 2, "--jobs: expected 1 or more"),
        (["TRACK", "--fail-on", "info"], 2, "--fail-on"),
        (["/nowhere/at all"], 3, "/nowhere/at all"),
        (["TRACK", "/nowhere"], 3, "/nowhere"),
    ],
)
def test_typing_mistakes(sample: Path, arguments: list[str], code: int, said: str) -> None:
    done = run(*(sample if a == "TRACK" else a for a in arguments))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def started(*arguments: object) -> subprocess.Popen[str]:
    """Start a run in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [*UNCROP, "validate", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def children(process: subprocess.Popen[str]) -> list[int]:
    """Processes that work for it now."""
    workers = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for pid in map(int, listed.split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    workers.append(pid)
    return workers


def wait_for(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Wait until something is seen of a process that runs."""
    end = time.monotonic() + 200
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"it did not happen: {process.communicate()}")
        time.sleep(0.01)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture
def twelve(sample: Path, tmp_path: Path) -> Path:
    top = tmp_path / "tracks"
    for number in range(12):
        shutil.copytree(sample, top / f"{number:02d}")
    return top


def test_an_interrupt_keeps_what_is_done_and_resume_does_the_rest(
    twelve: Path, tmp_path: Path
) -> None:
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    process = started(twelve, "--json", out, "--jobs", "2")
    wait_for(process, lambda: lines(journal) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted after" in errors
    first = json.loads(out.read_text())
    assert not first["complete"]
    assert 2 <= len(first["tracks"]) < 12

    # One of them changes: it alone is done again.
    changed = Path(first["tracks"][0]["path"])
    os.utime(changed / "checkpoint/00000.frame", (1, 1))
    done = run(twelve, "--json", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{len(first['tracks']) - 1} of 12 taken over" in done.stdout
    second = json.loads(out.read_text())
    assert second["complete"]
    assert [t["path"] for t in second["tracks"]] == sorted(t["path"] for t in second["tracks"])
    assert len(second["tracks"]) == 12
    again = {t["path"]: t for t in second["tracks"]}
    for track in first["tracks"][1:]:
        assert again[track["path"]] == track  # also the seconds it took
    assert again[str(changed)]["seconds"] != first["tracks"][0]["seconds"]


def test_a_killed_run_can_be_resumed(twelve: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    process = started(twelve, "--json", out, "--jobs", "2")
    wait_for(process, lambda: lines(journal) >= 3)
    process.kill()
    process.communicate()
    assert not out.exists()
    n_done = lines(journal)
    with journal.open("a") as stream:
        stream.write('{"inputs": "cut sho')  # a line that a crash cut short
    done = run(twelve, "--json", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{n_done} of 12 taken over" in done.stdout
    assert len(json.loads(out.read_text())["tracks"]) == 12
    assert "12 of 12 taken over" in run(twelve, "--json", out, "--resume").stdout
    # Other options are another question.
    assert "taken over" not in run(twelve, "--json", out, "--resume", "--thorough").stdout


def test_a_worker_that_is_killed_is_one_row(twelve: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "out.json", tmp_path / "out.json.journal"
    process = started(twelve, "--json", out, "--jobs", "2")
    wait_for(process, lambda: lines(journal) >= 1 and len(children(process)) == 2)
    os.kill(children(process)[0], signal.SIGKILL)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "SIGKILL" in printed
    result = json.loads(out.read_text())
    assert result["summary"]["n_tracks_by_check"]["worker-died"] == 1
    assert len(result["tracks"]) == 12
    assert sum(t["worst"] != "error" for t in result["tracks"]) == 11
    done = run(twelve, "--json", out, "--resume")  # it is no property of the track
    assert done.returncode == 0
    assert "11 of 12 taken over" in done.stdout


def test_reports_are_not_replaced_unasked(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(sample, "--json", out)
    assert done.returncode == 0
    # What stays beside it is announced, and is there.
    assert f"{out}, and out.json.journal beside it, from which --resume" in _joined(done.stdout)
    assert (tmp_path / "out.json.journal").is_file()
    before = out.read_bytes()
    done = run(sample, "--json", out)
    assert done.returncode == 3
    assert "--overwrite" in done.stderr
    assert done.stdout == ""
    assert out.read_bytes() == before
    assert run(sample, "--json", out, "--overwrite").returncode == 0
    done = run(sample, "--json", "/proc/nowhere/out.json")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_json_on_standard_output_is_nothing_but_json(four: Path) -> None:
    done = run(four, "--json", "-")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["tracks"]) == 4


def test_fix_writes_copies_that_pass_and_says_what_it_changed(sample: Path, tmp_path: Path) -> None:
    bbox = [int(v) for v in np.ravel(read_torch(sample / "input/ada/bbox.pt").content)]  # type: ignore[arg-type]
    for name in ("x", "y"):
        Folders.copy(sample, tmp_path / "tracks" / name).edit_frames(naive_K(bbox))
    lost = Folders.copy(sample, tmp_path / "tracks" / "z")
    lost.frames()[3].write_bytes(b"x")  # nothing can mend this
    out, report = tmp_path / "fixed", tmp_path / "out.json"
    done = run(tmp_path / "tracks", "--fix", out, "--json", report)
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert f"mended {tmp_path}/tracks/x/output/ada -> {out}/x/output/ada" in said
    assert "K-naive: opencv.K: f (1754.25, 1754.25) c (490.25, 224.50) -> f (1754.25" in said
    tracks = {t["path"].split("/")[-3]: t for t in json.loads(report.read_text())["tracks"]}
    assert [f["check"] for f in tracks["x"]["fix"]["applied"]] == ["K-naive"]
    assert tracks["x"]["fix"]["left"] == []
    assert len(tracks["x"]["fix"]["applied"][0]["frame_ids"]) == 36
    assert tracks["z"]["fix"]["path"] is None
    # What is written passes, and what could not be mended still fails.
    assert run(out, "--fail-on", "error").returncode == 0
    shutil.rmtree(tmp_path / "tracks/z")
    again = run(tmp_path / "tracks", "--fix", out)
    assert again.returncode == 1  # the copies exist: nothing was mended
    assert "--overwrite" in again.stdout
    assert run(tmp_path / "tracks", "--fix", out, "--overwrite").returncode == 0


def test_what_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(tmp_path / "empty", "--json", "-")
    assert done.returncode == 1
    (track,) = json.loads(done.stdout)["tracks"]
    (check,) = track["checks"]
    (finding,) = check["findings"]
    assert finding["where"] == str(tmp_path / "empty")
    assert finding["message"].startswith("expected a tracker's output folder")


def test_fix_says_that_there_was_nothing_to_mend(sample: Path, tmp_path: Path) -> None:
    done = run(sample, "--fix", tmp_path / "fixed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"nothing to mend: {tmp_path / 'fixed'} was not written\n")
    assert not (tmp_path / "fixed").exists()


def test_explain_says_what_a_check_means(sample: Path) -> None:
    done = run("--explain", "K-naive")
    assert done.returncode == 0
    assert done.stdout.startswith("# K-naive\n")
    done = run("--explain", "k-nave")
    assert done.returncode == 3
    assert "Did you mean K-naive?" in done.stderr
    done = run("--explain", "nosuch")
    assert done.returncode == 3
    assert "Did you mean" not in done.stderr
    done = run("--explain", "all")
    assert done.returncode == 0
    assert "\nbbox-missing " in done.stdout


def test_the_page_is_written_and_resumed_runs_keep_its_pictures(
    sample: Path, tmp_path: Path
) -> None:
    files = ("--json", tmp_path / "out.json", "--html", tmp_path / "out.html")
    assert run(sample, *files).returncode == 0
    first = (tmp_path / "out.html").read_bytes()
    assert first.count(b"data:image/jpeg;base64,") == 2
    done = run(sample, *files, "--resume")
    assert "1 of 1 taken over" in done.stdout
    assert (tmp_path / "out.html").read_bytes() == first
    # A journal without pictures is no use for a page: the track is read again.
    assert run(sample, "--json", tmp_path / "bare.json").returncode == 0
    done = run(sample, "--json", tmp_path / "bare.json", "--html", tmp_path / "x.html", "--resume")
    assert "taken over" not in done.stdout
