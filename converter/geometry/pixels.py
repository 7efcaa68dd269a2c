"""Image sizes, pixel coordinates, and the axis-aligned maps between images."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Scalar: TypeAlias = Any
"""A float, or a float64 array of one leading batch axis; arithmetic treats both alike."""


def scalar(value: ArrayLike) -> Scalar:
    """``value`` as a Python float, or as a float64 array when it carries batch axes."""
    array = np.asarray(value, dtype=np.float64)
    return float(array) if array.ndim == 0 else array


class BatchFields:
    """Equality and indexing for frozen dataclasses whose fields may carry a batch axis."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [f.name for f in fields(self)]  # type: ignore[arg-type]
        return all(np.array_equal(getattr(self, n), getattr(other, n)) for n in names)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, order=False)
class Size:
    """Size of an image, pixels."""

    width: int
    height: int

    @classmethod
    def of(cls, image: NDArray[Any]) -> Size:
        """Size of an image array of shape (height, width, ...)."""
        return cls(int(image.shape[1]), int(image.shape[0]))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), the shape of the image's array."""
        return self.height, self.width

    @property
    def even(self) -> Size:
        """Size without an odd last column or row."""
        return Size(self.width - self.width % 2, self.height - self.height % 2)

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def pixels_from_index(points: ArrayLike) -> Floats:
    """Edge-origin pixels from index coordinates (first pixel's centre at 0): adds 0.5."""
    return np.asarray(points, dtype=np.float64) + 0.5


def index_from_pixels(points: ArrayLike) -> Floats:
    """Index coordinates (first pixel's centre at 0) from edge-origin pixels: subtracts 0.5."""
    return np.asarray(points, dtype=np.float64) - 0.5


@dataclass(frozen=True, slots=True, eq=False)
class PixelAffine(BatchFields):
    """Axis-aligned map between two images: ``x' = sx x + tx``, ``y' = sy y + ty``, edge origin.

    Fields are floats, or float64 arrays of shape (N,) for one map per frame.
    """

    sx: Scalar
    sy: Scalar
    tx: Scalar
    ty: Scalar

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, scalar(getattr(self, field.name)))

    @classmethod
    def identity(cls) -> PixelAffine:
        """Return the map of an image onto itself."""
        return cls(1.0, 1.0, 0.0, 0.0)

    @classmethod
    def resize(cls, source: Size, output: Size) -> PixelAffine:
        """Return the map of a plain resize: borders stay on borders."""
        return cls(output.width / source.width, output.height / source.height, 0.0, 0.0)

    def __matmul__(self, other: PixelAffine) -> PixelAffine:
        """``(a_from_b @ b_from_c)`` is ``a_from_c``."""
        return PixelAffine(
            self.sx * other.sx,
            self.sy * other.sy,
            self.sx * other.tx + self.tx,
            self.sy * other.ty + self.ty,
        )

    def inverse(self) -> PixelAffine:
        """Return the map back."""
        return PixelAffine(1 / self.sx, 1 / self.sy, -self.tx / self.sx, -self.ty / self.sy)

    def __call__(self, points: ArrayLike) -> Floats:
        """Map edge-origin ``points`` of shape (..., 2); with batched maps (N, P, 2)."""
        p = np.asarray(points, dtype=np.float64)
        scale = np.stack(np.broadcast_arrays(self.sx, self.sy), axis=-1)
        shift = np.stack(np.broadcast_arrays(self.tx, self.ty), axis=-1)
        if scale.ndim > 1:
            scale, shift = scale[:, None, :], shift[:, None, :]
        mapped: Floats = p * scale + shift
        return mapped

    def __getitem__(self, index: int) -> PixelAffine:
        """Return the map of one frame; a map without batch axis serves every frame."""
        return PixelAffine(*(v[index] if np.ndim(v) else v for v in self._values()))

    def _values(self) -> tuple[Scalar, ...]:
        return self.sx, self.sy, self.tx, self.ty

    @property
    def matrix(self) -> Floats:
        """The 3x3 matrix acting on homogeneous edge-origin pixels, shape (..., 3, 3)."""
        sx, sy, tx, ty = np.broadcast_arrays(*self._values())
        out = np.zeros((*sx.shape, 3, 3))
        out[..., 0, 0], out[..., 1, 1], out[..., 2, 2] = sx, sy, 1.0
        out[..., 0, 2], out[..., 1, 2] = tx, ty
        return out

    def in_index_coordinates(self) -> PixelAffine:
        """Return the same map for index coordinates, as cv2.warpAffine and cv2.remap count."""
        return PixelAffine(
            self.sx,
            self.sy,
            self.tx + 0.5 * self.sx - 0.5,
            self.ty + 0.5 * self.sy - 0.5,
        )
