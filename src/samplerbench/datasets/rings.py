"""Rings: concentric circles with Gaussian noise.

    x₀ = R·(cos θ, sin θ) + noise·z,   θ uniform on [0, 2π), R one of the radii with equal chance.

The integral over a uniform angle is a Bessel function, so the noised law has a closed form. With
ρ = ‖x‖, S = α²·noise² + σ² and κ_j = α·R_j·ρ/S,

    q(x) = 1/J·Σ_j 1/(2πS)·exp(−(ρ² + α²R_j²)/(2S))·I₀(κ_j)
         = 1/J·Σ_j 1/(2πS)·exp(−(ρ − αR_j)²/(2S))·e^{−κ_j}I₀(κ_j),

    m(x) = x/ρ·Σ_j r_j·R_j·I₁(κ_j)/I₀(κ_j),   x̂₀ = m + α·noise²/S·(x − α·m),

where r_j are the normalised terms of q(x): given x, the angle on a circle has a von Mises law with
concentration κ_j (Mardia & Jupp, "Directional statistics", 1999, Section 3.5.4). The second form of
q neither overflows nor cancels, so x̂₀ is exact at every level and distance. It needs J Bessel
functions.

The defaults are FFJORD's "rings": radii 3/4, 3/2, 9/4 and 3, noise 0.08 (arXiv 1810.01367,
`toy_data.py`). scikit-learn's `make_circles(factor=0.5)` has the radii 1 and 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel
from samplerbench.core.models import Denoiser
from samplerbench.core.responsibilities import log_sum, responsibilities
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import PlanarDataset
from samplerbench.errors import require


@dataclass(frozen=True)
class Rings(PlanarDataset):
    """Circles about the origin with noise; std 1.46 per coordinate at the defaults.

    Args:
        radii: one for each ring, in the units of the data, positive; rings have equal weights.
        noise: standard deviation per coordinate, in the same units.
    """

    radii: tuple[float, ...] = (0.75, 1.5, 2.25, 3.0)
    noise: float = 0.08

    def __post_init__(self) -> None:
        allowed = "a list of positive, finite radii, not empty"
        require(len(self.radii) > 0, "radii", self.radii, allowed)
        for radius in self.radii:
            require(0 < radius < math.inf, "radii", self.radii, allowed)
        require(0 < self.noise < math.inf, "noise", self.noise, "positive and finite")

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draw rings and angles, then add noise, shape (count, 2), float64."""
        radius = np.array(self.radii)[generator.integers(len(self.radii), size=count)]
        angle = 2 * np.pi * generator.random(count)
        circle = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        return torch.from_numpy(circle + self.noise * generator.standard_normal((count, 2)))

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        return RingsOracle(schedule, torch.tensor(self.radii, dtype=torch.float64), self.noise)


class RingsOracle(Denoiser):
    """The exact denoiser of equally weighted rings, in float64; the result has the state's dtype.

    Args:
        radii: shape (J,).
        noise: standard deviation per coordinate.
    """

    radii: Tensor

    def __init__(self, schedule: NoiseSchedule, radii: Tensor, noise: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.noise = noise
        self.register_buffer("radii", radii.double())

    def _log_joint(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The logarithms of the terms of q(x) and κ, shape (*batch, J); ρ and S of (*batch, 1)."""
        alpha, sigma = level.alpha, level.sigma
        spread = torch.as_tensor(
            alpha**2 * self.noise**2 + sigma**2, dtype=x.dtype, device=x.device
        )
        rho = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        kappa = alpha * rho * self.radii / spread
        distance = (rho - alpha * self.radii).square() / (2 * spread)
        log_volume = torch.log(2 * math.pi * len(self.radii) * spread)
        return torch.special.i0e(kappa).log() - distance - log_volume, kappa, rho, spread

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """m + α·noise²/S·(x − α·m)."""
        state = x.double()
        log_joint, kappa, rho, spread = self._log_joint(state, level)
        shrink = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        radius = (responsibilities(log_joint, -1) * self.radii * shrink).sum(-1, keepdim=True)
        # at ρ = 0 the pulls of every ring in all directions cancel, and shrink is 0
        centre = radius * state / rho.clamp_min(torch.finfo(torch.float64).tiny)
        gain = level.alpha * self.noise**2 / spread
        x0_hat: Tensor = centre + gain * (state - level.alpha * centre)
        return x0_hat.to(x.dtype)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        log_joint, *_ = self._log_joint(x.double(), level)
        return log_sum(log_joint, -1).to(x.dtype)
