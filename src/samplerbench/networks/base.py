"""The contract of networks: functions of a state and its noise level.

    y = network(u, level),   u and y of shape (*batch, dim).

The network gets u = (x − α·mean)/std at the level (α, σ/std): `models.Learned` standardises the
data, and u has variance α² + σ². The target defines the meaning of y. The network draws its
parameters from its own generator. So a seed always gives the same weights, and torch's global
generator is not used.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from samplerbench.core.grids import AnyLevel
from samplerbench.errors import require

# standard deviation of the standard normal law restricted to [−2, 2]
_TRUNCATED_STD = 0.87962566103423978

#: δ: the networks do not distinguish noise-to-signal ratios below δ or above 1/δ.
SMALLEST_RATIO = 1e-4


class Network(nn.Module, ABC):
    """A network with parameters to learn.

    Members have the arguments `dim`, the dimension of the state (or the shape of an image), and
    `seed`, the seed of their random numbers: initial weights, and frequencies if there are any.

    Attributes:
        needs_level: whether the output depends on the level.
        broadcasts: whether states can share a level: for u of shape (groups, n, dim) the level may
            have the shape (groups, 1, 1). Such a network computes the features of a level once for
            each group.
        packages: other packages whose versions change the output.
    """

    needs_level: ClassVar[bool]
    broadcasts: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        """The network's output y, shape (*batch, dim).

        Args:
            u: the state, float32, shape (*batch, dim).
            level: the level, with Python floats or tensors of shape (*batch, 1).
        """


def scale_and_log_ratio(level: AnyLevel) -> tuple[float | Tensor, float | Tensor]:
    """c_in and ln κ²: tensors for a level of tensors, floats for a level of floats.

        c_in = 1/√(α² + σ²),    κ² = (σ² + δ²·α²)/(α² + δ²·σ²),   δ = 1e-4 .

    c_in·u has unit variance for standardised data. κ is σ/α between δ and 1/δ; it and ln κ stay
    finite without signal and without noise.
    """
    alpha, sigma = level.alpha, level.sigma
    square = alpha**2 + sigma**2
    ratio = (sigma**2 + (SMALLEST_RATIO * alpha) ** 2) / (alpha**2 + (SMALLEST_RATIO * sigma) ** 2)
    scale = square.rsqrt() if isinstance(square, Tensor) else square**-0.5
    return scale, ratio.log() if isinstance(ratio, Tensor) else math.log(ratio)


def as_input(value: float | Tensor, u: Tensor) -> Tensor:
    """A number, or one number per state, as a tensor in the precision of u."""
    return value.to(u) if isinstance(value, Tensor) else u.new_full((1,), value)


def random_waves(
    features: int, dim: int, frequency: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw Ω, shape (features, dim), and φ, shape (features,), of the features sin(Ω·u + φ).

    Ω/2π is normal with the deviation `frequency`, in cycles per unit of u, and φ is uniform.
    """
    require(features >= 0, "features", features, "at least 0")
    require(0 < frequency < math.inf, "frequency", frequency, "positive")
    waves = 2 * math.pi * frequency * torch.randn(features, dim, generator=generator)
    return waves, 2 * math.pi * torch.rand(features, generator=generator)


def lecun_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with zero biases and truncated normal weights of variance 1/inputs.

    LeCun, Bottou, Orr, Müller, "Efficient backprop", 1998, Eq. 16, in Flax's form: normal numbers
    cut at two standard deviations, then scaled to the variance.
    """
    layer = _empty_linear(inputs, outputs)
    std = 1 / (math.sqrt(inputs) * _TRUNCATED_STD)
    nn.init.trunc_normal_(layer.weight, 0.0, std, -2 * std, 2 * std, generator)
    nn.init.zeros_(layer.bias)
    return layer


def uniform_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with weights and biases uniform between ±1/√inputs: PyTorch's default."""
    layer = _empty_linear(inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator)
    return layer


def _empty_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with undefined weights: PyTorch would draw them from the global generator."""
    layer = nn.Linear(inputs, outputs, device="meta")
    # `to_empty` does the same, but imports SymPy the first time, which takes a second
    layer.weight = nn.Parameter(torch.empty(outputs, inputs))
    layer.bias = nn.Parameter(torch.empty(outputs))
    return layer
