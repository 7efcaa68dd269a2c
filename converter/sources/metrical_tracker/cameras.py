"""From the camera numbers of all frames to poses and one K whose image is known.

Two blocks of every ``.frame`` describe the same camera (pytorch3d's and OpenCV's). Where they
disagree because a script rewrote one of them in a known way, the untouched one is used and the
finding names the script's mistake; where the cause is not known, reading stops.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConventionError
from converter.findings import Finding
from converter.geometry.crop import Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.geometry.pose import (
    OPENCV_FROM_OPENGL,
    OPENCV_FROM_PYTORCH3D,
    Pose,
    matrix_from_rotation_6d,
)
from converter.sources.metrical_tracker.payload import FramePayload, stacked
from converter.track import ImageSpace

# Genuine files: K within 1.2e-4 px, R within 7e-6, t exact (metrical-tracker spec, 3.4 and 3.8).
K_LIMIT_PX = 1e-2
REWRITTEN_K_LIMIT_PX = 0.05
ROTATION_LIMIT = 1e-4
TRANSLATION_LIMIT_M = 1e-5
REWRITTEN_TRANSLATION_LIMIT_M = 1e-4
_CONSTANT_K_RELATIVE = 1e-6
_MAX_KEYFRAMES = 64
_WHOLE = 5e-3
_SCALED = 1e-4
_AS_WRITTEN = "Use the files as the tracker wrote them."


@dataclass(frozen=True, slots=True)
class Cameras:
    """Poses and intrinsics of all frames, and what had to be said about them."""

    w2c: Pose
    intrinsics: Intrinsics
    image_space: ImageSpace
    findings: tuple[Finding, ...]


def read_cameras(
    payloads: list[FramePayload], crop_size: Size, source_size: Size | None, crop: Crop | None
) -> Cameras:
    """Poses and intrinsics from all frames.

    Parameters
    ----------
    payloads
        All frames, in order.
    crop_size
        Actual size of the tracker's images.
    source_size
        Size of the source frames; None if unknown.
    crop
        How the images were cut; None if unknown.

    Raises
    ------
    ConventionError
        If the blocks disagree in a way that has no single explanation.

    """
    findings: list[Finding] = []
    w2c = _poses(payloads, findings)
    intrinsics, space = _intrinsics(payloads, crop_size, source_size, crop, findings)
    return Cameras(w2c, _constant(intrinsics, findings), space, tuple(findings))


def stated_size(payload: FramePayload) -> Size | None:
    """Size of the tracker's images by a ``.frame`` alone: the order of img_size that K confirms."""
    size = payload.img_size
    if size is None or payload.camera is None:
        return size
    swapped = Size(size.height, size.width)
    off, off_swapped = (_off(payload, candidate) for candidate in (size, swapped))
    return swapped if off_swapped <= K_LIMIT_PX < off else size


def _off(payload: FramePayload, size: Size) -> float:
    """How far opencv.K is from the camera block's K of an image of ``size``, px."""
    if payload.camera is None:
        return np.inf
    tracked = Intrinsics.from_ndc(payload.camera.fl, payload.camera.pp, size)
    return float(np.max(np.abs(payload.K - tracked.matrix)))


# --- K ----------------------------------------------------------------------------------------


def _intrinsics(
    payloads: list[FramePayload],
    crop_size: Size,
    source_size: Size | None,
    crop: Crop | None,
    findings: list[Finding],
) -> tuple[Intrinsics, ImageSpace]:
    """K, one per frame, and the image it speaks of."""
    stated = _one_img_size(payloads)
    in_source = stated is not None and stated != crop_size and stated == source_size
    tracked = tracked_intrinsics(payloads, crop_size)
    if in_source and (tracked is None or crop is None):
        findings.append(
            Finding(
                "K-space",
                "warning",
                "img_size",
                f"is {stated}, the size of the source frames, while the images are {crop_size}: "
                "the cameras were already rewritten to source resolution.",
                fix="They are taken as they are, in source resolution.",
            )
        )
        return _from_matrices(payloads, source_size or crop_size, findings), "source"
    confirmed = tracked is not None and _difference(payloads, tracked).max() <= K_LIMIT_PX
    _check_img_size(stated, crop_size, payloads[0], confirmed or in_source, findings)
    if tracked is None:
        return _from_matrices(payloads, crop_size, findings), "crop"
    return _reconciled(payloads, tracked, crop, findings), "crop"


