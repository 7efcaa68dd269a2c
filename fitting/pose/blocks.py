"""Linear systems of a fit: a block per frame, links between neighbours, one shared unknown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.geometry.pixels import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A symmetric matrix of N x N blocks in which frames know two neighbours on either side.

    Attributes
    ----------
    diagonal
        (N, b, b).
    first, second
        (N-1, b, b) and (N-2, b, b) blocks right of the diagonal; those below are their transposes.

    """

    diagonal: Floats
    first: Floats
    second: Floats

    @classmethod
    def zeros(cls, n: int, b: int) -> Band:
        """Return a band of nothing."""
        return cls(*(np.zeros((max(n - k, 0), b, b)) for k in range(3)))

    def poses(self, b: int) -> Band:
        """Return the first ``b`` unknowns of each block."""
        return Band(*(x[:, :b, :b] for x in (self.diagonal, self.first, self.second)))

    def copy(self) -> Band:
        """Return a copy that may be written to."""
        return Band(self.diagonal.copy(), self.first.copy(), self.second.copy())

    def column_sum(self, k: int) -> Floats:
        """(N, b) rows times a vector that is 1 at unknown ``k`` of every block, else 0."""
        out: Floats = np.array(self.diagonal[:, :, k])
        for distance, blocks in ((1, self.first), (2, self.second)):
            if len(blocks):
                out[:-distance] += blocks[:, :, k]
                out[distance:] += blocks[:, k, :]
        return out


def solve_band(band: Band, right: Floats) -> Floats:
    """Solve a positive definite band; ``right`` and the result are (N, b, k).

    Where second neighbours are linked, pairs of frames make the blocks of a chain.
    """
    if not band.second.any():
        return solve_chain(band.diagonal, band.first, right)
    n, b = band.diagonal.shape[:2]
    half = (n + 1) // 2
    diagonal = np.zeros((2 * half, b, b))
    diagonal[:] = np.eye(b)
    diagonal[:n] = band.diagonal
    first, second = np.zeros((2, 2 * half, b, b))
    first[: n - 1], second[: n - 2] = band.first, band.second
    pairs, links = np.zeros((half, 2 * b, 2 * b)), np.zeros((half, 2 * b, 2 * b))
    pairs[:, :b, :b], pairs[:, b:, b:] = diagonal[0::2], diagonal[1::2]
    pairs[:, :b, b:], pairs[:, b:, :b] = first[0::2], np.swapaxes(first[0::2], 1, 2)
    links[:, :b, :b], links[:, b:, b:] = second[0::2], second[1::2]
    links[:, b:, :b] = first[1::2]
    padded = np.zeros((2 * half, *right.shape[1:]))
    padded[:n] = right
    solved = solve_chain(pairs, links[:-1], padded.reshape(half, 2 * b, -1))
    return solved.reshape(2 * half, b, -1)[:n]


def solve_chain(diagonal: Floats, off: Floats, right: Floats) -> Floats:
    """Solve a symmetric positive definite block-tridiagonal system.

    Block cyclic reduction: every second unknown is eliminated at once, which leaves a system of the
    same form and half the length; log2(N) rounds of whole-array operations.

    Parameters
    ----------
    diagonal
        (N, b, b) blocks.
    off
        (N-1, b, b) blocks right of the diagonal; those below it are their transposes.
    right
        (N, b, k) right-hand sides.

    Returns
    -------
    (N, b, k).

    """
    n = len(diagonal)
    if n == 1 or not off.any():
        return np.asarray(np.linalg.solve(diagonal, right), dtype=np.float64)
    b = diagonal.shape[1]
    n_odd, n_even = n // 2, (n + 1) // 2
    above = np.swapaxes(off[0::2][:n_odd], 1, 2)  # from odd unknowns to the even ones before
    below = np.zeros((n_odd, b, b))
    below[: len(off[1::2])] = off[1::2]  # and to the even ones after; the last may have none
    solved = np.linalg.solve(diagonal[1::2], np.concatenate([above, below, right[1::2]], axis=2))
    to_before, to_after, constant = solved[..., :b], solved[..., b : 2 * b], solved[..., 2 * b :]

    even_diagonal, even_right = diagonal[0::2].copy(), right[0::2].copy()
    before, after = off[0::2][:n_odd], np.swapaxes(below, 1, 2)
    even_diagonal[:n_odd] -= before @ to_before
    even_right[:n_odd] -= before @ constant
    m = n_even - 1
    even_diagonal[1:] -= after[:m] @ to_after[:m]
    even_right[1:] -= after[:m] @ constant[:m]
    even_off = -(before[:m] @ to_after[:m])

    out = np.empty_like(right)
    even = solve_chain(even_diagonal, even_off, even_right)
    out[0::2] = even
    out[1::2] = constant - to_before @ even[:n_odd]
    out[1::2][:m] -= to_after[:m] @ even[1:]
    return out


def solve_bordered(
    band: Band, border: Floats, corner: float, right: Floats, right_shared: float
) -> tuple[Floats, float]:
    """Solve a band in which one more unknown takes part in every block.

    Parameters
    ----------
    band
        The blocks.
    border
        (N, b) coefficients of the shared unknown in each block's rows.
    corner
        Its own coefficient.
    right, right_shared
        (N, b) and a number.

    Returns
    -------
    (N, b) and the shared unknown.

    """
    solved = solve_band(band, np.stack([right, border], axis=2))
    plain, slope = solved[..., 0], solved[..., 1]
    schur = corner - float((border * slope).sum())
    shared = (right_shared - float((border * plain).sum())) / schur
    return plain - shared * slope, shared
