"""Grids: the noise levels at which a sampler stops.

A grid turns a schedule, the path, and N `steps` into `Levels`, N + 1 rows of (t, α, σ) with
decreasing noise. The last row is always the data, α = 1 and σ = 0. No model is evaluated there: the
last step evaluates the denoiser at the row before. So N steps of a one-stage sampler cost N
evaluations on every schedule, even if σ(0) > 0.

A setting that is a noise level is given as the noise-to-signal ratio κ = σ/α. On variance-exploding
schedules α = 1, and κ is σ in the units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import InvalidSetting, needs, require

Array = NDArray[np.float64]
Scale = TypeVar("Scale", float, Tensor)


@dataclass(frozen=True, slots=True)
class Level(Generic[Scale]):
    """One noise level: the time and the two scales of x_t = α·x₀ + σ·ε.

    The fields are Python floats in a sampler's loop, and tensors of shape (*batch, 1) where every
    sample has its own level, as in training.
    """

    t: Scale
    alpha: Scale
    sigma: Scale

    def in_units_of(self, std: float) -> Level[Scale]:
        """The level of the state x/std: (t, α, σ/std)."""
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
        if not self.t.dtype == self.alpha.dtype == self.sigma.dtype == torch.float64:
            raise ValueError("levels must be finite and float64")
        t, alpha, sigma = self._arrays
        if not (np.isfinite(t).all() and np.isfinite(alpha).all() and np.isfinite(sigma).all()):
            raise ValueError("levels must be finite and float64")
        if (alpha < 0).any() or (sigma < 0).any():
            raise ValueError("alpha and sigma must not be negative")
        before, after = self._ratios
        if (after > before * (1 + 1e-12)).any():
            raise ValueError("the noise-to-signal ratio must not increase along the levels")

    @property
    def _arrays(self) -> tuple[Array, Array, Array]:
        """The columns as NumPy arrays: with few numbers NumPy is faster than torch."""
        return self.t.cpu().numpy(), self.alpha.cpu().numpy(), self.sigma.cpu().numpy()

    @property
    def _ratios(self) -> tuple[Array, Array]:
        """σ/α before and after each step, each multiplied by the product of both α."""
        _, alpha, sigma = self._arrays
        return sigma[:-1] * alpha[1:], sigma[1:] * alpha[:-1]

    @property
    def steps(self) -> int:
        """The number of intervals."""
        return len(self.t) - 1

    @property
    def moving(self) -> bool:
        """Whether σ/α decreases in every step."""
        before, after = self._ratios
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
        """(step, this level, next level) for every step."""
        for step in range(self.steps):
            yield step, self.rows[step], self.rows[step + 1]


#: A function that makes the levels of a schedule for a number of steps.
Grid = Callable[[NoiseSchedule, int], Levels]

#: The default κ_max on a schedule that ends without signal, κ(1) = ∞.
MOST_NOISE = 1000.0


def to_data(schedule: NoiseSchedule, times: Tensor) -> Levels:
    """The levels at decreasing times with σ > 0, followed by the data."""
    alpha, sigma = schedule(times)
    zero, one = times.new_zeros(1), times.new_ones(1)
    return Levels(torch.cat([times, zero]), torch.cat([alpha, one]), torch.cat([sigma, zero]))


def uniform(
    schedule: NoiseSchedule, steps: int, *, t_max: float = 1.0, t_min: float = 0.0
) -> Levels:
    """Equally spaced times from t_max down: `polynomial` with p = 1."""
    return polynomial(schedule, steps, power=1, t_max=t_max, t_min=t_min)


def polynomial(
    schedule: NoiseSchedule,
    steps: int,
    *,
    power: float = 2.0,
    t_max: float = 1.0,
    t_min: float = 0.0,
) -> Levels:
    """Times t with equally spaced roots t^{1/p}; p = 2 is the quadratic grid of DDIM.

    If σ(t_min) = 0 there are N + 1 times from t_max to t_min, and the last one is the data.
    Otherwise there are N times from t_max to t_min, and the data follow. Song, Meng, Ermon,
    "Denoising diffusion implicit models", ICLR 2021, Appendix D.2 (p = 2).

    Args:
        power: p. Above 1 the grid is denser near the data, below 1 near the noise.
        t_max: the first time.
        t_min: the last time, see above.
    """
    require(0 < power < math.inf, "power", power, "positive and finite")
    rows = _time_rows(schedule, steps, t_max, t_min)
    ends = t_max ** (1 / power), t_min ** (1 / power)
    times = torch.linspace(*ends, rows, dtype=torch.float64) ** power
    return to_data(schedule, times[:steps])


def flow_shift(
    schedule: NoiseSchedule,
    steps: int,
    *,
    shift: float = 3.0,
    t_max: float = 1.0,
    t_min: float = 0.0,
) -> Levels:
    """Equally spaced times t, moved to s·t/(1 + (s − 1)·t).

    On the path of rectified flow κ = t/(1 − t), and the shift multiplies each κ by s. An image with
    k times as many pixels needs s = √k for the same uncertainty. The ends are as in `polynomial`.
    Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis", ICML
    2024 (arXiv 2403.03206), Eq. 23.

    Args:
        shift: s. Above 1 the grid is denser near the noise; 1 is `uniform`.
        t_max: the first time, before the shift.
        t_min: the last time, before the shift.
    """
    require(0 < shift < math.inf, "shift", shift, "positive and finite")
    rows = _time_rows(schedule, steps, t_max, t_min)
    times = torch.linspace(t_max, t_min, rows, dtype=torch.float64)
    return to_data(schedule, (shift * times / (1 + (shift - 1) * times))[:steps])


def beta(
    schedule: NoiseSchedule,
    steps: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.6,
    t_max: float = 1.0,
    t_min: float = 0.001,
) -> Levels:
    """Times t_min + (t_max − t_min)·F⁻¹(u) with equally spaced u, F of the Beta(a, b) law.

    a = b = .6 makes the grid denser at both ends. The ends are as in `polynomial`. Lee et al.,
    "Beta sampling is all you need", 2024 (arXiv 2407.12173).

    Args:
        alpha: a. Below 1 the grid is dense near t_min.
        beta: b. Below 1 the grid is dense near t_max.
        t_max: the first time.
        t_min: the last time.
    """
    from scipy.special import betaincinv  # slow to import

    for name, value in (("alpha", alpha), ("beta", beta)):
        require(0 < value < math.inf, name, value, "positive and finite")
    rows = _time_rows(schedule, steps, t_max, t_min)
    quantiles = betaincinv(alpha, beta, torch.linspace(1, 0, rows, dtype=torch.float64).numpy())
    times = t_min + (t_max - t_min) * torch.from_numpy(quantiles)
    return to_data(schedule, times[:steps])


def _time_rows(schedule: NoiseSchedule, steps: int, t_max: float, t_min: float) -> int:
    """The number of times from t_max to t_min: N, or N + 1 if the last one is the data."""
    require(steps >= 1, "steps", steps, "at least 1")
    require(0 < t_max <= 1, "t_max", t_max, "above 0 and at most 1")
    require(0 <= t_min < t_max, "t_min", t_min, f"at least 0 and below t_max={t_max}")
    return steps + (float(schedule.variance(torch.tensor(t_min, dtype=torch.float64))) == 0)


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    noise_min: float,
    noise_max: float | None = None,
    rho: float = 7.0,
) -> Levels:
    """κ_i = (κ_max^{1/ρ} + i/(N − 1)·(κ_min^{1/ρ} − κ_max^{1/ρ}))^ρ, then the data.

    i = 0, …, N − 1. For N = 1 the only level is κ_max. Karras et al., "Elucidating the design space
    of diffusion-based generative models", NeurIPS 2022 (arXiv 2206.00364), Eq. 5.

    Args:
        noise_min: κ_min, or κ(0) of the schedule if that is larger.
        noise_max: κ_max. None is κ(1) of the schedule, but at most 1 000, since κ(1) is infinite on
            a schedule that ends without signal.
        rho: ρ. The larger it is, the denser the grid is at low noise; 1 is uniform in κ.
    """
    require(0 < rho < math.inf, "rho", rho, "positive")
    low, high = noise_range(schedule, noise_min, noise_max, steps)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return at_noise(schedule, (top + ramp * (bottom - top)) ** rho)


def log_snr(
    schedule: NoiseSchedule, steps: int, *, noise_min: float, noise_max: float | None = None
) -> Levels:
    """N values of κ from κ_max to κ_min with equally spaced logarithms, then the data.

    Lu et al., "DPM-Solver", NeurIPS 2022 (arXiv 2206.00927; their λ is −ln κ). Arguments as in
    `karras`.
    """
    low, high = noise_range(schedule, noise_min, noise_max, steps)
    logs = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64)
    return at_noise(schedule, logs.exp())


def tangent(
    schedule: NoiseSchedule,
    steps: int,
    *,
    scale: float = 1.0,
    noise_min: float,
    noise_max: float | None = None,
) -> Levels:
    """κ_i = c·tan(a_i) with N equally spaced angles from arctan(κ_max/c) to arctan(κ_min/c).

    The data follow. On N(0, c²·I) these levels are the best ones for Euler's method in σ. Sabour,
    Fidler, Kreis, "Align your steps: optimizing sampling schedules in diffusion models", ICML 2024
    (arXiv 2404.14507), Theorem 3.1. Other arguments as in `karras`.

    Args:
        scale: c, the standard deviation of the data.
        noise_min: κ_min.
        noise_max: κ_max.
    """
    require(0 < scale < math.inf, "scale", scale, "positive and finite")
    low, high = noise_range(schedule, noise_min, noise_max, steps)
    ends = math.atan(high / scale), math.atan(low / scale)
    angles = torch.linspace(*ends, steps, dtype=torch.float64)
    return at_noise(schedule, scale * angles.tan())


def leading(schedule: NoiseSchedule, steps: int, *, train_steps: int | None = None) -> Levels:
    """DDPM's integers k·⌊T/N⌋, k = N − 1, …, 0, as times (integer + 1)/T, then the data.

    A discrete DDPM numbers its T levels 0, …, T − 1; here they are at the times 1/T, …, 1.
    `leading`, `linspace` and `trailing` choose N of them in the three ways of Lin, Liu, Li, Yang,
    "Common diffusion noise schedules and sample steps are flawed", WACV 2024 (arXiv 2305.08891),
    Table 2. This grid begins about 1/N below the largest time, so the prior is a poor start for it.
    Every step goes to the next level of the grid. Codes that subtract T/N from the integer miss the
    levels of their own grid unless N divides T.

    Args:
        schedule: the path. DDPM's is `VPLinear`, up to terms of second order in β.
        steps: N ≤ T.
        train_steps: T; None is `schedule.train_steps`.
    """
    train_steps = _train_steps(schedule, steps, train_steps)
    integers = torch.arange(steps - 1, -1, -1) * (train_steps // steps)
    return _at_integers(schedule, integers, train_steps)


def linspace(schedule: NoiseSchedule, steps: int, *, train_steps: int | None = None) -> Levels:
    """Equally spaced integers of DDPM from T − 1 to 0, rounded; T − 1 for N = 1. See `leading`."""
    train_steps = _train_steps(schedule, steps, train_steps)
    integers = torch.linspace(train_steps - 1, 0, steps, dtype=torch.float64).round()
    return _at_integers(schedule, integers, train_steps)


def trailing(schedule: NoiseSchedule, steps: int, *, train_steps: int | None = None) -> Levels:
    """DDPM's integers round(T − k·T/N) − 1, k = 0, …, N − 1. See `leading`.

    The first is T − 1, which fits a start from the prior; the last is about T/N.
    """
    train_steps = _train_steps(schedule, steps, train_steps)
    integers = (train_steps - torch.arange(steps).double() * train_steps / steps).round() - 1
    return _at_integers(schedule, integers, train_steps)


def _train_steps(schedule: NoiseSchedule, steps: int, train_steps: int | None) -> int:
    """T, checked against the number of steps."""
    t = schedule.train_steps if train_steps is None else train_steps
    require(t >= 1, "train_steps", t, "at least 1, or null for the schedule's own")
    require(1 <= steps <= t, "steps", steps, f"at least 1 and at most train_steps={t}")
    return t


def _at_integers(schedule: NoiseSchedule, integers: Tensor, train_steps: int) -> Levels:
    return to_data(schedule, (integers.double() + 1) / train_steps)


def custom(schedule: NoiseSchedule, steps: int, *, ratios: Sequence[float]) -> Levels:
    """Given noise-to-signal ratios, then the data.

    Args:
        steps: N, the number of ratios.
        ratios: κ, decreasing, positive and within the range of the schedule.
    """
    require(len(ratios) >= 1, "ratios", list(ratios), "a list of at least one number")
    require(steps == len(ratios), "steps", steps, f"{len(ratios)}, the number of grid.ratios")
    kappa = torch.tensor(ratios, dtype=torch.float64)
    least, largest = schedule.noise_range
    inside = (kappa > 0) & (kappa >= least * (1 - 1e-9)) & (kappa <= largest * (1 + 1e-9))
    good = bool((inside & kappa.isfinite()).all() and (kappa.diff() < 0).all())
    span = f"between {least:.6g} and {largest:.6g}, the schedule's σ/α at t=0 and t=1"
    require(good, "ratios", list(ratios), f"decreasing, positive, finite and {span}")
    return at_noise(schedule, kappa)


@dataclass(frozen=True)
class LogLinear:
    """N levels whose ln κ is interpolated in a list of κ, then the data.

    N = the length of the list gives the list itself; for N = 1 it is the first κ.

    Args:
        ratios: κ, decreasing, at least two. The first may be up to 1 % above the largest κ of the
            path, which then replaces it, because tables are printed with few digits.
    """

    ratios: Sequence[float]

    def __post_init__(self) -> None:
        kappa = torch.tensor(self.ratios, dtype=torch.float64)
        good = len(kappa) > 1 and bool((kappa > 0).all() and kappa.isfinite().all())
        good = good and bool((kappa.diff() < 0).all())
        require(good, "ratios", list(self.ratios), "at least two decreasing, positive numbers")

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        require(steps >= 1, "steps", steps, "at least 1")
        least, largest = schedule.noise_range
        first, last = self.ratios[0], self.ratios[-1]
        allowed = f"one whose σ/α reaches from {last:g} to {first:g}, as the table does"
        fits = last >= least * (1 - 1e-9) and first <= largest * 1.01
        require(fits, "schedule", type(schedule).__name__, allowed)
        logs = torch.tensor(self.ratios, dtype=torch.float64).log()
        logs[0] = min(float(logs[0]), math.log(largest))
        places = torch.linspace(0, len(logs) - 1, steps, dtype=torch.float64)
        left = places.floor().clamp(max=len(logs) - 2).long()
        between = torch.lerp(logs[left], logs[left + 1], places - left)
        return at_noise(schedule, between.exp())


def ays_table(table: str = "StableDiffusion") -> LogLinear:
    """A table of the Align Your Steps grids that diffusers ships: ten κ for a large model.

    Other N are interpolated log-linearly, as the authors advise. Sabour, Fidler, Kreis, ICML 2024
    (arXiv 2404.14507).

    Args:
        table: StableDiffusion, StableDiffusionXL or StableDiffusionVideo.

    Raises:
        InvalidSetting: diffusers is not installed, or has no such table.
    """
    with needs("diffusers", "images"):
        from diffusers.schedulers import AysSchedules
    end = "Sigmas"
    names = [name.removesuffix(end) for name in AysSchedules if name.endswith(end)]
    require(table in names, "table", table, f"one of {', '.join(names)}")
    return LogLinear(tuple(ratio for ratio in AysSchedules[table + end] if ratio > 0))


def hold(schedule: NoiseSchedule, steps: int, *, noise: float = 0.0) -> Levels:
    """The same level N + 1 times, for Langevin samplers, which do not move along the path.

    Args:
        steps: N, the number of Langevin steps.
        noise: κ of the level. 0 is the data, even on a schedule with κ(0) > 0.
    """
    require(steps >= 1, "steps", steps, "at least 1")
    least, largest = schedule.noise_range
    allowed = f"at least 0 and at most {largest:.6g}, the schedule's σ/α at t=1"
    require(0 <= noise < math.inf and noise <= largest * (1 + 1e-9), "noise", noise, allowed)
    one = torch.ones(steps + 1, dtype=torch.float64)
    if noise == 0:
        return Levels(0 * one, one, 0 * one)
    allowed = f"0, or at least {least:.6g}, the schedule's σ/α at t=0"
    require(noise >= least, "noise", noise, allowed)
    time = schedule.time_at(noise * one).clamp(max=1.0)
    return Levels(time, *schedule(time))


def for_samplers(grid: Grid, schedule: NoiseSchedule, steps: int, holds: bool) -> Grid:
    """The grid for samplers that stay at one level (`holds`), or for samplers that move.

    If the grid of the job moves, samplers that hold stay at the level of the data.
    """
    return hold if holds and not grid(schedule, steps).held else grid


@dataclass(frozen=True, eq=False)
class TruncatedLevels(Levels):
    """Levels that end at the smallest σ > 0 of a grid."""


@dataclass(frozen=True)
class Truncated:
    """The levels of another grid without σ = 0: N steps, the last one to the smallest σ > 0.

    These are the levels of that grid for N + 1 steps, without the last level. Grids that stay at
    one level, or end with noise, are not changed.
    """

    grid: Grid

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        try:
            levels = self.grid(schedule, steps + 1)
        except InvalidSetting as error:
            if error.field != "steps":
                raise
            allowed = f"one less than with final=denoise, where it must be {error.allowed}"
            raise InvalidSetting("steps", steps, allowed) from error
        if levels.held or levels.rows[-1].sigma > 0:
            return self.grid(schedule, steps)
        return TruncatedLevels(levels.t[:-1], levels.alpha[:-1], levels.sigma[:-1])


def in_data_units(x: Tensor, levels: Levels) -> Tensor:
    """The output of a run: the last state x, or x/α if the levels are truncated."""
    return x / levels.rows[-1].alpha if isinstance(levels, TruncatedLevels) else x


def at_noise(schedule: NoiseSchedule, noise_to_signal: Tensor) -> Levels:
    """The levels at decreasing κ > 0, followed by the data."""
    # rounding may put a time a few ulp outside [0, 1], where the schedule is not defined
    return to_data(schedule, schedule.time_at(noise_to_signal).clamp(0.0, 1.0))


def noise_range(
    schedule: NoiseSchedule, noise_min: float, noise_max: float | None, steps: int
) -> tuple[float, float]:
    """κ_min and κ_max on a path, as defined in `karras`."""
    require(steps >= 1, "steps", steps, "at least 1")
    least, largest = schedule.noise_range
    high = min(largest, MOST_NOISE) if noise_max is None else noise_max
    allowed = f"positive, finite and at most {largest:.6g}, the schedule's σ/α at t=1"
    require(0 < high < math.inf and high <= largest * (1 + 1e-9), "noise_max", noise_max, allowed)
    low = max(noise_min, least) if noise_min > 0 else noise_min
    require(0 < low < high, "noise_min", noise_min, f"positive and below noise_max={high:.6g}")
    return low, high