def _one_img_size(payloads: list[FramePayload]) -> Size | None:
    stating = [p for p in payloads if p.img_size is not None]
    other = next((p for p in stating if p.img_size != stating[0].img_size), None)
    if other is not None:
        raise ConventionError(
            f"{other.path}: img_size",
            f"{stating[0].img_size}, as in {stating[0].path.name}",
            f"{other.img_size}",
            "Frames of two different runs are in this folder; separate them.",
        )
    return stating[0].img_size if stating else None


def _check_img_size(
    stated: Size | None,
    actual: Size,
    payload: FramePayload,
    confirmed: bool,
    findings: list[Finding],
) -> None:
    """Hold img_size against the images; ``confirmed``: K is known to be that of the images."""
    if stated is None or stated == actual:
        return
    swapped = Size(stated.height, stated.width) == actual
    if not swapped and not confirmed:
        raise ConventionError(
            f"{payload.path}: img_size",
            f"{actual}, the size of the tracker's images",
            f"{stated}",
            "K belongs to images of another resolution; use the images the tracker was run on.",
        )
    message = (
        f"is stored as (width, height) = ({actual.width}, {actual.height}); "
        "the tracker stores (height, width)."
        if swapped
        else f"is {stated}, but the images are {actual}."
    )
    findings.append(
        Finding(
            "img-size-swapped" if swapped else "img-size-wrong",
            "warning",
            f"{payload.path.name}: img_size",
            message,
            fix="The size of the images is used.",
        )
    )


def tracked_intrinsics(payloads: list[FramePayload], size: Size) -> Intrinsics | None:
    """K by the camera blocks, one per frame; None if a frame has none."""
    blocks = [p.camera for p in payloads if p.camera is not None]
    if len(blocks) != len(payloads):
        return None
    return Intrinsics.from_ndc(
        np.array([b.fl for b in blocks]), stacked([b.pp for b in blocks]), size
    )


def _difference(payloads: list[FramePayload], tracked: Intrinsics) -> Floats:
    """Largest difference of opencv.K and the camera block's, px; shape (N,)."""
    stored = np.stack([p.K for p in payloads])
    difference: Floats = np.abs(stored - tracked.matrix).max(axis=(-1, -2))
    return difference


def _from_matrices(payloads: list[FramePayload], size: Size, findings: list[Finding]) -> Intrinsics:
    """opencv.K of all frames, with nothing to hold it against; a transposed one is turned."""
    k = np.stack([p.K for p in payloads])
    if np.all(np.abs(k[:, :2, 2]) < 1e-6) and np.all(np.any(k[:, 2, :2] != 0, axis=-1)):
        findings.append(
            Finding("K-transposed", "warning", "opencv.K", "is transposed.",
                    fix="It is turned; nothing else can be meant.")
        )  # fmt: skip
        k = np.swapaxes(k, -1, -2)
    try:
        return Intrinsics.from_matrix(k, size)
    except ConventionError:
        for payload, matrix in zip(payloads, k, strict=True):
            try:
                Intrinsics.from_matrix(matrix, size)
            except ConventionError as error:
                where = f"{payload.path}: opencv.K"
                raise ConventionError(where, error.expected, error.found, _AS_WRITTEN) from None
        raise


