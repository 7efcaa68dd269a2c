"""From the camera numbers of all frames to poses and one K whose image is known.

Two blocks of every ``.frame`` describe the same camera (pytorch3d's and OpenCV's). Where they
disagree because a script rewrote one of them in a known way, the untouched one is used and the
finding names the script's mistake; where the cause is not known, reading stops.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from converter.errors import ConventionError
from converter.findings import Finding
from converter.geometry.crop import Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import OPENCV_FROM_PYTORCH3D, Pose, matrix_from_rotation_6d
from converter.sources.metrical_tracker.payload import FramePayload
from converter.track import ImageSpace

# Genuine files: K within 1.2e-4 px, R within 7e-6, t exact (metrical-tracker spec, 3.4 and 3.8).
_K_LIMIT_PX = 1e-2
_REWRITTEN_K_LIMIT_PX = 0.05
_ROTATION_LIMIT = 1e-4
_TRANSLATION_LIMIT_M = 1e-5
_CONSTANT_K_RELATIVE = 1e-6


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
    stated = payloads[0].img_size
    if stated is not None and stated != crop_size and stated == source_size:
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
        return Cameras(w2c, _constant(_intrinsics(payloads, stated), findings), "source",
                       tuple(findings))  # fmt: skip
    _check_img_size(stated, crop_size, payloads[0], findings)
    intrinsics = _reconciled(payloads, crop_size, crop, findings)
    return Cameras(w2c, _constant(intrinsics, findings), "crop", tuple(findings))


def _check_img_size(
    stated: Size | None, actual: Size, payload: FramePayload, findings: list[Finding]
) -> None:
    if stated is None or stated == actual:
        return
    if Size(stated.height, stated.width) == actual:
        findings.append(
            Finding(
                "img-size-swapped",
                "warning",
                f"{payload.path.name}: img_size",
                f"is stored as (width, height) = ({actual.width}, {actual.height}); "
                "the tracker stores (height, width).",
                fix="The size of the images is used.",
            )
        )
        return
    raise ConventionError(
        f"{payload.path}: img_size",
        f"{actual}, the size of the tracker's images",
        f"{stated}",
        "K belongs to images of another resolution; use the images the tracker was run on.",
    )


def _intrinsics(payloads: list[FramePayload], size: Size) -> Intrinsics:
    return Intrinsics.from_matrix(np.stack([p.K for p in payloads]), size)


def _constant(intrinsics: Intrinsics, findings: list[Finding]) -> Intrinsics:
    """One K if all frames agree, else one per frame with a warning."""
    k = intrinsics.matrix
    spread = float(np.max(np.abs(k - k[0])))
    if spread <= _CONSTANT_K_RELATIVE * float(intrinsics[0].fx):
        return intrinsics[0]
    findings.append(
        Finding(
            "K-varies",
            "warning",
            "opencv.K",
            "differs between frames; the tracker optimises it once per track.",
            measured=spread,
            limit=_CONSTANT_K_RELATIVE * float(intrinsics[0].fx),
            unit="px",
            fix="Every frame keeps its own K. If two runs were mixed in one folder, separate them.",
        )
    )
    return intrinsics


def _reconciled(
    payloads: list[FramePayload], size: Size, crop: Crop | None, findings: list[Finding]
) -> Intrinsics:
    """K of the crop: opencv.K where it agrees with the camera block, else the camera block."""
    stored = np.stack([p.K for p in payloads])
    blocks = [p.camera for p in payloads if p.camera is not None]
    if len(blocks) != len(payloads):
        return Intrinsics.from_matrix(stored, size)
    tracked = Intrinsics.from_ndc(
        np.array([b.fl for b in blocks]), np.stack([b.pp for b in blocks]), size
    )
    difference = float(np.max(np.abs(stored - tracked.matrix)))
    if difference <= _K_LIMIT_PX:
        return Intrinsics.from_matrix(stored, size)
    cause = _explain(stored, tracked, crop)
    if not cause:
        raise ConventionError(
            f"{payloads[0].path}: opencv.K",
            f"the camera block's K, {_brief(tracked.matrix[0])}, within {_K_LIMIT_PX} px",
            f"{_brief(stored[0])}",
            "One of the two was rewritten in a way that is not known; "
            "use the files as the tracker wrote them.",
        )
    findings.append(
        Finding(
            "K-rewritten",
            "warning",
            "opencv.K",
            f"is {_brief(stored[0])} where the camera block says {_brief(tracked.matrix[0])}: "
            f"{cause}.",
            measured=difference,
            limit=_K_LIMIT_PX,
            unit="px",
            fix="The camera block is used.",
        )
    )
    return tracked


def _explain(stored: Floats, tracked: Intrinsics, crop: Crop | None) -> str:
    """Name the known rewrite that turns the tracked K into the stored one, or return ''."""

    def same(candidate: Floats) -> bool:
        return bool(np.max(np.abs(stored - candidate)) <= _REWRITTEN_K_LIMIT_PX)

    if same(np.swapaxes(tracked.matrix, -1, -2)):
        return "K is transposed"
    if crop is not None:
        source = crop.source or crop.padded_size
        if same(tracked.map(crop.source_from_crop, source).matrix):
            return f"K was already rewritten to source resolution with bbox {crop.bbox}"
        naive = tracked.matrix.copy()
        naive[..., 0, 2] += crop.bbox.x_min
        naive[..., 1, 2] += crop.bbox.y_min
        if same(naive):
            return (
                f"bbox {crop.bbox} was added to the principal point without rescaling "
                "(a formula in circulation that is wrong)"
            )
    swapped = Intrinsics.from_matrix(tracked.matrix, Size(tracked.size.height, tracked.size.width))
    focal, centre = tracked.to_ndc()
    if same(Intrinsics.from_ndc(focal, centre, swapped.size).matrix):
        return "K was computed with height and width swapped"
    scale = float(np.median(stored[..., 0, 0] / tracked.matrix[..., 0, 0]))
    if same(tracked.matrix * np.array([[scale], [scale], [1.0]])):
        return f"K was scaled by {scale:.6g}, to images of another resolution"
    return ""


def _brief(K: Floats) -> str:
    return f"f ({K[0, 0]:.2f}, {K[1, 1]:.2f}) c ({K[0, 2]:.2f}, {K[1, 2]:.2f})"


def _poses(payloads: list[FramePayload], findings: list[Finding]) -> Pose:
    w2c = Pose(np.stack([p.R for p in payloads]), np.stack([p.t for p in payloads]))
    blocks = [p.camera for p in payloads if p.camera is not None]
    if len(blocks) == len(payloads):
        w2c = _reconciled_pose(w2c, payloads, findings)
    for index, defect in enumerate(w2c.rotation_defect()):
        if defect > 1e-3:
            Pose(w2c.R[index], w2c.t[index]).require_rotation(f"{payloads[index].path}: opencv.R")
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
    blocks = [p.camera for p in payloads if p.camera is not None]
    d = OPENCV_FROM_PYTORCH3D
    matrices = matrix_from_rotation_6d(np.stack([b.R6 for b in blocks]))
    tracked = Pose(d @ np.swapaxes(matrices, -1, -2), np.stack([b.t for b in blocks]) @ d)
    off_R = np.abs(stored.R - tracked.R).max(axis=(-1, -2))
    off_t = np.abs(stored.t - tracked.t).max(axis=-1)
    worst = int(np.argmax(off_R))
    if off_R[worst] > _ROTATION_LIMIT:
        transposed = np.abs(np.swapaxes(stored.R, -1, -2) - tracked.R).max(axis=(-1, -2))
        if np.all(np.minimum(transposed, off_R) <= _ROTATION_LIMIT):
            n = int(np.sum(off_R > _ROTATION_LIMIT))
            findings.append(
                Finding(
                    "R-transposed",
                    "warning",
                    "opencv.R",
                    f"is transposed against the camera block in {n} of {len(payloads)} frames.",
                    fix="The camera block is used.",
                )
            )
            return Pose(tracked.R, stored.t)
        raise ConventionError(
            f"{payloads[worst].path}: opencv.R",
            f"the camera block's rotation within {_ROTATION_LIMIT:g}",
            f"a difference of {off_R[worst]:.2g}",
            "The two blocks of this file describe different cameras; "
            "use the files as the tracker wrote them.",
        )
    worst = int(np.argmax(off_t))
    if off_t[worst] > _TRANSLATION_LIMIT_M:
        raise ConventionError(
            f"{payloads[worst].path}: opencv.t",
            f"the camera block's translation within {_TRANSLATION_LIMIT_M:g} m",
            f"a difference of {off_t[worst]:.2g} m",
            "The two blocks of this file describe different cameras; "
            "use the files as the tracker wrote them.",
        )
    return stored


def leftover_frames(payloads: list[FramePayload]) -> list[int]:
    """Positions of frames that initialisation left behind and tracking never overwrote.

    Initialisation writes checkpoint/00000... for its **keyframes**, with fewer optimiser steps
    than any tracked frame can have; tracked frames then follow ``init + d (id + 1)``
    (metrical-tracker, tracker.py:703; spec section 1, global_step).
    """
    steps = [p.global_step for p in payloads]
    ids = [int(p.path.stem) for p in payloads]
    if len(steps) < 4 or any(s is None for s in steps):
        return []
    known = [s for s in steps if s is not None]
    per_frame = [
        (b - a) / (j - i) for a, b, i, j in zip(known, known[1:], ids, ids[1:], strict=False)
    ]
    usual, n_usual = Counter(per_frame).most_common(1)[0]
    if usual <= 0 or n_usual < len(per_frame) / 2:
        return []
    first = per_frame.index(usual)
    initialised = known[first] - usual * (ids[first] + 1)
    return [i for i in range(first) if known[i] <= initialised]
