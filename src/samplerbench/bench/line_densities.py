"""The law of a sampler's output on a line, also with noise, by quadrature instead of samples.

`transitions` describes the run as a chain x' = m(x) + s·z. If nodes xᵢ with masses ωᵢ represent the
law of x, then the law of x' has the density and the distribution function

    q(x') = Σᵢ ωᵢ·N(x'; m(xᵢ), s²),     F(x') = Σᵢ ωᵢ·Φ((x' − m(xᵢ))/s) ,

and q at equally spaced nodes, times their spacing, gives the next masses (the trapezoidal rule).
For smooth functions on a line the error of this rule falls faster than any power: if the spacing is
r times the width w of the narrowest Gaussian in the integrand, it is about exp(−2π²/r²), 3e-9 at
r = 1. Here 1/w² = 1/s² + (slope/s')², from this transition and the next. After the last draw the
run is a map y = H(x), and q(y) = q(x)/H'(x) if H increases. There the nodes are those of Gauss's
rule on panels, which are halved until the integrals of 1, y, y² and ln q do not change.

*Memory.* A method of two steps remembers x̂₀ of the previous step. The law of this x̂₀ given x' is
represented by J points with the same first 2J − 1 moments: Gauss's rule, by Lanczos' method (Golub
and Welsch, "Calculation of Gauss quadrature rules", Mathematics of Computation 23, 1969).

*Error.* The law is computed at growing resolutions, until mean, deviation and entropy of two of
them agree within `TOLERANCE`. Both laws are kept: the difference between their distances is the
`quadrature_error`. Without noise the second law is that of the panels before they are halved.

Cost: at least two runs of some hundred to some thousand states, and in each step the sums over
pairs of nodes that are less than nine s apart. Without noise: one run of some three thousand
states, with derivatives that dual numbers carry forward, so the memory does not grow with the
steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from samplerbench.bench.transitions import Refused, Transition, drive, transitions
from samplerbench.core.grids import Levels
from samplerbench.core.line_laws import DensityLine, LineNodes
from samplerbench.core.models import Denoiser, Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.tangents import OnDuals
from samplerbench.samplers.base import Sampler, final_state

TOLERANCE = 1e-6
#: The most nodes of a law.
MOST = 200_000
#: Gaussians are cut off at this number of standard deviations: 1e-19 of their mass.
_REACH = 9.0
#: Distances are clamped to this many standard deviations, where a Gaussian is e^−578 of its peak.
_FARTHEST = 34.0
#: Nodes with less mass are left out.
_LEAST = 1e-21
#: Nodes in a block of sums, and in a panel.
_BLOCK, _NODES = 128, 16


class Folded(ValueError):
    """The map of the last steps does not increase, so this formula gives no density."""


@dataclass(frozen=True)
class Resolution:
    """The resolution of a law."""

    spacing: float  # r, the distance of nodes, in widths w
    points: int  # J, the number of points for the x̂₀ that a method of two steps remembers
    tolerance: float  # the tolerance of the integrals over the last panels


RESOLUTIONS = [Resolution(1.0, 4, 1e-7), Resolution(0.7, 8, 1e-9), Resolution(0.5, 12, 1e-10)]


class _Law(Protocol):
    """A law with a density on an interval, `ends`."""

    ends: tuple[float, float]

    def log_density_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


def law_of_output(
    sampler: Sampler,
    model: Score,
    levels: Levels,
    log_density: Callable[[Tensor], Tensor],
    starts: Tensor,
) -> tuple[LineNodes, int]:
    """The law of a sampler's output in one dimension, and its number of evaluations.

    Args:
        sampler: a method of fixed steps.
        log_density: ln of the density of the first state, shape (n,), at points (n, 1).
        starts: some draws of the first state, shape (n, 1).

    Raises:
        Refused: the run is not a chain of Gaussian transitions.
        Folded: the map of the last steps does not increase.
    """
    chain, evaluations = transitions(sampler, model, levels, starts)
    run = _Run(sampler, model, levels, chain, _Start(log_density, starts), starts)
    coarse, *finer = RESOLUTIONS
    if not chain:  # the law of the start is exact, and only the panels have an error
        law = run.law(replace(coarse, tolerance=finer[0].tolerance))
        assert law.coarse is not None
        if _close(law.coarse, law):
            return law, evaluations
    law = run.law(coarse)
    for resolution in finer:
        before, law = law, run.law(resolution)
        if _close(before, law):
            break
    return replace(law, coarse=before), evaluations


def _close(one: LineNodes, other: LineNodes) -> bool:
    """Whether mean, standard deviation and entropy agree."""

    def facts(law: LineNodes) -> Tensor:
        mean = law.mean(law.points)
        deviation = law.mean((law.points - mean).square()).sqrt()
        return torch.stack([mean / deviation, deviation.log(), law.mean(law.log_density)])

    return bool((facts(one) - facts(other)).abs().max() < TOLERANCE)


class _Start:
    """The law of the first state, on an interval at whose ends the density is e⁻⁴⁶ of its peak."""

    def __init__(self, log_density: Callable[[Tensor], Tensor], starts: Tensor) -> None:
        def log_q(x: Tensor) -> Tensor:
            return log_density(x.reshape(-1, 1).to(starts)).double().cpu().reshape(x.shape)

        peak, ends = float(log_density(starts).max()), [float(starts.min()), float(starts.max())]
        step = (ends[1] - ends[0]) / 8
        for side, sign in enumerate((-1, 1)):
            for _ in range(1000):
                if log_q(torch.tensor(ends[side], dtype=torch.float64)) < peak - 46:
                    break
                ends[side] += sign * step
        self.ends = (ends[0], ends[1])
        panels, mass = 4, math.nan
        while True:
            edges = torch.linspace(*self.ends, panels + 1, dtype=torch.float64)
            self._line, before = DensityLine(log_q, edges), mass
            mass = math.exp(self._line.log_mass)
            if abs(mass - before) < 1e-11 or panels > MOST / _NODES:
                break
            panels *= 2
        if not abs(mass - 1) < 1e-6:
            raise Refused(f"the density of its start has the mass {mass:.6g}, not 1")
        # half the panels were enough: there are about four nodes per width
        self.width = (ends[1] - ends[0]) * 8 / panels / _NODES
        self._log_q = log_q

    def log_density_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._log_q(x), self._line.cdf(x)


class _Sum:
    """Σ ωᵢⱼ·N(m(xᵢⱼ), s²), i the state and j the point of the remembered x̂₀.

    Args:
        means: shape (n, J).
        masses: same shape.
        x0: x̂₀ of the states, which the next step remembers, shape (n,).
        scale: s.
    """

    def __init__(self, means: Tensor, masses: Tensor, x0: Tensor, scale: float) -> None:
        order = means[:, 0].argsort()
        self.means, self.masses, self.x0, self.scale = means[order], masses[order], x0[order], scale
        reach = _REACH * scale
        self.ends = float(means.min()) - reach, float(means.max()) + reach
        self._below = torch.cat([masses.new_zeros(1), self.masses.sum(1).cumsum(0)])
        # the sums over all states from here on, and up to here
        self._least = self.means.amin(1).flip(0).cummin(0).values.flip(0)
        self._most = self.means.amax(1).cummax(0).values

    def log_density_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_q, cdf, _ = self.at(x, 0)
        return log_q, cdf

    def at(self, x: Tensor, points: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """ln q, F and, if points > 0, the law of x̂₀ given x: its points and shares, (n, J).

        Args:
            x: increasing, shape (n,).
            points: J.
        """
        reach, parts, rules = _REACH * self.scale, [], []
        for block in torch.split(x, _BLOCK):
            # all other states are too far away
            begin = int(torch.searchsorted(self._most, block[0] - reach))
            end = int(torch.searchsorted(self._least, block[-1] + reach))
            masses = self.masses[begin:end]
            z = (block[:, None, None] - self.means[begin:end]) / self.scale
            # exp is ten times slower where it underflows
            z.clamp_(-_FARTHEST, _FARTHEST)
            weights = (masses * (-0.5 * z.square()).exp()).sum(2)
            cdf = self._below[begin] + (masses * torch.special.ndtr(z)).sum((1, 2))
            parts.append(torch.stack([weights.sum(1).log(), cdf]))
            if points > 0:
                rules.append(gauss_rule(weights, self.x0[begin:end], points))
        log_q, cdf = torch.cat(parts, 1)
        log_q = log_q - math.log(math.sqrt(2 * math.pi) * self.scale)
        rule = None
        if rules:
            values, shares = (torch.cat(column) for column in zip(*rules, strict=True))
            rule = values, shares
        return log_q, cdf, rule


class _Run:
    """A sampler that runs on nodes instead of samples."""

    def __init__(
        self,
        sampler: Sampler,
        model: Score,
        levels: Levels,
        chain: list[Transition],
        start: _Start,
        starts: Tensor,
    ) -> None:
        self._run, self._chain, self._start = (sampler, model, levels), chain, start
        self._like = starts[:1]

    def law(self, resolution: Resolution) -> LineNodes:
        """The law of the output."""
        last = self._through_noise(resolution) if self._chain else self._start
        return self._through_map(last, resolution)

    @torch.no_grad()
    def _through_noise(self, resolution: Resolution) -> _Law:
        """The law after the last transition."""
        start, following = self._start, iter(self._chain)
        # a remembered x̂₀ that has no effect after a step is still there: its mean is enough
        least = int(any(one.with_x0 for one in self._chain))
        coming = next(following)
        x = _spaced(start.ends, resolution.spacing * _width(start.width, coming))
        masses = (start.log_density_and_cdf(x)[0].exp() * (x[1] - x[0]))[:, None]
        law: _Law = start

        def at(event: int, state: Tensor, x0_hat: Tensor | None) -> None:
            nonlocal coming, masses, law
            if event != coming.event:
                return
            means = state.double().cpu().reshape(masses.shape)
            values = state if x0_hat is None else x0_hat
            x0 = values.double().cpu().reshape(masses.shape)[:, 0]
            sums = law = _Sum(means, masses, x0, coming.scale)
            here, coming = coming, next(following, _NONE)
            if coming is _NONE:
                return
            x = _spaced(sums.ends, resolution.spacing * _width(here.scale, coming))
            log_q, _, rule = sums.at(x, resolution.points if here.with_x0 else least)
            masses = (log_q.exp() * (x[1] - x[0]))[:, None]
            kept = masses[:, 0] > _LEAST
            x, masses = x[kept], masses[kept]
            if rule is not None and x0_hat is not None:
                values, shares = (column[kept] for column in rule)
                masses = masses * shares
                x0_hat.data = values.reshape(-1, 1).to(x0_hat)
            elif x0_hat is not None:  # it is not remembered, or equal for all states
                x0_hat.data = x0.mean().expand(len(x), 1).to(x0_hat)
            state.data = x.repeat_interleave(masses.shape[1])[:, None].to(state)

        sampler, model, levels = self._run
        try:
            drive(sampler, model, x[:, None].to(self._like), levels, _no_noise, at)
        except RuntimeError as error:  # an earlier tensor of the sampler has the old nodes
            raise Refused("its steps remember more than the state and one x̂₀") from error
        return law

    def _through_map(self, law: _Law, resolution: Resolution) -> LineNodes:
        """The law of H(x), H the map of the run after its last draw."""
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(_NODES))

        def panels(edges: Tensor) -> Tensor:
            """Points, masses, ln q, F and folded masses of panels (n, 2), shape (5, n, nodes)."""
            low, high = edges.T[..., None]
            x = (low + high) / 2 + (high - low) / 2 * nodes
            log_q, cdf = law.log_density_and_cdf(x.flatten())
            y, slope = self._map(x.flatten())
            masses = log_q.exp().reshape(x.shape) * (high - low) / 2 * weights
            folded = torch.where((slope <= 0).reshape(x.shape), masses, 0.0)
            log_q = log_q - slope.abs().clamp_min(1e-300).log()
            rows = (y.reshape(x.shape), masses, log_q.reshape(x.shape), cdf.reshape(x.shape))
            return torch.stack([*rows, folded])

        def integrals(values: Tensor) -> Tensor:
            y, masses, log_q, _, _ = values
            u = (y - centre) / width
            log_q = torch.where(masses > 0, log_q, 0.0)
            return torch.stack([masses, masses * u, masses * u.square(), masses * log_q]).sum(-1)

        edges = _spaced(law.ends, (law.ends[1] - law.ends[0]) * resolution.spacing / 64)
        edges = torch.stack([edges[:-1], edges[1:]], 1)
        values = panels(edges)
        centre = (values[1] * values[0]).sum()
        width = (values[1] * (values[0] - centre).square()).sum().sqrt()
        done, done_coarse = [], []
        for _ in range(60):
            middle = edges.mean(1, keepdim=True)
            halves = torch.cat([edges[:, :1], middle, middle, edges[:, 1:]], 1).reshape(-1, 2)
            finer = panels(halves)
            moved = integrals(finer).reshape(4, -1, 2).sum(-1) - integrals(values)
            fine = (moved.abs() <= resolution.tolerance / 64).all(0)
            both = fine.repeat_interleave(2)
            done.append(finer[:, both])
            done_coarse.append(values[:, fine])
            edges, values = halves[~both], finer[:, ~both]
            if not len(edges) or len(edges) * _NODES > MOST:
                break
        done, done_coarse = [*done, values], [*done_coarse, values]
        if float(sum(part[4].sum() for part in done)) > 1e-9:
            raise Folded("the last steps of the sampler do not increase")
        return replace(_nodes(done), coarse=_nodes(done_coarse))

    @torch.no_grad()
    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """H and its derivative at x, shape (n,)."""
        sampler, model, _ = self._run
        if not self._chain and isinstance(model, Denoiser) and not sampler.brings_levels:
            return self._forward(x, model)
        inputs, output = self._mapped(x)
        if output is inputs:
            return x, torch.ones_like(x)
        if output.requires_grad:
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(output.sum(), inputs)
        else:  # a package may switch gradients off
            step = 1e-5 * float(x.max() - x.min())
            ahead, behind = (self._mapped(x + shift)[1] for shift in (step, -step))
            slope = (ahead - behind) / (2 * step)
        ends, slope = (v.detach().double().cpu().reshape(-1, len(x)) for v in (output, slope))
        if not bool((ends - ends[0]).abs().max() <= 1e-9 * ends.abs().max()):
            raise Refused("its last steps remember more than the state")
        return ends[0], slope[0]

    def _forward(self, x: Tensor, model: Denoiser) -> tuple[Tensor, Tensor]:
        """H and its derivative of a run without noise; backward, its graph may take gigabytes."""
        sampler, _, levels = self._run
        first, noise = x[:, None].to(self._like), KeyedNoise(("density",))  # never used
        with _DUALS, forward_ad.dual_level():
            start = forward_ad.make_dual(first, torch.ones_like(first))  # type: ignore[no-untyped-call]
            last = final_state(sampler, OnDuals(model), start, levels, noise)
            y, slope = forward_ad.unpack_dual(last)  # type: ignore[no-untyped-call]
        slope = torch.zeros_like(y) if slope is None else slope  # all outputs are one
        return y[:, 0].double().cpu(), slope[:, 0].double().cpu()

    @torch.no_grad()
    def _mapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x and H(x), with gradients if possible; the same object if H is the identity."""
        sampler, model, levels = self._run
        at_event = self._chain[-1].event if self._chain else -1
        with_x0 = bool(self._chain) and self._chain[-1].with_x0
        # the remembered x̂₀ must have no effect: each state is run with two values of it
        inputs = x.repeat(1 + with_x0)[:, None].to(self._like)
        output = inputs

        def at(event: int, state: Tensor, x0_hat: Tensor | None) -> None:
            nonlocal inputs, output
            if event == at_event:
                state.data = inputs
                if x0_hat is not None and with_x0:
                    x0_hat.data = torch.cat([x, x + 1])[:, None].to(x0_hat)
                torch.set_grad_enabled(True)
                inputs = state.requires_grad_()
            if event >= at_event:
                output = state

        first = self._like.clone()
        if not self._chain:
            torch.set_grad_enabled(True)
            first = inputs.requires_grad_()
        drive(sampler, model, first, levels, _no_noise, at)
        return inputs, output


