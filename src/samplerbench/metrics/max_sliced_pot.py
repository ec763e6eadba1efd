"""The max-sliced Wasserstein distance as the POT library computes it.

    max_k W_p(θ_k# μ, θ_k# ν)     over the random directions θ_k of `max_sliced`.

Here as a reference, and to reproduce results that were computed with it. In float64 it agrees with
`max_sliced` to 1e-9. In float32 it is off by some 1e-3: POT sums up the weights 1/m in float32 to
find the quantile cells, and does not move the clouds to the origin: 1e-7 of their distance from it
is lost. It projects and sorts the reference anew in each call, some 300 times slower than
`max_sliced`, and holds K·(n + m) numbers several times over.

Reference: R. Flamary et al., POT: Python Optimal Transport, JMLR 22 (2021) 78,
`ot.max_sliced_wasserstein_distance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, Measurement, Metric
from samplerbench.metrics.max_sliced import DTYPES, Precision
from samplerbench.metrics.projections import random_directions


@dataclass(frozen=True)
class MaxSlicedPOT(Metric):
    """The largest W_p over random directions by POT, in NumPy on the CPU.

    Args:
        p: the order of W_p, at least 1.
        directions: how many random directions.
        precision: the dtype of the clouds and of all sums. In float32 the value is no bound.
    """

    p: float = 2.0
    directions: int = 1000
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        require(1 <= self.p < math.inf, "p", self.p, "at least 1 and finite")
        require(self.directions >= 1, "directions", self.directions, "at least 1")
        require(self.precision in DTYPES, "precision", self.precision, " or ".join(DTYPES))

    def why_incompatible(self, dim: int) -> str | None:
        return None

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        return _POTDistance(self, reference, seed)


class _POTDistance(Distance):
    def __init__(self, metric: MaxSlicedPOT, reference: Tensor, seed: int) -> None:
        super().__init__(reference.shape[1])
        self._metric = metric
        self._dtype = DTYPES[metric.precision]
        self._reference = reference.to("cpu", self._dtype).numpy()
        self._directions = random_directions(reference.shape[1], metric.directions, seed)

    def measure(self, samples: Tensor) -> Measurement:
        import ot  # Slow to import, and only this member needs it.

        points = samples.to("cpu", self._dtype).numpy()
        unit = 1.0
        if self._dtype == torch.float32:  # |x − y|^p vanishes or overflows away from 1
            largest = max(np.abs(points).max(), np.abs(self._reference).max())
            unit = 2.0 ** math.frexp(largest)[1]
        value, log = ot.max_sliced_wasserstein_distance(
            points / unit,
            self._reference / unit,
            p=self._metric.p,
            projections=self._directions.T.to(self._dtype).numpy(),
            log=True,
        )
        best = int(log["projected_emds"].argmax())
        distance = float(value) * unit
        lower = distance if self._dtype == torch.float64 else math.nan
        direction = self._directions[best].clone()
        return Measurement(distance, lower, math.nan, direction, self._metric.directions)
