"""Weightings: the weight of the squared error at a level.

The loss at a level is w(level)·‖y − ŷ‖². For every w > 0 its minimum at that level is at E[y | x];
w balances the levels against each other, since a network is not perfect at all of them. The level
here is the level of the network's input, which may come from standardised data.

An error in y is multiplied by a factor to give the error in x̂₀: σ²/α for the score target, and σ/r
with r² = α² + σ² for EDM's target. An error in x̂₀ times α/σ is the error in ε. So
σ²·‖s − ŝ‖² gives errors in ε = −σ·s the same weight at all levels (Song and Ermon, "Generative
modeling by estimating gradients of the data distribution", NeurIPS 2019, Eq. 6), and w = 1 with
EDM's target is the weight 1/c_out² of the error in x̂₀ in Table 1 of Karras et al. 2022 (arXiv
2206.00364).

*Likelihood.* With weight g(t)² on the score's error and t uniform, half the loss and the prior's
mismatch bound the Kullback-Leibler divergence from the data to the samples of the reverse SDE:
Song, Durkan, Murray, Ermon, "Maximum likelihood training of score-based diffusion models", NeurIPS
2021, arXiv 2101.09258, Theorem 1. As g² = α²·dκ²/dt = 2·σ²·d ln κ/dt on every path, κ = σ/α,

    ∫ g²·‖s − ŝ‖² dt = 2·∫ σ²·‖s − ŝ‖² d ln κ = 2·∫ ‖ε − ε̂‖² d ln κ:

errors in ε have equal weights if ln κ is uniform, for every choice of the time (their importance
sampling, up to a constant). So training for the likelihood combines the level law `LogUniform` with
the weight that turns the error in the target into the error in ε:

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
    """w = σ²: NCSN's weight, for the score target."""

    def weight(self, level: AnyLevel) -> float | Tensor:
        return level.sigma**2


@dataclass(frozen=True)
class SignalShare(Weighting):
    """w = α²/(α² + σ²): with EDM's target the loss is the error in ε.

    With ln κ uniform that is the likelihood's loss. On variance-exploding paths, in units of the
    data's standard deviation, w = 1/(1 + σ²).
    """

    def weight(self, level: AnyLevel) -> float | Tensor:
        square = level.alpha**2
        return square / (square + level.sigma**2)
