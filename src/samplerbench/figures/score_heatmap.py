"""The score over state and time, s(x, t): before the training, after it, and the exact one.

The panels share one colour scale, linear around zero and logarithmic beyond ±1. It ends at the 97th
percentile of |s| in the last panel. On a linear scale only the region near the data would be
visible, where the score grows like 1/σ. The score is evaluated at the middle of each cell, never at
t = 0, where the score of data without noise may not exist.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.colors import SymLogNorm
from torch import Tensor

from samplerbench.bench.scene import Scene
from samplerbench.core.models import Score
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.densities_1d import level_at
from samplerbench.figures.panels import score_name
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class ScoreHeatmap(Picture):
    """A panel each: the untrained model, every denoiser of the job, and the oracle if it exists."""

    cells: int = 100  # number of cells along each axis
    low: float = -2.0  # the smallest x, in data units
    high: float = 2.0  # the largest x, in data units

    def __post_init__(self) -> None:
        require_counts(self, cells=2)
        require(math.isfinite(self.low), "low", self.low, "finite")
        require(self.low < self.high < math.inf, "high", self.high, f"above low={self.low}")

    def why_incompatible(self, scene: Scene) -> str | None:
        return scene.why_not_dim(1)

    def draw(self, scene: Scene) -> Drawings:
        models = {score_name(scene, name): model for name, model in scene.denoisers.items()}
        oracle = None if "oracle" in scene.denoisers else scene.dataset.oracle(scene.schedule)
        if oracle is not None:
            models[score_name(scene, "oracle")] = oracle.to(scene.device)
        if scene.untrained is not None:
            models = {"before training": scene.untrained, **models}
        maps = {name: self._map(scene, model) for name, model in models.items()}
        sizes = list(maps.values())[-1].abs().flatten()
        sizes = sizes[sizes.isfinite()]
        most = max(2.0, float(np.quantile(sizes, 0.97))) if len(sizes) > 0 else 2.0
        with new_figure(3.0 * len(maps) + 1.2, 3.2) as figure:
            panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
            for axes, (name, values) in zip(panels, maps.items(), strict=True):
                image = axes.imshow(
                    values.numpy(),
                    origin="lower",
                    extent=(0, 1, self.low, self.high),
                    aspect="auto",
                    interpolation="nearest",
                    cmap="RdBu_r",
                    norm=SymLogNorm(linthresh=1.0, vmin=-most, vmax=most),
                )
                axes.grid(visible=False)
                axes.set(title=name, xlabel="time t, data to noise")
            panels[0].set_ylabel("x, data units")
            bar = figure.colorbar(image, ax=list(panels), extend="both")
            bar.set_label("score s(x, t), symlog")
        return {"score_heatmap": figure}

    def _map(self, scene: Scene, model: Score) -> Tensor:
        """The scores at the middle of each cell, shape (cells of x, cells of t)."""
        middle = (torch.arange(self.cells, dtype=torch.float64) + 0.5) / self.cells
        x = (self.low + (self.high - self.low) * middle)[:, None].to(scene.device, scene.dtype)
        with torch.no_grad():
            columns = [
                model.score(x, level_at(scene.schedule, t)).cpu().double() for t in middle.tolist()
            ]
        return torch.cat(columns, -1)
