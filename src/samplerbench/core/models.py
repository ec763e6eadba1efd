"""Score models: the models that samplers evaluate.

    score     s(x, level) = ∇ log q(x),   q the law of x_t = α·x₀ + σ·ε at that level
    denoiser  x̂₀(x, level) = E[x₀ | x_t = x] = (x + σ²·s(x))/α                     (Tweedie)

Tweedie's formula (Robbins 1956; Efron, "Tweedie's formula and selection bias", JASA 2011) converts
one into the other. Diffusion samplers use x̂₀; Langevin samplers use s.

For a Gaussian mixture Σ w_k·N(μ_k, C_k) the noised law is Σ w_k·N(α·μ_k, S_k), S_k = α²·C_k + σ²·I,
and with the responsibilities r_k(x) ∝ w_k·N(x; α·μ_k, S_k)

    x̂₀ = Σ r_k·(μ_k + α·C_k·S_k⁻¹·(x − α·μ_k)):

This is the *oracle*, exact at every level. With C_k = 0 it is the ideal denoiser of the finite data
set {μ_k} (Karras et al. 2022, arXiv 2206.00364, Appendix B.3).

States have shape (*batch, dim). The fields of a level are floats, or tensors of shape (*batch, 1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import forward_ad

from samplerbench.core.forms import Forms, eigen_terms, forms
from samplerbench.core.grids import AnyLevel, Level, Levels
from samplerbench.core.responsibilities import (
    fall_,
    log_sum,
    relative_terms_,
    responsibilities,
    summands_,
)
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.targets import Target
from samplerbench.errors import InvalidSetting, require

#: The largest number of components × states in a table of an oracle: 1 MB, in the cache.
ENTRIES = 2**17
#: The smallest number of states at a time in many dimensions; their table has at most 16 MB.
ROWS, WIDE_ENTRIES = 128, 2**21

#: The number of means that are added up faster one by one than by a matrix product.
FEW = 8
#: From this many numbers on means are added up one by one where that is possible; and products of
#: two coordinates of the means are kept if they are at most so many.
MANY = 2**18
#: A mixture with any covariances is evaluated as quadratic forms if it has at least so many
#: components in at most so many dimensions, and if the largest term of a form is below the last
#: number. Then a logarithm is rounded by about 1e-10 at most.
FORMS, FLAT, CANCELLING = 32, 3, 2.0**20


#: A method of a model: states (*batch, dim) at a level ↦ a tensor with their batch.
Call = Callable[[Tensor, AnyLevel], Tensor]


class Score(nn.Module, ABC):
    """A model with a score.

    Attributes:
        piece: the number of states that it evaluates at a time, so that the bits of a state depend
            on no state of another piece; None if they may depend on the size of the batch.
    """

    piece: int | None = None

    @abstractmethod
    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """∇ log q(x) at the level, shape (*batch, dim)."""

    def parallel(self, call: Call, x: Tensor, level: AnyLevel) -> Tensor:
        """A method of this model at W states of each sample: W evaluations in one round.

        Args:
            call: such as `self.denoiser`.
            x: the states, shape (W, *batch, dim).
            level: the level of the states; fields of shape (W, *batch, 1) give each its own level.
        """
        return call(x, level)

    def why_incompatible(self, levels: Levels) -> str | None:
        """Why this model is undefined at one of the levels, in one line; None if it is defined."""
        return None


@runtime_checkable
class Density(Protocol):
    """A score model that also has a log-density, which MALA needs.

    This is a protocol because a `Denoiser` may or may not have it.
    """

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        """log q(x) at the level, up to a constant that depends on the level, shape (*batch,)."""
        ...


def log_densities(values: object, x: Tensor, field: str, name: str) -> Tensor:
    """The checked result of a log_density at states x, shape (*batch, dim).

    The log_density may be a user's function. `field` and `name` say which one it is, for the error.

    Raises:
        InvalidSetting: the result is not a real tensor of shape (*batch,).
    """
    found = type(values).__name__
    if isinstance(values, Tensor):
        if values.is_floating_point() and values.shape == x.shape[:-1]:
            return values
        found = f"{values.dtype} of shape {tuple(values.shape)}"
    wanted = f"real numbers of shape {tuple(x.shape[:-1])} for states {tuple(x.shape)}"
    allowed = f"one whose log_density gives a tensor of {wanted}: it gives {found}"
    raise InvalidSetting(field, name, allowed)


@runtime_checkable
class Differentiated(Protocol):
    """A network with its own method for its derivative."""

    def derivative(self, u: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """y and ∂y/∂u_i of states (n, dim), shapes (n, dim) and (dim, n, dim)."""
        ...


class Denoiser(Score):
    """A model of E[x₀ | x_t].

    Attributes:
        schedule: the path of x_t.
        trained_noise: the largest noise-to-signal ratio σ/α that it was trained for; infinite for
            an exact denoiser.
        has_covariance: whether (σ²/α)·∂x̂₀/∂x is the covariance of x₀ given x_t. That holds for
            exact denoisers; the derivative of a network need not even be symmetric.
    """

    schedule: NoiseSchedule
    trained_noise: float = math.inf
    has_covariance: bool = True

    @abstractmethod
    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """x̂₀ = E[x₀ | x_t = x], shape (*batch, dim)."""

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """x̂₀ and J = ∂x̂₀/∂x of states (n, dim), shapes (n, dim) and (n, dim, dim).

        Rows must not depend on each other. This implementation takes dim backward passes.
        """
        with torch.enable_grad():
            states = x.detach().requires_grad_()
            x0_hat = self.denoiser(states, level)
            columns = x0_hat.unbind(-1)
            rows = [
                torch.autograd.grad(column.sum(), states, retain_graph=place < len(columns) - 1)[0]
                for place, column in enumerate(columns)
            ]
        return x0_hat.detach(), torch.stack(rows, 1)

    def along(self, x: Tensor, tangents: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """x̂₀ of states (n, dim), and J·v of their tangents v, shape (c, n, dim)."""
        x0_hat, derivative = self.derivative(x, level)
        if x.shape[1] == 1:  # on a line a run takes as long as its operations
            return x0_hat, derivative[:, 0] * tangents
        # products of small matrices are up to five times as fast if each is in one piece
        return x0_hat, torch.einsum("nji,cni->cnj", derivative.contiguous(), tangents)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """(α·x̂₀ − x)/σ²."""
        return (level.alpha * self.denoiser(x, level) - x) / level.sigma**2


class Guided(Denoiser):
    """x̂₀ = γ·x̂₀(model) + (1 − γ)·x̂₀(guide): a denoiser that is moved away from a second one.

    The score is moved in the same way. If the model is for one class and the guide is for all data,
    this is classifier-free guidance: Ho and Salimans, "Classifier-free diffusion guidance",
    2022 (arXiv 2207.12598), with γ = 1 + w. If the guide is a worse model of the same data, it is
    autoguidance: Karras, Aittala, Kynkäänniemi, Lehtinen, Aila, Laine, "Guiding a diffusion model
    with a bad version of itself", NeurIPS 2024 (arXiv 2406.02507). The samples do not have the law
    ∝ p^γ·p_guide^(1−γ): Bradley and Nakkiran, "Classifier-free guidance is a
    predictor-corrector", 2024 (arXiv 2408.09000).

    Args:
        guide: the other denoiser, for the same path.
        weight: γ; with 1 the guide has no effect.
    """

    has_covariance = False

    def __init__(self, model: Denoiser, guide: Denoiser, weight: float) -> None:
        super().__init__()
        require(math.isfinite(weight), "guidance", weight, "finite")
        self.schedule = model.schedule
        self.model, self.guide, self.weight = model, guide, weight
        self.trained_noise = min(model.trained_noise, guide.trained_noise)

    @property
    def settings(self) -> dict[str, float]:
        """The settings except the two denoisers, for identities."""
        return {"weight": self.weight}

    def why_incompatible(self, levels: Levels) -> str | None:
        return self.model.why_incompatible(levels) or self.guide.why_incompatible(levels)

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        return torch.lerp(self.guide.denoiser(x, level), self.model.denoiser(x, level), self.weight)

    def along(self, x: Tensor, tangents: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        of_guide, along_guide = self.guide.along(x, tangents, level)
        x0_hat, moved = self.model.along(x, tangents, level)
        weight = self.weight
        return torch.lerp(of_guide, x0_hat, weight), torch.lerp(along_guide, moved, weight)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        return torch.lerp(self.guide.score(x, level), self.model.score(x, level), self.weight)


#: (the time t of a level, from 0 at the data to 1; a cut) ↦ the share p(t) of a corruption.
PROFILES: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "constant": lambda t, cut: torch.ones_like(t),
    "sine": lambda t, cut: (1 + (2 * math.pi * t).sin()) / 2,
    "noise": lambda t, cut: (t > cut).to(t),
    "data": lambda t, cut: (t <= cut).to(t),
}
#: The directions of a corruption.
DIRECTIONS = ("along", "across")


class Corrupted(Denoiser):
    """s′ = s + ε·p(t)·R·s: a score with an error of known size.

    With R = I (`along`) the score is too long by a share ε·p(t) of itself. With `across` R turns
    each pair of coordinates (x₁, x₂), (x₃, x₄), … by a right angle; then the divergence of
    q·R·s = R·∇q is 0. So in continuous time this error does not change any marginal of the flow or
    of a reverse SDE, although E‖s′ − s‖² = ε²·p²·E‖s‖² is the same.
    x̂₀′ = x̂₀ + (ε·p/α)·R·(α·x̂₀ − x).

    Cao, Chen, Luo, Zhou, "Exploring the optimal choice for generative processes in diffusion
    models: ordinary versus stochastic differential equations", NeurIPS 2023 (arXiv 2306.02063), for
    `along` and the profiles p.

    Args:
        amplitude: ε.
        profile: the name of p: constant is 1; sine is (1 + sin 2πt)/2; noise is 1 for t > cut and
            data is 1 for t ≤ cut, and 0 elsewhere; t is the time of the schedule.
        direction: along or across the score.
        cut: a time.
    """

    has_covariance = False

    def __init__(
        self,
        model: Denoiser,
        amplitude: float,
        profile: str = "constant",
        direction: str = "along",
        cut: float = 0.05,
    ) -> None:
        super().__init__()
        require(0 <= cut <= 1, "corruption.cut", cut, "between 0 and 1")
        require(math.isfinite(amplitude), "corruption.amplitude", amplitude, "finite")
        allowed = " or ".join(PROFILES)
        require(profile in PROFILES, "corruption.profile", profile, allowed)
        allowed = " or ".join(DIRECTIONS)
        require(direction in DIRECTIONS, "corruption.direction", direction, allowed)
        self.schedule, self.trained_noise = model.schedule, model.trained_noise
        self.model, self.amplitude = model, amplitude
        self.profile, self.direction, self.cut = profile, direction, cut

    @property
    def settings(self) -> dict[str, float | str]:
        """The settings except the denoiser, for identities."""
        names = ("amplitude", "profile", "direction", "cut")
        return {name: getattr(self, name) for name in names}

    def why_incompatible(self, levels: Levels) -> str | None:
        first = levels.rows[0]
        if first.alpha == 0 and self.share(first) != 0:
            return (
                "an error of the score has no x̂₀ without signal, α = 0: use grid=karras, or a "
                "t_max below 1 with grid=uniform"
            )
        return self.model.why_incompatible(levels)

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """x̂₀ + (ε·p/α)·R·(α·x̂₀ − x)."""
        return self._changed(self.model.denoiser(x, level), x, level)

    def along(self, x: Tensor, tangents: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        x0_hat, moved = self.model.along(x, tangents, level)
        return self._changed(x0_hat, x, level), self._changed(moved, tangents, level)

    def _changed(self, x0_hat: Tensor, x: Tensor, level: AnyLevel) -> Tensor:
        share = self.share(level)
        if isinstance(share, float) and share == 0:
            return x0_hat
        return x0_hat + (share / level.alpha) * self._turned(level.alpha * x0_hat - x)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        score = self.model.score(x, level)
        return score + self.share(level) * self._turned(score)

    def share(self, level: AnyLevel) -> float | Tensor:
        """ε·p(t)."""
        if isinstance(level.t, Tensor):
            return self.amplitude * PROFILES[self.profile](level.t, self.cut)
        return self.amplitude * float(
            PROFILES[self.profile](torch.tensor(level.t, dtype=torch.float64), self.cut)
        )

    def _turned(self, score: Tensor) -> Tensor:
        if self.direction == "along":
            return score
        dim = score.shape[-1]
        require(dim % 2 == 0, "corruption.direction", "across", f"along: dim={dim} is odd")
        pairs = score.reshape(*score.shape[:-1], -1, 2)
        return torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)


class Standardised(Score):
    """A network that is trained on standardised data, u₀ = (x₀ − mean)/std.

    Args:
        network: gets u = (x − α·mean)/std, shape (*batch, dim), and a level.
        mean: the mean of the data, shape (dim,).
        std: the standard deviation of the data, one positive number.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: float) -> None:
        super().__init__()
        require(0 < std < math.inf, "std", std, "positive and finite")
        require(bool(mean.isfinite().all()), "mean", mean.tolist(), "finite")
        self.network = network
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", torch.tensor(float(std)))
        self._std = float(self.std)  # already rounded to float32, so loading does not change it

    def standardise(self, x0: Tensor) -> Tensor:
        """u₀ = (x₀ − mean)/std."""
        return (x0 - self.mean.to(x0)) / self._std

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self._std = float(self.std)


