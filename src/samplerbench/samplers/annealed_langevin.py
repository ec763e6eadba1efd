"""Annealed Langevin dynamics: a few Langevin steps at each level, from much noise to little."""

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

    every step goes the same share r of the way to the mean, and the chain explodes at levels above
    the width of the data unless r < 2. Between levels x is rescaled, x ← (α_s/α_t)·x, so on every
    path this is the one algorithm for x/α whose levels are κ = σ/α; where α = 1 it is the paper's.

    N steps are N·inner evaluations. The last state keeps the noise of the last level, κ_min, and is
    not an x̂₀; `denoise` replaces it by its x̂₀ with one more evaluation. The law is not exact
    however many levels there are: at each one the chain is pulled to that level's law with the
    covariance S·(I − ½h_i·S⁻¹)⁻¹ for S on a Gaussian, and it lags behind where `inner` is small.
    With the notebook N1's 100 levels and step (P2: r = ¼), data N(m, c) come out with the right m
    and a standard deviation too large by 8 % of κ_min for c = 0, by 4.5, 3.7 and 2.5 % for c = .1,
    1 and 66 (exact law, no sampling error).

    Song and Ermon, "Generative modeling by estimating gradients of the data distribution", NeurIPS
    2019 (arXiv 1907.05600), Algorithm 1: its α_i/2 is our h_i, so its ε is 2h, its T is `inner`.
    The last denoising step is Jolicoeur-Martineau, Piché-Taillefer, Tachet des Combes, Mitliagkas,
    "Adversarial score matching and improved sampling for image generation", ICLR 2021 (arXiv
    2009.05475), the "expected denoised sample".

    Args:
        step_size: h, of the smallest level, in the units of the data squared. Its share r depends
            on the grid: compare numbers of steps on grids that end at the same κ_min.
        inner: Langevin steps per level.
        denoise: whether the last state is replaced by its x̂₀.
    """

    order: ClassVar[int | None] = None
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
    def stochastic(self) -> bool:
        return True

    @property
    def ends_at_data(self) -> bool:
        return self.denoise

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
