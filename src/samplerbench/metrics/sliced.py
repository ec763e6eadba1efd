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

from samplerbench.metrics.base import Distance, Measurement, Metric
from samplerbench.metrics.max_sliced import MaxSliced, Precision, SlicedReference


@dataclass(frozen=True)
class Sliced(Metric):
    """The mean W_p over random directions: (mean of W_p^p)^{1/p}.

    Args:
        p: the order of W_p, at least 1.
        directions: the number of random directions.
        precision: the dtype of the projections.
    """

    p: float = 2.0
    directions: int = 1000
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        self._lines()

    def _lines(self) -> MaxSliced:
        """Return the max-sliced metric with the same directions; it checks the settings."""
        return MaxSliced(self.p, self.directions, self.precision)

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        lines = SlicedReference(self._lines(), reference, seed)
        return _SlicedDistance(self.p, lines, reference.shape[1])


class _SlicedDistance(Distance):
    def __init__(self, p: float, reference: SlicedReference, dim: int) -> None:
        super().__init__(dim)
        self._p = p
        self._reference = reference

    def measure(self, samples: Tensor) -> Measurement:
        values, _ = self._reference.distances(samples)
        largest = float(values.max())
        value = 0.0
        if largest > 0:
            # W_p^p under- or overflows for large p, (W_p / largest)^p does not
            value = largest * float((values / largest).pow(self._p).mean()) ** (1 / self._p)
        return Measurement(value, math.nan, math.nan, None, len(values))
