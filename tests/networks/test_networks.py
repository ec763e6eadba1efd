"""Networks against their formulas, written out with matrices; the laws of initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from samplerbench.core.grids import Level
from samplerbench.core.noise import torch_generator
from samplerbench.networks.base import lecun_linear, uniform_linear
from samplerbench.networks.fourier_mlp import FourierMLP
from samplerbench.networks.layer_norm_mlp import LayerNormMLP
from samplerbench.networks.mlp import MLP
from samplerbench.networks.ncsn_mlp import NCSNMLP
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.networks.time_mlp import TimeMLP


def silu(h):
    return h * torch.sigmoid(h)


def leaky(h):
    return torch.where(h > 0, h, 0.01 * h)


def linear(layer, h):
    return h @ layer.weight.T + layer.bias


def normalised(norm, h):
    deviation = h - h.mean(-1, keepdim=True)
    h = deviation / (deviation.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return h * norm.weight + norm.bias


def with_column(u, value):
    return torch.cat([u, torch.full((len(u), 1), value)], -1)


def m1(net, u, level):
    h = linear(net.first, u).clamp(min=0)
    return linear(net.last, linear(net.second, h).clamp(min=0))


def m2(net, u, level, activate=leaky):
    h = activate(normalised(net.first_norm, linear(net.first, u)))
    h = activate(normalised(net.second_norm, linear(net.second, h)))
    h = activate(normalised(net.third_norm, linear(net.third, h)))
    return leaky(linear(net.last, h)) if activate is leaky else linear(net.last, h)


def m2_smooth(net, u, level):
    return m2(net, u, level, silu)


def m3(net, u, level):
    h = with_column(u, math.log(level.sigma) / 4)
    h = leaky(normalised(net.first_norm, linear(net.first, h)))
    h = leaky(linear(net.second, h))
    h = leaky(normalised(net.third_norm, linear(net.third, h)))
    return leaky(linear(net.last, h))


def m4(net, u, level):
    h = with_column(u, level.t)
    for layer in (net.first, net.second, net.third):
        h = torch.tanh(linear(layer, h))
    return linear(net.last, h)


def m5(net, u, level):
    v = u / math.hypot(level.alpha, level.sigma)
    square = (level.sigma**2 + 1e-8 * level.alpha**2) / (level.alpha**2 + 1e-8 * level.sigma**2)
    quarter = torch.tensor([math.log(math.sqrt(square)) / 4])
    waves = torch.sin(quarter * net.level_frequencies + net.level_phases)
    hidden = silu(linear(net.level_in, torch.cat([quarter, waves])))
    first, *shifts = linear(net.level_out, hidden).split(net.width)
    frequencies, phases = net.frequencies[:-2], net.phases[:-2]
    h = linear(net.first, torch.cat([torch.sin(v @ frequencies.T + phases), v], -1)) + first
    for block, shift in zip(net.blocks, shifts, strict=True):
        h = h + silu(linear(block, h) + shift)
    return linear(net.last, h)


def fourier(net, u, level):
    h = torch.cat([torch.sin(u @ net.frequencies.T + net.phases), u], -1)
    h = linear(net.first, h)
    for block in net.blocks:
        h = h + silu(linear(block, h))
    return linear(net.last, h)


FORMULAS = [
    (MLP(2, 0), m1),
    (LayerNormMLP(2, 0), m2),
    (LayerNormMLP(2, 0, smooth=True), m2_smooth),
    (NCSNMLP(2, 0), m3),
    (TimeMLP(2, 0), m4),
    (ResidualMLP(2, 0), m5),
    (FourierMLP(2, 0), fourier),
]


@pytest.mark.parametrize(("network", "formula"), FORMULAS, ids=lambda x: getattr(x, "__name__", ""))
def test_it_equals_its_formula_written_out(network, formula, states):
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, 0, 0.3, generator=torch_generator(name))
    u = states(7, 2).float()
    for level in (Level(0.3, 1.0, 0.7), Level(0.6, 0.1, 9.0), Level(0.01, 1.0, 1e-6)):
        expected = formula(network, u, level)
        torch.testing.assert_close(network(u, level), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "shapes", "norms"),
    [
        (MLP, [(256, 2), (256, 256), (2, 256)], []),
        (LayerNormMLP, [(128, 2), (512, 128), (256, 512), (2, 256)], [128, 512, 256]),
        (NCSNMLP, [(256, 3), (512, 256), (256, 512), (2, 256)], [256, 256]),
        (TimeMLP, [(50, 3), (50, 50), (50, 50), (2, 50)], []),
    ],
)
def test_the_notebooks_layers(kind, shapes, norms):
    layers = list(kind(2, 0).children())
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linears] == shapes
    # Flax starts biases at zero, PyTorch does not
    assert any(layer.bias.any() for layer in linears) == (kind is TimeMLP)
    normalisations = [layer for layer in layers if isinstance(layer, nn.LayerNorm)]
    assert [layer.normalized_shape for layer in normalisations] == [(width,) for width in norms]


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


def test_waves_have_the_frequencies_of_their_settings():
    network = FourierMLP(2, 0, features=20_000, frequency=0.25)
    cycles = network.frequencies / (2 * math.pi)
    assert float(cycles.std()) == pytest.approx(0.25, rel=0.02)
    assert float(network.phases.mean()) == pytest.approx(math.pi, rel=0.02)
    assert 0 <= float(network.phases.min()) < float(network.phases.max()) <= 2 * math.pi


def test_m5_starts_at_zero(states):
    assert not ResidualMLP(2, 0)(50 * states(20, 2).float(), Level(1.0, 1.0, 50.0)).any()
