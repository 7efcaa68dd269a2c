"""Outputs are whole or absent, old or new, and what is not ours is never deleted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converter.errors import OutputError
from converter.media import atomic
from converter.media.atomic import (
    foreign_files,
    replace_file,
    replace_folder,
    require_free,
)

MARKER = "uncrop.json"


def fill(folder: Path, text: str, n_files: int = 5) -> None:
    """Write a small output, with its marker."""
    files = {}
    for k in range(n_files):
        path = folder / "images" / f"{k}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text} {k}")
        files[f"images/{k}.txt"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / MARKER).write_text(json.dumps({"files": files}))


def write_folder(out: Path, text: str, *, overwrite: bool = False) -> None:
    with replace_folder(out, overwrite=overwrite, marker=MARKER) as folder:
        fill(folder, text)


def write_file(out: Path, text: str, *, overwrite: bool = False) -> None:
    with replace_file(out, overwrite=overwrite) as temporary:
        temporary.write_text(text)


def version_of(out: Path) -> str | None:
    """Which version a folder holds, None if there is none; fails if it holds a mixture."""
    if not out.exists():
        return None
    assert foreign_files(out, MARKER) == []
    texts = {path.read_text().split()[0] for path in (out / "images").iterdir()}
    assert len(texts) == 1
    return texts.pop()


@pytest.fixture(params=["exchange", "two renames"])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with and without the Linux call that exchanges two names."""
    if request.param == "two renames":

        def unsupported(*_: object) -> None:
            raise OSError(errno.ENOSYS, "not here")

        monkeypatch.setattr(atomic, "_renameat2", unsupported)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("renames")
def test_a_file_is_new_then_kept_then_replaced(tmp_path: Path) -> None:
    out = tmp_path / "track.h5"
    write_file(out, "one")
    assert out.read_text() == "one"
    with pytest.raises(OutputError, match="--overwrite"):
        write_file(out, "two")
    assert out.read_text() == "one"
    write_file(out, "three", overwrite=True)
    assert out.read_text() == "three"
    assert list(tmp_path.iterdir()) == [out]


