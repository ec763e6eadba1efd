"""Laws on a line, and the exact transport of a cloud to one: distances without a reference's noise.

Sorted points x₁ ≤ … ≤ x_n are coupled best to a law with distribution function F by quantile: xᵢ
takes the cell of mass 1/n between the levels aᵢ = (i − 1)/n and bᵢ = i/n. All that is needed is

    L(u) = ∫₀ᵘ F⁻¹(q) dq = E[Y; Y ≤ e] + (u − F(e))·e     where F(e) = u .

The second term corrects for an edge e that misses its level: L(u) is the largest value over all e
(the first-order condition is F(e) = u), so the error left is of second order, and a level in a gap
between two modes, where F is flat and e is anywhere, costs nothing. Then, with the mean of a cell
mᵢ = n(L(bᵢ) − L(aᵢ)) and cᵢ = F(xᵢ), held within the cell,

    W₁  = Σᵢ xᵢ(2cᵢ − aᵢ − bᵢ) + L(aᵢ) + L(bᵢ) − 2L(cᵢ) ,
    W₂² = (1/n) Σᵢ (xᵢ − mᵢ)² + s,     s = Var Y + (E Y)² − (1/n) Σᵢ mᵢ² .

The rounding of W₂² is that of s: some 1e-15 of the variance of the law.

For a mixture of Gaussians Σ w_k·N(μ_k, s_k²) and z_k = (e − μ_k)/s_k

    F(e) = Σ w_k Φ(z_k),     E[Y; Y ≤ e] = Σ w_k (μ_k Φ(z_k) − s_k φ(z_k)) ,

and F(e) = u is solved by Newton's method in a bracket from a table of F, bisected where Newton
leaves it: in about two steps for most levels.

For a law given by the logarithm of its density on an interval, up to a constant, F and the partial
mean are integrated by Gauss and Legendre: over whole panels once, and over the part of a panel that
lies below e for each e. With panels on which the density is smooth that is exact to rounding.

Shapes: levels and points `(n,)`, what belongs to K components `(K, n)`; float64 on the CPU.

Reference: F. Santambrogio, Optimal Transport for Applied Mathematicians, Birkhäuser 2015,
Theorem 2.9 and Proposition 2.17.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor

_PIECE = 2**18
"""Numbers `(K, n)` that are worked on at once: 2 MB each of a few, most of a cache."""

_TABLE = 1024
"""Points of the table of F, at least 9 for each component."""

_REACH = 9.0
"""Standard deviations a table reaches; beyond lies 1e-19 of the mass, less than F is rounded by."""

_FARTHEST = 34.0
"""Standard deviations at which a density is next to nothing: 1e-251 of its peak."""

_STEPS = 200
"""At most; bisection alone takes 60 from the widest bracket."""

_ROUNDING = 4e-16
"""Of F."""

_TINY = torch.finfo(torch.float64).tiny

_NODES = 16
"""Of Gauss and Legendre's rule on a panel, or on a part of it."""


