"""Gaussian mixtures: the laws whose score is known at every noise level.

q = Σ_k w_k·N(μ_k, C_k),   Σ w_k = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.core.line_laws import MixtureLine
from samplerbench.core.models import Denoiser, IsotropicMixtureOracle, MixtureOracle
from samplerbench.core.noise import generator
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Moments
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require


@dataclass(frozen=True)
class GaussianMixture(Dataset):
    """Σ w_k·N(μ_k, C_k).

    Args:
        weights: K positive numbers that add up to 1.
        means: K points.
        covariances: K matrices, symmetric and positive semi-definite.
        exact_shares: whether the shares of the components in training and validation data are
            exactly the weights, up to rounding to integers. Evaluation points and the sets of the
            floor are always independent draws, since they represent the law.
    """

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    covariances: tuple[tuple[tuple[float, ...], ...], ...]
    exact_shares: bool = False

    def __post_init__(self) -> None:
        weights, means, covariances = self.tensors()
        good = weights.ndim == 1 and len(weights) > 0
        require(good, "weights", self.weights, "a list, not empty")
        good = bool((weights > 0).all()) and abs(float(weights.sum()) - 1) < 1e-9
        require(good, "weights", list(self.weights), "positive, with sum 1")
        count, dim = len(weights), means.shape[-1] if means.ndim == 2 else 0
        good = means.shape == (count, dim) and dim > 0 and bool(means.isfinite().all())
        allowed = f"{count} finite points of the same dimension, one per weight"
        require(good, "means", means.tolist(), allowed)
        good = (
            covariances.shape == (count, dim, dim)
            and bool(covariances.isfinite().all())
            and torch.allclose(covariances, covariances.mT)
            and float(torch.linalg.eigvalsh(covariances).min())
            >= -1e-12 * float(covariances.abs().max())
        )
        allowed = f"{count} symmetric positive semi-definite {dim}×{dim} matrices"
        require(good, "covariances", covariances.tolist(), allowed)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (K,), means (K, dim) and covariances (K, dim, dim), float64."""

        def tensor(values: object, name: str) -> Tensor:
            try:
                return torch.tensor(values, dtype=torch.float64)
            except (TypeError, ValueError):
                require(False, name, values, "numbers, in rows of equal length")
                raise

        return (
            tensor(self.weights, "weights"),
            tensor(self.means, "means"),
            tensor(self.covariances, "covariances"),
        )

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (len(self.means[0]),)

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draw components with their weights, then normal points, shape (count, dim), float64."""
        u = generator.random(count)
        return self._place(u, torch.from_numpy(generator.standard_normal((count, self.dim))))

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """Draws for a purpose; training and validation data have `exact_shares` if it is set.

        Args:
            count: number of draws.
        """
        if not self.exact_shares or purpose not in ("train", "validation"):
            return super().draws(count, purpose, *key)
        random = generator("data", purpose, *key)
        u = random.permutation((np.arange(count) + 0.5) / count)
        return self._place(u, torch.from_numpy(random.standard_normal((count, self.dim))))

    @property
    def uniform_dim(self) -> int:
        """dim numbers for the normal draw, and one for the component if there are several."""
        return self.dim + (len(self.weights) > 1)

    def from_uniforms(self, u: Tensor) -> Tensor:
        """The first column chooses the component; the other columns become normal numbers."""
        u = u.double()
        return self._place(u[:, 0].cpu().numpy(), torch.special.ndtri(u[:, -self.dim :]))

    def _place(self, u: NDArray[np.float64], z: Tensor) -> Tensor:
        """Draws, shape (n, dim), from uniform numbers (n,) and standard normal ones (n, dim)."""
        weights, means, covariances = self.tensors()
        component = torch.from_numpy(
            np.searchsorted(weights.cumsum(0).numpy()[:-1], u, side="right")
        )
        eigenvalues, basis = torch.linalg.eigh(covariances)
        root = basis * eigenvalues.clamp_min(0).sqrt().unsqueeze(-2)
        return means[component] + torch.einsum("nde,ne->nd", root[component], z)

    def moments(self) -> Moments:
        """Mean and variance of each coordinate, exact."""
        weights, means, _ = self.tensors()
        return Moments.exact(weights / weights.sum() @ means, self.covariance().diagonal())

    def covariance(self) -> Tensor:
        weights, means, covariances = self.tensors()
        weights = weights / weights.sum()
        offset = means - weights @ means
        return torch.einsum("k,kde->de", weights, covariances) + offset.T * weights @ offset

    def noised(self, noise: float) -> GaussianMixture:
        """The same mixture with covariances C_k + noise²·I."""
        covariances = tuple(
            tuple(
                tuple(value + noise**2 * (row == column) for column, value in enumerate(values))
                for row, values in enumerate(matrix)
            )
            for matrix in self.covariances
        )
        return GaussianMixture(self.weights, self.means, covariances)

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        """The exact denoiser; a cheaper class if all covariances are multiples of I."""
        weights, means, covariances = self.tensors()
        variances = covariances[:, 0, 0]  # the mean of the diagonal may round
        identity = torch.eye(self.dim, dtype=torch.float64)
        if torch.equal(covariances, variances[:, None, None] * identity):
            return IsotropicMixtureOracle(schedule, weights, means, variances)
        return MixtureOracle(schedule, weights, means, covariances)

    def line_law(self) -> MixtureLine | None:
        """The mixture itself if it is one-dimensional and no component has variance 0."""
        weights, means, covariances = (values.flatten() for values in self.tensors())
        if self.dim != 1 or not bool((covariances > 0).all()):
            return None
        return MixtureLine(weights / weights.sum(), means, covariances.sqrt())


def isotropic(
    weights: tuple[float, ...], means: tuple[tuple[float, ...], ...], variance: float
) -> GaussianMixture:
    """A mixture of components with covariance variance·I."""
    require(0 <= variance < math.inf, "variance", variance, "at least 0")
    dim = len(means[0])
    covariance = tuple(
        tuple(variance if row == column else 0.0 for column in range(dim)) for row in range(dim)
    )
    return GaussianMixture(weights, means, (covariance,) * len(weights))
