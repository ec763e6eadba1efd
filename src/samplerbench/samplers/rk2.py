"""The explicit Runge–Kutta methods of order 2 with two stages, on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.errors import require
from samplerbench.samplers.base import Deterministic, Step, stages


@dataclass(frozen=True)
class RK2(Deterministic):
    """x_s = x_t + (s − t)·((1 − 1/(2c))·d + 1/(2c)·d'),   d' at t + c·(s − t) after an Euler step.

    d = a·x + b·x̂₀, in the time of the schedule. c = ½ is the midpoint method, ⅔ is Ralston's with
    the smallest error bound, 1 is `Heun`. For c < 1 the second level is not a level of the grid.
    The last step is x̂₀. Order 2; two evaluations per step, one in the last. On Gaussian data the
    midpoint method has order 3 if the path is linear in time (`EDM`, `Rectified`): its leading
    error cancels for x = √(λ + σ²). Karras et al. 2022 (arXiv 2206.00364), Appendix D.2 and
    Algorithm 3, which also makes two evaluations in the last step if c < 1; Ralston, "Runge–Kutta
    methods with minimum error bounds", Mathematics of Computation 16, 1962.

    Args:
        alpha: c, the place of the second slope within the step; the α of Karras et al.
    """

    order: ClassVar[int] = 2
    alpha: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, "alpha", self.alpha, "above 0 and at most 1")

    @classmethod
    def variants(cls) -> Sequence[Self]:
        return [cls(alpha) for alpha in (0.5, 2 / 3)]

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        first, second = (stages(model.schedule, levels, share) for share in (0, self.alpha))
        weight = 1 / (2 * self.alpha)
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            if to.sigma == 0:
                x = x0_hat
            else:
                h, one, two = to.t - now.t, first[step], second[step]
                slope = one.a * x + one.b * x0_hat
                between = x + (self.alpha * h) * slope
                x0_hat = model.denoiser(between, two.level)
                late = two.a * between + two.b * x0_hat
                x = x + (h * (1 - weight)) * slope + (h * weight) * late
            yield Step(x, x0_hat)
