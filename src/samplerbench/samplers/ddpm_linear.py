"""DDPM's own steps, with β·Δt instead of the exact variance of a forward step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.samplers.base import Sampler, Step
from samplerbench.samplers.reverse_sde import sde_rates

#: The smallest share of its variance that a forward step keeps; DDPM codes limit β to 0.999.
_LEAST_KEPT = 1e-3


@dataclass(frozen=True)
class DDPMLinear(Sampler):
    """x_s = (x_t + b·s(x_t))/√(1 − c) + √b·z,   b = g²·Δt,  c = −2f·Δt,  Δt = t − s.

    It reverses the forward step x_t = √(1 − c)·x_s + √b·z, which is that of the SDE up to Δt². On a
    VP path b = c = β(t)·Δt, and the step is that of DDPM with the variance b; `ddpm_large` uses
    the exact variance of the forward step instead. On a VE path it is `reverse_sde`. c is at most
    0.999. The last step is x̂₀. Weak order 1; one evaluation per step. Ho, Jain, Abbeel, "Denoising
    diffusion probabilistic models", NeurIPS 2020 (arXiv 2006.11239), Algorithm 2 with σ_t² = β_t;
    Pierret and Galerne, "Diffusion models for Gaussian distributions: exact solutions and
    Wasserstein errors", ICML 2025 (arXiv 2405.14250), scheme DDPM.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    needs_signal: ClassVar[bool] = True
    couples: ClassVar[bool] = True

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        f, g2 = sde_rates(model.schedule, levels)
        times = -levels.t.diff()
        kept = (1 + 2 * f * times).clamp(min=_LEAST_KEPT).sqrt().tolist()
        added = (g2 * times).tolist()
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                pull = added[step] / now.sigma**2
                x = ((1 - pull) * x + (pull * now.alpha) * x0_hat) / kept[step]
                x = x + added[step] ** 0.5 * noise.normal(x, step)
            yield Step(x, x0_hat)
