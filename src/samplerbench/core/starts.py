"""Starts: the law of a sampler's first state.

On the path the state at the first level has the law of α·x₀ + σ·ε. The *exact* start draws from
this law, with new draws x₀ of the data's law. In practice that is impossible, and the first state
is drawn from the *prior* N(0, σ²·I), as if no signal were left. The resulting error is the prior
mismatch, a part of the error budget. All starts use the same ε for the same key, so their
difference is paired.

*Chains.* A Langevin sampler stays at one level. If the level has no noise, N(0, σ²·I) is one point,
and chains that start at one point can agree although all of them are wrong. If a job has a prior,
its chains start *overdispersed* instead, wider than the law. Then R̂ can show that some chains did
not leave a mode (Gelman and Rubin, "Inference from iterative simulation using multiple
sequences", Statistical Science 7(4), 1992, Section 2.1).

*Sobol starts.* A start is a map of the unit cube: x₀ comes from the first k coordinates (see
`Dataset.from_uniforms`), and ε from the normal quantiles of the other dim. The n samples of a
repetition are then the first n points of one Sobol sequence, scrambled by a random linear map of
the digits and a random shift (Matoušek, "On the L₂-discrepancy for anchored boxes", J. Complexity
14, 1998; Owen, "Randomly permuted (t, m, s)-nets and (t, s)-sequences", 1995, explains why the
variance falls faster than 1/n). So

- each single point is uniform on the cube: each first state has exactly the law of a random start;
- the points of one repetition fill the cube evenly. They are dependent, and their distance to the
  law is smaller than that of n random points;
- every repetition has its own scramble, so repetitions are independent, and intervals over them are
  valid.

Sample i gets point i: block b takes the points b·B, …, (b+1)·B − 1, for every block size B. The
first n points are evenly spread for every n, but exactly balanced only if n is a power of two
(Owen, "On dropping the first Sobol' point", 2020): use n = 2 048, not 2 000. The noise that a
sampler draws stays random, so a method with η > 0 gains little. Compare the distance of these
samples with the floor of `stratified_draws`, not with that of random draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.noise import generator
from samplerbench.errors import InvalidSetting, require, require_compatible

#: Stands for the data in starts that do not use them.
_NONE = torch.full((1, 1), torch.nan, dtype=torch.float64)


class Moments(NamedTuple):
    """Mean and variance of each coordinate of a law, and their standard errors.

    All are float64, of shape (dim,). An error of zero means an exact value.
    """

    mean: Tensor
    variance: Tensor
    mean_error: Tensor
    variance_error: Tensor

    @classmethod
    def exact(cls, mean: Tensor, variance: Tensor) -> Moments:
        return cls(mean, variance, torch.zeros_like(mean), torch.zeros_like(mean))

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """The moments of independent draws, shape (n, dim)."""
        mean, variance = x.mean(0), x.var(0)
        fourth = (x - mean).pow(4).mean(0) - variance.square()
        return cls(mean, variance, (variance / len(x)).sqrt(), (fourth / len(x)).clamp(0).sqrt())

    @property
    def known_to(self) -> float:
        """The largest standard error of a mean or deviation, in standard deviations of the law."""
        errors = torch.stack(
            [self.mean_error / self.variance.sqrt(), self.variance_error / (2 * self.variance)]
        )
        return float(errors.max())

    def errors_of(self, x: Tensor) -> tuple[float, float]:
        """The largest errors of the mean and of the deviation of x, shape (n, dim), float64.

        They are in standard deviations of the law. A single point has deviation 0: its error is 1.
        """
        sd = self.variance.sqrt()
        own = x.std(0, correction=min(1, len(x) - 1))
        return float(((x.mean(0) - self.mean).abs() / sd).max()), float((own / sd - 1).abs().max())


class Law(Protocol):
    """The part of `datasets.base.Dataset` that a start or a fit of a grid uses."""

    @property
    def can_be_drawn(self) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def uniform_dim(self) -> int | None: ...
    def moments(self) -> Moments | None: ...
    def sample(self, count: int, generator: np.random.Generator) -> Tensor: ...
    def from_uniforms(self, u: Tensor) -> Tensor: ...


#: ln q(x) of the path at a level, as `models.Density.log_density`.
PathDensity = Callable[[Tensor, Level[float]], Tensor]


class Start(ABC):
    """The law of the first state. Members are frozen dataclasses."""

    @property
    def uses_data(self) -> bool:
        """Whether the first state depends on x₀. If not, x₀ is not drawn and `combine` gets NaN."""
        return False

    @property
    def held(self) -> bool | None:
        """True: only for chains at one level. False: only for samplers that move. None: for all."""
        return None

    @property
    def law(self) -> str:
        """The law in words, for a title."""
        return type(self).__name__

    @abstractmethod
    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        """The first state, from a draw of the data and standard normal noise.

        Args:
            x0: shape (n, dim), float64; see `uses_data`.
            eps: shape (n, dim), float64.
        """

    def log_density(self, x: Tensor, level: Level[float], path: PathDensity) -> Tensor:
        """ln of the density of the first state, shape (n,), at points (n, dim).

        Args:
            path: ln q(x) of the path at a level.

        Raises:
            InvalidSetting: the density is not known.
        """
        raise InvalidSetting("start", type(self).__name__, "one whose density is known")

    def moments(
        self, mean: Tensor, variances: Tensor, level: Level[float]
    ) -> tuple[Tensor, Tensor]:
        """Mean and variances of the first state's independent coordinates, for Gaussian data.

        Args:
            mean: the mean of the data, shape (dim,).
            variances: the variances of its independent coordinates, shape (dim,).

        Raises:
            InvalidSetting: the first state is not known to be Gaussian.
        """
        raise InvalidSetting("start", type(self).__name__, "one that is Gaussian on Gaussian data")

    def why_incompatible(self, dataset: Law) -> str | None:
        """Why this data set does not allow this start, in one line, or None if it does."""
        if self.uses_data and not dataset.can_be_drawn:
            return "it begins at data, but there are no data; see start=prior"
        return None

    def draw(
        self, dataset: Law, count: int, level: Level[float], key: tuple[int | str, ...]
    ) -> Tensor:
        """Draw the first states of a block, shape (count, dim), float64.

        Args:
            count: the size of the block.
            key: (seed, repetition, block). The draw depends only on this key.
        """
        eps = generator("start", *key, "eps").standard_normal((count, dataset.dim))
        x0 = _NONE.expand(count, dataset.dim)
        if self.uses_data:
            x0 = self.clean(dataset, count, generator("start", *key, "x0"))
        return self.combine(x0, torch.from_numpy(eps), level)

    def clean(self, dataset: Law, count: int, generator: np.random.Generator) -> Tensor:
        """x₀, shape (count, dim), float64: draws of the data."""
        return dataset.sample(count, generator)


@dataclass(frozen=True)
class Prior(Start):
    """N(0, σ²·I) with σ of the first level, the usual choice; N(0, I) if σ = 1.

    It is for samplers that move; `for_samplers` gives chains an overdispersed start instead.
    """

    @property
    def held(self) -> bool:
        return False

    @property
    def law(self) -> str:
        return "the prior N(0, σ²I)"

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return level.sigma * eps

    def log_density(self, x: Tensor, level: Level[float], path: PathDensity) -> Tensor:
        return _log_normal(x, 0.0, level.sigma)

    def moments(
        self, mean: Tensor, variances: Tensor, level: Level[float]
    ) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(mean), torch.full_like(variances, level.sigma**2)


@dataclass(frozen=True)
class Exact(Start):
    """α·x₀ + σ·ε with new x₀: the law of the path at the first level."""

    @property
    def uses_data(self) -> bool:
        return True

    @property
    def law(self) -> str:
        return "exact, α·x₀ + σ·ε"

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return level.alpha * x0 + level.sigma * eps

    def log_density(self, x: Tensor, level: Level[float], path: PathDensity) -> Tensor:
        return path(x, level)

    def moments(
        self, mean: Tensor, variances: Tensor, level: Level[float]
    ) -> tuple[Tensor, Tensor]:
        return level.alpha * mean, level.alpha**2 * variances + level.sigma**2


@dataclass(frozen=True)
class Overdispersed(Start):
    """α·x₀ + σ·ε with x₀ ~ N(m, (factor·s)²), m and s the mean and deviation of each coordinate.

    For chains, which stay at one level. m and s are those of `Dataset.moments`; no draw of the data
    is used.

    Args:
        factor: the standard deviation relative to the data's.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        require(1 < self.factor < math.inf, "factor", self.factor, "above 1")

    @property
    def uses_data(self) -> bool:
        return True

    @property
    def held(self) -> bool:
        return True

    @property
    def law(self) -> str:
        return f"overdispersed, N(mean, ({self.factor:g}·sd)²)"

    def why_incompatible(self, dataset: Law) -> str | None:
        if dataset.moments() is None:
            return "the mean and variance of the data are not known; see start=gaussian"
        return None

    def clean(self, dataset: Law, count: int, generator: np.random.Generator) -> Tensor:
        """Wide normal draws, shape (count, dim), float64."""
        moments = dataset.moments()
        assert moments is not None  # checked by why_incompatible
        z = torch.from_numpy(generator.standard_normal((count, dataset.dim)))
        return moments.mean + self.factor * moments.variance.sqrt() * z

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return level.alpha * x0 + level.sigma * eps

    def moments(
        self, mean: Tensor, variances: Tensor, level: Level[float]
    ) -> tuple[Tensor, Tensor]:
        wide = (self.factor * level.alpha) ** 2 * variances
        return level.alpha * mean, wide + level.sigma**2


