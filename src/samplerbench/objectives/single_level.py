"""O3: denoising score matching at one noise level.

    L = E‖s(x₀ + υ·ε) + ε/υ‖²,   ε ~ N(0, I),

whose minimum is the score of the data with noise υ. Langevin samplers then sample from this noised
law, with covariance C + υ²·I instead of C (Vincent, "A connection between score matching and
denoising autoencoders", Neural Computation 2011, Eqs. 9 to 11). ε has one independent number for
each coordinate of each datum. The squared error is summed over the coordinates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.level_free import LevelFreeObjective


def single_level_loss(
    score: Callable[[Tensor], Tensor], u0: Tensor, eps: Tensor, noise: float
) -> Tensor:
    """The mean of ‖s(u₀ + υ·ε) + ε/υ‖² over a batch, a scalar.

    Args:
        score: u ↦ s, row by row.
        u0: clean data, shape (n, dim).
        eps: standard normal numbers, same shape.
        noise: υ, in the units of u₀.
    """
    return (score(u0 + noise * eps) + eps / noise).square().sum(-1).mean()


class SingleLevel(LevelFreeObjective):
    """Trains the score of the data with one level of noise.

    Other arguments as in `LevelFreeObjective`.

    Args:
        noise: υ > 0, in the units of the data.
        sum_over_batch: whether the loss is the sum over the batch, as in the notebook N0, so that a
            larger batch has a larger gradient; otherwise the mean.
    """

    def __init__(
        self,
        *,
        network: Network,
        recipe: Recipe,
        mean: Tensor,
        std: float,
        train_seed: int,
        standardise: bool = False,
        noise: float = 1.0,
        sum_over_batch: bool = False,
    ) -> None:
        require(0 < noise < float("inf"), "noise", noise, "positive")
        super().__init__(
            network=network,
            recipe=recipe,
            mean=mean,
            std=std,
            train_seed=train_seed,
            noise=noise,
            standardise=standardise,
        )
        self.standard_noise = self.model.standard_noise
        self.sum_over_batch = sum_over_batch

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        u0 = self.model.standardise(x0)
        # drawn on the CPU, then moved: the same numbers on every device
        eps = torch.randn(u0.shape, generator=generator, dtype=u0.dtype).to(u0)
        loss = single_level_loss(self.score, u0, eps, self.standard_noise)
        # all validation data count as one batch, so that both losses have the same scale
        return min(len(u0), self.recipe.batch_size) * loss if self.sum_over_batch else loss
