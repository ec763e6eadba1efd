"""Densities that MCMC samplers are tested on: the funnel, the banana, many double wells.

Only the densities without noise are known, so only chains run on them; exact draws and moments are
known too.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.line_laws import DensityLine
from samplerbench.datasets.density import Density
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.errors import require

_LOG_2PI = math.log(2 * math.pi)


def funnel(dim: int = 10, spread: float = 3.0) -> Density:
    """x₁ ~ N(0, spread²),   x_i given x₁ ~ N(0, e^{x₁}), i = 2 … dim.

    Width and height of the funnel differ by orders of magnitude, so no step size fits everywhere.
    Neal, "Slice sampling", Annals of Statistics 31(3), 2003, Section 8.

    Args:
        dim: at least 2.
        spread: standard deviation of x₁, 3 in the paper.
    """
    require(dim >= 2, "dim", dim, "at least 2")
    require(0 < spread <= 5, "spread", spread, "above 0 and at most 5")
    wide = math.exp(spread**2 / 2)
    return Density(
        log_p=partial(_funnel_log_p, spread=spread),
        dimension=dim,
        exact_draws=partial(_funnel_draws, dim=dim, spread=spread),
        mean=(0.0,) * dim,
        variance=(spread**2, *(wide,) * (dim - 1)),
        log_z=0.0,
    )


def _funnel_log_p(x: Tensor, spread: float) -> Tensor:
    first, rest = x[..., 0], x[..., 1:]
    own = (first / spread).square() + _LOG_2PI + 2 * math.log(spread)
    log_rest = rest.square().sum(-1) * (-first).exp() + rest.shape[-1] * (first + _LOG_2PI)
    return -0.5 * (own + log_rest)


def _funnel_draws(count: int, random: np.random.Generator, dim: int, spread: float) -> Tensor:
    z = random.standard_normal((count, dim))
    first = spread * z[:, :1]
    return torch.from_numpy(np.concatenate([first, np.exp(first / 2) * z[:, 1:]], axis=1))


def banana(dim: int = 2, spread: float = 10.0, bend: float = 0.03) -> Density:
    """x₁ ~ N(0, spread²),   x₂ given x₁ ~ N(bend·(spread² − x₁²), 1),   other x_i ~ N(0, 1).

    The mean of x₂ is 0. Haario, Saksman, Tamminen, "Adaptive proposal distribution for random walk
    Metropolis algorithm", Computational Statistics 14(3), 1999, with bend = .03 or .1.

    Args:
        dim: at least 2.
        spread: standard deviation of x₁.
        bend: curvature, in 1/units of the data.
    """
    require(dim >= 2, "dim", dim, "at least 2")
    require(0 < spread < math.inf, "spread", spread, "positive and finite")
    require(0 <= bend < math.inf, "bend", bend, "at least 0 and finite")
    return Density(
        log_p=partial(_banana_log_p, spread=spread, bend=bend),
        dimension=dim,
        exact_draws=partial(_banana_draws, dim=dim, spread=spread, bend=bend),
        mean=(0.0,) * dim,
        variance=(spread**2, 1 + 2 * bend**2 * spread**4, *(1.0,) * (dim - 2)),
        log_z=0.0,
    )


def _banana_log_p(x: Tensor, spread: float, bend: float) -> Tensor:
    first = x[..., 0]
    second = x[..., 1] - bend * (spread**2 - first.square())
    squares = (first / spread).square() + second.square() + x[..., 2:].square().sum(-1)
    return -0.5 * (squares + x.shape[-1] * _LOG_2PI) - math.log(spread)


def _banana_draws(
    count: int, random: np.random.Generator, dim: int, spread: float, bend: float
) -> Tensor:
    z = random.standard_normal((count, dim))
    z[:, 0] *= spread
    z[:, 1] += bend * (spread**2 - z[:, 0] ** 2)
    return torch.from_numpy(z)


def many_well(dim: int = 32) -> Density:
    """ln p = Σ (−x⁴ + 6x² + ½x − ½y²) over dim/2 pairs (x, y), up to a constant: 2^{dim/2} modes.

    For each x the share .844 of the mass is in the right well. Midgley, Stimper, Simm,
    Schölkopf, Hernández-Lobato, "Flow annealed importance sampling bootstrap", ICLR 2023 (arXiv
    2208.01893), Section 4.2; Noé, Olsson, Köhler, Wu, "Boltzmann
    generators: sampling equilibrium states of many-body systems with deep learning", Science 365,
    2019.

    Args:
        dim: even.
    """
    require(dim >= 2 and dim % 2 == 0, "dim", dim, "even and at least 2")
    line, pairs = _well(), dim // 2
    return Density(
        log_p=_many_well_log_p,
        dimension=dim,
        exact_draws=partial(_many_well_draws, dim=dim),
        mean=(line.mean, 0.0) * pairs,
        variance=(line.variance, 1.0) * pairs,
        log_z=pairs * (line.log_mass + 0.5 * _LOG_2PI),
    )


@lru_cache(maxsize=1)
def _well() -> DensityLine:
    """The law of one x; beyond ±5 its density is below e^−450."""
    return DensityLine(_well_log_p, torch.linspace(-5, 5, 81, dtype=torch.float64))


def _well_log_p(x: Tensor) -> Tensor:
    square = x * x
    return -(square * square) + 6 * square + 0.5 * x


def _many_well_log_p(x: Tensor) -> Tensor:
    wells, normals = x[..., ::2], x[..., 1::2]
    return (_well_log_p(wells) - 0.5 * normals.square()).sum(-1)


def _many_well_draws(count: int, random: np.random.Generator, dim: int) -> Tensor:
    x = torch.from_numpy(random.standard_normal((count, dim)))
    levels = torch.from_numpy(random.random((count, dim // 2)))
    x[:, ::2] = _well().quantile(levels.flatten()).reshape(count, -1)
    return x


def ill_conditioned(dim: int = 100, condition: float = 1e4) -> GaussianSpectrum:
    """N(0, diag(λ)), λ_k from 1/condition to 1 with equally spaced logarithms.

    The number of gradients that a chain needs grows with the condition number, the ratio of the
    largest to the smallest variance: like its square root for good Hamiltonian Monte Carlo, and
    like the number itself for Langevin chains.

    Args:
        dim: at least 2.
        condition: at least 1.
    """
    require(dim >= 2, "dim", dim, "at least 2")
    require(1 <= condition < math.inf, "condition", condition, "at least 1 and finite")
    logs = torch.linspace(0, -math.log(condition), dim, dtype=torch.float64)
    return GaussianSpectrum(logs.exp(), torch.zeros(dim, dtype=torch.float64))