class Learned(Standardised, Denoiser):
    """A network, its training target, and the scale of the data.

    With u₀ = (x₀ − mean)/std the state x = α·x₀ + σ·ε becomes
    u = (x − α·mean)/std = α·u₀ + (σ/std)·ε. The target and the network get u at the level
    (α, σ/std). Samplers, oracles and metrics use the units of the data.

    Args:
        network: (u, level) ↦ y, shape (*batch, dim) each.
        target: the meaning of y.
        schedule: the path, in the units of the data.
        mean: the mean of the data, shape (dim,).
        std: the standard deviation of the data, one positive number.
        trained_noise: the largest σ/α that the network is trained for.
    """

    has_covariance = False

    def __init__(
        self,
        network: nn.Module,
        target: Target,
        schedule: NoiseSchedule,
        mean: Tensor,
        std: float = 1.0,
        trained_noise: float = math.inf,
    ) -> None:
        super().__init__(network, mean, std)
        self.target = target
        self.schedule = schedule
        self.trained_noise = trained_noise

    def why_incompatible(self, levels: Levels) -> str | None:
        return self.target.why_incompatible(levels)

    def standard_level(self, level: AnyLevel) -> AnyLevel:
        """The level for standardised data: (t, α, σ/std)."""
        return level.in_units_of(self._std)

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """std·denoise(u, network(u)) + mean; the network has its own dtype, the rest has x's."""
        mean = self.mean.to(x)
        u = (x - level.alpha * mean) / self._std
        standard = self.standard_level(level)
        y = self.network(u.to(self.mean.dtype), standard).to(x.dtype)
        return self.target.denoise(u, y, standard) * self._std + mean

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """As for any denoiser; in one forward pass if the network has its own `derivative`."""
        if not (isinstance(self.network, Differentiated) and self._is_affine):
            return super().derivative(x, level)
        mean, dim = self.mean.to(x), x.shape[1]
        u, standard = (x - level.alpha * mean) / self._std, self.standard_level(level)
        y, slopes = (
            one.to(x.dtype) for one in self.network.derivative(u.to(self.mean.dtype), standard)
        )
        x0_hat = self.target.denoise(u, y, standard) * self._std + mean
        # the derivative of an affine function is a difference of its values
        none = x.new_zeros(1, dim)
        along = torch.eye(dim).to(x)[:, None].expand_as(slopes)
        columns = self.target.denoise(along, slopes, standard)
        columns = columns - self.target.denoise(none, none, standard)
        return x0_hat, columns.permute(1, 2, 0)

    @cached_property
    def _is_affine(self) -> bool:
        """Whether x̂₀ is affine in u and y together, as for all targets of this package."""
        numbers = torch.arange(12, dtype=torch.float64).reshape(2, 6, 1).sin() * 9
        level = Level(0.5, 0.8, 0.6)
        pairs = (numbers, numbers.flip(1), (numbers + numbers.flip(1)) / 2)
        one, two, between = (self.target.denoise(u, y, level) for u, y in pairs)
        return bool(((one + two) / 2 - between).abs().max() < 1e-9)


