"""What a sampler is: a loop over levels that yields its states.

A sampler owns its loop and reads like the algorithm box of its paper. It turns its coefficients
into Python floats before the loop, asks the model for x̂₀, draws from `noise`, and yields. It does
not count evaluations, keep trajectories, seed, move devices or show progress: whoever iterates
does. The step to the last level, the data, is one explicit evaluation: x = x̂₀.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from samplerbench.grids import Levels
from samplerbench.models import Denoiser, Score
from samplerbench.noise import Noise
from samplerbench.schedules import NoiseSchedule


@dataclass(frozen=True, slots=True)
class Step:
    """What a sampler yields after each step.

    Args:
        x: the state at the next level, shape (*batch, dim).
        x0_hat: the denoiser's last output on the way, same shape.
        info: what else a method has to say, such as an acceptance rate per sample.
    """

    x: Tensor
    x0_hat: Tensor
    info: Mapping[str, Tensor | float] = field(default_factory=dict)


class Sampler(ABC):
    """A sampling method. Members are frozen dataclasses whose fields are its parameters.

    Attributes:
        order: of convergence on the probability-flow ODE, or weak order for a stochastic method.
        needs: what the model must be: a `Denoiser`, or any `Score` for Langevin samplers.
        couples: whether its draws can be the increments of one Brownian path, the same for every
            number of steps; see `coupling`.
    """

    order: ClassVar[int]
    needs: ClassVar[type[Score]] = Denoiser  # type: ignore[type-abstract]
    couples: ClassVar[bool] = False

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether the method, with these parameters, draws noise."""

    @abstractmethod
    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        """Go from the state x at the first level to the last one.

        Args:
            model: the denoiser.
            x: the first state, shape (*batch, dim).
            levels: where to stop, steps + 1 of them.
            noise: where fresh noise comes from.
        """

    def why_incompatible(self, model: Score, levels: Levels) -> str | None:
        """Why this method cannot run on this model and these levels, or None if it can.

        An override asks this one first.
        """
        name, kind = type(self).__name__, type(model).__name__
        if not isinstance(model, self.needs):
            return (
                f"{name} needs a denoiser for every noise level, and a {kind} score has one level: "
                "use a Langevin sampler, or an objective with levels such as edm or ncsn"
            )
        return model.why_incompatible(levels)


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
    t, alpha, sigma = levels.t[noisy], levels.alpha[noisy], levels.sigma[noisy]
    alpha_rate, variance_rate = schedule.rates(t)
    a = variance_rate / (2 * sigma.square())
    b = alpha_rate - alpha * a
    return list(zip(a.tolist(), b.tolist(), strict=True))
