"""KL(paths of a sampler ‖ paths of the data), in nats: an upper bound for samplers with noise.

In any dimension it is at least KL(law of the sampler's last state with noise ‖ law of the path at
that level). `bench.paths` explains how it is computed and where the bound is loose. The estimate is
that of `kl_law`, with r the ratio of the densities of a path. If the mean of r is not near 1, the
rare large values of r are missing; then c = 0, which gives the plain mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.metrics.base import Measurement, mean_with_half
from samplerbench.metrics.kl_law import KLLaw

#: The largest difference of the mean of r from 1 for which the coefficient is not 0.
NEAR = 0.1


@dataclass(frozen=True)
class KLPaths(KLLaw):
    """An upper bound of the divergence at the last level with noise, in nats."""

    needs: ClassVar[str] = "paths"

    def is_exact(self, dataset: Dataset) -> bool:
        return False

    def estimate(self, log_ratios: Tensor) -> Measurement:
        fitted = super().estimate(log_ratios)
        if abs(fitted.info["mean_ratio"] - 1) <= NEAR:
            return fitted
        value, half = mean_with_half(log_ratios, torch.neg)
        info = {**fitted.info, "half_width": half, "coefficient": 0.0}
        return Measurement(value, math.nan, math.nan, None, 0, info)
