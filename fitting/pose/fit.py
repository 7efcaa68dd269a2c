"""`fit_rigid`: the one way into the camera fit, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from converter.errors import ConventionError, FitError
from converter.geometry import Intrinsics, Pose
from converter.geometry.pixels import Floats
from fitting.pose.adam import focal_ndc_of, fov_deg_of, reference_schedule
from fitting.pose.jitter import jitter_ratio
from fitting.pose.lm import SHARPEST, Settings, Solution, portions, solve_frames, solve_sequence
from fitting.pose.problem import (
    MIN_POINTS,
    Bools,
    CameraSmoothing,
    Ears,
    Group,
    HeadSmoothing,
    Ints,
    Problem,
    Smoothing,
    build_problem,
    chain_of,
)
from fitting.pose.start import frontal, robust_posit
from fitting.pose.state import State
from fitting.pose.terms import Coupling, camera_coupling, objective, view
from fitting.pose.uncertainty import (
    Noise,
    Uncertainty,
    measure_noise,
    measure_uncertainty,
    noise_of,
    repetition,
)

Fov: TypeAlias = Literal["fixed", "shared", "free"]
Robust: TypeAlias = Literal["auto", "norm", "squares", "redescending"] | float
Solver: TypeAlias = Literal["lm", "adam"]

FOV_LIMITS_DEG = (10.0, 50.0)
"""The reference's clamp."""

WIDEST_ILL_POSED_FOV_DEG = 30.0
"""Below it one frame's landmarks do not tell focal length from depth: std of f above 9 % at 1 px
of noise at 256, their correlation .9997 and more."""


_ROBUST = ("auto", "norm", "squares", "redescending")
_NOISE_ROUNDS, _NOISE_SETTLED = 12, 0.9
_REACH, _WIDENING = 3.0, (3.0, 2.0, 1.0, 0.5, 0.0)
_UNDO_ROUNDS, _MISFIT_MOST = 4, 60.0
"""Ten times what noise makes: real jitter has long tails, a head that leaps has longer ones."""

_OUTLYING, _OUTLIERS = 5.0, 0.005
"""Landmarks beyond 5 sigma (4 in a million by chance), and the share that calls for care."""