def _constant(intrinsics: Intrinsics, findings: list[Finding]) -> Intrinsics:
    """One K if all frames agree, else one per frame with a warning."""
    k = intrinsics.matrix
    spread = float(np.max(np.abs(k - k[0])))
    limit = _CONSTANT_K_RELATIVE * float(intrinsics[0].fx)
    if spread <= limit:
        return intrinsics[0]
    findings.append(
        Finding(
            "K-varies",
            "warning",
            "opencv.K",
            "differs between frames; the tracker optimises it once per track.",
            measured=spread,
            limit=limit,
            unit="px",
            fix="Every frame keeps its own K. If two runs were mixed in one folder, separate them.",
        )
    )
    return intrinsics


def _reconciled(
    payloads: list[FramePayload], tracked: Intrinsics, crop: Crop | None, findings: list[Finding]
) -> Intrinsics:
    """K of the crop: opencv.K where it agrees with the camera block, else the camera block."""
    if np.any(tracked.fx <= 0):
        worst = int(np.argmin(tracked.fx))
        raise ConventionError(
            f"{payloads[worst].path}: camera.fl", "a focal length > 0",
            f"{tracked.fx[worst]:g} px", _AS_WRITTEN,
        )  # fmt: skip
    stored = np.stack([p.K for p in payloads])
    difference = _difference(payloads, tracked)
    off = np.flatnonzero(difference > K_LIMIT_PX)
    if not len(off):
        return Intrinsics.from_matrix(stored, tracked.size)
    first = int(off[0])
    cause = _explain(stored[off], tracked[off], crop)
    if not cause:
        hint = "" if crop is not None else " Give --bbox if K was rewritten with a bbox.pt."
        raise ConventionError(
            f"{payloads[first].path}: opencv.K",
            f"the camera block's K, {brief_K(tracked.matrix[first])}, within {K_LIMIT_PX} px",
            f"{brief_K(stored[first])}",
            "One of the two was rewritten in a way that is not known; "
            f"use the files as the tracker wrote them.{hint}",
        )
    some = "" if len(off) == len(payloads) else f" in {len(off)} of {len(payloads)} frames"
    findings.append(
        Finding(
            "K-rewritten",
            "warning",
            "opencv.K",
            f"is {brief_K(stored[first])} where the camera block says "
            f"{brief_K(tracked.matrix[first])}{some}: {cause}.",
            measured=float(difference.max()),
            limit=K_LIMIT_PX,
            unit="px",
            fix="The camera block is used.",
        )
    )
    return tracked


@dataclass(frozen=True, slots=True)
class KRewrite:
    """One way in which scripts rewrite K.

    Attributes
    ----------
    name
        ``transposed``, ``source``, ``naive``, ``swapped`` or ``scaled``.
    cause
        What happened, as a clause.
    K
        (N, 3, 3) what it makes of the tracker's K.

    """

    name: str
    cause: str
    K: Floats

    def explains(self, stored: Floats) -> NDArray[np.bool_]:
        """Whether each of ``stored`` (N, 3, 3) is what this rewrite gives; shape (N,)."""
        with np.errstate(invalid="ignore"):
            off = np.abs(stored - self.K).max(axis=(-1, -2))
            same: NDArray[np.bool_] = off <= REWRITTEN_K_LIMIT_PX
        return same


