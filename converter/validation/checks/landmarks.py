"""Landmarks: whether they are there, lie on the projected mesh, and move as the camera does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converter.errors import UncropError
from converter.geometry.pixels import Floats
from converter.sources.metrical_tracker.evidence import (
    MIN_SHARE,
    landmark_residuals,
    landmark_share,
)
from converter.sources.metrical_tracker.files import N_LANDMARKS
from converter.track import Track
from converter.validation.checking import check
from converter.validation.evidence import CheckSkipped, Evidence, Outcome, finding, named, only
from converter.validation.tracked import Tracked

_LOST_SHARE = 0.05
_LOST_RUN = 5
_N_SHARE_FRAMES = 8
# Measured: 0.62 one frame off, where the head moves 0.7 px per frame (spec, 3.10).
_LAG_RATIO = 0.8
_JITTER_LIMIT = 1.0 / 512
"""Of the image's side: what a camera may shake beyond the head in the picture."""
_JITTER_RATIO = 3.0
_N_POINTS = 24


@check("landmarks-missing")
def landmarks_missing(evidence: Evidence) -> Outcome:
    """The detector found a face in nearly all frames, and did not lose it for long."""
    points = evidence.track.landmarks
    if points is None:
        raise CheckSkipped("there are no landmarks")
    lost = np.asarray(~np.isfinite(points).all(axis=(1, 2)))
    n_examined = len(lost)
    if isinstance(evidence, Tracked):  # a damaged file is another check's finding
        status = np.array([evidence.landmark_status.get(int(i), "") for i in evidence.ids])
        lost &= ~np.isin(status, ("damaged", "unread"))
        n_examined = int((status != "unread").sum())
    ids = evidence.ids[lost]
    if not len(ids):
        return Outcome((), n_examined)
    share = float(lost.mean())
    longest = _longest_run(lost, evidence.ids)
    bad = share > _LOST_SHARE or longest > _LOST_RUN
    message = (
        f"{len(ids)} of {len(lost)} frames have none ({named(ids)}), up to {longest} in a row: "
        "the detector found no face there."
    )
    fix = "uncrop fills gaps up to 5 frames and leaves longer ones out." if bad else ""
    found = finding(
        "warning" if bad else "info", "kpt", message, share, _LOST_SHARE, "of the frames", fix
    )
    return Outcome((found,), n_examined, tuple(int(i) for i in ids))


def _longest_run(lost: NDArray[np.bool_], ids: NDArray[np.int64]) -> int:
    longest = run = 0
    last = None
    for is_lost, number in zip(lost.tolist(), ids.tolist(), strict=True):
        run = (run + 1 if last == number - 1 else 1) if is_lost else 0
        last = number if is_lost else None
        longest = max(longest, run)
    return longest


@check("landmarks-off-mesh")
def landmarks_off_mesh(evidence: Evidence) -> Outcome:
    """K, the poses, the meshes and the landmarks belong together."""
    picked = evidence.comparable(_N_SHARE_FRAMES)
    track = evidence.in_crop
    share = landmark_share(only(track, picked), len(picked))
    if share is None or share >= MIN_SHARE:
        return Outcome((), len(picked))
    if isinstance(evidence, Tracked) and (known := _known_elsewhere(evidence, picked)):
        raise CheckSkipped(known)
    found = finding(
        "error", "opencv", f"K, R, t and the mesh put {share:.0%} of the landmarks on the face; "
        "they do not belong together.", share, MIN_SHARE, "share",
        "Are checkpoint/, mesh/ and kpt/ of one run? Were K or R rewritten?",
    )  # fmt: skip
    return Outcome((found,), len(picked))


def _known_elsewhere(track: Tracked, picked: list[int]) -> str:
    """Whether the opencv block fits where the camera block does not: another check says so."""
    cameras = track.cameras
    if not np.any((cameras.K_cause[picked] != "") | (cameras.pose_cause[picked] != "")):
        return ""
    share = landmark_share(only(track.track_with(cameras.K, cameras.pose), picked), len(picked))
    fits = share is not None and share >= MIN_SHARE
    return "the camera block is wrong (see pose-differs); opencv puts the face in place" * fits


@check("landmarks-lag")
def landmarks_lag(track: Tracked) -> Outcome:
    """The landmarks of its own image fit a frame's mesh best, not those of a neighbour."""
    track.comparable(1)
    if track.numbering is None or track.offset is None:
        reason = "the images are out of step with the frames; see images-order"
        raise CheckSkipped(reason if track.numbering_error else "no image is known to be a frame's")
    positions = track.positions_of(track.ids)

    def landmarks_at(index: int, lag: int) -> Floats | None:
        try:
            return track.files.read_landmarks("kpt", int(positions[index]) + lag, N_LANDMARKS)
        except UncropError:  # landmarks-damaged says so
            return None

    meshed = set(track.with_mesh_files)
    usable = [i for i in range(len(positions)) if i in meshed]
    record = track.track
    residuals = landmark_residuals(record, landmarks_at, usable)
    if not residuals:
        raise CheckSkipped("fewer than 8 frames have landmarks around them, or no mesh")
    best = min(residuals, key=lambda lag: residuals[lag])
    if best == 0 or residuals[best] >= _LAG_RATIO * residuals[0]:
        beside = min(residuals[-1], residuals[1])
        if beside < residuals[0] / _LAG_RATIO:
            raise CheckSkipped("the head moves too little to tell neighbouring frames apart")
        return Outcome((), len(usable))
    found = finding(
        "error", "frame numbering", f"the landmarks {best:+d} images away fit the meshes within "
        f"{residuals[best]:.2f} px, those of the frames' own images within {residuals[0]:.2f} px.",
        residuals[0] / residuals[best], 1 / _LAG_RATIO, "times",
        f"begin_frames is {track.offset + best}, not {track.offset}; give --begin-frames "
        f"{track.offset + best}.",
    )  # fmt: skip
    return Outcome((found,), len(usable))


