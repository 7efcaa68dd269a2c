"""Crops of two boxes in one folder: which frames have which.

A tracker run that is completed later estimates the box anew from the first frame it finds missing
(metrical-tracker, generate_dataset.py:61-68), so the second box may lie anywhere in the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Size
from fitting.crop.checker import Checked
from fitting.crop.mapping import Mapping
from fitting.crop.sequences import Crops, spread
from fitting.crop.solver import Refusal, Solver

_N_LABELLED = 12
_N_SHOWN = 3
_N_SAMPLES, _N_STRIPS = 24, 160
"""How many crops are looked at where each has to be decoded, and where its upper rows are cheap."""
_FEW_CHANGES, _MANY_CHANGES = 12, 40
_WIDTH, _SHORT, _PARTS = 128, 128, (4, 8)
"""Of a strip, px; up to how many crops a track is short; and which part of a crop's height is read
where it is, and where it is long."""
_FLAT = 3.0
"""Deviation, grey levels, of rows that show nothing: padding, or a matte above the head."""
_MIN_PAUSE_S = 60.0
_LONG_PAUSE = 50.0
_MAX_PAUSES = 4
_MORE, _BEYOND_NOISE, _MIN_MOVED = 2.0, 3.0, 0.05
"""A change of boxes moves the picture so much more than nine in ten frames do (of few, three in
four), or, where noise moves all alike, lies so much farther from the middle one; strips' px."""
_MUCH_MORE, _MIN_CHANGE = 6.0, 1e-4
"""By how much a file has to differ in size from the one before: of usual changes, and at least."""
_FLAT_SHARE, _STILL_PERCENT = 0.7, 35
"""Share of the pixels that are no edges, and which of what the others moved by is taken."""
_MIN_SHOWN, _USUAL_DEVIATION = 1 / 32, 50.0
_BLOCK, _BLUR_PX, _NOISE, _MIN_TEXTURE, _MIN_BLOCKS = 8, 0.8, 4.0, 8.0, 4
"""Side of the blocks whose motion is estimated, and of what softens them, px; squared slopes per
pixel that noise makes, and that a block must have; and how many have to."""
_REACH, _STEADY_PERCENT = 3, 20
"""Frames before and after that a motion is held against; which of the blocks' is taken."""


def name_two_boxes(solver: Solver, one: Checked, other: Checked, picks: Sequence[int]) -> Refusal:
    """Say which frames were cut by which of two boxes, by bisection between frames that differ."""
    boxes = [one.crops[0].bbox, other.crops[0].bbox]
    mappings = [Mapping.of_crop(one.crops[0]), Mapping.of_crop(other.crops[0])]
    labels = {one.pair.index: 0, other.pair.index: 1}

    def found(index: int) -> int:
        for k, checked in enumerate((one, other)):
            if solver.is_numbered and solver.stands_still(checked.pair, mappings[k], index):
                return k  # its own source frame need not be read
        pair = solver.pair(index, solver.guess(index))
        return int(pair.similarity(mappings[1]) > pair.similarity(mappings[0]))

    def label(index: int) -> int:
        index = index if index in labels else solver.with_source(index)
        if index not in labels:
            labels[index] = found(index)
        return labels[index]

    n_crops = len(solver.crops)
    known = sorted({*labels, *spread(n_crops, _N_LABELLED), *picks[:_N_LABELLED]})
    starts = [0]
    for low, high in zip(known, known[1:], strict=False):
        if label(low) != label(high):
            starts.append(_change(low, high, label))
    ends = [*(start - 1 for start in starts[1:]), n_crops - 1]
    runs: list[list[str]] = [[], []]
    for start, end in zip(starts, ends, strict=True):
        names = solver.crops.name(start), solver.crops.name(end)
        runs[label(start)].append(names[0] if start == end else f"{names[0]} to {names[1]}")
    order = (label(0), 1 - label(0))
    said = [f"{boxes[k]} cut {_listed(runs[k])}" for k in order]
    return Refusal(
        "two-boxes",
        f"the folder holds crops of two boxes: {said[0]}, {said[1]} (the changes were found by "
        "bisection)",
    )


