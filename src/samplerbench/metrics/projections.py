"""Optimal transport on lines, for the sliced distances.

For every convex cost the optimal coupling of two empirical measures on a line, sorted x₁ ≤ … ≤ x_n
and y₁ ≤ … ≤ y_m, couples equal quantiles:

    W_p^p = ∫₀¹ |F⁻¹(q) − G⁻¹(q)|^p dq = Σᵢ Σ_l w_il |xᵢ − y_{j(i,l)}|^p ,

where quantile cell i of x, [(i−1)/n, i/n], overlaps the cells j(i,1), j(i,2), … of y by w_il.
Indices and weights depend only on (n, m). They are computed with integers, so no cell is lost or
split by rounding. For p = 2 the inner sum simplifies, with the cell means
ȳᵢ = n Σ_l w_il y_{j(i,l)}, to

    W₂² = (1/n) Σᵢ (xᵢ − ȳᵢ)² + s,     s = Σᵢ Σ_l w_il (y_{j(i,l)} − ȳᵢ)² :

ȳ and s depend only on the reference and n: a distance to 10 000 points costs as much as to n.

Shapes: k lines are `(k, n)`, directions `(k, dim)` with unit rows. Sums are in float64.

Reference: F. Santambrogio, Optimal Transport for Applied Mathematicians, Birkhäuser 2015,
Theorem 2.9 (the monotone coupling).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

#: The number of directions at a time. Random numbers depend on it, so it must not change.
BLOCK = 32

_STRETCH = 4096

#: The number of entries of the quantile grid at a time: 16 MB in float64.
_PIECE = 2**21


def random_directions(dim: int, count: int, seed: int) -> Tensor:
    """Draw `(count, dim)` unit vectors, uniform on the sphere; a larger count only adds rows."""
    blocks = -(-count // BLOCK)
    return torch.cat([direction_block(dim, count, seed, block) for block in range(blocks)])


def direction_block(dim: int, count: int, seed: int, block: int) -> Tensor:
    """Draw one block of rows of the random directions, from its own generator; float64."""
    rows = min(BLOCK, count - block * BLOCK)
    normal = torch.from_numpy(np.random.default_rng([seed, block]).standard_normal((rows, dim)))
    return normal / normal.square().sum(dim=1, keepdim=True).sqrt_()


def project(directions: Tensor, points: Tensor, out: Tensor | None = None) -> Tensor:
    """Project points `(n, dim)` on directions `(k, dim)`: `(k, n)`, in the dtype of the points."""
    if points.is_cuda and points.dtype == torch.float32:
        # in float64: training code may have switched on TF32, which would leave 10 bits
        return (directions.double() @ points.double().T).float()
    return torch.mm(directions.to(points), points.T, out=out)


def sort_lines(lines: Tensor) -> Tensor:
    """Sort each row of `(k, n)`; on the CPU in place, by NumPy, 10 times as fast as PyTorch."""
    if lines.device.type == "cpu":
        lines.numpy().sort(axis=1)
        return lines
    return lines.sort(dim=1).values


def sort_order(lines: Tensor) -> Tensor:
    """Return the indices `(k, n)` that sort each row of `(k, n)`."""
    if lines.device.type == "cpu":
        return torch.from_numpy(lines.numpy().argsort(axis=1))
    return lines.argsort(dim=1)


def long_sum(lines: Tensor) -> Tensor:
    """Sum each row of `(k, n)`: short pieces in their own dtype, then their sums in float64."""
    # three times as fast as float64 for everything; the sum of a piece is pairwise and accurate
    if lines.shape[1] <= _STRETCH:
        return lines.sum(dim=1).double()
    stretches = [stretch.sum(dim=1) for stretch in torch.split(lines, _STRETCH, dim=1)]
    return torch.stack(stretches).sum(dim=0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class QuantileGrid:
    """The common refinement of n and m equal quantile cells, in the order of the n cells."""

    # the cells of m that overlap cell i of n: `(n, width)`; short rows repeat their last entry,
    # with weight 0
    index: Tensor
    weight: Tensor  # the sizes of the overlaps: `(n, width)` in float64, sum 1

    def pick(self, y: Tensor) -> Tensor:
        """Return sorted lines `(k, m)` by cells, `(k, n, width)`; a view if n divides m."""
        n, width = self.index.shape
        return y.view(len(y), n, width) if n * width == y.shape[1] else y[:, self.index]

    def average(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cell means ȳ `(k, n)`, in the dtype of y, and the spread s `(k,)`."""
        n, rows = self.index.shape[0], self._rows()
        means, spreads = y.new_empty(len(y), n), []
        for piece, out in zip(torch.split(y, rows), torch.split(means, rows), strict=True):
            cells = self.pick(piece).double()
            mean = (cells * self.weight).sum(dim=2) * n
            out.copy_(mean)
            spreads.append(((cells - mean[:, :, None]).square_() * self.weight).sum(dim=(1, 2)))
        return means, torch.cat(spreads)

    def distance(self, x: Tensor, y: Tensor, p: float) -> Tensor:
        """Return W_p `(k,)` in float64 between sorted lines `(k, n)` and `(k, m)`."""
        rows, values = self._rows(), []
        for xs, ys in zip(torch.split(x, rows), torch.split(y, rows), strict=True):
            gaps = (xs[:, :, None] - self.pick(ys)).double().abs_()
            # |gap|^p under- or overflows for large p, (gap / largest)^p does not
            largest = gaps.amax(dim=(1, 2)).clamp_min_(torch.finfo(torch.float64).tiny)
            cost = (gaps.div_(largest[:, None, None]).pow_(p) * self.weight).sum(dim=(1, 2))
            values.append(largest * cost.pow_(1 / p))
        return torch.cat(values)

    def _rows(self) -> int:
        return max(1, _PIECE // self.index.numel())


@lru_cache(maxsize=8)
def quantile_grid(n: int, m: int, device: torch.device) -> QuantileGrid:
    """Compute the grid of a pair (n, m) once; it has at most m + 2n entries."""
    # in units of 1/lcm(n, m) all borders of cells are integers
    cell, other = m // math.gcd(n, m), n // math.gcd(n, m)
    spans = (((left + cell - 1) // other - left // other).max() for left in _lefts(n, cell))
    width = 1 + int(max(spans))
    indices = torch.empty(n, width, dtype=torch.int64)
    # if one number divides the other, all overlaps are 1, and their one weight is stored once
    equal = 1 in (cell, other)
    weights = torch.full((1, 1) if equal else (n, width), 1 / (n * cell), dtype=torch.float64)
    begin = 0
    for left in _lefts(n, cell):
        rows = slice(begin, begin + len(left))
        index = left // other + torch.arange(width)
        if not equal:
            ends = torch.minimum(left + cell, (index + 1) * other)
            overlap = ends - torch.maximum(left, index * other)
            weights[rows] = overlap.clamp_min(0).double() / (n * cell)
        indices[rows] = torch.minimum(index, (left + cell - 1) // other)
        begin += len(left)
    return QuantileGrid(indices.to(device), weights.to(device).expand(n, width))


def _lefts(n: int, cell: int) -> Iterator[Tensor]:
    """The left borders of n cells, `(rows, 1)`, in pieces."""
    for first in range(0, n, _STRETCH):
        yield torch.arange(first, min(first + _STRETCH, n))[:, None] * cell


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor, p: float = 2.0) -> Tensor:
    """Return W_p `(k,)` between `(n, dim)` and `(m, dim)` along given directions `(k, dim)`.

    It holds all k lines in memory; `MaxSliced` bounds its memory and sorts the reference once.
    """
    lines = [sort_lines(project(directions, points)) for points in (x, y)]
    return quantile_grid(len(x), len(y), x.device).distance(lines[0], lines[1], p)
