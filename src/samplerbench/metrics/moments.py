"""The errors of the samples' mean and standard deviation, for a law whose moments are known.

For each coordinate i with mean m_i and deviation s_i,

    value = max_i max(|x̄_i − m_i|/s_i, |sd(x_i)/s_i − 1|) ,

in deviations of the law, without units. `info` has both parts. If the law's own moments have
standard errors (see `Dataset.moments`), it also has the largest of them, `known_to`; smaller values
cannot be resolved.

It needs no draws of the law, only its `moments`. The value of n fresh draws is about
√(2·ln(2·dim)/n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.datasets.base import Dataset
from samplerbench.metrics.base import Distance, LawMetric, MeasuredBy, Measurement


@dataclass(frozen=True)
class Moments(LawMetric):
    """The largest error of a coordinate's mean or deviation, in deviations of the law."""

    is_wasserstein: ClassVar[bool] = False

    def why_incompatible(self, dataset: Dataset) -> str | None:
        known = dataset.moments()
        if known is None:
            return "moments needs dataset.mean and dataset.variance; or use metric=[] chains=20"
        if not bool((known.variance > 0).all()):
            return "moments needs a law that varies in every coordinate; use metric=sliced"
        return None

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        known = dataset.moments()
        assert known is not None  # checked by why_incompatible

        def measure(samples: Tensor) -> Measurement:
            mean_error, sd_error = known.errors_of(samples.double().cpu())
            value = max(mean_error, sd_error)
            info = {"mean_error": mean_error, "sd_error": sd_error}
            if known.known_to > 0:
                info["known_to"] = known.known_to
            return Measurement(value, value, value, None, 0, info)

        return MeasuredBy(len(known.mean), measure)
