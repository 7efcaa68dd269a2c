"""Poses and rotation notations: group axioms, axis flips, and scipy as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from converter.errors import ConventionError
from converter.geometry.pixels import Floats
from converter.geometry.pose import (
    OPENCV_FROM_OPENGL,
    OPENCV_FROM_PYTORCH3D,
    Pose,
    matrix_from_rotation_6d,
    matrix_from_rotation_vector,
    rotation_6d_from_matrix,
    rotation_vector_from_matrix,
)
from tests.strategies import points, poses, rotation_vectors

FLIPS = [OPENCV_FROM_OPENGL, OPENCV_FROM_PYTORCH3D]


def assert_same(a: Pose, b: Pose, atol: float = 1e-12) -> None:
    assert_allclose(a.R, b.R, atol=atol)
    assert_allclose(a.t, b.t, atol=atol)


@given(poses(), poses(), poses())
def test_composition_is_associative(a: Pose, b: Pose, c: Pose) -> None:
    assert_same((a @ b) @ c, a @ (b @ c))


@given(poses(3))
def test_identity_and_inverse(a: Pose) -> None:
    one = Pose(np.eye(3), np.zeros(3))
    ones = Pose(np.tile(np.eye(3), (3, 1, 1)), np.zeros((3, 3)))
    assert_same(one @ a, a)
    assert_same(a @ one, a)
    assert_same(a @ a.inverse(), ones)
    assert_same(a.inverse() @ a, ones)
    assert_same(a.inverse().inverse(), a)


@given(poses(), poses(), points(3))
def test_composition_applies_right_to_left(a: Pose, b: Pose, p: Floats) -> None:
    assert_allclose((a @ b)(p), a(b(p)), atol=1e-12)


@given(poses(3), poses(3), points(3))
def test_a_batch_is_a_loop_over_its_frames(a: Pose, b: Pose, p: Floats) -> None:
    mapped, product, inverse = a(p), a @ b, a.inverse()
    assert len(a) == 3
    for i in range(3):
        for j in range(len(p)):
            x = [sum(a.R[i, r, c] * p[j, c] for c in range(3)) + a.t[i, r] for r in range(3)]
            assert_allclose(mapped[i, j], x, atol=1e-12)
        assert_same(product[i], a[i] @ b[i])
        assert_same(inverse[i], a[i].inverse())
    assert a[1:] == Pose(a.R[1:], a.t[1:])
    assert a[np.array([True, False, True])] == Pose(a.R[[0, 2]], a.t[[0, 2]])


def test_equality_and_length() -> None:
    one = Pose(np.eye(3), np.zeros(3))
    assert one == Pose(np.eye(3, dtype=np.float32), [0, 0, 0])
    assert one != Pose(np.eye(3), np.ones(3))
    assert one.R.dtype == np.float64
    with pytest.raises(TypeError):
        len(one)


@pytest.mark.parametrize(
    ("R", "t"),
    [
        (np.eye(4), np.zeros(3)),
        (np.eye(3), np.zeros(4)),
        (np.zeros((5, 3, 3)), np.zeros(3)),
        (np.zeros((5, 3, 3)), np.zeros((4, 3))),
        (np.eye(3), np.zeros((3, 1))),
        (np.zeros(9), np.zeros(3)),
    ],
)
def test_other_shapes_are_refused(R: Floats, t: Floats) -> None:
    with pytest.raises(ConventionError, match="shape"):
        Pose(R, t)


@pytest.mark.parametrize("flip", FLIPS)
def test_axis_flips_are_rotations_and_involutions(flip: Floats) -> None:
    assert_allclose(flip @ flip, np.eye(3))
    assert np.linalg.det(flip) == pytest.approx(1)


@given(poses(2), st.sampled_from(FLIPS), points(3))
def test_changing_axes_flips_the_camera_not_the_world(a: Pose, flip: Floats, p: Floats) -> None:
    flipped = a.change_axes(flip)
    assert_allclose(flipped(p), a(p) @ flip.T, atol=1e-12)
    assert_same(flipped.change_axes(flip), a)
    assert_allclose(flipped.rotation_defect(), 0, atol=1e-12)


def test_what_the_flips_mean() -> None:
    here = Pose(np.eye(3), np.zeros(3))
    right_up_ahead = np.array([[1.0, 2.0, -3.0]])  # OpenGL looks along -z
    assert_allclose(here.change_axes(OPENCV_FROM_OPENGL)(right_up_ahead), [[1, -2, 3]])
    left_up_ahead = np.array([[1.0, 2.0, 3.0]])  # pytorch3d's x points left
    assert_allclose(here.change_axes(OPENCV_FROM_PYTORCH3D)(left_up_ahead), [[-1, -2, 3]])


@given(poses(2))
def test_rotations_pass(a: Pose) -> None:
    assert_allclose(a.rotation_defect(), 0, atol=1e-12)
    a.require_rotation("pose", 1e-12)


@pytest.mark.parametrize(
    ("R", "message"),
    [
        (np.diag([1.0, 1.0, -1.0]), "mirrored"),
        (1.01 * np.eye(3), r"\|R R\^T - I\| = 0.02"),
        (np.zeros((3, 3)), "mirrored"),
        (np.full((3, 3), np.nan), "NaN"),
        (np.diag([np.inf, 1, 1]), "NaN or infinity"),
        (1e200 * Rotation.from_rotvec([1, 2, 3]).as_matrix(), r"entries up to 9.3e\+199"),
        (np.array([[1, 0.01, 0], [0, 1, 0], [0, 0, 1]]), "0.01"),
    ],
)
def test_what_is_no_rotation_is_refused(R: Floats, message: str) -> None:
    good = np.eye(3)
    with pytest.raises(ConventionError, match=message):
        Pose(np.stack([good, R]), np.zeros((2, 3))).require_rotation("here")


def test_a_translation_must_be_finite() -> None:
    with pytest.raises(ConventionError, match="^here: expected finite R and t"):
        Pose(np.eye(3), [0, np.nan, 0]).require_rotation("here")


@given(st.lists(rotation_vectors(), min_size=1, max_size=4).map(np.array))
def test_rotation_vectors_agree_with_scipy(vectors: Floats) -> None:
    matrices = Rotation.from_rotvec(vectors).as_matrix()
    assert_allclose(matrix_from_rotation_vector(vectors), matrices, atol=1e-14)
    ours = rotation_vector_from_matrix(matrices)
    assert np.all(np.linalg.norm(ours, axis=-1) <= np.pi + 1e-15)
    assert_allclose(Rotation.from_rotvec(ours).as_matrix(), matrices, atol=1e-14)
    for i in range(len(vectors)):
        assert_allclose(ours[i], rotation_vector_from_matrix(matrices[i]), rtol=0, atol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-300, 1e-13, 1e-9, 1e-4, 3.0, np.pi - 1e-9, np.pi])
@pytest.mark.parametrize(
    "axis", [(1, 0, 0), (0, 1, 0), (0, 0, -1), (1, 1, 1), (-1, 2, -3), (0, -1, 1e-9)]
)
def test_rotation_vectors_at_the_special_angles(axis: tuple[float, ...], angle: float) -> None:
    vector = angle * np.array(axis) / np.linalg.norm(axis)
    R = matrix_from_rotation_vector(vector)
    assert_allclose(R, Rotation.from_rotvec(vector).as_matrix(), atol=2e-16 * 8)
    back = rotation_vector_from_matrix(R)
    if angle == np.pi and back @ vector < 0:
        back = -back  # both ends of a half turn's axis are right
    # Near the half turn 1e-16 in R may cross it, which turns the axis around.
    assert_allclose(back, vector, rtol=1e-13, atol=1e-15)


def test_angles_beyond_the_half_turn_come_back_the_short_way() -> None:
    back = rotation_vector_from_matrix(matrix_from_rotation_vector([0, 0, 4.0]))
    assert_allclose(back, [0, 0, 4.0 - 2 * np.pi], atol=1e-14)


@given(poses(3))
def test_6d_rows_round_trip(a: Pose) -> None:
    rows = rotation_6d_from_matrix(a.R)
    assert rows.shape == (3, 6)
    assert_allclose(matrix_from_rotation_6d(rows), a.R, atol=1e-14)
    for i in range(3):
        assert_allclose(rows[i], [*a.R[i, 0], *a.R[i, 1]], rtol=0)


@given(poses())
def test_6d_read_as_columns_is_the_inverse_rotation(a: Pose) -> None:
    b1, b2 = np.split(rotation_6d_from_matrix(a.R), 2)
    as_columns = np.stack([b1, b2, np.cross(b1, b2)], axis=-1)
    assert_allclose(as_columns, a.inverse().R, atol=1e-14)


@given(poses(2), st.floats(0.1, 10), st.floats(0.1, 10), st.floats(-5, 5))
def test_6d_is_made_orthonormal(a: Pose, s1: float, s2: float, shear: float) -> None:
    first, second = a.R[:, 0], a.R[:, 1]
    rows = np.concatenate([s1 * first, s2 * second + shear * first], axis=-1)
    matrices = matrix_from_rotation_6d(rows)
    assert_allclose(matrices, a.R, atol=1e-12)
    for row, matrix in zip(rows, matrices, strict=True):
        b1 = row[:3] / np.sqrt(sum(x * x for x in row[:3]))
        b2 = row[3:] - sum(x * y for x, y in zip(b1, row[3:], strict=True)) * b1
        b2 = b2 / np.sqrt(sum(x * x for x in b2))
        assert_allclose(matrix, [b1, b2, np.cross(b1, b2)], atol=1e-13)


@pytest.mark.parametrize("rows", [np.zeros(6), [1, 0, 0, 2, 0, 0], [0, 0, 0, 0, 1, 0]])
def test_6d_that_spans_no_plane_is_nan_and_then_refused(rows: Floats) -> None:
    pose = Pose(matrix_from_rotation_6d(rows), np.zeros(3))
    assert np.isnan(pose.R).any()
    with pytest.raises(ConventionError):
        pose.require_rotation("camera.R")
