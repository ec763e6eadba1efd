"""The paired distance, from runs to the converged run from the same starts.

    d = (E‖x − x_∞‖²)^½ / sd

x_∞ is the end of the probability-flow ODE from the start of x, and sd the deviation of a coordinate
of the data. `bench.converged` computes x_∞. d has no floor. It contains only the error of the
steps, not the errors of the start and the score.

`info` has `half_width`, half of the 95 % interval for independent starts, and `converged_to`, the
distance between the converged run and the run with half its steps; the error of d is of this size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.line_laws import LineNodes
from samplerbench.datasets.base import Dataset
from samplerbench.metrics.base import Measurement, OutputLawMetric


@dataclass(frozen=True)
class Paired(OutputLawMetric):
    """Root mean square distance to the converged run from the same starts, in units of sd."""

    is_wasserstein: ClassVar[bool] = False
    needs: ClassVar[str] = "converged"

    def is_exact(self, dataset: Dataset) -> bool:
        return False

    def why_incompatible(self, dataset: Dataset) -> str | None:
        return None

    def of_output(self, values: Tensor | LineNodes, dataset: Dataset) -> Measurement:
        """The distance, from ‖x − x_∞‖²/sd² of each start, shape (n,)."""
        assert isinstance(values, Tensor)
        distance, half = math.sqrt(float(values.mean())), math.nan
        if len(values) > 1 and distance > 0:
            half = 1.96 * float(values.std()) / math.sqrt(len(values)) / (2 * distance)
        return Measurement(distance, math.nan, math.nan, None, 0, {"half_width": half})
