"""Finding a track's files, whatever part of it a person points at.

The tracker's tree (paths in its yaml are relative to where it was run)::

    input/<actor>/        video.mp4  source/  images/  kpt/  kpt_dense/  bbox.pt  identity.npy
    output/<yaml stem>/   checkpoint/00000.frame  input/00000.png  mesh/00000.ply  depth/ ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from converter.errors import FormatError, MissingInputError
from converter.findings import Finding
from converter.media.files import scan_folder
from converter.media.images import IMAGE_SUFFIXES
from converter.media.limits import Limits
from converter.media.video import VIDEO_SUFFIXES
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.config import TrackerConfig, read_config

_ACTOR_ENTRIES = ("bbox.pt", "kpt", "kpt_dense", "images", "source")
_PICTURES = ("images", "source")
# Folders of one file per frame: large, and never above a checkpoint folder.
_PER_FRAME = frozenset(
    ("images", "source", "kpt", "kpt_dense", "mesh", "depth", "video", "input_images")
)
_SEARCH_DEPTH = 4
_MAX_SEARCHED = 20_000
_N_LEVELS_UP = 3


@dataclass(frozen=True, slots=True)
class TrackFolders:
    """Where everything of one track lies; None is what was not found.

    Attributes
    ----------
    name
        Name of the output folder.
    checkpoint
        Folder of the .frame files.
    output
        The tracker's output folder: mesh/, input/, depth/ are in it.
    actor
        The actor folder: images/, kpt/, bbox.pt, video.mp4 are in it.
    bbox, bbox_given
        The bbox.pt, and whether the user named it.
    source
        Folder of source frames, or the video.
    video
        The video, for its sound track, even when a folder of source frames is used.
    config
        What the tracker's yaml says.
    findings
        What was doubtful on the way.

    """

    name: str
    checkpoint: Path
    output: Path
    actor: Path | None = None
    bbox: Path | None = None
    bbox_given: bool = False
    source: Path | None = None
    video: Path | None = None
    config: TrackerConfig = field(default_factory=TrackerConfig)
    findings: tuple[Finding, ...] = ()

    @property
    def inputs(self) -> Path:
        """Where what the tracker was given is looked for: the actor folder, or else the output."""
        return self.actor or self.output


def find_folders(path: Path, options: ReadOptions) -> TrackFolders:
    """Find a track from its output, checkpoint or actor folder, or a parent of both.

    Raises
    ------
    FormatError
        If there is no track, or more than one.
    MissingInputError
        If a folder or file that the user named is not there.

    """
    checkpoint = find_checkpoint(path, options.limits)
    output = checkpoint.parent if checkpoint.name == "checkpoint" else checkpoint
    name = Path(os.path.abspath(output)).name
    config = _find_config(output, name, options.limits)
    findings = list(config.findings)
    if os.path.isfile(path):
        findings.append(
            Finding("track-of-one-file", "info", str(path), "is one frame of a track.",
                    fix=f"All frames of {checkpoint} are read.")
        )  # fmt: skip
    actor = _given_actor(options.actor) or _find_actor(path, output, name, config)
    bbox = _given(options.bbox, "--bbox")
    if bbox is None and actor is not None and os.path.isfile(actor / "bbox.pt"):
        bbox = actor / "bbox.pt"
    source, video = _find_source(_given(options.source, "--source"), actor, findings)
    return TrackFolders(
        name=name,
        checkpoint=checkpoint,
        output=output,
        actor=actor,
        bbox=bbox,
        bbox_given=options.bbox is not None,
        source=source,
        video=video,
        config=config,
        findings=tuple(findings),
    )


def looks_like_track(path: Path) -> bool:
    """Whether a track can be found from ``path``, by names only."""
    if os.path.isfile(path):
        return path.suffix == ".frame"
    return next(_checkpoints(path, None), None) is not None


def find_checkpoint(path: Path, limits: Limits) -> Path:
    """Return the one folder of .frame files that ``path`` means; raises as `find_folders`."""
    found = _distinct(_checkpoints(path, limits))
    if len(found) == 1:
        return found[0]
    if not found:
        raise FormatError(
            path,
            "a folder with .frame files (the tracker's output/<name>/checkpoint)",
            "none",
            "Give the tracker's output folder, or a parent of it.",
        )
    shown = [str(p.relative_to(path)) if p.is_relative_to(path) else str(p) for p in sorted(found)]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    listed = ", ".join(shown[:5])
    raise FormatError(path, "one track", f"{len(found)}: {listed}{more}", "Name one of them.")


def _distinct(folders: Iterator[Path]) -> list[Path]:
    """The folders without those that are another one's symbolic link."""
    found: dict[str, Path] = {}
    for folder in folders:
        found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one folder holds, read once: thousands of files cost one pass."""

    holds_frames: bool
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> _Listing:
        """List a folder; one that is not there or not readable holds nothing."""
        try:
            entries = scan_folder(folder)
        except (FormatError, MissingInputError):
            return cls(False, ())
        frames = any(e.name.endswith(".frame") for e in entries)
        inner = sorted(
            e.name
            for e in entries
            if not e.name.startswith(".") and (e.is_dir(follow_symlinks=False) or _links_folder(e))
        )
        return cls(frames, tuple(folder / name for name in inner))


def _links_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and os.path.isdir(entry.path)


def _holds_frames(folder: Path) -> bool:
    return os.path.isdir(folder) and _Listing.of(folder).holds_frames


def _checkpoints(path: Path, limits: Limits | None) -> Iterator[Path]:
    """Candidate folders of .frame files: exact places first, a search below or beside last.

    Without ``limits`` nothing is opened, only names are looked at.
    """
    if os.path.isfile(path):
        if path.suffix == ".frame":
            yield path.parent
        return
    for folder in (path, path / "checkpoint"):
        if _holds_frames(folder):
            yield folder
            return
    n_found = 0
    for folder in _search(path):
        n_found += 1
        yield folder
    if not n_found and _is_actor(path):
        yield from _outputs_of(path, limits)


def _outputs_of(actor: Path, limits: Limits | None) -> Iterator[Path]:
    """Checkpoint folders of an actor folder: of its name, whose yaml names it, or beside it."""
    for base in _parents(actor):
        output = base / "output"
        same = output / Path(os.path.abspath(actor)).name / "checkpoint"
        if _holds_frames(same):
            yield same
            return
        beside = [
            folder / "checkpoint"
            for folder in _Listing.of(output).folders
            if _holds_frames(folder / "checkpoint")
        ]
        if limits is not None:
            real = os.path.realpath(actor)
            named = [
                c
                for c in beside
                if any(
                    os.path.realpath(a) == real
                    for a in _stated_actors(_find_config(c.parent, c.parent.name, limits))
                )
            ]
            beside = named or beside
        if beside:
            yield from beside
            return


def _search(top: Path) -> Iterator[Path]:
    """Folders of .frame files below ``top``, outer ones first."""
    level, n_searched, seen = [top], 0, {os.path.realpath(top)}
    for _ in range(_SEARCH_DEPTH):
        following: list[Path] = []
        for folder in level:
            for inner in _Listing.of(folder).folders:
                # A link may lead back up, or to a folder that was searched already.
                real = os.path.realpath(inner)
                n_searched += 1
                if real in seen or inner.name in _PER_FRAME or n_searched > _MAX_SEARCHED:
                    continue
                seen.add(real)
                if _holds_frames(inner):
                    yield inner
                else:
                    following.append(inner)
        level = following


def _given(path: Path | None, option: str) -> Path | None:
    if path is not None and not os.path.exists(path):
        raise MissingInputError(path, f"what {option} names", "nothing", "Check its spelling.")
    return path


def actor_around(path: Path) -> Path | None:
    """The actor folder that ``path`` is a part of, like ACTOR/images; None if it is none."""
    above = () if _is_actor(path) else _parents(path)
    parts = {p: os.path.relpath(path, p).split(os.sep)[0] for p in above}
    named = (p for p in above if parts[p] in _ACTOR_ENTRIES)
    return next((p for p in named if any(_holds_images(p / n) for n in _PICTURES)), None)


def track_around(path: Path) -> Path | None:
    """The track's output folder that ``path`` lies in, like its input/; None if it is none."""
    return next((p for p in _parents(path)[:1] if _holds_frames(p / "checkpoint")), None)


