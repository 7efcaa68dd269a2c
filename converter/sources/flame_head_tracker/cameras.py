"""From the camera of the fitted square to OpenCV's, and to the whole frame; all exact.

With ``R_gl = Rz(roll) Ry(yaw) Rx(pitch)`` and D = diag(1, -1, -1): ``R = D R_gl^T``, ``t = -R c``,
and K central with ``f = 0.5 S / tan(fov/2)``. Under the similarity ``frame = s Rot(th) u + o``:
``K' = [s f, s Rot(th) c_K + o]``, ``R' = Rz(th) R``, ``t' = Rz(th) t`` (flame-head-tracker spec, 3;
the tracker's utils/graphics_utils.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import OPENCV_FROM_OPENGL, Pose, matrix_from_rotation_vector
from converter.sources.flame_head_tracker.results import DEFAULT_FOV_DEG, Result
from fitting.similarity import Similarity


def poses(results: Sequence[Result]) -> Pose:
    """OpenCV world-to-camera poses of the fitted images."""
    euler = np.stack([r.euler for r in results])
    x, y, z = np.eye(3)
    gl = (
        matrix_from_rotation_vector(euler[:, 2:3] * z)
        @ matrix_from_rotation_vector(euler[:, 0:1] * y)
        @ matrix_from_rotation_vector(euler[:, 1:2] * x)
    )
    R = OPENCV_FROM_OPENGL @ np.swapaxes(gl, -1, -2)
    centres = np.stack([r.centre for r in results])
    return Pose(R, -(R @ centres[..., None])[..., 0])


def fitted_intrinsics(results: Sequence[Result], size: Size) -> Intrinsics:
    """K of the fitted images, which the tracker sees squeezed to a square."""
    fov = np.array([DEFAULT_FOV_DEG if r.fov_deg is None else r.fov_deg for r in results])
    k = 0.5 / np.tan(np.radians(fov) / 2)
    if np.all(k == k[0]):
        k = k[0]
    return Intrinsics(k * size.width, k * size.height, size.width / 2, size.height / 2, size)


def in_frames(
    w2c: Pose, k: Intrinsics, maps: Sequence[Similarity], size: Size
) -> tuple[Pose, Intrinsics]:
    """Poses and K of the whole frames, of which the fitted squares were cut under ``maps``."""
    a, o = np.array([m.a for m in maps]), np.array([m.o for m in maps])
    scale, angle = np.abs(a), np.angle(a)
    turn = matrix_from_rotation_vector(angle[:, None] * np.array([0.0, 0.0, 1.0]))
    centre = a * (k.cx + 1j * np.asarray(k.cy)) + o
    focal: Floats = scale * k.fx
    pose = Pose(turn @ w2c.R, (turn @ w2c.t[..., None])[..., 0])
    return pose, Intrinsics(focal, focal, centre.real, centre.imag, size)
