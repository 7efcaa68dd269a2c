"""Frames without landmarks: filled from their neighbours, or dropped everywhere alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converter.errors import MissingInputError, TargetError
from converter.findings import Finding
from converter.geometry.pixels import Floats
from converter.track import Track


def require_landmarks(track: Track) -> Floats:
    """Return the track's landmarks (N, 68, 2); raises MissingInputError if it has none."""
    if track.landmarks is None:
        raise MissingInputError(
            track.name, "landmarks (kpt/NNNNN.npy in the actor folder)", "none",
            "Give --actor DIR with the folder that holds kpt/; uncrop landmarks makes one.",
        )  # fmt: skip
    return track.landmarks


def settle_landmarks(
    landmarks: Floats, times: Floats, max_gap: int, where: str
) -> tuple[NDArray[np.int64], Floats, list[Finding]]:
    """Return (positions of kept frames (M,), their landmarks (M, 68, 2), findings).

    Gaps of at most ``max_gap`` frames with a neighbour on both sides are interpolated in time;
    frames of other gaps are left out.

    Raises
    ------
    TargetError
        If no frame has landmarks.

    """
    known = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))
    if not known.any():
        raise TargetError(
            where, "68 landmarks in some frame", "none in any",
            "Run the tracker's face detector again (kpt/ holds only zeros).",
        )  # fmt: skip
    filled, keep = landmarks.copy(), known.copy()
    for begin, end in _gaps(known):
        inside = begin > 0 and end < len(known)
        if inside and end - begin <= max_gap:
            keep[begin:end] = True
            span = times[end] - times[begin - 1]
            for index in range(begin, end):
                weight = (times[index] - times[begin - 1]) / span
                filled[index] = (1 - weight) * landmarks[begin - 1] + weight * landmarks[end]
    n_filled, n_dropped = int(np.sum(keep & ~known)), int(np.sum(~keep))
    findings = []
    if n_filled:
        findings.append(_finding("landmarks-filled", where, n_filled, len(known),
                                 "got their landmarks by interpolation"))  # fmt: skip
    if n_dropped:
        findings.append(_finding("frames-dropped", where, n_dropped, len(known),
                                 "have no landmarks and are left out of every file"))  # fmt: skip
    positions = np.flatnonzero(keep)
    return positions, filled[positions], findings


def _gaps(known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open runs of unknown frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], known, [True]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _finding(check: str, where: str, n: int, of: int, what: str) -> Finding:
    return Finding(check, "warning", where, f"{n} of {of} frames {what}.", measured=float(n),
                   unit="frames")  # fmt: skip
