"""One Gaussian with any mean and covariance. On it every sampler has a closed form."""

from __future__ import annotations

from collections.abc import Sequence

from samplerbench.datasets.gaussian_mixture import GaussianMixture


def gaussian(mean: Sequence[float], covariance: Sequence[Sequence[float]]) -> GaussianMixture:
    """N(mean, covariance).

    Args:
        mean: dim numbers.
        covariance: dim × dim, symmetric and positive semi-definite.
    """
    rows = tuple(tuple(float(entry) for entry in row) for row in covariance)
    return GaussianMixture((1.0,), (tuple(float(entry) for entry in mean),), (rows,))
