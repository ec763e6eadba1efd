"""DDIM(η): deterministic for η = 0, ancestral sampling for η = 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step


@dataclass(frozen=True)
class DDIM(Sampler):
    """x_s = α_s·x̂₀ + √(σ_s² − ς²)·ε̂ + ς·z,   ς = η·(σ_s/σ_t)·√(σ_t² − (α_t/α_s)²·σ_s²).

    ε̂ = (x − α_t·x̂₀)/σ_t, z ~ N(0, I), and ς is clipped to [0, σ_s]. With η = 1 the step draws from
    the law of x_s given x_t and x₀ = x̂₀, by Bayes' rule. Order 1; one evaluation per step. Song,
    Meng, Ermon, "Denoising diffusion implicit models", ICLR 2021 (arXiv 2010.02502), Eqs. 12 and
    16. As in the paper, η multiplies the standard deviation of the fresh noise.

    Args:
        eta: 0 is deterministic, 1 is ancestral; larger values are allowed.
    """

    order: ClassVar[int] = 1
    couples: ClassVar[bool] = True
    eta: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.eta < math.inf, "eta", self.eta, "at least 0 and finite")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(eta) for eta in (0.0, 0.3, 1.0)]

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        for step, now, to in levels.pairs():
            kept, pull, fresh = coefficients(now, to, self.eta)
            x0_hat = model.denoiser(x, now)
            x = kept * x + pull * x0_hat
            if fresh > 0:
                x = x + fresh * noise.normal(x, step)
            yield Step(x, x0_hat)


def coefficients(now: Level[float], to: Level[float], eta: float) -> tuple[float, float, float]:
    """(k, p, ς) of DDIM's step x_s = k·x_t + p·x̂₀ + ς·z."""
    bridge = max(now.sigma**2 - (now.alpha / to.alpha * to.sigma) ** 2, 0.0) ** 0.5
    fresh = min(eta * (to.sigma / now.sigma) * bridge, to.sigma)
    kept = (to.sigma**2 - fresh**2) ** 0.5 / now.sigma
    return kept, to.alpha - kept * now.alpha, fresh
