"""Mending many tracks: a corrected copy for each that has something with one right answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from converter.batch.discover import Found
from converter.batch.executors import Executor, Failure
from converter.registry import Progress, ReadOptions, no_progress
from converter.validation.fix import FixResult, fix
from converter.validation.report import Report

FIXABLE = "metrical_tracker"
"""The format that `converter.validation.fix` writes."""

Fixed: TypeAlias = FixResult | Failure


def copy_places(tracks: Sequence[Found], out: Path) -> list[Path]:
    """Where each copy goes: ``out`` for one track, the tracks' own tree below ``out`` for several.

    Different tracks never share a place, whatever their names are.
    """
    if len(tracks) == 1:
        return [out]
    paths = [os.path.abspath(found.path) for found in tracks]
    top = os.path.commonpath(paths)
    # One of them may hold the others: then it goes into a folder of its own name.
    above = os.path.dirname(top) if top in paths else top
    return [out / os.path.relpath(path, above) for path in paths]


def fix_many(
    tracks: Sequence[Found],
    reports: Sequence[Report],
    out: Path,
    options: ReadOptions,
    executor: Executor,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> dict[int, Fixed]:
    """Write corrected copies of the tracks with warnings or errors; returns position -> outcome.

    Parameters
    ----------
    tracks, reports
        What was validated, and what was found, in the same order.
    out
        As `copy_places` takes it.
    options
        What the user says about the tracks.
    executor
        Where the work is done.
    overwrite
        Replace earlier copies that nobody has changed.
    progress
        Called after every track, as ``progress("copies", done, total)``.

    """
    places = copy_places(tracks, out)
    wanted = [k for k, r in enumerate(reports)
              if r.format == FIXABLE and r.worst in ("error", "warning")]  # fmt: skip
    fixed: dict[int, Fixed] = {}
    items = [(tracks[k], places[k]) for k in wanted]
    with closing(executor.run(partial(_fix, options=options, overwrite=overwrite), items)) as done:
        for number, outcome in done:
            fixed[wanted[number]] = outcome
            progress("copies", len(fixed), len(wanted))
    return dict(sorted(fixed.items()))


def _fix(item: tuple[Found, Path], options: ReadOptions, overwrite: bool) -> FixResult:
    found, place = item
    if found.actor is not None and options.actor is None:
        options = replace(options, actor=found.actor)
    return fix(found.path, place, options, overwrite=overwrite)
