"""D2, two clusters: two round Gaussians in the plane, far apart, one twice as heavy as the other.

    q = ⅓·N((−10, 1), v·I) + ⅔·N((10, 0), v·I),    v = 1 .

The data of the notebook "Talk 8: score-based diffusion models": exactly 100 and 200 points. With
300 points exact shares matter: for five seeds, 93 to 113 of 300 independent draws are on the left,
and a score learned from them puts the same share of samples there. The notebook adds noise of
deviation 3. Then a cluster has the variance v + 9 = 10, and the clusters are 20 apart: more than
six standard deviations, too far for Langevin dynamics in the notebook's number of steps.
"""

from __future__ import annotations

from dataclasses import replace

from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic


def two_clusters(variance: float = 1.0, exact_shares: bool = True) -> GaussianMixture:
    """Two Gaussians with means (−10, 1) and (10, 0), weights ⅓ and ⅔, and covariance variance·I.

    Args:
        variance: the variance of each component, per coordinate.
        exact_shares: whether exactly a third of the training data is on the left; see
            `GaussianMixture`.
    """
    law = isotropic((1 / 3, 2 / 3), ((-10.0, 1.0), (10.0, 0.0)), variance)
    return replace(law, exact_shares=exact_shares)
