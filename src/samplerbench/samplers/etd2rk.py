"""ETD2RK: a single-step exponential integrator of order 2 on x̂₀, also called RES."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import expm1
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.samplers.base import Deterministic, Step
from samplerbench.samplers.dpm_solver import inner
from samplerbench.samplers.multistep import log_snr


@dataclass(frozen=True)
class ETD2RK(Deterministic):
    """The exponential midpoint method in λ = ln(α/σ), h = λ_s − λ_t, λ_m = λ_t + h/2:

        u = (σ_m/σ_t)·x_t + α_m·(1 − e^{−h/2})·x̂₀(x_t, t),
        x_s = (σ_s/σ_t)·x_t + α_s·((1 − e^{−h} − b)·x̂₀(x_t, t) + b·x̂₀(u, m)),
        b = 2·∫₀¹ θ·h·e^{−(1−θ)h} dθ = 2·(1 − (1 − e^{−h})/h).

    Both order conditions for a variable x̂₀ hold exactly, which DPM-Solver++(2S), with
    b = 1 − e^{−h}, has only to leading order in h. Order 2; two evaluations per step, one in the
    last, which is x̂₀. Zhang, Song, Chen, "Improved order analysis and design of exponential
    integrator for diffusion models sampling", 2023 (arXiv 2308.02157), with c₂ = ½.
    """

    order: ClassVar[int] = 2
    needs_signal: ClassVar[bool] = True

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        lengths, middles = log_snr(levels).diff().tolist(), inner(model.schedule, levels, 1 / 2)
        for step, now, to in levels.pairs():
            h, middle = lengths[step], middles[step]
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                u = middle.sigma / now.sigma * x - middle.alpha * expm1(-h / 2) * x0_hat
                x = to.sigma / now.sigma * x - to.alpha * expm1(-h) * x0_hat
                late = model.denoiser(u, middle)
                x = x + to.alpha * slope_weight(h) * (late - x0_hat)
                x0_hat = late
            yield Step(x, x0_hat)


def slope_weight(h: float) -> float:
    """b = 2·(1 − (1 − e^{−h})/h) = h − h²/3 + …; the series where the difference cancels."""
    if h > 0.01:
        return 2 * (1 + expm1(-h) / h)
    return 2 * h * (1 / 2 - h * (1 / 6 - h * (1 / 24 - h * (1 / 120 - h / 720))))
