"""The swiss roll in the plane: an Archimedean spiral of one and a half turns, with Gaussian noise.

    μ(θ) = s·θ·(cos θ, sin θ),   θ uniform on [3π/2, 9π/2].

This is scikit-learn's `make_swiss_roll` (Marsland, "Machine learning: an algorithmic perspective",
2nd ed. 2014, Chapter 6) without its second coordinate. θ is uniform and not the arc length, so the
outer turns have fewer points per unit of length. Neighbouring turns are 2π·s apart. The defaults
are FFJORD's, `make_swiss_roll(noise=1.0)` divided by 5; other codes divide by 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.datasets.curves import NoisyCurve
from samplerbench.errors import require

FIRST, LAST = 1.5 * math.pi, 4.5 * math.pi


@dataclass(frozen=True, kw_only=True)
class SwissRoll(NoisyCurve):
    """A spiral with noise; mean (0.40, 0.04), std 1.34 and 1.40 at the defaults.

    scikit-learn, `sklearn.datasets.make_swiss_roll`; FFJORD (arXiv 1810.01367), `toy_data.py`.

    Args:
        scale: s, units of the data per radian.
        noise: standard deviation per coordinate, in the units of the data: not multiplied by s.
    """

    scale: float = 0.2
    noise: float = 0.2

    def __post_init__(self) -> None:
        require(0 < self.scale < math.inf, "scale", self.scale, "positive and finite")
        super().__post_init__()

    @property
    def pieces(self) -> int:
        return 1

    @property
    def speed(self) -> float:
        return (LAST - FIRST) * self.scale * math.hypot(1, LAST)

    def curve(self, u: Tensor) -> Tensor:
        """From the inner end, u = 0, to the outer one, u = 1."""
        theta = FIRST + (LAST - FIRST) * u
        return self.scale * theta.unsqueeze(-1) * torch.stack([theta.cos(), theta.sin()], -1)
