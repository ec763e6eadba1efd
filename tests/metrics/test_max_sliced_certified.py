"""The certified maximum against scans of the circle, shifts and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import normal
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics import plane, projections
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.projections import quantile_grid, sliced_wasserstein


def _circle(count):
    phi = torch.arange(count, dtype=torch.float64) * (math.pi / count)
    return torch.stack([phi.cos(), phi.sin()], dim=1)


def _scan(x, y, count):
    return max(
        float(sliced_wasserstein(x, y, part).max()) for part in torch.split(_circle(count), 1000)
    )


def _certify(x, y, relative_tolerance=1e-6):
    return MaxSlicedCertified(relative_tolerance).against(y, seed=0)(x)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 120), (120, 40), (41, 60), (1, 30), (2, 1)])
def test_a_fine_scan_lies_between_the_bounds(n, m):
    x, y = (
        normal(n, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.5]]).double(),
        0.9 * normal(m, 2, seed=1),
    )
    result, scan = _certify(x, y), _scan(x, y, 20_000)
    assert result.direction is not None
    assert result.upper - result.lower <= 1e-6 * result.upper + 1e-9
    assert scan <= result.upper
    # W₂ changes by at most ‖x‖ + ‖y‖ (r.m.s.) times the angle, half a grid step.
    radius = float((x.square().mean() * 2).sqrt() + (y.square().mean() * 2).sqrt())
    assert result.lower <= scan + radius * math.pi / 40_000
    along = float(sliced_wasserstein(x, y, result.direction[None]))
    assert result.value == result.lower == pytest.approx(along, rel=1e-12)


coordinates = st.integers(-3, 3).map(float)
points = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=6)


@given(points, points)
@settings(max_examples=40, deadline=None)
def test_bounds_hold_with_ties(x, y):
    # Points on a small lattice: projections coincide, and clouds do.
    a, b = torch.tensor(x).double(), torch.tensor(y).double()
    result = _certify(a, b)
    scan = _scan(a, b, 180)
    assert scan <= result.upper * (1 + 1e-12) + 1e-12
    assert result.value <= result.upper


def test_bounds_hold_where_the_cap_ends_the_search():
    x, y = normal(500, 2), normal(500, 2, seed=1)
    exact = _certify(x, y)
    capped = MaxSlicedCertified(evaluations=20).against(y, seed=0)(x)
    assert capped.evaluations == 20 < exact.evaluations
    assert capped.lower <= exact.upper
    assert capped.upper >= exact.lower
    assert capped.upper - capped.lower > 1e-6 * capped.upper


@pytest.mark.parametrize("shift", [(3.0, -4.0), (0.0, 1e-5), (1e6, 1e6)])
def test_of_a_shift_is_the_shift(shift):
    x = normal(300, 2)
    result = _certify(x + torch.tensor(shift, dtype=torch.float64), x)
    # x + shift is rounded to 1e-16 of its size.
    rounding = 1e-15 * (1 + math.hypot(*shift))
    assert result.value == pytest.approx(math.hypot(*shift), rel=1e-6, abs=1e-9 + rounding)
    assert result.upper >= math.hypot(*shift) * (1 - 1e-12) - rounding


def test_rotation_and_translation_invariant():
    x, y = normal(100, 2) * torch.tensor([2.0, 1.0]), normal(150, 2, seed=1) + 0.3
    value = _certify(x, y).value
    for angle in (0.4, 1.1, 2.9):
        c, s = math.cos(angle), math.sin(angle)
        rotation = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        assert _certify(x @ rotation + 50, y @ rotation + 50).value == pytest.approx(
            value, rel=2e-6
        )


def test_few_evaluations_on_the_grid_mixture():
    law, rng = grid_mixture(), np.random.default_rng(0)
    reference = law.sample(10_000, rng)
    result = MaxSlicedCertified().against(reference, seed=0)(law.sample(2000, rng))
    assert result.upper - result.lower <= 1e-6 * result.upper + 1e-9
    assert result.evaluations <= 45


@pytest.mark.parametrize("place", [(1e8, 0.0), (1e8, -1e8), (1e6, 3e5)])
def test_a_point_far_away_that_both_clouds_share(place):
    """Along a line across, it is coupled with others: bounds of 1e13, and of their rounding."""
    far = torch.tensor([place], dtype=torch.float64)
    x, y = torch.cat([normal(200, 2), far]), torch.cat([1.2 * normal(200, 2, seed=1), far])
    result, scan = _certify(x, y), _scan(x, y, 4000)
    assert result.value == result.lower < result.upper
    assert scan <= result.upper
    assert result.lower >= scan * (1 - 1e-3)
    assert result.upper - result.lower <= 1e-3 * result.upper


def test_rounding_ends_a_search_without_a_tolerance():
    for y in (normal(150, 2, seed=1), normal(100, 2) + 3):
        result = _certify(normal(100, 2), y, relative_tolerance=0)
        assert result.evaluations < 500
        assert 0 < result.upper - result.lower <= 1e-11 * result.upper


def test_stops_where_clouds_are_nearly_equal():
    x = normal(500, 2)
    result = _certify(x.float(), x)
    assert 0 < result.value < 1e-7
    assert result.evaluations < 60
    assert result.upper - result.lower <= 1e-3 * result.upper


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 75), (301, 200), (90, 300)])
def test_pieces_of_the_grid_change_no_value(n, m, monkeypatch):
    x, y = 1 + normal(n, 2), normal(m, 2, seed=1)
    whole = _certify(x, y)
    quantile_grid.cache_clear()
    monkeypatch.setattr(plane, "PIECE", 64)
    monkeypatch.setattr(projections, "_STRETCH", 17)
    pieces = _certify(x, y)
    quantile_grid.cache_clear()
    assert pieces.value == pytest.approx(whole.value, rel=1e-14)
    assert pieces.upper == pytest.approx(whole.upper, rel=1e-12)
    assert pieces.evaluations == whole.evaluations
