"""The loss during training, on a logarithmic axis of steps.

The loss falls most in the first steps. It may be negative, as in implicit score matching, so its
axis is logarithmic only if all values are positive and span more than a factor of ten. If they span
less, the axis begins at zero, so that two trainings can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from samplerbench.bench.scene import Scene
from samplerbench.figures.base import Drawings, Picture
from samplerbench.figures.common import COLOURS
from samplerbench.figures.style import label_log_values, new_figure

_STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": COLOURS[0], "lw": 1.0},
    "validation": {"color": COLOURS[1], "marker": "o", "ms": 3},
}


@dataclass(frozen=True)
class Loss(Picture):
    """Training and validation loss against the step of the optimiser."""

    def why_incompatible(self, scene: Scene) -> str | None:
        if scene.untrained is None and scene.losses.empty:
            return "no model is trained in this job: the picture needs the denoiser learned"
        return None

    def draw(self, scene: Scene) -> Drawings:
        losses = scene.losses[np.isfinite(scene.losses["loss"].astype(float))]
        with new_figure(5.6, 3.4) as figure:
            axes = figure.subplots()
            for name, curve in losses.groupby("name", sort=False):
                curve = curve.sort_values("step")
                style = _STYLES.get(str(name), {"color": COLOURS[2]})
                if len(curve) == 1:  # a single point has no line
                    style = {**style, "marker": "o"}
                # steps are logged from 0
                axes.plot(curve["step"] + 1, curve["loss"], label=str(name), **style)
            axes.set_xscale("log")
            label_log_values(axes.xaxis, "{x:,.0f}")
            if len(losses) > 0:
                low, high = float(losses["loss"].min()), float(losses["loss"].max())
                if 0 < 10 * low < high:
                    axes.set_yscale("log")
                    label_log_values(axes.yaxis)
                elif low > 0:
                    axes.set_ylim(0, 1.05 * high)
                axes.legend()
            axes.set(title=scene.training, xlabel="step of the optimiser", ylabel="loss")
        return {"loss": figure}