@dataclass(frozen=True, slots=True, eq=False)
class RigidFit:
    """Cameras fitted to landmarks.

    Attributes
    ----------
    w2c
        World-to-camera poses, batch of N; NaN in frames that were not fitted.
    intrinsics
        K that goes with them: the given one, with its focal lengths scaled if fov was fitted.
    fov_deg
        (N,) full angle that the shorter side subtends about the image centre, degrees.
    rmse_px
        (N,) root of the mean squared distance of the landmarks that count, px; NaN where none do.
    fitted
        (N,) frames with enough landmarks.
    iterations
        (N,) steps tried.
    stop_reasons
        One per frame: ``"converged"``, ``"iteration limit"``, ``"schedule ended"`` (Adam) or
        ``"no landmarks"``.
    terms
        The exact objective at the answer by term: means of unsquared distances, NDC, as the
        reference sums them.
    cost_history
        The same after every step, where frames were solved together; Adam: at every iteration.
    std
        What the landmarks' noise makes of it.

    """

    w2c: Pose
    intrinsics: Intrinsics
    fov_deg: Floats
    rmse_px: Floats
    fitted: Bools
    iterations: Ints
    stop_reasons: tuple[str, ...]
    terms: dict[str, float]
    cost_history: dict[str, list[float]]
    std: Uncertainty

    @property
    def objective(self) -> float:
        """Sum of the terms."""
        return sum(self.terms.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """The checked options of one fit."""

    fov: Fov
    squared: bool
    redescends: bool | None
    """None: if the residuals ask for it."""
    sharpest: float | None
    limits_deg: tuple[float, float]
    prior_sigma: float | None
    max_iterations: int

    def softened(self, noise: Noise) -> _Plan:
        """Return the plan for a sequence: a norm's kinks in single frames would hold up all.

        Distances stay smoothed to a tenth of the noise, which moves no answer by as much as counts.
        """
        if self.sharpest is None:
            return self
        return replace(self, sharpest=max(self.sharpest, 0.1 * noise.ndc))

    def settings(self, problem: Problem, prior: float = 0.0, fov: Fov | None = None) -> Settings:
        low, high = (np.log(focal_ndc_of(np.full(len(problem), v))) for v in self.limits_deg[::-1])
        own = np.log(problem.focal.mean(axis=1))
        return Settings(
            self.sharpest, fov or self.fov, low - own, high - own, prior, self.max_iterations
        )


def fit_rigid(
    points: ArrayLike,
    landmarks: ArrayLike,
    intrinsics: Intrinsics,
    *,
    groups: Sequence[Group] | None = None,
    weights: ArrayLike | None = None,
    ears: Ears | None = None,
    fov: Fov = "fixed",
    smoothing: Smoothing | None = None,
    robust: Robust = "auto",
    solver: Solver = "lm",
    start: Pose | None = None,
    focal_prior: float | None = 0.07,
    fov_limits_deg: tuple[float, float] = FOV_LIMITS_DEG,
    allow_ill_posed: bool = False,
    max_iterations: int = 100,
) -> RigidFit:
    """Fit one rigid camera per frame to landmarks of known head points.

    Parameters
    ----------
    points
        Head points, world space, metres: (P, 3) for all frames, or (N, P, 3).
    landmarks
        Where they are seen: (N, P, 2), edge-origin px of the image of ``intrinsics``. NaN, and the
        (0, 0) that detectors write for nothing found, are masked. Frames with fewer than 4 are not
        fitted, and come out as NaN.
    intrinsics
        K of the images, one or N. With ``fov`` other than ``"fixed"``: where its focal length
        starts, and what `focal_prior` holds it to.
    groups
        Terms of the objective: see `Group`; `IBUG_68` is the reference's pair. None: all points in
        one group of weight 1. Points that no group names do not count.
    weights
        (P,) or (N, P) weights of points within their groups.
    ears
        A term for ear landmarks: see `Ears`.
    fov
        ``"fixed"``: K stays. ``"shared"``: one focal length scale for the sequence. ``"free"``: one
        per frame, which is refused below 30 degrees of fov unless `allow_ill_posed`.
    smoothing
        `HeadSmoothing` against jitter, or the reference's `CameraSmoothing`; never across gaps.
    robust
        ``"auto"``: ``"norm"``; ``"redescending"`` if more than one landmark in 200 is farther off
        than noise can put it. ``"norm"``: distances count unsquared, as in the reference; outliers
        pull no harder than others. ``"squares"``: half squares. A
        number: pseudo-Huber that turns there, px.
        ``"redescending"``: starts as norm, then landmarks far beyond the noise stop counting.
    solver
        ``"lm"``, or ``"adam"``: the reference's schedule, to compare with.
    start
        World-to-camera poses (N) to start from; one that is NaN, or behind the camera, is replaced
        by a frontal one. None: lm finds its own, adam takes the reference's.
    focal_prior
        Standard deviation of the focal length around K's, as a fraction; None: no prior. Its pull
        against the data is that of likelihoods, with noise measured from the residuals.
    fov_limits_deg
        Bounds of a fitted fov, degrees.
    allow_ill_posed
        Fit a free focal length whatever the fov.
    max_iterations
        Steps per frame before lm gives up; adam always runs its schedule.

    Returns
    -------
    RigidFit
        One camera per frame, in the order given.

    Raises
    ------
    ConventionError
        If shapes disagree or an option has no meaning.
    FitError
        If no frame has enough landmarks, or a free focal length is asked for that the landmarks
        cannot give.

    """
    problem = build_problem(points, landmarks, intrinsics, groups, weights, ears)
    plan = _plan(problem, fov, robust, focal_prior, fov_limits_deg, max_iterations)
    linked = chain_of(smoothing, problem.fittable)
    if start is not None and start.R.shape != (len(problem), 3, 3):
        raise ConventionError("fit: start", f"{len(problem)} poses", f"R of shape {start.R.shape}")
    if not problem.fittable.any():
        raise FitError(
            "fit",
            f"a frame with {MIN_POINTS} landmarks or more",
            "none",
            "Were the landmarks lost, or the groups' weights all 0?",
        )
    if fov == "free" and not allow_ill_posed:
        _refuse_ill_posed(fov_deg_of(problem.focal.mean(axis=1))[problem.fittable], "K")
    if solver == "adam":
        solution, coupling = _run_adam(problem, plan, smoothing, linked, start)
    else:
        solution, coupling = _run_lm(problem, plan, smoothing, linked, start)
    fit = _result(problem, plan, solution, coupling, intrinsics, solver)
    if fov == "free" and not allow_ill_posed:
        _refuse_ill_posed(fit.fov_deg[fit.fitted], "the fit")
    return fit


def _plan(
    problem: Problem,
    fov: Fov,
    robust: Robust,
    focal_prior: float | None,
    limits_deg: tuple[float, float],
    max_iterations: int,
) -> _Plan:
    if fov not in ("fixed", "shared", "free"):
        raise ConventionError("fit: fov", "fixed, shared or free", str(fov))
    if isinstance(robust, str) and robust not in _ROBUST:
        raise ConventionError("fit: robust", f"{', '.join(_ROBUST)}, or px", robust)
    if not isinstance(robust, str) and not (np.isfinite(robust) and robust > 0):
        raise ConventionError("fit: robust", "a number of px above 0", str(robust))
    if focal_prior is not None and not (np.isfinite(focal_prior) and focal_prior > 0):
        raise ConventionError("fit: focal_prior", "a fraction above 0, or None", str(focal_prior))
    low, high = limits_deg
    if not 0 < low < high < 180:
        raise ConventionError("fit: fov_limits_deg", "0 < low < high < 180", str(limits_deg))
    sharpest: float | None = SHARPEST
    if robust == "squares":
        sharpest = None
    elif not isinstance(robust, str):
        sharpest = robust * problem.unit
    return _Plan(
        fov,
        sharpest is None,
        None if robust == "auto" else robust == "redescending",
        sharpest,
        (low, high),
        focal_prior,
        max_iterations,
    )


def _refuse_ill_posed(fov_deg: Floats, whose: str) -> None:
    typical = float(np.median(fov_deg))
    if typical < WIDEST_ILL_POSED_FOV_DEG:
        raise FitError(
            "fit",
            f"a fov of {WIDEST_ILL_POSED_FOV_DEG:g} degrees or more for a focal length per frame",
            f"{typical:.1f} degrees in {whose}, where focal length and depth look the same "
            "(a 50 % wrong focal length fits as well as the right one)",
            "Fit one focal length for the sequence, or keep K.",
        )


def _run_adam(
    problem: Problem,
    plan: _Plan,
    smoothing: Smoothing | None,
    linked: Bools,
    start: Pose | None,
) -> tuple[Solution, Coupling | None]:
    if isinstance(smoothing, HeadSmoothing):
        raise ConventionError("fit: smoothing", "CameraSmoothing with adam", "HeadSmoothing")
    if plan.sharpest != SHARPEST or plan.redescends:
        raise ConventionError("fit: robust", "norm with adam", "another")
    coupling = None if smoothing is None else camera_coupling(smoothing, linked)
    begin = _usable(problem, start)
    return reference_schedule(problem, begin, plan.fov, plan.limits_deg, coupling), coupling


def _run_lm(
    problem: Problem,
    plan: _Plan,
    smoothing: Smoothing | None,
    linked: Bools,
    start: Pose | None,
) -> tuple[Solution, Coupling | None]:
    """Frames on their own first; then together, if anything ties them to each other."""
    state = _started(problem, start)
    own = plan.settings(problem, fov="fixed" if plan.fov == "shared" else plan.fov)
    solution = solve_frames(problem, state, own)
    if _has_outliers(problem, solution) if plan.redescends is None else plan.redescends:
        problem, plan, solution = _without_outliers(problem, plan, solution)
    prior = 0.0
    if plan.fov == "shared" or (plan.fov == "free" and plan.prior_sigma is not None):
        solution, prior = _with_focal(problem, plan, solution)
    if smoothing is None or not linked.any():
        return solution, None
    if isinstance(smoothing, CameraSmoothing):
        coupling = camera_coupling(smoothing, linked)
        together = solve_sequence(problem, solution.state, plan.settings(problem, prior), coupling)
        return _continued(solution, together), coupling
    return _smoothed(problem, plan, solution, smoothing, linked, prior)


def _smoothed(
    problem: Problem,
    plan: _Plan,
    alone: Solution,
    smoothing: HeadSmoothing,
    linked: Bools,
    prior: float,
) -> tuple[Solution, Coupling]:
    """Link neighbours; where that takes a pose from its landmarks, undo the links and go again.

    What smoothing takes out of a pose is noise, so the landmarks hardly mind: their misfit grows by
    chi squared of six. A head that moves otherwise than the links believe shows as more.
    """
    noise = measure_noise(problem, alone.state, plan.squared)
    if smoothing.noise_px is not None:
        noise = noise_of(problem, smoothing.noise_px * problem.unit, plan.squared)
    std = measure_uncertainty(problem, alone.state, noise, "fixed", None, not plan.squared)
    jitter = 1.0
    if smoothing.noise_px is None:
        # Errors that landmarks share (a mouth, a shadow) shake poses more than their scatter says.
        jitter = max(jitter, jitter_ratio(alone.state, linked, std.blocks) or 0.0)
    coupling = _head_coupling(noise, std, smoothing, linked, jitter)
    settings = plan.softened(noise).settings(problem, prior)
    solution = alone
    for _ in range(_UNDO_ROUNDS):
        together = solve_sequence(problem, alone.state, settings, coupling)
        solution = _continued(solution, together)
        limit = _MISFIT_MOST * jitter**2
        torn = (
            _misfit(problem, solution.state, noise) - _misfit(problem, alone.state, noise) > limit
        )
        kept = ~(torn[coupling.first] | torn[coupling.first + 1] | torn[coupling.first + 2])
        if kept.all():
            break
        coupling = coupling.take(kept)
    return solution, coupling


def _misfit(problem: Problem, state: State, noise: Noise) -> Floats:
    """(N,) squared distances of the landmarks over their noise, each up to an outlier's."""
    misfit = np.zeros(len(problem))
    for i in portions(problem):
        part = problem.take(i)
        counts = part.weights[:, : part.n_points] > 0
        distance = view(part, state.take(i)).distance[:, : part.n_points]
        capped = np.minimum(distance, _OUTLYING * noise.ndc) * counts
        misfit[i] = (capped**2).sum(axis=1) / max(noise.ndc, SHARPEST) ** 2
    return misfit


def _with_focal(problem: Problem, plan: _Plan, solution: Solution) -> tuple[Solution, float]:
    """Fit the focal length under its prior; also returns the prior's curvature.

    The prior's pull is in units of the landmarks' noise, which a wrong K overstates at first: it is
    measured again until it stays.
    """
    solve = solve_sequence if plan.fov == "shared" else solve_frames
    prior, last = 0.0, np.inf
    for _ in range(_NOISE_ROUNDS if plan.prior_sigma is not None else 1):
        noise = measure_noise(problem, solution.state, plan.squared)
        if noise.ndc > _NOISE_SETTLED * last:
            break
        last = noise.ndc
        if plan.prior_sigma is not None:
            worth = noise.objective_per_nat
            if plan.fov == "shared":
                worth *= repetition(problem, solution.state)
            prior = worth / plan.prior_sigma**2
        soft = plan.softened(noise) if plan.fov == "shared" else plan
        settings = soft.settings(problem, prior)
        bounded = np.clip(solution.state.log_f, settings.low, settings.high)
        begin = solution.state.with_focal(bounded)
        solution = _continued(solution, solve(problem, begin, settings))
    if plan.fov == "shared":
        polish = solve_frames(problem, solution.state, plan.settings(problem, fov="fixed"))
        solution = replace(
            _continued(solution, polish),
            converged=solution.converged & polish.converged,
            history=solution.history,
        )
    return solution, prior


def _has_outliers(problem: Problem, solution: Solution) -> bool:
    limit = _OUTLYING * max(measure_noise(problem, solution.state, squared=False).ndc, SHARPEST)
    n_far = n_seen = 0
    for i in portions(problem):
        part = problem.take(i)
        counts = part.weights[:, : part.n_points] > 0
        distance = view(part, solution.state.take(i)).distance[:, : part.n_points]
        n_far, n_seen = n_far + int((distance[counts] > limit).sum()), n_seen + int(counts.sum())
    return n_far > _OUTLIERS * n_seen


def _without_outliers(
    problem: Problem, plan: _Plan, solution: Solution
) -> tuple[Problem, _Plan, Solution]:
    """Weigh landmarks by how far they are off, against the noise of all (Geman-McClure).

    The reach of a frame starts at what its own landmarks scatter by and shrinks to the noise, so
    that a frame that outliers pulled away has a way back.
    """
    reweighted, sharper = problem, plan
    for widening in _WIDENING:
        noise = measure_noise(problem, solution.state, squared=False)
        weights = problem.weights.copy()
        for i in portions(problem):
            distance = view(problem.take(i), solution.state.take(i)).distance
            own = np.nanmedian(
                np.where(weights[i] > 0, distance, np.nan)[:, : problem.n_points],
                axis=1,
                keepdims=True,
            )
            reach = np.maximum(np.maximum(_REACH * noise.ndc, widening * own), SHARPEST)
            weights[i] *= 1 / (1 + (distance / reach) ** 2) ** 2
        reweighted = replace(problem, weights=weights)
        sharper = replace(plan, sharpest=max(noise.ndc, SHARPEST))
        settings = sharper.settings(problem, fov="free" if plan.fov == "free" else "fixed")
        solution = _continued(solution, solve_frames(reweighted, solution.state, settings))
    return reweighted, sharper, solution


def _usable(problem: Problem, start: Pose | None) -> Pose:
    """Return the start, frontal where it says nothing."""
    rest = frontal(problem.focal.mean(axis=1))
    if start is None:
        return rest
    with np.errstate(invalid="ignore"):
        in_front = start.t[:, 2] + start.R[:, 2] @ problem.centre > 0  # False where NaN
    known = in_front & np.isfinite(start.t).all(axis=1) & np.isfinite(start.R).all(axis=(1, 2))
    return Pose(
        np.where(known[:, None, None], start.R, rest.R), np.where(known[:, None], start.t, rest.t)
    )


def _started(problem: Problem, start: Pose | None) -> State:
    state = State.of(_usable(problem, start), problem.centre, np.zeros(len(problem)))
    if start is not None:
        return state
    for portion in portions(problem):
        state = robust_posit(problem.take(portion)).scattered(state, portion)
    return state


def _continued(before: Solution, after: Solution) -> Solution:
    return replace(after, iterations=before.iterations + after.iterations)


def _head_coupling(
    noise: Noise, std: Uncertainty, smoothing: HeadSmoothing, linked: Bools, jitter: float
) -> Coupling:
    first = np.flatnonzero(linked[:-1] & linked[1:]).astype(np.int64)
    # Of x - 2 y + z. Blocks share one number each, or the knee would not be round.
    variance = std.blocks[first] + 4 * std.blocks[first + 1] + std.blocks[first + 2]
    blocks = np.repeat(variance.reshape(-1, 2, 3).mean(axis=2), 3, axis=1)
    blocks = np.maximum(blocks, 1e-18)
    weights = noise.objective_per_nat / (2 * smoothing.ratio**2 * blocks)
    return Coupling(first, weights, of_camera=False, knee=smoothing.knee, noise=blocks * jitter**2)


def _result(
    problem: Problem,
    plan: _Plan,
    solution: Solution,
    coupling: Coupling | None,
    intrinsics: Intrinsics,
    solver: Solver,
) -> RigidFit:
    n, state, fitted = len(problem), solution.state, problem.fittable
    pose = state.pose(problem.centre)
    R = np.where(fitted[:, None, None], pose.R, np.nan)
    t = np.where(fitted[:, None], pose.t, np.nan)
    ended = "schedule ended" if solver == "adam" else "iteration limit"
    reasons = np.where(solution.converged, "converged", ended)
    reasons = np.where(fitted, reasons, "no landmarks")
    noise = measure_noise(problem, state, plan.squared)
    std = measure_uncertainty(problem, state, noise, plan.fov, plan.prior_sigma, not plan.squared)
    rmse = np.full(n, np.nan)
    terms: dict[str, float] = {}
    for i in portions(problem):
        part, cameras = problem.take(i), state.take(i)
        counts = part.weights[:, : part.n_points] > 0
        squares = (view(part, cameras).distance[:, : part.n_points] ** 2 * counts).sum(axis=1)
        rmse[i] = np.sqrt(squares / counts.sum(axis=1)) / problem.unit
        for name, value in objective(part, cameras).items():
            terms[name] = terms.get(name, 0.0) + value
    if coupling is not None:
        terms["smoothing"] = coupling.energy(state, problem.centre)
    return RigidFit(
        w2c=Pose(R, t),
        intrinsics=_scaled(intrinsics, state.log_f, plan.fov),
        fov_deg=fov_deg_of(problem.focal.mean(axis=1) * np.exp(state.log_f)),
        rmse_px=rmse,
        fitted=fitted,
        iterations=solution.iterations,
        stop_reasons=tuple(str(r) for r in reasons),
        terms=terms,
        cost_history=solution.history,
        std=std,
    )


def _scaled(intrinsics: Intrinsics, log_f: Floats, fov: Fov) -> Intrinsics:
    if fov == "fixed":
        return intrinsics
    scale = float(np.exp(log_f[0])) if fov == "shared" else np.exp(log_f)
    return replace(intrinsics, fx=intrinsics.fx * scale, fy=intrinsics.fy * scale)
