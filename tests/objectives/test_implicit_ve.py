"""The implicit form of the denoising loss: half its gradient, draw by draw."""

from __future__ import annotations

import pytest
import torch

from samplerbench.core.level_laws import UniformTime
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import GeometricVE, VPCosine
from samplerbench.core.targets import (
    DataTarget,
    EDMTarget,
    NoiseTarget,
    ScoreTarget,
    VelocityTarget,
    VTarget,
)
from samplerbench.core.weightings import SignalShare, Uniform, Variance
from samplerbench.datasets.gaussian import gaussian
from samplerbench.networks.time_mlp import TimeMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import Denoising
from samplerbench.objectives.implicit_ve import ImplicitVE

TARGETS = [DataTarget(), NoiseTarget(), ScoreTarget(), VTarget(), VelocityTarget(), EDMTarget()]
LAW = gaussian((0.5,), ((0.4,),))


def objective(kind, target, weighting, schedule, **settings):
    return kind(
        network=TimeMLP(1, 0),
        target=target,
        schedule=schedule,
        level_law=UniformTime(0.01, 0.99),
        weighting=weighting,
        recipe=Recipe(steps=1, batch_size=1, lr=1e-3),
        mean=torch.tensor([0.5]),
        std=0.6,
        train_seed=0,
        **settings,
    ).double()


@pytest.mark.parametrize(
    ("target", "weighting"),
    zip(TARGETS, 2 * [Uniform(), Variance(), SignalShare()], strict=True),
    ids=repr,
)
def test_its_gradient_is_half_the_denoising_losss(target, weighting):
    x0 = LAW.draws(200, "test")
    found = []
    for kind in (Denoising, ImplicitVE):
        trained = objective(kind, target, weighting, VPCosine(), levels_per_datum=2)
        loss = trained.loss(x0, torch_generator(0))
        gradients = torch.autograd.grad(loss, trained.parameters())
        found.append(torch.cat([g.flatten() for g in gradients]))
    torch.testing.assert_close(found[1], found[0] / 2, rtol=1e-9, atol=1e-12 * found[0].max())


def test_it_is_the_notebooks():
    """E_t E[(½‖u‖² + u·z/η̃)·η̃²] with η̃ = η_min·(η_max/η_min)^t, written out."""
    trained = objective(
        ImplicitVE, ScoreTarget(), Variance(), GeometricVE(0.03, 2.0), standardise=False
    )
    x0 = LAW.draws(200, "test")
    generator = torch_generator(0)
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    t = 0.01 + 0.98 * torch.rand(200, generator=generator, dtype=x0.dtype).unsqueeze(-1)
    eta = 0.03 * (2 / 0.03) ** t
    network = trained.model.network
    h = torch.cat([x0 + eta * z, t], -1)
    for layer in (network.first, network.second, network.third):
        h = torch.tanh(layer(h))
    u = network.last(h)
    expected = ((0.5 * u.square() + u * z / eta) * eta.square()).mean()
    torch.testing.assert_close(trained.loss(x0, torch_generator(0)), expected)
