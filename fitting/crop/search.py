"""Where in the source the crop lies, roughly: features, RANSAC, then least squares.

Only scale and two offsets are estimated; the rotation, the mirror image and the ratio of the two
scales are looked at in order to name what is wrong with a crop that has no answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_MAX_FEATURES, _MAX_QUICK = 1500, 1000
_SAME_PX = 1.0
_MANY_INLIERS, _MOST = 40, 0.5
_N_BINS = 8
"""Orientations of each of SIFT's 4 x 4 cells."""
_UPRIGHT_DEG = 45.0
_SMOOTH, _ROUNDED = 0.025, 0.35
"""What a quarter of an image's size may lose: share of its deviation; grey levels."""
_MIN_RANGE = 160
"""Grey levels that most of an image spans; one of fewer is stretched."""


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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to look: ORB, which costs a twentieth of SIFT's time and matches less, or SIFT.

    Attributes
    ----------
    source_side, crop_side
        Longer sides, px, to which the images are made smaller.
    limit
        What is no feature: below FAST's threshold, grey levels, or SIFT's contrast.
    is_sift
        SIFT, not ORB.

    """

    source_side: int
    crop_side: int
    limit: float
    is_sift: bool = True


_SMALL, _USUAL = Attempt(480, 256, 0.04), Attempt(800, 512, 0.04)
_FINE, _COARSE = Attempt(1600, 512, 0.01), Attempt(400, 512, 0.01)
_FAINT = Attempt(960, 256, 7, is_sift=False)
FAST = (Attempt(960, 256, 20, is_sift=False),)
TINY = (Attempt(1920, 192, 20, is_sift=False),)
"""For boxes down to a twentieth of the frame's width."""
SMALL = (_SMALL,)
USUAL = (*TINY, _FAINT, _USUAL)
THOROUGH = (_FINE, _COARSE)
QUICK = (*FAST, *SMALL, _FAINT)

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
        self._features: dict[tuple[int, float, bool], Features] = {}

    @property
    def size(self) -> Size:
        """Size of the image."""
        return Size.of(self.image)

    @property
    def n_features(self) -> int:
        """Number of SIFT features of a crop at the usual size."""
        return len(self.features(_USUAL.crop_side, _USUAL))

    @property
    def is_smooth(self) -> bool:
        """Whether the image shows no more than a quarter of its size does: enlarged, or blurred."""
        import cv2

        height, width = self.image.shape
        quarter = cv2.resize(self.image, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
        again = cv2.resize(quarter, (width, height), interpolation=cv2.INTER_CUBIC)
        lost = float(np.mean(cv2.absdiff(again, self.image)))
        return lost < max(_SMOOTH * float(np.std(self.image)), _ROUNDED)

    def features(self, side: int, attempt: Attempt) -> Features:
        """Features of the image scaled down to ``side`` px on its longer side, in its own px."""
        import cv2

        key = min(side, max(self.image.shape)), attempt.limit, attempt.is_sift
        if key not in self._features:
            small = _stretched(self._scaled(side))
            detector: cv2.Feature2D = (
                cv2.SIFT.create(_MAX_FEATURES, contrastThreshold=attempt.limit)
                if attempt.is_sift
                else cv2.ORB.create(_MAX_QUICK, fastThreshold=int(attempt.limit))
            )
            self._features[key] = self._found(small, *detector.detectAndCompute(small, None))
        return self._features[key]

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


def _stretched(image: Grey) -> Grey:
    """A dark image over all levels: it has features once its range is used."""
    import cv2

    counts = cv2.calcHist([image], [0], None, [256], [0, 256])
    share = np.cumsum(counts, dtype=np.float64) / image.size
    low, high = (int(np.searchsorted(share, part)) for part in (0.01, 0.99))
    if not 0 < high - low < _MIN_RANGE:
        return image
    levels = np.clip((np.arange(256) - low) * (255 / (high - low)), 0, 255)
    return np.asarray(cv2.LUT(image, levels.astype(np.uint8)), np.uint8)


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


def estimates(
    crop: Described, source: Described, attempts: Sequence[Attempt], known: list[Estimate]
) -> Iterator[Estimate]:
    """Yield where the crop may lie, by one attempt after the other; nothing where none match.

    Estimates are added to those ``known``; what one of them says already is left out.
    """
    for attempt in attempts:
        found = match(*_both(crop, source, attempt), crop.size)
        if found is not None and not any(_alike(found, other) for other in known):
            known.append(found)
            yield found


def _both(crop: Described, source: Described, attempt: Attempt) -> tuple[Features, Features]:
    """Features of both images, found at once where that takes long: detection runs on one core."""
    jobs = ((crop, attempt.crop_side), (source, attempt.source_side))
    find = partial(_features, attempt)
    ours, theirs = ordered_map(find, jobs) if attempt.is_sift else map(find, jobs)
    return ours, theirs


def _features(attempt: Attempt, job: tuple[Described, int]) -> Features:
    return job[0].features(job[1], attempt)


def _alike(a: Estimate, b: Estimate) -> bool:
    return bool(np.max(np.abs(a.edges - b.edges)) <= _SAME_PX)


# --- mirror images ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A crop that is a mirror image: what was done to it, it upright, and where that lies."""

    fault: str
    upright: Grey
    estimate: Estimate


def find_mirrored(
    crop: Described, source: Described, attempts: Sequence[Attempt]
) -> Iterator[Mirrored]:
    """Yield where a mirror image of the crop may lie.

    Of several ``attempts`` at the crop itself, the one that finds most is made, on what it found.
    Both mirror images look alike to features, and differ by half a turn.
    """
    attempt = max(attempts, key=lambda a: (a.is_sift, a.source_side))
    size, corner = crop.size, np.array([crop.size.width, crop.size.height], np.float32)
    ours = _mirrored(crop, attempt)
    theirs = source.features(attempt.source_side, attempt)
    here, there = _matches(ours.descriptors, theirs.descriptors)
    across = ours.points[here]
    for fault, flip, points in (
        ("mirrored left to right", np.s_[:, ::-1], across),
        ("mirrored top to bottom", np.s_[::-1], corner - across),
    ):
        found = _estimated(points, theirs.points[there], size)
        if found is not None and abs(found.angle_deg) < _UPRIGHT_DEG:
            yield Mirrored(fault, np.ascontiguousarray(crop.image[flip]), found)


def _mirrored(crop: Described, attempt: Attempt) -> Features:
    """Features of the crop, mirrored left to right.

    SIFT's need not be looked for: cells across, and angles, change their sign.
    """
    if not attempt.is_sift:
        flipped = Described(np.ascontiguousarray(crop.image[:, ::-1]))
        return flipped.features(attempt.crop_side, attempt)
    ours = crop.features(attempt.crop_side, attempt)
    if not len(ours):
        return ours
    cells = ours.descriptors.reshape(-1, 4, 4, _N_BINS)[:, ::-1, :, -np.arange(_N_BINS)]
    points = np.stack([crop.size.width - ours.points[:, 0], ours.points[:, 1]], axis=1)
    return Features(points, np.ascontiguousarray(cells.reshape(len(ours), -1), np.float32))
