"""D3: the potential, its Boltzmann law and denoiser against 30 digits, and the trajectory."""

from __future__ import annotations

import math
import pickle
from functools import lru_cache
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from torch import float64

from helpers import each, mostly_slow
from samplerbench.core.grids import Level
from samplerbench.core.line_laws import distance_to_law
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.core.starts import sobol_exact, stratified_draws
from samplerbench.datasets import four_well_boltzmann as module
from samplerbench.datasets.four_well import FourWell
from samplerbench.datasets.four_well_boltzmann import (
    BUMPS,
    FourWellBoltzmann,
    FourWellOracle,
    potential,
    slope,
)
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity

BETAS = [2.0, 0.1, 10.0]
WELLS = (-math.inf, -0.5, 0.0, 0.5, math.inf)
# data, nearly data, the narrowest of a grid on each rule, as wide as a bump, wide, no signal
LEVELS = [
    (1.0, 1e-9),
    (1.0, 0.002),
    (1.0, 0.0299),
    (1.0, 0.0301),
    (1.0, 0.1),
    (0.6, 0.8),
    (0.999, 0.02),
    (1.0, 80.0),
    (1e-4, 1.0),
    (0.0, 1.0),
]


def gauss(count):
    """Nodes and weights of Gauss and Legendre's rule in 30 digits."""
    with mpmath.workdps(30):
        rule = []
        for guess in np.polynomial.legendre.leggauss(count)[0]:
            x = mpmath.findroot(lambda u: mpmath.legendre(count, u), mpmath.mpf(guess))
            slope_there = count * (x * mpmath.legendre(count, x) - mpmath.legendre(count - 1, x))
            rule.append((x, 2 * (1 - x**2) / slope_there**2))
        return rule


def line(*numbers):
    return torch.tensor(numbers, dtype=float64)[:, None]


def exponent(x, beta):
    """−β·V(x) from its definition, in mpmath."""
    bumps = sum(
        mpmath.mpf(str(c)) * mpmath.exp(-80 * (x - mpmath.mpf(str(m))) ** 2) for c, m in BUMPS
    )
    return -beta * 2 * (x**8 + bumps)


def reference(x, alpha, sigma, beta):
    """x̂₀, the score and log q by the trapezoidal rule in 30 digits, where the integrand is.

    The rule is exact to all digits of an entire integrand that vanishes at both ends once its step
    is a fraction of the narrowest feature.
    """
    grid = np.linspace(-3, 3, 6001)
    if alpha > 0:
        grid = np.append(grid, x / alpha + sigma / alpha * np.linspace(-15, 15, 241))
    grid = np.unique(grid.clip(-3, 3))
    logs = -beta * potential(torch.from_numpy(grid)).numpy() - ((x - alpha * grid) / sigma) ** 2 / 2
    inside = grid[logs > logs.max() - 70]
    with mpmath.workdps(30):
        x, alpha, sigma, beta = map(mpmath.mpf, (x, alpha, sigma, beta))
        low, high = mpmath.mpf(inside[0]), mpmath.mpf(inside[-1])
        low, high = low - (high - low) / 50, high + (high - low) / 50
        count = 400 if high - low > 0.5 else 150
        nodes = [low + (high - low) * k / count for k in range(count + 1)]
        masses = [
            mpmath.exp(exponent(u, beta) - ((x - alpha * u) / sigma) ** 2 / 2 - logs.max())
            for u in nodes
        ]
        mass = mpmath.fsum(masses)
        mean = mpmath.fdot(masses, nodes) / mass
        log_q = mpmath.log(mass * (high - low) / count / sigma / mpmath.sqrt(2 * mpmath.pi))
        log_q += logs.max() - mpmath.log(normaliser(float(beta)))
        return float(mean), float((alpha * mean - x) / sigma**2), float(log_q)


