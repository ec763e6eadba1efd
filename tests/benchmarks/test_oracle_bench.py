"""The exact denoisers beside their earlier formulas, by the processor's time, at every noise level.

The earlier formula of components with equal variances took the softmax of all exponents and
multiplied all of it, subnormal numbers included, with a table of 2^19 numbers at a time. That of
components with covariances multiplied the states with one small matrix for each component. Run with
`make bench ARGS="-k oracle_bench"`; printed, never asserted.
"""

from __future__ import annotations

import math
import time
from statistics import median

import pytest
import torch
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.models import IsotropicMixtureOracle, MixtureOracle
from samplerbench.core.responsibilities import responsibilities
from samplerbench.core.schedules import EDM

pytestmark = pytest.mark.bench

NOISE = (0.01, 0.1, 0.3, 1.0, 10.0, 80.0)


class Earlier:
    """x̂₀ and ln q as they were before, for α = 1."""

    def __init__(self, means: Tensor, variance: float) -> None:
        self.centre = means.mean(0)
        self.means, self.variance = means - self.centre, variance
        self.rows = max(1, 2**19 // len(means))

    def log_joint(self, u: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        variances = torch.full((len(self.means), 1), self.variance, dtype=torch.float64)
        spread, columns = variances + sigma**2, u.T.contiguous()
        squares = columns.square().sum(0) + self.means.square().sum(-1)[:, None]
        distance = squares.sub_((self.means @ columns).mul_(2))
        log_volume = 0.5 * u.shape[-1] * torch.log(2 * math.pi * spread)
        return distance.mul_(-0.5 / spread).add_(-math.log(len(self.means)) - log_volume), spread

    def denoiser(self, x: Tensor, sigma: float) -> Tensor:
        parts = []
        for u in torch.split(x - self.centre, self.rows):
            log_joint, spread = self.log_joint(u, sigma)
            weight = log_joint.softmax(0)
            share = weight * (self.variance / spread)
            parts.append((weight - share).T @ self.means + share.sum(0)[:, None] * u)
        return torch.cat(parts) + self.centre

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        parts = torch.split(x - self.centre, self.rows)
        return torch.cat([self.log_joint(u, sigma)[0].logsumexp(0) for u in parts])


def uniform(count, dim):
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(0)).double()


def folded(count, dim):
    """Points near a surface of 12 dimensions: at large noise they have very different weights."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(count, 12, generator=generator) @ torch.randn(12, dim, generator=generator)
    return (flat / 3).tanh().double()


@pytest.mark.parametrize(
    ("points", "variance", "states", "again"),
    [
        (uniform(10_000, 784), 0.0, 500, 3),
        (folded(10_000, 784), 0.0, 500, 3),
        (uniform(800, 64), 0.0, 2000, 15),
        (10 * uniform(9, 2), 0.1, 2000, 99),
    ],
    ids=["10000x784", "folded", "800x64", "9x2"],
)
def test_exact_denoiser(benchmark, points, variance, states, again):
    torch.set_num_threads(1)
    ones = torch.ones(len(points), dtype=torch.float64)
    model = IsotropicMixtureOracle(EDM(80.0), ones, points, variance * ones)
    earlier = Earlier(points, variance)
    found = {}

    def run():
        for name in ("denoiser", "log_density"):
            for sigma in NOISE:
                x = points[torch.arange(states) % len(points)]
                x = x + math.hypot(sigma, variance**0.5) * torch.randn(x.shape, dtype=torch.float64)
                seconds, ratios, value, expected = [], [], x, x
                for _ in range(again):
                    began = time.process_time()
                    expected = getattr(earlier, name)(x, sigma)
                    between = time.process_time()
                    value = getattr(model, name)(x, Level(0.5, 1.0, sigma))
                    seconds.append(time.process_time() - between)
                    ratios.append(seconds[-1] / (between - began))
                scale = points.abs().max() if name == "denoiser" else expected.abs().max()
                error = float((value - expected).abs().max() / scale)
                found[f"{name} {sigma:g}"] = (
                    f"{1e3 * median(seconds):.4g} ms, {median(ratios):.2f} times, error {error:.0e}"
                )

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= found
    print("", *(f"{name}: {text}" for name, text in found.items()), sep="\n")


class EarlierCovariances:
    """x̂₀ as it was before, for α = 1: a product of n states for each component."""

    def __init__(self, means: Tensor, covariances: Tensor) -> None:
        self.means = means
        self.eigenvalues, self.basis = torch.linalg.eigh(covariances)

    def denoiser(self, x: Tensor, sigma: float) -> Tensor:
        parts = []
        for states in torch.split(x, max(1, 2**17 // self.means.numel())):
            rotated = (states - self.means[:, None]) @ self.basis
            spread = self.eigenvalues[:, None] + sigma**2
            terms = rotated.square() / spread + torch.log(2 * math.pi * spread)
            weight = responsibilities(-0.5 * terms.sum(-1), 0)
            moved = weight[:, :, None] * (self.eigenvalues[:, None] / spread) * rotated
            parts.append(weight.T @ self.means + (moved @ self.basis.mT).sum(0))
        return torch.cat(parts)


@pytest.mark.parametrize(
    ("count", "dim", "states"), [(1016, 2, 500), (40, 2, 2000), (9, 2, 2000), (2, 16, 2000)]
)
def test_exact_denoiser_with_covariances(benchmark, count, dim, states):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    means = 10 * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    roots = torch.randn(count, dim, dim, generator=generator, dtype=torch.float64)
    covariances = roots @ roots.mT / dim
    model = MixtureOracle(EDM(80.0), torch.ones(count), means, covariances)
    earlier = EarlierCovariances(means, covariances)
    found = {}

    def run():
        for sigma in NOISE:
            x = means[torch.arange(states) % count]
            x = x + math.hypot(sigma, 0.3) * torch.randn(x.shape, dtype=torch.float64)
            ratios, error = [], 0.0
            for _ in range(15):
                began = time.process_time()
                expected = earlier.denoiser(x, sigma)
                between = time.process_time()
                value = model.denoiser(x, Level(0.5, 1.0, sigma))
                ratios.append((time.process_time() - between) / (between - began))
                error = float((value - expected).abs().max() / means.abs().max())
            found[f"{sigma:g}"] = f"{median(ratios):.2f} times, error {error:.0e}"

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= found
    print("", *(f"sigma {name}: {text}" for name, text in found.items()), sep="\n")
