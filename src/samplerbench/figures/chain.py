"""One chain, coloured by time from black to red, over the law that it is to have in the end.

It shows how seldom a Langevin sampler crosses from one mode to another. That law is the data's with
the noise of the chain's last level, α·x₀ + σ·ε; without noise it is the data's own. Only every k-th
state is kept and drawn, so a chain of 100 000 steps is a line through 101 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import matplotlib as mpl
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from torch import Tensor

from samplerbench.bench.scene import Scene
from samplerbench.core.grids import Level
from samplerbench.core.noise import generator
from samplerbench.figures.base import Drawn, Followed, require_counts
from samplerbench.figures.panels import (
    BLACK_TO_RED,
    GREY,
    HalfWidth,
    by_time,
    legend_below,
    plane,
    reach,
    require_half_width,
    scatter,
    score_name,
)
from samplerbench.figures.style import styled


@dataclass(frozen=True)
class Chain(Followed):
    """One figure for each sampler setting, one panel for each denoiser.

    Args:
        every: k, one state is drawn in so many steps.
        points: at most so many draws of the law, in grey.
        half_width: of both axes; null shows all points.
    """

    shown_dim: ClassVar[int] = 2
    every: int = 1000
    points: int = 2000
    half_width: HalfWidth | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, every=1, points=1)
        require_half_width(self.half_width)

    def draw(self, scene: Scene) -> Drawn:
        runs = self.runs(scene)
        x0 = scene.data(self.points)
        drawn = {}
        for stem in dict.fromkeys(run.stem for run in runs):
            chosen = [run for run in runs if run.stem == stem]
            paths = [scene.follow(run, chains=1, every=self.every) for run in chosen]
            level = paths[0].levels[-1]
            law = _law(x0, level, scene.seed)
            half_width = reach([law, *(path.x for path in paths)], self.half_width)
            with mpl.rc_context(styled()):
                width = 3.6 if len(chosen) > 1 else 4.4
                ratio = half_width[1] / half_width[0]
                size = (width * len(chosen) + 1.6, (width - 0.6) * ratio + 1.4)
                figure = Figure(figsize=size, layout="constrained")
                panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
                for axes, run, path in zip(panels, chosen, paths, strict=True):
                    scatter(axes, law, GREY, label=_law_name(level))
                    x, y = path.x[:, 0].unbind(-1)
                    axes.add_collection(by_time(x, y))
                    axes.scatter(
                        x, y, s=9, c=path.steps, cmap=BLACK_TO_RED, zorder=3, label="the chain"
                    )
                    plane(axes, half_width, score_name(scene, run.denoiser))
                    if axes is not panels[0]:
                        axes.set_ylabel("")
                norm = Normalize(0, paths[0].steps[-1])
                bar = figure.colorbar(
                    ScalarMappable(norm, BLACK_TO_RED), ax=list(panels), shrink=0.8
                )
                bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                bar.set_label("number of steps")
                legend_below(figure, panels[0])
                figure.suptitle(
                    f"{chosen[0].label}: one chain of {chosen[0].steps:,} steps, "
                    f"every {self.every:,}th state"
                    if self.every > 1
                    else f"{chosen[0].label}: one chain of {chosen[0].steps:,} steps",
                    fontsize=9,
                    color="0.3",
                )
            drawn[f"chain_{stem}"] = figure
        return drawn


def _law(x0: Tensor, level: Level[float], seed: int) -> Tensor:
    """Data with the noise of a level, shape (n, 2): the law of a chain that stays there."""
    numbers = generator("picture", "chain", seed).standard_normal(tuple(x0.shape))
    return level.alpha * x0 + level.sigma * torch.from_numpy(numbers)


def _law_name(level: Level[float]) -> str:
    if level.sigma == 0:
        return "data"
    signal = "data" if level.alpha == 1 else f"{level.alpha:.3g}·data"
    return f"the law at its level: {signal} + σ·ε, σ = {level.sigma:.3g}"
