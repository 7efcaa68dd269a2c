"""From an estimate to the integers: re-render the crop, compare locally, step on whole pixels.

Crops are compared by normalised correlation in blocks, so that gain, gamma and replaced backgrounds
do not move the answer; blocks that disagree (mattes, occluders) are left out. Correlation is made
linear in the four edges of the mapping by rendering it one pixel to either side, which gives a
Gauss-Newton step of the tracker's own forward model; it ends on whole pixels, and every neighbour
on the lattice is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats, Size
from converter.media.parallel import ordered_map
from fitting.crop.linear import least_squares
from fitting.crop.mapping import Grey, Mapping, render_grey

_BLOCK = 16
_MAX_BLOCKS = 384
_AGREES = 0.6
_COST_LIMIT = 0.6
_MIN_BLOCKS = 8
_FAR_STEPS, _STEPS = 2, 10
_LOOSELY = 0.3
_CLIMBS = 12
_RIM = 4
"""How far, source px, the rim of the padding reaches into the re-render."""

# Columns: x_min, x_max, y_min, y_max as functions of shift x, shift y, side.
SQUARE = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]], np.float64)
EDGES = np.eye(4)
"""Each edge alone."""

Blocks = NDArray[np.float32]
"""(B, P): the P pixels of B blocks, mean 0, norm 1 (all 0 where there is no texture)."""


def to_grey(image: NDArray[np.uint8]) -> Grey:
    """Luma of a blue-green-red image."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a crop agrees with its re-render.

    Attributes
    ----------
    n_blocks
        Blocks with texture in both.
    share
        Share of them that correlate by more than 0.6.
    median
        Median correlation of those.

    """

    n_blocks: int
    share: float
    median: float


@dataclass(eq=False)
class Pair:
    """A crop and the source frame that it may be cut from, as grey images.

    Attributes
    ----------
    index, source_index
        Their positions in their sequences.
    shrink
        By how much crop and re-render are shrunk before they are compared: noise averages out.
    free_steps
        What `residual` found for this pair, by mapping.

    """

    crop: Grey
    source: Grey
    index: int = 0
    source_index: int = 0
    shrink: int = 1
    free_steps: dict[Mapping, tuple[Floats, Floats] | None] = field(
        init=False, default_factory=dict
    )
    _small: Grey = field(init=False)
    _tiles: Blocks = field(init=False)
    _std: NDArray[np.float32] = field(init=False)
    _known: dict[tuple[Mapping, Mapping], NDArray[np.float32]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        self._small = _shrunk(self.crop, self.shrink)
        self._tiles, self._std = _normalised(_tiled(self._small))

    @property
    def output(self) -> Size:
        """Size of the crop."""
        return Size.of(self.crop)

    @property
    def small(self) -> Grey:
        """The crop at the size of comparison."""
        return self._small

    @property
    def grid(self) -> Size:
        """Size of the images compared."""
        return Size.of(self._small)

    def shrunk(self, shrink: int) -> Pair:
        """Return the pair compared at another size."""
        if shrink == self.shrink:
            return self
        return Pair(self.crop, self.source, self.index, self.source_index, shrink)

    @property
    def texture_limit(self) -> float:
        """Standard deviation, grey levels, from which on a block has texture."""
        return max(0.8, 0.03 * float(np.std(self._small)))

    def render(self, mapping: Mapping) -> Grey:
        """Re-render the crop, at the size of comparison."""
        return _shrunk(render_grey(self.source, mapping, self.output), self.shrink)

    def correlations(self, mapping: Mapping) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Correlation of every block, and which blocks have texture in both images."""
        tiles, std = _normalised(_tiled(self.render(mapping)))
        limit = self.texture_limit
        usable = (std > limit) & (self._std > limit) & self._inside(mapping)
        return _correlation(tiles, self._tiles), usable

    def _inside(self, mapping: Mapping) -> NDArray[np.bool_]:
        """Blocks that show source pixels only: the rim of the padding is no image content."""
        output, size = self.grid, mapping.size
        pads = mapping.pad_needed(Size.of(self.source))
        keep = []
        for pad, extent, length in zip(
            pads, (size.width, size.height), (output.width, output.height), strict=True
        ):
            first = np.arange(length // _BLOCK) * _BLOCK
            rim = (pad + _RIM) * length / extent if pad else 0.0
            keep.append((first >= rim) & (first + _BLOCK <= length - rim))
        return np.asarray(np.logical_and.outer(keep[1], keep[0]).ravel(), np.bool_)

    def agreement(self, mapping: Mapping) -> Agreement:
        """Compare the crop with its re-render."""
        correlation, textured = self.correlations(mapping)
        return _agreement(correlation[textured])

    def similarity(self, mapping: Mapping) -> float:
        """Mean correlation, negative ones as 0, of the blocks in which the crop has texture."""
        tiles, _ = _normalised(_tiled(self.render(mapping)))
        usable = (self._std > self.texture_limit) & self._inside(mapping)
        if not usable.any():
            return 0.0
        correlation = _correlation(tiles[usable], self._tiles[usable])
        return float(np.clip(correlation, 0, None).mean())

    def agreement_with(self, image: Grey) -> Agreement:
        """Compare the crop with any image of its size."""
        tiles, std = _normalised(_tiled(_shrunk(image, self.shrink)))
        textured = (std > self.texture_limit) & (self._std > self.texture_limit)
        return _agreement(_correlation(tiles, self._tiles)[textured])

    def textured_blocks(self) -> int:
        """Number of blocks of the crop that have texture."""
        return int(np.sum(self._std > self.texture_limit))

    def choose(self, mapping: Mapping, agrees: float = _AGREES) -> NDArray[np.int64]:
        """Numbers of the blocks that agree under ``mapping``, at most 384, evenly spread."""
        correlation, textured = self.correlations(mapping)
        chosen = np.flatnonzero(textured & (correlation > agrees))
        if len(chosen) > _MAX_BLOCKS:
            chosen = chosen[np.linspace(0, len(chosen) - 1, _MAX_BLOCKS).astype(np.int64)]
        return chosen

    def covered(self, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Pixels of the crop that lie in the chosen blocks."""
        across, side = self.grid.width // _BLOCK, _BLOCK * self.shrink
        mask = np.zeros(self.crop.shape, np.bool_)
        for block in chosen:
            y, x = int(block) // across * side, int(block) % across * side
            mask[y : y + side, x : x + side] = True
        return mask

    def block_means(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean over each block of ``values``, one for each pixel of the crop."""
        across, side = self.grid.width // _BLOCK, _BLOCK * self.shrink
        down = self.grid.height // _BLOCK
        whole = values[: down * side, : across * side].reshape(down, side, across, side)
        return np.asarray(whole.mean(axis=(1, 3)).ravel(), np.float32)

    def inside(self, mapping: Mapping) -> NDArray[np.int64]:
        """Numbers of the blocks that show source pixels only, textured or not."""
        return np.flatnonzero(self._inside(mapping))

    def blocks(self, mapping: Mapping, chosen: NDArray[np.int64]) -> Blocks:
        """Chosen blocks of the re-render, normalised."""
        return _normalised(_tiled(self.render(mapping), chosen))[0]

    def costs(self, mapping: Mapping, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """min(1 - correlation, 0.6) of the chosen blocks."""
        correlation = _correlation(self.blocks(mapping, chosen), self._tiles[chosen])
        return np.asarray(np.minimum(1 - correlation, _COST_LIMIT), np.float32)

    def costs_from(
        self, start: Mapping, mapping: Mapping, chosen: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """As `costs`, kept: ``chosen`` are the blocks that agree under ``start``."""
        if (start, mapping) not in self._known:
            self._known[start, mapping] = self.costs(mapping, chosen)
        return self._known[start, mapping]

    def tiles(self, chosen: NDArray[np.int64]) -> Blocks:
        """Chosen blocks of the crop, normalised."""
        return np.asarray(self._tiles[chosen], np.float32)


def _shrunk(image: Grey, shrink: int) -> Grey:
    import cv2

    if shrink == 1:
        return image
    size = (image.shape[1] // shrink, image.shape[0] // shrink)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _tiled(image: Grey, chosen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """(B, 256) pixels of the blocks; what is left over at the right and below is not used."""
    rows, columns = image.shape[0] // _BLOCK, image.shape[1] // _BLOCK
    whole = image[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    if chosen is not None:
        tiles = whole[chosen // columns, :, chosen % columns]
    else:
        tiles = whole.transpose(0, 2, 1, 3)
    return np.asarray(tiles.reshape(-1, _BLOCK**2), np.float32)


def _correlation(a: Blocks, b: Blocks) -> NDArray[np.float32]:
    return np.asarray(np.einsum("bp,bp->b", a, b), np.float32)


def _normalised(tiles: NDArray[np.float32]) -> tuple[Blocks, NDArray[np.float32]]:
    """Blocks with mean 0 and norm 1, made of ``tiles`` in place; and their standard deviation."""
    tiles -= tiles.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("bp,bp->b", tiles, tiles))
    tiles /= np.maximum(norm, 1e-3)[:, None]
    return tiles, norm / _BLOCK


def _agreement(correlation: NDArray[np.float32]) -> Agreement:
    agreeing = correlation[correlation > _AGREES]
    if not len(agreeing):
        return Agreement(len(correlation), 0.0, 0.0)
    share = len(agreeing) / len(correlation)
    return Agreement(len(correlation), share, float(np.median(agreeing)))


# --- continuous: Gauss-Newton -----------------------------------------------------------------


def central_differences(
    view: Callable[[Mapping], NDArray[np.float32]], base: Mapping, along: Floats, reach: int
) -> list[NDArray[np.float32]]:
    """Change of what ``view`` makes of a mapping per source px along each direction.

    Parameters
    ----------
    view
        Called with mappings ``reach`` px to both sides of ``base``.
    base
        Where the change is taken.
    along
        (n, 4) directions, changes of the four edges.
    reach
        Step, source px.

    """
    slopes = []
    for way in along * reach:
        a, b, c, d = (int(step) for step in way)
        up, down = view(base + (a, b, c, d)), view(base + (-a, -b, -c, -d))
        slopes.append(np.asarray((up - down) / (2 * reach), np.float32))
    return slopes


def _solve(slopes: Sequence[Blocks], here: Blocks, target: Blocks) -> Floats:
    """Least squares of sum(x_i slope_i) = target - here, blocks weighted by their correlation.

    Both sides are normalised blocks, so that gain and offset of each block drop out.
    """
    return least_squares(slopes, target - here, _weights(here, target))


def _weights(here: Blocks, target: Blocks) -> NDArray[np.float32]:
    return np.asarray(np.clip(_correlation(here, target) - 0.2, 0, None)[:, None], np.float32)


def _square_step(pair: Pair, base: Mapping, chosen: NDArray[np.int64], reach: int) -> Floats:
    """One Gauss-Newton step from ``base`` that keeps the rectangle square: change of the edges."""
    slopes = central_differences(lambda m: pair.blocks(m, chosen), base, SQUARE.T, reach)
    return SQUARE @ _solve(slopes, pair.blocks(base, chosen), pair.tiles(chosen))


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
    for pair in pairs:
        if mapping not in pair.free_steps:
            pair.free_steps[mapping] = _free_step(pair, mapping)
    steps = [pair.free_steps[mapping] for pair in pairs]
    found = [step for step in steps if step is not None]
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


def _free_step(pair: Pair, mapping: Mapping) -> tuple[Floats, Floats] | None:
    """Best change of the four edges and rotation, with standard errors, (5,) each.

    Pixels of a block err alike, so blocks are what the errors are counted by (the sandwich
    estimator). None where too few agree.
    """
    chosen = pair.choose(mapping)
    if len(chosen) < _MIN_BLOCKS:
        return None
    slopes = central_differences(lambda m: pair.blocks(m, chosen), mapping, EDGES, 1)
    width, height = mapping.size.width, mapping.size.height
    across = pair.grid.width // _BLOCK
    inner = np.arange(_BLOCK**2)
    # Place of every pixel against the centre of the rectangle, source px.
    x = (chosen % across * _BLOCK)[:, None] + (inner % _BLOCK)[None, :] + 0.5
    y = (chosen // across * _BLOCK)[:, None] + (inner // _BLOCK)[None, :] + 0.5
    x = (x / pair.grid.width - 0.5) * width
    y = (y / pair.grid.height - 0.5) * height
    turn = (slopes[2] + slopes[3]) * x - (slopes[0] + slopes[1]) * y
    slopes.append(turn.astype(np.float32))
    here, target = pair.blocks(mapping, chosen), pair.tiles(chosen)
    weight = _weights(here, target)
    solution = least_squares(slopes, target - here, weight)
    left = (target - here) * weight
    for slope, x_i in zip(slopes, solution, strict=True):
        left -= slope * weight * np.float32(x_i)
    scores = np.stack([_correlation(slope, left) for slope in slopes]).astype(np.float64)
    normal = np.array([[np.sum(_correlation(a * weight, b)) for a in slopes] for b in slopes])
    spread = np.linalg.pinv(normal) @ scores
    return solution, np.sqrt((spread**2).sum(axis=1))


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
        chosen = pair.choose(base, agrees=_LOOSELY if i < n_far else _AGREES)
        if len(chosen) < _MIN_BLOCKS:
            chosen = pair.choose(base, agrees=0.0)
        if len(chosen) < _MIN_BLOCKS:
            return None
        change = _square_step(pair, base, chosen, coarse if near or i < n_far else 1)
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


def climb(pairs: Sequence[Pair], start: Mapping, source: Size) -> Ranking | None:
    """Step to the best neighbour until none is better; None where too little agrees."""
    chosen = [pair.choose(start) for pair in pairs]
    if sum(map(len, chosen)) < _MIN_BLOCKS:
        return None
    tried: dict[Mapping, NDArray[np.float32]] = {}

    def costs(mapping: Mapping) -> NDArray[np.float32]:
        return np.concatenate(
            [p.costs_from(start, mapping, c) for p, c in zip(pairs, chosen, strict=True)]
        )

    best = start if start.is_possible(source) else None
    for _ in range(_CLIMBS):
        around = (best or start).neighbours(source)
        candidates = around if best is None else [best, *around]
        if not candidates:
            return None
        new = [m for m in candidates if m not in tried]
        tried.update(zip(new, ordered_map(costs, new), strict=True))
        top = min(candidates, key=lambda m: float(tried[m].mean()))
        if top == best:
            break
        best = top
    if best is None:
        return None
    return ranked(tried, best)


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
        errors.update(zip(new, ordered_map(lambda m: pixel_error(pair, m), new), strict=True))
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
