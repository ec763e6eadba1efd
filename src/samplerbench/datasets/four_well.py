"""D3, four wells: a Brownian particle on a line, its trajectory and its law in the long run.

    V(x) = 2·(x⁸ + B(x)),    B(x) = Σ_j c_j·exp(−80·(x − m_j)²),    m = 0, ½, −½,  c = .8, .55, .3,

    dX = −V′(X) dt + √(2/β) dW .

x⁸ is a box with soft walls near ±1, which three bumps divide into four wells. The data of the
notebook "Train a score-based diffusion model to generate a 1d distribution". Two data sets:

- `FourWell`, the trajectory X ← X − V′(X)·dt + √(2·dt/β)·z from X = 0: a finite set of points that
  depend on each other. Crossing a bump takes hundreds of steps, so 10 000 of them are few: the
  trajectory is W₁ = .162 from its law, 29 times what as many independent draws would be, with
  .329, .336, .241, .094 of its states in the wells where the law has .232, .303, .267, .198;
- `FourWellBoltzmann`, the law p(x) = exp(−β·V(x))/Z that it approaches, but for its finite step.

The noised law and the denoiser of p are integrals over u = x₀. With κ = σ/α and y = x/α

    q(x) = ∫ p(u)·N(x; α·u, σ²) du ∝ ∫ exp(−h(u) − 2β·B(u)) du,    h(u) = 2β·u⁸ + (u − y)²/(2κ²) .

h is convex and B lies between 0 and 1, so the integrand is next to nothing where h is `FALL` above
its least value, at s. Both ends of what is left follow from Newton's method, which on a convex
function comes from outside and stays there, and so does s. As a polynomial in d = u − s

    h(s + d) − h(s) = d²/(2κ²) + 2β·d²·(28s⁶ + 56s⁵d + 70s⁴d² + 56s³d³ + 28s²d⁴ + 8sd⁵ + d⁶) ,

does not cancel where κ is small. The integrand is entire, and one Gauss–Legendre rule over
its interval, made for each state, converges like e^{−n²}: with `FEW` nodes below κ = `NARROW` and
`MANY` above, x̂₀ is exact to 4e-15 and log q to 1e-12 at every level, α = 0 and σ = 0 included, and
at every distance from the data. Where κ < 1 the score is not (α·x̂₀ − x)/σ², which cancels, but

    s(x) = −E[β·V′(x₀) | x_t = x]/α ,

which is the same by an integration by parts, has no σ, and at σ = 0 is −β·V′: what a Langevin
sampler asks for.

Risken, "The Fokker–Planck equation", 2nd ed., Springer 1989, Chapter 5, for the law in the long
run; Trefethen, "Is Gauss quadrature better than Clenshaw–Curtis?", SIAM Review 50, 2008, for the
rate.
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
from samplerbench.core.noise import generator as keyed
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.file import KEYS
from samplerbench.errors import InvalidSetting, require

BUMPS = ((0.8, 0.0), (0.55, 0.5), (0.3, -0.5))
"""Heights and places; each is exp(−80·(x − place)²) wide."""

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
        beta: β, the inverse temperature, from 0.1 to 10: what the quadrature is made for.
    """

    beta: float = 2.0

    def __post_init__(self) -> None:
        _require_temperature(self.beta)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (1,)

    def line_law(self) -> DensityLine:
        """Distribution function, quantiles, moments and normaliser; exact to some 1e-15."""
        return _line(self.beta)

    def log_density(self, x: Tensor) -> Tensor:
        """−β·V(x) − ln Z, elementwise."""
        return _exponent(x, self.beta) - self.line_law().log_mass

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
        """The exact denoiser."""
        return FourWellOracle(schedule, self.beta)


@lru_cache(maxsize=8)
def _line(beta: float) -> DensityLine:
    # βV = 172 there, and less than e^{−160} of the mass lies beyond
    reach = (86 / beta) ** 0.125
    edges = torch.linspace(-reach, reach, PANELS + 1, dtype=torch.float64)
    return DensityLine(partial(_exponent, beta=beta), edges)


def _require_temperature(beta: float) -> None:
    require(0.1 <= beta <= 10, "beta", beta, "from 0.1 to 10")


