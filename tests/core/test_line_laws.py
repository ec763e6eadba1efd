"""Transport to a law on a line against 50 digits, quadrature, SciPy and closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from helpers import mostly_slow
from samplerbench.core.line_laws import DensityLine, MixtureLine, distance_to_law
from samplerbench.datasets.four_well import FourWell, FourWellBoltzmann
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.w_law_1d import WLaw1D


def _line(*parts):
    weights, means, scales = torch.tensor(parts, dtype=torch.float64).T
    return MixtureLine(weights / weights.sum(), means, scales)


# D1 along an axis; equal weights, where a level lies exactly in the gap; touching; needle and hay.
LINES = {
    "far": [(0.3, -10.0, 0.1**0.5), (0.3, 0.0, 0.1**0.5), (0.4, 10.0, 0.1**0.5)],
    "even": [(0.5, -10.0, 0.1**0.5), (0.5, 10.0, 0.1**0.5)],
    "near": [(0.2, -1.0, 1.0), (0.5, 0.5, 0.7), (0.3, 2.0, 0.2)],
    "needle": [(0.5, 0.0, 1e-6), (0.5, 0.3, 2.0)],
    "one": [(1.0, 3.0, 0.5)],
}

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(12)


def _partial_by_mpmath(parts, level):
    """L(u) to 30 digits: the edge by bisection, then the closed form."""
    with mpmath.workdps(50):
        u = mpmath.mpf(float(level))
        total = sum(mpmath.mpf(w) for w, _, _ in parts)

        def cdf(e):
            return sum(w * mpmath.ncdf((e - m) / mpmath.mpf(s)) for w, m, s in parts) / total

        low, high = mpmath.mpf(-40), mpmath.mpf(40)
        for _ in range(130):
            middle = (low + high) / 2
            low, high = (middle, high) if cdf(middle) < u else (low, middle)
        terms = (
            w * (m * mpmath.ncdf((low - m) / mpmath.mpf(s)) - s * mpmath.npdf((low - m) / s))
            for w, m, s in parts
        )
        return float(sum(terms) / total)


@pytest.mark.parametrize(
    "name", mostly_slow(LINES, *(k for k, name in enumerate(LINES) if name in ("one", "even")))
)
def test_lorenz_to_many_digits(name):
    parts = LINES[name]
    levels, curve = _line(*parts).lorenz(10)
    assert (levels[0], levels[-1], curve[0]) == (0, 1, 0)
    scale = max(abs(m) + s for _, m, s in parts)
    for level, value in zip(levels[1:-1], curve[1:-1], strict=True):
        assert float(value) == pytest.approx(_partial_by_mpmath(parts, level), abs=1e-15 * scale)


@pytest.mark.parametrize("name", ["far", "even", "near", "one"])
def test_vector_means_to_many_digits(name):
    """E[V; Y ≤ e] by the truncated Gaussian's first moment, with edges by bisection."""
    weights, means, scales = np.array(LINES[name]).T
    centres, slopes = np.random.default_rng(0).normal(0, 1, (2, 2, len(weights)))
    levels = np.arange(1, 50) / 50
    low, high = np.full(49, -40.0), np.full(49, 40.0)
    for _ in range(70):
        middle = (low + high) / 2
        below = norm.cdf((middle[:, None] - means) / scales) @ weights < levels
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    z = (low[:, None] - means) / scales
    expected = (weights * norm.cdf(z)) @ centres.T - (weights * scales * norm.pdf(z)) @ slopes.T
    line = _line(*LINES[name])
    found = line.partial_vector_means(*map(torch.from_numpy, (levels, centres, slopes)))
    assert np.abs(found.mT.numpy() - expected).max() < 1e-14


@pytest.mark.parametrize("name", [*LINES, "comb"])
@pytest.mark.parametrize("count", [7, 20_000])
def test_quantiles_reach_their_levels(name, count):
    # The comb has so many modes that the table is coarse.
    comb = [(1.0 + k % 3, 10.0 * k, 0.3) for k in range(150)]
    line = _line(*LINES.get(name, comb))
    levels = torch.arange(1, count).double() / count
    edges = line.quantile(levels)
    assert (edges.diff() >= 0).all()
    missed = (line.cdf(edges) - levels).abs()
    assert float(missed.max()) < 1e-7
    # What is left is squared in L, over the density.
    density = line._at(edges)[1].sum(dim=0)
    assert float((missed * (missed / density).clamp_max(40)).max()) < 1e-14


weights = st.floats(0.01, 1)
parts = st.lists(
    st.tuples(weights, st.floats(-30, 30), st.floats(1e-4, 20)), min_size=1, max_size=6
)


