"""The Boltzmann law of the four-well potential of D3, with its exact denoiser.

    p(x) = exp(−β·V(x))/Z,    V(x) = 2·(x⁸ + B(x)),

    B(x) = Σ_j c_j·exp(−80·(x − m_j)²),    m = 0, ½, −½,  c = .8, .55, .3 .

x⁸ is a box with soft walls near ±1, and three bumps divide it into four wells. The noised law and
the denoiser are integrals over u = x₀. With κ = σ/α and y = x/α

    q(x) = ∫ p(u)·N(x; α·u, σ²) du ∝ ∫ exp(−h(u) − 2β·B(u)) du,    h(u) = 2β·u⁸ + (u − y)²/(2κ²) .

h is convex with its minimum at s, and 0 ≤ B ≤ 1. So the integrand is negligible where h exceeds its
minimum by `FALL`. s and both ends of the remaining interval come from Newton's method, which
converges from outside on a convex function. The difference as a polynomial in d = u − s,

    h(s + d) − h(s) = d²/(2κ²) + 2β·d²·(28s⁶ + 56s⁵d + 70s⁴d² + 56s³d³ + 28s²d⁴ + 8sd⁵ + d⁶) ,

does not cancel for small κ. The integrand is entire, so one Gauss–Legendre rule on each state's
interval converges like e^{−n²}. With `FEW` nodes below κ = `NARROW` and `MANY` above, x̂₀ is exact
to 4e-15 and log q to 1e-12 at every level, α = 0 and σ = 0 included, and at every distance from the
data. For κ < 1 the formula (α·x̂₀ − x)/σ² of the score would cancel. Integration by parts gives

    s(x) = −E[β·V′(x₀) | x_t = x]/α ,

without σ; at σ = 0 it is −β·V′, the drift of a Langevin sampler.

Trefethen, "Is Gauss quadrature better than Clenshaw–Curtis?", SIAM Review 50, 2008, for the rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel
from samplerbench.core.line_laws import DensityLine
from samplerbench.core.models import Denoiser
from samplerbench.core.responsibilities import log_sum, responsibilities
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require

#: Height and place of each bump, height·exp(−80·(x − place)²).
BUMPS = ((0.8, 0.0), (0.55, 0.5), (0.3, -0.5))

FALL = 45.0  # e^{−45} is below the rounding of a sum
FEW, MANY = 64, 192
NARROW = 0.03
PANELS = 128
ENTRIES = 2**16  # states × nodes at a time: half a megabyte, which stays in a cache


def potential(x: Tensor) -> Tensor:
    """V(x), elementwise."""
    return 2 * ((x * x) ** 2) ** 2 + 2 * _bumps(x)


def slope(x: Tensor) -> Tensor:
    """V′(x), elementwise."""
    total = 16 * x * (x * x) ** 3  # higher powers are ten times as slow
    for height, place in BUMPS:
        offset = x - place
        total = total - 2 * 160 * height * offset * _bump(offset)
    return total


def _bumps(x: Tensor) -> Tensor:
    """B(x), elementwise."""
    total = torch.zeros_like(x)
    for height, place in BUMPS:
        total = torch.add(total, _bump(x - place), alpha=height)
    return total


def _bump(offset: Tensor) -> Tensor:
    # exp takes ten times as long where it underflows
    return (offset * offset).mul_(-80).clamp_min_(-200).exp_()


def _exponent(x: Tensor, beta: float) -> Tensor:
    return -beta * potential(x)


@dataclass(frozen=True)
class FourWellBoltzmann(Dataset):
    """exp(−β·V(x))/Z; std 0.60 at β = 2.

    Args:
        beta: β, the inverse temperature, from 0.1 to 10, the range of the quadrature.
    """

    beta: float = 2.0

    def __post_init__(self) -> None:
        require_temperature(self.beta)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (1,)

    def line_law(self) -> DensityLine:
        """Distribution function, quantiles, moments and normaliser; exact to some 1e-15."""
        return _line(self.beta)

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Quantiles of uniform numbers, shape (count, 1), float64."""
        return self.from_uniforms(torch.from_numpy(generator.random((count, 1))))

    @property
    def uniform_dim(self) -> int:
        """One uniform number, for the quantile."""
        return 1

    def from_uniforms(self, u: Tensor) -> Tensor:
        """The quantile function."""
        return self.line_law().quantile(u[:, 0].double().cpu())[:, None]

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        return FourWellOracle(schedule, self.beta)


