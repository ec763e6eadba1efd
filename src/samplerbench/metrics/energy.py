"""The energy distance, squared, without bias.

    D²(μ, ν) = 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖,     X, X′ ~ μ,   Y, Y′ ~ ν   independent ,

is ≥ 0, and 0 only for μ = ν. Each mean is over the pairs of *different* points (a U-statistic), so
for all n and m the expected value is D² of the laws: 0 for a perfect sampler. The value is D², not
D, which has no unbiased estimate. It is in the units of the data (a mean distance) and may be
negative. For two clouds that share points it is biased downwards.

Cost: n·m + n²/2 distances per call, and m²/2 once; bounded memory, see `pairs`.

References: G. J. Székely, M. L. Rizzo, Energy Statistics: A Class of Statistics Based on Distances,
J. Stat. Plan. Inference 143 (2013) 1249–1272; D. Sejdinovic et al., Equivalence of Distance-Based
and RKHS-Based Statistics, Ann. Stat. 41 (2013) 2263–2291, arXiv 1207.6076 (it is the MMD² of the
kernel −‖x − y‖, to which the U-statistic of `mmd` applies).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from samplerbench.metrics.base import Distance, MeasuredBy, Measurement
from samplerbench.metrics.pairs import (
    PairMetric,
    mean_over_own_pairs,
    mean_over_pairs,
    require_pairs,
)


@dataclass(frozen=True)
class Energy(PairMetric):
    """The squared energy distance, unbiased: it may be negative. It has no settings."""

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        require_pairs(reference, "reference")
        y = reference.double()
        own = mean_over_own_pairs(y, _same)

        def measure(samples: Tensor) -> Measurement:
            require_pairs(samples, "samples")
            x = samples.to(y)
            value = 2 * mean_over_pairs(x, y, _same) - mean_over_own_pairs(x, _same) - own
            return Measurement(value, value, value, None, 0)

        return MeasuredBy(y.shape[1], measure)


def _same(distances: Tensor) -> Tensor:
    return distances
