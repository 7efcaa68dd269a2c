"""Which image belongs to which frame: found by content, and never wrong in silence."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converter.errors import ConventionError, UncropError
from tests.conftest import MakeTrack
from tests.damage import Folders
from tests.sources.reading import SMALL, checks, offset, read

SPEC = {**SMALL, "n_frames": 6}


def set_yaml(yaml: Path, begin_frames: int) -> None:
    text = yaml.read_text()
    yaml.write_text(re.sub(r"begin_frames: \d+", f"begin_frames: {begin_frames}", text))


def names_of(track: Any) -> list[str]:
    return [track.crop_frames.name(i) for i in range(len(track))]


@pytest.mark.parametrize(
    ("begin", "extension", "source"),
    [(0, "png", "folder"), (1, "jpg", "folder"), (2, "png", "video"), (7, "jpg", "video")],
)
def test_found_by_content(make_track: MakeTrack, begin: int, extension: str, source: str) -> None:
    folder, truth = make_track(
        **SPEC, begin_frames=begin, image_extension=extension, source=source, yaml=False
    )
    track = read(folder)
    assert offset(track) == begin
    assert names_of(track) == [truth.image_names[i] for i in truth.image_indices]
    assert "begin-frames" not in checks(track)
    assert track.landmarks is not None
    assert np.abs(track.landmarks - truth.landmarks).max() < 1.01


@pytest.mark.parametrize(("source", "begin"), [("folder", 1), ("video", 1), ("video", 20)])
def test_found_without_images(make_track: MakeTrack, source: str, begin: int) -> None:
    folder, truth = make_track(**SPEC, begin_frames=begin, source=source, images=False, yaml=False)
    track = read(folder)
    assert offset(track) == begin
    assert track.landmarks is not None
    assert np.abs(track.landmarks - truth.landmarks).max() < 1.01


def test_found_far_in(make_track: MakeTrack) -> None:
    folder, _ = make_track(**{**SPEC, "n_frames": 3}, begin_frames=24, yaml=False)
    assert offset(read(folder)) == 24


@pytest.mark.parametrize("stated", [0, 2, 5])
def test_the_images_decide(own_track: MakeTrack, stated: int) -> None:
    folder, truth = own_track(**SPEC, begin_frames=1)
    track = read(folder, begin_frames=stated)
    assert offset(track) == 1
    said = [str(f) for f in track.findings if f.check == "begin-frames"]
    assert said == [
        f"--begin-frames: begin_frames is {stated}, but the images show 1. The images decide."
    ]
    set_yaml(truth.yaml, stated)
    assert "begin-frames" in checks(read(folder))


def test_without_dumps_the_yaml_says_it(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, begin_frames=2, input_dump=False)
    assert offset(read(folder)) == 2
    assert any("begin_frames 2 from ada.yml" in s for s in read(folder).provenance.steps)
    truth.yaml.unlink()
    track = read(folder)
    assert "numbering-unknown" in checks(track)
    assert track.landmarks is None
    assert track.source_frames is None
    assert track.crop_frames is None
    assert offset(read(folder, begin_frames=2)) == 2


@pytest.mark.parametrize("stated", [0, 2, 3])
def test_a_wrong_statement_is_seen_in_the_landmarks(make_track: MakeTrack, stated: int) -> None:
    """Nothing but --begin-frames says it, and it is wrong."""
    spec: dict[str, Any] = {"source_size": (960, 720), "crop_size": 512, "n_frames": 24}
    folder, _ = make_track(**spec, begin_frames=1, pictures=False, yaml=False)
    assert read(folder, begin_frames=1).source_indices is not None
    with pytest.raises(ConventionError, match=r"Give --begin-frames 1, or the tracker's images"):
        read(folder, begin_frames=stated)


@pytest.mark.parametrize("begin", [-1, -5])
def test_a_negative_statement(make_track: MakeTrack, begin: int) -> None:
    folder, _ = make_track(**SPEC, input_dump=False)
    with pytest.raises(ConventionError, match="--begin-frames: expected 0 or more"):
        read(folder, begin_frames=begin)


def test_a_statement_beyond_the_images(make_track: MakeTrack) -> None:
    folder, _ = make_track(**SPEC, input_dump=False)
    with pytest.raises(
        ConventionError, match=r"an image for frame 00005 \(begin_frames 3\), found 6"
    ):
        read(folder, begin_frames=3)


def still(truth: Any) -> None:
    """Make all pictures those of the first."""
    dumps = sorted((truth.output / "input").iterdir())
    for part in ("images", "source"):
        first, *others = sorted((truth.actor / part).iterdir())
        for path in others + (dumps if part == "images" else []):
            shutil.copyfile(first, path)


def test_a_still_picture_needs_a_statement(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, begin_frames=2)
    still(truth)
    assert offset(read(folder)) == 2  # its yaml
    assert any("a still picture" in s for s in read(folder).provenance.steps)
    truth.yaml.unlink()
    with pytest.raises(ConventionError, match=r"5 that fit equally|a still picture\. Give --begin"):
        read(folder)
    assert offset(read(folder, begin_frames=1)) == 1


def test_a_frozen_start(own_track: MakeTrack) -> None:
    """The first frame equals many images, and the right offset is none of the usual ones."""
    folder, truth = own_track(**{**SPEC, "n_frames": 12}, begin_frames=14, yaml=False)
    for part in ("images", "source"):
        files = sorted((truth.actor / part).iterdir())
        for path in files[1:19]:
            shutil.copyfile(files[0], path)
    for path in sorted((truth.output / "input").iterdir())[:5]:
        shutil.copyfile(truth.actor / "images" / truth.image_names[0], path)
    assert offset(read(folder)) == 14


def test_other_pictures_are_refused(own_track: MakeTrack, make_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)
    other, _ = make_track(**SPEC, seed=5, name="eve", look="dots")
    with pytest.raises(ConventionError, match=r"to equal one of the 6 images .* found none that"):
        read(truth.output, actor=other / "input" / "eve")
    del folder


@pytest.mark.parametrize("lost", [0, 1, 3, 4, 10, 11])
def test_an_incomplete_images_folder_is_refused(own_track: MakeTrack, lost: int) -> None:
    folder, truth = own_track(**{**SPEC, "n_frames": 12}, begin_frames=1)
    (truth.actor / "images" / truth.image_names[lost + 1]).unlink()
    with pytest.raises(UncropError) as caught:
        read(folder)
    said = r"1 image missing|an image for frame|the image of frame|to equal one of"
    assert re.search(said, str(caught.value)), caught.value


def test_images_lost_before_the_first_frame(own_track: MakeTrack) -> None:
    """Names still lead to the source frames; the first image was never tracked."""
    folder, truth = own_track(**SPEC, begin_frames=1)
    (truth.actor / "images" / truth.image_names[0]).unlink()
    track = read(folder)
    assert offset(track) == 1
    assert names_of(track)[0] == truth.image_names[1]
    assert track.landmarks is not None
    assert np.abs(track.landmarks - truth.landmarks).max() < 1.01


def rename_images(truth: Any, new: Any) -> None:
    for folder in ("images", "source", "kpt", "kpt_dense"):
        for k, path in enumerate(sorted((truth.actor / folder).iterdir())):
            path.rename(path.with_name(f"tmp_{new(k)}{path.suffix}"))
        for path in sorted((truth.actor / folder).iterdir()):
            path.rename(path.with_name(path.name[4:]))


@pytest.mark.parametrize("new", [lambda k: f"img {k:03d}", lambda k: f"{k:05d}",
                                 lambda k: f"{k + 100:05d}"])  # fmt: skip
def test_other_names(own_track: MakeTrack, new: Any) -> None:
    folder, truth = own_track(**SPEC, begin_frames=2)
    rename_images(truth, new)
    track = read(folder)
    assert offset(track) == 2
    assert names_of(track)[0] == f"{new(2)}.png"
    assert track.landmarks is not None
    assert np.abs(track.landmarks - truth.landmarks).max() < 1.01


def test_sorted_as_the_tracker_sorts(own_track: MakeTrack) -> None:
    """png and jpg side by side, unpadded numbers: order is that of the paths as text."""
    folder, truth = own_track(**{**SPEC, "n_frames": 11}, yaml=False)
    order = sorted(str(n) for n in range(1, 12))  # 1, 10, 11, 2, ...
    rename_images(truth, lambda k: order[k])
    for part in ("images", "source"):
        for k, path in list(enumerate(sorted((truth.actor / part).iterdir())))[::3]:
            lossy = path.with_suffix(".jpg")
            cv2.imwrite(str(lossy), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 98])
            path.unlink()
            if part == "images":  # the tracker dumps what it read
                dump = truth.output / "input" / f"{k:05d}.png"
                cv2.imwrite(str(dump), cv2.imread(str(lossy)))
    track = read(folder)
    assert offset(track) == 0
    assert [n.split(".")[0] for n in names_of(track)] == order
    assert track.landmarks is not None
    assert np.abs(track.landmarks - truth.landmarks).max() < 1.01


def test_names_from_zero_with_a_video(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, begin_frames=1, source="video")
    for part in ("images", "kpt", "kpt_dense"):
        for path in sorted((truth.actor / part).iterdir()):
            path.rename(path.with_name(f"{int(path.stem) - 1:05d}{path.suffix}"))
    assert offset(read(folder)) == 1


def quieten(folder: Path) -> None:
    """Leave a tenth of what moves in the pictures of a folder."""
    paths = sorted(folder.iterdir())
    first = cv2.imread(str(paths[0])).astype(np.float64)
    for path in paths:
        image = 0.9 * first + 0.1 * cv2.imread(str(path))
        cv2.imwrite(str(path), np.rint(image).astype(np.uint8))


def test_source_frames_one_off_are_refused(own_track: MakeTrack) -> None:
    """Neighbouring frames differ by less than the limit; the own one must still be nearest."""
    folder, truth = own_track(**SPEC, begin_frames=1, input_dump=False)
    for part in ("images", "source"):
        quieten(truth.actor / part)
    assert offset(read(folder)) == 1
    source = sorted((truth.actor / "source").iterdir())
    for path, following in zip(source, source[1:], strict=False):
        shutil.copyfile(following, path)
    with pytest.raises(ConventionError, match=r"found a neighbouring one .* \(--fps\), or another"):
        read(folder)


@pytest.mark.parametrize("fps", [29.97, 50.0])
def test_videos_of_other_rates(make_track: MakeTrack, fps: float) -> None:
    folder, _ = make_track(**SPEC, begin_frames=1, source="video", video_fps=fps)
    assert offset(read(folder)) == 1
    with pytest.raises(UncropError) as caught:
        read(folder, fps=12.5)
    assert "--fps" in str(caught.value) or "is it whole" in str(caught.value).lower()


def test_another_rate_drifts_and_is_refused(make_track: MakeTrack) -> None:
    spec = {**SPEC, "n_frames": 16, "source": "video", "video_fps": 29.97}
    folder, _ = make_track(**spec)
    with pytest.raises(UncropError, match="--fps|is it whole"):
        read(folder, fps=29.97)


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan"), float("inf")])
def test_impossible_rates(make_track: MakeTrack, fps: float) -> None:
    folder, _ = make_track(**SPEC)
    with pytest.raises(ConventionError, match="--fps: expected frames per second"):
        read(folder, fps=fps)


def test_landmark_files_missing_do_not_shift_the_others(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC, begin_frames=1, images=False, input_dump=False, source="none")
    for k in (0, 3):
        (truth.actor / "kpt" / f"{k + 1:05d}.npy").unlink()
    track = read(folder)
    assert "landmarks-missing" in checks(track)
    assert track.landmarks is not None
    lost = np.isnan(track.landmarks[:, 0, 0])
    assert lost.tolist() == [False, False, True, False, False, False]
    assert np.abs(track.landmarks - truth.landmarks)[~lost].max() < 1.01


@pytest.mark.shared
def test_the_real_video_paired_one_off_is_refused(shared_data: Path, tmp_path: Path) -> None:
    """A quiet face: neighbouring frames differ by little, and must still not be mixed up."""
    d = Folders.copy(shared_data / "duda", tmp_path / "duda")
    images = sorted((d.actor / "images").iterdir())
    for before, path in zip(images, images[1:], strict=False):
        shutil.copyfile(path, before)
    with pytest.raises(UncropError):
        read(d.root)


@pytest.mark.shared
def test_the_real_video_without_images_or_dumps(shared_data: Path, tmp_path: Path) -> None:
    d = Folders.copy(shared_data / "duda", tmp_path / "duda")
    shutil.rmtree(d.actor / "images")
    assert offset(read(d.root)) == 1  # from the dumps and the video
    shutil.rmtree(d.output / "input")
    assert offset(read(d.root)) == 1  # from the yaml
    with pytest.raises(ConventionError, match="Give --begin-frames 1"):
        read(d.root, begin_frames=0)
