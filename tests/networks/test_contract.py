"""What every network promises; the members are those of conf/network and of the package."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest
import torch
from torch import nn

import samplerbench.networks
from samplerbench.app.config.construct import construct, parameters, read_member
from samplerbench.app.config.folders import members
from samplerbench.core.grids import Level
from samplerbench.core.noise import torch_generator
from samplerbench.errors import InvalidSetting
from samplerbench.networks.base import Network, lecun_linear

IMAGE, DIM = (1, 4, 4), 16
#: t, α and σ: nearly data, a path in the middle, much noise, no signal.
LEVELS = [(0.01, 1.0, 0.02), (0.5, 0.6, 0.8), (0.9, 1.0, 10.0), (1.0, 0.0, 1.0)]


def build(name: str, seed: int = 0) -> Network:
    """A member with the settings of its yaml file."""
    node = read_member(members("network")[name])
    sizes = {"dim": DIM, "event_shape": IMAGE}
    sizes = {key: sizes[key] for key in sizes if key in parameters(node, "network")}
    try:
        return construct(node, "network", seed=seed, **sizes)
    except InvalidSetting as error:
        pytest.skip(str(error))


def awake(network: Network) -> Network:
    """The network with random parameters: as it is initialised, some of its layers are 0."""
    for name, parameter in network.named_parameters():
        width = 1 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.3
        nn.init.normal_(parameter, 0, width, generator=torch_generator(name))
    return network


def states(*batch: int) -> torch.Tensor:
    return torch.randn(*batch, DIM, generator=torch_generator("states"))


def in_rows(level, *batch: int, dtype=torch.float32) -> Level:
    return Level(*(torch.full((*batch, 1), value, dtype=dtype) for value in level))


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def check_levels(network: Network) -> None:
    """A level of numbers is one of tensors, for any batch, with and without gradients."""
    for batch in ((), (5,), (2, 3)):
        u = states(*batch)
        before = u.clone()
        for level in LEVELS:
            with torch.no_grad():
                y = network(u, Level(*level))
                same(network(u, in_rows(level, *batch, dtype=torch.float64)), y)
            same(network(u, Level(*level)), y)
            same(network(u, in_rows(level, *batch)), y)
            assert y.shape == u.shape
            assert y.dtype == torch.float32
            assert y.isfinite().all()
            assert torch.equal(u, before)


def check_rows(network: Network) -> None:
    """Every row has a level of its own, no other row matters, and the level does if it says so."""
    u, columns = states(4), torch.tensor(LEVELS)
    level = Level(*columns.T.unsqueeze(-1))
    y = network(u, level)
    for row, state, own in zip(y, u, LEVELS, strict=True):
        same(network(state, Level(*own)), row)
    y = network(u[:1].expand(4, DIM), level)
    assert (y.diff(dim=0).norm(dim=-1) > 1e-3).all() == network.needs_level


def check_seed(make) -> None:
    """The seed alone decides the parameters, and no global generator is used."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, other = make(0), make(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = make(0)
    for name, values in first.state_dict().items():
        assert torch.equal(values, again.state_dict()[name])
    weights = {name: p for name, p in first.named_parameters() if p.ndim > 1 and p.any()}
    assert len(weights) >= 2
    for name, values in weights.items():
        assert not torch.equal(values, other.state_dict()[name])


def check_gradients(network: Network) -> None:
    """Gradients reach every parameter and the state."""
    u = states(4).requires_grad_()
    network(u, in_rows(LEVELS[1], 4)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert u.grad.any()


@pytest.mark.parametrize("name", members("network"))
def test_every_member_keeps_the_contract(name):
    check_seed(lambda seed: build(name, seed))
    network = awake(build(name))
    check_levels(network)
    check_rows(network)
    check_gradients(network)


def test_every_class_has_a_member():
    package = samplerbench.networks
    classes = {
        member
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        for member in vars(import_module(module.name)).values()
        if inspect.isclass(member) and issubclass(member, Network)
        if not inspect.isabstract(member)
    }
    assert classes == {type(build(name)) for name in members("network")}


class Sound(Network):
    """A network that keeps the contract."""

    needs_level = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.first = lecun_linear(DIM, DIM, torch_generator("first", seed))
        self.last = lecun_linear(DIM, DIM, torch_generator("last", seed))

    def forward(self, u, level):
        sigma = torch.as_tensor(level.sigma, dtype=u.dtype)
        return self.last(self.first(u).tanh()) * sigma


#: Networks that break it in one place, by their forward, and the check that finds them.
BROKEN = [
    (lambda net, u, level: Sound.forward(net, u - u.reshape(-1, DIM)[0], level), check_rows),
    (lambda net, u, level: Sound.forward(net, u, Level(0.5, 0.6, 0.8)), check_rows),
    (lambda net, u, level: (1 + 0.01 * (u.ndim > 1)) * Sound.forward(net, u, level), check_rows),
    (lambda net, u, level: Sound.forward(net, u, level).double(), check_levels),
    (lambda net, u, level: Sound.forward(net, u.mul_(1.1), level), check_levels),
    (lambda net, u, level: Sound.forward(net, u, level) + torch.rand(()), check_levels),
    (lambda net, u, level: Sound.forward(net, u.detach(), level), check_gradients),
]


@pytest.mark.parametrize(("forward", "check"), BROKEN)
def test_a_network_that_breaks_it_is_found(forward, check):
    check(awake(Sound()))
    with pytest.raises((AssertionError, AttributeError)):
        check(awake(type("Broken", (Sound,), {"forward": forward})()))


def test_a_network_with_other_random_numbers_than_its_seeds_is_found():
    check_seed(Sound)
    for make in (lambda seed: Sound(0), lambda seed: nn.Sequential(Sound(seed), nn.Linear(2, 2))):
        with pytest.raises(AssertionError):
            check_seed(make)
