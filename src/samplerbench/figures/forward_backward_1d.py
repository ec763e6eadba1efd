"""Forward against backward: the laws of the path, and the laws of a sampler's states.

If the start, the score and the steps are exact, both are the same at every time. A panel uses the
level of the grid with the nearest time, for the forward density and for the backward states, so no
curve is shifted against the other. Both are smoothed with the same kernel of width h: the states by
a kernel estimate, and the law of the path, without random numbers, as

    1/n·Σ N(x; α·x₀, σ² + h²).

h is at least a quarter of σ, since finer details are random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from matplotlib.figure import Figure

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, PathPicture, require_counts
from samplerbench.figures.common import COLOURS
from samplerbench.figures.densities_1d import require_times
from samplerbench.figures.panels import (
    density,
    grouped,
    in_rows,
    legend_below,
    level_name,
    not_shown,
    score_name,
    span_of,
)
from samplerbench.figures.style import new_figure, subtitle

#: The number of states kept of each path: with 500 steps, the nearest time is within 1/400.
_FRAMES = 201


@dataclass(frozen=True)
class ForwardBackward1D(PathPicture):
    """One figure for each sampler setting, one panel for each time, one curve for each denoiser."""

    shown_dim: ClassVar[int] = 1
    times: tuple[float, ...] = (1.0, 0.7, 0.5, 0.0)  # t of the panels, from noise to data
    chains: int = 5000  # number of samples
    points: int = 10_000  # largest number of data
    # width of the kernel, in units of Scott's rule, which is too wide for several modes
    bandwidth: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_times(self.times)
        require_counts(self, chains=2, points=2)
        require(0 < self.bandwidth < math.inf, "bandwidth", self.bandwidth, "positive")

    def draw(self, scene: Scene) -> Drawings:
        groups = grouped(self.runs(scene), lambda run: run.stem)
        return {
            f"forward_backward_1d_{stem}": self._draw(scene, runs) for stem, runs in groups.items()
        }

    def _draw(self, scene: Scene, runs: list[SamplerRun]) -> Figure:
        x0 = scene.data(self.points)
        paths = [scene.follow(run, chains=self.chains, every=run.every(_FRAMES)) for run in runs]
        frames = [paths[0].nearest(t) for t in self.times]
        columns = min(len(frames), 2)
        rows = -(-len(frames) // columns)
        with new_figure(4.0 * columns, 2.4 * rows + 0.6) as figure:
            panels = in_rows(figure, len(frames), columns, shared=False)
            for number, (axes, frame) in enumerate(zip(panels, frames, strict=True)):
                level = paths[0].levels[frame]
                signal = level.alpha * x0[:, 0]
                spread = (float(signal.var()) + level.sigma**2) ** 0.5
                width = max(self.bandwidth * self.chains**-0.2 * spread, level.sigma / 4)
                low, high = span_of([signal])
                span = low - 3 * level.sigma, high + 3 * level.sigma
                density(
                    axes,
                    signal,
                    width=(level.sigma**2 + width**2) ** 0.5,
                    span=span,
                    color="0.6",
                    fill=True,
                    lw=0,
                    label="forward: the law of the path",
                )
                for run, path, colour in zip(runs, paths, COLOURS[1:], strict=False):
                    density(
                        axes,
                        path.x[frame, :, 0],
                        width=width,
                        span=span,
                        color=colour,
                        ls="-" if run.denoiser == "learned" else "--",
                        label=f"backward: {score_name(scene, run.denoiser)}"
                        + not_shown(path.x[-1]),
                    )
                axes.set_title(f"t = {level.t:.3g}, {level_name(level)}")
                axes.set_xlabel("x, data units" if number >= len(frames) - columns else "")
                axes.set_ylabel("density" if number % columns == 0 else "")
            subtitle(
                figure,
                f"{runs[0].label}, N = {runs[0].steps:,} steps, n = {self.chains:,}, "
                f"start: {runs[0].law}",
            )
            legend_below(figure, panels[0], 3)
        return figure