@lru_cache
def normaliser(beta):
    """Z in 30 digits."""
    with mpmath.workdps(30):
        nodes = [mpmath.mpf(k) / 400 for k in range(-1000, 1001)]
        return mpmath.fsum(mpmath.exp(exponent(u, mpmath.mpf(beta))) for u in nodes) / 400


@pytest.mark.parametrize(
    ("beta", "alpha", "sigma"),
    mostly_slow(
        [*((2.0, *at) for at in LEVELS), *((b, *LEVELS[k]) for b in (0.1, 10.0) for k in (1, 5))],
        *(2, 5),
    ),
)
def test_oracle_to_many_digits(beta, alpha, sigma):
    """In a well, on a bump, at the wall, and far outside, up to six σ from the path's support."""
    x0 = [0.25, -0.51, 0.02, 1.15]
    states = [alpha * u + sigma * z for u, z in zip(x0, (0.3, -1.0, 0.0, 2.0), strict=True)]
    states.append(alpha * 1.3 + 6 * sigma)
    model, at, x = FourWellOracle(EDM(80.0), beta), Level(0.5, alpha, sigma), line(*states)
    expected = line(*(reference(state, alpha, sigma, beta) for state in states))[:, 0]
    assert (model.denoiser(x, at)[:, 0] - expected[:, 0]).abs().max() < 4e-15
    score = model.score(x, at)[:, 0]
    assert ((score - expected[:, 1]).abs() / (1 + expected[:, 1].abs())).max() < 1e-11
    log_q = model.log_density(x, at)
    assert ((log_q - expected[:, 2]).abs() / (1 + expected[:, 2].abs())).max() < 1e-12


@each(("alpha", "sigma"), [*LEVELS, (1.0, 0.0)])
def test_the_derivative_is_that_of_automatic_differentiation(alpha, sigma):
    """(α/σ²)·Var[x₀ | x], one evaluation instead of a pass through a graph."""
    x = line(0.25, -0.51, 0.02, 1.15, -2.0) * (alpha + sigma)
    model, level = FourWellBoltzmann().oracle(EDM(80.0)), Level(0.5, alpha, sigma)
    x0_hat, derivative = model.derivative(x, level)
    assert torch.equal(x0_hat, model.denoiser(x, level))
    assert derivative.shape == (5, 1, 1)
    assert not derivative.requires_grad
    backward = torch.full((5, 1, 1), float(alpha), dtype=float64)  # at both ends the graph has 0/0
    if min(alpha, sigma) > 1e-6:
        backward = super(FourWellOracle, model).derivative(x, level)[1]
    torch.testing.assert_close(derivative, backward, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.05, 0.3, 2.0])
def test_oracle_at_many_states(sigma):
    """By the trapezoidal rule on a grid around each state, relative to the state."""
    x = torch.linspace(-1.5, 1.5, 301, dtype=float64)
    found = FourWellBoltzmann().oracle(EDM(80.0)).denoiser(x[:, None], Level(0.5, 1.0, sigma))
    reach = min(14 * sigma, 3.2)
    u = x[:, None] + reach * torch.linspace(-1, 1, 4001, dtype=float64)
    if sigma > 0.2:
        u = torch.linspace(-1.7, 1.7, 4001, dtype=float64).expand(301, -1)
    weights = (-2 * potential(u) - ((u - x[:, None]) / sigma).square() / 2).softmax(-1)
    expected = x + (weights * (u - x[:, None])).sum(-1)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-14)


