"""Level laws: how the noise level of a training example is drawn.

An objective averages its loss over levels, and the law of the level, times the weighting, says how
much of the network's capacity goes where. Two ways of saying it:

- by the noise-to-signal ratio κ = σ/α, in the units of the data (on variance-exploding paths κ is
  σ itself), which means the same on every schedule: ln κ normal (Karras et al., "Elucidating the
  design space of diffusion-based generative models", NeurIPS 2022, arXiv 2206.00364, Table 1) or
  ln κ uniform, which is importance sampling for the likelihood (see `weightings`);
- the same by the Karras grid (their Eq. 5), κ^{1/ρ} uniform: its levels themselves, which a sampler
  on that grid will visit, or the values between them;
- by the time: t uniform (Song et al., "Score-based generative modeling through SDEs", ICLR 2021,
  arXiv 2011.13456, Eq. 7), which means what the schedule makes of it.

κ is in data units because grids, samplers and the exact denoiser speak those; where the data are
standardised the network sees κ/std. The same law drawn on two schedules gives the same κ.
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
        """Independent times, float64, shape (count,).

        Args:
            count: how many.
            schedule: what turns a noise-to-signal ratio into a time.
            generator: where the numbers come from; on the CPU.
        """

    @abstractmethod
    def largest(self, schedule: NoiseSchedule) -> float:
        """The largest κ it draws; infinite where the path ends without signal and is all used."""


@dataclass(frozen=True)
class LogNormal(LevelLaw):
    """ln κ ~ N(mean, std²), then κ clipped to [minimum, maximum].

    Clipping puts the mass of either tail on the bound, which gives the sampler's first and last
    levels a share of their own. Karras et al. 2022 have (−1.2, 1.2), unclipped, for images in
    [−1, 1].

    Args:
        mean: of ln κ.
        std: of ln κ.
        minimum: smallest κ.
        maximum: largest κ; what the schedule has at t = 1 bounds it too.
    """

    mean: float
    std: float
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean), "mean", self.mean, "finite")
        require(0 <= self.std < math.inf, "std", self.std, "at least 0 and finite")
        _require_range(self.minimum, self.maximum)

    def largest(self, schedule: NoiseSchedule) -> float:
        return min(self.maximum, _ratio(schedule, 1.0))

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        z = torch.randn(count, generator=generator, dtype=torch.float64)
        return _time_at(schedule, (self.mean + self.std * z).exp(), self.minimum, self.maximum)


@dataclass(frozen=True)
class LogUniform(LevelLaw):
    """ln κ uniform between ln minimum and ln maximum.

    Args:
        minimum: smallest κ.
        maximum: largest κ; what the schedule has at t = 1 bounds it too.
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        _require_range(self.minimum, self.maximum)

    def largest(self, schedule: NoiseSchedule) -> float:
        return min(self.maximum, _ratio(schedule, 1.0))

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        ratio = self.minimum * (self.maximum / self.minimum) ** share
        return _time_at(schedule, ratio, self.minimum, self.maximum)


@dataclass(frozen=True)
class KarrasGrid(LevelLaw):
    """One of the levels of a Karras grid, all with the same probability; see `grids.karras`.

    Song and Ermon, NeurIPS 2019, Eq. 6, with this grid in place of a geometric one: the network
    learns what a sampler with as many steps will ask, and nothing else.

    Args:
        steps: how many levels, at least 2.
        minimum: smallest κ; the schedule's own at t = 0 where that is larger.
        maximum: largest κ; the schedule's own at t = 1 where that is smaller.
        rho: ρ of the grid.
    """

    steps: int
    minimum: float
    maximum: float
    rho: float = 5.0

    def __post_init__(self) -> None:
        require(self.steps >= 2, "steps", self.steps, "at least 2")
        _require_range(self.minimum, self.maximum)
        require(0 < self.rho < math.inf, "rho", self.rho, "positive")

    def largest(self, schedule: NoiseSchedule) -> float:
        return min(self.maximum, _ratio(schedule, 1.0))

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        low, high = _within(schedule, self.minimum, self.maximum)
        levels = karras(schedule, self.steps, noise_min=low, noise_max=high, rho=self.rho)
        return levels.t[torch.randint(self.steps, (count,), generator=generator)]


@dataclass(frozen=True)
class KarrasTime(LevelLaw):
    """κ = (κ_min^{1/ρ} + s·(κ_max^{1/ρ} − κ_min^{1/ρ}))^ρ, s uniform on [s_min, 1].

    The Karras grid with infinitely many levels, s = 0 its last one: the text of the notebook N1.

    Args:
        minimum: κ_min; the schedule's own at t = 0 where that is larger.
        maximum: κ_max; the schedule's own at t = 1 where that is smaller.
        rho: ρ of the grid.
        s_min: what is left out at the low end, as a share.
    """

    minimum: float
    maximum: float
    rho: float = 5.0
    s_min: float = 0.0

    def __post_init__(self) -> None:
        _require_range(self.minimum, self.maximum)
        require(0 < self.rho < math.inf, "rho", self.rho, "positive")
        require(0 <= self.s_min < 1, "s_min", self.s_min, "at least 0 and below 1")

    def largest(self, schedule: NoiseSchedule) -> float:
        return min(self.maximum, _ratio(schedule, 1.0))

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        low, high = _within(schedule, self.minimum, self.maximum)
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        share = self.s_min + (1 - self.s_min) * share
        bottom, top = low ** (1 / self.rho), high ** (1 / self.rho)
        return _time_at(schedule, (bottom + share * (top - bottom)) ** self.rho, low, high)


@dataclass(frozen=True)
class UniformTime(LevelLaw):
    """t uniform on [t_min, t_max].

    Args:
        t_min: above 0 where the target or the weighting is not finite without noise.
        t_max: at most 1; below it where they are not finite without signal.
    """

    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.t_min < 1, "t_min", self.t_min, "at least 0 and below 1")
        require(
            self.t_min < self.t_max <= 1,
            "t_max",
            self.t_max,
            f"above t_min={self.t_min} and at most 1",
        )

    def largest(self, schedule: NoiseSchedule) -> float:
        return _ratio(schedule, self.t_max)

    def sample(self, count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        return self.t_min + (self.t_max - self.t_min) * share


def _time_at(schedule: NoiseSchedule, ratio: Tensor, minimum: float, maximum: float) -> Tensor:
    # a schedule that never gets as noisy, or starts noisier, answers with a time outside [0, 1]
    return schedule.time_at(ratio.clamp(minimum, maximum)).clamp(0.0, 1.0)


def _ratio(schedule: NoiseSchedule, t: float) -> float:
    return float(schedule.noise_to_signal(torch.tensor(t, dtype=torch.float64)))


def _within(schedule: NoiseSchedule, minimum: float, maximum: float) -> tuple[float, float]:
    """The part of [minimum, maximum] that the schedule has."""
    ends = schedule.noise_to_signal(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    low, high = max(minimum, ends[0]), min(maximum, ends[1])
    own = f"below {ends[1]:.6g}, the schedule's own largest"
    require(low < high, "minimum", minimum, own)
    return low, high


def _require_range(minimum: float, maximum: float) -> None:
    require(0 < minimum < math.inf, "minimum", minimum, "positive")
    require(minimum < maximum < math.inf, "maximum", maximum, f"above minimum={minimum}")