def _given_actor(path: Path | None) -> Path | None:
    if _given(path, "--actor") is None or path is None or _is_actor(path):
        return path
    found = "a folder without any of them" if os.path.isdir(path) else "a file"
    raise FormatError(
        path,
        "the tracker's input/<actor> folder, with bbox.pt, kpt/, images/ or source/ in it",
        found,
        "What --actor names must be that folder itself.",
    )


def _parents(path: Path) -> list[Path]:
    """Folders above ``path``, nearest first, as it was given and with links followed.

    Those of a relative path are relative: messages name what is in them as a person would.
    """
    given = list(Path(os.path.abspath(path)).parents)[:_N_LEVELS_UP]
    real = list(Path(os.path.realpath(path)).parents)[:_N_LEVELS_UP]
    both = list(dict.fromkeys([*given, *real]))
    return both if os.path.isabs(path) else [Path(os.path.relpath(p)) for p in both]


def _find_config(output: Path, name: str, limits: Limits) -> TrackerConfig:
    """The tracker names its output folder after the yaml; look beside it and in configs/."""
    places = [b / sub for b in (output, *_parents(output)) for sub in ("", "configs",
              "configs/actors")]  # fmt: skip
    names = (f"{name}.yml", f"{name}.yaml")
    found = next((p / n for p in places for n in names if os.path.isfile(p / n)), None)
    return TrackerConfig() if found is None else read_config(found, limits)


