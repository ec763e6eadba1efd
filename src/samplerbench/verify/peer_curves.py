"""The errors of a sampler of another package at every number of steps, on two laws on the line.

A peer declares no order, so its curve is measured. On the line the probability flow keeps
quantiles:

    x(α, σ) = F_{α,σ}⁻¹(u),     F_{α,σ} the distribution function of α·x₀ + σ·ε,

so the exact end of every start is known to rounding. The start has the exact law of the first level
of the peer, and the end is compared with the flow at *the peer's last level*. So the error contains
neither the error of a start from the prior, nor that of a last level above 0. Errors are root mean
squares over quantiles, in standard deviations of the data.

- The Gaussian N(.3, .4²) is easy: its field is linear. The mixture has modes of different widths.
- On the Gaussian a run of a peer that draws noise is affine in start and noise, if it does not
  clip. One run with a row for each draw gives all coefficients, and so the law of the output. The
  error is the W₂ distance of this law, without Monte Carlo.
- On the mixture the law of such a peer is known by quadrature, see `bench.line_densities`, if it
  continues with the state that it yields or that its model gets, and remembers only this state and
  one x̂₀. It is computed at the numbers of steps of `LAWS`.

Runs at every N to 1 000 take half a million steps, some minutes. So by default only the levels are
computed for every N, which finds refused N, the number of levels and the first level. `curve` runs
some N, including those whose levels repeat: there a step has no length, and its coefficients may be
0/0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, pairwise
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from samplerbench.bench.line_densities import Folded, StartLaw, law_of_output
from samplerbench.bench.transitions import Refused
from samplerbench.core.grids import Level, Levels, uniform
from samplerbench.core.line_laws import MixtureLine
from samplerbench.core.models import Denoiser, Density
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, NoiseSchedule, Rectified
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import kind_and_line
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.samplers.peers import Peer

#: The numbers of steps of a curve; neighbouring numbers show jumps.
STEPS = (5, 10, 14, 15, 20, 40, 80, 160, 320, 640, 1000)
#: Every number of steps up to the first number is run, and above it every number at this distance.
EVERY, FROM_THERE = 64, 125
#: The largest number of steps.
MOST = 1000
#: The numbers of steps at which the law of a peer with noise is computed on the mixture.
LAWS = (10, 20, 40, 80, 160, 320)
_WEIGHTS = ((1.0, 0.0), (0.35, 0.65))
_MEANS = ((0.3, 0.0), (-0.7, 0.35))
_DEVIATIONS = ((0.4, 1.0), (0.12, 0.3))
_QUANTILES = ((0.07, 0.35, 0.65, 0.93), tuple((k + 0.5) / 12 for k in range(12)))
GAUSSIAN, MIXTURE = 0, 1


def _moments(law: int) -> tuple[float, float]:
    weights, means, widths = (np.array(one[law]) for one in (_WEIGHTS, _MEANS, _DEVIATIONS))
    mean = float(weights @ means)
    return mean, float(np.sqrt(weights @ (widths**2 + means**2) - mean**2))


#: The standard deviations of the laws.
WIDTHS = tuple(_moments(law)[1] for law in (GAUSSIAN, MIXTURE))


class Line(Denoiser):
    """The exact denoiser of laws on the line, with one law for each row of a state (rows, 1)."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__()
        self.schedule: NoiseSchedule = Rectified()
        laws = (_WEIGHTS, _MEANS, _DEVIATIONS)
        columns = [torch.tensor(one, dtype=torch.float64)[list(rows)] for one in laws]
        self.logs, self.means, self.variances = columns[0].log(), columns[1], columns[2].square()

    def denoiser(self, x: Tensor, level: Level[float]) -> Tensor:  # type: ignore[override]
        """x̂₀, shape (rows, 1)."""
        spread = level.alpha**2 * self.variances + level.sigma**2
        offset = x.double() - level.alpha * self.means
        shares = (self.logs - 0.5 * (offset.square() / spread + spread.log())).softmax(-1)
        means = self.means + (level.alpha * self.variances / spread) * offset
        return (shares * means).sum(-1, keepdim=True).to(x)


