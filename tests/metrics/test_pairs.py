"""Energy distance and MMD against loops, SciPy and the values of known laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from helpers import mostly_slow, normal
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


@pytest.mark.parametrize("shift", mostly_slow([0.0, 1.0], 1))
def test_expected_value_is_that_of_the_laws(shift):
    """X ~ N(0, 1), Y ~ N(c, 1): X − Y ~ N(c, 2)."""
    h, spread = 0.7, math.sqrt(2)
    half = math.exp(-(shift**2) / 4) / math.sqrt(math.pi)
    mean_gap = 2 * half + shift * (1 - 2 * scipy.stats.norm.cdf(-shift / spread))
    energy = 2 * mean_gap - 4 / math.sqrt(math.pi)
    kernel = h / math.sqrt(h**2 + 2)
    mmd = 2 * kernel * (1 - math.exp(-(shift**2) / (2 * (h**2 + 2))))
    for metric, expected in ((Energy(), energy), (MMD(h), mmd)):
        values = [
            metric.against(normal(8, 1, seed=2 * k) + shift, seed=0)(
                normal(5, 1, seed=2 * k + 1)
            ).value
            for k in range(400)
        ]
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - expected) < 4 * error
        if shift == 0:
            assert min(values) < 0
            # With the pairs of a point with itself it would be off by so much.
            bias = (1 / 8 + 1 / 5) * (2 / math.sqrt(math.pi) if metric == Energy() else 1 - kernel)
            assert error < bias / 8


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_rotation_and_translation_invariant(metric):
    x, y = normal(30, 4) * 2, normal(40, 4, seed=1)
    turn, _ = torch.linalg.qr(normal(4, 4, seed=2))
    value = metric.against(y, seed=0)(x).value
    assert metric.against(y @ turn + 9, seed=0)(x @ turn + 9).value == pytest.approx(value, 1e-10)
    if metric != MMD():  # whose bandwidth is that of one side
        assert metric.against(x, seed=0)(y).value == pytest.approx(value, rel=1e-12)


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


def test_far_apart_is_two_kernels_of_nothing():
    x = normal(20, 2)
    own = [float(torch.exp(-torch.pdist(x).square() / 2).mean())] * 2
    value = MMD(1.0).against(x, seed=0)(x + 1e6).value
    assert value == pytest.approx(sum(own), rel=1e-9)


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


@pytest.mark.slow
def test_between_draws_of_one_law_the_spread_falls_like_n():
    """The floor's exponent: eight times the points, an eighth of the spread, not 1/√8."""
    spreads = []
    for n in (50, 400):
        values = [
            Energy()
            .against(normal(n, 1, seed=2 * seed), seed=0)(normal(n, 1, seed=2 * seed + 1))
            .value
            for seed in range(300)
        ]
        spreads.append(torch.tensor(values).std())
    assert float(spreads[0] / spreads[1]) == pytest.approx(8, rel=0.25)


def test_a_bandwidth_goes_along_with_the_data():
    x, y = (torch.randn(30, 2, generator=torch.Generator().manual_seed(k)) for k in range(2))
    value = MMD(0.7).against(y, seed=0)(x).value
    for power in (-80, 40):
        found = MMD(0.7 * 2.0**power).against(y * 2.0**power, seed=0)(x * 2.0**power)
        assert found.value == value
