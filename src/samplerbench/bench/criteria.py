"""The criteria for which grids are designed: sums of squares over the starts of runs.

The *loss* of a grid is the mean over starts of ‖r_i‖², and its value is

    paired     √loss,  r = (x − x_∞)/sd: the distance to the converged run from the same start
    kl         loss,   ‖r‖² = ρ − 1 − ln ρ ≥ 0, ρ = p/q at the output: KL(q ‖ p) in nats
    spectrum   √loss,  r = (√λ' − √λ, m' − m) of each direction of a Gaussian: W₂, exact

sd is the standard deviation of the data: the square root of the mean variance of a coordinate.
E_q[ρ] = 1, so the mean of −ln ρ + c·(ρ − 1) is the same for every c: a descent uses c = 1, and a
measured value the c with the smallest variance (`metrics.kl_law`). For `spectrum` the start is the
Gaussian law itself, so nothing is drawn.

A converged run is the exact flow, by the method of `exact_flow` on a log-uniform grid. The number
of steps is doubled for each start until its output changes by at most `SETTLED`. Most starts need
two runs; a few near a border between modes need more. It is an error if at `MOST_STEPS` steps the
root mean square of the changes is above `AGREE`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.bench.coefficients import NotLinear, Runs, recorded
from samplerbench.bench.densities import log_density_of_start
from samplerbench.bench.exact_flow import end_of_flow, graded
from samplerbench.bench.spectra import why_not_gaussian
from samplerbench.core.grids import MOST_NOISE, Levels, TruncatedLevels, to_data
from samplerbench.core.models import Denoiser, Density
from samplerbench.core.starts import Start, plain_start
from samplerbench.core.tangents import jacobian, log_volume, with_tangents
from samplerbench.datasets.base import Dataset, log_density_of, why_no_log_density
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.base import Sampler

#: The largest root mean square change of a converged run if its steps are doubled, in units of sd.
AGREE = 1e-3
#: A start whose output changes by at most this much has enough steps, in units of sd.
SETTLED = 3e-4
#: The first and the largest number of steps of a converged run.
FIRST_STEPS, MOST_STEPS = 40, 2560
#: A converged run ends a tenth below the last level of the grid, or below this, in units of sd.
_LARGE = 0.05
#: Added to the loss where the determinant is not positive: the map is not one-to-one there.
_TURNED = 10.0


class Targets:
    """Converged runs, so that samplers on one path share them."""

    def __init__(self) -> None:
        self._known: dict[object, Tensor] = {}

    def get(self, key: object, compute: Callable[[], tuple[Tensor, int]]) -> tuple[Tensor, int]:
        """The outputs of a key, and the evaluations that this call has spent."""
        if key in self._known:
            return self._known[key], 0
        self._known[key], spent = compute()
        return self._known[key], spent


@dataclass(frozen=True, eq=False)
class Problem:
    """A sampler on a path that begins at one level, for a denoiser and a law."""

    sampler: Sampler
    model: Denoiser  # the denoiser, which has the path
    dataset: Dataset  # the law of the data
    start: Start  # the law of the first state
    # an example of levels: all grids share its first level, and with final=none its last one
    levels: Levels
    seed: int = 0  # of the starts
    dtype: torch.dtype = torch.float64  # of the states
    device: torch.device | str = "cpu"  # of the states
    # converged runs for the same denoiser, data, start and seed
    targets: Targets = field(default_factory=Targets)

    @property
    def plain(self) -> bool:
        """Whether runs end at σ > 0."""
        return isinstance(self.levels, TruncatedLevels)

    def draw(self, purpose: str, count: int) -> Tensor:
        """First states, shape (count, dim); each purpose has other random numbers."""
        key = (purpose, self.seed, 0)
        x = self.start.draw(self.dataset, count, self.levels.rows[0], key)
        return x.to(self.device, self.dtype)

    @property
    def scale(self) -> float:
        """The data's standard deviation, the unit of paired distances; 1 if it is not known."""
        return self.dataset.deviation


