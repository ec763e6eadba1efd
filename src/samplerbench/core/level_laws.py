"""Level laws: how the noise level of a training example is drawn.

An objective averages its loss over noise levels. The weight of a level is its density times the
weighting. A law is defined

- in the noise-to-signal ratio κ = σ/α: ln κ normal (Karras et al., "Elucidating the design space
  of diffusion-based generative models", NeurIPS 2022, arXiv 2206.00364, Table 1), or ln κ uniform,
  which is importance sampling for the likelihood (see `weightings`);
- by the Karras grid (their Eq. 5): one of its levels, or κ with κ^{1/ρ} uniform;
- in the time: t uniform (Song et al., "Score-based generative modeling through SDEs", ICLR 2021,
  arXiv 2011.13456, Eq. 7).

A law in κ draws the same κ on every schedule; a law in t does not. κ has the units of the data, as
in grids and samplers. If the data are standardised, the network sees κ/std.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.grids import karras
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require


class LevelLaw(ABC):
    """The law of the level in training. Members are frozen dataclasses."""

    @abstractmethod
    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        """Draw independent times, float64, shape (count,).

        Args:
            count: the number of times.
            schedule: the path, which turns a noise-to-signal ratio into a time.
            generator: the source of random numbers, on the CPU.
        """

    @abstractmethod
    def largest(self, schedule: NoiseSchedule) -> float:
        """The largest κ that can be drawn; infinite if that is a level without signal."""


class _Bounded(LevelLaw):
    """A law on an interval of κ, restricted to the range of the schedule."""

    minimum: float
    maximum: float

    def largest(self, schedule: NoiseSchedule) -> float:
        return min(self.maximum, schedule.noise_range[1])

    def _require_range(self) -> None:
        require(0 < self.minimum < math.inf, "minimum", self.minimum, "positive")
        allowed = f"above minimum={self.minimum}"
        require(self.minimum < self.maximum < math.inf, "maximum", self.maximum, allowed)

    def _clipped(self, schedule: NoiseSchedule, ratio: Tensor) -> Tensor:
        """The times of ratios, after clipping to the interval and to the range of the schedule."""
        time = schedule.time_at(ratio.clamp(self.minimum, self.maximum))
        return time.clamp(0.0, 1.0)

    def _range(self, schedule: NoiseSchedule) -> tuple[float, float]:
        """The part of the interval that the schedule reaches."""
        least, largest = schedule.noise_range
        low, high = max(self.minimum, least), min(self.maximum, largest)
        require(low < high, "minimum", self.minimum, f"below {largest:.6g}, the schedule's largest")
        return low, high


@dataclass(frozen=True)
class LogNormal(_Bounded):
    """ln κ ~ N(mean, std²), then κ clipped to [minimum, maximum].

    Clipping puts the mass of each tail on the bound, so the first and the last level of a sampler
    have positive probability. Karras et al. 2022 use mean −1.2 and std 1.2 without clipping, for
    images in [−1, 1].

    Args:
        mean: the mean of ln κ.
        std: the standard deviation of ln κ.
        minimum: smallest κ.
        maximum: largest κ, also bounded by κ(1) of the schedule.
    """

    mean: float
    std: float
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean), "mean", self.mean, "finite")
        require(0 <= self.std < math.inf, "std", self.std, "at least 0 and finite")
        self._require_range()

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        z = torch.randn(count, generator=generator, dtype=torch.float64)
        return self._clipped(schedule, (self.mean + self.std * z).exp())


@dataclass(frozen=True)
class LogUniform(_Bounded):
    """ln κ uniform between ln minimum and ln maximum.

    Args:
        minimum: smallest κ.
        maximum: largest κ, also bounded by κ(1) of the schedule.
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        self._require_range()

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        return self._clipped(schedule, self.minimum * (self.maximum / self.minimum) ** share)


@dataclass(frozen=True)
class KarrasGrid(_Bounded):
    """One of the levels of a Karras grid, all with the same probability; see `grids.karras`.

    Song and Ermon, NeurIPS 2019, Eq. 6, with this grid in place of a geometric one. The network is
    trained only at the levels of a sampler that has the same grid.

    Args:
        steps: the number of levels, at least 2.
        minimum: smallest κ, or κ(0) of the schedule if that is larger.
        maximum: largest κ, or κ(1) of the schedule if that is smaller.
        rho: ρ of the grid.
    """

    steps: int
    minimum: float
    maximum: float
    rho: float = 5.0

    def __post_init__(self) -> None:
        require(self.steps >= 2, "steps", self.steps, "at least 2")
        self._require_range()
        require(0 < self.rho < math.inf, "rho", self.rho, "positive")

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        low, high = self._range(schedule)
        levels = karras(schedule, self.steps, noise_min=low, noise_max=high, rho=self.rho)
        return levels.t[torch.randint(self.steps, (count,), generator=generator)]


@dataclass(frozen=True)
class KarrasTime(_Bounded):
    """κ = (κ_min^{1/ρ} + s·(κ_max^{1/ρ} − κ_min^{1/ρ}))^ρ, s uniform on [s_min, 1].

    This is the Karras grid with infinitely many levels, as in the text of the notebook N1.

    Args:
        minimum: κ_min, or κ(0) of the schedule if that is larger.
        maximum: κ_max, or κ(1) of the schedule if that is smaller.
        rho: ρ of the grid.
        s_min: the smallest s.
    """

    minimum: float
    maximum: float
    rho: float = 5.0
    s_min: float = 0.0

    def __post_init__(self) -> None:
        self._require_range()
        require(0 < self.rho < math.inf, "rho", self.rho, "positive")
        require(0 <= self.s_min < 1, "s_min", self.s_min, "at least 0 and below 1")

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        low, high = self._range(schedule)
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        share = self.s_min + (1 - self.s_min) * share
        bottom, top = low ** (1 / self.rho), high ** (1 / self.rho)
        return self._clipped(schedule, (bottom + share * (top - bottom)) ** self.rho)


@dataclass(frozen=True)
class UniformTime(LevelLaw):
    """t uniform on [t_min, t_max].

    Args:
        t_min: must be above 0 if the target or the weighting is infinite without noise.
        t_max: must be below 1 if the target or the weighting is infinite without signal.
    """

    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.t_min < 1, "t_min", self.t_min, "at least 0 and below 1")
        allowed = f"above t_min={self.t_min} and at most 1"
        require(self.t_min < self.t_max <= 1, "t_max", self.t_max, allowed)

    def largest(self, schedule: NoiseSchedule) -> float:
        return float(schedule.noise_to_signal(torch.tensor(self.t_max, dtype=torch.float64)))

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        return self.t_min + (self.t_max - self.t_min) * share
