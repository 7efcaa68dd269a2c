"""The numbers of the .frame files: OpenCV's camera, pytorch3d's, and FLAME.

With M the matrix of camera.R: ``R = D M^T``, ``t = D camera.t``, D = diag(-1, -1, 1), and K by
`Intrinsics.from_ndc`. Source: metrical-tracker, tracker.py:186-210; pytorch3d,
``renderer/camera_conversions.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import TargetError
from converter.findings import Finding
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import (
    OPENCV_FROM_PYTORCH3D,
    Pose,
    matrix_from_rotation_6d,
    rotation_6d_from_matrix,
)
from converter.track import Flame, Track

# Genuine files: K within 1.2e-4 px, R within 7e-6, t exact (metrical-tracker spec, 3.4 and 3.8).
_SAME_K_PX = 1e-3
_SAME_R = 2e-5
_SAME_T_M = 1e-6

_IDENTITY_6D = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
NEUTRAL: dict[str, list[float]] = {
    "eyes": _IDENTITY_6D * 2,
    "eyelids": [0.0, 0.0],
    "jaw": _IDENTITY_6D,
}
"""What the tracker itself writes for a block that it does not optimise."""

_FIELDS = {
    "exp": "expression", "shape": "shape", "tex": "texture", "sh": "light", "eyes": "eyes",
    "eyelids": "eyelids", "jaw": "jaw",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CameraBlocks:
    """The camera blocks of all frames, float64: R6 (N, 6), t (N, 3), fl (N,), pp (N, 2)."""

    R6: Floats
    t: Floats
    fl: Floats
    pp: Floats


def poses_of(R6: Floats, t: Floats) -> Pose:
    """OpenCV world-to-camera poses that camera.R (N, 6) and camera.t (N, 3) stand for."""
    d = OPENCV_FROM_PYTORCH3D
    return Pose(d @ np.swapaxes(matrix_from_rotation_6d(R6), -1, -2), t @ d)


def one_focal_length(k: Intrinsics) -> bool:
    """Whether a camera block, which holds one focal length, can say ``k``."""
    return bool(np.max(np.abs(k.fx - k.fy)) <= _SAME_K_PX)


def camera_blocks(track: Track) -> CameraBlocks | None:
    """Camera blocks of a track; None if fx and fy differ.

    Where the track still has the tracker's own numbers and they say the same camera, these are
    kept, so that an untouched frame comes back bit by bit.
    """
    k, n = track.intrinsics, len(track)
    if not one_focal_length(k):
        return None
    mean = Intrinsics((k.fx + k.fy) / 2, (k.fx + k.fy) / 2, k.cx, k.cy, k.size)
    focal, centre = mean.to_ndc()
    d = OPENCV_FROM_PYTORCH3D
    made = CameraBlocks(
        rotation_6d_from_matrix(np.swapaxes(d @ track.w2c.R, -1, -2)),
        track.w2c.t @ d,
        np.broadcast_to(focal, (n,)),
        np.broadcast_to(centre, (n, 2)),
    )
    kept = _kept_blocks(track)
    if kept is None:
        return made
    same_pose, same_k = _agreement(track, kept)
    return CameraBlocks(
        np.where(same_pose[:, None], kept.R6, made.R6),
        np.where(same_pose[:, None], kept.t, made.t),
        np.where(same_k, kept.fl, made.fl),
        np.where(same_k[:, None], kept.pp, made.pp),
    )


def _kept_blocks(track: Track) -> CameraBlocks | None:
    native, n = track.native, len(track)
    shapes = {"camera_R6": (n, 6), "camera_t": (n, 3), "camera_fl": (n,), "camera_pp": (n, 2)}
    if any(name not in native or native[name].shape != shape for name, shape in shapes.items()):
        return None
    return CameraBlocks(*(np.asarray(native[name], np.float64) for name in shapes))


def _agreement(track: Track, blocks: CameraBlocks) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """In which frames the blocks say the track's pose, and its K."""
    pose = poses_of(blocks.R6, blocks.t)
    off_R = np.abs(pose.R - track.w2c.R).max(axis=(-1, -2))
    off_t = np.abs(pose.t - track.w2c.t).max(axis=-1)
    tracked = Intrinsics.from_ndc(blocks.fl, blocks.pp, track.intrinsics.size)
    off_K = np.abs(tracked.matrix - track.intrinsics.matrix).max(axis=(-1, -2))
    return (off_R <= _SAME_R) & (off_t <= _SAME_T_M), off_K <= _SAME_K_PX


def frame_contents(track: Track) -> list[dict[str, Any]]:
    """The dictionary of every .frame, arrays as the tracker stores them."""
    blocks, k = camera_blocks(track), np.broadcast_to(track.intrinsics.matrix, (len(track), 3, 3))
    size, steps = track.intrinsics.size, track.native.get("global_step")
    contents = []
    for i, frame_id in enumerate(track.frame_ids):
        content: dict[str, Any] = {"flame": _flame(track.flame, i)}
        if blocks is not None:
            content["camera"] = {
                "R": _row(blocks.R6[i]),
                "t": _row(blocks.t[i]),
                "fl": _row([blocks.fl[i]]),
                "pp": _row(blocks.pp[i]),
            }
        content["opencv"] = {
            "R": _row(track.w2c.R[i]),
            "t": _row(track.w2c.t[i]),
            "K": _row(k[i]),
        }
        content["img_size"] = np.array(size.shape, np.int64)
        content["frame_id"] = f"{int(frame_id):05d}"
        if steps is not None:
            content["global_step"] = int(steps[i])
        contents.append(content)
    return contents


def require_coefficients(track: Track, n_shape: int, n_expression: int) -> None:
    """Raise TargetError unless the track has FLAME coefficients, and no more than these."""
    shape, expression = track.flame.shape, track.flame.expression
    if shape is None or expression is None:
        raise TargetError(
            track.name, "FLAME shape and expression; the avatar is driven by them", "none",
            "Track with a FLAME tracker.",
        )  # fmt: skip
    if len(shape) > n_shape or expression.shape[1] > n_expression:
        raise TargetError(track.name, f"at most {n_shape} shape and {n_expression} expression "
                          "coefficients", f"{len(shape)} and {expression.shape[1]}")  # fmt: skip


def neutral_blocks(track: Track) -> list[Finding]:
    """Say which FLAME blocks `frame_contents` writes as neutral because the track has none."""
    filled = [name for name in NEUTRAL if getattr(track.flame, name) is None]
    if track.flame.expression is None or not filled:
        return []
    return [
        Finding("flame-neutral", "info", track.name, f"{', '.join(filled)}: not in the track, "
                "neutral in every frame, as the tracker writes what it does not fit.")
    ]  # fmt: skip


def _row(values: Any) -> NDArray[np.float32]:
    """Float32 with the leading batch axis that the tracker's arrays have."""
    return np.asarray(values, np.float64)[None].astype(np.float32)


def _flame(flame: Flame, i: int) -> dict[str, NDArray[np.float32]]:
    blocks = {}
    for name, field in _FIELDS.items():
        value = getattr(flame, field)
        if value is not None:
            blocks[name] = _row(value if field in ("shape", "texture") else value[i])
        elif name in NEUTRAL and flame.expression is not None:
            blocks[name] = _row(NEUTRAL[name])
    return blocks


def size_from(content: dict[str, Any]) -> Size:
    """Size that img_size states, which is (height, width)."""
    height, width = (int(v) for v in np.asarray(content["img_size"]).ravel())
    return Size(width, height)