class LevelFree(Standardised):
    """A network for the score of one law, the law of x₀ + υ·ε with a fixed υ.

    s(x) = network((x − mean)/std)/std.

    Args:
        network: u ↦ std·s, shape (*batch, dim); it ignores its level.
        noise: υ ≥ 0, in the units of the data; 0 is the law of the data.
        mean: the mean of the data, shape (dim,).
        std: the standard deviation of the data, one positive number.
    """

    def __init__(self, network: nn.Module, noise: float, mean: Tensor, std: float = 1.0) -> None:
        super().__init__(network, mean, std)
        require(0 <= noise < math.inf, "noise", noise, "at least 0")
        self.noise = float(noise)

    @property
    def level(self) -> Level[float]:
        """The level of the law; its time is 0, since there is no schedule."""
        return Level(0.0, 1.0, self.noise)

    @property
    def standard_noise(self) -> float:
        """υ for standardised data: υ/std."""
        return self.noise / self._std

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """The network's score; the network has its own dtype, the result has x's."""
        u = self.standardise(x)
        output: Tensor = self.network(u.to(self.mean.dtype), self.level)
        return output.to(x.dtype) / self._std

    def why_incompatible(self, levels: Levels) -> str | None:
        for row in levels.rows:
            if abs(row.alpha - 1) > 1e-9 or abs(row.sigma - self.noise) > 1e-9 * (1 + self.noise):
                only = f"only the score of the noise level {self.noise:g}"
                return f"the network learned {only}: use grid=hold grid.noise={self.noise:g}"
        return None


