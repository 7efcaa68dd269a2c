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
from converter.geometry import Intrinsics, Pose
from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.correspondences import Using, correspondences
from fitting.pose.embedding import (
    N_FRAMES,
    Embedding,
    FoundEmbedding,
    find_embedding,
    four_in_five,
)
from fitting.pose.fit import fit_rigid

_CLEARLY = 0.5
"""A reading replaces another if it leaves at most this share of the distance."""

_ON_THE_HEAD = 8 / 512
"""Share of the image's side: landmarks farther off are not on the head at all."""

_AS_NOISE = 3 / 512
"""As far as detectors go; what is this near needs no other explanation (geometry spec)."""

_N_TRIED = 40
_CONTOUR_ROUNDS = 3
_FEWEST_FOR_K = 20


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One way to read a track's K.

    Attributes
    ----------
    what
        As a phrase; empty for K as it is stated.
    track
        With K of the crop.
    far_px
        Distance of landmarks and head points under it that four in five stay below, crop px.
    embedding
        Where the landmarks were taken to be; None: each on a vertex of its own.

    """

    what: str
    track: Track
    far_px: float = np.inf
    embedding: Embedding | FoundEmbedding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A track in its crop with the K that its landmarks confirm.

    Attributes
    ----------
    track
        K of the crop.
    embedding
        Where its landmarks are, if that is known or was found out.
    findings
        What was repaired.

    """

    track: Track
    embedding: Embedding | FoundEmbedding | None
    findings: tuple[Finding, ...]


