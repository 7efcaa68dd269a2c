"""From an estimate to the integers: re-render the crop, compare locally, step on whole pixels.

Gauss-Newton steps of the tracker's own forward model end on whole pixels. Around them the tangent
says which neighbours on the lattice may be as good; those are rendered and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats, Size
from converter.media.parallel import spread_out
from fitting.crop.mapping import Mapping, render_grey
from fitting.crop.pair import AGREES, MIN_BLOCKS, Numbers, Pair, thinned
from fitting.crop.tangent import SQUARE, Tangent, by_renders, by_slopes

_FAR_STEPS, _STEPS = 2, 10
_LOOSELY = 0.3
_NEXT_TO_NONE_PX = 0.15
_ENOUGH = 128
"""Blocks that a step is taken by."""
_CLIMBS = 12
_TRIED = 14
"""Neighbours that are rendered, of some 50: the best ones, as far as the tangent tells."""

# --- continuous: Gauss-Newton -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Residual:
    """What a lattice point leaves unexplained, when edges and rotation are free.

    Attributes
    ----------
    edges
        How far the best real edges lie from the whole ones, source px.
    angle_deg
        Rotation of the crop against the source.
    corner_px
        How far that rotation moves a corner of the crop, crop px.
    edges_error, corner_error_px
        Standard errors of the edges and of the corner.

    """

    edges: Floats
    angle_deg: float
    corner_px: float
    edges_error: Floats
    corner_error_px: float


def residual(pairs: Sequence[Pair], mapping: Mapping) -> Residual | None:
    """Fit the four edges and a rotation around ``mapping``; None where too little agrees."""
    found = []
    for pair in pairs:
        chosen = pair.choose(mapping)
        if len(chosen) >= MIN_BLOCKS:
            found.append(_free_step(pair, mapping, chosen))
    if not found:
        return None
    solutions, errors = (np.array(values) for values in zip(*found, strict=True))
    median, error = np.median(solutions, axis=0), np.median(errors, axis=0) / np.sqrt(len(found))
    radius = float(np.hypot(*pairs[0].crop.shape)) / 2
    return Residual(
        median[:4],
        float(np.degrees(median[4])),
        abs(float(median[4])) * radius,
        error[:4],
        float(error[4]) * radius,
    )


def _free_step(pair: Pair, mapping: Mapping, chosen: Numbers) -> tuple[Floats, Floats]:
    """Best change of the edges and rotation under which ``chosen`` agree, and its errors; kept.

    Slopes overrate changes: where they find next to none, there is none.
    """
    if mapping not in pair.free_steps:
        step = by_slopes(pair, mapping, chosen).step_with_errors()
        corner = step[0][4] * max(mapping.size.width, mapping.size.height)
        if max(abs(corner), *np.abs(step[0][:4])) > _NEXT_TO_NONE_PX:
            step = by_renders(pair, mapping, chosen).step_with_errors()
        pair.free_steps[mapping] = step
    return pair.free_steps[mapping]


def descend(pair: Pair, edges: Floats, *, near: bool = False) -> tuple[Mapping, Floats] | None:
    """Follow Gauss-Newton steps from an estimate until they stay on one lattice point.

    The first steps reach far and take blocks that hardly agree, unless the estimate is ``near``,
    good to a few pixels.

    Returns
    -------
    The mapping, and the four edges as real numbers; None where nothing agrees.

    """
    coarse = max(1, round((edges[1] - edges[0]) / pair.grid.width))
    n_far = 0 if near else _FAR_STEPS
    seen: set[Mapping] = set()
    for i in range(n_far + _STEPS):
        base = Mapping.rounded(squared(edges))
        if min(base.size.width, base.size.height) < 8:
            return None
        chosen = pair.choose(base, agrees=_LOOSELY if i < n_far else AGREES)
        if len(chosen) < MIN_BLOCKS:
            chosen = pair.choose(base, agrees=0.0)
        if len(chosen) < MIN_BLOCKS:
            return None
        chosen = thinned(chosen, _ENOUGH)
        change = SQUARE @ by_slopes(pair, base, chosen).step(SQUARE)
        edges = base.edges + np.clip(change, -4.0 * coarse, 4.0 * coarse)
        if i < n_far:
            continue
        if np.all(np.abs(change) < 0.5) or base in seen:
            return base, edges
        seen.add(base)
    return Mapping.rounded(squared(edges)), edges


def squared(edges: Floats) -> Floats:
    """Equal sides after rounding: both extents the mean one."""
    side = np.rint((edges[1] - edges[0] + edges[3] - edges[2]) / 2)
    x, y = (edges[0] + edges[1] - side) / 2, (edges[2] + edges[3] - side) / 2
    x, y = np.rint(x), np.rint(y)
    return np.array([x, x + side, y, y + side])


# --- whole pixels -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best mapping of its neighbourhood.

    Attributes
    ----------
    best, runner_up
        Mappings; the runner-up is None where the best has no neighbour.
    gap
        Cost of the runner-up over that of the best.
    certainty
        How many standard errors of the blocks' differences lie between the two.
    costs
        Mean cost by mapping, of all that were tried.

    """

    best: Mapping
    runner_up: Mapping | None
    gap: float
    certainty: float
    costs: dict[Mapping, float]


