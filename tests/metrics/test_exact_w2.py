"""Exact transport against assignments, lines and projections."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from samplerbench.metrics.exact_w2 import ExactW2
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.projections import sliced_wasserstein


def _normal(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, dim)))


def _w2(x: Tensor, y: Tensor) -> float:
    return ExactW2().against(y, seed=0)(x).value


def test_is_the_best_permutation() -> None:
    x, y = _normal(5, 3), _normal(5, 3, seed=1)
    squares = torch.cdist(x, y).square()
    orders = itertools.permutations(range(5))
    best = min(sum(float(squares[i, j]) for i, j in enumerate(order)) for order in orders)
    assert _w2(x, y) == pytest.approx((best / 5) ** 0.5, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (20, 60), (60, 20), (30, 45), (1, 30)])
def test_is_the_assignment_of_repeated_points(n: int, m: int) -> None:
    x, y = _normal(n, 2).numpy(), 2 * _normal(m, 2, seed=1).numpy() + 1
    size = np.lcm(n, m)
    costs = cdist(x.repeat(size // n, axis=0), y.repeat(size // m, axis=0), "sqeuclidean")
    expected = costs[linear_sum_assignment(costs)].mean() ** 0.5
    assert _w2(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-10)


def test_is_the_monotone_coupling_on_a_line() -> None:
    x, y = _normal(50, 1), _normal(70, 1, seed=1) ** 3
    line = sliced_wasserstein(x, y, torch.ones(1, 1).double())
    assert _w2(x, y) == pytest.approx(float(line), rel=1e-12)


def test_shift_rotation_and_projection() -> None:
    x, y = _normal(80, 2), _normal(90, 2, seed=1)
    turn, _ = torch.linalg.qr(_normal(2, 2, seed=3))
    assert _w2(x, x + torch.tensor([3.0, -4.0])) == pytest.approx(5, rel=1e-12)
    assert _w2(x @ turn, y @ turn) == pytest.approx(_w2(x, y), rel=1e-12) == _w2(y, x)
    assert MaxSlicedCertified().against(y, seed=0)(x).lower < _w2(x, y)


def test_refuses_more_pairs_than_its_cap() -> None:
    distance = ExactW2(max_pairs=600).against(_normal(30, 2), seed=0)
    distance(_normal(20, 2))
    with pytest.raises(ValueError, match="21 × 30 is more than max_pairs = 600: raise that"):
        distance(_normal(21, 2))
