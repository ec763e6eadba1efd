"""Replica exchange (parallel tempering): chains at several temperatures that swap their states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Density, Score
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Step
from samplerbench.samplers.hmc import HMC, trajectory


@dataclass(frozen=True)
class ReplicaExchange(HMC):
    """K replicas of each chain, with the laws q^{1/T_k}, 1 = T_1 < … < T_K. A step is

    - a trajectory of `HMC` of each replica, with velocities v ~ N(0, T_k·I), which is accepted with
      probability min(1, e^{(H − H')/T_k});
    - swaps of neighbours, x_k ↔ x_{k+1}, for k = 1, 3, … in one step and 2, 4, … in the next, with
      probability min(1, e^{(1/T_k − 1/T_{k+1})·(ln q(x_{k+1}) − ln q(x_k))}).

    The product of the laws is stationary, and the state of the chain is that of T_1, with law q.
    Hot replicas cross the barriers between modes, and swaps bring their states to the cold one. The
    temperatures are a geometric sequence; with one replica the method is `HMC`, with the same bits.
    All replicas begin at the start of the chain.

    N steps take K·(2 + N·(L + 1)) evaluations in 2 + N·(L + 1) rounds, since the replicas are
    evaluated in parallel. `info` has `acceptance`, that of the cold replica's trajectory, and
    `exchange`, the mean probability of the swaps of the step, shape (*batch,) each. Geyer, "Markov
    chain Monte Carlo maximum likelihood", Computing Science and Statistics 23, 1991; the
    alternating swaps are those of Syed, Bouchard-Côté, Deligiannidis, Doucet, "Non-reversible
    parallel tempering: a scalable highly parallel MCMC scheme", JRSS B 84(2), 2022 (arXiv
    1905.02939).

    Args:
        step_size: ε at T = 1, in the units of the data.
        leapfrog: L.
        replicas: K.
        temperature: T_K.
    """

    replicas: int = 5
    temperature: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.replicas >= 1, "replicas", self.replicas, "at least 1")
        allowed = "above 1 and finite"
        require(1 < self.temperature < math.inf, "temperature", self.temperature, allowed)

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(0.4, 1, replicas=2, temperature=3.0)]

    @property
    def temperatures(self) -> list[float]:
        """T_1, …, T_K."""
        last = max(1, self.replicas - 1)
        return [self.temperature ** (place / last) for place in range(self.replicas)]

    def evaluations(self, steps: int) -> int:
        return self.replicas * (2 + steps * (self.leapfrog + 1))

    def steps(self, model: Score, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        assert isinstance(model, Density)  # `needs_density`
        level, count = levels.rows[0], self.replicas
        heat = torch.tensor(self.temperatures, dtype=torch.float64).to(x)
        heat = heat.reshape(count, *[1] * x.ndim)
        beta = 1 / heat.squeeze(-1)
        places = torch.arange(count, device=x.device).reshape(beta.shape)

        def score_at(states: Tensor) -> Tensor:
            return model.parallel(model.score, states, level)

        x = x.expand(count, *x.shape)
        score, log_q = score_at(x), model.parallel(model.log_density, x, level)
        for step in range(levels.steps):
            normal = [noise.normal(x[0], step, place) for place in range(count)]
            uniform = [noise.uniform(x[0, ..., :1], step, place) for place in range(2 * count - 1)]
            v = heat.sqrt() * torch.stack(normal)
            before = log_q - 0.5 * v.square().sum(-1)
            y, v, slope = trajectory(score_at, x, v, score, self.step_size, self.leapfrog)
            log_q_y = model.parallel(model.log_density, y, level)
            acceptance = _chance(beta * (log_q_y - 0.5 * v.square().sum(-1) - before))
            moves = torch.stack(uniform[:count]) < acceptance.unsqueeze(-1)
            x, score = torch.where(moves, y, x), torch.where(moves, slope, score)
            log_q = torch.where(moves.squeeze(-1), log_q_y, log_q)
            info = {"acceptance": acceptance[0]}
            low = places.flatten()[:-1][step % 2 :: 2]
            if len(low) > 0:
                chance = _chance((beta[low] - beta[low + 1]) * (log_q[low + 1] - log_q[low]))
                info["exchange"] = chance.mean(0)
                swaps = torch.stack(uniform[count:])[low].squeeze(-1) < chance
                to = places.expand_as(log_q)
                to = to.index_add(0, low, swaps.long()).index_add(0, low + 1, -swaps.long())
                log_q = log_q.gather(0, to)
                to = to.unsqueeze(-1).expand_as(x)
                x, score = x.gather(0, to), score.gather(0, to)
            state = x[0].clone()  # a copy, so that the memory of the other replicas is freed
            yield Step(state, (state + level.sigma**2 * score[0]) / level.alpha, info)


def _chance(log_ratio: Tensor) -> Tensor:
    """min(1, e^log_ratio); 0 for NaN."""
    return log_ratio.clamp(max=0.0).exp().nan_to_num(0.0)
