"""Which K a track means: as stated, undone from a known rewrite, or estimated from its own poses.

A K that was rewritten still has the track's poses and meshes beside it. Under the right K the
landmarks stay on fixed points of the head; under another one the projected head moves too far or
too little, or is not where the face is. No field of the files is believed for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from converter.errors import ConventionError
from converter.findings import Finding
from converter.geometry import Intrinsics
from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.correspondences import Using, correspondences
from fitting.pose.embedding import Embedding

_CLEARLY = 0.5
"""A reading replaces another if it leaves at most this share of the distance."""

_ON_THE_HEAD = 8 / 512
"""Share of the image's side: landmarks farther off are not on the head at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One way to read a track's K.

    Attributes
    ----------
    what
        As a phrase; empty for K as it is stated.
    track
        With K of the crop.
    residual_px
        Distance of landmarks and head points under it that four in five stay below, crop px.

    """

    what: str
    track: Track
    residual_px: float


def settle_intrinsics(
    track: Track, using: Using = "kpt", embedding: Embedding | None = None
) -> tuple[Track, tuple[Finding, ...]]:
    """Return the track in its crop, with the K that its landmarks confirm.

    Parameters
    ----------
    track
        With meshes and landmarks; K as stated, in either space.
    using, embedding
        As in `correspondences`.

    Raises
    ------
    ConventionError
        If no reading puts the landmarks on the head, or two do about as well.

    """
    stated = _stated(track)
    readings = _scored([stated, *_rewrites(track)], using, embedding)
    known = embedding is not None or using == "dense"
    if known:
        readings += _estimated(stated, using, embedding)
    best = min(readings, key=lambda r: r.residual_px)
    own = readings[0]
    limit = _ON_THE_HEAD * min(own.track.intrinsics.size.width, own.track.intrinsics.size.height)
    if own.residual_px <= limit and own.residual_px * _CLEARLY <= best.residual_px:
        return own.track, ()
    exact = [r for r in readings if r.what and r.what != _ESTIMATED]
    named = min(exact, key=lambda r: r.residual_px, default=best)
    if named.residual_px * _CLEARLY <= best.residual_px:
        best = named  # what has a name is exact; an estimate is not
    others = [r.residual_px for r in readings if r is not best and r.what != _ESTIMATED]
    if best.residual_px > limit or best.residual_px > _CLEARLY * min(others, default=np.inf):
        raise ConventionError(
            f"{track.name}: K",
            f"four landmarks in five within {limit:.1f} px of the head for one reading of K",
            "; ".join(f"{r.residual_px:.1f} px {r.what or 'as stated'}" for r in readings),
            "Do meshes, poses and landmarks belong to one run? "
            "With --landmark-embedding K can be estimated.",
        )
    k = best.track.intrinsics
    finding = Finding(
        "K-rewritten",
        "warning",
        f"{track.name}: K",
        f"leaves the landmarks {own.residual_px:.1f} px off the head; {best.what}, "
        f"{best.residual_px:.2f} px: focal {np.mean(k.fx):.2f} px, principal point "
        f"({np.mean(k.cx):.2f}, {np.mean(k.cy):.2f}) of the {k.size} crop.",
        measured=own.residual_px,
        limit=limit,
        unit="px",
        fix="It is read that way.",
    )
    return best.track, (finding,)


_ESTIMATED = "estimated from poses and landmarks"


def _stated(track: Track) -> Reading:
    in_crop = track.in_crop() if track.crop is not None else track
    return Reading("", in_crop, np.inf)


def _rewrites(track: Track) -> list[Reading]:
    """Known rewrites of K, undone; they need the crop (geometry spec, 'A formula')."""
    crop = track.crop
    if crop is None or track.image_space != "crop":
        return []
    k, box = track.intrinsics, crop.bbox
    size = crop.source or crop.padded_size
    as_source = replace(k, size=size).map(crop.crop_from_source, crop.output)
    moved = replace(k, cx=k.cx - box.x_min, cy=k.cy - box.y_min)
    scaled = [
        (side, crop.output.width / side)
        for side in sorted({crop.padded_size.width, *([size.width, size.height])})
    ]
    found = [
        (f"read as K of the source frame (bbox {box})", as_source),
        (f"with bbox {box} taken off the principal point again (added without rescaling)", moved),
        *(
            (
                f"scaled from images of {side} px to {crop.output.width}",
                Intrinsics(k.fx * s, k.fy * s, k.cx * s, k.cy * s, k.size),
            )
            for side, s in scaled
            if s != 1
        ),
    ]
    return [Reading(what, replace(track, intrinsics=K), np.inf) for what, K in found]


def _scored(readings: list[Reading], using: Using, embedding: Embedding | None) -> list[Reading]:
    return [replace(r, residual_px=_residual(r.track, using, embedding)) for r in readings]


def _residual(track: Track, using: Using, embedding: Embedding | None) -> float:
    """Distance of head points and landmarks that four in five stay below, px."""
    pairs = correspondences(track, using, embedding)
    distances = pairs.distances(track)
    seen = np.isfinite(pairs.landmarks).all(axis=-1)
    # NaN is a point behind the camera: infinitely far.
    far = np.where(np.isfinite(distances), distances, np.inf)[seen]
    return float(np.percentile(far, 80, method="lower"))


def _estimated(stated: Reading, using: Using, embedding: Embedding | None) -> list[Reading]:
    """K by linear least squares on known points and poses: ``u = fx X/Z + cx``, one f."""
    pairs = correspondences(stated.track, using, embedding)
    points = stated.track.w2c(pairs.points)
    good = np.isfinite(pairs.landmarks).all(axis=-1) & (points[..., 2] > 0)
    if good.sum() < 20:
        return []
    rays = points[good][:, :2] / points[good][:, 2:]
    seen = pairs.landmarks[good]
    weights = np.ones(len(rays))
    focal, centre = _line(rays, seen, weights)
    for _ in range(20):  # least distances, not squares: outliers
        apart = np.linalg.norm(focal * rays + centre - seen, axis=1)
        weights = 1 / np.maximum(apart, 0.1)
        focal, centre = _line(rays, seen, weights)
    if not focal > 0:
        return []
    size = stated.track.intrinsics.size
    K = Intrinsics(focal, focal, float(centre[0]), float(centre[1]), size)
    track = replace(stated.track, intrinsics=K)
    return _scored([Reading(_ESTIMATED, track, np.inf)], using, embedding)


def _line(rays: Floats, seen: Floats, weights: Floats) -> tuple[float, Floats]:
    """Focal length and principal point (2,) of ``seen = focal rays + centre``."""
    share = weights / weights.sum()
    ray_mean, seen_mean = share @ rays, share @ seen
    a, b = rays - ray_mean, seen - seen_mean
    focal = float((share @ (a * b)).sum() / max(float((share @ (a * a)).sum()), 1e-300))
    centre: Floats = seen_mean - focal * ray_mean
    return focal, centre
