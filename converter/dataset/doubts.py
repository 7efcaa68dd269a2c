"""What will train badly on a canvas although every camera is right."""

from __future__ import annotations

import numpy as np

from converter.dataset.canvas import Canvas, shares
from converter.findings import Finding
from converter.geometry.pixels import Floats

_NOTICEABLE = 0.005
_SMALL_FACE = 0.25


def canvas_doubts(canvas: Canvas) -> list[Finding]:
    """Say how much of the canvas is repeated border, and how much of the image is cut off."""
    image = canvas.track.intrinsics.size
    invented, lost = shares(canvas.window, image)
    findings = []
    fix = "Leave --size out for the largest canvas without any, or give a smaller one."
    if canvas.kind == "crop":  # as wide as the tracker's at any size
        fix = "From source frames these pixels are real." if canvas.base == "crop" else ""
    if canvas.kind != "padded" and invented > _NOTICEABLE:
        findings.append(
            Finding(
                "canvas-invented",
                "warning",
                f"canvas {canvas.title}",
                f"{invented:.0%} of it lies outside the {image} image and repeats border pixels.",
                measured=invented,
                fix=fix,
            )
        )
    if canvas.kind == "padded" and lost > _NOTICEABLE:
        findings.append(
            Finding(
                "canvas-cut",
                "warning",
                f"canvas padded {canvas.size}",
                f"{lost:.0%} of the {image} image does not fit and is cut off.",
                measured=lost,
                fix="Leave --size out to keep the whole frame, or give a --scale below 1.",
            )
        )
    return findings


def face_doubts(canvas: Canvas, landmarks: Floats) -> list[Finding]:
    """Say in how many frames the face leaves the canvas, and whether it is small.

    Parameters
    ----------
    canvas
        The canvas.
    landmarks
        (M, P, 2) edge-origin px of the canvas.

    """
    findings, size = [], canvas.size
    x, y = landmarks[..., 0], landmarks[..., 1]
    beyond = (x < 0) | (y < 0) | (x > size.width) | (y > size.height)
    outside = float(np.mean(beyond.any(axis=1)))
    if outside > 0:
        findings.append(
            Finding(
                "face-outside",
                "warning",
                f"canvas {canvas.title}",
                f"the face leaves the canvas in {outside:.0%} of the frames.",
                fix="Use --canvas padded, or a larger --size.",
            )
        )
    height = float(np.median(np.ptp(y, axis=1))) / size.height
    if height < _SMALL_FACE:
        findings.append(
            Finding(
                "face-small",
                "info",
                f"canvas {canvas.title}",
                f"the face fills {height:.0%} of its height.",
                fix="--canvas crop --size N draws the tracker's narrower view instead.",
            )
        )
    return findings
