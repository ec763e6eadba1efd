"""Two moons: two interleaved half circles, with Gaussian noise.

    μ(θ) = ±R·(cos θ − ½, sin θ − ¼),   θ uniform on [0, π], either sign with probability ½.

This is scikit-learn's `make_moons`, (cos θ, sin θ) and (1 − cos θ, ½ − sin θ), moved so that it is
symmetric about the origin, and multiplied by R. There the angles are equally spaced; here they are
random, so that draws are independent. The defaults are FFJORD's: `make_moons(noise=0.1)·2 + (−1,
−0.2)`, which differs by the shift (0, 0.3). torchcfm uses `generate_moons(noise=0.2)·3 − 1`: R = 3,
noise = 0.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.datasets.curves import NoisyCurve
from samplerbench.errors import require


@dataclass(frozen=True, kw_only=True)
class TwoMoons(NoisyCurve):
    """Two half circles with noise; mean 0, std 1.74 and 1.01 at the defaults.

    scikit-learn, `sklearn.datasets.make_moons`; FFJORD (arXiv 1810.01367), `toy_data.py`.

    Args:
        radius: R, of both half circles, in the units of the data.
        noise: standard deviation per coordinate, in the units of the data: not multiplied by R.
    """

    radius: float = 2.0
    noise: float = 0.2

    def __post_init__(self) -> None:
        require(0 < self.radius < math.inf, "radius", self.radius, "positive and finite")
        super().__post_init__()

    @property
    def pieces(self) -> int:
        return 2

    @property
    def speed(self) -> float:
        return math.pi * self.radius

    def curve(self, u: Tensor) -> Tensor:
        """The first moon for u in [0, 1), the second for u in [1, 2)."""
        moon = u.floor()
        theta = math.pi * (u - moon)
        upper = torch.stack([theta.cos() - 0.5, theta.sin() - 0.25], -1)
        return self.radius * (1 - 2 * moon).unsqueeze(-1) * upper
