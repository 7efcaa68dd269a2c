"""Window: a canvas centred on the principal point shows exactly what the image shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from converter.errors import ConventionError
from converter.geometry.crop import Window
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from tests.strategies import floats, intrinsics, points_in_front, windows

ROUNDING = 1e-5
"""px: canvas borders are rounded where they lie within 1e-6 of a whole pixel."""

RATIOS = floats(0.25, 4)


def borders(window: Window) -> tuple[Floats, Floats]:
    """Lower and upper corner of the canvas in image pixels, shape (n, 2) each."""
    image_from_canvas = window.canvas_from_image.inverse()
    corners = image_from_canvas([[0, 0], [window.size.width, window.size.height]])
    corners = corners.reshape(-1, 2, 2)
    return corners[:, 0], corners[:, 1]


def grown(size: Size, pixels: int) -> list[Size]:
    return [Size(size.width + pixels, size.height), Size(size.width, size.height + pixels)]


@given(windows(), points_in_front())
def test_projecting_to_the_canvas_is_mapping_the_image(
    case: tuple[Intrinsics, Window], p: Floats
) -> None:
    image, window = case
    on_canvas = np.broadcast_to(
        window.intrinsics.project(p), window.canvas_from_image(image.project(p)).shape
    )
    assert_allclose(window.canvas_from_image(image.project(p)), on_canvas, rtol=1e-12, atol=1e-6)
    product = window.intrinsics.matrix @ np.linalg.inv(image.matrix)
    assert_allclose(window.canvas_from_image.matrix, product, rtol=1e-9, atol=1e-6)


@given(windows())
def test_a_canvas_is_central_with_one_focal_length(case: tuple[Intrinsics, Window]) -> None:
    image, window = case
    k = window.intrinsics
    assert k.is_central
    assert k.fx == k.fy
    assert k.n_frames is None
    assert window.size == k.size
    mapped = image.map(window.canvas_from_image, window.size)
    assert_allclose(
        mapped.matrix, np.broadcast_to(k.matrix, mapped.matrix.shape), rtol=1e-12, atol=1e-6
    )


@given(intrinsics(inside=True), RATIOS)
def test_inside_is_the_largest_even_canvas_within_the_image(
    image: Intrinsics, ratio: float
) -> None:
    focal = ratio * float(np.max(image.fy)) + 10
    try:
        window = Window.inside(image, focal)
    except ConventionError:
        reach = min(
            np.min(focal / image.fx * np.minimum(image.cx, image.size.width - image.cx)),
            np.min(focal / image.fy * np.minimum(image.cy, image.size.height - image.cy)),
        )
        assert reach < 1  # not even one canvas pixel on either side
        return
    sides = np.array([image.size.width, image.size.height])
    low, high = borders(window)
    assert window.size.width % 2 == window.size.height % 2 == 0
    assert low.min() >= -ROUNDING
    assert (high - sides).max() <= ROUNDING
    for size in grown(window.size, 2):
        low, high = borders(Window.centred(image, size, focal))
        assert low.min() < 0 or (high - sides).max() > 0


@given(intrinsics(), RATIOS)
def test_around_is_the_smallest_even_canvas_that_keeps_the_image(
    image: Intrinsics, ratio: float
) -> None:
    focal = ratio * float(np.max(image.fy)) + 10
    window = Window.around(image, focal)
    low, high = borders(window)
    sides = np.array([image.size.width, image.size.height])
    assert window.size.width % 2 == window.size.height % 2 == 0
    assert low.max() <= ROUNDING
    assert (high - sides).min() >= -ROUNDING
    for size in grown(window.size, -2):
        low, high = borders(Window.centred(image, size, focal))
        assert low.max() > 0 or (high - sides).min() < 0


def test_native_window_of_a_known_k() -> None:
    image = Intrinsics(1000, 1000, 954.5, 531, Size(1920, 1080))
    inside, around = Window.inside(image, 1000), Window.around(image, 1000)
    assert inside.size == Size(1908, 1062)
    assert around.size == Size(1932, 1098)
    assert_allclose(inside.canvas_from_image([[954.5, 531]]), [[954, 531]])
    assert Window.inside(image, 500).size == Size(954, 530)


def test_unequal_focal_lengths_become_one() -> None:
    image = Intrinsics(1030, 1000, 256, 256, Size(512, 512))
    window = Window.centred(image, Size(450, 450), 1000)
    assert window.canvas_from_image.sx == 1000 / 1030
    assert window.canvas_from_image.sy == 1
    assert_allclose(window.canvas_from_image([[256, 256]]), [[225, 225]])


def test_k_per_frame_gets_a_map_per_frame_and_one_canvas_for_all() -> None:
    image = Intrinsics(
        np.array([1000.0, 2000]), np.array([1000.0, 2000]), np.array([250.0, 262]), 256,
        Size(512, 512),
    )  # fmt: skip
    window = Window.inside(image, 1000)
    # Frame 1 is twice as long: at half its scale it reaches 125 canvas px, and frame 0 250.
    assert window.size == Size(250, 256)
    assert window.canvas_from_image.sx.shape == (2,)
    for i in range(2):
        one = Window.centred(image[i], window.size, 1000)
        assert one.canvas_from_image == window.canvas_from_image[i]
        assert one.intrinsics == window.intrinsics
    assert Window.around(image, 1000).size == Size(524, 512)


@pytest.mark.parametrize(("cx", "cy"), [(-1, 256), (600, 256), (256, 0.5), (256, 512), (256, 513)])
@pytest.mark.parametrize("batched", [False, True])
def test_no_canvas_lies_inside_when_the_principal_point_does_not(
    cx: float, cy: float, batched: bool
) -> None:
    xs = np.array([256, cx]) if batched else cx
    image = Intrinsics(1000, 1000, xs, cy, Size(512, 512))
    with pytest.raises(ConventionError, match="principal point inside the 512x512 image"):
        Window.inside(image, 1000)
    Window.around(image, 1000)


@pytest.mark.parametrize("focal", [0.0, -1000.0, np.nan, np.inf])
def test_a_focal_length_that_is_not_positive_is_refused(focal: float) -> None:
    image = Intrinsics(1000, 1000, 256, 256, Size(512, 512))
    for make in (Window.inside, Window.around):
        with pytest.raises(ConventionError, match="positive focal length"):
            make(image, focal)
    with pytest.raises(ConventionError, match="positive focal length"):
        Window.centred(image, Size(512, 512), focal)


@pytest.mark.parametrize("cx", [np.nan, np.inf])
def test_k_that_is_not_finite_has_no_canvas(cx: float) -> None:
    image = Intrinsics(1000, 1000, cx, 256, Size(512, 512))
    for make in (Window.inside, Window.around):
        with pytest.raises(ConventionError, match="finite"):
            make(image, 1000)
