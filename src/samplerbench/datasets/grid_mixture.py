"""D1, the grid mixture: nine narrow Gaussians on a 3 × 3 grid, far apart and unevenly weighted.

The data of the notebook "Introduction to score based generative modelling". It draws the weights
from U(0, 1) with JAX; these are the numbers for its key, normalised.
"""

from __future__ import annotations

from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic

WEIGHTS = (
    *(0.0991055, 0.1378562, 0.1249738),
    *(0.1137685, 0.0913863, 0.1188078),
    *(0.0151706, 0.1571894, 0.1417420),
)


def grid_mixture(spacing: float = 10.0, variance: float = 0.1) -> GaussianMixture:
    """Nine Gaussians with means {−spacing, 0, spacing}², x fastest, and covariance variance·I.

    Args:
        spacing: distance between neighbouring means, in the units of the data.
        variance: the variance of each component, per coordinate.
    """
    axis = (-spacing, 0.0, spacing)
    means = tuple((x, y) for y in axis for x in axis)
    total = sum(WEIGHTS)  # 1 up to the seven digits given
    return isotropic(tuple(weight / total for weight in WEIGHTS), means, variance)
