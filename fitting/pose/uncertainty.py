"""What the landmarks' noise makes of a fitted camera: linearised, per frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.geometry.pixels import Floats
from fitting.pose.lm import portions
from fitting.pose.problem import Problem
from fitting.pose.state import N_PARAMETERS, State
from fitting.pose.terms import jacobian, view, weights_at

_NORM_EFFICIENCY = np.pi / 4
"""Of the mean unsquared distance against least squares, for Gaussian noise in two dimensions."""

_RAYLEIGH_MEDIAN = np.sqrt(2 * np.log(2))


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """Standard deviations (1 sigma) that the landmarks' own scatter implies; NaN where not fitted.

    They count noise of the landmarks only: no wrong head, no wrong K. Smoothing makes a pose less
    scattered than stated here.

    Attributes
    ----------
    noise_px
        Noise of one landmark coordinate, estimated from the residuals of all frames.
    rotation_deg
        (N,) angle, root of the summed squares over three axes.
    lateral
        (N,) of x/z and y/z, radians.
    depth
        (N,) of z, as a fraction; includes the focal length's, which it follows one to one.
    focal
        (N,) of the focal length, as a fraction; 0 where it is not fitted.
    blocks
        (N, 6) variances of rotation (3, rad^2), x/z, y/z and log(z/f).

    """

    noise_px: float
    rotation_deg: Floats
    lateral: Floats
    depth: Floats
    focal: Floats
    blocks: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Noise of the landmarks, and what one nat of likelihood is worth in the objective.

    Attributes
    ----------
    ndc
        Of one coordinate.
    objective_per_nat
        Factor that brings ``r^2 / (2 sigma^2)`` of a prior into the objective's units.

    """

    ndc: float
    objective_per_nat: float


def measure_noise(problem: Problem, state: State, squared: bool) -> Noise:
    """Noise from the median distance: outliers do not count (two dimensions: Rayleigh)."""
    p = problem.n_points
    fitted = problem.fittable
    weights = problem.weights[:, :p]
    counts = (weights > 0) & fitted[:, None]
    n_counts = int(counts.sum())
    spare = max(2 * n_counts - 6 * int(fitted.sum()), 1)
    distance = np.concatenate(
        [view(problem.take(i), state.take(i)).distance[:, :p] for i in portions(problem)]
    )
    median = float(np.median(distance[counts[fitted]]))
    sigma = median / _RAYLEIGH_MEDIAN * np.sqrt(2 * n_counts / spare)
    return noise_of(problem, float(sigma), squared)


def noise_of(problem: Problem, ndc: float, squared: bool) -> Noise:
    """Noise of a known size, as it weighs in the objective."""
    weights = problem.weights[problem.fittable, : problem.n_points]
    mean_weight = float((weights**2).sum() / weights.sum())
    # Variance over curvature of the objective: w sigma^2 for half squares; for the norm, whose
    # slope is a unit vector (1/2 per axis) and mean curvature sqrt(pi/2)/(2 sigma), as follows.
    return Noise(ndc, mean_weight * ndc * (ndc if squared else np.sqrt(2 / np.pi)))


def repetition(problem: Problem, state: State) -> float:
    """How often the frames repeat the same errors: 1 if each is new, N if all frames have them.

    Landmarks that sit beside their head points, and heads of a wrong shape, are off alike in every
    frame. What all frames share, a focal length, is then known as by fewer frames: the design
    effect ``1 + (N - 1) rho``, rho the share of the residuals' variance that stays (Kish 1965).
    """
    p = problem.n_points
    residuals = np.zeros((len(problem), 2, p))
    counts = (problem.weights[:, :p] > 0) & problem.fittable[:, None]
    for i in portions(problem):
        seen = view(problem.take(i), state.take(i))
        residuals[i] = np.stack([seen.dx[:, :p], seen.dy[:, :p]], axis=1)
    limit = 5 * np.median(np.linalg.norm(residuals, axis=1)[counts])
    counts &= np.linalg.norm(residuals, axis=1) <= limit
    n = counts.sum(axis=0)
    used = n >= 2
    if not used.any():
        return 1.0
    residuals = residuals[:, :, used] * counts[:, None, used]
    n = n[used]
    mean = residuals.sum(axis=0) / n
    total = float((residuals**2).sum() / (2 * n.sum()))
    within = float(((residuals**2).sum(axis=0) - n * mean**2).sum() / (2 * (n - 1).sum()))
    staying = float((n * (mean**2 - within / n)).sum() / (2 * n.sum()))
    rho = min(max(staying / max(total, 1e-300), 0.0), 1.0)
    return 1.0 + (float(n.mean()) - 1.0) * rho