def K_rewrites(stored: Floats, tracked: Intrinsics, crop: Crop | None) -> list[KRewrite]:
    """Known rewrites of the tracked K, the likeliest first.

    Parameters
    ----------
    stored
        (N, 3, 3) opencv.K, from which the factor of a scaled K is taken.
    tracked
        K by the camera blocks, one per frame.
    crop
        How the images were cut; None if unknown.

    """
    found = [KRewrite("transposed", "K is transposed", np.swapaxes(tracked.matrix, -1, -2))]
    if crop is not None:
        source = crop.source or crop.padded_size
        naive = tracked.matrix.copy()
        naive[..., 0, 2] += crop.bbox.x_min
        naive[..., 1, 2] += crop.bbox.y_min
        found += [
            KRewrite(
                "source",
                f"K was already rewritten to source resolution with bbox {crop.bbox}",
                tracked.map(crop.source_from_crop, source).matrix,
            ),
            KRewrite(
                "naive",
                f"bbox {crop.bbox} was added to the principal point without rescaling "
                "(a formula in circulation that is wrong)",
                naive,
            ),
        ]
    focal, centre = tracked.to_ndc()
    swapped = Size(tracked.size.height, tracked.size.width)
    found.append(
        KRewrite(
            "swapped",
            "K was computed with height and width swapped",
            Intrinsics.from_ndc(focal, centre, swapped).matrix,
        )
    )
    scale = float(np.median(stored[..., 0, 0] / tracked.matrix[..., 0, 0]))
    found.append(
        KRewrite(
            "scaled",
            f"K was scaled by {scale:.6g}, to images of another resolution",
            tracked.matrix * np.array([[scale], [scale], [1.0]]),
        )
    )
    least = 2 * REWRITTEN_K_LIMIT_PX  # of a smaller change no rewrite can be told
    return [r for r in found if np.max(np.abs(r.K - tracked.matrix)) > least]


def boxed_rewrites(stored: Floats, tracked: Intrinsics) -> list[KRewrite]:
    """Rewrites by a box that nobody has any more, read off the first K that has the form.

    A box has whole numbers: the naive formula moves the principal point by two of them, and the
    right one gives a side and a corner that are whole.

    Parameters
    ----------
    stored
        (N, 3, 3) opencv.K.
    tracked
        K by the camera blocks, one per frame.

    """
    found = []
    block, size = tracked.matrix, tracked.size
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = stored[:, :2, 2] - block[:, :2, 2]
        scale = block[:, 0, 0] / stored[:, 0, 0]
        corner = stored[:, :2, 2] - block[:, :2, 2] / scale[:, None]
        side = size.width / scale
        # K is float32: a side of 1,000 px is known within 1e-4 px.
        naive = _whole(moved).all(axis=1) & (np.abs(scale - 1) < 1e-6)
        mapped = _whole(corner).all(axis=1) & _whole(side) & (np.abs(scale - 1) > _SCALED)
        mapped &= size.width == size.height
    for i in np.flatnonzero(naive)[:1]:
        x, y = (int(v) for v in np.rint(moved[i]))
        K = block.copy()
        K[:, :2, 2] += [x, y]
        found.append(
            KRewrite("naive", f"({x}, {y}), the corner of a bbox that is not in bbox.pt, was added "
                     "to the principal point without rescaling (a formula in circulation that is "
                     "wrong)", K)
        )  # fmt: skip
    for i in np.flatnonzero(mapped & np.any(np.abs(corner) > 0.5, axis=1))[:1]:
        x, y, width = (int(v) for v in np.rint([*corner[i], side[i]]))
        crop = PixelAffine(size.width / width, size.height / width, 0.0, 0.0)
        source_from_crop = PixelAffine(1.0, 1.0, x, y) @ crop.inverse()
        box = f"[{x}, {x + width}, {y}, {y + width}]"
        found.append(
            KRewrite("source", f"K was already rewritten to source resolution with a box {box}, "
                     "padding included, that is not that of bbox.pt",
                     tracked.map(source_from_crop, size).matrix)
        )  # fmt: skip
    return found


def _whole(values: Floats) -> NDArray[np.bool_]:
    whole: NDArray[np.bool_] = np.abs(values - np.rint(values)) <= _WHOLE
    return whole


def _explain(stored: Floats, tracked: Intrinsics, crop: Crop | None) -> str:
    """Name the known rewrite that turns the tracked K into the stored one, or return ''."""
    rewrites = K_rewrites(stored, tracked, crop)
    return next((r.cause for r in rewrites if r.explains(stored).all()), "")


