"""Means over the data that a noised state may come from: the formula, the expectation, edges."""

from __future__ import annotations

import pytest
import torch

from samplerbench.core.grids import Level
from samplerbench.core.level_laws import LogNormal
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM, VPCosine
from samplerbench.core.targets import EDMTarget
from samplerbench.core.weightings import Uniform
from samplerbench.errors import InvalidSetting
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import Denoising
from samplerbench.objectives.implicit_ve import ImplicitVE
from samplerbench.objectives.posterior import posterior_means


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator("posterior", seed))


def levels(count, low=0.003, high=3.0):
    """Times, signals below 1 and noises from `low` to `high`, shape (count, 1) each."""
    sigma = low * (high / low) ** torch.linspace(0, 1, count).unsqueeze(-1)
    return Level(sigma, 1 / (1 + 0.1 * sigma), sigma)


def directly(x0, eps, level, size):
    """x̄ in double precision, set by set."""
    x, alpha, sigma = x0.double(), level.alpha.double(), level.sigma.double()
    u = alpha * x + sigma * eps
    found = []
    for first in range(0, len(x), size):
        own = slice(first, first + size)
        distances = (u[own].unsqueeze(1) - alpha[own].unsqueeze(1) * x[own]).square().sum(-1)
        found.append(torch.softmax(-distances / (2 * sigma[own] ** 2), 1) @ x[own])
    return torch.cat(found)


@pytest.mark.parametrize("size", [1, 16, 50, 64, 1000])
def test_the_formula(size):
    """Also for a last set that is smaller, and for one set of all rows."""
    x0, eps, level = numbers(200, 3), numbers(200, 3, seed=1), levels(200)
    mean, noise = posterior_means(x0, eps, level, size)
    torch.testing.assert_close(mean, directly(x0, eps, level, size).float(), rtol=0, atol=1e-5)
    state = level.alpha * mean + level.sigma * noise
    torch.testing.assert_close(state, level.alpha * x0 + level.sigma * eps, rtol=0, atol=1e-5)


def test_rows_that_share_a_level():
    """(groups, n, dim) with a level for each group is the same as rows with their levels."""
    x0, eps, level = numbers(10, 8, 2), numbers(10, 8, 2, seed=1), levels(10)
    shared = Level(*(one.unsqueeze(-1) for one in (level.t, level.alpha, level.sigma)))
    rows = Level(*(one.repeat_interleave(8, 0) for one in (level.t, level.alpha, level.sigma)))
    found = posterior_means(x0, eps, shared, 20)
    wanted = posterior_means(x0.flatten(0, 1), eps.flatten(0, 1), rows, 20)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.flatten(0, 1), other)


def test_without_noise_it_is_the_datum():
    """Even far from the origin, where squares differ by less than their last digit."""
    x0, eps = 100 + numbers(64, 2), numbers(64, 2, seed=1)
    mean, noise = posterior_means(x0, eps, levels(64, 1e-5, 1e-4), 64)
    torch.testing.assert_close(mean, x0, rtol=0, atol=1e-4)
    torch.testing.assert_close(noise, eps, rtol=0, atol=1e-4)


def objective(kind=Denoising, size=1, **recipe):
    return kind(
        network=ResidualMLP(2, 0),
        target=EDMTarget(),
        schedule=VPCosine() if kind is ImplicitVE else EDM(10.0),
        level_law=LogNormal(0.0, 1.0, 0.02, 10.0),
        weighting=Uniform(),
        recipe=Recipe(steps=1, batch_size=1, lr=1e-3, data_per_target=size, **recipe),
        mean=torch.zeros(2),
        std=1.0,
        train_seed=0,
    )


@pytest.mark.parametrize("kind", [Denoising, ImplicitVE])
def test_gradients_vary_less_about_the_same_mean(kind):
    grads = {}
    for size in (1, 128):
        trained, found = objective(kind, size, data_per_level=8), []
        layer = trained.model.network.last
        for step in range(60):
            trained.zero_grad()
            batch = numbers(256, 2, seed=step)
            trained.loss(batch, torch_generator("loss", step)).backward()
            found.append(layer.weight.grad.flatten().clone())
        grads[size] = torch.stack(found)
    difference = grads[1] - grads[128]
    error = difference.std(0) / len(difference) ** 0.5
    assert bool((difference.mean(0).abs() < 4.5 * error).all())
    assert float(grads[128].var(0).mean()) < 0.7 * float(grads[1].var(0).mean())


class Robust(Denoising):
    """Neither quadratic nor linear in the target."""

    averages = False

    def noised_loss(self, u0, eps, level):
        self.seen = u0, eps
        return super().noised_loss(u0, eps, level).sqrt()


def test_other_losses_keep_the_target():
    batch = numbers(64, 2)
    found = []
    for size in (1, 64):
        trained = objective(Robust, size)
        trained.loss(batch, torch_generator("loss"))
        found.append(trained.seen)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert torch.equal(found[0][0], batch)


def test_autocast_does_not_change_the_means():
    x0, eps, level = numbers(128, 2), numbers(128, 2, seed=1), levels(128)
    plain = posterior_means(x0, eps, level, 64)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = posterior_means(x0, eps, level, 64)
    assert all(torch.equal(*pair) for pair in zip(plain, mixed, strict=True))


def test_no_data_are_refused():
    with pytest.raises(InvalidSetting, match="data_per_target=0"):
        objective(size=0)
