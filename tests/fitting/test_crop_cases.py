"""Lost boxes of known crops: the exact integers, or a refusal that names the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import ImageFiles, list_images
from fitting.crop import CropCertificate, recover_crop
from fitting.crop.mapping import Mapping
from fitting.crop.pixelwise import MIN_CERTAINTY
from fixtures.synthetic.crop_cases import CASES, IMPOSSIBLE, POSSIBLE, CropCase, write_case


def recovered(folder: Path, case: CropCase) -> CropCertificate:
    crops, sources = write_case(folder, case)
    return recover_crop(ImageFiles.of(list_images(crops)), ImageFiles.of(list_images(sources)))


def true_crop(case: CropCase) -> Crop:
    return Crop.from_bbox(BBox(*case.bbox), Size(*case.source_size), Size(case.size, case.size))


@pytest.mark.parametrize("case", POSSIBLE, ids=lambda case: case.name)
def test_the_exact_box_comes_back(tmp_path: Path, case: CropCase) -> None:
    certificate = recovered(tmp_path / "case", case)
    truth = true_crop(case)
    assert certificate.crop is not None, certificate.reason
    if certificate.verdict == "ambiguous":
        assert truth.bbox in certificate.candidates
        assert Mapping.of_crop(certificate.crop) == Mapping.of_crop(truth)
        if not case.alter:  # the true box is the one that get_bbox makes
            assert certificate.bbox == truth.bbox
    else:
        assert certificate.bbox == truth.bbox
        assert certificate.candidates == (truth.bbox,)
    if not case.alter and not case.source_quality:
        assert certificate.max_abs_diff == 0
        assert certificate.verdict in ("exact", "ambiguous")
    elif case.alter == "one level":
        assert certificate.verdict == "exact-up-to-build"
    else:
        assert certificate.verdict in ("consistent", "ambiguous")
        assert certificate.certainty >= MIN_CERTAINTY


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=lambda case: case.name)
def test_what_has_no_answer_is_refused_and_the_cause_named(tmp_path: Path, case: CropCase) -> None:
    certificate = recovered(tmp_path / "case", case)
    assert certificate.verdict == "refused"
    assert certificate.cause == case.cause
    assert certificate.bbox is None
    assert certificate.candidates == ()


def test_every_case_has_its_own_name() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
