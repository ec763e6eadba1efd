"""The U-Net: images of any size, and its agreement with diffusers' model."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn

from helpers import refused_in_one_line
from samplerbench.core.grids import Level
from samplerbench.core.noise import torch_generator
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


def test_any_size_of_image(states):
    for shape in ((1, 8, 8), (3, 8, 8), (1, 25, 25), (3, 7, 10)):
        for channels in ((8,), (8, 16), (8, 8, 16)):
            network, u = awake(shape, channels=channels), states(2, math.prod(shape)).float()
            y = network(u, Level(0.5, 0.6, 0.8))
            assert y.shape == u.shape
            assert y.isfinite().all()
            assert y.std() > 0


@pytest.mark.parametrize("level", ["noise", "time"])
def test_it_is_diffusers_model_of_the_scaled_image_and_a_number(states, level):
    """The state is flattened from (channels, height, width), and y is too."""
    network, u = awake((3, 8, 8), level=level), states(2, 192).float()
    for t, alpha, sigma in ((0.5, 0.6, 0.8), (0.003, 1.0, 0.05), (1.0, 0.0, 20.0)):
        ratio = (sigma**2 + 1e-8 * alpha**2) / (alpha**2 + 1e-8 * sigma**2)
        noise = 0.5 * 999 * (1 + math.log(math.sqrt(ratio)) / math.log(1e4))
        index = torch.tensor(1000 * t - 1 if level == "time" else noise)
        image = u.reshape(2, 3, 8, 8) / math.hypot(alpha, sigma)
        y = network.unet(image, index, return_dict=False)[0]
        torch.testing.assert_close(network(u, Level(t, alpha, sigma)), y.flatten(1))


def test_it_starts_at_zero(states):
    assert not UNet(SHAPE, 0, **SMALL)(states(3, 64).float(), Level(0.5, 0.6, 0.8)).any()


def test_refuses_impossible_settings():
    for settings, field in (
        ({"channels": ()}, "channels"),
        ({"channels": (8, 12), "groups": 8}, "channels"),
        ({"channels": (0, 8)}, "channels"),
        ({"channels": (9,), "groups": 3}, "channels"),
        ({"layers": 0}, "layers"),
        ({"attention": -1}, "attention"),
        ({"attention": 3}, "attention"),
        ({"groups": 0}, "groups"),
        ({"level": "both"}, "level"),
    ):
        with refused_in_one_line(f"^{field}="):
            UNet(SHAPE, 0, **{**SMALL, **settings})


def test_other_data_are_refused_in_one_line():
    with pytest.raises(InvalidSetting, match=r"a U-Net needs images, .* the shape \(2,\)"):
        UNet((2,), 0)


def test_without_diffusers_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InvalidSetting, match=r"diffusers: .*pip install 'samplerbench\[images\]'"):
        UNet(SHAPE, 0)
