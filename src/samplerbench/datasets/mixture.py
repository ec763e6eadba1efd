"""Any Gaussian mixture, from settings or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.gaussian_spectrum import precision, require_defaults, semidefinite
from samplerbench.errors import InvalidSetting, first_line, require
from samplerbench.paths import existing_file

Numbers = Sequence[Any]


def mixture(
    means: Numbers | None = None,
    covariances: float | Numbers = 1.0,
    weights: Sequence[float] | None = None,
    path: str | None = None,
) -> GaussianMixture:
    """Σ w_k·N(μ_k, C_k) with K components in R^dim.

    Args:
        means: K points of dim coordinates.
        covariances: one variance v, for v·I in every component; or a list of K entries, each of
            them a variance, a list of dim variances, or a dim × dim matrix.
        weights: K positive numbers; they are divided by their sum. None: equal weights.
        path: an `.npz` file with the array `means`, shape (K, dim), and optionally `covariances`,
            shape (), (K,), (K, dim) or (K, dim, dim), and `weights`, shape (K,). A setting that the
            file has must keep its default.

    Raises:
        InvalidSetting: a setting or the file is invalid; the message says how.
    """
    if path is not None:
        found = _from_file(path)
        given = {"means": means, "covariances": covariances, "weights": weights}
        require_defaults(mixture, path, {name: given[name] for name in found})
        means, weights = found["means"], found.get("weights", weights)
        covariances = found.get("covariances", covariances)
    allowed = "given: a list of points such as [[0,0],[3,1]], or path=FILE.npz"
    require(means is not None, "means", None, allowed)
    points = _tensor(means, "means")
    good = points.ndim == 2 and 0 not in points.shape
    require(good, "means", means, "a list of points of one dimension, such as [[0, 0], [1, 2]]")
    count = len(points)
    shares = torch.ones(count).double() if weights is None else _tensor(weights, "weights")
    good = shares.shape == (count,) and bool((shares > 0).all() and shares.isfinite().all())
    require(good, "weights", weights, f"{count} positive numbers, one for each mean")
    matrices = _matrices(covariances, *points.shape)
    return GaussianMixture(
        tuple((shares / shares.sum()).tolist()),
        tuple(map(tuple, points.tolist())),
        tuple(tuple(map(tuple, matrix)) for matrix in matrices.tolist()),
    )


def _matrices(covariances: object, count: int, dim: int) -> Tensor:
    """Covariances, shape (K, dim, dim)."""
    allowed = (
        f"a variance, or a list of {count}: variances, lists of {dim} variances, or "
        f"{dim}×{dim} matrices"
    )
    whole = np.ndim(covariances) == 0 if isinstance(covariances, np.ndarray) else False
    if whole or isinstance(covariances, str) or not isinstance(covariances, Sequence | np.ndarray):
        covariances = [covariances] * count
    require(len(covariances) == count, "covariances", f"a list of {len(covariances)}", allowed)
    matrices = []
    for entry in covariances:
        values = _tensor(entry, "covariances")
        fits = tuple(values.shape) in ((), (dim,), (dim, dim))
        require(fits, "covariances", entry, allowed)
        identity = torch.eye(dim, dtype=torch.float64)
        matrices.append(_rounded(entry, values) if values.ndim == 2 else values * identity)
        good = bool(values.isfinite().all()) and (values.ndim == 2 or bool((values >= 0).all()))
        require(good, "covariances", entry, "finite, and variances at least 0")
    return torch.stack(matrices)


def _rounded(entry: object, matrix: Tensor) -> Tensor:
    """The matrix; negative eigenvalues from the rounding of a coarse dtype are set to 0."""
    eps = precision(np.asarray(entry))
    if eps <= torch.finfo(torch.float64).eps or not bool(matrix.isfinite().all()):
        return matrix
    eigenvalues, basis = torch.linalg.eigh(matrix)
    if not semidefinite(eigenvalues, eps) or float(eigenvalues[0]) >= 0:
        return matrix
    positive = eigenvalues.where(eigenvalues > -eigenvalues[0], 0.0)
    nearest: Tensor = (basis * positive) @ basis.T
    return nearest


def _tensor(values: object, name: str) -> Tensor:
    try:
        return torch.as_tensor(np.array(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InvalidSetting(name, values, "numbers, in rows of equal length") from error


def _from_file(path: str) -> dict[str, Any]:
    location = existing_file(path)
    allowed = "an .npz file with means and, if given, covariances and weights"
    try:
        loaded = np.load(location, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it has one array without a name")
        with loaded:
            found = dict(loaded)
    except Exception as error:  # a broken file may raise anything
        raise InvalidSetting("path", path, f"{allowed}: {first_line(error)}") from error
    names = ("means", "covariances", "weights")
    unknown = sorted(set(found) - set(names))
    require("means" in found, "path", path, f"{allowed}; it has {', '.join(found) or 'nothing'}")
    require(not unknown, "path", path, f"{allowed}; it also has {', '.join(unknown)}")
    return found
