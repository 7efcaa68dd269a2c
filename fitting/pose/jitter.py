"""How much the poses of a track jitter, told apart from how the head moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.correspondences import Correspondences
from fitting.pose.problem import build_problem
from fitting.pose.state import State
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
    follows = np.diff(track.frame_ids) == 1
    first = np.flatnonzero(follows).astype(np.int64)
    steps = np.full((max(len(track) - 1, 0), 6), np.nan)
    steps[first] = head_steps(state, first)
    fourth = np.diff(steps, n=3, axis=0)
    if not len(fourth):
        return None
    variance = per_px.blocks[2:-2] * _FOURTH
    ratio = _blocks(fourth**2) / _blocks(variance)
    known = ratio[np.isfinite(ratio).all(axis=1)]
    if not len(known):
        return None
    noise_px = float(np.sqrt(np.median(known) / _CHI_3_MEDIAN))
    return Jitter(noise_px, noise_px * float(np.nanmedian(per_px.rotation_deg)))


def _blocks(values: Floats) -> Floats:
    """Means (M, 2) of rotation and of position."""
    means: Floats = values.reshape(-1, 2, 3).mean(axis=2)
    return means
