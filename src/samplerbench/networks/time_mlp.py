"""M4: the network of the notebook N2.

    (u, t) → 50 → 50 → 50 → dim,

with tanh after each hidden layer, and PyTorch's default initial weights. t is the time of the level
on its schedule, in [0, 1], not its noise: a trained network works only on its own schedule.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from samplerbench.core.grids import AnyLevel
from samplerbench.core.noise import torch_generator
from samplerbench.networks.base import Network, uniform_linear


class TimeMLP(Network):
    """A small multilayer perceptron of the state and the time."""

    needs_level: ClassVar[bool] = True

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch_generator("network", seed)
        self.first = uniform_linear(dim + 1, 50, generator)
        self.second = uniform_linear(50, 50, generator)
        self.third = uniform_linear(50, 50, generator)
        self.last = uniform_linear(50, dim, generator)

    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        t = level.t
        if isinstance(t, float):
            # one time for all rows: its column of the input shifts the bias
            weight = self.first.weight
            h = functional.linear(u, weight[:, :-1], self.first.bias + t * weight[:, -1])
        else:
            h = self.first(torch.cat([u, t.to(u)], -1))
        # in place: the outputs of the linear layers are not needed again, not even for gradients
        h = self.second(h.tanh_()).tanh_()
        y: Tensor = self.last(self.third(h).tanh_())
        return y
