"""The last states of the samplers, over the data.

The data in the background have the noise of the grid's last level, α·x₀ + σ·ε. That is no noise for
a sampler that ends at the data. For a Langevin sampler it is the noise of its level, since its
score is that of the law with this noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.figures.base import Drawings, PathPicture, require_counts
from samplerbench.figures.panels import (
    GENERATED,
    GREY,
    HalfWidth,
    frame,
    legend_below,
    level_name,
    not_shown,
    panel_columns,
    plane,
    plane_height,
    require_half_width,
    scatter,
    score_name,
    standard_normal,
    start_name,
)
from samplerbench.figures.style import new_figure, subtitle


@dataclass(frozen=True)
class Samples(PathPicture):
    """A row for each sampler setting, a column for each denoiser.

    With a single setting the denoisers fill several rows.
    """

    shown_dim: ClassVar[int] = 2
    chains: int = 300  # number of samples
    points: int = 2000  # largest number of data
    half_width: HalfWidth | None = None  # half the widths of the axes; null fits the data

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
        low, high = (
            x0.new_tensor(shown.centre) + sign * x0.new_tensor(shown.half_width) for sign in (-1, 1)
        )
        places, rows, columns = _places(runs)
        width = (3.6 if columns > 1 else 4.4) * columns + 0.4
        # with a caption and a legend
        height = plane_height(width, rows, columns, shown.ratio) + 0.65
        with new_figure(width, height) as figure:
            panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
            for axes in panels.flat:
                axes.set_visible(False)
            name = "data" if level.sigma == 0 else f"noised data, {level_name(level)}"
            for run, end in zip(runs, ends, strict=True):
                row, column = places[run]
                axes = panels[row, column]
                axes.set_visible(True)
                scatter(axes, behind, GREY, label=name)
                scatter(axes, end.x[-1], GENERATED, label="samples", alpha=0.8)
                title = f"{run.label}, {score_name(scene, run.denoiser)}"
                plane(axes, shown, title + not_shown(end.x[-1], low, high))
                if (row + 1, column) in places.values():
                    axes.set_xlabel("")
                if column > 0:
                    axes.set_ylabel("")
            subtitle(
                figure, f"n = {self.chains:,}, N = {runs[0].steps:,} steps, {start_name(runs)}"
            )
            legend_below(figure, next(axes for axes in panels.flat if axes.get_visible()))
        return {"samples": figure}


def _places(runs: Sequence[SamplerRun]) -> tuple[dict[SamplerRun, tuple[int, int]], int, int]:
    """Row and column of each run, and their numbers; a single sampler has several rows."""
    labels = list(dict.fromkeys(run.label for run in runs))
    denoisers = list(dict.fromkeys(run.denoiser for run in runs))
    if len(labels) > 1:
        places = {run: (labels.index(run.label), denoisers.index(run.denoiser)) for run in runs}
        return places, len(labels), len(denoisers)
    columns = panel_columns(len(runs))
    return (
        {run: divmod(k, columns) for k, run in enumerate(runs)},
        -(-len(runs) // columns),
        columns,
    )
