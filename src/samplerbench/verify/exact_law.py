"""The exact law of a sampler's output on Gaussian data, without Monte Carlo.

For Gaussian data the denoiser is affine in the state. So a step of a non-adaptive sampler, and the
whole run, are affine in the state and the noise:

    x_out = A·x_in + Σ_j B_j·z_j + c,   z_j ~ N(0, I) independent,   x_in ~ N(μ, Σ)
    ⇒  x_out ~ N(A·μ + c, A·Σ·Aᵀ + Σ_j B_j·B_jᵀ).

A run from μ without noise gives the mean. Runs with one unit added to the state or to one draw give
the columns of A and B_j. All runs are rows of one batch. The distance of two Gaussians N(m, A) and
N(m', B) with Δ = m − m' is

    W₂² = ‖Δ‖² + min_{UᵀU = I} ‖√A − √B·U‖²_F,   U = the orthogonal polar factor of √B·√A,

the Bures form (Bhatia, Jain, Lim, "On the Bures–Wasserstein distance between positive definite
matrices", Expositiones Mathematicae 2019, Theorem 1), which does not cancel for A ≈ B.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.samplers.base import Sampler, final_state


def noised_law(mean: Tensor, covariance: Tensor, level: Level[float]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of α·x₀ + σ·ε for x₀ ~ N(mean, covariance)."""
    identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    return level.alpha * mean, level.alpha**2 * covariance + level.sigma**2 * identity


def output_law(
    sampler: Sampler, model: Denoiser, levels: Levels, start_mean: Tensor, start_covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (dim,) and covariance (dim, dim) of the sampler's output, float64.

    It costs two runs; one of them has 2 + dim·(1 + draws) rows.

    Args:
        sampler: a method whose steps are affine in state and noise.
        model: an affine denoiser, such as the oracle of one Gaussian.
        levels: of the sampler.
        start_mean: of the first state, shape (dim,).
        start_covariance: of the first state, shape (dim, dim).

    Raises:
        ValueError: the sampler cannot run here, or its run is not affine.
    """
    reason = sampler.why_incompatible(model, levels)
    if reason is not None:
        raise ValueError(reason)
    mean, covariance = start_mean.double(), start_covariance.double()
    units = torch.eye(len(mean), dtype=torch.float64, device=mean.device)
    recorder = _Recorder()
    noise = _Impulses(units, recorder.addresses)
    with torch.no_grad():
        final_state(sampler, model, mean.unsqueeze(0), levels, recorder)
        blocks = [mean.unsqueeze(0), mean + units, mean.expand(noise.rows, -1), mean.unsqueeze(0)]
        blocks[-1] = blocks[-1] - 2.0  # the probe changes all coordinates and all draws together
        out = final_state(sampler, model, torch.cat(blocks), levels, noise)
    base, columns, probe = out[0], out[1:-1] - out[0], out[-1] - out[0]
    changes = torch.cat([torch.full_like(mean, -2.0), noise.probe])
    scale = out.abs().max() + columns.abs().sum(0).max()
    if not (probe - changes @ columns).abs().max() <= 1e-9 * scale:
        raise ValueError(f"{sampler} is not affine in state and noise on this model")
    by_state, by_noise = columns[: len(mean)], columns[len(mean) :]
    return base, by_state.mT @ covariance @ by_state + by_noise.mT @ by_noise


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


class _Recorder:
    """Zero noise, which records the draws."""

    def __init__(self) -> None:
        self.addresses: dict[tuple[int, int], int] = {}  # (step, draw) ↦ index in order of drawing

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        self.addresses.setdefault((step, draw), len(self.addresses))
        return torch.zeros_like(like)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise ValueError("a method that draws uniform numbers is not affine in its noise")


class _Impulses:
    """Noise that is one unit in one coordinate of one draw, another one in each row of the batch.

    Rows: 1 without noise, dim for the state, also without noise, dim for each draw, and the probe,
    in which all draws are ±1.
    """

    def __init__(self, units: Tensor, addresses: dict[tuple[int, int], int]) -> None:
        self._units = units
        self._addresses = addresses

    @property
    def rows(self) -> int:
        """The number of rows for noise."""
        return len(self._units) * len(self._addresses)

    @cached_property
    def probe(self) -> Tensor:
        """The noise of the last row: 1, −1, 1, …, shape (rows,)."""
        return 1 - 2.0 * (torch.arange(self.rows, device=self._units.device).double() % 2)

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        dim = len(self._units)
        if (step, draw) not in self._addresses:
            raise ValueError("the number of draws depends on the state")
        start = dim * self._addresses[step, draw]
        z = torch.zeros_like(like)
        z[1 + dim + start : 1 + 2 * dim + start] = self._units.to(like)
        z[-1] = self.probe[start : start + dim].to(like)
        return z

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise ValueError("a method that draws uniform numbers is not affine in its noise")