@lru_cache(maxsize=8)
def _line(beta: float) -> DensityLine:
    # βV = 172 at ±reach; less than e^{−160} of the mass is beyond
    reach = (86 / beta) ** 0.125
    edges = torch.linspace(-reach, reach, PANELS + 1, dtype=torch.float64)
    return DensityLine(partial(_exponent, beta=beta), edges)


def require_temperature(beta: float) -> None:
    """Refuse an inverse temperature outside the range of the quadrature."""
    require(0.1 <= beta <= 10, "beta", beta, "from 0.1 to 10")


class FourWellOracle(Denoiser):
    """The exact denoiser of `FourWellBoltzmann`, in float64; the result has the state's dtype.

    It costs four exponentials per state and node, with `FEW` nodes if all states have less noise
    than `NARROW`, else `MANY`. It works on a few states at a time, in bounded memory.

    Args:
        beta: β.
    """

    few: Tensor
    few_weights: Tensor
    many: Tensor
    many_weights: Tensor

    def __init__(self, schedule: NoiseSchedule, beta: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.beta = beta
        self._log_mass = _line(beta).log_mass
        for name, count in (("few", FEW), ("many", MANY)):
            nodes, weights = np.polynomial.legendre.leggauss(count)
            self.register_buffer(name, torch.from_numpy((nodes + 1) / 2))
            self.register_buffer(f"{name}_weights", torch.from_numpy(np.log(weights / 2)))

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """E[u | x]."""
        return self._in_chunks(self._mean, x, level).reshape(x.shape).to(x.dtype)

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """J = (α/σ²)·Var[u | x], or 1/α without noise."""
        columns = self._in_chunks(self._mean_and_slope, x, level).to(x.dtype)
        return columns[0].reshape(x.shape), columns[1].reshape(*x.shape, 1)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """−E[β·V′(u) | x]/α, or (α·x̂₀ − x)/σ² for more noise than signal."""
        if _without_noise(level):
            return (-self.beta * slope(x.double() / level.alpha) / level.alpha).to(x.dtype)
        return self._in_chunks(self._score, x, level).reshape(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        if _without_noise(level):
            assert isinstance(level.alpha, float)
            exponent = _exponent(x.double() / level.alpha, self.beta)
            log_q = exponent[..., 0] - self._log_mass - math.log(level.alpha)
        else:
            log_q = self._in_chunks(self._log_density, x, level).reshape(x.shape[:-1])
        return log_q.to(x.dtype)

    def _mean(self, at: _Intervals) -> Tensor:
        offset, logs = self._posterior(at)
        return at.mode + (responsibilities(logs, 0) * offset).sum(0)

    def _mean_and_slope(self, at: _Intervals) -> Tensor:
        offset, logs = self._posterior(at)
        share = responsibilities(logs, 0)
        mean = (share * offset).sum(0)
        spread = (share * (offset - mean).square()).sum(0)
        return torch.stack([at.mode + mean, spread * at.alpha / at.sigma.square()])

    def _score(self, at: _Intervals) -> Tensor:
        offset, logs = self._posterior(at)
        share = responsibilities(logs, 0)
        force = (share * slope(at.mode + offset)).sum(0)
        noisy = at.alpha * (at.mode + (share * offset).sum(0)) - at.x
        little = at.sigma < at.alpha
        return torch.where(little, -self.beta * force / at.alpha, noisy / at.sigma**2)

    def _log_density(self, at: _Intervals) -> Tensor:
        _, logs = self._posterior(at)
        # (x − α·s)/σ; with little noise it cancels, and h′(s) = 0 gives its value
        little, pull = at.sigma < at.alpha, 16 * self.beta * at.mode**7
        gap = torch.where(
            little, pull * at.sigma / at.alpha, (at.x - at.alpha * at.mode) / at.sigma
        )
        least = -2 * self.beta * at.mode**8 - 0.5 * gap.square()
        length = ((at.high - at.low) / at.sigma).log()
        return least + length + log_sum(logs, 0) - 0.5 * math.log(2 * math.pi) - self._log_mass

    def _posterior(self, at: _Intervals) -> tuple[Tensor, Tensor]:
        """u − s, and the nodes' log weights relative to exp(−h(s)) and the interval: (nodes, n).

        Nodes are along the first axis, where the values of a state broadcast fastest.
        """
        few = bool((at.sigma < NARROW * at.alpha).all())
        nodes, log_weights = (self.few, self.few_weights) if few else (self.many, self.many_weights)
        offset = at.low + (at.high - at.low) * nodes[:, None]
        rise = self._rise(at.mode, offset, at.precision)
        bumps = _bumps(at.mode + offset)
        return offset, (log_weights[:, None] - rise).sub_(bumps, alpha=2 * self.beta)

    def _mode(self, pull: Tensor, precision: Tensor) -> Tensor:
        """s, the root of 16β·s⁷ + s/κ² = α·x/σ², by Newton's method from outside."""
        size, steep = pull.abs(), 16 * self.beta
        tiny = torch.finfo(pull.dtype).tiny
        s = torch.minimum(size / precision.clamp_min(tiny), (size / steep) ** (1 / 7))
        for _ in range(8):
            excess = steep * s**7 + precision * s - size
            s = s - excess / (7 * steep * s**6 + precision).clamp_min(tiny)
        return torch.copysign(s, pull)

    def _end(self, side: float, mode: Tensor, precision: Tensor) -> Tensor:
        """The d on one side with h(s + d) − h(s) = `FALL`, by Newton's method from outside."""
        # the polynomial in s and d is at least 4·s⁶ and .029·d⁶
        curvature = 0.5 * precision + 8 * self.beta * mode**6
        farthest = (FALL / (0.058 * self.beta)) ** 0.125
        d = side * (FALL / curvature).sqrt().clamp_max(farthest)
        for _ in range(8):
            rate = precision * d + 16 * self.beta * ((mode + d) ** 7 - mode**7)
            d = d - (self._rise(mode, d, precision) - FALL) / rate
        return d

    def _rise(self, s: Tensor, d: Tensor, precision: Tensor) -> Tensor:
        """h(s + d) − h(s), by Horner's rule in d."""
        scale = 2 * self.beta
        total = torch.add(scale * 8 * s, d, alpha=scale)
        for power, binomial in ((2, 28), (3, 56), (4, 70), (5, 56)):
            total = torch.addcmul(scale * binomial * s**power, total, d)
        total = torch.addcmul(0.5 * precision + scale * 28 * s**6, total, d)
        return total * (d * d)

    def _in_chunks(
        self, function: Callable[[_Intervals], Tensor], x: Tensor, level: AnyLevel
    ) -> Tensor:
        """Evaluate the function on n states, shape (n,), a few states at a time."""
        flat = x.double().reshape(-1)
        alpha, sigma = (
            torch.as_tensor(scale, dtype=torch.float64, device=x.device).expand(x.shape).reshape(-1)
            for scale in (level.alpha, level.sigma)
        )
        # treat σ = 0 as very little noise, to avoid divisions by 0 below
        sigma = torch.maximum(sigma, 1e-90 * alpha)
        precision = (alpha / sigma).square()
        mode = self._mode(alpha * flat / sigma**2, precision)
        low, high = (self._end(side, mode, precision) for side in (-1.0, 1.0))
        parts = (flat, alpha, sigma, precision, mode, low, high)
        columns = (torch.split(part, ENTRIES // MANY) for part in parts)
        return torch.cat([function(_Intervals(*rows)) for rows in zip(*columns, strict=True)], -1)


class _Intervals(NamedTuple):
    """States, their scales, and the intervals of their integrals, shape (n,) each."""

    x: Tensor  # states
    alpha: Tensor  # α
    sigma: Tensor  # σ
    precision: Tensor  # 1/κ²
    mode: Tensor  # s
    low: Tensor  # the lower end of the interval, relative to s
    high: Tensor  # the upper end


def _without_noise(level: AnyLevel) -> bool:
    return not isinstance(level.sigma, Tensor) and level.sigma == 0
