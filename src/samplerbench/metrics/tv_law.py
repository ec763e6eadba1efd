"""The total variation distance of the samples' law from the data's law, between 0 and 1.

    TV(q, p) = ½ ∫ |q − p| = ½ E_q|1 − r| ,     r = p/q where q > 0,

if p has no mass where q has none, which holds if E_q[r] = 1. It is the largest difference between
the probabilities of an event under q and p. `info` has `half_width`, `mean_ratio` and
`mean_ratio_half_width`, as in `kl_law`.

In one dimension, also for samplers that draw noise, it is the integral of (1 − r)⁺ over q. Where q
and p cross within a panel of the quadrature, the polynomial through the values of q − p is
integrated up to its root. `info` has `quadrature_error` and `mean_ratio`, as in `kl_law`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from samplerbench.core.line_laws import LineNodes
from samplerbench.metrics.base import Divergence, Measurement, mean_ratio, mean_with_half


@dataclass(frozen=True)
class TVLaw(Divergence):
    """The total variation distance to the data's law, a share; no units."""

    def estimate(self, log_ratios: Tensor) -> Measurement:
        value, half = mean_with_half(log_ratios, lambda v: v.expm1().abs() / 2)
        info = {"half_width": half, **mean_ratio(log_ratios)}
        return Measurement(value, math.nan, math.nan, None, 0, info)

    def integrate(self, law: LineNodes, log_p: Callable[[Tensor], Tensor]) -> float:
        if law.panels is not None:
            return law.panels.positive_part(log_p(law.panels.points) - law.panels.log_density)
        log_ratios = log_p(law.points) - law.log_density
        return float(law.mean((-log_ratios.expm1()).clamp_min(0)))
