"""Rigid world-to-camera poses and the notations of rotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from converter.errors import ConventionError
from converter.geometry.pixels import BatchFields, Floats

OPENCV_FROM_OPENGL: Floats = np.diag([1.0, -1.0, -1.0])
"""x right, y up, looks along -z  ->  x right, y down, looks along +z. Its own inverse."""

OPENCV_FROM_PYTORCH3D: Floats = np.diag([-1.0, -1.0, 1.0])
"""x left, y up, looks along +z  ->  x right, y down, looks along +z. Its own inverse."""


@dataclass(frozen=True, slots=True, eq=False)
class Pose(BatchFields):
    """Rigid map ``x' = R x + t``; as a camera pose: world to camera, OpenCV axes, metres.

    Attributes
    ----------
    R
        Rotation matrices, shape (..., 3, 3), float64.
    t
        Translations, shape (..., 3), float64.

    Raises
    ------
    ConventionError
        If the shapes are others, or their leading axes differ.

    """

    R: Floats
    t: Floats

    def __post_init__(self) -> None:
        R, t = np.asarray(self.R, dtype=np.float64), np.asarray(self.t, dtype=np.float64)
        if R.shape[-2:] != (3, 3) or t.shape != R.shape[:-1]:
            raise ConventionError(
                "pose", "R of shape (..., 3, 3) and t of shape (..., 3)", f"{R.shape} and {t.shape}"
            )
        object.__setattr__(self, "R", R)
        object.__setattr__(self, "t", t)

    def __len__(self) -> int:
        if self.R.ndim == 2:
            raise TypeError("a single pose has no length")
        return int(self.R.shape[0])

    def __getitem__(self, index: int | slice | NDArray[Any]) -> Pose:
        return Pose(self.R[index], self.t[index])

    def __matmul__(self, other: Pose) -> Pose:
        """``(a_from_b @ b_from_c)`` is ``a_from_c``."""
        return Pose(self.R @ other.R, (self.R @ other.t[..., None])[..., 0] + self.t)

    def inverse(self) -> Pose:
        """Return the map back; of a world-to-camera pose, camera-to-world."""
        R = np.swapaxes(self.R, -1, -2)
        return Pose(R, -(R @ self.t[..., None])[..., 0])

    def __call__(self, points: ArrayLike) -> Floats:
        """Map points (..., P, 3)."""
        p = np.asarray(points, dtype=np.float64)
        mapped: Floats = p @ np.swapaxes(self.R, -1, -2) + self.t[..., None, :]
        return mapped

    def change_axes(self, new_from_old: Floats) -> Pose:
        """Return the same camera with other camera axes, e.g. ``OPENCV_FROM_OPENGL``."""
        return Pose(new_from_old @ self.R, self.t @ new_from_old.T)

    def rotation_defect(self) -> Floats:
        """How far R is from a rotation: max |R R^T - I|, infinite where det R < 0; shape (...)."""
        with np.errstate(over="ignore", invalid="ignore"):
            gram = self.R @ np.swapaxes(self.R, -1, -2) - np.eye(3)
            right_handed = np.linalg.det(self.R) > 0
        defect = np.abs(gram).max(axis=(-1, -2))
        result: Floats = np.where(right_handed, defect, np.inf)
        return result

    def require_rotation(self, where: str, limit: float = 1e-3) -> None:
        """Raise ConventionError unless every R is finite and a rotation within ``limit``."""
        finite = np.isfinite(self.R).all() and np.isfinite(self.t).all()
        if not finite:
            raise ConventionError(where, "finite R and t", "NaN or infinity")
        worst = float(np.max(self.rotation_defect(), initial=0.0))
        if not worst <= limit:  # NaN, where entries are so large that R R^T overflows, is refused
            largest = float(np.abs(self.R).max())
            found = f"|R R^T - I| = {worst:.2g}"
            if np.isinf(worst):
                found = "det R <= 0 (mirrored axes)"
            if largest > 10:
                found = f"entries up to {largest:.2g}"
            raise ConventionError(where, f"a rotation matrix within {limit:g}", found)


def matrix_from_rotation_6d(rows: ArrayLike) -> Floats:
    """Rotation matrices (..., 3, 3) from 6D vectors (..., 6).

    pytorch3d's convention (``transforms/rotation_conversions.py``, rotation_6d_to_matrix): the six
    numbers are the first two **rows**, made orthonormal by Gram-Schmidt; the third is their cross
    product. Stacking them as columns gives the inverse rotation. Rows that span no plane (zeros)
    give NaN, which `Pose.require_rotation` refuses.
    """
    d = np.asarray(rows, dtype=np.float64)
    a1, a2 = d[..., :3], d[..., 3:]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        b1 = a1 / np.linalg.norm(a1, axis=-1, keepdims=True)
        b2 = a2 - (b1 * a2).sum(axis=-1, keepdims=True) * b1
        b2 = b2 / np.linalg.norm(b2, axis=-1, keepdims=True)
        b3 = np.cross(b1, b2)
    return np.stack([b1, b2, b3], axis=-2)


def rotation_6d_from_matrix(R: ArrayLike) -> Floats:
    """6D vectors (..., 6), the first two rows of R, from rotation matrices (..., 3, 3)."""
    r = np.asarray(R, dtype=np.float64)
    rows: Floats = r[..., :2, :].reshape(*r.shape[:-2], 6).copy()
    return rows


def matrix_from_rotation_vector(vectors: ArrayLike) -> Floats:
    """Rotation matrices (..., 3, 3) from axis-angle vectors (..., 3), radians (Rodrigues)."""
    w = np.asarray(vectors, dtype=np.float64)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    k = np.zeros((*w.shape[:-1], 3, 3))
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 2] = -w[..., 2], w[..., 1], -w[..., 0]
    k = k - np.swapaxes(k, -1, -2)
    # sinc keeps both coefficients exact down to angle 0; (1 - cos a)/a^2 = sinc(a/2pi)^2 / 2.
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    matrix: Floats = np.eye(3) + first * k + second * (k @ k)
    return matrix


def rotation_vector_from_matrix(R: ArrayLike) -> Floats:
    """Axis-angle vectors (..., 3), |angle| <= pi, from rotation matrices (..., 3, 3).

    Goes through the largest quaternion component, so that it is exact to rounding at every angle,
    half turns included.
    """
    r = np.asarray(R, dtype=np.float64)
    m00, m11, m22 = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    squares = np.stack([m00 + m11 + m22, m00, m11, m22], axis=-1)
    largest = np.argmax(squares, axis=-1)
    x, y, z = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    xy, xz, yz = (
        r[..., 0, 1] + r[..., 1, 0],
        r[..., 0, 2] + r[..., 2, 0],
        r[..., 1, 2] + r[..., 2, 1],
    )
    candidates = np.stack(
        [
            np.stack([1 + m00 + m11 + m22, x, y, z], axis=-1),
            np.stack([x, 1 + m00 - m11 - m22, xy, xz], axis=-1),
            np.stack([y, xy, 1 - m00 + m11 - m22, yz], axis=-1),
            np.stack([z, xz, yz, 1 - m00 - m11 + m22], axis=-1),
        ],
        axis=-2,
    )
    q = np.take_along_axis(candidates, largest[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    factor = np.where(sine > 1e-12, angle / np.where(sine > 1e-12, sine, 1.0), 2.0)
    vector: Floats = factor * q[..., 1:]
    return vector


_GIMBAL = 1e-9


def euler_xyz_from_matrix(R: ArrayLike) -> Floats:
    """Angles (..., 3), radians, of ``R = Rx(a) Ry(b) Rz(c)`` from rotations (..., 3, 3).

    |b| <= pi/2. At gimbal lock (b = +-pi/2) c is 0 and the angles still give R exactly.
    """
    r = np.asarray(R, dtype=np.float64)
    cosine = np.hypot(r[..., 0, 0], r[..., 0, 1])
    locked = cosine < _GIMBAL
    a = np.where(
        locked,
        np.arctan2(r[..., 2, 1], r[..., 1, 1]),
        np.arctan2(-r[..., 1, 2], r[..., 2, 2]),
    )
    b = np.arctan2(r[..., 0, 2], cosine)
    c = np.where(locked, 0.0, np.arctan2(-r[..., 0, 1], r[..., 0, 0]))
    return np.stack([a, b, c], axis=-1)


def matrix_from_euler_xyz(angles: ArrayLike) -> Floats:
    """Rotations (..., 3, 3), ``Rx(a) Ry(b) Rz(c)``, from angles (..., 3), radians."""
    a = np.asarray(angles, dtype=np.float64)
    x, y, z = np.eye(3)
    return (
        matrix_from_rotation_vector(a[..., 0:1] * x)
        @ matrix_from_rotation_vector(a[..., 1:2] * y)
        @ matrix_from_rotation_vector(a[..., 2:3] * z)
    )
