"""Numbers that are not finite, and numbers that must be the same in every frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from converter.findings import Finding, Severity, counted
from converter.geometry.pixels import Floats
from converter.sources.metrical_tracker.payload import FramePayload
from converter.validation.checking import check
from converter.validation.evidence import CheckSkipped, Evidence, Outcome, finding, named
from converter.validation.tracked import Tracked

_ROUNDING = 1e-6
"""Relative: converted tracks and forks differ by rounding (metrical-tracker spec, 3.9)."""
_BLOCKS = ("exp", "shape", "tex", "sh", "eyes", "eyelids", "jaw")


@check("numbers-nonfinite")
def numbers_nonfinite(track: Tracked) -> Outcome:
    """Every number of every block is finite."""
    bad = [f for f in track.frames if f.unusable is not None]
    if not track.payloads:
        raise CheckSkipped("no .frame is readable")
    found = []
    if bad:
        name, wrong = bad[0].unusable or ("", "")
        found.append(
            finding("error", bad[0].path, f"{name} holds {wrong}; {len(bad)} of "
                    f"{len(track.frames)} frames are like that ({named([f.number for f in bad])}).",
                    len(bad), 0, "frames", "The tracker never writes these: copy or track the "
                    "frames again; --skip-damaged leaves them out.")
        )  # fmt: skip
    return Outcome(tuple(found), len(track.payloads), tuple(f.number for f in bad))


def _differing(stacked: Floats) -> tuple[NDArray[np.int64], float]:
    """Positions that differ from the most common value, and by how much, relative."""
    if (stacked == stacked[0]).all():  # sorting would be slow
        return np.zeros(0, np.int64), 0.0
    _, inverse, counts = np.unique(stacked, axis=0, return_inverse=True, return_counts=True)
    usual = int(np.argmax(counts))
    positions = np.flatnonzero(np.ravel(inverse) != usual)
    reference = stacked[np.flatnonzero(np.ravel(inverse) == usual)[0]]
    scale = float(np.abs(reference).max(initial=0.0)) or 1.0
    return positions, float(np.abs(stacked - reference).max(initial=0.0)) / scale


def _constant(
    track: Tracked, get: Callable[[FramePayload], Floats | None], severity: Severity, name: str,
    meaning: str,
) -> tuple[Finding | None, list[int], int]:  # fmt: skip
    ids_values = zip(track.usable_ids, track.usable, strict=True)
    have = [(i, v) for i, p in ids_values if (v := get(p)) is not None]
    have = [(i, v) for i, v in have if v.shape == have[0][1].shape]
    if len(have) < 2:
        return None, [], len(have)
    first = have[0][1]
    # As in every genuine track, of which `Tracked` keeps one copy.
    if all(v is first for _, v in have):
        return None, [], len(have)
    positions, off = _differing(np.stack([v for _, v in have]))
    ids = [have[int(i)][0] for i in positions]
    if not ids:
        return None, [], len(have)
    if off <= _ROUNDING:
        severity, meaning = "info", "That is rounding, as converted tracks have it."
    message = (
        f"differs from the others in {len(ids)} of {len(have)} frames ({named(ids)}); the tracker "
        f"keeps it for a whole track. {meaning}"
    )
    fix = "" if severity == "info" else "Were frames of two runs mixed in this folder? Separate."
    return finding(severity, name, message, off, _ROUNDING, "relative", fix), ids, len(have)


@check("camera-varies")
def camera_varies(track: Tracked) -> Outcome:
    """Focal length and principal point are the same in all frames."""

    def block(p: FramePayload) -> Floats | None:
        return None if p.camera is None else np.array([p.camera.fl, *p.camera.pp])

    def matrix(p: FramePayload) -> Floats | None:
        return p.K.ravel()

    has_blocks = any(p.camera is not None for p in track.usable)
    get, name = (block, "camera.fl, camera.pp") if has_blocks else (matrix, "opencv.K")
    found, ids, n = _constant(
        track, get, "error", name, "Trainers that hold one K take the first frame's."
    )
    return Outcome((found,) if found else (), n, tuple(ids))


@check("shape-varies")
def shape_varies(track: Tracked) -> Outcome:
    """The shape, and the texture, are the same in all frames."""
    found, marked, n = [], set[int](), 0
    parts: tuple[tuple[str, Severity], ...] = (("shape", "error"), ("tex", "warning"))
    for name, severity in parts:
        one, ids, n_seen = _constant(
            track, lambda p, name=name: p.flame.get(name), severity, f"flame.{name}",  # type: ignore[misc]
            "Trainers take the first frame's.",
        )  # fmt: skip
        n += n_seen
        if one:
            found.append(one)
            marked |= set(ids)
    if not n:
        raise CheckSkipped("no frame has a shape or a texture")
    return Outcome(tuple(found), n, tuple(sorted(marked)))


@check("flame-partial")
def flame_partial(track: Tracked) -> Outcome:
    """Every FLAME block is there, in one length, in all frames or in none."""
    payloads = track.usable
    found: list[Finding] = []
    if len({tuple([(name, b.shape) for name, b in p.flame.items()]) for p in payloads}) == 1:
        return Outcome((), len(payloads))
    for name in _BLOCKS:
        shapes = [p.flame[name].shape for p in payloads if name in p.flame]
        if shapes and len(shapes) < len(payloads):
            found.append(
                finding("warning", f"flame.{name}", f"is there in {len(shapes)} of {len(payloads)} "
                        "frames only.", len(payloads) - len(shapes), 0, "frames",
                        "Were frames of two runs mixed? uncrop leaves the block out.")
            )  # fmt: skip
        elif len(set(shapes)) > 1:
            found.append(
                finding("error", f"flame.{name}", f"has {len(set(shapes))} different lengths.",
                        len(set(shapes)), 1, "", "Frames of two runs are in this folder; "
                        "separate them.")
            )  # fmt: skip
    return Outcome(tuple(found), len(payloads))


def _still(block: Floats | None, name: str) -> Floats:
    if block is None:
        raise CheckSkipped(f"no frame has {name}")
    return block


@check("jaw-fixed")
def jaw_fixed(evidence: Evidence) -> Outcome:
    """The jaw was optimised: it is not the identity in every frame."""
    jaw = _still(evidence.track.flame.jaw, "a jaw")
    if not np.all(jaw == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]):
        return Outcome((), len(jaw))
    return Outcome(
        (
            finding("warning", "flame.jaw", "is the identity in all frames: the jaw was not "
                    "optimised, and every movement of the mouth is in the expression.",
                    fix="Track with optimize_jaw: true if your trainer drives the jaw "
                    "(FlashAvatar, GaussianAvatars)."),
        ),
        len(jaw),
    )  # fmt: skip


@check("eyelids-fixed")
def eyelids_fixed(evidence: Evidence) -> Outcome:
    """The eyelids were optimised: they are not zero in every frame."""
    lids = _still(evidence.track.flame.eyelids, "eyelids")
    found = [
        finding("warning", "flame.eyelids", "are zero in all frames: blinks were not optimised.",
                fix="Blinks will be missing from the avatar; track with eyelids.")
    ] if not lids.any() else []  # fmt: skip
    return Outcome(tuple(found), len(lids))


@check("shape-unset")
def shape_unset(evidence: Evidence) -> Outcome:
    """The shape is that of a person, not FLAME's mean."""
    shape = _still(evidence.track.flame.shape, "a shape")
    found = [
        finding("warning", "flame.shape", "is zero: FLAME's mean head, not this person's.",
                fix="Was identity.npy (MICA) missing when it was tracked?")
    ] if not shape.any() else []  # fmt: skip
    return Outcome(tuple(found), 1)


