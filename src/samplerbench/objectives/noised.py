"""Base of the losses at many noise levels: they draw levels and noise, and train a denoiser.

A batch of standardised data u₀ is copied `levels_per_datum` times. Each copy gets its own noise ε
and a level from the level law, which `data_per_level` copies share (see `base.Recipe`). The loss is
a function of (u₀, ε, level).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel, Level
from samplerbench.core.level_laws import LevelLaw
from samplerbench.core.models import Learned
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.targets import Target
from samplerbench.core.weightings import Weighting
from samplerbench.errors import require
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective, Recipe
from samplerbench.objectives.posterior import posterior_means


class NoisedObjective(Objective[Learned]):
    """Trains a `Learned` denoiser on x_t = α·x₀ + σ·ε.

    Args:
        network: a network with a noise level.
        target: the meaning of the network's output.
        schedule: the path, in the units of the data.
        level_law: the law of the levels in training.
        weighting: the weighting of the levels in the loss.
        recipe: the optimiser's settings.
        mean: the mean of the data, shape (dim,).
        std: the standard deviation of the data, a positive number.
        train_seed: the seed of noise and levels.
        standardise: whether the network gets (x − mean)/std, or x itself.
        levels_per_datum: number of noised copies of each datum in a batch.

    Attributes:
        averages: whether the loss is quadratic or linear in the target. Then means may replace u₀
            and ε, with the same expected gradient: the recipe's `data_per_target`, see `posterior`.
    """

    averages: ClassVar[bool] = False

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
        self.require_network(network)
        require(levels_per_datum >= 1, "levels_per_datum", levels_per_datum, "at least 1")
        if not standardise:
            mean, std = torch.zeros_like(mean), 1.0
        trained_noise = level_law.largest(schedule)
        model = Learned(network, target, schedule, mean, std, trained_noise)
        super().__init__(model, recipe, train_seed)
        self.level_law = level_law
        self.weighting = weighting
        self.levels_per_datum = levels_per_datum

    @abstractmethod
    def noised_loss(self, u0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        """The loss, a scalar.

        Args:
            u0: clean, standardised data, shape (*batch, dim).
            eps: standard normal numbers, same shape.
            level: the level of the network's input, with tensors of shape (*batch, 1), or with
                fewer rows for a network that `broadcasts`.
        """

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        u0 = self.model.standardise(x0)
        if self.levels_per_datum > 1:  # `tile` by 1 would copy
            u0 = u0.tile(self.levels_per_datum, 1)
        shared = self.recipe.data_per_level
        if len(u0) % shared > 0:
            shared = 1
        groups = len(u0) // shared
        # drawn on the CPU, then moved: the same numbers on every device
        eps = torch.randn(u0.shape, generator=generator, dtype=u0.dtype)
        t = self.level_law.sample(groups, self.model.schedule, generator).unsqueeze(-1)
        if shared > 1:
            u0, eps, t = u0.view(groups, shared, -1), eps.view(groups, shared, -1), t.unsqueeze(-1)
            if not getattr(self.model.network, "broadcasts", False):
                t = t.expand(groups, shared, 1)
        alpha, sigma = self.model.schedule(t)
        level = self.model.standard_level(Level(t.to(u0), alpha.to(u0), sigma.to(u0)))
        eps = eps.to(u0)
        if self.averages and self.recipe.data_per_target > 1:
            u0, eps = posterior_means(u0, eps, level, self.recipe.data_per_target)
        return self.noised_loss(u0, eps, level)
