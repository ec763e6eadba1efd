"""The certified distance to a law against scans and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from helpers import mostly_slow
from samplerbench.core.line_laws import MixtureLine, distance_to_law
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.max_sliced_law import MaxSlicedLaw

SKEW = GaussianMixture(
    (0.2, 0.5, 0.3),
    ((-1.0, 0.5), (1.0, 1.0), (0.0, -2.0)),
    (((1.0, 0.8), (0.8, 1.0)), ((0.2, 0.0), (0.0, 0.01)), ((0.5, -0.3), (-0.3, 0.6))),
)
EVEN = isotropic((0.5, 0.5), ((-10.0, 0.0), (10.0, 1.0)), 0.1)  # i/n = ½ lies in the gap
LAWS = {"d1": grid_mixture(), "skew": SKEW, "even": EVEN}


def _draw(law, n, seed=0):
    return law.sample(n, np.random.default_rng(seed))


def _certify(x, law):
    return MaxSlicedLaw().against_law(law, seed=0)(x)


def _along(x, law, phi):
    """W₂ along a direction; `test_line_laws` holds it against other codes."""
    theta = torch.tensor([math.cos(phi), math.sin(phi)], dtype=torch.float64)
    weights, means, covariances = (
        torch.tensor(values, dtype=torch.float64)
        for values in (law.weights, law.means, law.covariances)
    )
    line = MixtureLine(weights, means @ theta, (covariances @ theta @ theta).sqrt())
    return distance_to_law(x @ theta, line, p=2)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("n", mostly_slow([1, 2, 40], 0))
def test_a_fine_scan_lies_between_the_bounds(name, n):
    law = LAWS[name]
    x = 0.9 * _draw(law, n) + torch.tensor([0.1, -0.1])
    result = _certify(x, law)
    assert result.upper - result.lower <= 1e-6 * result.upper + 1e-9
    scan = max(_along(x, law, math.pi * k / 180) for k in range(180))
    assert scan <= result.upper
    # W₂ changes by at most ‖x‖ + ‖Y‖ (r.m.s.) times the angle, half a grid step.
    radius = 2 * float((_draw(law, 2000).square().mean() * 2).sqrt()) + 0.2
    assert result.lower <= scan + radius * math.pi / 360
    assert result.direction is not None
    phi = math.atan2(float(result.direction[1]), float(result.direction[0]))
    assert result.value == result.lower == pytest.approx(_along(x, law, phi), rel=1e-9)


@pytest.mark.parametrize("point", [(0.3, -1.0), (0.0, 0.0), (100.0, 50.0)])
def test_one_point_in_closed_form(point):
    """With one point x, W₂² = θᵀ(E(Y − x)(Y − x)ᵀ)θ: the largest eigenvalue."""
    x = torch.tensor([point], dtype=torch.float64)
    for law in (SKEW, EVEN):
        weights, means, covariances = (
            torch.tensor(v).double() for v in (law.weights, law.means, law.covariances)
        )
        gaps = means - x
        square = (weights[:, None, None] * covariances).sum(0) + gaps.mT @ (weights[:, None] * gaps)
        expected = float(torch.linalg.eigvalsh(square).max().sqrt())
        assert _certify(x, law).value == pytest.approx(expected, rel=1e-6)


def test_of_a_far_shift_of_a_gaussian_is_the_shift_and_the_spread():
    """N(0, s²·I) to points whose projections on the shift c are cell means: ‖c‖² + spread."""
    n, s, far = 500, 0.4, 1e3
    law = gaussian((0.0, 0.0), ((s**2, 0.0), (0.0, s**2)))
    edges = norm.ppf(np.arange(n + 1) / n)
    means = -s * n * np.diff(norm.pdf(edges))
    x = torch.from_numpy(np.stack([means + far, np.zeros(n)], axis=1))
    spread = s**2 - float(np.square(means).mean())
    assert _certify(x, law).value == pytest.approx(math.sqrt(far**2 + spread), rel=1e-7)


def test_rotation_translation_and_scale():
    x = _draw(SKEW, 60) * 1.3
    value = _certify(x, SKEW).value
    for angle, scale, shift in ((0.4, 1.0, 0.0), (1.1, 1e3, 50.0), (2.9, 1e-3, -7.0)):
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        moved = GaussianMixture(
            SKEW.weights,
            tuple(map(tuple, (scale * np.array(SKEW.means) @ turn + shift).tolist())),
            tuple(
                tuple(map(tuple, matrix))
                for matrix in (scale**2 * turn.T @ np.array(SKEW.covariances) @ turn).tolist()
            ),
        )
        y = scale * x @ torch.from_numpy(turn) + shift
        assert _certify(y, moved).value == pytest.approx(scale * value, rel=2e-6)


def test_the_cap_ends_the_search_with_bounds_that_hold():
    x = _draw(SKEW, 300)
    exact = _certify(x, SKEW)
    for evaluations in range(8, exact.evaluations, 3):
        capped = MaxSlicedLaw(evaluations=evaluations).against_law(SKEW, seed=0)(x)
        assert capped.evaluations == evaluations
        assert capped.lower <= exact.upper
        assert capped.upper >= exact.lower
        assert capped.upper - capped.lower > 1e-6 * capped.upper


def test_few_evaluations_on_the_grid_mixture():
    result = _certify(_draw(grid_mixture(), 2000), grid_mixture())
    assert result.upper - result.lower <= 1e-6 * result.upper + 1e-9
    assert result.evaluations <= 45


def test_rounding_ends_a_search_without_a_tolerance():
    law = grid_mixture()
    result = MaxSlicedLaw(relative_tolerance=0).against_law(law, seed=0)(law.draws(500, "test", 0))
    assert result.evaluations < 100
    assert 0 < result.upper - result.lower <= 1e-9 * result.upper
