"""Heun's second-order method on the probability-flow ODE: the deterministic EDM sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.samplers.base import Deterministic, Step, ode_coefficients


@dataclass(frozen=True)
class Heun(Deterministic):
    """x_s = x_t + ½(s − t)·(d + d'),   d = a·x + b·x̂₀ at t,   d' the same at s after an Euler step.

    The time is that of the schedule; the last step is x̂₀. Order 2; two evaluations per step, one in
    the last. Karras et al. 2022 (arXiv 2206.00364), Algorithm 1; on `EDM` it is their Algorithm 2
    without churn.
    """

    order: ClassVar[int] = 2

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        ode = ode_coefficients(model.schedule, levels)
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                h = to.t - now.t
                (a, b), (a_to, b_to) = ode[step], ode[step + 1]
                slope = a * x + b * x0_hat
                x_to = x + h * slope
                x0_hat = model.denoiser(x_to, to)
                x = x + (0.5 * h) * (slope + a_to * x_to + b_to * x0_hat)
            yield Step(x, x0_hat)
