"""A rigid camera fit as arrays: head points, where they were seen, and what each one weighs.

The objective is that of flame-head-tracker's ``run_rigid_camera_pose_fitting``
(https://github.com/PeizhiYan/flame-head-tracker, v4.1): per frame, the **mean** over each group's
points of the Euclidean distance (not squared) between a projected point and its landmark, times
the group's weight, summed over frames. Distances are in NDC: px divided by half the shorter side of
the image, so that weights mean the same at every resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from converter.errors import ConventionError
from converter.geometry import Intrinsics
from converter.geometry.pixels import Floats

Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]

_FARTHEST_PX, _FARTHEST_M = 1e7, 1e4
"""Beyond these a landmark or a head point is damage, and its square may overflow."""

MIN_POINTS = 4
"""Fewest landmarks that a frame is fitted to; with three a pose is not unique."""


@dataclass(frozen=True, slots=True)
class Group:
    """Points whose mean distance makes one term of the objective.

    Attributes
    ----------
    name
        The term's name in reports.
    indices
        Which of the P points belong to it.
    weight
        Objective units per NDC of mean distance.

    """

    name: str
    indices: tuple[int, ...]
    weight: float


IBUG_68 = (Group("face", tuple(range(17, 68)), 300.0), Group("jaw", tuple(range(17)), 200.0))
"""The two groups and weights that flame-head-tracker gives iBUG's 68 landmarks."""


@dataclass(frozen=True, slots=True, eq=False)
class Ears:
    """Points of both ears, and the landmarks of the one ear that a detector saw.

    A frame takes part with the ear on the side that it shows (left for a camera on the subject's
    left, yaw > 0), weighted ``weight * a`` where ``a`` is ``|yaw|`` plus ``|pitch|`` in radians,
    each 0 inside its dead zone; and not at all while the ear's mean distance is ``gate`` or more.

    Attributes
    ----------
    left, right
        (N, E, 3) or (E, 3), metres. Which vertices they are is the caller's choice.
    landmarks
        (N, E, 2), edge-origin px; NaN where not seen.
    weight
        Objective units per NDC of mean distance and radian.
    yaw_dead_zone, pitch_dead_zone
        Radians.
    gate
        NDC.

    """

    left: Floats
    right: Floats
    landmarks: Floats
    weight: float = 150.0
    yaw_dead_zone: float = 0.1
    pitch_dead_zone: float = 0.15
    gate: float = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class CameraSmoothing:
    """The reference's smoothing: squared steps of the camera between frames next to each other.

    It acts on the rotation vector (rad) and the centre (m) of the camera, so it damps head turns in
    proportion to the distance. It is here to compare with; `HeadSmoothing` is the one to use.

    Attributes
    ----------
    rotation, centre
        Objective units per rad^2 and per m^2.
    frame_ids
        (N,); frames are neighbours if their ids differ by 1. None: all of them, in order.

    """

    rotation: float = 150.0
    centre: float = 150.0
    frame_ids: Ints | None = None


@dataclass(frozen=True, slots=True, eq=False)
class HeadSmoothing:
    """Smoothing of the head as the camera sees it: its rotation, direction and apparent size.

    Changes of speed are what costs (second differences), so that a head that turns steadily is not
    held back. Each change is taken to be about `ratio` of what measurement noise makes of it;
    changes beyond `knee` times that noise are believed to be motion and left alone (Welsch). Noise
    is what the landmarks' residuals and the geometry of each frame imply. Good for turns up to some
    6 degrees per frame; beyond 10, reversals within a few frames are rounded off.
    A run of fewer than three frames is not smoothed.

    Attributes
    ----------
    ratio
        Smaller is smoother; at 0.2 the jitter of a still head falls to a seventh.
    knee
        Where a change counts as motion, in units of its noise.
    frame_ids
        (N,); frames are neighbours if their ids differ by 1. None: all of them, in order.
    noise_px
        Noise of one landmark coordinate to assume, px; None: as measured from the residuals.

    """

    ratio: float = 0.2
    knee: float = 2.0
    frame_ids: Ints | None = None
    noise_px: float | None = None


