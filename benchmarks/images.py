"""Image throughput of a conversion against the bare decode + resize + encode of its frames.

Judged is the ratio of CPU times: where others use the machine, clock times do not suffer alike.
Both sides use as many threads, and the bare one resizes whole frames to the size of the canvas with
OpenCV's cubic interpolation. That one aliases where it shrinks: a canvas that shrinks the frames is
judged against INTER_AREA, OpenCV's own way to shrink, and the cubic figure stands beside it.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
    assert track.source_indices is not None
    video, rows = track.video.locate(), list[Row]()
    for canvas in ("full", "window", "padded", "crop"):
        options = Options(canvas=canvas)
        plan = make_plan(track, options)
        drawn = plan.canvas.size
        shown = track.source_indices[plan.positions]
        numbers = range(int(shown[0]), int(shown[-1]) + 1)
        ways: dict[str, Callable[[], object]] = {
            f"{what}: {canvas} {drawn}": partial(_ours, plan, options, out),
            f"bare decode + resize to {drawn} + JPEG": partial(
                _bare, video, numbers, out, partial(_resize, drawn, cv2.INTER_CUBIC)
            ),
        }
        shrinks = float(np.max(plan.canvas.window.canvas_from_image.sx)) < 1
        if shrinks:
            ways[f"the same with INTER_AREA to {drawn}"] = partial(
                _bare, video, numbers, out, partial(_resize, drawn, cv2.INTER_AREA)
            )
        costs = side_by_side({name: partial(clean, out, way) for name, way in ways.items()},
                             repetitions)  # fmt: skip
        rows += beside(costs, len(plan.positions))
    return rows


def beside(costs: Mapping[str, Cost], n_frames: int) -> list[Row]:
    """Rows of our way, the first, and of the bare ones; judged against the last of them."""
    (name, ours), *others = costs.items()
    bare = others[-1][1]
    enough = bare.cpu_s / ours.cpu_s >= _SHARE
    return [
        Row(name, ours.wall_s, ours.cpu_s, _ratio(bare, ours), f">= {_SHARE}", enough,
            _rate(ours, n_frames)),
        *(Row(n, c.wall_s, c.cpu_s, f"ours: {_ratio(c, ours)}", note=_rate(c, n_frames))
          for n, c in others),
    ]  # fmt: skip


def _rate(cost: Cost, n_frames: int) -> str:
    return f"{n_frames / cost.wall_s:.0f} images/s"


def _ratio(bare: Cost, ours: Cost) -> str:
    return f"{bare.cpu_s / ours.cpu_s:.2f} by CPU, {bare.wall_s / ours.wall_s:.2f} by clock"


def clean(out: Path, way: Callable[[], object]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    way()


def _ours(plan: Plan, options: Options, out: Path) -> None:
    write_images(plan, DatasetFolder(out), options, no_progress)


def _bare(video: Path, numbers: range, out: Path, place: Callable[[Image], Image]) -> None:
    """Decode in this thread (libav adds its own), place, encode and write in a pool.

    ``numbers`` are those of the frames; the video's rate is that of the track.
    """
    import av

    def work(index: int, image: Image) -> None:
        encoded = cv2.imencode(".jpg", place(image), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        (out / f"{index}.jpg").write_bytes(encoded.tobytes())

    workers = n_cores()
    with av.open(str(video)) as container, ThreadPoolExecutor(workers) as pool:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        pending: deque[Future[None]] = deque()
        for index, frame in enumerate(container.decode(stream)):
            if index == numbers.stop:
                break
            if index not in numbers:
                continue
            pending.append(pool.submit(work, index, frame.to_ndarray(format="bgr24")))
            if len(pending) > workers + 1:
                pending.popleft().result()
        while pending:
            pending.popleft().result()


def _resize(size: Size, interpolation: int, image: Image) -> Image:
    return np.asarray(
        cv2.resize(image, (size.width, size.height), interpolation=interpolation), np.uint8
    )


def _whole_command(track: Path, n_frames: int, out: Path, repetitions: int) -> Row:
    costs = []
    for _ in range(repetitions):
        shutil.rmtree(out, ignore_errors=True)
        arguments = ["-m", "converter.cli.main", "convert", str(track)]
        arguments += ["--to", "gaussiantalker", "-o", str(out)]
        costs.append(run_child(arguments).cost)
    cost = min(costs, key=lambda cost: cost.wall_s)
    return Row("the whole command convert, canvas full", cost.wall_s, cost.cpu_s,
               note=_rate(cost, n_frames))  # fmt: skip
