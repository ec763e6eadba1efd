"""Laws on a line, and the exact Wasserstein distance of points to such a law.

Let F be the distribution function of the law of Y. The optimal coupling assigns to the i-th of n
sorted points the cell of mass 1/n between the levels aᵢ = (i − 1)/n and bᵢ = i/n. The distances
follow from

    L(u) = ∫₀ᵘ F⁻¹(q) dq = E[Y; Y ≤ e] + (u − F(e))·e     where F(e) = u .

The second term corrects for an edge e with F(e) ≠ u. L(u) is the maximum of the right-hand side
over e, so an error in e has an effect of second order only. In particular e is arbitrary in a gap
between two modes, where F is constant. With the mean of a cell mᵢ = n(L(bᵢ) − L(aᵢ)), and with cᵢ =
F(xᵢ) clipped to [aᵢ, bᵢ],

    W₁  = Σᵢ xᵢ(2cᵢ − aᵢ − bᵢ) + L(aᵢ) + L(bᵢ) − 2L(cᵢ) ,
    W₂² = (1/n) Σᵢ (xᵢ − mᵢ)² + s,     s = Var Y + (E Y)² − (1/n) Σᵢ mᵢ² .

The rounding error of W₂² is that of s, about 1e-15 times the variance of the law.

For a mixture of Gaussians Σ w_k·N(μ_k, s_k²) and z_k = (e − μ_k)/s_k

    F(e) = Σ w_k Φ(z_k),     E[Y; Y ≤ e] = Σ w_k (μ_k Φ(z_k) − s_k φ(z_k)) ,

and F(e) = u is solved by Newton's method in a bracket from a table of F, or by bisection where
Newton's method leaves the bracket. Most levels need about two steps.

For a law given by the logarithm of its density on an interval, up to a constant, F and the partial
mean are Gauss–Legendre sums: over whole panels, computed once, and over the part of a panel below
e. If the density is smooth on every panel, they are exact to rounding.

Shapes: levels and points `(n,)`, values for K components `(K, n)`; float64 on the CPU.

Reference: F. Santambrogio, Optimal Transport for Applied Mathematicians, Birkhäuser 2015,
Theorem 2.9 and Proposition 2.17.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

#: Elements of an array `(K, n)` in one pass: 2 MB, so that a few arrays fit into a CPU cache.
_PIECE = 2**18
#: Points of the table of F; each component gets at least 9.
_TABLE = 1024
#: Half-width of the table in standard deviations; 1e-19 of the mass lies beyond.
_REACH = 9.0
#: Standard deviations at which densities are cut off; there they are 1e-251 of their peak.
_FARTHEST = 34.0
#: The largest number of iterations; bisection alone needs 60 from the widest bracket.
_STEPS = 200
#: The rounding error of F.
_ROUNDING = 4e-16

_TINY = torch.finfo(torch.float64).tiny

#: Nodes of the Gauss–Legendre rule on a panel or a part of one.
_NODES = 16
#: Parts of a panel in which changes of sign are found.
_FINE = 256


class LineLaw(ABC):
    """A law on a line without atoms.

    Attributes:
        mean: the mean of the law.
        variance: the variance of the law.
    """

    mean: float
    variance: float

    @abstractmethod
    def centred(self) -> LineLaw:
        """Return the law of Y − E Y, whose partial means have smaller rounding errors."""

    @abstractmethod
    def cdf(self, points: Tensor) -> Tensor:
        """Return F."""

    @abstractmethod
    def partial_mean(self, points: Tensor) -> Tensor:
        """Return E[Y; Y ≤ point]."""

    @abstractmethod
    def quantile(self, levels: Tensor) -> Tensor:
        """Return F⁻¹, with at least a few correct digits, for 0 < level < 1."""

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
        """Return E[V; Y ≤ F⁻¹(level)], `(dim, n)`, for a vector V that is correlated with Y.

        Args:
            levels: above 0 and below 1.
            means: E[V | component k], `(dim, K)`.
            slopes: the slopes in E[V | component k, Y] = means_k + slopes_k·(Y − μ_k), `(dim, K)`.
        """
        values = []
        offsets = means - slopes * self._means
        for piece in self._pieces(levels):
            edges, masses, densities = self._solve(piece)
            inside = means @ masses - (slopes * self._scales.square()) @ densities
            # F(edge) may differ from the level: the correction is as in L(u)
            density_times_mean = offsets @ densities + (slopes @ densities) * edges
            missing = (piece - masses.sum(dim=0)) / densities.sum(dim=0)
            values.append(inside + density_times_mean * missing)
        return torch.cat(values, dim=1)

    def _pieces(self, values: Tensor) -> Iterator[Tensor]:
        return iter(torch.split(values, max(1, _PIECE // len(self._weights))))

    def _at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return w_k·Φ(z_k) and the densities w_k·φ(z_k)/s_k, `(K, n)` each."""
        z = (points - self._means[:, None]).div_(self._scales[:, None])
        # densities must stay positive, and exp is ten times slower where it underflows
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
            missing = levels - masses.sum(dim=0)
            steps = missing / densities.sum(dim=0)
            # missing·steps is twice the remaining error of L
            active = (missing.abs() > _ROUNDING) & ((missing * steps).abs() > reach)
            (rows,) = active.nonzero(as_tuple=True)
            if len(rows) == 0:
                break
            low = torch.where(active & (missing > 0), edges, low)
            high = torch.where(active & (missing < 0), edges, high)
            trials = edges + steps
            safe = (trials > low) & (trials < high)
            trials = torch.where(safe, trials, (low + high) / 2)
            edges = torch.where(active, trials, edges)
            if 2 * len(rows) > len(levels):
                masses, densities = self._at(edges)
            else:
                masses[:, rows], densities[:, rows] = self._at(edges[rows])
        return edges, masses, densities

    def _first_guess(self, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return guesses and their brackets from the table."""
        flat = levels.contiguous()  # otherwise torch warns
        after = torch.searchsorted(self._levels, flat).clamp_(1, len(self._table) - 1)
        low, high = self._table[after - 1], self._table[after]
        below, above = self._levels[after - 1], self._levels[after]
        rise, width = (above - below).clamp_min(_TINY), high - low
        share = ((levels - below) / rise).clamp_(0, 1)
        # the cubic with the values and the slopes, 1/density, of the inverse function at both ends
        start, end = (rise / self._slopes[after + k] / width.clamp_min(_TINY) for k in (-1, 0))
        curve = share * (1 - share) * (start * (1 - share) - end * share - 1 + 2 * share)
        guess = low + width * (share + curve)
        line = low + width * share
        # the cubic is useless where the density at an end is tiny
        return torch.where((guess > low) & (guess < high), guess, line), low, high


class DensityLine(LineLaw):
    """A law with a density ∝ exp(log_density) on an interval, integrated by quadrature.

    Args:
        log_density: points of any shape ↦ the log-density up to a constant; finite on the interval,
            and smooth on each panel. A panel should be about as wide as the narrowest feature of
            the density, so that `_NODES` nodes integrate it exactly.
        edges: the edges of the panels, increasing, `(panels + 1,)`; the first and the last are the
            ends of the interval.

    Attributes:
        log_mass: ln ∫ exp(log_density(y)) dy, the normaliser.
    """

    def __init__(self, log_density: Callable[[Tensor], Tensor], edges: Tensor) -> None:
        self._log_density, self._edges = log_density, edges
        nodes, weights = legendre.leggauss(_NODES)
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
        """Return the normalised density of points in the interval."""
        return (self._log_density(points) - self.log_mass).exp()

    def quantile(self, levels: Tensor) -> Tensor:
        """Return F⁻¹, as accurate as F, for 0 ≤ level < 1."""
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
        inside = points.clamp(self._edges[0], self._edges[-1])
        panel = torch.searchsorted(self._edges, inside).sub_(1).clamp_(0)
        nodes, logs = self._over(self._edges[panel], inside)
        masses = (logs - self.log_mass).exp()
        part = (masses * nodes).sum(dim=1)
        return self._levels[panel] + masses.sum(dim=1), self._moments[panel] + part

    def _solve(self, levels: Tensor) -> Tensor:
        flat = levels.contiguous()  # otherwise torch warns
        after = torch.searchsorted(self._levels, flat).clamp_(1, len(self._edges) - 1)
        low, high = self._edges[after - 1], self._edges[after]
        below, above = self._levels[after - 1], self._levels[after]
        share = ((levels - below) / (above - below).clamp_min(_TINY)).clamp(0, 1)
        points = low + (high - low) * share
        rows = torch.arange(len(levels))
        smallest = 1e-16 * float(self._edges[-1] - self._edges[0])
        for _ in range(_STEPS):
            # converged points do not change any more: no point's bits depend on other points
            missing = levels[rows] - self._below(points[rows])[0]
            steps = missing / self.density(points[rows]).clamp_min(_TINY)
            active = (missing.abs() > _ROUNDING) & (steps.abs() > smallest)
            rows, missing, steps = rows[active], missing[active], steps[active]
            if len(rows) == 0:
                break
            current = points[rows]
            low[rows] = torch.where(missing > 0, current, low[rows])
            high[rows] = torch.where(missing < 0, current, high[rows])
            trials = current + steps
            safe = (trials > low[rows]) & (trials < high[rows])
            points[rows] = torch.where(safe, trials, (low[rows] + high[rows]) / 2)
        return points


@dataclass(frozen=True, eq=False)
class Panels:
    """A law on a line as functions y(t) of parameters t ∈ [−1, 1], one for each panel.

    Shapes: (panels, n) at n values of t, float64.
    """

    t: Tensor  # the values of t, shape (n,), increasing
    points: Tensor  # y
    heights: Tensor  # the density of t: its integrals over t are masses
    log_density: Tensor  # ln of the density of y

    def positive_part(self, log_ratios: Tensor) -> float:
        """∫ (1 − e^l)⁺ over the law, l = ln r at the values of t.

        A quadrature is inaccurate where a function changes its sign within a panel. So the integral
        is that of the polynomial through the values, over the parts where it is positive.
        """
        weighted = (log_ratios + self.heights.log()).exp()
        values = self.heights - torch.where(self.heights > 0, weighted, 0.0)
        at, integrals = _resampled(tuple(self.t.tolist()))
        ends, parts = values @ at, (values @ integrals).diff(dim=1)
        # on a part with a change of sign the polynomial is close to a line
        low, high = ends[:, :-1], ends[:, 1:]
        top, size = torch.maximum(low, high), (high - low).abs().clamp_min(_TINY)
        line = top.square() / size / _FINE
        return float(torch.where(low * high < 0, line, parts.clamp_min(0)).sum())


@lru_cache
def _resampled(t: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Values at some t ↦ those of their polynomial on an even grid, and its integrals up to there.

    Shape (n, _FINE + 1) each.
    """
    count, grid = len(t), np.linspace(-1, 1, _FINE + 1)
    to_polynomial = np.linalg.inv(legendre.legvander(np.array(t), count - 1))
    integrals = legendre.legint(np.eye(count), lbnd=-1).T
    of_values = legendre.legvander(grid, count - 1) @ to_polynomial
    of_integrals = legendre.legvander(grid, count) @ integrals.T @ to_polynomial
    return torch.from_numpy(of_values.T.copy()), torch.from_numpy(of_integrals.T.copy())


@dataclass(frozen=True, eq=False)
class LineNodes:
    """A law on a line, given at the nodes of a quadrature, float64, shape (n,) each."""

    points: Tensor  # the nodes
    masses: Tensor  # ωᵢ with E g(Y) ≈ Σ ωᵢ·g(yᵢ)
    log_density: Tensor  # ln of the density at the nodes
    cdf: Tensor  # F at the nodes
    panels: Panels | None = None
    # the same law with fewer nodes, in each way in which it has an error of its own
    coarser: tuple[LineNodes, ...] = ()

    def mean(self, values: Tensor) -> Tensor:
        """E g(Y) from g at the nodes, a scalar."""
        return self.masses @ values

    def distance(self, law: LineLaw, p: int) -> float:
        """The W_p distance to a law, E|Y − G⁻¹(F(Y))|^p with its quantile function G⁻¹.

        Between nodes F is the cubic with its values and slopes there. G⁻¹ jumps where the law has a
        gap, so cells are halved until the integral does not change.
        """
        order = self.points.argsort()
        rows = torch.stack([self.points, self.cdf, self.log_density.exp()])[:, order]
        first, last = rows[:, :-1], rows[:, 1:]
        wide = (last[0] > first[0]) & (last[1] > first[1])
        first, last = first[:, wide], last[:, wide]
        # the part of each cell, and the integral over it
        low, high = torch.zeros_like(first[0]), torch.ones_like(first[0])
        total, values = 0.0, _transport(law, p, first, last, low, high)
        for _ in range(60):
            middle = (low + high) / 2
            halves = [
                _transport(law, p, first, last, *ends) for ends in ((low, middle), (middle, high))
            ]
            finer = halves[0] + halves[1]
            fine = (finer - values).abs() <= 1e-12 * (total + float(values.sum()))
            total += float(finer[fine].sum())
            if fine.all():
                break
            twice = (~fine).nonzero().flatten().repeat(2)
            first, last = first[:, twice], last[:, twice]
            low = torch.cat([low[~fine], middle[~fine]])
            high = torch.cat([middle[~fine], high[~fine]])
            values = torch.cat([half[~fine] for half in halves])
        return float(max(0.0, total) ** (1 / p))


_CELL = [torch.from_numpy(column) for column in legendre.leggauss(5)]


def _transport(
    law: LineLaw, p: int, first: Tensor, last: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """∫ |y − G⁻¹(F(y))|^p dF(y) over parts of cells, shape (n,).

    Args:
        first: y, F and the slope of F at the start of a cell, shape (3, n).
        last: the same at the end of the cell.
        low: the start of the part, as a share of the cell.
        high: the end of the part.
    """
    nodes, weights = _CELL
    share = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * nodes
    (y0, f0, q0), (y1, f1, q1) = first[..., None], last[..., None]
    width, rise = y1 - y0, f1 - f0
    a, b = q0 * width - rise, rise - q1 * width
    rest = share * (1 - share)
    level = f0 + rise * share + rest * (a * (1 - share) + b * share)
    slope = rise + (1 - 2 * share) * (a * (1 - share) + b * share) + rest * (b - a)
    level = level.clamp(1e-300, 1 - 1e-16)
    gaps = y0 + width * share - law.quantile(level.flatten()).reshape(level.shape)
    cost: Tensor = (gaps.abs().pow(p) * slope * weights).sum(1) * (high - low) / 2
    return cost


def distance_to_law(points: Tensor, law: LineLaw, p: int) -> float:
    """Return the W₁ (p = 1) or W₂ (p = 2) distance of points `(n,)`, float64, to a law."""
    x = points.sort().values
    levels, curve = law.lorenz(len(x))
    if p == 2:
        means = curve.diff() * len(x)
        spread = law.variance + law.mean**2 - float(means.square().mean())
        return math.sqrt(float((x - means).square().mean()) + max(0.0, spread))
    start, end = levels[:-1], levels[1:]
    c = law.cdf(x)
    clipped = torch.minimum(torch.maximum(c, start), end)
    at_c = torch.where(c < start, curve[:-1], law.partial_mean(x))
    at_c = torch.where(c > end, curve[1:], at_c)
    return float((x * (2 * clipped - start - end) + curve[:-1] + curve[1:] - 2 * at_c).sum())
