"""Residuals, weights and derivatives of a fit: every term of the objective, one function each.

Distances are smoothed to ``sqrt(d^2 + eps^2) - eps`` (pseudo-Huber), so that one family covers the
reference's unsquared norm (eps towards 0), a Huber loss (a fixed eps) and, with ``eps = None``,
half the square.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from converter.geometry import rotation_vector_from_matrix
from converter.geometry.pixels import Floats
from fitting.pose.blocks import Band
from fitting.pose.problem import Bools, CameraSmoothing, Ears, Ints, Problem
from fitting.pose.state import State, inverse_right_jacobian, skew

Eps: TypeAlias = NDArray[np.float64] | None
"""(N,) NDC per frame, or None for half the squared distance."""

_OPENCV_FROM_OPENGL = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Head points as the cameras see them.

    Attributes
    ----------
    turned
        (N, 3, Q) offsets from the head's centre in camera axes, metres.
    h
        (N, 3) that centre, metres.
    x, y
        (N, Q) X/Z and Y/Z.
    inverse_z
        (N, Q) 1/Z.
    scale
        (N, 2) focal lengths, NDC.
    dx, dy
        (N, Q) projected less seen, NDC; 0 where masked.
    in_front
        (N,) whether all points that count lie in front of the camera.

    """

    turned: Floats
    h: Floats
    x: Floats
    y: Floats
    inverse_z: Floats
    scale: Floats
    dx: Floats
    dy: Floats
    in_front: Bools

    @property
    def distance(self) -> Floats:
        """(N, Q) Euclidean distances, NDC."""
        d: Floats = np.sqrt(self.dx * self.dx + self.dy * self.dy)
        return d


def view(problem: Problem, state: State) -> View:
    """Project all points."""
    turned = np.matmul(state.R, problem.offsets)
    h = state.position
    z = turned[:, 2] + h[:, 2:]
    counts = problem.weights > 0
    ok = z > 1e-3 * h[:, 2:]
    in_front = (ok | ~counts).all(axis=1)
    inverse_z = 1.0 / np.where(ok, z, h[:, 2:])
    x, y = (turned[:, 0] + h[:, :1]) * inverse_z, (turned[:, 1] + h[:, 1:2]) * inverse_z
    scale = problem.focal * np.exp(state.log_f)[:, None]
    dx = (scale[:, :1] * x - problem.targets[:, 0]) * counts
    dy = (scale[:, 1:] * y - problem.targets[:, 1]) * counts
    return View(turned, h, x, y, inverse_z, scale, dx, dy, in_front)


def cost(distance: Floats, weights: Floats, eps: Eps) -> Floats:
    """Weighted sum of smoothed distances per frame, (N,)."""
    squares = distance * distance
    if eps is None:
        half_squares: Floats = 0.5 * np.einsum("np,np->n", weights, squares)
        return half_squares
    e = eps[:, None]
    smoothed: Floats = squares / (np.sqrt(squares + e * e) + e)
    return np.asarray(np.einsum("np,np->n", weights, smoothed))


def derivatives(state: State, seen: View, weights: Floats, eps: Eps) -> tuple[Floats, Floats]:
    """Gradient (N, 7) and Gauss-Newton Hessian (N, 7, 7) of `cost`.

    The Hessian takes the curvature of the smoothed distance as it is, not IRLS's bound on it: along
    the residual ``w eps^2 / rho^3``, across it ``w / rho``. Both are positive, and near the answer
    steps converge quadratically where IRLS halves the error.
    """
    dx, dy = seen.dx, seen.dy
    distance = seen.distance
    hit = distance < 1e-300
    safe = np.where(hit, 1.0, distance)
    nx, ny = np.where(hit, 1.0, dx / safe), dy / safe
    if eps is None:
        across = along = np.sqrt(weights)
        pull = along * distance
    else:
        e = eps[:, None]
        rho = np.sqrt(distance * distance + e * e)
        across = np.sqrt(weights / rho)
        along = across * (e / rho)
        pull = np.sqrt(weights * rho) * distance / e
    n, q = dx.shape
    rows = np.empty((n, N_ROWS, 2 * q))
    _rows(seen, state, -ny * across, nx * across, rows[:, :, :q])
    _rows(seen, state, nx * along, ny * along, rows[:, :, q:])
    hessian = np.matmul(rows, np.swapaxes(rows, 1, 2))
    gradient = np.matmul(rows[:, :, q:], pull[..., None])[..., 0]
    return gradient, hessian


N_ROWS = 7


