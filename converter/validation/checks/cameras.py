"""Intrinsics and poses: against the tracker's own camera block, the images, and plausibility."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converter.errors import UncropError
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.sources.metrical_tracker.cameras import (
    K_LIMIT_PX,
    ROTATION_LIMIT,
    TRANSLATION_LIMIT_M,
    brief_K,
    explained_translation,
)
from converter.sources.metrical_tracker.evidence import (
    MIN_SHARE,
)
from converter.validation.checking import check
from converter.validation.evidence import CheckSkipped, Evidence, Outcome, finding, named
from converter.validation.tracked import StoredCameras, Tracked

_BEHIND = "Are these OpenCV axes? OpenGL and pytorch3d cameras look the other way."
_FORM_LIMIT = 1e-6
_MIN_FOV_DEG, _MAX_FOV_DEG = 3.0, 120.0
_PRINCIPAL_LIMIT = 0.1
"""Of the image's side."""


def _marked(cameras: StoredCameras, mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in cameras.ids[mask])


def _of_all(mask: NDArray[np.bool_], ids: NDArray[np.int64]) -> str:
    n = int(mask.sum())
    if n == len(mask):
        return "in its only frame" if n == 1 else f"in all {n} frames"
    return f"in {n} of {len(mask)} frames ({named(ids[mask])})"


# --- K ----------------------------------------------------------------------------------------


def _rewritten(track: Tracked, name: str, fix: str) -> Outcome:
    """K is not the known rewrite ``name`` of the camera block's."""
    cameras = track.cameras
    if not cameras.has_block.any():
        raise CheckSkipped("no frame has a camera block to hold K against")
    mask = cameras.K_cause == name
    if not mask.any() and track.crop is None and (cameras.K_cause == "unknown").any():
        raise CheckSkipped(
            f"K is not the camera block's, and no bbox is known: {track.crop_reason}"
        )
    if not mask.any():
        return Outcome((), int(cameras.has_block.sum()))
    i = int(np.argmax(mask))
    message = (
        f"is {brief_K(cameras.K[i])} where the camera block says {brief_K(cameras.block_K[i])}, "
        f"{_of_all(mask, cameras.ids)}: {cameras.K_text[name]}."
    )
    found = finding("error", "opencv.K", message, float(cameras.K_off[mask].max()), K_LIMIT_PX,
                    "px", fix)  # fmt: skip
    return Outcome((found,), int(cameras.has_block.sum()), _marked(cameras, mask))


_BLOCK = "--fix takes K from the camera block, which is untouched."


def _by_landmarks(track: Tracked, kind: str) -> Outcome | None:
    """In forks without a camera block, landmarks tell which rewrite K went through."""
    meaning = track.fork_meaning
    if meaning is None or kind not in meaning.what:
        return None
    found = finding(
        "error", "opencv.K", f"is {brief_K(track.cameras.K[0])} and puts {meaning.share:.0%} of "
        f"the landmarks on the projected mesh; {meaning.what}, it puts nearly all there.",
        meaning.share, MIN_SHARE, "share", "--fix maps K back into the crop.",
    )  # fmt: skip
    return Outcome((found,), len(track.ids), tuple(int(i) for i in track.ids))


@check("K-naive")
def K_naive(track: Tracked) -> Outcome:
    """The bbox was not added to the principal point without rescaling."""
    if outcome := _by_landmarks(track, "taken off the principal point"):
        return outcome
    return _rewritten(track, "naive", _BLOCK)


@check("K-source")
def K_source(track: Tracked) -> Outcome:
    """K speaks of the crop, not already of the source frame."""
    if track.says_source:
        size = track.stated_size
        found = finding("error", "img_size", f"is {size}, the size of the source frames, while the "
                        f"images are {track.image_size}: the cameras were already rewritten to "
                        "source resolution.", fix="uncrop takes them as they are; "
                        "--fix maps them back into the crop.")  # fmt: skip
        return Outcome((found,), len(track.ids), tuple(int(i) for i in track.ids))
    if outcome := _by_landmarks(track, "read as K of the source"):
        return outcome
    return _rewritten(track, "source", _BLOCK)


