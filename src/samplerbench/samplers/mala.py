"""The Metropolis-adjusted Langevin algorithm, MALA: Langevin steps that may be rejected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Density, Score
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Step
from samplerbench.samplers.langevin import Langevin


@dataclass(frozen=True)
class MALA(Langevin):
    """Propose x' = x + h·s(x) + √(2h)·z, and accept it with probability min(1, A), else keep x;

        A = q(x')·N(x; x' + h·s(x'), 2h) / (q(x)·N(x'; x + h·s(x), 2h)),

    s = ∇ log q at the level of a hold grid. Each sample is accepted or rejected independently. The
    proposal is a step of `ULA` with the same h, and the rejections remove the bias of ULA: q is the
    stationary law for every step size. If the step is too large, few proposals are accepted; in
    many dimensions the chain is most efficient at an acceptance of .574. `info` has the probability
    min(1, A) of each sample as `acceptance`, shape (*batch,).

    N steps take 2N + 2 evaluations: a score and a log-density per proposal and for the start. Besag
    in the discussion of Grenander and Miller, JRSS B 56(4), 1994; Roberts and Tweedie, "Exponential
    convergence of Langevin distributions and their discrete approximations", Bernoulli 2(4), 1996,
    Section 1.4; Roberts and Rosenthal, "Optimal scaling of discrete approximations to Langevin
    diffusions", JRSS B 60(1), 1998.

    Args:
        step_size: h, in the units of the data squared.
    """

    needs_density: ClassVar[bool] = True
    rejects: ClassVar[bool] = True
    affine: ClassVar[bool] = False
    step_size: float = 0.05

    def __post_init__(self) -> None:
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "positive and finite")

    def evaluations(self, steps: int) -> int:
        return 2 * steps + 2

    def steps(self, model: Score, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        assert isinstance(model, Density)  # `needs_density`
        h, level = self.step_size, levels.rows[0]
        score, log_q = model.score(x, level), model.log_density(x, level)
        for step in range(levels.steps):
            z = noise.normal(x, step)
            y = x + h * score + math.sqrt(2 * h) * z
            score_y, log_q_y = model.score(y, level), model.log_density(y, level)
            # ln N(x; y + h·s(y), 2h) − ln N(y; x + h·s(x), 2h), the latter −½‖z‖²
            back = ((x - y - h * score_y).square() / (4 * h)).sum(-1)
            log_ratio = log_q_y - log_q + 0.5 * z.square().sum(-1) - back
            acceptance = log_ratio.clamp(max=0.0).exp().nan_to_num(0.0)
            moves = noise.uniform(x[..., :1], step) < acceptance.unsqueeze(-1)
            x, score = torch.where(moves, y, x), torch.where(moves, score_y, score)
            log_q = torch.where(moves.squeeze(-1), log_q_y, log_q)
            x0_hat = (x + level.sigma**2 * score) / level.alpha
            yield Step(x, x0_hat, {"acceptance": acceptance})
