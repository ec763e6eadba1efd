"""The Kullback-Leibler divergence of the samples' law from the data's law, in nats.

With r = p/q at points of q, E_q[r] = 1, so for every c

    KL(q ‖ p) = E_q[−ln r] = E_q[−ln r + c·(r − 1)] .

c is the regression coefficient that minimises the variance of the mean. For q close to p it is
about 1; then the terms r − 1 − ln r are never negative and of second order in r − 1. If r has rare
large values, c is about 0. If the fitted estimate is negative, c = 1 is used.

`info` has `half_width`, half of the 95 % interval of this value for independent points (evenly
drawn points vary less); `mean_ratio`, which estimates E_q[r], with `mean_ratio_half_width`, half of
its own interval; and `coefficient`, which is c.

In one dimension the first mean is computed by quadrature, also for samplers that draw noise, see
`bench.line_densities`. Then `info` has `quadrature_error`, and `mean_ratio` is the mass of p where
the density of q is not 0 in float64, with `mean_ratio_error`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.line_laws import LineNodes
from samplerbench.metrics.base import Divergence, Measurement, mean_ratio, mean_with_half, total


@dataclass(frozen=True)
class KLLaw(Divergence):
    """KL(samples' law ‖ data's law), in nats."""

    def estimate(self, log_ratios: Tensor) -> Measurement:
        count = len(log_ratios)
        excess = total(log_ratios, torch.expm1) / count
        spread = total(log_ratios, lambda v: (v.expm1() - excess).square())
        product = total(log_ratios, lambda v: (v.expm1() - excess) * -v)
        coefficient = -product / spread if spread > 0 else 1.0
        mean, half = mean_with_half(log_ratios, lambda v: coefficient * v.expm1() - v)
        if mean < 0:
            coefficient = 1.0
            mean, half = mean_with_half(log_ratios, lambda v: v.expm1() - v)
        info = {"half_width": half, **mean_ratio(log_ratios), "coefficient": coefficient}
        return Measurement(mean, math.nan, math.nan, None, 0, info)

    def integrate(self, law: LineNodes, log_p: Callable[[Tensor], Tensor]) -> float:
        value = float(law.mean(law.log_density - log_p(law.points)))
        return value if math.isnan(value) else max(0.0, value)
