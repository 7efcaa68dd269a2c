"""BBox and Crop: the tracker's map, its laws, and the figures measured on the tracker itself."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from converter.errors import ConventionError
from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine, Size
from tests.strategies import bboxes, crops, intrinsics, points, points_in_front, sizes

SQUARE = Size(512, 512)
HD = Size(1920, 1080)


def naive_map(bbox: BBox, source: Size, side: int) -> Floats:
    """The map as a loop over the tracker's steps: cut, pad, resize."""
    low = [max(bbox.x_min, 0), max(bbox.y_min, 0)]
    high = [min(bbox.x_max, source.width - 1), min(bbox.y_max, source.height - 1)]
    extents = [high[i] - low[i] for i in range(2)]
    A = np.eye(3)
    for i in range(2):
        pad = int((max(extents) - extents[i]) / 2)
        shift, scale = np.eye(3), np.eye(3)
        shift[i, 2] = pad - low[i]
        scale[i, i] = side / (extents[i] + 2 * pad)
        A = scale @ shift @ A
    return A


@st.composite
def boxes_in_sources(draw: st.DrawFn) -> tuple[BBox, Size]:
    source = draw(sizes())
    return draw(bboxes(source)), source


@given(boxes_in_sources(), st.sampled_from([1, 256, 512, 1024]))
def test_the_map_is_the_trackers(case: tuple[BBox, Size], side: int) -> None:
    bbox, source = case
    crop = Crop.from_bbox(bbox, source, Size(side, side))
    expected = naive_map(bbox, source, side)
    assert_allclose(crop.crop_from_source.matrix, expected, rtol=1e-12, atol=1e-9)


@given(crops(), points(2, 4000))
def test_source_from_crop_undoes_crop_from_source(crop: Crop, p: Floats) -> None:
    there = crop.crop_from_source(p)
    assert_allclose(crop.source_from_crop(there), p, atol=1e-6)


@given(crops(), st.data())
def test_k_maps_with_the_image(crop: Crop, data: st.DataObject) -> None:
    k_crop = data.draw(intrinsics(size=crop.output))
    p = data.draw(points_in_front())
    assert crop.source is not None
    k_source = k_crop.map(crop.source_from_crop, crop.source)
    there = crop.crop_from_source(k_source.project(p))
    assert_allclose(there, k_crop.project(p), rtol=1e-12, atol=1e-6)
    back = k_source.map(crop.crop_from_source, crop.output)
    # Relative to the largest number on the way: source pixels, seen at the crop's scale.
    atol = 1e-9 * max(1.0, crop.crop_from_source.sx, crop.crop_from_source.sy) * 4096
    assert_allclose(back.matrix, k_crop.matrix, rtol=1e-9, atol=atol)
    padded = crop.padded_size
    stretch = (k_source.fx / k_source.fy) / (k_crop.fx / k_crop.fy)
    assert_allclose(stretch, padded.width / padded.height, rtol=1e-12)


@given(crops())
def test_corners_of_the_padded_box_are_the_corners_of_the_crop(crop: Crop) -> None:
    a = crop.crop_from_source
    low = np.array([crop.bbox.x_min - crop.pad_x, crop.bbox.y_min - crop.pad_y])
    padded = crop.padded_size
    high = low + [padded.width, padded.height]
    output = [crop.output.width, crop.output.height]
    assert_allclose(a([low, high]), [[0, 0], output], atol=1e-8)
    assert np.linalg.det(a.matrix) > 0


@given(crops())
def test_the_padded_box_is_square_up_to_one_pixel_of_an_odd_difference(crop: Crop) -> None:
    cut, padded = crop.bbox.size, crop.padded_size
    odd = (cut.width - cut.height) % 2
    assert abs(padded.width - padded.height) == odd
    assert max(padded.width, padded.height) == max(cut.width, cut.height)
    assert min(crop.pad_x, crop.pad_y) == 0
    assert (crop.crop_from_source.sx == crop.crop_from_source.sy) == (not odd)


@given(crops(), st.data())
def test_source_pixels_outside_the_box_land_in_the_pad_or_outside(
    crop: Crop, data: st.DataObject
) -> None:
    p = data.draw(points(2, 4000))
    a, box = crop.crop_from_source, crop.bbox
    low = a([[box.x_min, box.y_min]])[0]
    high = a([[box.x_max, box.y_max]])[0]
    in_box = np.all((p > [box.x_min, box.y_min]) & (p < [box.x_max, box.y_max]), axis=-1)
    in_image = np.all((a(p) > low + 1e-8) & (a(p) < high - 1e-8), axis=-1)
    assert not np.any(in_image & ~in_box)


