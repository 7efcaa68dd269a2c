"""What blocks become where the edges move: steps, expected costs, neighbours worth a look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.geometry.pixels import Size
from fitting.crop.mapping import Mapping, render_grey
from fitting.crop.pair import Numbers, Pair, to_grey
from fitting.crop.refine import climb
from fitting.crop.tangent import EDGES, SQUARE, Tangent, by_renders, by_slopes
from fixtures.synthetic.crop_cases import CropCase, scene

SOURCE = Size(960, 540)
FRAME = to_grey(scene(CropCase("tangent", (300, 780, 30, 510), source_size=(960, 540)), 0))
WAYS = (by_slopes, by_renders)

sides = st.integers(150, 520)
steps = st.tuples(*[st.integers(-1, 1)] * 3)


def pair_of(truth: Mapping, size: int, noise: float = 0.0) -> Pair:
    crop = render_grey(FRAME, truth, Size(size, size)).astype(np.float64)
    crop += np.random.default_rng(truth.x_min).normal(0, noise, crop.shape) if noise else 0
    return Pair(np.clip(np.rint(crop), 0, 255).astype(np.uint8), FRAME)


def square(x: int, y: int, side: int) -> Mapping:
    return Mapping(x, x + side, y, y + side)


@pytest.mark.parametrize("way", WAYS)
@given(sides, steps)
def test_a_step_leads_towards_the_box(
    way: Callable[[Pair, Mapping, Numbers], Tangent], side: int, step: tuple[int, int, int]
) -> None:
    truth = square(200, 10, side)
    off = SQUARE @ np.array(step)
    base = truth + tuple(int(v) for v in off)
    pair = pair_of(truth, 256)
    found = SQUARE @ way(pair, base, pair.choose(base)).step(SQUARE)
    left = off + found
    assert np.linalg.norm(left) <= 0.9 * np.linalg.norm(off) + 0.02


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("edge", range(4))
def test_the_edge_that_was_moved_is_told_from_the_others(
    way: Callable[[Pair, Mapping, Numbers], Tangent], edge: int
) -> None:
    truth = square(300, 30, 430)
    pair = pair_of(truth, 384)
    base = truth + tuple(2 * int(v) for v in EDGES[edge])
    found = way(pair, base, pair.choose(base)).step(EDGES)
    assert found[edge] < -0.8
    assert np.all(np.abs(np.delete(found, edge)) < 0.5)


@given(sides)
def test_at_the_box_nothing_is_left_but_standard_errors(side: int) -> None:
    truth = square(200, 10, side)
    pair = pair_of(truth, 256, noise=2.0)
    solution, errors = by_renders(pair, truth, pair.choose(truth)).step_with_errors()
    assert np.all(np.abs(solution) <= 6 * errors + 1e-3)
    assert np.all(errors[:4] < 0.5)


@pytest.mark.parametrize("way", WAYS)
def test_expected_costs_are_those_of_renders(
    way: Callable[[Pair, Mapping, Numbers], Tangent],
) -> None:
    truth = square(300, 30, 430)
    pair = pair_of(truth, 384, noise=3.0)
    chosen = pair.choose(truth)
    expected = way(pair, truth, chosen).costs(np.vstack([np.zeros(4), EDGES, -EDGES]))
    mappings = [truth, *(truth + tuple(int(v) for v in s * e) for s in (1, -1) for e in EDGES)]
    for mapping, costs in zip(mappings, expected, strict=True):
        real = pair.costs(mapping, chosen)
        if mapping == truth:
            np.testing.assert_allclose(costs, real, atol=1e-5)
        assert float(costs.mean()) == pytest.approx(float(real.mean()), rel=0.35)


@given(st.integers(0, 400), st.integers(0, 20), sides, st.sampled_from([0.0, 4.0, 12.0]))
def test_the_neighbours_that_are_rendered_are_the_best_of_all(
    x: int, y: int, side: int, noise: float
) -> None:
    truth = square(x, y, side)
    pair = pair_of(truth, 256, noise)
    few, all_of_them = climb([pair], truth, SOURCE), climb([pair], truth, SOURCE, n_tried=1000)
    assert (few is None) == (all_of_them is None)
    if few is None or all_of_them is None or all_of_them.certainty < 2:
        return  # nothing is decided by so little
    assert few.best == all_of_them.best
    assert few.certainty == pytest.approx(all_of_them.certainty, rel=0.02)
