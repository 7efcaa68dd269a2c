"""What the blocks of a re-render become where the edges of the mapping move, to first order.

All that a Gauss-Newton step, its standard errors and the costs of neighbours need are inner
products within blocks, taken once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats
from fitting.crop.mapping import Mapping
from fitting.crop.pair import BLOCK, Blocks, Numbers, Pair, limited

# Columns: x_min, x_max, y_min, y_max as functions of shift x, shift y, side.
SQUARE = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]], np.float64)
EDGES = np.eye(4)
"""Each edge alone."""
_NO_WEIGHT = 0.2
"""Correlation up to which a block has no say."""


@dataclass(frozen=True, slots=True)
class Tangent:
    """Blocks around a mapping, linear in the four edges and a rotation about the centre (radians).

    Attributes
    ----------
    products
        (B, 7, 7), inner products, block by block, of the change per unknown (5 of them), of the
        re-render and of the crop. Blocks are normalised, and changes are those of normalised
        blocks, so that gain and offset of each block drop out.

    """

    products: Floats

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> Tangent:
        """Return the tangent for blocks that change so.

        Parameters
        ----------
        vectors
            (B, 7, P): what the blocks change by per unknown (5 of them), the blocks of the
            re-render and those of the crop, both with norm 1. Used up.

        """
        vectors -= vectors.mean(axis=2, keepdims=True)
        products = np.matmul(vectors, vectors.transpose(0, 2, 1)).astype(np.float64)
        # What a change adds along the block itself is its contrast, which is normalised.
        along = products[:, :5, 5].copy()
        products[:, :5] -= along[:, :, None] * products[:, 5:6]
        products[:, :, :5] -= products[:, :, 5:6] * along[:, None, :]
        return cls(products)

    def step(self, along: Floats) -> Floats:
        """Least squares of a change of edges along the columns of ``along``, (4, n): (n,)."""
        inner, wanted, weights = self._equations()
        normal = along.T @ np.einsum("b,bij->ij", weights, inner)[:4, :4] @ along
        gradient = along.T @ (weights @ wanted)[:4]
        return np.asarray(np.linalg.lstsq(normal, gradient, rcond=1e-10)[0], np.float64)

    def step_with_errors(self) -> tuple[Floats, Floats]:
        """Least squares of the four edges and the rotation, and its standard errors, (5,) each.

        Pixels of a block err alike, so blocks are what the errors are counted by (the sandwich
        estimator).
        """
        inner, wanted, weights = self._equations()
        normal = np.einsum("b,bij->ij", weights, inner)
        solution = np.linalg.lstsq(normal, weights @ wanted, rcond=1e-10)[0]
        scores = weights[:, None] * (wanted - inner @ solution)
        spread = np.linalg.pinv(normal) @ scores.T
        return solution, np.sqrt((spread**2).sum(axis=1))

    def costs(self, moves: Floats) -> Floats:
        """Expected costs of the blocks, (m, B), after ``moves`` of the edges, (m, 4)."""
        inner = np.einsum("mi,bij,mj->mb", moves, self.products[:, :4, :4], moves, optimize=True)
        like = self.products[:, 5, 6] + moves @ self.products[:, :4, 6].T
        return limited(like / np.sqrt(1 + inner))

    def _equations(self) -> tuple[Floats, Floats, Floats]:
        """Inner products of changes, (B, 5, 5), and with what is wanted, (B, 5); weights, (B,)."""
        weights = np.clip(self.products[:, 5, 6] - _NO_WEIGHT, 0, None)
        return self.products[:, :5, :5], self.products[:, :5, 6], weights


def by_slopes(pair: Pair, base: Mapping, chosen: Numbers) -> Tangent:
    """Return the tangent at ``base`` of the ``chosen`` blocks, by the slopes of one re-render.

    These are smoother than the truth, which brings steps from afar closer to their end.
    """
    x, y = _places(pair, chosen)
    right, down = pair.gradients(base, chosen)
    right *= np.float32(pair.grid.width / base.size.width)
    down *= np.float32(pair.grid.height / base.size.height)
    far_right, far_down = right * x, down * y
    edges = [right - far_right, far_right, down - far_down, far_down]
    return _tangent(pair, base, chosen, edges)


def by_renders(pair: Pair, base: Mapping, chosen: Numbers) -> Tangent:
    """As `by_slopes`, by renders one pixel to either side of each edge: the forward model's own."""
    edges = central_differences(lambda m: pair.blocks(m, chosen), base, EDGES, 1)
    return _tangent(pair, base, chosen, edges)


def _tangent(pair: Pair, base: Mapping, chosen: Numbers, edges: Sequence[Blocks]) -> Tangent:
    x, y = _places(pair, chosen)
    right, down = edges[0] + edges[1], edges[2] + edges[3]
    width, height = np.float32(base.size.width), np.float32(base.size.height)
    turn = down * ((x - np.float32(0.5)) * width) - right * ((y - np.float32(0.5)) * height)
    vectors = np.empty((len(chosen), 7, BLOCK**2), np.float32)
    parts = [*edges, turn, pair.blocks(base, chosen), pair.tiles(chosen)]
    for column, part in enumerate(parts):
        vectors[:, column] = part
    return Tangent.of(vectors)


def _places(pair: Pair, chosen: Numbers) -> tuple[Blocks, Blocks]:
    """Where the pixels of blocks lie in the crop, 0 to 1, (B, 256) each."""
    grid = pair.grid
    down, across = np.divmod(chosen, grid.width // BLOCK)
    row, column = (np.divmod(np.arange(BLOCK**2), BLOCK)[k] + 0.5 for k in (0, 1))
    x = [(values / grid.width).astype(np.float32) for values in (across * BLOCK, column)]
    y = [(values / grid.height).astype(np.float32) for values in (down * BLOCK, row)]
    return np.add.outer(*x), np.add.outer(*y)


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
