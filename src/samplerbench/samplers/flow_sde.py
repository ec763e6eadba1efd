"""The SDE of a flow with any amount of noise: Euler–Maruyama on velocity, score and w(t)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require
from samplerbench.samplers.base import Sampler, Step, ode_coefficients

#: w(t)/(scale·dσ/dt) by name, from t, σ and σ(1).
DIFFUSIONS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sigma": lambda t, sigma, largest: sigma,
    "sine": lambda t, sigma, largest: largest * (math.pi * t).sin().square(),
}


@dataclass(frozen=True)
class FlowSDE(Sampler):
    """x_s = x_t − Δt·v + ½w·Δt·s + √(w·Δt)·z,   Δt = t − s,   v = a·x_t + b·x̂₀.

    v is the velocity of the probability flow and s = (α·x̂₀ − x)/σ² the score at t. For every
    w(t) ≥ 0 the SDE dx = (v − ½w·s) dt + √w dW, backwards in time, has the marginals of the path.
    w = 0 is the flow; w = g² is `reverse_sde`, whose noise is infinite without signal. Here

        w = scale·σ·σ̇  (`sigma`),   w = scale·σ(1)·σ̇·sin²(πt)  (`sine`),   σ̇ = dσ/dt,

    finite everywhere: on the rectified path σ̇ = 1, and w is SiT's σ_t or sin²(πt). On a VE path
    w = σ·σ̇ is half of g². A step with w·Δt above 4σ² is unstable. The last step is x̂₀. Weak order
    1; one evaluation per step. Ma, Goldstein, Albergo, Boffi, Vanden-Eijnden, Xie, "SiT: exploring
    flow and diffusion-based generative models with scalable interpolant transformers", ECCV 2024
    (arXiv 2401.08740), Section 2.

    Args:
        diffusion: the name of w.
        scale: the factor of w; 0 is Euler's method on the flow.
    """

    order: ClassVar[int] = 1
    couples: ClassVar[bool] = True
    diffusion: str = "sigma"
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.diffusion in DIFFUSIONS, "diffusion", self.diffusion, " or ".join(DIFFUSIONS))
        require(0 <= self.scale < math.inf, "scale", self.scale, "at least 0 and finite")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(), cls(scale=0.0), cls("sine", 0.5)]

    @property
    def stochastic(self) -> bool:
        return self.scale > 0

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        ode, diffusion = ode_coefficients(model.schedule, levels), self._w(model.schedule, levels)
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                h, (a, b), w = now.t - to.t, ode[step], diffusion[step]
                pull = 0.5 * h * w / now.sigma**2
                x = (1 - h * a - pull) * x + (pull * now.alpha - h * b) * x0_hat
                if w > 0:
                    x = x + (w * h) ** 0.5 * noise.normal(x, step)
            yield Step(x, x0_hat)

    def _w(self, schedule: NoiseSchedule, levels: Levels) -> list[float]:
        """w at each level but the last."""
        t, sigma = levels.t[:-1], levels.sigma[:-1]
        rate = schedule.rates(t)[1] / (2 * sigma)
        _, largest = schedule(torch.ones_like(t[:1]))
        w: Tensor = self.scale * rate * DIFFUSIONS[self.diffusion](t, sigma, largest)
        return w.clamp(min=0.0).tolist()
