"""What stands still between frames: a crop held against the source frame of another.

A camera on a tripod sees the same room in every frame. Where the room beside the head lies where
one box puts it in two crops, one box cut both, and the source frame of the second need not be read:
that costs ten times what a crop does. The head itself proves nothing: the tracker puts its box
around it, and a second box follows where it moved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Size
from fitting.crop.mapping import Grey, Mapping
from fitting.crop.pair import AGREES, BLOCK, Numbers, Pair, block_centres, thinned
from fitting.crop.refine import likeliest, ranked
from fitting.crop.tangent import by_slopes

Mask = NDArray[np.bool_]

_HEAD_X, _HEAD_Y, _SHOULDERS_Y = 0.44, 0.55, 0.1
"""Semi-axes, in units of the crop, of what may be head and hair (`bb_scale` 2.5 leaves 0.2 for the
face), and how far below the centre the shoulders begin."""
_AS_WELL, _MIN_SHARE, _MIN_BLOCKS, _MIN_CORNER = 0.05, 0.7, 24, 6
"""Correlation below that of the first frame that is as good; share and number of the blocks beside
the head that have to be, and number in either upper corner, where no shoulder is."""
_ENOUGH = 192
"""Blocks that suffice to place the edges."""
_MAX_OFF_PX = 0.1
"""How far the best edges of what stands still may lie off, with their standard errors, source px.

Of 6,277 crops of a real video that were cut one pixel beside, none came to less than 0.15.
"""
_TRIED, _MIN_CERTAINTY = 6, 3.5
"""Likeliest mappings beside it that are rendered, and standard errors by which it has to lead."""
_WINDOW = 6
"""What part of the crop's side a piece of the room is that is looked for elsewhere."""
_NEAR, _FAR = (1, 1 / 8), (4, np.inf)
"""By how much the room is shrunk, and how far around it is looked at, in sides of the crop: what is
fine and repeats does so soon."""
_AGAIN = 0.75
"""Correlation from which on the room looks the same somewhere else."""
_SIDE, _LIKE, _MIN_LIKE = 256, 0.9, 0.25
"""Size, px, at which crops are held against each other; correlation of blocks that are alike, and
their share."""


def stands_still(first: Pair, other: Pair, mapping: Mapping) -> bool:
    """Whether what another crop shows beside the head lies where one box cuts both.

    Parameters
    ----------
    first
        A crop and its source frame, of which ``mapping`` is proved.
    other
        Another crop and the same source frame, compared at the same size.
    mapping
        The padded rectangle of the source that the first crop shows.

    """
    there, is_textured = first.correlations(mapping)
    here, is_textured_here = other.correlations(mapping)
    corners = _upper_corners(first.grid)
    agrees = (corners[0] | corners[1]) & is_textured & (there > AGREES)
    still = agrees & is_textured_here & (here > np.maximum(there - _AS_WELL, AGREES))
    if np.count_nonzero(still) < max(_MIN_BLOCKS, _MIN_SHARE * np.count_nonzero(agrees)):
        return False
    if min(np.count_nonzero(still & corner) for corner in corners) < _MIN_CORNER:
        return False
    return _is_placed(other, mapping, thinned(np.flatnonzero(still), _ENOUGH))


def _is_placed(pair: Pair, mapping: Mapping, chosen: Numbers) -> bool:
    """Whether blocks fit a mapping, and none beside it: stripes fit many, bare walls fit all."""
    tangent = by_slopes(pair, mapping, chosen)
    step, errors = tangent.step_with_errors()
    if np.max(np.abs(step[:4]) + errors[:4]) > _MAX_OFF_PX:
        return False
    near = likeliest([tangent], mapping, Size.of(pair.source), _TRIED)
    tried = {m: pair.costs(m, chosen) for m in (mapping, *near)}
    return ranked(tried, mapping).certainty >= _MIN_CERTAINTY


