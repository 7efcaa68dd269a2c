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
from fitting.crop.pair import AGREES, BLOCK, Pair, thinned
from fitting.crop.tangent import by_slopes

Mask = NDArray[np.bool_]

_HEAD_X, _HEAD_Y = 0.36, 0.44
"""Semi-axes, in units of the crop, of what is taken for the head (`bb_scale` 2.5 leaves more)."""
_AS_WELL, _MIN_SHARE, _MIN_BLOCKS, _MIN_CORNER = 0.05, 0.7, 24, 6
"""Correlation below that of the first frame that is as good; share and number of the blocks beside
the head that have to be, and number in either upper corner, where no shoulder is."""
_ENOUGH = 192
"""Blocks that suffice to place the edges."""
_MAX_OFF_PX = 0.1
"""How far the best edges of what stands still may lie off, with their standard errors, source px.

135 of 169 crops of still rooms, altered in all ways, came to less. Of 6,277 crops of a real video
that were cut one pixel beside, none came to less than 0.15, and all but one to 0.23 at least.
"""
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
    beside, *corners = _beside_head(first.grid)
    agrees = beside & is_textured & (there > AGREES)
    still = agrees & is_textured_here & (here > np.maximum(there - _AS_WELL, AGREES))
    if np.count_nonzero(still) < max(_MIN_BLOCKS, _MIN_SHARE * np.count_nonzero(agrees)):
        return False
    if min(np.count_nonzero(still & corner) for corner in corners) < _MIN_CORNER:
        return False
    chosen = thinned(np.flatnonzero(still), _ENOUGH)
    step, errors = by_slopes(other, mapping, chosen).step_with_errors()
    return bool(np.max(np.abs(step[:4]) + errors[:4]) <= _MAX_OFF_PX)


def _beside_head(grid: Size) -> tuple[Mask, Mask, Mask]:
    """Blocks beside the head; those of them at the upper left, and at the upper right."""
    x = (np.arange(grid.width // BLOCK) + 0.5) * BLOCK / grid.width - 0.5
    y = (np.arange(grid.height // BLOCK)[:, None] + 0.5) * BLOCK / grid.height - 0.5
    beside = (x / _HEAD_X) ** 2 + (y / _HEAD_Y) ** 2 > 1
    upper = beside & (y < 0)
    return beside.ravel(), (upper & (x < 0)).ravel(), (upper & (x > 0)).ravel()


def looks_moved(one: Grey, other: Grey) -> bool:
    """Whether two crops are so unlike that it is not worth asking whether they stand still."""
    shrink = max(one.shape[1] // _SIDE, 1)
    found = Pair(one, one, shrink=shrink).correlations_with(other)
    return bool(np.count_nonzero(found > _LIKE) < _MIN_LIKE * len(found))
