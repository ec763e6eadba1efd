"""Levels that are best for one sampler, number of steps, path and denoiser.

The levels are κ_1 > κ_2 > … > κ_N, κ = σ/α, and then the data. κ_1 is the level of the start; the
others are free. (With `final=none` there are N + 1 levels, and the last one is fixed, too.) The
range of ln κ from κ_1 to a smallest κ is divided into one part above each free level and one below
the last. The shares of the parts are a softmax of free numbers θ, so every θ is a grid.

A criterion is a sum of squares, see `criteria`. So the levels are found by Levenberg–Marquardt
(SciPy, MINPACK), from several first grids. (BFGS, if there are fewer squares than levels.) The
derivatives with respect to all levels come from one run, or from runs that are rows of one batch,
see `coefficients`.

*No leak.* The optimiser sees the *training* starts. Among the grids that it has tried, the one that
is best on the *choice* starts is taken, and so is the best standard grid. The result is measured on
the *held-out* starts. The three sets have different random numbers, and no level depends on the
held-out ones. The design is the result only if it is better there than the best standard grid, by a
95 % interval from a bootstrap over the starts, which both grids share. Otherwise the standard grid
is the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.bench.criteria import CRITERIA, Criterion, Problem, Sample, Targets
from samplerbench.core.grids import (
    MOST_NOISE,
    Grid,
    Levels,
    Truncated,
    TruncatedLevels,
    karras,
    log_snr,
    polynomial,
    uniform,
)
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import generator
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Start
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import InvalidSetting, require
from samplerbench.samplers.base import Sampler

Vector = NDArray[np.float64]

#: The number of candidate grids of one design: a base, more for each free level, and the maximum.
_FIRST, _FOR_LEVEL, _MOST = 40, 15, 160
#: Numbers of starts: of the optimiser, of the choice among its grids, and for the result.
PATHS, CHOICE, HELD_OUT = 192, 512, 2000
#: Training and choice starts on a mixture, whose rare starts change their mode with the grid: 192
#: contain too few of them. The exact denoiser is cheap if all means together have at most `_FEW`
#: coordinates. With more starts fewer candidates are enough, for each free level and in all.
_ON_MIXTURES, _FEW = 2048, 128
_FOR_LEVEL_OF_MANY, _MOST_OF_MANY = 10, 100
#: The smallest share of the range of ln κ between two levels.
_LEAST = 1e-4
#: The smallest possible level, in units of the standard grid's last one, if the path has it.
_LOWER = 1 / 50
#: The change of ln κ in a finite difference, for denoisers in double and in single precision.
_CHANGE = {torch.float64: 1e-6, torch.float32: 1e-3}
#: The number of descents, and of grids that are compared on the choice starts.
_DESCENTS, _COMPARED = 3, 10
#: The smallest relative difference in loss between two compared grids.
_APART = 0.2
#: Resampled sets of starts for an interval.
_RESAMPLED = 400
#: An exact gain must exceed 1 by more than this to count.
_ROUNDING = 1e-6
#: The name of a designed grid.
DESIGNED = "designed"
#: The smallest number of steps of a design, and the reason.
LEAST_STEPS = 2
NO_FREE_LEVEL = "a run of one step has no free level"


@dataclass(frozen=True, eq=False)
class Value:
    """The value of a grid on the held-out starts."""

    grid: str
    levels: Levels  # the levels of the grid
    losses: Tensor  # the loss of every start, shape (n,), float64
    value: float  # the criterion


@dataclass(frozen=True, eq=False)
class Gain:
    """The ratio of the values of two grids on the same starts: above 1 the first grid is better."""

    ratio: float  # of the values
    lower: float  # end of its 95 % interval
    upper: float  # the other end

    @property
    def better(self) -> bool:
        """Whether the interval lies above 1, by more than rounding."""
        return self.lower > 1 + _ROUNDING


@dataclass(frozen=True, eq=False)
class Design:
    """The result of `design`."""

    grid: str  # `DESIGNED`, or the name of the best standard grid if the design is not better
    levels: Levels  # the result
    criterion: str
    training: float  # the value of the designed levels on the training starts
    designed: Value  # the designed levels, measured on the held-out starts
    standard: Value  # the best standard grid, measured there
    gain: Gain  # of the designed levels over the standard grid
    candidates: int  # the number of grids that were tried
    evaluations: int  # of the denoiser; a call for n states counts n times

    @property
    def value(self) -> float:
        """The value of the result on the held-out starts."""
        return (self.designed if self.grid == DESIGNED else self.standard).value

    @property
    def ratios(self) -> list[float]:
        """κ = σ/α of the result, without the data: for `grid.ratios` of grid=custom."""
        return ratios(self.levels)


def ratios(levels: Levels) -> list[float]:
    """κ = σ/α of levels, without the data."""
    noisy = levels.sigma > 0
    return (levels.sigma / levels.alpha)[noisy].tolist()


class Space:
    """The grids with a number of steps between fixed ends, as vectors θ."""

    def __init__(self, schedule: NoiseSchedule, standard: Levels) -> None:
        self.schedule = schedule
        self.plain = isinstance(standard, TruncatedLevels)
        kappa = standard.sigma / standard.alpha
        self._first, self._last = standard.t[:1], standard.t[-1:] if self.plain else None
        self._top = math.log(min(float(kappa[0]), MOST_NOISE))
        end = float(kappa[-1 if self.plain else -2])
        lowest = end if self.plain else max(schedule.noise_range[0], end * _LOWER)
        self._span = self._top - math.log(lowest)
        #: The number of free levels.
        self.free = standard.steps - 1

    def logs(self, theta: Vector) -> tuple[Vector, Vector]:
        """ln κ of the free levels, and their derivatives by θ, shape (free, free)."""
        powers = np.exp(np.append(theta, 0.0) - max(0.0, float(theta.max(initial=0.0))))
        plain = powers / powers.sum()
        kept = 1 - len(plain) * _LEAST
        shares = _LEAST + kept * plain
        rates = kept * (np.diag(plain[:-1]) - np.outer(plain[:-1], plain[:-1]))
        return (
            self._top - self._span * np.cumsum(shares[:-1]),
            -self._span * np.cumsum(rates, axis=0),
        )

    def theta(self, levels: Levels) -> Vector:
        """The vector θ of levels; levels outside the space are moved into it."""
        logs = np.log(ratios(levels))[: self.free + 1]
        logs[0] = self._top
        shares = -np.diff(logs) / self._span
        shares = np.append(shares, 1 - shares.sum())
        plain = np.maximum(shares - _LEAST, _LEAST)
        theta: Vector = np.log(plain[:-1] / plain[-1])
        return theta

    def levels(self, logs: Vector) -> Levels:
        """The levels with these ln κ at the free places."""
        inner = self.schedule.time_at(torch.from_numpy(np.exp(logs))).clamp(0.0, 1.0)
        times = torch.cat([self._first, inner] + ([] if self._last is None else [self._last]))
        alpha, sigma = self.schedule(times)
        if self.plain:
            return TruncatedLevels(times, alpha, sigma)
        zero, one = times.new_zeros(1), times.new_ones(1)
        return Levels(torch.cat([times, zero]), torch.cat([alpha, one]), torch.cat([sigma, zero]))


class _Spent(Exception):
    """The budget of candidates is spent."""


class Descent:
    """Levenberg–Marquardt on the grids of a space; keeps every grid that it tries.

    Args:
        space: the grids.
        sample: the training starts.
        budget: the number of candidates.
        change: the change of ln κ in a finite difference.
    """

    def __init__(self, space: Space, sample: Sample, budget: int, change: float) -> None:
        self.space, self.sample, self.change = space, sample, change
        self.left, self._end = budget, 0
        #: (loss, ln κ of the free levels) of the grids so far.
        self.tried: list[tuple[float, Vector]] = []
        #: The same for the grids of BFGS, which may use another loss.
        self.polished: list[tuple[float, Vector]] = []

    def from_grid(self, theta: Vector, budget: int) -> None:
        """Descend from a grid, with at most `budget` candidates."""
        from scipy.optimize import least_squares, minimize  # slow to import

        if self.sample.measured is not None:  # first by squares, then by the more exact loss
            budget //= 2
        self._end = max(0, self.left - budget)
        before = len(self.tried)
        with suppress(_Spent):
            if len(self.residuals(theta)) < len(theta):  # a Gaussian of few dimensions
                minimize(self.loss, theta, jac=True, method="BFGS", options={"gtol": 1e-7})
                return
            least_squares(
                self.residuals,
                theta,
                self.jacobian,
                method="lm",
                ftol=1e-4,
                xtol=1e-4,
                gtol=1e-10,
                max_nfev=10**6,
            )
        if self.sample.measured is None:
            return
        self._end = max(0, self.left - budget)
        _, logs = min(self.tried[before:], key=lambda pair: pair[0])
        with suppress(_Spent):
            theta = self.space.theta(self.space.levels(logs))
            minimize(self.loss, theta, jac=True, method="BFGS", options={"gtol": 1e-7})

    def _spend(self, grids: int) -> None:
        if self.left - grids < self._end:
            raise _Spent
        self.left -= grids

    def _flat(self, outputs: Tensor) -> Tensor:
        """Residuals whose squares add up to the loss, shape (grids, residuals)."""
        residuals = self.sample.residuals(outputs)
        return (residuals / math.sqrt(residuals.shape[1])).flatten(1)

    def residuals(self, theta: Vector) -> Vector:
        """The residuals of a grid; 1e6 for each that is not finite."""
        self._spend(1)
        logs, _ = self.space.logs(theta)
        (flat,) = self._flat(self.sample.runs.outputs([self.space.levels(logs)]))
        flat = flat.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6).clamp(-1e6, 1e6)
        self.tried.append((float(flat.square().sum()), logs))
        numbers: Vector = flat.numpy()
        return numbers

    def loss(self, theta: Vector) -> tuple[float, Vector]:
        """The loss of a grid, and its derivatives by θ."""
        logs, rates = self.space.logs(theta)
        self._spend(1 + len(logs))
        moved = [self.space.levels(logs - step) for step in self.change * np.eye(len(logs))]
        outputs = self.sample.runs.variations(self.space.levels(logs), moved, -self.change)
        losses = self.sample.of_outputs(outputs).mean(1).nan_to_num(nan=1e6, posinf=1e6)
        self.polished.append((float(losses[0]), logs))
        slopes: Vector = ((losses[0] - losses[1:]) / self.change).numpy()
        return float(losses[0]), slopes @ rates

    def jacobian(self, theta: Vector) -> Vector:
        """The derivatives of the residuals by θ, from one batch of runs."""
        logs, rates = self.space.logs(theta)
        self._spend(len(logs))
        moved = [self.space.levels(logs - step) for step in self.change * np.eye(len(logs))]
        outputs = self.sample.runs.variations(self.space.levels(logs), moved, -self.change)
        flat = self._flat(outputs)
        by_logs = (flat[:1] - flat[1:]).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) / self.change
        jacobian: Vector = by_logs.numpy().T @ rates
        return jacobian


def standard_grids(first: Levels, *, grid: Grid, name: str) -> dict[str, Grid]:
    """The grids that a design must beat, by name: `grid` and others with the same ends.

    These are Karras's grid with ρ = 5; EDM's, with ρ = 7 and a tenth of κ_min; log-uniform; uniform
    and quadratic in time. With final=none they are the grids that end at the same level, with
    Karras's grid with ρ = 7 in place of EDM's.
    """
    plain, kappa = isinstance(first, TruncatedLevels), ratios(first)
    high, low = min(kappa[0], MOST_NOISE), kappa[-1]
    grids: dict[str, Grid] = {
        name: grid,
        "karras": partial(karras, noise_min=low, noise_max=high, rho=5.0),
    }
    if plain:
        grids["karras rho=7"] = partial(karras, noise_min=low, noise_max=high, rho=7.0)
    else:
        grids["edm"] = partial(karras, noise_min=low / 10, noise_max=high, rho=7.0)
    grids["log_snr"] = partial(log_snr, noise_min=low, noise_max=high)
    if not plain:
        t_max = float(first.t[0])
        grids["uniform"] = partial(uniform, t_max=t_max)
        grids["quadratic"] = partial(polynomial, power=2.0, t_max=t_max)
    return grids


def design(
    sampler: Sampler,
    steps: int,
    denoiser: Denoiser,
    start: Start,
    dataset: Dataset,
    grid: Grid,
    *,
    name: str = "grid",
    criterion: str = "paired",
    seed: int = 0,
    budget: int | None = None,
    paths: int | None = None,
    choice: int | None = None,
    held_out: int = HELD_OUT,
    final: str = "denoise",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    targets: Targets | None = None,
) -> Design:
    """The levels that are best for a sampler at a number of steps.

    Args:
        sampler: the sampler; see `why_not_designed`.
        steps: the number of steps.
        denoiser: the denoiser of the runs, which has the path.
        start: the law of the first state.
        dataset: the law of the data.
        grid: a standard grid; designed levels begin, and with final=none end, at its levels.
        criterion: one of `CRITERIA`.
        budget: the largest number of candidate grids; None is `usual_budget(steps, paths)`.
        paths: the number of training starts; None is that of `usual_starts`.
        choice: the number of starts for the choice among candidates; None as for paths.
        held_out: the number of held-out starts.
        final: the end of a run: denoise or none.
        targets: converged runs of other designs for the same denoiser, start and seed.

    Raises:
        InvalidSetting: nothing can be designed here, or the converged run does not converge.
    """
    require(criterion in CRITERIA, "criterion", criterion, f"one of {', '.join(CRITERIA)}")
    usual = usual_starts(denoiser, dataset)
    paths, choice = (
        n if own is None else own for own, n in zip((paths, choice), usual, strict=True)
    )
    budget = usual_budget(steps, paths) if budget is None else budget
    for key, number, least in (
        ("budget", budget, 10),
        ("paths", paths, 8),
        ("choice", choice, 8),
        ("held_out", held_out, 100),
    ):
        require(number >= least, key, number, f"at least {least}")
    require(steps >= LEAST_STEPS, "steps", steps, f"at least {LEAST_STEPS}: {NO_FREE_LEVEL}")
    reason = why_not_designed(sampler)
    if reason is not None:
        raise InvalidSetting("sampler", type(sampler).__name__, reason)
    ending: Grid = Truncated(grid) if final == "none" else grid
    schedule, measure = denoiser.schedule, CRITERIA[criterion]
    first = ending(schedule, steps)
    problem = Problem(
        sampler, denoiser, dataset, start, first, seed, dtype, device, targets or Targets()
    )
    reason = sampler.why_incompatible(denoiser, first) or measure.why_incompatible(problem)
    if reason is not None:
        raise InvalidSetting("criterion", criterion, f"another one, or another sampler: {reason}")
    standards = {
        key: levels
        for key, one in standard_grids(ending(schedule, steps), grid=grid, name=name).items()
        if (levels := _on(one, schedule, steps, final)) is not None
    }
    training = measure.sample(problem, "training", paths)
    space = Space(schedule, first)
    descent = Descent(space, training, budget, _change_of(denoiser))
    best = _descended(descent, [*standards.values(), *_more(space, first)])
    chosen = training if measure.exact else measure.sample(problem, "choice", choice)
    loss, levels, standard = _chosen(chosen, space, best, standards)
    held = training if measure.exact else measure.sample(problem, "held-out", held_out)
    own, other = held.losses([levels, standards[standard]])
    found = Value(DESIGNED, levels, own, measure.value(float(own.mean())))
    against = Value(standard, standards[standard], other, measure.value(float(other.mean())))
    gain = gain_of(found, against, measure, seed)
    better = gain.better
    samples = {id(one): one for one in (training, chosen, held)}.values()
    return Design(
        grid=DESIGNED if better else standard,
        levels=levels if better else standards[standard],
        criterion=criterion,
        training=measure.value(loss),
        designed=found,
        standard=against,
        gain=gain,
        candidates=sum(sample.runs.grids for sample in samples),
        evaluations=sum(sample.evaluations for sample in samples),
    )


def usual_budget(steps: int, paths: int = PATHS) -> int:
    """The number of candidate grids of a design for N steps, which has N − 1 free levels."""
    if paths >= _ON_MIXTURES:
        return min(_FIRST + _FOR_LEVEL_OF_MANY * (steps - 1), _MOST_OF_MANY)
    return min(_FIRST + _FOR_LEVEL * (steps - 1), _MOST)


def usual_starts(denoiser: Denoiser, dataset: Dataset) -> tuple[int, int]:
    """The numbers of training starts, and of starts for the choice among candidates."""
    few = isinstance(dataset, GaussianMixture) and len(dataset.weights) * dataset.dim <= _FEW
    exact = _change_of(denoiser) == _CHANGE[torch.float64]
    return (_ON_MIXTURES, _ON_MIXTURES) if few and exact else (PATHS, CHOICE)


def why_not_designed(sampler: Sampler) -> str | None:
    """Why a sampler has no levels to design, in one line; None if it has some."""
    if sampler.holds or sampler.brings_levels:
        return "one that runs on the levels of a grid: this one has its own"
    if sampler.adaptive:
        return "one with fixed steps: this one chooses its own"
    return None


def gain_of(designed: Value, standard: Value, criterion: Criterion, seed: int = 0) -> Gain:
    """The gain of one grid over another, with the 95 % interval of a bootstrap over the starts."""
    ratio = _ratio(standard.value, designed.value)
    count = len(designed.losses)
    if criterion.exact or not math.isfinite(ratio):
        return Gain(ratio, ratio, ratio)
    random = generator("design", "bootstrap", seed)
    own, other = designed.losses.numpy(), standard.losses.numpy()
    ratios = []
    for _ in range(_RESAMPLED // 100):  # 100 sets at a time
        counts = random.multinomial(count, np.full(count, 1 / count), size=100)
        means = zip(counts @ other / count, counts @ own / count, strict=True)
        ratios += [_ratio(*map(criterion.value, pair)) for pair in means]
    lower, upper = np.quantile(ratios, (0.025, 0.975))
    return Gain(ratio, float(lower), float(upper))


def _ratio(one: float, other: float) -> float:
    if not math.isfinite(other):
        return 0.0
    return one / other if other > 0 else math.inf


def _on(grid: Grid, schedule: NoiseSchedule, steps: int, final: str) -> Levels | None:
    """The levels of a grid with the end of the runs; None if the path does not have them."""
    try:
        levels = (Truncated(grid) if final == "none" else grid)(schedule, steps)
    except InvalidSetting:
        return None
    return levels if levels.steps == steps and levels.moving else None


def _more(space: Space, first: Levels) -> list[Levels]:
    """More first grids: Karras's with small ρ and larger κ_min, which suit few steps."""
    kappa = ratios(first)
    high, low = min(kappa[0], MOST_NOISE), kappa[-1]
    more = []
    for rho in (1.0, 2.0, 3.0):
        for factor in (1.0, 4.0, 16.0):
            if low * factor < high / 2:
                ramp = np.linspace(high ** (1 / rho), (factor * low) ** (1 / rho), space.free + 1)
                more.append(space.levels(rho * np.log(ramp[1:])))
    return more


