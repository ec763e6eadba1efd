"""Starts: the law of a sampler's first state.

The path says that the first state, at the first level used, has the law of α·x₀ + σ·ε. The *exact*
start draws just that, from fresh draws of the data's law. Practice cannot, and draws from the
*prior* N(0, σ²·I) as if no signal were left: the difference is the prior mismatch, which the error
budget shows on its own. All starts use the same ε for the same key, so their difference is paired.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.grids import Level
from samplerbench.noise import generator


class Start(ABC):
    """The law of the first state. Members are frozen dataclasses."""

    @abstractmethod
    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        """The first state from a fresh draw of the data and standard normal noise.

        Args:
            x0: shape (n, dim), float64; ignored by starts that do not know the data.
            eps: shape (n, dim), float64.
            level: the first level the sampler uses.
        """

    def draw(
        self, dataset: Dataset, count: int, level: Level[float], key: tuple[int | str, ...]
    ) -> Tensor:
        """The first states of a block, shape (count, dim), float64.

        Args:
            dataset: the law that x₀ is drawn from.
            count: the block's size.
            level: the first level the sampler uses.
            key: (seed, repetition, block): what the draw depends on.
        """
        eps = generator("start", *key, "eps").standard_normal((count, dataset.dim))
        x0 = dataset.sample(count, generator("start", *key, "x0"))
        return self.combine(x0, torch.from_numpy(eps), level)


@dataclass(frozen=True)
class Prior(Start):
    """N(0, σ²·I), σ the first level's: what practice does. N(0, I) on variance-preserving paths."""

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return level.sigma * eps


@dataclass(frozen=True)
class Exact(Start):
    """α·x₀ + σ·ε with fresh x₀: the law the path really has at its first level."""

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return level.alpha * x0 + level.sigma * eps


@dataclass(frozen=True)
class FixedGaussian(Start):
    """N(mean, std²·I) with given numbers, the same for every coordinate, in the data's units."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean), "mean", self.mean, "finite")
        require(0 < self.std < math.inf, "std", self.std, "positive")

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return self.mean + self.std * eps