def climb(
    pairs: Sequence[Pair], start: Mapping, source: Size, *, n_tried: int = _TRIED
) -> Ranking | None:
    """Step to the best neighbour until none is better; None where too little agrees.

    Of the neighbours that the tracker can make, the ``n_tried`` most likely are rendered. What is
    found for one pair alone is kept with it.
    """
    if len(pairs) != 1:
        return _climb(pairs, start, source, n_tried)
    kept, key = pairs[0].rankings, (start, n_tried)
    if key not in kept:
        kept[key] = _climb(pairs, start, source, n_tried)
    return kept[key]


def _climb(pairs: Sequence[Pair], start: Mapping, source: Size, n_tried: int) -> Ranking | None:
    chosen = [pair.choose(start) for pair in pairs]
    if sum(map(len, chosen)) < MIN_BLOCKS:
        return None
    both = list(zip(pairs, chosen, strict=True))
    tried: dict[Mapping, NDArray[np.float32]] = {}

    def likely(base: Mapping) -> list[Mapping]:
        tangents = [by_slopes(pair, base, c) for pair, c in both]
        return likeliest(tangents, base, source, n_tried)

    def costs(mappings: list[Mapping], each: tuple[Pair, Numbers]) -> list[NDArray[np.float32]]:
        return [each[0].costs_from(start, m, each[1]) for m in mappings]

    best = start if start.is_possible(source) else None
    for _ in range(_CLIMBS):
        candidates = [*([] if best is None else [best]), *likely(best or start)]
        if not candidates:
            return None
        new = [m for m in candidates if m not in tried]
        found = zip(*spread_out(partial(costs, new), both), strict=True)
        tried.update(zip(new, map(np.concatenate, found), strict=True))
        top = min(tried, key=lambda m: float(tried[m].mean()))
        if top == best:
            break
        best = top
    if best is None:
        return None
    return ranked(tried, best)


def likeliest(
    tangents: Sequence[Tangent], base: Mapping, source: Size, count: int
) -> list[Mapping]:
    """Neighbours of ``base`` that the tracker can make, the ``count`` least costly to first order.

    Parameters
    ----------
    tangents
        At ``base``, one for each pair.
    base, source, count
        The mapping; size of the source; how many.

    """
    around = base.neighbours(source)
    moves = np.array([m.edges - base.edges for m in around]).reshape(-1, 4)
    costs = [tangent.costs(moves).sum(axis=1) for tangent in tangents]
    return [around[i] for i in np.argsort(sum(costs), kind="stable")[:count]]


def ranked(tried: dict[Mapping, NDArray[np.float32]], best: Mapping) -> Ranking:
    """Rank mappings by the costs of the same blocks under each of them."""
    costs = {m: float(c.mean()) for m, c in tried.items()}
    others = [m for m in tried if m != best]
    runner_up = min(others, key=costs.__getitem__) if others else None
    gap, certainty = np.inf, np.inf
    if runner_up is not None:
        difference = tried[runner_up] - tried[best]
        spread = float(np.std(difference)) / np.sqrt(len(difference))
        certainty = float(difference.mean()) / max(spread, 1e-9)
        gap = costs[runner_up] / max(costs[best], 1e-9)
    return Ranking(best, runner_up, gap, certainty, costs)


def climb_by_pixels(pair: Pair, start: Mapping, source: Size) -> Mapping:
    """Step to the neighbour with the smallest mean absolute difference until none is better."""
    errors: dict[Mapping, float] = {}
    best = start
    for _ in range(_CLIMBS):
        candidates = [best, *best.neighbours(source)]
        new = [m for m in candidates if m not in errors]
        errors.update({mapping: pixel_error(pair, mapping) for mapping in new})
        top = min(candidates, key=errors.__getitem__)
        if top == best:
            break
        best = top
    return best


def pixel_error(pair: Pair, mapping: Mapping) -> float:
    """Mean absolute difference of the crop and its re-render, grey levels."""
    import cv2

    rendered = render_grey(pair.source, mapping, pair.output)
    return float(np.mean(cv2.absdiff(rendered, pair.crop)))
