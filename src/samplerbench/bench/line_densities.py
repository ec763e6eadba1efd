"""The law of a sampler's output on a line, also with noise, by quadrature instead of samples.

`transitions` describes the run as a chain x' = m(x) + s·z. If nodes xᵢ with masses ωᵢ represent the
law of x, then the law of x' has the density and the distribution function

    q(x') = Σᵢ ωᵢ·N(x'; m(xᵢ), s²),     F(x') = Σᵢ ωᵢ·Φ((x' − m(xᵢ))/s) ,

and q at equally spaced nodes, times their spacing, gives the next masses (the trapezoidal rule).
For smooth functions on a line the error of this rule falls faster than any power: if the spacing is
r times the width w of the narrowest Gaussian in the integrand, it is about exp(−2π²/r²), 3e-9 at
r = 1. Here 1/w² = 1/s² + (slope/s')², from this transition and the next. After the last draw the
run is a map y = H(x), and q(y) = q(x)/H'(x) if H increases. There the nodes are those of a rule of
Gauss and Kronrod on panels: 15 nodes, 7 of which are the nodes of a Gauss rule. Panels are divided
until both rules agree for the integrals of q times 1, y, y², ln q and ln p, and roughly for that of
p, the density of the data if it is known. For smooth functions the error of the 15 nodes is about
the square of this difference. The first panels have widths ∝ q^(−1/15), which give equal errors of
the 15 derivatives of a Gauss rule if H is linear. F at the nodes is the integral of the polynomial
through the densities at the nodes.

*Memory.* A method of two steps remembers x̂₀ of the previous step. The law of this x̂₀ given x' is
represented by J points with the same first 2J − 1 moments: Gauss's rule, by Lanczos' method (Golub
and Welsch, "Calculation of Gauss quadrature rules", Mathematics of Computation 23, 1969).

*Error.* The law is computed at growing resolutions, until mean, deviation and entropy of two of
them agree within `TOLERANCE`. The coarser law is kept, and so is that of the 7 nodes in each
panel: the sum of the changes of a distance is its `quadrature_error`. Without noise there is only
the second law.

Cost: at least two runs of some hundred to some thousand states, and in each step the sums over
pairs of nodes that are less than nine s apart. Without noise: about two thousand states, in two to
four runs, since the next panels depend on the last ones. The parts of a panel have equal shares of
the variations of x, y and ln H'(x), so that they become narrow where the map is steep. Tangents
carry the derivatives forward, so the memory does not grow with the steps. A sampler that is not
linear in states and x̂₀ runs on dual numbers, which take three times as long where a model is cheap.

Reference for the rule: D. P. Laurie, "Calculation of Gauss–Kronrod quadrature rules", Mathematics
of Computation 66, 1997, which also has a better method for many nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from numpy.polynomial import legendre
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from samplerbench.bench.transitions import Refused, Transition, drive, transitions
from samplerbench.core.grids import AnyLevel, Levels
from samplerbench.core.line_laws import LineNodes, Panels
from samplerbench.core.models import Call, Counted, Denoiser, Score
from samplerbench.core.tangents import OnDuals, WithTangents, with_tangents
from samplerbench.samplers.base import Sampler, final_state

Array = NDArray[np.floating[Any]]

TOLERANCE = 1e-6
#: The most nodes of a law.
MOST = 200_000
#: Gaussians are cut off at this number of standard deviations: 1e-19 of their mass.
_REACH = 9.0
#: Distances are clamped to this many standard deviations, where a Gaussian is e^−578 of its peak.
_FARTHEST = 34.0
#: The map may fall where there is less mass: rounding.
_FOLDED = 1e-9
#: Nodes with less mass are left out before a transition.
_LEAST = 1e-21
#: Nodes of the last law with less mass are left out. The mean of p/q needs all others.
_REPRESENTED = 1e-290
#: Nodes in a block of sums.
_BLOCK = 128
#: Nodes of Gauss's rule for the law of the start, and among those of a panel of the last law.
_OF_START, _GAUSS = 16, 7
#: The smallest number of first panels; after noise there are more, since the scales differ more.
_FEWEST, _AFTER_NOISE = 32, 64
#: A panel with an error above so many tolerances is divided into at least so many parts, and into
#: at most so many others if the round has few panels: a run of few states takes as long.
_PARTS = {0.0: (2, 16), 10.0: (4, 16), 100.0: (4, 32), 1e3: (8, 32), 1e5: (16, 32)}
_AT_ONCE = 64
#: If the law ends where the data's density has at least this mass in a panel, the first map also
#: runs on so many panels beyond each end of the start, over this multiple of its length.
_MISSED, _FARTHER, _FAR = 1e-7, 8, 1.3
#: The integral of p only shows whether q misses a part of the data: so many times the tolerance.
_ROUGHLY = 1e4


@dataclass(frozen=True)
class _Rule:
    """A rule of quadrature on [−1, 1]."""

    nodes: Tensor  # increasing, shape (n,)
    weights: Tensor
    within: Tensor  # (n, n): values at the nodes ↦ integrals of their polynomial up to each node

    @classmethod
    def of(cls, nodes: Array, weights: Array) -> _Rule:
        count = len(nodes)
        values = legendre.legvander(nodes, count)
        # (2k + 1)·∫ P_k = P_{k+1} − P_{k−1}
        integrals = np.empty((count, count))
        integrals[:, 0] = nodes + 1
        for k in range(1, count):
            integrals[:, k] = (values[:, k + 1] - values[:, k - 1]) / (2 * k + 1)
        within = np.linalg.solve(values[:, :count].T, integrals.T).T
        return cls(*(torch.from_numpy(v.copy()) for v in (nodes, weights, within)))


@lru_cache
def gauss_and_kronrod(count: int) -> tuple[_Rule, _Rule]:
    """Gauss's rule of n nodes, and the rule of 2n + 1 nodes with these at its odd places.

    The other n + 1 nodes are the roots of the polynomial E with ∫ P_n·E·x^k = 0 for k ≤ n.
    """
    x, w = legendre.leggauss(2 * count + 2)
    values = legendre.legvander(x, count + 1)
    products = np.einsum("x,xk,xi->ki", w * values[:, count], values[:, :-1], values)
    # half of the equations are 0 = 0, by symmetry
    of_e = np.linalg.lstsq(products[:, :-1], -products[:, -1], rcond=None)[0]
    roots = np.sort(legendre.legroots(np.append(of_e, 1.0)).real)
    gauss, of_gauss = legendre.leggauss(count)
    nodes = np.empty(2 * count + 1)
    nodes[::2], nodes[1::2] = (roots - roots[::-1]) / 2, gauss
    exact = np.zeros(len(nodes))
    exact[0] = 2.0
    weights = np.linalg.solve(legendre.legvander(nodes, len(nodes) - 1).T, exact)
    return _Rule.of(gauss, of_gauss), _Rule.of(nodes, weights)


class _Drawn(Exception):
    """A sampler draws noise, although it says that it draws none."""


class Folded(ValueError):
    """The map of the last steps does not increase, so this formula gives no density."""


@dataclass(frozen=True)
class Resolution:
    """The resolution of a law."""

    spacing: float  # r, the distance of nodes, in widths w
    points: int  # J, the number of points for the x̂₀ that a method of two steps remembers
    tolerance: float  # the tolerance of the integrals over the last panels


RESOLUTIONS = [Resolution(1.0, 4, 1e-7), Resolution(0.7, 8, 1e-9), Resolution(0.5, 12, 1e-10)]
#: More of them if nothing is remembered: they cost little, and where a map is almost folded between
#: two draws, as with churn in few steps, the sums converge slowly.
RESOLUTIONS += [Resolution(spacing, 12, 1e-10) for spacing in (0.35, 0.25, 0.18, 0.12, 0.08)]
_WITH_MEMORY = 3
#: Without noise.
_ALONE = Resolution(1.0, 4, 1e-9)


class _Law(Protocol):
    """A law with a density on an interval."""

    edges: Tensor  # of the first panels
    # edges of panels below and above them, with masses that are negligible, but not 0; may be empty
    farther: tuple[Tensor, Tensor]

    def log_density(self, x: Tensor) -> Tensor: ...


def law_of_output(
    sampler: Sampler,
    model: Score,
    levels: Levels,
    start: StartLaw,
    *,
    log_p: Callable[[Tensor], Tensor] | None = None,
    linear: bool = False,
) -> tuple[LineNodes, int]:
    """The law of a sampler's output in one dimension, and its number of evaluations.

    Args:
        sampler: a method of fixed steps.
        start: the law of the first state.
        log_p: ln of the density with which the law will be compared, at last states, shape (n,).
            The integral of ln p over the law is then as accurate as the others, also if p has
            features that are much narrower than the law.
        linear: whether the sampler is linear in states and x̂₀; then tangents are cheaper.

    Raises:
        Refused: the run is not a chain of Gaussian transitions.
        Folded: the map of the last steps does not increase.
    """
    run = _Run(sampler, model, levels, start, log_p, linear)
    if not (sampler.stochastic or sampler.adaptive) and run.is_forward:
        try:
            return run.law(_ALONE), run.evaluations
        except _Drawn:
            pass
    run.chain, evaluations = transitions(sampler, model, levels, start.draws)
    if not run.chain:  # the law of the start is exact, and only the panels have an error
        return run.law(_ALONE), evaluations
    remembers = any(one.with_x0 for one in run.chain)
    coarse, *finer = RESOLUTIONS[: _WITH_MEMORY if remembers else None]
    law = run.law(coarse)
    for resolution in finer:
        before, law = law, run.law(resolution)
        if _close(before, law):
            break
    return replace(law, coarser=(before, *law.coarser)), evaluations


def _close(one: LineNodes, other: LineNodes) -> bool:
    """Whether mean, standard deviation and entropy agree."""

    def facts(law: LineNodes) -> Tensor:
        mean = law.mean(law.points)
        deviation = law.mean((law.points - mean).square()).sqrt()
        return torch.stack([mean / deviation, deviation.log(), law.mean(law.log_density)])

    return bool((facts(one) - facts(other)).abs().max() < TOLERANCE)


class StartLaw:
    """The law of the first state, on an interval at whose ends the density is e⁻⁴⁶ of its peak.

    Args:
        log_density: ln of its density, shape (n,), at points (n, 1).
        draws: some draws of it, shape (n, 1).

    Raises:
        Refused: its density is not normalised.
    """

    def __init__(self, log_density: Callable[[Tensor], Tensor], draws: Tensor) -> None:
        def log_q(x: Tensor) -> Tensor:
            return log_density(x.reshape(-1, 1).to(draws)).double().cpu().reshape(x.shape)

        self.log_density, self.draws = log_q, draws
        peak, low, high = (float(v) for v in (log_q(draws).max(), draws.min(), draws.max()))
        step = (high - low) / 8 or 1.0
        for first in range(0, 1000, 50):
            outward = step * torch.arange(first, first + 50, dtype=torch.float64)
            found = log_q(torch.stack([low - outward, high + outward])) < peak - 46
            if found.any(1).all():
                break
        # the first of each side; without one, the farthest point
        below, above = (int(one.double().argmax()) if one.any() else 49 for one in found)
        self.ends = low - float(outward[below]), high + float(outward[above])
        rule, panels, mass = gauss_and_kronrod(_OF_START)[0], 4, math.nan
        while True:
            edges = torch.linspace(*self.ends, panels + 1, dtype=torch.float64)
            x, half = _points(edges[:-1], edges[1:], rule.nodes)
            logs, before = log_q(x), mass
            mass = float((logs.exp() * half * rule.weights).sum())
            if abs(mass - before) < 1e-11 or panels > MOST / _OF_START:
                break
            panels *= 2
        if not abs(mass - 1) < 1e-6:
            raise Refused(f"the density of its start has the mass {mass:.6g}, not 1")
        # half the panels were enough: there are about four nodes per width
        self.width = (self.ends[1] - self.ends[0]) * 8 / panels / _OF_START
        flat = ((logs - logs.max()) / (2 * _GAUSS + 1)).exp().flatten().numpy()
        self.edges = _equal_parts(x.flatten().numpy(), flat, max(_FEWEST, panels // 4))
        self.edges[0], self.edges[-1] = self.ends
        reach = torch.linspace(0, _FAR * (self.ends[1] - self.ends[0]), _FARTHER + 1).double()
        self.farther = self.ends[0] - reach.flip(0), self.ends[1] + reach


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
        self.edges = torch.linspace(*self.ends, _AFTER_NOISE + 1, dtype=torch.float64)
        none = torch.empty(0, dtype=torch.float64)
        self.farther = none, none  # its Gaussians are cut off at the ends
        # the sums over all states from here on, and up to here
        self._least = self.means.amin(1).flip(0).cummin(0).values.flip(0)
        self._most = self.means.amax(1).cummax(0).values

    def log_density(self, x: Tensor) -> Tensor:
        order = x.flatten().argsort()
        log_q = torch.empty(x.numel(), dtype=torch.float64)
        log_q[order] = self.at(x.flatten()[order], 0)[0]
        return log_q.reshape(x.shape)

    def at(self, x: Tensor, points: int) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """ln q and, if points > 0, the law of x̂₀ given x: its points and shares, (n, J).

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
            parts.append(weights.sum(1).log())
            if points > 0:
                rules.append(gauss_rule(weights, self.x0[begin:end], points))
        log_q = torch.cat(parts) - math.log(math.sqrt(2 * math.pi) * self.scale)
        rule = None
        if rules:
            values, shares = (torch.cat(column) for column in zip(*rules, strict=True))
            rule = values, shares
        return log_q, rule


