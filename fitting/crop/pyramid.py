"""Where a crop without features lies: templates over all scales, coarse to fine.

Blurred backgrounds and bare walls have no corners to match, but their slopes fit one place alone.
A place found so proves nothing by itself: only equal pixels do (`fitting.crop.recover`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.geometry.pixels import Floats
from fitting.crop.mapping import Grey
from fitting.crop.padding import border

_SOURCE_SIDE = 640
_MIN_SIDE = 12
_STEP = 1.05
_BLACK = 24
_N_PLACES = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a crop may lie: x_min, x_max, y_min, y_max, source px, to about 5 % of its side.

    ``score`` is the correlation of all its pixels with the source there, both made small.
    """

    edges: Floats
    score: float


def find_places(crop: Grey, source: Grey) -> list[Place]:
    """Return the most likely places of a crop, the best first.

    Parameters
    ----------
    crop, source
        Images; the crop's black border, which may be padding, is not looked for.

    """
    import cv2

    across, down = border(crop, 0, _BLACK)
    height, width = crop.shape
    shown = crop[down : height - down, across : width - across]
    if min(shown.shape) < _MIN_SIDE or float(np.std(shown)) == 0:
        return []
    scale = min(_SOURCE_SIDE / max(source.shape), 1.0)
    size = (round(source.shape[1] * scale), round(source.shape[0] * scale))
    small = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
    found: list[Place] = []
    ratio = _MIN_SIDE / min(shown.shape)
    while True:
        part = (round(shown.shape[1] * ratio), round(shown.shape[0] * ratio))
        if part[0] > size[0] or part[1] > size[1]:
            break
        template = cv2.resize(shown, part, interpolation=cv2.INTER_AREA)
        scores = cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED)
        _, score, _, at = cv2.minMaxLoc(scores)
        if np.isfinite(score):
            edges = _edges(at, part, shown.shape, (across, down), crop, scale)
            found.append(Place(edges, float(score)))
        ratio *= _STEP
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
