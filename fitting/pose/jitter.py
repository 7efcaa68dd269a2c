"""How much the poses of a track jitter, told apart from how the head moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.correspondences import Correspondences
from fitting.pose.problem import Bools, build_problem
from fitting.pose.state import State, index_of
from fitting.pose.terms import head_steps
from fitting.pose.uncertainty import Noise, measure_uncertainty

_FOURTH = 70.0
"""Sum of the squared binomials 1 -4 6 -4 1: what a fourth difference makes of white noise."""

_CHI_3_MEDIAN = 2.366 / 3
"""Median of the mean of three squared standard normals."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """What poses jitter by, apart from motion: standard deviations.

    Attributes
    ----------
    noise_px
        Noise of one landmark coordinate that would cause it, px.
    rotation_deg
        Angle of the head's turn, degrees.

    """

    noise_px: float
    rotation_deg: float


def measure_jitter(track: Track, pairs: Correspondences) -> Jitter | None:
    """Measure what the poses of a track jitter by.

    Fourth differences of rotation and position leave next to nothing of a head's motion (at 1 Hz
    and 25 frames per second, 1/250 of it), and multiply white noise by 8.4. Their median over the
    frames is held against what a landmark noise of 1 px makes of a pose.

    Returns None where fewer than five frames follow each other.
    """
    problem = build_problem(pairs.points, pairs.landmarks, track.intrinsics)
    state = State.of(track.w2c, problem.centre, np.zeros(len(track)))
    per_px = measure_uncertainty(problem, state, Noise(problem.unit, 1.0), "fixed", None, False)
    noise_px = jitter_ratio(state, np.diff(track.frame_ids) == 1, per_px.blocks)
    if noise_px is None:
        return None
    return Jitter(noise_px, noise_px * float(np.nanmedian(per_px.rotation_deg)))


def jitter_ratio(state: State, linked: Bools, variances: Floats) -> float | None:
    """How many times the stated noise poses jitter by; None without five frames in a row.

    ``linked`` (N-1,): frames that follow their predecessor; ``variances`` (N, 6) of a pose.
    """
    first = index_of(linked)
    steps = np.full((len(linked), 6), np.nan)
    steps[first] = head_steps(state, first)
    fourth = np.diff(steps, n=3, axis=0)
    if not len(fourth):
        return None
    ratio = _blocks(fourth**2) / np.maximum(_blocks(variances[2:-2] * _FOURTH), 1e-300)
    known = ratio[np.isfinite(ratio).all(axis=1)]
    return float(np.sqrt(np.median(known) / _CHI_3_MEDIAN)) if len(known) else None


def _blocks(values: Floats) -> Floats:
    """Means (M, 2) of rotation and of position."""
    means: Floats = values.reshape(-1, 2, 3).mean(axis=2)
    return means