def is_repeated_beside(first: Pair, mapping: Mapping) -> bool:
    """Whether the room beside the head shows the same once more, moved: tiles, dots, a wallpaper.

    A second box moved by that very step cuts what the first one does, but for the head.

    Parameters
    ----------
    first, mapping
        A crop and its source frame, and what the crop shows of it.

    """
    correlation, is_textured = first.correlations(mapping)
    left, right = _upper_corners(first.grid)
    agrees = (left | right) & is_textured & (correlation > AGREES)
    if not agrees.any():
        return False
    chosen = agrees.reshape(first.grid.height // BLOCK, -1)
    near = _is_repeated(first, mapping, _fullest_window(chosen), *_NEAR)
    return near or _is_repeated(first, mapping, chosen, *_FAR)


def _is_repeated(first: Pair, mapping: Mapping, chosen: Mask, shrink: int, reach: float) -> bool:
    """Whether the source frame shows the ``chosen`` blocks of a crop, (rows, columns), twice.

    Without large-scale light, ``shrink`` times smaller than the crop, or than the source where that
    is coarser, up to ``reach`` sides of the crop away.
    """
    import cv2

    grid, size = first.grid, mapping.size
    margin = min(reach * size.width, max(first.source.shape))
    scale = min(grid.width / size.width, 1.0) / shrink
    ends, around, places = [], [], []
    for axis, low, extent, length in (
        (0, mapping.y_min, size.height / grid.height, first.source.shape[0]),
        (1, mapping.x_min, size.width / grid.width, first.source.shape[1]),
    ):
        blocks = np.flatnonzero(chosen.any(axis=1 - axis))
        first_block, end = int(blocks[0]), int(blocks[-1]) + 1
        edges = low + np.array([first_block, end]) * (BLOCK * extent)
        begin = max(int(edges[0] - margin), 0)
        ends.append(slice(first_block, end))
        around.append(slice(begin, min(int(edges[1] + margin) + 1, length)))
        places.append([int(v) for v in np.rint((edges - begin) * scale)])
    room = cv2.resize(
        first.source[around[0], around[1]], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
    )
    room = cv2.subtract(room, cv2.blur(room, (BLOCK, BLOCK)), dtype=cv2.CV_32F)
    (y0, y1), (x0, x1) = places
    piece = room[max(y0, 0) : y1, max(x0, 0) : x1]
    if not piece.size:  # too small to be told from anything
        return True
    blocks_there = chosen[ends[0], ends[1]].astype(np.float32)
    mask = cv2.resize(blocks_there, piece.shape[::-1], interpolation=cv2.INTER_NEAREST)
    piece = piece * mask
    products = cv2.matchTemplate(room, piece, cv2.TM_CCORR)
    norms = cv2.matchTemplate(room * room, mask, cv2.TM_CCORR)
    limit = _AGAIN * float(np.sum(piece * piece)) ** 0.5
    alike = products > limit * np.sqrt(np.maximum(norms, 1.0))
    n_labels, _ = cv2.connectedComponents(alike.astype(np.uint8))
    return int(n_labels) > 2  # what lies around, and the piece where it is


def _fullest_window(chosen: Mask) -> Mask:
    """Those of the chosen blocks that lie in the square window that holds the most of them."""
    import cv2

    side = max(min(chosen.shape) // _WINDOW, 1)
    counts = cv2.boxFilter(
        chosen.astype(np.float32), -1, (side, side), anchor=(0, 0), normalize=False,
        borderType=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    y, x = np.unravel_index(int(np.argmax(counts)), counts.shape)
    window = np.zeros_like(chosen)
    window[y : y + side, x : x + side] = True
    return chosen & window


def _upper_corners(grid: Size) -> tuple[Mask, Mask]:
    """Blocks beside and above the head, at the left and at the right."""
    x, y = block_centres(grid)
    upper = ((x / _HEAD_X) ** 2 + (y / _HEAD_Y) ** 2 > 1) & (y < _SHOULDERS_Y)
    return (upper & (x < 0)).ravel(), (upper & (x > 0)).ravel()


def looks_moved(one: Grey, other: Grey) -> bool:
    """Whether two crops are so unlike that it is not worth asking whether they stand still."""
    shrink = max(one.shape[1] // _SIDE, 1)
    found = Pair(one, one, shrink=shrink).correlations_with(other)
    return bool(np.count_nonzero(found > _LIKE) < _MIN_LIKE * len(found))
