"""Least squares with a few unknowns and very many pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats

Column = NDArray[np.floating[Any]]


def least_squares(
    columns: Sequence[Column], target: Column, weights: Column | None = None
) -> Floats:
    """Solve sum(x_i column_i) = target; arrays of one shape, the smallest x where several fit.

    Sums run on one core: the threads of a matrix product wait for each other longer than this
    takes, and more than one frame may be worked on at a time.
    """
    weighted = [column if weights is None else column * weights for column in columns]
    normal = np.empty((len(columns), len(columns)))
    gradient = np.empty(len(columns))
    for i, left in enumerate(weighted):
        gradient[i] = _dot(left, target)
        for j, right in enumerate(columns[: i + 1]):
            normal[i, j] = normal[j, i] = _dot(left, right)
    return np.asarray(np.linalg.lstsq(normal, gradient, rcond=1e-10)[0], np.float64)


def _dot(a: Column, b: Column) -> float:
    return float(np.einsum("p,p->", a.ravel(), b.ravel()))