@dataclass(frozen=True, eq=False)
class Sample:
    """Runs from one set of starts, and the residuals of their outputs."""

    runs: Runs  # of any grids
    # of outputs (grids, n, dim); shape (grids, starts, parts)
    residuals: Callable[[Tensor], Tensor]
    spent: int = 0  # evaluations before the first run, for the converged one
    # the losses of outputs, shape (grids, starts), if they can be estimated more exactly than by
    # the squares of the residuals
    measured: Callable[[Tensor], Tensor] | None = None

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser so far; a call for n states counts n times."""
        return self.spent + self.runs.evaluations

    def losses(self, grids: list[Levels]) -> Tensor:
        """The losses of every start, (grids, starts), float64; inf where they are not finite."""
        losses = self.of_outputs(self.runs.outputs(grids))
        return losses.nan_to_num(nan=math.inf, posinf=math.inf)

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """The losses of outputs (grids, n, dim), shape (grids, starts)."""
        if self.measured is not None:
            return self.measured(outputs)
        return self.residuals(outputs).square().sum(-1)


def _least_spread(log_ratios: Tensor) -> Tensor:
    """−ln ρ + c·(ρ − 1) with the c of the smallest variance; see `metrics.kl_law`."""
    plain, excess = -log_ratios, log_ratios.expm1()
    centred = excess - excess.mean()
    spread = float(centred.square().sum())
    c = -float((centred * plain).sum()) / spread if 0 < spread < math.inf else 0.0
    return plain + min(max(c, 0.0), 1.0) * excess


def _signed_root(log_ratio: Tensor) -> Tensor:
    """±√(ρ − 1 − ln ρ) with the sign of L = ln ρ; near 0 it is L/√2·√(1 + L/3 + …)."""
    near = log_ratio.square() / 2 * (1 + log_ratio / 3 + log_ratio.square() / 12)
    square = torch.where(log_ratio.abs() < 1e-3, near, log_ratio.expm1() - log_ratio)
    return log_ratio.sign() * square.clamp(min=0).sqrt()


class Criterion(ABC):
    """A measure of a grid."""

    exact: ClassVar[bool] = False  # whether it needs no starts: its value has no interval
    unit: ClassVar[str] = ""  # of the value, for readers

    @abstractmethod
    def why_incompatible(self, problem: Problem) -> str | None:
        """Why grids cannot be measured here, in one line; None if they can."""

    @abstractmethod
    def sample(self, problem: Problem, purpose: str, count: int) -> Sample:
        """Starts for a purpose, and the residuals of runs from them.

        Raises:
            InvalidSetting: the converged run does not converge, or the runs are not linear.
        """

    def value(self, loss: float) -> float:
        """The value, from the mean of the squared residuals."""
        return math.sqrt(loss)


@dataclass(frozen=True)
class Paired(Criterion):
    """Root mean square distance to the converged run from the same starts, in units of sd."""

    unit: ClassVar[str] = "sd"

    def why_incompatible(self, problem: Problem) -> str | None:
        if problem.sampler.stochastic:
            return (
                "its converged run is that of the ODE, and this sampler draws noise: use eta=0 or "
                "a deterministic sampler"
            )
        return problem.start.why_incompatible(problem.dataset)

    def sample(self, problem: Problem, purpose: str, count: int) -> Sample:
        x, scale = problem.draw(purpose, count), problem.scale
        key = (purpose, count, *_ends(problem))
        target, spent = problem.targets.get(key, lambda: converged(problem, x, scale)[:2])
        runs = _runs(problem, x)
        return Sample(runs, lambda out: ((out - target) / scale).double().cpu(), spent)


@dataclass(frozen=True)
class KL(Criterion):
    """KL(q ‖ p), with q the law of the output and p the law of the data."""

    unit: ClassVar[str] = "nats"

    def why_incompatible(self, problem: Problem) -> str | None:
        sampler, data = problem.sampler, problem.dataset
        if sampler.stochastic:
            return "the density of a sampler that draws noise is not known"
        if not sampler.affine:
            return "the density of a sampler that is not linear in states and x̂₀ is not known"
        start = plain_start(problem.start)
        if type(start).log_density is Start.log_density:
            return "the density of the start is not known"
        exact = data.exact_score(problem.model.schedule) if data.known_law else None
        if start.uses_data and not isinstance(exact, Density):
            return "the density of an exact start needs that of the data with noise"
        return why_no_log_density(data) or start.why_incompatible(data)

    def sample(self, problem: Problem, purpose: str, count: int) -> Sample:
        x = problem.draw(purpose, count)
        dim = x.shape[1]
        exact = problem.dataset.exact_score(problem.model.schedule)
        log_start = log_density_of_start(exact, problem.start, problem.levels.rows[0])(x)

        def log_ratios(out: Tensor) -> Tensor:
            """ln ρ, shape (grids, n); lower where the determinant is not positive."""
            batch = out.reshape(len(out), 1 + dim, count, dim)
            states = batch[:, 0].reshape(-1, dim)
            tangents = batch.transpose(0, 1).reshape(1 + dim, -1, dim)
            sign, volume = log_volume(jacobian(tangents))
            log_p = log_density_of(problem.dataset, states)
            terms: Tensor = log_p + volume - _TURNED * (sign <= 0)
            return (terms.reshape(len(out), count) - log_start).double().cpu()

        states = with_tangents(x).reshape(-1, dim)
        runs = _runs(problem, states, tangents=True)
        return Sample(
            runs,
            lambda out: _signed_root(log_ratios(out))[..., None],
            measured=lambda out: torch.stack([_least_spread(one) for one in log_ratios(out)]),
        )

    def value(self, loss: float) -> float:
        return loss


@dataclass(frozen=True)
class Spectrum(Criterion):
    """The exact W₂ between output and data, both Gaussian with independent coordinates."""

    exact: ClassVar[bool] = True
    unit: ClassVar[str] = "W₂"

    def why_incompatible(self, problem: Problem) -> str | None:
        if not isinstance(problem.dataset, GaussianSpectrum):
            return "the law is no Gaussian that is known by its spectrum: see law=gaussian_twin"
        return why_not_gaussian(problem.sampler, problem.model, plain_start(problem.start))

    def sample(self, problem: Problem, purpose: str, count: int) -> Sample:
        data = problem.dataset
        assert isinstance(data, GaussianSpectrum)  # see why_incompatible
        first = problem.levels.rows[0]
        mean, variances = problem.start.moments(data.mean, data.variances, first)
        try:
            draws = recorded(problem.sampler, problem.model.schedule, problem.levels).draws
        except NotLinear as error:
            raise InvalidSetting("sampler", type(problem.sampler).__name__, str(error)) from error
        # the mean, the mean plus one standard deviation, and the mean with one of the draws
        x = mean + torch.zeros(2 + draws, len(mean))
        x[1] += variances.sqrt()
        units = torch.zeros(draws, *x.shape)
        units[range(draws), range(2, 2 + draws)] = 1
        sd = data.variances.sqrt()

        def residuals(out: Tensor) -> Tensor:
            own = out[:, 1:] - out[:, :1]
            parts = [own.square().sum(1).sqrt() - sd, out[:, 0] - data.mean]
            return torch.cat(parts, -1)[:, None]

        x, units = x.double(), units.double()
        given = (lambda _: units) if draws else None
        return Sample(_runs(problem, x, draws=given), residuals)


#: By the names of `grid.criterion`.
CRITERIA: dict[str, Criterion] = {"paired": Paired(), "kl": KL(), "spectrum": Spectrum()}


def _runs(problem: Problem, x: Tensor, **more: object) -> Runs:
    try:
        return Runs(problem.sampler, problem.model, x, problem.levels, **more)  # type: ignore[arg-type]
    except NotLinear as error:
        name = type(problem.sampler).__name__
        raise InvalidSetting("sampler", name, f"one with fixed steps: {error}") from error


@torch.no_grad()
def converged(
    problem: Problem, x: Tensor, scale: float, least: float | None = None
) -> tuple[Tensor, int, float]:
    """The outputs of the exact flow from the starts x, shape (n, dim).

    Args:
        problem: the path, the denoiser and the ends of the runs.
        x: first states, shape (n, dim).
        least: a κ, in units of sd, below which the run ends; None for a κ below that of the grid.

    Returns:
        The outputs, the evaluations, and the root mean square change by the last doubling of each
        start. The error is less than a fifteenth of this change, since the method has order 6.

    Raises:
        InvalidSetting: runs with `MOST_STEPS` steps and half of them differ by more than `AGREE`,
            as a root mean square over the starts.
    """
    model, steps = problem.model, FIRST_STEPS
    levels = _fine(problem, steps, least)
    out, spent = end_of_flow(model, x, levels), _cost(levels) * len(x)
    changes = torch.full((len(x),), math.inf, dtype=torch.float64)
    moving = torch.arange(len(x))
    while len(moving) > 0 and 2 * steps <= MOST_STEPS:
        steps *= 2
        levels = _fine(problem, steps, least)
        finer = end_of_flow(model, x[moving], levels)
        spent += _cost(levels) * len(moving)
        moved = ((finer - out[moving]) / scale).square().sum(-1).sqrt().double().cpu()
        out[moving], changes[moving] = finer, moved
        moving = moving[~(moved <= SETTLED)]  # also a NaN
    change = float(changes.square().mean().sqrt())
    if change <= AGREE:
        return out, spent, change
    allowed = (
        f"another one, or another path: the runs that designs are compared with do not converge, "
        f"{steps // 2} and {steps} steps differ by {change:.2g} sd"
    )
    raise InvalidSetting("denoiser", type(model).__name__, allowed)


def _cost(levels: Levels) -> int:
    """The evaluations of `end_of_flow`."""
    return int((levels.sigma > 0).sum()) + (not isinstance(levels, TruncatedLevels))


def _ends(problem: Problem, least: float | None = None) -> tuple[float, float, float]:
    """The first time, and ln of the largest and the smallest κ of a converged run.

    The smallest κ is a tenth of the grid's last one, and at most .005 sd.
    """
    schedule, rows = problem.model.schedule, problem.levels.rows
    first, last = rows[0], rows[-1 if problem.plain else -2]
    top = min(first.sigma / first.alpha, MOST_NOISE) if first.alpha > 0 else MOST_NOISE
    end = last.sigma / last.alpha if last.alpha > 0 else MOST_NOISE  # one step from pure noise
    fine = min(end, _LARGE * problem.scale) / 10  # grids of few steps may end at much noise
    fine = fine if least is None else min(fine, least * problem.scale)
    low = end if problem.plain else max(schedule.noise_range[0], fine)
    return first.t, math.log(top), math.log(low)


def _fine(problem: Problem, steps: int, least: float | None) -> Levels:
    """A graded grid from the first level to far below the last one, or to a fixed end."""
    first, top, low = _ends(problem, least)
    schedule = problem.model.schedule
    kappa = torch.from_numpy(graded(top, low, steps)).exp()
    times = schedule.time_at(kappa).clamp(0, 1)
    times[0] = first
    if problem.plain:
        return TruncatedLevels(times, *schedule(times))
    return to_data(schedule, times)
