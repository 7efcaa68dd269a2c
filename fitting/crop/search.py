"""Where in the source the crop lies, roughly: features, RANSAC, then least squares.

Only scale and two offsets are estimated; the rotation, the mirror image and the ratio of the two
scales are looked at in order to name what is wrong with a crop that has no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats
from converter.media.parallel import ordered_map
from fitting.crop.mapping import Grey

_RATIO = 0.8
_MIN_INLIERS = 8
_ATTEMPTS = (
    (480, 256, 0.04, 60),
    (800, 512, 0.04, 20),
    (1600, 512, 0.04, 20),
    (1600, 512, 0.01, 20),
    (400, 512, 0.01, 20),
)
"""Longer side of the source and of the crop, px, SIFT's contrast threshold, and how many matches
have to agree; the next where fewer do."""
_MAX_FEATURES = 1500
_QUICK_SIDES = (960, 256)
_QUICK_INLIERS = 24


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


@dataclass(frozen=True, slots=True)
class Features:
    """Features: (N, 2) edge-origin px, and (N, 128) numbers (SIFT) or (N, 32) bytes (ORB)."""

    points: NDArray[np.float32]
    descriptors: NDArray[np.float32] | NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.points)


def find_features(image: Grey, side: int, contrast: float = 0.04) -> Features:
    """SIFT features of an image scaled down to ``side`` px on its longer side, in its own px."""
    import cv2

    scale = min(side / max(image.shape), 1.0)
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale != 1 else image
    # A dark frame has features once its range is used.
    low, high = np.percentile(small, (1, 99))
    if 0 < high - low < 160:
        small = np.clip((small.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
        small = small.astype(np.uint8)
    sift = cv2.SIFT.create(_MAX_FEATURES, contrastThreshold=contrast)
    keypoints, descriptors = sift.detectAndCompute(small, None)
    if descriptors is None:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    factor = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]])
    points = (np.array([k.pt for k in keypoints]) + 0.5) * factor
    return Features(points.astype(np.float32), np.asarray(descriptors, np.float32))


def find_quick_features(image: Grey, side: int) -> Features:
    """ORB features, (N, 32) bytes as descriptors: a twentieth of SIFT's time, fewer that match."""
    import cv2

    scale = min(side / max(image.shape), 1.0)
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale != 1 else image
    keypoints, descriptors = cv2.ORB.create(_MAX_FEATURES).detectAndCompute(small, None)
    if descriptors is None:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    factor = np.array([image.shape[1] / size[0], image.shape[0] / size[1]])
    points = (np.array([k.pt for k in keypoints]) + 0.5) * factor
    return Features(points.astype(np.float32), np.asarray(descriptors, np.uint8))


def match(crop: Features, source: Features, width: int, height: int) -> Estimate | None:
    """Estimate the similarity from features; None where too few matches agree."""
    import cv2

    norm = cv2.NORM_HAMMING if crop.descriptors.dtype == np.uint8 else cv2.NORM_L2
    if len(crop) < _MIN_INLIERS or len(source) < _MIN_INLIERS:
        return None
    pairs = cv2.BFMatcher(norm).knnMatch(crop.descriptors, source.descriptors, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < _RATIO * p[1].distance]
    if len(good) < _MIN_INLIERS:
        return None
    a = crop.points[[m.queryIdx for m in good]].astype(np.float64)
    b = source.points[[m.trainIdx for m in good]].astype(np.float64)
    spread = float(np.median(np.abs(b - np.median(b, axis=0))))
    affine, mask = cv2.estimateAffinePartial2D(
        a, b, method=cv2.RANSAC, ransacReprojThreshold=max(2.0, 0.02 * spread), maxIters=2000
    )
    if affine is None:
        return None
    inliers = np.asarray(mask).ravel().astype(bool)
    if inliers.sum() < _MIN_INLIERS:
        return None
    return _aligned(a[inliers], b[inliers], width, height, float(inliers.mean()))


def _aligned(a: Floats, b: Floats, width: int, height: int, share: float) -> Estimate:
    """Least squares of one scale and two offsets, with the leftover rotation and stretch."""
    a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)
    # Symmetric in the errors of both sides: the ratio of spreads does not shrink.
    scale = float(np.sqrt((b0**2).sum() / (a0**2).sum()))
    angle = np.arctan2((a0[:, 0] * b0[:, 1] - a0[:, 1] * b0[:, 0]).sum(), (a0 * b0).sum())
    slopes = (a0 * b0).sum(axis=0) / np.maximum((a0**2).sum(axis=0), 1e-9)
    x, y = b.mean(axis=0) - scale * a.mean(axis=0)
    edges = np.array([x, x + scale * width, y, y + scale * height])
    stretch = float(slopes[0] / slopes[1]) if slopes[1] else np.inf
    return Estimate(edges, float(np.degrees(angle)), stretch, len(a), share)


class Searcher:
    """Finds crops in one source frame, whose features are computed once per size."""

    def __init__(self, source: Grey) -> None:
        self._source = source
        self._features: dict[tuple[int, float], Features] = {}
        self._quick: Features | None = None

    def features(self, side: int, contrast: float) -> Features:
        """Features of the source at a size."""
        key = min(side, max(self._source.shape)), contrast
        if key not in self._features:
            self._features[key] = find_features(self._source, *key)
        return self._features[key]

    def find_quickly(self, crop: Grey) -> Estimate | None:
        """Estimate where a crop lies, by features that cost little; None where few match."""
        if self._quick is None:
            self._quick = find_quick_features(self._source, _QUICK_SIDES[0])
        height, width = crop.shape
        found = match(find_quick_features(crop, _QUICK_SIDES[1]), self._quick, width, height)
        return found if found is not None and found.n_inliers >= _QUICK_INLIERS else None

    def find(self, crop: Grey) -> Estimate | None:
        """Estimate where a crop lies; None where nothing matches."""
        height, width = crop.shape
        best: Estimate | None = None
        known: dict[tuple[int, float], Features] = {}

        def of_crop(side: int, contrast: float) -> Features:
            if (side, contrast) not in known:
                known[side, contrast] = find_features(crop, side, contrast)
            return known[side, contrast]

        for source_side, crop_side, contrast, enough in _ATTEMPTS:
            # Both at once: detection runs on one core.
            jobs = (partial(of_crop, crop_side), partial(self.features, source_side))
            ours, source = ordered_map(partial(_with, contrast), jobs)
            estimate = match(ours, source, width, height)
            if estimate is not None and (best is None or estimate.n_inliers > best.n_inliers):
                best = estimate
            if best is not None and best.n_inliers >= enough:
                break
        return best


def _with(contrast: float, find: Callable[[float], Features]) -> Features:
    return find(contrast)


def mirrored(crop: Grey) -> list[tuple[str, Grey]]:
    """Both mirror images of a crop, each with what the crop is if it matches."""
    return [
        ("mirrored left to right", np.ascontiguousarray(crop[:, ::-1])),
        ("mirrored top to bottom", np.ascontiguousarray(crop[::-1])),
    ]
