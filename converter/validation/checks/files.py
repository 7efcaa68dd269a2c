"""Which files there are, and whether they can be read and belong together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from converter.errors import UncropError, UnsafeFileError
from converter.findings import Finding, counted
from converter.media.arrays import read_npy
from converter.sources.metrical_tracker.cameras import leftover_frames
from converter.validation.checking import check
from converter.validation.evidence import CheckSkipped, Evidence, Outcome, finding, named
from converter.validation.tracked import FrameFile, Tracked

_N_LISTED = 5
_WANTED = {
    "mesh": "INSTA and GaussianTalker need meshes: track with save_mesh, or from FLAME.",
    "kpt file": "Without landmarks no camera can be held against the picture; see --actor.",
}
_TRAPS = ("source", "png", "jpg")


@check("folders")
def folders(track: Tracked) -> Outcome:
    """What was doubtful while finding the track's parts: yaml, videos."""
    found = track.folders.findings
    return Outcome(tuple(f for f in found if f.severity != "info"), 1)


@check("frames-damaged")
def frames_damaged(track: Tracked) -> Outcome:
    """Frames that cannot be read."""
    bad = [f for f in track.frames if f.error and not isinstance(f.error, UnsafeFileError)]
    return _refused(track, bad, "cannot be read", "Copy or track these frames again.")


@check("frames-unsafe")
def frames_unsafe(track: Tracked) -> Outcome:
    """Frames that ask for something no data file needs."""
    bad = [f for f in track.frames if isinstance(f.error, UnsafeFileError)]
    return _refused(track, bad, "must not be opened with torch.load or pickle",
                    "Delete them, and ask where they came from.")  # fmt: skip


def _refused(track: Tracked, bad: list[FrameFile], what: str, fix: str) -> Outcome:
    errors = [f.error for f in bad[:_N_LISTED] if f.error is not None]
    findings = [finding("error", e.where, e.statement, fix=fix) for e in errors]
    if len(bad) > _N_LISTED:
        rest = len(bad) - _N_LISTED
        findings.append(finding("error", track.folders.checkpoint, f"{rest} more of {len(bad)} "
                                f"frames {what}.", len(bad), 0, "frames", fix))  # fmt: skip
    return Outcome(tuple(findings), len(track.frames), tuple(f.number for f in bad))


@check("frames-stray")
def frames_stray(track: Tracked) -> Outcome:
    """Files in checkpoint/ that are no frames, or a second one of the same number."""
    stray, twins = track.listing.stray, track.listing.twins
    found = []
    if stray:
        found.append(
            finding("warning", track.folders.checkpoint, f"{counted(len(stray), 'other file')} "
                    f"named .frame, but not by a number: {', '.join(stray[:_N_LISTED])}.",
                    len(stray), 0, "files",
                    "Move them away: FlashAvatar counts every file of this folder.")
        )  # fmt: skip
    for a, b in twins[:_N_LISTED]:
        found.append(
            finding("error", track.folders.checkpoint, f"{a.name} and {b.name} are the same frame.",
                    fix="Remove the one that is not the tracker's.")
        )  # fmt: skip
    return Outcome(tuple(found), len(track.listing.paths) + len(stray))


@check("frames-missing")
def frames_missing(evidence: Evidence) -> Outcome:
    """Numbers of the frames run from 0 without a gap."""
    ids = evidence.numbers if isinstance(evidence, Tracked) else [int(i) for i in evidence.ids]
    if not ids:
        raise CheckSkipped("there are no frames named by a number")
    there = set(ids)
    absent = [i for i in range(ids[-1] + 1) if i not in there] if ids[-1] < 10**6 else []
    n_absent = ids[-1] + 1 - len(there)
    if not n_absent:
        return Outcome((), len(ids))
    where = evidence.folders.checkpoint if isinstance(evidence, Tracked) else "frame_ids"
    message = (
        f"{n_absent} of {ids[-1] + 1} frames are missing"
        + (f": {named(absent)}" if absent else "")
        + ". INSTA needs every number from 0."
    )
    fix = "Track them again; uncrop's targets leave them out and keep the others' images."
    return Outcome(
        (finding("warning", where, message, n_absent, 0, "frames", fix),), len(ids), tuple(absent)
    )


