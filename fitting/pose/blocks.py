"""Linear systems of a fit: a block per frame, links between neighbours, one shared unknown."""

from __future__ import annotations

import numpy as np

from converter.geometry.pixels import Floats


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
    diagonal: Floats, off: Floats, border: Floats, corner: float, right: Floats, right_shared: float
) -> tuple[Floats, float]:
    """Solve a chain in which one more unknown takes part in every block.

    Parameters
    ----------
    diagonal, off
        As of `solve_chain`.
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
    solved = solve_chain(diagonal, off, np.stack([right, border], axis=2))
    plain, slope = solved[..., 0], solved[..., 1]
    schur = corner - float((border * slope).sum())
    shared = (right_shared - float((border * plain).sum())) / schur
    return plain - shared * slope, shared
