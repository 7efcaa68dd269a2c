"""Track: the two ways between crop and source, and what it refuses to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from converter.errors import ConventionError, MissingInputError
from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import Pose
from converter.track import Flame, Provenance, Track
from tests.strategies import points_in_front, tracks

SQUARE = Size(512, 512)
HD = Size(1920, 1080)
N = 3


def make_track() -> Track:
    return Track(
        name="anna",
        frame_ids=np.array([0, 2, 5]),
        w2c=Pose(np.tile(np.diag([1.0, -1, -1]), (N, 1, 1)), np.tile([0.0, 0, 1.8], (N, 1))),
        intrinsics=Intrinsics(2339, 2339, 255, 250, SQUARE),
        image_space="crop",
        crop=Crop.from_bbox(BBox(398, 1522, 1, 1079), HD, SQUARE),
        source_indices=np.array([1, 3, 6]),
        landmarks=np.full((N, 68, 2), np.nan),
    )


@given(tracks())
def test_to_the_source_and_back(track: Track) -> None:
    assert track.crop is not None
    assert track.crop.source is not None
    there = track.in_source()
    assert there.image_space == "source"
    assert there.intrinsics.size == track.crop.source
    assert there.w2c is track.w2c
    back = there.in_crop()
    assert back.image_space == "crop"
    assert back.intrinsics.size == track.intrinsics.size
    atol = 1e-9 * 4096 * max(1.0, track.crop.crop_from_source.sx, track.crop.crop_from_source.sy)
    assert_allclose(back.intrinsics.matrix, track.intrinsics.matrix, rtol=1e-9, atol=atol)


@given(tracks(), points_in_front())
def test_what_is_seen_moves_with_the_image(track: Track, p: Floats) -> None:
    assert track.crop is not None
    there = track.in_source()
    for i in range(len(track)):
        world = track.w2c[i].inverse()(p)
        seen = track.crop.crop_from_source(there.project(i, world))
        assert_allclose(seen, track.project(i, world), rtol=1e-9, atol=1e-6)


@given(tracks())
def test_k_cannot_be_mapped_twice(track: Track) -> None:
    assert track.in_crop() is track
    there = track.in_source()
    assert there.in_source() is there


@given(tracks())
def test_drawn_tracks_are_consistent_in_both_spaces(track: Track) -> None:
    track.require_consistent()
    track.in_source().require_consistent()


def test_source_k_of_a_known_crop() -> None:
    k = make_track().in_source().intrinsics
    assert (k.fx, k.cx, k.cy) == pytest.approx((5134.8359, 957.8047, 526.8281), abs=5e-5)


def test_times_follow_the_source_and_not_the_ids() -> None:
    times = make_track().times
    assert times is not None
    assert_allclose(times, [0.04, 0.12, 0.24])
    assert replace(make_track(), source_indices=None).times is None


def test_without_a_crop_there_is_no_way_across() -> None:
    track = replace(make_track(), crop=None)
    track.require_consistent()
    with pytest.raises(MissingInputError, match=r"^anna: expected the crop .* Give --bbox"):
        track.in_source()
    with pytest.raises(MissingInputError, match="bbox"):
        replace(track, image_space="source").in_crop()


def test_without_the_sources_size_there_is_no_source_k_but_a_crop_k() -> None:
    track = make_track()
    unsized = Crop.from_bbox(BBox(398, 1522, 1, 1079), None, SQUARE)
    with pytest.raises(MissingInputError, match="Give --source"):
        replace(track, crop=unsized).in_source()
    mapped = replace(track.in_source(), crop=unsized).in_crop()
    assert_allclose(mapped.intrinsics.matrix, track.intrinsics.matrix, rtol=1e-12)


def test_k_of_an_image_of_another_size_is_not_mapped() -> None:
    track = make_track()
    other = replace(track.intrinsics, size=Size(256, 256))
    with pytest.raises(ConventionError, match="expected K of the 512x512 crop, found K of a 256x"):
        replace(track, intrinsics=other).in_source()
    source = replace(track.in_source().intrinsics, size=Size(1080, 1920))
    with pytest.raises(ConventionError, match="expected K of the 1920x1080 source"):
        replace(track, intrinsics=source, image_space="source").in_crop()


class Counted:
    """Stands for images or meshes, of which only the number is asked."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


