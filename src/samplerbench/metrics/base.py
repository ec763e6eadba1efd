"""The contract of metrics: distances between two clouds of points, or between a cloud and a law.

A cloud x₁, …, x_n in R^dim represents its empirical measure (1/n) Σᵢ δ(xᵢ): equal weights, any
order. A metric D compares two clouds in two steps, because one reference is used for many samples:

    distance = metric.against(reference, seed=metric_seed)   # once: prepares the reference
    distance(samples)                                        # often, from any number of threads

A law metric compares a cloud with the law of a data set itself, without the noise of a reference:

    distance = metric.against_law(dataset, seed=metric_seed)

A measurement has bounds on the metric, lower ≤ D(samples, reference) ≤ upper; a bound is nan if the
method has none. For example, a maximum over finitely many directions bounds the maximum over the
sphere only from below. Values are in the units of the data, unless the docstring of a metric says
otherwise. The choice of the unit must not matter. So no metric has a tolerance in data units, and
no metric squares float32 numbers without scaling them first.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from samplerbench.core.line_laws import LineNodes
from samplerbench.datasets.base import LARGEST, Dataset, all_usable, density_of, why_no_log_density
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.errors import InvalidSetting, require


@dataclass(frozen=True, eq=False)
class Measurement:
    """The result of one distance."""

    value: float  # the estimate, in data units
    lower: float  # a lower bound on the metric, nan if there is none
    upper: float  # an upper bound on the metric, nan if there is none
    # the unit vector `(dim,)` that attains the value, in float64 on the CPU; None for a metric
    # without directions
    direction: Tensor | None
    evaluations: int  # the number of one-dimensional distances that were computed
    # more numbers by name, such as the p-value of a test; see the member
    info: Mapping[str, float] = field(default_factory=dict)


class Distance(ABC):
    """A metric with one argument fixed: the distance of samples to a reference."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    @final
    def __call__(self, samples: Tensor) -> Measurement:
        """Measure samples `(n, dim)`.

        Raises:
            ValueError: the samples are empty, not finite, or of another dimension.
        """
        return self.measure(finite_points(samples, "samples", self.dim))

    @abstractmethod
    def measure(self, samples: Tensor) -> Measurement:
        """Measure checked samples `(n, dim)`; several threads may call this at once."""


class MeasuredBy(Distance):
    """The distance that a function of checked samples `(n, dim)` measures."""

    def __init__(self, dim: int, function: Callable[[Tensor], Measurement]) -> None:
        super().__init__(dim)
        self._function = function

    def measure(self, samples: Tensor) -> Measurement:
        return self._function(samples)


class _Settings:
    """A metric and its settings. Members are frozen dataclasses: their fields identify a value.

    Attributes:
        is_wasserstein: whether a value is a Wasserstein distance. Such a value is in the units of
            the data, value(s·x, s·y) = s·value(x, y), and never negative, and the squares of the
            floor and of a distance between laws add up.
        smaller_is_better: whether a smaller value is always better. If not, samplers are not ranked
            by this metric, and its error budget has no advice.
    """

    is_wasserstein: ClassVar[bool] = True
    smaller_is_better: ClassVar[bool] = True

    @property
    def floor_exponent(self) -> float:
        """The exponent a of a floor that falls like n^−a, for a law whose modes are far apart.

        A share of about n^−½ of the mass is in the wrong mode and has to travel a fixed distance.
        W_p is the p-th root of this cost, so a = 1/(2p). A metric without a root falls like the
        share.
        """
        return 0.5 / float(getattr(self, "p", 2.0)) if self.is_wasserstein else 0.5


class Metric(_Settings, ABC):
    """A metric between clouds, with its settings.

    Attributes:
        allows_coupled: whether the clouds may depend on each other, as for two samplers with the
            same starts. Unbiased estimates need independent clouds.
    """

    allows_coupled: ClassVar[bool] = True

    def why_incompatible(self, dim: int) -> str | None:
        """The reason in one line why the metric cannot be used in that dimension, or None."""
        return None

    def why_too_large(self, n: int, m: int) -> str | None:
        """The reason in one line why n samples and m points are too many, or None."""
        return None

    @final
    def against(self, reference: Tensor, *, seed: int) -> Distance:
        """Prepare the reference `(m, dim)`; `seed` determines all random numbers of the metric.

        Raises:
            ValueError: the reference is empty, is not finite, or has a dimension that the metric
                cannot handle; or the seed is negative.
        """
        points = finite_points(reference, "reference")
        require(seed >= 0, "seed", seed, "at least 0")
        reason = self.why_incompatible(points.shape[1])
        if reason is not None:
            raise ValueError(reason)
        return self.prepare(points, seed)

    @abstractmethod
    def prepare(self, reference: Tensor, seed: int) -> Distance:
        """Build the distance to a checked reference `(m, dim)`."""


