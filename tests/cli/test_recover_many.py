"""``uncrop recover-bbox`` on many tracks: searched, a line each, and what an interrupt leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter.cli.main import main
from converter.cli.report import say_refused
from fixtures.synthetic.crop_cases import SMALL, CropCase
from tests.cli.recovering import box_of, recover, write_actor
from tests.conftest import MakeTrack

CASE = CropCase("small", (300, 780, 30, 510), source_size=SMALL, size=256, n_frames=2)
WAIT_S = 300
UNCROP = [sys.executable, "-m", "converter.cli.main"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An actor folder that was never tracked; not to be changed."""
    return write_actor(tmp_path_factory.mktemp("made") / "eve", CASE)


@pytest.fixture
def actors(made: Path, tmp_path: Path) -> Path:
    """Three actor folders: ada and eve with all, bob without source frames."""
    top = tmp_path / "input"
    for name in ("ada", "bob", "eve"):
        shutil.copytree(made, top / name)
    shutil.rmtree(top / "bob" / "source")
    return top


def test_a_folder_is_searched_and_a_broken_track_is_one_line(
    actors: Path, tmp_path: Path, capsys: Captured
) -> None:
    code = recover(actors, "--json", "--report", tmp_path / "reports", "--jobs", "2")
    out, err = capsys.readouterr()
    assert code == 1
    result = json.loads(out)
    assert result["ok"] is False
    assert [Path(t["track"]).name for t in result["tracks"]] == ["ada", "bob", "eve"]
    assert [t["verdict"] for t in result["tracks"]] == ["exact", "refused", "exact"]
    assert err.splitlines() == [f"uncrop: {result['tracks'][1]['error']}"]
    assert err.count(str(actors / "bob")) == 1
    assert "Give --source DIR_OR_VIDEO." in err
    assert box_of(actors / "ada" / "bbox.pt") == box_of(actors / "eve" / "bbox.pt") == CASE.bbox
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == ["ada.jpg", "eve.jpg"]


def test_those_that_have_a_box_are_left_alone(actors: Path, capsys: Captured) -> None:
    shutil.rmtree(actors / "bob")
    (actors / "ada" / "bbox.pt").write_bytes(b"precious")
    assert recover(actors, actors / "nowhere") == 1
    out, err = capsys.readouterr()
    assert sorted(line.split(":")[0] for line in out.splitlines()) == ["ada", "eve"]
    assert f"ada: {actors / 'ada' / 'bbox.pt'} is there, and was left alone" in out
    assert err == (
        f"uncrop: {actors / 'nowhere'}: expected a track, or an actor folder with images/, "
        "found nothing.\n"
    )
    assert (actors / "ada" / "bbox.pt").read_bytes() == b"precious"
    assert box_of(actors / "eve" / "bbox.pt") == CASE.bbox
    assert recover(actors, "--overwrite", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert box_of(actors / "ada" / "bbox.pt") == CASE.bbox


def test_tracks_of_one_name_get_a_picture_each(
    made: Path, tmp_path: Path, capsys: Captured
) -> None:
    for day in ("monday", "friday"):
        shutil.copytree(made, tmp_path / day / "eve")
    reports = tmp_path / "reports"
    assert (
        recover(tmp_path / "monday" / "eve", tmp_path / "friday" / "eve", "--report", reports) == 0
    )
    assert sorted(p.name for p in reports.iterdir()) == ["friday_eve.jpg", "monday_eve.jpg"]
    assert capsys.readouterr().err == ""


def test_tracks_below_a_folder_find_their_actors(own_track: MakeTrack) -> None:
    folder, truth = own_track(n_frames=3, begin_frames=1, source="video")
    (truth.actor / "bbox.pt").unlink()
    other, second = own_track(n_frames=3, begin_frames=1, source="video")
    (second.actor / "bbox.pt").unlink()
    assert folder.parent == other.parent
    assert recover(folder.parent) == 0
    assert box_of(truth.actor / "bbox.pt") == box_of(second.actor / "bbox.pt") == truth.bbox


def test_what_else_lies_beside_tracks_is_not_asked_for_its_box(
    own_track: MakeTrack, fixtures_dir: Path, capsys: Captured
) -> None:
    folder, truth = own_track(n_frames=3, begin_frames=1, source="video")
    top = folder.parent
    for to, out in (("bundle", "eve.h5"), ("insta", "dataset")):
        assert main(["convert", str(folder), "--to", to, "-o", str(top / out), "--quiet"]) == 0
    shutil.copytree(fixtures_dir / "flame_head_tracker", top / "results")
    (truth.actor / "bbox.pt").unlink()
    assert recover(top, "--json") == 0
    (done,) = json.loads(capsys.readouterr().out)["tracks"]
    assert done["out"] == str(truth.actor / "bbox.pt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jobs", "0"], "--jobs: expected 1 or more."),
        (["-o", "x.pt"], "--out belongs to one track, and 3 are given"),
        (["--report", "x.jpg"], "--report: expected a folder, since several tracks are given"),
    ],
)
def test_what_several_tracks_cannot_share_is_said(
    actors: Path, capsys: Captured, arguments: list[str], said: str
) -> None:
    assert recover(actors, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not list(actors.rglob("bbox.pt"))


def test_an_interrupt_keeps_what_is_done(made: Path, tmp_path: Path) -> None:
    top = tmp_path / "input"
    for number in range(12):
        shutil.copytree(made, top / f"{number:02d}")
    process = subprocess.Popen(
        [*UNCROP, "recover-bbox", str(top), "-j", "1", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + WAIT_S
    while len(list(top.glob("*/bbox.pt"))) < 2:  # rglob looks into folders that come and go
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"it did not happen: {process.communicate()}")
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    result = json.loads(out)
    assert result["ok"] is False
    assert f"uncrop: interrupted after {len(result['tracks'])} of 12 tracks." in err
    written = sorted(p.parent.name for p in top.rglob("bbox.pt"))
    said = [Path(t["track"]).name for t in result["tracks"]]
    assert 1 <= len(said) < 12
    assert set(said) <= set(written)
    assert {box_of(top / name / "bbox.pt") for name in written} == {CASE.bbox}
    assert [p.name for p in top.rglob("*bbox*")] == ["bbox.pt"] * len(written)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("sets/ada: expected a track.", "sets/ada: expected a track."),
        ("sets/ada/00001.frame: cut short.", "sets/ada/00001.frame: cut short."),
        (os.path.abspath("sets/ada/kpt: empty."), os.path.abspath("sets/ada/kpt: empty.")),
        ("sets/adam: expected a track.", "sets/ada: sets/adam: expected a track."),
        ("ada: meshes: expected some.", "sets/ada: ada: meshes: expected some."),
    ],
)
def test_a_refusal_among_many_names_its_track_once(
    capsys: Captured, message: str, line: str
) -> None:
    say_refused(Path("sets/ada"), message)
    assert capsys.readouterr().err == f"uncrop: {line}\n"
