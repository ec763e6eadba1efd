"""Contracts of schedules, grids, targets, starts and level laws, measured.

Each function takes a member and returns its faults, one line each; a member without faults keeps
the contract of its base class. `contract` has the contract of samplers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from samplerbench.core.grids import Level, Levels, uniform
from samplerbench.core.level_laws import LevelLaw
from samplerbench.core.noise import KeyedNoise, torch_generator
from samplerbench.core.schedules import EDM, NoiseSchedule, Rectified, VPCosine
from samplerbench.core.starts import Overdispersed, Start
from samplerbench.core.targets import Target
from samplerbench.verify.exact_law import noised_law
from samplerbench.verify.orders import GAUSSIAN

Grid = Callable[[NoiseSchedule, int], Levels]

TIMES = torch.cat([torch.zeros(1), torch.logspace(-4, -1, 40), torch.linspace(0.11, 1, 200)])
DRAWS = 2**14
LEVEL = Level(0.5, 0.8, 1.3)


def schedule_faults(schedule: NoiseSchedule) -> list[str]:
    """σ/α grows from the data on, `time_at` inverts it, and `rates` are derivatives."""
    faults, t = [], TIMES.double()
    alpha, variance = schedule.alpha(t), schedule.variance(t)
    if alpha[0] != 1:
        faults.append(f"α(0) is {float(alpha[0])}, not 1")
    if not (alpha.isfinite() & variance.isfinite() & (alpha >= 0) & (variance >= 0)).all():
        faults.append("α or σ² is negative or not finite")
    ratio = schedule.noise_to_signal(t)
    if not (ratio.diff() > 0).all():
        faults.append("σ/α does not grow with t")
    error = (schedule.time_at(ratio) - t).abs().max()
    if not error < 1e-11:
        faults.append(f"time_at(noise_to_signal(t)) differs from t by {error:.1e}")
    least, largest = schedule.noise_range
    low, high = max(0.01, 1.001 * least), min(100.0, 0.999 * largest)
    ratio = torch.logspace(math.log10(low), math.log10(high), 50, dtype=torch.float64)
    error = (schedule.noise_to_signal(schedule.time_at(ratio)) / ratio - 1).abs().max()
    if not error < 1e-11:
        faults.append(f"noise_to_signal(time_at(κ)) differs from κ by {error:.1e} of κ")
    inside, h = torch.linspace(0.0501, 0.9502, 37, dtype=torch.float64), 1e-5
    with torch.no_grad():
        rates = schedule.rates(inside)
    for name, rate, function in zip(
        ("α", "σ²"), rates, (schedule.alpha, schedule.variance), strict=True
    ):
        slope = (function(inside + h) - function(inside - h)) / (2 * h)
        if rate.requires_grad or not torch.allclose(rate, slope, rtol=1e-5, atol=1e-7):
            faults.append(f"the rate of {name} is not its derivative")
    for like in (torch.full((2, 3), 0.5), torch.tensor(0.5, dtype=torch.float64)):
        values = schedule.alpha(like), schedule.variance(like), schedule.time_at(like)
        if any((v.shape, v.dtype) != (like.shape, like.dtype) for v in values):
            faults.append(f"a result has not the shape and dtype of its argument, {like.dtype}")
    return faults


def grid_faults(grid: Grid, schedule: NoiseSchedule, steps: int) -> list[str]:
    """N + 1 rows on the path, with decreasing noise down to the data, or one level all the time.

    Raises:
        InvalidSetting: the grid refuses the schedule or the number of steps.
    """
    levels, again = grid(schedule, steps), grid(schedule, steps)
    faults = []
    if levels.steps != steps:
        faults.append(f"{steps} steps have {len(levels.t)} rows")
    if not levels.held and levels.rows[-1] != Level(0.0, 1.0, 0.0):
        faults.append(f"the last row is {levels.rows[-1]}, not the data")
    if not (levels.held or levels.moving):
        faults.append("the noise does not decrease in every step")
    noisy = levels.sigma > 0
    t = levels.t[noisy]
    if (t < 0).any() or (t > 1).any():
        faults.append("a time is outside [0, 1]")
    if not levels.held and (t.diff() >= 0).any():
        faults.append("the times do not decrease")
    if not all(map(torch.equal, schedule(t), (levels.alpha[noisy], levels.sigma[noisy]))):
        faults.append("a level is not on the path")
    if not torch.equal(levels.t, again.t):
        faults.append("the same settings give other levels")
    return faults


def target_faults(target: Target) -> list[str]:
    """`denoise` after `regress` is the identity, and finite at the levels that are not refused."""
    faults = []
    x0, eps = (_normal(name, 30) for name in ("x0", "eps"))
    for schedule in (EDM(10.0), VPCosine(), Rectified()):
        t = torch.linspace(0.01, 0.99, 30, dtype=torch.float64)[:, None]
        alpha, sigma = schedule(t)
        y = target.regress(x0, eps, Level(t, alpha, sigma))
        x0_hat = target.denoise(alpha * x0 + sigma * eps, y, Level(t, alpha, sigma))
        error = (x0_hat - x0).abs().max()
        if not error < 1e-9:
            faults.append(f"on {schedule} denoise after regress differs from x₀ by {error:.1e}")
        one = Level(float(t[3]), float(alpha[3]), float(sigma[3]))
        if not torch.allclose(target.regress(x0, eps, one)[3], y[3], rtol=1e-12):
            faults.append(f"on {schedule} a level of floats gives another y than one of tensors")
    lost = uniform(Rectified(), 2)  # begins without signal
    reason, level = target.why_incompatible(lost), lost.rows[0]
    y = target.regress(x0, eps, level)
    finite = bool((y.isfinite() & target.denoise(eps, y, level).isfinite()).all())
    if finite != (reason is None) or "\n" in str(reason):
        is_or_not = "is" if finite else "is not"
        faults.append(f"without signal x̂₀ {is_or_not} finite, and the refusal is: {reason}")
    if not target.denoise(x0, eps, Level(0.0, 1.0, 0.0)).isfinite().all():
        faults.append("at the data x̂₀ is not finite")
    return faults


def start_faults(start: Start) -> list[str]:
    """Keyed float64 draws with the moments of the law: on the path, or of `combine`."""
    faults = []

    def draw(count: int, *key: int) -> Tensor:
        return start.draw(GAUSSIAN, count, LEVEL, key)

    first = draw(4, 0, 0, 0)
    if (first.shape, first.dtype) != ((4, 2), torch.float64):
        faults.append(f"4 draws are {first.dtype} of shape {tuple(first.shape)}")
    if not torch.equal(first, draw(4, 0, 0, 0)):
        faults.append("the same key gives other bits")
    for key, name in (((1, 0, 0), "seed"), ((0, 1, 0), "repetition"), ((0, 0, 1), "block")):
        if (first == draw(4, *key)).any():
            faults.append(f"the {name} does not matter")
    mean = torch.tensor(GAUSSIAN.means[0], dtype=torch.float64)
    covariance = torch.tensor(GAUSSIAN.covariances[0], dtype=torch.float64)
    identity = torch.eye(2, dtype=torch.float64)
    if isinstance(start, Overdispersed):  # its x₀ are wider, and independent
        covariance = start.factor**2 * covariance.diagonal().diag()
    if start.uses_data:
        mean, covariance = noised_law(mean, covariance, LEVEL)
    else:  # combine is affine in ε
        unknown = torch.full_like(identity, torch.nan)
        mean = start.combine(unknown, 0 * identity, LEVEL)[0]
        root = start.combine(unknown, identity, LEVEL) - mean
        covariance = root.mT @ root
    x, width = draw(DRAWS, 0, 0, 0), covariance.diagonal()
    if not ((x.mean(0) - mean).abs() < 5 * (width / DRAWS).sqrt()).all():
        faults.append(f"the mean is {x.mean(0).tolist()}, not {mean.tolist()}")
    error = ((torch.outer(width, width) + covariance.square()) / DRAWS).sqrt()
    if not ((x.mT.cov() - covariance).abs() < 5 * error).all():
        faults.append(f"the covariance is {x.mT.cov().tolist()}, not {covariance.tolist()}")
    return faults


def level_law_faults(law: LevelLaw, schedule: NoiseSchedule) -> list[str]:
    """Times in [0, 1] that only the generator decides, with ratios up to `largest`."""
    faults, before = [], torch.get_rng_state()
    first, again, other = (law.sample(1000, schedule, torch_generator("law", n)) for n in (0, 0, 1))
    if (first.shape, first.dtype) != ((1000,), torch.float64):
        faults.append(f"1000 draws are {first.dtype} of shape {tuple(first.shape)}")
    if not ((first >= 0) & (first <= 1)).all():
        faults.append("a time is outside [0, 1]")
    if not torch.equal(first, again) or torch.equal(first, other):
        faults.append("the generator does not decide the draws")
    if not torch.equal(before, torch.get_rng_state()):
        faults.append("the global random generator is used")
    largest, end = law.largest(schedule), schedule.noise_range[1]
    if not schedule.noise_to_signal(first).max() <= largest * (1 + 1e-9):
        faults.append(f"a draw has more noise than the largest, {largest:.4g}")
    if not largest <= end * (1 + 1e-9):
        faults.append(f"the largest ratio is {largest:.4g}, and the schedule ends at {end:.4g}")
    return faults


def _normal(name: str, count: int) -> Tensor:
    like = torch.empty(count, 2, dtype=torch.float64)
    return KeyedNoise(("contract", name)).normal(like, 0)
