"""Finds sources and targets by file name, and imports only the one asked for.

A format is one module (or package) in ``converter.sources`` or ``converter.targets`` whose name is
its name on the command line. It ends in ``SOURCE`` or ``TARGET``, of the protocol given here.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from converter.errors import FormatError, MissingInputError
from converter.findings import Finding
from converter.media.files import scan_folder
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.manifest import RECORD

if TYPE_CHECKING:
    from converter.track import Track

Progress: TypeAlias = Callable[[str, int, int], None]
"""``progress(stage, done, total)``: called as work goes on; may be called very often."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a user can say about a track that its files do not.

    Attributes
    ----------
    actor
        Folder with bbox.pt, images/ and kpt/, when it is not found beside the track.
    source
        Folder of source frames, or the video.
    bbox
        The bbox.pt file.
    begin_frames
        The tracker's ``begin_frames``: how many images come before frame 0.
    fps
        Frames per second at which the tracker extracted the video.
    skip_damaged
        Leave out frames whose files cannot be read, instead of stopping.
    hold_intrinsics
        Hold K against meshes and landmarks, and repair or refuse one that contradicts them. What
        fits cameras again does so itself, with more to go by.
    hash_inputs
        Hash the input files for the provenance; reading for display only can do without.
    limits
        Bounds for every input file.

    """

    actor: Path | None = None
    source: Path | None = None
    bbox: Path | None = None
    begin_frames: int | None = None
    fps: float | None = None
    skip_damaged: bool = False
    hold_intrinsics: bool = True
    hash_inputs: bool = True
    limits: Limits = DEFAULT_LIMITS
    progress: Progress = no_progress


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that the target's trainer wants, that cannot be derived, and what makes it."""

    file: str
    purpose: str
    command: str


@dataclass(frozen=True, slots=True)
class Written:
    """What a target wrote.

    Attributes
    ----------
    path
        The folder or file.
    summary
        Facts worth a line each, e.g. ``max reprojection difference 0.00004 px over 75 frames``.
    findings
        What was repaired, left out or doubted while writing.
    missing
        What the trainer still wants.
    run_in
        Where the commands are to be run, as a phrase.
    next_command
        What to run next; empty if there is nothing.

    """

    path: Path
    summary: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    missing: tuple[Missing, ...] = ()
    run_in: str = ""
    next_command: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """One tracker's output, read into a Track."""

    name: str
    summary: str

    def sniff(self, path: Path) -> bool:
        """Whether ``path`` looks like this format, by names and first bytes only."""

    def read(self, path: Path, options: ReadOptions) -> Track:
        """Read the track; raises UncropError."""


class Target(Protocol):
    """One trainer's dataset, written from a Track."""

    name: str
    summary: str
    options: type[Any]
    """Dataclass of the target's own options; every field has a default."""

    def require(self, track: Track, options: Any) -> None:
        """Raise TargetError or MissingInputError if the track lacks what the target needs."""

    def write(
        self, track: Track, out: Path, options: Any, *, overwrite: bool, progress: Progress
    ) -> Written:
        """Write the dataset whole or not at all; raises what `require` does before it begins."""

    def check(self, out: Path) -> list[Finding]:
        """Re-read a written dataset as its consumer does, and reproject."""


def names(kind: str) -> list[str]:
    """Names of all ``"sources"`` or ``"targets"``."""
    package = importlib.import_module(f"converter.{kind}")
    found = (m.name for m in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def source(name: str) -> Source:
    """Return a source by name; raises FormatError, with the nearest names, if there is none."""
    found: Source = _load("sources", name).SOURCE
    return found


def target(name: str) -> Target:
    """Return a target by name; raises FormatError, with the nearest names, if there is none."""
    found: Target = _load("targets", name).TARGET
    return found


def _load(kind: str, name: str) -> Any:
    module, known = name.replace("-", "_"), names(kind)
    if module not in known:
        near = _named_by_trainer(name) if kind == "targets" else []
        near = near or difflib.get_close_matches(module, known, n=1)
        remedy = f"Did you mean {near[0]}?" if near else ""
        raise FormatError(f"{kind[:-1]} {name}", f"one of {', '.join(known)}", name, remedy)
    return importlib.import_module(f"converter.{kind}.{module}")


def _named_by_trainer(name: str) -> list[str]:
    """Targets whose summary names a trainer: SplattingAvatar is read from flame_params."""

    def letters(text: str) -> str:
        return re.sub("[^a-z0-9]", "", text.lower())

    def trainers(summary: str) -> set[str]:
        return {letters(word) for word in re.findall(r"[\w-]+", summary) if word != word.lower()}

    return [n for n in names("targets") if letters(name) in trainers(target(n).summary)]


def detect_source(path: Path) -> Source:
    """Return the source that recognises ``path``.

    Raises
    ------
    MissingInputError
        If nothing is there.
    FormatError
        If no source recognises it.

    """
    require_path(path)
    if os.path.isdir(path):
        scan_folder(path)  # one that may not be listed is refused here, by its reason
    for name in names("sources"):
        candidate = source(name)
        if candidate.sniff(path):
            return candidate
    record = path / RECORD
    raise FormatError(
        path,
        "a tracker's output folder, its checkpoint folder, its actor folder or a bundle",
        "a folder without .frame files" if path.is_dir() else "another kind of file",
        f"Give {record}, the track that this dataset was made from."
        if record.is_file()
        else "Give the folder that holds checkpoint/, or a parent of it.",
    )


def require_path(path: Path, expected: str = "a track") -> None:
    """Raise MissingInputError, with a name close to it if there is one, if nothing is there."""
    if not os.path.exists(path):
        raise MissingInputError(path, expected, *_absent(path))


def _absent(path: Path) -> tuple[str, str]:
    """Say what is in place of ``path``, and what is meant: a name close to it, if there is one."""
    parent = path.parent
    try:
        names = [entry.name for entry in scan_folder(parent)]
    except FormatError as error:
        return f"{error.found} for {parent}", error.remedy
    except MissingInputError:
        return "nothing", f"There is no folder {parent}."
    near = difflib.get_close_matches(path.name, names, n=1)
    return "nothing", f"Did you mean {path.parent / near[0]}?" if near else ""


def read_track(path: Path | str, options: ReadOptions | None = None) -> Track:
    """Read a track from any of its folders, or from a bundle.

    Raises
    ------
    UncropError
        One line that says what is wrong and what to do.

    """
    return detect_source(Path(path)).read(Path(path), options or ReadOptions())


def write_track(
    track: Track,
    to: str,
    out: Path | str,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
    **options: Any,
) -> Written:
    """Write a track as target ``to``, whole or not at all.

    Parameters
    ----------
    track
        The track.
    to
        Name of the target, as on the command line.
    out
        Folder or file to write.
    overwrite
        Replace an earlier output.
    progress
        Called as work goes on.
    options
        The target's own options, named as on the command line: ``canvas="crop", size="768"``.

    Raises
    ------
    UncropError
        If the target cannot hold the track, or ``out`` cannot be written.

    """
    chosen = target(to)
    known = [f.name for f in fields(chosen.options)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise FormatError(f"target {to}", f"options among {', '.join(known)}", ", ".join(unknown))
    own = chosen.options(**options)
    return chosen.write(track, Path(out), own, overwrite=overwrite, progress=progress)


def check_dataset(to: str, out: Path | str) -> list[Finding]:
    """Re-read what target ``to`` wrote as its consumer does; returns what is wrong, if anything."""
    return target(to).check(Path(out))
