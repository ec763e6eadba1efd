"""The distance between the law of a sampler's state and the law of the path, from noise to data.

On a Gaussian both laws are known after every step, without samples. The distance is W₂ in the units
of the state, against the noise-to-signal ratio; the last state is at the data. States without
signal, and distances of 0, as at an exact start, are not shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from matplotlib.ticker import FixedLocator, NullLocator

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.core.grids import Level
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.errors import require
from samplerbench.figures.base import Drawings
from samplerbench.figures.gaussian import GaussianPicture, state_law
from samplerbench.figures.panels import run_styles, score_name, start_name
from samplerbench.figures.style import add_legend, new_figure, subtitle
from samplerbench.metrics.w2_law_gaussian import W2LawGaussian

#: The largest number of states that are shown; the law of each needs a separate run.
_FRAMES = 30


@dataclass(frozen=True, kw_only=True)
class W2Path(GaussianPicture):
    """A curve for each sampler."""

    steps: int | None = None  # number of steps of the samplers; null is the job's largest

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1, or null")

    def draw(self, scene: Scene) -> Drawings:
        runs = self.runs_with_law(scene, self.steps)
        curves = {run.label: _curve(scene, run) for run in runs}
        least = min(ratio for curve in curves.values() for ratio, _ in curve if ratio > 0)
        most = max(ratio for curve in curves.values() for ratio, _ in curve)
        data = least / (most / least) ** 0.08
        with new_figure(7.0, 3.8) as figure:
            axes = figure.subplots()
            handles, styles = [], run_styles(scene)
            for label, curve in curves.items():
                x = [ratio or data for ratio, _ in curve]
                look = styles[label].line | {"ms": 3, "lw": 1.2}
                handles += axes.plot(x, [w2 or math.nan for _, w2 in curve], label=label, **look)
            axes.set(xscale="log", yscale="log")
            axes.invert_xaxis()
            decades = range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)
            places = [data, *(10.0**power for power in decades)]
            axes.xaxis.set_major_locator(FixedLocator(places))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticklabels(["data", *(f"{place:g}" for place in places[1:])])
            axes.set_xlabel("noise-to-signal ratio σ/α of the state")
            axes.set_ylabel("W₂ to the law of the path, units of the state")
            add_legend(figure, handles)
            subtitle(
                figure,
                f"{score_name(scene, runs[0].denoiser)}; N = {runs[0].steps}; {start_name(runs)}",
            )
        return {"w2_path": figure}


def _curve(scene: Scene, run: SamplerRun) -> list[tuple[float, float]]:
    """σ/α and W₂ of some states of a run, from the first to the last."""
    law = scene.dataset
    assert isinstance(law, GaussianSpectrum)  # see why_incompatible
    rows = scene.levels(run.steps, run.sampler).rows
    count = min(run.steps, _FRAMES)
    shown = torch.linspace(0, run.steps, count + 1).round().long().tolist()
    return [
        (rows[k].sigma / rows[k].alpha, _distance(law, rows[k], *state_law(scene, run, k)))
        for k in shown
        if rows[k].alpha > 0
    ]


def _distance(
    law: GaussianSpectrum, level: Level[float], mean: torch.Tensor, variances: torch.Tensor
) -> float:
    """W₂ from a state's law to the law of the path at its level."""
    noised = GaussianSpectrum(
        level.alpha**2 * law.variances + level.sigma**2, level.alpha * law.mean
    )
    return W2LawGaussian().between(mean, variances, noised).value
