"""M3: the noise-conditional network of the notebook N1.

    (u, ¼·ln σ) → 256 (LayerNorm) → 512 → 256 (LayerNorm) → dim,

with LeakyReLU of slope .01 after every layer, including the last one, as in the notebook. So a
negative output needs a pre-activation a hundred times as large as a positive output; the network
learns this.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from samplerbench.core.grids import AnyLevel
from samplerbench.core.noise import torch_generator
from samplerbench.networks.base import Network, lecun_linear

SLOPE = 0.01  # of LeakyReLU, Flax's default
EPSILON = 1e-6  # of LayerNorm, Flax's default


class NCSNMLP(Network):
    """A multilayer perceptron of the state and ¼·ln σ.

    After Song and Ermon, "Generative modeling by estimating gradients of the data distribution",
    NeurIPS 2019; the input ¼·ln σ is that of Karras et al. 2022 (arXiv 2206.00364), Table 1. σ must
    be positive. If the data are not standardised, σ is in their units.
    """

    needs_level: ClassVar[bool] = True

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch_generator("network", seed)
        self.first = lecun_linear(dim + 1, 256, generator)
        self.second = lecun_linear(256, 512, generator)
        self.third = lecun_linear(512, 256, generator)
        self.last = lecun_linear(256, dim, generator)
        self.first_norm = torch.nn.LayerNorm(256, eps=EPSILON)
        self.third_norm = torch.nn.LayerNorm(256, eps=EPSILON)

    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        sigma = level.sigma
        if isinstance(sigma, float):
            # one level for all rows: its column of the input shifts the bias
            weight = self.first.weight
            bias = self.first.bias + 0.25 * math.log(sigma) * weight[:, -1]
            h = functional.linear(u, weight[:, :-1], bias)
        else:
            h = self.first(torch.cat([u, 0.25 * sigma.log().to(u)], -1))
        # in place if no gradient needs the input of the layer: this takes less time
        inplace = not torch.is_grad_enabled()
        h = functional.leaky_relu(self.first_norm(h), SLOPE, inplace)
        h = functional.leaky_relu(self.second(h), SLOPE, inplace)
        h = functional.leaky_relu(self.third_norm(self.third(h)), SLOPE, inplace)
        return functional.leaky_relu(self.last(h), SLOPE, inplace)
