"""M2: the network without a noise level of the notebook N1, and a smooth form of it.

    u → 128 → 512 → 256 → dim,

with LayerNorm and LeakyReLU of slope .01 after each hidden layer, and LeakyReLU on the output too,
as in the notebook. It learns the score of one law.

Its Jacobian jumps where the argument of a LeakyReLU changes sign; for the output this happens where
the score changes sign. So it is unfit for implicit score matching: autograd's gradient of ∇·s
misses the jumps (see `objectives.derivatives`).

The smooth form has SiLU instead of LeakyReLU, and a linear output. At the initial weights, on
standard normal data in two dimensions, the cosine between autograd's gradient and the true one is
.28 for the notebook's network and .99 for the smooth one.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from samplerbench.core.grids import AnyLevel
from samplerbench.core.noise import torch_generator
from samplerbench.networks.base import Network, lecun_linear

SLOPE = 0.01  # of LeakyReLU, Flax's default
EPSILON = 1e-6  # of LayerNorm, Flax's default


class LayerNormMLP(Network):
    """A multilayer perceptron of the state, without a level, with normalised hidden layers.

    Args:
        smooth: whether to use SiLU and a linear output, which losses with a divergence need.
    """

    needs_level: ClassVar[bool] = False

    def __init__(self, dim: int, seed: int, *, smooth: bool = False) -> None:
        super().__init__()
        generator = torch_generator("network", seed)
        self.smooth = smooth
        self.first = lecun_linear(dim, 128, generator)
        self.second = lecun_linear(128, 512, generator)
        self.third = lecun_linear(512, 256, generator)
        self.last = lecun_linear(256, dim, generator)
        self.first_norm = torch.nn.LayerNorm(128, eps=EPSILON)
        self.second_norm = torch.nn.LayerNorm(512, eps=EPSILON)
        self.third_norm = torch.nn.LayerNorm(256, eps=EPSILON)

    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        h = self._activate(self.first_norm(self.first(u)))
        h = self._activate(self.second_norm(self.second(h)))
        h = self._activate(self.third_norm(self.third(h)))
        y: Tensor = self.last(h)
        return y if self.smooth else self._activate(y)

    def _activate(self, h: Tensor) -> Tensor:
        # in place if no gradient needs the input of the layer: this takes less time
        inplace = not torch.is_grad_enabled()
        return (
            functional.silu(h, inplace) if self.smooth else functional.leaky_relu(h, SLOPE, inplace)
        )
