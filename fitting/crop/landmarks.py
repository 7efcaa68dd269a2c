"""A box from face landmarks alone: when the crops are gone too. Approximate by nature.

The same points, found once in the tracker's crops and once in the source frames, are related by one
scale and two offsets. Detectors see a face differently at another size, and the same way in every
frame: an error that no number of frames averages out. Measured with one detector on real video, the
edges of a box were up to 0.6 % of its side off (docs/recover-bbox.md). So no integers are proved
here; an error bar says what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats, Size, index_from_pixels
from fitting.crop.certificate import CropCertificate, FramePair
from fitting.crop.mapping import Mapping

BB_SCALE = 2.5
"""The tracker's bbox factor (metrical-tracker, configs/config.py)."""
_SYSTEMATIC = 0.01
_RULE_ERROR = 0.02
_ROUNDING_PX = 1.0
_STANDARD_ERRORS = 2.0
_MAX_RESIDUAL = 0.08
_MAX_SCATTER = 0.03
_FAR_OFF, _MAX_SHARE_OFF = 5.0, 0.2
_MAX_ANGLE_DEG = 3.0
_MIN_POINTS = 5
_TO_SIGMA = 1.4826


@dataclass(frozen=True, slots=True)
class LandmarkPair:
    """The same points of one frame: in the crop and in the source, (N, 2) edge-origin px."""

    name: str
    crop: Floats
    source: Floats


@dataclass(frozen=True, slots=True)
class _Fit:
    """One frame: edges x_min, x_max, y_min, y_max; their spread; residual as a share; angle."""

    edges: Floats
    error: float
    residual: float
    angle_deg: float


def box_from_landmarks(
    pairs: Sequence[LandmarkPair], source: Size, output: Size, by_rule: BBox | None = None
) -> CropCertificate:
    """Estimate the box from landmarks in both spaces.

    Parameters
    ----------
    pairs
        Frames with landmarks in both.
    source, output
        Sizes of the source frames and of the square crops.
    by_rule
        What the tracker's own rule makes of the source landmarks, if they come from the tracker's
        own detector (`rule_box`). It is taken where the landmarks do not contradict it.

    Returns
    -------
    A certificate of verdict "approximate" with `error_px`, or "refused".

    """
    usable = [p for p in pairs if len(p.crop) >= _MIN_POINTS and np.ptp(p.crop, axis=0).min() > 1]
    fits = [_fit(pair, output) for pair in usable]
    if not fits:
        return _refused("no-landmarks", "no frame has landmarks both in the crop and in the source")
    edges = np.median([f.edges for f in fits], axis=0)
    side = float(edges[1] - edges[0])
    residual = float(np.median([f.residual for f in fits]))
    angle = float(np.median([f.angle_deg for f in fits]))
    scatter = _scatter(fits, edges)
    if side <= 2 or residual > _MAX_RESIDUAL or abs(angle) > _MAX_ANGLE_DEG:
        return _refused(
            "landmarks-disagree",
            f"the landmarks are not the same points of the same face: {residual:.0%} of its size "
            f"apart, rotated by {abs(angle):.1f} degrees",
        )
    off = np.array([float(np.max(np.abs(f.edges - edges))) for f in fits])
    n_off = int(np.sum(off > max(_FAR_OFF * scatter, _MAX_SCATTER * side)))
    if scatter > _MAX_SCATTER * side or n_off > _MAX_SHARE_OFF * len(fits):
        return _refused(
            "landmarks-disagree",
            f"the frames disagree: {n_off} of {len(fits)} lie far off, the edges of the others "
            f"scatter by {scatter:.0f} px; more than one box, or landmarks of other frames",
        )
    random = _STANDARD_ERRORS * scatter / float(np.sqrt(len(fits)))
    error = _ROUNDING_PX + float(np.hypot(_SYSTEMATIC * side, random))
    crop = _nearest_crop(edges, source, output, error)
    if crop is None:
        return _refused("landmarks-disagree", "the box would not lie inside the source frames")
    if by_rule is not None:
        ruled = Crop.from_bbox(by_rule, source, output)
        if np.max(np.abs(Mapping.of_crop(ruled).edges - edges)) <= error / 2:
            crop = ruled
    return _approximate(crop, error, [p.name for p in usable])


def box_from_rule(points: Floats, name: str, source: Size, output: Size) -> CropCertificate:
    """Estimate the box by the tracker's rule from the landmarks of one source frame.

    Nothing else is held against it, so the error bar is twice as wide.
    """
    box = rule_box(points, source)
    crop = Crop.from_bbox(box, source, output)
    side = float(np.ptp(Mapping.of_crop(crop).edges[:2]))
    return _approximate(crop, _ROUNDING_PX + _RULE_ERROR * side, [name])


