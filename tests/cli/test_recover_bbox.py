"""``uncrop recover-bbox``: what is written, what is said, and what is left alone."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.media.images import ImageFiles, decode_image, list_images
from converter.media.limits import DEFAULT_LIMITS
from converter.media.torchfile import read_torch
from converter.registry import no_progress
from converter.sources.metrical_tracker.lost_bbox import recover_or_say
from fitting.crop.sequences import spread
from fixtures.synthetic.crop_cases import (
    IMPOSSIBLE,
    SMALL,
    CropCase,
    cut,
    encode,
    scene,
    write_case,
)
from tests.cli.recovering import box_of, recover, write_actor
from tests.conftest import MakeTrack

CASE = CropCase("small", (300, 780, 30, 510), source_size=SMALL, size=256, n_frames=3)
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def actor(tmp_path: Path) -> Path:
    """An actor folder that was never tracked: crops and source frames."""
    return write_actor(tmp_path / "eve", CASE)


def test_one_line_says_the_box_the_verdict_and_where_it_is(actor: Path, capsys: Captured) -> None:
    assert recover(actor) == 0
    out, err = capsys.readouterr()
    assert out == (
        "eve: bbox [300, 780, 30, 510], verdict exact, every pixel of 1 of 3 frames equal; "
        "2 more show the same room in the same place; "
        f"wrote {actor / 'bbox.pt'}\n"
    )
    assert err == ""
    assert box_of(actor / "bbox.pt") == CASE.bbox


def test_the_file_is_what_torch_and_the_tracker_write(actor: Path) -> None:
    recover(actor)
    content = read_torch(actor / "bbox.pt").content
    assert content.dtype == "int64"  # type: ignore[union-attr]
    assert content.shape == (4,)  # type: ignore[union-attr]
    torch = pytest.importorskip("torch")
    loaded = torch.load(actor / "bbox.pt", weights_only=False)
    assert loaded.tolist() == list(CASE.bbox)


def test_a_bbox_that_exists_is_kept(actor: Path, capsys: Captured) -> None:
    (actor / "bbox.pt").write_bytes(b"precious")
    assert recover(actor) == 3
    assert "Give --overwrite or -o FILE." in capsys.readouterr().err
    assert (actor / "bbox.pt").read_bytes() == b"precious"
    assert recover(actor, "--dry-run") == 0
    said = f"dry run, {actor / 'bbox.pt'} was not written: it is there, and stays without --over"
    assert said in capsys.readouterr().out
    assert recover(actor, "-o", actor / "other.pt") == 0
    assert (actor / "bbox.pt").read_bytes() == b"precious"
    assert recover(actor, "--overwrite") == 0
    assert box_of(actor / "bbox.pt") == box_of(actor / "other.pt") == CASE.bbox


@pytest.mark.parametrize(
    ("inside", "meant"),
    [("eve/images", "eve"), ("eve/source/a", "eve"), ("eve/images --source eve/source", "eve"),
     ("lone/a", None), ("source/lone", None)],
)  # fmt: skip
def test_a_part_of_an_actor_folder_is_answered_with_the_whole(
    actor: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, inside: str, meant: str | None
) -> None:
    monkeypatch.chdir(actor.parent)
    for folder in ("eve/source/a", "lone/a", "source/lone"):
        Path(folder).mkdir(parents=True)
    assert recover(*inside.split()) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"uncrop: {inside.split()[0]}: expected")
    assert ("Did you mean" in err) == (meant is not None)
    if meant is not None:
        assert err.endswith(f"Did you mean the actor folder {meant}?\n")


def test_a_folder_of_pictures_taken_for_an_actor_folder_is_answered_by_what_it_is(
    actor: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(actor.parent)
    expected = "expected the tracker's crops, images/ or output/<name>/input/, found neither."
    for folder in ("none/images", "out/eve/checkpoint"):
        Path(folder).mkdir(parents=True)
    shutil.copytree("eve/images", "crops")
    shutil.copytree("eve/images", "out/eve/input")
    Path("out/eve/checkpoint/00000.frame").touch()
    for given, remedy in (
        ("none/images", "Give --crops DIR."),
        ("crops", "If the images in it are the crops, add --crops crops."),
        ("out/eve/input", "Did you mean the track out/eve?"),
    ):
        assert recover(given, "--source", "eve/source") == 3
        assert capsys.readouterr().err == f"uncrop: {given}: {expected} {remedy}\n"
    monkeypatch.chdir("out/eve/input")
    assert recover(".", "--source", "../../../eve/source") == 3
    assert capsys.readouterr().err == f"uncrop: .: {expected} Did you mean the track ..?\n"
    monkeypatch.chdir(actor.parent)
    assert recover("none") == 3
    assert "found neither. Give --source" in capsys.readouterr().err
    assert recover("none/images") == 3
    assert "neither, nor anything of a track or an actor folder" in capsys.readouterr().err
    assert recover("crops", "--source", "eve/source", "--crops", "crops") == 0


def test_the_crops_are_not_taken_for_source_frames(
    actor: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(actor.parent)
    assert recover("eve", "--source", actor / "images") == 3
    assert capsys.readouterr().err == (
        f"uncrop: {actor / 'images'}: expected the frames that the crops were cut from, found the "
        "crops themselves. Give --source the video that was tracked, or its frames.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--report taken.jpg", "taken.jpg: expected nothing there yet, found a file"),
        ("--report reports", "reports/eve.jpg: expected nothing there yet, found a file"),
        ("--report taken.jpg/p.jpg",
         "expected a place that can be written, found taken.jpg, which is a file."),
        ("-o reports", "reports: expected a file, or nothing yet, found a folder"),
        ("-o taken.jpg", "taken.jpg: expected no such file yet, found a file. Give --overwrite"),
    ],
)  # fmt: skip
def test_places_are_judged_before_anything_is_written(
    actor: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: str, said: str
) -> None:
    monkeypatch.chdir(actor.parent)
    for taken in ("taken.jpg", "reports/eve.jpg"):
        Path(taken).parent.mkdir(exist_ok=True)
        Path(taken).write_bytes(b"precious")
    assert recover("eve", *arguments.split()) == 3
    assert said in capsys.readouterr().err
    assert not Path("eve/bbox.pt").exists()
    assert Path("taken.jpg").read_bytes() == Path("reports/eve.jpg").read_bytes() == b"precious"


def test_a_refusal_is_one_line_and_writes_nothing(tmp_path: Path, capsys: Captured) -> None:
    case = replace(next(c for c in IMPOSSIBLE if c.fault == "mirrored"), source_size=SMALL,
                   bbox=CASE.bbox)  # fmt: skip
    crops, source = write_case(tmp_path / "eve", case)
    out = tmp_path / "bbox.pt"
    code = recover(tmp_path / "eve", "--crops", crops, "--source", source, "-o", out,
                   "--report", tmp_path / "report.jpg")  # fmt: skip
    err = capsys.readouterr().err
    assert code == 3
    assert len(err.splitlines()) == 1
    said = "found 00003.png is mirrored left to right. Nothing was written. The source is a mirror"
    assert said in err
    what_to_do = "give --source the video that was tracked, or this one mirrored the same way."
    assert what_to_do in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["eve"]
    # convert goes on without the box, and says the same.
    frames = [ImageFiles.of(list_images(folder), DEFAULT_LIMITS) for folder in (crops, source)]
    found, finding = recover_or_say("eve", frames[0], None, frames[1], no_progress)
    assert found is None
    assert what_to_do in str(finding)


def test_below_the_wanted_verdict_nothing_is_written(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "eve"
    crops, _ = write_case(folder, replace(CASE, alter="gamma"))
    crops.rename(folder / "images")
    assert recover(folder, "--min-confidence", "exact") == 3
    assert (
        "expected a box of verdict exact, found bbox [300, 780, 30, 510], verdict consistent"
        in (capsys.readouterr().err)
    )
    assert not (folder / "bbox.pt").exists()
    assert recover(folder) == 0
    assert box_of(folder / "bbox.pt") == CASE.bbox


def test_a_video_is_no_track(actor: Path, capsys: Captured) -> None:
    video = actor / "video.mp4"
    video.write_bytes(b"anything")
    assert recover(video) == 3
    assert "found a file. Give the folder; a video outside it" in capsys.readouterr().err


def test_the_report_is_a_picture(actor: Path, tmp_path: Path, capsys: Captured) -> None:
    assert recover(actor, "--report", tmp_path / "reports") == 0
    wrote = f"; wrote {actor / 'bbox.pt'} and {tmp_path / 'reports' / 'eve.jpg'}\n"
    assert capsys.readouterr().out.endswith(wrote)
    picture = (tmp_path / "reports" / "eve.jpg").read_bytes()
    assert decode_image(picture, "eve.jpg").shape == (1004, 1440, 3)


def test_several_tracks_are_a_line_each_and_one_failure_does_not_stop_them(
    actor: Path, tmp_path: Path, capsys: Captured
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(actor, bad)
    shutil.rmtree(bad / "source")
    assert recover(bad, actor, "--json") == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["ok"] is False
    assert [t["verdict"] for t in result["tracks"]] == ["refused", "exact"]
    assert result["tracks"][1]["bbox"] == list(CASE.bbox)
    assert "Give --source DIR_OR_VIDEO." in err
    assert len(err.splitlines()) == 1
    assert recover(bad, actor, "-o", "x.pt") == 2


@pytest.mark.parametrize(("fault", "cause"), [("mirrored", "mirrored"), ("between", "off-lattice")])
def test_the_cause_of_a_refusal_is_said_to_programs(
    actor: Path, tmp_path: Path, capsys: Captured, fault: str, cause: str
) -> None:
    odd = write_actor(tmp_path / "odd", replace(CASE, fault=fault))
    assert recover(odd, "--json") == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["cause"] == cause
    assert "ive --source the video that was tracked" in err
    if fault == "between":
        assert "not a resized copy, and --fps" in err
    assert recover(odd, actor, "--json") == 1
    entries = json.loads(capsys.readouterr().out)["tracks"]
    assert [entry["cause"] for entry in entries] == [cause, ""]


@pytest.mark.parametrize("given", [".", "input", "input/eve"])
def test_a_tracker_folder_of_which_only_landmarks_are_left_says_so(
    actor: Path, tmp_path: Path, capsys: Captured, given: str
) -> None:
    top = tmp_path / "tracker"
    (top / "input").mkdir(parents=True)
    actor.rename(top / "input" / "eve")
    shutil.rmtree(top / "input" / "eve" / "images")
    (top / "input" / "eve" / "kpt").mkdir()
    np.save(top / "input" / "eve" / "kpt" / "00001.npy", np.zeros((68, 2)))
    assert recover(top / given) == 3
    assert "found neither, but kpt/ of 1 frame. Give --crops DIR" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["images", "input"])
def test_a_track_gives_its_box_from_any_folder(own_track: MakeTrack, left: str) -> None:
    folder, truth = own_track(n_frames=3, begin_frames=1, source="video")
    (truth.actor / "bbox.pt").unlink()
    shutil.rmtree(truth.output / "input" if left == "images" else truth.actor / "images")
    assert recover(folder if left == "images" else truth.output) == 0
    assert box_of(truth.actor / "bbox.pt") == truth.bbox


@pytest.mark.parametrize("fps", [25.0, 29.97])
def test_a_video_gives_the_frames_that_the_tracker_took_of_it(
    own_track: MakeTrack, capsys: Captured, fps: float
) -> None:
    """The tracker takes 25 frames a second, whatever the video's rate is."""
    _, truth = own_track(n_frames=10, source="video", video_fps=fps)
    (truth.actor / "bbox.pt").unlink()
    assert recover(truth.actor, "--json") == 0
    assert box_of(truth.actor / "bbox.pt") == truth.bbox
    (entry,) = json.loads(capsys.readouterr().out)["tracks"]
    assert {pair["offset"] for pair in entry["pairs"]} == {0}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["/nowhere"], 3, "/nowhere: expected a track, or an actor folder with images/"),
        (["ACTOR", "--source", "/nowhere"], 3, "/nowhere: expected what --source names"),
        (["ACTOR", "--source", "/nowhere"], 3, "found nothing. Check its spelling."),
        (["ACTOR", "--crops", "/nowhere"], 3, "/nowhere: expected PNG or JPEG crops, found noth"),
        (["ACTORR"], 3, "with images/, found nothing. Did you mean ACTOR?"),
        (["ACTOR", "--fps", "0"], 3, "--fps: expected frames per second, 0.1 to 1000, found 0."),
        (["ACTOR", "--frames", "0"], 2, "--frames: expected 1 or more"),
        (["ACTOR", "--report", "x.png"], 2, "--report: expected FILE.jpg, or a folder"),
    ],
)
def test_mistakes_are_named(
    actor: Path, capsys: Captured, arguments: list[str], code: int, said: str
) -> None:
    assert recover(*(a.replace("ACTOR", str(actor)) for a in arguments)) == code
    assert said.replace("ACTOR", str(actor)) in capsys.readouterr().err


