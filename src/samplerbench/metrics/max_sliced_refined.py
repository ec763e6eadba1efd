"""The max-sliced W₂ in any dimension: random directions refined by gradient ascent on the sphere.

With π_θ the monotone coupling along θ and M_θ = Σ π_θ(x, y) (x − y)(x − y)ᵀ,

    W₂²(θ) = θᵀ M_θ θ,     ∇W₂²(θ) = 2 M_θ θ ,

since π_θ is optimal and its first variation vanishes. M_θ θ needs no dim × dim matrix. Let x̄ⱼ and
ȳᵢ be the means, along θ, of the mass that the coupling assigns to a point; then

    M_θ θ = (1/n) Σᵢ (⟨θ, xᵢ⟩ − ȳᵢ) xᵢ − (1/m) Σⱼ (x̄ⱼ − ⟨θ, yⱼ⟩) yⱼ .

A step goes from θ along the tangent u = M_θ θ / W₂² − θ:

    θ ← (θ + h u) / ‖θ + h u‖ .

h = 1 is the fixed-point map θ ← M_θ θ / ‖M_θ θ‖, a power iteration. A step that does not raise W₂
is undone and h is divided by four; a step that raises W₂ doubles h. The starts are the difference
of the means and the best of many random directions; all of them are refined together.

The value is W₂ along a direction: a lower bound of the maximum. There is no upper bound (the bound
θᵀ M_π θ of the certified search is loose in many dimensions). The direction of a pure mean shift c
is found in one step from any start, since M_θ = ccᵀ for every θ.

Cost: the random directions, as in `max_sliced`, and starts·(n + m)·(dim + log) per step.
Memory: the clouds in float64, and starts × dim numbers.

Reference: I. Deshpande et al., Max-Sliced Wasserstein Distance and Its Use for GANs, CVPR 2019,
arXiv 1904.05877 (the distance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, MeasuredBy, Measurement, Metric
from samplerbench.metrics.max_sliced import MaxSliced, SlicedReference
from samplerbench.metrics.projections import project, quantile_grid, sort_order

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class MaxSlicedRefined(Metric):
    """max-W₂ from below, by ascent from the best of many random directions; in float64.

    Args:
        directions: the number of random directions to try first, ≥ 1.
        starts: the number of these directions to refine, ≥ 1, besides the difference of the means.
        iterations: the largest number of steps, ≥ 1.
        tolerance: an ascent ends when h‖u‖², about the next relative gain of W₂², is below it.
    """

    directions: int = 1000
    starts: int = 8
    iterations: int = 100
    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        require(self.directions >= 1, "directions", self.directions, "at least 1")
        require(self.starts >= 1, "starts", self.starts, "at least 1")
        require(self.iterations >= 1, "iterations", self.iterations, "at least 1")
        require(0 < self.tolerance < 1, "tolerance", self.tolerance, "between 0 and 1")

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        random = MaxSliced(p=2, directions=self.directions, precision="float64")
        search = SlicedReference(random, reference, seed)
        return MeasuredBy(reference.shape[1], lambda samples: self._measure(search, samples))

    def _measure(self, search: SlicedReference, samples: Tensor) -> Measurement:
        x, y = search.centred(samples), search.reference
        directions = self._starts(search, samples, x.mean(dim=0) - y.mean(dim=0))
        squares, slopes = _square_and_slope(directions, x, y)
        evaluations = self.directions + len(directions)
        steps = torch.ones_like(squares)
        for _ in range(self.iterations):
            tangents = slopes / squares.clamp_min(_TINY)[:, None] - directions
            gains = steps * tangents.square().sum(dim=1)
            (rows,) = ((gains > self.tolerance) & (squares > _TINY)).nonzero(as_tuple=True)
            if len(rows) == 0:
                break
            trials = _unit(directions[rows] + steps[rows, None] * tangents[rows])
            trial_squares, trial_slopes = _square_and_slope(trials, x, y)
            evaluations += len(rows)
            higher = trial_squares > squares[rows]
            steps[rows] *= torch.where(higher, 2.0, 0.25)
            up = rows[higher]
            directions[up], squares[up] = trials[higher], trial_squares[higher]
            slopes[up] = trial_slopes[higher]
        best = int(squares.argmax())
        value = math.sqrt(float(squares[best]))
        return Measurement(value, value, math.nan, directions[best].cpu(), evaluations)

    def _starts(self, search: SlicedReference, samples: Tensor, shift: Tensor) -> Tensor:
        """Return the starts `(starts + 1, dim)`, or `(starts, dim)` if the means are equal."""
        values, _ = search.distances(samples)
        best = values.topk(min(self.starts, len(values))).indices.tolist()
        rows = torch.stack([search.direction(index) for index in best]).to(shift)
        return torch.cat([rows, _unit(shift[None])]) if shift.any() else rows


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.square().sum(dim=1, keepdim=True).sqrt_()


def _square_and_slope(directions: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return W₂² `(k,)` along directions `(k, dim)` and half its gradients M_θ θ `(k, dim)`."""
    n, m = len(x), len(y)
    lines = [project(directions, points) for points in (x, y)]
    orders = [sort_order(line) for line in lines]
    xs, ys = (line.gather(1, order) for line, order in zip(lines, orders, strict=True))
    y_means, spread = quantile_grid(n, m, x.device).average(ys)
    x_means, _ = quantile_grid(m, n, x.device).average(xs)
    x_gaps, y_gaps = xs - y_means, x_means - ys
    squares = x_gaps.square().sum(dim=1) / n + spread
    x_weights = torch.empty_like(xs).scatter_(1, orders[0], x_gaps / n)
    y_weights = torch.empty_like(ys).scatter_(1, orders[1], y_gaps / m)
    return squares, x_weights @ x - y_weights @ y
