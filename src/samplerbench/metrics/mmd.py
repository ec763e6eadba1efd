"""The maximum mean discrepancy with a Gaussian kernel, squared, without bias.

    MMD²(μ, ν) = E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y),     k(x, y) = exp(−‖x − y‖²/(2h²)) ,

with independent X, X′ ~ μ and Y, Y′ ~ ν. Each mean is over the pairs of *different* points (a
U-statistic), so the expected value is MMD² of the laws, 0 for a perfect sampler. The value is the
square: between −2 and 2, without units, and it may be negative.

The kernel does not detect differences that are much finer or much wider than the bandwidth h. The
default h is the median of ‖Y − Y′‖ over 1 000 points of the reference, evenly spaced in its rows.
It depends only on the reference, so all samples are measured with the same kernel. On a mixture of
narrow modes this median is a distance between modes; to measure the shape of the modes, set h to
their width.

Cost: n·m + n²/2 kernels per call, and m²/2 once; bounded memory, see `pairs`.

Reference: A. Gretton, K. Borgwardt, M. Rasch, B. Schölkopf, A. Smola, A Kernel Two-Sample Test,
JMLR 13 (2012) 723–773, Equation 3 (the estimate) and Section 8 (the median heuristic).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, MeasuredBy, Measurement
from samplerbench.metrics.pairs import (
    PairMetric,
    mean_over_own_pairs,
    mean_over_pairs,
    require_pairs,
)

#: The number of points for the median distance; its error is a few percent, enough for h.
_MEDIAN_POINTS = 1000


@dataclass(frozen=True)
class MMD(PairMetric):
    """The squared MMD with a Gaussian kernel, unbiased: it may be negative.

    Args:
        bandwidth: h, in data units, above 0; null: the median distance within the reference.
    """

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        fits = self.bandwidth is None or 0 < self.bandwidth < math.inf
        require(fits, "bandwidth", self.bandwidth, "above 0 and finite, or null for the median")

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        require_pairs(reference, "reference")
        y = reference.double()
        bandwidth = median_distance(y) if self.bandwidth is None else self.bandwidth
        allowed = "above 0; the median distance within this reference is 0, so set the bandwidth"
        require(bandwidth > 0, "bandwidth", bandwidth, allowed)

        def kernel(distances: Tensor) -> Tensor:
            # exp takes ten times as long where it underflows; exp(−600) is negligible
            return distances.div_(bandwidth).square_().mul_(-0.5).clamp_min_(-600).exp_()

        own = mean_over_own_pairs(y, kernel)

        def measure(samples: Tensor) -> Measurement:
            require_pairs(samples, "samples")
            x = samples.to(y)
            value = mean_over_own_pairs(x, kernel) + own - 2 * mean_over_pairs(x, y, kernel)
            return Measurement(value, value, value, None, 0, {"bandwidth": bandwidth})

        return MeasuredBy(y.shape[1], measure)


def median_distance(points: Tensor) -> float:
    """Return the median distance between about 1 000 evenly spaced points of `(m, dim)`."""
    some = points[:: -(-len(points) // _MEDIAN_POINTS)]
    return float(torch.pdist(some).median())
