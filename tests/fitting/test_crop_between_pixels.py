"""Crops that no box of whole numbers explains: cut by another tool, between pixels. Never a box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from converter.geometry.crop import BBox
from converter.media.images import ImageFiles, list_images
from fitting.crop import recover_crop
from fixtures.synthetic.crop_cases import ALTERATIONS, SMALL, Box, CropCase, write_case

CASE = CropCase("between", (300, 780, 30, 510), fault="between", source_size=SMALL, size=384)


@pytest.mark.parametrize("alter", sorted(ALTERATIONS))
def test_what_was_cut_between_pixels_is_refused(tmp_path: Path, alter: str) -> None:
    folders = write_case(tmp_path, replace(CASE, alter=alter))
    found = recover_crop(*(ImageFiles.of(list_images(folder)) for folder in folders))
    assert found.bbox is None
    assert found.cause in ("off-lattice", "not-certain")


@pytest.mark.parametrize("side", [480, 384])
def test_whole_frames_of_a_square_video_are_not_cropped(tmp_path: Path, side: int) -> None:
    case = replace(CASE, fault="", source_size=(480, 480), bbox=(0, 479, 0, 479))
    crops, sources = write_case(tmp_path, case)
    for path in list_images(crops):
        whole = cv2.imread(str(sources / path.name))
        cv2.imwrite(str(path), cv2.resize(whole, (side, side), interpolation=cv2.INTER_CUBIC))
    found = recover_crop(ImageFiles.of(list_images(crops)), ImageFiles.of(list_images(sources)))
    assert found.bbox is None
    assert found.cause == "not-cropped"


def compressed_again(crops: Path, folder: Path, side: int, quality: int) -> Path:
    """The crops themselves, resized, as jpg: what is taken for the source by mistake."""
    folder.mkdir()
    for path in list_images(crops)[:12]:
        image = cv2.resize(cv2.imread(str(path)), (side, side), interpolation=cv2.INTER_CUBIC)
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        cv2.imwrite(str(folder / f"{path.stem}.jpg"), image, options)
    return folder


@pytest.mark.parametrize(("side", "quality"), [(480, 95), (480, 60), (960, 90), (470, 95)])
def test_crops_compressed_again_are_no_source(tmp_path: Path, side: int, quality: int) -> None:
    crops, _ = write_case(tmp_path, replace(CASE, fault="", size=480))
    again = compressed_again(crops, tmp_path / "again", side, quality)
    found = recover_crop(ImageFiles.of(list_images(crops)), ImageFiles.of(list_images(again)))
    assert found.cause == "not-cropped"


@pytest.mark.shared
@pytest.mark.parametrize(("side", "quality"), [(512, 95), (500, 100), (1024, 50), (256, 60)])
def test_real_crops_compressed_again_are_no_source(
    shared_data: Path, tmp_path: Path, side: int, quality: int
) -> None:
    """No box reaches the last row and column: the nearest one was found, one pixel inside."""
    crops = shared_data / "duda" / "input" / "duda" / "images"
    again = compressed_again(crops, tmp_path / "again", side, quality)
    found = recover_crop(ImageFiles.of(list_images(crops)), ImageFiles.of(list_images(again)))
    assert found.cause == "not-cropped"


@pytest.mark.shared
@pytest.mark.parametrize(("side", "quality"), [(512, 98), (500, 90), (600, 70)])
def test_a_cut_to_the_last_row_and_column_is_no_box_a_pixel_inside(
    shared_data: Path, tmp_path: Path, side: int, quality: int
) -> None:
    """No tracker makes it: it pads one axis only, and never shows the last row and column."""
    crops = shared_data / "duda" / "input" / "duda" / "images"
    sources = compressed_again(crops, tmp_path / "again", side, 100)
    for path in list_images(sources):
        frame = cv2.copyMakeBorder(cv2.imread(str(path)), 40, 0, 40, 0, cv2.BORDER_REFLECT)
        cv2.imwrite(str(path), frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    found = recover_crop(ImageFiles.of(list_images(crops)), ImageFiles.of(list_images(sources)))
    assert found.cause == "off-lattice"


@pytest.mark.parametrize("box", [(0, 479, 0, 479), (1, 479, 2, 478), (2, 477, 0, 476)])
def test_a_box_as_large_as_the_frame_is_a_box(tmp_path: Path, box: Box) -> None:
    case = replace(CASE, fault="", source_size=(480, 480), bbox=box, source_quality=70)
    folders = write_case(tmp_path, case)
    found = recover_crop(*(ImageFiles.of(list_images(folder)) for folder in folders))
    assert found.bbox == BBox(*box)
