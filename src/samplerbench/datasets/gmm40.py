"""GMM-40: forty Gaussians at random places of a square, a target of neural samplers."""

from __future__ import annotations

import math

import torch

from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.errors import require


def gmm40(count: int = 40, width: float = 80.0, seed: int = 0) -> GaussianMixture:
    """Equal weights, means uniform in a square around 0, standard deviation ln(1 + e) = 1.3133.

    The means are (u − ½)·width, u from PyTorch's generator with the seed 0 in float32. Midgley,
    Stimper, Simm, Schölkopf, Hernández-Lobato, "Flow annealed importance sampling bootstrap", ICLR
    2023 (arXiv 2208.01893), Section 4.1.

    Args:
        count: number of components.
        width: the width of the square, in the units of the data.
    """
    require(count >= 1, "count", count, "at least 1")
    require(0 < width < math.inf, "width", width, "positive and finite")
    require(-(2**63) <= seed < 2**64, "seed", seed, "a number of 64 bits")
    uniform = torch.rand((count, 2), generator=torch.Generator().manual_seed(seed))
    means = ((uniform - 0.5) * width).double().tolist()
    return isotropic((1 / count,) * count, tuple(map(tuple, means)), math.log1p(math.e) ** 2)
