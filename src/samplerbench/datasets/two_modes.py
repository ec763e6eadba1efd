"""Two round Gaussians in any dimension, at opposite sides of the origin.

    q = w·N(a·1, v·I) + (1 − w)·N(−a·1, v·I),    1 = (1, …, 1) .

The distance of the means, 2a·√d, grows with the dimension d. With a = v = 1, on a path with
α² + σ² = 1, the two noised modes are one standard deviation from the origin at α = 1/√d. Biroli,
Bonnaire, de Bortoli, Mézard, "Dynamical regimes of diffusion models", Nature Communications 2024
(arXiv 2402.18491), call −ln α = ½·ln d the time of speciation. Grenioux et al., "Stochastic
localization via iterative posterior sampling", ICML 2024 (arXiv 2402.10758), use weights of 2:1,
a = 1 and v = .05 in many dimensions to test whether samplers find both modes.
"""

from __future__ import annotations

import math

from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.errors import require


def two_modes(
    dim: int = 16, shift: float = 1.0, weight: float = 0.5, variance: float = 1.0
) -> GaussianMixture:
    """Two Gaussians with means ±shift·(1, …, 1) and covariance variance·I.

    Args:
        dim: d, at most 256.
        shift: a, each coordinate of a mean.
        weight: w of the mode at +shift.
        variance: v of each coordinate in a mode.
    """
    require(1 <= dim <= 256, "dim", dim, "between 1 and 256")
    require(0 < shift < math.inf, "shift", shift, "positive and finite")
    require(0 < weight < 1, "weight", weight, "between 0 and 1")
    return isotropic((weight, 1 - weight), ((shift,) * dim, (-shift,) * dim), variance)
