"""The maximum mean discrepancy with a Gaussian kernel, squared, without bias.

    MMD²(μ, ν) = E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y),     k(x, y) = exp(−‖x − y‖²/(2h²)) ,

with X, X′ ~ μ and Y, Y′ ~ ν independent. Each mean is over the pairs of *different* points (a
U-statistic), so the expected value is MMD² of the laws, 0 for a perfect sampler. The value is the
square, between −2 and 2 without units, and may be negative.

The bandwidth h decides what is seen: differences much finer or much wider than h are not. Without a
setting it is the median of ‖Y − Y′‖ over 1 000 points of the reference, evenly spaced in its rows:
the reference alone, so that all samples are measured with one kernel. On a mixture of narrow modes
that median is a distance between modes; state a bandwidth of a mode's width to see inside them.

Cost: n·m + n²/2 kernels a call, m²/2 beforehand; memory in pieces, see `pairs`.

Reference: A. Gretton, K. Borgwardt, M. Rasch, B. Schölkopf, A. Smola, A Kernel Two-Sample Test,
JMLR 13 (2012) 723–773, Equation 3 (the estimate) and Section 8 (the median heuristic).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, Measurement, Metric
from samplerbench.metrics.energy import require_pairs
from samplerbench.metrics.pairs import mean_over_own_pairs, mean_over_pairs, why_too_many

_MEDIAN_POINTS = 1000
"""The standard error of a median over their pairs is a few percent; h needs no more."""


@dataclass(frozen=True)
class MMD(Metric):
    """The squared MMD with a Gaussian kernel, unbiased: it may be negative.

    Args:
        bandwidth: h, in data units, above 0; null takes the median distance within the reference.
    """

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        fits = self.bandwidth is None or 0 < self.bandwidth < math.inf
        require(fits, "bandwidth", self.bandwidth, "above 0 and finite, or null for the median")

    is_wasserstein: ClassVar[bool] = False
    allows_coupled: ClassVar[bool] = False  # two clouds with the same starts seem too near

    @property
    def floor_exponent(self) -> float:
        """1: between samples of one law, the linear part of the U-statistic vanishes."""
        return 1.0

    def why_incompatible(self, dim: int) -> str | None:
        return None

    def why_too_large(self, n: int, m: int) -> str | None:
        return why_too_many(n, m)

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        require_pairs(reference, "reference")
        points = reference.double()
        bandwidth = median_distance(points) if self.bandwidth is None else self.bandwidth
        allowed = "above 0, which the median of distances within this reference is not; state it"
        require(bandwidth > 0, "bandwidth", bandwidth, allowed)
        return _MMDDistance(points, bandwidth)


def median_distance(points: Tensor) -> float:
    """Return the median distance between some 1 000 of the points `(m, dim)`, evenly spaced."""
    some = points[:: -(-len(points) // _MEDIAN_POINTS)]
    return float(torch.pdist(some).median())


class _MMDDistance(Distance):
    def __init__(self, reference: Tensor, bandwidth: float) -> None:
        super().__init__(reference.shape[1])
        self._reference = reference
        self._bandwidth = bandwidth
        self._own = mean_over_own_pairs(reference, self._kernel)

    def _kernel(self, distances: Tensor) -> Tensor:
        # exp takes ten times as long where it underflows; exp(−600) is 0 beside any sum.
        return distances.div_(self._bandwidth).square_().mul_(-0.5).clamp_min_(-600).exp_()

    def measure(self, samples: Tensor) -> Measurement:
        require_pairs(samples, "samples")
        x = samples.to(self._reference)
        across = mean_over_pairs(x, self._reference, self._kernel)
        value = mean_over_own_pairs(x, self._kernel) + self._own - 2 * across
        return Measurement(value, value, value, None, 0, {"bandwidth": self._bandwidth})
