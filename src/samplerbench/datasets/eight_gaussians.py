"""Eight Gaussians: equal round components at equal angles on a circle.

    q = ⅛·Σ_k N(s·R·(cos(πk/4), sin(πk/4)), s²·v·I),   k = 0, …, 7

with the radius R, the variance v per coordinate, and the scale s that multiplies every draw.
Well-known codes use different numbers. In the units of their output the centres are at radius s·R
and a component has the standard deviation s·√v per coordinate; R/√v measures the separation of the
modes:

    code                                        R    √v      s         s·R    s·√v     R/√v
    FFJORD, `toy_data.py` (the default here)    4    0.5     1/√2      2.83   0.354    8
    WGAN-GP, `gan_toy.py`                       2    0.02    1/√2      1.41   0.0141   100
    torchcfm, `sample_8gaussians`               5    0.562   1         5      0.562    8.9
    ports of torchcfm that read `var=0.1`       5    0.316   1         5      0.316    15.8

FFJORD and WGAN-GP divide by 1.414 instead of √2. torchcfm passes √var·I where a *covariance* is
expected, so that its `var=0.1` is the variance √0.1 = 0.316; in a port that multiplies normal
numbers by √var the variance is 0.1. Two figures called "8 gaussians" are comparable only if these
numbers agree.

Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud, "FFJORD", ICLR 2019 (arXiv 1810.01367); Gulrajani
et al., "Improved training of Wasserstein GANs", NeurIPS 2017 (arXiv 1704.00028); Tong et al.,
"Improving and generalizing flow-based generative models with minibatch optimal transport", TMLR
2024 (arXiv 2302.00482).
"""

from __future__ import annotations

import math

from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.errors import require


def eight_gaussians(
    radius: float = 4.0, variance: float = 0.25, scale: float = math.sqrt(0.5)
) -> GaussianMixture:
    """Eight equal Gaussians on a circle; the defaults are FFJORD's, with std 2.03 per coordinate.

    Args:
        radius: the radius of the circle, before scaling.
        variance: the variance of each component, per coordinate, before scaling.
        scale: multiplies every draw.
    """
    require(0 < radius < math.inf, "radius", radius, "positive and finite")
    require(0 <= variance < math.inf, "variance", variance, "at least 0 and finite")
    require(0 < scale < math.inf, "scale", scale, "positive and finite")
    angles = [math.pi * k / 4 for k in range(8)]
    reach = scale * radius
    means = tuple((reach * math.cos(angle), reach * math.sin(angle)) for angle in angles)
    return isotropic((0.125,) * 8, means, scale**2 * variance)
