"""The unadjusted Langevin algorithm, ULA: Euler's method for overdamped Langevin dynamics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Score
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Step
from samplerbench.samplers.langevin import Langevin


@dataclass(frozen=True)
class ULA(Langevin):
    """x ← x + h·s(x) + √(2h)·z,   s = ∇ log q at the level of a hold grid, z ~ N(0, I).

    In all Langevin steps of this package h multiplies the score and 2h is the variance of the
    noise. Codes that write x + (h'/2)·s + √h'·z, such as the notebook N0, have h = h'/2.

    N steps are N evaluations. As N grows, the chain converges not to q but to a law whose distance
    to q is about proportional to h: for N(m, S) it is N(m, S·(I − ½h·S⁻¹)⁻¹). It diverges if h is
    at least twice the smallest variance. The chain rarely moves between distant modes. Roberts
    and Tweedie, "Exponential convergence of Langevin distributions and their discrete
    approximations", Bernoulli 2(4), 1996 (with h'); Durmus, Majewski, Miasojedow, "Analysis of
    Langevin Monte Carlo via convex optimization", JMLR 20(73), 2019 (arXiv 1802.09188; with h).

    Args:
        step_size: h, in the units of the data squared.
    """

    step_size: float = 0.01

    def __post_init__(self) -> None:
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "positive and finite")

    def steps(self, model: Score, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        kick = math.sqrt(2 * self.step_size)
        for step, now, _ in levels.pairs():
            score = model.score(x, now)
            x0_hat = (x + now.sigma**2 * score) / now.alpha
            x = x + self.step_size * score + kick * noise.normal(x, step)
            yield Step(x, x0_hat)
