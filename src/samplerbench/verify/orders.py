"""The measured order of a sampler: how its error falls with the number of steps.

    log error(N) ≈ −p·log N + constant,     N = 40, 80, 160, 320,

on levels from κ = σ/α = 1.9 to .2. This interval excludes both ends of the path: every schedule is
smooth there, and there is no step to the data.

- A deterministic sampler follows the probability-flow ODE. Its error is the distance of its states
  to the flow from the same starts. In x̄ = x/α and u = ln κ the flow is dx̄/du = x̄ − x̂₀ on every
  schedule, so one reference solution, to 1e-12, is enough.
- The order of a stochastic sampler is that of its law (the weak order). On Gaussian data mean and
  covariance of the output of an affine sampler are known exactly, see `exact_law`. On a mixture on
  a line the law of the output is known by quadrature, see `bench.line_densities`; its error is its
  W₁ distance from the law of the path.

A Gaussian is not enough: its field is linear, and then errors in the nonlinear order conditions and
in the first steps vanish. So all orders are measured on a Gaussian and on a mixture.

The order does not show every fault. If a coefficient of a higher difference is wrong, or right only
for equal steps, the order on smooth levels is still 2. So the error of a deterministic sampler on
the mixture is also compared with that of a reference method of the same order, at N = 160, on these
levels and on rough levels, whose steps are alternately short and long (1 : 3). The samplers here
have .02 to 1.9 times the error of the reference. The exception is iPNDM on rough levels, with 130
times, since its weights are those of equal steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from samplerbench.bench.line_densities import StartLaw, law_of_output
from samplerbench.bench.transitions import Refused
from samplerbench.core.grids import Level, Levels
from samplerbench.core.line_laws import MixtureLine
from samplerbench.core.models import Density
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, NoiseSchedule, VPLinear
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.samplers.adams_bashforth import AdamsBashforth
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.rk4 import RK4
from samplerbench.verify.exact_law import noised_law, output_law

STEPS = (40, 80, 160, 320)
_ENDS = (1.9, 0.2)
GAUSSIAN = gaussian((0.7, -1.2), ((1.0, 0.5), (0.5, 0.6)))
MIXTURE = GaussianMixture(
    (0.2, 0.5, 0.3),
    ((1.5, 0.0), (-1.0, 1.0), (0.0, -1.5)),
    (((0.3, 0.1), (0.1, 0.2)), ((0.1, 0.0), (0.0, 0.5)), ((0.2, -0.1), (-0.1, 0.2))),
)
#: The mixture on a line, for laws of samplers that draw noise.
LINE = GaussianMixture(
    (0.2, 0.5, 0.3), ((1.5,), (-1.0,), (0.2,)), (((0.3,),), ((0.1,),), ((0.5,),))
)
LAWS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}

#: The reference method of each order for `relative_error`.
REFERENCES: dict[int, Sampler] = {
    1: DDIM(0.0),
    2: AdamsBashforth(points=2),
    3: AdamsBashforth(points=3),
    4: RK4(),
}


@dataclass(frozen=True)
class Order:
    """A measured order."""

    law: str  # gaussian or mixture
    weak: bool  # whether the errors are those of the law; otherwise of the states
    steps: tuple[int, ...]  # the numbers of steps
    errors: tuple[float, ...]  # the error for each number of steps

    @property
    def slope(self) -> float:
        """p, by least squares; NaN if an error is 0 or not finite."""
        if not all(0 < error < math.inf for error in self.errors):
            return math.nan
        return -float(np.polyfit(np.log(self.steps), np.log(self.errors), 1)[0])


def interior(schedule: NoiseSchedule, steps: int) -> Levels:
    """Levels from κ = 1.9 to .2, by Karras' formula with ρ = 3, without the data."""
    return _between_ends(schedule, torch.linspace(0, 1, steps + 1, dtype=torch.float64))


def rough(schedule: NoiseSchedule, steps: int) -> Levels:
    """The same range with steps that are alternately short and three times as long; N is even."""
    lengths = torch.tensor([1.0, 3.0], dtype=torch.float64).repeat(steps // 2)
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), lengths.cumsum(0)])
    return _between_ends(schedule, ends / ends[-1])


def _between_ends(schedule: NoiseSchedule, shares: Tensor) -> Levels:
    first, last = (end ** (1 / 3) for end in _ENDS)
    times = schedule.time_at((first + shares * (last - first)) ** 3)
    return Levels(times, *schedule(times))