def _nodes(panels: list[Tensor]) -> LineNodes:
    """A law from points, masses, ln q and F at the nodes of panels, shapes (5, n, nodes)."""
    columns = torch.cat(panels, 1)[:4].flatten(1)
    columns = columns[:, columns[1] > _LEAST]
    return LineNodes(*columns[:, columns[3].argsort()])


#: PyTorch has one level of dual numbers for all threads, and the cells of a sweep run side by side.
_DUALS = Lock()

_NONE = Transition(-1, False)


def _no_noise(draw: int, like: Tensor) -> Tensor:
    return torch.zeros_like(like)


def _width(scale: float, coming: Transition) -> float:
    """w in the docstring of the module."""
    return scale / math.sqrt(1 + (scale * coming.slope / coming.scale) ** 2)


def _spaced(ends: tuple[float, float], spacing: float) -> Tensor:
    count = math.ceil((ends[1] - ends[0]) / spacing) + 1
    if count > MOST:
        raise Refused(f"its noise is too small for a quadrature: it takes {count:,} nodes")
    return torch.linspace(*ends, max(2, count), dtype=torch.float64)


def gauss_rule(weights: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Points and shares, (n, count), with the moments of values (k,) with weights (n, k).

    Lanczos' method: orthogonal polynomials of each measure, and eigenvalues of their recurrence.
    """
    if len(values) == 0:  # far from all states
        return weights.new_zeros(len(weights), count), weights.new_zeros(len(weights), count)
    tiny = torch.finfo(weights.dtype).tiny
    weights = weights / weights.sum(1, keepdim=True).clamp_min(tiny)
    centre = (weights @ values)[:, None]
    offset = values - centre
    width = (weights * offset.square()).sum(1, keepdim=True).sqrt()
    # a law at one point has no width
    width = torch.where(width > 1e-12 * values.abs().max(), width, 1.0)
    offset = offset / width
    diagonal, beside = [], []
    before, now = torch.zeros_like(weights), torch.ones_like(weights)
    norm = step = torch.ones_like(centre)
    for _ in range(count):
        alpha = (weights * offset * now.square()).sum(1, keepdim=True) / norm
        diagonal.append(alpha)
        before, now = now, (offset - alpha) * now - step * before
        following = (weights * now.square()).sum(1, keepdim=True)
        # a measure with fewer points ends here; the other points get no share
        goes_on = following > 1e-20 * norm
        step = torch.where(goes_on, following / norm, 0.0)
        now = torch.where(goes_on, now, 1.0)
        norm = torch.where(goes_on, following, 1.0)
        beside.append(step.sqrt())
    off = torch.cat(beside, 1)[:, :-1]
    matrix = torch.diag_embed(torch.cat(diagonal, 1))
    matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    points, vectors = torch.linalg.eigh(matrix)
    return centre + width * points, vectors[:, 0].square()