@cache
def quantiles(law: int, alpha: float, sigma: float) -> Tensor:
    """F⁻¹(u) of α·x₀ + σ·ε at the quantiles of a law, by bisection, shape (count, 1), float64."""
    u = torch.tensor(_QUANTILES[law], dtype=torch.float64)
    weights, means, widths = (
        torch.tensor(one[law], dtype=torch.float64) for one in (_WEIGHTS, _MEANS, _DEVIATIONS)
    )
    centre, spread = alpha * means, (alpha * widths).square().add(sigma**2).sqrt()
    low = torch.full_like(u, float((centre - 9 * spread).min()))
    high = torch.full_like(u, float((centre + 9 * spread).max()))
    for _ in range(80):
        middle = 0.5 * (low + high)
        below = (weights * torch.special.ndtr((middle[:, None] - centre) / spread)).sum(1) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (0.5 * (low + high))[:, None]


@dataclass(frozen=True)
class Point:
    """A run at one number of steps."""

    steps: int  # N
    evaluations: int = 0  # evaluations of the model
    states: int = 0  # the number of states that the run yields
    first: float = math.nan  # σ/α of the first level
    last: float = math.nan  # σ/α of the last level
    before: float = math.nan  # σ/α of the level before it
    gaussian: float = math.nan  # the error on the Gaussian; NaN if it is not known
    mixture: float = math.nan  # the error on the mixture; NaN if it is not known
    # the relative error of the standard deviation on the Gaussian, with its sign
    spread: float = math.nan
    finite: bool = True  # whether all states are finite
    refused: str = ""  # the message with which the package refuses N, or empty
    noisy: bool = False  # whether the errors are those of the law of a peer with noise

    @property
    def error(self) -> float:
        """The larger of the two errors; with noise the one on the Gaussian, known at every N."""
        if self.noisy:
            return self.gaussian
        known = [one for one in (self.gaussian, self.mixture) if not math.isnan(one)]
        return max(known, default=math.nan)


@torch.no_grad()
def point(peer: Peer, steps: int) -> Point:
    """A run of a peer at one number of steps."""
    try:
        return _run(peer, steps)
    except Exception as error:  # the package may raise anything
        return Point(steps, refused=kind_and_line(error))


def _run(peer: Peer, steps: int) -> Point:
    levels = peer.levels(uniform, Rectified(), steps)
    calls = peer.evaluations(steps) or 0
    kappa = [_noise(row) for row in levels.rows]
    shared = (steps, calls, levels.steps, kappa[0], kappa[-1], kappa[-2])
    if peer.stochastic:
        return _of_law(peer, levels, shared)
    first, last = levels.rows[0], levels.rows[-1]
    laws = [law for law in (GAUSSIAN, MIXTURE) for _ in _QUANTILES[law]]
    start, right = (
        torch.cat([quantiles(law, row.alpha, row.sigma) for law in (GAUSSIAN, MIXTURE)])
        for row in (first, last)
    )
    end = final_state(peer, Line(laws), start, levels, KeyedNoise(("curve",)))
    count = len(_QUANTILES[GAUSSIAN])
    wrong = end - right
    errors = [float(part.square().mean().sqrt()) for part in (wrong[:count], wrong[count:])]
    spread = float((end[count - 1] - end[0]) / (right[count - 1] - right[0])) - 1
    finite = bool(end.isfinite().all())
    return Point(*shared, errors[0] / WIDTHS[0], errors[1] / WIDTHS[1], spread, finite)