def test_the_temporary_file_has_the_suffix_that_writers_go_by(tmp_path: Path) -> None:
    with replace_file(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent.parent == tmp_path
        temporary.write_text("x")


@pytest.mark.usefixtures("renames")
def test_a_file_that_appears_meanwhile_is_not_clobbered(tmp_path: Path) -> None:
    out = tmp_path / "a"
    with pytest.raises(OutputError, match="--overwrite"), replace_file(out) as temporary:  # noqa: PT012
        temporary.write_text("ours")
        out.write_text("theirs")
    assert out.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_writer_fails(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), replace_file(tmp_path / "a") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    with pytest.raises(error), replace_folder(tmp_path / "b", False, MARKER) as folder:  # noqa: PT012
        fill(folder, "half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    (tmp_path / "link").symlink_to(real / "out")
    write_folder(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink()
    assert version_of(real / "out") == "one"


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_refusal_names_the_place_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("sets")
    for out in (Path("sets/out"), Path("../") / tmp_path.name / "sets/out", Path("link/out")):
        write(out, "one", overwrite=True)
        for refused in (lambda out=out: write(out, "two"), lambda out=out: require_free(out)):
            with pytest.raises(OutputError) as caught:
                refused()
            assert caught.value.where == str(out)


def test_what_is_in_the_way_above_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "file").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("sets/file")
    (tmp_path / "out").symlink_to("sets/file/deep/out")
    monkeypatch.chdir(tmp_path / "here")
    for out, named in (
        ("../sets/file/a/b", "../sets/file"),
        ("../link/a", "../link"),
        ("../out", f"{tmp_path}/sets/file"),  # no part of what was given
        (f"{tmp_path}/link/a/b", f"{tmp_path}/link"),
    ):
        with pytest.raises(OutputError) as caught:
            require_free(out)
        assert caught.value.where == out
        assert caught.value.found == f"{named}, which is a file"


# --- folders ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("renames")
def test_a_folder_is_new_then_kept_then_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, "one")
    with pytest.raises(OutputError, match="--overwrite"):
        write_folder(out, "two")
    assert version_of(out) == "one"
    write_folder(out, "three", overwrite=True)
    assert version_of(out) == "three"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("renames")
def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", "one")
    assert version_of(tmp_path / "out") == "one"


def _add_file(out: Path) -> None:
    (out / "images" / "mine.txt").write_text("mine")


def _change_file(out: Path) -> None:
    (out / "images" / "3.txt").write_text("better")


def _add_link(out: Path) -> None:
    (out / "mine.txt").symlink_to("/etc/hostname")


def _add_folder_link(out: Path) -> None:
    (out / "mine.txt").symlink_to("/tmp")


def _replace_by_link(out: Path) -> None:
    kept = out / "images" / "3.txt"
    kept.rename(out.parent / "mine.txt")
    kept.symlink_to(out.parent / "mine.txt")


def _remove_marker(out: Path) -> None:
    (out / MARKER).unlink()


def _spoil_marker(out: Path) -> None:
    (out / MARKER).write_text("[" * 100_000)


def _empty_marker(out: Path) -> None:
    (out / MARKER).write_text('{"files": {}}')


FOREIGN = {
    "added": (_add_file, "images/mine.txt"),
    "changed": (_change_file, "images/3.txt"),
    "link": (_add_link, "mine.txt"),
    "folder link": (_add_folder_link, "mine.txt"),
    "file turned link": (_replace_by_link, "images/3.txt"),
    "no marker": (_remove_marker, "images/0.txt"),
    "spoilt marker": (_spoil_marker, "images/0.txt"),
    "empty marker": (_empty_marker, "images/0.txt"),
}


def snapshot(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("case", sorted(FOREIGN))
def test_files_of_others_are_named_and_never_deleted(tmp_path: Path, case: str) -> None:
    out = tmp_path / "out"
    write_folder(out, "one")
    change, name = FOREIGN[case]
    change(out)
    before = snapshot(out)
    with pytest.raises(OutputError, match=name):
        write_folder(out, "two", overwrite=True)
    assert snapshot(out) == before


@pytest.mark.usefixtures("renames")
def test_a_file_added_during_the_run_brings_the_old_output_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_folder(out, "one")
    is_empty = atomic._is_empty

    def and_then_somebody_writes(folder: Path) -> bool:
        # The last look before the exchange is behind us; only the one after it can see this.
        _add_file(out)
        return is_empty(folder)

    with pytest.raises(OutputError, match="images/mine.txt"):  # noqa: PT012, SIM117
        with replace_folder(out, overwrite=True, marker=MARKER) as folder:
            fill(folder, "two")
            require = atomic._require_folder_place

            def require_then_write(*arguments: object) -> None:
                require(*arguments)  # type: ignore[arg-type]
                monkeypatch.setattr(atomic, "_is_empty", and_then_somebody_writes)

            monkeypatch.setattr(atomic, "_require_folder_place", require_then_write)
    assert (out / "images" / "mine.txt").read_text() == "mine"
    assert (out / "images" / "0.txt").read_text() == "one 0"
    assert list(tmp_path.iterdir()) == [out]


def test_an_output_without_its_marker_is_not_put_in_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=MARKER), replace_folder(tmp_path / "a", False, MARKER):
        pass
    with pytest.raises(OutputError, match="a written file"), replace_file(tmp_path / "b"):
        pass
    assert list(tmp_path.iterdir()) == []


# --- parent folders ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_folder", [True, False])
def test_missing_parents_are_made_and_not_left_behind(tmp_path: Path, is_folder: bool) -> None:
    target = tmp_path / "a" / "b" / "out"

    def write(fail: bool) -> None:
        replace = replace_folder(target, False, "m.json") if is_folder else replace_file(target)
        with replace as new:
            (new / "m.json" if is_folder else new).write_text('{"files": {}}')
            if fail:
                raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        write(fail=True)
    assert list(tmp_path.iterdir()) == []
    write(fail=False)
    assert target.exists()


# --- places that cannot be written -------------------------------------------------------------


def _refused(tmp_path: Path) -> Iterator[tuple[Path, bool, str]]:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    yield tmp_path / "file", True, "a file"
    yield tmp_path / "folder", False, "a folder"
    yield tmp_path / "fifo", False, "pipe"
    for is_folder in (True, False):
        yield tmp_path / "file" / "out", is_folder, "file"
        yield tmp_path / "nul\0", is_folder, "null"
        yield tmp_path / ("long" * 100), is_folder, "too long"
        yield Path("/proc/out"), is_folder, "No such file|not permitted|denied"


def test_a_place_that_cannot_be_written_gives_one_error(tmp_path: Path) -> None:
    for path, is_folder, words in _refused(tmp_path):
        with pytest.raises(OutputError, match=words):
            (write_folder if is_folder else write_file)(path, "x", overwrite=True)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_gives_one_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="denied"):
        write_file(tmp_path / "a", "x")