@check("files-missing")
def files_missing(track: Tracked) -> Outcome:
    """Every frame has its mesh, depth, dump and landmarks, where others have one."""
    found, n, marked = [], 0, set[int]()
    for what, severity, folder, have in _per_frame_files(track):
        n += len(have)
        lost = [i for i in track.numbers if i not in have]
        if not lost or (not have and what not in _WANTED):
            continue
        if not have:
            found.append(finding("warning", folder, f"there is no {what} of any frame.",
                                 fix=_WANTED[what]))  # fmt: skip
            continue
        marked |= set(lost)
        found.append(
            finding("error" if severity else "warning", folder, f"{len(lost)} of "
                    f"{len(track.numbers)} frames have no {what}: {named(lost)}.",
                    len(lost), 0, "files", "Restore the files, or track these frames again.")
        )  # fmt: skip
    found += _images_without_landmarks(track, marked)
    return Outcome(tuple(found), n, tuple(sorted(marked)))


def _images_without_landmarks(track: Tracked, marked: set[int]) -> list[Finding]:
    """Images that no frame shows, e.g. those before the first one, have landmarks, too."""
    names, found = track.npy_names("kpt"), []
    images = zip(track.files.image_names, track.files.images, strict=False)
    lost = [path.name for stem, path in images if stem not in names]
    if names and lost and not marked:
        found.append(
            finding("warning", track.folders.actor, f"{len(lost)} of {len(track.files.images)} "
                    f"images have no kpt file, but none of them is a frame's: "
                    f"{', '.join(lost[:_N_LISTED])}.", len(lost), 0, "files")
        )  # fmt: skip
    return found


def _per_frame_files(track: Tracked) -> Iterable[tuple[str, bool, Path, set[int]]]:
    """What, whether nothing works without it, where, and the frames that have one."""
    output = track.folders.output
    yield "mesh", True, output / "mesh", set(track.mesh_files)
    yield "depth map", False, output / "depth", set(track.files_of("depth", ".png") or {})
    yield "dumped image", False, output / "input", set(track.files.dumps)
    actor = track.folders.actor
    if actor is not None and track.offset is not None:
        for folder in ("kpt", "kpt_dense"):
            stems = track.npy_names(folder)
            names = ((i, track.files.image_name(i + track.offset)) for i in track.numbers)
            yield f"{folder} file", False, actor / folder, {i for i, n in names if n in stems}


@check("files-extra")
def files_extra(track: Tracked) -> Outcome:
    """Meshes and depth maps of frames that have no .frame."""
    known, found, n = set(track.numbers), [], 0
    last = track.numbers[-1] if track.numbers else -1
    for folder, have in (("mesh", track.mesh_files), ("depth", track.files_of("depth", ".png"))):
        n += len(have or {})
        extra = sorted(set(have or {}) - known)
        if extra:
            lost = all(i <= last for i in extra)
            found.append(
                finding("info" if lost else "warning", track.folders.output / folder,
                        f"{counted(len(extra), 'file')} of no frame: {named(extra)}. Left by "
                        + ("lost frames." if lost else "another run, or by frames that were "
                           "removed."), len(extra), 0, "files", "uncrop ignores them.")
            )  # fmt: skip
    return Outcome(tuple(found), n)


@check("dumps-stray")
def dumps_stray(track: Tracked) -> Outcome:
    """Images in output/input that camera initialisation leaves behind."""
    if not track.files.dumps:
        raise CheckSkipped("there is no output/input")
    last = track.numbers[-1] if track.numbers else -1
    stray = sorted(i for i in track.files.dumps if i > last)
    found = [
        finding("warning", track.folders.output / "input", f"{counted(len(stray), 'image')} of no "
                f"frame: {named(stray)}. Camera initialisation leaves 00101, 00201 ... behind.",
                len(stray), 0, "files",
                "Delete them before INSTA copies the folder; uncrop ignores them.")
    ] if stray else []  # fmt: skip
    return Outcome(tuple(found), len(track.files.dumps))