@check("jitter")
def jitter(evidence: Evidence) -> Outcome:
    """The camera does not shake where the head in the picture keeps still."""
    points = evidence.require_landmarks()
    track = evidence.in_crop
    motion = _motion_of_camera(track)
    side = max(track.intrinsics.size.width, track.intrinsics.size.height)
    limit = _JITTER_LIMIT * side
    if isinstance(evidence, Tracked) and not evidence.thorough:
        # A camera that hardly shakes cannot shake beyond the head: landmarks need not be read.
        unread = [evidence.landmark_status.get(int(i)) == "unread" for i in evidence.ids]
        runs = _runs(evidence.ids, np.isfinite(points).all(axis=(1, 2)) | np.array(unread))
        camera = shake(motion, runs)
        if len(runs) and np.median(camera) <= limit and (camera > 3 * limit).sum() < 2:
            return Outcome((), len(runs))
        evidence.all_landmarks()
    runs = _runs(evidence.ids, np.asarray(np.isfinite(points).all(axis=(1, 2))))
    if not len(runs):
        raise CheckSkipped("no five frames in a row have landmarks")
    seen = shake(_motion_of_landmarks(points), runs)
    camera = shake(motion, runs)
    excess = np.sqrt(np.maximum(camera**2 - seen**2, 0))
    typical, beside = float(np.median(excess)), float(np.median(seen))
    strong = (excess > 3 * limit) & (camera > _JITTER_RATIO * seen)
    if not (typical > limit and float(np.median(camera)) > _JITTER_RATIO * beside):
        if strong.sum() < 2:
            return Outcome((), len(runs))
        ids = evidence.ids[runs[strong]]
        found = finding(
            "warning", "opencv.R, opencv.t", f"the camera jumps at {named(ids)}, by up to "
            f"{excess.max():.1f} px where the landmarks move evenly.", float(excess.max()),
            3 * limit, "px", "Look at these frames; smooth the poses, or track them again.",
        )  # fmt: skip
        return Outcome((found,), len(runs), tuple(int(i) for i in ids))
    found = finding(
        "warning", "opencv.R, opencv.t", f"the camera shakes by {typical:.1f} px from frame to "
        f"frame while the landmarks do by {beside:.1f} px: a still head and a camera that moves.",
        typical, limit, "px", "Smooth the poses, or track with stronger temporal terms.",
    )  # fmt: skip
    return Outcome((found,), len(runs))


def _runs(ids: NDArray[np.int64], there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions whose two neighbours on each side are there and follow each other."""
    n = len(ids)
    if n < 5:
        return np.zeros(0, np.int64)
    inner = np.arange(2, n - 2)
    whole = np.ones(len(inner), bool)
    for step in (-2, -1, 0, 1, 2):
        whole &= there[inner + step] & (ids[inner + step] - ids[inner] == step)
    return inner[whole]


def shake(motion: Floats, at: NDArray[np.int64]) -> Floats:
    """Shaking of points (N, P, 2) at frames ``at``, px: what a smooth motion does not explain.

    The fourth difference is zero for a cubic motion, and of white noise it has 70 times the
    variance; so smooth turns of the head count little.
    """
    fourth = (
        motion[at - 2] - 4 * motion[at - 1] + 6 * motion[at] - 4 * motion[at + 1] + motion[at + 2]
    )
    result: Floats = np.sqrt((fourth**2).sum(axis=-1).mean(axis=-1) / 70)
    return result


def _motion_of_landmarks(points: Floats) -> Floats:
    """Six points carried by the affine map that best moves the mean landmarks: (N, 6, 2).

    The fit over 68 points takes the detector's noise away, and the face's own movements.
    """
    there = np.isfinite(points).all(axis=(1, 2))
    mean = points[there].mean(axis=0)
    design = np.column_stack([mean - mean.mean(axis=0), np.ones(len(mean))])
    solve = np.linalg.pinv(design)
    spread = np.ptp(mean, axis=0) / 2
    corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1], [0, 0], [0, -1]]) * spread
    carried = np.column_stack([corners, np.ones(len(corners))]) @ solve
    moved: Floats = carried @ np.nan_to_num(points)
    return moved


def _motion_of_camera(track: Track) -> Floats:
    """Points fixed to the head, projected by every frame's camera: (N, P, 2), px of the crop."""
    # A face's extent around its middle, metres; a mesh would only refine it.
    head = 0.05 * np.array(
        [[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1], [0, 0, 1.6], [0, -1, 1.2]]
    )
    camera = track.w2c(np.broadcast_to(head, (len(track), *head.shape)))
    projected: Floats = track.intrinsics.project(camera)
    return np.nan_to_num(projected)
