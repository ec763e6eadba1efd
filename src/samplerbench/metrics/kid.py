"""The squared maximum mean discrepancy of the features of images: KID with the standard network.

    KID = E k(X, X′) + E k(Y, Y′) − 2 E k(X, Y),     k(x, y) = (⟨x, y⟩/d + 1)³ ,

with X, X′ the features of samples and Y, Y′ those of the reference, d numbers each. Each mean is
over all pairs of *different* images, so the expected value is that of the laws at every n and m,
and 0 for a perfect sampler; it may be negative. The authors average the same over 100 random
subsets of 1 000 images: an estimate of the same number, which varies more and needs a seed. Unlike
FID it can be compared between numbers of images. A cubic kernel sees three moments of features.

Cost of a call: the features of n images, and n·m + n² products of d numbers; memory in pieces.

Reference: M. Bińkowski, D. J. Sutherland, M. Arbel, A. Gretton, Demystifying MMD GANs, ICLR 2018,
arXiv 1801.01401, Section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.metrics.base import Distance, Measurement
from samplerbench.metrics.features import FeatureDistance, FeatureMetric, inception
from samplerbench.metrics.pairs import PIECE, why_too_many


@dataclass(frozen=True)
class KID(FeatureMetric):
    """The squared MMD of features with a cubic kernel, unbiased: it may be negative.

    Args:
        features: of images.
    """

    allows_coupled: ClassVar[bool] = False  # two clouds with the same starts seem too near

    def why_too_large(self, n: int, m: int) -> str | None:
        return why_too_many(n, m)

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        return _KernelDistance(self.features, reference)


def inception_kid(
    weights: str | None = None, layer: int = 2048, shape: tuple[int, ...] | None = None
) -> KID:
    """KID proper, on the features of Inception; see `features.inception`."""
    return KID(inception(weights, layer, shape))


@dataclass(frozen=True, eq=False)
class _Cloud:
    """Features (n, d), and the mean of the kernel over their own pairs."""

    features: Tensor
    own: float


class _KernelDistance(FeatureDistance[_Cloud]):
    def summary(self, features: Tensor) -> _Cloud:
        count = len(features)
        itself = math.fsum(kernel(features.square().sum(dim=1) / features.shape[1]).tolist())
        pairs = kernel_sum(features, features) - itself
        return _Cloud(features, pairs / (count * (count - 1)))

    def between(self, samples: _Cloud, reference: _Cloud) -> Measurement:
        x, y = samples.features, reference.features
        across = kernel_sum(x, y) / (len(x) * len(y))
        value = samples.own + reference.own - 2 * across
        return Measurement(value, value, value, None, 0)


def kernel(products: Tensor) -> Tensor:
    """k of ⟨x, y⟩/d."""
    return (products + 1) ** 3


def kernel_sum(x: Tensor, y: Tensor) -> float:
    """The sum of k over all pairs of `(n, d)` and `(m, d)`."""
    sums: list[float] = []
    for rows in torch.split(x, max(1, PIECE // len(y))):
        sums += kernel(rows @ y.T / y.shape[1]).sum(dim=1).tolist()
    return math.fsum(sums)