class _Run:
    """A sampler that runs on nodes instead of samples."""

    def __init__(
        self,
        sampler: Sampler,
        model: Score,
        levels: Levels,
        start: StartLaw,
        log_p: Callable[[Tensor], Tensor] | None,
        linear: bool,
    ) -> None:
        self._run, self._start, self._log_p, self._linear = (
            (sampler, model, levels),
            start,
            log_p,
            linear,
        )
        self._like = start.draws[:1]
        self.chain: list[Transition] | None = None  # not known
        self.evaluations = 0
        # whether derivatives go forward if there is no noise
        self.is_forward = isinstance(model, Denoiser) and not sampler.brings_levels

    def law(self, resolution: Resolution) -> LineNodes:
        """The law of the output."""
        last = self._through_noise(resolution) if self.chain else self._start
        return self._through_map(last, resolution.tolerance)

    @torch.no_grad()
    def _through_noise(self, resolution: Resolution) -> _Law:
        """The law after the last transition."""
        start, chain = self._start, self.chain or []
        following = iter(chain)
        # a remembered x̂₀ that has no effect after a step is still there: its mean is enough
        least = int(any(one.with_x0 for one in chain))
        coming = next(following)
        x = _spaced(start.ends, resolution.spacing * _width(start.width, coming))
        masses = (start.log_density(x).exp() * (x[1] - x[0]))[:, None]
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
            log_q, rule = sums.at(x, resolution.points if here.with_x0 else least)
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

    def _through_map(self, law: _Law, tolerance: float) -> LineNodes:
        """The law of H(x), H the map of the run after its last draw."""
        gauss, rule = gauss_and_kronrod(_GAUSS)
        difference = rule.weights.clone()
        difference[1::2] -= gauss.weights
        low, high = law.edges[:-1], law.edges[1:]
        ends = float(low[0]), float(high[-1])
        # the panels beyond the ends where the map is not known to grow begin here
        bounds = [-math.inf, math.inf]
        scale: tuple[Tensor, Tensor] | None = None
        farther: list[Tensor] = []
        lows, columns, folded, nodes = [], [], 0.0, 0
        for _ in range(60):
            x, half = _points(low, high, rule.nodes)
            nodes += x.numel()
            log_q = law.log_density(x)
            y, slope = (v.reshape(x.shape) for v in self._map(x.flatten()))
            per_node, log_slope = log_q.exp() * half, slope.abs().clamp_min(1e-300).log()
            log_q = log_q - log_slope
            turned, masses = slope <= 0, per_node * rule.weights
            turns = bool(turned.any())
            if turns and float(masses[:, 1:][turned[:, 1:] & turned[:, :-1]].sum()) > _FOLDED:
                raise _folded()  # between two neighbours the map falls
            rows = self._integrands(y, per_node, log_q, *(scale or _scale(y, masses)))
            error = (rows * difference).sum(-1).abs().amax(0) / tolerance
            # no panel gets better if a state is not a number
            rough = error > 1
            parts = _parts(error[rough])
            if nodes + int(parts.sum()) * len(rule.nodes) > MOST:
                rough.zero_()
            fine = ~rough
            lows.append(low[fine])
            columns.append(torch.stack([y, per_node, log_q])[:, fine])
            if turns:
                folded += float(masses[fine][turned[fine]].sum())
            if farther:
                wrong = (turned | ~y.isfinite()).any(1)
                bounds[0] = max([bounds[0], *high[wrong & (low < ends[0])].tolist()])
                bounds[1] = min([bounds[1], *low[wrong & (high > ends[1])].tolist()])
            elif scale is None:
                farther = self._beyond(law, rows, rule)
            more = farther if scale is None else []
            scale = scale or _scale(y, masses)
            monitors = torch.stack([x, y, log_slope])[:, rough]
            low, high = _divided(low[rough], high[rough], monitors, parts)
            low = torch.cat([low, *(edges[:-1] for edges in more)])
            high = torch.cat([high, *(edges[1:] for edges in more)])
            if len(low) == 0:
                break
        if folded > _FOLDED:
            raise _folded()
        begin = torch.cat(lows)
        order = begin.argsort()
        inside = (begin[order] >= bounds[0]) & (begin[order] < bounds[1])
        values = torch.cat(columns, 1)[:, order[inside]]
        coarse = _nodes(values[:, :, 1::2], gauss)
        return replace(_nodes(values, rule), coarser=(coarse,))

    def _beyond(self, law: _Law, rows: Tensor, rule: _Rule) -> list[Tensor]:
        """The edges of panels beyond an end of the law at which p has mass."""
        if self._log_p is None:
            return []
        missed = rows[-1, [0, -1]] @ rule.weights * _ROUGHLY > _MISSED
        sides = zip(missed.tolist(), law.farther, strict=True)
        return [edges for at_end, edges in sides if at_end and len(edges) > 0]

    def _integrands(
        self, y: Tensor, per_node: Tensor, log_q: Tensor, centre: Tensor, width: Tensor
    ) -> Tensor:
        """q times 1, u, u², ln q and ln p, and a part of p, u = (y − centre)/width: (k, n, nodes).

        All arguments have the shape (n, nodes); `per_node` is the density of x times half the width
        of its panel, and `log_q` the logarithm of that of y.
        """
        u = (y - centre) / width
        rows = [per_node, per_node * u, per_node * u.square(), _product(per_node, log_q)]
        if self._log_p is not None:
            log_p = self._log_p(y.flatten()).reshape(y.shape)
            ratio = (log_p - log_q + per_node.log()).clamp_max(50.0).exp()
            rows += [_product(per_node, log_p), ratio.nan_to_num(0.0) / _ROUGHLY]
        return torch.stack(rows)

    @torch.no_grad()
    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """H and its derivative at x, shape (n,)."""
        if not self.chain and self.is_forward:
            return self._forward(x)
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

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """H and its derivative of a run without noise; backward, its graph may take gigabytes."""
        sampler, model, levels = self._run
        assert isinstance(model, Denoiser)
        # draws that have no effect are zeros
        noise = _NoNoise(refuse=self.chain is None)
        first = x[:, None].to(self._like)
        if self._linear:
            counted = _Alone(WithTangents(model))
            y, slope = final_state(sampler, counted, with_tangents(first), levels, noise)
        else:
            counted = _Alone(OnDuals(model))
            with _DUALS, forward_ad.dual_level():
                start = forward_ad.make_dual(first, torch.ones_like(first))  # type: ignore[no-untyped-call]
                last = final_state(sampler, counted, start, levels, noise)
                y, slope = forward_ad.unpack_dual(last)  # type: ignore[no-untyped-call]
            slope = torch.zeros_like(y) if slope is None else slope  # all outputs are one
        self.evaluations = counted.evaluations
        return y[:, 0].double().cpu(), slope[:, 0].double().cpu()

    @torch.no_grad()
    def _mapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x and H(x), with gradients if possible; the same object if H is the identity."""
        (sampler, model, levels), chain = self._run, self.chain or []
        at_event = chain[-1].event if chain else -1
        with_x0 = bool(chain) and chain[-1].with_x0
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
        if not chain:
            torch.set_grad_enabled(True)
            first = inputs.requires_grad_()
        drive(sampler, model, first, levels, _no_noise, at)
        return inputs, output


class _Alone(Counted):
    """A counted denoiser that refuses several states of a sample at once."""

    def parallel(self, call: Call, x: Tensor, level: AnyLevel) -> Tensor:
        raise Refused("it evaluates several states of a sample at once")


class _NoNoise:
    """Zeros instead of noise; with `refuse` a draw is an error."""

    def __init__(self, refuse: bool) -> None:
        self._refuse = refuse

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        if self._refuse:
            raise _Drawn
        return torch.zeros_like(like)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise Refused("it draws uniform numbers: its transitions are not Gaussian")


def _scale(y: Tensor, masses: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of outputs."""
    centre = (masses * y).sum()
    return centre, (masses * (y - centre).square()).sum().sqrt()


