"""W₂ between the law of a sampler's output and a Gaussian of any dimension, exact.

For diagonal covariances W₂² = ‖m − m'‖² + Σ (√λ − √λ')², in the units of the data. `info` has
`frechet` = W₂², the Fréchet distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.metrics.base import Measurement, SpectrumDistance


@dataclass(frozen=True)
class W2LawGaussian(SpectrumDistance):
    """W₂ to the data's law, from means and variances, without samples."""

    def between(self, mean: Tensor, variances: Tensor, law: GaussianSpectrum) -> Measurement:
        gap = (mean - law.mean).square()
        frechet = float((gap + (variances.sqrt() - law.variances.sqrt()).square()).sum())
        w2 = math.sqrt(frechet)
        return Measurement(w2, w2, w2, None, 0, {"frechet": frechet})