def brief_K(K: Floats) -> str:
    """One K on one line."""
    return f"f ({K[0, 0]:.2f}, {K[1, 1]:.2f}) c ({K[0, 2]:.2f}, {K[1, 2]:.2f})"


# --- R and t ----------------------------------------------------------------------------------


def _poses(payloads: list[FramePayload], findings: list[Finding]) -> Pose:
    w2c = Pose(np.stack([p.R for p in payloads]), np.stack([p.t for p in payloads]))
    blocks = [p.camera for p in payloads if p.camera is not None]
    if len(blocks) == len(payloads):
        w2c = _reconciled_pose(w2c, payloads, findings)
    defects = w2c.rotation_defect()
    worst = int(np.argmax(defects))
    if not defects[worst] <= ROTATION_LIMIT:
        mirrored = np.isinf(defects[worst])
        raise ConventionError(
            f"{payloads[worst].path}: opencv.R",
            f"a rotation within {ROTATION_LIMIT:g}",
            "mirrored axes (det R <= 0)" if mirrored else f"|R R^T - I| = {defects[worst]:.2g}",
            f"A script rewrote it. {_AS_WRITTEN}",
        )
    behind = np.flatnonzero(w2c.t[:, 2] <= 0)
    if len(behind):
        raise ConventionError(
            f"{payloads[behind[0]].path}: opencv.t",
            "z > 0, the head in front of the camera",
            f"z = {w2c.t[behind[0], 2]:.3f} m",
            "Are these OpenCV axes? OpenGL and pytorch3d cameras look the other way.",
        )
    return w2c


def _reconciled_pose(stored: Pose, payloads: list[FramePayload], findings: list[Finding]) -> Pose:
    """OpenCV poses, checked against the camera block: R = D M^T, t = D camera.t."""
    tracked = tracked_pose(payloads)
    flat = np.flatnonzero(~np.isfinite(tracked.R).all(axis=(-1, -2)))
    if len(flat):
        raise ConventionError(
            f"{payloads[flat[0]].path}: camera.R",
            "two rows of a rotation",
            "rows that span no plane",
            _AS_WRITTEN,
        )
    same = same_pose(stored, tracked, TRANSLATION_LIMIT_M)
    explained = same.copy()
    for cause, written in known_poses(tracked):
        meant = same_pose(stored, written, REWRITTEN_TRANSLATION_LIMIT_M) & ~explained
        if np.any(meant):
            findings.append(
                Finding(
                    "pose-rewritten",
                    "warning",
                    "opencv.R, opencv.t",
                    f"{cause} in {int(meant.sum())} of {len(payloads)} frames, by the camera "
                    "block.",
                    fix="The camera block is used there.",
                )
            )
        explained |= meant
    if not explained.all():
        raise _pose_conflict(stored, tracked, payloads, int(np.argmin(explained)))
    return Pose(
        np.where(same[:, None, None], stored.R, tracked.R), np.where(same[:, None], stored.t,
        tracked.t))  # fmt: skip


def tracked_pose(payloads: list[FramePayload]) -> Pose:
    """OpenCV poses by the camera blocks, which all frames must have; NaN where one is unusable."""
    blocks = [p.camera for p in payloads if p.camera is not None]
    matrices = matrix_from_rotation_6d(stacked([b.R6 for b in blocks]))
    d = OPENCV_FROM_PYTORCH3D
    return Pose(d @ np.swapaxes(matrices, -1, -2), stacked([b.t for b in blocks]) @ d)


def same_pose(a: Pose, b: Pose, translation_limit_m: float) -> NDArray[np.bool_]:
    """Whether poses agree within the limits; shape (N,)."""
    off_R = np.abs(a.R - b.R).max(axis=(-1, -2))
    off_t = np.abs(a.t - b.t).max(axis=-1)
    result: NDArray[np.bool_] = (off_R <= ROTATION_LIMIT) & (off_t <= translation_limit_m)
    return result


