"""Values for property tests, built from few plain numbers so that failures shrink to small ones."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from converter.geometry.crop import BBox, Crop, Window
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.geometry.pose import Pose
from converter.track import Flame, Track

T = TypeVar("T")

N_MOST = 4
"""Most frames of a batch: laws do not need more."""


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Finite floats of [low, high] that shrink to short ones, never subnormal."""
    return st.floats(low, high, allow_nan=False, allow_subnormal=False, width=64)


def sizes(low: int = 2, high: int = 4096) -> st.SearchStrategy[Size]:
    """Image sizes; two pixels are the least that the tracker can cut from."""
    return st.builds(Size, st.integers(low, high), st.integers(low, high))


@st.composite
def _intervals(draw: st.DrawFn, side: int) -> tuple[int, int]:
    """Borders inside, on and beyond [0, side], such that the tracker's cut is not empty."""
    low = draw(st.sampled_from([0, side - 2]) | st.integers(-60, side - 2))
    first = max(low, 0) + 1
    borders = [b for b in (side - 1, side) if b >= first]
    return low, draw(st.sampled_from(borders) | st.integers(first, side + 60))


@st.composite
def bboxes(draw: st.DrawFn, source: Size) -> BBox:
    """Boxes with odd and even extents, touching the borders of ``source`` and beyond them."""
    x_min, x_max = draw(_intervals(source.width))
    y_min, y_max = draw(_intervals(source.height))
    return BBox(x_min, x_max, y_min, y_max)


@st.composite
def crops(draw: st.DrawFn) -> Crop:
    """The tracker's crops at the usual sizes and at others."""
    source = draw(sizes())
    side = draw(st.sampled_from([512, 256, 1024]) | st.integers(1, 1024))
    return Crop.from_bbox(draw(bboxes(source)), source, Size(side, side))


def _maybe_batched(
    draw: st.DrawFn, numbers: list[st.SearchStrategy[float]], batched: bool | None
) -> list[float] | list[Floats]:
    """One draw of each number, or an array of n draws of each."""
    if batched is None:
        batched = draw(st.booleans())
    if not batched:
        return [draw(s) for s in numbers]
    rows = draw(st.lists(st.tuples(*numbers), min_size=1, max_size=N_MOST))
    return list(np.array(rows).T)


@st.composite
def affines(draw: st.DrawFn, batched: bool | None = None) -> PixelAffine:
    """Maps between images; ``batched`` None draws either kind."""
    scale, shift = floats(0.1, 10), floats(-4000, 4000)
    return PixelAffine(*_maybe_batched(draw, [scale, scale, shift, shift], batched))


@st.composite
def intrinsics(
    draw: st.DrawFn,
    size: Size | None = None,
    batched: bool | None = None,
    inside: bool = False,
) -> Intrinsics:
    """K of ``size`` (or of a drawn one); ``inside`` keeps the principal point in the middle half.

    ``batched`` None draws either one K or one per frame.
    """
    size = size or draw(sizes(16))
    margin = 0.25 if inside else -0.5
    numbers = [
        floats(100, 20000),
        floats(100, 20000),
        floats(margin * size.width, (1 - margin) * size.width),
        floats(margin * size.height, (1 - margin) * size.height),
    ]
    return Intrinsics(*_maybe_batched(draw, numbers, batched), size)


@st.composite
def rotation_vectors(draw: st.DrawFn) -> Floats:
    """Axis times angle: a third near identity, a third near the half turn, a third anywhere."""
    axis = np.array([draw(floats(-1, 1)) for _ in range(3)])
    length = float(np.linalg.norm(axis))
    axis = axis / length if length > 1e-3 else np.array([1.0, 0.0, 0.0])
    small = floats(0, 1e-3)
    angle = draw(small | floats(0, np.pi) | small.map(lambda a: np.pi - a))
    return np.asarray(axis * angle, dtype=np.float64)


@st.composite
def poses(draw: st.DrawFn, n: int | None = None) -> Pose:
    """One pose, or a batch of ``n``; the rotations come from scipy, not from us."""
    vectors = np.array([draw(rotation_vectors()) for _ in range(n or 1)])
    t = np.array([[draw(floats(-2, 2)) for _ in range(3)] for _ in range(n or 1)])
    R = Rotation.from_rotvec(vectors).as_matrix()
    return Pose(R, t) if n else Pose(R[0], t[0])


def points_in_front(low: int = 1, high: int = 5) -> st.SearchStrategy[Floats]:
    """Camera-space points (P, 3), metres, in front of the camera."""
    point = st.tuples(floats(-1, 1), floats(-1, 1), floats(0.25, 10))
    return st.lists(point, min_size=low, max_size=high).map(np.array)


def points(n_axes: int, reach: float = 10.0) -> st.SearchStrategy[Floats]:
    """Points (P, n_axes) anywhere within ``reach``."""
    point = st.tuples(*[floats(-reach, reach)] * n_axes)
    return st.lists(point, min_size=1, max_size=5).map(np.array)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Intrinsics, Window]:
    """An image's intrinsics and some canvas centred on its principal point."""
    image = draw(intrinsics())
    return image, Window.centred(image, draw(sizes(1)), draw(floats(50, 40000)))


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    """Tracks with gaps in their frame ids, in the crop's image space, crop and source known."""
    ids = sorted(draw(st.sets(st.integers(0, 50), min_size=1, max_size=N_MOST)))
    n = len(ids)
    crop = draw(crops())
    k = draw(intrinsics(size=crop.output, batched=False))
    if draw(st.booleans()):
        k = Intrinsics(np.full(n, k.fx), k.fy, np.full(n, k.cx), k.cy, k.size)
    return Track(
        name="track",
        frame_ids=np.array(ids, dtype=np.int64),
        w2c=draw(poses(n)),
        intrinsics=k,
        image_space="crop",
        crop=crop,
        source_indices=np.array(ids, dtype=np.int64) + 1,
        flame=Flame(shape=np.zeros(300), expression=np.zeros((n, 100))),
    )
