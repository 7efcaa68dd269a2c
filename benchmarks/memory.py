"""Peak memory of a conversion, short and long."""

from __future__ import annotations

from pathlib import Path

from benchmarks.inputs import write_video_track
from benchmarks.measure import Row, Table, run_child

_FLAT = 1.15


def run(folder: Path, quick: bool) -> Table:
    """Convert the same loop of pictures once short and once ten times as long."""
    size, crop_size = ((320, 180), 64) if quick else ((1280, 720), 256)
    lengths = (10, 20) if quick else (200, 2000)
    table = Table(f"Peak memory of convert --to gaussiantalker, {size[0]}x{size[1]}")
    peaks: list[int] = []
    for n_frames in lengths:
        track = folder / f"memory-{n_frames}"
        write_video_track(track, n_frames, size, crop_size, loop=10 if quick else 50)
        child = run_child(
            ["-m", "benchmarks.peak", "convert", str(track), "--to", "gaussiantalker"]
            + ["-o", str(folder / f"memory-out-{n_frames}")]
        )
        peaks.append(child.peak_bytes)
        ratio = peaks[-1] / peaks[0]
        judged = len(peaks) > 1
        table.rows.append(
            Row(
                f"{n_frames} frames",
                child.cost.wall_s,
                child.cost.cpu_s,
                f"{ratio:.2f}x the memory" if judged else "",
                f"<= {_FLAT}" if judged else "",
                ratio <= _FLAT if judged else None,
                f"{peaks[-1] / 2**20:.0f} MiB",
            )
        )
    return table
