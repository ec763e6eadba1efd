"""D2, two clusters: two round Gaussians in the plane, far apart, one twice as heavy as the other.

    q = ⅓·N((−10, 1), v·I) + ⅔·N((10, 0), v·I),    v = 1 .

The data of the notebook "Talk 8: score-based diffusion models", there 100 and 200 points: counted,
not drawn. With 300 data that matters: drawn, 93 to 113 of them lie on the left for five seeds, and
a score learned from them leads as many too many there. It noises them with σ = 3, which widens the
clusters to v + 9 = 10 and leaves their distance of 20: more than six standard deviations, which
Langevin dynamics does not cross in the time that it is given.
"""

from __future__ import annotations

from dataclasses import replace

from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic


def two_clusters(variance: float = 1.0, exact_shares: bool = True) -> GaussianMixture:
    """Two Gaussians with means (−10, 1) and (10, 0), weights ⅓ and ⅔, and covariance variance·I.

    Args:
        variance: of each component, per coordinate.
        exact_shares: whether exactly a third of the training data lie on the left; see
            `GaussianMixture`.
    """
    law = isotropic((1 / 3, 2 / 3), ((-10.0, 1.0), (10.0, 0.0)), variance)
    return replace(law, exact_shares=exact_shares)
