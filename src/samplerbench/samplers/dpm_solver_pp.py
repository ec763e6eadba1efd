"""DPM-Solver++ in its multistep forms 2M and 3M, which most image generators use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Deterministic, Step
from samplerbench.samplers.multistep import constant_weights, half_weights, log_snr, weighted


@dataclass(frozen=True)
class DPMSolverPP(Deterministic):
    """x_s = (σ_s/σ_t)·x_t + b·x̂₀ + (the terms below),   b = α_s·(1 − e^{−h}),   h = λ_s − λ_t.

    With the steps h, h', h'' in λ = ln(α/σ), newest first, d = (h/h')·(x̂₀ − x̂₀'), d' =
    (h/h'')·(x̂₀' − x̂₀''):

        2M:  ½b·d
        3M:  α_s·φ₁·D₁ + α_s·φ₂·D₂,   φ₁ = 1 − (1 − e^{−h})/h,   φ₂ = ½ − φ₁/h,
             D₁ = d + h'/(h' + h'')·(d − d'),   D₂ = h/(h' + h'')·(d − d').

    The first step is DDIM's, even from a level without signal; the second step of 3M is 2M's.
    The order is 2, **also of 3M**, as published: Taylor's formula needs h²·x̂₀'' ≈ 2·D₂ in place of
    D₂, and the first step has an error of h². `AdamsBashforth` with three points is 3M with both
    corrected, and has order 3. One evaluation per step. Lu, Zhou, Bao, Chen, Li, Zhu,
    "DPM-Solver++" (arXiv 2211.01095), Algorithm 2; 3M is in their code and in diffusers. With few
    steps these codes lower the order of the last step to 1; here only the step to the data has it.

    Args:
        points: 2 or 3, the number of outputs x̂₀ in a step.
    """

    order: ClassVar[int] = 2
    points: int = 2

    def __post_init__(self) -> None:
        require(self.points in (2, 3), "points", self.points, "2 or 3")

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        weights = half_weights(levels) if self.points == 2 else _published_weights(levels)
        past: list[Tensor] = []
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            past = [x0_hat, *past[: self.points - 1]]
            if to.sigma == 0:
                x = x0_hat
            else:
                x = weighted((to.sigma / now.sigma, *weights[step]), (x, *past))
            yield Step(x, x0_hat)


def _published_weights(levels: Levels) -> Sequence[Sequence[float]]:
    """The weights of x̂₀, x̂₀', x̂₀'' in 3M, for every step but the one to the data."""
    lengths, constants = log_snr(levels).diff().tolist(), constant_weights(levels).tolist()
    weights: list[Sequence[float]] = [*half_weights(levels)[:2]]
    for step in range(2, levels.steps - (levels.rows[-1].sigma == 0)):
        h2, h1, h = lengths[step - 2 : step + 1]
        b, alpha = constants[step], levels.rows[step + 1].alpha
        first = alpha - b / h
        second = alpha / 2 - first / h
        change = (first * h1 + second * h) / (h1 + h2)  # the factor of d − d'
        d0, d1 = (h / h1) * (first + change), (h / h2) * -change
        weights.append((b + d0, d1 - d0, -d1))
    return weights
