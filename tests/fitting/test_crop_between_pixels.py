"""Crops that no box of whole numbers explains: cut by another tool, between pixels. Never a box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