class _Units:
    """Noise for the rows of a batch: draw j is 1 in row 2 + j, and 0 in the other rows."""

    def __init__(self) -> None:
        self.draws: dict[tuple[int, int], int] = {}

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """The next unit vector."""
        row = 2 + self.draws.setdefault((step, draw), len(self.draws))
        units = torch.zeros_like(like)
        if row < len(like):
            units[row] = 1
        return units

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Raise ValueError."""
        raise ValueError("a run that draws uniform numbers is not affine in its noise")


def _of_law(peer: Peer, levels: Levels, shared: tuple[int, int, int, float, float, float]) -> Point:
    """The law of the output on the Gaussian."""

    def run(rows: int, noise: _Units) -> Tensor:
        start = torch.full((rows, 1), mean)
        start[1] += 1
        return final_state(peer, Line([GAUSSIAN] * rows), start.double(), levels, noise)

    first, last = levels.rows[0], levels.rows[-1]
    centre, width = _moments(GAUSSIAN)
    mean = first.alpha * centre
    counted = _Units()
    out = run(2, counted).double()[:, 0]
    if peer.affine:
        out = run(2 + len(counted.draws), _Units()).double()[:, 0]
    finite = bool(out.isfinite().all())
    mixture = _on_mixture(peer, levels) if shared[0] in LAWS and finite else math.nan
    if not peer.affine:
        return Point(*shared, mixture=mixture, finite=finite, noisy=True)
    by = out[1:] - out[0]
    variance = by[0] ** 2 * ((first.alpha * width) ** 2 + first.sigma**2) + by[1:].square().sum()
    right = math.hypot(last.alpha * width, last.sigma)
    off, spread = float(out[0]) - last.alpha * centre, float(variance.sqrt()) - right
    gaussian = math.hypot(off, spread) / WIDTHS[0]
    return Point(*shared, gaussian, mixture, spread / right, finite, noisy=True)


def _on_mixture(peer: Peer, levels: Levels) -> float:
    """The W₂ error of the output's law on the mixture, in its deviations; NaN if not known."""
    if touches_other_rows(peer):  # the rows would be nodes of a quadrature
        return math.nan
    weights, means, widths = (one[MIXTURE] for one in (_WEIGHTS, _MEANS, _DEVIATIONS))
    law = GaussianMixture(weights, tuple((m,) for m in means), tuple(((w**2,),) for w in widths))
    first, last = levels.rows[0], levels.rows[-1]
    # if the path has α = 1 like the peer's, the peer continues with states that the model has got
    oracle = law.oracle(EDM(1e9) if first.alpha == 1 else Rectified())
    assert isinstance(oracle, Density)
    path = oracle.log_density
    starts = Exact().draw(law, 64, first, (0, 0, 0))
    try:
        with in_double():  # rounding to float32 would differ between states
            again, begin = copy_of(peer), StartLaw(lambda x: path(x, first), starts)
            output, _ = law_of_output(again, oracle, levels, begin)
    except (Refused, Folded):
        return math.nan
    shares, centres, deviations = (
        torch.tensor(one, dtype=torch.float64) for one in (weights, means, widths)
    )
    spread = ((last.alpha * deviations).square() + last.sigma**2).sqrt()
    right = MixtureLine(shares, last.alpha * centres, spread)
    return output.distance(right, 2) / WIDTHS[MIXTURE]


