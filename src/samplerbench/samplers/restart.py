"""Restart: Heun's method that returns from one level to more noise several times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Level, Levels, karras
from samplerbench.core.models import Denoiser, Score
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.heun import Heun


@dataclass(frozen=True)
class Restart(Sampler):
    """`Heun`, and after its step to the level t with κ = σ/α nearest to `restart_min`, K times

        x_u/α_u = x_t/α_t + √(κ_u² − κ_t²)·z,   κ_u = restart_max,

    and Heun's method over `restart_steps` Karras levels (ρ = 7) from κ_u back to κ_t, both
    included. The noise has the exact variance, so the law at κ_u is nearer to that of the path than
    the law at κ_t was: noise contracts earlier errors. The short run adds its own error.

    Levels at or above κ_u are not considered; if the grid has only such levels, there is no
    restart. With restarts N steps take 2N − 1 + 2K·(restart_steps − 1) evaluations. No order in N
    is declared, because the error of the restarts falls with restart_steps, by order 2. Xu, Deng,
    Cheng, Tian, Liu, Jaakkola, "Restart sampling for improving generative processes", NeurIPS 2023
    (arXiv 2306.14878), Algorithm 1 with one interval.

    Args:
        repeats: K.
        restart_steps: N_R, the number of levels of a restart; at least 2.
        restart_min: t_min of the paper, a noise-to-signal ratio.
        restart_max: t_max, above restart_min.
    """

    order: ClassVar[int | None] = None
    repeats: int = 2
    restart_steps: int = 3
    restart_min: float = 0.06
    restart_max: float = 0.30

    def __post_init__(self) -> None:
        require(self.repeats >= 0, "repeats", self.repeats, "at least 0")
        require(self.restart_steps >= 2, "restart_steps", self.restart_steps, "at least 2")
        require(self.restart_min >= 0, "restart_min", self.restart_min, "at least 0")
        allowed = f"above restart_min={self.restart_min} and finite"
        require(
            self.restart_min < self.restart_max < math.inf, "restart_max", self.restart_max, allowed
        )

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(restart_max=1.5), cls(), cls(repeats=0)]

    @property
    def stochastic(self) -> bool:
        return self.repeats > 0

    def evaluations(self, steps: int) -> int | None:
        """2N − 1 without restarts; otherwise it depends on the levels."""
        return 2 * steps - 1 if self.repeats == 0 else None

    def least_evaluations(self, steps: int, *, plain: bool = False) -> int:
        """The number with restarts."""
        heun = 2 * steps if plain else 2 * steps - 1
        return heun + 2 * self.repeats * (self.restart_steps - 1)

    def most_noise(self, schedule: NoiseSchedule, levels: Levels) -> float:
        place = self._place(levels)
        restart = 0.0 if place is None else self.restart_max
        return max(super().most_noise(schedule, levels), restart)

    def why_incompatible(self, model: Score, levels: Levels) -> str | None:
        reason = super().why_incompatible(model, levels)
        if reason is not None or not isinstance(model, Denoiser):
            return reason
        largest = model.schedule.noise_range[1]
        if self._place(levels) is not None and self.restart_max > largest * (1 + 1e-9):
            return f"Restart goes up to σ/α = {self.restart_max:g}, and the path to {largest:.6g}"
        return None

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        place = self._place(levels)
        for step, now, _ in levels.pairs():
            if step == place == 0:
                x, _ = self._restarted(model, x, now, noise, step)
            both = Levels(*(c[step : step + 2] for c in (levels.t, levels.alpha, levels.sigma)))
            (one,) = Heun().steps(model, x, both, noise)
            x, x0_hat = one.x, one.x0_hat
            if step + 1 == place:
                x, x0_hat = self._restarted(model, x, levels.rows[place], noise, step)
            yield Step(x, x0_hat)

    def _place(self, levels: Levels) -> int | None:
        """The row of the level at which Heun's method is restarted, or None."""
        if self.repeats == 0:
            return None
        kappa = (levels.sigma / levels.alpha).tolist()
        places = [place for place, k in enumerate(kappa) if 0 < k < self.restart_max]
        return min(places, key=lambda place: abs(kappa[place] - self.restart_min), default=None)

    def _restarted(
        self, model: Denoiser, x: Tensor, level: Level[float], noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        """The state after all restarts from a level, and the last x̂₀."""
        low = level.sigma / level.alpha
        down = karras(
            model.schedule, self.restart_steps, noise_min=low, noise_max=self.restart_max, rho=7
        )
        down = Levels(down.t[:-1], down.alpha[:-1], down.sigma[:-1])
        ratio = down.rows[0].alpha / level.alpha
        kick = down.rows[0].alpha * math.sqrt(self.restart_max**2 - low**2)
        for repeat in range(self.repeats):
            x = ratio * x + kick * noise.normal(x, step, repeat)
            for one in Heun().steps(model, x, down, noise):
                x, x0_hat = one.x, one.x0_hat
        return x, x0_hat
