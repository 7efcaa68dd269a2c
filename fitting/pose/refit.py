"""A track with its cameras fitted again: what went in, what came out, and what moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from converter.errors import ConventionError, FitError
from converter.findings import Finding
from converter.geometry import Intrinsics, Pose, rotation_vector_from_matrix
from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.central import central_intrinsics, fov_around
from fitting.pose.correspondences import Correspondences, Using, correspondences
from fitting.pose.embedding import FEWEST_FRAMES, Embedding
from fitting.pose.fit import RigidFit, Solver, fit_rigid
from fitting.pose.intrinsics import Settled, settle_intrinsics
from fitting.pose.jitter import measure_jitter
from fitting.pose.problem import Bools, Ears, HeadSmoothing

KChoice: TypeAlias = Literal["keep", "shared", "central"]
Smooth: TypeAlias = Literal["auto"] | float | None

_MORE_JITTER = 1.1


@dataclass(frozen=True, slots=True, eq=False)
class TrackFit:
    """A track whose cameras were fitted again.

    Attributes
    ----------
    track
        With the new cameras, in the image space of the track that was given.
    before
        The track that the fit began with, in its crop: K as its landmarks confirm it.
    after
        `track` in its crop.
    pairs
        What was fitted to.
    fit
        What the solver says.
    before_px, after_px
        (N,) root mean squared distance of the landmarks, crop px; NaN where none were seen.
    turned_deg, moved_m
        (N,) how far the head's orientation and centre moved as the camera sees them.
    fitted
        (N,) frames that have landmarks; the others follow the track's own pose.
    jitter_deg
        What the heads' turns jitter by before and after, degrees (standard deviation), weighed by
        what each of the points of `pairs` says of a turn: on other points the same poses give
        another figure. None where no five frames follow each other.
    findings
        What was repaired or doubted on the way.

    """

    track: Track
    before: Track
    after: Track
    pairs: Correspondences
    fit: RigidFit
    before_px: Floats
    after_px: Floats
    turned_deg: Floats
    moved_m: Floats
    fitted: Bools
    jitter_deg: tuple[float, float] | None
    findings: tuple[Finding, ...]

    def summary(self) -> tuple[str, ...]:
        """Lines for people."""
        k, own = self.after.intrinsics, self.before.intrinsics
        lines = [
            f"fitted to {self.pairs.what}",
            f"landmarks within {_rms(self.before_px):.2f} px (RMS) before, "
            f"{_rms(self.after_px):.2f} px after; noise {self.fit.std.noise_px:.2f} px per "
            "coordinate"
            if not self.pairs.exact
            else f"the mesh lies within {_rms(self.after_px):.3f} px (RMS) of where it was",
            f"heads turned by {np.median(self.turned_deg):.2f} degrees (median), "
            f"{self.turned_deg.max():.2f} at most; moved by "
            f"{1000 * np.median(self.moved_m):.1f} mm, {1000 * self.moved_m.max():.1f} at most",
        ]
        if self.jitter_deg is not None:
            before, after = self.jitter_deg
            where = "mesh" if self.pairs.exact else "landmarks"
            lines.append(
                f"turns jitter by {before:.3f} degrees before, {after:.3f} after, on the {where}"
            )
        if not np.array_equal(k.matrix, own.matrix):
            lines.append(f"K of the {k.size} crop: {_brief(own)} -> {_brief(k)}")
        return tuple(lines)


def refit_track(
    track: Track,
    *,
    using: Using = "kpt",
    intrinsics: KChoice = "keep",
    embedding: Embedding | None = None,
    ears: Ears | None = None,
    smooth: Smooth = None,
    solver: Solver = "lm",
    focal_prior: float | None = 0.07,
) -> TrackFit:
    """Fit the cameras of a track again.

    A K that is damaged in a known way is repaired first (`settle_intrinsics`).

    Parameters
    ----------
    track
        With meshes, and the landmarks of ``using``.
    using
        What to fit to: see `correspondences`.
    intrinsics
        ``"keep"``: K stays. ``"shared"``: one focal length for the sequence, held to K's by
        ``focal_prior``. ``"central"``: the crop's centre as principal point, one focal length.
    embedding
        Where on the meshes the landmarks are; None: found on the track.
    ears
        See `fit_rigid`.
    smooth
        ``"auto"``: against jitter, as strong as the noise of landmarks or poses asks for. A number:
        noise to assume, px of the crop, one landmark coordinate. None: frames on their own.
    solver
        ``"lm"``, or ``"adam"`` to compare with.
    focal_prior
        Standard deviation of a shared focal length, as a fraction; None: no prior.

    Raises
    ------
    ConventionError, MissingInputError, FitError
        As `correspondences`, `settle_intrinsics` and `fit_rigid`; also if frames without landmarks
        have no pose to keep.

    """
    settled = _begin(track, using, embedding)
    own, findings = settled.track, settled.findings
    pairs = correspondences(own, using, settled.embedding)
    wanted = central_intrinsics(own.intrinsics) if intrinsics == "central" else own.intrinsics
    smoothing, limits = _smoothing(own, pairs, smooth), fov_around(wanted)
    if solver == "adam" and (smoothing is not None or pairs.exact):
        raise ConventionError("fit: solver", "lm, which smooths and fits to meshes", "adam")
    fit = fit_rigid(
        pairs.points,
        pairs.landmarks,
        wanted,
        groups=pairs.groups,
        ears=ears,
        fov="shared" if intrinsics == "shared" else "fixed",
        focal_prior=None if pairs.exact else focal_prior,
        fov_limits_deg=limits,
        smoothing=smoothing,
        robust="squares" if pairs.exact else ("norm" if solver == "adam" else "auto"),
        solver=solver,
    )
    _require_near(track.name, own.intrinsics, fit, focal_prior, limits)
    after, missing = _kept(own, fit)
    measured = [measure_jitter(t, pairs) for t in (own, after)]
    jitter = [None if j is None else j.rotation_deg for j in measured]
    findings += missing + _focal_findings(own, fit, focal_prior)
    findings += _jitter_findings(track.name, jitter)
    restored = after if track.image_space == "crop" else after.in_source()
    distances = [_rms_by_frame(pairs.distances(t)) for t in (own, after)]
    centre = np.nanmean(pairs.points.reshape(-1, 3), axis=0)
    heads = [t.w2c(centre[None])[:, 0] for t in (own, after)]
    turn = after.w2c.R @ np.swapaxes(own.w2c.R, 1, 2)
    return TrackFit(
        track=restored.with_findings(findings, (_step(pairs, intrinsics, smooth),)),
        before=own,
        after=after,
        pairs=pairs,
        fit=fit,
        before_px=distances[0],
        after_px=distances[1],
        turned_deg=np.degrees(np.linalg.norm(rotation_vector_from_matrix(turn), axis=-1)),
        moved_m=np.linalg.norm(heads[1] - heads[0], axis=-1),
        fitted=fit.fitted,
        jitter_deg=None if jitter[0] is None or jitter[1] is None else (jitter[0], jitter[1]),
        findings=findings,
    )


def _begin(track: Track, using: Using, embedding: Embedding | None) -> Settled:
    """Return the track in its crop; with landmarks to hold it against, K is settled."""
    in_crop = track.in_crop() if track.crop is not None else track
    if in_crop.image_space != "crop":
        raise ConventionError(
            f"{track.name}: K", "K of the crop, which the landmarks are in",
            "K of the source frame, and no bbox.pt", "Give --bbox FILE.",
        )  # fmt: skip
    held_against: Using = using if using != "mesh" else "kpt"
    if using == "mesh" and not _can_be_held(in_crop):
        return Settled(in_crop, embedding, ())
    return settle_intrinsics(track, held_against, embedding)


def _can_be_held(track: Track) -> bool:
    """Whether there are meshes, and landmarks in enough frames, to hold K against."""
    if track.landmarks is None or track.meshes is None:
        return False
    return int(np.isfinite(track.landmarks).all(axis=(1, 2)).sum()) >= FEWEST_FRAMES


def _smoothing(track: Track, pairs: Correspondences, smooth: Smooth) -> HeadSmoothing | None:
    if smooth is None:
        return None
    if smooth != "auto":
        return HeadSmoothing(frame_ids=track.frame_ids, noise_px=smooth)
    # Projections have no noise of their own; what jitters are the poses behind them.
    jitter = measure_jitter(track, pairs) if pairs.exact else None
    if jitter is not None and jitter.noise_px == 0:
        return None
    return HeadSmoothing(
        frame_ids=track.frame_ids, noise_px=None if jitter is None else jitter.noise_px
    )


def _kept(own: Track, fit: RigidFit) -> tuple[Track, tuple[Finding, ...]]:
    """The fitted cameras; frames without landmarks follow the track's own pose."""
    lost = np.flatnonzero(~fit.fitted)
    # Depth was rendered through the old poses.
    after = replace(own, w2c=fit.w2c, intrinsics=fit.intrinsics, depth=None)
    findings: tuple[Finding, ...] = ()
    if own.depth is not None:
        findings = (
            Finding("depth-left-out", "info", f"{own.name}: depth", "was rendered through the "
                    "track's own poses, not the fitted ones; left out."),
        )  # fmt: skip
    if not len(lost):
        return after, findings
    poses = own.w2c
    if not np.array_equal(own.intrinsics.matrix, fit.intrinsics.matrix):
        poses = _same_picture(own, fit.intrinsics)
    w2c = Pose(
        np.where(fit.fitted[:, None, None], fit.w2c.R, poses.R),
        np.where(fit.fitted[:, None], fit.w2c.t, poses.t),
    )
    ids = ", ".join(f"{own.frame_ids[i]:05d}" for i in lost[:8])
    finding = Finding(
        "frames-not-fitted",
        "warning",
        f"{own.name}: landmarks",
        f"too few in {len(lost)} of {len(own)} frames ({ids}{', ...' if len(lost) > 8 else ''}).",
        fix="They keep the track's own pose.",
    )
    return replace(after, w2c=w2c), (*findings, finding)


