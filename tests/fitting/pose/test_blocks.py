"""Block systems against dense ones."""

from __future__ import annotations

import numpy as np
import pytest

from converter.geometry.pixels import Floats
from fitting.pose.blocks import Band, solve_band, solve_bordered, solve_chain


def chain(n: int, b: int, gaps: tuple[int, ...] = ()) -> tuple[Floats, Floats, Floats]:
    """Blocks of a positive definite system, and the same as one matrix."""
    rng = np.random.default_rng(n)
    diagonal = rng.normal(size=(n, b, b))
    diagonal = diagonal @ np.swapaxes(diagonal, 1, 2) + 6 * b * np.eye(b)
    off = rng.normal(size=(max(n - 1, 0), b, b))
    for gap in gaps:
        off[gap] = 0
    dense = np.zeros((n * b, n * b))
    for i in range(n):
        dense[i * b : (i + 1) * b, i * b : (i + 1) * b] = diagonal[i]
    for i in range(n - 1):
        dense[i * b : (i + 1) * b, (i + 1) * b : (i + 2) * b] = off[i]
        dense[(i + 1) * b : (i + 2) * b, i * b : (i + 1) * b] = off[i].T
    return diagonal, off, dense


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 16, 33])
@pytest.mark.parametrize("gaps", [(), (0,)])
def test_chain(n: int, gaps: tuple[int, ...]) -> None:
    diagonal, off, dense = chain(n, 3, gaps if n > 1 else ())
    right = np.random.default_rng(1).normal(size=(n, 3, 2))
    expected = np.linalg.solve(dense, right.reshape(-1, 2)).reshape(right.shape)
    np.testing.assert_allclose(solve_chain(diagonal, off, right), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_one_more_unknown_that_all_share(n: int) -> None:
    diagonal, off, dense = chain(n, 3)
    rng = np.random.default_rng(2)
    border, right = rng.normal(size=(2, n, 3))
    whole = np.block([[dense, border.reshape(-1, 1)], [border.reshape(1, -1), np.array([[50.0]])]])
    expected = np.linalg.solve(whole, np.append(right.ravel(), 4.0))
    band = Band(diagonal, off, np.zeros((max(n - 2, 0), 3, 3)))
    found, shared = solve_bordered(band, border, 50.0, right, 4.0)
    np.testing.assert_allclose(np.append(found.ravel(), shared), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [3, 4, 5, 8, 13])
def test_second_neighbours(n: int) -> None:
    diagonal, off, dense = chain(n, 3)
    second = np.random.default_rng(n + 1).normal(size=(n - 2, 3, 3))
    for i in range(n - 2):
        rows, columns = slice(3 * i, 3 * i + 3), slice(3 * i + 6, 3 * i + 9)
        dense[rows, columns], dense[columns, rows] = second[i], second[i].T
    band = Band(diagonal, off, second)
    right = np.random.default_rng(1).normal(size=(n, 3, 2))
    expected = np.linalg.solve(dense, right.reshape(-1, 2)).reshape(right.shape)
    np.testing.assert_allclose(solve_band(band, right), expected, rtol=1e-9, atol=1e-12)
    ones = np.tile([0.0, 1.0, 0.0], n)
    np.testing.assert_allclose(band.column_sum(1).ravel(), dense @ ones, rtol=1e-12, atol=1e-12)
