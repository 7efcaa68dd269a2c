"""Poses as GaussianTalker stores them, and as its loader reads them back.

Stored: Euler angles (theta, phi, psi) with ``E = Rx(theta) Ry(phi) Rz(-psi)`` and a translation;
``x_gl = E v + trans`` in OpenGL camera axes, world units.
Loader: https://github.com/KU-CVLAB/GaussianTalker, scene/talking_dataset_readers.py:250-272,
utils/graphics_utils.py; rasteriser forward maths in auxiliary.h (ndc2Pix).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats, Size, pixels_from_index
from converter.geometry.pose import (
    OPENCV_FROM_OPENGL,
    Pose,
    euler_xyz_from_matrix,
    matrix_from_euler_xyz,
)

_PSI_SIGN = np.array([1.0, 1.0, -1.0])
"""GaussianTalker turns by minus psi about z."""


def stored_from_w2c(
    w2c: Pose, units_per_metre: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (euler (N, 3), trans (N, 3)) float32 from OpenCV world-to-camera poses, metres.

    ``E = D R``, ``trans = k D t``; no mirror anywhere: det D = +1.
    """
    gl = w2c.change_axes(OPENCV_FROM_OPENGL)
    return (
        (euler_xyz_from_matrix(gl.R) * _PSI_SIGN).astype(np.float32),
        (units_per_metre * gl.t).astype(np.float32),
    )


def loaded_from_stored(euler: Floats, trans: Floats) -> Pose:
    """World-to-camera as the loader's Camera ends up with it, world units.

    The loader flips x of E, negates and transposes it, negates y and z of trans, and
    getWorld2View2 transposes R once more; the flips cancel.
    """
    flipped = np.diag([-1.0, 1.0, 1.0]) @ matrix_from_euler_xyz(
        np.asarray(euler, np.float64) * _PSI_SIGN
    )
    stored_R = -np.swapaxes(flipped, -1, -2)
    T = np.asarray(trans, np.float64) * np.array([1.0, -1.0, -1.0])
    return Pose(np.swapaxes(stored_R, -1, -2), T)


def rasterised(points_cam: Floats, focal: float, size: Size) -> Floats:
    """Edge-origin px at which the rasteriser draws camera-space points (..., 3).

    FoV from focal and size, NDC from FoV, ``index = ((ndc + 1) S - 1) / 2``.
    """
    fov_x = 2 * np.arctan(size.width / (2 * focal))
    fov_y = 2 * np.arctan(size.height / (2 * focal))
    z = np.where(points_cam[..., 2] > 0, points_cam[..., 2], np.nan)
    ndc_x = points_cam[..., 0] / (z * np.tan(fov_x / 2))
    ndc_y = points_cam[..., 1] / (z * np.tan(fov_y / 2))
    index = np.stack(
        [((ndc_x + 1) * size.width - 1) / 2, ((ndc_y + 1) * size.height - 1) / 2], axis=-1
    )
    return pixels_from_index(index)


def transform_matrices(w2c: Pose) -> Floats:
    """OpenGL camera-to-world (N, 4, 4), metres, as the ER-NeRF family reads them."""
    c2w = w2c.change_axes(OPENCV_FROM_OPENGL).inverse()
    out = np.tile(np.eye(4), (len(w2c), 1, 1))
    out[:, :3, :3], out[:, :3, 3] = c2w.R, c2w.t
    return out
