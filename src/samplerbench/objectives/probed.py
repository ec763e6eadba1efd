"""Base of the implicit losses with random probes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.derivatives import draw_probes
from samplerbench.objectives.level_free import LevelFreeObjective


class ProbedObjective(LevelFreeObjective):
    """Trains the score of the data's own law by a loss with probes v of covariance I.

    Other arguments as in `LevelFreeObjective`.

    Args:
        probes: number of probes per datum; more than dim probes cost as much as dim.
        gaussian: whether probes are standard normal; otherwise Rademacher, independent signs.
        chunk: number of products with the Jacobian at a time; 1 is the fastest on a CPU.
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
        probes: int = 1,
        gaussian: bool = False,
        chunk: int = 1,
    ) -> None:
        require(probes >= 1, "probes", probes, "at least 1")
        require(chunk >= 1, "chunk", chunk, "at least 1")
        super().__init__(
            network=network,
            recipe=recipe,
            mean=mean,
            std=std,
            train_seed=train_seed,
            standardise=standardise,
        )
        self.probes = probes
        self.gaussian = gaussian
        self.chunk = chunk

    @abstractmethod
    def probed_loss(self, u: Tensor, probes: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            u: standardised data, shape (n, dim).
            probes: v, shape (k, n, dim).
        """

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        u = self.model.standardise(x0)
        return self.probed_loss(u, draw_probes(u, self.probes, self.gaussian, generator))
