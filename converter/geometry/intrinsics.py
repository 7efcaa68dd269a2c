"""Pinhole intrinsics of a stated image, and their other notations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from converter.errors import ConventionError
from converter.geometry.pixels import BatchFields, Floats, PixelAffine, Scalar, Size, scalar


@dataclass(frozen=True, slots=True, eq=False)
class Intrinsics(BatchFields):
    """Pinhole camera without skew: ``u = fx X/Z + cx``, ``v = fy Y/Z + cy``, edge-origin pixels.

    Attributes
    ----------
    fx, fy
        Focal lengths, px of the image of `size`; floats, or shape (N,) for one K per frame.
    cx, cy
        Principal point, edge-origin px.
    size
        The image these numbers speak of. They are meaningless for any other.

    """

    fx: Scalar
    fy: Scalar
    cx: Scalar
    cy: Scalar
    size: Size

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy"):
            object.__setattr__(self, name, scalar(getattr(self, name)))

    @classmethod
    def from_matrix(cls, K: ArrayLike, size: Size) -> Intrinsics:
        """From matrices of shape (..., 3, 3).

        Raises
        ------
        ConventionError
            If a matrix has skew, is transposed, is not finite, or its focal length is not positive.

        """
        k = np.asarray(K, dtype=np.float64)
        expected = "rows (fx, 0, cx), (0, fy, cy), (0, 0, 1), finite, with fx, fy > 0"
        shape_ok = k.shape[-2:] == (3, 3)
        if not shape_ok or not np.isfinite(k).all():
            found = "numbers that are not finite" if shape_ok else f"shape {k.shape}"
            raise ConventionError("K", expected, found)
        zeros = np.abs(k[..., [0, 1, 2, 2], [1, 0, 0, 1]])
        if np.any(zeros > 1e-6) or np.any(np.abs(k[..., 2, 2] - 1) > 1e-6):
            transposed = np.all(np.abs(k[..., :2, 2]) < 1e-6) and np.any(k[..., 2, :2] != 0)
            raise ConventionError("K", expected, "K transposed" if transposed else "skew or worse")
        if np.any(k[..., [0, 1], [0, 1]] <= 0):
            raise ConventionError("K", expected, "a focal length that is not positive")
        return cls(k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2], size)

    @classmethod
    def from_ndc(cls, focal: ArrayLike, principal_point: ArrayLike, size: Size) -> Intrinsics:
        """From pytorch3d NDC: ``focal`` (..., ), ``principal_point`` (..., 2), y up, x left.

        ``fx = fy = focal s``, ``cx = w/2 - px s``, ``cy = h/2 - py s`` with ``s = min(h, w)/2``
        (pytorch3d >= 0.6.1, ``renderer/camera_conversions.py``).
        """
        s = min(size.width, size.height) / 2
        f = np.asarray(focal, dtype=np.float64) * s
        p = np.asarray(principal_point, dtype=np.float64)
        return cls(f, f, size.width / 2 - p[..., 0] * s, size.height / 2 - p[..., 1] * s, size)

    def to_ndc(self) -> tuple[Scalar, Floats]:
        """Return (focal, principal point) as pytorch3d NDC; the reverse of `from_ndc`.

        Raises
        ------
        ConventionError
            If fx and fy differ: NDC of the tracker holds one focal length.

        """
        if np.any(self.fx != self.fy):
            ratio = np.ravel(self.fx / self.fy)
            worst = ratio[np.argmax(np.abs(ratio - 1))]
            raise ConventionError("K", "fx == fy", f"fx = {worst:.9g} fy")
        s = min(self.size.width, self.size.height) / 2
        offset = (self.size.width / 2 - self.cx) / s, (self.size.height / 2 - self.cy) / s
        return self.fx / s, np.stack(np.broadcast_arrays(*offset), axis=-1)

    @property
    def matrix(self) -> Floats:
        """K, shape (..., 3, 3)."""
        fx, fy, cx, cy = np.broadcast_arrays(self.fx, self.fy, self.cx, self.cy)
        out = np.zeros((*fx.shape, 3, 3))
        out[..., 0, 0], out[..., 1, 1], out[..., 2, 2] = fx, fy, 1.0
        out[..., 0, 2], out[..., 1, 2] = cx, cy
        return out

    @property
    def fov_x_deg(self) -> Scalar:
        """Full horizontal field of view, degrees: the angle that the image width subtends."""
        left, right = np.arctan(self.cx / self.fx), np.arctan((self.size.width - self.cx) / self.fx)
        return scalar(np.degrees(left + right))

    @property
    def fov_y_deg(self) -> Scalar:
        """Full vertical field of view, degrees: the angle that the image height subtends."""
        top, bottom = (
            np.arctan(self.cy / self.fy),
            np.arctan((self.size.height - self.cy) / self.fy),
        )
        return scalar(np.degrees(top + bottom))

    @property
    def is_central(self) -> bool:
        """Whether the principal point is the exact image centre."""
        return bool(
            np.all(self.cx == self.size.width / 2) and np.all(self.cy == self.size.height / 2)
        )

    @property
    def n_frames(self) -> int | None:
        """Length of the batch axis; None when one K serves all frames."""
        shape = np.broadcast(self.fx, self.fy, self.cx, self.cy).shape
        return shape[0] if shape else None

    def __getitem__(self, index: int | slice | NDArray[Any]) -> Intrinsics:
        """Return the K of one frame (or of a selection); one K without batch axis serves all."""
        fx, fy, cx, cy = (
            v[index] if np.ndim(v) else v for v in (self.fx, self.fy, self.cx, self.cy)
        )
        return Intrinsics(fx, fy, cx, cy, self.size)

    def map(self, image_from_this: PixelAffine, size: Size) -> Intrinsics:
        """K of the image that ``image_from_this`` maps this one onto (``A K``); pose unchanged."""
        a = image_from_this
        return Intrinsics(
            a.sx * self.fx, a.sy * self.fy, a.sx * self.cx + a.tx, a.sy * self.cy + a.ty, size
        )

    def project(self, points_cam: ArrayLike) -> Floats:
        """Project camera-space points (..., P, 3), metres, to edge-origin pixels (..., P, 2).

        Points with z <= 0 are not in front of the camera and give NaN.
        """
        p = np.asarray(points_cam, dtype=np.float64)
        z = np.where(p[..., 2] > 0, p[..., 2], np.nan)
        fx, fy, cx, cy = (
            v[:, None] if np.ndim(v) else v for v in (self.fx, self.fy, self.cx, self.cy)
        )
        return np.stack([fx * p[..., 0] / z + cx, fy * p[..., 1] / z + cy], axis=-1)
