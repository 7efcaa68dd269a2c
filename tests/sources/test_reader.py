"""Whole tracks with what runs leave behind: leftovers, gaps, strays, other boxes, mattes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converter.errors import UncropError
from converter.geometry.crop import BBox
from converter.geometry.pixels import Size
from converter.media.torchfile import write_torch
from fixtures.synthetic import Truth
from fixtures.synthetic.crop_cases import cut
from tests.conftest import MakeTrack
from tests.damage import edit_frame
from tests.sources.reading import SMALL, checks, offset, read

SPEC: dict[str, Any] = {**SMALL, "n_frames": 6, "yaml": False}
BARE: dict[str, Any] = {**SPEC, "pictures": False, "kpt_dense": False}


def set_steps(truth: Truth, steps: list[int | None]) -> None:
    paths = sorted((truth.output / "checkpoint").iterdir())
    for path, step in zip(paths, steps, strict=True):
        edit_frame(path, lambda c, s=step: c.update(global_step=s))  # type: ignore[misc]


def refused(folder: Path, pattern: str, **options: Any) -> None:
    with pytest.raises(UncropError) as caught:
        read(folder, **options)
    text = str(caught.value)
    assert re.search(pattern, text), text
    assert len(text.splitlines()) == 1


# --- global_step ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "leftover"),
    [
        ([2186, 2500, 2814, 3128, 3442, 3756], []),  # keyframes [0, 1]
        ([1562, 1876, 2190, 2504, 2818, 3132], []),  # keyframes [0]
        ([2186, 2814, 3128, 3442, 3756, 4070], []),  # resumed at frame 1
        ([2186, 3128, 3442, 3756, 4070, 4384], []),  # twice
        ([2186, 2500, 2814, 3442, 3756, 4070], []),  # resumed at frame 3
        ([2500, 2814, 3128, 3442, 3756, 4070], []),  # resumed at frame 0
        ([938, 1252, 1566, 1880, 2194, 2508], []),  # interrupted after one keyframe
        ([624, 1562, 1876, 2190, 2504, 2818], [0]),  # after two
        ([624, 1248, 2186, 2500, 2814, 3128], [0, 1]),  # after three
        ([624, 1248, 1872, 2810, 3124, 3438], [0, 1, 2]),  # after four
        ([2186, 1248, 2186, 2500, 2814, 3128], [1]),  # while tracking frame 1
        ([2186, 2500, 2186, 2500, 2814, 3128], []),  # while tracking frame 2
        ([314, 628, 942, 1256, 1570, 1884], []),  # a fork without initialisation
        ([2186, 2500, 2814, 3014, 3214, 3414], []),  # other settings since
        ([None] * 6, []),
        ([2186, None, 2814, 3128, 3442, 3756], []),
        ([0] * 6, []),
        ([5] * 6, []),
        ([6, 5, 4, 3, 2, 1], []),
    ],
)
def test_leftovers_of_initialisation(
    own_track: MakeTrack, steps: list[int | None], leftover: list[int]
) -> None:
    folder, truth = own_track(**BARE)
    set_steps(truth, steps)
    track = read(folder)
    assert track.frame_ids.tolist() == [i for i in range(6) if i not in leftover]
    assert ("frames-leftover" in checks(track)) == bool(leftover)


# --- frames, dumps, meshes, landmarks ---------------------------------------------------------


def test_stray_dumps(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, begin_frames=1)
    first = truth.output / "input" / "00000.png"
    for n in range(101, 902, 100):
        shutil.copyfile(first, truth.output / "input" / f"{n:05d}.png")
    track = read(folder)
    assert offset(track) == 1
    assert checks(track) == set()
    said = [f.message for f in track.findings if f.check == "dumps-stray"]
    assert len(said) == 1
    assert "00101.png, 00201.png" in said[0]


@pytest.mark.parametrize("missing", [(2,), (0, 1), (1, 2, 4), (5,)])
def test_missing_frames_keep_the_others_images(
    make_track: MakeTrack, missing: tuple[int, ...]
) -> None:
    folder, truth = make_track(**SPEC, begin_frames=1, missing_frames=missing)
    track = read(folder)
    assert track.frame_ids.tolist() == truth.frame_ids.tolist()
    assert offset(track) == 1
    assert track.landmarks is not None
    assert np.abs(track.landmarks - truth.landmarks).max() < 1.01
    assert ("frames-missing" in checks(track)) == (missing in ((2,), (1, 2, 4)))


def test_damaged_frames_may_be_left_out(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    path = truth.output / "checkpoint" / "00003.frame"
    path.write_bytes(path.read_bytes()[:700])
    refused(folder, r"00003\.frame: expected")
    track = read(folder, skip_damaged=True)
    assert track.frame_ids.tolist() == [0, 1, 2, 4, 5]
    assert "frames-damaged" in checks(track)


def test_missing_meshes(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    (truth.output / "mesh" / "00002.ply").unlink()
    refused(folder, r"00002\.ply: expected the mesh of this frame, found nothing \(1 of 6 m")
    shutil.rmtree(truth.output / "mesh")
    track = read(folder)
    assert track.meshes is None
    assert "meshes-missing" in checks(track)


def kpt(truth: Truth, position: int, name: str = "kpt") -> Path:
    return truth.actor / name / f"{Path(truth.image_names[position]).stem}.npy"


def test_lost_landmarks_of_every_kind(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    np.save(kpt(truth, 1), np.zeros((68, 2)))
    kpt(truth, 2).unlink()
    broken = np.load(kpt(truth, 3))
    broken[5] = np.nan
    np.save(kpt(truth, 3), broken)
    np.save(kpt(truth, 4), np.load(kpt(truth, 4)).astype(np.int64))
    track = read(folder)
    assert track.landmarks is not None
    lost = np.isnan(track.landmarks).any(axis=(1, 2))
    assert lost.tolist() == [False, True, True, True, False, False]
    said = next(f.message for f in track.findings if f.check == "landmarks-missing")
    assert said == "3 of 6 frames have none (1 file missing)."


@pytest.mark.parametrize(
    "bad", [np.zeros((68, 3)), np.zeros(136), np.ones((478, 2)), np.ones((68, 2), bool)]
)
def test_landmarks_of_another_shape(own_track: MakeTrack, bad: Any) -> None:
    folder, truth = own_track(**SPEC)
    np.save(kpt(truth, 1), bad)
    refused(folder, r"kpt/00002\.npy: expected 68x2 float, found .* Is it from kpt/ of this track")


def test_68_points_in_kpt_dense(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    for k in range(6):
        shutil.copyfile(kpt(truth, k), kpt(truth, k, "kpt_dense"))
    track = read(folder)
    assert checks(track) == {"landmarks-dense"}
    assert track.dense_landmarks is None
    assert track.landmarks is not None


# --- the crop ---------------------------------------------------------------------------------


def set_bbox(truth: Truth, bbox: Any) -> None:
    write_torch(truth.actor / "bbox.pt", bbox, stem="bbox", tensors=False)


@pytest.mark.parametrize("bbox", [(-30, 120, 0, 150), (60, 300, -20, 179), (0, 239, 0, 179),
                                  (10, 171, 20, 160)])  # fmt: skip
def test_boxes_at_and_beyond_the_border(make_track: MakeTrack, bbox: Any) -> None:
    folder, truth = make_track(**SPEC, bbox=bbox)
    track = read(folder)
    assert track.crop is not None
    np.testing.assert_allclose(track.crop.crop_from_source.matrix, truth.crop_from_source)
    beyond = min(bbox) < 0 or bbox[1] > 240 or bbox[3] > 180
    assert checks(track) == ({"bbox-outside"} if beyond else set())


@pytest.mark.parametrize("source", ["folder", "video"])
def test_the_box_of_another_run_is_refused(own_track: MakeTrack, source: str) -> None:
    folder, truth = own_track(**SPEC, source=source)
    x0, x1, y0, y1 = truth.bbox or (0, 0, 0, 0)
    set_bbox(truth, [x0 + 12, x1 + 12, y0, y1])
    refused(folder, r"bbox \[.*: expected crops of .* equal to the tracker's images .* found \d")


def test_source_frames_that_are_a_smaller_copy(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, bbox=(100, 220, 30, 150))
    for path in (truth.actor / "source").iterdir():
        small = cv2.resize(cv2.imread(str(path)), (160, 120))
        cv2.imwrite(str(path), small)
    refused(folder, r"ends where the 160x120 source does: is it a smaller copy")


def test_a_box_of_another_video(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    set_bbox(truth, [787, 1197, 61, 471])
    refused(folder, r"bbox\.pt: expected a box inside the 240x180 source frames, found \[787")


def test_a_box_of_corners(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    x0, x1, y0, y1 = truth.bbox or (0, 0, 0, 0)
    set_bbox(truth, [x0, y0, x1, y1])
    refused(folder, r"bbox\.pt: expected x_min < x_max .*order x_min, y_min, x_max, y_max|equal to")


def test_a_stale_box_beside_whole_frames(own_track: MakeTrack) -> None:
    spec = {**SPEC, "crop_mode": "whole", "whole_size": (160, 120), "yaml": True}
    folder, truth = own_track(**spec)
    set_bbox(truth, [10, 110, 20, 120])
    track = read(folder)
    assert checks(track) == {"bbox-unused"}
    assert track.crop is not None
    np.testing.assert_allclose(track.crop.crop_from_source.matrix, truth.crop_from_source)
    truth.yaml.unlink()
    refused(folder, r"bbox\.pt: expected a box of 160x120, .* crop_image: false in the yaml")


def test_readily_cropped_source_frames(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    shutil.rmtree(truth.actor / "source")
    shutil.copytree(truth.actor / "images", truth.actor / "source")
    track = read(folder)
    assert checks(track) == {"bbox-unused"}
    assert track.crop is not None
    assert track.crop.source == track.crop.output == Size(128, 128)
    (truth.actor / "bbox.pt").unlink()
    without = read(folder)
    assert without.crop == track.crop
    assert checks(without) == {"source-cropped"}


@pytest.mark.parametrize("bbox", [(10, 114, 12, 116), (0, 127, 0, 127), (1, 127, 1, 127)])
def test_a_lost_box_of_a_source_of_the_images_size_is_recovered(
    own_track: MakeTrack, bbox: tuple[int, int, int, int]
) -> None:
    """They were taken for the images themselves."""
    spec = {**SPEC, "source_size": (128, 128), "bbox": bbox, "pictures": True}
    folder, truth = own_track(**spec)
    expected = read(folder).crop
    (truth.actor / "bbox.pt").unlink()
    track = read(folder)
    assert checks(track) == {"bbox-recovered"}
    assert track.crop == expected


def test_soft_pictures_do_not_hide_that_a_column_was_cut(own_track: MakeTrack) -> None:
    spec = {**SPEC, "source_size": (128, 128), "bbox": (0, 127, 0, 127), "pictures": True}
    folder, truth = own_track(**spec)
    (truth.actor / "bbox.pt").unlink()
    for path in (truth.actor / "source").iterdir():
        soft = cv2.GaussianBlur(cv2.imread(str(path)), (0, 0), 2)
        cv2.imwrite(str(path), soft)
        crop = cut(soft, (0, 127, 0, 127), 128)
        assert np.mean(cv2.absdiff(crop, soft)) < 3
        cv2.imwrite(str(truth.actor / "images" / path.name), crop)
    for path in (truth.output / "input").iterdir():
        path.unlink()
    track = read(folder, begin_frames=0)
    assert track.crop is not None
    assert track.crop.bbox == BBox(0, 127, 0, 127)


def test_whole_frames_that_nothing_says_so_of(own_track: MakeTrack) -> None:
    spec = {**SPEC, "crop_mode": "whole", "whole_size": (128, 128), "pictures": True}
    folder, truth = own_track(**spec)
    truth.yaml.write_text("fps: 25\n")
    track = read(folder)
    assert {finding.check for finding in track.findings} == {"images-whole"}
    assert track.crop is not None
    np.testing.assert_allclose(track.crop.crop_from_source.matrix, truth.crop_from_source)


def test_crops_made_larger_for_source_are_said_to_be_that(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, pictures=True)
    shutil.rmtree(truth.actor / "source")
    (truth.actor / "source").mkdir()
    for path in (truth.actor / "images").iterdir():
        image = cv2.resize(cv2.imread(str(path)), (160, 160), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(truth.actor / "source" / path.name), image)
    (truth.actor / "bbox.pt").unlink()
    track = read(folder)
    assert checks(track) == {"images-whole"}
    assert any("give it the video that they were cut from" in f.fix for f in track.findings)


def test_crops_that_the_yaml_calls_whole_frames(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, pictures=True)
    truth.yaml.write_text("crop_image: false\n")
    refused(folder, r"whole frames: .*found \d+.*taken from the yaml \(crop_image: false\)")


def test_a_cropped_source_that_was_cropped_again(make_track: MakeTrack) -> None:
    spec = {**SPEC, "source_size": (128, 128), "bbox": (10, 114, 12, 116)}
    folder, truth = make_track(**spec)
    track = read(folder)
    assert checks(track) == set()
    assert track.crop is not None
    np.testing.assert_allclose(track.crop.crop_from_source.matrix, truth.crop_from_source)


def test_replaced_backgrounds(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    for part in (truth.actor / "images", truth.output / "input"):
        for path in part.iterdir():
            image = cv2.imread(str(path))
            matte = np.full_like(image, (0, 255, 0))
            matte[28:100, 28:100] = image[28:100, 28:100]
            cv2.imwrite(str(path), matte)
    track = read(folder)
    assert checks(track) == {"crop-altered"}


@pytest.mark.parametrize("source", ["folder", "video"])
def test_lossy_crops(make_track: MakeTrack, source: str) -> None:
    folder, _ = make_track(**SPEC, image_extension="jpg", source=source, begin_frames=1)
    track = read(folder)
    assert checks(track) == set()
    assert offset(track) == 1


def test_images_of_another_size(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, input_dump=False)
    for path in (truth.actor / "images").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (96, 96)))
    refused(folder, r"img_size: expected 96x96, the size of the tracker's images, found 128x128")


def test_source_frames_of_other_names(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    for path in sorted((truth.actor / "source").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    refused(folder, r"source frames named like the images, e\.g\. 00001, found none for 6 of 6")


def test_no_video_at_all(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, source="video")
    (truth.actor / "video.mp4").write_bytes(b"not a video")
    refused(folder, r"video\.mp4: expected")


def test_two_runs_in_one_folder(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    path = truth.output / "checkpoint" / "00004.frame"
    edit_frame(path, lambda c: c["flame"].pop("tex"))
    assert checks(read(folder)) >= {"flame-partial"}
    edit_frame(path, lambda c: c["flame"].update(shape=c["flame"]["shape"] + np.float32(0.1)))
    assert checks(read(folder)) >= {"flame-partial", "flame-varies"}
    edit_frame(path, lambda c: c["flame"].update(exp=np.zeros((1, 50), np.float32)))
    refused(folder, r"00004\.frame: flame\.exp: expected 100 numbers, as in 00000\.frame, found 50")


def test_inputs_are_hashed(make_track: MakeTrack) -> None:
    folder, _ = make_track(**BARE)
    assert [f.path for f in read(folder, hash_inputs=True).provenance.inputs] == [
        "checkpoint/*.frame (6 files)", "bbox.pt"
    ]  # fmt: skip
    assert read(folder).provenance.inputs == ()
