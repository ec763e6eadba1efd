"""The base class of samplers: a sampler is a loop over levels that yields its states.

A sampler owns its loop and reads like the algorithm box of its paper. It turns its coefficients
into Python floats before the loop, evaluates the model, draws from `noise`, and yields. The code
that iterates over it counts evaluations, keeps trajectories, chooses seeds and devices, and shows
progress. The step to the last level, the data, is x = x̂₀ after one evaluation, unless
`ends_at_data` is false.

The tests check the declarations of a sampler. They find its class by walking this package and build
it with `variants`. A new sampler needs only tests of its equivalence with other codes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from samplerbench.core.grids import MOST_NOISE, Grid, Level, Levels, for_samplers
from samplerbench.core.models import Denoiser, Density, Score
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import IN_STEP, InvalidSetting, require


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step of a sampler.

    Args:
        x: the state at the next level, shape (*batch, dim).
        x0_hat: the last output of the denoiser in this step, same shape. If the model is a score,
            it is Tweedie's (x + σ²·s)/α.
        info: other results of a method, such as an acceptance rate for each sample.
    """

    x: Tensor
    x0_hat: Tensor
    info: Mapping[str, Tensor | float] = field(default_factory=dict)


class Sampler(ABC):
    """A sampling method. Members are frozen dataclasses whose fields are its parameters.

    Attributes:
        adaptive: whether it chooses its own steps. Then the levels are only output points, the
            error depends on the tolerance, and `order` is that of one step.
        needs: the type of the model: `Denoiser`, or `Score` for Langevin samplers.
        needs_density: whether the model must also have a log-density.
        needs_signal: whether it is undefined at levels without signal, α = 0.
        holds: whether it stays at one level, as in `grids.hold`; other samplers must move.
        brings_levels: whether it uses its own levels instead of the job's grid.
        anneals: whether its earlier states have other laws than the last one although it `holds`.
        estimates_log_z: whether `info` has `log_z`, ln of an estimate of the integral of the
            model's density.
        rejects: whether it may reject proposals; then `info` has `acceptance`.
        yields_late: whether it yields its states only after the run has ended.
        couples: whether its draws may be the increments of a Brownian path; see `core.coupling`.
    """

    adaptive: ClassVar[bool] = False
    needs: ClassVar[type[Score]] = Denoiser  # type: ignore[type-abstract]
    needs_density: ClassVar[bool] = False
    needs_signal: ClassVar[bool] = False
    holds: ClassVar[bool] = False
    brings_levels: ClassVar[bool] = False
    anneals: ClassVar[bool] = False
    estimates_log_z: ClassVar[bool] = False
    rejects: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    yields_late: ClassVar[bool] = False

    @classmethod
    def variants(cls) -> Sequence[Self]:
        """The settings that are tested; with and without noise if noise is optional."""
        return [cls()]

    @property
    @abstractmethod
    def order(self) -> int | None:
        """Order of convergence on the probability-flow ODE; the weak order of a stochastic method.

        None for a Langevin method, which has a stationary law instead. Most members declare it as a
        class variable.
        """

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether the method draws noise, with these parameters."""

    @property
    def affine(self) -> bool:
        """Whether a run is affine in state and noise if the denoiser is affine.

        Then `verify.exact_law` computes the law of its output on Gaussian data.
        """
        return not self.adaptive

    def last_state(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Tensor | None:
        """The last state that `steps` yields, shape (*batch, dim); None if `steps` is as fast.

        For codes that cannot stop after a step: their `steps` must keep all states of a run, which
        takes memory and time.
        """
        return None

    @property
    def ends_at_data(self) -> bool:
        """Whether the state after the step to the data is x̂₀."""
        return True

    def evaluations(self, steps: int) -> int | None:
        """Evaluations of the model in a run of N steps to the data; None if they are not fixed.

        The tests compare this with the counted evaluations. Reported numbers are always counted.
        """
        return steps

    def plain_evaluations(self, steps: int) -> int | None:
        """The evaluations in a run of N steps that ends at σ > 0 (final=none).

        By default those of N + 1 steps, minus one for the step to the data.
        """
        count = self.evaluations(steps + 1)
        return None if count is None else count - 1

    @property
    def fewest_steps(self) -> int:
        """The smallest number of steps of a run."""
        return 1

    def least_evaluations(self, steps: int, *, plain: bool = False) -> int:
        """The smallest number of evaluations in a run of N steps; `plain` if final=none."""
        return (self.plain_evaluations(steps) if plain else self.evaluations(steps)) or steps

    def levels(self, grid: Grid, schedule: NoiseSchedule, steps: int) -> Levels:
        """The levels of a run of N steps: those of the job's grid, or the sampler's own."""
        return for_samplers(grid, schedule, steps, self.holds)(schedule, steps)

    def most_noise(self, schedule: NoiseSchedule, levels: Levels) -> float:
        """The largest noise-to-signal ratio of an evaluation; infinite without signal.

        By default that is the ratio of the first level. Before a model is trained, the result is
        compared with the range of the training.
        """
        first = levels.rows[0]
        return first.sigma / first.alpha if first.alpha > 0 else math.inf

    @abstractmethod
    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        """Go from the state x at the first level to the last one.

        Args:
            model: a model of the type `needs`.
            x: the first state, shape (*batch, dim).
            levels: the levels of the states, steps + 1 of them.
            noise: the source of fresh noise.
        """

    def why_incompatible(self, model: Score, levels: Levels) -> str | None:
        """Why this method cannot run on this model and these levels, or None if it can.

        An override calls this method first.
        """
        name = type(self).__name__
        if not isinstance(model, self.needs):
            return (
                f"{name} needs a denoiser for every noise level, and this score has one level: "
                "use sampler=ula, or an objective with levels such as edm or ncsn"
            )
        if self.needs_density and not isinstance(model, Density):
            return (
                f"{name} needs the log-density, and this model has only its gradient: use "
                "denoiser=oracle on data with a known density, or sampler=ula"
            )
        reason = (
            model.why_incompatible(levels)
            or self._why_not_on(levels)
            or self._why_not_trained(model, levels)
        )
        # the score (α·x̂₀ − x)/σ² is 0/0 at the data
        at_data = self.holds and levels.rows[0].sigma == 0
        if reason is None and at_data and type(model).score is Denoiser.score:
            reason = (
                "this denoiser has no score without noise: use grid=hold grid.noise=0.1, say, or "
                "an objective that learns the score of the data themselves"
            )
        return reason

    def _why_not_on(self, levels: Levels) -> str | None:
        name = type(self).__name__
        if self.holds and not levels.held:
            return (
                f"{name} stays at one noise level and these levels move: "
                "use grid=hold, or sampler=annealed_langevin"
            )
        if not self.holds and not levels.moving:
            return (
                f"{name} goes from level to level and these stand still: use a grid that ends at "
                "the data such as grid=karras, or a Langevin sampler such as sampler=ula"
            )
        if self.needs_signal and levels.rows[0].alpha == 0:  # the least signal comes first
            return (
                f"{name} is undefined where no signal is left, α = 0: use grid=karras or "
                "grid=log_snr, or a t_max below 1 with grid=uniform or grid=quadratic"
            )
        return None

    def _why_not_trained(self, model: Score, levels: Levels) -> str | None:
        """Why the model is evaluated at more noise than it was trained for, or None."""
        if not isinstance(model, Denoiser):
            return None
        most = self.most_noise(model.schedule, levels)
        # above MOST_NOISE almost nothing is left of the data
        needed = min(most, MOST_NOISE)
        if needed <= model.trained_noise * (1 + 1e-6):
            return None
        above = most > Sampler.most_noise(self, model.schedule, levels) * (1 + 1e-6)
        own, ours = above or self.brings_levels, "schedule.sigma_max or grid.noise_max"
        cause = f"{type(self).__name__} needs" if own else "the grid begins at"
        return (
            f"the network is trained up to σ/α = {model.trained_noise:.4g} and {cause} "
            f"{needed:.4g}: raise level_law.maximum, or lower "
            + ("the σ that its settings begin at" if self.brings_levels else ours)
        )


class Deterministic(Sampler):
    """A sampler that draws no noise."""

    stochastic: ClassVar[bool] = False


def iterate(
    sampler: Sampler, model: Score, x: Tensor, levels: Levels, noise: Noise
) -> Iterator[Step]:
    """The steps of a sampler, one for each step of the levels.

    Args:
        sampler: it must be compatible with the model and the levels; see `why_incompatible`.
        model: a model of the type that the sampler `needs`.
        x: the first state, shape (*batch, dim).
        noise: the source of fresh noise.

    Raises:
        InvalidSetting: the sampler yields too few or too many states, or one of the wrong shape.
    """
    count, steps, shape = 0, levels.steps, x.shape
    for count, step in enumerate(_noted(sampler, model, x, levels, noise), 1):
        if count > steps:
            break
        if not isinstance(step, Step) or step.x.shape != shape:
            _refuse(step, shape)
        yield step
    name, allowed = type(sampler).__name__, f"a sampler that yields {steps} states"
    require(count == steps, "sampler", name, f"{allowed}, one for each step")


def _refuse(step: object, shape: Sequence[int]) -> None:
    """Raise InvalidSetting for an invalid step that a sampler has yielded, with the reason."""
    name, allowed = type(step).__name__, "a generator that yields Step(x, x0_hat)"
    if not isinstance(step, Step):
        raise InvalidSetting("steps", name, allowed)
    wanted = f"that of the start, {tuple(shape)}"
    raise InvalidSetting("step.x.shape", tuple(step.x.shape), wanted)


def _noted(
    sampler: Sampler, model: Score, x: Tensor, levels: Levels, noise: Noise
) -> Iterator[Step]:
    """The steps of a sampler; an error in a step gets a note that describes the step."""
    count = 0
    try:
        # the signature of `steps` promises a denoiser; if `needs` is Score, a score is enough
        for step in sampler.steps(cast(Denoiser, model), x, levels, noise):
            yield step
            count += 1
    except Exception as error:
        if count < levels.steps:
            error.add_note(place_of(sampler, levels, count))
        raise


#: The hint for a sampler that fails at α = 0.
WITHOUT_SIGNAL = ": declare needs_signal = True if it cannot start without signal"


def place_of(sampler: Sampler, levels: Levels, count: int) -> str:
    """Describe the step number `count` + 1, with a hint for the author of the sampler."""
    now, to = levels.rows[count : count + 2]
    text = f"{IN_STEP}{count + 1}, from t={now.t:.3g}, α={now.alpha:.3g}, σ={now.sigma:.3g}"
    if now.alpha == 0 and not sampler.needs_signal:
        return f"{text}{WITHOUT_SIGNAL}"
    return f"{text} to σ=0: the state at the data is x0_hat" if to.sigma == 0 else text


def final_state(sampler: Sampler, model: Score, x: Tensor, levels: Levels, noise: Noise) -> Tensor:
    """The state after the last step, shape (*batch, dim)."""
    last = sampler.last_state(cast(Denoiser, model), x, levels, noise)
    if last is not None:
        if last.shape != x.shape:
            _refuse(Step(last, last), x.shape)
        return last
    for step in iterate(sampler, model, x, levels, noise):
        x = step.x
    return x


def ode_coefficients(schedule: NoiseSchedule, levels: Levels) -> list[tuple[float, float]]:
    """(a, b) of the probability-flow ODE dx/dt = a·x + b·x̂₀ at every level with σ > 0.

    a = (dσ²/dt)/(2σ²), b = dα/dt − α·a; see `core.schedules`.
    """
    noisy = levels.sigma > 0
    a, b = slope_at(schedule, levels.t[noisy], levels.alpha[noisy], levels.sigma[noisy])
    return list(zip(a.tolist(), b.tolist(), strict=True))


def slope_at(
    schedule: NoiseSchedule, t: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """(a, b) of the probability-flow ODE at levels of any shape, float64, σ > 0."""
    alpha_rate, variance_rate = schedule.rates(t)
    a = variance_rate / (2 * sigma.square())
    return a, alpha_rate - alpha * a


@dataclass(frozen=True, slots=True)
class Stage:
    """A level within a step, and (a, b) of the probability-flow ODE there."""

    level: Level[float]
    a: float
    b: float


def stages(schedule: NoiseSchedule, levels: Levels, share: float) -> list[Stage]:
    """The stage at t + share·(s − t) of every step except the one to the data.

    Args:
        schedule: the path, for the levels between those of the grid.
        share: c ∈ [0, 1] of the Butcher tableau; for 0 and 1 the stages are levels of the grid.
    """
    rows = torch.stack([levels.t, levels.alpha, levels.sigma])[:, levels.sigma > 0]
    if share in (0, 1):
        t, alpha, sigma = rows[:, :-1] if share == 0 else rows[:, 1:]
    else:
        t = rows[0, :-1] + share * rows[0].diff()
        alpha, sigma = schedule(t)
    a, b = slope_at(schedule, t, alpha, sigma)
    return [
        Stage(Level(*row[:3]), *row[3:])
        for row in zip(*(v.tolist() for v in (t, alpha, sigma, a, b)), strict=True)
    ]