def test_score_without_noise_is_the_force():
    law, x = FourWellBoltzmann(), torch.linspace(-1.4, 1.4, 57, dtype=float64)[:, None]
    model = law.oracle(EDM(80.0))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(-2 * potential(x).sum(), x)
    data = Level(0.0, 1.0, 0.0)
    torch.testing.assert_close(model.score(x, data), gradient, rtol=1e-13, atol=1e-12)
    constant = law.log_density(x) + 2 * potential(x)[:, 0]
    torch.testing.assert_close(constant, constant[:1].expand_as(constant))
    torch.testing.assert_close(model.denoiser(x, data), x, rtol=1e-14, atol=0)
    # what is computed for tensors, where some have noise and some have none, goes there too
    for sigma in (torch.zeros_like(x), 1e-12 * torch.ones_like(x)):
        at = Level(sigma.detach(), torch.ones_like(sigma), sigma.detach())
        torch.testing.assert_close(model.score(x, at), gradient, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(model.log_density(x, at), law.log_density(x))
        torch.testing.assert_close(model.denoiser(x, at), x, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_chunks_bound_the_memory_and_change_nothing(states, monkeypatch):
    """With data and noise alone among the levels."""
    model, sizes = FourWellBoltzmann().oracle(EDM(80.0)), []
    posterior = FourWellOracle._posterior

    def watched(self, at):
        offset, logs = posterior(self, at)
        sizes.append(offset.numel())
        return offset, logs

    monkeypatch.setattr(FourWellOracle, "_posterior", watched)
    assert model.denoiser(states(100_000, 1), Level(0.5, 1.0, 0.01)).shape == (100_000, 1)
    assert sum(sizes) == 100_000 * module.FEW
    assert 8 * max(sizes) < 1e6
    t = torch.linspace(0.0, 1.0, 20, dtype=float64).reshape(4, 5, 1)
    x, at = states(4, 5, 1), Level(t, *Rectified()(t))
    functions = (model.denoiser, model.score, model.log_density)
    whole = [function(x, at) for function in functions]
    assert all(values.isfinite().all() for values in whole)
    monkeypatch.setattr(module, "ENTRIES", 7 * module.MANY)
    for values, function in zip(whole, functions, strict=True):
        torch.testing.assert_close(function(x, at), values, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("beta", mostly_slow(BETAS, 1))
def test_law_to_many_digits(beta):
    law, ends = FourWellBoltzmann(beta).line_law(), (-1.2, -0.5, 0.013, 0.5, 1.1)
    with mpmath.workdps(30):
        corners = sorted({mpmath.mpf(k) / 10 for k in range(-24, 25)} | set(map(mpmath.mpf, ends)))

        rule = gauss(24)

        def moments(low, high):
            half = (high - low) / 2
            parts = [(low + half * (1 + z), half * w) for z, w in rule]
            masses = [(u, w * mpmath.exp(exponent(u, beta))) for u, w in parts]
            return [mpmath.fsum(mass * u**k for u, mass in masses) for k in range(3)]

        panels = [moments(low, high) for low, high in pairwise(corners)]
        total, first, second = (mpmath.fsum(column) for column in zip(*panels, strict=True))
        mean = first / total
        assert law.log_mass == pytest.approx(float(mpmath.log(total)), abs=1e-15)
        assert law.mean == pytest.approx(float(mean), abs=1e-15)
        assert law.variance == pytest.approx(float(second / total - mean**2), abs=1e-15)
        for end in ends:
            at = torch.tensor([end], dtype=float64)
            below = panels[: corners.index(mpmath.mpf(end))]
            mass, part, _ = (float(mpmath.fsum(c) / total) for c in zip(*below, strict=True))
            assert float(law.cdf(at)) == pytest.approx(mass, abs=1e-15)
            assert float(law.partial_mean(at)) == pytest.approx(part, abs=1e-15)
            log_p = float(exponent(mpmath.mpf(end), beta) - mpmath.log(total))
            assert float(FourWellBoltzmann(beta).log_density(at)) == pytest.approx(log_p, abs=1e-13)


def test_even_draws():
    law = FourWellBoltzmann()
    assert law.uniform_dim == 1
    assert law.from_uniforms(torch.full((1, 1), 0.5 - 1e-12, dtype=float64)).shape == (1, 1)
    assert sobol_exact().why_incompatible(law) is None
    n = 1024
    even = distance_to_law(stratified_draws(law, n, "test")[:, 0], law.line_law(), 1)
    plain = distance_to_law(law.draws(n, "test")[:, 0], law.line_law(), 1)
    assert even < 0.1 * plain


def test_slope_is_the_derivative():
    x = torch.linspace(-1.5, 1.5, 301, dtype=float64, requires_grad=True)
    by_definition = sum(c * torch.exp(-80 * (x - m) ** 2) for c, m in BUMPS)
    value = 2 * (x**8 + by_definition)
    torch.testing.assert_close(potential(x), value, rtol=1e-14, atol=1e-14)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(slope(x), gradient, rtol=1e-13, atol=1e-13)


def test_trajectory_is_the_recursion():
    """The update in NumPy, one state at a time, from X = 0, which itself is not kept."""
    law = FourWell()
    x, states = torch.zeros((), dtype=float64), law.trajectory
    z = np.random.default_rng(42).standard_normal(10_000)
    assert states.shape == (10_000,)
    for step in range(500):
        x = x - slope(x) * 0.005 + math.sqrt(2 * 0.005 / 2) * float(z[step])
        assert float(states[step]) == pytest.approx(float(x), abs=1e-11)
    assert law.trajectory is states  # once a process
    assert law.dt == 0.005


def test_trajectory_is_the_published_one():
    law = FourWell()
    shares = np.histogram(law.trajectory.numpy(), WELLS)[0] / 10_000
    assert shares.round(3).tolist() == [0.329, 0.336, 0.241, 0.094]
    boltzmann = law.boltzmann.line_law()
    ends = torch.tensor([-9.0, *WELLS[1:-1], 9.0], dtype=float64)
    exact = boltzmann.cdf(ends).diff()
    assert [round(value, 3) for value in exact.tolist()] == [0.232, 0.303, 0.267, 0.198]
    assert distance_to_law(law.trajectory, boltzmann, 1) == pytest.approx(0.1623, abs=5e-5)


def test_draws_of_the_trajectory():
    law = FourWell(steps=1000)
    for purpose in ("train", "validation", "evaluation"):
        assert torch.equal(law.draws(1000, purpose, 3)[:, 0], law.trajectory)
        some = law.draws(900, purpose, 3)
        assert some.shape == (900, 1)
        assert len(some.unique()) == 900
        assert torch.isin(some, law.trajectory).all()
        assert torch.equal(some, law.draws(900, purpose, 3))
        assert not torch.equal(some, law.draws(900, purpose, 4))
    for purpose in ("floor", "start"):
        again = law.draws(1000, purpose, 3)
        assert torch.isin(again, law.trajectory).all()
        assert 600 < len(again.unique()) < 660  # 1 − 1/e of them
    law.draws(1000, "train", 0).zero_()
    assert law.trajectory.any()
    keys = {"train": "n_train", "validation": "n_validation", "evaluation": "n_reference"}
    for purpose, key in keys.items():
        with pytest.raises(InvalidSetting, match=f"^{key}=1001: must be at most 1000"):
            law.draws(1001, purpose, 0)


def test_refuses_impossible_settings():
    for build, message in (
        (lambda: FourWell(dt=0.0), "dt=0.0: must be positive"),
        (lambda: FourWell(dt=math.inf), "dt=inf"),
        (lambda: FourWell(beta=0.0), "beta=0.0: must be from 0.1 to 10"),
        (lambda: FourWell(steps=0), "steps=0"),
        (lambda: FourWell(seed=-1), "seed=-1"),
        (lambda: FourWellBoltzmann(math.nan), "beta=nan"),
        (lambda: FourWellBoltzmann(50.0), "beta=50.0"),
        (lambda: FourWell(dt=1.0).trajectory, "dt=1.0: must be smaller"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            build()


def test_settings_are_values():
    laws = [FourWell(), FourWell(seed=1), FourWell(dt=0.001), FourWellBoltzmann()]
    laws.append(FourWellBoltzmann(1.0))
    for law in laws:
        law.draws(10, "train", 0)
        assert pickle.loads(pickle.dumps(law)) == law
    assert len({identity(law) for law in laws}) == len(laws)
