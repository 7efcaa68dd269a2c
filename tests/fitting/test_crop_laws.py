"""Laws of the recovery: what was cut comes back; more damage never makes it surer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import ImageFiles, list_images, render_crop
from fitting.crop import CropCertificate, recover_crop
from fitting.crop.certificate import CropImage, compare, is_legal
from fitting.crop.mapping import Mapping, render_grey
from fitting.crop.pair import Pair, to_grey
from fitting.crop.pixelwise import MIN_CERTAINTY, rank
from fitting.crop.refine import climb, descend, residual
from fixtures.synthetic.crop_cases import (
    ALTERATIONS,
    CropCase,
    Image,
    cut,
    random_case,
    recompressed,
    scene,
    tracker_box,
)

SOURCE = Size(640, 400)
CASE = CropCase("law", (150, 450, 50, 350), source_size=(640, 400))


@cache
def frame() -> Image:
    return scene(CASE, 1)


@st.composite
def boxes(draw: st.DrawFn) -> BBox:
    """Boxes of 120 px and more: inside, at the borders and beyond, even and odd."""
    x0 = draw(st.integers(-20, SOURCE.width - 140))
    y0 = draw(st.integers(-20, SOURCE.height - 140))
    width = draw(st.integers(120, 420))
    height = draw(st.one_of(st.just(width), st.integers(120, 420)))
    return BBox(x0, x0 + width, y0, y0 + height)


sizes = st.sampled_from([192, 256, 320, 512])


@given(boxes(), sizes)
def test_two_ways_of_rendering_agree(bbox: BBox, size: int) -> None:
    crop = Crop.from_bbox(bbox, SOURCE, Size(size, size))
    edges = (bbox.x_min, bbox.x_max, bbox.y_min, bbox.y_max)
    ours = render_crop(frame(), crop)
    assert np.array_equal(ours, cut(frame(), edges, size))
    grey = render_grey(to_grey(frame()), Mapping.of_crop(crop), crop.output, crop.bbox)
    grey_3 = cv2.cvtColor(to_grey(frame()), cv2.COLOR_GRAY2BGR)
    # One channel and three take different paths through OpenCV.
    assert np.max(np.abs(grey.astype(int) - render_crop(grey_3, crop)[..., 0])) <= 1


@given(boxes(), sizes)
def test_the_mapping_of_a_crop_leads_back_to_it(bbox: BBox, size: int) -> None:
    crop = Crop.from_bbox(bbox, SOURCE, Size(size, size))
    mapping = Mapping.of_crop(crop)
    assert mapping.is_possible(SOURCE)
    pad = max(crop.pad_x, crop.pad_y)
    found = list(mapping.crops(SOURCE, crop.output, max_extra=pad))
    assert crop in found
    assert all(c.crop_from_source == crop.crop_from_source for c in found)
    assert all(other.is_possible(SOURCE) for other in mapping.neighbours(SOURCE))


@given(
    st.tuples(st.integers(-12, 30), st.integers(-12, 30), st.integers(1, 50), st.integers(-3, 3)),
    st.builds(Size, st.integers(4, 40), st.integers(4, 40)),
)
def test_a_mapping_is_possible_where_a_crop_makes_it(
    drawn: tuple[int, int, int, int], source: Size
) -> None:
    x, y, side, longer = drawn
    mapping = Mapping(x, x + side, y, y + max(side + longer, 1))

    def is_made(m: Mapping) -> bool:
        return next(m.crops(source, Size(1, 1)), None) is not None

    assert mapping.is_possible(source) == is_made(mapping)
    steps = np.array(np.meshgrid(*[(-1, 0, 1)] * 4)).reshape(4, -1).T.tolist()
    near = {mapping + (a, b, c, d) for a, b, c, d in steps}
    found = mapping.neighbours(source)
    assert len(found) == len(set(found))
    assert set(found) == {m for m in near - {mapping} if is_made(m)}


@settings(max_examples=settings().max_examples // 4)
@given(boxes(), sizes, st.tuples(*[st.floats(-1, 1)] * 3))
def test_a_render_leads_back_to_its_box(
    bbox: BBox, size: int, error: tuple[float, float, float]
) -> None:
    """From an estimate up to 1 px off, on whatever part of the scene the box shows."""
    crop = Crop.from_bbox(bbox, SOURCE, Size(size, size))
    truth, source = Mapping.of_crop(crop), to_grey(frame())
    pair = Pair(to_grey(render_crop(frame(), crop)), source)
    x, y, side = error
    found = descend(pair, truth.edges + [x, x + side, y, y + side])
    assert found is not None
    ranking = climb([pair], found[0], SOURCE)
    assert ranking is not None
    assert ranking.best == truth
    left = residual([pair], truth)
    assert left is not None
    # A narrow box fills few blocks: the estimate is as good as it says.
    assert np.all(np.abs(left.edges) < np.maximum(0.2, 4 * left.edges_error))
    assert abs(left.angle_deg) < 0.05 or left.corner_px < 4 * left.corner_error_px


@settings(max_examples=settings().max_examples // 16)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([256, 320]))
def test_recover_of_render_is_the_box(tmp_path_factory: pytest.TempPathFactory, seed: int,
                                      size: int) -> None:  # fmt: skip
    box = tracker_box(np.random.default_rng(seed), SOURCE.width, SOURCE.height)
    certificate = recovered(tmp_path_factory.mktemp("law"), cut(frame(), box, size))
    truth = Crop.from_bbox(BBox(*box), SOURCE, Size(size, size))
    if certificate.crop is None:  # a corner of the room may show too little; never another box
        assert certificate.cause in ("too-little-texture", "other-video", "not-certain")
        return
    assert Mapping.of_crop(certificate.crop) == Mapping.of_crop(truth)
    assert certificate.max_abs_diff == 0
    assert truth.bbox in certificate.candidates


@pytest.mark.parametrize("seed", [36, 125, 324])
def test_no_wrong_mapping_is_certain(seed: int) -> None:
    """Mattes over a blurred room: pixels alone prefer a wrong mapping by 3.6 standard errors."""
    case, rng = random_case(seed), np.random.default_rng(seed)
    room = cv2.GaussianBlur(scene(case, 0), (0, 0), float(rng.choice([2, 4, 6])))
    matte = ["black matte", "green matte", "white matte"][seed % 3]
    crop = ALTERATIONS[matte](cut(np.asarray(room, np.uint8), case.bbox, case.size))
    crop = recompressed(crop, int(rng.integers(50, 95)))
    source = to_grey(recompressed(room, 70) if seed % 2 else np.asarray(room, np.uint8))
    size, output = Size.of(source), Size.of(crop)
    truth = Mapping.of_crop(Crop.from_bbox(BBox(*case.bbox), size, output))
    ranking = rank([Pair(to_grey(crop), source)], truth, size)
    assert ranking is None or ranking.best == truth or ranking.certainty < MIN_CERTAINTY


def recovered(folder: Path, crop: Image) -> CropCertificate:
    for name, image in (("crops", crop), ("source", frame())):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "00001.png"), image)
    crops, sources = list_images(folder / "crops"), list_images(folder / "source")
    return recover_crop(ImageFiles.of(crops), ImageFiles.of(sources))


def test_refusal_is_monotone_in_corruption(tmp_path: Path) -> None:
    """Ever more of the crop is replaced by noise: once refused, it stays refused."""
    crop = cut(frame(), CASE.bbox, 256)
    noise = np.random.default_rng(3).integers(0, 255, crop.shape, dtype=np.uint8)
    order = np.random.default_rng(4).permutation(64)
    recovered_at = []
    for step, n_hidden in enumerate((0, 12, 24, 40, 52, 60, 64)):
        image = crop.copy()
        for block in order[:n_hidden]:
            y, x = block // 8 * 32, block % 8 * 32
            image[y : y + 32, x : x + 32] = noise[y : y + 32, x : x + 32]
        certificate = recovered(tmp_path / f"{step}", image)
        recovered_at.append(certificate.is_recovered)
        if certificate.bbox is not None:
            assert certificate.bbox == BBox(*CASE.bbox)
    assert recovered_at == sorted(recovered_at, reverse=True)
    assert recovered_at[0]
    assert not recovered_at[-1]


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("sampling", [0x111111, 0x221111])
def test_a_jpg_is_proved_by_its_own_tables(quality: int, sampling: int) -> None:
    crop = Crop.from_bbox(BBox(*CASE.bbox), SOURCE, Size(256, 256))
    other = Crop.from_bbox(BBox(151, 451, 50, 350), SOURCE, Size(256, 256))
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    data = bytes(cv2.imencode(".jpg", render_crop(frame(), crop), options)[1])
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    image = CropImage.of(np.asarray(pixels, np.uint8), data)
    assert compare(image, frame(), crop).is_equal
    assert compare(image, frame(), other).max_abs_diff > 5


@pytest.mark.parametrize("quality", [None, 10, 20, 50, 95])
def test_the_builds_other_path_is_tried(quality: int | None) -> None:
    crop = Crop.from_bbox(BBox(*CASE.bbox), SOURCE, Size(256, 256))
    noise = np.random.default_rng(3).integers(0, 255, frame().shape, dtype=np.uint8)
    before = cv2.ipp.useIPP()
    for source in (frame(), noise):
        cv2.ipp.setUseIPP(False)
        try:
            image = CropImage(render_crop(source, crop))
        finally:
            cv2.ipp.setUseIPP(before)
        if quality is not None:
            options = [cv2.IMWRITE_JPEG_QUALITY, quality]
            data = cv2.imencode(".jpg", image.pixels, options)[1]
            pixels = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
            image = CropImage.of(pixels, bytes(data))
        assert compare(image, source, crop).is_equal
        assert cv2.ipp.useIPP() == before


@pytest.mark.parametrize(
    ("box", "legal"),
    [
        ((100, 300, 100, 300), True),
        ((100, 304, 100, 304), True),
        ((100, 302, 100, 302), False),
        ((100, 301, 100, 301), False),
        ((100, 300, 100, 296), False),
        ((0, 200, 50, 254), True),
        ((1, 201, 50, 254), True),
        ((50, 254, 0, 200), True),
        ((50, 250, 0, 204), False),
    ],
)
def test_what_get_bbox_can_make(box: tuple[int, int, int, int], legal: bool) -> None:
    assert is_legal(BBox(*box), SOURCE) == legal


@given(st.integers(0, 10**6))
def test_boxes_of_the_tracker_are_legal(seed: int) -> None:
    box = tracker_box(np.random.default_rng(seed), 1920, 1080)
    assert is_legal(BBox(*box), Size(1920, 1080))
