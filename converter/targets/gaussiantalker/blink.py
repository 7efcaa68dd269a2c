"""AU45 (blink) from the eye landmarks, or from the tracker's eyelids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats

_EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))
_WINDOW_S = 2.0
_OPEN_PERCENTILE = 80
_MIN_CLOSED_RATIO = 0.05
_MIN_DROP = 0.35
_DEAD_ZONE = 0.15
_MIN_EYELID_RANGE = 0.3


@dataclass(frozen=True, slots=True)
class Blinks:
    """Closure (N,) in [0, 1], 0 = open, and where it comes from."""

    closure: Floats
    origin: str


def eye_aspect_ratio(landmarks: Floats) -> Floats:
    """Opening over width of both eyes, (N,), from 68 landmarks (N, 68, 2); NaN stays NaN.

    A ratio of sums, so that the far eye counts less in a turned head (Soukupova and Cech 2016 for
    one eye: https://vision.fe.uni-lj.si/cvww2016/proceedings/papers/05.pdf).
    """

    def distance(a: int, b: int) -> Floats:
        between: Floats = np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=-1)
        return between

    heights = sum(distance(e[1], e[5]) + distance(e[2], e[4]) for e in _EYES)
    widths = sum(distance(e[0], e[3]) for e in _EYES)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.asarray(heights) / (2 * np.asarray(widths))
    return np.where(np.isfinite(ratio), ratio, np.nan)


def find_blinks(landmarks: Floats, eyelids: Floats | None, times: Floats) -> Blinks:
    """Eye closure of every frame.

    Parameters
    ----------
    landmarks
        (N, 68, 2), NaN where missing.
    eyelids
        (N, 2) the tracker's eyelid weights, 0 = neutral, about 1 = closed; or None.
    times
        (N,) seconds.

    """
    ratio = eye_aspect_ratio(landmarks)
    closure = _closure_from_ratio(ratio, times)
    if closure.any():
        return Blinks(_gentle(closure), "eye landmarks")
    lids = _closure_from_eyelids(eyelids)
    if lids is not None:
        return Blinks(_gentle(lids), "the tracker's eyelids")
    return Blinks(np.zeros(len(times)), "nothing: no blink was found")


def _closure_from_ratio(ratio: Floats, times: Floats) -> Floats:
    known = np.isfinite(ratio)
    if not known.any():
        return np.zeros(len(ratio))
    opened = np.array(
        [np.percentile(_around(ratio, times, known, t), _OPEN_PERCENTILE) for t in times]
    )
    closed = max(_MIN_CLOSED_RATIO, float(np.percentile(ratio[known], 1)))
    if not np.any((opened - closed) / opened > _MIN_DROP):
        return np.zeros(len(ratio))
    filled = np.interp(times, times[known], ratio[known])
    span = np.maximum(opened - closed, 1e-6)
    closure: Floats = np.clip((opened - filled) / span, 0, 1)
    return closure


def _around(ratio: Floats, times: Floats, known: NDArray[np.bool_], t: float) -> Floats:
    """Known ratios within the window around ``t``; all of them where there are none."""
    low, high = np.searchsorted(times, [t - _WINDOW_S, t + _WINDOW_S + 1e-9])
    near = ratio[low:high][known[low:high]]
    if len(near):
        return np.asarray(near, np.float64)
    return np.asarray(ratio[known], np.float64)


def _closure_from_eyelids(eyelids: Floats | None) -> Floats | None:
    if eyelids is None:
        return None
    mean = eyelids.mean(axis=1)
    low, high = np.percentile(mean, [10, 99])
    if high - low <= _MIN_EYELID_RANGE:
        return None
    closure: Floats = np.clip((mean - low) / (high - low), 0, 1)
    return closure


def _gentle(closure: Floats) -> Floats:
    """Exactly 0 for open eyes: the trainer's encoding amplifies any noise there."""
    rescaled: Floats = np.where(
        closure < _DEAD_ZONE, 0.0, (closure - _DEAD_ZONE) / (1 - _DEAD_ZONE)
    )
    return rescaled


def au_csv(closure: Floats, times: Floats, full: float) -> str:
    """OpenFace-like au.csv; the loader wants the column ``" AU45_r"`` with its leading space.

    Loader: scene/talking_dataset_readers.py:359. Row i belongs to img_id i.
    """
    lines = ["frame, face_id, timestamp, confidence, success, AU45_r, AU45_c"]
    lines += [
        f"{i + 1}, 0, {t:.3f}, 1.00, 1, {full * x:.2f}, {float(x > 0.5):.2f}"
        for i, (x, t) in enumerate(zip(closure, times, strict=True))
    ]
    return "\n".join(lines) + "\n"
