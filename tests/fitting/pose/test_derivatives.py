"""Analytic derivatives against differences, and against autograd of an independent restatement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.geometry.pixels import Floats, Size
from fitting.pose.adam import _gradient, _packed, fov_deg_of
from fitting.pose.problem import IBUG_68, CameraSmoothing, Ears, Problem, build_problem
from fitting.pose.state import State, inverse_right_jacobian, right_jacobian
from fitting.pose.terms import (
    Coupling,
    camera_coupling,
    camera_step_jacobians,
    camera_steps,
    cost,
    derivatives,
    head_step_jacobians,
    head_steps,
    jacobian,
    objective,
    view,
    weights_at,
)
from tests.fitting.pose.scenes import Scene, scene
from tests.strategies import rotation_vectors

STEP = 1e-6


def problem_and_state(seed: int = 0, with_ears: bool = False) -> tuple[Problem, State, Scene]:
    """Frames some way off the answer, with fx != fy, a free principal point and gaps."""
    rng = np.random.default_rng(seed)
    s = scene([-40.0, -5.0, 10.0, 55.0], 25.0, 8.0, 20.0, size=Size(320, 240), shift_px=(9, -14))
    K = replace(s.intrinsics, fy=s.intrinsics.fy * 1.1)
    landmarks = s.noisy(4.0)
    landmarks[1, 5:9] = np.nan
    ears = None
    if with_ears:
        left = rng.normal([0.07, 0.0, -0.02], 0.01, (20, 3))
        right = left * [-1, 1, 1]
        sides = np.where(np.array([1, 1, -1, -1])[:, None, None] > 0, left, right)
        ears = Ears(left, right, K.project(s.w2c(sides)) + rng.normal(0, 3, (4, 20, 2)))
    problem = build_problem(s.points, landmarks, K, IBUG_68, ears=ears)
    state = State.of(s.w2c, problem.centre, np.zeros(4))
    return problem, state.moved(rng.normal(0, 0.03, (4, 7))), s


def by_differences(function, state: State) -> Floats:  # type: ignore[no-untyped-def]
    """Central differences of ``function(state)`` (N, ...) by each frame's own 7 parameters."""
    columns = []
    for k in range(7):
        step = np.zeros((len(state), 7))
        step[:, k] = STEP
        columns.append((function(state.moved(step)) - function(state.moved(-step))) / (2 * STEP))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("with_ears", [False, True])
def test_residual_jacobian(with_ears: bool) -> None:
    problem, state, _ = problem_and_state(with_ears=with_ears)

    def residuals(s: State) -> Floats:
        seen = view(problem, s)
        return np.stack([seen.dx, seen.dy], axis=1)

    expected = by_differences(residuals, state)
    np.testing.assert_allclose(jacobian(problem, state), expected, atol=2e-8)


