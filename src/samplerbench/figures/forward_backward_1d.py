"""Forward against backward: the laws of the path beside the laws of a sampler's states.

If the start, the score and the steps were exact, both would be the same at every time. Each
forward density is that of the level at which the backward states really are, the grid's nearest to
the time asked for, so no curve is shifted against the other. Both are seen through one kernel:
the states' as a kernel estimate of width h, and the path's law, which has no random numbers, as

    1/n·Σ N(x; α·x₀, σ² + h²).

h is a quarter of σ at least: anything finer is the chance of the states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import matplotlib as mpl
from matplotlib.figure import Figure

from samplerbench.bench.scene import Run, Scene
from samplerbench.errors import require
from samplerbench.figures.base import Drawn, Followed, require_counts
from samplerbench.figures.densities_1d import require_times
from samplerbench.figures.panels import density, legend_below, level_name, score_name, span_of
from samplerbench.figures.style import COLOURS, styled

_FRAMES = 201
"""States kept on the way: with 500 steps the times asked for are met within 1/400."""


@dataclass(frozen=True)
class ForwardBackward1D(Followed):
    """One figure for each sampler setting, one panel for each time, one curve for each denoiser.

    Args:
        times: t of the panels, from noise to data.
        chains: samples of the sampler.
        points: at most so many data.
        bandwidth: of the kernel, in units of Scott's rule, which is too wide for several modes.
    """

    shown_dim: ClassVar[int] = 1
    times: tuple[float, ...] = (1.0, 0.7, 0.5, 0.0)
    chains: int = 5000
    points: int = 10_000
    bandwidth: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_times(self.times)
        require_counts(self, chains=2, points=2)
        require(0 < self.bandwidth < math.inf, "bandwidth", self.bandwidth, "positive")

    def draw(self, scene: Scene) -> Drawn:
        runs = self.runs(scene)
        return {
            f"forward_backward_1d_{stem}": self._draw(
                scene, [run for run in runs if run.stem == stem]
            )
            for stem in dict.fromkeys(run.stem for run in runs)
        }

    def _draw(self, scene: Scene, runs: list[Run]) -> Figure:
        x0 = scene.data(self.points)
        paths = [scene.follow(run, chains=self.chains, every=run.every(_FRAMES)) for run in runs]
        frames = [paths[0].nearest(t) for t in self.times]
        with mpl.rc_context(styled()):
            columns = min(len(frames), 2)
            rows = -(-len(frames) // columns)
            figure = Figure(figsize=(4.0 * columns, 2.4 * rows + 0.6), layout="constrained")
            panels = figure.subplots(rows, columns, squeeze=False)
            for axes in panels.flat[len(frames) :]:
                axes.set_visible(False)
            for number, (axes, frame) in enumerate(zip(panels.flat, frames, strict=False)):
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
                        label=f"backward: {score_name(scene, run.denoiser)}",
                    )
                axes.set_title(f"t = {level.t:.3g}, {level_name(level)}")
                axes.set_xlabel("x, data units" if number >= len(frames) - columns else "")
                axes.set_ylabel("density" if number % columns == 0 else "")
            figure.suptitle(
                f"{runs[0].label}, N = {runs[0].steps:,} steps, n = {self.chains:,}, "
                f"start: {runs[0].start}",
                fontsize=9,
                color="0.3",
            )
            legend_below(figure, panels.flat[0], 3)
        return figure
