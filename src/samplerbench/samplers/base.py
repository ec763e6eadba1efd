"""What a sampler is: a loop over levels that yields its states.

A sampler owns its loop and reads like the algorithm box of its paper. It turns its coefficients
into Python floats before the loop, asks the model for x̂₀, draws from `noise`, and yields. It does
not count evaluations, keep trajectories, seed, move devices or show progress: whoever iterates
does. The step to the last level, the data, is one explicit evaluation, x = x̂₀, unless the sampler
says that it does not end there.

What a sampler says about itself is what the tests hold it to. They find it by walking this package
and build it by `variants`, so that a new one needs no test of its own but for its equivalences.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from samplerbench.core.grids import MOST_NOISE, Level, Levels
from samplerbench.core.models import Denoiser, Density, Score
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule


@dataclass(frozen=True, slots=True)
class Step:
    """What a sampler yields after each step.

    Args:
        x: the state at the next level, shape (*batch, dim).
        x0_hat: the denoiser's last output on the way, same shape; where a score was asked instead,
            Tweedie's (x + σ²·s)/α of the state it was asked for.
        info: what else a method has to say, such as an acceptance rate per sample.
    """

    x: Tensor
    x0_hat: Tensor
    info: Mapping[str, Tensor | float] = field(default_factory=dict)


class Sampler(ABC):
    """A sampling method. Members are frozen dataclasses whose fields are its parameters.

    Attributes:
        adaptive: whether it chooses its own steps: its error falls with its tolerance and hardly
            with the number of levels, which are output points. `order` is then that of one step.
        needs: what the model must be: a `Denoiser`, or any `Score` for Langevin samplers.
        needs_density: whether the model must know its log-density too.
        needs_signal: whether it is undefined at levels without signal, α = 0.
        holds: whether it stays at one level, as `grids.hold` does; all others must move.
        couples: whether its draws can be the increments of one Brownian path, the same for every
            number of steps; see `coupling`.
    """

    adaptive: ClassVar[bool] = False
    needs: ClassVar[type[Score]] = Denoiser  # type: ignore[type-abstract]
    needs_density: ClassVar[bool] = False
    needs_signal: ClassVar[bool] = False
    holds: ClassVar[bool] = False
    couples: ClassVar[bool] = False

    @classmethod
    def variants(cls) -> Sequence[Self]:
        """Settings at which it is tested; one that makes noise optional gives both kinds."""
        return [cls()]

    @property
    @abstractmethod
    def order(self) -> int | None:
        """Order of convergence on the probability-flow ODE; of a stochastic method the weak order.

        None for a Langevin method: it follows no path and is held to its stationary law. Most
        members declare it as a class variable.
        """

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether the method, with these parameters, draws noise."""

    @property
    def affine(self) -> bool:
        """Whether a run is affine in state and noise where the denoiser is affine.

        Then the law of its output on Gaussian data is known exactly: `verify.exact_law`.
        """
        return not self.adaptive

    @property
    def ends_at_data(self) -> bool:
        """Whether the state after the step to the data is x̂₀ itself."""
        return True

    def evaluations(self, steps: int) -> int | None:
        """Evaluations of the model in a run of N steps to the data; None where the run decides.

        It is what the tests compare the count with. No number is reported from it: those are
        counted.
        """
        return steps

    def least_evaluations(self, steps: int) -> int:
        """The fewest evaluations that a run of N steps can take; all of them where it is fixed."""
        return self.evaluations(steps) or steps

    def most_noise(self, schedule: NoiseSchedule, levels: Levels) -> float:
        """The largest noise-to-signal ratio at which it asks the model; infinite without signal.

        Stages between two levels are never above the first one; who goes above it says so here, so
        that what a model was not trained for is known before it is trained.
        """
        first = levels.rows[0]
        return first.sigma / first.alpha if first.alpha > 0 else math.inf

    @abstractmethod
    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        """Go from the state x at the first level to the last one.

        Args:
            model: the denoiser, or what else it `needs`.
            x: the first state, shape (*batch, dim).
            levels: where to stop, steps + 1 of them.
            noise: where fresh noise comes from.
        """

    def why_incompatible(self, model: Score, levels: Levels) -> str | None:
        """Why this method cannot run on this model and these levels, or None if it can.

        An override asks this one first.
        """
        name = type(self).__name__
        if not isinstance(model, self.needs):
            return (
                f"{name} needs a denoiser for every noise level, and this score has one level: "
                "use sampler=ula, or an objective with levels such as edm or ncsn"
            )
        if self.needs_density and not isinstance(model, Density):
            return (
                f"{name} needs the log-density, and this model gives its gradient only: use "
                "denoiser=oracle on data with a known density, or sampler=ula"
            )
        reason = (
            model.why_incompatible(levels)
            or self._why_not_on(levels)
            or self._why_not_trained(model, levels)
        )
        # a score that is made of x̂₀ is 0/0 at the data
        at_data = self.holds and levels.rows[0].sigma == 0
        if reason is None and at_data and type(model).score is Denoiser.score:
            reason = (
                "this denoiser has no score without noise: use grid.noise=0.1, say, or an "
                "objective that learns the score of the data themselves"
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
        """Why more noise is asked for than the model was trained for, or None."""
        if not isinstance(model, Denoiser):
            return None
        most = self.most_noise(model.schedule, levels)
        # beyond that, next to nothing is left of the data
        asked = min(most, MOST_NOISE)
        if asked <= model.trained_noise * (1 + 1e-6):
            return None
        above = most > Sampler.most_noise(self, model.schedule, levels) * (1 + 1e-6)
        who = f"{type(self).__name__} asks for" if above else "the grid begins at"
        return (
            f"the network is trained up to σ/α = {model.trained_noise:.4g} and {who} {asked:.4g}: "
            "raise level_law.maximum, or lower schedule.sigma_max or grid.noise_max"
        )


def final_state(
    sampler: Sampler, model: Denoiser, x: Tensor, levels: Levels, noise: Noise
) -> Tensor:
    """The state after the last step, shape (*batch, dim)."""
    for step in sampler.steps(model, x, levels, noise):
        x = step.x
    return x


def ode_coefficients(schedule: NoiseSchedule, levels: Levels) -> list[tuple[float, float]]:
    """(a, b) of the probability-flow ODE dx/dt = a·x + b·x̂₀ at every level with noise.

    See `schedules`: a = (dσ²/dt)/(2σ²), b = dα/dt − α·a. The last level has none where σ = 0.
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
    """A level on the way of a step, and the probability-flow ODE's (a, b) there."""

    level: Level[float]
    a: float
    b: float


def stages(schedule: NoiseSchedule, levels: Levels, share: float) -> list[Stage]:
    """The stage at t + share·(s − t) of every step that does not go to the data.

    Args:
        schedule: the path, which is asked for the levels between those of the grid.
        levels: where the sampler stops.
        share: c ∈ [0, 1] of the Butcher tableau; 0 and 1 are the grid's own levels.
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