class IsotropicMixtureOracle(Denoiser):
    """The exact denoiser of Σ w_k·N(μ_k, c_k·I); with c_k = 0 the ideal denoiser of a finite set.

    Distances are expanded, ‖x − αμ‖² = ‖x‖² − 2α·x·μ + α²‖μ‖², so that the cost is two matrix
    products with the K means. The terms cancel where σ is small, so all arithmetic is float64. The
    result has the dtype of the state.

    Tables with one number for each component and state are computed for some states at a time, so
    the memory beside states and means is bounded (see `ENTRIES`). If the means have many numbers
    and at most `FEW` components have a positive weight at a state, only their means are added up.
    This choice depends on that state only, so a state does not depend on its neighbours.

    Args:
        weights: positive, shape (K,); normalised here.
        means: shape (K, dim).
        variances: c_k ≥ 0, shape (K,).
    """

    log_weights: Tensor
    means: Tensor
    half_squares: Tensor
    variances: Tensor
    centre: Tensor
    products: Tensor | None
    piece: int

    def __init__(
        self, schedule: NoiseSchedule, weights: Tensor, means: Tensor, variances: Tensor
    ) -> None:
        super().__init__()
        self.schedule = schedule
        # centred means make the terms of the expanded distances smaller
        centre = means.double().mean(0)
        means, variances = means.double() - centre, variances.double()
        equal = bool((variances == variances[0]).all())
        log_weights = (weights.double() / weights.double().sum()).log()
        self.register_buffer("log_weights", log_weights[:, None])
        self.register_buffer("means", means)
        self.register_buffer("half_squares", 0.5 * means.square().sum(1, keepdim=True))
        self.register_buffer("variances", variances[:1] if equal else variances[:, None])
        self.register_buffer("centre", centre[:, None])
        self._equal = equal
        self.piece = max(1, ENTRIES // len(means))
        if means.shape[1] >= 32:  # a matrix product with fewer states is slower
            self.piece = max(self.piece, min(ROWS, WIDE_ENTRIES // len(means)))
        self._sparse = means.numel() >= MANY
        count, dim = means.shape
        products = None
        if means.numel() * dim <= MANY:
            products = torch.cat([means, (means[:, :, None] * means[:, None]).flatten(1)], 1)
        self.register_buffer("products", products, persistent=False)
        self._few = count * (dim + 10) < 4 * dim**2

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """Σ r_k·((1 − α·g_k)·μ_k + g_k·x), g_k = α·c_k/S_k."""

        def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            spread = alpha**2 * self.variances + sigma**2
            gain = alpha * self.variances / spread
            return self._mean(u, alpha, spread, 1 - alpha * gain, gain).add_(self.centre)

        return self._in_pieces(part, x, level).reshape(x.shape)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """Σ r_k·S_k⁻¹·(α·μ_k − x), defined also at σ = 0, where (α·x̂₀ − x)/σ² is 0/0."""

        def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            spread = alpha**2 * self.variances + sigma**2
            return self._mean(u, alpha, spread, alpha / spread, -1 / spread)

        return self._in_pieces(part, x, level).reshape(x.shape)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            spread = alpha**2 * self.variances + sigma**2
            top, fall = self._logs(u, alpha, spread)
            log_density = top + summands_(fall).sum(0, keepdim=True).log()
            return log_density + self._same(u, spread) if self._equal else log_density

        return self._in_pieces(part, x, level).reshape(x.shape[:-1])

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """J = Σ r_k·g_k·I + (α/σ²)·(Σ r_k·m_k·m_kᵀ − x̂₀·x̂₀ᵀ), m_k the mean of component k.

        That is α/σ² times the covariance of x₀ given x, x̂₀ = Σ r_k·m_k.
        """
        if x.shape[1] == 1 and len(self.means) <= FORMS and len(x) <= self.piece:
            states = _as_array(x)
            if states is not None:
                x0_hat, slopes = self._on_line(states, level).to(x.dtype)[..., None]
                return x0_hat, slopes[..., None]
        part = self._one_by_one if self.products is None else self._by_products
        both = self._in_pieces(part, x, level).reshape(len(x), 1 + x.shape[1], x.shape[1])
        return both[:, 0], both[:, 1:]

    def _on_line(self, x: NDArray[np.float64], level: AnyLevel) -> Tensor:
        """x̂₀ and dx̂₀/dx of states x, shape (n, 1), from the offsets u − α·μ_k; shape (2, n).

        NumPy's operations on a thousand states take half as long as those of torch.
        """

        def row(scale: float | Tensor) -> NDArray[np.float64] | float:
            return scale.double().numpy().reshape(1, -1) if isinstance(scale, Tensor) else scale

        centre, means, variances, log_weights = (
            one.numpy() for one in (self.centre, self.means, self.variances, self.log_weights)
        )
        alpha, sigma = row(level.alpha), row(level.sigma)
        power = sigma * sigma
        spread = alpha * alpha * variances + power
        gain = alpha * variances / spread
        offset = x.reshape(1, -1) - alpha * (means + centre)
        terms = offset * offset
        terms *= -0.5 / spread
        terms += log_weights - 0.5 * np.log(spread)
        terms -= terms.max(0)
        weight = relative_terms_(torch.from_numpy(terms)).numpy()
        weight /= weight.sum(0)
        own = (weight * gain).sum(0)
        offset *= gain
        offset += means  # the means of the components
        mean = (weight * offset).sum(0)
        offset -= mean
        offset *= offset
        offset *= weight
        both = np.empty((2, len(x)))
        np.add(mean, centre[0], out=both[0])
        np.add(own, offset.sum(0) * (alpha / power), out=both[1:])
        return torch.from_numpy(both)

    def _one_by_one(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x̂₀ and the columns of J, shape ((1 + dim)·dim, n)."""
        weight, gain, kept, own = self._weights(u, alpha, sigma)
        x0_hat = self.means.T @ (weight * kept) + own * u
        columns = [x0_hat + self.centre]
        for place in range(len(u)):
            share = weight * (kept * self.means[:, place, None] + gain * u[place])
            second = self.means.T @ (share * kept) + (share * gain).sum(0) * u
            column = (second - x0_hat[place] * x0_hat) * (alpha / sigma**2)
            column[place] += own[0]
            columns.append(column)
        return torch.cat(columns)

    def _by_products(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """As `_one_by_one`, with Σ r_k·μ_k·μ_kᵀ from one matrix product."""
        assert self.products is not None
        weight, gain, kept, own = self._weights(u, alpha, sigma)
        dim = len(u)
        if self._equal:  # then u has no part in the covariance
            sums = weight.T @ self.products
            mean = sums[:, :dim] * kept.T
            second = sums[:, dim:] * kept.square().T
            left, right = mean[..., None], -mean[:, None]
        else:
            # m_k − own·u: terms that are equal in all m_k would cancel
            share, differ = weight * kept, gain - own
            mean = share.T @ self.means
            second = (share * kept).T @ self.products[:, dim:]
            mixed = self.means.T @ (share * differ) + 0.5 * (weight * differ.square()).sum(0) * u
            left = torch.stack([mixed.T, u.T, mean], 2)
            right = torch.stack([u.T, mixed.T, -mean], 1)
        covariance = torch.baddbmm(second.reshape(-1, dim, dim), left, right)
        columns = covariance * (alpha / sigma.square()).T[..., None]
        columns.diagonal(dim1=1, dim2=2).add_(own.T)
        x0_hat = mean + (own * u + self.centre).T
        return torch.cat([x0_hat, columns.flatten(1)], 1).T

    def along(self, x: Tensor, tangents: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """J·v = Σ r_k·g_k·v + (α/σ²)·Σ r_k·(m_k·v − x̂₀·v)·m_k: two products with the means.

        J itself is cheaper if there are many components for the number of coordinates.
        """
        if not self._few or len(x) == 0:
            return super().along(x, tangents, level)
        rows = max(1, self.piece // (1 + len(tangents)))
        scales = _flat(level.alpha, x), _flat(level.sigma, x)
        parts = [
            self._moved(x[own].double(), tangents[:, own].double(), alpha, sigma)
            for own, alpha, sigma in _pieces(len(x), rows, *scales)
        ]
        x0_hat, moved = zip(*parts, strict=True)
        return torch.cat(x0_hat).to(x.dtype), torch.cat(moved, 1).to(x.dtype)

    def _moved(
        self, x: Tensor, tangents: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `along`, for a piece of the states, with α and σ of shape (1, 1) or (1, n)."""
        u = x.T.contiguous() - alpha * self.centre
        weight, gain, kept, own = self._weights(u, alpha, sigma)
        x0_hat = (self.means.T @ (weight * kept) + own * u + self.centre).T
        # (components, tangents, states): sums over components are on the first axis
        dots = (self.means @ tangents.flatten(0, 1).T).reshape(-1, *tangents.shape[:2])
        weight, kept = weight[:, None], kept[:, None]
        ratio = alpha / sigma.square()
        factor = ratio * kept
        if self._equal:
            factor = factor * kept
        else:  # m_k − own·u: terms that are equal in all m_k would cancel
            differ = (gain - own)[:, None]
            dots = dots.mul_(kept).add_(differ * (tangents * u.T).sum(2))
        dots.sub_((weight * dots).sum(0)).mul_(weight)
        moved = ((dots * factor).flatten(1).T @ self.means).reshape(tangents.shape)
        moved = moved.addcmul_(own.T, tangents)
        if not self._equal:
            rest = (dots * differ).sum(0) * ratio
            moved = moved.addcmul_(rest[..., None], u.T)
        return x0_hat, moved

    def _weights(
        self, u: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """r_k, (K, n); g_k and 1 − α·g_k, of the shape of the spread; and Σ r_k·g_k, (1, n)."""
        power = sigma.square()
        spread = alpha.square() * self.variances + power
        _, terms = self._terms(u, alpha, spread)
        weight, gain = terms / terms.sum(0), alpha * self.variances / spread
        return weight, gain, power / spread, (weight * gain).sum(0, keepdim=True)

    def _mean(self, u: Tensor, alpha: Tensor, spread: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Σ r_k·(a_k·μ_k + b_k·u), shape (dim, n); a and b have the shape of the spread."""
        _, terms = self._terms(u, alpha, spread)
        total = terms.sum(0)
        if self._equal:
            return self._weighted(terms) * (a / total) + b * u
        return (self._weighted(terms * a) + (terms * b).sum(0) * u) / total

    def _weighted(self, terms: Tensor) -> Tensor:
        """Σ terms_k·μ_k, shape (dim, n)."""
        if not self._sparse:
            return self.means.T @ terms
        table = terms.T
        few = (table != 0).sum(1, keepdim=True) <= FEW
        state, component = ((table != 0) & few).nonzero(as_tuple=True)
        sums = terms.new_zeros(len(table), self.means.shape[1])
        sums = sums.index_add(0, state, table[state, component, None] * self.means[component])
        return (sums if bool(few.all()) else torch.where(few, sums, table @ self.means)).T

    def _terms(self, u: Tensor, alpha: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """As `_logs`, with the terms w_k·N(x; αμ_k, S_k) relative to the largest, not their ln."""
        top, fall = self._logs(u, alpha, spread)
        return top, relative_terms_(fall)

    def _logs(self, u: Tensor, alpha: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """The largest ln(w_k·N(x; αμ_k, S_k)), (1, n), and all of them minus it, (K, n).

        If the variances are equal, `_same` is left out. Components are on the first axis, because
        sums over a short last axis are ten times slower on a CPU.
        """
        scale = alpha / spread
        bias = self.log_weights - alpha * scale * self.half_squares
        if self._equal and self._sparse:
            logs = torch.addmm(bias.T, (u * scale).T, self.means.T).T
        elif self._equal:
            logs = torch.addmm(bias, self.means, u * scale)
        else:
            logs = (self.means @ u).mul_(scale).add_(bias).add_(self._same(u, spread))
        return fall_(logs, 0)

    def _same(self, u: Tensor, spread: Tensor) -> Tensor:
        """The part of ln N(x; αμ_k, S_k) that does not depend on μ_k."""
        return -0.5 * (u.square().sum(0) / spread + len(u) * torch.log(2 * math.pi * spread))

    def _in_pieces(
        self, part: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, level: AnyLevel
    ) -> Tensor:
        """Evaluate a function of u = x − α·centre, (dim, n), and of α and σ, (1, 1) or (1, n)."""

        def centred(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            return part(x.T.contiguous() - alpha * self.centre, alpha, sigma).T

        return _in_pieces(centred, x, level, self.piece)


def _in_pieces(
    part: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, level: AnyLevel, rows: int
) -> Tensor:
    """Evaluate a function of states on some of them at a time.

    Args:
        part: the function, of states (n, dim), float64, and of α and σ, shape (1, 1) or (1, n).
        x: the states, shape (*batch, dim); the result has their dtype.
        rows: the largest number of states at a time.
    """
    flat, alpha, sigma = x.reshape(-1, x.shape[-1]), _flat(level.alpha, x), _flat(level.sigma, x)
    if len(flat) <= rows:
        return part(flat.double(), alpha, sigma).to(x.dtype)
    pieces = _pieces(len(flat), rows, alpha, sigma)
    return torch.cat([part(flat[own].double(), *scales).to(x.dtype) for own, *scales in pieces])


def _pieces(
    count: int, rows: int, alpha: Tensor, sigma: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some states at a time: their places, and their α and σ, (1, 1) or (1, n)."""
    for first in range(0, max(1, count), rows):
        own = slice(first, first + rows)
        one = alpha if alpha.shape[1] == 1 else alpha[:, own]
        yield own, one, sigma if sigma.shape[1] == 1 else sigma[:, own]


def _as_array(x: Tensor) -> NDArray[np.float64] | None:
    """States as an array; None if they are on another device or carry a derivative."""
    if x.device.type != "cpu" or forward_ad.unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]
        return None
    try:
        return x.double().numpy()
    except RuntimeError:  # a gradient is needed, or a transform of torch.func goes through them
        return None


class MixtureOracle(Denoiser):
    """The exact denoiser of Σ w_k·N(μ_k, C_k) with any covariances.

    It works in float64, in the eigenbasis of each C_k = Q_k·diag(λ_k)·Q_kᵀ, in which S_k is
    diagonal. The result has the dtype of the state. Some states are evaluated at a time, so that
    tables have about `ENTRIES` numbers. States are columns and the K·dim eigenvectors are rows, so
    products with all Q_k are one matrix product. Components often have the same eigenvalues, and
    what depends on these alone is computed once for all of them.

    In few dimensions, many components at one level are evaluated as quadratic forms, see `forms`,
    which takes a fifth of the time. They are not used where their terms would cancel.

    Args:
        weights: positive, shape (K,); normalised here.
        means: shape (K, dim).
        covariances: symmetric, positive semi-definite, shape (K, dim, dim).
    """

    log_weights: Tensor
    means: Tensor
    eigenvalues: Tensor
    basis: Tensor
    scaled_basis: Tensor
    centre: Tensor
    rotated_means: Tensor
    spectra: Tensor
    spectrum_of: Tensor
    eigen_terms: Tensor | None
    own_spectra: Tensor | None
    piece: int

    def __init__(
        self, schedule: NoiseSchedule, weights: Tensor, means: Tensor, covariances: Tensor
    ) -> None:
        super().__init__()
        self.schedule = schedule
        share = weights.double() / weights.double().sum()
        eigenvalues, basis = torch.linalg.eigh(covariances.double())
        spectra, spectrum_of = torch.unique(eigenvalues.clamp_min(0), dim=0, return_inverse=True)
        centre = share @ means.double()  # rounding errors are relative to the distance from it
        offsets = means.double() - centre
        self.register_buffer("log_weights", share.log())
        self.register_buffer("means", offsets)
        self.register_buffer("centre", centre[:, None])
        rows = basis.permute(2, 0, 1).flatten(0, 1).contiguous()  # eigenvectors
        self.register_buffer("basis", rows)
        self.register_buffer("scaled_basis", rows * eigenvalues.clamp_min(0).T.reshape(-1, 1))
        self.register_buffer("rotated_means", (basis.mT @ offsets[..., None])[..., 0].T[..., None])
        self.register_buffer("spectra", spectra.T[..., None])
        self.register_buffer("spectrum_of", spectrum_of)
        self.piece = max(1, ENTRIES // means.numel())
        self._rows = max(1, ENTRIES // len(means))  # the piece of forms
        count, dim = means.shape
        flat = count >= FORMS and dim <= FLAT
        terms = eigen_terms(basis, offsets) if flat else None
        self.register_buffer("eigen_terms", terms, persistent=False)
        own = eigenvalues.clamp_min(0).T.contiguous() if flat else None
        self.register_buffer("own_spectra", own, persistent=False)
        self._farthest, self._narrowest = float(offsets.norm(dim=1).max()), float(spectra.min())

    def _log_joint(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """ln(w_k·N(x; αμ_k, S_k)), shape (K, n), and Q_kᵀ·S_k⁻¹·(x − αμ_k), shape (dim, K, n)."""
        spread = alpha**2 * self.spectra + sigma**2  # (dim, spectra, 1 or n)
        shape = len(u), len(self.means), u.shape[1]
        rotated = (self.basis @ u).view(shape).sub_(alpha * self.rotated_means)
        solved = rotated / spread[:, self.spectrum_of]
        constant = -0.5 * torch.log(2 * math.pi * spread).sum(0)
        constant = constant[self.spectrum_of] + self.log_weights[:, None]
        return torch.sub(constant, (rotated * solved).sum(0), alpha=0.5), solved

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """Σ r_k·(μ_k + α·C_k·S_k⁻¹·(x − α·μ_k))."""
        known = self._forms(level)
        if known is not None:

            def mean(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
                return known.mean(u) + self.centre

            return self._in_pieces(mean, x, level, self._rows).reshape(x.shape)

        def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            log_joint, solved = self._log_joint(u, alpha, sigma)
            weight = responsibilities(log_joint, 0)
            moved = self.scaled_basis.T @ (solved * weight).flatten(0, 1)
            return self.means.T @ weight + alpha * moved + self.centre

        return self._in_pieces(part, x, level).reshape(x.shape)

    def _forms(self, level: AnyLevel, derivative: bool = False) -> Forms | None:
        """The quadratic forms of one level; None if other ways are cheaper or more exact.

        Args:
            derivative: whether they must also give a derivative. The covariances of the means are
                differences, whose terms cancel at small σ also where the components are wide.
        """
        if self.eigen_terms is None or self.own_spectra is None or isinstance(level.alpha, Tensor):
            return None
        a, noise = float(level.alpha), float(level.sigma)
        narrowest = noise**2 if derivative else a**2 * self._narrowest + noise**2
        if (a * self._farthest) ** 2 >= CANCELLING * narrowest:
            return None
        return forms((a, noise), self.log_weights, self.own_spectra, self.eigen_terms)

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """J = Σ r_k·G_k + (α/σ²)·Σ r_k·(m_k − x̂₀)·(m_k − x̂₀)ᵀ, G_k = α·C_k·S_k⁻¹.

        m_k = μ_k + G_k·(x − α·μ_k) is the mean of component k.
        """
        known = self._forms(level, derivative=True)
        if known is None:
            both = self._in_pieces(self._with_derivative(), x, level)
        else:
            by_forms = known.derivative()

            def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
                columns = by_forms(u)
                columns[: len(u)] += self.centre
                return columns

            both = self._in_pieces(part, x, level, self._rows)
        both = both.reshape(len(x), 1 + x.shape[1], x.shape[1])
        return both[:, 0], both[:, 1:]

    def _with_derivative(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """A function of u, α and σ: x̂₀ and the columns of J, shape ((1 + dim)·dim, n)."""
        products = (self.basis[:, :, None] * self.basis[:, None]).flatten(1)

        def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            log_joint, solved = self._log_joint(u, alpha, sigma)
            weight = responsibilities(log_joint, 0)
            gain = alpha * self.spectra / (alpha**2 * self.spectra + sigma**2)
            own = products.T @ (weight * gain[:, self.spectrum_of]).flatten(0, 1)
            scaled = self.scaled_basis.view(len(u), -1, len(u))
            means = torch.einsum("jki,jkn->ikn", scaled, solved)  # m_k without the centre
            means = means.mul_(alpha).add_(self.means.T[..., None])
            mean = (weight * means).sum(1)
            means -= mean[:, None]
            covariance = [(share * means).sum(1) for share in weight * means]
            derivative = own.add_(torch.cat(covariance) * (alpha / sigma**2))
            return torch.cat([mean + self.centre, derivative])

        return part

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """Σ r_k·S_k⁻¹·(α·μ_k − x), defined also at σ = 0, where (α·x̂₀ − x)/σ² is 0/0."""

        def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            log_joint, solved = self._log_joint(u, alpha, sigma)
            return -self.basis.T @ (solved * responsibilities(log_joint, 0)).flatten(0, 1)

        return self._in_pieces(part, x, level).reshape(x.shape)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        def part(u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            return log_sum(self._log_joint(u, alpha, sigma)[0], 0)[None]

        return self._in_pieces(part, x, level).reshape(x.shape[:-1])

    def _in_pieces(
        self,
        part: Callable[[Tensor, Tensor, Tensor], Tensor],
        x: Tensor,
        level: AnyLevel,
        rows: int | None = None,
    ) -> Tensor:
        """Evaluate a function of u = x − α·centre, (dim, n), and of α and σ, (1, 1) or (1, n)."""

        def centred(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
            return part(x.T - alpha * self.centre, alpha, sigma).T

        return _in_pieces(centred, x, level, rows or self.piece)


def _flat(scale: float | Tensor, x: Tensor) -> Tensor:
    """α or σ as float64, shape (1, 1) or (1, n), for states that are flattened to (n, dim)."""
    if isinstance(scale, Tensor):
        return scale.double().expand(*x.shape[:-1], 1).reshape(1, -1)
    return torch.tensor([[scale]], dtype=torch.float64, device=x.device)


class Counted(Denoiser):
    """Wraps a model and counts its function evaluations, NFE, and their sequential rounds.

    One evaluation is one state of each sample of a batch, as in the literature. All calls are one
    evaluation in a round of its own, except `parallel`. `Sampler.why_incompatible` has checked that
    the wrapped model has the methods that the sampler calls.

    Attributes:
        evaluations: NFE so far.
        rounds: the calls so far, each of which may need the result of the one before it.
    """

    def __init__(self, model: Score) -> None:
        super().__init__()
        self.model = model
        if isinstance(model, Denoiser):
            self.schedule, self.has_covariance = model.schedule, model.has_covariance
        self.evaluations = self.rounds = 0

    def taken(self) -> tuple[int, int]:
        """Return the evaluations and rounds so far, and set both counts to 0."""
        counts = self.evaluations, self.rounds
        self.evaluations = self.rounds = 0
        return counts

    def _count(self) -> None:
        self.evaluations += 1
        self.rounds += 1

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        assert isinstance(self.model, Denoiser)  # checked by the sampler's `needs`
        self._count()
        return self.model.denoiser(x, level)

    def parallel(self, call: Call, x: Tensor, level: AnyLevel) -> Tensor:
        result = super().parallel(call, x, level)
        self.evaluations += len(x) - 1
        return result

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """The wrapped denoiser's x̂₀ and ∂x̂₀/∂x, counted as one evaluation."""
        assert isinstance(self.model, Denoiser)
        self._count()
        return self.model.derivative(x, level)

    def along(self, x: Tensor, tangents: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """The wrapped denoiser's x̂₀ and J·v, counted as one evaluation."""
        assert isinstance(self.model, Denoiser)
        self._count()
        return self.model.along(x, tangents, level)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        self._count()
        return self.model.score(x, level)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        assert isinstance(self.model, Density)  # checked by the sampler's `needs_density`
        self._count()
        name = type(self.model).__name__
        return log_densities(self.model.log_density(x, level), x, "denoiser", name)