@dataclass(frozen=True)
class Curve:
    """The runs of a peer at many numbers of steps."""

    points: tuple[Point, ...]  # in the order of steps
    floats: bool  # whether its float64 states have only the digits of float32
    # for each N to `MOST` the number of states, None if N is refused; empty if not computed
    lists: tuple[int | None, ...] = ()
    # the N from 5 on with the smallest σ/α of the first level, and this σ/α; (0, NaN) if not known
    lowest: tuple[int, float] = (0, math.nan)

    def at(self, steps: int) -> Point:
        """The run at a number of steps."""
        return next(one for one in self.points if one.steps == steps)

    @property
    def ran(self) -> list[Point]:
        """The runs that ended with numbers and a known error, from 5 steps on."""
        return [
            one
            for one in self.points
            if one.steps >= STEPS[0] and not one.refused and math.isfinite(one.error)
        ]

    def order(self, law: str) -> float:
        """The slope of the error from 10 steps down to five floors; NaN if there is none."""
        steps = [n for n in STEPS if n >= 10 and n not in (14, 15)]
        errors = {one.steps: getattr(one, law) for one in self.ran if one.steps in steps}
        errors = {n: error for n, error in errors.items() if error > 0}
        floor = min(errors.values(), default=math.nan)
        used = {n: error for n, error in errors.items() if error > 5 * floor}
        if len(used) < 3:  # too few points above the floor
            used = dict(list(errors.items())[:4])
        if len(used) < 2:
            return math.nan
        return -float(np.polyfit(np.log(list(used)), np.log(list(used.values())), 1)[0])

    @property
    def floor(self) -> float:
        """The error that more steps do not remove; 0 if four times the steps still halve it."""
        errors = {one.steps: one.error for one in self.ran if one.steps in STEPS}
        last = max(errors, default=0)
        before = [n for n in errors if n <= last / 3]
        if not before or errors[last] < 0.5 * errors[max(before)]:
            return 0.0
        return errors[last]

    @property
    def at_floor(self) -> int:
        """The number of steps at which the error is `floor`."""
        return max((one.steps for one in self.ran if one.steps in STEPS), default=0)

    @property
    def jump(self) -> tuple[int, float]:
        """The N at which one more step increases the error most, and the ratio of both errors."""
        best = (0, 1.0)
        errors = {one.steps: one.error for one in self.ran}
        for n, error in errors.items():
            more = errors.get(n + 1)
            # ratios below rounding have no meaning
            if more is not None and error > 1e-7 and more / error > best[1]:
                best = n, more / error
        return best

    @property
    def worse(self) -> int:
        """The N above which the error rises to twice its value; 0 if it never does."""
        errors = [(n, self.at(n).error) for n in STEPS if n in {one.steps for one in self.ran}]
        for (n, one), (_, two) in pairwise(errors):
            if two > 2 * one and two > 1e-5:
                return n
        return 0

    @property
    def sign_changes(self) -> int:
        """How often the width of the Gaussian goes from too small to too large, or back."""
        signs = [one.spread > 0 for one in self.ran if abs(one.spread) > 1e-7]
        return sum(one != two for one, two in pairwise(signs))

    @property
    def not_finite(self) -> list[int]:
        """The numbers of steps whose result is not a number."""
        return [one.steps for one in self.points if not one.refused and not one.finite]

    @property
    def refused(self) -> list[int]:
        """The numbers of steps that its code refuses."""
        ran = {one.steps for one in self.points if one.refused}
        return sorted(ran | {n for n, states in enumerate(self.lists, 1) if states is None})


def curve(peer: Peer, *, steps: Sequence[int] | None = None) -> Curve:
    """The curve of a peer.

    Args:
        steps: the numbers of steps. None: every number to `EVERY`, some numbers above, `STEPS`, and
            the first three numbers above `EVERY` whose levels repeat.
    """
    levels = {n: _levels(peer, n) for n in range(1, MOST + 1)}
    if steps is None:
        odd = [n for n, one in levels.items() if n > EVERY and one and _repeats(one)]
        some = range(EVERY, MOST + 1, FROM_THERE)
        steps = sorted({*range(1, EVERY + 1), *some, MOST - 1, *STEPS, *odd[:3]})
    lists = tuple(None if one is None else one.steps for one in levels.values())
    firsts = {n: _noise(one.rows[0]) for n, one in levels.items() if one and n >= STEPS[0]}
    lowest = min(firsts, key=lambda n: firsts[n], default=0)
    points = tuple(point(peer, n) for n in steps)
    return Curve(points, has_floats(peer), lists, (lowest, firsts.get(lowest, math.nan)))


def _noise(level: Level[float]) -> float:
    """σ/α."""
    return level.sigma / level.alpha if level.alpha else math.inf


def _levels(peer: Peer, steps: int) -> Levels | None:
    """The levels of a peer; None if its code refuses the number of steps."""
    try:
        return peer.levels(uniform, Rectified(), steps)
    except Exception:  # the package may raise anything
        return None


def _repeats(levels: Levels) -> bool:
    """Whether a step has no length, or a level is not a number."""
    kappa = levels.sigma / levels.alpha
    return bool((~(kappa.diff() < 0) | kappa[1:].isnan()).any())


@torch.no_grad()
def has_floats(peer: Peer) -> bool:
    """Whether float64 states of a peer have only the digits of float32."""
    levels = peer.levels(uniform, Rectified(), peer.few)
    start = quantiles(MIXTURE, levels.rows[0].alpha, levels.rows[0].sigma)
    end = final_state(peer, Line([MIXTURE] * len(start)), start, levels, KeyedNoise(("curve",)))
    return torch.equal(end, end.float().double())