def test_landmarks_that_jump_show_where_a_second_box_begins(
    tmp_path: Path, capsys: Captured
) -> None:
    """One crop of another box, which lies between all frames that are looked at otherwise."""
    folder, n = tmp_path / "eve", 170
    case = replace(CASE, n_frames=n)
    crops, _ = write_case(folder, case)
    odd = min({*range(n)} - {*spread(n, 160)})
    name = f"{odd + 1:05d}.png"
    encode(crops / name, cut(scene(case, odd), (310, 794, 26, 510), case.size), 95)
    crops.rename(folder / "images")
    for index, path in enumerate(sorted((folder / "images").iterdir())):
        os.utime(path, (1e9 + index, 1e9 + index))
    assert recover(folder, "--dry-run") == 0
    assert "verdict exact" in capsys.readouterr().out
    rng = np.random.default_rng(7)
    (folder / "kpt").mkdir()
    points = rng.uniform(80, 180, (68, 2))
    for index in range(n):
        moved = points + rng.normal(0, 0.5, 2) - (index == odd) * np.array([5.3, 2.1])
        np.save(folder / "kpt" / f"{index + 1:05d}.npy", moved)
    assert recover(folder) == 3
    err = capsys.readouterr().err
    assert "the folder holds crops of two boxes" in err
    assert f"[310, 794, 26, 510] cut {name} (" in err
    assert not (folder / "bbox.pt").exists()
