"""Precision and recall of samples, by the nearest neighbours of points.

The ball B(y) around one of m data points reaches to the k-th nearest of these points; together the
balls estimate the support of the data's law. With balls B(x) around the n samples,

    precision = #{i : xᵢ ∈ ∪ⱼ B(yⱼ)}/n        the share of samples that look like data,
    recall    = #{j : yⱼ ∈ ∪ᵢ B(xᵢ)}/m        the share of the data that have samples nearby .

A distance must be 0 for equal clouds, so the values are 1 − precision and 1 − recall; `info` has
both shares. Balls grow with fewer points and with more dimensions. So compare only values of the
same (n, m), and compare them with the floor, which is not 0. In the paper the balls are in the
space of a network's features; here they are in the space of the points, such as pixels.

Cost: (n + m)² distances; bounded memory, see `pairs`.

Reference: T. Kynkäänniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila, Improved Precision and Recall
Metric for Assessing Generative Models, NeurIPS 2019, arXiv 1904.06991, Eqs. 1 and 2; k = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from samplerbench.errors import require
from samplerbench.metrics.base import Distance, MeasuredBy, Measurement, Metric
from samplerbench.metrics.pairs import neighbour_radii, share_inside, why_too_many

Share = Literal["precision", "recall"]


@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """1 − precision or 1 − recall, a share; no units.

    Args:
        share: precision or recall: the share from which the value is computed.
        neighbours: k, at least 1 and below the number of points of either cloud.
    """

    is_wasserstein: ClassVar[bool] = False
    share: Share = "precision"
    neighbours: int = 3

    def __post_init__(self) -> None:
        allowed = "precision or recall"
        require(self.share in ("precision", "recall"), "share", self.share, allowed)
        require(self.neighbours >= 1, "neighbours", self.neighbours, "at least 1")

    def why_too_large(self, n: int, m: int) -> str | None:
        return why_too_many(n, m)

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        y, y_radii = reference.double(), self._radii(reference.double(), "reference")

        def measure(samples: Tensor) -> Measurement:
            x = samples.to(y)
            x_radii = self._radii(x, "samples")
            info = {"precision": share_inside(x, y, y_radii), "recall": share_inside(y, x, x_radii)}
            value = 1 - info[self.share]
            return Measurement(value, value, value, None, 0, info)

        return MeasuredBy(y.shape[1], measure)

    def _radii(self, points: Tensor, name: str) -> Tensor:
        k = self.neighbours
        allowed = f"at least {k + 1}, for neighbours={k}"
        require(len(points) > k, f"{name}.shape[0]", len(points), allowed)
        return neighbour_radii(points, k)