def _rows(seen: View, state: State, u: Floats, v: Floats, out: Floats) -> None:
    """Write d(u du + v dv) by the seven parameters, (N, 7, Q); see `fitting.pose.state`."""
    px, py, pz = seen.turned[:, 0], seen.turned[:, 1], seen.turned[:, 2]
    a = u * seen.scale[:, :1] * seen.inverse_z
    b = v * seen.scale[:, 1:] * seen.inverse_z
    c = a * seen.x + b * seen.y
    z = seen.h[:, 2:]
    out[:, 0] = -c * py - b * pz
    out[:, 1] = c * px + a * pz
    out[:, 2] = b * px - a * py
    out[:, 3] = a * z
    out[:, 4] = b * z
    out[:, 5] = a * seen.h[:, :1] + b * seen.h[:, 1:2] - c * z
    out[:, 6] = out[:, 5] + c / seen.inverse_z


def jacobian(problem: Problem, state: State) -> Floats:
    """Derivatives of the residuals (dx, dy) by the parameters: (N, 7, 2, Q)."""
    seen = view(problem, state)
    counts = (problem.weights > 0).astype(np.float64)
    out = np.empty((len(state), N_ROWS, 2, counts.shape[1]))
    _rows(seen, state, counts, np.zeros_like(counts), out[:, :, 0])
    _rows(seen, state, np.zeros_like(counts), counts, out[:, :, 1])
    return out


def yaw_pitch(R: Floats) -> tuple[Floats, Floats]:
    """Yaw and pitch (N,) of the camera around the head, radians; yaw > 0: on its left side.

    The reference's ``Rz(roll) Ry(yaw) Rx(pitch)`` of the camera-to-world rotation in OpenGL axes,
    whose entries (2, 0), (2, 1), (2, 2) are R's (0, 2), -(1, 2), -(2, 2).
    """
    yaw = np.arcsin(np.clip(-R[:, 0, 2], -1.0, 1.0))
    pitch = np.arctan2(-R[:, 1, 2], -R[:, 2, 2])
    locked = np.hypot(R[:, 1, 2], R[:, 2, 2]) < 1e-6
    return yaw, np.where(locked, 0.0, pitch)


def weights_at(problem: Problem, state: State, distance: Floats) -> Floats:
    """(N, Q) weights with the ears' factors of this state: side, angle, gate."""
    if problem.ears is None:
        return problem.weights
    weights = problem.weights.copy()
    p = problem.n_points
    n_each = (weights.shape[1] - p) // 2
    for k, factor in enumerate(_ear_factors(problem.ears, state.R)):
        ear = slice(p + k * n_each, p + (k + 1) * n_each)
        mean = (weights[:, ear] * distance[:, ear]).sum(axis=1) / problem.ears.weight
        weights[:, ear] *= (factor * (mean < problem.ears.gate))[:, None]
    return np.asarray(weights)


def _ear_factors(ears: Ears, R: Floats) -> tuple[Floats, Floats]:
    """Factors of the left and of the right ear, (N,) each."""
    yaw, pitch = yaw_pitch(R)
    a = np.abs(yaw) * (np.abs(yaw) >= ears.yaw_dead_zone)
    a = a + np.abs(pitch) * (np.abs(pitch) >= ears.pitch_dead_zone)
    return a * (yaw > 0), a * (yaw < 0)


# ------------------------------------------------------------------ neighbouring frames
def camera_steps(state: State, centre: Floats, first: Ints) -> Floats:
    """(M, 6) steps of the camera from frames ``first`` to the next: rotation vector, centre."""
    w, c = camera_of(state, centre)
    q = np.concatenate([w, c], axis=1)
    steps: Floats = q[first + 1] - q[first]
    return steps


def camera_of(state: State, centre: Floats) -> tuple[Floats, Floats]:
    """Rotation vectors (camera-to-world, OpenGL axes) and camera centres, (N, 3) each."""
    R_gl = np.swapaxes(state.R, 1, 2) * _OPENCV_FROM_OPENGL
    back = np.matmul(np.swapaxes(state.R, 1, 2), state.position[..., None])[..., 0]
    return rotation_vector_from_matrix(R_gl), centre - back


def camera_step_jacobians(state: State, first: Ints) -> tuple[Floats, Floats]:
    """Derivatives (M, 6, 7) of `camera_steps` by the parameters of either frame."""
    R_from_cam = np.swapaxes(state.R, 1, 2)
    w = rotation_vector_from_matrix(R_from_cam * _OPENCV_FROM_OPENGL)
    n = len(state)
    h, z = state.position, state.z
    dh = np.zeros((n, 3, 4))
    dh[:, 0, 0] = dh[:, 1, 1] = z
    dh[:, :, 2] = dh[:, :, 3] = h
    j = np.zeros((n, 6, N_ROWS))
    j[:, :3, :3] = -inverse_right_jacobian(w) * _OPENCV_FROM_OPENGL
    j[:, 3:, :3] = -R_from_cam @ skew(h)
    j[:, 3:, 3:] = -R_from_cam @ dh
    return -j[first], j[first + 1]


def head_steps(state: State, first: Ints) -> Floats:
    """(M, 6) steps of the head from frames ``first`` to the next: rotation, x/z, y/z, log(z/f)."""
    turn = rotation_vector_from_matrix(state.R[first + 1] @ np.swapaxes(state.R[first], 1, 2))
    return np.concatenate([turn, state.place[first + 1] - state.place[first]], axis=1)


