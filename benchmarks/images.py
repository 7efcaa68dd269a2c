"""Image throughput of a conversion against the bare decode + resize + encode of its frames.

Throughput is images per second of wall time, and that is what is judged. The ratio of CPU times is
shown beside it: where others use the machine, the two sides do not suffer alike.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2

from benchmarks.inputs import write_video_track
from benchmarks.measure import Cost, Row, Table, run_child, side_by_side, times
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


def run(folder: Path, quick: bool) -> Table:
    """Measure on a synthetic 1080p video."""
    n_frames, size = (8, (640, 360)) if quick else (300, (1920, 1080))
    truth = write_video_track(folder / "track", n_frames, size, size[1] // 2)
    assert truth.video is not None
    track = source("metrical_tracker").read(truth.folder, ReadOptions(hash_inputs=False))
    plan = make_plan(track, Options())
    canvas = plan.canvas.size
    out = folder / "images-out"
    ways: dict[str, Callable[[], object]] = {
        "our image stage (cut, JPEG, landmarks, hashes)": partial(_ours, plan, out),
        "bare decode + resize to the canvas + JPEG": partial(
            _bare, truth.video, n_frames, out, partial(_resize, canvas)
        ),
        "bare decode + cut + JPEG": partial(
            _bare, truth.video, n_frames, out, partial(_cut, canvas)
        ),
    }
    repetitions = 1 if quick else 5
    costs = side_by_side({name: partial(_clean, out, way) for name, way in ways.items()},
                         repetitions)  # fmt: skip
    bare = costs["bare decode + resize to the canvas + JPEG"]
    table = Table(f"Images of {n_frames} frames {Size(*size)} to {canvas}, {n_cores()} threads")
    for name, cost in costs.items():
        table.rows.append(_row(name, cost, bare, n_frames, judged=name.startswith("our")))
    whole = _whole_command(truth.folder, out, 1 if quick else 3)
    table.rows.append(_row("the whole command convert", whole, bare, n_frames, judged=False))
    return table


def _row(name: str, cost: Cost, bare: Cost, n_frames: int, *, judged: bool) -> Row:
    throughput = bare.wall_s / cost.wall_s
    return Row(
        name,
        cost.wall_s,
        cost.cpu_s,
        ""
        if cost is bare
        else f"{times(bare.wall_s, cost.wall_s)} the bare throughput; "
        f"by CPU {times(bare.cpu_s, cost.cpu_s)}",
        f">= {_SHARE}" if judged else "",
        throughput >= _SHARE if judged else None,
        f"{n_frames / cost.wall_s:.0f} images/s",
    )


def _clean(out: Path, way: Callable[[], object]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    way()


def _ours(plan: Plan, out: Path) -> None:
    write_images(plan, DatasetFolder(out), Options(), no_progress)


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


def _resize(size: Size, image: Image) -> Image:
    return cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_CUBIC)


def _cut(size: Size, image: Image) -> Image:
    return image[: size.height, : size.width]


def _whole_command(track: Path, out: Path, repetitions: int) -> Cost:
    costs = []
    for _ in range(repetitions):
        shutil.rmtree(out, ignore_errors=True)
        arguments = ["-m", "converter.cli.main", "convert", str(track)]
        arguments += ["--to", "gaussiantalker", "-o", str(out)]
        costs.append(run_child(arguments).cost)
    return min(costs, key=lambda cost: cost.wall_s)
