"""Annealed Langevin dynamics: a few Langevin steps at each level, with decreasing noise."""

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
class AnnealedLangevin(Sampler):
    """`inner` times at each level i:   x ← x + h_i·s(x, σ_i) + √(2h_i)·z,   h_i = h·(σ_i/κ_min)².

    κ_min is the last σ/α before the data. With r = h/κ_min² that is

        x ← x + r·(α·x̂₀ − x) + σ·√(2r)·z:

    every step goes the share r of the way to the mean. At levels above the width of the data the
    chain diverges unless r < 2. Between levels x is rescaled, x ← (α_s/α_t)·x. So the algorithm
    for x/α, with the levels κ = σ/α, is the same on every path; for α = 1 it is the paper's.

    N steps are N·inner evaluations. The last state contains the noise of the last level, κ_min;
    `denoise` replaces the state by its x̂₀, with one more evaluation. The law is not exact, even
    with infinitely many levels. At a level with the Gaussian law N(m, S) the stationary covariance
    is S·(I − ½h_i·S⁻¹)⁻¹ and not S, and with small `inner` the chain does not reach it. With the
    100 levels and the step of the notebook N1 (P2: r = ¼) and data N(m, c), m is right and the
    standard deviation is too large by 8 % of κ_min for c = 0, and by 4.5, 3.7 and 2.5 % for c = .1,
    1 and 66 (exact law, no sampling error).

    Song and Ermon, "Generative modeling by estimating gradients of the data distribution", NeurIPS
    2019 (arXiv 1907.05600), Algorithm 1: its α_i/2 is our h_i, its ε is 2h, its T is `inner`.
    The last denoising step is Jolicoeur-Martineau, Piché-Taillefer, Tachet des Combes, Mitliagkas,
    "Adversarial score matching and improved sampling for image generation", ICLR 2021 (arXiv
    2009.05475), the "expected denoised sample".

    Args:
        step_size: h at the smallest level, in the units of the data squared. Its share r depends on
            κ_min: compare numbers of steps on grids with the same κ_min.
        inner: Langevin steps per level.
        denoise: whether the last state is replaced by its x̂₀.
    """

    order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = True
    needs_signal: ClassVar[bool] = True
    step_size: float = 1e-4
    inner: int = 5
    denoise: bool = False

    def __post_init__(self) -> None:
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "positive and finite")
        require(self.inner >= 1, "inner", self.inner, "at least 1")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(step_size=0.01, inner=2, denoise=True)]

    @property
    def ends_at_data(self) -> bool:
        return self.denoise

    def _why_not_on(self, levels: Levels) -> str | None:
        reason = super()._why_not_on(levels)
        if reason is None and levels.rows[-1].sigma > 0:
            return (
                "AnnealedLangevin ends with the noise of its last level by itself: use "
                "final=denoise, and its own setting denoise"
            )
        return reason

    def evaluations(self, steps: int) -> int:
        return self.inner * steps + self.denoise

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        last = levels.rows[-2]
        share = self.step_size / (last.sigma / last.alpha) ** 2
        for step, now, to in levels.pairs():
            kick = now.sigma * math.sqrt(2 * share)
            for draw in range(self.inner):
                x0_hat = model.denoiser(x, now)
                fresh = kick * noise.normal(x, step, draw)
                x = (1 - share) * x + (share * now.alpha) * x0_hat + fresh
            if to.sigma == 0 and self.denoise:
                x = x0_hat = model.denoiser(x, now)
            else:
                x = (to.alpha / now.alpha) * x
            yield Step(x, x0_hat)