def _require_near(
    name: str,
    own: Intrinsics,
    fit: RigidFit,
    prior: float | None,
    limits_deg: tuple[float, float],
) -> None:
    """Refuse a focal length that left its prior, or ran into its bounds."""
    ratio = float(np.mean(fit.intrinsics.fx) / np.mean(own.fx))
    bound = bool(np.isclose(float(np.median(fit.fov_deg)), limits_deg, rtol=1e-3).any())
    if ratio != 1 and (bound or (prior is not None and abs(np.log(ratio)) > 3 * prior)):
        raise FitError(
            f"{name}: focal length",
            f"within {3 * (prior or 0):.0%} of K's {np.mean(own.fx):.0f} px"
            if not bound
            else f"a fov between {limits_deg[0]:.1f} and {limits_deg[1]:.1f} degrees",
            f"{ratio - 1:+.0%}",
            "Landmarks hardly tell focal length from distance, and errors that repeat in every "
            "frame pull it away. Keep K (--keep-k).",
        )


def _focal_findings(own: Track, fit: RigidFit, prior: float | None) -> tuple[Finding, ...]:
    ratio = float(np.mean(fit.intrinsics.fx) / np.mean(own.intrinsics.fx))
    if prior is None or abs(np.log(ratio)) <= prior:
        return ()
    return (
        Finding(
            "focal-moved",
            "warning",
            f"{own.name}: focal length",
            f"is {ratio - 1:+.0%} from K's, where --focal-prior says {prior:.0%}; the landmarks' "
            f"noise leaves it uncertain by {np.nanmedian(fit.std.focal):.1%}.",
            measured=ratio - 1,
            limit=prior,
            fix="Reprojection does not tell a wrong focal length: keep K unless you know better.",
        ),
    )