def head_step_jacobians(state: State, first: Ints) -> tuple[Floats, Floats]:
    """Derivatives (M, 6, 7) of `head_steps` by the parameters of either frame."""
    turn = head_steps(state, first)[:, :3]
    inverse = inverse_right_jacobian(turn)
    before, after = np.zeros((2, len(first), 6, N_ROWS))
    before[:, :3, :3] = -inverse
    after[:, :3, :3] = np.swapaxes(inverse, 1, 2)
    for k in (3, 4, 5):
        before[:, k, k], after[:, k, k] = -1.0, 1.0
    return before, after


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """Smoothing ready to be evaluated: steps of the camera, or changes of the head's steps.

    Attributes
    ----------
    first
        (M,) the first frame of each linked pair (camera) or run of three (head).
    weights
        (M, 6) objective units per square.
    of_camera
        Which of the two.
    knee
        Where changes start to count as motion, in units of `noise`; None: never.
    noise
        (M, 6) variance of the changes that noise alone makes; used with `knee`. In each block of
        three, `weights` are in proportion to its inverse.

    """

    first: Ints
    weights: Floats
    of_camera: bool
    knee: float | None = None
    noise: Floats | None = None

    def take(self, kept: Bools) -> Coupling:
        """Return some of the links."""
        noise = None if self.noise is None else self.noise[kept]
        return replace(self, first=self.first[kept], weights=self.weights[kept], noise=noise)

    def energy(self, state: State, centre: Floats) -> float:
        """Objective of all of them."""
        changes = self._changes(state, centre)
        return float((self._factors(changes)[0] * self.weights * changes**2).sum())

    def linearised(self, state: State, centre: Floats) -> tuple[Floats, Band]:
        """Gradient (N, 7) and Gauss-Newton Hessian."""
        changes = self._changes(state, centre)
        jacobians = self._jacobians(state)
        w = 2 * self._factors(changes)[1] * self.weights
        weighted = [np.swapaxes(j, 1, 2) * w[:, None, :] for j in jacobians]
        gradient, band = np.zeros((len(state), N_ROWS)), Band.zeros(len(state), N_ROWS)
        by_distance = (band.diagonal, band.first, band.second)
        for a, left in enumerate(weighted):
            gradient[self.first + a] += (left @ changes[..., None])[..., 0]
            for b, right in enumerate(jacobians[a:]):
                by_distance[b][self.first + a] += left @ right
        return gradient, band

    def _changes(self, state: State, centre: Floats) -> Floats:
        if self.of_camera:
            return camera_steps(state, centre, self.first)
        changes: Floats = head_steps(state, self.first + 1) - head_steps(state, self.first)
        return changes

    def _jacobians(self, state: State) -> list[Floats]:
        """(M, 6, 7) by each of the frames that take part, in order."""
        if self.of_camera:
            return list(camera_step_jacobians(state, self.first))
        before, after = head_step_jacobians(state, self.first)
        next_before, next_after = head_step_jacobians(state, self.first + 1)
        return [-before, next_before - after, next_after]

    def _factors(self, changes: Floats) -> tuple[Floats, Floats]:
        """(M, 6) factors of the squares in the energy, and in its derivative (Welsch)."""
        if self.knee is None or self.noise is None:
            return np.ones_like(changes), np.ones_like(changes)
        blocks = (changes**2 / self.noise).reshape(-1, 2, 3).mean(axis=2)
        u = np.repeat(blocks, 3, axis=1) / self.knee**2
        saturated = -np.expm1(-u) / np.where(u > 0, u, 1.0)
        return np.where(u > 0, saturated, 1.0), np.exp(-u)


def camera_coupling(smoothing: CameraSmoothing, linked: Bools) -> Coupling:
    """The reference's smoothing of linked frames."""
    first = np.flatnonzero(linked).astype(np.int64)
    weights = np.tile([smoothing.rotation] * 3 + [smoothing.centre] * 3, (len(first), 1))
    return Coupling(first, weights.astype(np.float64), of_camera=True)


# ------------------------------------------------------------------ the objective in full
def objective(problem: Problem, state: State, coupling: Coupling | None = None) -> dict[str, float]:
    """Every term of the exact objective (distances not smoothed), summed over fitted frames.

    Ears take the factors of this very state. The total is the sum of the values.
    """
    distance = view(problem, state).distance
    weighted = weights_at(problem, state, distance) * distance * problem.fittable[:, None]
    terms = {g.name: float(weighted[:, list(g.indices)].sum()) for g in problem.groups}
    if problem.ears is not None:
        terms["ears"] = float(weighted[:, problem.n_points :].sum())
    if coupling is not None:
        terms["smoothing"] = coupling.energy(state, problem.centre)
    return terms
