"""Finding every track, bundle and written dataset below a folder, however they are laid out."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from converter import registry
from converter.bundle.schema import SUFFIXES
from converter.errors import FormatError, MissingInputError
from converter.media.files import scan_folder
from converter.media.manifest import MANIFEST

FRAME_SUFFIX = ".frame"
CHECKPOINT = "checkpoint"
# What an actor folder holds, by names: a track that lies inside one belongs to it.
_ACTOR_ENTRIES = frozenset(("bbox.pt", "kpt", "kpt_dense", "images", "source"))
# Folders of one file per frame: large, and never above a track.
_PER_FRAME = frozenset(
    ("images", "source", "kpt", "kpt_dense", "mesh", "depth", "input_images", "ori_imgs",
     "gt_imgs", "torso_imgs", "parsing")
)  # fmt: skip
# One file per frame, named by its number, as trackers other than metrical-tracker write them.
_NUMBERED = re.compile(r"\d{1,12}\.np[yz]", re.ASCII)
_MAX_DEPTH = 12
_MAX_FOLDERS = 100_000


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One thing to validate or convert.

    Attributes
    ----------
    path
        A track's output folder, a bundle, a dataset, or whatever the user named.
    actor
        The actor folder that the track lies inside, where only the folders tell.

    """

    path: Path
    actor: Path | None = None


@dataclass(slots=True)
class Discovery:
    """What lies below a folder.

    Attributes
    ----------
    found
        Tracks, bundles and datasets, sorted by path.
    unsearched
        Folders that could not be listed, each with the reason, and bounds that were met: what may
        have been missed.
    n_folders
        Number of folders looked at.

    """

    found: list[Found] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)
    n_folders: int = 0


def discover(top: Path, max_depth: int = _MAX_DEPTH, max_folders: int = _MAX_FOLDERS) -> Discovery:
    """Find all that can be validated at or below ``top``, by names only.

    Links are followed once, so that a loop ends. A folder named checkpoint without any .frame is
    found too: its track is broken, not absent. Where there is one thing only, or none, ``top``
    itself is returned: the sources find the parts of one track from any of its folders.

    Raises
    ------
    MissingInputError, FormatError
        If ``top`` does not exist or cannot be listed.

    """
    registry.require_path(top)
    result = Discovery()
    if os.path.isdir(top):
        scan_folder(top)
        _Search(result, max_depth, max_folders).run(top)
        result.found.sort(key=lambda found: found.path)
    if not result.found or (len(result.found) == 1 and result.found[0].actor is None):
        result.found = [Found(top)]
    return result


@dataclass(slots=True)
class _Search:
    result: Discovery
    max_depth: int
    max_folders: int
    seen: set[str] = field(default_factory=set)

    def run(self, top: Path) -> None:
        # Each level with the actor folder that its folders lie in, if any.
        level: list[tuple[Path, Path | None]] = [(top, None)]
        self.seen.add(os.path.realpath(top))
        for _ in range(self.max_depth):
            following: list[tuple[Path, Path | None]] = []
            for folder, actor in level:
                if self.result.n_folders >= self.max_folders:
                    self._stopped(f"more than {self.max_folders} folders")
                    return
                following += self._look(folder, actor)
            level = following
            if not level:
                return
        self._stopped(f"folders more than {self.max_depth} levels down")

    def _stopped(self, what: str) -> None:
        self.result.unsearched.append(
            f"{what}: the search ends there; name deeper folders directly"
        )

    def _look(self, folder: Path, actor: Path | None) -> list[tuple[Path, Path | None]]:
        """Take what one folder holds; return the folders in it that are to be searched."""
        self.result.n_folders += 1
        try:
            entries = scan_folder(folder)
        except (FormatError, MissingInputError) as error:
            self.result.unsearched.append(str(error))
            return []
        names = {entry.name for entry in entries}
        if MANIFEST in names:
            self._take(Found(folder))
            return []
        if any(name.endswith(FRAME_SUFFIX) for name in names) or _is_empty_run(folder, names):
            output = folder.parent if folder.name == CHECKPOINT else folder
            self._take(Found(output, actor))
            return []
        if any(map(_NUMBERED.fullmatch, names)) and _is_recognised(folder):
            self._take(Found(folder))
            return []
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                self._take(Found(folder / name))
        inner = _actor_of(folder, names, actor)
        if CHECKPOINT in names:  # a track's output folder: nothing else in it is a track
            names = {CHECKPOINT}
        return [(folder / e.name, inner) for e in entries if e.name in names and self._is_new(e)]

    def _is_new(self, entry: os.DirEntry[str]) -> bool:
        if entry.name in _PER_FRAME or entry.name.startswith("."):
            return False
        try:
            if not entry.is_dir():
                return False
        except OSError:
            return False
        real = os.path.realpath(entry.path)
        if real in self.seen:
            return False
        self.seen.add(real)
        return True

    def _take(self, found: Found) -> None:
        if found not in self.result.found:
            self.result.found.append(found)


def _is_recognised(folder: Path) -> bool:
    return any(registry.source(name).sniff(folder) for name in registry.names("sources"))


def _is_empty_run(folder: Path, names: set[str]) -> bool:
    return folder.name == CHECKPOINT and not names


def _actor_of(folder: Path, names: set[str], actor: Path | None) -> Path | None:
    """The nearest folder with an actor's files, but a track's own output folder."""
    return folder if names & _ACTOR_ENTRIES else actor