def _jitter_findings(name: str, jitter: Sequence[float | None]) -> tuple[Finding, ...]:
    before, after = jitter
    if before is None or after is None or after <= _MORE_JITTER * before:
        return ()
    return (
        Finding(
            "poses-jitter",
            "warning",
            f"{name}: poses",
            f"turn by {after:.3f} degrees at random; the track's own by {before:.3f}.",
            measured=after,
            limit=before,
            unit="deg",
            fix="Give --smooth auto, or --using mesh, which keeps the track's poses.",
        ),
    )


def _same_picture(own: Track, intrinsics: Intrinsics) -> Pose:
    pairs = correspondences(own, "mesh")
    return fit_rigid(pairs.points, pairs.landmarks, intrinsics, robust="squares").w2c


def _step(pairs: Correspondences, intrinsics: KChoice, smooth: Smooth) -> str:
    k = {"keep": "K kept", "shared": "one focal length fitted", "central": "K made central"}
    smoothed = "" if smooth is None else f", smoothed ({smooth})"
    return f"cameras fitted again to {pairs.what}; {k[intrinsics]}{smoothed}"


def _rms_by_frame(distances: Floats) -> Floats:
    seen = np.isfinite(distances)
    squares = np.where(seen, distances, 0.0) ** 2
    n = seen.sum(axis=1)
    rms: Floats = np.where(n > 0, np.sqrt(squares.sum(axis=1) / np.maximum(n, 1)), np.nan)
    return rms


def _rms(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def _brief(k: Intrinsics) -> str:
    return f"f {np.mean(k.fx):.2f}, c ({np.mean(k.cx):.2f}, {np.mean(k.cy):.2f})"


def require_residual(fit: TrackFit, limit_px: float) -> None:
    """Raise FitError if the landmarks' median RMS after the fit is above ``limit_px``."""
    median = float(np.nanmedian(fit.after_px))
    if not median <= limit_px:
        raise FitError(
            f"{fit.track.name}: cameras",
            f"landmarks within {limit_px:g} px (median over frames) of the head",
            f"{median:.2f} px",
            "Do landmarks and meshes belong to one run? Or raise --max-residual.",
        )
