"""Targets: the quantity that a network is trained to predict, and how x̂₀ follows from it.

The input of the network is x = α·x₀ + σ·ε, with x₀ of order one (see `models.Learned`). It is
trained with the squared error to y = regress(x₀, ε), so the best output is E[y | x]. Given x, each
y is affine in x₀; therefore x̂₀ = E[x₀ | x] = denoise(x, E[y | x]). With r² = α² + σ²:

    target     y                      x̂₀
    data       x₀                     y
    noise      ε                      (x − σ·y)/α                 not at α = 0
    score      −ε/σ                   (x + σ²·y)/α                not at α = 0 or σ = 0
    v          α·ε − σ·x₀             (α·x − σ·y)/r²
    velocity   ε − x₀                 (x − σ·y)/(α + σ)
    edm        (σ·x₀ − α·ε)/r         (α/r²)·x + (σ/r)·y

`edm` is the preconditioning of Karras et al. 2022 (arXiv 2206.00364), Eq. 7, for data of unit
standard deviation on any schedule; it is −v/r, and on variance-preserving schedules r = 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from samplerbench.core.grids import AnyLevel, Levels


class Target(ABC):
    """The quantity that a network predicts. All tensors have shape (*batch, dim)."""

    def why_incompatible(self, levels: Levels) -> str | None:
        """Why x̂₀ is undefined at one of the levels, in one line; None if it is defined."""
        return None

    @abstractmethod
    def regress(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        """The target y for data x0 and noise eps."""

    @abstractmethod
    def denoise(self, x: Tensor, y: Tensor, level: AnyLevel) -> Tensor:
        """x̂₀ from the noisy x and the network's output y."""


@dataclass(frozen=True)
class DataTarget(Target):
    """y = x₀. Finite at every level."""

    def regress(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return x0

    def denoise(self, x: Tensor, y: Tensor, level: AnyLevel) -> Tensor:
        return y


@dataclass(frozen=True)
class NoiseTarget(Target):
    """y = ε (Ho et al., NeurIPS 2020, arXiv 2006.11239). x̂₀ is undefined at α = 0."""

    def why_incompatible(self, levels: Levels) -> str | None:
        return _needs_signal(self, levels)

    def regress(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return eps

    def denoise(self, x: Tensor, y: Tensor, level: AnyLevel) -> Tensor:
        return (x - level.sigma * y) / level.alpha


@dataclass(frozen=True)
class ScoreTarget(Target):
    """y = −ε/σ, the score of the noising kernel.

    Vincent, "A connection between score matching and denoising autoencoders", Neural Computation
    2011. x̂₀ is undefined at α = 0, and y at σ = 0.
    """

    def why_incompatible(self, levels: Levels) -> str | None:
        return _needs_signal(self, levels)

    def regress(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return -eps / level.sigma

    def denoise(self, x: Tensor, y: Tensor, level: AnyLevel) -> Tensor:
        return (x + level.sigma**2 * y) / level.alpha


@dataclass(frozen=True)
class VTarget(Target):
    """y = α·ε − σ·x₀ (Salimans and Ho, "Progressive distillation", ICLR 2022, arXiv 2202.00512)."""

    def regress(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return level.alpha * eps - level.sigma * x0

    def denoise(self, x: Tensor, y: Tensor, level: AnyLevel) -> Tensor:
        return (level.alpha * x - level.sigma * y) / (level.alpha**2 + level.sigma**2)


@dataclass(frozen=True)
class VelocityTarget(Target):
    """y = ε − x₀, which is dx/dt on the rectified path.

    Lipman et al., ICLR 2023 (arXiv 2210.02747), with the opposite direction of time.
    """

    def regress(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return eps - x0

    def denoise(self, x: Tensor, y: Tensor, level: AnyLevel) -> Tensor:
        return (x - level.sigma * y) / (level.alpha + level.sigma)


@dataclass(frozen=True)
class EDMTarget(Target):
    """y = (σ·x₀ − α·ε)/√(α² + σ²), which has unit variance at every level.

    Karras et al. 2022 (arXiv 2206.00364), Eq. 7.
    """

    def regress(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return (level.sigma * x0 - level.alpha * eps) / (level.alpha**2 + level.sigma**2) ** 0.5

    def denoise(self, x: Tensor, y: Tensor, level: AnyLevel) -> Tensor:
        square = level.alpha**2 + level.sigma**2
        return (level.alpha / square) * x + (level.sigma / square**0.5) * y


def _needs_signal(target: Target, levels: Levels) -> str | None:
    if (levels.alpha > 0).all():
        return None
    return (
        f"{type(target).__name__} is undefined where no signal is left, α = 0: use target=v or "
        "target=edm"
    )
