"""A law given by ln p(x), up to a constant.

Chains need only this: the score is the gradient of ln p, by automatic differentiation. Other
knowledge is optional: exact draws, the mean and variance of each coordinate (with standard errors,
such as those of a long reference run), and ln Z, the logarithm of ∫ exp(log_p(x)) dx.

The noised law is not known, so samplers that move along a path cannot run on it. Metrics and starts
that use data need exact draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel, Levels
from samplerbench.core.models import Score
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Moments
from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting, kind_and_line, require


class DensityScore(Score):
    """The gradient of a log-density, and the log-density itself; both only without noise.

    Args:
        function: x, shape (*batch, dim), ↦ ln p, shape (*batch,), up to a constant.
        constant: subtracted from ln p.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], constant: float = 0.0) -> None:
        super().__init__()
        self.function = function
        self.constant = constant

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            # rows are independent, so the gradient of the sum contains the gradient of each row
            (gradient,) = torch.autograd.grad(self.log_density(x, level).sum(), x)
        return gradient.to(x.dtype)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self.function(x) - self.constant

    def why_incompatible(self, levels: Levels) -> str | None:
        if all(row.alpha == 1 and row.sigma == 0 for row in levels.rows):
            return None
        return "only the density of the data is known, without noise: use a sampler such as mala"


@dataclass(frozen=True)
class Density(Dataset):
    """A law given by its log-density.

    Args:
        log_p: a function that PyTorch can differentiate: x, shape (..., dimension), ↦ ln p(x),
            shape (...), up to a constant.
        dimension: the dimension of x.
        exact_draws: (count, NumPy generator) ↦ independent draws, shape (count, dimension).
        mean: the mean of each coordinate.
        variance: the variance of each coordinate, positive.
        mean_error: standard errors of `mean`; exact if left out.
        variance_error: standard errors of `variance`; exact if left out.
        log_z: ln Z, the logarithm of the integral of exp(log_p).
    """

    log_p: Callable[[Tensor], Tensor]
    dimension: int
    exact_draws: Callable[[int, np.random.Generator], Tensor] | None = None
    mean: tuple[float, ...] | None = None
    variance: tuple[float, ...] | None = None
    mean_error: tuple[float, ...] | None = None
    variance_error: tuple[float, ...] | None = None
    log_z: float | None = None

    def __post_init__(self) -> None:
        require(self.dimension >= 1, "dimension", self.dimension, "at least 1")
        for name in ("mean", "variance", "mean_error", "variance_error"):
            values, least = getattr(self, name), -math.inf if name == "mean" else 0
            allowed = f"{self.dimension} numbers" + ("" if name == "mean" else ", none negative")
            fits = values is None or len(values) == self.dimension
            good = fits and all(math.isfinite(v) and v >= least for v in values or ())
            require(good, name, values, allowed)
        both = (self.mean is None) == (self.variance is None)
        require(both, "mean", self.mean, "given if and only if variance is given")
        require(0 not in (self.variance or ()), "variance", self.variance, "positive")
        require(math.isfinite(self.log_z or 0), "log_z", self.log_z, "finite")
        self._try()

    def _try(self) -> None:
        """Call the functions once, so that an error is reported before any work."""
        name = getattr(self.log_p, "__qualname__", type(self.log_p).__name__)
        allowed = f"a function of x, shape (..., {self.dimension}), to ln p(x), shape (...)"
        for batch in ((2, 3), (3,)):
            x = torch.ones(*batch, self.dimension, dtype=torch.float64)
            try:
                shape = tuple(self.log_p(x).shape)
                gradient = DensityScore(self.log_p).score(x, level=None)  # type: ignore[arg-type]
            except Exception as error:  # the user's function may raise anything
                reason = f"{allowed}, by PyTorch: {kind_and_line(error)}"
                raise InvalidSetting("log_p", name, reason) from error
            good = shape == batch and gradient.shape == x.shape
            require(good, "log_p", name, f"{allowed}: it gives {shape} for {tuple(x.shape)}")
        if self.exact_draws is not None:
            drawn = self.sample(3, np.random.default_rng(0))
            allowed = f"a function that gives draws of shape (count, {self.dimension})"
            fits = drawn.shape == (3, self.dimension)
            require(fits, "exact_draws", f"draws of shape {tuple(drawn.shape)}", allowed)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.dimension,)

    @property
    def can_be_drawn(self) -> bool:
        return self.exact_draws is not None

    def floor_sets(self, count: int) -> int | None:
        return None if self.can_be_drawn else 0

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        if self.exact_draws is None:
            allowed = (
                "given, because draws of the law are needed; chains need none: denoiser=oracle"
            )
            raise InvalidSetting("dataset.exact_draws", None, f"{allowed} metric=moments")
        return torch.as_tensor(self.exact_draws(count, generator)).double()

    def moments(self) -> Moments | None:
        """The given moments, or those of exact draws."""
        if self.mean is None or self.variance is None:
            return super().moments()
        zeros = (0.0,) * self.dimension
        errors = (self.mean_error or zeros, self.variance_error or zeros)
        facts = (self.mean, self.variance, *errors)
        return Moments(*(torch.tensor(values, dtype=torch.float64) for values in facts))

    def exact_score(self, schedule: NoiseSchedule) -> DensityScore:
        return DensityScore(self.log_p, self.log_z or 0.0)

    def log_density(self, x: Tensor) -> Tensor:
        """ln p(x), shape (n,), with the normalising constant.

        Raises:
            InvalidSetting: ln Z is not given.
        """
        require(self.log_z is not None, "dataset.log_z", None, "ln Z, given")
        return self.log_p(x) - (self.log_z or 0.0)