@torch.no_grad()
def touches_other_rows(peer: Peer) -> bool:
    """Whether the end of a state depends on the other rows of its batch."""
    levels = peer.levels(uniform, Rectified(), peer.few)
    start = quantiles(MIXTURE, levels.rows[0].alpha, levels.rows[0].sigma)
    other = torch.cat([start[:1], 3 * start[1:] + 1])
    model, noise = Line([MIXTURE] * len(start)), KeyedNoise(("curve",))
    one, two = (final_state(peer, model, x, levels, noise)[0] for x in (start, other))
    return not torch.equal(one.nan_to_num(), two.nan_to_num())


class _Nothing(Denoiser):
    """x̂₀ = 0."""

    schedule: NoiseSchedule = Rectified()

    def denoiser(self, x: Tensor, level: Level[float]) -> Tensor:  # type: ignore[override]
        """Zeros."""
        return torch.zeros_like(x)


class _OtherFirst:
    """Noise whose numbers of the first step have another key."""

    def __init__(self, key: int) -> None:
        self.first, self.later = KeyedNoise(("first", key)), KeyedNoise(("later",))

    def _of(self, step: int) -> KeyedNoise:
        return self.later if step else self.first

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Standard normal numbers."""
        return self._of(step).normal(like, step, draw)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Uniform numbers."""
        return self._of(step).uniform(like, step, draw)


@torch.no_grad()
def keeps_only_x0(peer: Peer) -> bool:
    """Whether the state after a step is x̂₀ and fresh noise, and nothing of the state before."""
    levels = peer.levels(uniform, Rectified(), peer.few)
    if not peer.stochastic or levels.steps < 3:
        return False
    start = torch.full((1, 1), levels.rows[0].sigma, dtype=torch.float64)
    one, two = (
        [step.x for step in islice(peer.steps(_Nothing(), start, levels, noise), 2)]
        for noise in (_OtherFirst(0), _OtherFirst(1))
    )
    moved, left = (float((a - b).abs()) for a, b in zip(one, two, strict=True))
    return left < 1e-4 * moved


@contextmanager
def in_double() -> Iterator[None]:
    """A context in which a package computes its float32 tables in float64."""
    before = torch.get_default_dtype()
    with patch.object(torch, "float32", torch.float64), patch.object(np, "float32", np.float64):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def error_in_double(peer: Peer, steps: int) -> float:
    """The error of a run with float64 tables, to distinguish rounding from other causes."""
    with in_double():
        return point(copy_of(peer), steps).error


def copy_of(peer: Peer) -> Peer:
    """A new peer with the same settings."""
    copy: Peer = replace(peer)  # type: ignore[type-var]
    return copy


class _InOrder:
    """Noise whose numbers depend only on how many draws came before."""

    def __init__(self) -> None:
        self.noise, self.count = KeyedNoise(("agreement",)), 0

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """The next standard normal numbers."""
        self.count += 1
        return self.noise.normal(like, self.count)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """The next uniform numbers on [0, 1)."""
        self.count += 1
        return self.noise.uniform(like, self.count)


@torch.no_grad()
def apart_from(peer: Peer, ours: Mapping[str, Sampler]) -> dict[str, float]:
    """The largest distance between a peer and each of our samplers on the peer's own 20 levels.

    It is in standard deviations of the data, at the quantiles of the mixture, with the same draws
    in the same order. NaN if a sampler does not run there. A level at which the peer evaluates
    twice is one level for our samplers.
    """
    line = Line([MIXTURE] * len(_QUANTILES[MIXTURE]))
    own = peer.levels(uniform, line.schedule, 20)
    if own.rows[0].alpha == 1:  # our Heun, for example, depends on the path
        line.schedule = EDM(1e9)
        own = peer.levels(uniform, line.schedule, 20)
    kappa = own.sigma / own.alpha
    kept = torch.cat([torch.ones(1, dtype=torch.bool), kappa.diff() < 0])
    levels = Levels(own.t[kept], own.alpha[kept], own.sigma[kept])
    start = quantiles(MIXTURE, own.rows[0].alpha, own.rows[0].sigma)
    theirs = final_state(peer, line, start, own, _InOrder())

    def apart(one: Sampler) -> float:
        if one.stochastic != peer.stochastic or one.why_incompatible(line, levels):
            return math.nan
        gap = theirs - final_state(one, line, start, levels, _InOrder())
        return float(gap.abs().max()) / WIDTHS[MIXTURE]

    return {name: apart(one) for name, one in ours.items()}
