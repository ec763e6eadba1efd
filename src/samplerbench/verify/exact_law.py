"""The exact law of a sampler's output on Gaussian data, without Monte Carlo.

For Gaussian data the denoiser is affine in the state. So a step of a non-adaptive sampler, and the
whole run, are affine in the state and the noise:

    x_out = A·x_in + Σ_j B_j·z_j + c,   z_j ~ N(0, I) independent,   x_in ~ N(μ, Σ)
    ⇒  x_out ~ N(A·μ + c, A·Σ·Aᵀ + Σ_j B_j·B_jᵀ).

`bench.affine` gives A, B_j and the output from μ without noise, which is the mean. The distance of
two Gaussians N(m, A) and N(m', B) with Δ = m − m' is

    W₂² = ‖Δ‖² + min_{UᵀU = I} ‖√A − √B·U‖²_F,   U = the orthogonal polar factor of √B·√A,

the Bures form (Bhatia, Jain, Lim, "On the Bures–Wasserstein distance between positive definite
matrices", Expositiones Mathematicae 2019, Theorem 1), which does not cancel for A ≈ B.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplerbench.bench.affine import affine_map
from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.samplers.base import Sampler


def noised_law(mean: Tensor, covariance: Tensor, level: Level[float]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of α·x₀ + σ·ε for x₀ ~ N(mean, covariance)."""
    identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    return level.alpha * mean, level.alpha**2 * covariance + level.sigma**2 * identity


def output_law(
    sampler: Sampler, model: Denoiser, levels: Levels, start_mean: Tensor, start_covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (dim,) and covariance (dim, dim) of the sampler's output, float64.

    Cost: two runs and dim backward passes.

    Args:
        sampler: a method whose steps are affine in state and noise.
        model: an affine denoiser, such as the oracle of one Gaussian.
        start_mean: the mean of the first state, shape (dim,).
        start_covariance: the covariance of the first state, shape (dim, dim).
    """
    of = affine_map(sampler, model, levels, start_mean)
    covariance = of.by_state @ start_covariance.double() @ of.by_state.mT
    return of.output, covariance + (of.by_draws @ of.by_draws.mT).sum(0)


def gaussian_w2(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """W₂ between two Gaussians; covariances are positive semi-definite."""
    root_a, root_b = _square_root(cov_a), _square_root(cov_b)
    left, _, right = torch.linalg.svd(root_b @ root_a)
    bures = (root_a - root_b @ (left @ right)).square().sum()
    return float((bures + (mean_a - mean_b).square().sum()).sqrt())


def _square_root(covariance: Tensor) -> Tensor:
    eigenvalues, basis = torch.linalg.eigh(covariance.double())
    root: Tensor = (basis * eigenvalues.clamp_min(0).sqrt()) @ basis.mT
    return root