class FourWellOracle(Denoiser):
    """The exact denoiser of `FourWellBoltzmann`, in float64; the result has the state's dtype.

    Four exponentials per state and node: `MANY` nodes, `FEW` where no state has more noise than
    `NARROW`. A few states are worked on at a time, so that memory is bounded.

    Args:
        schedule: the path.
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

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """−E[β·V′(u) | x]/α, and (α·x̂₀ − x)/σ² where there is more noise than signal."""
        if _without_noise(level):
            return (-self.beta * slope(x.double() / level.alpha) / level.alpha).to(x.dtype)
        return self._in_chunks(self._score, x, level).reshape(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        """log q(x), shape (*batch,)."""
        if _without_noise(level):
            assert isinstance(level.alpha, float)
            exponent = _exponent(x.double() / level.alpha, self.beta)
            log_q = exponent[..., 0] - self._log_mass - math.log(level.alpha)
        else:
            log_q = self._in_chunks(self._log_density, x, level).reshape(x.shape[:-1])
        return log_q.to(x.dtype)

    def _mean(self, at: _Intervals) -> Tensor:
        offset, logs = self._posterior(at)
        return at.mode + (logs.softmax(0) * offset).sum(0)

    def _score(self, at: _Intervals) -> Tensor:
        offset, logs = self._posterior(at)
        share = logs.softmax(0)
        force = (share * slope(at.mode + offset)).sum(0)
        noisy = at.alpha * (at.mode + (share * offset).sum(0)) - at.x
        little = at.sigma < at.alpha
        return torch.where(little, -self.beta * force / at.alpha, noisy / at.sigma**2)

    def _log_density(self, at: _Intervals) -> Tensor:
        _, logs = self._posterior(at)
        # (x − α·s)/σ, which cancels where there is little noise; h′(s) = 0 says what it is
        little, pull = at.sigma < at.alpha, 16 * self.beta * at.mode**7
        gap = torch.where(
            little, pull * at.sigma / at.alpha, (at.x - at.alpha * at.mode) / at.sigma
        )
        least = -2 * self.beta * at.mode**8 - 0.5 * gap.square()
        length = ((at.high - at.low) / at.sigma).log()
        return least + length + logs.logsumexp(0) - 0.5 * math.log(2 * math.pi) - self._log_mass

    def _posterior(self, at: _Intervals) -> tuple[Tensor, Tensor]:
        """u − s, and the nodes' log weights relative to exp(−h(s)) and the interval: (nodes, n).

        Nodes run along the first axis: what belongs to a state is then broadcast at full speed.
        """
        few = bool((at.sigma < NARROW * at.alpha).all())
        nodes, log_weights = (self.few, self.few_weights) if few else (self.many, self.many_weights)
        offset = at.low + (at.high - at.low) * nodes[:, None]
        rise = self._rise(at.mode, offset, at.precision)
        bumps = _bumps(at.mode + offset)
        return offset, (log_weights[:, None] - rise).sub_(bumps, alpha=2 * self.beta)

    def _mode(self, pull: Tensor, precision: Tensor) -> Tensor:
        """s, where 16β·s⁷ + s/κ² = α·x/σ²; by Newton's method from outside."""
        size, steep = pull.abs(), 16 * self.beta
        tiny = torch.finfo(pull.dtype).tiny
        s = torch.minimum(size / precision.clamp_min(tiny), (size / steep) ** (1 / 7))
        for _ in range(8):
            excess = steep * s**7 + precision * s - size
            s = s - excess / (7 * steep * s**6 + precision).clamp_min(tiny)
        return torch.copysign(s, pull)

    def _end(self, side: float, mode: Tensor, precision: Tensor) -> Tensor:
        """d beyond which h is at least `FALL` above h(s), on one side; by Newton from outside."""
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
        """The function of n states, shape (n,), a few states at a time."""
        flat = x.double().reshape(-1)
        alpha, sigma = (
            torch.as_tensor(scale, dtype=torch.float64, device=x.device).expand(x.shape).reshape(-1)
            for scale in (level.alpha, level.sigma)
        )
        # no noise is very little noise: nothing below divides by 0
        sigma = torch.maximum(sigma, 1e-90 * alpha)
        precision = (alpha / sigma).square()
        mode = self._mode(alpha * flat / sigma**2, precision)
        low, high = (self._end(side, mode, precision) for side in (-1.0, 1.0))
        parts = (flat, alpha, sigma, precision, mode, low, high)
        columns = (torch.split(part, ENTRIES // MANY) for part in parts)
        return torch.cat([function(_Intervals(*rows)) for rows in zip(*columns, strict=True)])


class _Intervals(NamedTuple):
    """States, their scales, and where their integrals are, shape (n,) each.

    Attributes:
        x: states.
        alpha: α.
        sigma: σ.
        precision: 1/κ².
        mode: s.
        low: where the interval begins, relative to s.
        high: where it ends.
    """

    x: Tensor
    alpha: Tensor
    sigma: Tensor
    precision: Tensor
    mode: Tensor
    low: Tensor
    high: Tensor


def _without_noise(level: AnyLevel) -> bool:
    return not isinstance(level.sigma, Tensor) and level.sigma == 0


@dataclass(frozen=True)
class FourWell(Dataset):
    """The states X_1, …, X_n of one trajectory, and their empirical law; the start X_0 = 0 is none.

    It is the data set itself that samples are compared with, as in the notebook: `draws` for
    training, validation and evaluation are states without repetition, and all of them in the order
    of time where as many are asked for. These draws share states, so a validation loss is not of
    unseen data, and a distance to the evaluation points is to the very points of the training: how
    well the model reproduces its data, not how well it generalises.

    Every other draw, such as a start or the floor, is of the empirical law: states with repetition,
    independent of each other. So the floor is the distance of n draws from the trajectory to the
    trajectory: what a sampler shows that reproduces its data perfectly. How far the trajectory is
    from the law that it stands for is not in it: `boltzmann` and metric=w_law_1d tell.

    Args:
        dt: step of time.
        beta: β, the inverse temperature, from 0.1 to 10.
        steps: n, and how many states there are.
        seed: of NumPy's default generator, which draws the z; data_seed only chooses states.
    """

    dt: float = 0.005
    beta: float = 2.0
    steps: int = 10_000
    seed: int = 42

    def __post_init__(self) -> None:
        require(0 < self.dt < math.inf, "dt", self.dt, "positive and finite")
        _require_temperature(self.beta)
        require(1 <= self.steps <= 10**7, "steps", self.steps, "from 1 to 10 000 000")
        require(self.seed >= 0, "seed", self.seed, "at least 0")

    @property
    def trajectory(self) -> Tensor:
        """The states in the order of time, dt apart, shape (steps,), float64; not to be written to.

        Raises:
            InvalidSetting: dt is so large that the walls throw the particle out.
        """
        return _trajectory(self.dt, self.beta, self.steps, self.seed)

    @property
    def boltzmann(self) -> FourWellBoltzmann:
        """The law that the trajectory approaches in the long run, for small dt."""
        return FourWellBoltzmann(self.beta)

    @property
    def law(self) -> Empirical:
        """The empirical law of the states."""
        return Empirical(self.trajectory[:, None])

    @property
    def known_law(self) -> bool:
        return False

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (1,)

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """States with repetition, shape (count, 1), float64."""
        return self.law.sample(count, generator)

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        """The ideal denoiser of the states; it knows nothing of the Boltzmann law."""
        return self.law.oracle(schedule)

    def line_law(self) -> DensityLine:
        """The Boltzmann law, not the empirical one."""
        return self.boltzmann.line_law()

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """States for a purpose, shape (count, 1), float64; see the class.

        Raises:
            InvalidSetting: naming the key that asked for more states than there are.
        """
        if purpose not in ("train", "validation", "evaluation"):
            return super().draws(count, purpose, *key)
        states = self.trajectory[:, None]
        allowed = f"at most {len(states)}: dataset.steps, the states of the trajectory"
        require(count <= len(states), KEYS[purpose], count, allowed)
        if count == len(states):
            return states.clone()
        chosen = keyed("data", purpose, *key).permutation(len(states))[:count]
        return states[torch.from_numpy(chosen)]


@lru_cache(maxsize=4)
def _trajectory(dt: float, beta: float, steps: int, seed: int) -> Tensor:
    # 10 000 steps are 10 ms in Python's floats and 200 ms in NumPy's
    scale, exp = math.sqrt(2 * dt / beta), math.exp
    states = np.empty(steps)
    x = 0.0
    try:
        for step, z in enumerate(np.random.default_rng(seed).standard_normal(steps).tolist()):
            total = 8 * x**7
            for height, place in BUMPS:
                offset = x - place
                total -= 160 * height * offset * exp(-80 * offset * offset)
            x += -2 * total * dt + scale * z
            states[step] = x
    except OverflowError:
        raise InvalidSetting("dt", dt, "smaller: the trajectory leaves the box") from None
    return torch.from_numpy(states)
