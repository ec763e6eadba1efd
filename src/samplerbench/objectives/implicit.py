"""O1: implicit score matching, with the exact divergence.

    L = E[∇·s(x) + ½‖s(x)‖²],   x ~ q.

By integration by parts, Fisher's divergence is ½·E‖s − ∇ log q‖² = L + ½·E‖∇ log q‖². So L needs no
score of the data, and its least value is −½·E‖∇ log q‖² (Hyvärinen, "Estimation of non-normalized
statistical models by score matching", JMLR 2005, Eq. 4). This holds if q vanishes at infinity and s
has a continuous Jacobian. The network of the notebook N1 (M2, with LeakyReLU) does not: its
gradient is biased, and it hardly learns. On a Gaussian, 300 steps of Adam at 1e-3 leave 95 % of
E‖∇ log q‖², but only 2 % with the smooth form of the network (`networks.layer_norm_mlp`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.derivatives import coordinates, score_and_form
from samplerbench.objectives.level_free import LevelFreeObjective


def implicit_loss(score: Callable[[Tensor], Tensor], x: Tensor, chunk: int = 1) -> Tensor:
    """The mean of ∇·s + ½‖s‖² over a batch, a scalar. Costs dim vector-Jacobian products.

    Args:
        score: x ↦ s, row by row.
        x: shape (n, dim).
        chunk: number of coordinates at a time.
    """
    unit = coordinates(x)
    s, divergence = score_and_form(score, x, unit, unit, chunk)
    return (divergence + 0.5 * s.square().sum(-1)).mean()


class Implicit(LevelFreeObjective):
    """Trains the score of the data's own law, without noise.

    Other arguments as in `LevelFreeObjective`.

    Args:
        chunk: number of coordinates at a time; 1 is the fastest on a CPU.
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
        chunk: int = 1,
    ) -> None:
        require(chunk >= 1, "chunk", chunk, "at least 1")
        super().__init__(
            network=network,
            recipe=recipe,
            mean=mean,
            std=std,
            train_seed=train_seed,
            standardise=standardise,
        )
        self.chunk = chunk

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        return implicit_loss(self.score, self.model.standardise(x0), self.chunk)