def rule_box(points: Floats, source: Size, bb_scale: float = BB_SCALE) -> BBox:
    """Return the box that the tracker's get_bbox makes of 68 landmarks.

    Parameters
    ----------
    points
        (68, 2) landmarks of a source frame, edge-origin px.
    source
        Size of the source frame.
    bb_scale
        The tracker's bbox factor.

    Source: metrical-tracker, image.py:22-42. It takes landmarks in index coordinates, cut to whole
    numbers, and measures the face to the left and top of its middle only.

    """
    whole = index_from_pixels(np.asarray(points, np.float64)).astype(np.int64)
    low, high = whole.min(axis=0), whole.max(axis=0)
    centre = ((high + low) / 2).astype(np.int64)
    half = int(bb_scale * 2 * int(np.max(centre - low))) // 2
    x0, y0 = np.maximum(centre - half, 0)
    x1, y1 = np.minimum(centre + half, [source.width - 1, source.height - 1])
    return BBox(int(x0 + (x1 - x0) % 2), int(x1), int(y0 + (y1 - y0) % 2), int(y1))


def _fit(pair: LandmarkPair, output: Size) -> _Fit:
    """Fit scale and offsets, symmetric in the errors of both sides; points far off are left out."""
    p, q = np.asarray(pair.crop, np.float64), np.asarray(pair.source, np.float64)
    keep = np.ones(len(p), np.bool_)
    for _ in range(3):
        a, b = p[keep], q[keep]
        a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)
        scale = float(np.sqrt((b0**2).sum() / max((a0**2).sum(), 1e-12)))
        offset = b.mean(axis=0) - scale * a.mean(axis=0)
        left = np.hypot(*(scale * p + offset - q).T)
        limit = 3 * max(_TO_SIGMA * float(np.median(left[keep])), 1e-6)
        keep = left <= limit
        if keep.sum() < _MIN_POINTS:
            keep = np.ones(len(p), np.bool_)
            break
    rms = float(np.sqrt(np.mean(left[keep] ** 2)))
    angle = np.arctan2((a0[:, 0] * b0[:, 1] - a0[:, 1] * b0[:, 0]).sum(), (a0 * b0).sum())
    extent = float(np.sqrt((b0**2).sum() / len(b0)))
    # An edge lies up to a whole side from the middle of the face.
    lever = output.width**2 / max(float((a0**2).sum()), 1e-12)
    error = rms * float(np.sqrt(1 / len(a0) + lever))
    x, y = offset
    edges = np.array([x, x + scale * output.width, y, y + scale * output.height])
    return _Fit(edges, error, rms / max(extent, 1e-12), float(np.degrees(angle)))


def _scatter(fits: Sequence[_Fit], edges: Floats) -> float:
    """Standard error of an edge in one frame: between frames, or within the only one."""
    within = float(np.median([f.error for f in fits]))
    if len(fits) < 3:
        return within
    deviations = np.abs([f.edges - edges for f in fits])
    between = float(np.max(_TO_SIGMA * np.median(deviations, axis=0)))
    return max(between, within / float(np.sqrt(len(fits))))


def _nearest_crop(edges: Floats, source: Size, output: Size, error: float) -> Crop | None:
    """Whole, square and possible: the crop with the least padding nearest to real edges.

    The tracker pads one axis only; the other is moved inside, by no more than ``error``.
    """
    side = int(np.rint((edges[1] - edges[0] + edges[3] - edges[2]) / 2))
    side += side % 2  # the tracker's extents are even
    middle = [(edges[0] + edges[1]) / 2, (edges[2] + edges[3]) / 2]
    ends = (source.width - 1, source.height - 1)
    over = [max(side / 2 - m, m + side / 2 - end) for m, end in zip(middle, ends, strict=True)]
    axis = int(np.argmin(over))
    side = min(side, ends[axis] - ends[axis] % 2)
    lows = [int(np.rint(m - side / 2)) for m in middle]
    lows[axis] = int(np.clip(lows[axis], 0, ends[axis] - side))
    x, y = lows
    mapping = Mapping(x, x + side, y, y + side)
    if np.max(np.abs(mapping.edges - edges)) > error + 1:
        return None
    return next(mapping.crops(source, output), None)


def _approximate(crop: Crop, error: float, names: Sequence[str]) -> CropCertificate:
    return CropCertificate(
        "approximate",
        bbox=crop.bbox,
        crop=crop,
        candidates=(crop.bbox,),
        reason="landmarks alone do not tell the integers",
        cause="landmarks-only",
        frames_checked=len(names),
        error_px=error,
        pairs=tuple(FramePair(name, name) for name in names),
    )


def _refused(cause: str, reason: str) -> CropCertificate:
    return CropCertificate("refused", cause=cause, reason=reason)
