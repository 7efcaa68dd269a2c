"""Crops that no box of whole numbers explains: cut by another tool, between pixels. Never a box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from converter.media.images import ImageFiles, list_images
from fitting.crop import recover_crop
from fixtures.synthetic.crop_cases import ALTERATIONS, SMALL, CropCase, write_case

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