def _stated_actors(config: TrackerConfig) -> list[Path]:
    """Where the yaml's ``actor`` can be: relative to any folder above the yaml."""
    if config.path is None or config.actor is None:
        return []
    places = [base / config.actor for base in _parents(config.path)]
    return [p for p in places if _is_actor(p)]


def _is_actor(folder: Path) -> bool:
    return any(os.path.exists(folder / entry) for entry in _ACTOR_ENTRIES)


def _find_actor(path: Path, output: Path, name: str, config: TrackerConfig) -> Path | None:
    """The actor folder: the one pointed at, the yaml's, one of the same name, the only one."""
    bases = _parents(output)
    candidates = [*_stated_actors(config), *(base / "input" / name for base in bases)]
    candidates += _only_actor(bases)
    # A folder above the .frame files is an actor folder only where everything lies together.
    above = Path(os.path.realpath(output)).is_relative_to(os.path.realpath(path))
    candidates = [*candidates, path, output] if above else [path, *candidates, output]
    return next((c for c in candidates if _is_actor(c)), None)


def _only_actor(bases: list[Path]) -> list[Path]:
    """The one actor folder of the nearest input/ that holds any; none if it holds several."""
    for base in bases:
        folders = [d for d in _Listing.of(base / "input").folders if _is_actor(d)]
        if folders:
            return folders if len(folders) == 1 else []
    return []


def _find_source(
    given: Path | None, actor: Path | None, findings: list[Finding]
) -> tuple[Path | None, Path | None]:
    """Return (source frames: folder or video, video)."""
    if given is not None and os.path.isdir(given) and not _holds_images(given):
        raise MissingInputError(given, "PNG or JPEG source frames", "none",
                                "--source is a folder of frames, or the video itself.")  # fmt: skip
    videos: list[Path] = []
    if actor is not None:
        names = sorted(e.name for e in scan_folder(actor))
        videos = [actor / n for n in names if n.lower().endswith(VIDEO_SUFFIXES)]
    video = next((v for v in videos if v.stem == "video"), videos[0] if len(videos) == 1 else None)
    if given is not None:
        return given, (given if os.path.isfile(given) else video)
    if actor is not None and _holds_images(actor / "source"):
        return actor / "source", video
    if video is None and videos:
        listed = ", ".join(v.name for v in videos[:5])
        findings.append(
            Finding("videos", "warning", str(actor), f"holds {len(videos)} videos ({listed}) and "
                    "none is named video.", fix="None is used; name the right one with --source.")
        )  # fmt: skip
    return video, video


def _holds_images(folder: Path) -> bool:
    if not os.path.isdir(folder):
        return False
    return any(e.name.lower().endswith(IMAGE_SUFFIXES) for e in scan_folder(folder))
