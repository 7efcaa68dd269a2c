"""Converting many tracks: one output each, and one that is refused does not end the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from converter import registry
from converter.batch import NAME
from converter.batch.discover import Found
from converter.batch.executors import Executor, Failure
from converter.errors import FormatError, UncropError
from converter.findings import Finding
from converter.media.atomic import require_free
from converter.media.manifest import MANIFEST, read_json
from converter.registry import Progress, ReadOptions, Written, no_progress


@dataclass(frozen=True, slots=True)
class Converted:
    """What converting one track gave: what was written, and what was found while reading."""

    written: Written
    findings: tuple[Finding, ...]
    steps: tuple[str, ...]


Conversion: TypeAlias = Converted | Failure


@dataclass(frozen=True, slots=True)
class ConvertJob:
    """What is the same for all tracks: the target by name, its options, and how to read."""

    to: str
    options: Any
    read: ReadOptions
    overwrite: bool = False
    dry_run: bool = False


def without_datasets(tracks: Sequence[Found]) -> list[Found]:
    """Leave out the folders that uncrop wrote for trainers, such as an earlier run's outputs."""
    return [found for found in tracks if not _is_dataset(found.path)]


def _is_dataset(path: Path) -> bool:
    manifest = path / MANIFEST
    if not manifest.is_file():
        return False
    try:
        return read_json(manifest).get("target") not in registry.names("sources")
    except UncropError:
        return True


def named_places(tracks: Sequence[Found], pattern: Path) -> list[Path]:
    """Put each track's name into ``pattern``; tracks of one name are told apart by their folders.

    A track is called like its folder or its bundle: ``output/ada`` is ``ada``.

    Raises
    ------
    FormatError
        If two tracks would still share an output.

    """
    names = [_name(found) for found in tracks]
    twins = {name for name, n in Counter(names).items() if n > 1}
    if twins:
        paths = [os.path.abspath(found.path) for found in tracks]
        top = os.path.commonpath([os.path.dirname(path) for path in paths])
        longer = [os.path.relpath(path, top).replace(os.sep, "_") for path in paths]
        names = [long if name in twins else name for name, long in zip(names, longer, strict=True)]
    shared = [name for name, n in Counter(names).items() if n > 1]
    if shared:
        raise FormatError(pattern, "a name for each track", f"several that become {shared[0]}",
                          "Convert them one after the other.")  # fmt: skip
    return [Path(str(pattern).replace(NAME, name)) for name in names]


def _name(found: Found) -> str:
    path = Path(os.path.abspath(found.path))
    return path.stem if path.is_file() else path.name


def convert_many(
    tracks: Sequence[Found],
    places: Sequence[Path],
    job: ConvertJob,
    executor: Executor,
    progress: Progress = no_progress,
) -> dict[int, Conversion]:
    """Convert every track; an interrupt (Ctrl-C) keeps what is done, and what is whole.

    Parameters
    ----------
    tracks, places
        What to convert, and where each goes.
    job
        How.
    executor
        Where the work is done.
    progress
        Called after every track, as ``progress("tracks", done, total)``.

    Returns
    -------
    dict
        Position of the track -> outcome; some are missing if the run was interrupted.

    """
    done: dict[int, Conversion] = {}
    items = list(zip(tracks, places, strict=True))
    try:
        with closing(executor.run(partial(_convert, job=job), items)) as outcomes:
            for position, outcome in outcomes:
                done[position] = outcome
                progress("tracks", len(done), len(tracks))
    except KeyboardInterrupt:
        pass
    return dict(sorted(done.items()))


def _convert(item: tuple[Found, Path], job: ConvertJob) -> Converted:
    found, out = item
    read = job.read
    if found.actor is not None and read.actor is None:
        read = replace(read, actor=found.actor)
    target = registry.target(job.to)
    require_free(out, job.overwrite, MANIFEST)
    track = registry.detect_source(found.path).read(found.path, read)
    if job.dry_run:
        target.require(track, job.options)
        written = Written(out, ("dry run: everything needed is there",))
    else:
        written = target.write(
            track, out, job.options, overwrite=job.overwrite, progress=no_progress
        )
    return Converted(written, track.findings, track.provenance.steps)
