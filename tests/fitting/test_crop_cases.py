"""Lost boxes of known crops: the exact integers, or a refusal that names the cause."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import ImageFiles, list_images
from fitting.crop import CropCertificate, recover_crop
from fitting.crop.mapping import Mapping
from fixtures.synthetic.crop_cases import CASES, IMPOSSIBLE, POSSIBLE, CropCase, write_case

ALWAYS = {
    "png", "clipped at two borders", "odd box, 301x260", "hand-made, padded inside",
    "beyond the frame", "4K to 256, 8.2 times", "portrait, clipped", "jpg 50, 256",
    "source recompressed 60", "black matte, clipped", "white matte", "green matte, jpg 75",
    "noise", "blur, jpg 75",
    "occluder", "one level", "dark, jpg 75", "one frame", "names off by one, noisy",
    "black bars where the padding begins", "blur, jpg 90, clipped, by hand",
    "occluder, names off by one", "other video, small", "mirrored", "rotated 0.4 degrees",
    "mixed boxes, 4 px apart", "whole frames", "whole frames, squeezed", "blank",
    "too little texture",
}  # fmt: skip
"""All of them run with HYPOTHESIS_PROFILE=nightly, and in ``python -m benchmarks.recover``."""


def recovered(folder: Path, case: CropCase) -> CropCertificate:
    crops, sources = write_case(folder, case)
    return recover_crop(ImageFiles.of(list_images(crops)), ImageFiles.of(list_images(sources)))


def true_crop(case: CropCase) -> Crop:
    return Crop.from_bbox(BBox(*case.bbox), Size(*case.source_size), Size(case.size, case.size))


def cases(of: tuple[CropCase, ...]) -> list[object]:
    nightly = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
    return [pytest.param(c, id=c.name) for c in of if nightly or c.name in ALWAYS]


@pytest.mark.parametrize("case", cases(POSSIBLE))
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
        assert certificate.certainty >= 4


@pytest.mark.parametrize("case", cases(IMPOSSIBLE))
def test_what_has_no_answer_is_refused_and_the_cause_named(tmp_path: Path, case: CropCase) -> None:
    certificate = recovered(tmp_path / "case", case)
    assert certificate.verdict == "refused"
    assert certificate.cause == case.cause
    assert certificate.bbox is None
    assert certificate.candidates == ()


def test_every_case_has_its_own_name() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) >= ALWAYS