def relative_error(
    sampler: Sampler, levels: Callable[[NoiseSchedule, int], Levels]
) -> float | None:
    """The error on the mixture, divided by that of the reference method of the declared order.

    `levels` are interior or rough. None for a stochastic or adaptive sampler, and if there is no
    method of its order.
    """
    reference = REFERENCES.get(sampler.order or 0)
    if reference is None or sampler.stochastic or sampler.adaptive:
        return None
    on = levels(VPLinear(), STEPS[2])
    one, other = (
        _error_of_states(method, VPLinear(), "mixture", on) for method in (sampler, reference)
    )
    return one / other


def measured_order(
    sampler: Sampler, schedule: NoiseSchedule, law: str, steps: Sequence[int] = STEPS
) -> Order | None:
    """The order on a law (gaussian or mixture) from increasing N, or None if it cannot be measured.

    It cannot be measured for Langevin and adaptive methods. A stochastic method must be affine on
    the Gaussian, and its law on the mixture must be known by quadrature.
    """
    if sampler.order is None or sampler.adaptive:
        return None
    if sampler.stochastic:
        if law == "gaussian" and not sampler.affine:
            return None
        steps = steps[:3]  # the cost of the exact law is quadratic in N
        error = _error_of_law if law == "gaussian" else _error_on_line
        try:
            errors = [error(sampler, schedule, n) for n in steps]
        except Refused:
            return None
    else:
        levels = [interior(schedule, n) for n in steps]
        errors = [_error_of_states(sampler, schedule, law, one) for one in levels]
    return Order(law, sampler.stochastic, tuple(steps), tuple(errors))


def _error_of_states(sampler: Sampler, schedule: NoiseSchedule, law: str, levels: Levels) -> float:
    first, last = levels.rows[0], levels.rows[-1]
    noise = KeyedNoise(("order",))
    start = first.alpha * _start()
    end = final_state(sampler, LAWS[law].oracle(schedule), start, levels, noise)
    return float((end / last.alpha - _flow(law)).norm())


def _error_of_law(sampler: Sampler, schedule: NoiseSchedule, steps: int) -> float:
    levels = interior(schedule, steps)
    mean = torch.tensor(GAUSSIAN.means[0], dtype=torch.float64)
    covariance = torch.tensor(GAUSSIAN.covariances[0], dtype=torch.float64)
    start, exact = (noised_law(mean, covariance, levels.rows[row]) for row in (0, -1))
    output = output_law(sampler, GAUSSIAN.oracle(schedule), levels, *start)
    return sum(float((got - want).norm()) for got, want in zip(output, exact, strict=True))


def _error_on_line(sampler: Sampler, schedule: NoiseSchedule, steps: int) -> float:
    levels, oracle = interior(schedule, steps), LINE.oracle(schedule)
    first, last = levels.rows[0], levels.rows[-1]
    assert isinstance(oracle, Density)
    path, starts = oracle.log_density, Exact().draw(LINE, 64, first, (0, 0, 0))
    begin = StartLaw(lambda x: path(x, first), starts)
    output, _ = law_of_output(sampler, oracle, levels, begin)
    weights, means, variances = (values.flatten() for values in LINE.tensors())
    spread = last.alpha**2 * variances + last.sigma**2
    return output.distance(MixtureLine(weights, last.alpha * means, spread.sqrt()), 1)


def _start() -> Tensor:
    return 2 * KeyedNoise(("order", "start")).normal(torch.empty(8, 2, dtype=torch.float64), 0)


@lru_cache(maxsize=len(LAWS))
def _flow(law: str) -> Tensor:
    """x̄ of the probability flow at κ = .2, from x̄ = `_start()` at κ = 1.9."""
    start, oracle = _start(), LAWS[law].oracle(EDM())

    def slope(u: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        x = torch.from_numpy(flat).reshape(start.shape)
        x0_hat = oracle.denoiser(x, Level(0.0, 1.0, math.exp(u)))
        field: NDArray[np.float64] = (x - x0_hat).flatten().numpy()
        return field

    span = (math.log(_ENDS[0]), math.log(_ENDS[1]))
    flat = start.flatten().numpy()
    result = solve_ivp(slope, span, flat, method="DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(result.y[:, -1].copy()).reshape(start.shape)
