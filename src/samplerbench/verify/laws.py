"""Whether a sampler's law is right: what it comes to on Gaussian data, where that is known.

- A sampler that declares an order follows a path: from the exact law at its first level it must
  come to the law of the data as N grows, over the whole path, with the last step to the data. The
  orders of `orders` do not see that step, nor the first ones.
- A Langevin sampler that stays at a level, of law N(m, S), must forget its start and have a
  stationary law that comes to N(m, S) as its step size falls. Steps that are affine map a Gaussian
  to a Gaussian, μ ↦ A·μ + c and Σ ↦ A·Σ·Aᵀ + Q, so the stationary law is the solution of

      μ = A·μ + c,   Σ = A·Σ·Aᵀ + Q   (Lyapunov's equation; there is one where |λ(A)| < 1).

Mean and covariance are exact where the steps are affine, see `exact_law`, and those of 4 000 chains
elsewhere; a Langevin sampler's chains start in the exact law then, and must keep it. The error is
the W₂ between Gaussians, as a share of the width √tr C of the exact law. It has to fall by half,
where N grows from 20 to 80 or the step size falls to a quarter (order ½ and more does so), or to be
small: 1 %, or 5 % where it is known from chains, whose own error is 3 %.
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
class Law:
    """How far a sampler's law is from the right one, as shares of its width.

    Args:
        errors: with few steps and with many, or at the step size and at a quarter of it; one number
            where there is nothing to refine.
        small: what needs no refinement.
    """

    errors: tuple[float, ...]
    small: float

    @property
    def right(self) -> bool:
        """Whether it is near, or comes nearer."""
        last = self.errors[-1]
        return last <= self.small or (len(self.errors) > 1 and last <= self.errors[0] / 2)


def measured_law(sampler: Sampler, schedule: NoiseSchedule) -> Law | None:
    """The law of a sampler, or None where it declares neither an order nor a level to hold.

    Args:
        sampler: with its settings.
        schedule: the path.

    Raises:
        ValueError: it says that it is affine and is not, or does not forget its start.
    """
    if not sampler.holds and sampler.order is None:
        return None
    members = _refined(sampler) if sampler.holds else [sampler] * len(STEPS)
    errors = []
    for member, steps in zip(members, STEPS, strict=False):
        levels = _levels(member, schedule, steps)
        start, right = (noised_law(MEAN, COVARIANCE, levels.rows[row]) for row in (0, -1))
        if not member.affine:
            found = _moments_of_chains(member, schedule, levels)
        elif member.holds:
            found = stationary_law(member, schedule, levels)
        else:
            found = output_law(member, GAUSSIAN.oracle(schedule), levels, *start)
        errors.append(gaussian_w2(*found, *right) / float(right[1].trace()) ** 0.5)
    return Law(tuple(errors), 0.01 if sampler.affine else 0.05)


def stationary_law(
    sampler: Sampler, schedule: NoiseSchedule, levels: Levels
) -> tuple[Tensor, Tensor]:
    """Mean (dim,) and covariance (dim, dim) that N steps at one level leave as they are.

    Args:
        sampler: one whose steps are affine.
        schedule: the path.
        levels: of a hold grid.

    Raises:
        ValueError: there is no such law, or it is not the only one: some of the start stays.
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
    """The sampler, and with a quarter of its step size where it has one."""
    settings = cast(Any, sampler)
    has_one = any(field.name == "step_size" for field in fields(settings))
    if not (has_one and sampler.affine):
        return [sampler]
    return [sampler, replace(settings, step_size=settings.step_size / 4)]


def _levels(sampler: Sampler, schedule: NoiseSchedule, steps: int) -> Levels:
    if not sampler.holds:
        return grids.uniform(schedule, steps)
    # chains must have the time to leave the law that they start in
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