@pytest.mark.slow
@given(parts, st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_cells_have_the_laws_moments(mix, count):
    line = _line(*mix)
    _, curve = line.lorenz(count)
    means = curve.diff() * count
    assert (means.diff() >= -1e-10).all()
    assert float(means.mean()) == pytest.approx(line.mean, abs=1e-12)
    spread = line.variance + line.mean**2 - float(means.square().mean())
    assert spread > 0
    for p in (1, 2):
        # The cells' means are the best points there are, and medians are better for p = 1.
        assert distance_to_law(means, line, p) <= 1.0001 * math.sqrt(spread) + 1e-6


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("n", mostly_slow([1, 5], 0))
@pytest.mark.parametrize("name", ["near", "even", "one"])
def test_is_the_integral_over_the_cells(name, n, p):
    """W_p^p = Σᵢ ∫ |xᵢ − y|^p f(y) dy over cells with edges and densities by SciPy."""
    total = sum(w for w, _, _ in LINES[name])

    def of_all(f, y):
        return sum(w * f(y, m, s) for w, m, s in LINES[name]) / total

    def edge(level):
        return float(brentq(lambda y: of_all(norm.cdf, y) - level, -30, 30, xtol=1e-14))

    x = np.sort(np.random.default_rng(n).normal(0.5, 1.5, n))
    edges = [-30.0, *(edge(i / n) for i in range(1, n)), 30.0]
    expected = 0.0
    for value, (low, high) in zip(x, pairwise(edges), strict=True):
        corners = [low, high, np.clip(value, low, high)]
        corners += [np.clip(m + k * s, low, high) for _, m, s in LINES[name] for k in range(-6, 7)]
        for start, end in pairwise(sorted(corners)):
            y = (start + end) / 2 + (end - start) / 2 * _NODES
            heights = np.abs(value - y) ** p * [of_all(norm.pdf, node) for node in y]
            expected += (end - start) / 2 * float(heights @ _NODE_WEIGHTS)
    value = distance_to_law(torch.from_numpy(x), _line(*LINES[name]), p)
    assert value == pytest.approx(expected ** (1 / p), rel=1e-8)


@pytest.mark.parametrize("p", [1, 2])
def test_of_a_gaussian_in_closed_form(p):
    c, s = 0.7, 2.0
    law = gaussian((1.0,), ((s**2,),))
    distance = WLaw1D(p).against_law(law, seed=0)
    value = distance(torch.tensor([[1 + c]], dtype=torch.float64)).value
    # One point at distance c: E|c − sZ|, and E(c − sZ)² = c² + s².
    z = c / s
    first = s * (2 * norm.pdf(z) + z * (2 * norm.cdf(z) - 1))
    assert value == pytest.approx(first if p == 1 else math.hypot(c, s), rel=1e-13)
    # Far away it is the distance of the means, and the width.
    far = distance(torch.full((9, 1), 1e6).double()).value
    assert far == pytest.approx(1e6 - 1 if p == 1 else math.hypot(1e6 - 1, s), rel=1e-12)


def test_orders_and_dimensions_it_has():
    with pytest.raises(InvalidSetting, match=r"p=3: must be 1 or 2; any p ≥ 1 with metric="):
        WLaw1D(3)
    plane = GaussianMixture((1.0,), ((0.0, 0.0),), (((1.0, 0.0), (0.0, 1.0)),))
    reason = WLaw1D().why_incompatible(plane)
    assert reason == "w_law_1d needs 1-D data, this has 2; use metric=max_sliced_law"


def _twin(mixture, panels=300):
    """A mixture of unit scales or so, given by its density."""

    def log_density(points):
        return 7 + mixture._at(points.flatten())[1].sum(dim=0).log().reshape(points.shape)

    return DensityLine(log_density, torch.linspace(-12, 12, panels + 1, dtype=torch.float64))


def test_a_density_is_the_law_in_closed_form():
    mixture = _line(*LINES["near"])
    law = _twin(mixture)
    assert law.log_mass == pytest.approx(7, abs=1e-12)
    assert law.mean == pytest.approx(mixture.mean, abs=1e-12)
    assert law.variance == pytest.approx(mixture.variance, rel=1e-11)
    points = torch.linspace(-9, 10, 777, dtype=torch.float64)
    for name in ("cdf", "partial_mean"):
        found, expected = (getattr(one, name)(points) for one in (law, mixture))
        assert float((found - expected).abs().max()) < 1e-12
    levels = torch.arange(1, 1000).double() / 1000
    assert float((law.quantile(levels) - mixture.quantile(levels)).abs().max()) < 1e-7
    assert float((law.cdf(law.quantile(levels)) - levels).abs().max()) < 1e-14
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 2, 99))
    for p in (1, 2):
        expected = distance_to_law(x, mixture, p)
        assert distance_to_law(x, law, p) == pytest.approx(expected, rel=1e-10)


