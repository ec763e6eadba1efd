"""Denoising at one level: least at the score of the noised data, and the noise is i.i.d."""

from __future__ import annotations

import pytest
import torch

from samplerbench.core.grids import Level
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import ScoreTarget
from samplerbench.core.weightings import Uniform
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import InvalidSetting
from samplerbench.networks.mlp import MLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import denoising_loss
from samplerbench.objectives.single_level import SingleLevel, single_level_loss

LAW = gaussian((0.5, -1.0), ((1.5, 0.4), (0.4, 0.3)))
COUNT = 100_000


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_the_least_value_is_at_the_score_of_the_noised_law(noise):
    """−(C + υ²I)⁻¹·(x − m), where it is tr C·(C + υ²I)⁻¹/υ²."""
    oracle, level = LAW.oracle(EDM(10.0)), Level(noise / 10, 1.0, noise)
    x0 = LAW.draws(COUNT, "test")
    eps = torch.randn(x0.shape, generator=torch_generator(1), dtype=x0.dtype)

    def loss(score):
        return float(single_level_loss(score, x0, eps, noise))

    best = loss(lambda x: oracle.score(x, level))
    eigenvalues = torch.linalg.eigvalsh(torch.tensor(LAW.covariances[0], dtype=x0.dtype))
    expected = float((eigenvalues / (eigenvalues + noise**2)).sum()) / noise**2
    assert best == pytest.approx(expected, rel=0.02)
    for shift in (-0.1, 0.1):
        assert loss(lambda x, s=shift: oracle.score(x, level) + s / noise) > best
        assert loss(lambda x, s=shift: (1 + s) * oracle.score(x, level)) > best


def test_it_is_the_denoising_loss_at_that_level(states):
    x0, eps, network = states(9, 2), states(2, 9).T, MLP(2, 0).double()
    level = Level(0.0, 1.0, 0.7)
    expected = denoising_loss(network, ScoreTarget(), Uniform(), x0, eps, level)
    found = single_level_loss(lambda u: network(u, level), x0, eps, 0.7)
    torch.testing.assert_close(found, expected)


def objective(**settings):
    return SingleLevel(
        network=MLP(2, 0),
        recipe=Recipe(steps=1, batch_size=8, lr=1e-3),
        mean=torch.tensor([3.0, -1.0]),
        std=4.0,
        train_seed=0,
        **settings,
    )


class Spy(torch.nn.Module):
    """Records what a network is given."""

    def forward(self, u, level):
        self.u = u
        return torch.zeros_like(u)


@pytest.mark.parametrize("standardise", [False, True])
def test_the_noise_is_that_of_the_data(standardise):
    trained, spy = objective(noise=3.0, standardise=standardise), Spy()
    trained.model.network = spy
    x0 = torch.tensor([[3.0, -1.0]]).repeat(40_000, 1)
    loss = trained.loss(x0, torch_generator(0))
    scale = 4.0 if standardise else 1.0
    noise = (spy.u - (0.0 if standardise else x0)) * scale / 3
    torch.testing.assert_close(noise.T.cov(), torch.eye(2), atol=0.03, rtol=0)
    assert float(loss) == pytest.approx(2 * (scale / 3) ** 2, rel=0.02)
    assert trained.model.level.sigma == 3.0
    assert len(spy.u[:, 0].unique()) > 30_000  # not one number for a whole batch


@pytest.mark.parametrize(("count", "expected"), [(7, 7), (8, 8), (30, 8)])
def test_summed_over_the_batch(count, expected):
    """All validation data count as one batch, so that both losses have the same scale."""
    x0 = torch.randn(count, 2, generator=torch_generator(0))
    mean, total = (objective(sum_over_batch=s).loss(x0, torch_generator(0)) for s in (False, True))
    torch.testing.assert_close(total, expected * mean)


def test_impossible_noise():
    for noise in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidSetting, match=r"^noise=.*: must be positive"):
            objective(noise=noise)
