"""The unknowns of a fit, seen from the head: cameras whose parameters hardly disturb each other.

A camera that turns about the head changes its rotation *and* its centre, in one long valley of the
objective that gets longer with the distance. Here the head turns and moves in front of the camera
instead: ``x_cam = R (X - centre) + h``, ``h = z (x/z, y/z, 1)``, with depth as ``log(z/f)``, the
apparent size, and focal length as ``log f``. f is a multiplier of the K that was given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converter.geometry import Pose, matrix_from_rotation_vector
from converter.geometry.pixels import Floats
from fitting.pose.problem import Bools, Ints

N_PARAMETERS = 7
"""Per frame: rotation (3, rad), x/z, y/z, log(z/f), log f, in this order."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Cameras of N frames.

    Attributes
    ----------
    R
        (N, 3, 3) camera from head.
    place
        (N, 3) x/z, y/z and log(z/f) of the head's centre in the camera.
    log_f
        (N,) log of the focal length over that of the given K.

    """

    R: Floats
    place: Floats
    log_f: Floats

    def __len__(self) -> int:
        return len(self.R)

    @property
    def z(self) -> Floats:
        """(N,) depth of the head's centre, metres."""
        depth: Floats = np.exp(self.place[:, 2] + self.log_f)
        return depth

    @property
    def position(self) -> Floats:
        """(N, 3) the head's centre in camera axes, metres."""
        rays = np.concatenate([self.place[:, :2], np.ones((len(self), 1))], axis=1)
        h: Floats = rays * self.z[:, None]
        return h

    def moved(self, step: Floats) -> State:
        """Return the state after a step (N, 7)."""
        R = matrix_from_rotation_vector(step[:, :3]) @ self.R
        return State(R, self.place + step[:, 3:6], self.log_f + step[:, 6])

    def take(self, index: Ints | Bools | slice) -> State:
        """Return the state of some of the frames."""
        return State(self.R[index], self.place[index], self.log_f[index])

    def where(self, chosen: Bools, other: State) -> State:
        """Return this state with the frames not ``chosen`` from ``other``."""
        return State(
            np.where(chosen[:, None, None], self.R, other.R),
            np.where(chosen[:, None], self.place, other.place),
            np.where(chosen, self.log_f, other.log_f),
        )

    def with_focal(self, log_f: Floats) -> State:
        """Return the state with other focal lengths and the same apparent size."""
        return replace(self, log_f=log_f)

    def pose(self, centre: Floats) -> Pose:
        """World-to-camera poses."""
        return Pose(self.R, self.position - self.R @ centre)

    @classmethod
    def of(cls, w2c: Pose, centre: Floats, log_f: Floats) -> State:
        """State of given poses; the head's centre has to be in front of the camera."""
        h = w2c.t + w2c.R @ centre
        place = np.stack([h[:, 0] / h[:, 2], h[:, 1] / h[:, 2], np.log(h[:, 2]) - log_f], axis=1)
        return cls(w2c.R, place, log_f)

    def scattered(self, into: State, index: Ints) -> State:
        """Return ``into`` with this state at its frames ``index``."""
        R, place, log_f = into.R.copy(), into.place.copy(), into.log_f.copy()
        R[index], place[index], log_f[index] = self.R, self.place, self.log_f
        return State(R, place, log_f)


def skew(v: Floats) -> Floats:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    k = np.zeros((*v.shape[:-1], 3, 3))
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    k -= np.swapaxes(k, -1, -2).copy()
    return k


def right_jacobian(w: Floats) -> Floats:
    """J (..., 3, 3) with ``exp(w + dw) = exp(w) exp(J dw)`` to first order."""
    theta = np.linalg.norm(w, axis=-1)[..., None, None]
    k = skew(w)
    first = 0.5 * np.sinc(theta / (2 * np.pi)) ** 2
    small = theta < 1e-4
    safe = np.where(small, 1.0, theta)
    second = np.where(small, 1 / 6 - theta**2 / 120, (safe - np.sin(safe)) / safe**3)
    jacobian: Floats = np.eye(3) - first * k + second * (k @ k)
    return jacobian


def inverse_right_jacobian(w: Floats) -> Floats:
    """Inverse of `right_jacobian`; |w| < 2 pi. Its transpose is the left one's inverse."""
    theta = np.linalg.norm(w, axis=-1)[..., None, None]
    k = skew(w)
    small = theta < 1e-4
    half = np.where(small, 0.5, theta / 2)
    second = np.where(
        small, 1 / 12 + theta**2 / 720, (1 - half / np.tan(half)) / np.where(small, 1, theta) ** 2
    )
    inverse: Floats = np.eye(3) + 0.5 * k + second * (k @ k)
    return inverse


def index_of(mask: NDArray[np.bool_]) -> Ints:
    """Positions where ``mask`` holds."""
    return np.flatnonzero(mask).astype(np.int64)
