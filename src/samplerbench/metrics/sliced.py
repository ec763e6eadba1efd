"""The sliced Wasserstein distance: the mean over directions (`max_sliced` is the maximum).

    SW_p(μ, ν)^p = ∫_{‖θ‖ = 1} W_p(θ_# μ, θ_# ν)^p dθ,     θ_# the projection x ↦ ⟨θ, x⟩ ,

estimated by the mean over K random directions, uniform on the sphere. The estimate is unbiased
before the p-th root, with a relative error of order 1/√K. For p = 2 a shift c has the value
‖c‖/√dim, and for isotropic Gaussians of different widths the value is W₂/√dim.

Cost and memory are those of `max_sliced`.

Reference: N. Bonneel, J. Rabin, G. Peyré, H. Pfister, Sliced and Radon Wasserstein Barycenters of
Measures, J. Math. Imaging Vis. 51 (2015) 22–45, Definition 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from samplerbench.metrics.base import Distance, MeasuredBy, Measurement
from samplerbench.metrics.max_sliced import MaxSliced, SlicedReference


@dataclass(frozen=True)
class Sliced(MaxSliced):
    """The mean W_p over random directions, (mean of W_p^p)^{1/p}; settings as in `MaxSliced`."""

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        lines = SlicedReference(self, reference, seed)

        def measure(samples: Tensor) -> Measurement:
            values, _ = lines.distances(samples)
            largest = float(values.max())
            value = 0.0
            if largest > 0:
                # W_p^p under- or overflows for large p, (W_p / largest)^p does not
                value = largest * float((values / largest).pow(self.p).mean()) ** (1 / self.p)
            return Measurement(value, math.nan, math.nan, None, len(values))

        return MeasuredBy(reference.shape[1], measure)
