"""EDM's stochastic sampler: each step adds noise, and then Heun's method removes more noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Stage, Step, ode_coefficients, slope_at


@dataclass(frozen=True)
class EDMChurn(Sampler):
    """κ̂ = (1 + γ)·κ_t,   x̂/α̂ = x_t/α_t + √(κ̂² − κ_t²)·S·z,   then Heun's step from κ̂ to κ_s.

    κ = σ/α, and γ = min(churn/N, √2 − 1) if churn_min ≤ κ_t ≤ churn_max, else 0. κ̂ is at most κ(1)
    of the schedule, because no model is trained above it. With churn = 0 the method is `Heun`. The
    last step is x̂₀; it starts from κ̂ too.

    Adding noise is exact in law, so for S = 1 the weak order is that of Heun's method, 2. For S ≠ 1
    the law differs from that of the path for every number of steps; S > 1 compensates denoisers
    that remove too much noise. On one Brownian path the strong order is 1 for N ≥ churn/(√2 − 1);
    for smaller N γ is √2 − 1. It is ½ if churn_min or churn_max is inside the path, since the
    levels at which noise is added then depend on N. Two evaluations per step, one in the last.
    Karras et al., "Elucidating the design space of diffusion-based generative models", NeurIPS 2022
    (arXiv 2206.00364), Alg. 2.

    Args:
        churn: S_churn; all N steps together multiply the noise by about e^churn.
        churn_min: S_tmin, the smallest noise-to-signal ratio at which noise is added.
        churn_max: S_tmax, the largest noise-to-signal ratio at which noise is added.
        churn_noise: S = S_noise, the standard deviation of the added noise, relative to the exact
            one.
    """

    order: ClassVar[int] = 2
    couples: ClassVar[bool] = True
    churn: float = 10.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.churn < math.inf, "churn", self.churn, "at least 0 and finite")
        require(self.churn_min >= 0, "churn_min", self.churn_min, "at least 0")
        allowed = f"at least churn_min={self.churn_min}"
        require(self.churn_max >= self.churn_min, "churn_max", self.churn_max, allowed)
        require(0 < self.churn_noise < math.inf, "churn_noise", self.churn_noise, "positive")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(churn=0.0), cls(churn=4.0, churn_min=0.3, churn_max=5.0)]

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def most_noise(self, schedule: NoiseSchedule, levels: Levels) -> float:
        raised = (hat.level for hat, _, _ in self._raised(schedule, levels))
        return max(hat.sigma / hat.alpha if hat.alpha > 0 else math.inf for hat in raised)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        raised = self._raised(model.schedule, levels)
        ode = ode_coefficients(model.schedule, levels)
        for step, _, to in levels.pairs():
            hat, ratio, kick = raised[step]
            if kick > 0:
                x = ratio * x + kick * noise.normal(x, step)
            x0_hat = model.denoiser(x, hat.level)
            if to.sigma == 0:
                x = x0_hat
            else:
                h, (a_to, b_to) = to.t - hat.level.t, ode[step + 1]
                slope = hat.a * x + hat.b * x0_hat
                x_to = x + h * slope
                x0_hat = model.denoiser(x_to, to)
                x = x + (0.5 * h) * (slope + a_to * x_to + b_to * x0_hat)
            yield Step(x, x0_hat)

    def _raised(self, schedule: NoiseSchedule, levels: Levels) -> list[tuple[Stage, float, float]]:
        """The stage at κ̂, α̂/α, and the standard deviation of the added noise, for every step."""
        t, alpha, sigma = levels.t[:-1], levels.alpha[:-1], levels.sigma[:-1]
        kappa, largest = sigma / alpha, torch.full_like(t, schedule.noise_range[1])
        inside = (kappa >= self.churn_min) & (kappa <= self.churn_max)
        gain = min(self.churn / levels.steps, math.sqrt(2) - 1)
        high = torch.minimum(kappa * (1 + gain * inside.to(kappa)), largest)
        moved = high > kappa
        t_hat = torch.where(moved, schedule.time_at(high).clamp(max=1.0), t)
        alpha_hat, sigma_hat = schedule(t_hat)
        alpha_hat, sigma_hat = (
            torch.where(moved, alpha_hat, alpha),
            torch.where(moved, sigma_hat, sigma),
        )
        a, b = slope_at(schedule, t_hat, alpha_hat, sigma_hat)
        added = alpha_hat * (high.square() - kappa.square()).sqrt() * self.churn_noise
        ratio, kick = torch.where(moved, alpha_hat / alpha, 1.0), torch.where(moved, added, 0.0)
        return [
            (Stage(Level(*row[:3]), *row[3:5]), *row[5:])
            for row in zip(
                *(v.tolist() for v in (t_hat, alpha_hat, sigma_hat, a, b, ratio, kick)), strict=True
            )
        ]
