"""The reference's own schedule, flame-head-tracker v4.1's, to compare with: Adam, 1500 iterations.

``run_rigid_camera_pose_fitting`` (tracker_base.py, lines 587-719): the camera's rotation vector and
centre (camera-to-world, OpenGL axes) and the fov move as offsets from a frontal start; Adam with
coupled weight decay on the offsets, learning rate 0.05, then 0.005 from iteration 1000; smoothing
from iteration 601; fov clamped, with no gradient while it is; the last iterate is the answer.

Two things differ on purpose: landmarks that are missing are masked, and a landmark that is hit
exactly has gradient 0. Either turns the original into NaN.
"""

from __future__ import annotations

import numpy as np

from converter.geometry import (
    OPENCV_FROM_OPENGL,
    Pose,
    matrix_from_rotation_vector,
    rotation_vector_from_matrix,
)
from converter.geometry.pixels import Floats
from fitting.pose.lm import Solution
from fitting.pose.problem import Problem
from fitting.pose.state import State, right_jacobian
from fitting.pose.terms import Coupling, weights_at

ITERATIONS = 1500
_SLOWER_AT, _FAST, _SLOW = 1000, 0.05, 0.005
_SMOOTHING_AFTER = 600
_WEIGHT_DECAY = 1e-5
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


def fov_deg_of(focal_ndc: Floats) -> Floats:
    """Full angle that the shorter side subtends about the image centre, degrees."""
    fov: Floats = 2 * np.degrees(np.arctan(1 / focal_ndc))
    return fov


def focal_ndc_of(fov_deg: Floats) -> Floats:
    """Focal length in NDC, the reverse of `fov_deg_of`."""
    focal: Floats = 1 / np.tan(np.radians(fov_deg) / 2)
    return focal


def reference_schedule(
    problem: Problem,
    start: Pose,
    focal: str,
    limits_deg: tuple[float, float],
    coupling: Coupling | None = None,
    iterations: int = ITERATIONS,
) -> Solution:
    """Run the schedule; the trace is in the solution's history, one value per iteration and term.

    Parameters
    ----------
    problem, coupling
        As the other solver takes them; the coupling has to be the camera's.
    start
        World-to-camera poses to start from; the reference's is `fitting.pose.start.frontal`.
    focal
        ``"fixed"``, ``"shared"`` or ``"free"``.
    limits_deg
        Clamp of the fov; the reference's is (10, 50).
    iterations
        Fewer than 1500 for tests.

    """
    first = _packed(start, fov_deg_of(problem.focal.mean(axis=1)))
    offsets = np.zeros((len(problem), 7))
    mean, square = np.zeros_like(offsets), np.zeros_like(offsets)
    moving = np.ones(7) if focal != "fixed" else np.array([1.0] * 6 + [0.0])
    history: dict[str, list[float]] = {}
    for k in range(iterations):
        smoothing = coupling if k > _SMOOTHING_AFTER else None
        terms, gradient = _gradient(problem, first + offsets, limits_deg, smoothing)
        for name, value in terms.items():
            history.setdefault(name, []).append(value)
        gradient *= problem.fittable[:, None]
        if focal == "shared":
            gradient[:, 6] = gradient[:, 6].sum()
        gradient = (gradient + _WEIGHT_DECAY * offsets) * moving
        mean += (1 - _BETA_1) * (gradient - mean)
        square += (1 - _BETA_2) * (gradient * gradient - square)
        rate = (_FAST if k < _SLOWER_AT else _SLOW) / (1 - _BETA_1 ** (k + 1))
        offsets -= rate * mean / (np.sqrt(square / (1 - _BETA_2 ** (k + 1))) + _EPSILON)
    state = _state(problem, first + offsets, limits_deg)
    n = len(problem)
    return Solution(
        state,
        np.where(problem.fittable, iterations, 0).astype(np.int64),
        np.zeros(n, dtype=bool),
        history,
    )


def _packed(w2c: Pose, fov_deg: Floats) -> Floats:
    """(N, 7): rotation vector, camera centre, fov in degrees."""
    c2w = w2c.inverse()
    w = rotation_vector_from_matrix(c2w.R @ OPENCV_FROM_OPENGL)
    return np.concatenate([w, c2w.t, fov_deg[:, None]], axis=1)


