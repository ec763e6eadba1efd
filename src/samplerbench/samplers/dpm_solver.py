"""DPM-Solver of orders 1, 2 and 3: single-step exponential integrators on the noise ε̂."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import expm1
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.samplers.base import Deterministic, Step
from samplerbench.samplers.multistep import log_snr


@dataclass(frozen=True)
class DPMSolver1(Deterministic):
    """x_s = (α_s/α_t)·x_t − σ_s·(e^h − 1)·ε̂,   h = λ_s − λ_t,   λ = ln(α/σ),   ε̂ = (x − α·x̂₀)/σ.

    This is DDIM with η = 0 in a notation that needs signal at t. Order 1; one evaluation per step.
    Lu, Zhou, Bao, Chen, Li, Zhu, "DPM-Solver", NeurIPS 2022 (arXiv 2206.00927), Eq. 3.7.
    """

    order: ClassVar[int] = 1
    needs_signal: ClassVar[bool] = True

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        lengths = log_snr(levels).diff().tolist()
        for step, now, to in levels.pairs():
            h = lengths[step]
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                eps = noise_in(x, x0_hat, now)
                x = (to.alpha / now.alpha) * x - (to.sigma * expm1(h)) * eps
            yield Step(x, x0_hat)


@dataclass(frozen=True)
class DPMSolver2(Deterministic):
    """The midpoint method in λ: DPM-Solver-1 to λ_t + h/2, then the whole step with the ε̂ there.

        u = (α_m/α_t)·x_t − σ_m·(e^{h/2} − 1)·ε̂(x_t, t),   λ_m = λ_t + h/2,
        x_s = (α_s/α_t)·x_t − σ_s·(e^h − 1)·ε̂(u, m).

    Order 2; two evaluations per step, one in the last. Lu et al. 2022 (arXiv 2206.00927),
    Algorithm 1.
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
                eps = noise_in(x, x0_hat, now)
                u = (middle.alpha / now.alpha) * x - (middle.sigma * expm1(h / 2)) * eps
                x0_hat = model.denoiser(u, middle)
                eps = noise_in(u, x0_hat, middle)
                x = (to.alpha / now.alpha) * x - (to.sigma * expm1(h)) * eps
            yield Step(x, x0_hat)


@dataclass(frozen=True)
class DPMSolver3(Deterministic):
    """Stages at λ_1 = λ_t + h/3, λ_2 = λ_t + 2h/3, with ψ(z) = (e^z − 1)/z − 1 and ε̂ = ε̂(x_t, t).

        u_1 = (α_1/α_t)·x_t − σ_1·(e^{h/3} − 1)·ε̂,
        u_2 = (α_2/α_t)·x_t − σ_2·(e^{2h/3} − 1)·ε̂ − 2σ_2·ψ(2h/3)·(ε̂(u_1, 1) − ε̂),
        x_s = (α_s/α_t)·x_t − σ_s·(e^h − 1)·ε̂ − (3/2)σ_s·ψ(h)·(ε̂(u_2, 2) − ε̂).

    Order 3; three evaluations per step, one in the last. Lu et al. 2022 (arXiv 2206.00927),
    Algorithm 2 with r₁ = 1/3, r₂ = 2/3.
    """

    order: ClassVar[int] = 3
    needs_signal: ClassVar[bool] = True

    def evaluations(self, steps: int) -> int:
        return 3 * steps - 2

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        lengths = log_snr(levels).diff().tolist()
        firsts, seconds = (inner(model.schedule, levels, share) for share in (1 / 3, 2 / 3))
        for step, now, to in levels.pairs():
            h, s1, s2 = lengths[step], firsts[step], seconds[step]
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                eps = noise_in(x, x0_hat, now)
                u = (s1.alpha / now.alpha) * x - (s1.sigma * expm1(h / 3)) * eps
                change = noise_in(u, model.denoiser(u, s1), s1) - eps
                u = (s2.alpha / now.alpha) * x - (s2.sigma * expm1(2 * h / 3)) * eps
                u = u - (2 * s2.sigma * psi(2 * h / 3)) * change
                x0_hat = model.denoiser(u, s2)
                change = noise_in(u, x0_hat, s2) - eps
                x = (to.alpha / now.alpha) * x - (to.sigma * expm1(h)) * eps
                x = x - (1.5 * to.sigma * psi(h)) * change
            yield Step(x, x0_hat)


def noise_in(x: Tensor, x0_hat: Tensor, level: Level[float]) -> Tensor:
    """ε̂ = (x − α·x̂₀)/σ, shape (*batch, dim)."""
    return (x - level.alpha * x0_hat) / level.sigma


def psi(z: float) -> float:
    """(e^z − 1)/z − 1 = z/2 + z²/6 + …"""
    return expm1(z) / z - 1


def inner(schedule: NoiseSchedule, levels: Levels, share: float) -> list[Level[float]]:
    """The level at λ_t + share·h of every step; in the step to the data it is the data."""
    lam = log_snr(levels)
    times = schedule.time_at((-(lam[:-1] + share * lam.diff())).exp())
    alpha, sigma = schedule(times)
    columns = (times.tolist(), alpha.tolist(), sigma.tolist())
    return [Level(*row) for row in zip(*columns, strict=True)]
