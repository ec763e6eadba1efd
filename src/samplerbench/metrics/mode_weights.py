"""How far the samples' shares of a mixture's modes are from the weights.

With n_k of n samples in mode k (assigned as in `modes`) and weights w_k,

    value = ½ Σ_k |n_k/n − w_k| ,

the total variation: the share of the samples, between 0 and 1, that is in the wrong mode. Together
with it, in `info`, the test that the counts are those of n independent draws of the law:

    χ² = Σ_k (n_k − n·w_k)² / (n·w_k),     p_value: with K − 1 degrees of freedom ,

and `smallest_expected`, the least n·w_k: below 5 the p-value is rough. Samples that depend on each
other, as those of quasi-random starts do, have other counts than the test supposes.

Between-mode weights dominate W₂ on mixtures; `within_mode` is the other part.

Cost: n·K·dim². Fresh draws have a value of about Σ_k √(w_k(1 − w_k)/(2πn)).

Reference: K. Pearson, On the Criterion that a Given System of Deviations …, Phil. Mag. 50 (1900)
157–175; `scipy.stats.chisquare`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.stats import chisquare
from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.metrics.base import Distance, LawMetric, Measurement
from samplerbench.metrics.modes import Modes, modes_of, why_not_separate


@dataclass(frozen=True)
class ModeWeights(LawMetric):
    """The total variation between the samples' shares of the modes and the weights; no units.

    Args:
        max_overlap: the share of the law's draws, above 0 and below 1, that may go to another mode
            than theirs; that is a bias of the value of at most as much.
    """

    is_wasserstein: ClassVar[bool] = False
    max_overlap: float = 1e-3

    def __post_init__(self) -> None:
        require(0 < self.max_overlap < 1, "max_overlap", self.max_overlap, "between 0 and 1")

    def why_incompatible(self, dataset: Dataset) -> str | None:
        modes = modes_of(dataset)
        if modes is not None and len(modes.weights) == 1:
            return "mode_weights needs at least 2 modes, this law has 1; use metric=within_mode"
        return why_not_separate(dataset, "mode_weights", self.max_overlap)

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        modes = modes_of(dataset)
        assert modes is not None  # why_incompatible has asked
        return _WeightsDistance(modes)


class _WeightsDistance(Distance):
    def __init__(self, modes: Modes) -> None:
        super().__init__(modes.means.shape[1])
        self._modes = modes

    def measure(self, samples: Tensor) -> Measurement:
        weights = self._modes.weights
        assigned = self._modes.assign(samples.double().cpu())
        counts = torch.bincount(assigned, minlength=len(weights)).double()
        expected = len(samples) * weights
        value = float((counts - expected).abs().sum()) / (2 * len(samples))
        test = chisquare(counts.numpy(), expected.numpy())
        info = {
            "chi_square": float(test.statistic),
            "p_value": float(test.pvalue),
            "smallest_expected": float(expected.min()),
        }
        return Measurement(value, value, value, None, 0, info)
