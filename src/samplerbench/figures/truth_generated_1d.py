"""Truth against generated: histograms of data and samples, and the law's density if it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from samplerbench.bench.scene import Scene
from samplerbench.figures.base import Drawings, PathPicture, require_counts
from samplerbench.figures.common import COLOURS
from samplerbench.figures.panels import (
    grouped,
    law_density,
    legend_below,
    not_shown,
    score_name,
    span_of,
)
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class TruthGenerated1D(PathPicture):
    """One panel for each sampler setting: data filled, one outline for each denoiser."""

    shown_dim: ClassVar[int] = 1
    chains: int = 10_000  # number of samples
    points: int = 10_000  # largest number of data
    bins: int = 50  # number of bins, the same for all histograms

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, chains=1, points=1, bins=2)

    def draw(self, scene: Scene) -> Drawings:
        groups = grouped(self.runs(scene), lambda run: run.label)
        x0 = scene.data(self.points)[:, 0]
        low, high = span_of([x0])
        edges = torch.linspace(low, high, self.bins + 1, dtype=torch.float64)
        x = torch.linspace(low, high, 1000, dtype=torch.float64)
        law = law_density(scene, x)
        name = "law in the long run" if hasattr(scene.dataset, "boltzmann") else "law of the data"
        width = 6.4 if len(groups) == 1 else 4.2 * len(groups)
        with new_figure(width, 3.8) as figure:
            panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
            for axes, (label, runs) in zip(panels, groups.items(), strict=True):
                axes.hist(x0, edges, density=True, color="0.8", label=f"data, n = {len(x0):,}")
                title = f"{label}, N = {runs[0].steps:,} steps"
                for run, colour in zip(runs, COLOURS[1:], strict=False):
                    ends = scene.follow(run, chains=self.chains, every=run.steps).x[-1, :, 0]
                    # divided by all samples, also those outside of the bins
                    counts = torch.histogram(ends[ends.isfinite()], edges).hist
                    heights = counts / (len(ends) * edges.diff())
                    axes.stairs(
                        heights.numpy(),
                        edges.numpy(),
                        color=colour,
                        lw=1.5,
                        ls="-" if run.denoiser == "learned" else "--",
                        label=f"{score_name(scene, run.denoiser)}, n = {len(ends):,}",
                    )
                    left_out = not_shown(ends, low, high)
                    title += f"\n{score_name(scene, run.denoiser)}{left_out}" if left_out else ""
                if law is not None:
                    axes.plot(x, law, color="black", lw=1.0, label=name)
                axes.set(title=title, xlabel="x, data units")
            panels[0].set_ylabel("density")
            legend_below(figure, panels[0])
        return {"truth_generated_1d": figure}
