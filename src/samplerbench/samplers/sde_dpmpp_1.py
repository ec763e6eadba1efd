"""SDE-DPM-Solver++ of order 1: the exact solution of the reverse SDE for a constant x̂₀."""

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
class SDEDPMpp1(Sampler):
    """x_s = (σ_s/σ_t)·ρ^w·x_t + α_s·(1 − ρ^{1+w})·x̂₀ + σ_s·√(1 − ρ^{2w})·z,   ρ = κ_s/κ_t, κ = σ/α.

    The SDE has the marginals of the path, and its noise has w times the variance of the reverse
    SDE's. The step is exact if x̂₀ is constant; ρ = e^{−h} with h the step in λ = −ln κ. w = 0 is
    DDIM(0), and w = 1 is DDIM(1), ancestral sampling. For other w the family differs from DDIM(η):
    for small steps w corresponds to η = √w, see `core.eta`. Weak order 1; one evaluation per step.
    Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models",
    2022 (arXiv 2211.01095), Eq. 18 (w = 1); w is the `eta` of k-diffusion's `sample_dpmpp_2m_sde`.

    Args:
        stochasticity: w; 0 is deterministic.
    """

    order: ClassVar[int] = 1
    couples: ClassVar[bool] = True
    stochasticity: float = 1.0

    def __post_init__(self) -> None:
        allowed = "at least 0 and finite"
        require(0 <= self.stochasticity < math.inf, "stochasticity", self.stochasticity, allowed)

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(0.4), cls(0.0)]

    @property
    def stochastic(self) -> bool:
        return self.stochasticity > 0

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        for step, now, to in levels.pairs():
            kept, pull, fresh = coefficients(now, to, self.stochasticity)
            x0_hat = model.denoiser(x, now)
            x = kept * x + pull * x0_hat
            if fresh > 0:
                x = x + fresh * noise.normal(x, step)
            yield Step(x, x0_hat)


def coefficients(now: Level[float], to: Level[float], w: float) -> tuple[float, float, float]:
    """(k, p, ς) of the step x_s = k·x_t + p·x̂₀ + ς·z."""
    ratio = (to.sigma * now.alpha) / (now.sigma * to.alpha)
    kept, pull = to.sigma / now.sigma * ratio**w, to.alpha * (1 - ratio ** (1 + w))
    return kept, pull, to.sigma * math.sqrt(1 - ratio ** (2 * w))
