"""W₂ between two clouds, exactly: the optimal transport of all points to all points.

    W₂² = min_π Σᵢⱼ πᵢⱼ ‖xᵢ − yⱼ‖²,     π ≥ 0,   Σⱼ πᵢⱼ = 1/n,   Σᵢ πᵢⱼ = 1/m ,

by the network simplex of the POT library, in float64 on the CPU. It detects differences that no
projection shows. Its floor is high: between clouds of one law it falls like n^(−1/dim) for dim ≥ 3.

The cost of any plan is an upper bound of W₂², and any potentials u, v give a lower bound:

    (1/n) Σᵢ uᵢ + (1/m) Σⱼ vⱼ ≤ W₂²     where uᵢ + vⱼ ≤ Cᵢⱼ = ‖xᵢ − yⱼ‖² .

`upper` and `lower` are the roots of these bounds. The gap between them is Σᵢⱼ πᵢⱼ Rᵢⱼ, with the
reduced costs R = C − u − v ≥ 0.

The simplex starts from potentials of (n + m)·(1 + largest cost), and treats costs below 1e-15 of
these potentials as rounding errors. So it gets the costs in a unit near the largest cost. That is
not enough if both clouds have points far away, whose costs are much larger than all other costs.
Therefore, while the gap is more than `_GAP` of W₂², the problem is solved again with R instead of
C, which has the same optimal plan. This plan moves no mass over a pair with Rᵢⱼ > gap·lcm(n, m),
because its masses are multiples of 1/lcm(n, m). So larger entries of R are replaced by this value.

Cost: about 50·n·m bytes, mostly POT's, and time that grows faster than n·m: 0.5 s at
2 000 × 2 000, 3 s at 2 000 × 10 000. Larger problems than `max_pairs` are refused.

References: R. Flamary et al., POT: Python Optimal Transport, JMLR 22 (2021) 78, `ot.emd2`;
N. Bonneel, M. van de Panne, S. Paris, W. Heidrich, Displacement Interpolation Using Lagrangian Mass
Transport, ACM Trans. Graph. 30 (2011) 158 (the solver); A. M. Gleixner, D. E. Steffy, K. Wolter,
Iterative Refinement for Linear Programming, INFORMS J. Comput. 28 (2016) 449–464 (the rounds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, MeasuredBy, Measurement, Metric

Array = NDArray[np.float64]

#: A gap below this share of W₂² counts as closed. Ordinary clouds have 1e-13 to 1e-10.
_GAP = 1e-9
#: Relative to W₂² and the potentials: the rounding error of the lower bound.
_ROUNDING = 1e-15
#: The largest number of pivots, never reached in practice. POT's default is too small at 2 000 × 2
#: 000.
_PIVOTS = 10**8


@dataclass(frozen=True)
class ExactW2(Metric):
    """W₂ of the clouds, without projections.

    Args:
        max_pairs: the largest n·m that is computed, at least 1; a pair takes 50 bytes.

    Attributes:
        p: the order of W_p; the costs are ‖xᵢ − yⱼ‖^p.
    """

    p: ClassVar[int] = 2
    max_pairs: int = 4_000_000

    def __post_init__(self) -> None:
        require(self.max_pairs >= 1, "max_pairs", self.max_pairs, "at least 1")

    def why_too_large(self, n: int, m: int) -> str | None:
        if n * m <= self.max_pairs:
            return None
        return (
            f"{n:,} × {m:,} is more than max_pairs = {self.max_pairs:,}: raise that, take "
            "fewer samples or data points, or use metric=sliced"
        )

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        y, name = reference.double().cpu().numpy(), {1: "euclidean", 2: "sqeuclidean"}[self.p]

        def measure(samples: Tensor) -> Measurement:
            reason = self.why_too_large(len(samples), len(y))
            if reason is not None:
                raise ValueError(reason)
            lower, least = _transport(cdist(samples.double().cpu().numpy(), y, name))
            value = least ** (1 / self.p)
            return Measurement(value, lower ** (1 / self.p), value, None, 0)

        return MeasuredBy(y.shape[1], measure)


def _transport(costs: Array) -> tuple[float, float]:
    """Return a lower and an upper bound of the least cost; the upper one is the cost of a plan."""
    masses = math.lcm(*costs.shape)
    plan, rows, square = _solve(costs)
    last = math.inf
    while True:
        # the largest potentials of each side, given those of the other side
        columns = (costs - rows[:, None]).min(axis=0)
        rows = (costs - columns).min(axis=1)
        reduced = (costs - rows[:, None] - columns).clip(min=0)
        gap = float((plan * reduced).sum())
        if gap <= _GAP * square or gap > last / 2:
            break
        last = gap
        plan, more, _ = _solve(reduced.clip(max=2 * masses * gap))
        rows += more
        square = min(square, float((plan * costs).sum()))
    rounding = _ROUNDING * (square + float(abs(rows).mean() + abs(columns).mean()))
    return max(0.0, square - gap - rounding), square


def _solve(costs: Array) -> tuple[Array, Array, float]:
    """Return a plan (n, m) for uniform weights, potentials (n,) of the rows, and its cost."""
    import ot  # slow to import, and no other member needs it

    unit = 2.0 ** math.frexp(costs.max())[1]
    # empty weights mean uniform weights
    plan, log = ot.emd([], [], costs / unit, numItermax=_PIVOTS, log=True, center_dual=False)
    if log["warning"] is not None:
        raise RuntimeError(f"POT's network simplex found no optimum: {log['warning']}")
    return plan, unit * log["u"], unit * log["cost"]