class LineLaw(ABC):
    """A law on a line without atoms.

    Attributes:
        mean: of the law.
        variance: of the law.
    """

    mean: float
    variance: float

    @abstractmethod
    def centred(self) -> LineLaw:
        """Return the law of Y − E Y: far from 0, partial means lose the digits of distances."""

    @abstractmethod
    def cdf(self, points: Tensor) -> Tensor:
        """Return F."""

    @abstractmethod
    def partial_mean(self, points: Tensor) -> Tensor:
        """Return E[Y; Y ≤ point]."""

    @abstractmethod
    def quantile(self, levels: Tensor) -> Tensor:
        """Return points where F is the level, to a few digits at least, for 0 < level < 1."""

    @final
    def lorenz(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the levels 0, 1/n, …, 1 and L there: `(n + 1,)` each."""
        levels = torch.arange(count + 1, dtype=torch.float64) / count
        curve = torch.zeros_like(levels)
        curve[-1] = self.mean
        if count > 1:
            inside = levels[1:-1]
            edges = self.quantile(inside)
            curve[1:-1] = self.partial_mean(edges) + (inside - self.cdf(edges)) * edges
        return levels, curve


class MixtureLine(LineLaw):
    """Σ w_k·N(μ_k, s_k²).

    Args:
        weights: w_k > 0 with sum 1, `(K,)`.
        means: μ_k, `(K,)`.
        scales: s_k > 0, `(K,)`.
    """

    def __init__(self, weights: Tensor, means: Tensor, scales: Tensor) -> None:
        self._weights, self._means, self._scales = weights, means, scales
        self.mean = float(weights @ means)
        self.variance = float(weights @ (scales.square() + (means - self.mean).square()))
        count = max(9, _TABLE // len(weights))
        z = torch.linspace(-_REACH, _REACH, count, dtype=torch.float64)
        self._table = (means[:, None] + scales[:, None] * z).flatten().sort().values
        masses, densities = self._at(self._table)
        self._levels, self._slopes = masses.sum(dim=0), densities.sum(dim=0)

    def centred(self) -> MixtureLine:
        return MixtureLine(self._weights, self._means - self.mean, self._scales)

    def cdf(self, points: Tensor) -> Tensor:
        return torch.cat([self._at(piece)[0].sum(dim=0) for piece in self._pieces(points)])

    def partial_mean(self, points: Tensor) -> Tensor:
        values = []
        for piece in self._pieces(points):
            masses, densities = self._at(piece)
            values.append(self._means @ masses - self._scales.square() @ densities)
        return torch.cat(values)

    def quantile(self, levels: Tensor) -> Tensor:
        return torch.cat([self._solve(piece)[0] for piece in self._pieces(levels)])

    def partial_vector_means(self, levels: Tensor, means: Tensor, slopes: Tensor) -> Tensor:
        """Return E[V; Y ≤ F⁻¹(level)], `(dim, n)`, for a vector V that goes along with Y.

        Args:
            levels: above 0 and below 1.
            means: E[V | component k], `(dim, K)`.
            slopes: of the regression E[V | component k, Y] = means_k + slopes_k·(Y − μ_k),
                `(dim, K)`.
        """
        values = []
        offsets = means - slopes * self._means
        for piece in self._pieces(levels):
            edges, masses, densities = self._solve(piece)
            # The density times E[V | Y = edge]; the edge may miss its level a little, see L(u).
            there = offsets @ densities + (slopes @ densities) * edges
            missed = (piece - masses.sum(dim=0)) / densities.sum(dim=0)
            inside = means @ masses - (slopes * self._scales.square()) @ densities
            values.append(inside + there * missed)
        return torch.cat(values, dim=1)

    def _pieces(self, values: Tensor) -> Iterator[Tensor]:
        return iter(torch.split(values, max(1, _PIECE // len(self._weights))))

    def _at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return w_k·Φ(z_k) and the densities w_k·φ(z_k)/s_k, `(K, n)` each."""
        z = (points - self._means[:, None]).div_(self._scales[:, None])
        # exp takes ten times as long where it underflows; and so no density is 0.
        z.clamp_(-_FARTHEST, _FARTHEST)
        masses = torch.special.ndtr(z).mul_(self._weights[:, None])
        heights = self._weights / (math.sqrt(2 * math.pi) * self._scales)
        densities = z.square_().mul_(-0.5).exp_().mul_(heights[:, None])
        return masses, densities

    def _solve(self, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges F⁻¹(levels), and masses and densities of the components there."""
        edges, low, high = self._first_guess(levels)
        masses, densities = self._at(edges)
        reach = 1e-18 * float(self._table[-1] - self._table[0])
        for _ in range(_STEPS):
            missed = levels - masses.sum(dim=0)
            steps = missed / densities.sum(dim=0)
            # missed · step is twice the error left in L.
            open_ = (missed.abs() > _ROUNDING) & ((missed * steps).abs() > reach)
            (rows,) = open_.nonzero(as_tuple=True)
            if len(rows) == 0:
                break
            low = torch.where(open_ & (missed > 0), edges, low)
            high = torch.where(open_ & (missed < 0), edges, high)
            trials = edges + steps
            safe = (trials > low) & (trials < high)
            trials = torch.where(safe, trials, (low + high) / 2)
            edges = torch.where(open_, trials, edges)
            if 2 * len(rows) > len(levels):
                masses, densities = self._at(edges)
            else:
                masses[:, rows], densities[:, rows] = self._at(edges[rows])
        return edges, masses, densities

    def _first_guess(self, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return guesses and the brackets they lie in, from the table."""
        after = torch.searchsorted(self._levels, levels).clamp_(1, len(self._table) - 1)
        low, high = self._table[after - 1], self._table[after]
        below, above = self._levels[after - 1], self._levels[after]
        rise, width = (above - below).clamp_min(_TINY), high - low
        share = ((levels - below) / rise).clamp_(0, 1)
        # The cubic through both ends of the inverse function, with its slopes 1/density there.
        start, end = (rise / self._slopes[after + k] / width.clamp_min(_TINY) for k in (-1, 0))
        curve = share * (1 - share) * (start * (1 - share) - end * share - 1 + 2 * share)
        guess = low + width * (share + curve)
        line = low + width * share
        # Where the density of an end is next to nothing the cubic is nowhere near.
        return torch.where((guess > low) & (guess < high), guess, line), low, high


class DensityLine(LineLaw):
    """A law with a density ∝ exp(log_density) on an interval, integrated by quadrature.

    Args:
        log_density: of points of any shape, up to a constant; finite on the interval, and smooth on
            each panel. Panels are to be so narrow that `_NODES` nodes integrate exp(log_density)
            over one: about one width of its narrowest feature.
        edges: of the panels, increasing, `(panels + 1,)`; the first and the last one end the law.

    Attributes:
        log_mass: ln ∫ exp(log_density(y)) dy, the normaliser.
    """

    def __init__(self, log_density: Callable[[Tensor], Tensor], edges: Tensor) -> None:
        self._log_density, self._edges = log_density, edges
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        self._nodes, self._weights = (
            torch.from_numpy((nodes + 1) / 2),
            torch.from_numpy(weights / 2),
        )
        points, logs = self._over(edges[:-1], edges[1:])
        shift = float(logs.max())
        masses = (logs - shift).exp()
        total = float(masses.sum())
        self.log_mass = shift + math.log(total)
        masses = masses / total
        self.mean = float((masses * points).sum())
        self.variance = float((masses * (points - self.mean).square()).sum())
        self._levels, self._moments = (
            torch.cat([edges.new_zeros(1), panels.sum(dim=1).cumsum(dim=0)])
            for panels in (masses, masses * points)
        )

    def centred(self) -> DensityLine:
        return DensityLine(lambda y: self._log_density(y + self.mean), self._edges - self.mean)

    def cdf(self, points: Tensor) -> Tensor:
        return torch.cat([self._below(piece)[0] for piece in self._pieces(points)])

    def partial_mean(self, points: Tensor) -> Tensor:
        return torch.cat([self._below(piece)[1] for piece in self._pieces(points)])

    def density(self, points: Tensor) -> Tensor:
        """Return the density, normalised, of points in the interval."""
        return (self._log_density(points) - self.log_mass).exp()

    def quantile(self, levels: Tensor) -> Tensor:
        """Return F⁻¹, to all digits that F has, for 0 ≤ level < 1."""
        return torch.cat([self._solve(piece) for piece in self._pieces(levels)])

    def _pieces(self, values: Tensor) -> Iterator[Tensor]:
        return iter(torch.split(values, _PIECE // _NODES))

    def _over(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes between ends and the logarithms of their masses, `(n, _NODES)` each."""
        widths = (high - low)[:, None]
        points = low[:, None] + widths * self._nodes
        return points, self._log_density(points) + (widths * self._weights).log()

    def _below(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return F and the partial mean, `(n,)` each."""
        held = points.clamp(self._edges[0], self._edges[-1])
        panel = torch.searchsorted(self._edges, held).sub_(1).clamp_(0)
        nodes, logs = self._over(self._edges[panel], held)
        masses = (logs - self.log_mass).exp()
        part = (masses * nodes).sum(dim=1)
        return self._levels[panel] + masses.sum(dim=1), self._moments[panel] + part

    def _solve(self, levels: Tensor) -> Tensor:
        after = torch.searchsorted(self._levels, levels).clamp_(1, len(self._edges) - 1)
        low, high = self._edges[after - 1], self._edges[after]
        below, above = self._levels[after - 1], self._levels[after]
        share = ((levels - below) / (above - below).clamp_min(_TINY)).clamp(0, 1)
        points = low + (high - low) * share
        rows = torch.arange(len(levels))
        smallest = 1e-16 * float(self._edges[-1] - self._edges[0])
        for _ in range(_STEPS):
            # What has converged is left as it is: no level's bits depend on another's.
            missed = levels[rows] - self._below(points[rows])[0]
            steps = missed / self.density(points[rows]).clamp_min(_TINY)
            open_ = (missed.abs() > _ROUNDING) & (steps.abs() > smallest)
            rows, missed, steps = rows[open_], missed[open_], steps[open_]
            if len(rows) == 0:
                break
            here = points[rows]
            low[rows] = torch.where(missed > 0, here, low[rows])
            high[rows] = torch.where(missed < 0, here, high[rows])
            trials = here + steps
            safe = (trials > low[rows]) & (trials < high[rows])
            points[rows] = torch.where(safe, trials, (low[rows] + high[rows]) / 2)
        return points


def distance_to_law(points: Tensor, law: LineLaw, p: int) -> float:
    """Return W₁ or W₂ of points `(n,)` in any order, float64, to a law."""
    x = points.sort().values
    levels, curve = law.lorenz(len(x))
    if p == 2:
        means = curve.diff() * len(x)
        spread = law.variance + law.mean**2 - float(means.square().mean())
        return math.sqrt(float((x - means).square().mean()) + max(0.0, spread))
    start, end = levels[:-1], levels[1:]
    inside = law.cdf(x)
    held = torch.minimum(torch.maximum(inside, start), end)
    at = torch.where(inside < start, curve[:-1], law.partial_mean(x))
    at = torch.where(inside > end, curve[1:], at)
    return float((x * (2 * held - start - end) + curve[:-1] + curve[1:] - 2 * at).sum())
