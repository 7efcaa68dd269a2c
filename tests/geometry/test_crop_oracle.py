"""The crop map against pictures: dots drawn in a source image are found where `Crop` says.

The images go through the tracker's own steps (cut, zero pad, ``cv2.resize`` with INTER_CUBIC), and
the dots are found again by their centroids; neither knows anything of `Crop`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size, index_from_pixels, pixels_from_index
from converter.geometry.pose import Pose

LIMIT_PX = 0.02
"""Largest distance between a dot and its predicted place, crop pixels."""
SIDE = 512
SIGMA = 3.0
"""Width of the dots in the crop, px: wide enough for the cubic kernel's ripple to average out."""
REACH = 6 * SIGMA
"""Half the window of a centroid, px; what lies beyond weighs less than 1e-7."""

HD = Size(1920, 1080)
CASES = {
    "even": (BBox(400, 1200, 200, 1000), HD),
    "pad 23": (BBox(398, 1522, 1, 1079), HD),
    "pad 200": (BBox(0, 600, 100, 1100), Size(1280, 1200)),
    "odd": (BBox(100, 901, 50, 750), HD),
    "odd, enlarged": (BBox(300, 601, 200, 460), HD),
    "past the image": (BBox(-50, 1100, -10, 960), Size(980, 900)),
    "4K, odd": (BBox(1200, 2802, 300, 2101), Size(3840, 2160)),
}
Image = NDArray[np.float32]


def tracker_crop(image: Image, bbox: BBox) -> Image:
    """Cut, pad and resize as the tracker does."""
    height, width = image.shape
    cut = image[
        max(bbox.y_min, 0) : min(bbox.y_max, height - 1),
        max(bbox.x_min, 0) : min(bbox.x_max, width - 1),
    ]
    rows, columns = cut.shape
    longest = max(rows, columns)
    vertical, horizontal = int((longest - rows) / 2), int((longest - columns) / 2)
    square = cv2.copyMakeBorder(
        cut, vertical, vertical, horizontal, horizontal, cv2.BORDER_CONSTANT, value=0
    )
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.float32)


def draw(size: Size, points: Floats, sigma: float) -> Image:
    """Black image with Gaussian dots at edge-origin ``points`` (P, 2)."""
    image = np.zeros(size.shape, np.float32)
    reach = int(6 * sigma) + 2
    for x, y in points:
        x0, x1 = max(int(x) - reach, 0), min(int(x) + reach, size.width)
        y0, y1 = max(int(y) - reach, 0), min(int(y) + reach, size.height)
        # The centre of pixel i is at i + 0.5.
        row = np.exp(-(((np.arange(x0, x1) + 0.5 - x) / sigma) ** 2) / 2)
        column = np.exp(-(((np.arange(y0, y1) + 0.5 - y) / sigma) ** 2) / 2)
        image[y0:y1, x0:x1] += np.outer(column, row).astype(np.float32)
    return image


def find(image: Image, near: Floats) -> Floats:
    """Edge-origin centroids (P, 2) of the dots whose peaks lie closest to ``near``."""
    found = []
    for guess in near:
        centre = guess
        for _ in range(3):  # the window follows the dot, so that the guess leaves no trace
            x0, y0 = np.floor(centre - REACH).astype(int)
            x1, y1 = np.ceil(centre + REACH).astype(int)
            window = image[y0:y1, x0:x1].astype(np.float64)
            total = window.sum()
            x = (window.sum(axis=0) * (np.arange(x0, x1) + 0.5)).sum() / total
            y = (window.sum(axis=1) * (np.arange(y0, y1) + 0.5)).sum() / total
            centre = np.array([x, y])
        found.append(centre)
    return np.array(found)


def dots_of(crop: Crop) -> Floats:
    """Source points at sub-pixel positions, spread over the cut, apart from each other."""
    a = crop.crop_from_source
    box = crop.bbox
    low = a([[box.x_min, box.y_min]])[0] + REACH + 4
    high = a([[box.x_max, box.y_max]])[0] - REACH - 4
    xs, ys = np.linspace(low[0], high[0], 8), np.linspace(low[1], high[1], 7)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    return a.inverse()(grid + np.random.default_rng(2).uniform(-3, 3, grid.shape))


