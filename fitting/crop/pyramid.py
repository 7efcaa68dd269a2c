"""Where a crop without features lies: templates over all scales, coarse to fine.

Blurred backgrounds and bare walls have no corners to match, but their slopes fit one place alone.
A place found so proves nothing by itself: only equal pixels do (`fitting.crop.recover`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.geometry.pixels import Floats
from converter.media.parallel import ordered_map
from fitting.crop.mapping import Grey, Mapping
from fitting.crop.padding import border
from fitting.crop.pair import Pair

_SOURCE_SIDES = (320, 640)
_MIN_SIDE = 12
"""Least side of a template, px. One that is smaller in the smaller source is looked for in the
larger, at five times the cost."""
_STEP = 1.05
_BLACK = 24
_N_PLACES = 3
_ALIKE_LEVELS = 6.0
"""Typical difference up to which two rectangles show the same, compressed differently."""
_MAX_TWINS = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a crop may lie: x_min, x_max, y_min, y_max, source px, to about 5 % of its side.

    ``score`` is the correlation of all its pixels with the source there, both made small.
    """

    edges: Floats
    score: float


def find_places(crop: Grey, source: Grey, most: float = np.inf) -> list[Place]:
    """Return the most likely places of a crop, the best first.

    Parameters
    ----------
    crop, source
        Images; the crop's black border, which may be padding, is not looked for.
    most
        Longest side of a place, source px.

    """
    import cv2

    across, down = border(crop, 0, _BLACK)
    height, width = crop.shape
    shown = crop[down : height - down, across : width - across]
    if min(shown.shape) < _MIN_SIDE or float(np.std(shown)) == 0:
        return []
    scales = [min(side / max(source.shape), 1.0) for side in _SOURCE_SIDES]
    smaller = [cv2.resize(source, None, fx=s, fy=s, interpolation=cv2.INTER_AREA) for s in scales]

    def best(side: float) -> Place | None:
        """The best place for a crop that shows ``side`` px of the source."""
        level = 0 if side * scales[0] >= _MIN_SIDE else 1
        small, scale = smaller[level], scales[level]
        ratio = side * scale / min(shown.shape)
        part = (round(shown.shape[1] * ratio), round(shown.shape[0] * ratio))
        if part[0] > small.shape[1] or part[1] > small.shape[0]:
            return None
        template = cv2.resize(shown, part, interpolation=cv2.INTER_AREA)
        scores = cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED)
        _, score, _, at = cv2.minMaxLoc(scores)
        if not np.isfinite(score):
            return None
        edges = _edges(at, part, shown.shape, (across, down), crop, scale)
        return Place(edges, float(score))

    fits = min(source.shape[0] / shown.shape[0], source.shape[1] / shown.shape[1])
    largest = min(fits, most / max(crop.shape))
    n_steps = np.log(largest * min(shown.shape) * scales[1] / _MIN_SIDE) / np.log(_STEP)
    sides = _MIN_SIDE / scales[1] * _STEP ** np.arange(max(int(n_steps) + 1, 0))
    found = [place for place in ordered_map(best, sides) if place is not None]
    return sorted(found, key=lambda place: -place.score)[:_N_PLACES]


def _edges(
    at: Sequence[int],
    part: tuple[int, int],
    shown: tuple[int, ...],
    rim: tuple[int, int],
    crop: Grey,
    scale: float,
) -> Floats:
    """Edges of the whole crop, of which the part ``shown`` was found at ``at``."""
    x_scale, y_scale = part[0] / shown[1] / scale, part[1] / shown[0] / scale
    x = at[0] / scale - rim[0] * x_scale
    y = at[1] / scale - rim[1] * y_scale
    return np.array([x, x + crop.shape[1] * x_scale, y, y + crop.shape[0] * y_scale])


def is_repeated(pair: Pair, mapping: Mapping, *, nearly: bool = False) -> bool:
    """Whether the source shows the very same rectangle somewhere else: tiles, stripes, one colour.

    What is cut from there at the same size would give the same crop. With ``nearly``, whether it
    shows one that compression may have made different, beyond a quarter of its side.
    """
    import cv2

    height, width = pair.source.shape
    x0, x1 = max(mapping.x_min, 0), min(mapping.x_max, width - 1)
    y0, y1 = max(mapping.y_min, 0), min(mapping.y_max, height - 1)
    part = pair.source[y0:y1, x0:x1]
    scores = cv2.matchTemplate(pair.source, part, cv2.TM_SQDIFF)
    if nearly:
        across, down = part.shape[1] // 4, part.shape[0] // 4
        scores[max(y0 - down, 0) : y0 + down + 1, max(x0 - across, 0) : x0 + across + 1] = np.inf
        return float(scores.min()) <= _ALIKE_LEVELS**2 * part.size
    scores[y0, x0] = np.inf
    for _ in range(_MAX_TWINS):
        _, _, (x, y), _ = cv2.minMaxLoc(scores)
        if scores[y, x] > part.size:  # one squared level per pixel; sums of floats are not exact
            return False
        if np.array_equal(pair.source[y : y + part.shape[0], x : x + part.shape[1]], part):
            return True
        scores[y, x] = np.inf
    return False