def measure_uncertainty(
    problem: Problem,
    state: State,
    noise: Noise,
    focal: str,
    prior_sigma: float | None,
    robust: bool,
) -> Uncertainty:
    """Covariance of the weighted estimate, ``A^-1 B A^-1``: A, B with weights and their squares."""
    n = len(problem)
    a, b = np.zeros((2, n, N_PARAMETERS, N_PARAMETERS))
    for i in portions(problem):
        part, cameras = problem.take(i), state.take(i)
        weights = weights_at(part, cameras, view(part, cameras).distance)
        j = jacobian(part, cameras).reshape(len(i), N_PARAMETERS, -1)
        two = np.concatenate([weights, weights], axis=1)[:, None]
        a[i] = (j * two) @ np.swapaxes(j, 1, 2)
        b[i] = (j * two**2) @ np.swapaxes(j, 1, 2)
    variance = noise.ndc**2 / (_NORM_EFFICIENCY if robust else 1.0)
    a[~problem.fittable] = np.eye(N_PARAMETERS)
    # One faint made-up observation of everything: what the landmarks do not tell comes out as huge,
    # not as a singular matrix.
    faint = 1e-12 * np.diagonal(a, axis1=1, axis2=2)[:, :6].max(axis=1)[:, None, None] * np.eye(6)
    a[:, :6, :6] += faint
    b[:, :6, :6] += faint * problem.weights.max(axis=1)[:, None, None]
    poses = np.linalg.inv(a[:, :6, :6])
    covariance = np.zeros_like(a)
    covariance[:, :6, :6] = poses @ b[:, :6, :6] @ poses * variance
    focal_variance = np.zeros(n)
    if focal != "fixed":
        # The focal length by what each frame knows of it once its own pose is free.
        slope = -(poses @ a[:, :6, 6:])[..., 0]
        known = a[:, 6, 6] + np.einsum("nk,nk->n", a[:, :6, 6], slope)
        lift = np.concatenate([slope, np.ones((n, 1))], axis=1)
        scatter = np.einsum("nk,nkl,nl->n", lift, b, lift)
        known, scatter = known * problem.fittable, scatter * problem.fittable
        if focal == "shared":
            known, scatter = np.full(n, known.sum()), np.full(n, scatter.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            focal_variance = variance * scatter / known**2
            if focal == "shared":
                focal_variance *= repetition(problem, state)
            if prior_sigma is not None:
                focal_variance = 1 / (1 / focal_variance + 1 / prior_sigma**2)
        covariance += focal_variance[:, None, None] * lift[:, :, None] * lift[:, None, :]
    diagonal = np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0)
    diagonal[~problem.fittable] = np.nan
    depth = diagonal[:, 5] + diagonal[:, 6] + 2 * covariance[:, 5, 6]
    return Uncertainty(
        noise_px=noise.ndc / problem.unit,
        rotation_deg=np.degrees(np.sqrt(diagonal[:, :3].sum(axis=1))),
        lateral=np.sqrt(diagonal[:, 3:5].max(axis=1)),
        depth=np.sqrt(np.maximum(depth, 0)),
        focal=np.sqrt(diagonal[:, 6]),
        blocks=diagonal[:, :6],
    )
