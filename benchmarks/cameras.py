"""Cameras of a whole track: from the bundle, and from the frames it was made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.inputs import write_frames
from benchmarks.measure import Row, Table, side_by_side, times
from converter.bundle.read import read_bundle, read_cameras
from converter.bundle.write import write_bundle
from converter.registry import ReadOptions, source
from converter.track import Track

_MILLISECONDS = 0.010


def run(folder: Path, quick: bool) -> Table:
    """Measure both ways on the same track, with landmarks as a real one has."""
    n_frames = 50 if quick else 5000
    checkpoint = folder / "cameras" / "checkpoint"
    checkpoint.parent.mkdir()
    write_frames(checkpoint, n_frames)
    bundle = folder / "cameras.h5"
    write_bundle(_with_landmarks(_from_frames(checkpoint)), bundle)
    costs = side_by_side(
        {
            "K, R and t out of the bundle (h5py)": lambda: _cameras(bundle),
            "read_cameras: checked": lambda: read_cameras(bundle),
            "read_bundle: the whole record": lambda: read_bundle(bundle),
            "the track's .frame files": lambda: _from_frames(checkpoint),
        },
        2 if quick else 5,
    )
    plain, cameras, record, frames = costs.values()
    table = Table(f"Cameras of {n_frames} frames")
    for name, cost in costs.items():
        is_cameras = cost in (plain, cameras)
        table.rows.append(
            Row(
                name,
                cost.wall_s,
                cost.cpu_s,
                "" if cost is frames else f"{times(frames.alone_s, cost.alone_s)} the frames",
                f"{_MILLISECONDS * 1000:.0f} ms" if is_cameras else "",
                cost.alone_s < _MILLISECONDS if is_cameras else None,
                f"{bundle.stat().st_size / 1e6:.1f} MB" if cost is record else "",
            )
        )
    return table


def _from_frames(checkpoint: Path) -> Track:
    options = ReadOptions(hash_inputs=False)
    return source("metrical_tracker").read(checkpoint, options)


def _cameras(bundle: Path) -> list[np.ndarray]:
    """Read the cameras as any program does that knows HDF5."""
    import h5py

    with h5py.File(bundle) as file:
        return [file[f"camera/{name}"][...] for name in ("R", "t", "K_crop")]


def _with_landmarks(track: Track) -> Track:
    points = np.random.default_rng(0).integers(0, 512, (len(track), 68, 2)) + 0.5
    return replace(track, landmarks=points)
