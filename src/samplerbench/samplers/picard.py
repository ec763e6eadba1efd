"""Picard iteration over the time axis: the steps of a one-step rule in parallel, with ParaDiGMS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step, ode_coefficients
from samplerbench.samplers.ddim import coefficients

#: (k, p, ς) of each step x_s = k·x_t + p·x̂₀(x_t) + ς·z of a rule.
Weights = Sequence[tuple[float, float, float]]


def _ddim(schedule: NoiseSchedule, levels: Levels, eta: float) -> Weights:
    return [coefficients(now, to, eta) for _, now, to in levels.pairs()]


def _euler(schedule: NoiseSchedule, levels: Levels, eta: float) -> Weights:
    pairs = zip(ode_coefficients(schedule, levels), levels.pairs(), strict=False)
    weights = [(1 + (to.t - now.t) * a, (to.t - now.t) * b, 0.0) for (a, b), (_, now, to) in pairs]
    return [*weights[:-1], (0.0, 1.0, 0.0)] if levels.rows[-1].sigma == 0 else weights


RULES: Mapping[str, Callable[[NoiseSchedule, Levels, float], Weights]] = {
    "ddim": _ddim,
    "euler": _euler,
}


@dataclass(frozen=True)
class Picard(Sampler):
    """The states of a rule x_{i+1} = F_i(x_i), many at once, by the fixed-point iteration

        x_j ← x_i + Σ_{l=i}^{j−1} (F_l(x_l) − x_l),   j = i + 1, …, i + W,

    in which the W evaluations of a round are independent. x_i is the last known state. After a
    round, i moves to the first state that changed by more than `tolerance`·σ_j (root mean square
    over the coordinates; at the data, σ of the level before), and the window moves with it. At
    least x_{i+1} is then known, so N steps take at most N rounds; at tolerance 0 the result is that
    of the rule, up to rounding. New states of the window begin as copies of its last state.

    With η > 0 (ParaDDPM) the noise ς_l·z_l of all steps is drawn before the first round and is a
    part of F_l. So F is a fixed map again, and the states are those of `DDIM` with the same η and
    the same noise.

    The gain is in time, not in work: fewer sequential rounds, each of W evaluations on parallel
    devices, and more evaluations in total. Both are counted. The window gets smaller at the end of
    the run. Each sample has its own window and does not depend on other samples, so the number of
    rounds is that of the slowest sample of a block. The memory is 2(N + W) states per sample, and N
    more with noise.

    Order 1, as its rules `DDIM` and `Euler`. Shih, Belkhale, Ermon, Sadigh, Anari, "Parallel
    sampling of diffusion models", NeurIPS 2023 (arXiv 2305.16317), Algorithm 1, which compares the
    changes with the deviations of DDPM's noise instead of σ of the level.

    Args:
        rule: ddim or euler.
        window: W, the number of evaluations in a round.
        tolerance: the tolerance of a state, in units of its σ.
        eta: η of DDIM; Euler's rule has no noise.
    """

    order: ClassVar[int] = 1
    couples: ClassVar[bool] = True
    affine: ClassVar[bool] = False
    rule: str = "ddim"
    window: int = 50
    tolerance: float = 1e-3
    eta: float = 0.0

    def __post_init__(self) -> None:
        require(self.rule in RULES, "rule", self.rule, " or ".join(RULES))
        require(self.window >= 1, "window", self.window, "at least 1")
        allowed = "at least 0 and finite"
        require(0 <= self.tolerance < math.inf, "tolerance", self.tolerance, allowed)
        require(0 <= self.eta < math.inf, "eta", self.eta, allowed)
        if self.rule == "euler":
            require(self.eta == 0, "eta", self.eta, "0 with rule=euler")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls("euler", window=3, tolerance=1e-6), cls(tolerance=1e-6, eta=1.0)]

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def evaluations(self, steps: int) -> int | None:
        return None

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        states, outputs = self._solved(model, x, levels, noise)
        for x, x0_hat in zip(states[1 : levels.steps + 1], outputs, strict=False):
            yield Step(x, x0_hat)

    def _solved(
        self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """The states of all levels and x̂₀ of all steps, shape (N + 1 + W, *batch, dim).

        The last W rows are never used: the window of a sample may reach beyond its last step.
        """
        steps = levels.steps
        weights = RULES[self.rule](model.schedule, levels, self.eta)
        drawn = _drawn(weights, x, noise) if self.stochastic else None
        # one column for each step: t, α and σ of its evaluation, k, p, and the allowed change
        sigma = levels.sigma
        allowed = self.tolerance * torch.where(sigma[1:] > 0, sigma[1:], sigma[:-1])
        k, p, _ = torch.tensor(weights, dtype=torch.float64).T
        table = torch.stack([levels.t[:-1], levels.alpha[:-1], sigma[:-1], k, p, allowed]).to(x)
        states = x.expand(steps + 1 + self.window, *x.shape).clone()
        outputs = torch.zeros_like(states)
        known = torch.zeros(x.shape[:-1], dtype=torch.long, device=x.device)
        done = 0  # rounds so far; at least so many states of each sample are known
        while (known < steps).any():
            place = _from(known, min(self.window, steps - done))
            t, alpha, sigma, k, p, allowed = table[:, place.clamp(max=steps - 1)].unsqueeze(-1)
            old = states.gather(0, _rows(place, x))
            x0_hat = model.parallel(model.denoiser, old, Level(t, alpha, sigma))
            moved = (k - 1) * old + p * x0_hat
            if drawn is not None:
                moved = moved + drawn.gather(0, _rows(place.clamp(max=steps - 1), x))
            new = states.gather(0, _rows(known[None], x)) + moved.cumsum(0)
            if levels.rows[-1].sigma == 0:
                new = torch.where((place == steps - 1).unsqueeze(-1), x0_hat, new)
            change = (new - states.gather(0, _rows(place + 1, x))).square().mean(-1).sqrt()
            states = states.scatter(0, _rows(place + 1, x), new)
            outputs = outputs.scatter(0, _rows(place, x), x0_hat)
            settled = (change <= allowed.squeeze(-1)).long().cumprod(0).sum(0)  # false for NaN
            last, known = known + len(place), known + (settled + 1).clamp(max=len(place))
            known, done = known.clamp(max=steps), done + 1
            ahead = _from(known, self.window + 1).clamp(max=len(states) - 1)
            begun = states.gather(0, _rows(torch.minimum(ahead, last), x))
            states = states.scatter(0, _rows(ahead, x), begun)
        return states, outputs


def _drawn(weights: Weights, x: Tensor, noise: Noise) -> Tensor:
    """ς·z of all steps, shape (N, *batch, dim)."""
    none = torch.zeros_like(x)
    fresh = enumerate(scale for _, _, scale in weights)
    return torch.stack([s * noise.normal(x, step) if s > 0 else none for step, s in fresh])


def _from(known: Tensor, count: int) -> Tensor:
    """The places known, known + 1, …, shape (count, *batch)."""
    steps = torch.arange(count, device=known.device)
    return known + steps.reshape(-1, *[1] * known.ndim)


def _rows(place: Tensor, x: Tensor) -> Tensor:
    """Expand places, shape (W, *batch), to all coordinates, shape (W, *batch, dim)."""
    return place.unsqueeze(-1).expand(*place.shape, x.shape[-1])
