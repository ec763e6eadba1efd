"""Underdamped Langevin dynamics by the BAOAB splitting: states with velocities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Score
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Step
from samplerbench.samplers.langevin import Langevin


@dataclass(frozen=True)
class Underdamped(Langevin):
    """dx = v dt,   dv = (s(x) − γ·v) dt + √(2γ) dW,   s = ∇ log q at the level of a hold grid.

    A step is B, A, O, A, B: v ← v + ½h·s(x); x ← x + ½h·v; v ← c·v + √(1 − c²)·z with c = e^{−γh};
    x ← x + ½h·v; v ← v + ½h·s(x). The velocities start as N(0, I) and are not part of the state.

    For N(m, S) and every stable step size, h < 2√λ with λ the smallest variance, the stationary law
    of the states is exactly N(m, S); only the covariance of the velocities is wrong: it is I −
    ¼h²·S⁻¹. For other laws the bias is of order h². h is a time: with strong friction, h²/2
    corresponds to h of `ULA` and `MALA`. N steps are N + 1 evaluations. Leimkuhler and Matthews,
    "Rational construction of stochastic numerical methods for molecular sampling", Applied
    Mathematics Research eXpress 2013(1) (arXiv 1203.5428), Section 2; the harmonic oscillator in
    "Robust and efficient configurational molecular sampling via Langevin dynamics", Journal of
    Chemical Physics 138, 2013 (arXiv 1304.3269).

    Args:
        step_size: h, in the units of the data (the mass is 1).
        friction: γ, per unit of time; with ∞ every step draws a new velocity.
    """

    step_size: float = 0.1
    friction: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "positive and finite")
        require(self.friction > 0, "friction", self.friction, "positive")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(friction=math.inf)]

    def evaluations(self, steps: int) -> int:
        return steps + 1

    def steps(self, model: Score, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        half, keep = self.step_size / 2, math.exp(-self.friction * self.step_size)
        kick = math.sqrt(1 - keep**2)
        v, score = noise.normal(x, 0, 1), model.score(x, levels.rows[0])
        for step, now, _ in levels.pairs():
            v = v + half * score
            x = x + half * v
            v = keep * v + kick * noise.normal(x, step)
            x = x + half * v
            score = model.score(x, now)
            v = v + half * score
            yield Step(x, (x + now.sigma**2 * score) / now.alpha)