@check("frames-renamed")
def frames_renamed(track: Tracked) -> Outcome:
    """The number a file is named by, its frame_id and the name it was written under agree."""
    payloads = track.payloads
    if not payloads:
        raise CheckSkipped("no .frame is readable")
    other_id, other_stem = [], []
    for p in payloads:
        number = int(p.path.stem)
        if p.frame_id is not None and p.frame_id != number:
            other_id.append(p)
        elif p.written_as is not None and p.written_as.isdecimal() and int(p.written_as) != number:
            other_stem.append(p)
    found: list[Finding] = []
    if other_id:
        p = other_id[0]
        found.append(
            finding("error", p.path, f"holds frame_id {p.frame_id}{_and_more(other_id)}: the file "
                    "was renamed, and its camera belongs to another image.", len(other_id), 0,
                    "frames", "--fix gives the files the names that their frame_id says.")
        )  # fmt: skip
    if other_stem:
        p = other_stem[0]
        found.append(
            finding("warning", p.path, f"was written as {p.written_as}.frame"
                    f"{_and_more(other_stem)}; its frame_id fits the new name.", len(other_stem),
                    0, "frames", "Check that the numbering is the one you meant.")
        )  # fmt: skip
    marked = sorted(int(p.path.stem) for p in (*other_id, *other_stem))
    return Outcome(tuple(found), len(payloads), tuple(marked))


def _and_more(items: list[object] | list) -> str:  # type: ignore[type-arg]
    return f", and {len(items) - 1} more are like it" if len(items) > 1 else ""


@check("frames-leftover")
def frames_leftover(track: Tracked) -> Outcome:
    """Frames that initialisation wrote for a keyframe and tracking never overwrote."""
    payloads = _with_steps(track)
    leftover = [int(payloads[i].path.stem) for i in leftover_frames(payloads)]
    found = [
        finding("error", track.folders.checkpoint, f"{named(leftover)}: written by initialisation "
                "for a keyframe and never tracked, as after a run that was interrupted; their "
                "cameras belong to other images.", len(leftover), 0, "frames",
                "--fix leaves them out; tracking again replaces them.")
    ] if leftover else []  # fmt: skip
    return Outcome(tuple(found), len(payloads), tuple(leftover))


