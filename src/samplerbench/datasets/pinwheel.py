"""The pinwheel: arms of Gaussian points, bent more the further they are from the centre.

    (ρ, τ) ~ N((1, 0), diag(a², b²)),   k uniform on 0, …, K − 1,   φ = 2πk/K + rate·e^ρ,

    x₀ = s·(ρ·cos φ + τ·sin φ, τ·cos φ − ρ·sin φ):

the point (ρ, τ) is rotated clockwise by φ, then scaled. E[x₀] = 0, and the covariance is
s²/2·(1 + a² + b²)·I for K ≥ 3. Given ρ and k the law is a Gaussian on a line. The integral over ρ
has no closed form, and at low noise no fixed quadrature is accurate, since the law has no width
across those lines. So there is no oracle; `empirical` has the ideal denoiser of a finite set of
draws.

Johnson, Duvenaud, Wiltschko, Datta, Adams, "Composing graphical models with neural networks for
structured representations and fast inference", NeurIPS 2016 (arXiv 1603.06277), Figure 1 and its
code; with the numbers of FFJORD (arXiv 1810.01367, `toy_data.py`), the defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.datasets.base import PlanarDataset
from samplerbench.errors import require


@dataclass(frozen=True)
class Pinwheel(PlanarDataset):
    """Bent arms about the origin; mean 0, std 1.48 per coordinate at the defaults.

    Args:
        arms: K.
        radial_std: a, along an arm, before scaling.
        tangential_std: b, across an arm, before scaling.
        rate: the factor of e^ρ in φ, which bends the arms, in radians.
        scale: s, multiplies every draw.
    """

    arms: int = 5
    radial_std: float = 0.3
    tangential_std: float = 0.1
    rate: float = 0.25
    scale: float = 2.0

    def __post_init__(self) -> None:
        require(self.arms >= 1, "arms", self.arms, "at least 1")
        for name in ("radial_std", "tangential_std"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "at least 0 and finite")
        require(math.isfinite(self.rate), "rate", self.rate, "finite")
        require(0 < self.scale < math.inf, "scale", self.scale, "positive and finite")

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draw arms and points in them, then rotate the points, shape (count, 2), float64."""
        arm = generator.integers(self.arms, size=count)
        z = generator.standard_normal((count, 2))
        rho, tau = 1 + self.radial_std * z[:, 0], self.tangential_std * z[:, 1]
        phi = 2 * np.pi * arm / self.arms + self.rate * np.exp(rho)
        cos, sin = np.cos(phi), np.sin(phi)
        return torch.from_numpy(
            self.scale * np.stack([rho * cos + tau * sin, tau * cos - rho * sin], -1)
        )
