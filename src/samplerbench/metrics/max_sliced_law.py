"""The max-sliced W₂ between samples and a Gaussian mixture in the plane, certified, without noise.

A reference of m points has an error, its distance to the law, which falls only like m^(−1/4) for a
mixture. Here the law itself replaces the reference. Along θ it is the mixture

    θ_# law = Σ w_k·N(⟨θ, μ_k⟩, s_k²),     s_k² = θᵀ C_k θ ,

and the sample x_(i), the i-th along θ, is coupled to the part of the law in the i-th quantile cell
of mass 1/n of that mixture, with conditional mean ȳᵢ in the plane. The cost of the coupling along
every direction follows from the matrix

    M = (1/n) Σᵢ (x_(i) − ȳᵢ)(x_(i) − ȳᵢ)ᵀ + Cov Y − (1/n) Σᵢ (ȳᵢ − E Y)(ȳᵢ − E Y)ᵀ .

In component k the regression of Y on its projection is
E[Y | k, ⟨θ, Y⟩ = e] = μ_k + C_k θ (e − ⟨θ, μ_k⟩)/s_k². So with the standardised edges z_k

    E[Y; ⟨θ, Y⟩ ≤ e] = Σ w_k (μ_k Φ(z_k) − (C_k θ/s_k) φ(z_k)) ,

and ȳᵢ is n times a difference of these. `line_laws` finds the edges, `cutting_planes` the maximum.

Evaluations: 20 to 35 for samples of D1 with n = 2 000, 200 for one Gaussian. Each costs
n log n + 2·n·K for K components; memory is about 300 bytes per sample. The bounds include rounding
errors, 1e-13 of the second moments in W₂².

References: the distance, I. Deshpande et al., Max-Sliced Wasserstein Distance and Its Use for GANs,
CVPR 2019, arXiv 1904.05877; the means of a cell, N. L. Johnson, S. Kotz, N. Balakrishnan,
Continuous Univariate Distributions 1, Wiley 1994, Section 13.10.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from samplerbench.core.line_laws import MixtureLine, distance_to_law
from samplerbench.datasets.base import Dataset
from samplerbench.metrics.base import Distance, LawMetric, Measurement
from samplerbench.metrics.cutting_planes import START_ANGLES, Bound, check_stop, search
from samplerbench.metrics.modes import Modes, modes_of

#: The rounding error, relative to the second moments of samples and law: ten times the measured
#: one.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class MaxSlicedLaw(LawMetric):
    """max-W₂ between samples and a mixture in the plane, with a lower and an upper bound.

    It stops when upper − lower ≤ relative_tolerance · upper, or when rounding errors exceed the
    gap. Nothing in it is random: the seed has no effect.

    Args:
        relative_tolerance: the allowed gap relative to the value, ≥ 0.
        evaluations: the largest number of couplings, ≥ 8; the bounds hold in any case.
    """

    relative_tolerance: float = 1e-6
    evaluations: int = 1000

    def __post_init__(self) -> None:
        check_stop(self.relative_tolerance, self.evaluations)

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if dataset.dim != 2:
            other = "w_law_1d" if dataset.dim == 1 else "max_sliced_refined"
            return f"max_sliced_law needs 2-D data, this has {dataset.dim}; use metric={other}"
        if modes_of(dataset) is None:
            return (
                "max_sliced_law needs a Gaussian mixture without flat modes; "
                "use metric=max_sliced_certified"
            )
        return None

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        modes = modes_of(dataset)
        assert modes is not None  # checked by why_incompatible
        return _LawDistance(self, modes)


class _LawDistance(Distance):
    def __init__(self, metric: MaxSlicedLaw, modes: Modes) -> None:
        super().__init__(dim=2)
        self._metric = metric
        self._centre = modes.weights @ modes.means
        self._modes = Modes(modes.weights, modes.means - self._centre, modes.covariances)
        self._covariance = modes.covariance()
        # every search starts with the same directions, so their cells are kept, for the last n
        self._starts = lru_cache(maxsize=1)(self._start_means)

    def measure(self, samples: Tensor) -> Measurement:
        points = samples.double().cpu() - self._centre
        count = len(points)
        starts = self._starts(count)
        moment = float(points.square().sum()) / count + float(self._covariance.trace())
        margin = _ROUNDING * moment

        def couple(phi: float) -> Bound:
            theta = _direction(phi)
            gaps = points[(points @ theta).argsort()]
            means = starts[phi] if phi in starts else self._cell_means(theta, count)
            square = self._covariance - means.mT @ means / count
            gaps -= means
            square += gaps.mT @ gaps / count
            (xx, xy), (_, yy) = square.tolist()
            return Bound((xx + yy) / 2 + margin, complex((xx - yy) / 2, xy), margin)

        peak = search(couple, self._metric.relative_tolerance, self._metric.evaluations)
        theta = _direction(peak.phi)
        value = distance_to_law(points @ theta, self._line(theta), p=2)
        return Measurement(value, value, max(peak.upper, value), theta, peak.evaluations)

    def _line(self, theta: Tensor) -> MixtureLine:
        variances = (self._modes.covariances @ theta) @ theta
        return MixtureLine(self._modes.weights, self._modes.means @ theta, variances.sqrt())

    def _start_means(self, count: int) -> dict[float, Tensor]:
        return {phi: self._cell_means(_direction(phi), count) for phi in START_ANGLES}

    def _cell_means(self, theta: Tensor, count: int) -> Tensor:
        """Return the conditional means of the n quantile cells `(n, 2)`, around the law's mean."""
        slopes = self._modes.covariances @ theta
        slopes = slopes / (slopes @ theta)[:, None]
        partial = torch.zeros(2, count + 1, dtype=torch.float64)
        if count > 1:
            levels = torch.arange(1, count, dtype=torch.float64) / count
            line = self._line(theta)
            partial[:, 1:-1] = line.partial_vector_means(levels, self._modes.means.mT, slopes.mT)
        return partial.diff(dim=1).mul_(count).mT.contiguous()


def _direction(phi: float) -> Tensor:
    return torch.tensor([math.cos(phi), math.sin(phi)], dtype=torch.float64)