@check("expression-fixed")
def expression_fixed(evidence: Evidence) -> Outcome:
    """The expression moves; where it alone moves, the tracking is of the mouth only."""
    flame = evidence.track.flame
    exp = _still(flame.expression, "an expression")
    if len(exp) < 2:
        raise CheckSkipped("there is one frame only")
    moves = bool(np.any(exp != exp[0]))
    jaw, lids = flame.jaw, flame.eyelids
    others = [b is not None and bool(np.any(b != b[0])) for b in (jaw, lids)]
    if not moves:
        text = "is the same in all frames: the face does not move."
    elif (jaw is not None or lids is not None) and not any(others):
        text = (
            "is all that moves, neither jaw nor eyelids do: mouth-only tracking, in which "
            "expression stands for everything."
        )
    else:
        return Outcome((), len(exp))
    fix = "Avatars driven by jaw or eyelids will not learn them."
    return Outcome((finding("warning", "flame.exp", text, fix=fix),), len(exp))


_NEEDS = (
    (350, "INSTA", "holds the last 350 frames back for testing"),
    (500, "FlashAvatar", "holds the last 500 frames back for testing"),
)
_FEW_FOR_TALKING = 250
"""Ten seconds at 25 fps. GaussianTalker's own examples are minutes long."""


@check("frames-few")
def frames_few(evidence: Evidence) -> Outcome:
    """There are enough frames for the trainers' fixed splits."""
    n = len(evidence.numbers) if isinstance(evidence, Tracked) else len(evidence.ids)
    said = counted(n, "frame")
    found = [
        finding("info", "frames", f"{said}: {trainer} {split}, which leaves nothing to train on.",
                n, limit + 1, "frames", f"Set {trainer}'s own number of test frames.")
        for limit, trainer, split in _NEEDS
        if n <= limit
    ]  # fmt: skip
    if n < _FEW_FOR_TALKING:
        found.append(
            finding("info", "frames", f"{said}: GaussianTalker wants minutes of speech.", n,
                    _FEW_FOR_TALKING, "frames", "Track a longer video.")
        )  # fmt: skip
    return Outcome(tuple(found), n)