def _state(problem: Problem, packed: Floats, limits_deg: tuple[float, float]) -> State:
    R = OPENCV_FROM_OPENGL @ np.swapaxes(matrix_from_rotation_vector(packed[:, :3]), 1, 2)
    t = -(R @ packed[:, 3:6, None])[..., 0]
    clamped = np.clip(packed[:, 6], *limits_deg)
    log_f = np.log(focal_ndc_of(clamped) / focal_ndc_of(fov_deg_of(problem.focal.mean(axis=1))))
    return State.of(Pose(R, t), problem.centre, log_f)


def _gradient(
    problem: Problem,
    packed: Floats,
    limits_deg: tuple[float, float],
    coupling: Coupling | None,
) -> tuple[dict[str, float], Floats]:
    """Objective by term, and its gradient (N, 7) by rotation vector, centre and fov in degrees."""
    w, centre, fov = packed[:, :3], packed[:, 3:6], packed[:, 6]
    R_gl = matrix_from_rotation_vector(w)
    R = OPENCV_FROM_OPENGL @ np.swapaxes(R_gl, 1, 2)
    clamped = np.clip(fov, *limits_deg)
    start_focal = problem.focal.mean(axis=1)
    ratio = focal_ndc_of(clamped) / start_focal
    scale = problem.focal * ratio[:, None]
    h = (R @ (problem.centre - centre)[..., None])[..., 0]
    p = R @ problem.offsets + h[..., None]
    inverse_z = 1 / (p[:, 2] + 1e-8)
    x, y = p[:, 0] * inverse_z, p[:, 1] * inverse_z
    counts = problem.weights > 0
    dx = (scale[:, :1] * x - problem.targets[:, 0]) * counts
    dy = (scale[:, 1:] * y - problem.targets[:, 1]) * counts
    distance = np.sqrt(dx * dx + dy * dy)
    state = State(R, np.zeros((len(R), 3)), np.zeros(len(R)))  # ears ask for the rotation only
    weights = weights_at(problem, state, distance)
    terms = _sums(problem, weights * distance)

    pull = weights / np.where(distance > 0, distance, 1.0)  # 0 at a hit: dx = dy = 0 there
    gx, gy = pull * dx, pull * dy
    fx, fy = gx * scale[:, :1] * inverse_z, gy * scale[:, 1:] * inverse_z
    g = np.stack([fx, fy, -(fx * x + fy * y)], axis=1)  # by camera-space points, (N, 3, Q)
    total = g.sum(axis=2)
    # Right perturbation R_gl exp(d) turns camera-space points by exp(-D d), D = OpenCV from OpenGL.
    turn = np.stack(
        [
            (g[:, 1] * p[:, 2] - g[:, 2] * p[:, 1]).sum(axis=1),
            (g[:, 2] * p[:, 0] - g[:, 0] * p[:, 2]).sum(axis=1),
            (g[:, 0] * p[:, 1] - g[:, 1] * p[:, 0]).sum(axis=1),
        ],
        axis=1,
    )
    d_rotation = (np.swapaxes(right_jacobian(w), 1, 2) @ (turn @ OPENCV_FROM_OPENGL)[..., None])[
        ..., 0
    ]
    d_centre = -(total[:, None] @ R)[:, 0]
    d_log_f = (gx * scale[:, :1] * x + gy * scale[:, 1:] * y).sum(axis=1)
    inside = (fov >= limits_deg[0]) & (fov <= limits_deg[1])
    d_fov = -d_log_f * np.radians(1.0) / np.sin(np.radians(clamped)) * inside
    gradient = np.concatenate([d_rotation, d_centre, d_fov[:, None]], axis=1)
    if coupling is not None:
        terms["smoothing"] = _add_smoothing(packed, coupling, gradient)
    return terms, gradient


def _sums(problem: Problem, weighted: Floats) -> dict[str, float]:
    per_point = problem.fittable @ weighted
    terms = {g.name: float(per_point[list(g.indices)].sum()) for g in problem.groups}
    if problem.ears is not None:
        terms["ears"] = float(per_point[problem.n_points :].sum())
    return terms


def _add_smoothing(packed: Floats, coupling: Coupling, gradient: Floats) -> float:
    """Energy of the camera's steps, on the raw rotation vectors; adds to ``gradient``."""
    steps = packed[coupling.first + 1, :6] - packed[coupling.first, :6]
    pull = 2 * coupling.weights * steps
    gradient[coupling.first, :6] -= pull
    gradient[coupling.first + 1, :6] += pull
    return float((coupling.weights * steps**2).sum())
