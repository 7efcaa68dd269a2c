"""Image throughput of a conversion against the bare decode + resize + encode of its frames.

Judged is the ratio of CPU times: where others use the machine, clock times do not suffer alike.
Both sides use as many threads, and the bare one resizes whole frames to the size of the canvas with
OpenCV's cubic interpolation. That one aliases where it shrinks: a canvas that shrinks the frames is
judged against INTER_AREA, OpenCV's own way to shrink, and the cubic figure stands beside it.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.inputs import write_video_track
from benchmarks.measure import Cost, Row, Table, run_child, side_by_side
from converter.geometry.pixels import Size
from converter.media.manifest import DatasetFolder
from converter.media.parallel import n_cores
from converter.registry import ReadOptions, no_progress, source
from converter.targets.gaussiantalker.dataset import write_images
from converter.targets.gaussiantalker.options import Options
from converter.targets.gaussiantalker.plan import Plan, make_plan
from converter.track import Image

_QUALITY = 95
_SHARE = 0.85
_REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "duda"


def run(folder: Path, quick: bool) -> Table:
    """Measure every canvas on a synthetic 1080p video, and on a real one where there is one."""
    n_frames, size = (8, (640, 360)) if quick else (150, (1920, 1080))
    truth = write_video_track(folder / "track", n_frames, size, size[1] // 2)
    repetitions = 1 if quick else 5
    out = folder / "images-out"
    table = Table(f"Images of a conversion, {n_cores()} threads")
    table.rows += _canvases(truth.folder, f"{n_frames} grainy frames {Size(*size)}", out,
                            repetitions)  # fmt: skip
    table.rows.append(_whole_command(truth.folder, n_frames, out, repetitions))
    if _REAL.is_dir() and not quick:
        table.rows += _canvases(_REAL, "real video 1920x1080", out, repetitions)
    return table


def _canvases(folder: Path, what: str, out: Path, repetitions: int) -> list[Row]:
    """Two rows for each canvas: our stage, and the bare loop to the same size."""
    track = source("metrical_tracker").read(folder, ReadOptions(hash_inputs=False))
    assert track.video is not None
    video, rows = track.video.locate(), []
    for canvas in ("full", "window", "padded", "crop"):
        options = Options(canvas=canvas)
        plan = make_plan(track, options)
        drawn = plan.canvas.size
        ways: dict[str, Callable[[], object]] = {
            f"{what}: {canvas} {drawn}": partial(_ours, plan, options, out),
            f"bare decode + resize to {drawn} + JPEG": partial(
                _bare, video, len(plan.positions), out, partial(_resize, drawn, cv2.INTER_CUBIC)
            ),
        }
        shrinks = float(np.max(plan.canvas.window.canvas_from_image.sx)) < 1
        if shrinks:
            ways[f"the same with INTER_AREA to {drawn}"] = partial(
                _bare, video, len(plan.positions), out, partial(_resize, drawn, cv2.INTER_AREA)
            )
        costs = side_by_side({name: partial(_clean, out, way) for name, way in ways.items()},
                             repetitions)  # fmt: skip
        ours, *others = costs.items()
        rows.append(_ours_row(*ours, others[-1][1], len(plan.positions)))
        rows += [_bare_row(name, cost, ours[1], len(plan.positions)) for name, cost in others]
    return rows


def _ours_row(name: str, cost: Cost, bare: Cost, n_frames: int) -> Row:
    enough = bare.cpu_s / cost.cpu_s >= _SHARE
    return Row(name, cost.wall_s, cost.cpu_s, _ratio(bare, cost), f">= {_SHARE}", enough,
               f"{n_frames / cost.wall_s:.0f} images/s")  # fmt: skip


def _bare_row(name: str, cost: Cost, ours: Cost, n_frames: int) -> Row:
    ratio = f"ours: {_ratio(cost, ours)}"
    return Row(name, cost.wall_s, cost.cpu_s, ratio, note=f"{n_frames / cost.wall_s:.0f} images/s")


def _ratio(bare: Cost, ours: Cost) -> str:
    return f"{bare.cpu_s / ours.cpu_s:.2f} by CPU, {bare.wall_s / ours.wall_s:.2f} by clock"


def _clean(out: Path, way: Callable[[], object]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    way()


def _ours(plan: Plan, options: Options, out: Path) -> None:
    write_images(plan, DatasetFolder(out), options, no_progress)


def _bare(video: Path, n_frames: int, out: Path, place: Callable[[Image], Image]) -> None:
    """Decode in this thread (libav adds its own), place, encode and write in a pool."""
    import av

    def work(index: int, image: Image) -> None:
        encoded = cv2.imencode(".jpg", place(image), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        (out / f"{index}.jpg").write_bytes(encoded.tobytes())

    workers = n_cores()
    with av.open(str(video)) as container, ThreadPoolExecutor(workers) as pool:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        pending = deque()
        for index, frame in enumerate(container.decode(stream)):
            if index == n_frames:
                break
            pending.append(pool.submit(work, index, frame.to_ndarray(format="bgr24")))
            if len(pending) > workers + 1:
                pending.popleft().result()
        while pending:
            pending.popleft().result()


def _resize(size: Size, interpolation: int, image: Image) -> Image:
    return cv2.resize(image, (size.width, size.height), interpolation=interpolation)


def _whole_command(track: Path, n_frames: int, out: Path, repetitions: int) -> Row:
    costs = []
    for _ in range(repetitions):
        shutil.rmtree(out, ignore_errors=True)
        arguments = ["-m", "converter.cli.main", "convert", str(track)]
        arguments += ["--to", "gaussiantalker", "-o", str(out)]
        costs.append(run_child(arguments).cost)
    cost = min(costs, key=lambda cost: cost.wall_s)
    note = f"{n_frames / cost.wall_s:.0f} images/s"
    return Row("the whole command convert, canvas full", cost.wall_s, cost.cpu_s, note=note)
