"""Networks: what every member promises, and the shapes and laws of its initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from samplerbench.core.grids import Level
from samplerbench.core.noise import torch_generator
from samplerbench.networks.base import Network, lecun_linear, uniform_linear
from samplerbench.networks.fourier_mlp import FourierMLP
from samplerbench.networks.layer_norm_mlp import LayerNormMLP
from samplerbench.networks.mlp import MLP
from samplerbench.networks.ncsn_mlp import NCSNMLP
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.networks.time_mlp import TimeMLP

MEMBERS = [MLP, LayerNormMLP, FourierMLP, NCSNMLP, TimeMLP, ResidualMLP]


def awake(member: type[Network], dim: int = 3, seed: int = 0) -> Network:
    """A member none of whose layers is zero."""
    network = member(dim, seed)
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, 0, 0.3, generator=torch_generator(name))
    return network


@pytest.mark.parametrize("member", MEMBERS)
class TestContract:
    @pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.02), (0.6, 0.8), (1.0, 10.0), (0.0, 1.0)])
    @pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
    def test_a_level_of_floats_is_one_of_tensors(self, member, batch, alpha, sigma, states):
        network, u = awake(member), states(*batch, 3).float()
        tensors = Level(*(torch.full((*batch, 1), v) for v in (0.3, alpha, sigma)))
        for enabled in (True, False):  # without gradients layers work in place
            with torch.set_grad_enabled(enabled):
                before = u.clone()
                one, each = network(u, Level(0.3, alpha, sigma)), network(u, tensors)
            assert one.shape == u.shape
            assert one.isfinite().all()
            assert torch.equal(u, before)
            torch.testing.assert_close(one, each, rtol=2e-4, atol=2e-4)

    def test_every_row_has_a_level_of_its_own(self, member, states):
        network, u = awake(member), states(4, 3).float()
        # M4 sees t, here σ itself
        sigma = torch.tensor([[0.02], [0.3], [2.0], [9.0]])
        rows = network(u, Level(sigma, torch.ones(4, 1), sigma))
        for row, x, s in zip(rows, u, sigma.flatten().tolist(), strict=True):
            torch.testing.assert_close(row, network(x, Level(s, 1.0, s)), rtol=1e-4, atol=1e-4)
        same = network(u[:1].expand(4, 3), Level(sigma, torch.ones(4, 1), sigma))
        assert (same.diff(dim=0).norm(dim=-1) > 1e-3).all() == member.needs_level

    def test_the_seed_decides_and_the_global_generator_is_left_alone(self, member):
        state = torch.get_rng_state()
        first, second, other = member(2, 0), member(2, 0), member(2, 1)
        assert torch.equal(state, torch.get_rng_state())
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
            assert torch.equal(a, b)
        weights = [p for p in first.parameters() if p.ndim == 2 and p.any()]
        others = [p for p in other.parameters() if p.ndim == 2 and p.any()]
        assert len(weights) >= 3
        assert not any(torch.equal(a, b) for a, b in zip(weights, others, strict=True))

    def test_gradients_reach_every_parameter_and_the_state(self, member, states):
        network, u = awake(member), states(6, 3).float().requires_grad_()
        sigma = torch.linspace(0.1, 2, 6).unsqueeze(-1)
        network(u, Level(sigma, torch.ones_like(sigma), sigma)).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())
        assert u.grad is not None
        assert u.grad.any()


def test_m3_has_the_notebooks_layers():
    network = NCSNMLP(2, 0)
    linear = [layer for layer in network.children() if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [
        (256, 3),
        (512, 256),
        (256, 512),
        (2, 256),
    ]
    norms = [layer for layer in network.children() if isinstance(layer, nn.LayerNorm)]
    assert [layer.normalized_shape for layer in norms] == [(256,), (256,)]
    assert all(layer.eps == 1e-6 for layer in norms)
    assert not any(layer.bias.any() for layer in linear)


def test_m3_equals_its_formula_written_out(states):
    network, x, sigma = awake(NCSNMLP, 2), states(7, 2).float(), 0.7
    h = torch.cat([x, torch.full((7, 1), math.log(sigma) / 4)], -1)
    names = [("first", "first_norm"), ("second", None), ("third", "third_norm"), ("last", None)]
    for layer, norm in names:
        h = h @ getattr(network, layer).weight.T + getattr(network, layer).bias
        if norm is not None:
            deviation = h - h.mean(-1, keepdim=True)
            h = deviation / (deviation.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            h = h * getattr(network, norm).weight + getattr(network, norm).bias
        h = torch.where(h > 0, h, 0.01 * h)
    torch.testing.assert_close(network(x, Level(sigma, 1.0, sigma)), h, rtol=1e-4, atol=1e-4)


LAYERS = {
    MLP: [(256, 2), (256, 256), (2, 256)],
    LayerNormMLP: [(128, 2), (512, 128), (256, 512), (2, 256)],
    TimeMLP: [(50, 3), (50, 50), (50, 50), (2, 50)],
}


@pytest.mark.parametrize("member", LAYERS)
def test_the_notebooks_layers(member):
    network = member(2, 0)
    linear = [layer for layer in network.children() if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == LAYERS[member]
    # Flax starts biases at zero, PyTorch does not
    assert any(layer.bias.any() for layer in linear) == (member is TimeMLP)
    norms = [layer for layer in network.children() if isinstance(layer, nn.LayerNorm)]
    widths = [128, 512, 256] if member is LayerNormMLP else []
    assert [layer.normalized_shape for layer in norms] == [(width,) for width in widths]
    assert all(layer.eps == 1e-6 for layer in norms)


def layer(network, name, h):
    return h @ getattr(network, name).weight.T + getattr(network, name).bias


def test_m1_equals_its_formula_written_out(states):
    network, x = awake(MLP, 2), states(7, 2).float()
    h = layer(network, "first", x).clamp(min=0)
    h = layer(network, "second", h).clamp(min=0)
    y = layer(network, "last", h)
    torch.testing.assert_close(network(x, Level(0.0, 1.0, 0.0)), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smooth", [False, True])
def test_m2_equals_its_formula_written_out(states, smooth):
    network, x = awake(LayerNormMLP, 2), states(7, 2).float()
    network.smooth = smooth

    def activate(h):
        return h * torch.sigmoid(h) if smooth else torch.where(h > 0, h, 0.01 * h)

    h = x
    for name in ("first", "second", "third"):
        h = layer(network, name, h)
        deviation = h - h.mean(-1, keepdim=True)
        h = deviation / (deviation.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        norm = getattr(network, f"{name}_norm")
        h = activate(h * norm.weight + norm.bias)
    y = layer(network, "last", h)
    y = y if smooth else activate(y)
    torch.testing.assert_close(network(x, Level(0.0, 1.0, 0.0)), y, rtol=1e-4, atol=1e-4)


def test_m4_equals_its_formula_written_out_and_sees_the_time(states):
    network, x = awake(TimeMLP, 2), states(7, 2).float()
    h = torch.cat([x, torch.full((7, 1), 0.3)], -1)
    for name in ("first", "second", "third"):
        h = torch.tanh(layer(network, name, h))
    y = layer(network, "last", h)
    for sigma in (0.1, 7.0):
        level = Level(0.3, 1.0, sigma).in_units_of(5.0)
        torch.testing.assert_close(network(x, level), y, rtol=1e-4, atol=1e-4)


def test_uniform_weights_are_pytorchs_default():
    ours = uniform_linear(400, 1000, torch_generator(0))
    with torch.random.fork_rng():  # theirs come from the global generator
        torch.manual_seed(0)
        theirs = nn.Linear(400, 1000)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert own.shape == other.shape
        assert float(own.detach().abs().max()) <= 1 / 20
        assert float(own.detach().std()) == pytest.approx(1 / 20 / math.sqrt(3), rel=0.05)
        assert float(other.detach().std()) == pytest.approx(1 / 20 / math.sqrt(3), rel=0.05)


def test_lecun_weights_are_a_truncated_normal_of_variance_one_over_inputs():
    weight = lecun_linear(400, 1000, torch_generator(0)).weight.detach() * math.sqrt(400)
    assert float(weight.var()) == pytest.approx(1, abs=0.01)
    assert abs(float(weight.mean())) < 0.01
    bound = 2 / 0.87962566  # two standard deviations before the cut
    assert 0.99 * bound < float(weight.abs().max()) <= bound + 1e-5


def test_m5_starts_at_zero_and_sees_its_input_at_unit_variance(states):
    network = ResidualMLP(2, 0)
    u = 50 * states(20, 2).float()
    assert not network(u, Level(1.0, 1.0, 50.0)).any()
    # at large noise only u/√(1 + σ²) and the level count
    loud = awake(ResidualMLP, 2)
    near = loud(u, Level(1.0, 0.0, 50.0))
    far = loud(100 * u, Level(1.0, 0.0, 5000.0))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-3)


def test_fourier_equals_its_formula_written_out(states):
    network, x = awake(FourierMLP, 2), states(7, 2).float()
    h = torch.cat([torch.sin(x @ network.frequencies.T + network.phases), x], -1)
    h = layer(network, "first", h)
    for block in network.blocks:
        inner = h @ block.weight.T + block.bias
        h = h + inner * torch.sigmoid(inner)
    y = layer(network, "last", h)
    torch.testing.assert_close(network(x, Level(0.0, 1.0, 0.0)), y, rtol=1e-4, atol=1e-4)
