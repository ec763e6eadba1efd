"""M1: the network of the notebook N0.

    u → 256 → 256 → dim,

with ReLU after both hidden layers. It has no noise level: it learns the score of one law.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from samplerbench.core.grids import AnyLevel
from samplerbench.core.noise import torch_generator
from samplerbench.networks.base import Network, lecun_linear


class MLP(Network):
    """A multilayer perceptron of the state, without a level.

    It is piecewise linear, so autograd's gradient of its divergence is biased. Use it for
    denoising, not for implicit score matching (see `objectives.derivatives`).
    """

    needs_level: ClassVar[bool] = False

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch_generator("network", seed)
        self.first = lecun_linear(dim, 256, generator)
        self.second = lecun_linear(256, 256, generator)
        self.last = lecun_linear(256, dim, generator)

    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        h = functional.relu(self.first(u))
        h = functional.relu(self.second(h))
        y: Tensor = self.last(h)
        return y
