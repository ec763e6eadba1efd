"""The Euler–Maruyama method on the reverse SDE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.samplers.base import Sampler, Step


@dataclass(frozen=True)
class ReverseSDE(Sampler):
    """x_s = x_t + (−f·x_t + g²·s)·Δt + g·√Δt·z,   Δt = t − s,   s = (α·x̂₀ − x_t)/σ², z ~ N(0, I).

    f = α̇/α and g² = d(σ²)/dt − 2f·σ² at t, in the time of the schedule. They are infinite where
    α = 0, so the first level must have some signal. (DDIM with η = 1 solves the same SDE in another
    variable and needs no signal.) Weak order 1; one evaluation per step. Anderson, "Reverse-time
    diffusion equation models", Stochastic Processes and their Applications 12(3), 1982; Song et al.
    2021 (arXiv 2011.13456), Eq. 6; the notebook N2 on `GeometricVE`, where f = 0.

    The last step is x̂₀. With `denoise=False` it is a step of the SDE, and the last state has about
    the noise of the last level before the data. On a schedule with σ(0) > 0 that level is at t = 0
    and the last step has no length: the 500 steps of N2 are steps=501 with grid=uniform.

    Args:
        denoise: whether the last step is x̂₀.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    needs_signal: ClassVar[bool] = True
    couples: ClassVar[bool] = True
    denoise: bool = True

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(denoise=False)]

    @property
    def ends_at_data(self) -> bool:
        return self.denoise

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        sde = sde_coefficients(model.schedule, levels)
        for step, now, to in levels.pairs():
            a, b, g = sde[step]
            h = to.t - now.t
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0 and self.denoise:
                x = x0_hat
            else:
                x = (1 + h * a) * x + (h * b) * x0_hat + g * (-h) ** 0.5 * noise.normal(x, step)
            yield Step(x, x0_hat)


def sde_coefficients(schedule: NoiseSchedule, levels: Levels) -> list[tuple[float, float, float]]:
    """(a, b, g) of the reverse SDE dx = (a·x + b·x̂₀) dt + g dW, dt < 0, at each level but the last.

    a = f + g²/σ², b = −α·g²/σ²; see `core.schedules`.
    """
    f, g2 = sde_rates(schedule, levels)
    alpha, variance = levels.alpha[:-1], levels.sigma[:-1].square()
    a, b = f + g2 / variance, -alpha * g2 / variance
    return list(zip(a.tolist(), b.tolist(), g2.sqrt().tolist(), strict=True))


def sde_rates(schedule: NoiseSchedule, levels: Levels) -> tuple[Tensor, Tensor]:
    """f and g² of the SDE at each level but the last, float64, (steps,) each."""
    alpha_rate, variance_rate = schedule.rates(levels.t[:-1])
    f = alpha_rate / levels.alpha[:-1]
    return f, variance_rate - 2 * f * levels.sigma[:-1].square()
