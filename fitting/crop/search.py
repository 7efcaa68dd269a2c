"""Where in the source the crop lies, roughly: features, RANSAC, then least squares.

Only scale and two offsets are estimated; the rotation, the mirror image and the ratio of the two
scales are looked at in order to name what is wrong with a crop that has no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats, Size
from converter.media.parallel import ordered_map
from fitting.crop.mapping import Grey

if TYPE_CHECKING:
    from cv2 import KeyPoint

_RATIO = 0.8
_MIN_INLIERS = 8
_ORB_SIDES = (960, 256)
_ORB_THRESHOLDS = (20, 7)
"""FAST's, grey levels: the lower one finds corners of faint texture, at twice the cost."""
_SIFT = ((480, 256, 0.04), (800, 512, 0.04), (1600, 512, 0.01), (400, 512, 0.01))
"""Longer side of the source and of the crop, px, and SIFT's contrast threshold."""
_USUAL = _SIFT[1]
_MIRRORED = (_USUAL, _SIFT[2])
_MAX_FEATURES = 1500
_SAME_PX = 1.0
_MANY_INLIERS, _MOST = 40, 0.5
_N_BINS = 8
"""Orientations of each of SIFT's 4 x 4 cells."""
_UPRIGHT_DEG = 45.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A similarity from crop to source pixels, and what it rests on.

    Attributes
    ----------
    edges
        x_min, x_max, y_min, y_max of the padded rectangle, source px.
    angle_deg
        Rotation of the crop against the source.
    stretch
        Horizontal over vertical scale.
    n_inliers
        Matches that agree with it.
    share
        Share of the matches that agree with it.

    """

    edges: Floats
    angle_deg: float
    stretch: float
    n_inliers: int
    share: float

    @property
    def is_certain(self) -> bool:
        """Whether so many matches agree that no other estimate will say something else."""
        return self.n_inliers >= _MANY_INLIERS and self.share >= _MOST


Descriptors = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Features:
    """Features: (N, 2) edge-origin px, and (N, 128) numbers (SIFT) or (N, 32) bytes (ORB)."""

    points: NDArray[np.float32]
    descriptors: Descriptors

    def __len__(self) -> int:
        return len(self.points)


class Described:
    """An image and its features, which are computed once."""

    def __init__(self, image: Grey) -> None:
        self.image = image
        self._sift: dict[tuple[int, float], Features] = {}
        self._orb: dict[tuple[int, int], Features] = {}

    @property
    def size(self) -> Size:
        """Size of the image."""
        return Size.of(self.image)

    def sift(self, side: int, contrast: float) -> Features:
        """SIFT features of the image scaled down to ``side`` px on its longer side, in its own px.

        ``contrast`` is SIFT's threshold; what is below it is no feature.
        """
        import cv2

        key = min(side, max(self.image.shape)), contrast
        if key not in self._sift:
            small = self._scaled(side)
            # A dark frame has features once its range is used.
            low, high = np.percentile(small, (1, 99))
            if 0 < high - low < 160:
                small = np.clip((small.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
                small = small.astype(np.uint8)
            sift = cv2.SIFT.create(_MAX_FEATURES, contrastThreshold=contrast)
            self._sift[key] = self._found(small, *sift.detectAndCompute(small, None))
        return self._sift[key]

    @property
    def n_features(self) -> int:
        """Number of SIFT features of a crop at the usual size."""
        return len(self.sift(*_USUAL[1:]))

    def orb(self, side: int, threshold: int) -> Features:
        """ORB features: a twentieth of SIFT's time, fewer that match."""
        import cv2

        key = min(side, max(self.image.shape)), threshold
        if key not in self._orb:
            small = self._scaled(side)
            orb = cv2.ORB.create(_MAX_FEATURES, fastThreshold=threshold)
            self._orb[key] = self._found(small, *orb.detectAndCompute(small, None))
        return self._orb[key]

    def _scaled(self, side: int) -> Grey:
        import cv2

        scale = min(side / max(self.image.shape), 1.0)
        if scale == 1:
            return self.image
        size = tuple(max(round(length * scale), 1) for length in self.image.shape[::-1])
        return np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _found(self, small: Grey, keypoints: Sequence[KeyPoint], descriptors: Any) -> Features:
        if descriptors is None:
            return Features(np.zeros((0, 2), np.float32), np.zeros((0, 1), np.uint8))
        factor = np.array(self.image.shape[::-1]) / small.shape[::-1]
        points = (np.array([k.pt for k in keypoints]) + 0.5) * factor
        return Features(points.astype(np.float32), descriptors)


def match(crop: Features, source: Features, size: Size) -> Estimate | None:
    """Estimate the similarity from features of a crop of ``size``; None if too few agree."""
    ours, theirs = _matches(crop.descriptors, source.descriptors)
    return _estimated(crop.points[ours], source.points[theirs], size)


