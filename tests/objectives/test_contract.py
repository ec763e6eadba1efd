"""What every objective promises; the members are those of conf/objective and of the package."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

import samplerbench.objectives
from samplerbench.app.config.construct import construct, parameters
from samplerbench.app.config.folders import conf_directory, members
from samplerbench.core.models import Learned, LevelFree
from samplerbench.core.noise import torch_generator
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import InvalidSetting
from samplerbench.networks.fourier_mlp import FourierMLP
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.objectives.base import Objective, Recipe
from samplerbench.objectives.implicit import Implicit

GROUPS = ("target", "schedule", "level_law", "weighting")
# correlated and wider than 1: else EDM's preconditioning, or the first network, has little to learn
WIDE, NARROW = (gaussian((0.3, -0.2), ((s, 0.8 * s), (0.8 * s, s))) for s in (25.0, 1.0))


@pytest.fixture(scope="module")
def configs():
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return {name: compose("config", [f"objective={name}"]) for name in members("objective")}


def build(config, network=None) -> Objective:
    """The objective of a config, given what its constructor names."""
    needed = parameters(config.objective, "objective")
    shared = {group: construct(config[group], group) for group in GROUPS if group in needed}
    shared["network"] = network or construct(config.network, "network", dim=2, seed=0)
    data = {"mean": torch.tensor([0.3, -0.2]), "std": 5.0 if "level_law" in needed else 1.0}
    recipe = Recipe(steps=1, batch_size=1, lr=1.0)
    return construct(config.objective, "objective", recipe=recipe, train_seed=0, **data, **shared)


def data_for(objective: Objective, count: int = 128, seed: int = 0) -> torch.Tensor:
    return (WIDE if objective.conditional else NARROW).draws(count, "train", seed).float()


def loss(objective: Objective, seed: int = 0) -> torch.Tensor:
    return objective.loss(data_for(objective), torch_generator("loss", seed))


def check_loss(objective: Objective) -> None:
    """A finite scalar; all its random numbers come from the generator that it is given."""
    x0, generator = data_for(objective), torch_generator("loss", 0)
    before, state, global_state = x0.clone(), generator.get_state(), torch.get_rng_state()
    value = objective.loss(x0, generator)
    assert value.shape == ()
    assert value.isfinite()
    assert torch.equal(x0, before)
    assert torch.equal(torch.get_rng_state(), global_state)
    torch.manual_seed(7)
    assert torch.equal(loss(objective), value)
    draws = not torch.equal(generator.get_state(), state)
    assert torch.equal(loss(objective, 1), value) != draws
    with torch.inference_mode():  # as in validation
        torch.testing.assert_close(loss(objective), value.detach(), rtol=1e-5, atol=1e-5)


def check_gradients(objective: Objective) -> None:
    """They reach every parameter of the network."""
    for name, parameter in objective.named_parameters():
        width = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        nn.init.normal_(parameter, 0, width, generator=torch_generator(name))
    assert {*objective.parameters()} == {*objective.model.network.parameters()}
    loss(objective).backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def check_it_learns(objective: Objective) -> None:
    def held_out():
        with torch.no_grad():
            return float(objective.loss(data_for(objective, 1000), torch_generator("loss")))

    before = held_out()
    optimiser = torch.optim.Adam(objective.parameters(), 5e-3)
    steps, rows = (60, 400) if objective.conditional else (30, 128)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        x0 = data_for(objective, rows, step)
        objective.loss(x0, torch_generator("loss", step)).backward()
        optimiser.step()
    after = held_out()
    assert after < before - 0.005 * abs(before)


@pytest.mark.parametrize("name", members("objective"))
def test_every_member_keeps_the_contract(configs, name):
    config = configs[name]
    objective = build(config)
    assert isinstance(objective.model, Learned if objective.conditional else LevelFree)
    check_loss(objective)
    check_it_learns(objective)
    check_gradients(objective)
    other, which = (FourierMLP, "with") if objective.conditional else (ResidualMLP, "without")
    message = f"network={other.__name__}: must be one {which} a noise level$"
    with pytest.raises(InvalidSetting, match=message):
        build(config, other(2, 0))


def test_every_class_has_a_member(configs):
    package = samplerbench.objectives
    classes = {
        member
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        for member in vars(import_module(module.name)).values()
        if inspect.isclass(member) and issubclass(member, Objective)
        if not inspect.isabstract(member)
    }
    assert classes == {type(build(config)) for config in configs.values()}


#: Losses that break it in one place, and the check that finds them.
BROKEN = [
    (lambda own, x0, generator: Implicit.loss(own, x0, generator) + torch.rand(()), check_loss),
    (lambda own, x0, generator: Implicit.loss(own, x0, generator).expand(2), check_loss),
    (lambda own, x0, generator: Implicit.loss(own, x0.mul_(1.1), generator), check_loss),
    (lambda own, x0, generator: own.score(x0).square().sum() / 0, check_loss),
    (lambda own, x0, generator: Implicit.loss(own, x0, generator).detach(), check_gradients),
]


@pytest.mark.parametrize(("broken", "check"), BROKEN)
def test_an_objective_that_breaks_it_is_found(configs, broken, check, monkeypatch):
    check(build(configs["hyvarinen"]))
    objective = build(configs["hyvarinen"])
    monkeypatch.setattr(type(objective), "loss", broken)
    with pytest.raises((AssertionError, RuntimeError)):
        check(objective)


def test_an_objective_that_does_not_learn_is_found(configs, monkeypatch):
    objective = build(configs["hyvarinen"])
    sign = {True: -1, False: 1}
    honest = objective.loss
    monkeypatch.setattr(
        objective, "loss", lambda x0, g: sign[torch.is_grad_enabled()] * honest(x0, g)
    )
    with pytest.raises(AssertionError):
        check_it_learns(objective)
