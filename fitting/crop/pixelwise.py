"""The mapping by plain pixel differences, where correlation of blocks says too little.

Two uses. A crop with little texture is brought onto the source by its slopes, as a whole
(`descend_by_pixels`); only equal pixels then prove anything. And where altered pixels leave two
mappings nearly equal, what was done to them is undone first (`rank`): the re-render gets
the tone and the sharpness of the crop, after which differences are small and tell mappings apart
that correlation cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats, Size
from converter.media.parallel import ordered_map
from fitting.crop.linear import least_squares
from fitting.crop.mapping import Mapping, render_grey
from fitting.crop.pair import MIN_BLOCKS, Pair
from fitting.crop.refine import Ranking, climb, ranked, squared
from fitting.crop.tangent import EDGES, SQUARE, central_differences

_SHRINKS = (8, 4, 2, 1)
_STEPS = 6
_MIN_SIDE = 8
BLURS = (0.7, 1.5, 3.0)
"""Standard deviations, crop px, whose mixture makes blur and sharpening alike."""
_SHARP = 0.7
"""Weight of the image itself, beside its blurs, from which on a crop is not blurred."""
_LOOSELY = 0.3
_CUT_OFF = 3.0
_MIN_LEVELS = 0.5
_MIN_PIXELS = 20
MIN_CERTAINTY = 3.5
"""Standard errors between the best mapping and the next from which on it is taken for certain."""
CERTAINLY = 8.0
"""Standard errors in one frame that need no other frame."""
NO_MATTE = 0.8
"""Share of the blocks that fit from which on no background was replaced."""
_NEAREST, _NEAREST_AGAIN = 16, 8
_AS_WELL = 2.5
_FINE = 64
"""Steps between two levels at which a tone curve is evaluated."""

Levels = NDArray[np.float32]


# --- continuous -------------------------------------------------------------------------------


def descend_by_pixels(pair: Pair, edges: Floats, limit: float) -> Mapping | None:
    """Gauss-Newton on all pixels, from small images to whole ones.

    Gain and offset are free, and pixels that fit badly count less.

    Returns
    -------
    A square mapping; None where the crop left the source, shrank to nothing, or where small images
    differ by more than ``limit``, grey levels, in the mean.

    """
    for shrink in _SHRINKS:
        if min(pair.crop.shape) // shrink < 2 * _MIN_SIDE:
            continue
        here = pair.shrunk(shrink)
        for _ in range(_STEPS):
            base = Mapping.rounded(squared(edges))
            if min(base.size.width, base.size.height) < _MIN_SIDE:
                return None
            change = _pixel_step(here, base)
            if change is None:
                return None
            edges = base.edges + change
            if np.all(np.abs(change) < 0.5):
                break
        if shrink > 1 and _difference(here, Mapping.rounded(squared(edges))) > limit:
            return None
    return Mapping.rounded(squared(edges))


def _difference(pair: Pair, mapping: Mapping) -> float:
    import cv2

    if min(mapping.size.width, mapping.size.height) < _MIN_SIDE:
        return np.inf
    return float(np.mean(cv2.absdiff(pair.render(mapping), pair.small)))


def _pixel_step(pair: Pair, base: Mapping) -> Floats | None:
    """One step from ``base`` that keeps the rectangle square: change of the edges."""
    reach = max(1, round(base.size.width / pair.grid.width))

    def view(mapping: Mapping) -> Levels:
        return pair.render(mapping).astype(np.float32)

    flat = view(base)
    columns = [*central_differences(view, base, SQUARE.T, reach), flat]
    target = pair.small - flat
    weights: Levels | None = None
    for _ in range(2):
        solution = least_squares([*columns, np.ones_like(flat)], target, weights)
        left = target - _mixed(columns, solution)
        spread = max(1.4826 * float(np.median(np.abs(left))), _MIN_LEVELS)
        weights = np.asarray(1 / (1 + (left / (2 * spread)) ** 2), np.float32)
    if not np.all(np.isfinite(solution)):
        return None
    change: Floats = np.clip(SQUARE @ solution[:3], -4.0 * reach, 4.0 * reach)
    return change


# --- whole pixels -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """What was done to the pixels of one crop, under a mapping.

    Attributes
    ----------
    before, after
        Level for level, (256,), before and after a mixture of blurs.
    mixture
        Weights of the image and its blurs, then an offset.
    chosen
        Numbers of the blocks that fit.
    spread
        Typical difference that is left, grey levels.
    share
        Share of all blocks that fit.

    """

    before: Levels
    mixture: Levels
    after: Levels
    chosen: NDArray[np.int64]
    spread: float
    share: float = 1.0

    @property
    def is_blurred(self) -> bool:
        """Whether the crop shows less detail than the re-render."""
        return bool(self.mixture[0] < _SHARP)

    def __call__(self, rendered: NDArray[np.uint8]) -> Levels:
        """Do to a re-render what was done to the crop: grey levels (H, W)."""
        layers = _layers(_toned(rendered, self.before))
        return _levelled(_mixed(layers, self.mixture), self.after)


_ALL_LEVELS = np.arange(256, dtype=np.float32)


def rank(pairs: Sequence[Pair], start: Mapping, source: Size) -> Ranking | None:
    """Rank the neighbourhood by correlation; where that leaves doubt, by the pixels themselves.

    The edge of a matte, seen in a few blocks, can mislead pixels by 7 standard errors: where many
    blocks do not fit, they may confirm what correlation prefers, and not overrule it. Of 653
    rankings of hard single frames that correlation left in doubt, none so decided was wrong from
    2.9 standard errors on.

    Returns
    -------
    The ranking that is surer; None where too little agrees.

    """
    ranking = climb(pairs[:1], start, source)
    if ranking is None or ranking.certainty < CERTAINLY:
        ranking = climb(pairs, start, source)
    if ranking is None or ranking.certainty >= MIN_CERTAINTY:
        return ranking
    ranking = climb(pairs, start, source, n_tried=_NEAREST) or ranking
    near = sorted(ranking.costs, key=ranking.costs.__getitem__)[:_NEAREST]
    looks = _looks(pairs, ranking.best)
    by_look = _rank_by_look(looks, [ranking.best, *near])
    if by_look is None:
        return ranking
    if by_look.best == ranking.best:
        return max(ranking, by_look, key=lambda r: r.certainty)
    if min(look.share for _, look in looks) < NO_MATTE:
        return ranking
    near = sorted(by_look.costs, key=by_look.costs.__getitem__)[:_NEAREST_AGAIN]
    again = _rank_by_look(_looks(pairs, by_look.best), [ranking.best, *near])
    return again if again is not None and again.best == by_look.best else ranking


def _rank_by_look(
    looks: Sequence[tuple[Pair, Look]], candidates: Sequence[Mapping]
) -> Ranking | None:
    """Rank mappings by pixel differences, after tone and sharpness were matched.

    Returns
    -------
    None where no pair has a look.

    """
    if not looks:
        return None

    def costs(mapping: Mapping) -> Levels:
        return np.concatenate([_costs(pair, look, mapping) for pair, look in looks])

    mappings = list(dict.fromkeys(candidates))
    tried = dict(zip(mappings, ordered_map(costs, mappings), strict=True))
    return ranked(tried, min(tried, key=lambda m: float(tried[m].mean())))


def off_by_look(pairs: Sequence[Pair], mapping: Mapping) -> Floats | None:
    """How far the best real edges lie from those of ``mapping``, source px; None if unknown."""
    solutions = [_edges_off(pair, look, mapping) for pair, look in _looks(pairs, mapping)]
    return np.median(solutions, axis=0) if solutions else None


def _looks(pairs: Sequence[Pair], mapping: Mapping) -> list[tuple[Pair, Look]]:
    """Pairs at full size with their looks, where there is one."""
    looks = [(pair.shrunk(1), find_look(pair, mapping)) for pair in pairs]
    return [(pair, look) for pair, look in looks if look is not None]


def find_look(pair: Pair, mapping: Mapping) -> Look | None:
    """What was done to the crop of a pair, as far as is known; kept."""
    if mapping not in pair.looks:
        pair.looks[mapping] = _find_look(pair, mapping)
    return pair.looks[mapping]


def _find_look(pair: Pair, mapping: Mapping) -> Look | None:
    """Undo the tone before the blur or after it, whichever leaves less, on blocks that agree.

    Then all blocks are taken that fit as well, textured or not: noise hides most texture.
    """
    chosen = pair.choose(mapping, agrees=_LOOSELY)
    if len(chosen) < MIN_BLOCKS:
        return None
    covered = pair.covered(chosen)
    used = np.flatnonzero(covered)  # taking numbered pixels costs a quarter of taking masked ones
    rendered = render_grey(pair.source, mapping, pair.output)
    target = pair.crop.take(used).astype(np.float32)
    tones = _tones(rendered.take(used), target)
    found: list[tuple[float, Levels, Levels, Levels]] = []
    for before in (tones, _ALL_LEVELS):
        layers = [layer.take(used) for layer in _layers(_toned(rendered, before))]
        mixture = least_squares([*layers, np.ones_like(target)], target).astype(np.float32)
        mixed = _mixed(layers, mixture)
        after = _ALL_LEVELS
        if before is _ALL_LEVELS:
            after = _tones(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), target)
        left = np.abs(_levelled(mixed, after) - target)
        spread = max(1.4826 * float(np.median(left)), _MIN_LEVELS)
        found.append((spread, before, mixture, after))
    spread, before, mixture, after = min(found, key=lambda f: f[0])
    whole = pair.shrunk(1)
    every = Look(before, mixture, after, whole.inside(mapping), spread)
    costs = _costs(whole, every, mapping)
    own = np.isin(every.chosen, np.flatnonzero(whole.block_means(covered.astype(np.float32)) == 1))
    if not own.any():
        return None
    fits = costs <= _AS_WELL * float(np.median(costs[own]))
    return Look(before, mixture, after, every.chosen[fits], spread, float(np.mean(fits)))


def _levelled(mixed: Levels, after: Levels) -> Levels:
    """Levels after a tone curve; between whole levels, those between."""
    if after is _ALL_LEVELS:
        return np.clip(mixed, 0, 255)
    fine = np.interp(np.arange(255 * _FINE + 1) / _FINE, _ALL_LEVELS, after).astype(np.float32)
    return fine.take(np.rint(np.clip(mixed, 0, 255) * _FINE).astype(np.uint16))


def _tones(levels: NDArray[np.uint8], target: Levels) -> Levels:
    """Mean of the target for each level, (256,), between levels that are frequent enough."""
    counts = np.bincount(levels, minlength=256)
    sums = np.bincount(levels, weights=target, minlength=256)
    known = np.flatnonzero(counts >= _MIN_PIXELS)
    if len(known) < 2:
        return _ALL_LEVELS
    return np.interp(_ALL_LEVELS, known, sums[known] / counts[known]).astype(np.float32)


def _toned(image: NDArray[np.uint8], tones: Levels) -> Levels:
    """An image with other levels for its own, ``tones``, (256,)."""
    import cv2

    return np.asarray(cv2.LUT(image, tones), np.float32)


def _layers(image: Levels) -> list[Levels]:
    """The image and its blurs."""
    import cv2

    blurs = [np.asarray(cv2.GaussianBlur(image, (0, 0), s), np.float32) for s in BLURS]
    return [image, *blurs]


def _mixed(layers: Sequence[Levels], mixture: Levels | Floats) -> Levels:
    """Weighted sum of layers of one shape, and the last weight, which is that of ones."""
    total: Levels = layers[0] * np.float32(mixture[0])
    for layer, weight in zip(layers[1:], mixture[1:-1], strict=True):
        total += layer * np.float32(weight)
    total += np.float32(mixture[-1])
    return total


def _costs(pair: Pair, look: Look, mapping: Mapping) -> Levels:
    """Mean squared difference of each chosen block, in units of the spread, cut off."""
    expected = look(render_grey(pair.source, mapping, pair.output))
    left = np.minimum(np.abs(expected - pair.crop) / look.spread, _CUT_OFF)
    return np.asarray(pair.block_means(left**2)[look.chosen], np.float32)


def _edges_off(pair: Pair, look: Look, mapping: Mapping) -> Floats:
    """One Gauss-Newton step of the four edges, after tone and sharpness were matched."""
    used = np.flatnonzero(pair.covered(look.chosen))

    def view(at: Mapping) -> Levels:
        return look(render_grey(pair.source, at, pair.output)).take(used)

    here, slopes = view(mapping), central_differences(view, mapping, EDGES, 1)
    left = pair.crop.take(used) - here
    weights = (np.abs(left) <= _CUT_OFF * look.spread).astype(np.float32)
    return least_squares(slopes, left, weights)
