"""Outliers, mode coverage and W₁: closed forms, another way to the number, and bad settings."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.stats import chi2

from samplerbench.datasets.checkerboard import Checkerboard
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.exact_w1 import ExactW1
from samplerbench.metrics.exact_w2 import ExactW2
from samplerbench.metrics.mode_coverage import ModeCoverage
from samplerbench.metrics.outliers import Outliers

NORMAL = gaussian([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]])


def draws(law, count=20_000, seed=1):
    return law.sample(count, np.random.default_rng(seed))


@pytest.mark.parametrize("level", [0.01, 0.2])
def test_outliers_of_a_gaussian_are_known(level):
    """Its density falls with Mahalanobis' distance, whose square is χ² with two degrees."""
    distance = Outliers(level).against_law(NORMAL, seed=0)
    mean = torch.tensor([1.0, -2.0]).double()
    for width in (0.8, 1.0, 1.3):
        x = mean + width * (draws(NORMAL) - mean)
        found = distance(x)
        expected = chi2.sf(chi2.isf(level, 2) / width**2, 2)
        spread = 5 * math.sqrt(expected * (1 - expected) * (1 / 20_000 + 1 / 100_000)) + 0.002
        assert found.info["share"] == pytest.approx(expected, abs=spread)
        assert found.value == abs(found.info["share"] - level)
        # E ln p changes by dim/2·(1 − width²)
        assert found.info["log_density_gap"] == pytest.approx(1 - width**2, abs=0.03)


def test_outliers_need_a_density_and_draws():
    assert Outliers().why_incompatible(NORMAL) is None
    for law in (Checkerboard(), isotropic((1.0,), ((0.0, 0.0),), 0.0)):
        assert "density" in Outliers().why_incompatible(law)
    with pytest.raises(InvalidSetting, match="level=0"):
        Outliers(0.0)
    with pytest.raises(InvalidSetting, match="draws=100"):
        Outliers(0.01, 100)


def test_mode_coverage():
    law = grid_mixture()
    distance = ModeCoverage().against_law(law, seed=0)
    centres = torch.tensor(law.means).double()
    one = distance(centres[:1].repeat(10, 1))
    assert (one.info["coverage"], one.info["found"]) == (0.0, 1.0)
    every = distance(centres.repeat(5, 1))
    assert every.info["coverage"] == pytest.approx(1.0)
    weights = np.array(law.weights)
    truth = -(weights * np.log(weights)).sum() / np.log(9)
    assert every.value == pytest.approx(1 - truth)
    assert distance(draws(law)).value < 0.01
    half = distance(centres[:3].repeat(7, 1))
    assert half.info["coverage"] == pytest.approx(math.log(3) / math.log(9))


def test_w1_is_pots_and_that_of_a_shift():
    x, y = draws(NORMAL, 200, 1), draws(NORMAL, 300, 2)
    found = ExactW1().against(y, seed=0)(x)
    plain = ot.emd2([], [], ot.dist(x.numpy(), y.numpy(), "euclidean"))
    assert found.value == pytest.approx(plain, rel=1e-9)
    assert found.lower == pytest.approx(found.upper, rel=1e-8)
    shift = torch.tensor([3.0, 4.0]).double()
    assert ExactW1().against(x + shift, seed=0)(x).value == pytest.approx(5.0)
    assert found.value <= ExactW2().against(y, seed=0)(x).value