def settle_intrinsics(
    track: Track, using: Using = "kpt", embedding: Embedding | None = None
) -> Settled:
    """Find out which K the landmarks confirm.

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
    size = _stated(track).track.intrinsics.size
    side = min(size.width, size.height)
    own = _scored(_stated(track), using, embedding, N_FRAMES)
    if own.far_px <= _AS_NOISE * side:
        return Settled(own.track, own.embedding, ())
    rewrites = [_scored(r, using, embedding, _N_TRIED) for r in _rewrites(track)]
    guess = _estimated(own, using, embedding) if embedding is not None or using == "dense" else None
    best = min([own, *rewrites, *([guess] if guess else [])], key=lambda r: r.far_px)
    if own.far_px <= _ON_THE_HEAD * side and own.far_px * _CLEARLY <= best.far_px:
        return Settled(own.track, own.embedding, ())
    named = min(rewrites, key=lambda r: r.far_px, default=best)
    if named.far_px * _CLEARLY <= best.far_px:
        best = named  # what has a name is exact; an estimate is not
    others = [r.far_px for r in (own, *rewrites) if r is not best]
    if best.far_px > _ON_THE_HEAD * side and embedding is not None:
        refitted = _with_new_poses(own, using, embedding)
        if refitted.far_px <= _ON_THE_HEAD * side:
            return Settled(refitted.track, embedding, (_poses_finding(own, refitted, side),))
    if best.far_px > _ON_THE_HEAD * side or best.far_px > _CLEARLY * min(others):
        raise ConventionError(
            f"{track.name}: K",
            f"four landmarks in five within {_ON_THE_HEAD * side:.1f} px of the head for one "
            "reading of K",
            "; ".join(f"{r.far_px:.1f} px {r.what or 'as stated'}" for r in (own, *rewrites)),
            "Do meshes, poses and landmarks belong to one run? "
            "With --landmark-embedding K can be estimated.",
        )
    k = best.track.intrinsics
    finding = Finding(
        "K-rewritten",
        "warning",
        f"{track.name}: K",
        f"leaves the landmarks {own.far_px:.1f} px off the head; {best.what}, "
        f"{best.far_px:.2f} px: focal {np.mean(k.fx):.2f} px, principal point "
        f"({np.mean(k.cx):.2f}, {np.mean(k.cy):.2f}) of the {k.size} crop.",
        measured=own.far_px,
        limit=_ON_THE_HEAD * side,
        unit="px",
        fix="It is read that way.",
    )
    return Settled(best.track, embedding, (finding,))


_ESTIMATED = "estimated from poses and landmarks"


def _stated(track: Track) -> Reading:
    in_crop = track.in_crop() if track.crop is not None else track
    return Reading("", in_crop)


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
    return [Reading(what, replace(track, intrinsics=K)) for what, K in found]


def _scored(reading: Reading, using: Using, embedding: Embedding | None, n_frames: int) -> Reading:
    """Hold landmarks against the head; where its points have to be found, in held-out frames."""
    if using == "kpt" and embedding is None:
        found = find_embedding(reading.track, n_frames)
        return replace(reading, far_px=found.far_px, embedding=found)
    pairs = correspondences(reading.track, using, embedding)
    seen = np.isfinite(pairs.landmarks).all(axis=-1)
    far_px = four_in_five(pairs.distances(reading.track)[seen])
    return replace(reading, far_px=far_px, embedding=embedding)


def _estimated(stated: Reading, using: Using, embedding: Embedding | None) -> Reading | None:
    """K by linear least squares on known points and poses: ``u = f X/Z + cx``, one f."""
    pairs = correspondences(stated.track, using, embedding)
    points = stated.track.w2c(pairs.points)
    good = np.isfinite(pairs.landmarks).all(axis=-1) & (points[..., 2] > 0)
    if good.sum() < _FEWEST_FOR_K:
        return None
    rays = points[good][:, :2] / points[good][:, 2:]
    seen = pairs.landmarks[good]
    weights = np.ones(len(rays))
    focal, centre = _line(rays, seen, weights)
    for _ in range(20):  # least distances, not squares: outliers
        apart = np.linalg.norm(focal * rays + centre - seen, axis=1)
        weights = 1 / np.maximum(apart, 0.1)
        focal, centre = _line(rays, seen, weights)
    if not focal > 0:
        return None
    size = stated.track.intrinsics.size
    K = Intrinsics(focal, focal, float(centre[0]), float(centre[1]), size)
    track = replace(stated.track, intrinsics=K)
    return _scored(Reading(_ESTIMATED, track), using, embedding, N_FRAMES)


def _with_new_poses(stated: Reading, using: Using, embedding: Embedding) -> Reading:
    """Fit all poses from nothing, for a track whose own say nothing; K stays as it is stated."""
    track = stated.track
    for _ in range(_CONTOUR_ROUNDS):  # jaw points follow the pose, and the pose the jaw points
        pairs = correspondences(track, using, embedding)
        fit = fit_rigid(
            pairs.points, pairs.landmarks, track.intrinsics, groups=pairs.groups,
            fov_limits_deg=(1.0, 170.0),
        )  # fmt: skip
        known = fit.fitted[:, None, None]
        w2c = Pose(
            np.where(known, fit.w2c.R, track.w2c.R), np.where(known[..., 0], fit.w2c.t, track.w2c.t)
        )
        track = replace(track, w2c=w2c, depth=None)
    return _scored(Reading("with new poses", track), using, embedding, N_FRAMES)


def _poses_finding(own: Reading, refitted: Reading, side: int) -> Finding:
    return Finding(
        "poses-replaced",
        "warning",
        f"{own.track.name}: poses",
        f"leave the landmarks {own.far_px:.1f} px off the head, under every reading of K; poses "
        f"fitted from nothing leave {refitted.far_px:.2f} px.",
        measured=own.far_px,
        limit=_ON_THE_HEAD * side,
        unit="px",
        fix="The track's own poses are not used. K is believed as stated.",
    )


def _line(rays: Floats, seen: Floats, weights: Floats) -> tuple[float, Floats]:
    """Focal length and principal point (2,) of ``seen = focal rays + centre``."""
    share = weights / weights.sum()
    ray_mean, seen_mean = share @ rays, share @ seen
    a, b = rays - ray_mean, seen - seen_mean
    focal = float((share @ (a * b)).sum() / max(float((share @ (a * a)).sum()), 1e-300))
    centre: Floats = seen_mean - focal * ray_mean
    return focal, centre
