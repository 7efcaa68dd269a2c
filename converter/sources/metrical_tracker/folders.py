"""Finding a track's files, whatever part of it a person points at.

The tracker's tree (paths in its yaml are relative to where it was run)::

    input/<actor>/        video.mp4  source/  images/  kpt/  kpt_dense/  bbox.pt  identity.npy
    output/<yaml stem>/   checkpoint/00000.frame  input/00000.png  mesh/00000.ply  depth/ ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.errors import FormatError, MissingInputError
from converter.media.files import read_bytes
from converter.media.images import list_images
from converter.media.limits import Limits
from converter.registry import ReadOptions

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
_ACTOR_ENTRIES = ("bbox.pt", "kpt", "kpt_dense", "images", "source")
_SEARCH_DEPTH = 4
_YAML_BYTES = 64 * 1024


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
    source
        Folder of source frames, or the video.
    video
        The video, for its sound track, even when a folder of source frames is used.
    config
        The tracker's yaml, as far as it is plain values.

    """

    name: str
    checkpoint: Path
    output: Path
    actor: Path | None = None
    bbox: Path | None = None
    source: Path | None = None
    video: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    config_path: Path | None = None


def find_folders(path: Path, options: ReadOptions) -> TrackFolders:
    """Find a track from its output, checkpoint or actor folder, or a parent of both.

    Raises
    ------
    FormatError
        If there is no track, or more than one.
    MissingInputError
        If a folder or file that the user named is not there.

    """
    checkpoint = find_checkpoint(path)
    output = checkpoint.parent if checkpoint.name == "checkpoint" else checkpoint
    name = output.resolve().name
    config_path = _find_config(output, name)
    config = _read_config(config_path, options.limits) if config_path else {}
    actor = _given(options.actor, "--actor") or _find_actor(path, output, name, config, config_path)
    bbox = _given(options.bbox, "--bbox")
    if bbox is None and actor is not None and (actor / "bbox.pt").is_file():
        bbox = actor / "bbox.pt"
    source, video = _find_source(_given(options.source, "--source"), actor)
    return TrackFolders(name, checkpoint, output, actor, bbox, source, video, config, config_path)


def holds_frames(folder: Path) -> bool:
    """Whether a folder holds .frame files."""
    return folder.is_dir() and any(True for _ in folder.glob("*.frame"))


def looks_like_track(path: Path) -> bool:
    """Whether a track can be found from ``path``, by names only."""
    if path.is_file():
        return path.suffix == ".frame"
    return next(_checkpoints(path), None) is not None


def find_checkpoint(path: Path) -> Path:
    """Return the one folder of .frame files that ``path`` means; raises as `find_folders`."""
    found = list(dict.fromkeys(_checkpoints(path)))
    if len(found) == 1:
        return found[0]
    if not found:
        raise FormatError(
            path,
            "a folder with .frame files (the tracker's output/<name>/checkpoint)",
            "none",
            "Give the tracker's output folder, or a parent of it.",
        )
    listed = ", ".join(str(p.relative_to(path)) if p.is_relative_to(path) else str(p)
                       for p in sorted(found)[:5])  # fmt: skip
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise FormatError(path, "one track", f"{len(found)}: {listed}{more}", "Name one of them.")


def _checkpoints(path: Path) -> Iterator[Path]:
    """Candidate folders of .frame files: exact places first, a search below or beside last."""
    if path.is_file() and path.suffix == ".frame":
        yield path.parent
        return
    for folder in (path, path / "checkpoint"):
        if holds_frames(folder):
            yield folder
            return
    if any((path / entry).exists() for entry in _ACTOR_ENTRIES):
        # The actor folder: the output of the same name lies beside the tracker's input/.
        for base in list(path.resolve().parents)[:3]:
            beside = base / "output" / path.resolve().name / "checkpoint"
            if holds_frames(beside):
                yield beside
                return
    yield from _search(path, _SEARCH_DEPTH)


def _search(folder: Path, depth: int) -> Iterator[Path]:
    """Folders of .frame files below ``folder``; folders full of images are not entered."""
    if depth == 0 or not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.is_symlink() or entry.name.startswith("."):
            continue
        if holds_frames(entry):
            yield entry
        elif entry.name not in ("images", "source", "kpt", "kpt_dense", "mesh", "depth"):
            yield from _search(entry, depth - 1)


def _given(path: Path | None, option: str) -> Path | None:
    if path is not None and not path.exists():
        raise MissingInputError(path, f"what {option} names", "nothing")
    return path


def _find_config(output: Path, name: str) -> Path | None:
    """The tracker names its output folder after the yaml; look beside it and in configs/."""
    bases = [output, *list(output.resolve().parents)[:3]]
    places = [b / sub for b in bases for sub in (".", "configs", "configs/actors")]
    names = (f"{name}.yml", f"{name}.yaml")
    return next((p / n for p in places for n in names if (p / n).is_file()), None)


def _read_config(path: Path, limits: Limits) -> dict[str, Any]:
    import yaml

    data = read_bytes(path, limits)
    if len(data) > _YAML_BYTES:
        raise FormatError(path, f"a yaml of at most {_YAML_BYTES} bytes", f"{len(data)}")
    try:
        loaded = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(path, "yaml", found) from None
    plain = (str, int, float, bool, list)
    if not isinstance(loaded, dict):
        return {}
    return {str(k): v for k, v in loaded.items() if isinstance(v, plain)}


def _is_actor(folder: Path) -> bool:
    return folder.is_dir() and any((folder / entry).exists() for entry in _ACTOR_ENTRIES)


def _find_actor(
    path: Path, output: Path, name: str, config: dict[str, Any], config_path: Path | None
) -> Path | None:
    """The actor folder: the yaml's, the one pointed at, the one of the same name, the only one."""
    bases = list(output.resolve().parents)[:3]
    candidates: list[Path] = [path, path.parent] if path.is_dir() else []
    actor = config.get("actor")
    if isinstance(actor, str) and config_path is not None and "\0" not in actor:
        candidates += [base / actor for base in list(config_path.resolve().parents)[:4]]
    candidates += [base / "input" / name for base in bases]
    candidates += [output]
    named = next((c for c in candidates if _is_actor(c) and c != output / "input"), None)
    if named is not None:
        return named
    for base in bases:
        folders = [d for d in sorted((base / "input").glob("*")) if _is_actor(d)]
        if len(folders) == 1:
            return folders[0]
    return None


def _find_source(given: Path | None, actor: Path | None) -> tuple[Path | None, Path | None]:
    """Return (source frames: folder or video, video)."""
    if given is not None and given.is_dir() and not list_images(given):
        raise MissingInputError(given, "PNG or JPEG source frames", "none")
    videos = (
        [p for p in sorted(actor.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES]
        if actor is not None
        else []
    )
    video = next((v for v in videos if v.stem == "video"), videos[0] if len(videos) == 1 else None)
    if given is not None:
        return given, (given if given.is_file() else video)
    if actor is not None and list_images(actor / "source"):
        return actor / "source", video
    return video, video