def test_a_full_disk_gives_one_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), replace_file(tmp_path / "a"):
        Path("/dev/full").write_bytes(b"x")
    with pytest.raises(OutputError, match="No space left"), replace_file(tmp_path / "a"):
        raise OSError(f"Can't write data ({os.strerror(errno.ENOSPC)})")  # as h5py words it
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_writer_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), replace_file(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "denied", "/some/input")


# --- kills ------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from tests.media.test_atomic import fill, MARKER
from converter.media.atomic import replace_folder, replace_file
out, text = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
with replace_folder(out, overwrite=True, marker=MARKER) as folder:
    fill(folder, text, n_files=300)
with replace_file(out.with_suffix(".h5"), overwrite=True) as file:
    file.write_text(text * 100_000)
print("done", flush=True)
"""


def child(out: Path, text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out), text],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_leaves_the_old_or_the_new_output(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    chance = random.Random(int(number))
    began = time.monotonic()
    (tmp_path / "file").touch()
    child(tmp_path / "file" / "out", "v0").communicate()  # its parent is a file: start-up only
    start_up_s = time.monotonic() - began
    (tmp_path / "file").unlink()
    began = time.monotonic()
    child(tmp_path / "whole" / "out", "v0").communicate()
    work_s = time.monotonic() - began - start_up_s
    shutil.rmtree(tmp_path / "whole")
    old = None
    for round_ in range(7):
        text = f"v{round_}"
        process = child(out, text)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, max(work_s, 0.02)))
        process.send_signal(number)
        process.communicate()
        version = version_of(out)
        assert version in (old, text)
        old = version
        file = out.with_suffix(".h5")
        if file.exists():
            content = file.read_text()
            assert content == content[:2] * 100_000
        if number != signal.SIGKILL:
            assert {path.name for path in tmp_path.iterdir()} <= {"out", "out.h5"}
    write_folder(out, "last", overwrite=True)
    write_file(out.with_suffix(".h5"), "last", overwrite=True)
    assert version_of(out) == "last"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.h5"}


def test_concurrent_runs_end_with_one_whole_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    processes = [child(out, f"v{k}") for k in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert version_of(out) in {"v0", "v1", "v2", "v3"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.h5"}


def test_a_live_workspace_is_left_and_a_dead_one_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    dead = tmp_path / ".out.uncrop-1-0123abcd.partial"
    others = [tmp_path / ".out.uncrop-mine", tmp_path / ".out.h5.uncrop-1-0123abcd.partial"]
    for folder in (dead, *others):
        folder.mkdir()
        (folder / "half").write_text("x")
    with replace_folder(out, overwrite=True, marker=MARKER) as first:
        fill(first, "one")
        write_folder(out, "two")
        assert not dead.exists()
        assert version_of(first) == "one"
        assert version_of(out) == "two"
    assert version_of(out) == "one"
    assert sorted(tmp_path.iterdir()) == sorted([out, *others])


def test_of_two_runs_into_nothing_the_second_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="--overwrite"), replace_folder(out, False, MARKER) as one:  # noqa: PT012
        fill(one, "one")
        write_folder(out, "two")
    assert version_of(out) == "two"


def test_an_output_moved_aside_by_a_dead_run_is_put_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, "one")
    dead = tmp_path / ".out.uncrop-1-0123abcd.partial"
    (dead / "old").mkdir(parents=True)
    out.rename(dead / "old" / "out")
    with pytest.raises(OutputError, match="folder of that name"):
        write_folder(out, "two")
    assert version_of(out) == "one"
