"""Denoising score matching in all parametrisations.

    L = E w(level)·‖y(x₀, ε, level) − network(u, level)‖²,   u = α·x₀ + σ·ε,   ε ~ N(0, I),

with a standardised datum x₀, a level from its law, and y from `targets`. At each level the minimum
is E[y | u], which gives the score of the noised law for every target (Vincent, "A connection
between score matching and denoising autoencoders", Neural Computation 2011, Eq. 11). Members differ
only in their config: in y, w and the law of the level:

    ncsn           score, σ², ln κ normal       Song and Ermon, NeurIPS 2019, Eq. 6
    edm            EDM's, 1, ln κ normal        Karras et al., NeurIPS 2022, arXiv 2206.00364, Eq. 8
    vp_noise       ε, 1, t uniform on VP        Ho, Jain, Abbeel, NeurIPS 2020, Eq. 14
    v_prediction   v, 1, t uniform on VP        Salimans and Ho, ICLR 2022, Section 4
    flow_matching  ε − x₀, 1, t uniform         Lipman et al., ICLR 2023, Eq. 23
    likelihood     EDM's, α²/r², ln κ uniform   Song et al., NeurIPS 2021, arXiv 2101.09258, Thm. 1

The squared error is summed over the coordinates and averaged over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import AnyLevel
from samplerbench.core.targets import Target
from samplerbench.core.weightings import Weighting
from samplerbench.objectives.noised import NoisedObjective


def denoising_loss(
    network: Callable[[Tensor, AnyLevel], Tensor],
    target: Target,
    weighting: Weighting,
    u0: Tensor,
    eps: Tensor,
    level: AnyLevel,
) -> Tensor:
    """The mean of w(level)·‖y − network(u, level)‖² over a batch, a scalar.

    Args:
        network: (u, level) ↦ ŷ.
        target: gives y.
        weighting: w.
        u0: clean, standardised data, shape (*batch, dim).
        eps: standard normal numbers, same shape.
        level: the level of the network's input, with tensors of shape (*batch, 1).
    """
    u = level.alpha * u0 + level.sigma * eps
    error = target.regress(u0, eps, level) - network(u, level)
    loss: Tensor = (weighting.weight(level) * error.square()).sum(-1).mean()
    return loss


class Denoising(NoisedObjective):
    """Trains a `Learned` denoiser by regression on the target; settings as in `NoisedObjective`."""

    averages: ClassVar[bool] = True

    def noised_loss(self, u0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        model = self.model
        return denoising_loss(model.network, model.target, self.weighting, u0, eps, level)
