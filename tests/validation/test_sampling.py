"""A sample of the landmark files tells what all of them do, as far as docs/validate.md says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.registry import ReadOptions
from converter.validation.checking import run_checks
from converter.validation.report import CheckResult
from converter.validation.tracked import Tracked
from converter.validation.validate import ValidateOptions, validate
from fixtures.defects import TrackCopy, edit_all
from fixtures.synthetic import TrackSpec, write_track

QUIET = ReadOptions(hash_inputs=False)
N_FRAMES = 800
LOST = np.zeros((68, 2), np.float32)
"""As other programs write a failed detection: of the size of all other files."""


@pytest.fixture(scope="module")
def long_track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "track"
    write_track(folder, TrackSpec(source_size=(160, 120), crop_size=64, n_frames=N_FRAMES,
                                  oversample=1, source="none", images=False, input_dump=False,
                                  kpt_dense=False, mesh=False, pictures=False))  # fmt: skip
    return folder


@pytest.fixture
def copy(long_track: Path, tmp_path: Path) -> TrackCopy:
    """A copy of links: what is changed is written anew."""
    root = tmp_path / "track"
    root.mkdir()
    for path in sorted(long_track.rglob("*")):
        place = root / path.relative_to(long_track)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            os.link(path, place)
    (actor,) = (root / "input").iterdir()
    (output,) = (root / "output").iterdir()
    return TrackCopy(root, actor, output, [], (64, 64), (160, 120))


def save(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.unlink()
    np.save(path, array)


def result(track: TrackCopy, check: str, *, thorough: bool = False) -> CheckResult:
    report = validate(track.root, ValidateOptions(QUIET, thorough))
    return next(r for r in report.results if r.check == check)


def test_good_files_are_sampled(copy: TrackCopy) -> None:
    seen = result(copy, "landmarks-damaged")
    assert (seen.status, seen.n_examined) == ("passed", 134)  # every sixth of 800
    assert result(copy, "landmarks-damaged", thorough=True).n_examined == N_FRAMES
    assert result(copy, "jitter").status == "passed"


def test_failed_detections_of_the_tracker_are_seen_wherever_they_are(copy: TrackCopy) -> None:
    """They are float64, as the tracker writes them, and told by the size of their files."""
    lost = (7, 8, 100, 395)
    for i in lost:
        save(copy.numbers("kpt")[i], np.zeros((68, 2)))
    seen = result(copy, "landmarks-missing")
    assert len(seen.frame_ids) == len(lost)
    assert result(copy, "landmarks-missing", thorough=True).frame_ids == seen.frame_ids
    assert seen.n_examined < N_FRAMES / 4


@pytest.mark.parametrize("start", range(200, 206))
def test_six_lost_faces_in_a_row_are_seen_whatever_their_size(copy: TrackCopy, start: int) -> None:
    for path in copy.numbers("kpt")[start : start + 6]:
        save(path, LOST)
    seen = result(copy, "landmarks-missing")
    assert [f.severity for f in seen.findings] == ["warning"]
    assert (len(seen.frame_ids), seen.n_examined) == (6, N_FRAMES)  # one was seen: all were read


@pytest.mark.parametrize("shape", [(67, 2), (69, 2), (478, 2)])
def test_one_file_of_another_shape_is_seen(copy: TrackCopy, shape: tuple[int, int]) -> None:
    save(copy.numbers("kpt")[123], np.ones(shape, np.float32))
    seen = result(copy, "landmarks-damaged")
    assert (seen.status, len(seen.frame_ids)) == ("found", 1)


def test_one_truncated_file_is_seen(copy: TrackCopy) -> None:
    path = copy.numbers("kpt")[321]
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])
    assert len(result(copy, "landmarks-damaged").frame_ids) == 1


def test_a_shaking_camera_has_all_landmarks_read(copy: TrackCopy) -> None:
    """Sampled landmarks hold no five frames in a row, which the check needs."""
    rng = np.random.default_rng(2)

    def move(content: dict[str, Any]) -> None:
        off = rng.normal(0, 0.02, 3).astype(np.float32)
        content["opencv"]["t"] += off
        content["camera"]["t"] += off * np.array([-1, -1, 1], np.float32)

    edit_all(copy.frames, move)
    seen, thorough = result(copy, "jitter"), result(copy, "jitter", thorough=True)
    assert (seen.status, seen.findings) == ("found", thorough.findings)


def test_one_jump_of_the_camera_is_named_in_a_long_track(copy: TrackCopy) -> None:
    def move(content: dict[str, Any]) -> None:
        content["opencv"]["t"][0, 0] += 0.08
        content["camera"]["t"][0, 0] -= 0.08

    edit_all(copy.frames[250:251], move)
    seen = result(copy, "jitter")
    assert (seen.status, seen.frame_ids) == (
        "found",
        result(copy, "jitter", thorough=True).frame_ids,
    )
    assert 250 in seen.frame_ids


def test_few_images_are_decoded(fixtures_dir: Path) -> None:
    evidence = Tracked(fixtures_dir / "sample", QUIET, thorough=False)
    results = {r.check: r for r in run_checks(evidence, "track")}
    assert results["crop-pixels"].n_examined >= 3  # re-rendered, as the specification wants
    assert results["images-order"].status == "passed"
    assert evidence.pictures.n_decoded <= 20
