"""The contract of networks; see `contract`.

A check gets a function that builds the network from a seed, for states of length 16. For networks
on images the states are images of the shape (1, 4, 4).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from samplerbench.core.grids import Level
from samplerbench.core.models import Differentiated
from samplerbench.core.noise import torch_generator
from samplerbench.networks.base import Network
from samplerbench.verify.sampler_contract import DOES_NOT_APPLY, Check

Make = Callable[[int], Network]

EVENT_SHAPE, DIM = (1, 4, 4), 16
#: (t, α, σ): almost data, the middle of a path, much noise, no signal.
LEVELS = [(0.01, 1.0, 0.02), (0.5, 0.6, 0.8), (0.9, 1.0, 10.0), (1.0, 0.0, 1.0)]


def randomised(module: nn.Module) -> None:
    """Draw all parameters anew: new networks have layers of zeros, which hide other layers."""
    for name, parameter in module.named_parameters():
        width = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        nn.init.normal_(parameter, 0, width, generator=torch_generator(name))


def without_gradient(module: nn.Module) -> str | None:
    """The first parameter without a gradient, or None."""
    for name, parameter in module.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            return name
    return None


def shapes(make: Make) -> str | None:
    """y is finite and float32, of the shape of u, for every batch; u is not changed."""
    network = _network(make)
    for batch in ((), (5,), (2, 3)):
        u = _states(*batch)
        before = u.clone()
        for level in LEVELS:
            with torch.no_grad():
                y = network(u, Level(*level))
            if (y.shape, y.dtype) != (u.shape, torch.float32):
                return f"of u {tuple(u.shape)}, float32, y is {tuple(y.shape)}, {y.dtype}"
            if not y.isfinite().all():
                return f"y is not finite at α={level[1]}, σ={level[2]}"
            if not torch.equal(u, before):
                return "the state is changed in place"
            if not _same(network(u, Level(*level)), y):
                return "with gradients y is different, or y is random"
    return None


def levels(make: Make) -> str | None:
    """A level of numbers gives the same y as a level of tensors, shape (*batch, 1)."""
    network = _network(make)
    for batch in ((), (5,), (2, 3)):
        u = _states(*batch)
        for level in LEVELS:
            y = network(u, Level(*level))
            for dtype in (torch.float32, torch.float64):
                if not _same(network(u, _rows(level, *batch, dtype=dtype)), y):
                    return f"a level of {dtype} tensors gives another y than one of numbers"
    return None


def broadcasts(make: Make) -> str | None:
    """Where `broadcasts` is true, states of a group can share one level."""
    network, u = _network(make), _states(4, 3)
    if not network.broadcasts:
        return DOES_NOT_APPLY
    alone = Level(*torch.tensor(LEVELS).T[..., None, None])
    of_each = Level(*(value.expand(4, 3, 1) for value in (alone.t, alone.alpha, alone.sigma)))
    if _same(network(u, alone), network(u, of_each)):
        return None
    return "a level that a group of states shares gives another y than a level for each state"


def neighbours(make: Make) -> str | None:
    """Every row has its own level, and does not depend on the other rows."""
    network, u = _network(make), _states(4)
    y = network(u, Level(*torch.tensor(LEVELS).T.unsqueeze(-1)))
    for row, state, level in zip(y, u, LEVELS, strict=True):
        if not _same(network(state, Level(*level)), row):
            return "a row depends on the other rows, or does not use its own level"
    return None


def needs_level(make: Make) -> str | None:
    """The level matters if and only if `needs_level`."""
    network, u = _network(make), _states(1).expand(len(LEVELS), DIM)
    y = network(u, Level(*torch.tensor(LEVELS).T.unsqueeze(-1)))
    matters = bool((y.diff(dim=0).norm(dim=-1) > 1e-3).all())
    if matters == network.needs_level:
        return None
    return f"the level {'matters' if matters else 'does not matter'}, but needs_level disagrees"


def seed(make: Make) -> str | None:
    """The seed determines all weights, and nothing else."""
    first, again, *others = make(0), make(0), make(1), make(2)
    weights = {name: values.clone() for name, values in first.state_dict().items()}
    for name, values in weights.items():
        if not torch.equal(values, again.state_dict()[name]):
            return f"the same seed gives another {name}"
    randomised(first)
    for seed, other in enumerate(others, 1):
        for name, values in other.named_parameters():
            same = values.ndim > 1 and values.any() and torch.equal(values, weights[name])
            if same:
                return f"another seed gives the same {name}"
        other.load_state_dict(first.state_dict())
        u, level = _states(4), Level(*LEVELS[1])
        if not _same(first(u, level), other(u, level)):
            return f"with the weights of seed 0 the network of seed {seed} gives another y"
    return None


def gradients(make: Make) -> str | None:
    """Gradients reach every parameter and the state."""
    network, u = _network(make), _states(4).requires_grad_()
    network(u, _rows(LEVELS[1], 4)).square().sum().backward()
    if u.grad is None or not u.grad.any():
        return "no gradient reaches the state"
    name = without_gradient(network)
    return None if name is None else f"no gradient reaches {name}"


def derivative(make: Make) -> str | None:
    """If a network has its own `derivative`, it is the derivative of y."""
    network, u = _network(make), _states(3)
    if not isinstance(network, Differentiated):
        return DOES_NOT_APPLY
    for level in (Level(*LEVELS[1]), Level(*torch.tensor(LEVELS[:3]).T[..., None])):
        y, found = network.derivative(u, level)
        if not _same(y, network(u, level)):
            return "y from `derivative` is not the output"
        states = u.clone().requires_grad_()
        columns = network(states, level).sum(0)
        rows = [torch.autograd.grad(one, states, retain_graph=True)[0] for one in columns]
        if not _same(found, torch.stack(rows, 2).transpose(0, 1)):
            return "it differs from automatic differentiation"
    return None


NETWORK: dict[str, Check] = {
    "shapes": shapes,
    "levels": levels,
    "broadcasts": broadcasts,
    "neighbours": neighbours,
    "needs_level": needs_level,
    "seed": seed,
    "gradients": gradients,
    "derivative": derivative,
}


def _network(make: Make) -> Network:
    network = make(0)
    randomised(network)
    return network


def _states(*batch: int) -> Tensor:
    return torch.randn(*batch, DIM, generator=torch_generator("states"))


def _rows(
    level: tuple[float, ...], *batch: int, dtype: torch.dtype = torch.float32
) -> Level[Tensor]:
    return Level(*(torch.full((*batch, 1), value, dtype=dtype) for value in level))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.allclose(one, other, rtol=1e-4, atol=1e-4)