@check("steps-irregular")
def steps_irregular(track: Tracked) -> Outcome:
    """global_step grows by the same number from frame to frame."""
    payloads = _with_steps(track)
    first = 1 + max(leftover_frames(payloads), default=-1)
    payloads = payloads[first:]
    steps = [p.global_step or 0 for p in payloads]
    ids = [int(p.path.stem) for p in payloads]
    gaps = [((b - a) / (j - i), j) for a, b, i, j in
            zip(steps, steps[1:], ids, ids[1:], strict=False)]  # fmt: skip
    if len(gaps) < 3:
        raise CheckSkipped("fewer than four frames have a global_step")
    usual = sorted(gap for gap, _ in gaps)[len(gaps) // 2]
    odd = [(gap, j) for gap, j in gaps if gap != usual]
    resumed = [j for gap, j in odd if gap == 2 * usual]
    others = [j for gap, j in odd if gap != 2 * usual]
    found = []
    if resumed:
        found.append(
            finding("info", track.folders.checkpoint, f"tracking was resumed at {named(resumed)}: "
                    "that frame was optimised twice.", len(resumed), 0, "frames")
        )  # fmt: skip
    if others:
        found.append(
            finding("warning", track.folders.checkpoint, f"global_step does not grow by {usual:g} "
                    f"at {named(others)}: settings changed there, or frames of two runs were "
                    "mixed.", len(others), 0, "frames", "Separate the runs.")
        )  # fmt: skip
    return Outcome(tuple(found), len(payloads), tuple(sorted(j for _, j in odd)))


def _with_steps(track: Tracked) -> list:  # type: ignore[type-arg]
    if not track.payloads:
        raise CheckSkipped("no .frame is readable")
    if any(p.global_step is None for p in track.payloads):
        raise CheckSkipped("not every .frame has a global_step (versions before 2023-03-21)")
    return track.payloads


@check("path-trap")
def path_trap(track: Tracked) -> Outcome:
    """The tracker replaces 'source', 'png' and 'jpg' anywhere in a path, not only at its end."""
    actor = track.folders.actor
    if actor is None:
        raise CheckSkipped("no actor folder was found")
    words = [w for w in _TRAPS for part in actor.absolute().parts[:-1] if w in part]
    words += [w for w in _TRAPS if w in actor.name]
    lost = [name for name in ("images", "kpt") if not (actor / name).is_dir()]
    if not words or not lost or not (actor / "source").is_dir():
        return Outcome((), 1)
    word = words[0]
    return Outcome(
        (
            finding("error", actor, f"{' and '.join(lost)} are missing, and the path contains "
                    f"{word!r}: the tracker replaces this text anywhere in the path, and wrote "
                    "them elsewhere.", fix=f"Look beside it, where the path has another word in "
                    f"place of {word!r}; move the folders back and rename the parent."),
        ),
        1,
    )  # fmt: skip


@check("landmarks-damaged")
def landmarks_damaged(track: Tracked) -> Outcome:
    """Files of kpt/ hold 68 points."""
    status = track.landmark_status
    if not status:
        raise CheckSkipped("there is no kpt folder, or nothing shows which image is whose")
    n_read = sum(s not in ("unread", "missing") for s in status.values())
    return _damaged_landmarks(track.landmark_errors, n_read)


def _damaged_landmarks(errors: dict[int, UncropError], n: int) -> Outcome:
    found = [Finding.of_error("", error) for error in list(errors.values())[:_N_LISTED]]
    if found and len(errors) > _N_LISTED:
        found[-1] = finding(
            "error", found[-1].where, f"{found[-1].message} {len(errors) - _N_LISTED} more files "
            "are damaged.", len(errors), 0, "files", found[-1].fix,
        )  # fmt: skip
    return Outcome(tuple(found), n, tuple(sorted(errors)))


@check("landmarks-dense")
def landmarks_dense(track: Tracked) -> Outcome:
    """Files of kpt_dense/ hold 478 points."""
    actor = track.folders.actor
    folder = actor / "kpt_dense" if actor is not None else None
    if folder is None or not folder.is_dir():
        raise CheckSkipped("there is no kpt_dense folder")
    paths = [folder / f"{stem}.npy" for stem in sorted(track.npy_names("kpt_dense"))]
    picked = [paths[i] for i in track.sample(range(len(paths)), 12)]
    wrong = []
    for path in picked:
        array = track.attempt(lambda path=path: read_npy(path, track.options.limits))  # type: ignore[misc]
        if array is not None and (array.shape != (478, 2) or array.dtype.kind not in "fiu"):
            wrong.append((path, "x".join(map(str, array.shape))))
    found = [
        finding("error", path, f"holds {shape} numbers, expected 478x2; {len(wrong)} of "
                f"{len(picked)} files looked at are like that.", len(wrong), 0, "files",
                "A slip of some versions of the tracker; uncrop leaves the dense landmarks out.")
        for path, shape in wrong[:1]
    ]  # fmt: skip
    return Outcome(tuple(found), len(picked))


@check("files-damaged")
def files_damaged(evidence: Evidence) -> Outcome:
    """Other files that could not be read while checks looked at them."""
    found = [Finding.of_error("", e) for e in list(evidence.damaged.values())[:_N_LISTED]]
    return Outcome(tuple(found), len(evidence.damaged))