Smoothing: TypeAlias = CameraSmoothing | HeadSmoothing


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Everything that does not change while a fit runs, laid out for whole-array arithmetic.

    Coordinates are apart (x, y[, z] before points) because every formula takes them one by one.

    Attributes
    ----------
    centre
        (3,) the head point that the fit turns about: the mean of all points, metres.
    offsets
        (N or 1, 3, Q) points less `centre`; Q = P, or P + 2 E with left, then right ears.
    targets
        (N, 2, Q) landmarks less the principal point, NDC; 0 where masked.
    weights
        (N, Q) objective units per NDC of each point, 0 where masked; ears before their yaw factor.
    focal
        (N, 2) focal lengths of the given K in NDC.
    unit
        NDC per px: 2 / shorter side.
    n_points
        P.
    groups, ears
        As given; ears' arrays are in the ones above.
    fittable
        (N,) frames with at least `MIN_POINTS` landmarks of positive weight.

    """

    centre: Floats
    offsets: Floats
    targets: Floats
    weights: Floats
    focal: Floats
    unit: float
    n_points: int
    groups: tuple[Group, ...]
    ears: Ears | None
    fittable: Bools

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Ints | Bools | slice) -> Problem:
        """Return the problem of some of its frames."""
        offsets = self.offsets if len(self.offsets) == 1 else self.offsets[index]
        return replace(
            self,
            offsets=offsets,
            targets=self.targets[index],
            weights=self.weights[index],
            focal=self.focal[index],
            fittable=self.fittable[index],
        )


def build_problem(
    points: ArrayLike,
    landmarks: ArrayLike,
    intrinsics: Intrinsics,
    groups: Sequence[Group] | None = None,
    weights: ArrayLike | None = None,
    ears: Ears | None = None,
) -> Problem:
    """Check the input of a fit and lay it out; parameters as of `fit_rigid`.

    Raises
    ------
    ConventionError
        If shapes disagree, points or weights are not finite, a weight is negative, a group names a
        point that does not exist, or two groups name the same one.

    """
    seen = np.asarray(landmarks, dtype=np.float64)
    if seen.ndim != 3 or seen.shape[-1] != 2 or 0 in seen.shape:
        raise ConventionError("fit: landmarks", "shape (N, P, 2)", f"{seen.shape}")
    n_frames, n_points = seen.shape[:2]
    if np.any(np.abs(seen) > _FARTHEST_PX):
        raise ConventionError("fit: landmarks", f"px below {_FARTHEST_PX:g}, or NaN", "beyond")
    head = _points("points", points, n_frames, n_points)
    chosen = _groups(groups, n_points)
    own = _own_weights(weights, n_frames, n_points)
    if intrinsics.n_frames not in (None, n_frames):
        raise ConventionError("fit: intrinsics", f"{n_frames} frames", f"{intrinsics.n_frames}")

    visible = _visible(seen)
    per_point = np.zeros((n_frames, n_points))
    for group in chosen:
        columns = list(group.indices)
        per_point[:, columns] = _mean_weights(own[:, columns] * visible[:, columns], group.weight)
    n_seen = (per_point > 0).sum(axis=1)
    if ears is not None:
        head, seen, per_point = _with_ears(head, seen, per_point, ears)
    unit = 2.0 / min(intrinsics.size.width, intrinsics.size.height)
    k = np.broadcast_to(intrinsics.matrix, (n_frames, 3, 3))
    targets = np.where(per_point[..., None] > 0, (seen - k[:, None, :2, 2]) * unit, 0.0)
    centre = head[:, :n_points].mean(axis=(0, 1))
    return Problem(
        centre=centre,
        offsets=np.ascontiguousarray(np.swapaxes(head - centre, 1, 2)),
        targets=np.ascontiguousarray(np.swapaxes(targets, 1, 2)),
        weights=per_point,
        focal=np.stack([k[:, 0, 0], k[:, 1, 1]], axis=1) * unit,
        unit=unit,
        n_points=n_points,
        groups=chosen,
        ears=ears,
        fittable=n_seen >= MIN_POINTS,
    )


def chain_of(smoothing: Smoothing | None, fittable: Bools) -> Bools:
    """(N-1,) which frames are linked with their successor: next to each other, and both fitted.

    Raises
    ------
    ConventionError
        If the smoothing's frame ids are not N ascending numbers.

    """
    n = len(fittable)
    if smoothing is None:
        return np.zeros(max(n - 1, 0), dtype=bool)
    assumed = smoothing.noise_px if isinstance(smoothing, HeadSmoothing) else None
    if assumed is not None and not (np.isfinite(assumed) and assumed > 0):
        raise ConventionError("fit: smoothing", "a noise above 0 px", f"{assumed}")
    linked: Bools = fittable[:-1] & fittable[1:]
    if smoothing.frame_ids is not None:
        ids = np.asarray(smoothing.frame_ids)
        if ids.shape != (n,) or np.any(np.diff(ids) <= 0):
            raise ConventionError("fit: smoothing", f"{n} ascending frame ids", "others")
        linked &= np.diff(ids) == 1
    return linked


def _points(name: str, points: ArrayLike, n_frames: int, n_points: int) -> Floats:
    """Points as (N or 1, P, 3)."""
    head = np.asarray(points, dtype=np.float64)
    if head.ndim == 2:
        head = head[None]
    if head.ndim != 3 or head.shape[1:] != (n_points, 3) or len(head) not in (1, n_frames):
        expected = f"shape ({n_frames}, {n_points}, 3) or ({n_points}, 3)"
        raise ConventionError(f"fit: {name}", expected, f"{np.shape(points)}")
    if not (np.abs(head) < _FARTHEST_M).all():
        raise ConventionError(
            f"fit: {name}", f"finite metres below {_FARTHEST_M:g}", "NaN, infinity, or beyond"
        )
    return head


def _groups(groups: Sequence[Group] | None, n_points: int) -> tuple[Group, ...]:
    if groups is None:
        return (Group("points", tuple(range(n_points)), 1.0),)
    named = [i for group in groups for i in group.indices]
    if not named or min(named) < 0 or max(named) >= n_points or len(set(named)) < len(named):
        raise ConventionError(
            "fit: groups", f"each point named once at most, from 0 to {n_points - 1}", "others"
        )
    if any(not (np.isfinite(g.weight) and g.weight >= 0) for g in groups):
        raise ConventionError("fit: groups", "weights of 0 or more", "others")
    return tuple(groups)


def _own_weights(weights: ArrayLike | None, n_frames: int, n_points: int) -> Floats:
    own = np.ones(1) if weights is None else np.asarray(weights, dtype=np.float64)
    try:
        own = np.broadcast_to(own, (n_frames, n_points))
    except ValueError:
        expected = f"shape ({n_points},) or ({n_frames}, {n_points})"
        raise ConventionError("fit: weights", expected, f"{own.shape}") from None
    if not np.isfinite(own).all() or np.any(own < 0):
        raise ConventionError("fit: weights", "finite numbers of 0 or more", "others")
    return own


def _visible(landmarks: Floats) -> Bools:
    """(N, P) landmarks that are there: finite, and not the (0, 0) that detectors give for none."""
    there: Bools = np.isfinite(landmarks).all(axis=-1) & (landmarks != 0).any(axis=-1)
    return there


def _mean_weights(own: Floats, weight: float) -> Floats:
    """Split ``weight`` over the points of one term in each frame; 0 where a frame has none."""
    total = own.sum(axis=1, keepdims=True)
    shares: Floats = weight * own / np.where(total > 0, total, 1.0)
    return shares


def _with_ears(
    head: Floats, seen: Floats, per_point: Floats, ears: Ears
) -> tuple[Floats, Floats, Floats]:
    n_frames = len(seen)
    marks: NDArray[Any] = np.asarray(ears.landmarks, dtype=np.float64)
    if marks.ndim != 3 or len(marks) != n_frames or marks.shape[-1] != 2:
        raise ConventionError("fit: ears", f"landmarks ({n_frames}, E, 2)", f"{marks.shape}")
    if not (np.isfinite(ears.weight) and ears.weight > 0):
        raise ConventionError("fit: ears", "a weight above 0", str(ears.weight))
    if np.any(np.abs(marks) > _FARTHEST_PX):
        raise ConventionError("fit: ears", f"px below {_FARTHEST_PX:g}, or NaN", "beyond")
    sides = [_points("ears", p, n_frames, marks.shape[1]) for p in (ears.left, ears.right)]
    n = max(len(p) for p in (head, *sides))
    parts = [np.broadcast_to(p, (n, *p.shape[1:])) for p in (head, *sides)]
    share = _mean_weights(_visible(marks).astype(np.float64), ears.weight)
    return (
        np.concatenate(parts, axis=1),
        np.concatenate([seen, marks, marks], axis=1),
        np.concatenate([per_point, share, share], axis=1),
    )
