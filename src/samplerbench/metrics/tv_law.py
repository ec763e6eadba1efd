"""The total variation distance of the samples' law from the data's law, between 0 and 1.

    TV(q, p) = ½ ∫ |q − p| = ½ E_q|1 − r| ,     r = p/q where q > 0,

if p has no mass where q has none, which holds if E_q[r] = 1. It is the largest difference between
the probabilities of an event under q and p. `info` has `half_width`, `mean_ratio` and
`mean_ratio_half_width`, as in `kl_law`.

In one dimension, also for samplers that draw noise, it is the integral of (1 − r)⁺ over q, and
`info` has `quadrature_error` and `mean_ratio`, as in `kl_law`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from samplerbench.metrics.base import Divergence, Measurement, mean_ratio, mean_with_half


@dataclass(frozen=True)
class TVLaw(Divergence):
    """The total variation distance to the data's law, a share; no units."""

    def estimate(self, log_ratios: Tensor) -> Measurement:
        value, half = mean_with_half(log_ratios, lambda v: v.expm1().abs() / 2)
        info = {"half_width": half, **mean_ratio(log_ratios)}
        return Measurement(value, math.nan, math.nan, None, 0, info)

    def integrate(self, masses: Tensor, log_ratios: Tensor) -> float:
        return float(masses @ (-log_ratios.expm1()).clamp_min(0))
