"""The difference between the shares of samples in the modes of a mixture and the weights.

With n_k of n samples in mode k (assigned as in `modes`) and weights w_k,

    value = ½ Σ_k |n_k/n − w_k| ,

the total variation: the share of the samples, between 0 and 1, that is in the wrong mode. `info`
has a test of the hypothesis that the counts are those of n independent draws of the law:

    χ² = Σ_k (n_k − n·w_k)² / (n·w_k),     p_value: with K − 1 degrees of freedom ,

and `smallest_expected`, the smallest n·w_k; if it is below 5, the p-value is rough. The test
assumes independent samples; samples from quasi-random starts are not independent.

On mixtures, errors of the weights dominate W₂; `within_mode` measures the rest.

Cost: n·K·dim². Fresh draws have a value of about Σ_k √(w_k(1 − w_k)/(2πn)).

Reference: K. Pearson, On the Criterion that a Given System of Deviations …, Phil. Mag. 50 (1900)
157–175; `scipy.stats.chisquare`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.metrics.base import Distance, LawMetric, MeasuredBy, Measurement
from samplerbench.metrics.modes import modes_of, why_not_separate


@dataclass(frozen=True)
class ModeWeights(LawMetric):
    """The total variation between the samples' shares of the modes and the weights; no units.

    Args:
        max_overlap: the share of the law's draws, above 0 and below 1, that may be assigned to a
            wrong mode; it bounds the bias of the value.
    """

    is_wasserstein: ClassVar[bool] = False
    name: ClassVar[str] = "mode_weights"
    max_overlap: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.max_overlap < 1, "max_overlap", self.max_overlap, "between 0 and 1")

    def why_incompatible(self, dataset: Dataset) -> str | None:
        modes = modes_of(dataset)
        if modes is not None and len(modes.weights) == 1:
            return f"{self.name} needs at least 2 modes, this law has 1; use metric=within_mode"
        return why_not_separate(dataset, self.name, self.max_overlap)

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        modes = modes_of(dataset)
        assert modes is not None  # checked by why_incompatible

        def measure(samples: Tensor) -> Measurement:
            assigned = modes.assign(samples.double().cpu())
            counts = torch.bincount(assigned, minlength=len(modes.weights)).double()
            return self.compare(counts, modes.weights)

        return MeasuredBy(modes.means.shape[1], measure)

    def compare(self, counts: Tensor, weights: Tensor) -> Measurement:
        """Measure the numbers of samples in the modes, (K,), against the weights, (K,)."""
        from scipy.stats import chisquare  # slow to import, and rarely needed

        expected = counts.sum() * weights
        value = float((counts - expected).abs().sum() / (2 * counts.sum()))
        test = chisquare(counts.numpy(), expected.numpy())
        info = {
            "chi_square": float(test.statistic),
            "p_value": float(test.pvalue),
            "smallest_expected": float(expected.min()),
        }
        return Measurement(value, value, value, None, 0, info)
