"""Two Gaussians in four dimensions, lifted into twenty: data on a subspace."""

from __future__ import annotations

import math

import numpy as np
import torch

from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import require


def lifted_modes(
    dim: int = 20, inner: int = 4, shift: float = 3.0, seed: int = 0
) -> GaussianMixture:
    """x₀ = D·A·y,   y ~ .3·N(a, I) + .7·N(−a, I) in R⁴,   a = (shift, …, shift).

    A is a 20 × 4 matrix of independent standard normal numbers, and the diagonal matrix D scales
    each coordinate of x₀ to variance 1. The law has no density. Xu, Deng, Cheng, Tian, Liu,
    Jaakkola, "Restart sampling for improving generative processes", NeurIPS 2023 (arXiv
    2306.14878), Section 5.1; their A is not published.

    Args:
        dim: the dimension of the data.
        inner: the dimension of the subspace of the data, at most dim.
        shift: each coordinate of a.
        seed: the seed of A.
    """
    require(1 <= inner <= dim <= 256, "inner", inner, f"between 1 and dim={dim}, dim at most 256")
    require(math.isfinite(shift), "shift", shift, "finite")
    require(seed >= 0, "seed", seed, "at least 0")
    matrix = torch.from_numpy(np.random.default_rng(seed).standard_normal((dim, inner)))
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = shift * torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None] * matrix.sum(1)
    centre = weights @ means
    between = weights @ (means - centre).square()
    scale = (matrix.square().sum(1) + between).rsqrt()
    matrix = scale[:, None] * matrix
    covariance = tuple(map(tuple, (matrix @ matrix.T).tolist()))
    points = tuple(map(tuple, (scale * means).tolist()))
    return GaussianMixture((0.3, 0.7), points, (covariance, covariance))
