"""What a network is: a function of a state and its noise level, with values in the same space.

    y = network(u, level),   u and y of shape (*batch, dim).

A network sees u = (x − α·mean)/std at the level (α, σ/std): the data have been standardised by
`models.Learned`, and u has variance α² + σ². What y means is the target's business, not the
network's. Parameters are initialised from a generator of the network's own, so building one neither
reads nor moves torch's global generator, and a seed gives the same weights wherever it is used.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from samplerbench.core.grids import AnyLevel
from samplerbench.errors import require

# standard deviation of a standard normal number that is drawn again until it lies in [−2, 2]
_TRUNCATED_STD = 0.87962566103423978


class Network(nn.Module, ABC):
    """A network with parameters to learn.

    Attributes:
        needs_level: whether the output depends on the level.
        packages: whose versions decide what it computes, besides those of every job.
    """

    needs_level: ClassVar[bool]
    packages: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        """The network's output y, shape (*batch, dim).

        Args:
            u: the state, float32, shape (*batch, dim).
            level: of Python floats, or of tensors of shape (*batch, 1).
        """


def random_waves(
    features: int, dim: int, frequency: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Ω and φ of the features sin(Ω·u + φ), drawn once: Ω normal, φ uniform.

    Args:
        features: how many.
        dim: of u.
        frequency: standard deviation of Ω/2π, in cycles per unit of u.
        generator: where they come from.

    Returns:
        Ω, shape (features, dim), and φ, shape (features,).
    """
    require(features >= 0, "features", features, "at least 0")
    require(0 < frequency < math.inf, "frequency", frequency, "positive")
    waves = 2 * math.pi * frequency * torch.randn(features, dim, generator=generator)
    return waves, 2 * math.pi * torch.rand(features, generator=generator)


def lecun_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with zero biases and truncated normal weights of variance 1/inputs.

    LeCun, Bottou, Orr, Müller, "Efficient backprop", 1998, Eq. 16, in the form that Flax gives it:
    normal numbers cut at two standard deviations and scaled back to the variance.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        generator: where the weights come from.
    """
    layer = _empty_linear(inputs, outputs)
    std = 1 / (math.sqrt(inputs) * _TRUNCATED_STD)
    nn.init.trunc_normal_(layer.weight, 0.0, std, -2 * std, 2 * std, generator)
    nn.init.zeros_(layer.bias)
    return layer


def uniform_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with weights and biases uniform between ±1/√inputs: PyTorch's default.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        generator: where weights and biases come from.
    """
    layer = _empty_linear(inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator)
    return layer


def _empty_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose parameters hold nothing yet: its own numbers would be global."""
    layer = nn.Linear(inputs, outputs, device="meta")
    # what `to_empty` does, which takes a second the first time: it imports SymPy
    layer.weight = nn.Parameter(torch.empty(outputs, inputs))
    layer.bias = nn.Parameter(torch.empty(outputs))
    return layer
