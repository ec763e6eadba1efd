"""The error of the estimated normalising constant, Δ ln Z, in nats.

A sampler with weighted particles gives an independent estimate Ẑ_i of Z = ∫ density for each of n
samples, with E[Ẑ_i] = Z. The density of the model is divided by the true Z, so

    value = ln (1/n) Σ_i Ẑ_i  =  ln of the estimate − ln Z .

Its average is about −var(Ẑ)/(2n·Z²), near 0; if the estimates vary much, their rare large values
are missing, and it is clearly negative. `info` has `half_width`, half of its 95 % interval by the
delta method; `mean_log`, the mean of ln Ẑ_i, negative on average (a lower bound of ln Z, like an
ELBO); and `sd_log`, the standard deviation of ln Ẑ_i: the error of a single population.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.line_laws import LineNodes
from samplerbench.datasets.base import Dataset, why_no_log_density
from samplerbench.datasets.density import Density
from samplerbench.metrics.base import Measurement, OutputLawMetric


@dataclass(frozen=True)
class LogZ(OutputLawMetric):
    """ln of the estimated normalising constant minus ln of the true one, in nats."""

    is_wasserstein: ClassVar[bool] = False
    smaller_is_better: ClassVar[bool] = False
    needs: ClassVar[str] = "log_z"

    def is_exact(self, dataset: Dataset) -> bool:
        return False

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if isinstance(dataset, Density):
            if dataset.log_z is None:
                return "it needs dataset.log_z; with 0 the value is the estimate of ln Z itself"
            return None
        return why_no_log_density(dataset)

    def of_output(self, values: Tensor | LineNodes, dataset: Dataset) -> Measurement:
        assert isinstance(values, Tensor)
        count, top = len(values), float(values.max())
        ratios = (values - top).exp()
        mean, half = float(ratios.mean()), math.nan
        if count > 1:
            half = 1.96 * float(ratios.std()) / mean / math.sqrt(count)
        spread = float(values.std()) if count > 1 else math.nan
        info = {"half_width": half, "mean_log": float(values.mean()), "sd_log": spread}
        return Measurement(top + math.log(mean), math.nan, math.nan, None, 0, info)
