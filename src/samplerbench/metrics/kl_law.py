"""The Kullback-Leibler divergence of the samples' law from the data's law, in nats.

With r = p/q at points of q, E_q[r] = 1, so for every c

    KL(q ‖ p) = E_q[−ln r] = E_q[−ln r + c·(r − 1)] .

c is the regression coefficient with the smallest variance of the mean. For q close to p it is about
1; then the terms r − 1 − ln r are never negative and of second order in r − 1. If r has rare large
values, c is about 0. If the fitted estimate is negative, c = 1 is used.

`info` has `half_width`, half of the 95 % interval of this value for independent points (evenly
drawn points vary less), `mean_ratio`, which estimates E_q[r], with `mean_ratio_half_width`, half of
its own interval, and `coefficient`, which is c.

In one dimension the first mean is an integral, also for samplers that draw noise, see
`bench.line_densities`. Then `info` has `quadrature_error`, and `mean_ratio` is the mass of p where
q has mass; it may be less than 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.metrics.base import PIECE, Divergence, Measurement, mean_ratio


@dataclass(frozen=True)
class KLLaw(Divergence):
    """KL(samples' law ‖ data's law), in nats."""

    def estimate(self, log_ratios: Tensor) -> Measurement:
        count = len(log_ratios)

        def total(of: Callable[[Tensor, Tensor], Tensor]) -> float:
            """The sum of a function of −ln r and r − 1."""
            pieces = torch.split(log_ratios, PIECE)
            return math.fsum(float(of(-piece, piece.expm1()).sum()) for piece in pieces)

        excess = total(lambda _, e: e) / count
        spread = total(lambda _, e: (e - excess).square())
        product = total(lambda plain, e: (e - excess) * plain)
        coefficient = -product / spread if spread > 0 else 1.0
        mean = total(lambda plain, e: plain + coefficient * e) / count
        if mean < 0:
            coefficient = 1.0
            mean = total(lambda plain, e: plain + e) / count
        squares = total(lambda plain, e: (plain + coefficient * e - mean).square())
        half = 1.96 * math.sqrt(squares / (count - 1)) / math.sqrt(count) if count > 1 else math.nan
        info = {"half_width": half, **mean_ratio(log_ratios), "coefficient": coefficient}
        return Measurement(mean, math.nan, math.nan, None, 0, info)

    def integrate(self, masses: Tensor, log_ratios: Tensor) -> float:
        return max(0.0, -float(masses @ log_ratios))
