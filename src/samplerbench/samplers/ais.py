"""Annealed importance sampling from a Gaussian to a density, with or without resampling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Density, Score
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Step
from samplerbench.samplers.hmc import trajectory
from samplerbench.samplers.langevin import Langevin
from samplerbench.samplers.particles import Particles


@dataclass(frozen=True)
class AIS(Langevin):
    """P particles of each sample go through the laws π_i ∝ p₀^{1−β_i}·q^{β_i}, β_i = (i/N)².

    They begin in p₀ = N(0, std²·I), whatever the start of the job; q is the law at the level of a
    hold grid. In step i the weights are multiplied by (q/p₀)^{β_i − β_{i−1}}, particles are
    resampled if their effective share is below `resample_below`, and each moves by a trajectory of
    `HMC` on π_i. The sample is one of its particles, drawn with the weights as probabilities.

    The error of the law of the samples falls with P and with N. The mean of the weights is an
    unbiased estimate of ∫q for any P and N: `info` has its ln as `log_z`, shape (*batch,); see
    `metrics.log_z`. Earlier states do not have the law of the last one, so they are not a chain.

    N steps take P·(2 + N·(L + 1)) evaluations in 2 + N·(L + 1) rounds. Neal, "Annealed importance
    sampling", Statistics and Computing 11, 2001; with resampling Del Moral, Doucet, Jasra,
    "Sequential Monte Carlo samplers", JRSS B 68(3), 2006.

    Args:
        particles: P.
        step_size: ε of the trajectories, in the units of the data.
        leapfrog: L.
        std: the standard deviation of p₀ in every coordinate; p₀ should be wider than the law.
        resample_below: an effective share from 0 (never) to 1.
    """

    needs_density: ClassVar[bool] = True
    rejects: ClassVar[bool] = True
    affine: ClassVar[bool] = False
    anneals: ClassVar[bool] = True
    estimates_log_z: ClassVar[bool] = True
    particles: int = 8
    step_size: float = 0.3
    leapfrog: int = 2
    std: float = 3.0
    resample_below: float = 0.5

    def __post_init__(self) -> None:
        require(self.particles >= 1, "particles", self.particles, "at least 1")
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "positive and finite")
        require(self.leapfrog >= 1, "leapfrog", self.leapfrog, "at least 1")
        require(0 < self.std < math.inf, "std", self.std, "positive and finite")
        allowed = "between 0 and 1"
        require(0 <= self.resample_below <= 1, "resample_below", self.resample_below, allowed)

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(4, 0.6, std=2.0, resample_below=0.0)]

    def evaluations(self, steps: int) -> int:
        return self.particles * (2 + steps * (self.leapfrog + 1))

    def steps(self, model: Score, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        assert isinstance(model, Density)  # `needs_density`
        level, like = levels.rows[0], x.expand(self.particles, *x.shape)

        def log_base(y: Tensor) -> Tensor:
            squares = (y / self.std).square().sum(-1)
            return -0.5 * squares - y.shape[-1] * math.log(self.std * math.sqrt(2 * math.pi))

        def score_at(y: Tensor) -> Tensor:
            return model.parallel(model.score, y, level)

        x = self.std * noise.normal(like, 0, 1)
        log_q = model.parallel(model.log_density, x, level)
        cloud, before = Particles.equal(x, score_at(x), log_q), 0.0
        for step in range(levels.steps):
            beta = ((step + 1) / levels.steps) ** 2
            x, _, log_q = cloud.states
            cloud = cloud.reweighted((beta - before) * (log_q - log_base(x)))
            uniform = [noise.uniform(x[0, ..., :1], step, draw).squeeze(-1) for draw in (0, 1)]
            cloud, before = cloud.resampled(self.resample_below, uniform[0]), beta
            x, score, log_q = cloud.states
            # its end holds the score of q at the end of the trajectory
            last = [score]

            def slope_at(y: Tensor, beta: float = beta, last: list[Tensor] = last) -> Tensor:
                last[0] = score_at(y)
                return beta * last[0] - (1 - beta) * y / self.std**2

            slope = beta * score - (1 - beta) * x / self.std**2
            v = noise.normal(like, step)
            y, w, _ = trajectory(slope_at, x, v, slope, self.step_size, self.leapfrog)
            log_q_y = model.parallel(model.log_density, y, level)
            gain = beta * (log_q_y - log_q) + (1 - beta) * (log_base(y) - log_base(x))
            gain = gain + 0.5 * (v.square() - w.square()).sum(-1)
            acceptance = gain.clamp(max=0.0).exp().nan_to_num(0.0)
            moves = noise.uniform(like[..., :1], step, 2) < acceptance.unsqueeze(-1)
            x, score = torch.where(moves, y, x), torch.where(moves, last[0], score)
            log_q = torch.where(moves.squeeze(-1), log_q_y, log_q)
            cloud = Particles((x, score, log_q), cloud.log_weights, cloud.log_z)
            state, its_score, _ = cloud.drawn(uniform[1])
            x0_hat = (state + level.sigma**2 * its_score) / level.alpha
            yield Step(state, x0_hat, {"acceptance": acceptance.mean(0), "log_z": cloud.log_z})
