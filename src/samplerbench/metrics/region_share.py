"""The difference between the shares of samples and of the law in a slab of space.

With a coordinate x_a and two ends (one may be infinite),

    p = P(low ≤ Y_a < high),    p̂ = #{i : low ≤ x_{i,a} < high}/n,    value = |p̂ − p| .

If two modes are far apart, the share on one side is the share of one mode, and the share in the
middle is the share of samples between the modes. Together they explain a distance. `info` has both
shares and the standard error of n independent draws of the law,

    share: p̂,    truth: p,    standard_error: √(p(1 − p)/n) ,

so for such draws (share − truth)/standard_error is about standard normal. Different chains of a
Langevin sampler are independent, states of one chain are not.

p is exact for a mixture of Gaussians, Σ w_k (Φ((high − μ_ka)/s_ka) − Φ((low − μ_ka)/s_ka)) with
s²_ka = (C_k)_aa, and for laws on a line with a distribution function. Y has the data set's law,
without noise; for D3's trajectory Y has its Boltzmann law.

Cost: n. Fresh draws have a value of √(2p(1 − p)/(πn)) on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import require
from samplerbench.metrics.base import Distance, LawMetric, MeasuredBy, Measurement


@dataclass(frozen=True)
class RegionShare(LawMetric):
    """The difference between the samples' and the law's share of low ≤ x[axis] < high; no units.

    Args:
        axis: the coordinate, counted from 0.
        low: the lower end, in the units of the data; None is −∞.
        high: the upper end, in the units of the data, above low; None is +∞.
    """

    is_wasserstein: ClassVar[bool] = False
    axis: int = 0
    low: float | None = None
    high: float | None = 0.0

    def __post_init__(self) -> None:
        require(self.axis >= 0, "axis", self.axis, "at least 0, the first coordinate")
        for name in ("low", "high"):
            end = getattr(self, name)
            allowed = "finite, or null for no end"
            require(end is None or math.isfinite(end), name, end, allowed)
        both = self.low is None and self.high is None
        require(not both, "high", self.high, "finite, unless low is finite")
        low, high = self._ends()
        require(low < high, "high", self.high, f"above low={self.low}")

    def _ends(self) -> tuple[float, float]:
        low = -math.inf if self.low is None else self.low
        return low, math.inf if self.high is None else self.high

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if self.axis >= dataset.dim:
            axes = "axis 0" if dataset.dim == 1 else f"axes 0 to {dataset.dim - 1}"
            return (
                f"the region is along axis {self.axis}, the data have {axes}; or use metric=energy"
            )
        if not isinstance(dataset, GaussianMixture) and dataset.line_law() is None:
            return (
                "a region's share needs a Gaussian mixture or a law on a line with a known "
                "distribution function; use metric=max_sliced"
            )
        return None

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        (low, high), truth = self._ends(), self._truth(dataset)

        def measure(samples: Tensor) -> Measurement:
            x = samples[:, self.axis].double().cpu()
            share = float(((x >= low) & (x < high)).double().mean())
            value = abs(share - truth)
            error = math.sqrt(max(0.0, truth * (1 - truth)) / len(x))
            info = {"share": share, "truth": truth, "standard_error": error}
            return Measurement(value, value, value, None, 0, info)

        return MeasuredBy(dataset.dim, measure)

    def _truth(self, dataset: Dataset) -> float:
        ends = torch.tensor(self._ends(), dtype=torch.float64)
        if isinstance(dataset, GaussianMixture):
            weights, means, covariances = dataset.tensors()
            offsets = ends - means[:, self.axis, None]
            z = offsets / covariances[:, self.axis, self.axis, None].sqrt()
            # a flat component has all of its mass at its mean: P(Y_a < mean) = 0
            z = torch.where(z.isnan(), -math.inf, z)
            return float(weights @ torch.special.ndtr(z).diff(dim=1)[:, 0])
        law = dataset.line_law()
        assert law is not None  # checked by why_incompatible
        return float(law.cdf(ends).diff())
