"""The mean distance of samples to the nearest training point of a finite data set.

    value = (1/n) Σᵢ minⱼ ‖xᵢ − yⱼ‖,     yⱼ the training part of the data set ,

in the units of the data. Compare it with its floor, the value of held-out points. If it is below
the floor, samples are close to copies of training points; if it is far above, they do not look like
the data. So neither a smaller nor a larger value is better, and samplers are not ranked by it. With
the ideal denoiser of the training part the value is 0. `info` has the smallest distance and the
median.

Cost: n·K·dim for K training points; bounded memory, see `pairs`.

Reference: C. Meehan, K. Chaudhuri, S. Dasgupta, A Non-Parametric Test to Detect Data-Copying in
Generative Models, AISTATS 2020, arXiv 2004.05675 (the same comparison, with a test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.datasets.divided import Divided
from samplerbench.metrics.base import Distance, LawMetric, MeasuredBy, Measurement
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
        assert isinstance(dataset, Divided)  # checked by why_incompatible
        training = dataset.part("train")

        def measure(samples: Tensor) -> Measurement:
            distances = nearest(samples.to(training), training)
            value = float(distances.mean())
            info = {"smallest": float(distances.min()), "median": float(distances.median())}
            return Measurement(value, value, value, None, 0, info)

        return MeasuredBy(training.shape[1], measure)
