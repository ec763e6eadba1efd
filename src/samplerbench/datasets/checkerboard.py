"""The checkerboard: the uniform law on the dark squares of a board.

    q(x) = 1/(B·s²) where ⌊(x₁ + c)/s⌋ + ⌊(x₂ + c)/s⌋ is even, |x₁|, |x₂| < c,   c = n·s/2

for n × n squares of side s, B = ⌈n²/2⌉ of them dark. A square is a product of intervals [a_i, a_i +
s], so the noised law is a sum of products of one-dimensional integrals:

    q_t(x) = 1/(B·s²)·Σ_{i + j even} L_i(x₁)·L_j(x₂),

    L_i(y) = ∫_{a_i}^{a_i + s} N(y; α·u, σ²) du = 1/α·(Φ((y − α·a_i)/σ) − Φ((y − α·a_i − α·s)/σ)),

and x̂₀ is the average of the means of truncated Gaussians, with these products as weights. The
differences of Φ lose all digits if the noise is much larger than a square, and underflow far from
the square; logarithms do not help. The integral has no such problem: its integrand is positive.
Between its mode in [a_i, a_i + s] and the point where it has fallen by e^{−45} it is the
exponential of a quadratic polynomial, and `NODES` Gauss–Legendre nodes are exact to rounding. So x̂₀
and log q_t have relative errors of about 1e-14 at every level, α = 0 included, and at every
distance.

n = 4 and s = 2 is FFJORD's checkerboard on [−4, 4]² (Grathwohl et al., ICLR 2019, arXiv 1810.01367,
`toy_data.py`); the squares at the lower left and the upper right are dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel
from samplerbench.core.models import Denoiser
from samplerbench.core.responsibilities import fall_, log_sum, relative_terms_, responsibilities
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import PlanarDataset
from samplerbench.errors import InvalidSetting, require

NODES = 40
FALL = 45.0  # e^{−45} is below the rounding of a sum


@dataclass(frozen=True)
class Checkerboard(PlanarDataset):
    """The uniform law on the dark squares, centred at 0; std 2.31 per coordinate at the defaults.

    Args:
        squares: n, the number of squares along each side of the board.
        side: s, the side of one square, in the units of the data.
    """

    squares: int = 4
    side: float = 2.0

    def __post_init__(self) -> None:
        require(1 <= self.squares <= 64, "squares", self.squares, "a number from 1 to 64")
        require(0 < self.side < math.inf, "side", self.side, "positive and finite")

    def log_density(self, x: Tensor) -> Tensor:
        allowed = (
            "a data set whose density is positive everywhere: between the squares of this board "
            "it is 0, and samplers have points there, so the divergence is infinite"
        )
        raise InvalidSetting("dataset", "checkerboard", allowed)

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draw dark squares, then points in them, shape (count, 2), float64."""
        index = np.arange(self.squares)
        dark = np.argwhere((index[:, None] + index) % 2 == 0)
        corner = dark[generator.integers(len(dark), size=count)] - self.squares / 2
        return torch.from_numpy(self.side * (corner + generator.random((count, 2))))

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        return CheckerboardOracle(schedule, self.squares, self.side)


#: The number of states at one level that are evaluated at a time: their tables fit into the cache.
PIECE = 256


class CheckerboardOracle(Denoiser):
    """The exact denoiser of the checkerboard, in float64; the result has the state's dtype.

    It costs 2·n·`NODES` exponentials per state.

    Args:
        squares: n, the number of squares along each side of the board.
        side: s, the side of one square.
    """

    lower: Tensor
    upper: Tensor
    nodes: Tensor
    log_weights: Tensor

    def __init__(self, schedule: NoiseSchedule, squares: int, side: float) -> None:
        super().__init__()
        self.schedule = schedule
        edges = side * (torch.arange(squares + 1, dtype=torch.float64) - squares / 2)
        x, w = np.polynomial.legendre.leggauss(NODES)
        self.register_buffer("lower", edges[:-1])
        self.register_buffer("upper", edges[1:])
        self.register_buffer("nodes", torch.from_numpy(0.5 * (x + 1)))
        self.register_buffer("log_weights", torch.from_numpy(np.log(0.5 * w)))
        self._log_area = math.log((squares**2 + 1) // 2) + 2 * math.log(side)

    def _intervals(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor, Tensor]:
        """log L_i − e, E[u | i], and e, the exponent at the point of the board nearest to x.

        The shapes are (*batch, 2, n), (*batch, 2, n) and (*batch, 2): all are per coordinate.
        """
        alpha, sigma = (
            torch.as_tensor(scale, dtype=x.dtype, device=x.device).unsqueeze(-1)
            for scale in (level.alpha, level.sigma)
        )
        y = x.unsqueeze(-1)
        free = y / alpha.clamp_min(torch.finfo(x.dtype).tiny)
        mode = torch.minimum(torch.maximum(free, self.lower), self.upper)
        nearest = torch.minimum(torch.maximum(free, self.lower[0]), self.upper[-1])
        slope = alpha * (y - alpha * mode) / sigma**2
        precision = (alpha / sigma).square()
        # the positive root of |slope|·w + precision·w²/2 = FALL; infinite where both vanish
        width = 2 * FALL / (slope.abs() + (slope**2 + 2 * FALL * precision).sqrt())
        low = torch.maximum(self.lower - mode, -width).unsqueeze(-1)
        length = torch.minimum(self.upper - mode, width).unsqueeze(-1) - low
        offset = low + length * self.nodes
        exponent = offset * (slope.unsqueeze(-1) - 0.5 * precision.unsqueeze(-1) * offset)
        top, below = fall_(self.log_weights + exponent, -1)
        terms = relative_terms_(below)
        total = terms.sum(-1)
        mean = mode + (terms * offset).sum(-1) / total
        # as a product: the difference of two squares would cancel far from the board
        fall = alpha * (mode - nearest) * (2 * y - alpha * (mode + nearest)) / (2 * sigma**2)
        base = -((y - alpha * nearest) / sigma).square() / 2 - 0.5 * torch.log(
            2 * math.pi * sigma**2
        )
        log_mass = fall + length.squeeze(-1).log() + top.squeeze(-1) + total.log()
        return log_mass, mean, base.squeeze(-1)

    def _parities(self, log_mass: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """log Σ L_i over the even and the odd intervals, and E[u] on each, shape (*batch, 2, 2)."""
        logs, means = [], []
        for parity in range(min(2, log_mass.shape[-1])):
            part = log_mass[..., parity::2]
            logs.append(log_sum(part, -1))
            means.append((responsibilities(part, -1) * mean[..., parity::2]).sum(-1))
        return torch.stack(logs, -1), torch.stack(means, -1)

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """Σ over parities of P(parity | x)·E[u | parity, x], for each coordinate."""
        if isinstance(level.alpha, Tensor) or x.ndim != 2 or len(x) <= PIECE:
            return self._mean(x, level)
        return torch.cat([self._mean(part, level) for part in torch.split(x, PIECE)])

    def _mean(self, x: Tensor, level: AnyLevel) -> Tensor:
        log_mass, mean, _ = self._intervals(x.double(), level)
        logs, means = self._parities(log_mass, mean)
        weight = responsibilities(logs.sum(-2, keepdim=True), -1)
        return (weight * means).sum(-1).to(x.dtype)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        log_mass, mean, base = self._intervals(x.double(), level)
        logs, _ = self._parities(log_mass, mean)
        log_q = log_sum(logs.sum(-2), -1) + base.sum(-1) - self._log_area
        return log_q.to(x.dtype)
