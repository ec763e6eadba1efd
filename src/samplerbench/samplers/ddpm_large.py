"""Ancestral sampling with DDPM's large variance, σ̂ in the DDIM paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.samplers.base import Sampler, Step


@dataclass(frozen=True)
class DDPMLarge(Sampler):
    """x_s = α_s·x̂₀ + √(σ_s² − ς²)·ε̂ + σ̂·z,   σ̂ = √(σ_t² − (α_t/α_s)²·σ_s²),   ς = (σ_s/σ_t)·σ̂.

    The mean is that of DDIM(1), and ς is the standard deviation of DDIM(1). The noise has the
    deviation σ̂ of the forward step from x_s to x_t, which is ς·σ_t/σ_s. On a VP path σ̂² = 1 −
    ᾱ_t/ᾱ_s, which is β_t if all T steps are used. So the state after a step has too much noise, and
    the next step treats a part of it as signal; the excess vanishes with the step size. The last
    step is x̂₀, without noise. Since σ̂ depends on the scale α, the method is not the same on paths
    that differ by a rescaling. Weak order 1; one evaluation per step. Song, Meng, Ermon, "Denoising
    diffusion implicit models", ICLR 2021 (arXiv 2010.02502), Section 5 and Table 1, last row; Ho,
    Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020 (arXiv 2006.11239),
    Section 3.2, σ_t² = β_t. On a VE path it is the reverse diffusion predictor of Song et al. 2021
    (arXiv 2011.13456), Appendix E.
    """

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    couples: ClassVar[bool] = True

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                fresh = (now.sigma**2 - (now.alpha / to.alpha * to.sigma) ** 2) ** 0.5
                kept = now.alpha / to.alpha * (to.sigma / now.sigma) ** 2  # √(σ_s² − ς²)/σ_t
                x = kept * x + (to.alpha - kept * now.alpha) * x0_hat
                x = x + fresh * noise.normal(x, step)
            yield Step(x, x0_hat)
