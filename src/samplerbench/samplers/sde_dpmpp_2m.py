"""SDE-DPM-Solver++(2M): the reverse SDE with x̂₀ extrapolated from the last two steps."""

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
class SDEDPMpp2M(Sampler):
    """`SDEDPMpp1` with D = x̂₀ + (h/2h')·(x̂₀ − x̂₀') for x̂₀, x̂₀' and h' those of the step before.

    h = ln κ_t − ln κ_s. The first step, and the one after a first level without signal where h' is
    infinite, have D = x̂₀; the last step is x̂₀ itself. With w = 0 it is DPM-Solver++(2M). One
    evaluation per step. Lu et al. 2022 (arXiv 2211.01095), Eq. 19 and Appendix (w = 1); w is the
    `eta` of k-diffusion's `sample_dpmpp_2m_sde`, whose solver_type "midpoint" this is.

    Args:
        stochasticity: w, the variance of the noise relative to the reverse SDE's; 0 is
            deterministic.
    """

    order: ClassVar[int | None] = 2
    couples: ClassVar[bool] = True
    stochasticity: float = 1.0

    def __post_init__(self) -> None:
        allowed = "at least 0 and finite"
        require(0 <= self.stochasticity < math.inf, "stochasticity", self.stochasticity, allowed)

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(0.7), cls(0.0)]

    @property
    def stochastic(self) -> bool:
        return self.stochasticity > 0

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        w, before, h_before = self.stochasticity, x, math.inf
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                ratio = (to.sigma * now.alpha) / (now.sigma * to.alpha)
                h = -math.log(ratio) if ratio > 0 else math.inf
                kept, pull = to.sigma / now.sigma * ratio**w, to.alpha * (1 - ratio ** (1 + w))
                fresh = to.sigma * math.sqrt(1 - ratio ** (2 * w))
                ahead = 0.0 if h_before == math.inf else h / (2 * h_before)
                x = kept * x + pull * ((1 + ahead) * x0_hat - ahead * before)
                if fresh > 0:
                    x = x + fresh * noise.normal(x, step)
                before, h_before = x0_hat, h
            yield Step(x, x0_hat)
