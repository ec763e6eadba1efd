"""The denoising loss: at the closed-form optimum it has its theoretical value, elsewhere more."""

from __future__ import annotations

import pytest
import torch

from helpers import mostly_slow
from samplerbench.core.grids import Level
from samplerbench.core.level_laws import LogNormal
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import (
    DataTarget,
    EDMTarget,
    NoiseTarget,
    ScoreTarget,
    VelocityTarget,
    VTarget,
)
from samplerbench.core.weightings import Uniform, Variance
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import InvalidSetting
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import Denoising, denoising_loss

TARGETS = [DataTarget(), NoiseTarget(), ScoreTarget(), VTarget(), VelocityTarget(), EDMTarget()]
LAW = gaussian((0.5, -1.0), ((1.5, 0.4), (0.4, 0.3)))
COUNT = 50_000


@pytest.mark.parametrize(
    "level", mostly_slow([(Level(0.1, 0.95, 0.3),), (Level(0.5, 1.0, 2.0),)], 0)
)
@pytest.mark.parametrize("weighting", [Uniform(), Variance()], ids=repr)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_the_optimum(target, weighting, level):
    oracle = LAW.oracle(EDM())
    x0 = LAW.draws(COUNT, "test")
    eps = torch.randn(x0.shape, generator=torch_generator(1), dtype=x0.dtype)

    def optimum(u, level):
        """E[y | u]: y is affine in (x₀, ε), so it is y of their conditional means."""
        x0_hat = oracle.denoiser(u, level)
        return target.regress(x0_hat, (u - level.alpha * x0_hat) / level.sigma, level)

    def loss(network):
        return float(denoising_loss(network, target, weighting, x0, eps, level))

    # y − E[y | u] is a multiple of x₀ − x̂₀, whose variance is Σ λσ²/(α²λ + σ²)
    one = torch.ones(1, dtype=x0.dtype)
    zero = torch.zeros(1, dtype=x0.dtype)
    factor = target.regress(one, -level.alpha / level.sigma * one, level)
    factor = float(factor - target.regress(zero, zero, level))
    eigenvalues = torch.linalg.eigvalsh(torch.tensor(LAW.covariances[0], dtype=x0.dtype))
    signal = level.alpha**2 * eigenvalues
    variance = float((eigenvalues * level.sigma**2 / (signal + level.sigma**2)).sum())
    weight = level.sigma**2 if isinstance(weighting, Variance) else 1.0
    best = loss(optimum)
    assert best == pytest.approx(weight * factor**2 * variance, rel=0.02)
    scale = factor * variance**0.5
    for shift in (-0.1, 0.1):
        assert loss(lambda u, at, s=shift: optimum(u, at) + s * scale) > best
        assert loss(lambda u, at, s=shift: optimum(u, at) + s * (u - 0.5)) > best


def objective(levels_per_datum=1, standardise=True, schedule=None, law=None, data_per_level=1):
    return Denoising(
        network=ResidualMLP(2, 0),
        target=EDMTarget(),
        schedule=schedule or EDM(10.0),
        level_law=law or LogNormal(0.0, 1.0, 0.02, 10.0),
        weighting=Uniform(),
        recipe=Recipe(steps=1, batch_size=1, lr=1e-3, data_per_level=data_per_level),
        mean=torch.tensor([3.0, -1.0]),
        std=4.0,
        train_seed=0,
        standardise=standardise,
        levels_per_datum=levels_per_datum,
    )


class Spy(torch.nn.Module):
    """Records what a network is given."""

    def forward(self, u, level):
        self.u, self.level = u, level
        return torch.zeros_like(u)


@pytest.mark.parametrize("standardise", [True, False])
def test_the_network_sees_standardised_states_at_the_law_of_level(standardise):
    trained, spy = objective(3, standardise), Spy()
    trained.model.network = spy
    x0 = torch.tensor([[3.0, -1.0]]).repeat(20_000, 1)
    trained.loss(x0, torch_generator(0))
    assert spy.u.shape == (60_000, 2)
    assert spy.level.sigma.shape == (60_000, 1)
    std, at = (4.0, torch.zeros(2)) if standardise else (1.0, x0[0])
    noise = (spy.u - at) / spy.level.sigma
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert torch.allclose(noise.mean(0), torch.zeros(2), atol=0.02)
    kappa = spy.level.sigma / spy.level.alpha * std
    assert float(kappa.log().mean()) == pytest.approx(0, abs=0.02)
    assert len(kappa.unique()) > 50_000


@pytest.mark.parametrize("broadcasts", [True, False])
def test_data_that_share_a_level(broadcasts):
    """Eight data and their own noise at each level; a network without `broadcasts` sees rows."""
    trained, spy = objective(data_per_level=8), Spy()
    trained.model.network, spy.broadcasts = spy, broadcasts
    x0 = torch.tensor([[3.0, -1.0]]).repeat(40_000, 1)
    trained.loss(x0, torch_generator(0))
    assert spy.u.shape == (5_000, 8, 2)
    assert spy.level.sigma.shape == ((5_000, 1, 1) if broadcasts else (5_000, 8, 1))
    noise = spy.u / spy.level.sigma  # the standardised data are 0
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert float((noise[:, 0] * noise[:, 1]).mean()) == pytest.approx(0, abs=0.03)
    kappa = spy.level.sigma * 4
    assert float(kappa.log().mean()) == pytest.approx(0, abs=0.05)
    assert len(kappa.unique()) > 4_000


def test_a_batch_that_cannot_be_divided_has_a_level_for_each_datum():
    trained, spy = objective(data_per_level=8), Spy()
    trained.model.network = spy
    trained.loss(torch.zeros(12, 2), torch_generator(0))
    assert spy.u.shape == (12, 2)
    assert len(spy.level.sigma.unique()) == 12


def test_a_shared_level_gives_the_loss_of_equal_levels():
    """M5 computes its features of a level once, another network for each datum: the same loss."""
    shared, own = objective(data_per_level=4), objective(data_per_level=4)
    own.model.network.broadcasts = False
    losses = []
    for trained in (shared, own):
        torch.nn.init.normal_(trained.model.network.last.weight, generator=torch_generator(2))
        loss = trained.loss(torch.ones(16, 2), torch_generator(1))
        loss.backward()
        losses.append(
            torch.cat([loss.detach().view(1), trained.model.network.first.weight.grad[0]])
        )
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)


def test_no_levels_is_refused():
    with pytest.raises(InvalidSetting, match="levels_per_datum=0"):
        objective(0)
    with pytest.raises(InvalidSetting, match="data_per_level=0"):
        objective(data_per_level=0)
