"""Resampling: against naive sums, and dots that must land where the map says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.geometry import PixelAffine, Size
from converter.media.resampling import resample, resample_nearest
from tests.media.test_images import picture


@given(st.integers(-40, 40), st.integers(-40, 40), st.integers(2, 90), st.integers(2, 90))
def test_whole_pixel_shifts_copy_pixels(tx: int, ty: int, width: int, height: int) -> None:
    image = picture(50, 34)
    out = resample(image, PixelAffine(1, 1, tx, ty), Size(width, height))
    rows = np.clip(np.arange(height) - ty, 0, 33)
    columns = np.clip(np.arange(width) - tx, 0, 49)
    np.testing.assert_array_equal(out, image[rows[:, None], columns[None, :]])


def _cubic(x: Any) -> Any:
    """Keys' kernel, a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _weights(n_in: int, n_out: int, scale: float, shift: float) -> Any:
    """Naive resampling matrix: clamped borders, kernel widened when shrinking."""
    width = max(1.0, 1 / scale)
    centres = (np.arange(n_out) + 0.5 - shift) / scale
    taps = np.arange(-300, n_in + 300)
    w = _cubic((taps[None, :] + 0.5 - centres[:, None]) / width)
    w /= w.sum(axis=1, keepdims=True)
    out = np.zeros((n_out, n_in))
    np.add.at(out.T, np.clip(taps, 0, n_in - 1), w.T)
    return out


@pytest.mark.parametrize(
    "affine",
    [
        PixelAffine(1, 1, -3.37, 2.81),
        PixelAffine(1, 1, 0.5, -7),
        PixelAffine(1.27, 1.25, -3.2, 1.1),
        PixelAffine(0.63, 0.64, 3.2, 1.1),
        PixelAffine(0.3, 1.4, 0, -2.5),
        PixelAffine(2.5, 2.5, -20.4, 11.7),
        PixelAffine(1, 1, 3.3, 1.25),
        PixelAffine(1, 1, -30.5, 0),
        PixelAffine(1, 1, 66.2, -51.7),
        PixelAffine(0.35, 0.3, 9.3, 11.8),
    ],
    ids=str,
)
def test_resampling_is_the_bicubic_sum(affine: PixelAffine) -> None:
    """Against naive matrix products, borders repeated, rounded to 8 bits after each.

    Where the scale changes, columns are summed first, else rows.
    """
    image = picture(60, 48)
    size = Size(70, 52)
    out = resample(image, affine, size).astype(float)
    into = np.full((52, 70, 3), 99, np.uint8)
    assert resample(image, affine, size, into) is into
    np.testing.assert_array_equal(into, out)
    columns = _weights(60, 70, affine.sx, affine.tx)
    rows = _weights(48, 52, affine.sy, affine.ty)
    steps = [("lk,ikc->ilc", columns), ("ij,jkc->ikc", rows)]
    expected = image.astype(float)
    for sums, weights in steps if affine.sx == 1 else reversed(steps):
        expected = np.einsum(sums, weights, np.rint(np.clip(expected, 0, 255)))
    off = np.abs(out - np.clip(expected, 0, 255))
    # float32 may round a half the other way, in rows too.
    assert np.mean(off <= 0.5 + 1e-3) > 0.98
    assert off.max() <= 1.3


@pytest.mark.parametrize(
    "affine",
    [PixelAffine(1, 1, -10.37, -5.81), PixelAffine(0.63, 0.64, 3.2, 1.1),
     PixelAffine(1.27, 1.25, -3.2, 1.1), PixelAffine(0.3, 0.3, 0, 0)],
    ids=str,
)  # fmt: skip
def test_dots_land_where_the_map_says(affine: PixelAffine) -> None:
    rng = np.random.default_rng(1)
    centres = np.array(
        [(50 + 60 * i, 60 + 60 * j) for i in range(5) for j in range(4)]
    ) + rng.random((20, 2))
    y, x = np.mgrid[0:350, 0:400] + 0.5
    light = sum(200 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b in centres)
    image = np.repeat(np.round(light)[..., None], 3, 2).astype(np.uint8)
    out = resample(image, affine, Size(420, 400))[..., 0].astype(float)
    back = affine.inverse()
    y, x = np.mgrid[0:400, 0:420] + 0.5
    errors = []
    for point, (a, b) in zip(affine(centres), centres, strict=True):
        # How far the drawn dot is from the true one: least squares along its own slopes.
        truth = 200 * np.exp(
            -((x * back.sx + back.tx - a) ** 2 + (y * back.sy + back.ty - b) ** 2) / 18
        )
        near = np.hypot(x - point[0], y - point[1]) < 12 * affine.sx
        off = (out - truth)[near]
        slopes = [slope[near] for slope in np.gradient(truth)[::-1]]
        errors.append([-(off @ slope) / (slope @ slope) for slope in slopes])
    assert np.abs(errors).max() <= 0.01
    assert np.abs(np.mean(errors, axis=0)).max() <= 0.004


@given(
    st.floats(0.2, 4), st.floats(0.2, 4), st.floats(-300, 300), st.floats(-300, 300),
    st.integers(1, 60), st.integers(1, 60),
)  # fmt: skip
def test_any_map_gives_the_size_asked_for(
    sx: float, sy: float, tx: float, ty: float, width: int, height: int
) -> None:
    """Also far outside the image, where only border pixels are repeated."""
    image = np.full((20, 30, 3), 77, np.uint8)
    out = resample(image, PixelAffine(sx, sy, tx, ty), Size(width, height))
    assert out.shape == (height, width, 3)
    assert (out == 77).all()


def test_labels_keep_their_colours() -> None:
    rng = np.random.default_rng(0)
    palette = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    labels = palette[rng.integers(0, 3, (40, 50))]
    affine = PixelAffine(1.7, 1.3, -4.21374, 6.51932)
    out = resample_nearest(labels, affine, Size(100, 60), (255, 255, 255))
    for v, u in np.ndindex(60, 100):
        x = int(np.floor((u + 0.5 - affine.tx) / affine.sx))
        y = int(np.floor((v + 0.5 - affine.ty) / affine.sy))
        inside = 0 <= x < 50 and 0 <= y < 40
        expected = labels[y, x] if inside else (255, 255, 255)
        assert tuple(out[v, u]) == tuple(expected)


@pytest.mark.parametrize(
    "affine", [PixelAffine(1, 1, 30.37, 21.81), PixelAffine(1.27, 1.25, -3.2, 1.1)], ids=str
)
def test_threads_do_not_draw_into_each_other(affine: PixelAffine) -> None:
    """Each has its own scratch memory."""
    images = [picture(200, 150, seed) for seed in range(24)]
    size = Size(260, 190)
    alone = [resample(image, affine, size) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: resample(image, affine, size), images))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)
