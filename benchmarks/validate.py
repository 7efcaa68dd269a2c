"""Validating many tracks, and a long one: throughput, what the time goes into, and memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.inputs import write_video_track
from benchmarks.measure import Cost, Row, Table, run_child, side_by_side, times
from converter.batch.discover import Found
from converter.batch.executors import LocalProcesses
from converter.batch.run import validate_many
from converter.media.torch_series import TorchSeries
from converter.registry import ReadOptions, detect_source
from converter.sources.metrical_tracker.payload import frame_from
from converter.validation.catalogue import CATALOGUE
from converter.validation.report import Report
from converter.validation.validate import ValidateOptions, validate

_READ = ReadOptions(hash_inputs=False)
_OPTIONS = ValidateOptions(_READ)
_MOST_TIMES_READING = 1.5


def run(folder: Path, quick: bool) -> Table:
    """Write one short track and one long one; validate the short one many times over.

    Reading it again and again keeps its files in the page cache: this measures the program.
    """
    n_tracks, n_frames, n_long = (4, 10, 20) if quick else (200, 200, 5000)
    size, crop_size, loop = (320, 180), 128, 10 if quick else 50
    short, long = folder / "short", folder / "long"
    write_video_track(short, n_frames, size, crop_size, loop)
    write_video_track(long, n_long, size, crop_size, loop)
    table = Table(f"validate: {n_tracks} tracks of {n_frames} frames; one of {n_long}")
    table.rows += _many(short, n_tracks)
    table.rows += _parts(short, 1 if quick else 10)
    table.rows += _long(long, n_long, 1 if quick else 3)
    table.rows += [_memory(short, n_frames), _memory(long, n_long)]
    return table


def _many(track: Path, n_tracks: int) -> list[Row]:
    """The same tracks with one worker process, and with two."""
    found = [Found(track)] * n_tracks
    rows: list[Row] = []
    costs: dict[int, Cost] = {}
    for n_workers in (1, 2):
        costs[n_workers] = _cost(
            lambda n=n_workers: validate_many(found, _OPTIONS, LocalProcesses(n))  # type: ignore[misc]
        )
        cost = costs[n_workers]
        against = f"{times(costs[1].wall_s, cost.wall_s)} one process" if n_workers > 1 else ""
        rows.append(
            Row(
                f"{n_tracks} tracks, {n_workers} worker process{'es' * (n_workers > 1)}",
                cost.wall_s, cost.cpu_s, against,
                note=f"{n_tracks / cost.wall_s:.1f} tracks/s; {n_tracks / cost.cpu_s:.1f} for each "
                f"CPU second; load {os.getloadavg()[0]:.0f}",
            )
        )  # fmt: skip
    return rows


def _cost(way: Callable[[], object]) -> Cost:
    """Wall and CPU time, that of worker processes included."""
    wall, cpu = time.perf_counter(), _cpu_s()
    way()
    return Cost(time.perf_counter() - wall, _cpu_s() - cpu)


def _cpu_s() -> float:
    ours, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime


def _parts(track: Path, repetitions: int) -> list[Row]:
    """One track: the share of reading, and what a check costs."""
    reports: list[Report] = []
    cost = side_by_side(
        {"one track": lambda: reports.append(validate(track, _OPTIONS))}, repetitions
    )["one track"]
    report = min(reports, key=lambda r: r.seconds)
    share = report.reading_seconds / report.seconds
    n_checks = sum(r.status != "skipped" for r in report.results)
    one_more = cost.cpu_s * (1 - share) / n_checks
    return [
        Row("one track", cost.wall_s, cost.cpu_s, note=f"{len(CATALOGUE)} checks known"),
        Row("of that, reading", report.reading_seconds, None, f"{share:.0%} of the time"),
        Row("one more check, on average", None, one_more, f"{one_more / cost.cpu_s:.1%} of the "
            "time", note=f"the rest of the time, over the {n_checks} checks that ran"),
    ]  # fmt: skip


def _long(track: Path, n_frames: int, repetitions: int) -> list[Row]:
    """A long track: all of validation, against reading its frames."""
    paths = sorted((track / "output" / "bench" / "checkpoint").glob("*.frame"))
    series = "TorchSeries and frame_from"
    ways: dict[str, Callable[[], object]] = {
        f"read {n_frames} .frame files ({series})": lambda: _read_frames(paths),
        "read the track (convert's reader)": lambda: detect_source(track).read(track, _READ),
        "validate the track": lambda: validate(track, _OPTIONS),
        "validate the track, with what --html shows": lambda: validate(
            track, ValidateOptions(_READ, illustrate=True)
        ),
    }
    costs = side_by_side(ways, repetitions)
    frames, reader, *_ = costs.values()
    rows = []
    for name, cost in costs.items():
        ratio = ""
        if cost is not frames:
            ratio = f"{cost.alone_s / frames.alone_s:.2f}x the frames"
        if name.startswith("validate"):
            ratio += f"; {cost.alone_s / reader.alone_s:.2f}x the reader"
        judged = name == "validate the track"
        rows.append(
            Row(name, cost.wall_s, cost.cpu_s, ratio,
                f"about the reader (<= {_MOST_TIMES_READING}x)" if judged else "",
                cost.alone_s <= _MOST_TIMES_READING * reader.alone_s if judged else None,
                f"{cost.alone_s / n_frames * 1e6:.0f} us a frame")
        )  # fmt: skip
    return rows


def _read_frames(paths: list[Path]) -> None:
    series = TorchSeries()
    for path in paths:
        frame_from(series.read(path), path)


def _memory(track: Path, n_frames: int) -> Row:
    child = run_child(["-m", "benchmarks.peak", "validate", str(track), "--quiet"])
    return Row(
        f"uncrop validate, {n_frames} frames", child.cost.wall_s, child.cost.cpu_s,
        note=f"peak memory {child.peak_bytes / 2**20:.0f} MiB",
    )  # fmt: skip