def poses(n: int, R: Floats | None = None, t: float = 1.8) -> Pose:
    return Pose(np.tile(np.eye(3) if R is None else R, (n, 1, 1)), np.full((n, 3), t))


K = make_track().intrinsics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_ids": np.zeros(0, np.int64)}, "anna: expected at least one frame"),
        ({"frame_ids": np.array([0, 1])}, "anna: w2c: expected 2 frames, found 3"),
        ({"frame_ids": np.array([2, 1, 3])}, "frame_ids: expected ascending ids"),
        ({"frame_ids": np.array([1, 1, 3])}, "frame_ids: expected ascending ids"),
        ({"w2c": poses(4)}, "w2c: expected 3 frames, found 4"),
        ({"w2c": Pose(np.eye(3), np.zeros(3))}, "w2c: expected one pose per frame"),
        ({"w2c": poses(3, np.diag([1.0, 1, -1]))}, "mirrored"),
        ({"w2c": poses(3, 1.1 * np.eye(3))}, "rotation matrix within 0.001"),
        ({"w2c": poses(3, t=np.nan)}, "finite R and t"),
        ({"intrinsics": replace(K, fx=np.full(4, 2339.0))}, "intrinsics: expected 3 frames"),
        ({"intrinsics": replace(K, cx=np.nan)}, "finite numbers"),
        ({"intrinsics": replace(K, fx=np.array([1.0, np.inf, 1]))}, "finite numbers"),
        ({"intrinsics": replace(K, fy=-2339)}, "focal lengths > 0"),
        ({"intrinsics": replace(K, fx=np.array([1.0, 0, 1]))}, "focal lengths > 0"),
        ({"intrinsics": replace(K, size=HD)}, "K of the 512x512 crop"),
        ({"image_space": "source"}, "K of the 1920x1080 source"),
        ({"source_indices": np.arange(2)}, "source_indices: expected 3 frames, found 2"),
        ({"landmarks": np.zeros((2, 68, 2))}, "landmarks: expected 3 frames"),
        ({"dense_landmarks": np.zeros((4, 478, 2))}, "dense_landmarks: expected 3 frames"),
        ({"meshes": Counted(2)}, "meshes: expected 3 frames"),
        ({"crop_frames": Counted(2)}, "crop_frames: expected 3 frames"),
        ({"source_frames": Counted(4)}, "source_frames: expected 3 frames"),
        ({"flame": Flame(expression=np.zeros((2, 100)))}, "flame.expression: expected 3 frames"),
        ({"flame": Flame(jaw=np.zeros((1, 6)))}, "flame.jaw: expected 3 frames"),
        ({"flame": Flame(eyelids=np.zeros((0, 2)))}, "flame.eyelids: expected 3 frames"),
    ],
)
def test_parts_that_disagree_are_refused(change: dict[str, Any], message: str) -> None:
    make_track().require_consistent()
    with pytest.raises(ConventionError, match=message):
        replace(make_track(), **change).require_consistent()


@pytest.mark.parametrize(
    "change",
    [
        {"intrinsics": replace(K, cx=np.array([254.0, 255, 256]))},
        {"flame": Flame(shape=np.zeros(300), texture=np.zeros(140), jaw=np.zeros((3, 6)))},
        {"source_indices": None, "landmarks": None},
        {"crop": None},
        {"meshes": Counted(3), "crop_frames": Counted(3), "source_frames": Counted(3)},
    ],
)
def test_parts_that_agree_are_accepted(change: dict[str, Any]) -> None:
    replace(make_track(), **change).require_consistent()


def test_a_hostile_name_does_not_reach_the_terminal() -> None:
    track = replace(make_track(), name="\x1b[2J", crop=None)
    checks: list[Callable[[], object]] = [
        track.in_source,
        replace(track, frame_ids=np.zeros(0, np.int64)).require_consistent,
    ]
    for check in checks:
        with pytest.raises((ConventionError, MissingInputError)) as caught:
            check()
        assert str(caught.value).isprintable()


def test_defaults() -> None:
    track = make_track()
    assert len(track) == N
    assert track.provenance == Provenance("unknown")
    assert track.flame == Flame()
    assert track.native == {}
    assert track.findings == ()
