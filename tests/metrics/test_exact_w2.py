"""Exact transport against assignments."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from helpers import normal
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.exact_w2 import ExactW2


def _w2(x, y):
    return ExactW2().against(y, seed=0)(x).value


def _assign(x, y):
    """W₂ by SciPy's assignment of points that are repeated until there are equally many."""
    n, m = len(x), len(y)
    size = math.lcm(n, m)
    costs = cdist(x.repeat(size // n, axis=0), y.repeat(size // m, axis=0), "sqeuclidean")
    return float(costs[linear_sum_assignment(costs)].mean() ** 0.5)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (20, 60), (60, 20), (30, 45), (1, 30)])
def test_is_the_assignment_of_repeated_points(n, m):
    x, y = normal(n, 2).numpy(), 2 * normal(m, 2, seed=1).numpy() + 1
    assert _w2(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(_assign(x, y), rel=1e-12)


def test_refuses_more_pairs_than_its_cap():
    assert ExactW2(max_pairs=1).against(torch.zeros(1, 1), seed=0)(torch.ones(1, 1)).value == 1
    distance = ExactW2(max_pairs=600).against(normal(30, 2), seed=0)
    distance(normal(20, 2))
    with pytest.raises(ValueError, match="21 × 30 is more than max_pairs = 600: raise that"):
        distance(normal(21, 2))


@pytest.mark.parametrize("m", [300, 150])
def test_metres_and_nanometres_have_one_distance(m):
    x, y = normal(300, 2), normal(m, 2, seed=1)
    expected = _assign(x.numpy(), y.numpy())
    for scale in (1e-24, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1.0, 1e9, 1e14):
        result = ExactW2().against(scale * y, seed=0)(scale * x)
        assert result.value == pytest.approx(scale * expected, rel=1e-12, abs=0)
        assert result.lower == pytest.approx(result.value, rel=1e-9, abs=0)
        assert result.lower < result.value == result.upper


def test_the_unit_of_the_costs_changes_no_bit():
    law = grid_mixture()
    x, y = law.draws(200, "test", 0), law.draws(300, "test", 1)
    costs = cdist(x.numpy(), y.numpy(), "sqeuclidean")
    assert _w2(x, y) == math.sqrt(ot.emd2([], [], costs))


@pytest.mark.parametrize("place", [1e4, 1e6, 1e8, 1e12])
@pytest.mark.parametrize("times", [1, 2])
def test_a_point_far_away_that_both_clouds_share(place, times):
    far = torch.tensor([[place, -place]], dtype=torch.float64)
    x = torch.cat([normal(99, 2), far])
    y = torch.cat([1.2 * normal(99 * times, 2, seed=1), far.expand(times, 2)])
    expected = _assign(x.numpy(), y.numpy())
    result = ExactW2().against(y, seed=0)(x)
    assert result.value == pytest.approx(expected, rel=1e-9)
    # the far point's potentials have their own rounding, which the lower bound allows for
    assert 0 <= result.lower < result.value == result.upper
    assert result.lower >= expected * (1 - 1e-3) or place > 1e6


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9])
def test_of_clouds_that_are_nearly_equal(step):
    x = normal(200, 2)
    y = x + step * normal(200, 2, seed=1)
    result = ExactW2().against(y, seed=0)(x)
    assert result.value == pytest.approx(_assign(x.numpy(), y.numpy()), rel=1e-9, abs=0)
    assert result.lower == pytest.approx(result.value, rel=1e-6, abs=0)


def test_a_plan_that_is_not_the_best_one_shows(monkeypatch):
    def independent(a, b, costs, **settings):
        plan = np.full(costs.shape, 1 / costs.size)
        return plan, {"warning": None, "u": np.zeros(len(costs)), "cost": float(costs.mean())}

    x, y = normal(60, 2), normal(60, 2, seed=1) + 3
    expected = _w2(x, y)
    monkeypatch.setattr(ot, "emd", independent)
    result = ExactW2().against(y, seed=0)(x)
    assert result.upper == result.value > 1.05 * expected
    assert 0 < result.lower < 0.95 * expected
