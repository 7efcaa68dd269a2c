"""The square that the tracker cuts, by its own formula, and found again by its content.

Formula: utils/image_utils.py (image_align, after FFHQ's) and its changes; original px from aligned
px u, v in [0, S]: ``(q - x - y + 0.5) + (2x/S) u + (2y/S) v`` (flame-head-tracker spec, 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from converter.errors import ConventionError, RecoveryError
from converter.findings import Finding
from converter.geometry.pixels import Floats
from converter.registry import Progress
from converter.track import Frames, Image
from fitting.similarity import Registration, Similarity, grey_of, register

Release = Literal["before 3.4", "3.4", "3.5 and later"]

_FACTORS: dict[Release, float] = {"before 3.4": 1.2, "3.4": 1.3, "3.5 and later": 1.3}
MIN_CORRELATION = 0.97
_NEARER = 0.7
_N_NEIGHBOUR_CHECKS = 3
_LIKE_FORMULA = 0.05


def square_of(landmarks: Floats, side: int, release: Release) -> Similarity:
    """The square that the tracker cuts round 68 landmarks (68, 2), px of the frame."""
    p = landmarks[:, 0] + 1j * landmarks[:, 1]
    left, right = p[36:42].mean(), p[42:48].mean()
    eye, mouth = (left + right) / 2, (p[48] + p[54]) / 2
    across, down = right - left, mouth - eye
    # (-down.y, down.x) is down times i.
    x = across - 1j * down
    x = x / abs(x) * max(2.0 * abs(across), 1.8 * abs(down)) * _FACTORS[release]
    y = 1j * x
    middle = eye if release != "3.4" else (eye + (p[0] + p[16]) / 2) / 2
    return Similarity(2 * x / side, middle + 0.1 * down - x - y + complex(0.5, 0.5))


def find_squares(
    cuts: Frames, frames: Frames, where: str, progress: Progress
) -> tuple[list[Registration], list[Finding]]:
    """Find every cut in its frame.

    Raises
    ------
    RecoveryError
        If a cut is not in its frame.

    """
    found: list[Registration] = []
    indices = range(len(cuts))
    previous: Similarity | None = None
    for i, frame in enumerate(frames.stream(indices)):
        cut, picture = grey_of(cuts.read(i)), grey_of(frame)
        best = register(cut, picture, previous) if previous is not None else None
        if best is None or best.correlation < MIN_CORRELATION:
            best = register(cut, picture)
        if best is None or best.correlation < MIN_CORRELATION:
            raise RecoveryError(
                f"{where}: {cuts.name(i)}", f"its image inside {frames.name(i)} of {frames.origin}",
                "another picture" if best is None else f"a correlation of {best.correlation:.3f}",
                "Is it the video that was tracked? See --fps, or leave --source out.",
            )  # fmt: skip
        found.append(best)
        previous = best.similarity
        progress("find squares", i + 1, len(cuts))
    worst = max(r.std_px for r in found)
    said = Finding(
        "squares-found", "info", where,
        f"the rotated squares were found in {frames.origin} by their content, within "
        f"{worst:.3f} px (one standard deviation, worst frame).", worst, unit="px",
    )  # fmt: skip
    return found, [said]


def name_formula(
    found: Sequence[Similarity], landmarks: Sequence[Floats], side: int
) -> list[Finding]:
    """Hold the squares that were found against the tracker's own formula.

    The landmarks it cut by are not saved; those of the fit, detected again on the square, are
    within a few px of them. So this names the release, and proves nothing more.

    Parameters
    ----------
    found
        The squares.
    landmarks
        Of the same frames, (68, 2) px of the frame.
    side
        Side of the squares, px.

    """
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
    off = {
        release: float(np.median([
            np.abs(square_of(p, side, release)(corners) - square(corners)).max() / square.scale
            for square, p in zip(found, landmarks, strict=True)
        ]))
        for release in _FACTORS
    }  # fmt: skip
    release = min(off, key=lambda r: off[r])
    if not off[release] <= _LIKE_FORMULA * side:
        return []
    return [
        Finding("squares-formula", "info", "squares", "they lie where the formula of releases "
                f"{release} puts them, within {off[release]:.1f} px (median).", off[release],
                unit="px")
    ]  # fmt: skip


def mismatch(cut: Image, frame: Image) -> float:
    """How badly a cut fits a frame, grey levels; a large number where it is not in it."""
    found = register(grey_of(cut), grey_of(frame))
    return 255.0 if found is None or found.correlation < 0.5 else found.rms_grey


def require_own_frames(
    cuts: Frames,
    registrations: Sequence[Registration],
    read: Callable[[int, int], Image | None],
) -> None:
    """Refuse a numbering under which cuts fit the neighbours of their frames better.

    Parameters
    ----------
    cuts, registrations
        The cuts, and how they fit their own frames.
    read
        ``read(i, step)``: the frame ``step`` after that of cut i; None where there is none.

    Raises
    ------
    ConventionError
        If they do.

    """
    picks = np.linspace(0, len(cuts) - 1, _N_NEIGHBOUR_CHECKS).round().astype(int)
    for i in np.unique(picks).tolist():
        own = registrations[i]
        for step in (-1, 1):
            frame = read(i, step)
            if frame is None:
                continue
            other = register(grey_of(cuts.read(i)), grey_of(frame), own.similarity)
            if other is not None and other.rms_grey < _NEARER * own.rms_grey:
                raise ConventionError(
                    f"{cuts.origin}: {cuts.name(i)}", "the frame that its number says",
                    f"a neighbouring one ({own.rms_grey:.2f} grey levels off, the other "
                    f"{other.rms_grey:.2f})",
                    "Give --fps with the rate at which the tracker sampled the video.",
                )  # fmt: skip
