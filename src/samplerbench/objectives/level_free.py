"""Base of the losses without a noise level: the only input of their network is the state.

The network gets u = (x − mean)/std, and its output is the score of the law of u, std·∇ log q(x).
The losses are in the units of u; in the units of the data they would be std² times smaller. By
default the data are not standardised, as in the notebooks.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.core.models import LevelFree
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective, Recipe


class LevelFreeObjective(Objective[LevelFree]):
    """Trains the score of one law.

    Args:
        network: a network without a noise level.
        recipe: the optimiser's settings.
        mean: the mean of the data, shape (dim,).
        std: the standard deviation of the data, a positive number.
        train_seed: the seed of the random numbers in the loss.
        noise: υ, the noise of the law to learn, in the units of the data; 0: the law of the data.
        standardise: whether the network gets (x − mean)/std, or x itself.
    """

    conditional: ClassVar[bool] = False

    def __init__(
        self,
        *,
        network: Network,
        recipe: Recipe,
        mean: Tensor,
        std: float,
        train_seed: int,
        noise: float = 0.0,
        standardise: bool = False,
    ) -> None:
        self.require_network(network)
        if not standardise:
            mean, std = torch.zeros_like(mean), 1.0
        super().__init__(LevelFree(network, noise, mean, std), recipe, train_seed)

    def score(self, u: Tensor) -> Tensor:
        """The network's score of standardised data, shape (*batch, dim)."""
        output: Tensor = self.model.network(u, self.model.level)
        return output
