"""A crop and a source frame, compared in blocks.

Crops are compared by normalised correlation in blocks, so that gain, gamma and replaced backgrounds
do not move the answer; blocks that disagree (mattes, occluders) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats, Size
from fitting.crop.mapping import Grey, Mapping, render_grey

if TYPE_CHECKING:
    from fitting.crop.pixelwise import Look
    from fitting.crop.refine import Ranking

BLOCK = 16
"""Side of a block, px of the images compared."""
MIN_BLOCKS = 8
AGREES = 0.6
"""Correlation from which on a block shows the same in both images."""
_MAX_BLOCKS = 384
_COST_LIMIT = 0.6
_FACE_X, _FACE_Y = 0.2, 0.3
"""Semi-axes, in units of the crop, of the face (`bb_scale` 2.5 leaves 0.2)."""
_RIM = 4
"""How far, source px, the rim of the padding reaches into the re-render."""

Blocks = NDArray[np.float32]
"""(B, P): the P pixels of B blocks, mean 0, norm 1 (all 0 where there is no texture)."""

Numbers = NDArray[np.int64]
"""(B,): numbers of blocks."""


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
    free_steps, looks, rankings
        What `fitting.crop.refine.residual`, `fitting.crop.pixelwise.find_look` and
        `fitting.crop.refine.climb` found for this pair, by mapping.
    texture_limit
        Standard deviation, grey levels, from which on a block has texture.

    """

    crop: Grey
    source: Grey
    index: int = 0
    source_index: int = 0
    shrink: int = 1
    free_steps: dict[Mapping, tuple[Floats, Floats]] = field(init=False, default_factory=dict)
    looks: dict[Mapping, Look | None] = field(init=False, default_factory=dict)
    rankings: dict[tuple[Mapping, int], Ranking | None] = field(init=False, default_factory=dict)
    texture_limit: float = field(init=False)
    _small: Grey = field(init=False)
    _tiles: Blocks = field(init=False)
    _std: NDArray[np.float32] = field(init=False)
    _costs: dict[tuple[Mapping, Mapping], NDArray[np.float32]] = field(
        init=False, default_factory=dict
    )
    _compared: dict[Mapping, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(
        init=False, default_factory=dict
    )
    _rendered: tuple[Mapping, Grey] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        import cv2

        self._small = _shrunk(self.crop, self.shrink)
        self._tiles, self._std = _normalised(_tiled(self._small))
        self.texture_limit = max(0.8, 0.03 * float(cv2.meanStdDev(self._small)[1][0, 0]))

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

    def render(self, mapping: Mapping) -> Grey:
        """Re-render the crop, at the size of comparison; the last one is kept."""
        last = self._rendered
        if last is None or last[0] != mapping:
            whole = render_grey(self.source, mapping, self.output)
            self._rendered = last = mapping, _shrunk(whole, self.shrink)
        return last[1]

    def _compare(self, mapping: Mapping) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Correlation of every block, and its standard deviation in the re-render; kept."""
        if mapping not in self._compared:
            tiles, std = _normalised(_tiled(self.render(mapping)))
            self._compared[mapping] = _correlation(tiles, self._tiles), std
        return self._compared[mapping]

    def correlations(self, mapping: Mapping) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Correlation of every block, and which blocks have texture in both images."""
        correlation, std = self._compare(mapping)
        limit = self.texture_limit
        return correlation, (std > limit) & (self._std > limit) & self._inside(mapping)

    def _inside(self, mapping: Mapping) -> NDArray[np.bool_]:
        """Blocks that show source pixels only: the rim of the padding is no image content."""
        output, size = self.grid, mapping.size
        pads = mapping.pad_needed(Size.of(self.source))
        keep = []
        for pad, extent, length in zip(
            pads, (size.width, size.height), (output.width, output.height), strict=True
        ):
            first = np.arange(length // BLOCK) * BLOCK
            rim = (pad + _RIM) * length / extent if pad else 0.0
            keep.append((first >= rim) & (first + BLOCK <= length - rim))
        return np.asarray(np.logical_and.outer(keep[1], keep[0]).ravel(), np.bool_)

    def agreement(self, mapping: Mapping) -> Agreement:
        """Compare the crop with its re-render."""
        correlation, textured = self.correlations(mapping)
        return _agreement(correlation[textured])

    def agreement_in_the_middle(self, mapping: Mapping) -> Agreement:
        """Compare what lies around the centre of the crop, where the face is."""
        correlation, textured = self.correlations(mapping)
        x, y = block_centres(self.grid)
        middle = ((x / _FACE_X) ** 2 + (y / _FACE_Y) ** 2 < 1).ravel()
        return _agreement(correlation[textured & middle])

    def similarity(self, mapping: Mapping) -> float:
        """Mean correlation, negative ones as 0, of the blocks in which the crop has texture."""
        usable = (self._std > self.texture_limit) & self._inside(mapping)
        if not usable.any():
            return 0.0
        return float(np.clip(self._compare(mapping)[0][usable], 0, None).mean())

    def agreement_with(self, image: Grey) -> Agreement:
        """Compare the crop with any image of its size."""
        return _agreement(self.correlations_with(image))

    def correlations_with(self, image: Grey) -> NDArray[np.float32]:
        """Correlations of the blocks that have texture in the crop and in an image of its size."""
        tiles, std = _normalised(_tiled(_shrunk(image, self.shrink)))
        textured = (std > self.texture_limit) & (self._std > self.texture_limit)
        return np.asarray(_correlation(tiles, self._tiles)[textured], np.float32)

    def textured_blocks(self) -> int:
        """Number of blocks of the crop that have texture."""
        return int(np.sum(self._std > self.texture_limit))

    def choose(self, mapping: Mapping, agrees: float = AGREES) -> Numbers:
        """Numbers of the blocks that agree under ``mapping``, at most 384, evenly spread."""
        correlation, textured = self.correlations(mapping)
        return thinned(np.flatnonzero(textured & (correlation > agrees)), _MAX_BLOCKS)

    def covered(self, chosen: Numbers) -> NDArray[np.bool_]:
        """Pixels of the crop that lie in the chosen blocks."""
        across, side = self.grid.width // BLOCK, BLOCK * self.shrink
        mask = np.zeros(self.crop.shape, np.bool_)
        for block in chosen:
            y, x = int(block) // across * side, int(block) % across * side
            mask[y : y + side, x : x + side] = True
        return mask

    def block_means(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean over each block of ``values``, one for each pixel of the crop."""
        across, side = self.grid.width // BLOCK, BLOCK * self.shrink
        down = self.grid.height // BLOCK
        whole = values[: down * side, : across * side].reshape(down, side, across, side)
        return np.asarray(whole.mean(axis=(1, 3)).ravel(), np.float32)

    def inside(self, mapping: Mapping) -> Numbers:
        """Numbers of the blocks that show source pixels only, textured or not."""
        return np.flatnonzero(self._inside(mapping))

    def blocks(self, mapping: Mapping, chosen: Numbers) -> Blocks:
        """Chosen blocks of the re-render, normalised."""
        return _normalised(_tiled(self.render(mapping), chosen))[0]

    def gradients(self, mapping: Mapping, chosen: Numbers) -> tuple[Blocks, Blocks]:
        """Change of `blocks` per px of the images compared, to the right and downwards."""
        import cv2

        image = self.render(mapping)
        tiles = _tiled(image, chosen)
        norm = np.maximum(_normalised(tiles)[1] * BLOCK, 1e-3)
        across, down = (
            _tiled(cv2.Sobel(image, cv2.CV_16S, *way, ksize=1), chosen) / (2 * norm[:, None])
            for way in ((1, 0), (0, 1))
        )
        return across, down

    def costs(self, mapping: Mapping, chosen: Numbers) -> NDArray[np.float32]:
        """min(1 - correlation, 0.6) of the chosen blocks."""
        return limited(_correlation(self.blocks(mapping, chosen), self._tiles[chosen]))

    def costs_from(self, start: Mapping, mapping: Mapping, chosen: Numbers) -> NDArray[np.float32]:
        """As `costs`, kept: ``chosen`` are the blocks that agree under ``start``."""
        if (start, mapping) not in self._costs:
            self._costs[start, mapping] = self.costs(mapping, chosen)
        return self._costs[start, mapping]

    def tiles(self, chosen: Numbers) -> Blocks:
        """Chosen blocks of the crop, normalised."""
        return np.asarray(self._tiles[chosen], np.float32)


Real = TypeVar("Real", np.float32, np.float64)


def limited(correlation: NDArray[Real]) -> NDArray[Real]:
    """Cost of a block by its correlation: what disagrees costs no more than it must."""
    return np.asarray(np.minimum(1 - correlation, _COST_LIMIT), correlation.dtype)


def block_centres(grid: Size) -> tuple[Floats, Floats]:
    """Where blocks lie from the centre, units of the image: x, (columns,), and y, (rows, 1)."""
    x = (np.arange(grid.width // BLOCK) + 0.5) * BLOCK / grid.width - 0.5
    y = (np.arange(grid.height // BLOCK)[:, None] + 0.5) * BLOCK / grid.height - 0.5
    return x, y


def thinned(numbers: Numbers, most: int) -> Numbers:
    """At most so many of them, evenly spread."""
    if len(numbers) <= most:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, most).astype(np.int64)]


def _shrunk(image: Grey, shrink: int) -> Grey:
    import cv2

    if shrink == 1:
        return image
    size = (image.shape[1] // shrink, image.shape[0] // shrink)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _tiled(image: NDArray[Any], chosen: Numbers | None = None) -> NDArray[np.float32]:
    """(B, 256) pixels of the blocks; what is left over at the right and below is not used."""
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    whole = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    if chosen is not None:
        tiles = whole[chosen // columns, :, chosen % columns]
    else:
        tiles = whole.transpose(0, 2, 1, 3)
    return np.asarray(tiles.reshape(-1, BLOCK**2), np.float32)


def _correlation(a: Blocks, b: Blocks) -> NDArray[np.float32]:
    return np.asarray(np.einsum("bp,bp->b", a, b), np.float32)


def _normalised(tiles: NDArray[np.float32]) -> tuple[Blocks, NDArray[np.float32]]:
    """Blocks with mean 0 and norm 1, made of ``tiles`` in place; and their standard deviation."""
    tiles -= tiles.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("bp,bp->b", tiles, tiles))
    tiles /= np.maximum(norm, 1e-3)[:, None]
    return tiles, norm / BLOCK


def _agreement(correlation: NDArray[np.float32]) -> Agreement:
    agreeing = correlation[correlation > AGREES]
    if not len(agreeing):
        return Agreement(len(correlation), 0.0, 0.0)
    share = len(agreeing) / len(correlation)
    return Agreement(len(correlation), share, float(np.median(agreeing)))
