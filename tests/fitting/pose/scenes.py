"""Synthetic heads in front of known cameras, for the tests of the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from converter.geometry import Intrinsics, Pose, Size
from converter.geometry.pixels import Floats
from fixtures.synthetic.head import head as procedural_head

SIZE = Size(256, 256)


@dataclass(frozen=True)
class Scene:
    """Truth and landmarks.

    ``points`` (P, 3) metres, ``landmarks`` (N, P, 2) px without noise.
    """

    points: Floats
    landmarks: Floats
    w2c: Pose
    intrinsics: Intrinsics

    def noisy(self, sigma_px: float, seed: int = 0) -> Floats:
        noise = np.random.default_rng(seed).standard_normal(self.landmarks.shape)
        return self.landmarks + sigma_px * noise

    def rotation_error_deg(self, w2c: Pose) -> Floats:
        """(N,)."""
        between = w2c.R @ np.swapaxes(self.w2c.R, 1, 2)
        return np.degrees(np.linalg.norm(Rotation.from_matrix(between).as_rotvec(), axis=1))


def head_points() -> Floats:
    """(68, 3) landmarks of the procedural head."""
    head = procedural_head()
    return head.vertices[head.landmarks]


def scene(
    yaw_deg: Floats | list[float],
    fov_deg: Floats | float = 20.0,
    pitch_deg: Floats | float = 0.0,
    roll_deg: Floats | float = 0.0,
    points: Floats | None = None,
    size: Size = SIZE,
    offset: tuple[float, float] = (0.01, -0.008),
    shift_px: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """One frame per yaw, the head as large in the image at every fov."""
    yaw = np.asarray(yaw_deg, dtype=np.float64)
    n = len(yaw)
    angles = np.stack([yaw, np.broadcast_to(pitch_deg, n), np.broadcast_to(roll_deg, n)], axis=1)
    turn = Rotation.from_euler("yxz", angles, degrees=True).as_matrix()
    R = np.diag([1.0, -1.0, -1.0]) @ turn
    half = np.tan(np.radians(np.broadcast_to(fov_deg, n)) / 2)
    shorter = min(size.width, size.height)
    f = shorter / 2 / half
    z = np.tan(np.radians(10.0)) / half
    h = np.stack([np.full(n, offset[0]), np.full(n, offset[1]), z], axis=1)
    head = head_points() if points is None else points
    t = h - R @ head.mean(axis=0)
    w2c = Pose(R, t)
    focal = float(f[0]) if np.ndim(fov_deg) == 0 else f
    cx, cy = size.width / 2 + shift_px[0], size.height / 2 + shift_px[1]
    K = Intrinsics(focal, focal, cx, cy, size)
    return Scene(head, K.project(w2c(head)), w2c, K)
