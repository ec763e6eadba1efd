"""Grids: where on its schedule a sampler stops.

A grid turns a schedule and a number of steps into `Levels`, steps + 1 rows of (t, α, σ) from much
noise to none. The last row is always the data, α = 1 and σ = 0, where no model is ever called: the
step to it is one explicit evaluation of the denoiser, and it is counted. So N steps of a one-stage
sampler cost N evaluations on every schedule, also where the path itself ends at σ > 0.

Noise levels in a grid's settings are noise-to-signal ratios κ = σ/α; on variance-exploding
schedules, where α = 1, that is σ in the units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor

from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require

Scale = TypeVar("Scale", float, Tensor)


@dataclass(frozen=True, slots=True)
class Level(Generic[Scale]):
    """One noise level: the time and the two scales of x_t = α·x₀ + σ·ε.

    Python floats in a sampler's loop; tensors of shape (*batch, 1) where every sample has a level
    of its own, as in training.
    """

    t: Scale
    alpha: Scale
    sigma: Scale

    def in_units_of(self, std: float) -> Level[Scale]:
        """The level of x/std, where x₀ is measured in units of std: (t, α, σ/std)."""
        return Level(self.t, self.alpha, self.sigma / std)


AnyLevel = Level[float] | Level[Tensor]


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels a sampler visits, in order.

    Args:
        t: times, float64, shape (steps + 1,).
        alpha: signal scales, same shape.
        sigma: noise scales, same shape; the noise-to-signal ratio never increases.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    def __post_init__(self) -> None:
        if not self.t.shape == self.alpha.shape == self.sigma.shape or self.t.ndim != 1:
            raise ValueError("t, alpha and sigma must be vectors of the same length")
        if len(self.t) < 2:
            raise ValueError("levels need at least two rows: one step")
        stacked = torch.stack([self.t, self.alpha, self.sigma])
        if stacked.dtype != torch.float64 or not stacked.isfinite().all():
            raise ValueError("levels must be finite and float64")
        if (self.alpha < 0).any() or (self.sigma < 0).any():
            raise ValueError("alpha and sigma must not be negative")
        before, after = self.sigma[:-1] * self.alpha[1:], self.sigma[1:] * self.alpha[:-1]
        if (after > before * (1 + 1e-12)).any():
            raise ValueError("the noise-to-signal ratio must not increase along the levels")

    @property
    def steps(self) -> int:
        """The number of intervals."""
        return len(self.t) - 1

    @property
    def moving(self) -> bool:
        """Whether σ/α decreases in every step."""
        before, after = self.sigma[:-1] * self.alpha[1:], self.sigma[1:] * self.alpha[:-1]
        return bool((after < before).all())

    @property
    def held(self) -> bool:
        """Whether all rows are the same level."""
        columns = torch.stack([self.t, self.alpha, self.sigma])
        return bool((columns == columns[:, :1]).all())

    @cached_property
    def rows(self) -> list[Level[float]]:
        """The levels as Python floats."""
        columns = (self.t.tolist(), self.alpha.tolist(), self.sigma.tolist())
        return [Level(*row) for row in zip(*columns, strict=True)]

    def pairs(self) -> Iterator[tuple[int, Level[float], Level[float]]]:
        """(step, this level, next level), one a step."""
        for step in range(self.steps):
            yield step, self.rows[step], self.rows[step + 1]


#: Where a grid in σ/α begins on a path that ends without signal, σ/α = ∞.
MOST_NOISE = 1000.0


def to_data(schedule: NoiseSchedule, times: Tensor) -> Levels:
    """The levels at decreasing times > 0 (or at a σ > 0), followed by the data."""
    alpha, sigma = schedule(times)
    zero, one = times.new_zeros(1), times.new_ones(1)
    return Levels(torch.cat([times, zero]), torch.cat([alpha, one]), torch.cat([sigma, zero]))


def uniform(
    schedule: NoiseSchedule, steps: int, *, t_max: float = 1.0, t_min: float = 0.0
) -> Levels:
    """Times at equal distances from t_max down.

    Where the path reaches the data (σ(t_min) = 0), the N + 1 times t_max, …, t_min include it;
    elsewhere the N times t_max, …, t_min are followed by the step to the data.
    """
    return to_data(schedule, _times(schedule, steps, t_max, t_min, power=1))


def quadratic(
    schedule: NoiseSchedule, steps: int, *, t_max: float = 1.0, t_min: float = 0.0
) -> Levels:
    """Times whose square roots are at equal distances, denser near the data.

    Song, Meng, Ermon, "Denoising diffusion implicit models", ICLR 2021, Appendix D.2.
    """
    return to_data(schedule, _times(schedule, steps, t_max, t_min, power=2))


def polynomial(
    schedule: NoiseSchedule,
    steps: int,
    *,
    power: float = 2.0,
    t_max: float = 1.0,
    t_min: float = 0.0,
) -> Levels:
    """Times whose roots t^{1/p} are at equal distances: p = 1 is `uniform`, 2 is `quadratic`.

    Args:
        schedule: the path.
        steps: N.
        power: p; above 1 the grid is denser near the data, below 1 near the noise.
        t_max: the first time.
        t_min: the last one before the data, or the data themselves where σ(t_min) = 0.
    """
    require(0 < power < math.inf, "power", power, "positive and finite")
    return to_data(schedule, _times(schedule, steps, t_max, t_min, power=power))


def _times(schedule: NoiseSchedule, steps: int, t_max: float, t_min: float, power: float) -> Tensor:
    require(steps >= 1, "steps", steps, "at least 1")
    require(0 < t_max <= 1, "t_max", t_max, "above 0 and at most 1")
    require(0 <= t_min < t_max, "t_min", t_min, f"at least 0 and below t_max={t_max}")
    ends_at_data = float(schedule.variance(torch.tensor(t_min, dtype=torch.float64))) == 0
    count = steps + 1 if ends_at_data else steps
    roots = torch.linspace(t_max ** (1 / power), t_min ** (1 / power), count, dtype=torch.float64)
    times = roots**power
    return times[:-1] if ends_at_data else times


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    noise_min: float,
    noise_max: float | None = None,
    rho: float = 7.0,
) -> Levels:
    """κ_i = (κ_max^{1/ρ} + i/(N − 1)·(κ_min^{1/ρ} − κ_max^{1/ρ}))^ρ, then the data.

    i = 0, …, N − 1: N levels, N evaluations of a one-stage sampler; the last one is the step from
    κ_min to the data. One step goes from κ_max to the data. Karras et al., "Elucidating the design
    space of diffusion-based generative models", NeurIPS 2022 (arXiv 2206.00364), Eq. 5.

    Args:
        schedule: the path.
        steps: N.
        noise_min: smallest noise-to-signal ratio before the data; the schedule's own where that is
            larger.
        noise_max: largest one; where none is given the schedule's own at t = 1, at most 1 000:
            paths that end without signal have no largest one.
        rho: how much denser the grid is at low noise; 1 is uniform in κ.
    """
    require(0 < rho < math.inf, "rho", rho, "positive")
    low, high = _noise_range(schedule, steps, noise_min, noise_max)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return _at_noise(schedule, (top + ramp * (bottom - top)) ** rho)


def log_snr(
    schedule: NoiseSchedule, steps: int, *, noise_min: float, noise_max: float | None = None
) -> Levels:
    """The logarithm of κ at equal distances from κ_max to κ_min, N levels, then the data.

    Lu et al., "DPM-Solver", NeurIPS 2022 (arXiv 2206.00927; their λ is −ln κ). Arguments as in
    `karras`.
    """
    low, high = _noise_range(schedule, steps, noise_min, noise_max)
    logs = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64)
    return _at_noise(schedule, logs.exp())


def leading(schedule: NoiseSchedule, steps: int, *, train_steps: int | None = None) -> Levels:
    """DDPM's integers k·⌊T/N⌋, k = N − 1, …, 0, as times (integer + 1)/T, then the data.

    A model that is trained on T discrete levels, its integers 0, …, T − 1, has them at the times
    1/T, …, 1 here. Of these `leading`, `linspace` and `trailing` choose N in the three ways of Lin,
    Liu, Li, Yang, "Common diffusion noise schedules and sample steps are flawed", WACV 2024 (arXiv
    2305.08891), Table 2. This one does not start at the largest noise but about 1/N of the time
    below, so a start from the prior does not fit it. A step goes to the next of these levels,
    whichever it is; codes that take T/N off the integer step elsewhere than the grid says unless N
    divides T.

    Args:
        schedule: the path; for DDPM that is `VPLinear`, whose α² and DDPM's product differ by the
            second order of β.
        steps: N ≤ T.
        train_steps: T; None is the schedule's own: of a table its length, elsewhere 1 000.
    """
    count = _train_steps(schedule, steps, train_steps)
    integers = torch.arange(steps - 1, -1, -1) * (count // steps)
    return _at_integers(schedule, integers, count)


def linspace(schedule: NoiseSchedule, steps: int, *, train_steps: int | None = None) -> Levels:
    """DDPM's integers from T − 1 to 0 at equal distances, rounded: see `leading`.

    For N = 1 that is T − 1, where NumPy's linspace from the other end gives 0.
    """
    count = _train_steps(schedule, steps, train_steps)
    integers = torch.linspace(count - 1, 0, steps, dtype=torch.float64).round()
    return _at_integers(schedule, integers, count)


def trailing(schedule: NoiseSchedule, steps: int, *, train_steps: int | None = None) -> Levels:
    """DDPM's integers round(T − k·T/N) − 1, k = 0, …, N − 1: see `leading`.

    The first is T − 1, as it should be for a start from the prior; the last is about T/N.
    """
    count = _train_steps(schedule, steps, train_steps)
    integers = (count - torch.arange(steps).double() * count / steps).round() - 1
    return _at_integers(schedule, integers, count)


def _train_steps(schedule: NoiseSchedule, steps: int, train_steps: int | None) -> int:
    """T, as it is given or the schedule's own; it must have room for the steps."""
    count = schedule.train_steps if train_steps is None else train_steps
    require(count >= 1, "train_steps", count, "at least 1, or null for the schedule's own")
    require(1 <= steps <= count, "steps", steps, f"at least 1 and at most train_steps={count}")
    return count


