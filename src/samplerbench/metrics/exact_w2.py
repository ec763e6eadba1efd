"""W₂ between two clouds, exactly: the optimal transport of all points to all points.

    W₂² = min_π Σᵢⱼ πᵢⱼ ‖xᵢ − yⱼ‖²,     π ≥ 0,   Σⱼ πᵢⱼ = 1/n,   Σᵢ πᵢⱼ = 1/m ,

by the network simplex of the POT library, in float64 on the CPU. It sees what no projection shows,
and its floor is high: between fresh clouds of one law it falls like n^(−1/dim) for dim ≥ 3.

Cost: the matrix of costs, 8·n·m bytes, and time that grows faster than n·m: 1.4 s at 2 000 × 2 000,
9 s at 2 000 × 10 000. Larger problems than `max_pairs` are refused.

References: R. Flamary et al., POT: Python Optimal Transport, JMLR 22 (2021) 78, `ot.emd2`;
N. Bonneel, M. van de Panne, S. Paris, W. Heidrich, Displacement Interpolation Using Lagrangian Mass
Transport, ACM Trans. Graph. 30 (2011) 158 (the solver).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.spatial.distance import cdist
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, Measurement, Metric

_PIVOTS = 10**8
"""So many that time runs out before: POT's default ends the simplex early at 2 000 × 2 000."""


@dataclass(frozen=True)
class ExactW2(Metric):
    """W₂ of the clouds, without projections.

    Args:
        max_pairs: the largest n·m that is computed, at least 1; it takes 8 bytes a pair.
    """

    max_pairs: int = 4_000_000

    def __post_init__(self) -> None:
        require(self.max_pairs >= 1, "max_pairs", self.max_pairs, "at least 1")

    def why_incompatible(self, dim: int) -> str | None:
        return None

    def why_too_large(self, n: int, m: int) -> str | None:
        if n * m <= self.max_pairs:
            return None
        return (
            f"{n:,} × {m:,} is more than max_pairs = {self.max_pairs:,}: raise that, lower "
            "n_samples or n_reference, or use metric=sliced"
        )

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        return _ExactDistance(self, reference)


class _ExactDistance(Distance):
    def __init__(self, metric: ExactW2, reference: Tensor) -> None:
        super().__init__(reference.shape[1])
        self._metric = metric
        self._reference = reference.double().cpu().numpy()

    def measure(self, samples: Tensor) -> Measurement:
        import ot  # Slow to import, and few members need it.

        reason = self._metric.why_too_large(len(samples), len(self._reference))
        if reason is not None:
            raise ValueError(reason)
        costs = cdist(samples.double().cpu().numpy(), self._reference, "sqeuclidean")
        # Empty weights are uniform ones.
        square, log = ot.emd2([], [], costs, numItermax=_PIVOTS, log=True, center_dual=False)
        if log["warning"] is not None:
            raise RuntimeError(f"POT's network simplex found no optimum: {log['warning']}")
        value = math.sqrt(square)
        return Measurement(value, value, value, None, 0)
