"""Energy distance and MMD against loops and SciPy."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from helpers import normal
from samplerbench.errors import InvalidSetting
from samplerbench.metrics import pairs
from samplerbench.metrics.energy import Energy
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.mmd import MMD, median_distance
from samplerbench.metrics.mode_weights import ModeWeights
from samplerbench.metrics.region_share import RegionShare
from samplerbench.metrics.w_law_1d import WLaw1D

METRICS = [Energy(), MMD(0.7), MMD()]


def _by_loops(x, y, f):
    def mean(a, b, same):
        values = [
            f(math.dist(a[i].tolist(), b[j].tolist()))
            for i in range(len(a))
            for j in range(len(b))
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    return mean(x, y, False), mean(x, x, True), mean(y, y, True)


@pytest.mark.parametrize("piece", [1, 7, 50, 2**20])
def test_is_the_sum_over_different_points(monkeypatch, piece):
    monkeypatch.setattr(pairs, "PIECE", piece)  # changes rounding only: 1e-13
    x, y = normal(9, 3), 2 * normal(13, 3, seed=1) + 0.5
    across, own_x, own_y = _by_loops(x, y, lambda d: d)
    value = Energy().against(y, seed=0)(x).value
    assert value == pytest.approx(2 * across - own_x - own_y, abs=1e-13)
    across, own_x, own_y = _by_loops(x, y, lambda d: math.exp(-(d**2) / (2 * 0.7**2)))
    value = MMD(0.7).against(y, seed=0)(x).value
    assert value == pytest.approx(own_x + own_y - 2 * across, abs=1e-13)


def test_energy_is_scipys_but_for_the_pairs_of_a_point_with_itself():
    n, m = 40, 55
    x, y = normal(n, 1), normal(m, 1, seed=1) * 2 + 0.3
    own = [float(torch.pdist(cloud).mean()) for cloud in (x, y)]
    value = Energy().against(y, seed=0)(x).value
    square = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    assert value == pytest.approx(square - own[0] / n - own[1] / m, abs=1e-12)


def test_bandwidth_is_the_references_median():
    y = normal(300, 3)
    gaps = torch.pdist(y).sort().values
    median = float(gaps[(len(gaps) - 1) // 2])
    distance = MMD().against(y, seed=0)
    for scale in (0.1, 50.0):
        result = distance(scale * normal(20, 3, seed=1))
        assert result.info == {"bandwidth": pytest.approx(median)}
        fixed = MMD(median).against(y, seed=0)(scale * normal(20, 3, seed=1))
        assert fixed.value == pytest.approx(result.value, rel=1e-12)
    # Rows in order, as of a file: every part is seen.
    ramp = torch.arange(5000).double()[:, None]
    assert median_distance(ramp) == pytest.approx(5000 * (1 - math.sqrt(0.5)), rel=0.01)


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_refuses_one_point(metric):
    allowed = "must be at least 2 for an unbiased value; metric=sliced takes 1"
    with pytest.raises(InvalidSetting, match=rf"reference.shape\[0\]=1: {allowed}"):
        metric.against(torch.ones(1, 2), seed=0)
    distance = metric.against(normal(5, 2), seed=0)
    with pytest.raises(InvalidSetting, match=rf"samples.shape\[0\]=1: {allowed}"):
        distance(torch.ones(1, 2))


def test_refuses_a_reference_without_a_median():
    with pytest.raises(InvalidSetting, match=r"bandwidth=0\.0: must be above 0; the median"):
        MMD().against(torch.ones(5, 2), seed=0)
    assert MMD(1.0).against(torch.ones(5, 2), seed=0)(torch.ones(3, 2)).value == 0


@pytest.mark.parametrize(
    ("n", "m", "fits"),
    [
        (10**6, 10**5, False),  # the pairs of a million points among themselves
        (10**5, 4 * 10**5, True),
        (447_213, 1, True),  # √(2·10¹¹) = 447 213.6
        (447_214, 1, False),
        (400_000, 250_000, True),
        (400_000, 250_001, False),
    ],
)
def test_how_many_pairs_are_too_many(n, m, fits):
    for found in (pairs.why_too_many(n, m), pairs.why_too_many(m, n)):
        assert (found is None) is fits
        assert fits or f"{max(n, m):,} points have too many pairs" in found


def test_how_floors_fall():
    for metric in (Energy(), MMD()):
        assert metric.floor_exponent == 1.0
    for law_metric in (ModeWeights(), RegionShare()):
        assert law_metric.floor_exponent == 0.5
    assert MaxSlicedCertified().floor_exponent == 0.25
    assert (WLaw1D(p=1).floor_exponent, WLaw1D(p=2).floor_exponent) == (0.5, 0.25)


def test_a_bandwidth_goes_along_with_the_data():
    x, y = (torch.randn(30, 2, generator=torch.Generator().manual_seed(k)) for k in range(2))
    value = MMD(0.7).against(y, seed=0)(x).value
    for power in (-80, 40):
        found = MMD(0.7 * 2.0**power).against(y * 2.0**power, seed=0)(x * 2.0**power)
        assert found.value == value
