"""W₁ or W₂ between samples on a line and their law: exact, without the noise of a reference.

    W₁ = ∫ |F_n(x) − F(x)| dx,     W₂² = ∫₀¹ |F_n⁻¹(q) − F⁻¹(q)|² dq ,

with the step function F_n of the samples. Each cell of mass 1/n is integrated in closed form, see
`line_laws`, for any law with F, F⁻¹ and E[Y; Y ≤ x]: every mixture of Gaussians, and every data set
with a `line_law`.

The `line_law` of D3's Brownian trajectory (dataset=four_well) is its Boltzmann law: samples are
compared with the law of the trajectory in the long run, not with its states. So the floor, the
value of draws of the states, is the distance between the data and their law; a sampler that
reproduces the data has this value. For distances to the states use metric=max_sliced.

Cost: n log n + 2·n·K for K components; for a law given by its density, about 5 quadratures of 16
nodes per sample. The floor for a law of width s falls like s·n^(−1/2).

Reference: F. Santambrogio, Optimal Transport for Applied Mathematicians, Birkhäuser 2015,
Proposition 2.17.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.line_laws import LineLaw, distance_to_law
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.metrics.base import Distance, LawMetric, Measurement


@dataclass(frozen=True)
class WLaw1D(LawMetric):
    """W_p between samples and a law on a line. The seed has no effect.

    Args:
        p: the order, 1 or 2.
    """

    p: int = 1

    def __post_init__(self) -> None:
        require(self.p in (1, 2), "p", self.p, "1 or 2; any p ≥ 1 with metric=max_sliced")

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if dataset.dim != 1:
            other = "max_sliced_law" if dataset.dim == 2 else "max_sliced_refined"
            return f"w_law_1d needs 1-D data, this has {dataset.dim}; use metric={other}"
        if dataset.line_law() is None:
            return (
                "w_law_1d needs a Gaussian mixture with variances above 0, or another law with a "
                "known density; use metric=max_sliced"
            )
        return None

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        law = dataset.line_law()
        assert law is not None  # checked by why_incompatible
        return _LineDistance(self.p, law)


class _LineDistance(Distance):
    def __init__(self, p: int, law: LineLaw) -> None:
        super().__init__(dim=1)
        self._p = p
        self._centre = law.mean
        self._law = law.centred()

    def measure(self, samples: Tensor) -> Measurement:
        points = samples[:, 0].double().cpu() - self._centre
        value = distance_to_law(points, self._law, self._p)
        return Measurement(value, value, value, torch.ones(1, dtype=torch.float64), 1)
