"""The rotated square that was cut from a picture, found again from the cut.

A cut shows the picture under a similarity ``picture = a z + o`` of complex edge-origin pixels, a =
scale times exp(i angle). It is found by matching features, then refined on grey values by
Gauss-Newton: four parameters, gain, offset and sharpness, robust weights, coarse to fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats

Grey = NDArray[np.float32]

_LEVELS = (64, 128, 256)
_SMOOTHING = 1.0
_ITERATIONS = 25
_SETTLED_PX = 2e-4
_HUBER = 1.345
_MIN_MATCHES = 8
_FEATURE_SIDE = 960
_MIN_INSIDE = 0.2


@dataclass(frozen=True, slots=True)
class Similarity:
    """``picture px = a z + o`` for px z of the cut, x + iy, edge origin."""

    a: complex
    o: complex

    @property
    def scale(self) -> float:
        """Picture px per px of the cut."""
        return abs(self.a)

    @property
    def angle(self) -> float:
        """Angle by which the cut's axes are turned in the picture, radians, x towards y."""
        return float(np.angle(self.a))

    def __call__(self, points: Floats) -> Floats:
        """Map points (..., 2) of the cut to the picture."""
        p = np.asarray(points, np.float64)
        z = self.a * (p[..., 0] + 1j * p[..., 1]) + self.o
        return np.stack([z.real, z.imag], axis=-1)

    @property
    def matrix(self) -> Floats:
        """(2, 3), acting on (x, y, 1)."""
        a, o = self.a, self.o
        return np.array([[a.real, -a.imag, o.real], [a.imag, a.real, o.imag]])


@dataclass(frozen=True, slots=True)
class Registration:
    """A similarity and how well the two pictures agree under it.

    Attributes
    ----------
    similarity
        Picture from cut.
    correlation
        Of grey values, where the cut lies inside the picture.
    rms_grey
        Of what is left in the middle half of the cut, grey levels.
    std_px
        One standard deviation of the map at the cut's corners, px of the cut.

    """

    similarity: Similarity
    correlation: float
    rms_grey: float
    std_px: float