@given(crops())
def test_going_to_512_and_on_to_1024_is_going_to_1024(crop: Crop) -> None:
    at_512, at_1024 = crop.at_size(SQUARE), crop.at_size(Size(1024, 1024))
    twice = PixelAffine.resize(SQUARE, Size(1024, 1024)) @ at_512.crop_from_source
    assert_allclose(twice.matrix, at_1024.crop_from_source.matrix, rtol=1e-15)
    assert at_512.at_size(crop.output) == crop


@given(boxes_in_sources())
def test_clamping_is_idempotent_inside_and_leaves_the_last_row_and_column(
    case: tuple[BBox, Size],
) -> None:
    bbox, source = case
    cut = bbox.clamped(source)
    assert cut.clamped(source) == cut
    assert 0 <= cut.x_min < cut.x_max <= source.width - 1
    assert 0 <= cut.y_min < cut.y_max <= source.height - 1
    columns = [x for x in range(source.width - 1) if bbox.x_min <= x < bbox.x_max]
    assert (cut.x_min, cut.x_max) == (columns[0], columns[-1] + 1)


@given(sizes(), sizes())
def test_a_whole_frame_is_only_resized(source: Size, output: Size) -> None:
    crop = Crop.whole(source, output)
    assert crop.crop_from_source == PixelAffine.resize(source, output)
    assert crop.padded_size == source


def test_an_unpadded_crop_is_only_shifted() -> None:
    crop = Crop.unpadded(BBox(100, 2000, 50, 600), HD)
    assert crop.output == Size(1819, 550)
    assert crop.crop_from_source == PixelAffine(1, 1, -100, -50)


def test_without_a_source_only_the_lower_borders_are_known() -> None:
    crop = Crop.from_bbox(BBox(-10, 5000, -20, 4980), None, SQUARE)
    assert crop.bbox == BBox(0, 5000, 0, 4980)
    assert crop.source is None
    assert crop.pad_y == 10


def test_bbox_size_and_text() -> None:
    box = BBox(398, 1522, 1, 1079)
    assert box.size == Size(1124, 1078)
    assert str(box) == "[398, 1522, 1, 1079]"


@pytest.mark.parametrize(
    "bbox",
    [
        BBox(100, 100, 0, 50),
        BBox(200, 100, 0, 50),
        BBox(0, 50, 80, 20),
        BBox(1919, 2500, 0, 50),  # the tracker's slices stop at W - 1
        BBox(2000, 2500, 0, 50),
        BBox(-500, -100, 0, 50),
        BBox(0, 50, 1079, 1080),
    ],
)
@pytest.mark.parametrize("make", ["from_bbox", "unpadded"])
def test_a_box_with_nothing_of_the_source_in_it_is_refused(bbox: BBox, make: str) -> None:
    with pytest.raises(ConventionError) as caught:
        Crop.from_bbox(bbox, HD, SQUARE) if make == "from_bbox" else Crop.unpadded(bbox, HD)
    assert "inside the 1920x1080 source" in str(caught.value)
    assert str(bbox) in str(caught.value)


@pytest.mark.parametrize("output", [Size(0, 512), Size(512, 0), Size(-1, 512)])
def test_an_output_without_pixels_is_refused(output: Size) -> None:
    with pytest.raises(ConventionError, match="one pixel or more"):
        Crop.from_bbox(BBox(0, 100, 0, 100), HD, output)


def test_a_negative_pad_is_refused() -> None:
    with pytest.raises(ConventionError, match="pad of 0 or more"):
        Crop(BBox(0, 100, 0, 90), 0, -1, HD, SQUARE)


# The figures below were measured by running the tracker's own crop on drawn dots.
MEASURED = [
    (BBox(400, 1200, 200, 1000), HD, (0.64, 0.64), -0.180),
    (BBox(398, 1522, 1, 1079), HD, (0.455516, 0.455516), -0.272),
    (BBox(0, 600, 100, 1100), Size(1280, 1200), (0.512, 0.512), -0.244),
    (BBox(100, 901, 50, 750), HD, (0.639201, 0.64), -0.18),
    (BBox(300, 601, 200, 460), HD, (1.700997, 1.706667), 0.35),
    (BBox(-50, 1100, -10, 960), Size(980, 900), (0.522983, 0.522983), -0.24),
]


