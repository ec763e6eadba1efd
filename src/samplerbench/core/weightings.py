"""Weightings: how much the squared error at a level counts.

The loss at a level is w(level)·‖y − ŷ‖², and what minimises it at that level is E[y | x] whatever
w > 0 is; w only trades one level against another while the network cannot be perfect at all. The
level is the one the network sees, where the data may have been standardised.

An error in y becomes one in x̂₀ by a factor that the target fixes: σ²/α for the score, σ/r with
r² = α² + σ² for EDM's target; an error in x̂₀ becomes one in ε by α/σ. So σ²·‖s − ŝ‖² weighs errors
in ε = −σ·s alike at all levels (Song and Ermon, "Generative modeling by estimating gradients of the
data distribution", NeurIPS 2019, Eq. 6), and w = 1 with EDM's target is the weight 1/c_out² on the
error of x̂₀ in Table 1 of Karras et al. 2022 (arXiv 2206.00364).

*Likelihood.* With weight g(t)² on the score's error and t uniform, half the loss and the prior's
mismatch bound the Kullback-Leibler divergence from the data to the samples of the reverse SDE:
Song, Durkan, Murray, Ermon, "Maximum likelihood training of score-based diffusion models", NeurIPS
2021, arXiv 2101.09258, Theorem 1. As g² = α²·dκ²/dt = 2·σ²·d ln κ/dt on every path, κ = σ/α,

    ∫ g²·‖s − ŝ‖² dt = 2·∫ σ²·‖s − ŝ‖² d ln κ = 2·∫ ‖ε − ε̂‖² d ln κ:

it weighs errors in ε alike where ln κ, not t, is uniform, whatever the clock is (their importance
sampling, up to a constant). So the likelihood's weight is a level law, `LogUniform`, and the weight
here that makes the target's error one of ε:

    target     noise   score   data      v         velocity       edm
    w          1       σ²      α²/σ²     α²/r⁴     α²/(α + σ)²    α²/r²
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from samplerbench.core.grids import AnyLevel


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


@dataclass(frozen=True)
class SignalShare(Weighting):
    """w = α²/(α² + σ²): with EDM's target the error of ε, and so with ln κ uniform the likelihood.

    On variance-exploding paths, in units of the data's standard deviation, it is 1/(1 + σ²).
    """

    def weight(self, level: AnyLevel) -> float | Tensor:
        square = level.alpha**2
        return square / (square + level.sigma**2)
