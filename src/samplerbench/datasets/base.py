"""The contract of data sets: a law, its draws, and its exact denoiser if it is known.

Draws for different purposes (training, validation, evaluation, floor, exact start) have different
keys of `noise.generator`, so they are independent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod, sqrt

import numpy as np
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.line_laws import LineLaw
from samplerbench.core.models import Denoiser, Density, Score, log_densities
from samplerbench.core.noise import generator
from samplerbench.core.schedules import EDM, NoiseSchedule
from samplerbench.core.starts import Moments
from samplerbench.errors import InvalidSetting, require

#: Larger coordinates are refused, in data and in samples: squares could overflow in float32.
LARGEST = 1e15
#: The largest number of values in the draws from which moments are computed.
MOST_NUMBERS = 10**7


def all_usable(points: Tensor) -> bool:
    """Whether all numbers are finite and below `LARGEST` in size; without temporary arrays."""
    low, high = points.aminmax()
    return bool((low > -LARGEST) & (high < LARGEST))  # false for NaN


class Dataset(ABC):
    """A law on R^dim. Members are frozen dataclasses, one per file."""

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one datum: (dim,), or (channels, height, width). States are flattened."""

    @property
    def dim(self) -> int:
        """The length of a flattened datum."""
        return prod(self.event_shape)

    @abstractmethod
    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Independent draws of the law, shape (count, dim), float64."""

    @property
    def can_be_drawn(self) -> bool:
        """Whether data can be drawn; a pretrained model may come without data."""
        return True

    @property
    def known_law(self) -> bool:
        """Whether the law is known. If not, the oracle is that of known points."""
        return True

    @property
    def uniform_dim(self) -> int | None:
        """The number of uniform numbers per datum in `from_uniforms`; None if there is no map."""
        return None

    def from_uniforms(self, u: Tensor) -> Tensor:
        """Map uniform numbers u strictly inside (0, 1), shape (n, uniform_dim), to draws (n, dim).

        Stratified u result in stratified draws, see `starts.Sobol`.

        Raises:
            ValueError: the law has no such map.
        """
        raise ValueError(f"{type(self).__name__} cannot be drawn from given uniform numbers")

    def oracle(self, schedule: NoiseSchedule) -> Denoiser | None:
        """The exact denoiser on a path, or None if it is not known."""
        return None

    def exact_score(self, schedule: NoiseSchedule) -> Score | None:
        """The exact score on a path: the oracle, or the score at the data if only ln p is known."""
        return self.oracle(schedule)

    def log_density(self, x: Tensor) -> Tensor:
        """ln p(x) of the law, shape (n,), for points (n, dim); by default of the oracle at σ = 0.

        Raises:
            InvalidSetting: the density is not known, or the law has none.
        """
        return _of_oracle(self)(x)

    def line_law(self) -> LineLaw | None:
        """The law of one-dimensional data, for distances to it, or None.

        For a finite set of points it is the law they were drawn from, not their empirical law.
        """
        return None

    def moments(self) -> Moments | None:
        """Mean and variance of each coordinate; None if unknown.

        By default they are those of 10 000 draws, or fewer for data with many coordinates. Members
        override this if they know the exact moments.
        """
        return Moments.of(self._some_draws()) if self.can_be_drawn else None

    @property
    def deviation(self) -> float:
        """The standard deviation of a coordinate, √(mean variance); 1 if it is unknown."""
        moments = self.moments()
        return 1.0 if moments is None else sqrt(float(moments.variance.mean()))

    def covariance(self) -> Tensor | None:
        """The covariance of the law, shape (dim, dim), float64, if it is known exactly."""
        return None

    def known_points(self) -> Tensor:
        """Points that represent the law, (n, dim), float64: draws, or a whole finite data set."""
        return self._some_draws()

    def _some_draws(self) -> Tensor:
        count = max(1000, min(10_000, MOST_NUMBERS // self.dim))
        return self.sample(count, generator("data", "moments"))

    def noised(self, noise: float) -> Dataset | None:
        """The law of x₀ + noise·ε as a data set, or None if that is not available.

        It is the stationary law of Langevin samplers that stay at one noise level.
        """
        return None

    def most_draws(self, purpose: str) -> int | None:
        """The largest number of draws for a purpose; None for any number."""
        return None

    def floor_sets(self, count: int) -> int | None:
        """The number of independent sets of `count` floor draws; None for any number."""
        return None

    def draws(self, count: int, purpose: str, *key: int) -> Tensor:
        """The draws for a purpose ("train", "validation", "evaluation", …) and its seeds.

        Shape (count, dim), float64. Each purpose has its own draws.
        """
        return self.sample(count, generator("data", purpose, *key))


class PlanarDataset(Dataset):
    """A law in the plane."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (2,)


def _of_oracle(dataset: Dataset) -> Callable[[Tensor], Tensor]:
    """ln p of the law of a data set by its oracle."""
    name, oracle = type(dataset).__name__, None
    if dataset.known_law:
        oracle = dataset.oracle(EDM())
    if not isinstance(oracle, Density):
        raise InvalidSetting("dataset", name, "a data set whose density is known")

    def log_density(x: Tensor) -> Tensor:
        # at the data every path has α = 1 and σ = 0
        values = oracle.to(x.device).log_density(x, Level(0.0, 1.0, 0.0))
        allowed = (
            "a law with a density at all of its points; with a singular covariance it has none"
        )
        require(not bool(values.isnan().any()), "dataset", name, allowed)
        return values

    return log_density


def density_of(dataset: Dataset) -> Callable[[Tensor], Tensor]:
    """`log_density_of` as a function of the points, for several calls.

    Raises:
        InvalidSetting: the density is not known; or later, as `log_density_of`.
    """
    own: Callable[[Tensor], Tensor] = dataset.log_density
    if type(dataset).log_density is Dataset.log_density:
        own = _of_oracle(dataset)

    def log_density(x: Tensor) -> Tensor:
        return log_densities(own(x), x, "dataset", type(dataset).__name__).double()

    return log_density


def log_density_of(dataset: Dataset, x: Tensor) -> Tensor:
    """ln p(x) of the law of a data set, shape (n,), float64, for points (n, dim).

    Raises:
        InvalidSetting: it is not known, or the method of the data set returns an invalid result.
    """
    return density_of(dataset)(x)


def why_no_log_density(dataset: Dataset) -> str | None:
    """What a known density of the law needs, in one line; None if it is known."""
    try:
        log_density_of(dataset, dataset.draws(2, "density", 0))
    except InvalidSetting as error:
        return f"it needs {error.allowed}"
    return None


def finite(points: Tensor, key: str) -> Tensor:
    """Return the points, or refuse them if there are none or some are not finite."""
    require(len(points) > 0, key, f"{len(points)} points", "a data set that is not empty")
    bad = int((~points.isfinite()).any(-1).sum())
    require(bad == 0, key, f"{bad} points with NaN or infinite entries", "finite everywhere")
    return points
