"""What losses without a noise level share: a network of the state alone, and the score it learns.

The network sees u = (x − mean)/std and its output is the score of u's law, std·∇ log q(x). The
losses are those of u; in the units of the data they are smaller by std². The notebooks do not
standardise, and neither do these by default.
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
        network: what learns; one without a noise level.
        recipe: the optimiser's settings.
        mean: of the data, shape (dim,).
        std: of the data, one positive number.
        train_seed: of the random numbers in the loss.
        noise: υ, of the law that is learned, in the units of the data; 0 is the law of the data.
        standardise: whether the network sees (x − mean)/std, or x itself.
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
