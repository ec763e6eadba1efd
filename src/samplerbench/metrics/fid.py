"""The squared Fréchet distance between features of images: FID with the standard network.

With the means μ, ν and the covariances Σ, Γ (divided by n − 1) of the features of two clouds,

    FID = ‖μ − ν‖² + tr Σ + tr Γ − 2·tr (Σ^½ Γ Σ^½)^½ ,

the squared W₂ between the Gaussians with these moments, in squared units of the features. It
depends only on the first two moments. Let A, shape (n, d), be the centred features over √(n − 1):
then Σ = AᵀA. With B the same for the reference, the last trace is the sum of the singular values of
A Bᵀ. This is also exact for a Σ without full rank (fewer images than features), and no root of a
rounding error is taken. If A has more than d rows, it is replaced by its triangular factor.

FID of n and m images is too large by about c/n + c′/m, and c depends on the law. So values for
different n cannot be compared, and values for different laws only at large n. Compare a value with
its floor, which has the same n and m. Published values use 50 000 images.

Cost per call: the features of n images, n·d·min(n, d), and the singular values of a matrix of
min(n, d) × min(m, d).

References: M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler, S. Hochreiter, GANs Trained by a Two
Time-Scale Update Rule Converge to a Local Nash Equilibrium, NeurIPS 2017, arXiv 1706.08500, Eq. 6;
M. J. Chong, D. Forsyth, Effectively Unbiased FID and Inception Score and Where to Find Them, CVPR
2020, arXiv 1911.07023 (the bias).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.metrics.base import Measurement
from samplerbench.metrics.features import FeatureMetric, inception


@dataclass(frozen=True)
class FID(FeatureMetric[tuple[Tensor, Tensor]]):
    """The squared Fréchet distance between features."""

    def summary(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (d,) of features, and a root A (at most d, d) of their covariance AᵀA."""
        mean = features.mean(dim=0)
        root = (features - mean) / math.sqrt(len(features) - 1)
        if root.shape[0] > root.shape[1]:
            root = torch.linalg.qr(root, mode="r").R
        return mean, root

    def between(
        self, samples: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]
    ) -> Measurement:
        (mean, root), (own_mean, own_root) = samples, reference
        means = float((mean - own_mean).square().sum())
        common = float(torch.linalg.svdvals(root @ own_root.T).sum())
        total = float(root.square().sum() + own_root.square().sum())
        covariances = max(0.0, total - 2 * common)  # rounding may make 0 negative
        value = means + covariances
        info = {"means": means, "covariances": covariances}
        return Measurement(value, value, value, None, 0, info)


def inception_fid(
    weights: str | None = None, layer: int = 2048, shape: tuple[int, ...] | None = None
) -> FID:
    """FID on the features of Inception; see `features.inception`."""
    return FID(inception(weights, layer, shape))
