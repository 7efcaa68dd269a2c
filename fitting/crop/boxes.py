"""Crops of two boxes in one folder: which frames have which.

A tracker run that is completed later estimates the box anew from the first frame it finds missing
(metrical-tracker, generate_dataset.py:61-68), so the second box may lie anywhere in the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fitting.crop.checker import Checked
from fitting.crop.mapping import Grey, Mapping
from fitting.crop.sequences import Crops, spread
from fitting.crop.solver import Refusal, Solver

_N_LABELLED = 12
_N_SHOWN = 3
_N_SAMPLES = 24
_N_SUSPECTS = 2
_SIDE = 128
_MIN_PAUSE_S = 60.0
_LONG_PAUSE = 50.0
_MAX_PAUSES = 4
_MORE_THAN_USUAL, _MIN_MOVED = 2.0, 0.05
_EDGES_PERCENT, _STILL_PERCENT = 70, 30


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


def suspicious(crops: Crops) -> list[int]:
    """Crops at which a second box may begin: nothing but hints where to look.

    Where files were written after a pause, or before those that precede them; and where, among
    frames spread over the track, the still part of the picture moves more than it does elsewhere.
    """
    found = _written_later(crops.times())
    small = crops.small(spread(len(crops), _N_SAMPLES), _SIDE)
    samples, images = list(small), list(small.values())
    changes = np.array([_moved(a, b) for a, b in zip(images, images[1:], strict=False)])
    if len(changes) > 1:
        limit = max(_MORE_THAN_USUAL * float(np.median(changes)), _MIN_MOVED)
        odd = [int(i) for i in np.argsort(-changes)[:_N_SUSPECTS] if changes[i] > limit]
        found += [samples[i + 1] for i in odd]
    return [i for i in found if crops.is_readable(i)]


def _written_later(times: Sequence[float]) -> list[int]:
    steps = np.diff(np.asarray(times, np.float64))
    if not len(steps):
        return []
    pause = max(_MIN_PAUSE_S, _LONG_PAUSE * float(np.median(np.abs(steps))))
    odd = np.flatnonzero((steps > pause) | (steps < -1.0))
    if len(odd) > _MAX_PAUSES:  # copied in no order: the times say nothing
        return []
    return sorted({int(i) + k for i in odd for k in (0, 1)})


def _moved(before: Grey, after: Grey) -> float:
    """How far, px, the stillest part of the edges moved between two small images, roughly."""
    import cv2

    a, b = before.astype(np.float32), after.astype(np.float32)
    slope = np.hypot(cv2.Sobel(a, cv2.CV_32F, 1, 0), cv2.Sobel(a, cv2.CV_32F, 0, 1)) / 8
    edges: NDArray[np.bool_] = slope >= np.percentile(slope, _EDGES_PERCENT)
    return float(np.percentile(np.abs(b - a)[edges] / (slope[edges] + 1), _STILL_PERCENT))