def grey_of(image: NDArray[np.uint8]) -> Grey:
    """Grey values (H, W) of an image (H, W, 3), blue first."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.float32)


def register(cut: Grey, picture: Grey, start: Similarity | None = None) -> Registration | None:
    """Find the similarity under which ``cut`` shows ``picture``.

    Parameters
    ----------
    cut, picture
        Grey values, (S, S) and (H, W).
    start
        A guess within a few px of the cut; found from features if None.

    Returns
    -------
    The registration; None where there is nothing to hold on to.

    """
    found = start if start is not None else match_features(cut, picture)
    if found is None:
        return None
    result = None
    levels = _LEVELS if start is None else _LEVELS[1:]
    for side in levels:
        result = _refined(cut, picture, found, min(side, len(cut)))
        if result is None:
            return None
        found = result.similarity
    return result


def match_features(cut: Grey, picture: Grey) -> Similarity | None:
    """A first guess from SIFT features and RANSAC; None if too few agree."""
    import cv2

    detector: Any = cv2.SIFT_create(4000)  # type: ignore[attr-defined]
    factors, found = [], []
    for image in (cut, picture):
        factor = min(1.0, _FEATURE_SIDE / max(image.shape))
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        factors.append((image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]))
        found.append(detector.detectAndCompute(small.astype(np.uint8), None))
    (points, first), (others, second) = found
    if first is None or second is None or len(first) < _MIN_MATCHES or len(second) < _MIN_MATCHES:
        return None
    pairs = cv2.BFMatcher().knnMatch(first, second, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < 0.8 * p[1].distance]
    if len(good) < _MIN_MATCHES:
        return None
    # SIFT counts from the middle of the first pixel.
    from_cut = np.array([points[m.queryIdx].pt for m in good]) + 0.5
    from_picture = np.array([others[m.trainIdx].pt for m in good]) + 0.5
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffinePartial2D(
        from_cut * factors[0], from_picture * factors[1], ransacReprojThreshold=4.0,
        maxIters=5000, confidence=0.999,
    )  # fmt: skip
    if matrix is None or int(inliers.sum()) < _MIN_MATCHES:
        return None
    return Similarity(complex(matrix[0, 0], matrix[1, 0]), complex(matrix[0, 2], matrix[1, 2]))


def _refined(cut: Grey, picture: Grey, start: Similarity, side: int) -> Registration | None:
    """Gauss-Newton at one resolution, ``side`` px of the cut."""
    import cv2

    factor = len(cut) / side
    small = cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA)
    target = np.asarray(cv2.GaussianBlur(small, (0, 0), _SMOOTHING), np.float32)
    found = Similarity(start.a * factor, start.o)  # picture px from px of this level
    y, x = np.mgrid[0:side, 0:side] + 0.5 - side / 2
    last: Registration | None = None
    view = _View(picture, max(2, int(np.ceil(found.scale))), side)
    for _ in range(_ITERATIONS):
        drawn, inside = view.draw(found)
        if inside.mean() < _MIN_INSIDE:
            return None
        step, last = _step(drawn, target, inside, x, y, found, factor)
        middle = complex(side / 2, side / 2)
        change = complex(step[0], step[1])
        # a (z + change (z - m) + t) + o
        found = Similarity(
            found.a * (1 + change),
            found.a * (complex(step[2], step[3]) - change * middle) + found.o,
        )
        moved = abs(change) * side * 0.7071 + abs(complex(step[2], step[3]))
        if not np.isfinite(moved) or moved > side:
            return None
        if moved < _SETTLED_PX:
            break
    if last is None:
        return None
    similarity = Similarity(found.a / factor, found.o)
    return Registration(similarity, last.correlation, last.rms_grey, last.std_px)


@dataclass(frozen=True)
class _View:
    """The picture, to be drawn with so many samples per px and axis."""

    picture: Grey
    samples: int
    side: int

    def draw(self, similarity: Similarity) -> tuple[Grey, NDArray[np.bool_]]:
        """The picture as the cut shows it, smoothed, and where the cut lies inside it."""
        import cv2

        fine = self.samples * self.side
        a = similarity.a / self.samples
        shift = a * complex(0.5, 0.5) + similarity.o - complex(0.5, 0.5)  # index coordinates
        matrix = np.array([[a.real, -a.imag, shift.real], [a.imag, a.real, shift.imag]])
        drawn = cv2.warpAffine(
            self.picture, matrix, (fine, fine), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        drawn = cv2.resize(drawn, (self.side, self.side), interpolation=cv2.INTER_AREA)
        y, x = np.mgrid[0 : self.side, 0 : self.side] + 0.5
        z = similarity.a * (x + 1j * y) + similarity.o
        height, width = self.picture.shape
        inside = (z.real >= 0.5) & (z.imag >= 0.5)
        inside &= (z.real <= width - 0.5) & (z.imag <= height - 0.5)
        margin = round(4 * _SMOOTHING) + 2
        kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
        whole = cv2.erode(inside.astype(np.uint8), kernel, borderValue=0)
        smooth = cv2.GaussianBlur(drawn, (0, 0), _SMOOTHING)
        return np.asarray(smooth, np.float32), np.asarray(whole, np.bool_)


def _step(
    drawn: Grey,
    target: Grey,
    inside: NDArray[np.bool_],
    x: Floats,
    y: Floats,
    found: Similarity,
    factor: float,
) -> tuple[Floats, Registration]:
    """One weighted least-squares step (stretch, turn, shift x, shift y), and the state before."""
    import cv2

    gx = cv2.Scharr(drawn, cv2.CV_64F, 1, 0, scale=1 / 32)[inside]
    gy = cv2.Scharr(drawn, cv2.CV_64F, 0, 1, scale=1 / 32)[inside]
    px, py = x[inside], y[inside]
    d, t = drawn[inside].astype(np.float64), target[inside].astype(np.float64)
    # A difference of sharpness, which would pass for one of scale, is a multiple of the Laplacian.
    sharp = cv2.Laplacian(drawn, cv2.CV_32F, ksize=1)[inside].astype(np.float64)
    columns = [gx * px + gy * py, gy * px - gx * py, gx, gy, d, np.ones_like(d), sharp]
    J = np.stack(columns, axis=1)
    spread = float(np.std(d) * np.std(t))
    correlation = float(np.mean((d - d.mean()) * (t - t.mean())) / spread) if spread > 0 else 0.0
    weights = np.ones_like(d)
    solution = np.zeros(len(columns))
    sigma = 0.0
    for _ in range(3):
        normal = J.T @ (weights[:, None] * J)
        normal[np.diag_indices(len(columns))] *= 1 + 1e-12
        try:
            solution = np.linalg.solve(normal, J.T @ (weights * t))
        except np.linalg.LinAlgError:
            return np.full(4, np.nan), Registration(found, correlation, np.inf, np.inf)
        left = t - J @ solution
        sigma = 1.4826 * float(np.median(np.abs(left))) + 1e-6
        weights = np.minimum(1.0, _HUBER * sigma / np.maximum(np.abs(left), 1e-12))
    # Smoothing ties about 4 pi sigma^2 neighbouring pixels together.
    covariance = np.linalg.pinv(normal)[:4, :4] * sigma**2 * 4 * np.pi * _SMOOTHING**2
    corner = len(drawn) / 2
    at_corner = covariance[2, 2] + covariance[3, 3] + 2 * corner**2 * (
        covariance[0, 0] + covariance[1, 1])  # fmt: skip
    std = float(np.sqrt(max(at_corner, 0.0)) * factor)
    near = np.maximum(np.abs(px), np.abs(py)) < corner / 2
    rms = float(np.sqrt(np.mean((t - J @ solution)[near] ** 2))) if near.any() else np.inf
    # The first four come multiplied by the gain.
    return solution[:4] / solution[4], Registration(found, correlation, rms, std)
