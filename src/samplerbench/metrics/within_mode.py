"""The distance between samples and a mixture within its modes, whatever the samples' mode weights.

Each sample is assigned to a mode, as in `modes`. Let ν_k be the n_k samples of mode k, and N_k its
Gaussian. Along a direction, transport within the modes costs

    S(θ) = Σ_k (n_k / Σ_j n_j) W₂²(θ_# ν_k, θ_# N_k),        value = max_θ √S(θ) ,

the root mean square of the modes' W₂, weighted by samples. It is the cost of a coupling between the
samples and the mixture with the *samples'* weights, so it is at least the max-sliced W₂ to that
mixture. Together with `mode_weights` it separates errors of shape from errors of weights. Each term
is exact, as in `line_laws`. The maximum is over random directions, so it is a lower bound, in data
units.

Modes with fewer than two samples have no shape, and are left out. `info` has the number of `modes`,
of `measured` modes, and of samples `left_out`. A sample far from all modes counts fully in the mode
to which it is assigned.

Cost: n·directions·(dim + log n). Draws of the law have a value of about the width of a mode times
√(K·ln ln(n/K)/n) for K modes.

Reference: I. Deshpande et al., Max-Sliced Wasserstein Distance and Its Use for GANs, CVPR 2019,
arXiv 1904.05877 (the distance of a mode).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from samplerbench.core.line_laws import MixtureLine
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.metrics.base import Distance, LawMetric, MeasuredBy, Measurement
from samplerbench.metrics.modes import modes_of, why_not_separate
from samplerbench.metrics.projections import BLOCK, direction_block, project, sort_lines


@dataclass(frozen=True)
class WithinMode(LawMetric):
    """The root mean square over modes of W₂ to the mode's Gaussian, in the worst direction.

    Args:
        directions: the number of random directions.
        max_overlap: the share of the law's draws, above 0 and below 1, that may be assigned to a
            wrong mode; they are missing in the samples of their own mode.
    """

    directions: int = 500
    max_overlap: float = 1e-3

    def __post_init__(self) -> None:
        require(self.directions >= 1, "directions", self.directions, "at least 1")
        require(0 < self.max_overlap < 1, "max_overlap", self.max_overlap, "between 0 and 1")

    def why_incompatible(self, dataset: Dataset) -> str | None:
        return why_not_separate(dataset, "within_mode", self.max_overlap)

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        modes = modes_of(dataset)
        assert modes is not None  # checked by why_incompatible
        dim, count = modes.means.shape[1], self.directions

        def block(number: int) -> Tensor:
            return direction_block(dim, count, seed, number)

        def measure(samples: Tensor) -> Measurement:
            points = samples.double().cpu()
            assigned = modes.assign(points)
            counts = torch.bincount(assigned, minlength=len(modes.weights))
            measured = (counts > 1).nonzero()[:, 0].tolist()
            allowed = "such that a mode has at least 2; metric=max_sliced_law takes fewer"
            require(len(measured) > 0, "samples", len(points), allowed)
            clouds = [(points[assigned == k] - modes.means[k]) for k in measured]
            total = sum(map(len, clouds))
            covariances, blocks = modes.covariances[measured], range(-(-count // BLOCK))
            squares = torch.cat([_squares(clouds, covariances, block(k)) for k in blocks])
            best = int(squares.argmax())
            value = math.sqrt(float(squares[best]) / total)
            info = {
                "modes": float(len(counts)),
                "measured": float(len(measured)),
                "left_out": float(len(points) - total),
            }
            direction = block(best // BLOCK)[best % BLOCK]
            return Measurement(value, value, math.nan, direction, count * len(measured), info)

        return MeasuredBy(dim, measure)


def _squares(clouds: list[Tensor], covariances: Tensor, directions: Tensor) -> Tensor:
    """Return Σ_k n_k W₂² along directions `(k, dim)`, of clouds moved to their modes' means."""
    total = torch.zeros(len(directions), dtype=torch.float64)
    for cloud, covariance in zip(clouds, covariances, strict=True):
        variances = ((directions @ covariance) * directions).sum(dim=1)
        means, spread = _standard_cells(len(cloud))
        lines = sort_lines(project(directions, cloud))
        lines -= variances.sqrt()[:, None] * means
        total += lines.square_().sum(dim=1) + len(cloud) * spread * variances
    return total


@lru_cache(maxsize=256)
def _standard_cells(count: int) -> tuple[Tensor, float]:
    """Return the means of N(0, 1) in its quantile cells and its mean variance within them."""
    one = torch.ones(1, dtype=torch.float64)
    _, curve = MixtureLine(one, 0 * one, one).lorenz(count)
    means = curve.diff() * count
    return means, max(0.0, 1 - float(means.square().mean()))
