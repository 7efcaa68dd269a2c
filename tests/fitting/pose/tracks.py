"""Synthetic tracks in memory: the procedural head before known cameras, with its landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from converter.geometry import BBox, Crop, Pose, Size
from converter.geometry.pixels import Floats
from converter.track import Track
from fixtures.synthetic.head import Expression, deform, head
from tests.fitting.pose.scenes import Scene, scene

CROP = Crop.from_bbox(BBox(300, 700, 100, 500), Size(1280, 720), Size(512, 512))


@dataclass(frozen=True)
class Heads:
    """Meshes (N, V, 3)."""

    all: NDArray[np.float32]

    @property
    def faces(self) -> NDArray[np.int32]:
        return head().faces.astype(np.int32)

    def __len__(self) -> int:
        return len(self.all)

    def vertices(self, index: int) -> NDArray[np.float32]:
        return self.all[index]

    @property
    def mean(self) -> NDArray[np.float32]:
        return self.all.mean(axis=0, dtype=np.float64).astype(np.float32)


def make(
    yaw_deg: Floats | list[float],
    fov_deg: float = 20.0,
    noise_px: float = 0.0,
    talking: bool = False,
    seed: int = 0,
    **more: object,
) -> tuple[Track, Scene]:
    """Make a track of 512x512 crops with exact cameras and noisy landmarks, and its scene."""
    vertices = head().vertices
    s = scene(yaw_deg, fov_deg, points=vertices, size=CROP.output, **more)  # type: ignore[arg-type]
    n = len(s.w2c)
    shapes = np.broadcast_to(vertices, (n, *vertices.shape))
    if talking:
        opened = [Expression(jaw=0.12 * (1 - np.cos(0.9 * i))) for i in range(n)]
        shapes = np.stack([deform(e) for e in opened])
    seen = s.intrinsics.project(s.w2c(shapes[:, head().landmarks]))
    noise = np.random.default_rng(seed).standard_normal(seen.shape)
    track = Track(
        name="head",
        frame_ids=np.arange(n, dtype=np.int64),
        w2c=s.w2c,
        intrinsics=s.intrinsics,
        image_space="crop",
        crop=CROP,
        landmarks=seen + noise_px * noise,
        meshes=Heads(shapes.astype(np.float32)),
    )
    return track, s


def jittered(track: Track, degrees: float, seed: int = 0) -> Track:
    """Turn each head by a random angle, its centre in place: what a tracker's noise does."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(np.radians(degrees / 3**0.5) * rng.standard_normal((len(track), 3)))
    assert track.meshes is not None
    centre = track.meshes.mean.mean(axis=0, dtype=np.float64)
    h = track.w2c(centre[None])[:, 0]
    R = turn.as_matrix() @ track.w2c.R
    return replace(track, w2c=Pose(R, h - R @ centre))


def errors_deg(w2c: Pose, truth: Pose) -> Floats:
    between = w2c.R @ np.swapaxes(truth.R, 1, 2)
    return np.degrees(np.linalg.norm(Rotation.from_matrix(between).as_rotvec(), axis=1))


def turns_deg(w2c: Pose) -> Floats:
    """(N-1,) rotation from frame to frame."""
    return errors_deg(Pose(w2c.R[1:], w2c.t[1:]), Pose(w2c.R[:-1], w2c.t[:-1]))


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
