"""Many crops and many frames: numbers that are off, frames that are missing, a second box."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from converter.geometry.crop import BBox
from converter.media.images import ImageFiles, list_images
from fitting.crop import CropCertificate, recover_crop
from fitting.crop.boxes import Strips, _jumps, read_strips, suspicious
from fitting.crop.pair import to_grey
from fitting.crop.sequences import Crops, spread
from fixtures.synthetic.crop_cases import (
    SMALL,
    Box,
    CropCase,
    crop_of,
    cut,
    encode,
    scene,
    write_case,
)

CASE = CropCase("many", (300, 780, 30, 510), source_size=SMALL, size=256, n_frames=6, seed=3)
LONG = replace(CASE, n_frames=40)


def recovered(folder: Path, hints: Sequence[int] = ()) -> CropCertificate:
    crops, sources = list_images(folder / "crops"), list_images(folder / "source")
    return recover_crop(ImageFiles.of(crops), ImageFiles.of(sources), hints=hints)


def renumbered(folder: Path, without: int) -> None:
    """Take one source frame away and number the others without a gap, as a cut video would."""
    paths = list_images(folder)
    paths.pop(without).unlink()
    for number, path in enumerate(paths, 1):
        path.rename(folder / f"{number:05d}.png")


def test_frames_as_named_are_not_worth_a_word(tmp_path: Path) -> None:
    write_case(tmp_path, CASE)
    certificate = recovered(tmp_path)
    assert certificate.frame_offset == 0
    assert certificate.numbering == ""
    assert [p.offset for p in certificate.pairs] == [0]
    assert "expected" not in str(certificate)


@pytest.mark.parametrize(("without", "offset"), [(0, -1), (5, 0)])
def test_a_source_one_frame_short_is_exact_and_the_offset_is_said(
    tmp_path: Path, without: int, offset: int
) -> None:
    write_case(tmp_path, CASE)
    renumbered(tmp_path / "source", without)
    certificate = recovered(tmp_path)
    assert certificate.bbox == BBox(*CASE.bbox)
    assert certificate.verdict == "exact"
    assert certificate.frame_offset == offset
    if offset:
        assert (
            "the crops show the source 1 frame before those expected (00002.png shows 00001.png)"
            in str(certificate)
        )


def test_a_frame_missing_in_the_middle_is_said(tmp_path: Path) -> None:
    write_case(tmp_path, CASE)
    renumbered(tmp_path / "source", 3)
    certificate = recovered(tmp_path)
    assert certificate.bbox == BBox(*CASE.bbox)
    assert certificate.verdict == "exact"
    assert certificate.frame_offset is None
    assert "not evenly: 00001.png shows 00001.png (+0), 00003.png" in certificate.numbering
    assert "00005.png shows 00004.png (-1)" in certificate.numbering


def test_names_one_too_high_are_said(tmp_path: Path) -> None:
    write_case(tmp_path, replace(CASE, names_off=1))
    certificate = recovered(tmp_path)
    assert certificate.verdict == "exact"
    assert certificate.frame_offset == -1


@pytest.mark.parametrize(
    "kept",
    [[0], [39], range(5), range(33, 40), range(18, 24), [7, 21, 33], range(0, 40, 3)],
    ids=["first", "last", "first five", "last seven", "middle", "three", "every third"],
)
def test_a_few_source_frames_are_enough(tmp_path: Path, kept: Sequence[int]) -> None:
    """What has no source frame is held against none: it was called rotated, or of another box."""
    _, sources = write_case(tmp_path, LONG)
    for index, path in enumerate(list_images(sources)):
        if index not in kept:
            path.unlink()
    certificate = recovered(tmp_path)
    assert certificate.verdict == "exact"
    assert certificate.bbox == BBox(*LONG.bbox)


def with_second_box(folder: Path, case: CropCase, box: Box, frames: range) -> Crops:
    """Crops of ``frames`` (from 0) cut by another box."""
    crops = crops_of(folder, case)
    for index in frames:
        crop = crop_of(replace(case, bbox=box), scene(case, index), index)
        path = folder / "crops" / f"{index + 1:05d}{case.crop_suffix}"
        encode(path, crop, case.crop_quality)
    return crops


def crops_of(folder: Path, case: CropCase) -> Crops:
    write_case(folder, case)
    return Crops(ImageFiles.of(list_images(folder / "crops")))


def written_in_turn(folder: Path, later: range = range(0)) -> None:
    for index, path in enumerate(list_images(folder)):
        seconds = 1e9 + 0.1 * index + 3600 * (index in later)
        os.utime(path, (seconds, seconds))


def test_a_second_box_between_the_frames_compared_is_named(tmp_path: Path) -> None:
    second = (310, 794, 26, 510)
    with_second_box(tmp_path, LONG, second, range(25, 31))
    written_in_turn(tmp_path / "crops")
    certificate = recovered(tmp_path)
    assert certificate.cause == "two-boxes"
    assert (
        "[300, 780, 30, 510] cut 00001.png to 00025.png and 00032.png to 00040.png, "
        "[310, 794, 26, 510] cut 00026.png to 00031.png" in certificate.reason
    )


@pytest.mark.parametrize(
    ("case", "second", "frames"),
    [
        (replace(CASE, n_frames=4), (309, 789, 36, 516), range(1, 2)),
        (replace(CASE, n_frames=11, alter="occluder"), (310, 780, 30, 510), range(1, 3)),
        (replace(CASE, n_frames=5, alter="occluder"), (308, 796, 26, 514), range(3, 4)),
        (replace(CASE, n_frames=5, light=0.15), (302, 782, 32, 512), range(1, 2)),
        (replace(LONG, alter="occluder"), (310, 794, 26, 510), range(25, 31)),
    ],
    ids=["four frames", "hand, eleven", "hand, five", "dark", "hand, forty"],
)
def test_a_second_box_is_seen_between_few_frames_and_behind_what_hides_the_source(
    tmp_path: Path, case: CropCase, second: Box, frames: range
) -> None:
    """A hand that stands still in all crops says nothing of the box."""
    with_second_box(tmp_path, case, second, frames)
    written_in_turn(tmp_path / "crops")
    certificate = recovered(tmp_path)
    assert certificate.cause == "two-boxes"
    assert str(list(second)) in certificate.reason


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_one_crop_by_a_second_box_one_pixel_away_is_seen_in_what_moves(
    tmp_path: Path, suffix: str
) -> None:
    """Neither times nor sizes of files tell, and it is none of the frames compared."""
    case = replace(LONG, crop_suffix=suffix)
    crops = with_second_box(tmp_path, case, (301, 781, 30, 510), range(28, 29))
    written_in_turn(tmp_path / "crops")
    assert suspicious(crops, Strips(slice(0, 64), {})) == []
    certificate = recovered(tmp_path)
    assert certificate.cause == "two-boxes"
    assert f"[301, 781, 30, 510] cut 00029{suffix} (" in certificate.reason


@pytest.mark.parametrize("colour", [None, (0, 0, 0), (255, 255, 255)])
def test_strips_begin_where_a_crop_shows_something(
    tmp_path: Path, colour: tuple[int, int, int] | None
) -> None:
    crops = crops_of(tmp_path, replace(CASE, n_frames=1))
    image = crops.image(0).pixels
    if colour is not None:
        image[:100] = colour
        assert cv2.imwrite(str(tmp_path / "crops" / "00001.png"), image)
    begin = 0 if colour is None else 100
    strips = read_strips(Crops(crops.frames), 0)
    assert strips.rows == slice(begin, begin + 64)
    expected = to_grey(image[strips.rows]).astype(np.float32)
    expected = cv2.resize(expected, (128, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(strips.images[0], expected)


@pytest.mark.parametrize(("jump_px", "found"), [(0.0, []), (0.8, [23, 24])])
def test_a_jump_is_told_from_the_motion_of_a_camera(jump_px: float, found: list[int]) -> None:
    """It is no greater than what the camera moves between two frames, but not as steady."""
    rng = np.random.default_rng(5)
    room = cv2.GaussianBlur(rng.normal(128, 400, (80, 240)).astype(np.float32), (0, 0), 3)
    images = {}
    for i in range(40):
        x = 20 * np.sin(i / 16) + jump_px * (i >= 24)
        moved = cv2.warpAffine(room, np.array([[1, 0, x - 60], [0, 1, -20.0]]), (128, 32))
        images[i] = moved + rng.normal(0, 1, moved.shape).astype(np.float32)
    assert _jumps(Strips(slice(0, 64), images), None) == found


@pytest.mark.parametrize(("n", "count", "height"), [(128, 128, 64), (129, 129, 32), (999, 160, 32)])
def test_of_long_tracks_less_is_read_of_each_crop(
    tmp_path: Path, n: int, count: int, height: int
) -> None:
    write_case(tmp_path, replace(CASE, n_frames=1))
    crops = ImageFiles.of(list_images(tmp_path / "crops") * n)
    strips = read_strips(Crops(crops), n // 2)
    assert strips.rows == slice(0, height)
    assert list(strips.images) == spread(n, count)
    assert {image.shape for image in strips.images.values()} == {(height // 2, 128)}
    assert suspicious(Crops(crops), strips) == []


@pytest.mark.parametrize("size", [1, 3, 7])
def test_tiny_crops_have_strips(tmp_path: Path, size: int) -> None:
    write_case(tmp_path, replace(CASE, n_frames=2, size=size))
    strips = read_strips(Crops(ImageFiles.of(list_images(tmp_path / "crops"))), 0)
    assert strips.rows.stop <= size
    assert len(strips.images) == 2


def test_pngs_that_are_decoded_whole_give_fewer_strips(tmp_path: Path) -> None:
    """Those with a palette, say; what they show is the same."""
    crops = crops_of(tmp_path, LONG)
    with_rows = read_strips(crops, 20)
    assert list(with_rows.images) == list(range(LONG.n_frames))
    paths = list_images(tmp_path / "crops")
    for path in paths:
        PIL.Image.open(path).convert("L").convert("P").save(path)
    whole = read_strips(Crops(ImageFiles.of(paths)), 20)
    assert whole.rows == with_rows.rows
    assert list(whole.images) == spread(LONG.n_frames, 24)
    for index, image in whole.images.items():
        np.testing.assert_allclose(image, with_rows.images[index], atol=1)


def test_files_written_later_are_looked_at(tmp_path: Path) -> None:
    crops = crops_of(tmp_path, LONG)
    written_in_turn(tmp_path / "crops", later=range(28, 29))
    assert suspects(ImageFiles.of(list_images(tmp_path / "crops"))) == [27, 28, 29]
    written_in_turn(tmp_path / "crops")
    assert suspicious(crops, read_strips(crops, 20)) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_files_of_another_size_are_looked_at(tmp_path: Path, suffix: str) -> None:
    """One crop by a box far from the first, in no frame that is compared otherwise."""
    case, second, lone = replace(LONG, crop_suffix=suffix), (360, 720, 60, 420), 7
    crops = with_second_box(tmp_path, case, second, range(lone, lone + 1))
    written_in_turn(tmp_path / "crops")
    assert lone in suspicious(crops, Strips(slice(0, 64), {}))
    certificate = recovered(tmp_path)
    assert certificate.cause == "two-boxes"
    assert f"{list(second)} cut {lone + 1:05d}{suffix} (" in certificate.reason


def test_hints_are_looked_at(tmp_path: Path) -> None:
    with_second_box(tmp_path, LONG, (301, 781, 30, 510), range(30, 31))
    certificate = recovered(tmp_path, hints=[30, 999, -1])
    assert certificate.cause == "two-boxes"
    assert "[301, 781, 30, 510] cut 00031.png (" in certificate.reason


def suspects(files: ImageFiles) -> list[int]:
    crops = Crops(files)
    return suspicious(crops, read_strips(crops, len(files) // 2))


def test_an_ordinary_track_raises_no_suspicion(tmp_path: Path) -> None:
    write_case(tmp_path, LONG)
    crops = ImageFiles.of(list_images(tmp_path / "crops"))
    assert suspects(crops) == []
    path = tmp_path / "crops" / "00026.png"
    path.write_bytes(path.read_bytes()[:500])  # damaged, and not among those compared
    written_in_turn(tmp_path / "crops")
    assert suspects(crops) == [26]  # beside a file of another size
    assert recovered(tmp_path).bbox == BBox(*CASE.bbox)


def test_times_in_no_order_say_nothing(tmp_path: Path) -> None:
    write_case(tmp_path, LONG)
    for path, seconds in zip(
        list_images(tmp_path / "crops"), np.random.default_rng(0).permutation(40), strict=True
    ):
        os.utime(path, (1e9 + 100 * seconds, 1e9 + 100 * seconds))
    assert suspects(ImageFiles.of(list_images(tmp_path / "crops"))) == []


@pytest.mark.parametrize("second", [CASE.bbox, (304, 784, 30, 510)])
def test_frames_that_show_nothing_have_to_be_equal_where_others_are(
    tmp_path: Path, second: Box
) -> None:
    """The light goes out after the first frame: what is left has no texture, and is not blank."""
    write_case(tmp_path, CASE)
    for index in range(1, CASE.n_frames):
        dim = (scene(CASE, index) * 0.02).astype(np.uint8)
        name = f"{index + 1:05d}.png"
        assert cv2.imwrite(str(tmp_path / "source" / name), dim)
        assert cv2.imwrite(str(tmp_path / "crops" / name), cut(dim, second, CASE.size))
    certificate = recovered(tmp_path)
    if second == CASE.bbox:
        assert certificate.verdict == "exact"
        assert certificate.frames_checked >= 3
        assert certificate.bbox == BBox(*CASE.bbox)
    else:
        assert certificate.cause in ("not-certain", "two-boxes")
        assert "[300, 780, 30, 510]" in certificate.reason
        assert "00001.png" in certificate.reason
