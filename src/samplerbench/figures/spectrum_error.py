"""The error of a sampler in each direction of a Gaussian, against the eigenvalue.

A sampler with fixed steps multiplies each direction by its own factor. The curve is the relative
error of the standard deviation, |√(λ'/λ) − 1|, against the eigenvalue λ of the data's covariance;
its colour shows N. Directions without variance have no relative error and are not shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D

from samplerbench.bench.scene import Scene
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.figures.base import Drawings
from samplerbench.figures.gaussian import GaussianPicture, state_law
from samplerbench.figures.panels import grouped, in_rows, panel_columns, score_name, start_name
from samplerbench.figures.style import add_legend, new_figure, subtitle


@dataclass(frozen=True, kw_only=True)
class SpectrumError(GaussianPicture):
    """A panel for each sampler, a curve for each number of steps."""

    def draw(self, scene: Scene) -> Drawings:
        law = scene.dataset
        assert isinstance(law, GaussianSpectrum)  # see why_incompatible
        varies = law.variances > 0
        eigenvalues, order = law.variances[varies].sort()
        steps = sorted(set(scene.steps))
        runs = [run for count in steps for run in self.runs_with_law(scene, count)]
        panels = grouped(runs, lambda run: run.label)
        columns = panel_columns(len(panels))
        rows = math.ceil(len(panels) / columns)
        colours = {
            count: mpl.colormaps["viridis"](0.9 * place / max(len(steps) - 1, 1))
            for place, count in enumerate(steps)
        }
        with new_figure(3.1 * columns + 1.2, 2.9 * rows) as figure:
            ranks = np.geomspace(1, len(eigenvalues), 60).astype(int)  # even along the axis
            errors = []
            grid = in_rows(figure, len(panels), columns)
            for place, (axes, label) in enumerate(zip(grid, panels, strict=True)):
                for run in panels[label]:
                    _, variances = state_law(scene, run, run.steps)
                    error = ((variances[varies][order] / eigenvalues).sqrt() - 1).abs()
                    axes.plot(eigenvalues, error, color=colours[run.steps], lw=1.2)
                    errors.append(error.numpy()[-ranks])
                axes.set(xscale="log", yscale="log", title=label, ylabel="relative error of √λ")
                axes.label_outer()
                if place + columns >= len(panels):  # the lowest panel of its column
                    axes.tick_params(labelbottom=True)
                    axes.set_xlabel("eigenvalue λ of the data's covariance")
            # if an error changes its sign, the curve has a dip, which may be deep
            shown = np.concatenate(errors)
            if (shown > 0).any():
                low, high = np.quantile(shown[shown > 0], [0.02, 1])
                grid[0].set_ylim(low / 3, 2 * high)
            add_legend(
                figure,
                [Line2D([], [], color=colours[count], label=f"N = {count}") for count in steps],
            )
            score = score_name(scene, runs[0].denoiser)
            subtitle(figure, f"{score}; {start_name(runs)}; {law.dim:,} directions")
        return {"spectrum_error": figure}