class LawMetric(_Settings, ABC):
    """A metric against a law, with its settings."""

    @abstractmethod
    def why_incompatible(self, dataset: Dataset) -> str | None:
        """The reason in one line why the metric cannot be used with that law; None if it can."""

    @final
    def against_law(self, dataset: Dataset, *, seed: int) -> Distance:
        """Prepare the law; `seed` determines all random numbers of the metric.

        Raises:
            ValueError: the metric cannot handle the law; the seed is negative.
        """
        require(seed >= 0, "seed", seed, "at least 0")
        reason = self.why_incompatible(dataset)
        if reason is not None:
            raise ValueError(reason)
        return self.prepare(dataset, seed)

    @abstractmethod
    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        """Build the distance to a compatible law."""


AnyMetric = Metric | LawMetric


class OutputLawMetric(LawMetric):
    """A metric of the law of a sampler's output instead of samples. It has no floor.

    Attributes:
        needs: the kind of output law that it needs, a key of `bench.sweep.OUTPUT_LAWS`.
    """

    needs: ClassVar[str]

    @abstractmethod
    def is_exact(self, dataset: Dataset) -> bool:
        """Whether its value has no sampling error, so that one repetition is enough."""

    @abstractmethod
    def of_output(self, values: Tensor | LineNodes, dataset: Dataset) -> Measurement:
        """The distance of an output law of the kind `needs`; see `bench.densities.OutputLaw`."""

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        allowed = "another one: it needs the law of a sampler's output, not samples"
        raise InvalidSetting("metric", type(self).__name__, allowed)


def exact_names(metrics: Mapping[str, AnyMetric], dataset: Dataset) -> list[str]:
    """The names of the metrics of output laws whose values have no sampling error."""
    return [
        name
        for name, metric in metrics.items()
        if isinstance(metric, OutputLawMetric) and metric.is_exact(dataset)
    ]


class SpectrumDistance(OutputLawMetric):
    """An exact distance of a sampler's output from a Gaussian: one repetition is enough.

    `bench.spectra` computes means and variances of the output's coordinates, for samplers with
    fixed steps and the exact denoiser.
    """

    needs: ClassVar[str] = "spectrum"

    def is_exact(self, dataset: Dataset) -> bool:
        return True

    def of_output(self, values: Tensor | LineNodes, dataset: Dataset) -> Measurement:
        assert isinstance(dataset, GaussianSpectrum)  # see why_incompatible
        assert isinstance(values, Tensor)
        mean, variances = values
        return self.between(mean, variances, dataset)

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if isinstance(dataset, GaussianSpectrum):
            return None
        return "it needs a Gaussian: law=gaussian_twin makes one of any data set"

    @abstractmethod
    def between(self, mean: Tensor, variances: Tensor, law: GaussianSpectrum) -> Measurement:
        """The distance from N(mean, diag(variances)) to the law."""


#: The largest dimension: a density needs dim derivatives of each state, and dim² numbers.
MOST_DIM = 128
#: E_q[r] is at most 1; the result of a quadrature may be larger by its error.
MOST_RATIO = 1.001
#: The number of draws that estimate the share of the data between the ends of a law on a line, and
#: a significant difference from this share, more than three standard errors.
_DRAWN, _APART = 1000, 0.05
#: The number of points at a time: no temporary array has the size of all points.
PIECE = 2**16


