"""Gaussians of any dimension, known by their mean and the eigenvalues of their covariance.

The coordinates are those of the eigenvectors, so the covariance is diagonal, and denoiser, score
and density need only dim numbers. Distances between laws do not depend on the coordinates.
With λ the eigenvalues,

    x̂₀ = m + α·λ/(α²·λ + σ²)·(x − α·m)   in each coordinate.

Natural images have spectra that fall roughly like a power of k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from numbers import Number
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.core.grids import AnyLevel
from samplerbench.core.line_laws import LineLaw, MixtureLine
from samplerbench.core.models import Denoiser
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Moments
from samplerbench.datasets.base import LARGEST, Dataset, all_usable
from samplerbench.errors import InvalidSetting, first_line, require
from samplerbench.paths import existing_file

Array = NDArray[np.float64]

#: The dimension up to which SciPy has Sobol points.
_MOST_SOBOL = 10_000


@dataclass(frozen=True, eq=False)
class GaussianSpectrum(Dataset):
    """N(mean, diag(variances)).

    Args:
        variances: the eigenvalues of the covariance, shape (dim,), float64, at least 0. If some are
            0, the law has no density.
        mean: the mean in the basis of the eigenvectors, same shape.
    """

    variances: Tensor
    mean: Tensor

    def __post_init__(self) -> None:
        for name, one in (("eigenvalues", self.variances), ("mean", self.mean)):
            good = isinstance(one, Tensor) and one.dtype == torch.float64 and one.ndim == 1
            require(good, name, type(one).__name__, "a float64 tensor of shape (dim,)")
        count = len(self.variances)
        wrong = int((~((self.variances >= 0) & (self.variances < LARGEST**2))).sum())
        found = f"{count} numbers" + (f", {wrong} of them not so" if wrong else "")
        good = wrong == 0 and count > 0 and bool((self.variances > 0).any())
        require(good, "eigenvalues", found, f"at least 0, below {LARGEST**2:g}, and not all 0")
        good = self.mean.shape == self.variances.shape and all_usable(self.mean)
        require(good, "mean", f"{len(self.mean)} numbers", f"{count} numbers below {LARGEST:g}")

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (len(self.variances),)

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        draws = torch.from_numpy(generator.standard_normal((count, self.dim)))
        return self.from_normal(draws)

    @property
    def uniform_dim(self) -> int | None:
        return self.dim if self.dim <= _MOST_SOBOL else None

    def from_uniforms(self, u: Tensor) -> Tensor:
        return self.from_normal(torch.special.ndtri(u))

    def from_normal(self, z: Tensor) -> Tensor:
        """m + √λ·z, shape (n, dim)."""
        return self.mean + self.variances.sqrt() * z

    def oracle(self, schedule: NoiseSchedule) -> Denoiser:
        return SpectrumOracle(schedule, self.mean, self.variances)

    def line_law(self) -> LineLaw | None:
        if self.dim > 1:
            return None
        return MixtureLine(torch.ones(1).double(), self.mean, self.variances.sqrt())

    def moments(self) -> Moments:
        return Moments.exact(self.mean, self.variances)

    def noised(self, noise: float) -> GaussianSpectrum:
        return GaussianSpectrum(self.variances + noise**2, self.mean)


class SpectrumOracle(Denoiser):
    """The exact denoiser of N(mean, diag(variances)), in float64; the result has the state's dtype.

    Args:
        mean: shape (dim,).
        variances: shape (dim,).
    """

    mean: Tensor
    variances: Tensor

    def __init__(self, schedule: NoiseSchedule, mean: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.schedule = schedule
        self.register_buffer("mean", mean.double())
        self.register_buffer("variances", variances.double())

    def _offset(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """x − α·m and the variances α²·λ + σ², in float64."""
        alpha, sigma = level.alpha, level.sigma
        return x.double() - alpha * self.mean, alpha**2 * self.variances + sigma**2

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        offset, noisy = self._offset(x, level)
        return (self.mean + level.alpha * self.variances / noisy * offset).to(x.dtype)

    def line(self, alpha: Array, sigma: Array) -> tuple[Array, Array]:
        """g and h of x̂₀ = g·x + h in each coordinate, shape (K, dim), for α and σ (K, 1)."""
        mean, variances, noise = self.mean.cpu().numpy(), self.variances.cpu().numpy(), sigma**2
        signal = alpha * variances
        noisy = alpha * signal + noise
        return signal / noisy, noise * mean / noisy

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        offset, noisy = self._offset(x, level)
        return (-offset / noisy).to(x.dtype)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        offset, noisy = self._offset(x, level)
        terms = offset.square() / noisy + (2 * math.pi * noisy).log()
        return (-0.5 * terms.sum(-1)).to(x.dtype)


def gaussian_spectrum(
    path: str | None = None, dim: int = 3072, exponent: float = 1.5, scale: float = 0.5
) -> GaussianSpectrum:
    """A Gaussian from a file, or with a spectrum that falls like a power.

    Without a file the eigenvalues are λ_k = c·k^−exponent, k = 1 … dim, with the average scale²;
    the mean is 0. A `.npy` file has eigenvalues, shape (dim,), or a covariance, shape (dim, dim); a
    `.npz` file has the statistics of an FID program, the arrays `mu` and `sigma`. An eigenvalue of
    a covariance is set to 0 if it is 0 up to the rounding of the file's dtype.

    Args:
        path: the path of a file; the other settings then have their default values.
        dim: the dimension of the data.
        exponent: the exponent of the power law, at least 0.
        scale: the root mean square of the coordinates' standard deviations.

    Raises:
        InvalidSetting: a setting or the file is invalid; the message says how.
    """
    if path is not None:
        found = _from_file(path)
        given = {"dim": dim, "exponent": exponent, "scale": scale}
        require_defaults(gaussian_spectrum, path, given)
        return found
    require(dim >= 1, "dim", dim, "at least 1")
    require(0 <= exponent < math.inf, "exponent", exponent, "at least 0 and finite")
    require(0 < scale < math.inf, "scale", scale, "positive and finite")
    falling = torch.arange(1, dim + 1, dtype=torch.float64) ** -exponent
    variances = scale**2 * falling / falling.mean()
    return GaussianSpectrum(variances, torch.zeros_like(variances))


def require_defaults(law: Callable[..., object], path: str, given: Mapping[str, object]) -> None:
    """Refuse settings of a law that its file at `path` replaces, unless they have their defaults.

    Args:
        law: the function that has these settings.
        given: their names and values.
    """
    for name, value in given.items():
        default = signature(law).parameters[name].default
        equal = value is None or isinstance(value, Number)  # an array has no single truth value
        equal = equal and value == default
        require(equal, name, value, f"left out beside path={path}, which replaces it")


def gaussian_twin(law: Dataset) -> GaussianSpectrum:
    """The Gaussian with the mean and the covariance of a law, in the basis of its eigenvectors.

    They are exact if the law knows them, and for a finite data set; otherwise they come from draws.
    Directions in which the data do not vary have variance 0.

    Raises:
        InvalidSetting: neither moments nor draws of the law are known.
    """
    if isinstance(law, GaussianSpectrum):
        return law
    covariance = law.covariance()
    if covariance is not None:
        moments = law.moments()
        assert moments is not None  # a law with a known covariance has moments
        return _from_moments(moments.mean, covariance)
    allowed = "null: neither the covariance nor draws of this law are known"
    require(law.can_be_drawn, "law", "gaussian_twin", allowed)
    points = law.known_points()
    mean = points.mean(0)
    centred = (points - mean) / math.sqrt(len(points))
    flat = law.dim - len(points)
    if flat <= 0:
        return _from_moments(mean, centred.T @ centred)
    # fewer points than dimensions: the mean in the flat directions is rotated onto one of them
    _, deviations, basis = torch.linalg.svd(centred, full_matrices=False)
    along = basis @ mean
    rest = torch.zeros(flat).double()
    length = rest.clone()
    length[0] = (mean - basis.T @ along).norm()
    return _spectrum(torch.cat([deviations.square(), rest]), torch.cat([along, length]))


def _from_moments(mean: Tensor, covariance: Tensor, rounding: float = 0.0) -> GaussianSpectrum:
    eigenvalues, basis = torch.linalg.eigh(covariance)
    return _spectrum(eigenvalues.flip(0), (basis.T @ mean).flip(0), rounding)


def _spectrum(eigenvalues: Tensor, mean: Tensor, rounding: float = 0.0) -> GaussianSpectrum:
    """The Gaussian; an eigenvalue that is 0 up to rounding is set to 0.

    Args:
        rounding: the error of an eigenvalue, if it is more than 1e-12 of the largest one.
    """
    error = max(1e-12 * float(eigenvalues.abs().max()), rounding)
    return GaussianSpectrum(eigenvalues.where(eigenvalues.abs() > error, 0.0), mean)


def precision(array: NDArray[Any]) -> float:
    """The machine epsilon of an array's dtype; float64's for integers."""
    return float(np.finfo(array.dtype if array.dtype.kind == "f" else np.float64).eps)


def semidefinite(eigenvalues: Tensor, eps: float) -> bool:
    """Whether no eigenvalue of a matrix with this precision is negative beyond rounding.

    The bound is dim·eps·(the largest eigenvalue), as for ranks in LAPACK.
    """
    allowed = max(1e-12, len(eigenvalues) * eps) * float(eigenvalues.abs().max())
    return float(eigenvalues.min()) >= -allowed


def _from_file(path: str) -> GaussianSpectrum:
    location = existing_file(path)
    allowed = "eigenvalues (dim,) or a covariance (dim, dim) in .npy, or mu and sigma in .npz"
    try:
        loaded = np.load(location, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            stored, mean = loaded, None
        else:
            with loaded:
                stored, mean = loaded["sigma"], _real(loaded["mu"])
        array, eps = _real(stored), precision(stored)
    except Exception as error:  # a broken file may raise anything
        raise InvalidSetting("path", path, f"{allowed}: {first_line(error)}") from error
    values = torch.from_numpy(array)
    require(values.numel() > 0, "path", path, f"{allowed}, and not empty")
    if values.ndim == 1 and mean is None:
        _require_spectrum(path, "eigenvalues", values, eps)
        return _spectrum(values, torch.zeros_like(values), -float(values.min()))
    square = values.ndim == 2 and values.shape[0] == values.shape[1] > 0
    good = square and bool((values.abs() < LARGEST**2).all())
    require(good, "path", path, f"{allowed}, all finite and below {LARGEST**2:g}")
    atol = max(1e-9, len(values) * eps) * float(values.abs().max())
    symmetric = torch.allclose(values, values.T, rtol=1e-6, atol=atol)
    require(symmetric, "path", path, "a symmetric covariance")
    eigenvalues = torch.linalg.eigvalsh(values)
    _require_spectrum(path, "a covariance with eigenvalues", eigenvalues, eps)
    centre = torch.zeros(len(values)).double() if mean is None else torch.from_numpy(mean)
    good = centre.shape == values.shape[:1] and all_usable(centre)
    require(good, "path", path, f"{allowed}, both finite and of one dimension")
    # rounding changes an eigenvalue by at most the Frobenius norm of the error (Weyl); a negative
    # eigenvalue shows an error of its size
    rounding = max(eps * float(values.norm()), -float(eigenvalues.min()))
    return _from_moments(centre, values, rounding)


def _real(array: NDArray[Any]) -> NDArray[np.float64]:
    """An array in float64."""
    if array.dtype.kind not in "fiu":
        raise TypeError(f"real numbers are needed, and these are {array.dtype}")
    return array.astype(np.float64)


def _require_spectrum(path: str, what: str, eigenvalues: Tensor, eps: float) -> None:
    """Refuse eigenvalues of a file that are negative beyond rounding, or all 0."""
    largest = float(eigenvalues.max())  # NaN if one of them is
    good = 0 < largest < LARGEST**2 and semidefinite(eigenvalues, eps)
    allowed = f"a file with {what} that are at least 0, below {LARGEST**2:g}, and not all 0"
    require(good, "path", f"{path} ({_range(eigenvalues)})", allowed)


def _range(values: Tensor) -> str:
    """The smallest and the largest of some values, in words."""
    return f"from {float(values.min()):.3g} to {float(values.max()):.3g}"
