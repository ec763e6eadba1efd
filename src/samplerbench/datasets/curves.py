"""Curves with Gaussian noise: x₀ = μ(u) + noise·z, u uniform on [0, P), z ~ N(0, I).

P is the number of smooth pieces of the curve μ; each is one unit of u long. The law is a mixture
with one component for every point of the curve, and so is the noised law:

    q(x) = 1/P·∫ N(x; α·μ(u), S·I) du,    S = α²·noise² + σ²,

    x̂₀(x) = E[μ(u) | x] + α·noise²/S·(x − α·E[μ(u) | x]).

The integrals are replaced by Gauss–Legendre sums. So the law becomes a mixture of round Gaussians,
and its denoiser an `IsotropicMixtureOracle`. The noise determines the number of nodes: along the
curve the integrand is a bump of width √S/α ≥ noise, and n nodes on a length of L widths have an
error of about e^{−8n²/L²}. There are `NODES` nodes on each panel of at most `PANEL` widths. For a
state at distance d outside a bend of radius R the bump is narrower by the factor √(1 + d/R). The
errors of x̂₀ (relative to the size of the data) and of log q are at most 1e-11 for states within
ten √S/α of the curve, at every level.
Further out, where the density is below e^{−50}, the error at low noise grows slowly, at most to the
distance between nodes. A larger √S/α needs fewer nodes: there are sets of nodes for the widths
noise, 2·noise, 4·noise, …, and a level uses the coarsest set for a width of at most √S/(2α).

Golub & Welsch, "Calculation of Gauss quadrature rules", Math. Comp. 23, 1969; Trefethen, "Is Gauss
quadrature better than Clenshaw–Curtis?", SIAM Review 50, 2008, for the rate.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from samplerbench.core.grids import AnyLevel
from samplerbench.core.models import Denoiser, IsotropicMixtureOracle
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import PlanarDataset
from samplerbench.errors import require

NODES = 48
PANEL = 12.0
MOST_NODES = 50_000


@dataclass(frozen=True, kw_only=True)
class NoisyCurve(PlanarDataset):
    """A plane curve convolved with N(0, noise²·I).

    Args:
        noise: standard deviation per coordinate, in the units of the data.
    """

    noise: float

    def __post_init__(self) -> None:
        require(0 < self.noise < math.inf, "noise", self.noise, "positive and finite")
        least = self.pieces * self.speed * NODES / (PANEL * MOST_NODES)
        message = f"at least {least:.2g}: the exact denoiser needs more than {MOST_NODES} nodes"
        require(self.noise >= least, "noise", self.noise, message)

    @property
    @abstractmethod
    def pieces(self) -> int:
        """P: u runs from 0 to P, and the curve is smooth between whole numbers."""

    @property
    @abstractmethod
    def speed(self) -> float:
        """The largest |dμ/du|: an upper bound of the arc length per unit of u."""

    @abstractmethod
    def curve(self, u: Tensor) -> Tensor:
        """μ(u), shape (*batch, 2), for parameters of shape (*batch,)."""

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draw uniform parameters, then add noise, shape (count, 2), float64."""
        u = torch.from_numpy(self.pieces * generator.random(count))
        return self.curve(u) + self.noise * torch.from_numpy(generator.standard_normal((count, 2)))

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        """The exact denoiser, up to the quadrature error stated above."""
        mixtures, width = [], self.noise
        while True:
            u, weights = self.nodes(width)
            variances = torch.full_like(u, self.noise**2)
            mixtures.append(IsotropicMixtureOracle(schedule, weights, self.curve(u), variances))
            if len(u) == self.pieces * NODES:
                return CurveOracle(schedule, mixtures, self.noise)
            width *= 2

    def nodes(self, width: float) -> tuple[Tensor, Tensor]:
        """Nodes u and weights, which add up to 1, for bumps of at least this width, float64."""
        panels = self.pieces * math.ceil(self.speed / (PANEL * width))
        x, w = np.polynomial.legendre.leggauss(NODES)
        u = self.pieces / panels * (np.arange(panels)[:, None] + 0.5 * (x + 1))
        weights = np.tile(0.5 * w / panels, panels)
        return torch.from_numpy(u.ravel()), torch.from_numpy(weights)


class CurveOracle(Denoiser):
    """Uses the coarsest quadrature mixture that is fine enough for the level.

    If every state has its own level, the lowest noise among them is used for all.

    Args:
        mixtures: the quadratures for bumps of width noise, 2·noise, 4·noise, ….
        noise: the noise of the curve, standard deviation per coordinate.
    """

    def __init__(
        self, schedule: NoiseSchedule, mixtures: list[IsotropicMixtureOracle], noise: float
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.mixtures = nn.ModuleList(mixtures)
        self.noise = noise

    def _at(self, level: AnyLevel) -> IsotropicMixtureOracle:
        alpha, sigma = (torch.as_tensor(v, dtype=torch.float64) for v in (level.alpha, level.sigma))
        # without signal σ/α is infinite, and any set is fine enough
        width = math.hypot(self.noise, float((sigma / alpha).min()))
        finest = math.log2(min(width / (2 * self.noise), 2.0 ** len(self.mixtures)))
        mixture = self.mixtures[min(max(0, math.floor(finest)), len(self.mixtures) - 1)]
        assert isinstance(mixture, IsotropicMixtureOracle)
        return mixture

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self._at(level).denoiser(x, level)

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        return self._at(level).derivative(x, level)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self._at(level).log_density(x, level)
