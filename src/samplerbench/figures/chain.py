"""One chain, coloured by time from black to red, over the law that it converges to.

It shows how rarely a Langevin sampler moves from one mode to another. The law is that of α·x₀ + σ·ε
at the chain's last level, which without noise is the law of the data. Only
every k-th state is drawn, so a chain of 100 000 steps is a line through 101 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import StrMethodFormatter

from samplerbench.bench.scene import Scene
from samplerbench.core.grids import Level
from samplerbench.figures.base import Drawings, PathPicture, require_counts
from samplerbench.figures.panels import (
    BLACK_TO_RED,
    GREY,
    HalfWidth,
    frame,
    grouped,
    legend_below,
    line_by_time,
    plane,
    require_half_width,
    scatter,
    score_name,
    standard_normal,
)
from samplerbench.figures.style import new_figure, subtitle


@dataclass(frozen=True)
class Chain(PathPicture):
    """One figure for each sampler setting, one panel for each denoiser."""

    shown_dim: ClassVar[int] = 2
    every: int = 1000  # k, the number of steps from one drawn state to the next
    points: int = 2000  # largest number of draws of the law, in grey
    half_width: HalfWidth | None = None  # half the widths of the axes; null fits the law

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, every=1, points=1)
        require_half_width(self.half_width)

    def draw(self, scene: Scene) -> Drawings:
        x0 = scene.data(self.points)
        figures = {}
        for stem, runs in grouped(self.runs(scene), lambda run: run.stem).items():
            paths = [scene.follow(run, chains=1, every=self.every) for run in runs]
            level = paths[0].levels[-1]
            # the law of a chain that stays at this level
            law = level.alpha * x0 + level.sigma * standard_normal(x0, scene, "chain")
            shown = frame(law, self.half_width, [path.x for path in paths])
            width = 3.6 if len(runs) > 1 else 4.4
            with new_figure(width * len(runs) + 1.6, (width - 0.6) * shown.ratio + 1.4) as figure:
                panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
                for axes, run, path in zip(panels, runs, paths, strict=True):
                    scatter(axes, law, GREY, label=_law_name(level))
                    x, y = path.x[:, 0].unbind(-1)
                    axes.add_collection(line_by_time(x, y))
                    axes.scatter(
                        x, y, s=9, c=path.steps, cmap=BLACK_TO_RED, zorder=3, label="the chain"
                    )
                    plane(axes, shown, score_name(scene, run.denoiser))
                    if axes is not panels[0]:
                        axes.set_ylabel("")
                norm = Normalize(0, paths[0].steps[-1])
                bar = figure.colorbar(
                    ScalarMappable(norm, BLACK_TO_RED), ax=list(panels), shrink=0.8
                )
                bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                bar.set_label("number of steps")
                legend_below(figure, panels[0])
                every = f", every {self.every:,}th state" if self.every > 1 else ""
                length = f"one chain of {runs[0].steps:,} steps{every}"
                subtitle(figure, f"{runs[0].label}: {length}, start: {runs[0].law}")
            figures[f"chain_{stem}"] = figure
        return figures


def _law_name(level: Level[float]) -> str:
    if level.sigma == 0:
        return "data"
    signal = "data" if level.alpha == 1 else f"{level.alpha:.3g}·data"
    return f"the law at its level: {signal} + σ·ε, σ = {level.sigma:.3g}"
