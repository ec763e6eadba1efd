"""DEIS: exponential Adams–Bashforth on the noise ε̂, with polynomials in one of three clocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require
from samplerbench.samplers.base import Deterministic, Step
from samplerbench.samplers.multistep import adams_weights, log_snr, quadrature, weighted


@dataclass(frozen=True)
class DEIS(Deterministic):
    """x_s = (α_s/α_t)·x_t + Σ_j w_j·ε̂^{(j)},   w_j = α_s·∫ ℓ_j(c) dκ,   ε̂ = (x − α·x̂₀)/σ, κ = σ/α.

    The ℓ_j are polynomials in a clock c that interpolate the last k outputs, or fewer in the first
    steps, as in the paper. In the form x_s = α_s·x̂₀ + Σ_j w'_j·ε̂^{(j)} with Σ_j w'_j = σ_s, used
    here, the first level may have no signal; the step from it is DDIM(0), which is k = 1. Order
    min(k, 2): the first step has one point and a local error of h². One evaluation per step. Zhang
    and Chen, "Fast sampling of diffusion models with exponential integrator", ICLR 2023 (arXiv
    2204.13902), Section 3.

    Args:
        points: k; the paper's tABr has k = r + 1.
    """

    points: int = 2

    def __post_init__(self) -> None:
        require(self.points in (1, 2, 3, 4), "points", self.points, "1, 2, 3 or 4")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(points=3)]

    @property
    def order(self) -> int:
        return min(self.points, 2)

    @abstractmethod
    def clock(self, schedule: NoiseSchedule, log_snr: Tensor) -> Tensor:
        """c at λ, same shape."""

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        weights = self._weights(model.schedule, levels)
        past: list[Tensor] = []
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            past = [(x - now.alpha * x0_hat) / now.sigma, *past[: self.points - 1]]
            parts, outputs = (to.alpha, *weights[step]), (x0_hat, *past)
            x = x0_hat if to.sigma == 0 else weighted(parts, outputs)
            yield Step(x, x0_hat)

    def _weights(self, schedule: NoiseSchedule, levels: Levels) -> list[list[float]]:
        lam, (at, spacing) = log_snr(levels), quadrature(levels)
        clocks = self.clock(schedule, lam), self.clock(schedule, at)
        measure = -levels.alpha[1:, None] * (-at).exp() * spacing
        return adams_weights(*clocks, measure, levels.sigma[1:], self.points)


@dataclass(frozen=True)
class DEISTime(DEIS):
    """tAB-DEIS: c = t, the time of the schedule, the paper's choice.

    For the step, the order and the cost see `DEIS`. Zhang and Chen 2023 (arXiv 2204.13902),
    Section 3.
    """

    def clock(self, schedule: NoiseSchedule, log_snr: Tensor) -> Tensor:
        return schedule.time_at((-log_snr).exp())


@dataclass(frozen=True)
class DEISRho(DEIS):
    """ρAB-DEIS: c = κ = σ/α, Adams–Bashforth on dx̄/dκ = ε̂ for x̄ = x/α.

    This is the linear multistep method of k-diffusion. For the step, the order and the cost see
    `DEIS`. Zhang and Chen 2023 (arXiv 2204.13902), Section 3 and Appendix.
    """

    def clock(self, schedule: NoiseSchedule, log_snr: Tensor) -> Tensor:
        return (-log_snr).exp()


@dataclass(frozen=True)
class DEISLogRho(DEIS):
    """c = ln κ = −λ: the multistep form of DPM-Solver, which diffusers calls DEIS.

    For the step, the order and the cost see `DEIS`.
    """

    def clock(self, schedule: NoiseSchedule, log_snr: Tensor) -> Tensor:
        return -log_snr
