"""The floor of the states of Markov chains: distances of perfect samples with the same dependence.

n dependent states are worth fewer independent draws, and how many depends on the property of the
law. For an AR(1) process with correlation ρ, the mean has the autocorrelation time
τ = (1 + ρ)/(1 − ρ), the variance only (1 + ρ²)/(1 − ρ²). A distance contains all properties, so a
floor of n/τ independent draws is too high (by a factor of two, for ρ = .8).

Here the dependence is measured with the distance itself. n states are drawn from the chains in
blocks of consecutive states, and as single states. Both have the same law, the empirical law P_n of
the chains, so their distances to P_n differ only by the dependence within blocks (moving blocks:
Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics
17, 1989). Squares of Wasserstein distances add, and so

    F_r² = I_r² + c·B_r² − mean(S²),     r = 1, …, R,

with I_r the floor of n independent draws, B_r the distances of blocks to P_n, and S those of single
states. For other metrics the values add, without squares. A block has 3·τ states. There are two
errors: blocks lose the dependence between neighbouring blocks, and P_n is closer to the chains than
the law is. For an AR(1) process c = (1 + b/n)/(1 − (τ − 1/τ)/2b) corrects both to first order, with
b the length of a block.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.core.noise import generator
from samplerbench.metrics.base import Distance, Metric

#: The number of distances of single states, of which only the mean is used.
SINGLES = 10
#: The length of a block, in autocorrelation times.
TIMES = 3
#: The least number of blocks.
FEWEST_BLOCKS = 10


def floor_of_chains(
    frames: Tensor, ess: int, metric: Metric, independent: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Distances of perfect chains, shape (R,); see the module.

    Args:
        frames: the states, shape (draws, chains, dim).
        ess: the effective sample size of the mean.
        independent: distances of n independent draws, shape (R,).
    """
    draws, chains, _ = frames.shape
    n = draws * chains
    tau = max(1.0, n / ess)
    length = max(1, min(round(TIMES * tau), n // FEWEST_BLOCKS, draws))
    to_chains = metric.against(frames.flatten(0, 1), seed=seed)
    power = 2 if metric.is_wasserstein else 1

    def values(block: int, count: int, name: str) -> NDArray[np.float64]:
        random = generator("score", name, seed)
        return np.array([_resampled(to_chains, frames, block, random) for _ in range(count)])

    correction = (1 + length / n) / (1 - min(0.5, (tau - 1 / tau) / (2 * length)))
    blocks = values(length, len(independent), "blocks") ** power
    singles = values(1, SINGLES, "singles") ** power
    powers = independent**power + correction * blocks - singles.mean()
    distances: NDArray[np.float64] = np.sqrt(powers.clip(min=0)) if power == 2 else powers
    return distances


def _resampled(
    distance: Distance, frames: Tensor, length: int, random: np.random.Generator
) -> float:
    """The distance of n states, drawn in blocks of consecutive states of a chain."""
    draws, chains, _ = frames.shape
    count = -(-draws * chains // length)
    first = random.integers(0, draws - length + 1, count)
    at = torch.from_numpy(first[:, None] + np.arange(length))
    chain = torch.from_numpy(random.integers(0, chains, count))[:, None]
    return distance(frames[at, chain].flatten(0, 1)[: draws * chains]).value
