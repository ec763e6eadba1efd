"""Weighted particles: several states of each sample, the population of sequential Monte Carlo.

Each sample has P particles of its own, which other samples do not use. So samples are independent,
a run of n samples is n independent populations, and each of them estimates the normalising
constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Particles:
    """States with weights."""

    # tensors of the particles, shape (P, *batch, …) each; the first are the positions
    states: tuple[Tensor, ...]
    log_weights: Tensor  # shape (P, *batch), float64; the weights of a sample add up to 1
    log_z: Tensor  # ln of the estimated normalising constant, shape (*batch,), float64

    @classmethod
    def equal(cls, *states: Tensor) -> Particles:
        """Particles with equal weights, and an estimate of 1."""
        zeros = states[0].new_zeros(states[0].shape[:-1], dtype=torch.float64)
        return cls(states, zeros.log_softmax(0), zeros[0])

    def reweighted(self, log_ratios: Tensor) -> Particles:
        """Multiply the weights by the exponentials of `log_ratios`, shape (P, *batch).

        The estimate of the constant is multiplied by their weighted mean.
        """
        log_weights = self.log_weights + log_ratios
        log_mean = log_weights.logsumexp(0)
        return replace(self, log_weights=log_weights - log_mean, log_z=self.log_z + log_mean)

    def resampled(self, below: float, uniform: Tensor) -> Particles:
        """Equal weights by systematic resampling where the effective share is below a bound.

        The share is 1/(P·Σ weight²).

        Args:
            below: the bound.
            uniform: a uniform number for each sample, shape (*batch,).
        """
        count = len(self.log_weights)
        weights = self.log_weights.exp()
        poor = 1 / weights.square().sum(0) < below * count
        places = torch.arange(count, device=weights.device)
        ends = weights.cumsum(0).movedim(0, -1).contiguous()
        at = (uniform.double().unsqueeze(-1) + places) / count * ends[..., -1:]
        chosen = torch.searchsorted(ends, at, right=True).movedim(-1, 0).clamp(max=count - 1)
        own = places.reshape(-1, *[1] * poor.ndim)
        equal = torch.zeros_like(weights).log_softmax(0)
        taken = self.taken(torch.where(poor, chosen, own))
        return replace(self, states=taken, log_weights=torch.where(poor, equal, self.log_weights))

    def drawn(self, uniform: Tensor) -> tuple[Tensor, ...]:
        """The states of one particle of each sample, drawn with the weights as probabilities.

        Args:
            uniform: a uniform number for each sample, shape (*batch,).
        """
        ends = self.log_weights.exp().cumsum(0)
        place = (ends <= uniform * ends[-1]).sum(0).clamp(max=len(ends) - 1)
        return tuple(state.squeeze(0) for state in self.taken(place.unsqueeze(0)))

    def taken(self, places: Tensor) -> tuple[Tensor, ...]:
        """The states of the particles with the indices `places`, shape (K, *batch)."""

        def rows(state: Tensor) -> Tensor:
            index = places.reshape(*places.shape, *[1] * (state.ndim - places.ndim))
            return state.gather(0, index.expand(*places.shape, *state.shape[places.ndim :]))

        return tuple(map(rows, self.states))