def _at_integers(schedule: NoiseSchedule, integers: Tensor, train_steps: int) -> Levels:
    return to_data(schedule, (integers.double() + 1) / train_steps)


def custom(schedule: NoiseSchedule, steps: int, *, ratios: Sequence[float]) -> Levels:
    """A user's own noise-to-signal ratios, then the data.

    Args:
        schedule: the path.
        steps: N, which must be the number of ratios.
        ratios: κ = σ/α, decreasing, positive and on the path.
    """
    require(len(ratios) >= 1, "ratios", list(ratios), "a list of at least one number")
    require(steps == len(ratios), "steps", steps, f"{len(ratios)}, the number of grid.ratios")
    kappa = torch.tensor(ratios, dtype=torch.float64)
    ends = schedule.noise_to_signal(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    on_path = (kappa > 0) & (kappa >= ends[0] * (1 - 1e-9)) & (kappa <= ends[1] * (1 + 1e-9))
    good = bool((on_path & kappa.isfinite()).all() and (kappa.diff() < 0).all())
    allowed = f"decreasing, positive and finite, and from {ends[0]:.6g} to {ends[1]:.6g}: the path"
    require(good, "ratios", list(ratios), allowed)
    return _at_noise(schedule, kappa)


def hold(schedule: NoiseSchedule, steps: int, *, noise: float = 0.0) -> Levels:
    """One level, N + 1 times: for Langevin samplers, which do not move along the path.

    Args:
        schedule: the path.
        steps: N, the number of Langevin steps.
        noise: the noise-to-signal ratio to stay at; 0 is the data, also where the path does not
            reach them.
    """
    require(steps >= 1, "steps", steps, "at least 1")
    largest = float(schedule.noise_to_signal(torch.ones((), dtype=torch.float64)))
    allowed = f"at least 0 and at most {largest:.6g}, the schedule's own ratio at t=1"
    require(0 <= noise < math.inf and noise <= largest * (1 + 1e-9), "noise", noise, allowed)
    one = torch.ones(steps + 1, dtype=torch.float64)
    if noise == 0:
        return Levels(0 * one, one, 0 * one)
    time = schedule.time_at(noise * one).clamp(max=1.0)
    least = float(schedule.noise_to_signal(torch.zeros((), dtype=torch.float64)))
    require(noise >= least, "noise", noise, f"0, or at least {least:.6g}: the path's own at t=0")
    return Levels(time, *schedule(time))


def _at_noise(schedule: NoiseSchedule, noise_to_signal: Tensor) -> Levels:
    # rounding may leave a time a few ulp outside of [0, 1], where the path is not defined
    return to_data(schedule, schedule.time_at(noise_to_signal).clamp(0.0, 1.0))


def _noise_range(
    schedule: NoiseSchedule, steps: int, noise_min: float, noise_max: float | None
) -> tuple[float, float]:
    require(steps >= 1, "steps", steps, "at least 1")
    ends = schedule.noise_to_signal(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    high = min(ends[1], MOST_NOISE) if noise_max is None else noise_max
    require(
        0 < high < math.inf and high <= ends[1] * (1 + 1e-9),
        "noise_max",
        noise_max,
        f"positive, finite and at most {ends[1]:.6g}, the schedule's own ratio at t=1",
    )
    low = max(noise_min, ends[0]) if noise_min > 0 else noise_min
    require(0 < low < high, "noise_min", noise_min, f"positive and below noise_max={high:.6g}")
    return low, high
