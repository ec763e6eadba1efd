"""Sums over the pairs of points of clouds, in float64 and in pieces.

    Σᵢⱼ f(‖xᵢ − yⱼ‖)     and     Σ_{i ≠ j} f(‖xᵢ − xⱼ‖) ,

for energy distances and kernel discrepancies. Distances are computed from differences, not from
expanded squares, which cancel. The size of a piece changes only the rounding of a sum, by a few
1e-16 of the sum of |f|. Cost: n·m, half of it for the pairs of one cloud. Memory: PIECE numbers, on
the device of the points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Metric

#: The number of pairs at a time, at least one row: 8 MB.
PIECE = 2**20
#: The largest number of pairs: such a sum takes about ten minutes on one core.
MOST_PAIRS = 10**11


class PairMetric(Metric):
    """A squared distance from unbiased sums over pairs; it may be negative."""

    is_wasserstein: ClassVar[bool] = False
    allows_coupled: ClassVar[bool] = False  # clouds with the same starts would seem too close

    @property
    def floor_exponent(self) -> float:
        """1: between samples of one law, the linear part of the U-statistic vanishes."""
        return 1.0

    def why_too_large(self, n: int, m: int) -> str | None:
        return why_too_many(n, m)


def require_pairs(points: Tensor, name: str) -> None:
    """Refuse a cloud of one point: it has no pairs to average over."""
    allowed = "at least 2 for an unbiased value; metric=sliced takes 1"
    require(len(points) >= 2, f"{name}.shape[0]", len(points), allowed)


def why_too_many(n: int, m: int) -> str | None:
    """The reason in one line why n and m points have too many pairs, or None."""
    most = max(n, m)
    if n * m <= MOST_PAIRS and most**2 // 2 <= MOST_PAIRS:
        return None
    return (
        f"{most:,} points have too many pairs, at most {MOST_PAIRS:,}: lower n_samples or "
        "n_reference, or use metric=sliced"
    )


def mean_over_pairs(x: Tensor, y: Tensor, f: Callable[[Tensor], Tensor]) -> float:
    """Return the mean of f over all pairs of `(n, dim)` and `(m, dim)`; f may work in place."""
    sums: list[float] = []
    for rows in torch.split(x, _rows(len(y))):
        sums += _row_sums(f(_distances(rows, y)))
    return math.fsum(sums) / (len(x) * len(y))


def mean_over_own_pairs(x: Tensor, f: Callable[[Tensor], Tensor]) -> float:
    """Return the mean of f over the n·(n − 1) pairs of different points of `(n, dim)`, n ≥ 2."""
    count, rows = len(x), _rows(len(x))
    sums: list[float] = []
    for start in range(0, count, rows):
        block, rest = x[start : start + rows], x[start + rows :]
        # set the diagonal to 0 after f, since f(0) is not 0 for a kernel
        sums += _row_sums(f(_distances(block, block)).fill_diagonal_(0))
        sums += _row_sums(f(_distances(block, rest)).mul_(2))
    return math.fsum(sums) / (count * (count - 1))


def _row_sums(values: Tensor) -> list[float]:
    sums: list[float] = values.sum(dim=1).tolist()
    return sums


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _rows(columns: int) -> int:
    return max(1, PIECE // columns)


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """The distance `(n,)` of each point of `(n, dim)` to the nearest point of `(m, dim)`."""
    pieces = torch.split(x, _rows(len(y)))
    return torch.cat([_distances(rows, y).amin(dim=1) for rows in pieces])


def neighbour_radii(x: Tensor, k: int) -> Tensor:
    """The distance `(n,)` of each point of `(n, dim)` to its k-th nearest neighbour, k < n."""
    # the nearest point is the point itself
    pieces = torch.split(x, _rows(len(x)))
    return torch.cat([_distances(rows, x).kthvalue(k + 1, dim=1).values for rows in pieces])


def share_inside(x: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of points `(n, dim)` inside the balls around `(m, dim)` with radii `(m,)`."""
    pieces = torch.split(x, _rows(len(centres)))
    inside = [(_distances(rows, centres) <= radii).any(dim=1) for rows in pieces]
    return float(torch.cat(inside).double().mean())
