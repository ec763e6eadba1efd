"""The last states of the samplers, over the data.

The data in the background have the noise of the grid's last level, α·x₀ + σ·ε. For a sampler that
ends at the data this is no noise; for a Langevin sampler it is the noise of its level, since its
score belongs to the law with that noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import matplotlib as mpl
from matplotlib.figure import Figure

from samplerbench.bench.scene import Scene
from samplerbench.figures.base import Drawings, PathPicture, require_counts
from samplerbench.figures.panels import (
    GENERATED,
    GREY,
    HalfWidth,
    frame,
    legend_below,
    level_name,
    not_shown,
    plane,
    require_half_width,
    scatter,
    score_name,
    standard_normal,
    start_name,
)
from samplerbench.figures.style import sized, styled, subtitle


@dataclass(frozen=True)
class Samples(PathPicture):
    """One row for each sampler setting, one column for each denoiser.

    Args:
        chains: number of samples.
        points: largest number of data.
        half_width: half the widths of the axes; null fits the data.
    """

    shown_dim: ClassVar[int] = 2
    chains: int = 300
    points: int = 2000
    half_width: HalfWidth | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, chains=1, points=1)
        require_half_width(self.half_width)

    def draw(self, scene: Scene) -> Drawings:
        runs = self.runs(scene)
        # the first state and the last one
        ends = [scene.follow(run, chains=self.chains, every=run.steps) for run in runs]
        level = ends[0].levels[-1]
        x0 = scene.data(self.points)
        behind = level.alpha * x0 + level.sigma * standard_normal(x0, scene, "samples")
        shown = frame(behind, self.half_width, [end.x[-1] for end in ends])
        rows = list(dict.fromkeys(run.label for run in runs))
        columns = list(dict.fromkeys(run.denoiser for run in runs))
        with mpl.rc_context(styled()):
            width = 3.6 if len(columns) > 1 else 4.4
            height = width * shown.ratio
            figure = Figure(figsize=sized(width * len(columns) + 0.4, height * len(rows) + 0.8))
            figure.set_layout_engine("constrained")
            panels = figure.subplots(
                len(rows), len(columns), sharex=True, sharey=True, squeeze=False
            )
            for axes in panels.flat:
                axes.set_visible(False)
            name = "data" if level.sigma == 0 else f"noised data, {level_name(level)}"
            for run, end in zip(runs, ends, strict=True):
                axes = panels[rows.index(run.label), columns.index(run.denoiser)]
                axes.set_visible(True)
                scatter(axes, behind, GREY, label=name)
                scatter(axes, end.x[-1], GENERATED, label="samples", alpha=0.8)
                title = f"{run.label}, {score_name(scene, run.denoiser)}"
                plane(axes, shown, title + not_shown(end.x[-1]))
                if rows.index(run.label) < len(rows) - 1:
                    axes.set_xlabel("")
                if columns.index(run.denoiser) > 0:
                    axes.set_ylabel("")
            subtitle(
                figure,
                f"n = {self.chains:,}, N = {runs[0].steps:,} steps, {start_name(runs)}",
            )
            legend_below(figure, next(axes for axes in panels.flat if axes.get_visible()))
        return {"samples": figure}
