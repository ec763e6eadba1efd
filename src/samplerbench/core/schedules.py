"""Noise schedules: the amounts of signal and noise in a state at time t.

    x_t = α(t)·x₀ + σ(t)·ε,   ε ~ N(0, I),   t ∈ [0, 1],   t = 0 is data, t = 1 is noise.

The noise-to-signal ratio κ(t) = σ(t)/α(t) grows with t. Where two schedules have the same κ, their
states differ only by a factor: x/α is the same. The path solves a linear SDE

    dx = f(t)·x dt + g(t) dW,   f = α̇/α,   g² = d(σ²)/dt − 2·f·σ²,

and the probability-flow ODE has the same marginals:

    dx/dt = α̇·x̂₀ + σ̇·ε̂ = a(t)·x + b(t)·x̂₀(x, t),   a = (dσ²/dt)/(2σ²),   b = α̇ − α·a,

where x̂₀ = E[x₀ | x_t] and ε̂ = (x − α·x̂₀)/σ (Song et al., "Score-based generative modeling through
SDEs", ICLR 2021, arXiv 2011.13456, Eq. 13; Karras et al., "Elucidating the design space of
diffusion-based generative models", NeurIPS 2022, arXiv 2206.00364, Eq. 4). A schedule defines α
and σ², not σ, because σ has an infinite slope at t = 0 on some paths.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from samplerbench.errors import require

#: T, the number of levels of a discrete DDPM, for schedules that are not defined by a table.
TRAIN_STEPS = 1000


class NoiseSchedule(ABC):
    """α and σ as functions of the time t ∈ [0, 1]. Members are frozen dataclasses.

    All tensors may have any shape. Use float64: a sampler computes its coefficients only once.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale α(t)."""

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """Noise variance σ²(t)."""

    @abstractmethod
    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """The time at which σ/α has the given value; the inverse of `noise_to_signal`."""

    @property
    def train_steps(self) -> int:
        """T, the number of levels of a discrete DDPM; the DDPM grids such as `leading` use it."""
        return TRAIN_STEPS

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(α(t), σ(t))."""
        return self.alpha(t), self.variance(t).sqrt()

    def noise_to_signal(self, t: Tensor) -> Tensor:
        """κ(t) = σ(t)/α(t), infinite where the signal is lost."""
        alpha, sigma = self(t)
        return sigma / alpha

    @property
    def noise_range(self) -> tuple[float, float]:
        """(κ(0), κ(1))."""
        first, last = self.noise_to_signal(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return first, last

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(dα/dt, dσ²/dt) by automatic differentiation.

        These stay finite where α = 0; f and g² do not. The docstring of the module derives f, g²,
        a and b from them.
        """
        return _derivative(self.alpha, t), _derivative(self.variance, t)


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """Variance exploding with σ linear in time: α = 1, σ = σ_max·t.

    Karras et al. 2022 (arXiv 2206.00364); their time is σ, and t is σ in units of σ_max. σ has the
    units of the data.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        require(0 < self.sigma_max < math.inf, "sigma_max", self.sigma_max, "positive")

    def alpha(self, t: Tensor) -> Tensor:
        """α = 1."""
        return torch.ones_like(t)

    def variance(self, t: Tensor) -> Tensor:
        """σ² = σ_max²·t²."""
        return (self.sigma_max * t).square()

    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """t = κ/σ_max."""
        return noise_to_signal / self.sigma_max


@dataclass(frozen=True)
class GeometricVE(NoiseSchedule):
    """Variance exploding, geometric: α = 1, σ = σ_min·(σ_max/σ_min)^t.

    At t = 0 the state still contains noise, of standard deviation σ_min. Song et al. 2021 (arXiv
    2011.13456), Eq. 31; η̃ of the notebook N2, whose T is 1.
    """

    sigma_min: float = 0.03
    sigma_max: float = 2.0

    def __post_init__(self) -> None:
        low, high = self.sigma_min, self.sigma_max
        require(0 < low < math.inf, "sigma_min", low, "positive")
        require(low < high < math.inf, "sigma_max", high, f"above sigma_min={low}")

    def alpha(self, t: Tensor) -> Tensor:
        """α = 1."""
        return torch.ones_like(t)

    def variance(self, t: Tensor) -> Tensor:
        """σ² = σ_min²·(σ_max/σ_min)^{2t}."""
        return self.sigma_min**2 * torch.exp(2 * t * math.log(self.sigma_max / self.sigma_min))

    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """t = ln(κ/σ_min) / ln(σ_max/σ_min)."""
        ratio = math.log(self.sigma_max / self.sigma_min)
        return torch.log(noise_to_signal / self.sigma_min) / ratio


@dataclass(frozen=True)
class GeometricVEKernel(GeometricVE):
    """The geometric VE SDE from a fixed x₀: α = 1, σ = σ_min·√((σ_max/σ_min)^{2t} − 1).

    Its variance is that of `GeometricVE` minus σ_min², so σ(0) = 0. Song et al. 2021 (arXiv
    2011.13456), Appendix C; η of the notebook N2.
    """

    def variance(self, t: Tensor) -> Tensor:
        """σ² = σ_min²·((σ_max/σ_min)^{2t} − 1)."""
        return self.sigma_min**2 * torch.expm1(2 * t * math.log(self.sigma_max / self.sigma_min))

    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """t = ln(1 + κ²/σ_min²) / (2·ln(σ_max/σ_min))."""
        ratio = math.log(self.sigma_max / self.sigma_min)
        return torch.log1p((noise_to_signal / self.sigma_min).square()) / (2 * ratio)


@dataclass(frozen=True)
class VPLinear(NoiseSchedule):
    """Variance preserving with β linear in time: α² + σ² = 1.

    ln α = −¼t²·(β_max − β_min) − ½t·β_min. Ho, Jain, Abbeel, "Denoising diffusion probabilistic
    models", NeurIPS 2020; in continuous time Song et al. 2021 (arXiv 2011.13456), Eq. 33, whose
    β(0) = 0.1 and β(1) = 20 are the defaults. α² is the ᾱ of DDPM.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        require(0 < self.beta_min < math.inf, "beta_min", self.beta_min, "positive")
        allowed = f"at least beta_min={self.beta_min}"
        require(self.beta_min <= self.beta_max < math.inf, "beta_max", self.beta_max, allowed)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t.square() * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        """α = exp(−½∫β)."""
        return self._log_alpha(t).exp()

    def variance(self, t: Tensor) -> Tensor:
        """σ² = 1 − α²."""
        return -torch.expm1(2 * self._log_alpha(t))

    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """The root of ¼t²·Δβ + ½t·β_min = ½·ln(1 + κ²)."""
        loss = 0.5 * torch.log1p(noise_to_signal.square())
        slope = self.beta_max - self.beta_min
        # this form of the root of a quadratic equation does not cancel for small t
        return 4 * loss / (self.beta_min + torch.sqrt(self.beta_min**2 + 4 * slope * loss))


@dataclass(frozen=True)
class VPCosine(NoiseSchedule):
    """Variance preserving, cosine: α = cos(½π·(t + s)/(1 + s)) / cos(½π·s/(1 + s)).

    Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021, Eq. 17.
    Their offset s keeps the first steps from being too small. At t = 1 no signal is left.
    """

    offset: float = 0.008

    def __post_init__(self) -> None:
        require(0 <= self.offset < 1, "offset", self.offset, "at least 0 and below 1")

    def _angle(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (t + self.offset) / (1 + self.offset)

    @property
    def _angle_at_data(self) -> float:
        return 0.5 * math.pi * self.offset / (1 + self.offset)

    def alpha(self, t: Tensor) -> Tensor:
        """α, zero at t = 1."""
        # the sine of the remaining angle is exactly 0 at t = 1; the cosine would be 6e-17
        rest = 0.5 * math.pi * (1 - t) / (1 + self.offset)
        return torch.sin(rest) / math.cos(self._angle_at_data)

    def variance(self, t: Tensor) -> Tensor:
        """σ² = 1 − α², as a product of sines that does not cancel for small t."""
        angle, start = self._angle(t), self._angle_at_data
        return torch.sin(angle + start) * torch.sin(angle - start) / math.cos(start) ** 2

    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """t from α = 1/√(1 + κ²)."""
        alpha = torch.rsqrt(1 + noise_to_signal.square())
        # the remaining angle from its sine and cosine: asin alone is inaccurate near the data
        sine = alpha * math.cos(self._angle_at_data)
        variance = 1 / (1 + noise_to_signal.square().reciprocal())
        start = self._angle_at_data
        cosine = torch.sqrt(math.sin(start) ** 2 + math.cos(start) ** 2 * variance)
        rest = torch.atan2(sine, cosine)
        return 1 - 2 * rest * (1 + self.offset) / math.pi


@dataclass(frozen=True)
class Rectified(NoiseSchedule):
    """The straight path of flow matching: α = 1 − t, σ = t.

    Liu, Gong, Liu, "Flow straight and fast: learning to generate and transfer data with rectified
    flow", ICLR 2023; Lipman et al., "Flow matching for generative modeling", ICLR 2023 (their time
    runs the other way). At t = 1 no signal is left.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """α = 1 − t."""
        return 1 - t

    def variance(self, t: Tensor) -> Tensor:
        """σ² = t²."""
        return t.square()

    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """t = κ/(1 + κ), and 1 at κ = ∞."""
        return 1 - 1 / (1 + noise_to_signal)