@dataclass(frozen=True)
class FixedGaussian(Start):
    """N(mean, std²·I), the same for every coordinate, in the units of the data."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.mean), "mean", self.mean, "finite")
        require(0 < self.std < math.inf, "std", self.std, "positive")

    @property
    def law(self) -> str:
        return f"N({self.mean:g}, {self.std:g}²I)"

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return self.mean + self.std * eps

    def log_density(self, x: Tensor, level: Level[float], path: PathDensity) -> Tensor:
        return _log_normal(x, self.mean, self.std)

    def moments(
        self, mean: Tensor, variances: Tensor, level: Level[float]
    ) -> tuple[Tensor, Tensor]:
        return torch.full_like(mean, self.mean), torch.full_like(variances, self.std**2)


@dataclass(frozen=True)
class Sobol(Start):
    """The law of another start, drawn with the points of a scrambled Sobol sequence.

    Starts with the same key share their points, so the difference of `Sobol(Exact())` and
    `Sobol(Prior())` is paired. `Sobol(Exact())` needs data that are a map of the unit cube.

    Args:
        start: the other start.
    """

    start: Start

    def __post_init__(self) -> None:
        require(not self.start.held, "start", self.start, "prior, exact or a fixed Gaussian")

    @property
    def uses_data(self) -> bool:
        return self.start.uses_data

    @property
    def held(self) -> bool | None:
        return self.start.held

    @property
    def law(self) -> str:
        return f"{self.start.law}, drawn evenly"

    def combine(self, x0: Tensor, eps: Tensor, level: Level[float]) -> Tensor:
        return self.start.combine(x0, eps, level)

    def log_density(self, x: Tensor, level: Level[float], path: PathDensity) -> Tensor:
        return self.start.log_density(x, level, path)

    def moments(
        self, mean: Tensor, variances: Tensor, level: Level[float]
    ) -> tuple[Tensor, Tensor]:
        return self.start.moments(mean, variances, level)

    def why_incompatible(self, dataset: Law) -> str | None:
        reason = self.start.why_incompatible(dataset)
        if reason is None and self.start.uses_data and dataset.uniform_dim is None:
            name = type(dataset).__name__
            return f"{name} cannot be drawn from given uniform numbers, which a Sobol start needs"
        return reason

    def draw(
        self, dataset: Law, count: int, level: Level[float], key: tuple[int | str, ...]
    ) -> Tensor:
        """As in `Start`; all blocks have the same size, and their points follow each other.

        Raises:
            InvalidSetting: the start needs x₀, and the data set is not a map of the unit cube.
        """
        require_compatible(self.why_incompatible(dataset), "start", type(self).__name__)
        data_columns = dataset.uniform_dim or 0
        *shared, block = key
        first = int(block) * count
        # the data get the first columns of the Sobol sequence, which are spread most evenly
        u = sobol_points(count, data_columns + dataset.dim, first, "start", *shared)
        eps = torch.special.ndtri(u[:, data_columns:])
        x0 = _NONE.expand(count, dataset.dim)
        if self.uses_data:
            x0 = dataset.from_uniforms(u[:, :data_columns])
        return self.combine(x0, eps, level)


def sobol_prior() -> Sobol:
    """`Prior` from Sobol points."""
    return Sobol(Prior())


def sobol_exact() -> Sobol:
    """`Exact` from Sobol points."""
    return Sobol(Exact())


def for_samplers(starts: Mapping[str, Start], holds: bool) -> dict[str, Start]:
    """The starts for samplers that stay at one level (`holds`), or for samplers that move.

    A prior is only for samplers that move. For chains `Overdispersed` replaces it, under the name
    "overdispersed", unless the starts already contain one.

    Raises:
        InvalidSetting: no start is for these samplers.
    """
    fitting = {name: start for name, start in starts.items() if start.held in (None, holds)}
    replaced = any(start.held is False for start in starts.values())
    if holds and replaced and not any(start.held for start in fitting.values()):
        return {"overdispersed": Overdispersed(), **fitting}
    allowed = "with one for samplers that move, such as prior: these are for chains"
    require(len(fitting) > 0, "start", list(starts), allowed)
    return fitting


def stratified_draws(dataset: Law, count: int, *key: int | str) -> Tensor:
    """Draws of the law from Sobol points, shape (count, dim), float64: the floor of Sobol starts.

    Args:
        count: n, best a power of two.
        key: purpose, seed and repetition. Every key has its own scramble.

    Raises:
        ValueError: the law is not a map of the unit cube.
    """
    return dataset.from_uniforms(sobol_points(count, dataset.uniform_dim or 1, 0, "draws", *key))


def plain_start(start: Start) -> Start:
    """The start with the same law that is drawn without Sobol points."""
    return start.start if isinstance(start, Sobol) else start


def _log_normal(x: Tensor, mean: float, std: float) -> Tensor:
    """ln N(x; mean, std²·I), shape (n,)."""
    return (-0.5 * ((x - mean) / std).square() - math.log(std * math.sqrt(2 * math.pi))).sum(-1)


#: Binary digits of a point. SciPy 1.17 cannot skip points with more; 2³² points are enough.
_BITS = 32


def sobol_points(count: int, columns: int, first: int, *key: int | str) -> Tensor:
    """Points first, …, first + count − 1 of the scrambled Sobol sequence of a key.

    Shape (count, columns), float64, strictly inside (0, 1).
    """
    from scipy.stats import qmc  # slow to import, and rarely needed

    # SciPy needs a seed here: it cannot spawn generators from a keyed one
    seed = int(generator("sobol", *key).integers(2**63))
    engine = qmc.Sobol(columns, bits=_BITS, rng=seed)
    if first > 0:
        engine.fast_forward(first)
        points = engine.random(count)
    else:  # in two calls, because SciPy warns if the first call asks for 1 000 points
        points = np.concatenate([engine.random(1), engine.random(count - 1)])
    return torch.from_numpy(points + 0.5 ** (_BITS + 1))