@pytest.mark.parametrize("eps", [None, 1e-5, 0.02, 3.0])
def test_gradient_and_hessian_of_the_cost(eps: float | None) -> None:
    problem, state, _ = problem_and_state(with_ears=True)
    smooth = None if eps is None else np.full(len(state), eps)
    seen = view(problem, state)
    weights = weights_at(problem, state, seen.distance)
    assert (weights[:, 68:] > 0).any()
    gradient, hessian = derivatives(state, seen, weights, smooth)
    expected = by_differences(lambda s: cost(view(problem, s).distance, weights, smooth), state)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)
    # Gauss-Newton: J^T C J with C the exact second derivative of the smoothed distance.
    j = np.moveaxis(jacobian(problem, state), 2, 3)  # (N, 7, Q, 2)
    d = np.stack([seen.dx, seen.dy], axis=-1)
    if eps is None:
        curvature = np.broadcast_to(np.eye(2), (*d.shape, 2))
    else:
        rho = np.sqrt((d**2).sum(axis=-1) + eps**2)[..., None, None]
        curvature = np.eye(2) / rho - d[..., :, None] * d[..., None, :] / rho**3
    expected = np.einsum("nkqa,nq,nqab,nlqb->nkl", j, weights, curvature, j)
    np.testing.assert_allclose(hessian, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


def test_a_point_that_is_hit_exactly_has_no_gradient_and_finite_curvature() -> None:
    s = scene([20.0])
    problem = build_problem(s.points, s.landmarks, s.intrinsics, IBUG_68)
    state = State.of(s.w2c, problem.centre, np.zeros(1))
    seen = view(problem, state)
    exact = replace(seen, dx=np.zeros_like(seen.dx), dy=np.zeros_like(seen.dy))
    gradient, hessian = derivatives(state, exact, problem.weights, np.full(1, 1e-5))
    assert np.all(gradient == 0)
    assert np.isfinite(hessian).all()
    assert np.linalg.eigvalsh(hessian[0, :6, :6]).min() > 0


@given(rotation_vectors())
def test_jacobian_of_the_exponential(w: Floats) -> None:
    w = w * 0.999  # at pi itself the logarithm jumps
    np.testing.assert_allclose(inverse_right_jacobian(w) @ right_jacobian(w), np.eye(3), atol=1e-9)


@given(rotation_vectors(), st.integers(0, 2))
def test_jacobian_of_the_exponential_by_differences(w: Floats, k: int) -> None:
    from scipy.spatial.transform import Rotation

    dw = np.zeros(3)
    dw[k] = 1e-6
    ahead, behind = (Rotation.from_rotvec(w + s * dw) for s in (1, -1))
    turn = (behind.inv() * ahead).as_rotvec() / 2e-6
    np.testing.assert_allclose(right_jacobian(w)[:, k], turn, atol=1e-8)


@pytest.mark.parametrize("kind", ["camera", "head"])
def test_jacobians_of_steps_between_frames(kind: str) -> None:
    problem, state, _ = problem_and_state()
    first = np.array([0, 2])

    def steps(s: State) -> Floats:
        if kind == "camera":
            return camera_steps(s, problem.centre, first)
        return head_steps(s, first)

    found = (
        camera_step_jacobians(state, first)
        if kind == "camera"
        else head_step_jacobians(state, first)
    )
    for side, analytic in enumerate(found):
        for k in range(7):
            step = np.zeros((len(state), 7))
            step[first + side, k] = STEP
            expected = (steps(state.moved(step)) - steps(state.moved(-step))) / (2 * STEP)
            np.testing.assert_allclose(analytic[:, :, k], expected, atol=2e-8)


@pytest.mark.parametrize("knee", [None, 2.0])
def test_gradient_of_smoothing(knee: float | None) -> None:
    problem, state, _ = problem_and_state()
    first = np.array([0, 1])
    if knee is None:
        coupling = camera_coupling(CameraSmoothing(), np.ones(3, dtype=bool))
    else:
        noise = np.repeat([[0.2, 0.05]], 2, axis=0).repeat(3, axis=1)
        coupling = Coupling(first, 3.0 / noise, of_camera=False, knee=knee, noise=noise)
    gradient, band = coupling.linearised(state, problem.centre)
    for i in range(len(state)):
        for k in range(7):
            step = np.zeros((len(state), 7))
            step[i, k] = STEP
            ahead, behind = (
                coupling.energy(state.moved(s * step), problem.centre) for s in (1, -1)
            )
            assert gradient[i, k] == pytest.approx((ahead - behind) / (2 * STEP), abs=1e-5)
    np.testing.assert_allclose(band.diagonal, np.swapaxes(band.diagonal, 1, 2), atol=1e-9)
    assert band.second.any() == (knee is not None)


def test_autograd_of_the_reference_formula_agrees() -> None:
    """The spec's one-line projection and loss, written in torch, against both of ours."""
    torch = pytest.importorskip("torch")
    problem, state, s = problem_and_state(with_ears=True)
    f = problem.focal.mean(axis=1)
    pose = state.pose(problem.centre)
    fov = fov_deg_of(f * np.exp(state.log_f))
    packed = _packed(pose, fov)
    coupling = camera_coupling(CameraSmoothing(), np.ones(3, dtype=bool))

    variables = torch.tensor(packed, requires_grad=True)
    offsets = problem.offsets + problem.centre[:, None]
    X = torch.tensor(np.broadcast_to(offsets, (4, *offsets.shape[1:])).copy())
    w, c, v = variables[:, :3], variables[:, 3:6], variables[:, 6]
    R = torch.linalg.matrix_exp(
        torch.stack([torch.stack([0 * w[:, 0], -w[:, 2], w[:, 1]], 1),
                     torch.stack([w[:, 2], 0 * w[:, 0], -w[:, 0]], 1),
                     torch.stack([-w[:, 1], w[:, 0], 0 * w[:, 0]], 1)], 1)
    )  # fmt: skip
    p = R.transpose(1, 2) @ (X - c[:, :, None])
    scale = 1 / torch.tan(torch.deg2rad(v) / 2)
    aspect = torch.tensor(problem.focal / f[:, None])
    ndc = torch.stack([p[:, 0], -p[:, 1]], 1) / (-p[:, 2:]) * (scale[:, None] * aspect)[..., None]
    distance = torch.linalg.vector_norm(ndc - torch.tensor(problem.targets), dim=1)
    weights = torch.tensor(weights_at(problem, state, view(problem, state).distance))
    smooth = 150 * ((w[1:] - w[:-1]) ** 2).sum() + 150 * ((c[1:] - c[:-1]) ** 2).sum()
    total = (weights * distance).nan_to_num(0.0).sum() + smooth
    total.backward()

    terms, gradient = _gradient(problem, packed, (10.0, 50.0), coupling)
    assert sum(terms.values()) == pytest.approx(total.item(), rel=1e-6)
    assert sum(objective(problem, state, coupling).values()) == pytest.approx(total.item())
    expected = variables.grad.numpy()
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_a_clamped_fov_has_no_gradient() -> None:
    problem, state, _ = problem_and_state()
    packed = _packed(state.pose(problem.centre), np.array([9.0, 10.0, 50.0, 51.0]))
    gradient = _gradient(problem, packed, (10.0, 50.0), None)[1][:, 6]
    assert (gradient != 0).tolist() == [False, True, True, False]
