"""Intrinsics: notations, and the law that mapping K commutes with projecting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from converter.errors import ConventionError
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine, Size
from tests.strategies import affines, floats, intrinsics, points_in_front, sizes

SIZE = Size(512, 512)


@given(intrinsics())
def test_matrix_round_trip(k: Intrinsics) -> None:
    assert Intrinsics.from_matrix(k.matrix, k.size) == k
    assert k.matrix.shape == ((3, 3) if k.n_frames is None else (k.n_frames, 3, 3))


@given(intrinsics(), points_in_front())
def test_projection_is_a_loop_over_frames_and_points(k: Intrinsics, p: Floats) -> None:
    pixels = k.project(p)
    for i in range(k.n_frames or 1):
        K = k[i].matrix
        rows = pixels if k.n_frames is None else pixels[i]
        for x, pixel in zip(p, rows, strict=True):
            u = K @ x
            assert_allclose(pixel, u[:2] / u[2], rtol=1e-12, atol=1e-9)


@given(intrinsics(batched=True))
def test_batched_k_with_points_of_each_frame(k: Intrinsics) -> None:
    n = k.n_frames or 0
    p = np.linspace(1, 2, n * 2 * 3).reshape(n, 2, 3)
    assert_allclose(k.project(p), np.stack([k[i].project(p[i]) for i in range(n)]), rtol=1e-15)


def test_points_that_are_not_in_front_have_no_pixel() -> None:
    k = Intrinsics(100, 100, 50, 50, Size(100, 100))
    pixels = k.project([[0, 0, 1], [0, 0, 0], [1, 1, -1], [0, 0, np.nan]])
    assert_allclose(pixels[0], [50, 50])
    assert np.isnan(pixels[1:]).all()


@given(intrinsics(), affines(False), points_in_front())
def test_mapping_k_commutes_with_projecting(k: Intrinsics, a: PixelAffine, p: Floats) -> None:
    mapped = k.map(a, SIZE)
    assert mapped.size == SIZE
    assert_allclose(mapped.project(p), a(k.project(p)), rtol=1e-12, atol=1e-6)
    assert_allclose(mapped.matrix, a.matrix @ k.matrix, rtol=1e-12, atol=1e-9)


@given(intrinsics(batched=False), affines(True), points_in_front())
def test_one_k_through_a_map_per_frame(k: Intrinsics, a: PixelAffine, p: Floats) -> None:
    mapped = k.map(a, SIZE)
    assert mapped.n_frames == len(a.sx)
    for i in range(len(a.sx)):
        assert_allclose(mapped.project(p)[i], a[i](k.project(p)), rtol=1e-12, atol=1e-6)


@given(intrinsics(), affines(False))
def test_k_round_trip_through_a_map(k: Intrinsics, a: PixelAffine) -> None:
    back = k.map(a, SIZE).map(a.inverse(), k.size)
    assert back.size == k.size
    # 1e-9 of the largest number on the way: cx may be 0, and then has no relative error.
    assert_allclose(back.matrix, k.matrix, rtol=1e-9, atol=1e-9 * 5000)


@given(st.lists(st.tuples(floats(1, 20), floats(-1, 1), floats(-1, 1)), min_size=1), sizes())
def test_ndc_round_trip(rows: list[tuple[float, float, float]], size: Size) -> None:
    numbers = np.array(rows)
    k = Intrinsics.from_ndc(numbers[:, 0], numbers[:, 1:], size)
    assert_allclose(k.fx, k.fy, rtol=0)
    focal, principal = k.to_ndc()
    assert_allclose(focal, numbers[:, 0], rtol=1e-12)
    assert_allclose(principal, numbers[:, 1:], rtol=0, atol=1e-9)
    again = Intrinsics.from_ndc(focal, principal, size)
    assert_allclose(again.matrix, k.matrix, rtol=1e-12, atol=1e-9)


def test_ndc_of_the_spec() -> None:
    """K = [[fl s, 0, w/2 - pp_x s], [0, fl s, h/2 - pp_y s], [0, 0, 1]], s = min(h, w) / 2."""
    k = Intrinsics.from_ndc(5000 / 512, [1 / 256, 6 / 256], SIZE)
    assert_allclose(k.matrix, [[2500, 0, 255], [0, 2500, 250], [0, 0, 1]])
    portrait = Intrinsics.from_ndc(10.0, [0.1, -0.2], Size(540, 960))
    assert_allclose(portrait.matrix, [[2700, 0, 243], [0, 2700, 534], [0, 0, 1]])
    focal, principal = portrait.to_ndc()
    assert isinstance(focal, float)
    assert_allclose(principal, [0.1, -0.2])


def test_ndc_holds_one_focal_length() -> None:
    with pytest.raises(ConventionError, match=r"^K: expected fx == fy, found fx = 1.01 fy\.$"):
        Intrinsics(np.array([100.0, 101.0]), 100, 50, 50, SIZE).to_ndc()
    one_and_many = Intrinsics(100, np.full(2, 100.0), np.full(2, 50.0), 50, SIZE)
    assert_allclose(one_and_many.to_ndc()[0], 100 / 256)


GOOD = [[100.0, 0, 50], [0, 110, 60], [0, 0, 1]]


@pytest.mark.parametrize(
    ("K", "found"),
    [
        ([[100, 0.01, 50], [0, 110, 60], [0, 0, 1]], "skew"),
        (np.array(GOOD).T, "K transposed"),
        ([[100, 0, 50], [0, 110, 60], [0, 0, 2]], "skew or worse"),
        ([[100, 0, 50], [0, 110, 60], [0, 0.1, 1]], "skew or worse"),
        ([[100, 0, np.nan], [0, 110, 60], [0, 0, 1]], "not finite"),
        ([[np.inf, 0, 50], [0, 110, 60], [0, 0, 1]], "not finite"),
        ([[-100, 0, 50], [0, 110, 60], [0, 0, 1]], "focal length that is not positive"),
        ([[100, 0, 50], [0, 0, 60], [0, 0, 1]], "focal length that is not positive"),
        (np.eye(4), r"shape \(4, 4\)"),
        (np.zeros(9), r"shape \(9,\)"),
        (np.zeros((3, 4)), r"shape \(3, 4\)"),
        (1.0, r"shape \(\)"),
    ],
)
def test_matrices_that_are_no_pinhole_are_refused(K: Floats, found: str) -> None:
    with pytest.raises(ConventionError, match=found):
        Intrinsics.from_matrix(K, SIZE)
    if np.shape(K) == (3, 3):
        with pytest.raises(ConventionError, match="^K: expected rows"):
            Intrinsics.from_matrix(np.stack([GOOD, K]), SIZE)


@given(intrinsics(inside=True))
def test_fov_is_the_angle_between_the_rays_of_the_borders(k: Intrinsics) -> None:
    for i in range(k.n_frames or 1):
        one = k[i]
        for fov, f, c, side in (
            (one.fov_x_deg, one.fx, one.cx, one.size.width),
            (one.fov_y_deg, one.fy, one.cy, one.size.height),
        ):
            rays = np.array([[-c / f, 1], [(side - c) / f, 1]])
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            angle = np.arctan2(np.abs(np.linalg.det(rays)), rays[0] @ rays[1])
            assert fov == pytest.approx(np.degrees(angle), rel=1e-9, abs=1e-9)
    assert np.shape(k.fov_x_deg) == np.shape(k.fov_y_deg) == np.shape(k.fx)


def test_fov_of_a_central_k_is_twice_the_arctangent() -> None:
    k = Intrinsics(256, 256, 256, 128, Size(512, 256))
    assert k.fov_x_deg == pytest.approx(90)
    assert k.fov_y_deg == pytest.approx(np.degrees(2 * np.arctan(0.5)))
    assert k.is_central
    assert not Intrinsics(256, 256, 255, 128, Size(512, 256)).is_central
    assert not Intrinsics(256, 256, np.array([256, 255.5]), 128, Size(512, 256)).is_central


@given(intrinsics(batched=True))
def test_batch_indexing(k: Intrinsics) -> None:
    n = k.n_frames
    assert n is not None
    for i in range(n):
        assert_allclose(k[i].matrix, k.matrix[i], rtol=0)
        assert k[i].n_frames is None
    assert_allclose(k[1:].matrix, k.matrix[1:], rtol=0)
    picked = np.arange(n) % 2 == 0
    assert_allclose(k[picked].matrix, k.matrix[picked], rtol=0)


def test_fields_may_mix_one_value_and_one_per_frame() -> None:
    k = Intrinsics(100, 100, np.array([50.0, 51, 52]), 60, SIZE)
    assert k.n_frames == 3
    assert k.matrix.shape == (3, 3, 3)
    assert k[2] == Intrinsics(100, 100, 52, 60, SIZE)
    assert k[:2].n_frames == 2
    assert Intrinsics(100, 100, 50, 60, SIZE)[5] == Intrinsics(100, 100, 50, 60, SIZE)


def test_equality_includes_the_size() -> None:
    assert Intrinsics(1, 1, 1, 1, Size(2, 3)) != Intrinsics(1, 1, 1, 1, Size(3, 2))
