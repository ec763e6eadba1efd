"""The error of a sampler's law on Gaussian data.

- A sampler that declares an order is run over the whole path, from the exact law at its first level
  and with the step to the data. Its law must converge to that of the data as N grows. (`orders`
  excludes the first steps and the last one.)
- A Langevin sampler at a level with the law N(m, S) must forget its start, and its stationary law
  must converge to N(m, S) as its step size falls. Affine steps map a Gaussian to a Gaussian,
  μ ↦ A·μ + c and Σ ↦ A·Σ·Aᵀ + Q, so the stationary law is the solution of

      μ = A·μ + c,   Σ = A·Σ·Aᵀ + Q   (Lyapunov's equation, solvable if |λ(A)| < 1).

For affine samplers mean and covariance are exact, see `exact_law`; for other samplers they come
from 4 000 chains, which start in the exact law at a level and must keep it. The error is the W₂
distance of Gaussians, divided by the width √tr C of the exact law. It must fall to a half when N
grows from 20 to 80 or the step size falls to a quarter (so the order must be at least ½), or be
small: 1 %, or 5 % with chains, whose sampling error is 3 %.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from samplerbench.core import grids
from samplerbench.core.grids import Levels
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.verify.exact_law import gaussian_w2, noised_law, output_law
from samplerbench.verify.orders import GAUSSIAN

STEPS = (20, 80)
CHAINS = 4000
MEAN = torch.tensor(GAUSSIAN.means[0], dtype=torch.float64)
COVARIANCE = torch.tensor(GAUSSIAN.covariances[0], dtype=torch.float64)


@dataclass(frozen=True)
class LawError:
    """The error of a sampler's law, divided by the width of the exact law."""

    # with few and with many steps, or at the step size and at a quarter of it; only one number for
    # a sampler with neither
    errors: tuple[float, ...]
    small: float  # an error that is small enough

    @property
    def right(self) -> bool:
        """Whether the error is small, or falls to a half."""
        last = self.errors[-1]
        return last <= self.small or (len(self.errors) > 1 and last <= self.errors[0] / 2)


def measured_law(sampler: Sampler, schedule: NoiseSchedule) -> LawError | None:
    """The error of a sampler's law, or None if it neither declares an order nor holds a level.

    A Langevin sampler that declares itself affine must be affine, and must forget its start.
    """
    if not sampler.holds and sampler.order is None:
        return None
    members = _refined(sampler) if sampler.holds else [sampler] * len(STEPS)
    errors = []
    for member, steps in zip(members, STEPS, strict=False):
        levels = _levels(member, schedule, steps)
        start, exact = (noised_law(MEAN, COVARIANCE, levels.rows[row]) for row in (0, -1))
        if not member.affine:
            law = _moments_of_chains(member, schedule, levels)
        elif member.holds:
            law = stationary_law(member, schedule, levels)
        else:
            law = output_law(member, GAUSSIAN.oracle(schedule), levels, *start)
        errors.append(gaussian_w2(*law, *exact) / float(exact[1].trace()) ** 0.5)
    return LawError(tuple(errors), 0.01 if sampler.affine else 0.05)


def stationary_law(
    sampler: Sampler, schedule: NoiseSchedule, levels: Levels
) -> tuple[Tensor, Tensor]:
    """Mean (dim,) and covariance (dim, dim) of the stationary law of N steps of an affine sampler.

    The sampler is a Langevin sampler on a hold grid.

    Raises:
        ValueError: the sampler does not forget its start.
    """
    oracle, zero = GAUSSIAN.oracle(schedule), torch.zeros_like(COVARIANCE)
    c, noise = output_law(sampler, oracle, levels, torch.zeros_like(MEAN), zero)
    units = torch.eye(len(MEAN), dtype=MEAN.dtype)
    a = torch.stack([output_law(sampler, oracle, levels, e, zero)[0] - c for e in units], dim=1)
    if not float(torch.linalg.eigvals(a).abs().max()) < 1:
        raise ValueError(f"{sampler} does not forget its start in {levels.steps} steps or ever")
    mean = torch.linalg.solve(units - a, c)
    return mean, torch.from_numpy(solve_discrete_lyapunov(a.numpy(), noise.numpy()))


def _refined(sampler: Sampler) -> list[Sampler]:
    """The sampler, and the same sampler with a quarter of its step size if it has one."""
    settings = cast(Any, sampler)
    has_one = any(field.name == "step_size" for field in fields(settings))
    if not (has_one and sampler.affine):
        return [sampler]
    return [sampler, replace(settings, step_size=settings.step_size / 4)]


def _levels(sampler: Sampler, schedule: NoiseSchedule, steps: int) -> Levels:
    if not sampler.holds:
        return grids.uniform(schedule, steps)
    # chains need enough steps to leave the law of their start
    return grids.hold(schedule, STEPS[0] if sampler.affine else 100, noise=0.5)


def _moments_of_chains(
    sampler: Sampler, schedule: NoiseSchedule, levels: Levels
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of chains that start in the exact law."""
    first, model = levels.rows[0], GAUSSIAN.oracle(schedule)
    x0 = GAUSSIAN.draws(CHAINS, "law", 0)
    x = first.alpha * x0 + first.sigma * KeyedNoise(("law", "start")).normal(x0, 0)
    with torch.no_grad():
        out = final_state(sampler, model, x, levels, KeyedNoise(("law",)))
    return out.mean(0), out.T.cov()
