"""Gaussians at random places of a line; the mixture has mean 0 and deviation 1."""

from __future__ import annotations

import numpy as np

from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.errors import require


def random_modes(count: int = 15, deviation: float = 0.2, seed: int = 0) -> GaussianMixture:
    """q = 1/K·Σ_k N(μ_k, s²) on a line, Σ_k μ_k = 0 and 1/K·Σ_k μ_k² + s² = 1.

    The μ_k are normal draws, shifted and scaled. Stancevic, Handke, Ambrogioni, "Entropic time
    schedulers for generative diffusion models", NeurIPS 2025 (arXiv 2504.13612), Section 6.1 and
    Appendix H.2: 15 Gaussians and 15 points at random places, mean 0 and deviation 1. The paper
    gives neither the places nor their law nor s.

    Args:
        count: K, at least 2.
        deviation: s of each mode, above 0 and below 1.
    """
    require(count >= 2, "count", count, "at least 2")
    require(0 < deviation < 1, "deviation", deviation, "between 0 and 1")
    require(seed >= 0, "seed", seed, "at least 0")
    places = np.sort(np.random.default_rng(seed).standard_normal(count))
    places -= places.mean()
    places *= np.sqrt((1 - deviation**2) / np.square(places).mean())
    return isotropic((1 / count,) * count, tuple((float(x),) for x in places), deviation**2)