class Divergence(OutputLawMetric):
    """A divergence of the samples' law q from the data's law p, from ln r = ln p − ln q.

    It needs the density of q, which `bench.densities` computes at draws of q, for samplers that
    draw no noise. In one dimension it is known at the nodes of a quadrature, for all samplers.
    """

    is_wasserstein: ClassVar[bool] = False
    needs: ClassVar[str] = "density"

    def is_exact(self, dataset: Dataset) -> bool:
        return dataset.dim == 1

    def of_output(self, values: Tensor | LineNodes, dataset: Dataset) -> Measurement:
        if isinstance(values, Tensor):
            return self.estimate(values)

        log_density = density_of(dataset)

        def log_p(y: Tensor) -> Tensor:
            return log_density(y.reshape(-1, 1)).reshape(y.shape)

        def mass(law: LineNodes) -> float:
            """The mass of p where q has mass."""
            return float(law.mean((log_p(law.points) - law.log_density).exp()))

        ratio = mass(values)
        if not ratio <= MOST_RATIO:
            raise ValueError(
                f"the mean of p/q is {ratio:.6g}, and at most 1 is possible: the log_density of "
                "the data is not normalised, or not a number somewhere"
            )
        if dataset.line_law() is not None and type(dataset).log_density is Dataset.log_density:
            between = 0.0  # p is normalised; q may be 0 in float64 in the flanks of its modes
        else:
            between = self._mass_between(values, dataset)
        if ratio < between - _APART:
            raise ValueError(
                f"the mean of p/q is {ratio:.6g}, and {between:.3g} of the data lie between the "
                "ends of q: the log_density of the data is not normalised"
            )
        info = {"mean_ratio": ratio, "mean_ratio_error": error_of(values, ratio, mass)}
        return by_quadrature(values, lambda law: self.integrate(law, log_p), **info)

    @staticmethod
    def _mass_between(law: LineNodes, dataset: Dataset) -> float:
        """The share of the data between the ends of q: without gaps in q the mean of r."""
        drawn = dataset.draws(_DRAWN, "density", 0)
        inside = (drawn > float(law.points.min())) & (drawn < float(law.points.max()))
        return float(inside.double().mean())

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if dataset.dim > MOST_DIM:
            return (
                f"it needs {dataset.dim:,} derivatives of each state, and at most {MOST_DIM} are "
                "possible; on a Gaussian kl_law_gaussian is exact"
            )
        return why_no_log_density(dataset)

    @abstractmethod
    def estimate(self, log_ratios: Tensor) -> Measurement:
        """The divergence from ln r at n points drawn from q, shape (n,), where E_q[r] = 1."""

    @abstractmethod
    def integrate(self, law: LineNodes, log_p: Callable[[Tensor], Tensor]) -> float:
        """The divergence from a law on a line, and ln p as a function of points of any shape."""


def total(values: Tensor, of: Callable[[Tensor], Tensor]) -> float:
    """The sum of a function over the values, computed for some values at a time."""
    return math.fsum(float(of(piece).sum()) for piece in torch.split(values, PIECE))


def mean_with_half(values: Tensor, of: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """The mean of a function of the values, and half of its 95 % interval."""
    count = len(values)
    mean = total(values, of) / count
    squares = total(values, lambda piece: (of(piece) - mean).square())
    return mean, 1.96 * math.sqrt(squares / (count - 1) / count) if count > 1 else math.nan


def mean_ratio(log_ratios: Tensor) -> dict[str, float]:
    """The mean of r, an estimate of E_q[r], with half of its 95 % interval, from ln r, (n,)."""
    excess, half = mean_with_half(log_ratios, torch.expm1)
    return {"mean_ratio": excess + 1, "mean_ratio_half_width": half}


def error_of(law: LineNodes, value: float, of: Callable[[LineNodes], float]) -> float:
    """The sum of the changes of a value of a law with fewer nodes; NaN if no such law is known."""
    return sum(abs(value - of(one)) for one in law.coarser) if law.coarser else math.nan


def by_quadrature(
    law: LineNodes, distance: Callable[[LineNodes], float], **info: float
) -> Measurement:
    """The distance of a law on a line; the bounds are ± its change with fewer nodes."""
    value = distance(law)
    error = error_of(law, value, distance)
    info = {"quadrature_error": error, **info}
    return Measurement(value, value - error, value + error, None, 0, info)


def finite_points(points: Tensor, name: str, dim: int | None = None) -> Tensor:
    """Return the cloud `(n, dim)`, detached; float32 stays, other types become float64.

    Raises:
        ValueError: the cloud is empty or has another shape, or a value is not finite, or too large
            to be squared.
    """
    allowed = f"(n, {'dim' if dim is None else dim}) with n ≥ 1"
    fits = points.ndim == 2 and points.numel() > 0 and dim in (None, points.shape[1])
    require(fits, f"{name}.shape", tuple(points.shape), allowed)
    points = points.detach()
    if points.dtype != torch.float32:
        points = points.double()
    if not all_usable(points):
        usable = points.abs() < LARGEST
        row, column = (~usable).nonzero()[0].tolist()
        allowed = f"finite and smaller than {LARGEST:g} in size"
        raise InvalidSetting(f"{name}[{row}, {column}]", float(points[row, column]), allowed)
    return points
