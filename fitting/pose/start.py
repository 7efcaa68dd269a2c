"""Where a fit starts: the reference's frontal camera, or a robust scaled-orthographic pose."""

from __future__ import annotations

import numpy as np

from converter.geometry import OPENCV_FROM_OPENGL, Pose
from converter.geometry.pixels import Floats
from fitting.pose.problem import Problem
from fitting.pose.state import State

_ROUNDS = 8
_LEAST_DISTANCE = 1e-3  # NDC; keeps weights finite at points that are hit


def frontal(focal_ndc: Floats) -> Pose:
    """Return the reference's start: 1 m away at 20 degrees of fov, in proportion elsewhere."""
    n = len(focal_ndc)
    t = np.zeros((n, 3))
    t[:, 2] = np.tan(np.radians(10.0)) * focal_ndc
    return Pose(np.broadcast_to(OPENCV_FROM_OPENGL, (n, 3, 3)).copy(), t)


def robust_posit(problem: Problem) -> State:
    """Poses from iterated affine cameras, (N,) frames at once; no start needed.

    POSIT (DeMenthon and Davis 1995): with ``w = Z/z`` known, ``w y = f/z (r1 | r2) X + ...`` is
    linear. Rounds alternate the linear solve, its rotation (polar decomposition), ``w``, and
    weights ``1/distance`` that take the power from outliers (the affine problem is convex, so far
    outliers cannot trap it). Ears do not take part: their side is not known yet.
    """
    p = problem.n_points
    n = len(problem)
    offsets = problem.offsets[:, :, :p]
    scale = offsets.std() + 1e-12
    design = np.concatenate([offsets / scale, np.ones((len(offsets), 1, p))], axis=1)
    seen = problem.targets[:, :, :p] / problem.focal[:, :, None]
    own = problem.weights[:, :p]
    depth_ratio = np.ones((n, p))
    weights = own.copy()
    R = np.broadcast_to(OPENCV_FROM_OPENGL, (n, 3, 3)).copy()
    inverse_z = np.ones(n)
    shift = np.zeros((n, 2))
    ridge = np.eye(4) * 1e-9
    for _ in range(_ROUNDS):
        weighted = design * weights[:, None]
        gram = weighted @ np.swapaxes(np.broadcast_to(design, (n, 4, p)), 1, 2)
        gram = gram + ridge * (np.trace(gram, axis1=1, axis2=2)[:, None, None] + 1e-300)
        lifted = seen * depth_ratio[:, None]
        affine = np.linalg.solve(gram, weighted @ np.swapaxes(lifted, 1, 2))
        matrix = np.swapaxes(affine[:, :3], 1, 2) / scale
        shift = affine[:, 3]
        R, inverse_z = _nearest_rotation(matrix)
        predicted = inverse_z[:, None, None] * (R[:, :2] @ offsets) + shift[..., None]
        depth_ratio = np.maximum(1 + inverse_z[:, None] * (R[:, 2:] @ offsets)[:, 0], 0.1)
        distance = np.linalg.norm(predicted / depth_ratio[:, None] - seen, axis=1)
        weights = own / np.maximum(distance * problem.focal.mean(axis=1)[:, None], _LEAST_DISTANCE)
    place = np.concatenate([shift, -np.log(inverse_z)[:, None]], axis=1)
    return State(R, place, np.zeros(n))


def _nearest_rotation(matrix: Floats) -> tuple[Floats, Floats]:
    """Rotation (N, 3, 3) and scale (N,) whose first two rows come nearest to ``matrix`` (N, 2, 3).

    Rows of the polar factor ``(M M^T)^(-1/2) M``; the square root of a 2x2 matrix is
    ``(G + sqrt(det G) I) / trace of the root``. Rows that span no plane give the frontal pose.
    """
    gram = matrix @ np.swapaxes(matrix, 1, 2)
    determinant = gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2
    trace = gram[:, 0, 0] + gram[:, 1, 1]
    flat = ~(determinant > 1e-12 * trace**2)
    s = np.sqrt(np.where(flat, 1.0, determinant))
    t = np.sqrt(np.where(flat, 4.0, trace + 2 * s))
    root = (gram + s[:, None, None] * np.eye(2)) / t[:, None, None]
    root[flat] = np.eye(2)
    rows = np.linalg.solve(root, matrix)
    rows[flat] = OPENCV_FROM_OPENGL[:2]
    third = np.cross(rows[:, 0], rows[:, 1])
    size = np.where(flat, np.sqrt(np.maximum(trace, 1e-12)), t / 2)
    return np.concatenate([rows, third[:, None]], axis=1), size
