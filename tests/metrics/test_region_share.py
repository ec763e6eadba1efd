"""Shares of a region: truths in closed form, counts by hand, standard errors, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from samplerbench.datasets.four_well import FourWell, FourWellBoltzmann
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.rings import Rings
from samplerbench.datasets.two_clusters import two_clusters
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.region_share import RegionShare

TILTED = GaussianMixture(
    (0.3, 0.7), ((0.0, 1.0), (2.0, -1.0)), (((1.0, 0.5), (0.5, 2.0)), ((0.5, -0.2), (-0.2, 0.3)))
)


def _info(metric, law, samples):
    result = metric.against_law(law, seed=0)(samples)
    assert result.value == result.lower == result.upper
    assert result.value == abs(result.info["share"] - result.info["truth"])
    return dict(result.info)


@pytest.mark.parametrize(
    ("region", "truth"),
    [
        ({"high": 0.0}, norm.cdf(10) / 3 + 2 * norm.cdf(-10) / 3),
        ({"low": -4.0, "high": 4.0}, norm.sf(6) - norm.sf(14)),
        ({"low": 10.0, "high": None}, 1 / 3),
        ({"axis": 1, "low": 0.5, "high": None}, (norm.cdf(0.5) + 2 * norm.sf(0.5)) / 3),
    ],
)
def test_truth_of_two_clusters(region, truth):
    found = _info(RegionShare(**region), two_clusters(), torch.zeros(5, 2))["truth"]
    assert found == pytest.approx(truth, rel=1e-7)


@pytest.mark.parametrize("axis", [0, 1])
def test_draws_have_the_share(axis):
    metric, n = RegionShare(axis, -0.5, 1.2), 4000
    sds = [math.sqrt(TILTED.covariances[k][axis][axis]) for k in (0, 1)]
    truth = sum(
        w * (norm.cdf(1.2, m[axis], sd) - norm.cdf(-0.5, m[axis], sd))
        for w, m, sd in zip(TILTED.weights, TILTED.means, sds, strict=True)
    )
    scores = []
    for k in range(60):
        info = _info(metric, TILTED, TILTED.draws(n, "test", k))
        assert info["truth"] == pytest.approx(truth, abs=1e-14)
        assert info["standard_error"] == pytest.approx(math.sqrt(truth * (1 - truth) / n))
        scores.append((info["share"] - truth) / info["standard_error"])
    assert abs(np.mean(scores)) < 4 / math.sqrt(60)
    assert 0.7 < np.std(scores) < 1.35


def test_ends_belong_to_one_side():
    x = torch.tensor([[-1.0], [0.0], [0.5], [1.0]], dtype=torch.float64)
    law = gaussian((0.0,), ((1.0,),))
    assert _info(RegionShare(0, 0.0, 1.0), law, x)["share"] == 0.5
    assert _info(RegionShare(0, None, 0.0), law, x)["share"] == 0.25
    assert _info(RegionShare(0, 1.0, None), law, x)["share"] == 0.25


def test_a_flat_mode_is_on_one_side():
    flat = GaussianMixture((0.25, 0.75), ((0.0,), (1.0,)), (((0.0,),), ((0.0,),)))
    for low, high, truth in ((None, 0.0, 0.0), (0.0, 1.0, 0.25), (1.0, None, 0.75)):
        info = _info(RegionShare(0, low, high), flat, flat.draws(50, "test", 0))
        assert info["truth"] == truth


@pytest.mark.parametrize("law", [FourWellBoltzmann(), FourWell()])
def test_wells(law):
    """The share of the law is that of the Boltzmann law, not that of the trajectory's states."""
    points = FourWell().trajectory[:, None]
    info = _info(RegionShare(high=0.0), law, points)
    assert info["truth"] == pytest.approx(0.53553, abs=1e-5)
    assert info["share"] == pytest.approx(0.6647, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axis": -1}, "axis=-1: must be at least 0"),
        ({"low": math.inf}, "low=inf: must be finite, or null"),
        ({"high": None}, "high=None: must be finite, unless low"),
        ({"low": 1.0, "high": 1.0}, "high=1.0: must be above low=1.0"),
        ({"low": 2.0}, "high=0.0: must be above low=2.0"),
    ],
)
def test_refuses_impossible_regions(settings, message):
    with pytest.raises(InvalidSetting, match=message):
        RegionShare(**settings)


def test_says_why_not():
    reason = RegionShare().why_incompatible(Rings())
    assert reason is not None
    assert reason.startswith("a region's share needs a Gaussian mixture or a law on a line")
    for law, axes in ((two_clusters(), "axes 0 to 1"), (FourWellBoltzmann(), "axis 0")):
        reason = RegionShare(axis=2).why_incompatible(law)
        assert reason is not None
        assert f"axis 2, the data have {axes};" in reason
