"""The max-sliced Wasserstein distance over random directions.

    max-W_p(μ, ν) = max_{‖θ‖ = 1} W_p(θ_# μ, θ_# ν),     θ_# the projection x ↦ ⟨θ, x⟩ ,

estimated by the largest of K random directions, uniform on the sphere. It is a lower bound, good
in few dimensions and poor in many: for a pure mean shift c it is
‖c‖·max_k cos(θ_k, c) ≈ ‖c‖·√(2 ln K / dim).

In the plane, for p = 2, most directions need no coupling, since each coupling bounds W₂ along all
of them, see `cutting_planes`: 10 to 20 of 1 000 for samples of mixtures with different weights, 130
for two Gaussian samples of 2 000 points. This is in float64, on the CPU. It keeps the cell means of
128 directions, and none of clouds with more than 65 536 points.

Otherwise the cost for p = 2 is K·m·(dim + log m) once, to project and sort the reference of m
points, then K·n·(dim + log n) per call; for other p add K·m. Both clouds are shifted by the mean of
the reference, which changes no distance, and stored in the metric's precision. Sums are in float64.
So the error of float32 is about 1e-7 of the size of the data, and the lower bound includes it. If
it may exceed 1 % of the distance, the clouds are measured again in float64. The unit of the lines
is the power of two above the largest coordinate, because in float32 the squares of numbers below
1e-23 are 0.

Its directions, sorted reference and cell means are kept, up to `KEPT_BYTES` each; the rest is
computed again in every call. The work space is `WORK` numbers for each cloud, or one line of each.
Everything stays on the device of the reference.

Reference: I. Deshpande et al., Max-Sliced Wasserstein Distance and Its Use for GANs, CVPR 2019,
arXiv 1904.05877.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from threading import Lock
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, MeasuredBy, Measurement, Metric
from samplerbench.metrics.cutting_planes import START_ANGLES, Bound, square_along
from samplerbench.metrics.plane import ROUNDING, Array, Cloud, line_distance
from samplerbench.metrics.projections import (
    BLOCK,
    direction_block,
    long_sum,
    project,
    quantile_grid,
    random_directions,
    sort_lines,
)

#: The largest number of bytes kept for each of directions, sorted reference and cell means; it does
#: not affect the values.
KEPT_BYTES = 2**27
#: The number of projections of each cloud at a time; a single line may have more.
WORK = 2**22
#: The smallest unit: 1/unit must not overflow in float32.
_SMALLEST = 2.0**-100
#: The largest rounding error of float32, as a share of the distance.
_TOLERANCE = 0.01

#: The largest number of directions in the plane whose cell means are kept; at most 128 MB.
_KEPT_LINES = 128
#: The largest rounding error of a distance in the plane, as a share of the size of the data.
_LOST = 32 * torch.finfo(torch.float64).eps

_CPU = torch.device("cpu")
_ALL = slice(None)

Precision = Literal["float32", "float64"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class MaxSliced(Metric):
    """The largest W_p over random directions: a lower bound of max-W_p.

    Args:
        p: the order of W_p, at least 1.
        directions: the number of random directions.
        precision: the dtype of the projections; in the plane, for p = 2, it is float64.
    """

    p: float = 2.0
    directions: int = 1000
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        require(1 <= self.p < math.inf, "p", self.p, "at least 1 and finite")
        require(self.directions >= 1, "directions", self.directions, "at least 1")
        require(self.precision in DTYPES, "precision", self.precision, " or ".join(DTYPES))

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        if self.p == 2 and reference.shape[1] == 2:
            return _InThePlane(self.directions, reference, seed)
        lines = SlicedReference(self, reference, seed)

        def measure(samples: Tensor) -> Measurement:
            values, rounding = lines.distances(samples)
            best = int(values.argmax())
            value = float(values[best])
            lower = max(0.0, value - rounding)
            return Measurement(value, lower, math.nan, lines.direction(best), len(values))

        return MeasuredBy(reference.shape[1], measure)


class _InThePlane(Distance):
    """The largest W₂ over K random directions in the plane, by bounds that leave most of them out.

    The coupling along θ_k bounds W₂² along every direction (see `cutting_planes`):

        W₂²(θ) ≤ θᵀ M_k θ,     M_k = (1/n) Σᵢ (xᵢ − ȳᵢ)(xᵢ − ȳᵢ)ᵀ + S_k,

    where the samples x `(n, 2)` are in the order along θ_k, ȳᵢ are the means of the reference
    `(m, 2)` in the n quantile cells along θ_k, and S_k is its second moment around them. The next
    direction is the one with the highest bound, until no bound is above the best W₂².

    The value is W₂ along the best direction, to `_LOST` of the size of the data.
    """

    def __init__(self, directions: int, reference: Tensor, seed: int) -> None:
        super().__init__(dim=2)
        self._directions = random_directions(2, directions, seed)
        x, y = self._directions.numpy().T
        self._angles = np.arctan2(y, x)
        self._turns = np.exp(2j * self._angles)
        # the directions nearest to evenly spaced ones are the first
        near = np.exp(-2j * np.array(START_ANGLES))[:, None] * self._turns
        self._first = sorted(set(near.real.argmax(axis=1).tolist()))
        self._size = len(reference)
        self._centre: Array = reference.double().mean(dim=0).cpu().numpy()
        self._reference = Cloud(reference, self._centre)
        # the best directions of the cells of a sweep are often the same
        self._kept_means = lru_cache(maxsize=_KEPT_LINES)(self._means)

    def measure(self, samples: Tensor) -> Measurement:
        cloud, n = Cloud(samples, self._centre), len(samples)
        heights = np.full(len(self._angles), np.inf)
        lower, margin, best = -1.0, 0.0, 0
        waiting, evaluations = list(self._first), 0
        # a bound and the best W₂² have two margins each
        while waiting or heights.max() > lower + 4 * margin:
            k = waiting.pop() if waiting else int(heights.argmax())
            bound = self._couple(cloud, n, self._angles[k])
            square = square_along(bound, self._angles[k])
            evaluations += 1
            if square > lower:
                lower, margin, best = square, bound.margin, k
            np.minimum(heights, bound.mean + (bound.wave.conjugate() * self._turns).real, heights)
            heights[k] = -np.inf
        grid, phi = quantile_grid(n, self._size, _CPU), self._angles[best]
        lines = cloud.along(phi), self._reference.along(phi)
        value = line_distance(grid.index.numpy(), grid.weight.numpy(), *lines)
        lower_bound = max(0.0, value - _LOST * max(cloud.size, self._reference.size))
        return Measurement(value, lower_bound, math.nan, self._directions[best], evaluations)

    def _couple(self, cloud: Cloud, n: int, phi: float) -> Bound:
        """The bound of the coupling along a direction."""
        means = self._kept_means if cloud.small and self._reference.small else self._means
        (mean_x, mean_y), (xx, yy, xy) = means(n, phi)
        x, y = cloud.at(cloud.order(phi))
        x -= mean_x
        y -= mean_y
        xx, xy, yy = xx + (x * x).mean(), xy + (x * y).mean(), yy + (y * y).mean()
        middle = float(xx + yy) / 2
        # the means are rounded, so a difference has an error in units of the size of the data
        shift = _LOST / 4 * max(cloud.size, self._reference.size)
        margin = middle * ROUNDING + shift * (2 * math.sqrt(middle) + shift)
        return Bound(middle + margin, complex((xx - yy) / 2, xy), margin)

    def _means(self, n: int, phi: float) -> tuple[Array, tuple[float, float, float]]:
        """ȳ, shape (2, n), and the entries xx, yy, xy of S."""
        x, y = self._reference.at(self._reference.order(phi))
        lines = torch.from_numpy(np.stack([x, y, x + y]))
        means, spread = quantile_grid(n, self._size, _CPU).average(lines)
        xx, yy, both = spread.tolist()
        return means[:2].numpy(), (xx, yy, (both - xx - yy) / 2)


class SlicedReference:
    """A reference `(m, dim)`, projected on random directions and sorted, block by block.

    Attributes:
        reference: the reference minus its mean, in the metric's precision.
        size: its largest coordinate.
    """

    def __init__(self, metric: MaxSliced, reference: Tensor, seed: int) -> None:
        self.metric = metric
        self._seed = seed
        self._given = reference
        # rounded to float32, so that clouds of both precisions are shifted by the same vector
        self._centre = reference.mean(dim=0).float()
        self.reference = self.centred(reference)
        self.size = float(self.reference.abs().max())
        self._blocks = -(-metric.directions // BLOCK)
        m, dim = reference.shape
        self._directions = tuple(map(self._draw, range(self._kept(dim))))
        self._sorted = tuple(self._sort(block, _ALL) for block in range(self._kept(m)))
        self._averages, self._averaging = lru_cache(maxsize=2)(self._average), Lock()

    def centred(self, points: Tensor) -> Tensor:
        """Subtract the reference's mean from a cloud, on the reference's device and precision."""
        points = points.to(self._centre.device)
        return (points - self._centre.to(points.dtype)).to(DTYPES[self.metric.precision])

    def direction(self, index: int) -> Tensor:
        """Return one of the directions `(dim,)`, in float64 on the CPU."""
        block, row = divmod(index, BLOCK)
        dim = self.reference.shape[1]
        return direction_block(dim, self.metric.directions, self._seed, block)[row]

    def distances(self, samples: Tensor) -> tuple[Tensor, float]:
        """Measure samples `(n, dim)` along every direction.

        Returns:
            W_p `(directions,)`, in float64, and the largest rounding error of one of them.
        """
        values, rounding = self._distances(samples)
        if self.metric.precision == "float32" and rounding > _TOLERANCE * float(values.max()):
            return self._in_float64._distances(samples)
        return values, rounding

    @cached_property
    def _in_float64(self) -> SlicedReference:
        return SlicedReference(replace(self.metric, precision="float64"), self._given, self._seed)

    def _distances(self, samples: Tensor) -> tuple[Tensor, float]:
        points = self.centred(samples)
        unit = 2.0 ** math.frexp(max(float(points.abs().max()), self.size, _SMALLEST))[1]
        # one buffer for all lines: allocating memory for each takes as long as the arithmetic
        rows = max(1, min(BLOCK, WORK // max(len(points), len(self.reference))))
        buffer = points.new_empty(rows, len(points))
        values: list[Tensor] = []
        for block in range(self._blocks):
            directions = self._direction_rows(block)
            for first in range(0, len(directions), rows):
                piece = slice(first, first + rows)
                some = directions[piece] / unit
                lines = sort_lines(project(some, points, out=buffer[: len(some)]))
                values.append(self._line_distances(lines, unit, block, piece))
        rounding = 4 * torch.finfo(points.dtype).eps * math.sqrt(points.shape[1])
        return torch.cat(values) * unit, rounding * unit

    def _line_distances(self, lines: Tensor, unit: float, block: int, piece: slice) -> Tensor:
        """Return W_p `(k,)` of sorted lines `(k, n)`, both in multiples of the unit."""
        n, m = lines.shape[1], len(self.reference)
        if self.metric.p != 2:
            grid = quantile_grid(n, m, lines.device)
            return grid.distance(lines, self._lines(block, piece) / unit, self.metric.p)
        with self._averaging:  # cells run side by side; each would take the memory of its own
            averages = self._averages(n)
        if block < len(averages):
            mean, spread = averages[block]
            mean, spread = mean[piece], spread[piece]
        else:
            mean, spread = self._cell_means(n, block, piece)
        gaps = lines.sub_(mean, alpha=1 / unit)
        return (long_sum(gaps.square_()) / n + spread / unit**2).sqrt_()

    def _average(self, n: int) -> tuple[tuple[Tensor, Tensor], ...]:
        return tuple(self._cell_means(n, block, _ALL) for block in range(self._kept(n)))

    def _cell_means(self, n: int, block: int, piece: slice) -> tuple[Tensor, Tensor]:
        grid = quantile_grid(n, len(self.reference), self.reference.device)
        return grid.average(self._lines(block, piece))

    def _lines(self, block: int, piece: slice) -> Tensor:
        kept = block < len(self._sorted)
        return self._sorted[block][piece] if kept else self._sort(block, piece)

    def _direction_rows(self, block: int) -> Tensor:
        return self._directions[block] if block < len(self._directions) else self._draw(block)

    def _sort(self, block: int, piece: slice) -> Tensor:
        return sort_lines(project(self._direction_rows(block)[piece], self.reference))

    def _draw(self, block: int) -> Tensor:
        dim = self.reference.shape[1]
        rows = direction_block(dim, self.metric.directions, self._seed, block)
        return rows.to(self.reference)

    def _kept(self, size: int) -> int:
        """The number of blocks that are kept, if a direction has `size` numbers."""
        return min(self._blocks, KEPT_BYTES // (BLOCK * size * self.reference.itemsize))
