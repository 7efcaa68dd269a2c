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
from fitting.crop.pair import AGREES, BLOCK, Numbers, Pair, thinned
from fitting.crop.refine import ranked
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
    near = mapping.neighbours(Size.of(pair.source))
    moves = np.array([m.edges - mapping.edges for m in near]).reshape(-1, 4)
    likeliest = np.argsort(tangent.costs(moves).sum(axis=1), kind="stable")[:_TRIED]
    tried = {m: pair.costs(m, chosen) for m in (mapping, *(near[i] for i in likeliest))}
    return ranked(tried, mapping).certainty >= _MIN_CERTAINTY


def _upper_corners(grid: Size) -> tuple[Mask, Mask]:
    """Blocks beside and above the head, at the left and at the right."""
    x = (np.arange(grid.width // BLOCK) + 0.5) * BLOCK / grid.width - 0.5
    y = (np.arange(grid.height // BLOCK)[:, None] + 0.5) * BLOCK / grid.height - 0.5
    upper = ((x / _HEAD_X) ** 2 + (y / _HEAD_Y) ** 2 > 1) & (y < _SHOULDERS_Y)
    return (upper & (x < 0)).ravel(), (upper & (x > 0)).ravel()


def looks_moved(one: Grey, other: Grey) -> bool:
    """Whether two crops are so unlike that it is not worth asking whether they stand still."""
    shrink = max(one.shape[1] // _SIDE, 1)
    found = Pair(one, one, shrink=shrink).correlations_with(other)
    return bool(np.count_nonzero(found > _LIKE) < _MIN_LIKE * len(found))