@check("K-scaled")
def K_scaled(track: Tracked) -> Outcome:
    """K was not scaled to images of another resolution."""
    return _rewritten(track, "scaled", _BLOCK)


@check("K-swapped")
def K_swapped(track: Tracked) -> Outcome:
    """K was not computed with height and width swapped."""
    return _rewritten(track, "swapped", _BLOCK)


@check("K-transposed")
def K_transposed(track: Tracked) -> Outcome:
    """K has its principal point in the last column."""
    cameras = track.cameras
    mask = _is_transposed(cameras.K)
    if not mask.any():
        return Outcome((), len(mask))
    message = f"is transposed {_of_all(mask, cameras.ids)}: its last row is " + ", ".join(
        f"{v:g}" for v in cameras.K[mask][0][2]
    )
    found = finding("error", "opencv.K", f"{message}.", fix="--fix turns it.")
    return Outcome((found,), len(mask), _marked(cameras, mask))


def _is_transposed(K: Floats) -> NDArray[np.bool_]:
    lower = np.any(np.abs(K[:, 2, :2]) > _FORM_LIMIT, axis=-1)
    mask: NDArray[np.bool_] = np.all(np.abs(K[:, :2, 2]) < _FORM_LIMIT, axis=-1) & lower
    return mask


@check("K-malformed")
def K_malformed(track: Tracked) -> Outcome:
    """K has the form of a pinhole without skew: zeros, a last row (0, 0, 1), fx = fy > 0."""
    cameras = track.cameras
    K = cameras.K
    turned = _is_transposed(K)
    off = np.abs(K[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - [0, 0, 0, 0, 1]).max(axis=1)
    skewed = (off > _FORM_LIMIT) & ~turned
    negative = ~((K[:, 0, 0] > 0) & (K[:, 1, 1] > 0))
    # In source resolution a box of odd extents gives two focal lengths, rightly.
    mapped = np.isin(cameras.K_cause, ("source", "swapped", "scaled"))
    uneven = (K[:, 0, 0] != K[:, 1, 1]) & ~mapped & cameras.has_block
    found = []
    if skewed.any():
        found.append(
            finding("error", "opencv.K", f"has skew, or no last row (0, 0, 1), "
                    f"{_of_all(skewed, cameras.ids)}.", float(off[skewed].max()), _FORM_LIMIT, "",
                    "Use the files as the tracker wrote them.")
        )  # fmt: skip
    if negative.any():
        found.append(
            finding("error", "opencv.K", "has a focal length that is not positive "
                    f"{_of_all(negative, cameras.ids)}.",
                    float(np.min(K[negative][:, [0, 1], [0, 1]])),
                    0.0, "px", "Use the files as the tracker wrote them.")
        )  # fmt: skip
    if uneven.any():
        gap = float(np.abs(K[uneven, 0, 0] - K[uneven, 1, 1]).max())
        found.append(
            finding("warning", "opencv.K", f"has fx != fy {_of_all(uneven, cameras.ids)}; the "
                    "tracker writes both from one number.", gap, 0.0, "px",
                    "A program rewrote K; see the other findings on it.")
        )  # fmt: skip
    return Outcome(tuple(found), len(K), _marked(cameras, skewed | negative | uneven))


@check("K-differs")
def K_differs(track: Tracked) -> Outcome:
    """K equals the camera block's, or is a known rewrite of it."""
    cameras = track.cameras
    if not cameras.has_block.any():
        raise CheckSkipped("no frame has a camera block to hold K against")
    mask = cameras.K_cause == "unknown"
    if not mask.any():
        return Outcome((), int(cameras.has_block.sum()))
    i = int(np.argmax(np.where(mask, cameras.K_off, -1)))
    hint = (
        "" if track.crop is not None else f" No rewrite by a bbox was tried: {track.crop_reason}."
    )
    stored, block = brief_K(cameras.K[i]), brief_K(cameras.block_K[i])
    says = block if stored != block else "the same, but for other entries or further digits"
    found = finding(
        "error", "opencv.K", f"is {stored} where the camera block says {says}, "
        f"{_of_all(mask, cameras.ids)}, and no known rewrite explains it.{hint}",
        float(cameras.K_off[mask].max()), K_LIMIT_PX, "px",
        "Use the files as the tracker wrote them.",
    )  # fmt: skip
    return Outcome((found,), int(cameras.has_block.sum()), _marked(cameras, mask))


# --- img_size ---------------------------------------------------------------------------------


@check("img-size-swapped")
def img_size_swapped(track: Tracked) -> Outcome:
    """img_size is (height, width)."""
    actual, payloads = _stated_and_actual(track)
    swapped = Size(actual.height, actual.width)
    bad = [p for p in payloads if p.img_size == swapped != actual]
    found = [
        finding("error", "img_size", f"is stored as (width, height) = ({actual.width}, "
                f"{actual.height}) in {len(bad)} of {len(payloads)} frames; the tracker stores "
                "(height, width).", len(bad), 0, "frames", "--fix turns it.")
    ] if bad else []  # fmt: skip
    return Outcome(tuple(found), len(payloads), tuple(int(p.path.stem) for p in bad))


@check("img-size-differs")
def img_size_differs(track: Tracked) -> Outcome:
    """img_size is the size of the images, by their headers."""
    actual, payloads = _stated_and_actual(track)
    swapped = Size(actual.height, actual.width)
    bad = [p for p in payloads if p.img_size not in (actual, swapped)]
    sizes = sorted({str(p.img_size) for p in bad})
    found = [
        finding("error", "img_size", f"is {' and '.join(sizes[:3])} in {len(bad)} of "
                f"{len(payloads)} frames, but the images are {actual}: K belongs to images of "
                "another resolution.", len(bad), 0, "frames",
                "Use the images the tracker was run on.")
    ] if bad else []  # fmt: skip
    return Outcome(tuple(found), len(payloads), tuple(int(p.path.stem) for p in bad))


def _stated_and_actual(track: Tracked) -> tuple[Size, list]:  # type: ignore[type-arg]
    if track.image_size is None:
        raise CheckSkipped("there are no images")
    payloads = [p for p in track.payloads if p.img_size is not None]
    if not payloads:
        raise CheckSkipped("no frame has an img_size")
    return track.image_size, payloads


# --- poses ------------------------------------------------------------------------------------


@check("rotation-invalid")
def rotation_invalid(evidence: Evidence) -> Outcome:
    """R is a rotation."""
    pose = evidence.cameras.pose if isinstance(evidence, Tracked) else evidence.track.w2c
    ids = evidence.cameras.ids if isinstance(evidence, Tracked) else evidence.ids
    defects = pose.rotation_defect()
    mask = ~(defects <= ROTATION_LIMIT)
    if not mask.any():
        return Outcome((), len(mask))
    mirrored = np.isinf(defects)
    found = []
    if mirrored.any():
        found.append(
            finding("error", "opencv.R", f"is mirrored (det R <= 0) {_of_all(mirrored, ids)}.",
                    fix="A script flipped an axis. Use the files as the tracker wrote them.")
        )  # fmt: skip
    if (bent := mask & ~mirrored).any():
        found.append(
            finding("error", "opencv.R", f"is no rotation {_of_all(bent, ids)}: |R R^T - I| is too "
                    "large.", float(np.max(defects[bent])), ROTATION_LIMIT, "",
                    "A script rewrote it. Use the files as the tracker wrote them.")
        )  # fmt: skip
    return Outcome(tuple(found), len(mask), tuple(int(i) for i in ids[mask]))


def _with_blocks(track: Tracked) -> StoredCameras:
    cameras = track.cameras
    if not cameras.has_block.any():
        raise CheckSkipped("no frame has a camera block to hold the pose against")
    return cameras


@check("rotation-transposed")
def rotation_transposed(track: Tracked) -> Outcome:
    """R is world to camera, not its transpose."""
    cameras = _with_blocks(track)
    mask = cameras.pose_cause == "R is transposed"
    found = [
        finding("error", "opencv.R", f"R is transposed {_of_all(mask, cameras.ids)}, by the camera "
                "block.", _R_off(cameras, mask), ROTATION_LIMIT, "", "--fix turns it.")
    ] if mask.any() else []  # fmt: skip
    return Outcome(tuple(found), len(mask), _marked(cameras, mask))


def _R_off(cameras: StoredCameras, mask: NDArray[np.bool_]) -> float:
    return float(np.abs(cameras.pose.R[mask] - cameras.block_pose.R[mask]).max())


@check("pose-axes")
def pose_axes(track: Tracked) -> Outcome:
    """The pose is world to camera in OpenCV axes, not in another program's convention."""
    cameras = _with_blocks(track)
    known = ("", "unknown", "no block", "invalid", "R is transposed")
    causes = sorted(set(cameras.pose_cause.tolist()) - set(known))
    found = []
    for cause in causes:
        mask = cameras.pose_cause == cause
        found.append(
            finding("error", "opencv.R, opencv.t", f"{cause} {_of_all(mask, cameras.ids)}, by the "
                    "camera block.", fix="--fix takes the pose from the camera block.")
        )  # fmt: skip
    mask = np.isin(cameras.pose_cause, causes)
    return Outcome(tuple(found), len(mask), _marked(cameras, mask))


@check("pose-differs")
def pose_differs(track: Tracked) -> Outcome:
    """The pose equals the camera block's: R = D M^T, t = D camera.t."""
    cameras = _with_blocks(track)
    strange = (cameras.pose_cause == "invalid") & cameras.has_block
    strange &= ~explained_translation(cameras.pose, cameras.block_pose)
    moved = np.abs(cameras.pose.t - cameras.block_pose.t).max(axis=-1) > TRANSLATION_LIMIT_M
    strange |= (cameras.pose_cause == "R is transposed") & moved
    mask = (cameras.pose_cause == "unknown") | strange
    if not mask.any():
        return Outcome((), int(cameras.has_block.sum()))
    off_R = float(np.abs(cameras.pose.R - cameras.block_pose.R)[mask].max())
    off_t = float(np.abs(cameras.pose.t - cameras.block_pose.t)[mask].max())
    turned = off_R > ROTATION_LIMIT
    measured = (off_R, ROTATION_LIMIT, "") if turned else (off_t, TRANSLATION_LIMIT_M, "m")
    found = finding(
        "error", "camera.R, camera.t", f"describe another camera than opencv.R and opencv.t "
        f"{_of_all(mask, cameras.ids)}: R differs by {off_R:.2g}, t by {off_t:.2g} m.", *measured,
        "One of the two was edited. --fix keeps the one that puts the mesh on the landmarks.",
    )  # fmt: skip
    return Outcome((found,), int(cameras.has_block.sum()), _marked(cameras, mask))


@check("camera-block")
def camera_block(track: Tracked) -> Outcome:
    """Every frame has the tracker's own camera block, and it makes a camera."""
    cameras, payloads = track.cameras, track.usable
    absent = np.array([p.camera is None for p in payloads])
    if absent.all():
        return Outcome(
            (finding("info", "camera", "no frame has the tracker's own camera block, which would "
                     "tell whether K and R were rewritten."),), len(payloads),
        )  # fmt: skip
    unusable = ~cameras.has_block & ~absent
    found = []
    if absent.any():
        found.append(
            finding("warning", "camera", f"is missing {_of_all(absent, cameras.ids)}.",
                    int(absent.sum()), 0, "frames", "Were frames of two writers mixed?")
        )  # fmt: skip
    if unusable.any():
        found.append(
            finding("error", "camera", f"makes no camera {_of_all(unusable, cameras.ids)}: rows "
                    "that span no plane, or a focal length that is not positive.",
                    int(unusable.sum()), 0, "frames", "Use the files as the tracker wrote them.")
        )  # fmt: skip
    return Outcome(tuple(found), len(payloads), _marked(cameras, absent | unusable))


@check("head-behind")
def head_behind(evidence: Evidence) -> Outcome:
    """The head is in front of the camera."""
    pose = evidence.track.w2c
    z = pose.t[:, 2]
    mask = ~(z > 0)
    ids = evidence.ids
    found = [
        finding("error", "opencv.t", f"puts the head behind the camera {_of_all(mask, ids)}.",
                float(z[mask].min()), 0.0, "m", _BEHIND)
    ] if mask.any() else []  # fmt: skip
    return Outcome(tuple(found), len(z), tuple(int(i) for i in ids[mask]))


# --- plausibility -----------------------------------------------------------------------------


def _intrinsics(evidence: Evidence) -> Intrinsics:
    """K in the crop, or where it is."""
    try:
        return evidence.track.in_crop().intrinsics
    except UncropError:
        return evidence.track.intrinsics


@check("fov-range")
def fov_range(evidence: Evidence) -> Outcome:
    """The field of view of the image is that of a camera on a head."""
    k = _intrinsics(evidence)
    side = np.ravel(k.size.height / (2 * np.asarray(k.fy)))
    fov = np.degrees(2 * np.arctan(side))
    bad = ~((fov >= _MIN_FOV_DEG) & (fov <= _MAX_FOV_DEG))
    if not bad.any():
        return Outcome((), len(fov))
    worst = float(fov[bad][0])
    low = worst < _MIN_FOV_DEG
    found = finding(
        "error", "opencv.K", f"means a vertical field of view of {worst:.2f} degrees for the "
        f"{k.size} image, which no camera that filmed a head has; the tracker begins at about 12.",
        worst, _MIN_FOV_DEG if low else _MAX_FOV_DEG, "degrees",
        "Is K in pixels of this image, and not in NDC or of another resolution?",
    )  # fmt: skip
    ids = evidence.ids[bad] if len(bad) == len(evidence.ids) else evidence.ids
    return Outcome((found,), len(fov), tuple(int(i) for i in ids))


@check("principal-off")
def principal_off(evidence: Evidence) -> Outcome:
    """The principal point is near the image's centre; says what each target does with it."""
    k = _intrinsics(evidence)
    width, height = k.size.width, k.size.height
    dx, dy = np.ravel(np.asarray(k.cx) - width / 2), np.ravel(np.asarray(k.cy) - height / 2)
    share = np.maximum(np.abs(dx) / width, np.abs(dy) / height)
    worst = int(np.argmax(np.where(np.isfinite(share), share, np.inf)))
    if share[worst] <= _PRINCIPAL_LIMIT:
        return Outcome((), len(share))
    outside = share[worst] >= 0.5
    found = finding(
        "error" if outside else "warning", "opencv.K", f"has its principal point ({dx[worst]:+.1f},"
        f" {dy[worst]:+.1f}) px from the centre of the {k.size} image"
        + (", outside it" if outside else "") + ". FlashAvatar and GaussianAvatars force it to the "
        "centre: their cameras would be off by that much; INSTA, GaussianBlendshapes and "
        "nerfstudio keep it; uncrop's gaussiantalker target centres the canvas on it.",
        float(share[worst]), _PRINCIPAL_LIMIT, "of the side",
        "Was K rewritten, or cut for another crop? If it is meant, shift or cut the images.",
    )  # fmt: skip
    return Outcome((found,), len(share))
