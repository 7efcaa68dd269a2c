"""Reading .frame files: ours, torch.load both ways, and the bytes alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.inputs import write_frames
from benchmarks.measure import Row, Table, side_by_side, times
from converter.media.torch_series import TorchSeries
from converter.media.torchfile import read_torch
from converter.sources.metrical_tracker.payload import frame_from


def run(folder: Path, quick: bool) -> Table:
    """Measure; torch's rows are skipped where it is not installed."""
    paths = write_frames(folder / "frames", 50 if quick else 5000)
    n_bytes = sum(p.stat().st_size for p in paths) / len(paths)
    table = Table(f"Read {len(paths)} .frame files of {n_bytes / 1000:.1f} kB")
    ways: dict[str, Callable[[], object]] = {
        "bytes only (the floor)": lambda: _each(Path.read_bytes, paths),
        "TorchSeries: contents": lambda: _each(TorchSeries().read, paths),
        "TorchSeries and frame_from: contents, checked": lambda: _checked(paths),
        "read_torch: contents, each file by itself": lambda: _each(read_torch, paths),
    }
    rivals = _torch_ways(paths)
    costs = side_by_side({**ways, **rivals}, 1 if quick else 5)
    for name, cost in costs.items():
        ours = not name.startswith(("bytes", "torch"))
        # A file by itself is what `uncrop inspect` reads; tracks are read as series.
        judged = name.startswith("TorchSeries") and bool(rivals)
        fastest = min((costs[rival].alone_s for rival in rivals), default=0.0)
        table.rows.append(
            Row(
                name,
                cost.wall_s,
                cost.cpu_s,
                "; ".join(
                    f"{times(costs[rival].alone_s, cost.alone_s)} {_short(rival)}"
                    for rival in rivals
                )
                if ours
                else "",
                "faster than both" if judged else "",
                cost.alone_s < fastest if judged else None,
                f"{cost.alone_s / len(paths) * 1e6:.0f} us a file",
            )
        )
    if not rivals:
        table.rows.append(Row("torch.load", note="skipped: torch is not installed"))
    return table


def _short(rival: str) -> str:
    return "unsafe" if "False" in rival else "weights_only"


def _each(read: Callable[[Path], object], paths: list[Path]) -> None:
    for path in paths:
        read(path)


def _checked(paths: list[Path]) -> None:
    series = TorchSeries()
    for path in paths:
        frame_from(series.read(path), path)


def _torch_ways(paths: list[Path]) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}

    def allowed() -> None:
        with torch.serialization.safe_globals(_allow_list()):
            _each(lambda p: torch.load(p, weights_only=True), paths)

    return {
        "torch.load(weights_only=False)": lambda: _each(
            lambda p: torch.load(p, weights_only=False), paths
        ),
        "torch.load(weights_only=True), numpy allowed": allowed,
    }


def _allow_list() -> list[Any]:
    """The names that arrays of numpy 1 and 2 need."""
    import numpy as np

    try:
        from numpy._core.multiarray import _reconstruct
    except ImportError:
        from numpy.core.multiarray import _reconstruct  # type: ignore[no-redef]
    return [
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        (_reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.int64)),
    ]
