"""Crops without corners: slopes find them, equal pixels prove them, and nothing less does."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from converter.geometry.crop import BBox
from converter.media.images import ImageFiles, list_images
from fitting.crop import CropCertificate, recover_crop
from fitting.crop.mapping import Mapping
from fitting.crop.pair import Pair, to_grey
from fitting.crop.pyramid import find_places, is_repeated
from fixtures.synthetic.crop_cases import (
    ALTERATIONS,
    Box,
    CropCase,
    Image,
    cut,
    recompressed,
    scene,
)

WALL = (640, 400)


def wall(seed: int, width: int = WALL[0], height: int = WALL[1]) -> Image:
    """Soft light and shade, as a blurred background shows."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for sigma, levels in ((60, 40.0), (25, 12.0)):
        noise = rng.normal(0, 1, (height, width, 3)).astype(np.float32)
        soft = cv2.GaussianBlur(noise, (0, 0), sigma)
        image += soft * (levels / soft.std())
    return np.clip(image + 120, 0, 255).astype(np.uint8)


def recovered(folder: Path, crop: Image, source: Image, suffix: str = ".png") -> CropCertificate:
    for name, image, ending in (("crops", crop, suffix), ("source", source, ".png")):
        (folder / name).mkdir()
        assert cv2.imwrite(str(folder / name / f"00001{ending}"), image)
    crops, sources = list_images(folder / "crops"), list_images(folder / "source")
    return recover_crop(ImageFiles.of(crops), ImageFiles.of(sources))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("box", [(300, 424, 150, 274), (41, 205, 200, 364), (0, 210, 120, 344)])
def test_a_box_on_a_wall_comes_back_by_equal_pixels(tmp_path: Path, box: Box, suffix: str) -> None:
    source = wall(1)
    certificate = recovered(tmp_path, cut(source, box, 256), source, suffix)
    assert certificate.verdict == "exact", certificate.reason
    assert certificate.bbox == BBox(*box)
    assert certificate.max_abs_diff == 0


@pytest.mark.parametrize("harm", ["noise", "bright", "mirrored", "another wall"])
def test_an_altered_wall_is_refused(tmp_path: Path, harm: str) -> None:
    source, box = wall(2), (300, 424, 150, 274)
    crop = cut(wall(3) if harm == "another wall" else source, box, 256)
    if harm in ALTERATIONS:
        crop = ALTERATIONS[harm](crop)
    elif harm == "mirrored":
        crop = np.ascontiguousarray(crop[:, ::-1])
    certificate = recovered(tmp_path, crop, source)
    assert certificate.bbox in (None, BBox(*box))
    if harm in ("mirrored", "another wall"):
        assert certificate.verdict == "refused"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("quality", [0, 80])
def test_a_pattern_that_repeats_is_refused(tmp_path: Path, suffix: str, quality: int) -> None:
    """Every tile gives the same crop: no pixel says which one it was, compressed or not."""
    source = np.tile(wall(4, 160, 100), (4, 4, 1))
    shown = recompressed(source, quality) if quality else source
    certificate = recovered(tmp_path, cut(source, (200, 280, 140, 220), 256), shown, suffix)
    assert certificate.verdict == "refused"


def test_one_colour_is_refused(tmp_path: Path) -> None:
    source = np.full((400, 640, 3), 90, np.uint8)
    source[:, 320:] = 140
    certificate = recovered(tmp_path, cut(source, (260, 380, 100, 220), 256), source)
    assert certificate.verdict == "refused"  # up and down nothing changes


@pytest.mark.parametrize("box", [(300, 424, 150, 274), (100, 400, 50, 350)])
def test_places_are_near_whatever_the_border(box: Box) -> None:
    source = wall(5)
    crop = to_grey(cut(source, box, 256))
    framed = np.pad(crop, ((32, 32), (0, 0)))
    side = box[1] - box[0]
    for image, down in ((crop, 0.0), (framed, 32 / 256 * side)):
        best = find_places(image, to_grey(source))[0]
        expected = np.array([box[0], box[1], box[2] - down, box[3] + down])
        assert best.score > 0.98
        assert np.max(np.abs(best.edges - expected)) < 0.12 * side


def test_a_pattern_repeats_although_compression_made_its_tiles_different() -> None:
    box = (200, 280, 140, 220)
    mapping = Mapping(*box)
    tiles = np.tile(wall(4, 163, 101), (4, 4, 1))  # no tile begins where a block of a jpg does
    compressed = recompressed(tiles, 80)
    room = scene(CropCase("room", box, source_size=WALL), 0)
    for source, exactly, nearly in (
        (tiles, True, True), (compressed, False, True), (room, False, False),
    ):  # fmt: skip
        pair = Pair(to_grey(cut(source, box, 256)), to_grey(source))
        assert is_repeated(pair, mapping) == exactly
        assert is_repeated(pair, mapping, nearly=True) == nearly
