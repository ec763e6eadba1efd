"""The weight of a mode against the dimension, for samplers on a law of two separate modes.

The law of the job has two round modes at ±a·(1, …, 1), as `two_modes`. The picture takes the same
law in other dimensions, whose modes are farther apart, with its exact score. It runs the samplers
of the job and draws the share of their samples in the heavier mode. The bars are 95 % intervals of
a share of n independent draws; the weight of the mode is a line.

Grenioux, Noble, Gabrié, Durmus, "Stochastic localization via iterative posterior sampling", ICML
2024 (arXiv 2402.10758), show this weight for d = 8 to 128.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.two_modes import two_modes
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.panels import run_styles
from samplerbench.figures.style import add_legend, new_figure, subtitle
from samplerbench.metrics.modes import modes_of

_EXACT = "oracle"


@dataclass(frozen=True)
class HeavyMode(Picture):
    """The share of the samples in the heavier mode, by sampler."""

    dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)  # the dimensions, in ascending order
    points: int = 2000  # the number of samples in each

    def __post_init__(self) -> None:
        require_counts(self, points=10)
        ordered = len(self.dims) > 1 and list(self.dims) == sorted(set(self.dims))
        good = ordered and self.dims[0] >= 1 and self.dims[-1] <= 256
        require(good, "dims", list(self.dims), "at least two, ascending, between 1 and 256")

    def why_incompatible(self, scene: Scene) -> str | None:
        if _law(scene, 1) is None:
            return "it needs two round modes at opposite points: dataset=two_modes"
        if _EXACT not in scene.denoisers:
            return "it runs on the exact score: denoiser=[oracle]"
        return scene.why_no_runs(denoisers=[_EXACT])

    def draw(self, scene: Scene) -> Drawings:
        law = _law(scene, 1)
        assert law is not None  # see why_incompatible
        runs = scene.runs(denoisers=[_EXACT])
        found = {run.label: [self.share(scene, run, dim) for dim in self.dims] for run in runs}
        weight = max(law.weights)
        with new_figure(7.0, 3.8) as figure:
            axes = figure.subplots()
            line = axes.axhline(weight, color="0.5", label=f"weight of the mode, {weight:.3g}")
            handles: list[Artist] = [line]
            styles = run_styles(scene)
            for place, run in enumerate(runs):
                share = np.array(found[run.label])
                half = 1.96 * np.sqrt(share * (1 - share) / self.points)
                # side by side, since many shares are equal
                x = np.array(self.dims) * 1.03 ** (place - (len(runs) - 1) / 2)
                look: dict[str, Any] = {**styles[run.label].line, "ms": 4, "lw": 1.2}
                axes.errorbar(x, share, half, elinewidth=0.8, **look)
                handles.append(Line2D([], [], label=f"{run.label}\n{run.start} start", **look))
            axes.set_xscale("log", base=2)
            axes.set_xticks(self.dims, labels=[f"{dim}" for dim in self.dims])
            axes.set(xlabel="dimension d", ylabel="share of the samples in the heavier mode")
            add_legend(figure, handles)
            text = f"n = {self.points:,} samples; bars: 95 % intervals"
            subtitle(figure, f"exact score, N = {max(scene.steps)}; {text}")
        return {"heavy_mode": figure}

    def share(self, scene: Scene, run: SamplerRun, dim: int) -> float:
        """The share of a sampler's samples in the heavier mode, in a dimension."""
        law = _law(scene, dim)
        assert law is not None  # see why_incompatible
        oracle = law.oracle(scene.schedule).to(scene.device)
        there = replace(scene, dataset=law, denoisers={_EXACT: oracle})
        ends = there.follow(run, chains=self.points, every=run.steps).x[-1]
        modes = modes_of(law)
        assert modes is not None  # the modes are round
        return float((modes.assign(ends) == int(modes.weights.argmax())).double().mean())


def _law(scene: Scene, dim: int) -> GaussianMixture | None:
    """The law of the scene in another dimension; None if it is not one of `two_modes`."""
    law = scene.dataset
    if not isinstance(law, GaussianMixture) or len(law.weights) != 2:
        return None
    weights, means, covariances = law.tensors()
    shift, variance = float(means[0, 0]), float(covariances[0, 0, 0])
    if not shift > 0 or not variance > 0:
        return None

    def made(dim: int) -> GaussianMixture:
        return two_modes(dim, shift, float(weights[0]), variance)

    same = all(map(torch.equal, made(law.dim).tensors(), law.tensors()))
    return made(dim) if same else None
