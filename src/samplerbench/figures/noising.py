"""The forward process: one set of data and one noise, at the levels of the grid.

    x_t = α_t·x₀ + σ_t·ε

with the same x₀ and ε in all frames, from the data to the level at which samplers start. Every
frame has the law q_t; that the points go on straight lines is the choice of one ε.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from samplerbench.bench.scene import Scene
from samplerbench.core.noise import generator
from samplerbench.errors import require
from samplerbench.figures.base import Animation, Drawn, Picture, require_counts
from samplerbench.figures.panels import (
    HalfWidth,
    level_name,
    plane,
    reach,
    require_half_width,
    scatter,
)
from samplerbench.figures.style import COLOURS, styled


@dataclass(frozen=True)
class Noising(Picture):
    """One panel, animated over the levels of the grid.

    Args:
        points: at most so many data.
        frames: at most so many levels, the data among them.
        milliseconds: each frame stays.
        steps: of the grid; null is the job's largest number.
        half_width: of both axes; null shows all points.
    """

    points: int = 1000
    frames: int = 60
    milliseconds: int = 80
    steps: int | None = None
    half_width: HalfWidth | None = None

    def __post_init__(self) -> None:
        require_counts(self, points=1, frames=2, milliseconds=20)
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1, or null")
        require_half_width(self.half_width)

    def why_incompatible(self, scene: Scene) -> str | None:
        levels = scene.levels(max(scene.steps) if self.steps is None else self.steps)
        if levels.rows[0] == levels.rows[-1]:
            return "the grid holds one noise level: it needs one that goes from noise to data"
        return scene.why_not_dim(2)

    def draw(self, scene: Scene) -> Drawn:
        rows = scene.levels(max(scene.steps) if self.steps is None else self.steps).rows[::-1]
        count = min(self.frames, len(rows))
        rows = [rows[round(k * (len(rows) - 1) / (count - 1))] for k in range(count)]
        x0 = scene.data(self.points)
        numbers = generator("picture", "noising", scene.seed).standard_normal(tuple(x0.shape))
        eps = torch.from_numpy(numbers)
        half_width = reach([x0, rows[-1].alpha * x0 + rows[-1].sigma * eps], self.half_width)
        with mpl.rc_context(styled()):
            figure = Figure(figsize=(4.6, 4.6), layout="constrained")
            axes = figure.subplots()
            scatter(axes, x0, COLOURS[0])
            plane(axes, half_width, " ")
            title = axes.text(0.5, 1.02, "", transform=axes.transAxes, ha="center", fontsize=11)
        dots = axes.lines[0]

        def update(frame: int) -> None:
            level = rows[frame]
            x = level.alpha * x0 + level.sigma * eps
            dots.set_data(x[:, 0].numpy(), x[:, 1].numpy())
            title.set_text("data" if level.sigma == 0 else f"noised data, {level_name(level)}")

        animation = Animation(figure, [dots, title], update, count, self.milliseconds)
        return {"noising": animation}
