"""The mapping by plain pixel differences, where correlation of blocks says too little.

Two uses. A crop with little texture is brought onto the source by its slopes, as a whole
(`descend_by_pixels`); only equal pixels then prove anything. And where altered pixels leave two
mappings nearly equal, what was done to them is undone first (`rank_by_look`): the re-render gets
the tone and the sharpness of the crop, after which differences are small and tell mappings apart
that correlation cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats
from fitting.crop.mapping import Mapping, render_grey
from fitting.crop.refine import SQUARE, Pair, Ranking, ranked, squared

_SHRINKS = (8, 4, 2, 1)
_STEPS = 6
_MIN_SIDE = 8
BLURS = (0.7, 1.5, 3.0)
"""Standard deviations, crop px, whose mixture makes blur and sharpening alike."""
_LOOSELY = 0.3
_CUT_OFF = 3.0
_MIN_LEVELS = 0.5
_MIN_PIXELS = 20
_MIN_BLOCKS = 8
_AS_WELL = 2.5

Levels = NDArray[np.float32]


# --- continuous -------------------------------------------------------------------------------


def descend_by_pixels(pair: Pair, edges: Floats) -> Mapping | None:
    """Gauss-Newton on all pixels, from small images to whole ones.

    Gain and offset are free, and pixels that fit badly count less.

    Returns
    -------
    A square mapping; None where the crop left the source or shrank to nothing.

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
    return Mapping.rounded(squared(edges))


