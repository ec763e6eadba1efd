"""The share of samples outside the region of highest density that has nearly all of the law's mass.

With c the level-quantile of ln p(Y) under the law, a share `level` of the law lies where ln p < c:

    p̂ = #{i : ln p(xᵢ) < c}/n,    value = |p̂ − level| .

A larger share p̂ means outliers; a smaller one means that the samples avoid the tails of the law, as
with strong guidance. `info` has both shares, the standard error of n independent draws, and the
mean of ln p over the samples minus its mean over the law (in nats):

    share: p̂,    truth: level,    standard_error: √(level(1 − level)/n),    log_density_gap .

c is estimated from draws of the law; its error is that of as many samples.

Cost: one log-density per sample, and once `draws` log-densities. Fresh draws have a value of about
√(2·level(1 − level)/(πn)).

Reference: T. Karras, M. Aittala, T. Kynkäänniemi, J. Lehtinen, T. Aila, S. Laine, Guiding a
Diffusion Model with a Bad Version of Itself, NeurIPS 2024 (arXiv 2406.02507), Section 3 (outliers
of a toy law, without a number).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from samplerbench.datasets.base import Dataset, log_density_of
from samplerbench.errors import InvalidSetting, require
from samplerbench.metrics.base import Distance, LawMetric, MeasuredBy, Measurement

#: States whose log-density is computed at once.
_PIECE = 10_000


@dataclass(frozen=True)
class Outliers(LawMetric):
    """The difference between the samples' and the law's share of low density; no units.

    Args:
        level: the share of the law outside the region, between 0 and 1.
        draws: the number of draws of the law that determine the edge of the region.
    """

    is_wasserstein: ClassVar[bool] = False
    level: float = 0.01
    draws: int = 100_000

    def __post_init__(self) -> None:
        require(0 < self.level < 1, "level", self.level, "between 0 and 1")
        allowed = f"at least {math.ceil(10 / self.level)}, 10 / level"
        require(self.draws * self.level >= 10, "draws", self.draws, allowed)

    def why_incompatible(self, dataset: Dataset) -> str | None:
        other = "; use metric=sliced"
        if not dataset.can_be_drawn:
            return f"outliers needs draws of the law{other}"
        try:
            log_density_of(dataset, dataset.draws(1, "outliers", 0))
        except InvalidSetting as error:
            return f"outliers needs {error.allowed}{other}"
        return None

    def prepare(self, dataset: Dataset, seed: int) -> Distance:
        drawn = _log_density(dataset, dataset.draws(self.draws, "outliers", seed))
        # torch's quantile has a limit of 16 million numbers
        edge, mean = float(np.quantile(drawn.numpy(), self.level)), float(drawn.mean())

        def measure(samples: Tensor) -> Measurement:
            logs = _log_density(dataset, samples.double().cpu())
            share = float((logs < edge).double().mean())
            value = abs(share - self.level)
            info = {
                "share": share,
                "truth": self.level,
                "standard_error": math.sqrt(self.level * (1 - self.level) / len(samples)),
                "log_density_gap": float(logs.mean()) - mean,
            }
            return Measurement(value, value, value, None, 0, info)

        return MeasuredBy(dataset.dim, measure)


def _log_density(dataset: Dataset, points: Tensor) -> Tensor:
    return torch.cat([log_density_of(dataset, piece) for piece in torch.split(points, _PIECE)])
