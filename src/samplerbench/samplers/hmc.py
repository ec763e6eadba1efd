"""Hamiltonian Monte Carlo: proposals at the end of a trajectory, which may be rejected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Density, Score
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Step
from samplerbench.samplers.langevin import Langevin


@dataclass(frozen=True)
class HMC(Langevin):
    """Draw a velocity v ~ N(0, I), follow the leapfrog steps

        v ← v + ½ε·s(x),   x ← x + ε·v,   v ← v + ½ε·s(x),

    L times to (x', v'), and accept x' with probability min(1, e^{H − H'}), H = −ln q(x) + ½‖v‖².

    s = ∇ ln q at the level of a hold grid. q is the stationary law for every step size. In many
    dimensions the chain is most efficient at an acceptance of .651, with ε ∝ dim^{−1/4}. With L = 1
    it is MALA with h = ½ε². One step of the sampler is one trajectory: N steps take
    2 + N·(L + 1) evaluations: L scores and a log-density per step, and one of each for the start.
    `info` has min(1, e^{H − H'}) as `acceptance`, shape (*batch,). Duane, Kennedy, Pendleton,
    Roweth, "Hybrid Monte Carlo", Physics Letters B 195(2), 1987; Neal, "MCMC using Hamiltonian
    dynamics", Handbook of Markov Chain Monte Carlo, 2011, Section 3; Beskos et
    al., "Optimal tuning of the hybrid Monte Carlo algorithm", Bernoulli 19(5A), 2013.

    Args:
        step_size: ε, in the units of the data.
        leapfrog: L.
    """

    needs_density: ClassVar[bool] = True
    rejects: ClassVar[bool] = True
    affine: ClassVar[bool] = False
    step_size: float = 0.3
    leapfrog: int = 5

    def __post_init__(self) -> None:
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "positive and finite")
        require(self.leapfrog >= 1, "leapfrog", self.leapfrog, "at least 1")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(0.4, 1)]

    def evaluations(self, steps: int) -> int:
        return 2 + steps * (self.leapfrog + 1)

    def steps(self, model: Score, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        assert isinstance(model, Density)  # `needs_density`
        level, size = levels.rows[0], self.step_size

        def slope_at(y: Tensor) -> Tensor:
            return model.score(y, level)

        score, log_q = model.score(x, level), model.log_density(x, level)
        for step in range(levels.steps):
            v = noise.normal(x, step)
            before = log_q - 0.5 * v.square().sum(-1)
            y, v, slope = trajectory(slope_at, x, v, score, size, self.leapfrog)
            log_q_y = model.log_density(y, level)
            log_ratio = log_q_y - 0.5 * v.square().sum(-1) - before
            acceptance = log_ratio.clamp(max=0.0).exp().nan_to_num(0.0)
            moves = noise.uniform(x[..., :1], step) < acceptance.unsqueeze(-1)
            x, score = torch.where(moves, y, x), torch.where(moves, slope, score)
            log_q = torch.where(moves.squeeze(-1), log_q_y, log_q)
            x0_hat = (x + level.sigma**2 * score) / level.alpha
            yield Step(x, x0_hat, {"acceptance": acceptance})


def trajectory(
    slope_at: Callable[[Tensor], Tensor],
    x: Tensor,
    v: Tensor,
    slope: Tensor,
    size: float | Tensor,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """States, velocities and slopes after leapfrog steps of size ε, given the slopes at x.

    Slopes are gradients of the log-density. A tensor ε gives different states different sizes.
    """
    for _ in range(count):
        v = v + 0.5 * size * slope
        x = x + size * v
        slope = slope_at(x)
        v = v + 0.5 * size * slope
    return x, v, slope
