"""The exponential integrator of the reverse SDE, for a score that is constant over a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.samplers.base import Sampler, Step


@dataclass(frozen=True)
class ExponentialSDE(Sampler):
    """x_s = (α_s/α_t)·x_t + w·s(x_t) + α_s·√(κ_t² − κ_s²)·z,   w = α_s·∫ α dκ² from s to t.

    κ = σ/α, and s = (α·x̂₀ − x)/σ² is the score at t. The step is the exact solution of the reverse
    SDE for a constant score; for a constant x̂₀ it would be DDIM(1). On a VP path
    w = 2·(α_s/α_t − 1), and the noise has variance (α_s/α_t)² − 1. The last step is x̂₀. Weak order
    1; one evaluation per step. Pierret and Galerne, "Diffusion models for Gaussian distributions:
    exact solutions and Wasserstein errors", ICML 2025 (arXiv 2405.14250), scheme EI.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    needs_signal: ClassVar[bool] = True
    couples: ClassVar[bool] = True

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        weights = score_weights(model.schedule, levels)
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                ratio = to.alpha / now.alpha
                pull = to.alpha * weights[step] / now.sigma**2
                fresh = ((ratio * now.sigma) ** 2 - to.sigma**2) ** 0.5
                x = (ratio - pull) * x + (pull * now.alpha) * x0_hat
                x = x + fresh * noise.normal(x, step)
            yield Step(x, x0_hat)


def score_weights(schedule: NoiseSchedule, levels: Levels) -> list[float]:
    """∫ α dκ² over every step with σ > 0 at its end, by quadrature in time."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(16))
    noisy = levels.t[levels.sigma > 0]
    half = -noisy.diff()[:, None] / 2
    t = noisy[1:, None] + half * (1 + nodes)
    alpha, sigma = schedule(t)
    alpha_rate, variance_rate = schedule.rates(t)
    # α·d(κ²)/dt
    rate = (variance_rate - 2 * alpha_rate / alpha * sigma.square()) / alpha
    integrals: list[float] = (half * rate * weights).sum(1).tolist()
    return integrals
