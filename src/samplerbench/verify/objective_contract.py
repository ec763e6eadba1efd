"""The contract of objectives; see `contract`.

A check gets a function that builds the objective from a network (None: its own network). The data
are in the plane, with mean `MEAN` and standard deviation `STD`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.models import Learned, LevelFree
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import InvalidSetting
from samplerbench.networks.base import Network
from samplerbench.networks.fourier_mlp import FourierMLP
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.objectives.base import Objective
from samplerbench.verify.network_contract import randomised, without_gradient
from samplerbench.verify.sampler_contract import Check

Make = Callable[[Network | None], Objective[Any]]

MEAN, STD = (0.3, -0.2), 5.0
#: Correlated data. Networks with a level get wide data, since EDM's network learns little on narrow
#: data.
WIDE, NARROW = (gaussian(MEAN, ((s, 0.8 * s), (0.8 * s, s))) for s in (STD**2, 1.0))


def model(make: Make) -> str | None:
    """The model is `Learned` if `conditional`, else `LevelFree`; only the network learns."""
    objective = make(None)
    kind = Learned if objective.conditional else LevelFree
    if not isinstance(objective.model, kind):
        return f"the model is a {type(objective.model).__name__}, not a {kind.__name__}"
    same = {*objective.parameters()} == {*objective.model.network.parameters()}
    return None if same else "the parameters are not those of the network"


def network(make: Make) -> str | None:
    """If `conditional`, only networks with a noise level are accepted, otherwise only without."""
    wrong = FourierMLP(2, 0) if make(None).conditional else ResidualMLP(2, 0)
    try:
        make(wrong)
    except InvalidSetting as error:
        return None if "a noise level" in str(error) else str(error)
    return f"it does not refuse a network whose needs_level is {wrong.needs_level}"


def loss(make: Make) -> str | None:
    """The loss is a finite scalar, with and without gradients; the batch is not changed."""
    objective = make(None)
    x0 = _data(objective)
    before = x0.clone()
    value = objective.loss(x0, torch_generator("loss", 0))
    if value.shape != () or not value.isfinite():
        return f"the loss is {value.tolist()}"
    if not torch.equal(x0, before):
        return "the batch is changed in place"
    with torch.inference_mode():  # as in validation
        same = torch.allclose(_loss(objective), value.detach(), rtol=1e-5, atol=1e-5)
    return None if same else "without gradients the loss is different"


def generator(make: Make) -> str | None:
    """The given generator determines the loss."""
    objective = make(None)
    first, again, other = (_loss(objective, seed) for seed in (0, 0, 1))
    if not torch.equal(first, again):
        return "the same generator gives another loss"
    used = torch_generator("loss", 0)
    objective.loss(_data(objective), used)
    draws = not torch.equal(used.get_state(), torch_generator("loss", 0).get_state())
    return "another generator gives the same loss" if draws and torch.equal(first, other) else None


def gradients(make: Make) -> str | None:
    """Gradients reach every parameter of the network."""
    objective = make(None)
    randomised(objective)
    _loss(objective).backward()  # type: ignore[no-untyped-call]
    name = without_gradient(objective)
    return None if name is None else f"no gradient reaches {name}"


def learning(make: Make) -> str | None:
    """A short training lowers the loss on other data, and the error of the score."""
    objective = make(None)

    def held_out() -> tuple[float, float]:
        with torch.no_grad():
            value = objective.loss(_data(objective, 1000), torch_generator("loss"))
        return float(value), _error_of_score(objective)

    (before, error_before), after, error = held_out(), math.inf, math.inf
    optimiser = torch.optim.Adam(objective.parameters(), 5e-3)
    steps, rows = (60, 400) if objective.conditional else (30, 128)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        objective.loss(_data(objective, rows, step), torch_generator("loss", step)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % 10 == 0:
            after, error = held_out()
            if after < before - 0.05 * abs(before) and error < error_before:
                return None
    if not after < before - 0.005 * abs(before):
        return f"after {steps} steps the loss is {after:.4g}, before {before:.4g}"
    if not error < error_before:
        return (
            f"after {steps} steps the error of the score is {error:.4g}, before {error_before:.4g}"
        )
    return None


OBJECTIVE: dict[str, Check] = {
    "model": model,
    "network": network,
    "loss": loss,
    "generator": generator,
    "gradients": gradients,
    "learning": learning,
}


def _data(objective: Objective[Any], count: int = 128, seed: int = 0) -> Tensor:
    return _law(objective).draws(count, "train", seed).float()


def _law(objective: Objective[Any]) -> GaussianMixture:
    return WIDE if objective.conditional else NARROW


def _error_of_score(objective: Objective[Any]) -> float:
    """E‖s − s*‖² on the Gaussian at the model's level, or at noise of a third of its width."""
    law, model = _law(objective), objective.model
    if objective.conditional:
        t = model.schedule.time_at(torch.tensor(0.3 * STD, dtype=torch.float64))
        level = Level(*(float(v) for v in (t, *model.schedule(t))))
    else:
        level = model.level
    x0 = law.draws(1000, "validation", 0)
    eps = torch.randn(x0.shape, generator=torch_generator("eps"), dtype=x0.dtype)
    x = level.alpha * x0 + level.sigma * eps
    error = model.score(x, level).detach() - law.oracle(EDM()).score(x, level)
    return float(error.square().sum(-1).mean())


def _loss(objective: Objective[Any], seed: int = 0) -> Tensor:
    return objective.loss(_data(objective), torch_generator("loss", seed))
