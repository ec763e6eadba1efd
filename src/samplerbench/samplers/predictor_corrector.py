"""Predictor–corrector sampling: a step down, then Langevin steps at the level it came to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """A step of DDIM(1) to level s, then `inner` times   x ← x + h·s(x) + √(2h)·z,   h = 2(r·σ_s)².

    With the score (α·x̂₀ − x)/σ² that is x + 2r²·(α·x̂₀ − x) + 2rσ·z: a share 2r² of the way to the
    mean, the same at every level. The paper has h = 2(r·‖z‖/‖s‖)² with norms averaged over the
    batch, which makes a sample depend on its neighbours. Here the norms are their root mean squares
    where the noise decides, ‖z‖ = √d and ‖s‖ = √d/σ; for many dimensions that is what the paper's
    come to. With `own_norms` they are those of the sample itself: as independent, but in few
    dimensions a poor method, for where s is small it jumps far, and a kick ∝ ‖z‖·z has 1 + 2/d
    times the variance that the drift is made for. On data N(0, I), 80 steps from σ = 10 to .02, the
    variance that comes out is 4·10⁴, 12, 1.28 in 1, 2, 16 dimensions; .94 by default.

    With `probability_flow` the predictor is DDIM(0) instead, the flow's own first-order step, and
    all noise is the corrector's. The paper's (Appendix D.3) is x + ½(σ_t² − σ_s²)·s on VE paths,
    another discretisation of the same flow: they differ by O(h²), and where levels are far apart it
    leaves at least half of the noise for the corrector, DDIM(0) the share σ_s/σ_t.

    No corrector at the data: the last step is x̂₀. N + inner·(N − 1) evaluations. As the steps grow
    in number the law comes to that of ULA at each level, S·(I − ½h·S⁻¹)⁻¹ for S on a Gaussian: off
    by a share r² of the last level's noise before it is denoised. Song et al. 2021 (arXiv
    2011.13456), Algorithms 2 to 5; the factor α_i that h has there on VP paths is left out, so that
    the method is the same for x/α on every path.

    Args:
        signal_to_noise: r; .16 in the paper for VE paths.
        inner: Langevin steps per level; none leaves the predictor.
        own_norms: whether the norms in h are the sample's own.
        probability_flow: whether the predictor is DDIM(0) and not DDIM(1), ancestral sampling.
    """

    order: ClassVar[int | None] = None
    signal_to_noise: float = 0.16
    inner: int = 1
    own_norms: bool = False
    probability_flow: bool = False

    def __post_init__(self) -> None:
        allowed = "positive and finite"
        name, value = "signal_to_noise", self.signal_to_noise
        require(0 < value < math.inf, name, value, allowed)
        require(self.inner >= 0, "inner", self.inner, "at least 0")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(0.1, inner=2), cls(own_norms=True), cls(probability_flow=True)]

    @property
    def stochastic(self) -> bool:
        return self.inner > 0 or not self.probability_flow

    @property
    def affine(self) -> bool:
        return not self.own_norms

    def evaluations(self, steps: int) -> int:
        return steps + self.inner * (steps - 1)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        share: float | Tensor = 2 * self.signal_to_noise**2
        for step, now, to in levels.pairs():
            fresh = 0.0
            if not self.probability_flow:
                lost = max(now.sigma**2 - (now.alpha / to.alpha * to.sigma) ** 2, 0.0)
                fresh = to.sigma / now.sigma * lost**0.5
            kept = (to.sigma**2 - fresh**2) ** 0.5 / now.sigma
            x0_hat = model.denoiser(x, now)
            x = kept * x + (to.alpha - kept * now.alpha) * x0_hat
            if to.sigma > 0:
                if fresh > 0:
                    x = x + fresh * noise.normal(x, step)
                for draw in range(1, self.inner + 1):
                    x0_hat, z = model.denoiser(x, to), noise.normal(x, step, draw)
                    pull = to.alpha * x0_hat - x  # σ²·s
                    if self.own_norms:
                        ratio = to.sigma * _norm(z) / _norm(pull)  # ‖z‖/(σ·‖s‖)
                        share = 2 * (self.signal_to_noise * ratio) ** 2
                    x = x + share * pull + (to.sigma * (2 * share) ** 0.5) * z
            yield Step(x, x0_hat)


def _norm(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True).sqrt()
