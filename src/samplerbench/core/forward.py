"""The forward process: how data turn into noise, as trajectories.

The path's SDE and its transition kernel from time s to t > s are

    dx = f·x dt + g dW,   f = α̇/α,   g² = d(σ²)/dt − 2f·σ²,
    x_t = (α_t/α_s)·x_s + √(σ_t² − (α_t/α_s)²·σ_s²)·z,   z ~ N(0, I)

(Song et al. 2021, arXiv 2011.13456, Eq. 5; Kingma, Salimans, Poole, Ho, "Variational diffusion
models", NeurIPS 2021, arXiv 2107.00630, Appendix A). The kernel is exact at any step, also to a
time without signal, and is what you want: `path`. `euler_maruyama` is the scheme that the reverse
SDE is solved with, run forwards, to see what the scheme itself costs.

A trajectory begins at t = 0 with the state it is given. That is a datum where σ(0) = 0. A path that
keeps noise at t = 0, `GeometricVE`, expects it in that state; from a bare datum it has the law of
`GeometricVEKernel` instead, as in the notebook N2.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require


def path(
    schedule: NoiseSchedule, x: Tensor, steps: int, noise: Noise, *, t_max: float = 1.0
) -> Iterator[tuple[float, Tensor]]:
    """(t, x) at `steps` + 1 times at equal distances from 0, by the exact transition kernel.

    Args:
        schedule: the path.
        x: the state at t = 0, shape (*batch, dim); it is the first that is yielded.
        steps: the number of intervals.
        noise: where noise comes from: one normal draw for each interval.
        t_max: the last time.
    """
    times = _times(steps, t_max)
    alpha, variance = schedule.alpha(times), schedule.variance(times)
    ratio = alpha[1:] / alpha[:-1]
    # rounding may leave a negative variance of a few ulp
    kick = (variance[1:] - ratio.square() * variance[:-1]).clamp_min(0).sqrt()
    return _affine(times, x, ratio, kick, noise)


def euler_maruyama(
    schedule: NoiseSchedule, x: Tensor, steps: int, noise: Noise, *, t_max: float = 1.0
) -> Iterator[tuple[float, Tensor]]:
    """The same by x_t = x_s + f·x_s·Δt + g·√Δt·z with f and g at s: weak order 1.

    Arguments as in `path`. f and g are infinite where no signal is left, so there t_max must be
    below 1.
    """
    times = _times(steps, t_max)
    signal = float(schedule.alpha(times[-1]))
    require(signal > 0, "t_max", t_max, "below 1: the SDE's rates are infinite where α = 0")
    alpha_rate, variance_rate = schedule.rates(times[:-1])
    alpha, variance = schedule.alpha(times[:-1]), schedule.variance(times[:-1])
    f, h = alpha_rate / alpha, times.diff()
    return _affine(times, x, 1 + h * f, (h * (variance_rate - 2 * f * variance)).sqrt(), noise)


def _affine(
    times: Tensor, x: Tensor, keep: Tensor, kick: Tensor, noise: Noise
) -> Iterator[tuple[float, Tensor]]:
    start, *later = times.tolist()
    yield start, x
    for step, (t, k, g) in enumerate(zip(later, keep.tolist(), kick.tolist(), strict=True)):
        x = k * x + g * noise.normal(x, step)
        yield t, x


def _times(steps: int, t_max: float) -> Tensor:
    require(steps >= 1, "steps", steps, "at least 1")
    require(0 < t_max <= 1, "t_max", t_max, "above 0 and at most 1")
    return torch.linspace(0, t_max, steps + 1, dtype=torch.float64)
