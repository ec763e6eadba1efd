"""The certified distance to a law against scans, closed forms, definitions, large references."""

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
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
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


@pytest.mark.parametrize("name", ["d1", "skew"])
def test_by_the_definition_along_its_direction(name):
    """Quantiles by bisection, cells by the midpoint rule."""
    law, n, fine = LAWS[name], 25, 200
    x = _draw(law, n)
    result = _certify(x, law)
    assert result.direction is not None
    theta = result.direction.numpy()
    means = np.array(law.means) @ theta
    scales = np.sqrt(np.array(law.covariances) @ theta @ theta)
    levels = (np.arange(n * fine) + 0.5) / (n * fine)
    low, high = np.full(n * fine, -40.0), np.full(n * fine, 40.0)
    for _ in range(50):
        middle = (low + high) / 2
        below = norm.cdf((middle[:, None] - means) / scales) @ law.weights < levels
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    line = np.sort(x.numpy() @ theta).repeat(fine)
    assert result.value == pytest.approx(np.square(line - low).mean() ** 0.5, rel=1e-3)


@pytest.mark.parametrize("name", mostly_slow(["d1", "skew"], 1))
def test_is_the_limit_of_large_references(name):
    law = LAWS[name]
    x = 1.2 * _draw(law, 100)
    value = _certify(x, law).value
    m = 200_000
    # A stratified reference: each mode has its share of the points to one point.
    parts = [
        gaussian(mean, covariance).sample(round(weight * m), np.random.default_rng(k))
        for k, (weight, mean, covariance) in enumerate(
            zip(law.weights, law.means, law.covariances, strict=True)
        )
    ]
    metric = MaxSlicedCertified(relative_tolerance=1e-3)
    assert metric.against(torch.cat(parts), seed=0)(x).value == pytest.approx(value, rel=1e-2)


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


def test_gaussian_samples_of_another_width():
    """Samples of N(m, A) to N(0, B): the closed form along every direction, at n = 20 000."""
    n = 20_000
    a, b = np.array([[2.0, 0.5], [0.5, 0.4]]), np.array([[0.5, -0.2], [-0.2, 1.0]])
    law = gaussian((0.0, 0.0), b.tolist())
    x = gaussian((0.3, 0.8), a.tolist()).sample(n, np.random.default_rng(0))
    phi = np.arange(2000) * math.pi / 2000
    circle = np.stack([np.cos(phi), np.sin(phi)], axis=1)
    widths = [np.sqrt(((circle @ c) * circle).sum(axis=1)) for c in (a, b)]
    expected = np.sqrt((circle @ [0.3, 0.8]) ** 2 + (widths[0] - widths[1]) ** 2).max()
    # The samples' distance to their own law: E W₂² ≈ s²(ln ln n + 1)/n, twice for the maximum.
    allowed = 2 * math.sqrt((math.log(math.log(n)) + 1) / n) * widths[0].max()
    assert _certify(x, law).value == pytest.approx(expected, abs=allowed)


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


def test_a_split_mode_changes_nothing():
    law = isotropic((0.4, 0.6), ((-1.0, 0.0), (2.0, 1.0)), 0.3)
    split = isotropic((0.1, 0.3, 0.6), ((-1.0, 0.0), (-1.0, 0.0), (2.0, 1.0)), 0.3)
    x = _draw(law, 50) * 2
    assert _certify(x, split).value == pytest.approx(_certify(x, law).value, rel=2e-6)


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
