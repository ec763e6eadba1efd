"""The score as arrows, and chains that follow it, animated.

At each level all arrows are scaled by one factor, so they keep the directions of the score. The
longest 5 % are cut to one length, since the score grows without bound far from the data. The arrows
of a frame are those of its level. (In the notebook N1 each *component* has its own scale, which
changes the directions, and the arrows stay at one level while the chains move through all levels.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.core.grids import Level
from samplerbench.core.models import Score
from samplerbench.figures.base import Animation, Drawings, PathPicture, require_counts
from samplerbench.figures.common import COLOURS, look
from samplerbench.figures.panels import (
    GENERATED,
    Frame,
    HalfWidth,
    frame,
    in_frame,
    level_name,
    plane,
    require_half_width,
    score_name,
)
from samplerbench.figures.style import enlarged, sized

#: The share of arrows that keep their length.
_LONGEST = 0.95
#: The font size in points, for pages that show the animation at 450 pixels or less.
_TEXT = 12.0
_ARROWS = "0.45"


@dataclass(frozen=True)
class Quiver(PathPicture):
    """One animation for each denoiser and sampler setting; the title counts chains that leave."""

    shown_dim: ClassVar[int] = 2
    mesh: int = 50  # number of arrows along each axis
    chains: int = 20  # number of chains
    trail: int = 3  # number of earlier frames in the trail behind each chain
    points: int = 300  # largest number of data, drawn faintly
    frames: int = 30  # largest number of frames
    milliseconds: int = 100  # duration of each frame
    half_width: HalfWidth | None = None  # half the widths of the axes; null fits the data

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, mesh=2, chains=1, trail=0, points=1, frames=2, milliseconds=20)
        require_half_width(self.half_width)

    def draw(self, scene: Scene) -> Drawings:
        return {
            f"quiver_{run.denoiser}_{run.stem}": self._draw(scene, run) for run in self.runs(scene)
        }

    def _draw(self, scene: Scene, run: SamplerRun) -> Animation:
        paths = scene.follow(run, chains=self.chains, every=run.every(self.frames))
        levels = _with_noise(paths.levels)
        moves = any(level != levels[0] for level in levels)
        x0 = scene.data(self.points)
        shown = frame(x0, self.half_width)
        model, mesh = scene.denoisers[run.denoiser], self._mesh(shown)
        # the longest arrow is slightly longer than the distance of two arrows
        scale = 1.1 * 2 * min(shown.half_width) / (self.mesh - 1)
        present = [int(shown.inside(x).sum()) for x in paths.x]
        dot = look().scale
        with mpl.rc_context(enlarged(_TEXT)):
            # the panel, and its title of three lines, labels and legend
            titles = 1.55
            size = sized(4.5, 3.75 * shown.ratio + titles, titles)
            figure = Figure(figsize=size, layout="constrained")
            axes = figure.subplots()
            axes.grid(visible=False)
            first = scale * _arrows(model, mesh, levels[0], scene)
            arrows = axes.quiver(
                *mesh.T.numpy(),
                *first.T.numpy(),
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.0025,
                headwidth=4,
                headlength=5,
                headaxislength=4,
                color=_ARROWS,
            )
            (data,) = axes.plot(
                x0[:, 0], x0[:, 1], "o", ls="", ms=3 * dot, color=COLOURS[0], alpha=0.35, mew=0
            )
            trails = LineCollection([], colors=GENERATED, linewidths=dot, alpha=0.7)
            axes.add_collection(trails, autolim=False)
            (dots,) = axes.plot([], [], "o", ls="", ms=5 * dot, color=GENERATED, mec="white")
            dots.set_markeredgewidth(0.6 * dot)
            plane(axes, shown, " \n \n ")  # space for the title, which changes
            title = axes.text(0.5, 1.02, "", transform=axes.transAxes, ha="center")
            figure.legend(
                handles=[
                    _mark(r"$\rightarrow$", _ARROWS, "score", 14 * dot),
                    _mark("o", COLOURS[0], "data", 6 * dot),
                    _mark("o", GENERATED, "chains", 6 * dot),
                ],
                loc="outside lower center",
                ncols=3,
                handletextpad=0.2,
                borderpad=0.0,
                borderaxespad=0.2,
            )

        def update(number: int) -> None:
            if moves:
                field = scale * _arrows(model, mesh, levels[number], scene)
                arrows.set_UVC(*field.T.numpy())
            x = paths.x[max(0, number - self.trail) : number + 1]
            trails.set_segments(list(x.transpose(0, 1).numpy()) if len(x) > 1 else [])
            dots.set_data(x[-1, :, 0].numpy(), x[-1, :, 1].numpy())
            title.set_text(
                f"{score_name(scene, run.denoiser)} at {level_name(levels[number])}\n"
                f"{run.label}, step {paths.steps[number]:,} of {run.steps:,}"
                + in_frame(present, self.chains, number)
            )

        moving: list[Artist] = [trails, dots, title]
        if moves:
            moving = [arrows, data, *moving]
        return Animation(figure, moving, update, len(paths), self.milliseconds)

    def _mesh(self, shown: Frame) -> Tensor:
        """The positions of the arrows, shape (mesh², 2)."""
        width, height = (
            np.linspace(middle - half, middle + half, self.mesh)
            for middle, half in zip(shown.centre, shown.half_width, strict=True)
        )
        return torch.from_numpy(np.stack(np.meshgrid(width, height), -1).reshape(-1, 2))


def _mark(marker: str, colour: str, label: str, points: float) -> Line2D:
    return Line2D([], [], ls="", marker=marker, color=colour, mew=0.0, ms=points, label=label)


def _with_noise(levels: list[Level[float]]) -> list[Level[float]]:
    """The levels; levels without noise are replaced by the last level with noise, if any."""
    noisy = [level for level in levels if level.sigma > 0]
    return [level if level.sigma > 0 or not noisy else noisy[-1] for level in levels]


def _arrows(model: Score, mesh: Tensor, level: Level[float], scene: Scene) -> Tensor:
    """The score on the mesh, (mesh², 2), in units of the 95 % quantile of lengths; at most 1."""
    with torch.no_grad():
        score = model.score(mesh.to(scene.device, scene.dtype), level).cpu().double()
    score = torch.where(score.isfinite().all(-1, keepdim=True), score, 0)
    length = score.norm(dim=-1, keepdim=True)
    # torch.quantile takes at most 2²⁴ numbers
    unit = max(float(np.quantile(length.numpy(), _LONGEST)), 1e-300)
    shown: Tensor = score / length.clamp_min(unit)
    return shown