def _points(low: Tensor, high: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes of n panels, shape (n, nodes), and half their widths, shape (n, 1)."""
    half = (high - low)[:, None] / 2
    return (low + high)[:, None] / 2 + half * nodes, half


def _parts(error: Tensor) -> Tensor:
    """The numbers of parts of panels with these errors, in tolerances, shape (n,)."""
    spare = _AT_ONCE // max(1, len(error))
    parts = torch.full(error.shape, 2)
    for least, (fewest, most) in _PARTS.items():
        parts[error > least] = max(fewest, min(most, spare))
    return parts


def _divided(low: Tensor, high: Tensor, monitors: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
    """The edges of parts of panels: equal shares of the variations of x, y and ln dy/dx.

    Where the map is steep, as between two modes, equal parts of x would find it by halves only.

    Args:
        low: the lower edges, shape (n,).
        high: the upper edges.
        monitors: x, y and ln dy/dx at the nodes of each panel, shape (3, n, nodes).
        parts: the number of parts of each.
    """
    if len(low) == 0:
        return low, high
    x, *others = monitors
    places = torch.cat([low[:, None], x, high[:, None]], 1)
    of_x = (places - low[:, None]) / (high - low)[:, None]
    share = of_x / len(monitors)
    for values in others:
        steps = values.diff(dim=1).abs()
        whole = steps.sum(1, keepdim=True)
        inner = steps.cumsum(1) / whole
        own = torch.cat([torch.zeros_like(x[:, :2]), inner, torch.ones_like(whole)], 1)
        varies = (whole > 0) & whole.isfinite()
        share = share + torch.where(varies, own, of_x) / len(monitors)
    of = torch.arange(len(low)).repeat_interleave(parts)
    place = torch.arange(len(of)) - (parts.cumsum(0) - parts)[of]
    # one function for all panels: it grows by 1 in each
    wanted = of + place / parts[of]
    known = share + torch.arange(len(low))[:, None]
    edges = np.interp(wanted.numpy(), known.flatten().numpy(), places.flatten().numpy())
    lows = torch.where(place == 0, low[of], torch.from_numpy(edges))
    last = place == parts[of] - 1
    return lows, torch.where(last, high[of], lows.roll(-1))


def _equal_parts(x: Array, heights: Array, count: int) -> Tensor:
    """Edges between which a function with these values has equal integrals, (count + 1,)."""
    pieces = np.diff(x) * (heights[1:] + heights[:-1]) / 2
    below = np.append(0.0, pieces.cumsum())
    return torch.from_numpy(np.interp(np.linspace(0, below[-1], count + 1), below, x))


def _product(masses: Tensor, values: Tensor) -> Tensor:
    """Their product; nothing where there is no mass, or where ln p is −∞."""
    return torch.where((masses > 0) & values.isfinite(), masses * values, 0.0)


def _nodes(values: Tensor, rule: _Rule) -> LineNodes:
    """A law from points, density times half the panel's width, and ln q, shape (3, n, nodes)."""
    y, per_node, log_q = values
    masses = per_node * rule.weights
    of_panel = masses.sum(1, keepdim=True)
    cdf = of_panel.cumsum(0) - of_panel + per_node @ rule.within.T
    panels = Panels(rule.nodes, y, per_node, log_q)
    kept = masses > _REPRESENTED
    return LineNodes(y[kept], masses[kept], log_q[kept], cdf[kept], panels)


def _folded() -> Folded:
    return Folded("the last steps of the sampler do not increase")


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