def _matches(ours: Descriptors, theirs: Descriptors) -> tuple[list[int], list[int]]:
    """Positions of features that are like each other, and like no other as much."""
    import cv2

    if min(len(ours), len(theirs)) < _MIN_INLIERS:
        return [], []
    norm = cv2.NORM_HAMMING if ours.dtype == np.uint8 else cv2.NORM_L2
    pairs = cv2.BFMatcher(norm).knnMatch(ours, theirs, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < _RATIO * p[1].distance]
    return [m.queryIdx for m in good], [m.trainIdx for m in good]


def _estimated(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], size: Size
) -> Estimate | None:
    """Estimate the similarity from points that match; None if too few agree."""
    import cv2

    if len(ours) < _MIN_INLIERS:
        return None
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    spread = float(np.median(np.abs(b - np.median(b, axis=0))))
    affine, mask = cv2.estimateAffinePartial2D(
        a, b, method=cv2.RANSAC, ransacReprojThreshold=max(2.0, 0.02 * spread), maxIters=2000
    )
    if affine is None:
        return None
    inliers = np.asarray(mask).ravel().astype(bool)
    if inliers.sum() < _MIN_INLIERS:
        return None
    return _aligned(a[inliers], b[inliers], size, float(inliers.mean()))


def _aligned(a: Floats, b: Floats, size: Size, share: float) -> Estimate:
    """Least squares of one scale and two offsets, with the leftover rotation and stretch."""
    a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)
    # Symmetric in the errors of both sides: the ratio of spreads does not shrink.
    scale = float(np.sqrt((b0**2).sum() / (a0**2).sum()))
    angle = np.arctan2((a0[:, 0] * b0[:, 1] - a0[:, 1] * b0[:, 0]).sum(), (a0 * b0).sum())
    slopes = (a0 * b0).sum(axis=0) / np.maximum((a0**2).sum(axis=0), 1e-9)
    x, y = b.mean(axis=0) - scale * a.mean(axis=0)
    edges = np.array([x, x + scale * size.width, y, y + scale * size.height])
    stretch = float(slopes[0] / slopes[1]) if slopes[1] else np.inf
    return Estimate(edges, float(np.degrees(angle)), stretch, len(a), share)


def estimates(crop: Described, source: Described, *, thorough: bool = True) -> Iterator[Estimate]:
    """Yield where the crop may lie, by features that cost little first; nothing where none match.

    Estimates that say what one before them said are left out, and those that take long if it is
    not to be ``thorough``.
    """
    known: list[Estimate] = []
    for ours, theirs in _attempts(crop, source, _SIFT if thorough else _SIFT[:1]):
        found = match(ours, theirs, crop.size)
        if found is not None and not any(_alike(found, other) for other in known):
            known.append(found)
            yield found


def _attempts(
    crop: Described, source: Described, sift: Sequence[tuple[int, int, float]]
) -> Iterator[tuple[Features, Features]]:
    for threshold in _ORB_THRESHOLDS:
        yield crop.orb(_ORB_SIDES[1], threshold), source.orb(_ORB_SIDES[0], threshold)
    for source_side, crop_side, contrast in sift:
        # Both at once: detection runs on one core.
        jobs = (partial(crop.sift, crop_side), partial(source.sift, source_side))
        ours, theirs = ordered_map(partial(_with, contrast), jobs)
        yield ours, theirs


def _with(contrast: float, find: Callable[[float], Features]) -> Features:
    return find(contrast)


def _alike(a: Estimate, b: Estimate) -> bool:
    return bool(np.max(np.abs(a.edges - b.edges)) <= _SAME_PX)


# --- mirror images ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A crop that is a mirror image: what was done to it, it upright, and where that lies."""

    fault: str
    upright: Grey
    estimate: Estimate


def find_mirrored(crop: Described, source: Described) -> Iterator[Mirrored]:
    """Yield where a mirror image of the crop may lie.

    The features of a mirror image are those of the image, mirrored: both directions look alike to
    SIFT, and differ by half a turn.
    """
    size = crop.size
    ways = (
        ("mirrored left to right", np.s_[:, ::-1], np.array([size.width, 0]), [-1, 1]),
        ("mirrored top to bottom", np.s_[::-1], np.array([0, size.height]), [1, -1]),
    )
    for source_side, crop_side, contrast in _MIRRORED:
        ours, theirs = crop.sift(crop_side, contrast), source.sift(source_side, contrast)
        here, there = _matches(_mirrored(ours.descriptors), theirs.descriptors)
        for fault, flip, origin, sign in ways:
            points = (origin + ours.points[here] * sign).astype(np.float32)
            found = _estimated(points, theirs.points[there], size)
            if found is not None and abs(found.angle_deg) < _UPRIGHT_DEG:
                yield Mirrored(fault, np.ascontiguousarray(crop.image[flip]), found)


def _mirrored(descriptors: Descriptors) -> Descriptors:
    """SIFT's descriptors of the mirror image: cells across, and angles, change their sign."""
    if not len(descriptors):
        return descriptors
    cells = descriptors.reshape(-1, 4, 4, _N_BINS)[:, ::-1, :, -np.arange(_N_BINS)]
    return np.ascontiguousarray(cells.reshape(descriptors.shape), np.float32)
