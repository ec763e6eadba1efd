"""Assignment to modes, their weights with the χ² test, and the error within them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from samplerbench.core.line_laws import MixtureLine, distance_to_law
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.max_sliced_law import MaxSlicedLaw
from samplerbench.metrics.mode_weights import ModeWeights
from samplerbench.metrics.modes import modes_of
from samplerbench.metrics.projections import random_directions
from samplerbench.metrics.within_mode import WithinMode

SKEW = GaussianMixture(
    (0.2, 0.5, 0.3),
    ((-9.0, 0.5), (6.0, 1.0), (0.0, -12.0)),
    (((1.0, 0.8), (0.8, 1.0)), ((0.2, 0.0), (0.0, 0.01)), ((0.5, -0.3), (-0.3, 0.6))),
)


def _draw(law, n, seed=0):
    return law.sample(n, np.random.default_rng(seed))


def test_assigns_to_the_largest_responsibility():
    x = 8 * torch.from_numpy(np.random.default_rng(0).standard_normal((500, 2)))
    logs = [
        math.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(x.numpy())
        for w, m, c in zip(SKEW.weights, SKEW.means, SKEW.covariances, strict=True)
    ]
    modes = modes_of(SKEW)
    assert modes is not None
    assert modes.assign(x).tolist() == np.argmax(logs, axis=0).tolist()


@pytest.mark.parametrize("gap", [2.0, 4.0, 6.0])
def test_overlap_bounds_the_share_that_goes_astray(gap):
    modes = modes_of(isotropic((0.5, 0.5), ((0.0,), (gap,)), 1.0))
    assert modes is not None
    assert modes.overlap() == pytest.approx(0.5 * math.exp(-(gap**2) / 8))
    astray = scipy.stats.norm.cdf(-gap / 2)
    assert astray < modes.overlap() < 4 * gap * astray
    # Of different widths, ∫ √(N N) by the trapezoid rule.
    pair = modes_of(GaussianMixture((0.3, 0.7), ((0.0,), (gap,)), (((1.0,),), ((0.2,),))))
    x = np.linspace(-20, 30, 50_001)
    root = scipy.stats.norm.pdf(x) * scipy.stats.norm.pdf(x, gap, math.sqrt(0.2))
    assert pair is not None
    assert pair.overlap() == pytest.approx(
        math.sqrt(0.21) * np.trapezoid(np.sqrt(root), x), rel=1e-9
    )


def _placed(counts):
    return torch.tensor(SKEW.means, dtype=torch.float64).repeat_interleave(
        torch.tensor(counts), dim=0
    )


def test_weights_by_hand():
    distance = ModeWeights().against_law(SKEW, seed=0)
    exact = distance(_placed([20, 50, 30]))
    assert (exact.value, exact.info["chi_square"], exact.info["p_value"]) == (0, 0, 1)
    result = distance(_placed([26, 50, 24]))
    assert result.value == pytest.approx(0.06)
    chi_square = 36 / 20 + 36 / 30
    assert result.info == {
        "chi_square": pytest.approx(chi_square),
        "p_value": pytest.approx(math.exp(-chi_square / 2)),  # 2 degrees of freedom
        "smallest_expected": pytest.approx(20),
    }
    empty = distance(_placed([0, 100, 0]))
    assert empty.value == pytest.approx(0.5)
    assert empty.info["p_value"] < 1e-20


def test_overlapping_modes_are_refused_and_named():
    law = isotropic((0.5, 0.5), ((0.0, 0.0), (3.0, 0.0)), 1.0)
    for metric in (ModeWeights(), WithinMode()):
        reason = metric.why_incompatible(law)
        assert reason is not None
        assert "up to 16.2 % of these overlap, more than max_overlap = 0.1 %; use" in reason
    assert ModeWeights(max_overlap=0.2).why_incompatible(law) is None
    one = gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)))
    reason = ModeWeights().why_incompatible(one)
    assert reason == "mode_weights needs at least 2 modes, this law has 1; use metric=within_mode"
    assert WithinMode().why_incompatible(one) is None


def _square_along(x, k, theta):
    """W₂² of a mode's samples to its Gaussian along a direction."""
    mean, covariance = (torch.tensor(v[k]).double() for v in (SKEW.means, SKEW.covariances))
    one = torch.ones(1, dtype=torch.float64)
    line = MixtureLine(one, (mean @ theta)[None], (theta @ covariance @ theta).sqrt()[None])
    return distance_to_law(x @ theta, line, p=2) ** 2


def test_within_is_the_weighted_mean_over_the_modes():
    x = _draw(SKEW, 120) + 0.2
    modes = modes_of(SKEW)
    assert modes is not None
    assigned = modes.assign(x)
    directions = random_directions(2, 50, seed=7)
    squares = [
        sum(
            int((assigned == k).sum()) * _square_along(x[assigned == k], k, theta) for k in range(3)
        )
        / len(x)
        for theta in directions
    ]
    result = WithinMode(directions=50).against_law(SKEW, seed=7)(x)
    assert result.value == pytest.approx(max(squares) ** 0.5, rel=1e-9)
    assert result.direction is not None
    assert torch.equal(result.direction, directions[int(np.argmax(squares))])
    assert result.evaluations == 150


def test_within_does_not_see_the_weights_and_weights_not_the_modes():
    other = GaussianMixture((0.6, 0.1, 0.3), SKEW.means, SKEW.covariances)
    x = _draw(SKEW, 2000)
    within, weights = WithinMode(), ModeWeights()
    value = within.against_law(SKEW, seed=0)(x).value
    assert within.against_law(other, seed=0)(x).value == pytest.approx(value, rel=1e-12)
    assert weights.against_law(other, seed=0)(x).value == pytest.approx(0.4, abs=0.05)
    assert MaxSlicedLaw().against_law(other, seed=0)(x).value > 20 * value
    moved = x + torch.tensor([0.15, -0.2])
    assert within.against_law(SKEW, seed=0)(moved).value == pytest.approx(0.25, abs=2 * value)
    assert weights.against_law(SKEW, seed=0)(moved).value == pytest.approx(
        weights.against_law(SKEW, seed=0)(x).value
    )


def test_modes_without_samples_are_left_out_and_counted():
    distance = WithinMode().against_law(SKEW, seed=0)
    one_mode = torch.tensor(SKEW.means[1]).double() + 0.01 * _draw(SKEW, 30)
    only = distance(one_mode)
    assert only.info == {"modes": 3, "measured": 1, "left_out": 0}
    lonely = torch.tensor([SKEW.means[0]], dtype=torch.float64)
    result = distance(torch.cat([one_mode, lonely]))
    assert result.info == {"modes": 3, "measured": 1, "left_out": 1}
    assert result.value == only.value
    refusal = "samples=1: must be such that a mode has at least 2; metric=max_sliced_law takes"
    with pytest.raises(InvalidSetting, match=refusal):
        distance(lonely)