@pytest.mark.parametrize(("bbox", "source", "scales", "index_error"), MEASURED)
def test_scales_and_the_cost_of_index_coordinates(
    bbox: BBox, source: Size, scales: tuple[float, float], index_error: float
) -> None:
    a = Crop.from_bbox(bbox, source, SQUARE).crop_from_source
    assert_allclose((a.sx, a.sy), scales, atol=5e-7)
    wrong_by = np.subtract(astuple(a)[2:], astuple(a.in_index_coordinates())[2:])
    assert_allclose(-wrong_by, [0.5 * (a.sx - 1), 0.5 * (a.sy - 1)], atol=1e-12)
    assert_allclose(-wrong_by, index_error, atol=0.005)


@pytest.mark.parametrize(
    ("bbox", "focal", "centre", "naive_centre", "worst", "middle", "at_principal", "mean"),
    [
        ((400, 1200, 200, 1000), 3654.6875, (798.4375, 590.625), (655, 450), 407.3, 203.7, 200.9,
         220.5),
        ((398, 1522, 1, 1079), 5134.8359, (957.8047, 526.8281), (653, 251), 849.4, 416.8, 411.1,
         454.1),
    ],
)  # fmt: skip
def test_shifting_the_principal_point_alone_is_hundreds_of_pixels_off(
    bbox: tuple[int, int, int, int],
    focal: float,
    centre: tuple[float, float],
    naive_centre: tuple[float, float],
    worst: float,
    middle: float,
    at_principal: float,
    mean: float,
) -> None:
    """The formula in circulation: focal kept, ``pp += (x_min, y_min)``."""
    box = BBox(*bbox)
    k_crop = Intrinsics(2339, 2339, 255, 250, SQUARE)
    crop = Crop.from_bbox(box, HD, SQUARE)
    k_source = k_crop.map(crop.source_from_crop, HD)
    assert_allclose((k_source.fx, k_source.fy), focal, atol=5e-5)
    assert_allclose((k_source.cx, k_source.cy), centre, atol=5e-5)

    naive = PixelAffine(1, 1, box.x_min, box.y_min)
    k_naive = k_crop.map(naive, HD)
    assert (k_naive.fx, k_naive.cx, k_naive.cy) == (2339, *naive_centre)

    def off_by(p: Floats) -> Floats:
        error: Floats = np.linalg.norm(naive(p) - crop.source_from_crop(p), axis=-1)
        return error

    grid = np.stack(np.meshgrid(np.arange(513.0), np.arange(513.0)), axis=-1)
    assert off_by(grid).max() == pytest.approx(worst, abs=0.05)
    assert off_by(grid).mean() == pytest.approx(mean, abs=0.2)
    assert off_by(np.array([256.0, 256])) == pytest.approx(middle, abs=0.06)
    assert off_by(np.array([255.0, 250])) == pytest.approx(at_principal, abs=0.05)


def test_what_other_plausible_mistakes_cost() -> None:
    box = BBox(398, 1522, 1, 1079)
    crop = Crop.from_bbox(box, HD, SQUARE)
    right = crop.source_from_crop
    p = np.stack(np.meshgrid([0.0, 256, 512], [0.0, 256, 512]), axis=-1)

    unpadded = Crop(box, 0, 0, HD, SQUARE).source_from_crop
    pad_forgotten = PixelAffine(right.sx, right.sy, unpadded.tx, unpadded.ty)
    assert_allclose(pad_forgotten(p) - right(p), np.broadcast_to([0, 23], p.shape), atol=1e-9)

    per_axis = (unpadded(p) - right(p))[..., 1]
    assert_allclose(np.abs(per_axis), np.broadcast_to([[23], [0], [23]], (3, 3)), atol=1e-9)

    for bbox, mix_up in ((BBox(400, 1200, 200, 1000), 0.281), (box, 0.598)):
        a = Crop.from_bbox(bbox, HD, SQUARE).source_from_crop
        assert a.in_index_coordinates().tx - a.tx == pytest.approx(mix_up, abs=5e-4)


def test_the_only_way_to_a_crop_is_through_positive_scales() -> None:
    a = Crop.from_bbox(BBox(398, 1522, 1, 1079), HD, SQUARE).crop_from_source
    assert_allclose(a.inverse().matrix @ a.matrix, np.eye(3), atol=1e-12)
    assert (a.tx, a.ty) == pytest.approx((-398 * 512 / 1124, 22 * 512 / 1124))
