"""Fitted grids against closed forms on Gaussians and brute force; they share no random numbers."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from helpers import mostly_slow
from samplerbench.bench.spectra import output_spectrum
from samplerbench.core.fitted_grids import (
    GITS,
    AlignYourSteps,
    CheapestPath,
    Entropic,
    EqualCost,
    Fitted,
    Fitting,
    ScoreOptimal,
    Spectral,
    from_bytes,
    settings_of,
    to_bytes,
)
from samplerbench.core.grids import LogLinear, karras, log_snr, tangent
from samplerbench.core.models import LevelFree
from samplerbench.core.noise import generator
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import Exact, sobol_exact
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum, gaussian_spectrum
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity
from samplerbench.samplers.euler import Euler

C = 0.5
PATH = EDM(10.0)
LAW = gaussian((0.0, 0.0), ((C**2, 0.0), (0.0, C**2)))
RECIPES = [Entropic(), Entropic(rescaled=True), ScoreOptimal(), AlignYourSteps(), GITS()]


def fitting(law=LAW, path=PATH):
    return Fitting(law.oracle(path), law, lambda: law.variances)


def relative(table, cost):
    """The largest difference of two cumulative costs, as a share of the total."""
    cost = (cost - cost[0]) / (cost[-1] - cost[0])
    return float((table.cost / table.cost[-1] - cost).abs().max())


def test_the_rescaled_entropic_grid_of_a_gaussian_is_the_tangent_grid():
    levels = Entropic(rescaled=True, states=4000).fit(fitting())(PATH, 12)
    want = tangent(PATH, 12, scale=C, noise_min=0.02).sigma
    torch.testing.assert_close(levels.sigma, want, rtol=0.02, atol=0)


def test_entropic_costs_of_a_gaussian():
    """∫c²κ²/(c² + κ²)/κ³ dκ = ln κ − ½·ln(c² + κ²)."""
    table = Entropic(states=4000).fit(fitting())
    kappa = table.noise
    assert relative(table, 0.5 * (C**2 + kappa**2).log() - kappa.log()) < 0.01


@pytest.mark.slow
def test_score_optimal_costs_of_a_gaussian():
    """∫κ²/(c² + κ²)^{3/2} dκ = arsinh(κ/c) − κ/√(c² + κ²); another rate is refused."""
    for rounds in (0, 2):
        table = ScoreOptimal(rounds=rounds, states=1000, points=100).fit(fitting())
        kappa = table.noise
        cost = (kappa / C).asinh() - kappa / (C**2 + kappa**2).sqrt()
        assert relative(table, -cost) < 0.02 < relative(table, -kappa.log())


def klub(kappa, errors):
    """½∫κ⁻³·(ε²(κ_i) − ε²(κ))dκ for i < j by a fine sum, where only the errors are known."""
    rate = (errors(kappa)[:, None] - errors(kappa)[None, :]) / kappa**2
    width = -kappa.log().diff()
    cumulative = ((rate[:, 1:] + rate[:, :-1]) / 2 * width).cumsum(1)
    cost = torch.nn.functional.pad(cumulative, (1, 0))
    return ((cost - cost.diagonal()[:, None]) / 2).triu(1)


def test_klub_of_a_gaussian():
    table = AlignYourSteps(states=4000, points=60).fit(fitting())
    want = klub(table.noise, lambda k: 2 * C**2 * k**2 / (C**2 + k**2))
    assert ((table.cost - want).norm() / want.norm()) < 0.03
    coarse = want[0, -1]
    # ½∫κ⁻³(ε²(10) − ε²(κ))dκ in closed form
    first, a, b = 2 * C**2 * 100 / (C**2 + 100), 10.0, 0.02
    own = math.log(a / b) - 0.5 * math.log((C**2 + a**2) / (C**2 + b**2))
    assert float(coarse) == pytest.approx(first / 4 * (b**-2 - a**-2) - own, rel=0.02)


def test_the_cheapest_path_is_the_best_of_all_choices():
    numbers = torch.from_numpy(generator("test", "costs").random((9, 9)))
    table = CheapestPath(torch.linspace(9, 1, 9).double(), numbers.triu(1))
    for count in (2, 3, 5):
        costs = {
            chosen: sum(float(numbers[i, j]) for i, j in pairwise(chosen))
            for inner in combinations(range(1, 8), count - 2)
            for chosen in [(0, *inner, 8)]
        }
        assert tuple(table.chosen(count)) == min(costs, key=costs.get)
    assert table.chosen(1) == [0]
    # beyond half of the levels: the logarithms of the largest choice, interpolated
    long = table(EDM(), 12).sigma[:-1]
    assert torch.equal(
        long, LogLinear(tuple(table.noise[table.chosen(5)].tolist()))(EDM(), 12).sigma[:-1]
    )


def test_costs_of_gits_on_a_gaussian():
    """Every step multiplies the state by 1 + (κ' − κ)·κ/(c² + κ²)."""
    table = GITS(points=20).fit(fitting())
    kappa = table.noise
    grow = kappa / (C**2 + kappa**2)
    fine = torch.cat([torch.ones(1).double(), (1 + kappa.diff() * grow[:-1]).cumprod(0)])
    single = fine[:, None] * (1 + (kappa[None, :] - kappa[:, None]) * grow[:, None])
    want = (single - fine).abs().triu(1)
    torch.testing.assert_close(
        table.cost / table.cost.max(), want / want.max(), rtol=1e-9, atol=1e-12
    )
    fine_levels = karras(PATH, 20, noise_min=0.02, rho=7.0).sigma[:-1]
    torch.testing.assert_close(kappa, fine_levels, rtol=1e-12, atol=0)


def variances_of_euler(data, kappa):
    """The variances of Euler's output, from the exact start, by the product of its factors."""
    state = data + kappa[0] ** 2
    for now, then in pairwise([*kappa, 0.0]):
        state = state * (1 + (then - now) * now / (data + now**2)) ** 2
    return state


def kl_of_euler(variances, kappa):
    """KL(output ‖ data)."""
    data = torch.as_tensor(variances, dtype=torch.float64)
    ratio = variances_of_euler(data, kappa) / data
    return float((ratio - 1 - ratio.log()).sum() / 2)


def w2_of_euler(variances, kappa):
    """W₂ between output and data."""
    return float((variances_of_euler(variances, kappa).sqrt() - variances.sqrt()).norm())


def test_spectral_levels_of_one_eigenvalue_are_the_tangents():
    for criterion in ("kl", "w2"):
        levels = Spectral(criterion=criterion, variances=[C**2]).fit(fitting())(PATH, 12)
        want = tangent(PATH, 12, scale=C, noise_min=0.02).sigma
        torch.testing.assert_close(levels.sigma, want, rtol=1e-3, atol=0)


@pytest.mark.parametrize("path", [PATH, VPLinear()], ids=["EDM", "VP"])
def test_spectral_levels_are_nearly_the_best_for_two_eigenvalues(path):
    """The best levels with these ends are found by exact laws; tangent grids are far worse."""
    variances, steps = [4.0, 0.0025], 24
    law = GaussianSpectrum(torch.tensor(variances).double(), torch.zeros(2).double())
    grid = Spectral(noise_max=10.0).fit(fitting(law, path))
    levels = grid(path, steps)
    kappa = (levels.sigma / levels.alpha)[:-1]

    def levels_of(free):
        shares = np.exp(free - np.max(free))
        logs = math.log(10) + np.concatenate([[0], np.cumsum(shares)]) / shares.sum() * math.log(
            0.002
        )
        return np.exp(logs)

    found = minimize(
        lambda free: kl_of_euler(variances, levels_of(free)),
        np.log(-np.diff(np.log(kappa.numpy()))),
        method="L-BFGS-B",
        options={"maxfun": 4000},
    )
    own = kl_of_euler(variances, kappa.tolist())
    assert found.fun <= own < 1.1 * found.fun
    for scale in (0.05, 0.3, 1.0, 2.0):
        other = tangent(path, steps, scale=scale, noise_min=0.02, noise_max=10.0)
        assert kl_of_euler(variances, (other.sigma / other.alpha)[:-1].tolist()) > 1.3 * own
    if path is PATH:  # the product is the exact law of the sampler
        start = law.variances + 100
        _, got = output_spectrum(Euler(), law.oracle(path), levels, law.mean, start)
        ratio = got / law.variances
        assert float((ratio - 1 - ratio.log()).sum() / 2) == pytest.approx(own, rel=1e-6)


@pytest.mark.slow
def test_spectral_levels_on_a_spectrum_like_that_of_images():
    """The table of docs/grids.md: each criterion is the best in its own distance, for Euler."""
    law, path = gaussian_spectrum(), EDM(80.0)
    to = Fitting(law.oracle(path), law, lambda: law.variances)
    grids = {
        "kl": Spectral().fit(to),
        "w2": Spectral(criterion="w2").fit(to),
        "karras": partial(karras, noise_min=0.02, rho=5.0),
        "log_snr": partial(log_snr, noise_min=0.02),
    }
    values = {
        name: (
            kl_of_euler(law.variances, grid(path, 20).sigma[:-1].tolist()),
            w2_of_euler(law.variances, grid(path, 20).sigma[:-1].tolist()),
        )
        for name, grid in grids.items()
    }
    assert values["kl"] == pytest.approx((31.7, 8.60), rel=5e-3)
    assert values["w2"] == pytest.approx((151, 2.36), rel=5e-3)
    assert values["karras"] == pytest.approx((146, 2.57), rel=5e-3)
    assert values["log_snr"] == pytest.approx((58.9, 2.83), rel=5e-3)


@pytest.mark.parametrize("recipe", [*RECIPES, Spectral()], ids=lambda r: type(r).__name__)
def test_levels_do_not_depend_on_the_schedule(recipe):
    """The states x/α are the same on every path."""
    law = GaussianSpectrum(torch.tensor([1.0, 0.1]).double(), torch.zeros(2).double())
    path = VPLinear()
    one, two = (type(recipe)(noise_max=8.0).fit(fitting(law, p)) for p in (PATH, path))
    torch.testing.assert_close(one.noise, two.noise, rtol=1e-9, atol=0)
    torch.testing.assert_close(one.cost, two.cost, rtol=1e-6, atol=1e-9)
    assert one(PATH, 9).sigma[:-1].tolist() == pytest.approx(
        (two(path, 9).sigma / two(path, 9).alpha)[:-1].tolist(), rel=1e-6
    )


@pytest.mark.parametrize("recipe", mostly_slow(RECIPES, 0), ids=lambda r: type(r).__name__)
def test_identity_of_a_fit(recipe):
    first, again = recipe.fit(fitting()), recipe.fit(fitting())
    other = recipe.fit(fitting(grid_mixture()))
    seed = type(recipe)(**{**settings_of(recipe), "seed": 1}).fit(fitting())
    assert identity(first) == identity(again)
    assert len({identity(one) for one in (first, other, seed)}) == 3
    assert identity(from_bytes(to_bytes(first))) == identity(first)
    assert settings_of(Fitted(first, recipe, ""))["noise_min"] == 0.02


@pytest.mark.slow
def test_a_small_memory_changes_no_level(monkeypatch):
    """States are taken in blocks; only Brownian paths are drawn anew for each block."""
    recipes = [Entropic(points=20), ScoreOptimal(points=20, rounds=0), GITS(points=20)]
    whole = [recipe.fit(fitting()).cost for recipe in recipes]
    monkeypatch.setattr("samplerbench.core.fitted_grids._MOST_VALUES", 3000)
    for recipe, cost in zip(recipes, whole, strict=True):
        torch.testing.assert_close(recipe.fit(fitting()).cost, cost, rtol=1e-9, atol=1e-12)
    law = AlignYourSteps(points=30, states=1000).fit(fitting())
    want = klub(law.noise, lambda k: 2 * C**2 * k**2 / (C**2 + k**2))
    assert ((law.cost - want).norm() / want.norm()) < 0.05


def test_evaluations_are_counted_and_states_are_the_fits_own():
    to = fitting()
    Entropic(states=10, points=7).fit(to)
    assert to.evaluations == 70
    to = fitting()
    Spectral(variances=[1.0]).fit(to)
    assert to.evaluations == 0
    level = karras(PATH, 3, noise_min=0.02).rows[0]
    others = [LAW.draws(5, purpose, 0) for purpose in ("train", "evaluation", "floor")]
    others.append(Exact().draw(LAW, 5, level, (0, 0, 0)) - level.sigma * to.noise(5, 0))
    for draws in others:
        assert not torch.isclose(to.clean(5, 0), draws).any()


def test_states_are_even_where_the_law_is_a_map_of_the_cube():
    """The mean is far nearer than that of independent draws, and the points have their own key."""
    to = fitting(GaussianSpectrum(torch.ones(2).double(), torch.zeros(2).double()))
    x0, eps = to.pairs(1024, 0)
    assert torch.cat([x0, eps], 1).mean(0).abs().max() < 3e-3
    assert (torch.cat([x0, eps], 1).T.cov() - torch.eye(4)).abs().max() < 0.02
    assert not torch.isclose(x0, to.pairs(1024, 1)[0]).any()
    start = sobol_exact().draw(to.law, 1024, karras(PATH, 3, noise_min=0.02).rows[0], (0, 0, 0))
    assert not torch.isclose(start, x0 + 10 * eps).any()
    # others are drawn
    points = Divided(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).double())
    assert torch.equal(
        Fitting(LAW.oracle(PATH), points, lambda: points).pairs(9, 3)[1], to.noise(9, 3)
    )


