"""Sizes, pixel coordinates and axis-aligned maps: group laws and index coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from converter.geometry.pixels import (
    Floats,
    PixelAffine,
    Size,
    index_from_pixels,
    pixels_from_index,
)
from tests.strategies import affines, points, sizes

PX = 1e-6


def test_size_is_width_then_height_and_its_shape_the_reverse() -> None:
    size = Size(640, 480)
    assert (size.width, size.height, size.shape, size.n_pixels) == (640, 480, (480, 640), 307200)
    assert str(size) == "640x480"
    assert Size.of(np.zeros((480, 640, 3), np.uint8)) == size
    assert Size.of(np.zeros((480, 640), np.uint8)) == size
    assert Size(640, 480) != Size(480, 640)
    assert len({size, Size(640, 480)}) == 1


def test_the_first_pixel_centre_is_one_half() -> None:
    assert_allclose(pixels_from_index([[0, 0], [3, 7]]), [[0.5, 0.5], [3.5, 7.5]])
    assert_allclose(index_from_pixels([[0.5, 0.5]]), [[0, 0]])


@given(points(2, 4000))
def test_index_coordinates_there_and_back(p: Floats) -> None:
    assert_allclose(index_from_pixels(pixels_from_index(p)), p, atol=1e-12)


@given(affines(), affines(False), affines(False), points(2, 4000))
def test_composition_is_associative_and_applies_right_to_left(
    a: PixelAffine, b: PixelAffine, c: PixelAffine, p: Floats
) -> None:
    scale = 1e4 * 1e2  # the largest coordinate after two maps, so that 1e-12 is relative
    assert_allclose(((a @ b) @ c)(p), (a @ (b @ c))(p), rtol=1e-12, atol=1e-12 * scale)
    assert_allclose((a @ b)(p), a(b(p)), rtol=1e-12, atol=1e-12 * scale)
    assert_allclose((a @ b).matrix, a.matrix @ b.matrix, rtol=1e-12, atol=1e-12 * scale)


@given(affines(), points(2, 4000))
def test_identity_and_inverse(a: PixelAffine, p: Floats) -> None:
    one = PixelAffine.identity()
    assert one @ a == a
    assert a @ one == a
    assert_allclose(a.inverse()(a(p)), np.broadcast_to(p, a(p).shape), atol=PX)
    assert_allclose((a @ a.inverse()).matrix, np.broadcast_to(np.eye(3), a.matrix.shape), atol=PX)
    assert_allclose(a.inverse().matrix, np.linalg.inv(a.matrix), rtol=1e-9, atol=1e-9)


@given(affines(True), points(2, 4000))
def test_a_batch_is_a_loop_over_its_frames(a: PixelAffine, p: Floats) -> None:
    mapped = a(p)
    for i in range(len(a.sx)):
        one = a[i]
        for j, (x, y) in enumerate(p):
            assert_allclose(
                mapped[i, j], [a.sx[i] * x + a.tx[i], a.sy[i] * y + a.ty[i]], rtol=1e-15
            )
        assert_allclose(one(p), mapped[i], rtol=1e-15)
        assert_allclose(one.matrix, a.matrix[i], rtol=1e-15)


@given(affines(True))
def test_a_batched_map_of_per_frame_points(a: PixelAffine) -> None:
    n = len(a.sx)
    p = np.arange(n * 6, dtype=np.float64).reshape(n, 3, 2)
    assert_allclose(a(p), np.stack([a[i](p[i]) for i in range(n)]))


def test_a_map_without_batch_serves_every_frame() -> None:
    a = PixelAffine(2, 3, np.array([1.0, 2.0]), 0)
    assert a[1] == PixelAffine(2, 3, 2, 0)
    assert PixelAffine(2, 3, 1, 0)[7] == PixelAffine(2, 3, 1, 0)


@given(affines(), points(2, 4000))
def test_index_form_is_the_conjugate_by_half_a_pixel(a: PixelAffine, p: Floats) -> None:
    C = PixelAffine(1, 1, 0.5, 0.5)
    conjugate = C.inverse() @ a @ C
    assert_allclose(a.in_index_coordinates().matrix, conjugate.matrix, rtol=0, atol=1e-9)
    assert_allclose(
        pixels_from_index(a.in_index_coordinates()(p)), a(pixels_from_index(p)), atol=1e-9
    )


@given(sizes(), sizes())
def test_a_resize_keeps_borders_on_borders(source: Size, output: Size) -> None:
    corners = [[0, 0], [source.width, source.height]]
    expected = [[0, 0], [output.width, output.height]]
    assert_allclose(PixelAffine.resize(source, output)(corners), expected, rtol=1e-12)


def test_equality_is_by_value_and_values_are_not_hashable() -> None:
    assert PixelAffine(1, 2, 3, 4) == PixelAffine(1.0, 2.0, 3.0, 4.0)
    assert PixelAffine(1, 2, 3, 4) != PixelAffine(1, 2, 3, 5)
    assert PixelAffine(1, 2, 3, 4) != "another thing"
    batch = PixelAffine(np.ones(2), 1, 0, 0)
    assert batch == PixelAffine(np.ones(2), 1, 0, 0)
    assert batch != PixelAffine(1, 1, 0, 0)
    with pytest.raises(TypeError):
        hash(batch)
