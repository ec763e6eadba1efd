"""The squared maximum mean discrepancy of features of images: KID with the standard network.

    KID = E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y),     k(x, y) = (⟨x, y⟩/d + 1)³ ,

with the features X, X′ of samples and Y, Y′ of the reference, d numbers each. Each mean is over all
pairs of *different* images, so for all n and m the expected value is that of the laws: 0 for a
perfect sampler. It may be negative. The authors average over 100 random subsets of 1 000 images,
which estimates the same number, varies more and needs a seed. Unlike FID, values for different
numbers of images can be compared. A cubic kernel detects the first three moments of the features.

Cost per call: the features of n images, and n·m + n² products of d numbers; bounded memory.

Reference: M. Bińkowski, D. J. Sutherland, M. Arbel, A. Gretton, Demystifying MMD GANs, ICLR 2018,
arXiv 1801.01401, Section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.metrics.base import Measurement
from samplerbench.metrics.features import FeatureMetric, inception
from samplerbench.metrics.pairs import PIECE, why_too_many


@dataclass(frozen=True)
class KID(FeatureMetric[tuple[Tensor, float]]):
    """The squared MMD of features with a cubic kernel, unbiased: it may be negative."""

    allows_coupled: ClassVar[bool] = False  # clouds with the same starts would seem too close

    def why_too_large(self, n: int, m: int) -> str | None:
        return why_too_many(n, m)

    def summary(self, features: Tensor) -> tuple[Tensor, float]:
        """The features (n, d), and the mean of the kernel over their own pairs."""
        count = len(features)
        with_itself = math.fsum(kernel(features.square().sum(dim=1) / features.shape[1]).tolist())
        pairs = kernel_sum(features, features) - with_itself
        return features, pairs / (count * (count - 1))

    def between(
        self, samples: tuple[Tensor, float], reference: tuple[Tensor, float]
    ) -> Measurement:
        (x, own_x), (y, own_y) = samples, reference
        across = kernel_sum(x, y) / (len(x) * len(y))
        value = own_x + own_y - 2 * across
        return Measurement(value, value, value, None, 0)


def inception_kid(
    weights: str | None = None, layer: int = 2048, shape: tuple[int, ...] | None = None
) -> KID:
    """KID on the features of Inception; see `features.inception`."""
    return KID(inception(weights, layer, shape))


def kernel(products: Tensor) -> Tensor:
    """The kernel k from the products ⟨x, y⟩/d."""
    return (products + 1) ** 3


def kernel_sum(x: Tensor, y: Tensor) -> float:
    """The sum of k over all pairs of `(n, d)` and `(m, d)`."""
    sums: list[float] = []
    for rows in torch.split(x, max(1, PIECE // len(y))):
        sums += kernel(rows @ y.T / y.shape[1]).sum(dim=1).tolist()
    return math.fsum(sums)