def test_quantiles_of_a_density_are_numbers_of_their_own():
    """The end of the interval, tails, and bits that other levels do not change."""
    law = FourWellBoltzmann().line_law()
    levels = torch.tensor([0.0, 1e-14, 1e-9, 0.3, 0.999, 1 - 1e-14], dtype=torch.float64)
    edges = law.quantile(levels)
    assert (edges.diff() > 0).all()
    assert float((law.cdf(edges) - levels).abs().max()) < 1e-15
    for level, edge in zip(levels, edges, strict=True):
        assert torch.equal(law.quantile(level[None])[0], edge)
    assert law.quantile(levels[:0]).shape == (0,)


@pytest.mark.parametrize("panels", [2, 5])
def test_a_steep_density_in_closed_form(panels):
    """∝ exp(−30·y) on [0, 1], where Newton's step alone leaves the bracket; also in the last panel.

    F = (1 − e^{−30·y})/c and ∫ y·f = (1/30 − (y + 1/30)·e^{−30·y})/c with c = 1 − e^{−30}.
    """
    law = DensityLine(lambda y: -30 * y, torch.linspace(0, 1, panels + 1, dtype=torch.float64))
    c = -math.expm1(-30)
    y = torch.linspace(0, 1, 201, dtype=torch.float64)
    below = -torch.expm1(-30 * y) / c
    torch.testing.assert_close(law.cdf(y), below, rtol=1e-10, atol=1e-14)
    partial = (1 / 30 - (y + 1 / 30) * (-30 * y).exp()) / c
    torch.testing.assert_close(law.partial_mean(y), partial, rtol=1e-9, atol=1e-12)
    outside = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(law.cdf(outside), torch.tensor([0.0, 1.0]).double())
    levels = torch.arange(1, 200, dtype=torch.float64) / 200
    quantiles = -torch.log1p(-c * levels) / 30
    torch.testing.assert_close(law.quantile(levels), quantiles, rtol=1e-10, atol=1e-13)


def test_the_last_level_of_a_density_is_in_its_interval():
    """It is there also if the rounded sum of its panels is below 1."""
    last = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    sums = []
    for panels in range(30, 90):
        law = DensityLine(lambda y: -y * y / 2, torch.linspace(-4, 4, panels).double())
        sums.append(float(law._levels[-1]))
        assert 3.5 < float(law.quantile(last)[0]) <= 4
    assert min(sums) < 1 - 2.0**-53


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("n", [1, 7])
def test_of_a_density_is_the_integral_over_the_cells(n, p):
    """W_p^p = Σᵢ ∫ |xᵢ − y|^p f(y) dy, with everything on a fine grid."""
    law = FourWellBoltzmann().line_law()
    x = np.sort(np.random.default_rng(n).normal(0.2, 0.9, n))
    y = np.linspace(-1.6, 1.6, 800_001)
    density = law.density(torch.from_numpy(y)).numpy()
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2) * (y[1] - y[0])])
    cell = np.minimum((mass * n).astype(int), n - 1)
    expected = np.trapezoid(np.abs(x[cell] - y) ** p * density, y) ** (1 / p)
    assert distance_to_law(torch.from_numpy(x), law, p) == pytest.approx(expected, rel=1e-5)


def test_a_trajectory_is_measured_against_its_boltzmann_law():
    trajectory = FourWell()
    assert trajectory.line_law() is FourWellBoltzmann().line_law()
    assert isotropic((1.0,), ((0.0, 0.0),), 1.0).line_law() is None
    distance = WLaw1D().against_law(trajectory, seed=0)
    assert distance(trajectory.trajectory[:, None]).value == pytest.approx(0.16231, abs=1e-5)
    draws = FourWellBoltzmann().draws(10_000, "test", 0)
    assert distance(draws).value < 0.02


@pytest.mark.parametrize("p", [1, 2])
def test_distances_far_from_the_origin(p):
    """W₂² is made of second moments, which lose the distance unless the law is moved to 0."""
    x = (torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).double() * 2**16).round()
    x /= 2**16
    expected = WLaw1D(p).against_law(gaussian((0.0,), ((1.0,),)), seed=0)(x).value
    for place in (2.0**20, 1e8):
        law = gaussian((place,), ((1.0,),))
        found = WLaw1D(p).against_law(law, seed=0)(x + place)
        assert found.value == pytest.approx(expected, rel=1e-9)


def test_a_law_by_its_density_is_moved_to_the_origin():
    law = FourWellBoltzmann().line_law()
    moved = DensityLine(lambda y: law._log_density(y - 3), law._edges + 3).centred()
    points = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64)
    assert moved.mean == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(moved.cdf(points - law.mean), law.cdf(points))
