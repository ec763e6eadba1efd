"""Euler's method on the probability-flow ODE."""

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
class Euler(Deterministic):
    """x_s = x_t + (s − t)·(a·x_t + b·x̂₀), in the time of the schedule; the last step is x̂₀.

    Order 1; one evaluation per step. If α and σ are linear in time (`EDM`, `Rectified`) this is
    DDIM with η = 0; otherwise DDIM(0) is Euler's method in another variable. Karras et al. 2022
    (arXiv 2206.00364), Eq. 4 and Algorithm 1 without its correction.
    """

    order: ClassVar[int] = 1

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        ode = ode_coefficients(model.schedule, levels)
        for step, now, to in levels.pairs():
            a, b = ode[step]
            h = to.t - now.t
            x0_hat = model.denoiser(x, now)
            x = x0_hat if to.sigma == 0 else (1 + h * a) * x + (h * b) * x0_hat
            yield Step(x, x0_hat)
