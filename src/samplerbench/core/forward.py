"""The forward process: trajectories from data to noise.

The SDE of the path is

    dx = f·x dt + g dW,   f = α̇/α,   g² = d(σ²)/dt − 2f·σ²

(Song et al. 2021, arXiv 2011.13456, Eq. 5). Its exact transition from s to t > s is

    x_t = (α_t/α_s)·x_s + √(σ_t² − (α_t/α_s)²·σ_s²)·z,   z ~ N(0, I)

(Kingma, Salimans, Poole, Ho, "Variational diffusion models", NeurIPS 2021, arXiv 2107.00630,
Appendix A). The method here is the one of `samplers.reverse_sde`, run forwards.

A trajectory begins with a given state at t = 0. If σ(0) = 0 that state is a datum. On `GeometricVE`
σ(0) > 0, and the state must contain that noise; a trajectory from a datum without it has the law of
`GeometricVEKernel`, as in the notebook N2.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require


def euler_maruyama(
    schedule: NoiseSchedule, x: Tensor, steps: int, noise: Noise, *, t_max: float = 1.0
) -> Iterator[tuple[float, Tensor]]:
    """Yield (t, x) at `steps` + 1 equally spaced times from 0: the Euler–Maruyama method.

    x_t = x_s + f·x_s·Δt + g·√Δt·z with f and g at s. Weak order 1.

    Args:
        x: the state at t = 0, shape (*batch, dim); it is yielded first.
        steps: the number of intervals.
        noise: the source of noise, one normal draw for each interval.
        t_max: the last time; below 1 if the path ends without signal, where f is infinite.
    """
    require(steps >= 1, "steps", steps, "at least 1")
    require(0 < t_max <= 1, "t_max", t_max, "above 0 and at most 1")
    times = torch.linspace(0, t_max, steps + 1, dtype=torch.float64)
    signal = float(schedule.alpha(times[-1]))
    require(signal > 0, "t_max", t_max, "below 1: the SDE's rates are infinite where α = 0")
    alpha, variance = schedule.alpha(times[:-1]), schedule.variance(times[:-1])
    alpha_rate, variance_rate = schedule.rates(times[:-1])
    f, h = alpha_rate / alpha, times.diff()
    keep, kick = 1 + h * f, (h * (variance_rate - 2 * f * variance)).sqrt()
    return _states(x, zip(times[1:].tolist(), keep.tolist(), kick.tolist(), strict=True), noise)


def _states(
    x: Tensor, coefficients: Iterator[tuple[float, float, float]], noise: Noise
) -> Iterator[tuple[float, Tensor]]:
    yield 0.0, x
    for step, (t, keep, kick) in enumerate(coefficients):
        x = keep * x + kick * noise.normal(x, step)
        yield t, x
