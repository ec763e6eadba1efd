"""Weightings: how much the squared error at a level counts.

The loss at a level is w(level)·‖y − ŷ‖², and what minimises it at that level is E[y | x] whatever
w > 0 is; w only trades one level against another while the network cannot be perfect at all. The
level is the one the network sees, where the data may have been standardised.

An error in y becomes one in x̂₀ by a factor that the target fixes: σ²/α for the score, σ/r with
r² = α² + σ² for EDM's target. So σ²·‖s − ŝ‖² weighs errors in ε = −σ·s alike at all levels (Song
and Ermon, "Generative modeling by estimating gradients of the data distribution", NeurIPS 2019,
Eq. 6), and w = 1 with EDM's target is the weight 1/c_out² on the error of x̂₀ in Table 1 of Karras
et al. 2022 (arXiv 2206.00364).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from samplerbench.grids import AnyLevel


class Weighting(ABC):
    """The weight of a level. Members are frozen dataclasses."""

    @abstractmethod
    def weight(self, level: AnyLevel) -> float | Tensor:
        """w(level): one number, or one for each sample, shape (*batch, 1)."""


@dataclass(frozen=True)
class Uniform(Weighting):
    """w = 1."""

    def weight(self, level: AnyLevel) -> float | Tensor:
        return 1.0


@dataclass(frozen=True)
class Variance(Weighting):
    """w = σ², NCSN's weight of the score's error."""

    def weight(self, level: AnyLevel) -> float | Tensor:
        return level.sigma**2
