"""How far samples are from the nearest point that a finite data set has for training.

    value = (1/n) Σᵢ minⱼ ‖xᵢ − yⱼ‖,     yⱼ the training part of the data set ,

in the units of the data. It has to be read beside its floor, the held-out points' own value: below
it the samples are copies of training points, and far above it they look like no data at all. So
neither a smaller value nor a larger one is better, and nothing is ranked by it. The ideal denoiser
of the training part ends at 0. `info` has the smallest of the distances and their median.

Cost: n·K·dim for K training points; memory in pieces, see `pairs`.

Reference: C. Meehan, K. Chaudhuri, S. Dasgupta, A Non-Parametric Test to Detect Data-Copying in
Generative Models, AISTATS 2020, arXiv 2004.05675 (what it compares; the test is another one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.datasets.divided import Divided
from samplerbench.metrics.base import Distance, LawMetric, Measurement
from samplerbench.metrics.pairs import nearest


@dataclass(frozen=True)
class NearestTraining(LawMetric):
    """The mean distance to the nearest training point. It has no settings."""

    is_wasserstein: ClassVar[bool] = False
    smaller_is_better: ClassVar[bool] = False

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if isinstance(dataset, Divided):
            return None
        return (
            "nearest_training needs a finite data set with a training part, such as "
            "dataset=digits; use metric=energy"
        )

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        assert isinstance(dataset, Divided)  # why_incompatible has asked
        return _NearestDistance(dataset.part("train"))


class _NearestDistance(Distance):
    def __init__(self, training: Tensor) -> None:
        super().__init__(training.shape[1])
        self._training = training

    def measure(self, samples: Tensor) -> Measurement:
        distances = nearest(samples.to(self._training), self._training)
        value = float(distances.mean())
        info = {"smallest": float(distances.min()), "median": float(distances.median())}
        return Measurement(value, value, value, None, 0, info)
