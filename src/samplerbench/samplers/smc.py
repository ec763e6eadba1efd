"""Sequential Monte Carlo along the noise levels: a reverse SDE whose samples are reweighted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser, Density
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.particles import Particles


@dataclass(frozen=True)
class SMC(Sampler):
    """P particles of each sample go down by a step of the reverse SDE, in x̄ = x/α and κ = σ/α

        x̄_s = x̂₀ + (κ_s/κ_t)²·(x̄_t − x̂₀) + √(κ_t² − κ_s²)·z,

    and their weights are multiplied by q_s(x_s)·N(x_t | x_s)/(q_t(x_t)·M(x_s | x_t)), where M is
    the law of this step, N(x_t | x_s) the law of the noising, and q the exact density at a level.
    The particles of a sample are resampled if their effective share is below `resample_below`. The
    sample is one of its particles, drawn with the weights as probabilities.

    The particles begin in N(0, σ²·I) at the first level, whatever the start of the job. Weights
    correct the error of this start, of the steps, and of the denoiser; the remaining error is of
    order 1/P. With exact densities the mean of the weights is an unbiased estimate of 1, for any
    number of steps and particles: `info` has its ln as `log_z`, shape (*batch,); see
    `metrics.log_z`.

    N steps take P·(2N + 1) evaluations in 2N + 1 rounds: a denoiser and a log-density per step.
    Doucet, Grathwohl, Matthews, Strathmann, "Score-based diffusion meets annealed importance
    sampling", NeurIPS 2022 (arXiv 2208.07698), for the weights; Del Moral, Doucet, Jasra,
    "Sequential Monte Carlo samplers", JRSS B 68(3), 2006.

    Args:
        particles: P.
        resample_below: an effective share from 0 (never: annealed importance sampling) to 1.
    """

    order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = True
    ends_at_data: ClassVar[bool] = False
    affine: ClassVar[bool] = False
    needs_density: ClassVar[bool] = True
    needs_signal: ClassVar[bool] = True
    estimates_log_z: ClassVar[bool] = True
    particles: int = 8
    resample_below: float = 0.5

    def __post_init__(self) -> None:
        require(self.particles >= 1, "particles", self.particles, "at least 1")
        allowed = "between 0 and 1"
        require(0 <= self.resample_below <= 1, "resample_below", self.resample_below, allowed)

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(4, 0.0)]

    def evaluations(self, steps: int) -> int:
        return self.particles * (2 * steps + 1)

    def plain_evaluations(self, steps: int) -> int:
        return self.evaluations(steps)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        assert isinstance(model, Density)  # `needs_density`
        first, like = levels.rows[0], x.expand(self.particles, *x.shape)
        z = noise.normal(like, 0, 1)
        x = first.sigma * z
        log_q = model.parallel(model.log_density, x, first)
        log_base = -0.5 * z.square().sum(-1) - x.shape[-1] * math.log(
            first.sigma * math.sqrt(2 * math.pi)
        )
        cloud = Particles.equal(x, log_q, x).reweighted(log_q - log_base)
        for step, now, to in levels.pairs():
            x, log_q, _ = cloud.states
            share = (to.sigma / to.alpha * now.alpha / now.sigma) ** 2
            spread = math.sqrt((now.sigma / now.alpha) ** 2 - (to.sigma / to.alpha) ** 2)
            x0_hat = model.parallel(model.denoiser, x, now)
            z = noise.normal(like, step)
            y = to.alpha * (x0_hat + share * (x / now.alpha - x0_hat) + spread * z)
            log_q_y = model.parallel(model.log_density, y, to)
            back = (x / now.alpha - y / to.alpha) / spread
            kernels = 0.5 * (z.square() - back.square()).sum(-1)
            kernels = kernels + x.shape[-1] * math.log(to.alpha / now.alpha)
            cloud = Particles((y, log_q_y, x0_hat), cloud.log_weights, cloud.log_z)
            cloud = cloud.reweighted(log_q_y - log_q + kernels)
            uniform = [noise.uniform(x[0, ..., :1], step, draw).squeeze(-1) for draw in (0, 1)]
            state, _, its_x0_hat = cloud.drawn(uniform[1])
            yield Step(state, its_x0_hat, {"log_z": cloud.log_z})
            cloud = cloud.resampled(self.resample_below, uniform[0])
