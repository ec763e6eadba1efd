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
from samplerbench.samplers.base import Step
from samplerbench.samplers.sde_dpmpp_1 import SDEDPMpp1, coefficients


@dataclass(frozen=True)
class SDEDPMpp2M(SDEDPMpp1):
    """`SDEDPMpp1` with D = x̂₀ + (h/2h')·(x̂₀ − x̂₀') in place of x̂₀.

    h = ln κ_t − ln κ_s; x̂₀' and h' are those of the previous step. D = x̂₀ in the first step, and
    after a level without signal, where h' is infinite. The last step is x̂₀. With w = 0 it is
    DPM-Solver++(2M). Weak order 2; one evaluation per step. Lu et al. 2022 (arXiv 2211.01095), Eq.
    19 and Appendix (w = 1); it is k-diffusion's `sample_dpmpp_2m_sde` with solver_type "midpoint",
    whose `eta` is w.
    """

    order: ClassVar[int] = 2

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(0.7), cls(0.0)]

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        before, h_before = x, math.inf
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                kept, pull, fresh = coefficients(now, to, self.stochasticity)
                ratio = (to.sigma * now.alpha) / (now.sigma * to.alpha)
                h = -math.log(ratio) if ratio > 0 else math.inf
                ahead = 0.0 if h_before == math.inf else h / (2 * h_before)
                x = kept * x + pull * ((1 + ahead) * x0_hat - ahead * before)
                if fresh > 0:
                    x = x + fresh * noise.normal(x, step)
                before, h_before = x0_hat, h
            yield Step(x, x0_hat)
