"""A small U-Net on images, diffusers' `UNet2DModel`, as a network on flattened states.

    y = crop(U(pad(c_in·u), i)),   c_in = 1/√(α² + σ²),

where u is reshaped to (channels, height, width) and padded with zeros until every halving gives an
integer; y is flattened again. Only this network treats a state as an image. diffusers computes
sines and cosines of i, a number between 0 and T − 1 = 999:

    level: noise      i = ½·(T − 1)·(1 + ln κ/ln(1/δ)),   κ and δ as in `base.scale_and_log_ratio`
    level: time       i = T·t − 1

The first is the same on every path. The second, on `VPLinear` with the target ε and data that are
not standardised, is diffusers' own DDPM with T levels: there α² + σ² = 1, so c_in = 1.

Each level of the U-Net halves the image; the lowest ones have attention, with a single head as in
the paper. The last layer starts at zero. Ho, Jain, Abbeel, "Denoising diffusion probabilistic
models", NeurIPS 2020 (arXiv 2006.11239), Appendix B.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from samplerbench.core.grids import AnyLevel
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import TRAIN_STEPS
from samplerbench.errors import needs, require
from samplerbench.networks.base import SMALLEST_RATIO, Network, as_input, scale_and_log_ratio

LevelIndex = Literal["noise", "time"]


class UNet(Network):
    """diffusers' U-Net, with weights from its own generator.

    Args:
        event_shape: the shape of an image: (channels, height, width).
        seed: the seed of the initial weights.
        channels: the channels of each level, from the full image down; each level halves the size.
        layers: number of residual blocks of each level.
        attention: number of levels with attention, counted from the lowest.
        groups: number of groups of the group normalisation; divides every entry of `channels`.
        level: the definition of i, "noise" or "time".
    """

    needs_level: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("diffusers",)

    def __init__(
        self,
        event_shape: tuple[int, ...],
        seed: int,
        *,
        channels: tuple[int, ...] = (32, 64),
        layers: int = 1,
        attention: int = 1,
        groups: int = 8,
        level: LevelIndex = "noise",
    ) -> None:
        super().__init__()
        allowed = f"another one: a U-Net needs images, and these data have the shape {event_shape}"
        require(len(event_shape) == 3, "event_shape", event_shape, allowed)
        require(len(channels) >= 1, "channels", channels, "at least one number")
        require(groups >= 1, "groups", groups, "at least 1")
        for width in channels:
            allowed = f"positive multiples of groups={groups}, and even"
            good = width >= 1 and width % groups == 0 and width % 2 == 0
            require(good, "channels", channels, allowed)
        require(layers >= 1, "layers", layers, "at least 1")
        levels = len(channels)
        require(0 <= attention <= levels, "attention", attention, f"between 0 and {levels}")
        require(level in ("noise", "time"), "level", level, "noise or time")
        self.event_shape = event_shape
        self.level = level
        side = 2 ** (levels - 1)
        self._missing = tuple(-length % side for length in event_shape[1:])
        kinds = ["Attn" * (k >= levels - attention) for k in range(levels)]
        self.unet = _unet(
            torch_generator("network", seed),
            sample_size=tuple(length + -length % side for length in event_shape[1:]),
            in_channels=event_shape[0],
            out_channels=event_shape[0],
            block_out_channels=channels,
            layers_per_block=layers,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            attention_head_dim=None,
            add_attention=attention > 0,
            norm_num_groups=groups,
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        scale, index = self._scale_and_index(level, u)
        images = (u * scale).reshape(-1, *self.event_shape)
        below, right = self._missing
        if below or right:
            images = functional.pad(images, (0, right, 0, below))
        y: Tensor = self.unet(images, index.reshape(-1), return_dict=False)[0]
        _, height, width = self.event_shape
        return y[..., :height, :width].reshape(u.shape)

    def _scale_and_index(self, level: AnyLevel, u: Tensor) -> tuple[Tensor, Tensor]:
        """c_in, and i: one number for a level of floats, else one for each state."""
        scale, log_ratio = scale_and_log_ratio(level)
        if self.level == "time":
            index = TRAIN_STEPS * level.t - 1
        else:
            index = (TRAIN_STEPS - 1) * 0.5 * (1 - 0.5 * log_ratio / math.log(SMALLEST_RATIO))
        return as_input(scale, u), as_input(index, u)


def _unet(generator: torch.Generator, **settings: Any) -> Any:
    """diffusers' model. It draws weights from the global generator; its state is restored here."""
    with needs("diffusers", "images"):
        from diffusers import UNet2DModel  # slow to import
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(generator.initial_seed())  # only the CPU's generator
        return UNet2DModel(**settings)
    finally:
        torch.set_rng_state(state)
