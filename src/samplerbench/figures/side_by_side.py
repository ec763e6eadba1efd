"""The samplers of a job side by side: points that move from the same starts to the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import matplotlib as mpl
from matplotlib.figure import Figure

from samplerbench.bench.scene import Course, Scene
from samplerbench.figures.base import Animation, Drawings, PathPicture, require_counts
from samplerbench.figures.panels import (
    GENERATED,
    GREY,
    HalfWidth,
    grouped,
    level_name,
    panel_columns,
    plane,
    reach,
    require_half_width,
    scatter,
    score_name,
)
from samplerbench.figures.style import styled


@dataclass(frozen=True)
class SideBySide(PathPicture):
    """One animation for each denoiser, one panel for each sampler setting.

    Args:
        chains: number of samples.
        points: largest number of data, in grey.
        frames: largest number of frames.
        milliseconds: duration of each frame.
        half_width: half the widths of the axes; null shows all points.
    """

    shown_dim: ClassVar[int] = 2
    chains: int = 100
    points: int = 1000
    frames: int = 60
    milliseconds: int = 80
    half_width: HalfWidth | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, chains=1, points=1, frames=2, milliseconds=20)
        require_half_width(self.half_width)

    def draw(self, scene: Scene) -> Drawings:
        groups = grouped(self.runs(scene), lambda run: run.denoiser)
        return {f"side_by_side_{name}": self._draw(scene, runs) for name, runs in groups.items()}

    def _draw(self, scene: Scene, runs: list[Course]) -> Animation:
        every = runs[0].every(self.frames)
        paths = [scene.follow(run, chains=self.chains, every=every) for run in runs]
        x0 = scene.data(self.points)
        half_width = reach([x0, *(path.x for path in paths)], self.half_width)
        columns = panel_columns(len(runs))
        with mpl.rc_context(styled()):
            rows = -(-len(runs) // columns)
            width = (4.6, 6.0, 7.2)[min(columns, 3) - 1]
            figure = Figure(figsize=(width, rows * (width / columns + 0.1) + 0.5))
            figure.set_layout_engine("constrained")
            panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
            dots = []
            for axes in panels.flat[len(runs) :]:
                axes.set_visible(False)
            for axes, run in zip(panels.flat, runs, strict=False):
                scatter(axes, x0, GREY, size=2.5)
                scatter(axes, paths[0].x[0], GENERATED, size=4, alpha=0.9)
                dots.append(axes.lines[-1])
                plane(axes, half_width, run.label)
            for axes in panels.flat:
                axes.label_outer()
            title = figure.suptitle(" ", fontsize=10, color="0.3")

        def update(frame: int) -> None:
            for line, path in zip(dots, paths, strict=True):
                x, y = path.x[frame].unbind(-1)
                line.set_data(x.numpy(), y.numpy())
            step, level = paths[0].steps[frame], paths[0].levels[frame]
            title.set_text(
                f"{score_name(scene, runs[0].denoiser)}, step {step} of {runs[0].steps}: "
                f"{level_name(level)}"
            )

        return Animation(figure, [*dots, title], update, len(paths[0]), self.milliseconds)
