"""The classical Runge–Kutta method of order 4 on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.samplers.base import Deterministic, Stage, Step, stages


@dataclass(frozen=True)
class RK4(Deterministic):
    """x_s = x_t + (s − t)/6·(d₁ + 2d₂ + 2d₃ + d₄),   d = a·x + b·x̂₀.

    d₁ at t, d₂ and d₃ in the middle after half a step along d₁ and d₂, d₄ at s after a step along
    d₃; in the time of the schedule. The last step is x̂₀. Order 4; four evaluations per step, one in
    the last. Kutta, "Beitrag zur näherungsweisen Integration totaler Differentialgleichungen",
    Zeitschrift für Mathematik und Physik 46, 1901; Hairer, Nørsett, Wanner, "Solving ordinary
    differential equations I", 1993, Section II.1, Table 1.2.
    """

    order: ClassVar[int] = 4

    def evaluations(self, steps: int) -> int:
        return 4 * steps - 3

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        def slope(x: Tensor, at: Stage) -> tuple[Tensor, Tensor]:
            x0_hat = model.denoiser(x, at.level)
            return at.a * x + at.b * x0_hat, x0_hat

        begin, middle, end = (stages(model.schedule, levels, share) for share in (0, 0.5, 1))
        for step, now, to in levels.pairs():
            if to.sigma == 0:
                x = x0_hat = model.denoiser(x, now)
            else:
                h = to.t - now.t
                d1, _ = slope(x, begin[step])
                d2, _ = slope(x + (h / 2) * d1, middle[step])
                d3, _ = slope(x + (h / 2) * d2, middle[step])
                d4, x0_hat = slope(x + h * d3, end[step])
                x = x + (h / 6) * (d1 + 2 * (d2 + d3) + d4)
            yield Step(x, x0_hat)
