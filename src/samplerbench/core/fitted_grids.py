"""Grids that are computed from a denoiser: recipes, and the tables that they become.

A `FittedGrid` is a recipe, a frozen dataclass of plain settings. Its `fit` evaluates a denoiser at
states of the path and returns a table of numbers, which makes the levels for every N like any other
grid. The identity of a table is its numbers. All recipes have the range of κ = σ/α and the last
step, from κ_min to the data, in common; they differ in where the other levels lie. In the
coordinates x̄ = x/α the path is x̄ = x₀ + κ·ε on every schedule, and the probability-flow ODE is
dx̄/dκ = (x̄ − x̂₀)/κ.

    EqualCost      N levels at equal distances of a cumulative cost C(κ)
    CheapestPath   N of M levels whose steps have the least total cost, by dynamic programming

The random states of a fit have keys of their own, which no start, floor or training uses. They
depend on the recipe's seed, not on that of the job: jobs with other seeds run on the same levels.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import Grid, Level, Levels, LogLinear, at_noise, log_snr, noise_range
from samplerbench.core.models import Denoiser, Score
from samplerbench.core.noise import generator
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Law, sobol_points
from samplerbench.errors import require

#: The largest number of values that a fit keeps in memory for one block of states.
_MOST_VALUES = 2**23
#: The largest number of columns of a Sobol sequence here; more are too slow.
MOST_SOBOL = 1000
#: The largest number of rounds of a fixed-point iteration.
MOST_ROUNDS = 1000


class Fitting:
    """The denoiser and the data that a grid is fitted to; it counts the evaluations.

    Args:
        law: the law of the data.
        spectrum: gives the eigenvalues of the data's covariance, shape (dim,).

    Attributes:
        evaluations: the evaluations of the denoiser so far; a call for n states counts n times.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        law: Law,
        spectrum: Callable[[], Tensor],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.denoiser, self.law, self.spectrum = denoiser, law, spectrum
        self.dtype, self.device = dtype, device
        self.evaluations = 0

    @property
    def schedule(self) -> NoiseSchedule:
        """The path."""
        return self.denoiser.schedule

    def clean(self, count: int, seed: int) -> Tensor:
        """x₀, shape (count, dim): draws of the data that only fits use."""
        x0 = self.law.sample(count, generator("grid", seed, "x0"))
        return x0.to(self.device, self.dtype)

    def noise(self, count: int, seed: int, *key: int | str) -> Tensor:
        """ε, shape (count, dim): standard normal numbers that only fits use."""
        eps = generator("grid", seed, "eps", *key).standard_normal((count, self.law.dim))
        return torch.from_numpy(eps).to(self.device, self.dtype)

    def pairs(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """x₀ and ε, shape (count, dim) each; from Sobol points if the law is a map of the cube."""
        columns, dim = self.law.uniform_dim, self.law.dim
        if columns is None or columns + dim > MOST_SOBOL:
            return self.clean(count, seed), self.noise(count, seed)
        u = sobol_points(count, columns + dim, 0, "grid", seed)
        x0, eps = self.law.from_uniforms(u[:, :columns]), torch.special.ndtri(u[:, columns:])
        return x0.to(self.device, self.dtype), eps.to(self.device, self.dtype)

    def denoised(self, x: Tensor, ratio: float) -> Tensor:
        """x̂₀ of states x̄ = x/α at κ, shape (n, dim)."""
        (time,) = self.schedule.time_at(torch.tensor([ratio], dtype=torch.float64)).clamp(0, 1)
        alpha, sigma = self.schedule(time)
        level = Level(float(time), float(alpha), float(sigma))
        self.evaluations += len(x)
        return self.denoiser.denoiser(level.alpha * x, level)

    def score(self, x: Tensor, ratio: float) -> Tensor:
        """∇ ln of the density of x̄ at κ, (x̂₀ − x̄)/κ², shape (n, dim)."""
        return (self.denoised(x, ratio) - x) / ratio**2

    def blocks(self, count: int, kept: int) -> Iterator[slice]:
        """Blocks of the rows of `count` states, if `kept` states of each row are in memory."""
        size = max(1, _MOST_VALUES // (kept * self.law.dim))
        for first in range(0, count, size):
            yield slice(first, min(first + size, count))


@dataclass(frozen=True, kw_only=True)
class FittedGrid(ABC):
    """A recipe of a grid.

    Before the fit it is a grid too, log-uniform with the same range, so that a job can be checked
    before it trains its denoiser. No sampler runs on those levels.

    Args:
        denoiser: the name of a denoiser of the job, or oracle. None: the oracle if the data have
            one, otherwise the first denoiser of the job.
        noise_min: κ_min, as in `grids.karras`.
        noise_max: κ_max, as in `grids.karras`.
        seed: the seed of the random states.
    """

    #: Whether the fit draws data.
    draws: ClassVar[bool] = True

    denoiser: str | None = None
    noise_min: float = 0.02
    noise_max: float | None = None
    seed: int = 0

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        return log_snr(schedule, steps, noise_min=self.noise_min, noise_max=self.noise_max)

    @abstractmethod
    def fit(self, to: Fitting) -> Grid:
        """The grid: one of the tables of this module, or another object that `identity` describes.

        Args:
            to: the denoiser, its path and the law of the data.

        Raises:
            InvalidSetting: the path does not have this range, or the law lacks what the fit needs.
        """

    def why_incompatible(self, denoiser: Score, law: Law) -> str | None:
        """Why the recipe cannot be fitted to this model of this law; None if it can."""
        if not isinstance(denoiser, Denoiser):
            return (
                "it is fitted to a denoiser of all noise levels, and this is a score of one level"
            )
        if self.draws and not law.can_be_drawn:
            return "it is fitted to noised data, but there are no data"
        return None

    def ratios(self, schedule: NoiseSchedule, count: int) -> Tensor:
        """κ from κ_max to κ_min with equally spaced logarithms, shape (count,), float64."""
        low, high = noise_range(schedule, self.noise_min, self.noise_max, count)
        return torch.linspace(math.log(high), math.log(low), count, dtype=torch.float64).exp()


@dataclass(frozen=True, eq=False)
class EqualCost:
    """N levels at equal distances of a cumulative cost.

    Between the rows ln κ is a monotone cubic function of the cost. A millionth of the cost is
    spread evenly over ln κ, so that there is one κ for each cost.
    """

    noise: Tensor  # κ, decreasing, shape (M,), float64
    cost: Tensor  # the cumulative cost from κ_max, increasing from 0, same shape

    def __post_init__(self) -> None:
        _require_falling(self.noise)
        good = self.cost.shape == self.noise.shape and bool(self.cost.isfinite().all())
        good = good and bool((self.cost.diff() >= 0).all()) and float(self.cost[-1]) > 0
        found = f"{len(self.cost)} numbers up to {float(self.cost.max()):g}"
        require(good, "cost", found, "finite, not falling, above 0, and one for each level")

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        require(steps >= 1, "steps", steps, "at least 1")
        return _levels(schedule, self.at(steps), self.noise)

    def at(self, count: int) -> Tensor:
        """κ of `count` levels, shape (count,); a single level is at κ_max."""
        from scipy.interpolate import PchipInterpolator  # slow to import

        logs = self.noise.log()
        evenly = (logs[0] - logs) / (logs[0] - logs[-1])
        cost = (self.cost / self.cost[-1] + 1e-6 * evenly) / (1 + 1e-6)
        wanted = torch.linspace(0, 1, count, dtype=torch.float64)
        inverse = PchipInterpolator(cost.numpy(), logs.numpy())
        return torch.from_numpy(np.exp(inverse(wanted.numpy())))


@dataclass(frozen=True, eq=False)
class CheapestPath:
    """N of M levels, the first and the last among them, whose steps have the least total cost.

    Dynamic programming finds the best choice: V_k(j) = min_i V_{k−1}(i) + c(i, j). At most M/2
    levels are chosen; for larger N the logarithms of the largest choice are interpolated.
    """

    noise: Tensor  # κ, decreasing, shape (M,), float64
    # c(i, j) of the step from level i to level j > i, shape (M, M); other entries are 0
    cost: Tensor

    def __post_init__(self) -> None:
        _require_falling(self.noise)
        count = len(self.noise)
        good = tuple(self.cost.shape) == (count, count) and bool(self.cost.isfinite().all())
        require(good, "cost", tuple(self.cost.shape), f"finite, of shape ({count}, {count})")

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        require(steps >= 1, "steps", steps, "at least 1")
        most = max(2, (len(self.noise) + 1) // 2)
        ratios = self.noise[self.chosen(min(steps, most))]
        if steps > most:
            return LogLinear(tuple(ratios.tolist()))(schedule, steps)
        return _levels(schedule, ratios, self.noise)

    def chosen(self, count: int) -> list[int]:
        """The indices of the best `count` levels; a single level is the first one."""
        possible = torch.ones_like(self.cost, dtype=torch.bool).triu(1)
        cost = self.cost.masked_fill(~possible, math.inf)
        least = torch.full_like(self.noise, math.inf)
        least[0] = 0.0
        before = []
        for _ in range(count - 1):
            least, origin = (least[:, None] + cost).min(0)
            before.append(origin)
        place = len(self.noise) - 1 if count > 1 else 0
        places = [place]
        for origin in reversed(before):
            place = int(origin[place])
            places.append(place)
        return places[::-1]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted grid with its origin."""

    grid: Grid  # the result of the fit
    recipe: FittedGrid  # the recipe that was fitted
    to: str  # identity of the denoiser without seeds, as in `bench.cell.Origin.recipe`

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Levels:
        return self.grid(schedule, steps)


@dataclass(frozen=True, kw_only=True)
class Entropic(FittedGrid):
    """Equal steps of the conditional entropy of the data.

    With ε²(κ) = E‖x₀ − x̂₀‖², the entropy H(x₀ | x_κ) has the rate ε²/κ³; `rescaled` uses ε²/κ²,
    which is the tangent grid on N(0, c²·I). Stancevic, Handke, Ambrogioni, "Entropic time
    schedulers for generative diffusion models", 2025 (arXiv 2504.13612).

    Args:
        rescaled: whether the rate is ε²/κ² instead of ε²/κ³.
        states: the number of states at each level.
        points: M, the number of levels of the table.
    """

    rescaled: bool = False
    states: int = 1024
    points: int = 64

    def __post_init__(self) -> None:
        _require_sizes(self.states, self.points)

    def fit(self, to: Fitting) -> EqualCost:
        ratios = self.ratios(to.schedule, self.points)
        x0, eps = to.pairs(self.states, self.seed)
        errors = torch.zeros_like(ratios)
        for rows in to.blocks(self.states, 1):
            for place, ratio in enumerate(ratios.tolist()):
                error = x0[rows] - to.denoised(x0[rows] + ratio * eps[rows], ratio)
                errors[place] += error.double().square().sum().cpu() / self.states
        # a rate per ln κ has one power of κ less
        return EqualCost(ratios, _integral(errors / ratios ** (1 if self.rescaled else 2), ratios))


@dataclass(frozen=True, kw_only=True)
class ScoreOptimal(FittedGrid):
    """Equal steps of the root of the cost of a change of the score.

    A step from κ to κ' < κ costs L = κ²·E‖s_κ'(x̄) − s_κ(x̄)‖², x̄ ~ q_κ; the levels are at equal
    distances of Σ√L. L is measured between neighbours of a table of M levels, which are moved to
    equal distances and measured again. On N(0, c²·I) the density of the levels is proportional to
    κ²/(c² + κ²)^{3/2}. Williams, Campbell, Doucet, Syed, "Score-optimal diffusion schedules",
    NeurIPS 2024 (arXiv 2412.07877), with the score of x̄, so that the levels are the same on every
    path.

    Args:
        states: the number of states at each level.
        points: M, the number of levels of the table.
        rounds: how often the levels of the table are moved and L is measured again.
    """

    states: int = 256
    points: int = 64
    rounds: int = 2

    def __post_init__(self) -> None:
        _require_sizes(self.states, self.points)
        require(0 <= self.rounds <= 100, "rounds", self.rounds, "at least 0 and at most 100")

    def fit(self, to: Fitting) -> EqualCost:
        ratios = self.ratios(to.schedule, self.points)
        x0, eps = to.pairs(self.states, self.seed)
        table = self._measured(to, ratios, x0, eps)
        for _ in range(self.rounds):
            table = self._measured(to, table.at(self.points), x0, eps)
        return table

    def _measured(self, to: Fitting, ratios: Tensor, x0: Tensor, eps: Tensor) -> EqualCost:
        costs = ratios.new_zeros(len(ratios) - 1)
        kappas = ratios.tolist()
        for rows in to.blocks(self.states, 1):
            for place, (ratio, lower) in enumerate(pairwise(kappas)):
                x = x0[rows] + ratio * eps[rows]
                change = to.score(x, lower) - to.score(x, ratio)
                costs[place] += change.double().square().sum().cpu() / self.states
        return EqualCost(ratios, _from_zero(ratios[:-1] * costs.sqrt()))


@dataclass(frozen=True, kw_only=True)
class AlignYourSteps(FittedGrid):
    """The levels with the least KLUB, a bound of KL(data ‖ samples) for SDE solvers of order 1.

        KLUB = ½·Σ_i ∫ κ⁻³·E‖x̂₀(x̄_κ) − x̂₀(x̄_{κ_i})‖² dκ   from κ_{i+1} to κ_i ,

    with x̄_{κ_i} = x̄_κ + √(κ_i² − κ²)·ε. For the exact denoiser the expectation is ε²(κ_i) − ε²(κ),
    with ε² as in `Entropic`. Sabour, Fidler, Kreis, "Align your steps", ICML 2024 (arXiv
    2404.14507). The paper searches one level at a time; here dynamic programming finds the best
    choice among M levels.

    Args:
        states: the number of paths.
        points: M, the number of levels of the table.
    """

    states: int = 512
    points: int = 128

    def __post_init__(self) -> None:
        _require_sizes(self.states, self.points)

    def fit(self, to: Fitting) -> CheapestPath:
        ratios = self.ratios(to.schedule, self.points)
        x0 = to.clean(self.states, self.seed)
        products = torch.zeros(len(ratios), len(ratios), dtype=torch.float64)
        for rows in to.blocks(self.states, len(ratios)):
            x, before = x0[rows], 0.0
            found: list[Tensor] = []
            for ratio in ratios.flip(0).tolist():  # a Brownian path of each state, in the time κ²
                eps = to.noise(len(x), self.seed, rows.start, len(found))
                x, before = x + math.sqrt(ratio**2 - before**2) * eps, ratio
                found.append(to.denoised(x, ratio).double().flatten())
            kept = torch.stack(found[::-1])
            products += (kept @ kept.T).cpu() / self.states
        squares = products.diagonal()
        change = (squares[:, None] + squares[None, :] - 2 * products).clamp(min=0)
        # row i: the integral from level i down, by ln κ
        rate = change / ratios.square()
        width = -ratios.log().diff()
        parts = (rate[:, 1:] + rate[:, :-1]) / 2 * width
        cost = torch.nn.functional.pad(parts.cumsum(1), (1, 0)) / 2
        return CheapestPath(ratios, (cost - cost.diagonal()[:, None]).triu(1))


@dataclass(frozen=True, kw_only=True)
class GITS(FittedGrid):
    """The levels whose Euler steps, all begun on a fine trajectory, deviate from it least.

    Euler's method with M levels gives the states x̄_i of the fine trajectory, from exact starts. A
    step from level i to level j costs the root mean square of ‖x̄_i + (κ_j − κ_i)·d_i − x̄_j‖, with
    d_i the slope at x̄_i; dynamic programming finds the N levels with the least sum. Chen, Zhou,
    Wang, Shen, Lyu, "On the trajectory regularity of ODE-based diffusion sampling", ICML 2024
    (arXiv 2405.11326), with equal weights of all steps.

    Args:
        states: the number of trajectories.
        points: M, on a Karras grid with ρ = 7.
    """

    states: int = 256
    points: int = 61

    def __post_init__(self) -> None:
        _require_sizes(self.states, self.points)

    def fit(self, to: Fitting) -> CheapestPath:
        low, high = noise_range(to.schedule, self.noise_min, self.noise_max, self.points)
        ramp = torch.linspace(high ** (1 / 7), low ** (1 / 7), self.points, dtype=torch.float64)
        ratios = ramp**7
        x0, eps = to.pairs(self.states, self.seed)
        start = x0 + high * eps
        squares = torch.zeros(self.points, self.points, dtype=torch.float64)
        for rows in to.blocks(self.states, 2 * self.points):
            states, slopes = [start[rows]], []
            for ratio, lower in pairwise(ratios.tolist()):
                slopes.append((states[-1] - to.denoised(states[-1], ratio)) / ratio)
                states.append(states[-1] + (lower - ratio) * slopes[-1])
            path = torch.stack(states)
            for place, slope in enumerate(slopes):
                steps = (ratios - ratios[place]).to(path)[place + 1 :, None, None]
                miss = path[place] + steps * slope - path[place + 1 :]
                squares[place, place + 1 :] += miss.double().square().sum((1, 2)).cpu()
        return CheapestPath(ratios, (squares / self.states).sqrt())


@dataclass(frozen=True, kw_only=True)
class Spectral(FittedGrid):
    """The best levels for Euler's method on a Gaussian with a whole spectrum, for many steps.

    For an eigenvalue λ, and levels with the density ρ, Euler's method makes an error in the log of
    the standard deviation

        e(λ) = 1/(2N) · ∫ g_λ/ρ dκ,  g_λ = λ/(λ + κ²)² .

    The density here minimises Σ w·e², with w = 1 for KL and w = λ for W₂²; these sums are the
    distances to leading order. It satisfies ρ² ∝ Σ w·e·g, which is iterated. For one eigenvalue it
    is the tangent grid. Sun, Poor, Zhang, "An elementary approach to scheduling in generative
    diffusion models", 2026 (arXiv 2601.13602), pose the problem for KL; this solution is ours.

    Args:
        criterion: kl or w2.
        variances: the eigenvalues λ; None for those of the covariance of the data.
        points: M, the number of levels of the table.
    """

    draws: ClassVar[bool] = False

    criterion: str = "kl"
    variances: Sequence[float] | None = None
    points: int = 400

    def __post_init__(self) -> None:
        _require_sizes(1, self.points)
        require(self.criterion in ("kl", "w2"), "criterion", self.criterion, "kl or w2")
        given = [] if self.variances is None else list(self.variances)
        good = all(0 <= value < math.inf for value in given)
        good = good and (self.variances is None or max(given, default=0) > 0)
        allowed = "null, or numbers of at least 0 that are not all 0"
        require(good, "variances", self.variances, allowed)

    def why_incompatible(self, denoiser: Score, law: Law) -> str | None:
        if self.variances is None and not law.can_be_drawn:
            return "it needs the covariance of the data, but there are no data; see grid.variances"
        return super().why_incompatible(denoiser, law)

    def fit(self, to: Fitting) -> EqualCost:
        ratios = self.ratios(to.schedule, self.points)
        given = self.variances
        values = to.spectrum() if given is None else torch.tensor(given, dtype=torch.float64)
        values = values[values > 0].double().cpu()  # an eigenvalue of 0 has no error
        weights = torch.ones_like(values) if self.criterion == "kl" else values / values.max()
        squares = ratios.square()
        # in the variable ln κ the density is κ·ρ, and g gets a factor κ²
        bumps = squares * values[:, None] / (values[:, None] + squares).square()
        cells = torch.ones_like(ratios)
        cells[[0, -1]] = 0.5  # trapezoidal rule
        density = (weights @ bumps).sqrt()
        for _ in range(MOST_ROUNDS):
            density = density / (density * cells).sum()
            error = (bumps * cells / density).sum(1)
            wanted = ((weights * error) @ bumps).sqrt()
            wanted = wanted / (wanted * cells).sum()
            if float((wanted / density - 1).abs().max()) < 1e-10:
                break
            density = (density * wanted).sqrt()
        return EqualCost(ratios, _integral(density, ratios))


def settings_of(grid: Grid) -> Mapping[str, Any]:
    """The settings of a grid: their names, and their values or defaults."""
    recipe = grid.recipe if isinstance(grid, Fitted) else grid
    if isinstance(recipe, FittedGrid):
        return {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    found = signature(recipe).parameters
    return {name: one.default for name, one in found.items() if name not in ("schedule", "steps")}


#: The tables that a file can contain, by name.
TABLES: Mapping[str, type[Any]] = {table.__name__: table for table in (EqualCost, CheapestPath)}


def to_bytes(grid: Grid) -> bytes:
    """The content of a file with a fitted table; the numbers keep all their bits."""
    name = type(grid).__name__
    assert TABLES.get(name) is type(grid), f"{name} is not one of TABLES"
    tensors = {field.name: getattr(grid, field.name).tolist() for field in fields(TABLES[name])}
    return json.dumps({"table": name, **tensors}).encode()


def from_bytes(content: bytes) -> Grid:
    """The grid of a file that `to_bytes` made."""
    record = json.loads(content)
    table = TABLES.get(record.pop("table", "")) if isinstance(record, dict) else None
    if table is None or {field.name for field in fields(table)} != {*record}:
        raise ValueError("it is not the table of a grid")
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in record.items()}
    grid: Grid = table(**tensors)
    return grid


def _require_sizes(states: int, points: int) -> None:
    require(states >= 1, "states", states, "at least 1")
    require(3 <= points <= 1000, "points", points, "at least 3 and at most 1000")


def _require_falling(noise: Tensor) -> None:
    good = noise.ndim == 1 and len(noise) > 1 and noise.dtype == torch.float64
    good = good and bool((noise > 0).all() and noise.isfinite().all() and (noise.diff() < 0).all())
    allowed = "at least two decreasing, positive numbers, float64"
    require(good, "noise", f"{tuple(noise.shape)}", allowed)


def _integral(rate: Tensor, ratios: Tensor) -> Tensor:
    """∫ rate d(−ln κ) from κ_max, cumulative, by the trapezoidal rule."""
    steps = -ratios.log().diff()
    return _from_zero((rate[1:] + rate[:-1]) / 2 * steps)


def _from_zero(parts: Tensor) -> Tensor:
    """The cumulative sums, from 0."""
    return torch.cat([parts.new_zeros(1), parts.cumsum(0)])


def _levels(schedule: NoiseSchedule, ratios: Tensor, table: Tensor) -> Levels:
    """The levels of a path at these κ, if it has the range of the table."""
    least, largest = schedule.noise_range
    fits = least * (1 - 1e-9) <= float(table[-1]) and float(table[0]) <= largest * (1 + 1e-9)
    span = f"{table[0]:.6g} to {table[-1]:.6g}"
    allowed = f"one with the range of the fitted grid, σ/α from {span}"
    require(fits, "schedule", schedule, allowed)
    return at_noise(schedule, ratios)
