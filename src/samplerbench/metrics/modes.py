"""Assigning samples to the modes of a Gaussian mixture, and when that is possible.

A sample is assigned to the mode with the largest posterior responsibility

    r_k(x) ∝ w_k N(x; μ_k, C_k) .

The share of the law's own draws that are assigned to a wrong mode is at most

    Σ_{j<k} √(w_j w_k) ∫ √(N_j N_k) = Σ_{j<k} √(w_j w_k) exp(−B_jk) ,
    B_jk = ⅛ (μ_j − μ_k)ᵀ C̄⁻¹ (μ_j − μ_k) + ½ ln(det C̄ / √(det C_j det C_k)),   C̄ = ½ (C_j + C_k) ,

since min(a, b) ≤ √(ab). If this bound is small, the shares of the law's draws in the modes are
nearly the weights, and the draws assigned to a mode are nearly Gaussian.

Reference: A. Bhattacharyya, On a Measure of Divergence between Two Statistical Populations Defined
by Their Probability Distributions, Bull. Calcutta Math. Soc. 35 (1943) 99–109.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.responsibilities import responsibilities
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.gaussian_mixture import GaussianMixture

#: The number of entries `(K, n, dim)` at a time: 8 MB.
_PIECE = 2**20
#: A mode is flat if its smallest variance, relative to the law's largest, is below this.
_THINNEST = 1e-12


@dataclass(frozen=True, eq=False)
class Modes:
    """The components of a mixture as tensors, in float64 on the CPU."""

    weights: Tensor  # `(K,)`, sum 1
    means: Tensor  # `(K, dim)`
    covariances: Tensor  # `(K, dim, dim)`, positive definite

    def assign(self, samples: Tensor) -> Tensor:
        """Return the index of the mode of each of the samples `(n, dim)`: `(n,)`."""
        return torch.cat([logs.argmax(dim=0) for logs in self._log_joint(samples)])

    def posterior(self, samples: Tensor) -> Tensor:
        """Return r_k of the samples `(n, dim)`: `(K, n)`."""
        return torch.cat([responsibilities(logs, 0) for logs in self._log_joint(samples)], dim=1)

    def _log_joint(self, samples: Tensor) -> Iterator[Tensor]:
        """Yield ln(w_k N(x; μ_k, C_k)) up to a constant, `(K, rows)`, for pieces of the samples."""
        factors = torch.linalg.cholesky(self.covariances)
        logs = self.weights.log() - factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        for rows in torch.split(samples, max(1, _PIECE // self.means.numel())):
            offsets = (rows - self.means[:, None]).mT
            scaled = torch.linalg.solve_triangular(factors, offsets, upper=False)
            yield logs[:, None] - scaled.square().sum(dim=1) / 2

    def overlap(self) -> float:
        """Return a bound on the share of the law's draws that are assigned to a wrong mode."""
        total = 0.0
        determinants = torch.linalg.slogdet(self.covariances).logabsdet
        for j in range(len(self.weights) - 1):
            between = (self.covariances[j] + self.covariances[j + 1 :]) / 2
            gaps = (self.means[j] - self.means[j + 1 :])[:, :, None]
            squares = (gaps * torch.linalg.solve(between, gaps)).sum(dim=(1, 2))
            volumes = torch.linalg.slogdet(between).logabsdet
            volumes = volumes - (determinants[j] + determinants[j + 1 :]) / 2
            roots = (self.weights[j] * self.weights[j + 1 :]).sqrt()
            total += float((roots * torch.exp(-squares / 8 - volumes / 2)).sum())
        return total

    def covariance(self) -> Tensor:
        """Return the covariance of the law `(dim, dim)`."""
        offsets = self.means - self.weights @ self.means
        within = (self.weights[:, None, None] * self.covariances).sum(dim=0)
        return within + (self.weights[:, None] * offsets).mT @ offsets


def modes_of(dataset: Dataset) -> Modes | None:
    """Return the modes of a Gaussian mixture; None for another law, or if a mode is flat."""
    if not isinstance(dataset, GaussianMixture):
        return None
    weights, means, covariances = dataset.tensors()
    modes = Modes(weights / weights.sum(), means, (covariances + covariances.mT) / 2)
    widest = float(torch.linalg.eigvalsh(modes.covariance()).max())
    thinnest = float(torch.linalg.eigvalsh(modes.covariances).min())
    return modes if thinnest > _THINNEST * widest and math.isfinite(widest) else None


def why_not_separate(dataset: Dataset, name: str, max_overlap: float) -> str | None:
    """The reason why samples cannot be assigned to modes; None if they can."""
    modes = modes_of(dataset)
    if modes is None:
        return f"{name} needs a Gaussian mixture without flat modes; use metric=max_sliced"
    overlap = modes.overlap()
    if overlap > max_overlap:
        return (
            f"{name} needs separate modes: up to {100 * overlap:.1f} % of these overlap, more than "
            f"max_overlap = {100 * max_overlap:.1f} %; use metric=energy"
        )
    return None