def _descended(descent: Descent, grids: Sequence[Levels]) -> list[tuple[float, Vector]]:
    """The best grids of descents that start from the best of the first grids."""
    space = descent.space
    thetas = [space.theta(levels) for levels in grids]
    inside = [space.levels(space.logs(theta)[0]) for theta in thetas]
    losses = descent.sample.losses(inside).mean(1)
    order = losses.argsort().tolist()
    share = descent.left // _DESCENTS
    for place in order[:_DESCENTS]:
        descent.from_grid(thetas[place], share)
    ways = (descent.tried, descent.polished)
    return [one for way in ways for one in _apart(way)]


def _apart(tried: list[tuple[float, Vector]]) -> list[tuple[float, Vector]]:
    """The best grid, and others with clearly larger losses, which may overfit less."""
    chosen: list[tuple[float, Vector]] = []
    for one in sorted(tried, key=lambda pair: pair[0]):
        if not chosen or one[0] > chosen[-1][0] + _APART * abs(chosen[-1][0]):
            chosen.append(one)
    return chosen[:_COMPARED]


def _chosen(
    sample: Sample, space: Space, tried: list[tuple[float, Vector]], standards: Mapping[str, Levels]
) -> tuple[float, Levels, str]:
    """(training loss, levels) of the best candidate on the choice starts, and the best standard."""
    candidates = [space.levels(logs) for _, logs in tried]
    losses = sample.losses([*candidates, *standards.values()]).mean(1)
    place = int(losses[: len(tried)].argmin())
    standard = list(standards)[int(losses[len(tried) :].argmin())]
    return tried[place][0], candidates[place], standard


def _change_of(model: Denoiser) -> float:
    """The change of ln κ in a finite difference; networks compute in single precision."""
    single = any(p.dtype != torch.float64 for p in model.parameters())
    return _CHANGE[torch.float32 if single else torch.float64]
