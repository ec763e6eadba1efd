"""The U-Net: its contract on flattened images of any size, its seed, what it is to diffusers."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from samplerbench.core.grids import Level, trailing
from samplerbench.core.models import Learned
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.targets import NoiseTarget
from samplerbench.errors import InvalidSetting
from samplerbench.networks.unet import UNet

pytest.importorskip("diffusers")
SHAPE = (1, 8, 8)
SMALL = {"channels": (8, 16), "groups": 4}


def awake(shape=SHAPE, **settings):
    """A U-Net none of whose layers is zero."""
    network = UNet(shape, 0, **{**SMALL, **settings})
    nn.init.normal_(network.unet.conv_out.weight, 0, 0.3, generator=torch_generator("out"))
    return network.requires_grad_(False)


@pytest.mark.parametrize("level", ["noise", "time"])
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.02), (0.6, 0.8), (1.0, 80.0), (0.0, 1.0)])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_a_level_of_floats_is_one_of_tensors(level, batch, alpha, sigma, states):
    network, u = awake(level=level), states(*batch, 64).float()
    tensors = Level(*(torch.full((*batch, 1), v) for v in (0.3, alpha, sigma)))
    one, each = network(u, Level(0.3, alpha, sigma)), network(u, tensors)
    assert one.shape == u.shape
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, each, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 25, 25), (3, 7, 10)])
@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 8, 16)])
def test_any_size_of_image(shape, channels, states):
    network = awake(shape, channels=channels)
    u = states(2, shape[0] * shape[1] * shape[2]).float()
    y = network(u, Level(0.5, 0.6, 0.8))
    assert y.shape == u.shape
    assert y.isfinite().all()
    assert y.std() > 0


def test_no_sample_depends_on_its_neighbours(states):
    network, u = awake(), states(6, 64).float()
    t = torch.linspace(0.1, 0.9, 6)[:, None]
    level = Level(t, *VPLinear()(t))
    whole = network(u, level)
    u[3:] = 100.0
    torch.testing.assert_close(network(u, level)[:3], whole[:3], rtol=1e-5, atol=1e-5)
    alone = network(u[1:2], Level(t[1:2], level.alpha[1:2], level.sigma[1:2]))
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-5, atol=1e-5)


def test_a_pixel_stays_where_it_is(states):
    """The state is flattened from (channels, height, width), and y is too."""
    network, u = awake((3, 8, 8)), states(2, 192).float()
    level = Level(0.5, 0.6, 0.8)
    _, index = network._told(level, u)
    y = network.unet(u.reshape(2, 3, 8, 8), index, return_dict=False)[0]
    torch.testing.assert_close(network(u, level), y.flatten(1))


@pytest.mark.parametrize("level", ["noise", "time"])
def test_every_level_matters(level, states):
    network, u = awake(level=level), states(4, 64).float()
    rows = trailing(VPLinear(), 10).rows[:-1]
    outputs = [network(u, row) for row in rows]
    for one, other in pairwise(outputs):
        assert (one - other).abs().max() > 1e-4


def test_at_large_noise_only_the_scaled_state_and_the_level_count(states):
    network, u = awake(), states(4, 64).float()
    near, far = (network(s * u, Level(1.0, 0.0, s)) for s in (80.0, 8000.0))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-3)


def test_a_seed_gives_the_weights_and_no_global_number_moves():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again, other = UNet(SHAPE, 0, **SMALL), UNet(SHAPE, 0, **SMALL), UNet(SHAPE, 1, **SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    elsewhere = UNet(SHAPE, 0, **SMALL)
    pairs = list(zip(one.parameters(), again.parameters(), elsewhere.parameters(), strict=True))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in pairs)
    both = zip(one.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in both)


def test_it_starts_at_zero(states):
    assert not UNet(SHAPE, 0, **SMALL)(states(3, 64).float(), Level(0.5, 0.6, 0.8)).any()


def test_it_is_a_ddpm_of_diffusers(states):
    """On VP with ε and data as they are, at DDPM's integers, diffusers' own model agrees."""
    network, schedule = awake(level="time"), VPLinear()
    model = Learned(network, NoiseTarget(), schedule, torch.zeros(64))
    x = states(3, 64)
    for row in trailing(schedule, 10).rows[:-1]:
        index = round(1000 * row.t) - 1
        eps = network.unet(x.float().reshape(3, 1, 8, 8), index, return_dict=False)[0]
        x0_hat = (x - row.sigma * eps.flatten(1).double()) / row.alpha
        torch.testing.assert_close(model.denoiser(x, row), x0_hat, rtol=1e-5, atol=2e-5 / row.alpha)


def test_it_learns(states):
    """A few steps on one image: the error of ε falls."""
    network, schedule = UNet(SHAPE, 0, **SMALL), EDM(10.0)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    x0, eps = states(1, 64).float().expand(16, 64), states(16, 64).float()
    t = torch.linspace(0.02, 0.3, 16)[:, None]
    level = Level(t, *schedule(t))
    losses = []
    for _ in range(30):
        loss = (network(level.alpha * x0 + level.sigma * eps, level) - eps).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": (8, 12), "groups": 8}, "channels"),
        ({"channels": (0, 8)}, "channels"),
        ({"channels": (9,), "groups": 3}, "channels"),
        ({"layers": 0}, "layers"),
        ({"attention": -1}, "attention"),
        ({"attention": 3}, "attention"),
        ({"groups": 0}, "groups"),
        ({"level": "both"}, "level"),
    ],
)
def test_refuses_impossible_settings(settings, field):
    with pytest.raises(InvalidSetting, match=f"^{field}=") as error:
        UNet(SHAPE, 0, **{**SMALL, **settings})
    assert "\n" not in str(error.value)


def test_other_data_are_refused_in_one_line():
    with pytest.raises(InvalidSetting, match=r"a U-Net needs images, .* the shape \(2,\)"):
        UNet((2,), 0)


def test_without_diffusers_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InvalidSetting, match=r"diffusers: .*pip install 'samplerbench\[images\]'"):
        UNet(SHAPE, 0)