def test_costs_that_do_not_grow_leave_one_level_for_each_share():
    """A finite data set has no error at small noise: the cost is flat there."""
    noise = log_snr(EDM(10.0), 50, noise_min=0.02).sigma[:-1]
    cost = (noise[0].log() - noise.log()).clamp(max=2)
    levels = EqualCost(noise, cost)(EDM(10.0), 9)
    assert levels.moving
    assert levels.sigma[:-2].tolist() == pytest.approx(
        [10 * math.exp(-2 * k / 8) for k in range(8)], rel=1e-2
    )


def test_refusals():
    with pytest.raises(
        InvalidSetting, match=r"noise_min=0\.02: must be positive and below noise_max"
    ):
        Entropic().fit(fitting(path=EDM(0.01)))
    table = Entropic(states=10).fit(fitting())
    with pytest.raises(InvalidSetting, match=r"schedule=.*range of the fitted grid"):
        table(EDM(5.0), 4)
    for make, text in (
        (lambda: Entropic(states=0), "states=0"),
        (lambda: Entropic(points=2), "points=2"),
        (lambda: Spectral(criterion="w1"), "criterion=w1: must be kl or w2"),
        (lambda: Spectral(variances=[0.0]), "variances"),
        (lambda: ScoreOptimal(rounds=-1), "rounds=-1"),
        (lambda: EqualCost(torch.tensor([2.0, 1.0]).double(), torch.zeros(2).double()), "cost"),
        (lambda: CheapestPath(torch.tensor([1.0, 2.0]).double(), torch.zeros(2, 2)), "noise"),
    ):
        with pytest.raises(InvalidSetting, match=text):
            make()
    for content in (b"[]", b'{"table": "Levels"}', b'{"table": "EqualCost", "noise": [2, 1]}'):
        with pytest.raises(ValueError, match="not the table of a grid"):
            from_bytes(content)
    score = LevelFree(torch.nn.Identity(), 0.1, torch.zeros(2))
    assert "score of one level" in Entropic().why_incompatible(score, LAW)
