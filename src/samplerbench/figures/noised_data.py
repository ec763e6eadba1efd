"""The data, and the data with noise; a model at one level learns the score of their law.

    x = x₀ + σ·ε,   ε ~ N(0, I), independent for every point and every coordinate.

The notebook N0 draws one scalar for a whole batch, which shifts all points along the diagonal by
the same amount. Here this error is corrected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samplerbench.bench.scene import Scene
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.common import COLOURS
from samplerbench.figures.panels import (
    HalfWidth,
    frame,
    plane,
    plane_height,
    require_half_width,
    scatter,
    standard_normal,
)
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class NoisedData(Picture):
    """Two panels: data and noised data."""

    noise: float = 3.0  # σ, in data units
    points: int = 2000  # largest number of points
    half_width: HalfWidth | None = None  # half the widths of the axes; null fits the data

    def __post_init__(self) -> None:
        require(0 < self.noise < math.inf, "noise", self.noise, "positive")
        require_counts(self, points=1)
        require_half_width(self.half_width)

    def why_incompatible(self, scene: Scene) -> str | None:
        return scene.why_not_dim(2)

    def draw(self, scene: Scene) -> Drawings:
        x0 = scene.data(self.points)
        noised = x0 + self.noise * standard_normal(x0, scene, "noised_data")
        shown = frame(x0, self.half_width, [noised])
        with new_figure(8.0, plane_height(8.0, 1, 2, shown.ratio)) as figure:
            figure.set_layout_engine("constrained", wspace=0.06)
            left, right = figure.subplots(1, 2, sharex=True, sharey=True)
            scatter(left, x0, COLOURS[0])
            scatter(right, noised, COLOURS[0])
            plane(left, shown, f"data, n = {len(x0):,}")
            plane(right, shown, f"data + σ·ε, σ = {self.noise:g}")
            right.set_ylabel("")
        return {"noised_data": figure}
