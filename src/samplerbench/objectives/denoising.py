"""Denoising score matching in all its parametrisations.

    L = E w(level)·‖y(x₀, ε, level) − network(u, level)‖²,   u = α·x₀ + σ·ε,   ε ~ N(0, I),

x₀ a standardised datum, the level drawn from its law, y from `targets`. At each level the minimum
is E[y | u], which gives the score of the noised law whatever y is (Vincent, "A connection between
score matching and denoising autoencoders", Neural Computation 2011). Members differ by config only:

    NCSN   score target, w = σ²         Song and Ermon, NeurIPS 2019
    EDM    EDM's target, w = 1          Karras et al., NeurIPS 2022, arXiv 2206.00364

The squared error is summed over the coordinates and averaged over the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.grids import AnyLevel, Level
from samplerbench.level_laws import LevelLaw
from samplerbench.models import Learned
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective, Recipe
from samplerbench.schedules import NoiseSchedule
from samplerbench.targets import Target
from samplerbench.weightings import Weighting


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
        target: what y is.
        weighting: w.
        u0: clean data as the network knows them, shape (*batch, dim).
        eps: standard normal numbers, same shape.
        level: as the network sees it, of tensors of shape (*batch, 1).
    """
    u = level.alpha * u0 + level.sigma * eps
    error = target.regress(u0, eps, level) - network(u, level)
    loss: Tensor = (weighting.weight(level) * error.square()).sum(-1).mean()
    return loss


class Denoising(Objective[Learned]):
    """Trains a `Learned` denoiser on x_t = α·x₀ + σ·ε.

    Args:
        network: what learns.
        target: what it regresses.
        schedule: the path, in the units of the data.
        level_law: of the levels in training.
        weighting: of the levels in the loss.
        recipe: the optimiser's settings.
        mean: of the data, shape (dim,).
        std: of the data, one positive number.
        train_seed: of noise and levels.
        standardise: whether the network sees (x − mean)/std, or x itself.
        levels_per_datum: how many noised copies of each datum are in a batch.
    """

    def __init__(
        self,
        *,
        network: Network,
        target: Target,
        schedule: NoiseSchedule,
        level_law: LevelLaw,
        weighting: Weighting,
        recipe: Recipe,
        mean: Tensor,
        std: float,
        train_seed: int,
        standardise: bool = True,
        levels_per_datum: int = 1,
    ) -> None:
        require(levels_per_datum >= 1, "levels_per_datum", levels_per_datum, "at least 1")
        if not standardise:
            mean, std = torch.zeros_like(mean), 1.0
        super().__init__(Learned(network, target, schedule, mean, std), recipe, train_seed)
        self.level_law = level_law
        self.weighting = weighting
        self.levels_per_datum = levels_per_datum

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        u0 = self.model.standardise(x0).tile(self.levels_per_datum, 1)
        # drawn on the CPU and then moved: the same numbers on every device
        eps = torch.randn(u0.shape, generator=generator, dtype=u0.dtype)
        t = self.level_law.sample(len(u0), self.model.schedule, generator).unsqueeze(-1)
        alpha, sigma = self.model.schedule(t)
        level = Level(t.to(u0), alpha.to(u0), sigma.to(u0))
        return denoising_loss(
            self.model.network,
            self.model.target,
            self.weighting,
            u0,
            eps.to(u0),
            self.model.standard_level(level),
        )
