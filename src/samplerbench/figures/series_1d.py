"""A trajectory over time, with its histogram and its stationary density.

The histogram of a trajectory of Brownian dynamics tends to the Boltzmann density e^{−βV}/Z, but
slowly if the wells are deep. The difference between the two is an error of the data themselves, for
every model that is trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from samplerbench.bench.scene import Scene
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.common import COLOURS
from samplerbench.figures.panels import law_density, legend_below
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class Series1D(Picture):
    """Two panels that share the axis of x."""

    bins: int = 50  # number of bins of the histogram

    def __post_init__(self) -> None:
        require_counts(self, bins=2)

    def why_incompatible(self, scene: Scene) -> str | None:
        dataset = scene.dataset
        if not (hasattr(dataset, "trajectory") and hasattr(dataset, "dt")):
            name = type(dataset).__name__
            return f"{name} has no trajectory in time: use a data set that has, such as four_well"
        return scene.why_not_dim(1)

    def draw(self, scene: Scene) -> Drawings:
        dataset: Any = scene.dataset  # this one has a trajectory
        trajectory = torch.as_tensor(dataset.trajectory).double().flatten()
        dt = float(dataset.dt)
        low, high = float(trajectory.min()), float(trajectory.max())
        room = 0.08 * (high - low)
        x = torch.linspace(low - room, high + room, 1000, dtype=torch.float64)
        law = law_density(scene, x)
        with new_figure(8.0, 3.6) as figure:
            left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
            time = dt * torch.arange(len(trajectory), dtype=torch.float64)
            left.plot(time, trajectory, color=COLOURS[0], lw=0.4)
            left.set(xlabel=f"time, {len(trajectory):,} steps of {dt:g}", ylabel="x, data units")
            left.set_xlim(0, float(time[-1]))
            right.hist(
                trajectory,
                self.bins,
                density=True,
                orientation="horizontal",
                color=COLOURS[0],
                alpha=0.5,
                label=f"trajectory, {self.bins} bins",
            )
            if law is not None:
                right.plot(law, x, color=COLOURS[1], label="its Boltzmann law")
            right.set_xlabel("density")
            legend_below(figure, right)
        return {"series_1d": figure}