def _change(low: int, high: int, label: Callable[[int], int]) -> int:
    """First frame after ``low`` that is labelled as ``high`` is."""
    while high - low > 1:
        middle = (low + high) // 2
        if label(middle) == label(low):
            low = middle
        else:
            high = middle
    return high


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _N_SHOWN} more runs" if len(names) > _N_SHOWN else ""
    return " and ".join(names[:_N_SHOWN]) + more


# --- where to look ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strips:
    """The same rows of crops spread over the track, from the first that show something.

    Attributes
    ----------
    rows
        Those of a crop, px.
    images
        (32 or 16, 128) grey levels of each crop, by position.

    """

    rows: slice
    images: dict[int, NDArray[np.float32]]


def read_strips(crops: Crops, index: int) -> Strips:
    """Read for `suspicious` what all crops, or many, show above and beside the head.

    Of most png files the upper rows can be read alone. Between frames that follow each other little
    moves, and a change of boxes stands out from it.

    Parameters
    ----------
    crops
        Those of one track.
    index
        One that says where pictures begin to show something.

    """
    grey = crops.grey(index)
    part = _PARTS[len(crops) > _SHORT]
    height = max(len(grey) // part, 1)
    shows = np.flatnonzero(np.std(grey, axis=1) > _FLAT)
    first = min(int(shows[0]), len(grey) - height) if len(shows) else 0
    rows = slice(first, first + height)
    count = _N_STRIPS if crops.is_cheap(index, rows.stop) else _N_SAMPLES
    return Strips(rows, crops.strips(spread(len(crops), count), rows, Size(_WIDTH, _WIDTH // part)))


def suspicious(crops: Crops, strips: Strips, shown: NDArray[np.bool_] | None = None) -> list[int]:
    """Crops of which either side of a change of boxes may be: nothing but hints where to look.

    Where files were written after a pause, or before those that precede them; where they change in
    size most, and much more than usual; and where, among ``strips``, the still part of the picture
    moves more than it does elsewhere. Of a picture of which a part was replaced, only what is
    ``shown`` of the source counts, pixels of a crop: a hand or a matte in front of it stands still
    whatever the box does.
    """
    found = _written_later([file.st_mtime for file in crops.files])
    found += _of_another_size([file.st_size for file in crops.files])
    if len(strips.images) > 1:
        found += _jumps(strips, shown)
    return [i for i in dict.fromkeys(found) if crops.is_readable(i)]


def _jumps(strips: Strips, shown: NDArray[np.bool_] | None) -> list[int]:
    """Crops on both sides of where the picture moves most, or less steadily than ever."""
    import cv2

    numbers, images = list(strips.images), np.stack(list(strips.images.values()))
    mask = np.ones(images.shape[1:], np.bool_)
    if shown is not None:
        part, size = shown[strips.rows].astype(np.float32), mask.shape[::-1]
        of_source = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA)) > 0
        # Where noise hides that it is, the whole strip says more than nothing.
        mask = of_source if np.mean(of_source) >= _MIN_SHOWN else mask
    changes = _changes(images, mask)
    if len(changes) <= _FEW_CHANGES:  # too few to know what is usual
        odd = [int(i) for i in np.argsort(-changes) if changes[i] > _MIN_MOVED]
    else:
        odd = _most(changes) + _most(_unsteadiness(images, mask))
    return [numbers[i + k] for i in odd for k in (0, 1)]


def _most(changes: NDArray[np.float32]) -> list[int]:
    """Where the greatest change is, if it is no usual one."""
    usual = 90 if len(changes) > _MANY_CHANGES else 75  # of few, both ends of a run are a tenth
    half, nearly_all = np.percentile(changes, (50, usual))
    limit = min(_MORE * nearly_all, half + _BEYOND_NOISE * (nearly_all - half))
    most = int(np.argmax(changes))
    return [most] if changes[most] > max(limit, _MIN_MOVED) else []


def _written_later(times: Sequence[float]) -> list[int]:
    steps = np.diff(np.asarray(times, np.float64))
    if not len(steps):
        return []
    pause = max(_MIN_PAUSE_S, _LONG_PAUSE * float(np.median(np.abs(steps))))
    odd = np.flatnonzero((steps > pause) | (steps < -1.0))
    if len(odd) > _MAX_PAUSES:  # copied in no order: the times say nothing
        return []
    return sorted({int(i) + k for i in odd for k in (0, 1)})


def _of_another_size(sizes: Sequence[int]) -> list[int]:
    changes = np.abs(np.diff(np.log(np.maximum(np.asarray(sizes, np.float64), 1.0))))
    if len(changes) <= _FEW_CHANGES:
        return []
    most = int(np.argmax(changes))
    limit = _MUCH_MORE * max(float(np.median(changes)), _MIN_CHANGE)
    return [most, most + 1] if changes[most] > limit else []


def _changes(images: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far, px, the stillest part of the edges moved from each of small images to the next.

    Parameters
    ----------
    images, mask
        (N, H, W) grey levels, and (H, W), what of them counts.

    Returns
    -------
    (N - 1,), rough.

    """
    import cv2

    levels = images[:, mask]
    brighter = _USUAL_DEVIATION / np.maximum(np.std(levels[:-1], axis=1), 1.0)[:, None]
    slopes = [
        np.hypot(cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1))[mask]
        for image in images[:-1]
    ]
    slope = np.reshape(slopes, (-1, levels.shape[1])) / 8 * brighter
    steps = np.abs(np.diff(levels, axis=0)) * brighter
    n_flat = int(_FLAT_SHARE * slope.shape[1])
    edges = np.argpartition(slope, n_flat, axis=1)[:, n_flat:]
    moved = np.take_along_axis(steps, edges, 1) / (np.take_along_axis(slope, edges, 1) + 1)
    return np.asarray(np.percentile(moved, _STILL_PERCENT, axis=1), np.float32)


def _unsteadiness(images: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far, px, the steadiest blocks move otherwise than in the frames before and after.

    A camera that moves, moves on; a box that changes does so between two frames.

    Parameters
    ----------
    images, mask
        (N, H, W) grey levels, and (H, W), what of them counts; N > 3.

    Returns
    -------
    (N - 1,), of each image to the next, rough.

    """
    import cv2

    brighter = _USUAL_DEVIATION / max(float(np.median(np.std(images[:, mask], axis=1))), 1.0)
    soft = np.stack([cv2.GaussianBlur(i * np.float32(brighter), (0, 0), _BLUR_PX) for i in images])
    y, x = np.gradient((soft[:-1] + soft[1:]) / 2, axis=(1, 2))
    step = np.diff(soft, axis=0)
    xx, xy, yy, xt, yt = (_by_block(v * mask) for v in (x * x, x * y, y * y, x * step, y * step))
    texture = np.mean(xx + yy, axis=0)
    chosen = np.argsort(-texture)[: texture.size // 2]
    chosen = chosen[texture[chosen] > _MIN_TEXTURE * _BLOCK**2]
    if len(chosen) < _MIN_BLOCKS:
        return np.zeros(len(step), np.float32)
    xx, xy, yy, xt, yt = (v[:, chosen] for v in (xx, xy, yy, xt, yt))
    xx, yy = xx + _NOISE * _BLOCK**2, yy + _NOISE * _BLOCK**2
    moved = np.stack([xy * yt - yy * xt, xy * xt - xx * yt]) / (xx * yy - xy * xy)
    # At both ends as if it went on as before: the crops there are compared anyway.
    goes_on = np.pad(moved, ((0, 0), (_REACH, _REACH), (0, 0)), "reflect", reflect_type="odd")
    around = np.lib.stride_tricks.sliding_window_view(goes_on, 2 * _REACH + 1, axis=1)
    otherwise = moved - np.median(np.delete(around, _REACH, axis=-1), axis=-1)
    return np.asarray(np.percentile(np.hypot(*otherwise), _STEADY_PERCENT, axis=1), np.float32)


def _by_block(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over blocks of (N, H, W) values: (N, blocks)."""
    count, height, width = values.shape
    of_block = np.repeat(np.eye(width // _BLOCK, dtype=np.float32), _BLOCK, axis=0)
    across = (values.reshape(-1, width) @ of_block).reshape(count, height // _BLOCK, _BLOCK, -1)
    return np.asarray(across.sum(axis=2).reshape(count, -1), np.float32)
