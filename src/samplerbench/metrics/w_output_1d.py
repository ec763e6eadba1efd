"""W₁ or W₂ between the law of a sampler's output and the data's law on a line, without samples.

On a line the best coupling is monotone. With the distribution functions F of the output and G of
the data,

    W_p^p = ∫ |F⁻¹(u) − G⁻¹(u)|^p du = E|Y − G⁻¹(F(Y))|^p,     Y the output.

`bench.line_densities` computes the law of the output of samplers with and without noise. There is
no floor and no repetition. `info` has `quadrature_error`, the difference from the value of a
coarser quadrature.

Reference: F. Santambrogio, Optimal Transport for Applied Mathematicians, Birkhäuser 2015,
Proposition 2.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplerbench.core.line_laws import LineNodes
from samplerbench.datasets.base import Dataset
from samplerbench.errors import require
from samplerbench.metrics.base import Measurement, OutputLawMetric, by_quadrature


@dataclass(frozen=True)
class WOutput1D(OutputLawMetric):
    """W_p between the law of the output and that of the data, in the units of the data.

    Args:
        p: the order, 1 or 2.
    """

    needs: ClassVar[str] = "density"
    p: int = 2

    def __post_init__(self) -> None:
        require(self.p in (1, 2), "p", self.p, "1 or 2")

    def is_exact(self, dataset: Dataset) -> bool:
        return True

    def why_incompatible(self, dataset: Dataset) -> str | None:
        if dataset.dim != 1:
            return f"w_output_1d needs 1-D data, this has {dataset.dim}; see kl_law"
        if dataset.line_law() is None:
            return "w_output_1d needs a law with a known density; use metric=max_sliced"
        return None

    def of_output(self, values: Tensor | LineNodes, dataset: Dataset) -> Measurement:
        law = dataset.line_law()
        assert law is not None  # checked by why_incompatible
        assert isinstance(values, LineNodes)  # the data are one-dimensional
        return by_quadrature(values, lambda nodes: nodes.distance(law, self.p))
