"""The samplers of a job side by side: points that move from the same starts to the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.figures.base import Animation, Drawings, PathPicture, require_counts
from samplerbench.figures.common import look
from samplerbench.figures.panels import (
    GENERATED,
    GREY,
    HalfWidth,
    frame,
    grouped,
    in_frame,
    in_rows,
    level_name,
    panel_columns,
    plane,
    require_half_width,
    scatter,
    score_name,
)
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class SideBySide(PathPicture):
    """One animation for each denoiser, one panel for each sampler setting."""

    shown_dim: ClassVar[int] = 2
    chains: int = 100  # number of samples
    points: int = 1000  # largest number of data, in grey
    frames: int = 60  # largest number of frames
    milliseconds: int = 80  # duration of each frame
    half_width: HalfWidth | None = None  # half the widths of the axes; null fits the data

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, chains=1, points=1, frames=2, milliseconds=20)
        require_half_width(self.half_width)

    def draw(self, scene: Scene) -> Drawings:
        groups = grouped(self.runs(scene), lambda run: run.denoiser)
        return {f"side_by_side_{name}": self._draw(scene, runs) for name, runs in groups.items()}

    def _draw(self, scene: Scene, runs: list[SamplerRun]) -> Animation:
        every = runs[0].every(self.frames)
        paths = [scene.follow(run, chains=self.chains, every=every) for run in runs]
        x0 = scene.data(self.points)
        shown = frame(x0, self.half_width, [path.x[-1] for path in paths])
        columns = panel_columns(len(runs))
        rows = -(-len(runs) // columns)
        width = (4.6, 6.0, 7.2)[min(columns, 3) - 1]
        inside = [[int(shown.inside(x).sum()) for x in path.x] for path in paths]
        with_counts = min(map(min, inside)) < self.chains
        height = width / columns + 0.1 + 0.2 * with_counts
        with new_figure(width, rows * height + 0.5) as figure:
            panels = in_rows(figure, len(runs), columns)
            dots, counts = [], []
            for axes, run in zip(panels, runs, strict=True):
                scatter(axes, x0, GREY, size=2.5)
                scatter(axes, paths[0].x[0], GENERATED, size=4, alpha=0.9)
                dots.append(axes.lines[-1])
                plane(axes, shown)
                # the count is between the title and the panel, where no point is
                axes.set_title(run.label, pad=20 * look().scale if with_counts else None)
                count = axes.text(0.5, 1.02, "", transform=axes.transAxes, ha="center", va="bottom")
                count.set(fontsize="small", color="0.3")
                counts.append(count)
                axes.label_outer()
            title = figure.suptitle(" ", fontsize="medium", color="0.3")

        def update(number: int) -> None:
            for line, path, count, counted in zip(dots, paths, counts, inside, strict=True):
                x, y = path.x[number].unbind(-1)
                line.set_data(x.numpy(), y.numpy())
                count.set_text(in_frame(counted, self.chains, number).strip())
            step, level = paths[0].steps[number], paths[0].levels[number]
            title.set_text(
                f"{score_name(scene, runs[0].denoiser)}, step {step} of {runs[0].steps}: "
                f"{level_name(level)}"
            )

        return Animation(figure, [*dots, *counts, title], update, len(paths[0]), self.milliseconds)
