"""The adaptive Dormand–Prince 5(4) method on the probability-flow ODE, with steps per sample."""

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
from samplerbench.errors import require
from samplerbench.samplers.base import Deterministic, Step, slope_at

_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
#: The last row gives the new state, so its slope is also the first slope of the next step.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
#: The weights of order 5 minus those of order 4.
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class DormandPrince(Deterministic):
    """dx/dt = a·x + b·x̂₀ by steps h whose estimated error is within tolerance:

        e = √mean_i (e_i/(atol + rtol·max(|x_i|, |x'_i|)))² ≤ 1,   h ← h·min(10, max(⅕, .9·e^{−⅕})).

    Every sample has its own time, step size and error control, so it does not depend on the other
    samples; codes with an error norm over the batch couple them. States are yielded at the levels,
    which are reached exactly, without interpolation. The step to the data is x̂₀, as in all
    samplers. The first attempt is the first interval. The time is that of the schedule.

    Evaluations are calls for the batch: 1 + 6·(attempts of the slowest sample, summed over the
    levels), rejected attempts included. `info` has the counts `accepted` and `rejected` of each
    sample in the step, shape (*batch,). More levels cost more evaluations. A sample becomes NaN if
    it does not arrive at a level after `attempts` attempts, or if its step is too short to change
    the time.

    Order 5; the error depends on the tolerance, not on the number of levels. Dormand and Prince, "A
    family of embedded Runge–Kutta formulae", Journal of Computational and Applied Mathematics 6(1),
    1980, RK5(4)7M; step size control as in Hairer, Nørsett, Wanner, "Solving ordinary differential
    equations I", 1993, Eqs. II.4.11 and II.4.13; as a sampler Song et al. 2021 (arXiv 2011.13456),
    Section 4.3 with rtol = atol = 10⁻⁵.

    Args:
        rtol: tolerance relative to each coordinate.
        atol: absolute tolerance, in the units of the state.
        attempts: the largest number of steps, accepted or rejected, of a sample between two levels.
    """

    order: ClassVar[int] = 5
    adaptive: ClassVar[bool] = True
    rtol: float = 1e-4
    atol: float = 1e-4
    attempts: int = 1000

    def __post_init__(self) -> None:
        require(0 < self.rtol < math.inf, "rtol", self.rtol, "positive and finite")
        require(0 < self.atol < math.inf, "atol", self.atol, "positive and finite")
        require(self.attempts >= 1, "attempts", self.attempts, "at least 1")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(1e-2, 1e-2)]

    def evaluations(self, steps: int) -> int | None:
        return None

    def least_evaluations(self, steps: int, *, plain: bool = False) -> int:
        return 1 + 6 * (steps if plain else steps - 1)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        rows = levels.rows
        t = torch.full_like(x[..., :1], rows[0].t, dtype=torch.float64)
        trial = torch.full_like(t, rows[1].t - rows[0].t)
        slope, x0_hat = _slope(model, x, t)
        for _, _, to in levels.pairs():
            counts = torch.zeros_like(t), torch.zeros_like(t)
            if to.sigma == 0:  # x̂₀ of this state was computed with its slope
                x = x0_hat
            else:
                for _ in range(self.attempts):
                    # a sample stops if its step is too short to change the time
                    going = (t > to.t) & (t + trial < t) & x.isfinite().all(-1, keepdim=True)
                    if not going.any():
                        break
                    last = trial <= to.t - t
                    h = torch.where(last, to.t - t, trial)
                    new, (new_slope, new_x0_hat), error = _attempt(model, x, t, h, slope)
                    scale = self.atol + self.rtol * torch.maximum(x.abs(), new.abs())
                    size = (error / scale).square().mean(-1, keepdim=True).sqrt().double()
                    # a NaN means that the step was far too long
                    factor = (0.9 * size.pow(-0.2)).nan_to_num(0.2).clamp(0.2, 10.0)
                    kept = going & (size <= 1)
                    # a step that was cut at the level must not shorten the next one
                    next_trial = torch.where(
                        kept & last, torch.minimum(trial, factor * h), factor * h
                    )
                    trial = torch.where(going, next_trial, trial)
                    t = torch.where(kept, torch.where(last, to.t, t + h), t)
                    x, slope = torch.where(kept, new, x), torch.where(kept, new_slope, slope)
                    x0_hat = torch.where(kept, new_x0_hat, x0_hat)
                    counts = counts[0] + kept, counts[1] + (going & ~kept)
                late = t > to.t
                x, x0_hat = (torch.where(late, math.nan, values) for values in (x, x0_hat))
            info = {"accepted": counts[0].squeeze(-1), "rejected": counts[1].squeeze(-1)}
            yield Step(x, x0_hat, info)


def _attempt(
    model: Denoiser, x: Tensor, t: Tensor, h: Tensor, slope: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """A step h: the new state, its slope and x̂₀, and the estimated error."""
    step, slopes, new, last = h.to(x.dtype), [slope], x, (slope, x)
    for node, weights in zip(_NODES, _STAGES, strict=True):
        new = x + step * _sum(weights, slopes)
        last = _slope(model, new, t + node * h)
        slopes.append(last[0])
    return new, last, step * _sum(_ERROR, slopes)


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight != 0:
            total = total + weight * slope
    return total


def _slope(model: Denoiser, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """a·x + b·x̂₀ and x̂₀ of states with their own times, t of shape (*batch, 1)."""
    alpha, sigma = model.schedule(t)
    columns = (t, alpha, sigma, *slope_at(model.schedule, t, alpha, sigma))
    t, alpha, sigma, a, b = (v.to(x.dtype) for v in columns)
    x0_hat = model.denoiser(x, Level(t, alpha, sigma))
    return a * x + b * x0_hat, x0_hat
