"""How far the share of the samples in a slab of space is from the law's.

With a coordinate x_a and two ends, one of which may be infinite,

    p = P(low ≤ Y_a < high),    p̂ = #{i : low ≤ x_{i,a} < high}/n,    value = |p̂ − p| .

Where modes are far apart, the share on one side says how the samples are divided between them, and
the share in the middle how many are lost on the way: two numbers that say what a distance is made
of. `info` has both shares and the standard error that n independent draws of the law would have,

    share: p̂,    truth: p,    standard_error: √(p(1 − p)/n) ,

so (share − truth)/standard_error is about standard normal for them. Chains of a Langevin sampler
that have not met are independent, states of one chain are not.

p is exact for a mixture of Gaussians, where it is Σ w_k (Φ((high − μ_ka)/s_ka) − Φ((low −
μ_ka)/s_ka)) with s²_ka = (C_k)_aa, and for laws on a line that have a distribution function. It is
that of the data set's law, without noise. On D3's trajectory it is that of its Boltzmann law.

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
from samplerbench.metrics.base import Distance, LawMetric, Measurement
from samplerbench.metrics.line_laws import line_law


@dataclass(frozen=True)
class RegionShare(LawMetric):
    """The difference of two shares of low ≤ x[axis] < high, the samples' and the law's; no units.

    Args:
        axis: the coordinate, counted from 0.
        low: in the units of the data; None is −∞.
        high: in the units of the data, above low; None is +∞.
    """

    is_wasserstein: ClassVar[bool] = False
    axis: int = 0
    low: float | None = None
    high: float | None = 0.0

    def __post_init__(self) -> None:
        require(self.axis >= 0, "axis", self.axis, "at least 0, the first coordinate")
        for name in ("low", "high"):
            end = getattr(self, name)
            allowed = "finite; null where the region has no end"
            require(end is None or math.isfinite(end), name, end, allowed)
        require(
            self.low is not None or self.high is not None, "high", self.high, "finite, or low is"
        )
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
        if not isinstance(dataset, GaussianMixture) and line_law(dataset) is None:
            return (
                "a region's share needs a Gaussian mixture or a law on a line with a known "
                "distribution function; use metric=max_sliced"
            )
        return None

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        return _ShareDistance(self, dataset.dim, self._truth(dataset))

    def _truth(self, dataset: Dataset) -> float:
        ends = torch.tensor(self._ends(), dtype=torch.float64)
        if isinstance(dataset, GaussianMixture):
            weights, means, covariances = (
                torch.tensor(values, dtype=torch.float64)
                for values in (dataset.weights, dataset.means, dataset.covariances)
            )
            offsets = ends - means[:, self.axis, None]
            z = offsets / covariances[:, self.axis, self.axis, None].sqrt()
            # All of a flat component is at its mean, which is not below an end that is there too.
            z = torch.where(z.isnan(), -math.inf, z)
            return float(weights @ torch.special.ndtr(z).diff(dim=1)[:, 0])
        law = line_law(dataset)
        assert law is not None  # why_incompatible has asked
        return float(law.cdf(ends).diff())


class _ShareDistance(Distance):
    def __init__(self, metric: RegionShare, dim: int, truth: float) -> None:
        super().__init__(dim)
        self._axis = metric.axis
        self._low, self._high = metric._ends()
        self._truth = truth

    def measure(self, samples: Tensor) -> Measurement:
        x = samples[:, self._axis].double().cpu()
        share = float(((x >= self._low) & (x < self._high)).double().mean())
        value = abs(share - self._truth)
        error = math.sqrt(max(0.0, self._truth * (1 - self._truth)) / len(x))
        info = {"share": share, "truth": self._truth, "standard_error": error}
        return Measurement(value, value, value, None, 0, info)