def known_poses(tracked: Pose) -> list[tuple[str, Pose]]:
    """What scripts are known to write in place of the OpenCV world-to-camera pose."""
    opengl = tracked.change_axes(OPENCV_FROM_OPENGL)
    pytorch3d = tracked.change_axes(OPENCV_FROM_PYTORCH3D)
    return [
        ("R is transposed", Pose(np.swapaxes(tracked.R, -1, -2), tracked.t)),
        ("the pose is camera-to-world", tracked.inverse()),
        ("the pose has OpenGL axes", opengl),
        ("the pose is camera-to-world with OpenGL axes", opengl.inverse()),
        ("the pose has pytorch3d axes", pytorch3d),
        (
            "the pose is pytorch3d's, of row vectors",
            Pose(np.swapaxes(pytorch3d.R, -1, -2), pytorch3d.t),
        ),
    ]


def explained_translation(stored: Pose, tracked: Pose) -> NDArray[np.bool_]:
    """Whether each stored translation is the tracked one, or what a known script makes of it."""
    written = [tracked, *(pose for _, pose in known_poses(tracked))]
    off = np.min([np.abs(stored.t - pose.t).max(axis=-1) for pose in written], axis=0)
    explained: NDArray[np.bool_] = off <= REWRITTEN_TRANSLATION_LIMIT_M
    return explained


def _pose_conflict(
    stored: Pose, tracked: Pose, payloads: list[FramePayload], index: int
) -> ConventionError:
    off_R = float(np.abs(stored.R[index] - tracked.R[index]).max())
    off_t = float(np.abs(stored.t[index] - tracked.t[index]).max())
    expected = f"the camera block's rotation within {ROTATION_LIMIT:g}"
    found, block = f"a difference of {off_R:.2g}", "R"
    if off_R <= ROTATION_LIMIT:
        expected = f"the camera block's translation within {TRANSLATION_LIMIT_M:g} m"
        found, block = f"a difference of {off_t:.2g} m", "t"
    return ConventionError(
        f"{payloads[index].path}: opencv.{block}",
        expected,
        found,
        f"The two blocks of this file describe different cameras. {_AS_WRITTEN}",
    )


# --- frames that are no tracked frames --------------------------------------------------------


def leftover_frames(payloads: list[FramePayload]) -> list[int]:
    """Positions of frames that initialisation left behind and tracking never overwrote.

    Initialisation fits its keyframes one after the other, `p` optimiser steps each, and writes
    the n-th fit to checkpoint/0000n with global_step ``p (n + 1)``. If it was interrupted, the
    next run goes on from the last file: that frame has ``p (n + 1) + d``, the following ones d
    more each (metrical-tracker, tracker.py:703; spec section 1, global_step). A tracked frame
    never has a step of the first kind: it starts after all keyframes, the first fitted twice.
    """
    steps = [p.global_step for p in payloads]
    ids = [int(p.path.stem) for p in payloads]
    known = [s for s in steps if s is not None]
    if len(known) != len(steps) or len(known) < 2:
        return []
    step = _usual_step(known, ids)
    if step <= 0:
        return []
    for j in range(1, min(len(known), _MAX_KEYFRAMES)):
        per_pass, rest = divmod(known[j] - step, ids[j] + 1)
        early = [i for i in range(j) if known[i] == per_pass * (ids[i] + 1)]
        if rest == 0 and per_pass > 0 and early:
            return early
    return []


def _usual_step(known: list[int], ids: list[int]) -> int:
    """The most common number of steps from frame to frame; the smallest if several are."""
    gaps = zip(known, known[1:], ids, ids[1:], strict=False)
    per_frame = Counter((b - a) // (j - i) for a, b, i, j in gaps if b > a and j > i)
    return min(per_frame, key=lambda step: (-per_frame[step], step)) if per_frame else 0
