"""Images from the same noise: a row for each sampler setting, a column for each number of steps.

The last row has images of the data, for comparison, if there are data. Pixels between −1 and 1 are
shown as they are, values outside are clipped, and NaN is white. One channel is grey; three channels
are red, green and blue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.bench.scene import Scene
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.panels import grouped, score_name, start_name
from samplerbench.figures.style import new_figure, subtitle


@dataclass(frozen=True)
class ImagePanel(Picture):
    """One figure for each denoiser."""

    images: int = 9  # number of images in each panel, in a square
    denoisers: tuple[str, ...] | None = None  # names of denoisers of the job; null is all
    start: str | None = None  # the name of one of the job's starts; null is the first
    steps: tuple[int, ...] | None = None  # numbers of steps, one for each column; null is the job's

    def __post_init__(self) -> None:
        require_counts(self, images=1)
        allowed = "numbers of steps, each at least 1, or null"
        good = self.steps is None or (len(self.steps) > 0 and min(self.steps) >= 1)
        require(good, "steps", self.steps, allowed)

    def why_incompatible(self, scene: Scene) -> str | None:
        return why_no_images(scene) or scene.why_no_runs(
            denoisers=self.denoisers, start=self.start, steps=self._columns(scene)[0]
        )

    def draw(self, scene: Scene) -> Drawings:
        columns = self._columns(scene)
        runs = [
            run
            for steps in columns
            for run in scene.runs(denoisers=self.denoisers, start=self.start, steps=steps)
        ]
        figures = {}
        for denoiser, own in grouped(runs, lambda run: run.denoiser).items():
            cells = {
                (run.label, run.steps): scene.follow(run, chains=self.images, every=run.steps).x[-1]
                for run in own
            }
            title = f"{score_name(scene, denoiser)}\n{start_name(own)}, the same noise in all"
            figures[f"image_panel_{denoiser}"] = self._figure(scene, cells, columns, title)
        return figures

    def _columns(self, scene: Scene) -> tuple[int, ...]:
        return tuple(scene.steps) if self.steps is None else self.steps

    def _figure(
        self,
        scene: Scene,
        cells: dict[tuple[str, int], Tensor],
        columns: tuple[int, ...],
        title: str,
    ) -> Figure:
        rows = list(dict.fromkeys(label for label, _ in cells))
        shape = scene.dataset.event_shape
        data = scene.data(self.images * len(columns))
        last = len(rows) - 1
        if data.isfinite().all():  # the data of a pretrained model may be missing here
            parts = zip(columns, data.tensor_split(len(columns)), strict=True)
            cells = cells | {("data", n): x for n, x in parts if len(x) > 0}
            rows.append("data")
        with new_figure(1.3 * len(columns) + 1.2, 1.3 * len(rows) + 0.6) as figure:
            figure.set_layout_engine("compressed", wspace=0.12, hspace=0.12)
            panels = figure.subplots(len(rows), len(columns), squeeze=False)
            for place, label in enumerate(rows):
                for axes, steps in zip(panels[place], columns, strict=True):
                    if (label, steps) in cells:
                        show(axes, cells[label, steps], shape)
                    else:
                        axes.set_visible(False)  # the sampler cannot run N steps, or too few data
                panels[place, 0].set_ylabel(label, rotation=0, ha="right", va="center")
            for axes, steps in zip(panels[last], columns, strict=True):
                axes.set_xlabel(f"N = {steps:,}")
            subtitle(figure, title)
        return figure


def why_no_images(scene: Scene) -> str | None:
    """Why the data are not images, in one line; None if they are."""
    shape = scene.dataset.event_shape
    if len(shape) == 3 and shape[0] in (1, 3):
        return None
    return f"it shows images of 1 or 3 channels, and these data have the shape {shape}"


def montage(x: Tensor, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Images (n, dim) of a shape, side by side in a square: (height, width, 1 or 3)."""
    _, height, width = shape
    side = int(np.ceil(np.sqrt(len(x))))
    lines = -(-len(x) // side)
    gap = max(1, height // 16)
    across, down = width + gap, height + gap
    canvas = np.ones((lines * down - gap, side * across - gap, shape[0]))
    pixels = x.double().numpy().reshape(-1, *shape).transpose(0, 2, 3, 1)
    pixels = (np.where(np.isnan(pixels), 1, pixels).clip(-1, 1) + 1) / 2
    for number, image in enumerate(pixels):
        top, left = number // side * down, number % side * across
        canvas[top : top + height, left : left + width] = image
    return canvas


def show(axes: Axes, x: Tensor, shape: tuple[int, ...]) -> None:
    """Show a montage in a panel without ticks."""
    canvas = montage(x, shape)
    grey = canvas.shape[-1] == 1
    axes.imshow(canvas[..., 0] if grey else canvas, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
