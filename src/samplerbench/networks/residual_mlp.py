"""M5, the default: a residual perceptron on Fourier features of the state and of the level.

    v   = c_in·u,   c_in = 1/√(α² + σ²)               of unit variance at every level
    e_k = k-th part of B·silu(A·[ℓ, sin(2π·f·ℓ + φ)]),   ℓ = ¼·ln κ
    h   = W·[sin(2π·F·v + φ), v] + e_0
    h   ← h + silu(W_k·h + e_k),   k = 1, …, blocks
    y   = V·h

F, f and φ are random and fixed; V starts at zero. κ is the bounded σ/α of `scale_and_log_ratio`.
Together with c_skip and c_out, which are `targets.EDMTarget`, this is the preconditioning of Karras
et al. 2022 (arXiv 2206.00364), Table 1, for data of unit standard deviation, on any path.

The features let a narrow network resolve many modes: Tancik et al., "Fourier features let networks
learn high frequency functions in low dimensional domains", NeurIPS 2020.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from samplerbench.core.grids import AnyLevel
from samplerbench.core.noise import torch_generator
from samplerbench.errors import require
from samplerbench.networks.base import (
    Network,
    as_input,
    lecun_linear,
    random_waves,
    scale_and_log_ratio,
)

LEVEL_FEATURES = 16
LEVEL_WIDTH = 32


class ResidualMLP(Network):
    """A residual perceptron with one matrix per block, so that sampling is cheap.

    If the level consists of floats, there is one small embedding per call for the whole batch; it
    is added to the biases of the blocks.

    Args:
        width: the width of the hidden layers.
        blocks: number of residual layers.
        features: number of sines of the state.
        frequency: standard deviation of the frequencies F, in cycles per standard deviation of v.
    """

    needs_level: ClassVar[bool] = True
    broadcasts: ClassVar[bool] = True
    frequencies: Tensor
    phases: Tensor
    level_frequencies: Tensor
    level_phases: Tensor

    def __init__(
        self,
        dim: int,
        seed: int,
        *,
        width: int = 96,
        blocks: int = 2,
        features: int = 64,
        frequency: float = 0.25,
    ) -> None:
        super().__init__()
        require(width >= 1, "width", width, "at least 1")
        require(blocks >= 0, "blocks", blocks, "at least 0")
        generator = torch_generator("network", seed)
        self.width = width
        self.features = features
        # the last dim rows are the identity: one product gives the sines' arguments and v itself
        waves, phases = random_waves(features, dim, frequency, generator)
        self.register_buffer("frequencies", torch.cat([waves, torch.eye(dim)]))
        self.register_buffer("phases", torch.cat([phases, torch.zeros(dim)]))
        level_waves, level_phases = random_waves(LEVEL_FEATURES, 1, 1.0, generator)
        self.register_buffer("level_frequencies", level_waves[:, 0])
        self.register_buffer("level_phases", level_phases)
        self.level_in = lecun_linear(1 + LEVEL_FEATURES, LEVEL_WIDTH, generator)
        self.level_out = lecun_linear(LEVEL_WIDTH, width * (1 + blocks), generator)
        self.first = lecun_linear(features + dim, width, generator)
        self.blocks = nn.ModuleList(lecun_linear(width, width, generator) for _ in range(blocks))
        self.last = lecun_linear(width, dim, generator)
        nn.init.zeros_(self.last.weight)

    def forward(self, u: Tensor, level: AnyLevel) -> Tensor:
        # in place if no gradient needs the input of the layer: this takes less time
        inplace = not torch.is_grad_enabled()
        scale, (first, *rest) = self._embed(level, u)
        waves = functional.linear(u * scale, self.frequencies, self.phases)
        waves[..., : self.features].sin_()
        h = _affine(self.first, waves, first)
        for block, shift in zip(self.blocks, rest, strict=True):
            step = functional.silu(_affine(block, h, shift), inplace)
            h = h.add_(step) if inplace else h + step
        y: Tensor = self.last(h)
        return y

    @torch.no_grad()
    def derivative(self, u: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """y and ∂y/∂u_i of states (n, dim), shapes (n, dim) and (dim, n, dim).

        The tangents of all i go through the same matrices as the states, dim rows per state.
        Activations and their derivatives are computed once.
        """
        (count, dim), sines = u.shape, self.features
        scale, (shift, *rest) = self._embed(level, u)
        waves = functional.linear(u * scale, self.frequencies, self.phases)
        slopes = waves[:, :sines].cos()
        waves[:, :sines].sin_()
        h = _affine(self.first, waves, shift)
        # W·diag(cos(F·v))·F; the products of entries of W and F are the same for all states
        weight = self.first.weight
        chained = self.frequencies[:sines].T[:, None] * weight[:, :sines]
        own = weight[:, sines:].T.reshape(-1)
        tangents = torch.addmm(own, slopes, chained.reshape(dim * self.width, sines).T)
        tangents = tangents.mul_(scale).reshape(count, dim, self.width)
        for block, shift in zip(self.blocks, rest, strict=True):
            assert isinstance(block, nn.Linear)
            step = _affine(block, h, shift)
            gate = step.sigmoid()
            value = step * gate
            slope = torch.addcmul(gate, value, 1 - gate)  # the derivative of silu
            moved = functional.linear(tangents, block.weight)
            tangents = tangents.addcmul_(moved, slope[:, None])
            h = h.add_(value)
        return self.last(h), functional.linear(tangents, self.last.weight).transpose(0, 1)

    def _embed(self, level: AnyLevel, u: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """c_in, and e_0, e_1, …: vectors for a level of floats, else one row for each sample."""
        scale, log_ratio = scale_and_log_ratio(level)
        quarter_log = as_input(0.125 * log_ratio, u)
        waves = torch.sin(torch.addcmul(self.level_phases, quarter_log, self.level_frequencies))
        embedding = functional.silu(self.level_in(torch.cat([quarter_log, waves], -1)))
        return as_input(scale, u), self.level_out(embedding).split(self.width, -1)


def _affine(layer: nn.Module, x: Tensor, shift: Tensor) -> Tensor:
    """The layer's output plus a shift: one vector for all rows, or one for each row."""
    assert isinstance(layer, nn.Linear)
    if shift.ndim == 1:
        return functional.linear(x, layer.weight, layer.bias + shift)
    return functional.linear(x, layer.weight, layer.bias) + shift