def _pixel_step(pair: Pair, base: Mapping) -> Floats | None:
    """One step from ``base`` that keeps the rectangle square: change of the edges."""
    reach = max(1, round(base.size.width / pair.grid.width))
    rendered = pair.render(base).astype(np.float32)
    slopes = []
    for edge in range(4):
        unit = [0, 0, 0, 0]
        unit[edge] = reach
        up = pair.render(base + (unit[0], unit[1], unit[2], unit[3])).astype(np.float32)
        down = pair.render(base + (-unit[0], -unit[1], -unit[2], -unit[3])).astype(np.float32)
        slopes.append((up - down).ravel() / (2 * reach))
    flat = rendered.ravel()
    J = np.stack([*(np.stack(slopes, axis=1) @ SQUARE).T, flat, np.ones_like(flat)], axis=1)
    target = pair.small.astype(np.float32).ravel() - flat
    weights = np.ones_like(flat)
    solution = np.zeros(5)
    for _ in range(2):
        weighted = J * weights[:, None]
        solution = np.linalg.lstsq(weighted.T @ J, weighted.T @ target, rcond=1e-10)[0]
        left = target - J @ solution
        spread = max(1.4826 * float(np.median(np.abs(left))), _MIN_LEVELS)
        weights = 1 / (1 + (left / (2 * spread)) ** 2)
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

    """

    before: Levels
    mixture: Levels
    after: Levels
    chosen: NDArray[np.int64]
    spread: float

    def __call__(self, rendered: NDArray[np.uint8]) -> Levels:
        """Do to a re-render what was done to the crop: grey levels (H, W)."""
        mixed = _layers(self.before[rendered]) @ self.mixture
        return np.asarray(_levelled(mixed, self.after), np.float32)


_ALL_LEVELS = np.arange(256, dtype=np.float32)


def rank_by_look(
    pairs: Sequence[Pair], start: Mapping, candidates: Sequence[Mapping]
) -> Ranking | None:
    """Rank mappings by pixel differences, after tone and sharpness were matched under ``start``.

    Returns
    -------
    None where too few blocks agree.

    """
    known = _looks(pairs, start)
    if not known:
        return None
    tried = {
        mapping: np.concatenate([_costs(pair, look, mapping) for pair, look in known])
        for mapping in dict.fromkeys([start, *candidates])
    }
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
    """Undo the tone before the blur or after it, whichever leaves less, on blocks that agree.

    Then all blocks are taken that fit as well, textured or not: noise hides most texture.
    """
    chosen = pair.choose(mapping, agrees=_LOOSELY)
    if len(chosen) < _MIN_BLOCKS:
        return None
    used = pair.covered(chosen)
    rendered = render_grey(pair.source, mapping, pair.output)
    target = pair.crop[used].astype(np.float32)
    tones = _tones(rendered[used], target)
    found: list[tuple[float, Levels, Levels, Levels]] = []
    for before in (tones, _ALL_LEVELS):
        layers = _layers(before[rendered])[used]
        mixture = np.linalg.lstsq(layers.T @ layers, layers.T @ target, rcond=1e-10)[0]
        mixed = layers @ mixture
        after = _ALL_LEVELS
        if before is _ALL_LEVELS:
            after = _tones(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), target)
        left = np.abs(_levelled(mixed, after) - target)
        spread = max(1.4826 * float(np.median(left)), _MIN_LEVELS)
        found.append((spread, before, np.asarray(mixture, np.float32), after))
    spread, before, mixture, after = min(found, key=lambda f: f[0])
    whole = pair.shrunk(1)
    every = Look(before, mixture, after, whole.inside(mapping), spread)
    costs = _costs(whole, every, mapping)
    own = np.isin(every.chosen, np.flatnonzero(whole.block_means(used.astype(np.float32)) == 1))
    if not own.any():
        return None
    fits = costs <= _AS_WELL * float(np.median(costs[own]))
    return Look(before, mixture, after, every.chosen[fits], spread)


def _levelled(mixed: Levels, after: Levels) -> Floats:
    """Levels after a tone curve; between whole levels, those between."""
    if after is _ALL_LEVELS:  # what np.interp gives, in a twentieth of the time
        return np.clip(mixed, 0, 255).astype(np.float64)
    return np.interp(mixed, _ALL_LEVELS, after)


def _tones(levels: NDArray[np.uint8], target: Levels) -> Levels:
    """Mean of the target for each level, (256,), between levels that are frequent enough."""
    counts = np.bincount(levels, minlength=256)
    sums = np.bincount(levels, weights=target, minlength=256)
    known = np.flatnonzero(counts >= _MIN_PIXELS)
    if len(known) < 2:
        return _ALL_LEVELS
    return np.interp(_ALL_LEVELS, known, sums[known] / counts[known]).astype(np.float32)


def _layers(image: Levels) -> Levels:
    """The image, its blurs, and ones: (H, W, 5)."""
    import cv2

    blurs = [cv2.GaussianBlur(image, (0, 0), sigma) for sigma in BLURS]
    return np.stack([image, *blurs, np.ones_like(image)], axis=-1)


def _costs(pair: Pair, look: Look, mapping: Mapping) -> Levels:
    """Mean squared difference of each chosen block, in units of the spread, cut off."""
    expected = look(render_grey(pair.source, mapping, pair.output))
    left = np.minimum(np.abs(expected - pair.crop) / look.spread, _CUT_OFF)
    return np.asarray(pair.block_means(left**2)[look.chosen], np.float32)


def _edges_off(pair: Pair, look: Look, mapping: Mapping) -> Floats:
    """One Gauss-Newton step of the four edges, after tone and sharpness were matched."""
    used = pair.covered(look.chosen)
    here = look(render_grey(pair.source, mapping, pair.output))[used]
    slopes = []
    for edge in range(4):
        unit = [0, 0, 0, 0]
        unit[edge] = 1
        step = (unit[0], unit[1], unit[2], unit[3])
        back = (-unit[0], -unit[1], -unit[2], -unit[3])
        up = look(render_grey(pair.source, mapping + step, pair.output))[used]
        slopes.append((up - look(render_grey(pair.source, mapping + back, pair.output))[used]) / 2)
    J = np.stack(slopes, axis=1)
    left = pair.crop[used] - here
    weights = (np.abs(left) <= _CUT_OFF * look.spread).astype(np.float32)
    solution: Floats = np.linalg.lstsq(
        (J * weights[:, None]).T @ J, J.T @ (weights * left), rcond=1e-10
    )[0].astype(np.float64)
    return solution