@dataclass(frozen=True)
class DDPMTable(NoiseSchedule):
    """Variance preserving, given by a table of T levels: α² at t = 1/T, 2/T, …, 1.

    The table is the ᾱ of a discrete DDPM. Between its levels, and between the data at t = 0 and its
    first level, α is the monotone piecewise cubic of Fritsch and Carlson, "Monotone piecewise cubic
    interpolation", SIAM J. Numerical Analysis 17, 1980. At the levels of the table α has no second
    derivative, which can lower the order of a high-order method. The interpolated quantity is
    1 − α: it does not cancel near the data, and its slope is finite where α = 0.

    Args:
        signal: α² of the levels, below 1 and decreasing; the last one may be 0.
    """

    signal: tuple[float, ...]

    def __post_init__(self) -> None:
        table = np.array(self.signal, dtype=np.float64)
        good = len(table) > 0 and bool((np.diff(table, prepend=1.0) < 0).all() and table[-1] >= 0)
        value = f"{len(table)} numbers"
        require(good, "signal", value, "numbers between 0 and 1, each below the one before")

    @property
    def train_steps(self) -> int:
        """T, the length of the table."""
        return len(self.signal)

    @cached_property
    def _nodes(self) -> Tensor:
        """t, 1 − α, and the slope of 1 − α times the length of a piece; (3, T + 1), data first."""
        from scipy.interpolate import PchipInterpolator  # slow to import, and rarely needed

        table = np.array([1.0, *self.signal])
        t = np.arange(len(table)) / self.train_steps
        lost = (1 - table) / (1 + np.sqrt(table))
        slope = PchipInterpolator(t, lost).derivative()(t) / self.train_steps
        return torch.from_numpy(np.stack([t, lost, slope]))

    def _lost(self, piece: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """1 − α at the place s ∈ [0, 1] of a piece, and its slope in s, in Hermite's form."""
        _, value, slope = self._nodes.to(s)
        first, last, begins, ends = value[piece], value[piece + 1], slope[piece], slope[piece + 1]
        rise, rest = s * s * (3 - 2 * s), 1 - s
        lost = (1 - rise) * first + rise * last + s * rest * (rest * begins - s * ends)
        rate = 6 * s * rest * (last - first)
        rate = rate + rest * (1 - 3 * s) * begins + s * (3 * s - 2) * ends
        return lost, rate

    def _lost_at(self, t: Tensor) -> Tensor:
        times = self._nodes[0].to(t)
        piece = torch.searchsorted(times, t.detach().contiguous(), right=True) - 1
        piece = piece.clamp(0, self.train_steps - 1)
        return self._lost(piece, (t - times[piece]) / (times[piece + 1] - times[piece]))[0]

    def alpha(self, t: Tensor) -> Tensor:
        """α(t), interpolated."""
        return 1 - self._lost_at(t)

    def variance(self, t: Tensor) -> Tensor:
        """σ² = 1 − α² = (1 − α)·(1 + α)."""
        lost = self._lost_at(t)
        return lost * (2 - lost)

    def time_at(self, noise_to_signal: Tensor) -> Tensor:
        """Solve 1 − α(t) = σ²/(1 + α) with α = 1/√(1 + κ²), by Newton's method with bisection."""
        alpha = torch.rsqrt(1 + noise_to_signal.square())
        lost = 1 / ((1 + noise_to_signal.square().reciprocal()) * (1 + alpha))
        values = self._nodes[1].to(lost)
        piece = torch.searchsorted(values, lost.contiguous(), right=True) - 1
        piece = piece.clamp(0, self.train_steps - 1)
        low, high = torch.zeros_like(lost), torch.ones_like(lost)
        s = ((lost - values[piece]) / (values[piece + 1] - values[piece])).clamp(0, 1)
        for _ in range(60):  # bisection alone needs 53
            value, rate = self._lost(piece, s)
            low, high = torch.where(value <= lost, s, low), torch.where(value >= lost, s, high)
            newton = s - (value - lost) / rate
            inside = (newton >= low) & (newton <= high)
            before, s = s, torch.where(inside, newton, 0.5 * (low + high))
            if torch.equal(before, s):
                break
        return (piece + s) / self.train_steps


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """The derivative of an elementwise function."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        values = function(t)
        if not values.requires_grad:  # a constant
            return torch.zeros_like(t)
        return torch.autograd.grad(values.sum(), t)[0]
