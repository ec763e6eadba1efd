"""The forward process: the same data and the same noise at the levels of the grid.

    x_t = α_t·x₀ + σ_t·ε

with the same x₀ and ε in all frames, from the data to the level at which samplers start. Every
frame has the law q_t. The points move on straight lines because ε stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from samplerbench.bench.scene import Scene
from samplerbench.core.grids import Level
from samplerbench.errors import require
from samplerbench.figures.base import Animation, Drawings, Picture, require_counts
from samplerbench.figures.common import COLOURS
from samplerbench.figures.panels import (
    HalfWidth,
    frame,
    in_frame,
    level_name,
    plane,
    require_half_width,
    scatter,
    standard_normal,
)
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class Noising(Picture):
    """One panel, animated over the levels of the grid."""

    points: int = 1000  # largest number of data
    frames: int = 60  # largest number of frames, one for each level
    milliseconds: int = 80  # duration of each frame
    steps: int | None = None  # number of steps of the grid; null is the job's largest
    half_width: HalfWidth | None = None  # half the widths of the axes; null fits the data

    def __post_init__(self) -> None:
        require_counts(self, points=1, frames=2, milliseconds=20)
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1, or null")
        require_half_width(self.half_width)

    def why_incompatible(self, scene: Scene) -> str | None:
        levels = self._levels(scene)
        if levels[0] == levels[-1]:
            return "the grid has only one noise level: the picture needs a grid from noise to data"
        return scene.why_not_dim(2)

    def draw(self, scene: Scene) -> Drawings:
        levels = self._levels(scene)
        frames = min(self.frames, len(levels))
        levels = [levels[round(k * (len(levels) - 1) / (frames - 1))] for k in range(frames)]
        x0 = scene.data(self.points)
        eps = standard_normal(x0, scene, "noising")
        last = levels[-1].alpha * x0 + levels[-1].sigma * eps
        shown = frame(x0, self.half_width, [last])
        count = [int(shown.inside(level.alpha * x0 + level.sigma * eps).sum()) for level in levels]
        with new_figure(4.6, 4.6) as figure:
            axes = figure.subplots()
            scatter(axes, x0, COLOURS[0])
            plane(axes, shown, " ")
            title = axes.text(0.5, 1.02, "", transform=axes.transAxes, ha="center")
        dots = axes.lines[0]

        def update(number: int) -> None:
            level = levels[number]
            x = level.alpha * x0 + level.sigma * eps
            dots.set_data(x[:, 0].numpy(), x[:, 1].numpy())
            name = "data" if level.sigma == 0 else f"noised data, {level_name(level)}"
            title.set_text(name + in_frame(count, len(x0), number))

        return {"noising": Animation(figure, [dots, title], update, frames, self.milliseconds)}

    def _levels(self, scene: Scene) -> list[Level[float]]:
        """The levels of the grid, from the data to noise."""
        return scene.levels(max(scene.steps) if self.steps is None else self.steps).rows[::-1]
