"""``uncrop recover-bbox`` where the crops are gone: landmarks, files, and what is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.batch.discover import Found
from converter.batch.recovering import RecoverJob, recover_track
from converter.cli.main import main
from converter.errors import MissingInputError, UncropError
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats, Size, index_from_pixels, pixels_from_index
from converter.media.limits import DEFAULT_LIMITS
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.lost_crops import (
    find_lost_crops,
    read_source_landmarks,
    redetect,
)
from converter.sources.metrical_tracker.reader import read_bbox
from converter.track import Image
from fitting.detectors import require_weights
from tests.cli.recovering import box_of, recover
from tests.conftest import MakeTrack

Captured = pytest.CaptureFixture[str]

DUDA = Size(1920, 1080), Size(512, 512)
SMALL = Size(640, 360), Size(256, 256)
"""Source frames and crops, of the real track and of the synthetic ones."""


def edges_of(path: Path) -> Floats:
    return np.array(box_of(path))


def strip(
    actor: Path, output: Path, landmarks: Path, sizes: tuple[Size, Size], noise_px: float
) -> None:
    """Take bbox.pt and all crops away, and detect in the source what kpt/ holds of the crops."""
    box = read_bbox(actor / "bbox.pt", DEFAULT_LIMITS)
    crop = Crop.from_bbox(box, *sizes)
    (actor / "bbox.pt").unlink()
    for folder in (actor / "images", output / "input"):
        shutil.rmtree(folder, ignore_errors=True)
    landmarks.mkdir()
    rng = np.random.default_rng(0)
    for path in sorted((actor / "kpt").iterdir()):
        there = crop.source_from_crop(pixels_from_index(np.load(path)))
        seen = there + rng.normal(0, noise_px, there.shape)
        np.save(landmarks / path.name, index_from_pixels(seen).astype(np.float32))


@pytest.mark.shared
def test_duda_from_kpt_alone_is_approximate_and_the_bar_holds_the_truth(
    shared_data: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder, landmarks = tmp_path / "duda", tmp_path / "landmarks"
    shutil.copytree(shared_data / "duda", folder)
    actor = folder / "input" / "duda"
    strip(actor, folder / "output" / "duda", landmarks, DUDA, 1.0)
    assert recover(folder) == 3
    assert (
        "found neither, but kpt/ of 76 frames. Give --crops DIR if they exist. Landmarks of the "
        "crops give an approximate box" in capsys.readouterr().err
    )
    assert recover(folder, "--landmarks", landmarks) == 3
    assert "Nothing was written; --accept-approximate writes it." in capsys.readouterr().err
    assert not (actor / "bbox.pt").exists()
    assert recover(folder, "--landmarks", landmarks, "--accept-approximate", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["tracks"]
    assert result["verdict"] == "approximate"
    assert 4.1 <= result["error_px"] <= 7
    assert np.max(np.abs(edges_of(actor / "bbox.pt") - [787, 1197, 61, 471])) <= result["error_px"]
    assert recover(folder, "--landmarks", landmarks, "--accept-approximate") == 3  # it exists now
    assert main(["inspect", str(folder)]) == 0


def test_crops_come_before_landmarks(
    own_track: MakeTrack, tmp_path: Path, capsys: Captured
) -> None:
    folder, truth = own_track(n_frames=3, source="folder")
    landmarks = tmp_path / "landmarks"
    kept = shutil.copytree(truth.actor / "images", tmp_path / "kept")
    strip(truth.actor, truth.output, landmarks, SMALL, 1.0)
    kept.rename(truth.actor / "images")
    assert recover(folder, "--landmarks", landmarks) == 0
    assert "verdict exact" in capsys.readouterr().out
    assert tuple(edges_of(truth.actor / "bbox.pt")) == truth.bbox


@pytest.mark.parametrize("missing", ["kpt", "video"])
def test_what_is_missing_is_asked_for(
    own_track: MakeTrack, tmp_path: Path, capsys: Captured, missing: str
) -> None:
    folder, truth = own_track(n_frames=3, source="video")
    strip(truth.actor, truth.output, tmp_path / "landmarks", SMALL, 0.0)
    if missing == "kpt":
        for folder_left in ("kpt", "kpt_dense"):
            shutil.rmtree(truth.actor / folder_left)
        (truth.actor / "kpt").mkdir()
    else:
        (truth.actor / "video.mp4").unlink()
    assert recover(folder, "--actor", truth.actor) == 3
    said = capsys.readouterr().err
    assert ("found neither. Give --crops DIR." if missing == "kpt" else "Give --source") in said
    assert len(said.splitlines()) == 1


def test_landmarks_of_the_crops_are_not_taken_for_those_of_the_source(
    own_track: MakeTrack, tmp_path: Path, capsys: Captured
) -> None:
    folder, truth = own_track(n_frames=3, source="video")
    strip(truth.actor, truth.output, tmp_path / "unused", SMALL, 0.0)
    kpt = truth.actor / "kpt"
    assert recover(folder, "--landmarks", kpt, "--accept-approximate") == 3
    said = f"{kpt}: expected landmarks of source frames, found those of the crops: 3 frames as in"
    assert said in capsys.readouterr().err
    assert not (truth.actor / "bbox.pt").exists()


def test_a_box_from_landmarks_alone_says_that_it_has_no_picture(
    own_track: MakeTrack, tmp_path: Path
) -> None:
    folder, truth = own_track(n_frames=3, source="video")
    landmarks = tmp_path / "landmarks"
    strip(truth.actor, truth.output, landmarks, SMALL, 0.0)
    job = RecoverJob(
        ReadOptions(), landmarks=landmarks, accept_approximate=True, report=tmp_path / "proof.jpg"
    )
    done = recover_track(Found(folder), job)
    assert done.line.endswith("bbox.pt; no picture: there are no crops that tell")
    assert not (tmp_path / "proof.jpg").exists()


def test_redetection_takes_the_first_frame_and_others(make_track: MakeTrack) -> None:
    """With a detector of our own: the weights of face_alignment are not here."""
    folder, _ = make_track(n_frames=12, source="video")
    lost = find_lost_crops(folder, ReadOptions())
    seen: list[Size] = []

    def detect(image: Image) -> Floats | None:
        seen.append(Size.of(image))
        return None if len(seen) == 2 else points(1).round() + 0.5

    found = redetect(lost, detect)
    assert set(seen) == {SMALL[0]}
    assert len(seen) == min(9, len(lost.sources))
    assert min(found.points) == "00001"
    assert len(found.points) == len(seen) - 1
    assert found.whole
    with pytest.raises(MissingInputError, match="a face in some source frame"):
        redetect(lost, lambda _: None)


def test_redetect_names_what_it_needs(
    own_track: MakeTrack, tmp_path: Path, capsys: Captured
) -> None:
    folder, truth = own_track(n_frames=2, source="video")
    strip(truth.actor, truth.output, tmp_path / "unused", SMALL, 0.0)
    assert recover(folder, "--redetect", "--landmarks", tmp_path / "unused") == 2
    lacking = detector_lacks()
    if lacking:
        capsys.readouterr()
        assert recover(folder, "--redetect", "--accept-approximate") == 3
        assert lacking in capsys.readouterr().err


def detector_lacks() -> str:
    try:
        require_weights()
    except UncropError as error:
        return str(error)
    return ""


# --- files ------------------------------------------------------------------------------------


def points(n: int, n_points: int = 68) -> Floats:
    return np.round(np.random.default_rng(n).uniform(10, 900, (n_points, 2)), 2)


def as_npy(folder: Path) -> Path:
    for number in (1, 2):
        np.save(folder / f"{number:05d}.npy", points(number))
    return folder


def as_lms(folder: Path) -> Path:
    for number in (1, 2):
        np.savetxt(folder / f"{number:05d}.lms", points(number), "%f")
    return folder


def as_stack(folder: Path) -> Path:
    np.save(folder / "all.npy", np.stack([points(1), points(2), np.zeros((68, 2))]))
    return folder / "all.npy"


def as_npz(folder: Path) -> Path:
    np.savez(folder / "all.npz", landmarks=np.stack([points(1), points(2)]))
    return folder / "all.npz"


@pytest.mark.parametrize("write", [as_npy, as_lms, as_stack, as_npz])
def test_all_formats_say_the_same(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    found = read_source_landmarks(write(tmp_path), DEFAULT_LIMITS)
    assert sorted(found.points) == ["00001", "00002"]
    for number in (1, 2):  # index coordinates in the file, edge-origin afterwards
        assert np.allclose(found.points[f"{number:05d}"], points(number) + 0.5, atol=1e-9)
    assert not found.whole


def test_dense_points_count_from_the_edge(tmp_path: Path) -> None:
    np.save(tmp_path / "00001.npy", points(1, 478))
    found = read_source_landmarks(tmp_path, DEFAULT_LIMITS)
    assert np.array_equal(found.points["00001"], points(1, 478))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("00001.npy", np.zeros((70, 2)), "expected 68x2 or 478x2 numbers, found 70x2 float64"),
        ("00001.npy", np.zeros((68, 3)), "found 68x3"),
        ("00001.lms", "eyes 1 2\n", "expected 68 lines 'x y'"),
        ("readme.txt", "", "expected landmarks: NAME.npy or NAME.lms"),
    ],
)
def test_what_is_no_landmarks_is_named(
    own_track: MakeTrack,
    tmp_path: Path,
    capsys: Captured,
    name: str,
    content: str | Floats,
    said: str,
) -> None:
    folder, truth = own_track(n_frames=2, source="video")
    strip(truth.actor, truth.output, tmp_path / "unused", SMALL, 0.0)
    given = tmp_path / "given"
    given.mkdir()
    if isinstance(content, str):
        (given / name).write_text(content)
    else:
        np.save(given / name, content)
    assert recover(folder, "--landmarks", given, "--accept-approximate") == 3
    assert said in capsys.readouterr().err
    assert not (truth.actor / "bbox.pt").exists()


def test_the_first_frame_alone_gives_the_trackers_own_box(
    own_track: MakeTrack, tmp_path: Path, capsys: Captured
) -> None:
    """Without kpt/, whole-number landmarks of source frame 1 go through get_bbox."""
    folder, truth = own_track(n_frames=2, source="video")
    strip(truth.actor, truth.output, tmp_path / "unused", SMALL, 0.0)
    shutil.rmtree(truth.actor / "kpt")
    given = tmp_path / "given"
    given.mkdir()
    width, height = SMALL[0].width, SMALL[0].height
    middle, side = np.array([width, height]) // 2, min(width, height) // 10
    face = middle + np.random.default_rng(0).integers(-side, side + 1, (68, 2))
    np.save(given / "00001.npy", face.astype(np.float32))
    assert recover(folder, "--landmarks", given, "--accept-approximate") == 0
    assert "approximate, from landmarks of 1 frame" in capsys.readouterr().out
    low, high = face.min(axis=0), face.max(axis=0)
    half = int(5.0 * np.max((high + low) // 2 - low)) // 2
    x0, x1, y0, y1 = edges_of(truth.actor / "bbox.pt")
    assert (x0, x1) == (max((high + low)[0] // 2 - half, 0), (high + low)[0] // 2 + half)
    assert BBox(int(x0), int(x1), int(y0), int(y1)).size.width % 2 == 0
