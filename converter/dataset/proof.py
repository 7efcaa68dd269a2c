"""The proof in pictures: written images held against the tracker's crops, and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas
from converter.errors import TargetError
from converter.findings import Finding
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.media.contact_sheet import ProofFrame, contact_sheet
from converter.media.resampling import resample
from converter.track import Image, Meshes, Track

_N_PROOFS = 6
_N_PIXEL_CHECKS = 8
_PIXEL_SHIFT_LIMIT_PX = 0.3


def spread(n_frames: int, n_picks: int) -> NDArray[np.int64]:
    """Numbers of at most ``n_picks`` frames, the first and the last among them."""
    return np.unique(np.linspace(0, n_frames - 1, n_picks).round().astype(np.int64))


def require_aligned(
    track: Track,
    canvas: Canvas,
    positions: NDArray[np.int64],
    landmarks: Floats,
    read: Callable[[int], Image],
) -> str:
    """Hold written images against the tracker's crops of the same frames.

    The tracker's crop is the picture that its cameras were fitted to, so this proves frame
    numbers, bbox and canvas by content.

    Parameters
    ----------
    track, canvas
        What was written.
    positions
        (M,) position in the track of every written image.
    landmarks
        (M, P, 2) edge-origin px of the canvas; says where the face is.
    read
        ``read(number)`` returns a written image.

    Returns
    -------
    A line about it, or "" where there are no crops to compare with.

    Raises
    ------
    TargetError
        If they lie elsewhere.

    """
    if track.crop_frames is None:
        return ""
    shifts = []
    for number in spread(len(positions), _N_PIXEL_CHECKS):
        position = int(positions[number])
        canvas_from_crop = canvas.canvas_from_crop[position]
        written, crop = read(int(number)), track.crop_frames.read(position)
        shift = _shift_between(written, crop, canvas_from_crop, landmarks[number])
        if shift is not None:
            shifts.append(shift)
    if not shifts:
        return ""
    if max(shifts) > _PIXEL_SHIFT_LIMIT_PX:
        raise TargetError(
            track.name,
            "written images that lie on the tracker's crops",
            f"a shift of {max(shifts):.2f} px",
            "bbox.pt, the images and the source frames do not belong together, or the crops "
            "are of two boxes: `uncrop recover-bbox --frames 1000000` looks at all.",
        )
    return f"written pixels lie on the tracker's crops within {max(shifts):.3f} px"


def _shift_between(
    written: Image, crop: Image, canvas_from_crop: PixelAffine, face: Floats
) -> float | None:
    """Shift around the face, crop px (ECC); None where the face is cut off or has no texture."""
    import cv2

    crop_from_canvas = canvas_from_crop.inverse()
    size = Size.of(crop)
    seen = resample(written, crop_from_canvas, size)
    inner = crop_from_canvas([[0, 0], [written.shape[1], written.shape[0]]])
    points = crop_from_canvas(face)
    margin = 0.5 * np.ptp(points, axis=0)
    limits = (size.width, size.height)
    low = np.ceil(np.maximum(points.min(axis=0) - margin, np.maximum(inner[0], 0))).astype(int)
    high = np.floor(np.minimum(points.max(axis=0) + margin, np.minimum(inner[1], limits)))
    if np.any(high - low < 48):
        return None
    part = np.s_[low[1] : int(high[1]), low[0] : int(high[0])]
    a, b = (cv2.cvtColor(x[part], cv2.COLOR_BGR2GRAY) for x in (seen, crop))
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(a, b, start, cv2.MOTION_TRANSLATION)
    except cv2.error:  # it does not converge: too little texture, or another picture
        return None
    return float(np.hypot(warp[0, 2], warp[1, 2]))


def proof_sheet(
    track: Track,
    meshes: Meshes,
    canvas: Canvas,
    positions: NDArray[np.int64],
    landmarks: Floats,
    tile: Callable[[int, Floats], tuple[Image, Floats, str]],
) -> bytes:
    """JPEG of written images under the cameras as the consumer reads them.

    Parameters
    ----------
    track, canvas, positions, landmarks
        As `require_aligned`.
    meshes
        The track's.
    tile
        ``tile(number, vertices)``: the written image, where its camera puts the vertices (V, 3)
        of the frame's mesh, metres, in edge-origin px (V, 2), and what the dataset calls it.

    """
    frames = []
    for number in spread(len(positions), _N_PROOFS):
        position = int(positions[number])
        vertices = meshes.vertices(position).astype(np.float64)
        image, seen, name = tile(int(number), vertices)
        label = f"{name}  frame {int(track.frame_ids[position]):05d}"
        frames.append(ProofFrame(image, seen, landmarks[number], label))
    title = f"{track.name}  {canvas.title}  focal {canvas.focal:.2f} px  mesh cyan, landmarks red"
    return contact_sheet(frames, meshes.faces, title)


def require_clean(
    folder: Path, out: Path, check: Callable[[Path], list[Finding]]
) -> tuple[str, ...]:
    """Check what was written to ``folder`` and will be ``out``; returns lines for the summary.

    Raises
    ------
    TargetError
        If the check finds an error; nothing is left then.

    """
    findings = check(folder)
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        raise TargetError(
            out, "a dataset that passes its own check",
            f"{len(errors)} errors, first: {str(errors[0]).replace(str(folder), str(out))}",
            "Nothing was written. This is a bug in uncrop; please report it with the track.",
        )  # fmt: skip
    return tuple(f.message for f in findings if f.check == "reprojection")
