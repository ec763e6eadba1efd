"""Refined directions: shifts in many dimensions, stationarity, and the certified maximum in two."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import normal
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.max_sliced_refined import MaxSlicedRefined, _square_and_slope
from samplerbench.metrics.projections import random_directions, sliced_wasserstein


def _shift(dim):
    return 3 * random_directions(dim, 1, seed=9)[0]


def test_finds_a_pure_shift_where_random_directions_do_not():
    x = normal(200, 50)
    value = MaxSlicedRefined().against(x, seed=0)(x + _shift(50)).value
    assert value == pytest.approx(3, rel=1e-6)
    assert MaxSliced().against(x, seed=0)(x + _shift(50)).value < 0.7 * 3


def test_finds_a_shift_between_independent_noises():
    x, y = normal(300, 50) + _shift(50), normal(400, 50, seed=1)
    result = MaxSlicedRefined(tolerance=1e-14).against(y, seed=0)(x)
    assert result.direction is not None
    # The noise tilts the best direction away from the shift, and W₂ only rises by that.
    assert result.value > float(sliced_wasserstein(x, y, _shift(50)[None] / 3))
    assert result.value == pytest.approx(
        float(sliced_wasserstein(x, y, result.direction[None])), rel=1e-10
    )
    # A stationary point of W₂ on the sphere: M_θ θ is parallel to θ, up to the jumps of the slope
    # where two points change places.
    centre = y.mean(dim=0)
    (square,), (slope,) = _square_and_slope(result.direction[None], x - centre, y - centre)
    assert float((slope / square - result.direction).norm()) < 1e-3
    # A second seed climbs to the same top: to 1e-6.
    other = MaxSlicedRefined(tolerance=1e-14).against(y, seed=1)(x).value
    assert other == pytest.approx(result.value, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 60), (63, 40)])
def test_slope_is_half_the_gradient(n, m):
    x, y = 2 * normal(n, 6), normal(m, 6, seed=1) + 1
    directions = random_directions(6, 3, seed=0)
    squares, slopes = _square_and_slope(directions, x, y)
    torch.testing.assert_close(squares, sliced_wasserstein(x, y, directions).square())
    h = 1e-6
    for k in range(6):
        step = h * torch.eye(6, dtype=torch.float64)[k]
        up, down = (_square_and_slope(directions + s, x, y)[0] for s in (step, -step))
        torch.testing.assert_close((up - down) / (4 * h), slopes[:, k], rtol=1e-6, atol=1e-6)


def test_comes_close_to_the_certified_maximum():
    for seed in range(5):
        x, y = normal(150, 2, seed=seed), normal(200, 2, seed=seed + 50)
        certified = MaxSlicedCertified().against(y, seed=0)(x)
        refined = MaxSlicedRefined(directions=50).against(y, seed=0)(x)
        assert certified.value * (1 - 1e-3) <= refined.value <= certified.upper
        assert math.isnan(refined.upper)


def test_never_below_its_random_directions():
    x, y = normal(60, 10), normal(70, 10, seed=1)
    for seed in range(3):
        refined = MaxSlicedRefined(directions=30, starts=1).against(y, seed=seed)(x).value
        assert (
            refined > MaxSliced(directions=30, precision="float64").against(y, seed=seed)(x).value
        )
