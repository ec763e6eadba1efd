"""DDPM with the optimal covariance: that of x_s given x_t, instead of given x_t and x₀ = x̂₀."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser, Score
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.ddim import coefficients

#: The choices of the covariance.
COVARIANCES = ("full", "diagonal")


@dataclass(frozen=True)
class DDPMOptimal(Sampler):
    """x_s ~ N(k·x_t + p·x̂₀, ς²·I + p²·C),   C = Cov[x₀ | x_t] = (σ²/α)·∂x̂₀/∂x.

    k, p and ς are those of DDIM(1), which draws from the law of x_s given x_t and x₀ = x̂₀; the law
    given x_t alone also has the spread of x₀. Among Gaussian steps this one minimises the KL
    divergence of the reverse transitions. Only exact denoisers have C; the derivative of a network
    is not a covariance. With `diagonal` only the diagonal of C is used. The last step is x̂₀.

    Weak order 2 with the full covariance, and no error on Gaussian data. With the diagonal it is 1,
    as for DDIM(1), if coordinates are correlated. 2N − 1 evaluations: one of x̂₀ per step, and one
    of the derivative, which costs a network dim passes. Bao, Li, Zhu, Zhang, "Analytic-DPM: an
    analytic estimate of the optimal reverse variance in diffusion probabilistic models", ICLR 2022
    (arXiv 2201.06503), Theorem 1; Ou et al., "Improving probabilistic diffusion models with optimal
    diagonal covariance matching", ICLR 2025 (arXiv 2406.10808), Eq. 7.

    Args:
        covariance: full or diagonal.
    """

    stochastic: ClassVar[bool] = True
    needs_signal: ClassVar[bool] = True
    covariance: str = "full"

    def __post_init__(self) -> None:
        allowed = " or ".join(COVARIANCES)
        require(self.covariance in COVARIANCES, "covariance", self.covariance, allowed)

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls("diagonal")]

    @property
    def order(self) -> int:
        return 2 if self.covariance == "full" else 1

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def plain_evaluations(self, steps: int) -> int:
        return 2 * steps

    def why_incompatible(self, model: Score, levels: Levels) -> str | None:
        reason = super().why_incompatible(model, levels)
        if reason is None and not (isinstance(model, Denoiser) and model.has_covariance):
            return (
                "DDPMOptimal needs the covariance of x₀ given x_t, which only exact denoisers "
                "have: use denoiser=oracle, or sampler=ddpm_large"
            )
        return reason

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        for step, now, to in levels.pairs():
            kept, pull, fresh = coefficients(now, to, 1.0)
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                _, slope = model.derivative(x.detach().reshape(-1, x.shape[-1]), now)
                covariance = (now.sigma**2 / now.alpha) * slope.reshape(*x.shape, -1).double()
                z = noise.normal(x, step).double()
                if self.covariance == "diagonal":
                    variance = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0.0)
                    draw = (fresh**2 + pull**2 * variance).sqrt() * z
                else:
                    draw = _gaussian(pull**2 * covariance, fresh**2, z)
                x = kept * x + pull * x0_hat + draw.to(x)
            yield Step(x, x0_hat)


def _gaussian(covariance: Tensor, variance: float, z: Tensor) -> Tensor:
    """L·z with L·Lᵀ = covariance + variance·I; z has shape (*batch, dim)."""
    own = 0.5 * (covariance + covariance.mT)
    own.diagonal(dim1=-2, dim2=-1).add_(variance)
    eigenvalues, basis = torch.linalg.eigh(own)
    rotated = (basis.mT @ z.unsqueeze(-1)).squeeze(-1)
    scaled = eigenvalues.clamp(min=0.0).sqrt() * rotated
    draw: Tensor = (basis @ scaled.unsqueeze(-1)).squeeze(-1)
    return draw
