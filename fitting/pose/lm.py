"""Levenberg-Marquardt for all frames at once: frames on their own, or coupled into one system.

Frames on their own converge, and stop, one by one. A shared focal length adds one unknown to all of
them, smoothing links neighbours; either way one sparse system is solved for the whole sequence.

The distance starts out smoothed by what the start is off by, and gets sharp as steps are accepted
(graduated non-convexity), so that an unsquared norm costs few more steps than a square does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.geometry.pixels import Floats
from fitting.pose.blocks import Band, solve_band, solve_bordered
from fitting.pose.problem import Bools, Ints, Problem
from fitting.pose.state import State, index_of
from fitting.pose.terms import Coupling, Eps, cost, derivatives, objective, view, weights_at

SHARPEST = 1e-5
"""NDC; how far an unsquared norm stays smoothed: a thousandth of a px at 256."""

_SHARPENING = 0.2
_FROZEN_EARS_AFTER = 25  # ears' factors jump at their dead zones; from here on they stay
_DAMPING_START, _DAMPING_LEAST, _DAMPING_MOST = 1e-4, 1e-12, 1e10
_SOFTER, _HARDER = 0.1, 8.0
_RELATIVE_DECREASE = 1e-8
_LARGEST_TURN = 1.0  # rad, and log units, per step: further the linearisation says nothing
_POINTS_AT_ONCE = 1 << 15
_SMALLEST_STEP = 1e-10  # rad, and log units
_REMAINDER = 1e-15  # NDC per point; a cost below it is zero


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """What the solver may move, and how it measures.

    Attributes
    ----------
    sharpest
        NDC to which distances stay smoothed; None for half the squared distance.
    focal
        Whether log f is moved: not at all, once for the sequence, or per frame.
    low, high
        (N,) bounds of log f; frames start inside.
    prior
        Curvature of the objective along log f that a prior adds: once, or per frame.
    max_iterations
        Steps tried per frame.

    """

    sharpest: float | None
    focal: str
    low: Floats
    high: Floats
    prior: float = 0.0
    max_iterations: int = 100

    def take(self, index: Ints) -> Settings:
        """Return the settings of some of the frames."""
        return Settings(
            self.sharpest,
            self.focal,
            self.low[index],
            self.high[index],
            self.prior,
            self.max_iterations,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Where a solver stopped.

    Attributes
    ----------
    state
        The cameras.
    iterations
        (N,) steps tried.
    converged
        (N,) whether a frame stopped because nothing was left to gain.
    history
        Exact objective by term after each step, if the solver kept it.

    """

    state: State
    iterations: Ints
    converged: Bools
    history: dict[str, list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """A state with everything the next step needs."""

    state: State
    weights: Floats
    eps: Eps
    cost: Floats
    gradient: Floats
    hessian: Floats

    def where(self, chosen: Bools, other: _Point) -> _Point:
        eps = (
            None if self.eps is None or other.eps is None else np.where(chosen, self.eps, other.eps)
        )
        return _Point(
            self.state.where(chosen, other.state),
            np.where(chosen[:, None], self.weights, other.weights),
            eps,
            np.where(chosen, self.cost, other.cost),
            np.where(chosen[:, None], self.gradient, other.gradient),
            np.where(chosen[:, None, None], self.hessian, other.hessian),
        )

    def take(self, index: Ints) -> _Point:
        return _Point(
            self.state.take(index),
            self.weights[index],
            None if self.eps is None else self.eps[index],
            self.cost[index],
            self.gradient[index],
            self.hessian[index],
        )


def solve_frames(problem: Problem, start: State, settings: Settings) -> Solution:
    """Fit every fittable frame on its own.

    Frames go through in portions whose arrays stay in the cache; the cost is linear in the frames,
    and memory does not depend on them.
    """
    n = len(problem)
    state, iterations, converged = start, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    for portion in portions(problem):
        done = _solve_portion(problem.take(portion), start.take(portion), settings.take(portion))
        state = done.state.scattered(state, portion)
        iterations[portion], converged[portion] = done.iterations, done.converged
    return Solution(state, iterations, converged, {})


def portions(problem: Problem) -> list[Ints]:
    """Positions of the fittable frames, in runs of about `_POINTS_AT_ONCE` points."""
    frames = index_of(problem.fittable)
    at_once = max(1, _POINTS_AT_ONCE // problem.weights.shape[1])
    return [frames[i : i + at_once] for i in range(0, len(frames), at_once)]


def _solve_portion(problem: Problem, start: State, settings: Settings) -> Solution:
    n = len(problem)
    final, iterations = start, np.zeros(n, dtype=np.int64)
    converged = np.zeros(n, dtype=bool)
    index = np.arange(n, dtype=np.int64)  # frames of the portion that are in the arrays below
    point = _first_point(problem, start, settings)
    damping = np.full(n, _DAMPING_START)
    active = np.ones(n, dtype=bool)
    for iteration in range(settings.max_iterations):
        step = _own_steps(point, damping, settings)
        moved = point.state.moved(step)
        trial_cost, trial = _evaluate(problem, moved, point, settings, iteration)
        better = (trial_cost <= point.cost) & active
        gained = point.cost - trial_cost
        enough = gained > _RELATIVE_DECREASE * point.cost
        sharp = _is_sharp(point.eps, settings)
        floor = _REMAINDER * problem.weights.sum(axis=1)
        done = active & better & sharp & (damping < 1) & ~enough
        nothing_left = np.minimum(trial_cost, point.cost) <= floor
        done |= active & sharp & (nothing_left | (np.abs(step).max(axis=1) < _SMALLEST_STEP))
        stuck = active & ~better & (damping >= _DAMPING_MOST)
        point = trial.where(better, point)
        damping = np.where(better, np.maximum(damping * _SOFTER, _DAMPING_LEAST), damping * _HARDER)
        iterations[index[active]] += 1
        converged[index[done | (stuck & sharp)]] = True
        active &= ~(done | stuck)
        final = point.state.scattered(final, index)
        if not active.any():
            break
        if active.sum() <= 0.5 * len(active):
            keep = index_of(active)
            problem, point, settings = problem.take(keep), point.take(keep), settings.take(keep)
            index, damping, active = index[keep], damping[keep], active[keep]
    return Solution(final, iterations, converged, {})


def _first_point(problem: Problem, state: State, settings: Settings) -> _Point:
    seen = view(problem, state)
    weights = weights_at(problem, state, seen.distance)
    eps: Eps = None
    if settings.sharpest is not None:
        total = np.maximum(weights.sum(axis=1), 1e-300)
        rms = np.sqrt((weights * seen.distance**2).sum(axis=1) / total)
        eps = np.maximum(rms, settings.sharpest)
    gradient, hessian = derivatives(state, seen, weights, eps)
    start = np.where(seen.in_front, cost(seen.distance, weights, eps), np.inf)
    return _with_prior(_Point(state, weights, eps, start, gradient, hessian), settings)


def _evaluate(
    problem: Problem, state: State, before: _Point, settings: Settings, iteration: int
) -> tuple[Floats, _Point]:
    """Cost (N,) of ``state`` as ``before`` measured it, and the point it would make."""
    seen = view(problem, state)
    distance = seen.distance
    same = cost(distance, before.weights, before.eps) + _prior_cost(state, settings)
    frozen = problem.ears is None or iteration >= _FROZEN_EARS_AFTER
    weights = before.weights if frozen else weights_at(problem, state, distance)
    eps = before.eps
    if eps is not None and settings.sharpest is not None:
        eps = np.maximum(eps * _SHARPENING, settings.sharpest)
    gradient, hessian = derivatives(state, seen, weights, eps)
    point = _Point(state, weights, eps, cost(distance, weights, eps), gradient, hessian)
    return np.where(seen.in_front, same, np.inf), _with_prior(point, settings)


def _prior_cost(state: State, settings: Settings) -> Floats:
    if settings.focal != "free":
        return np.zeros(len(state))
    own: Floats = 0.5 * settings.prior * state.log_f**2
    return own


def _with_prior(point: _Point, settings: Settings) -> _Point:
    if settings.focal != "free" or settings.prior == 0:
        return point
    point.gradient[:, 6] += settings.prior * point.state.log_f
    point.hessian[:, 6, 6] += settings.prior
    total = point.cost + _prior_cost(point.state, settings)
    return _Point(point.state, point.weights, point.eps, total, point.gradient, point.hessian)


def _is_sharp(eps: Eps, settings: Settings) -> Bools | bool:
    return True if eps is None or settings.sharpest is None else eps <= settings.sharpest


def _damped(hessian: Floats, damping: Floats) -> Floats:
    """H plus Marquardt's multiple of its diagonal; (N, b, b)."""
    out = np.array(hessian)
    k = np.arange(hessian.shape[1])
    own = out[:, k, k]
    least = 1e-12 * own.max(axis=1, keepdims=True) + 1e-300
    out[:, k, k] = own + damping[:, None] * own + least
    return out


def _at_bound(state: State, gradient: Floats, settings: Settings) -> Bools:
    """Frames whose focal length lies on a bound and would be pushed beyond it."""
    outwards_low = (state.log_f <= settings.low) & (gradient > 0)
    outwards_high = (state.log_f >= settings.high) & (gradient < 0)
    return outwards_low | outwards_high


def _own_steps(point: _Point, damping: Floats, settings: Settings) -> Floats:
    """Steps (N, 7) of frames that do not know each other."""
    n = len(damping)
    step = np.zeros((n, 7))
    b = 7 if settings.focal == "free" else 6
    hessian, gradient = point.hessian[:, :b, :b], point.gradient[:, :b].copy()
    if b == 7:
        hessian = hessian.copy()
        _hold(hessian, gradient, _at_bound(point.state, gradient[:, 6], settings))
    damped = _damped(hessian, damping)
    step[:, :b] = -np.linalg.solve(damped, gradient[..., None])[..., 0]
    return _limited(step, point.state, settings)


def _hold(hessian: Floats, gradient: Floats, held: Bools) -> None:
    """Take log f of the frames ``held`` out of their systems."""
    hessian[held, 6, :] = 0
    hessian[held, :, 6] = 0
    hessian[held, 6, 6] = 1
    gradient[held, 6] = 0


def _limited(step: Floats, state: State, settings: Settings) -> Floats:
    """Cut steps to what a linearisation can mean, and log f to its bounds."""
    largest = np.abs(step).max(axis=1, keepdims=True)
    step = step * np.minimum(1.0, _LARGEST_TURN / np.maximum(largest, 1e-300))
    if settings.focal == "free":
        log_f = np.clip(state.log_f + step[:, 6], settings.low, settings.high)
        step[:, 6] = log_f - state.log_f
    return step


# ------------------------------------------------------------------ one system for all frames
def solve_sequence(
    problem: Problem, start: State, settings: Settings, coupling: Coupling | None = None
) -> Solution:
    """Fit all frames in one system: shared focal length, smoothing, or both."""
    n = len(problem)
    state, damping = start, _DAMPING_START
    point = _first_sequence_point(problem, state, settings)
    system = _system(problem, point, settings, coupling)
    history: dict[str, list[float]] = {}
    converged = False
    floor = _REMAINDER * problem.weights.sum()
    iteration = 0
    for iteration in range(1, settings.max_iterations + 1):
        step = _sequence_step(system, damping, point.state, settings)
        moved = point.state.moved(step)
        same, trial = _evaluate_sequence(problem, moved, point, settings, iteration)
        before = system.cost
        after = float(same[problem.fittable].sum()) + _extra_cost(
            problem, moved, settings, coupling
        )
        better = after <= before
        sharp = bool(np.all(_is_sharp(point.eps, settings)))
        if better:
            small = before - after <= _RELATIVE_DECREASE * before
            converged = sharp and ((damping < 1 and small) or after <= floor)
            point = trial
            system = _system(problem, point, settings, coupling)
            damping = max(damping * _SOFTER, _DAMPING_LEAST)
            for name, value in objective(problem, moved, coupling).items():
                history.setdefault(name, []).append(value)
        else:
            converged = sharp and (damping >= _DAMPING_MOST or before <= floor)
            converged = converged or (sharp and float(np.abs(step).max()) < _SMALLEST_STEP)
            if damping >= _DAMPING_MOST:
                break
            damping *= _HARDER
        if converged:
            break
    iterations = np.where(problem.fittable, iteration, 0).astype(np.int64)
    return Solution(point.state, iterations, np.full(n, converged) & problem.fittable, history)


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """Gradient (N, 7) and Hessian blocks of the whole objective, and its value."""

    cost: float
    gradient: Floats
    band: Band


def _first_sequence_point(problem: Problem, state: State, settings: Settings) -> _Point:
    return _joined(
        problem,
        state,
        [
            (i, _first_point(problem.take(i), state.take(i), settings.take(i)))
            for i in portions(problem)
        ],
    )


def _evaluate_sequence(
    problem: Problem, state: State, before: _Point, settings: Settings, iteration: int
) -> tuple[Floats, _Point]:
    same, parts = np.zeros(len(problem)), []
    for i in portions(problem):
        same[i], part = _evaluate(
            problem.take(i), state.take(i), before.take(i), settings.take(i), iteration
        )
        parts.append((i, part))
    return same, _joined(problem, state, parts)


def _joined(problem: Problem, state: State, parts: list[tuple[Ints, _Point]]) -> _Point:
    """One point of the parts; frames that are not fittable have no cost and do not move."""
    n = len(problem)
    weights = np.zeros_like(problem.weights) if problem.ears is not None else problem.weights
    sharp = None if parts[0][1].eps is None else np.zeros(n)
    total, gradient, hessian = np.zeros(n), np.zeros((n, 7)), np.zeros((n, 7, 7))
    for i, part in parts:
        if problem.ears is not None:
            weights[i] = part.weights
        if sharp is not None:
            sharp[i] = part.eps
        total[i], gradient[i], hessian[i] = part.cost, part.gradient, part.hessian
    return _Point(state, weights, sharp, total, gradient, hessian)


def _extra_cost(
    problem: Problem, state: State, settings: Settings, coupling: Coupling | None
) -> float:
    """Smoothing, and the prior of a shared focal length."""
    extra = 0.0 if coupling is None else coupling.energy(state, problem.centre)
    if settings.focal == "shared":
        extra += 0.5 * settings.prior * float(state.log_f[0]) ** 2
    return extra


def _system(
    problem: Problem, point: _Point, settings: Settings, coupling: Coupling | None
) -> _System:
    gradient, band = point.gradient.copy(), Band.zeros(len(problem), 7)
    if coupling is not None:
        g, band = coupling.linearised(point.state, problem.centre)
        gradient += g
    band.diagonal[...] += point.hessian
    band.diagonal[~problem.fittable] = np.eye(7)
    total = float(point.cost[problem.fittable].sum())
    total += _extra_cost(problem, point.state, settings, coupling)
    return _System(total, gradient, band)


def _sequence_step(system: _System, damping: float, state: State, settings: Settings) -> Floats:
    n = len(state)
    step = np.zeros((n, 7))
    b = 7 if settings.focal == "free" else 6
    band = system.band.poses(b).copy()
    gradient = system.gradient[:, :b].copy()
    if settings.focal == "free":
        _hold_in_band(band, gradient, _at_bound(state, gradient[:, 6], settings))
    band.diagonal[...] = _damped(band.diagonal, np.full(n, damping))
    if settings.focal != "shared":
        step[:, :b] = -solve_band(band, gradient[..., None])[..., 0]
        return _limited(step, state, settings)
    column = system.band.column_sum(6)
    log_f = float(state.log_f[0])
    border, own = column[:, :6], float(column[:, 6].sum()) + settings.prior
    slope = float(system.gradient[:, 6].sum()) + settings.prior * log_f
    outwards = (log_f <= settings.low[0] and slope > 0) or (log_f >= settings.high[0] and slope < 0)
    if outwards:
        border, slope = np.zeros_like(border), 0.0
    poses_step, shared = solve_bordered(band, border, own * (1 + damping), gradient, slope)
    step[:, :6] = -poses_step
    step[:, 6] = np.clip(log_f - shared, settings.low[0], settings.high[0]) - log_f
    limit = _LARGEST_TURN / max(float(np.abs(step).max()), 1e-300)
    return step * min(1.0, limit)


def _hold_in_band(band: Band, gradient: Floats, held: Bools) -> None:
    """Take log f of the frames ``held`` out of the band."""
    _hold(band.diagonal, gradient, held)
    for distance, blocks in ((1, band.first), (2, band.second)):
        blocks[held[: len(blocks)], 6, :] = 0
        blocks[held[distance:][: len(blocks)], :, 6] = 0