Prediction = Callable[[Crop, Floats], Floats]


def right(crop: Crop, points: Floats) -> Floats:
    return crop.crop_from_source(points)


def index_coordinates(crop: Crop, points: Floats) -> Floats:
    """The map used on index coordinates, as if they were edge-origin pixels."""
    return pixels_from_index(crop.crop_from_source(index_from_pixels(points)))


def one_scale(crop: Crop, points: Floats) -> Floats:
    """The longer side's scale on both axes."""
    a = crop.crop_from_source
    scale = min(a.sx, a.sy)
    return replace(a, sx=scale, sy=scale, tx=a.tx * scale / a.sx, ty=a.ty * scale / a.sy)(points)


def no_pad(crop: Crop, points: Floats) -> Floats:
    """The right scales without the border's shift."""
    a = crop.crop_from_source
    return replace(a, tx=-crop.bbox.x_min * a.sx, ty=-crop.bbox.y_min * a.sy)(points)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def drawn(request: pytest.FixtureRequest) -> tuple[Crop, Floats, Floats]:
    """A crop, dots in its source, and where a centroid finds them in the tracker's image."""
    bbox, source = request.param
    crop = Crop.from_bbox(bbox, source, Size(SIDE, SIDE))
    points = dots_of(crop)
    sigma = SIGMA / min(crop.crop_from_source.sx, crop.crop_from_source.sy)
    image = tracker_crop(draw(source, points, sigma), bbox)
    return crop, points, find(image, crop.crop_from_source(points))


def worst(crop: Crop, points: Floats, found: Floats, predict: Prediction) -> float:
    return float(np.linalg.norm(predict(crop, points) - found, axis=-1).max())


def test_dots_are_found_where_the_map_says(drawn: tuple[Crop, Floats, Floats]) -> None:
    assert worst(*drawn, right) <= LIMIT_PX


def test_index_coordinates_would_be_seen(drawn: tuple[Crop, Floats, Floats]) -> None:
    crop = drawn[0]
    a = crop.crop_from_source
    off = worst(*drawn, index_coordinates)
    assert off > LIMIT_PX
    assert off == pytest.approx(0.5 * np.hypot(a.sx - 1, a.sy - 1), abs=LIMIT_PX)


def test_one_scale_for_odd_boxes_would_be_seen(drawn: tuple[Crop, Floats, Floats]) -> None:
    crop = drawn[0]
    odd = crop.padded_size.width != crop.padded_size.height
    assert (worst(*drawn, one_scale) > LIMIT_PX) == odd


def test_a_forgotten_pad_would_be_seen(drawn: tuple[Crop, Floats, Floats]) -> None:
    crop = drawn[0]
    padded = crop.pad_x > 0 or crop.pad_y > 0
    assert (worst(*drawn, no_pad) > LIMIT_PX) == padded


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0), (3.0, 0.2, -0.1), (0.3, -0.8, 0.2)])
def test_a_camera_mapped_to_the_source_sees_the_same_dots(
    case: tuple[BBox, Size], rotation: tuple[float, float, float]
) -> None:
    """World points, drawn through the source's K, are in the crop where the crop's K says."""
    bbox, source = case
    crop = Crop.from_bbox(bbox, source, Size(SIDE, SIDE))
    k_crop = Intrinsics(2339, 2339, 255, 250, crop.output)
    w2c = Pose(Rotation.from_rotvec(rotation).as_matrix(), [0.02, -0.03, 1.8])
    # World points behind chosen crop pixels, at depths of their own.
    pixels = crop.crop_from_source(dots_of(crop))
    depths = np.linspace(1.7, 1.9, len(pixels))[:, None]
    rays = np.concatenate([(pixels - [255, 250]) / 2339, np.ones_like(depths)], axis=-1)
    world = w2c.inverse()(rays * depths)

    k_source = k_crop.map(crop.source_from_crop, source)
    sigma = SIGMA / min(crop.crop_from_source.sx, crop.crop_from_source.sy)
    image = tracker_crop(draw(source, k_source.project(w2c(world)), sigma), bbox)
    expected = k_crop.project(w2c(world))
    off = float(np.linalg.norm(find(image, expected) - expected, axis=-1).max())
    assert off <= LIMIT_PX
