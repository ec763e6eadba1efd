"""The max-sliced W₂ of two clouds in the plane, certified: with a lower and an upper bound.

It is found by `cutting_planes`. A coupling π, a matrix of weights over pairs of points, has the
bound

    θᵀ M_π θ,     M_π = Σ π(x, y) (x − y)(x − y)ᵀ .

The number of evaluations grows like the size of the data over W₂. For a relative gap of 1e-6 it is
about 20 for samples of mixtures with different weights, 100 for two Gaussian samples of 2 000
points, and 500 for 20 000 points. Each costs n log n + m log m.

Reference: I. Deshpande et al., Max-Sliced Wasserstein Distance and Its Use for GANs, CVPR 2019,
arXiv 1904.05877 (the distance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.metrics.base import Distance, Measurement, Metric
from samplerbench.metrics.cutting_planes import START_ANGLES, Bound, check_stop, search
from samplerbench.metrics.plane import ROUNDING, Array, Cloud, Indices, cells, line_distance, pieces
from samplerbench.metrics.projections import quantile_grid


@dataclass(frozen=True)
class MaxSlicedCertified(Metric):
    """max-W₂ in the plane, with a lower and an upper bound; in float64, on the CPU.

    It stops when upper − lower ≤ relative_tolerance · upper, or when rounding errors exceed the
    gap. Nothing in it is random: the seed has no effect.

    Args:
        relative_tolerance: the allowed gap relative to the value, ≥ 0.
        evaluations: the largest number of couplings, ≥ 8; the bounds hold in any case.
    """

    relative_tolerance: float = 1e-6
    evaluations: int = 1000

    def __post_init__(self) -> None:
        check_stop(self.relative_tolerance, self.evaluations)

    def why_incompatible(self, dim: int) -> str | None:
        if dim == 2:
            return None
        return f"the certified search needs 2-D data, this has {dim}; use metric=max_sliced_refined"

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        return _CertifiedDistance(self, reference)


class _CertifiedDistance(Distance):
    def __init__(self, metric: MaxSlicedCertified, reference: Tensor) -> None:
        super().__init__(dim=2)
        self._metric = metric
        self._size = len(reference)
        self._centre: Array = reference.double().mean(dim=0).cpu().numpy()
        self._reference = Cloud(reference, self._centre)
        # every search starts with these directions, so a small reference is sorted only once
        starts = START_ANGLES if self._reference.small else ()
        self._starts = {phi: self._sorted(phi) for phi in starts}

    def _sorted(self, phi: float) -> tuple[Array, Array] | Indices:
        """Return the reference ordered along a direction; for many points only the order."""
        order = self._reference.order(phi)
        return self._reference.at(order) if self._reference.small else order

    def _cells_of(
        self, index: Indices, line: tuple[Array, Array] | Indices, rows: slice
    ) -> tuple[Array, Array]:
        """Return the coordinates of the reference in cells of the quantile grid."""
        if isinstance(line, tuple):
            return cells(index, line[0], rows), cells(index, line[1], rows)
        return self._reference.at(cells(index, line, rows))

    def measure(self, samples: Tensor) -> Measurement:
        cloud = Cloud(samples, self._centre)
        grid = quantile_grid(len(samples), self._size, torch.device("cpu"))
        index, weight = grid.index.numpy(), grid.weight.numpy()

        def couple(phi: float) -> Bound:
            line = self._starts.get(phi)
            line = self._sorted(phi) if line is None else line
            order, sums = cloud.order(phi), []
            for rows in pieces(weight):
                x, y = cloud.at(order[rows]), self._cells_of(index, line, rows)
                sums.append(_moments(weight[rows], x, y))
            return _bound(*map(math.fsum, zip(*sums, strict=True)))

        peak = search(couple, self._metric.relative_tolerance, self._metric.evaluations)
        value = line_distance(index, weight, cloud.along(peak.phi), self._reference.along(peak.phi))
        angles = [math.cos(peak.phi), math.sin(peak.phi)]
        direction = torch.tensor(angles, dtype=torch.float64)
        return Measurement(value, value, max(peak.upper, value), direction, peak.evaluations)


def _moments(
    weight: Array, x: tuple[Array, Array], y: tuple[Array, Array]
) -> tuple[float, float, float]:
    """Return the sums of w·Δx², w·Δy² and w·Δx·Δy over rows of a coupling."""
    dx, dy = (a[:, None] - b for a, b in zip(x, y, strict=True))
    weighted = dx * weight
    xy = float((weighted * dy).sum())
    xx = float(np.multiply(weighted, dx, out=weighted).sum())
    yy = float(np.multiply(np.square(dy, out=dy), weight, out=dy).sum())
    return xx, yy, xy


def _bound(xx: float, yy: float, xy: float) -> Bound:
    """Return the bound of a coupling with these second moments."""
    mean = (xx + yy) / 2
    return Bound(mean * (1 + ROUNDING), complex((xx - yy) / 2, xy), mean * ROUNDING)
