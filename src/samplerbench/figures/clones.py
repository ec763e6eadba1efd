"""The time at which a sample chooses its mode: how often two runs from one state end in one mode.

Two runs of the reverse SDE that share the state x_t end in two independent draws of x₀ given x_t.
With the posterior probabilities r_k(x_t) of the modes of a mixture they end in the same mode with
probability

    φ(t) = E[Σ_k r_k(x_t)²] ,

from Σ_k w_k² at pure noise to 1 at the data. The curve is this mean over even draws of x_t. The
points are runs of the job's samplers that draw noise, from exact states at some of their levels;
their bars are 95 % intervals. If a sampler has less noise than the SDE, as with η < 1, its runs
stay together for longer. Samplers without noise are not shown, since their runs never separate.

For two modes ±m with the noised variance 1, φ = ½·∫ (G₊² + G₋²)/(G₊ + G₋), G± = N(±α·‖m‖, 1): at
α·‖m‖ = 1, φ is .775 in every dimension. Biroli, Bonnaire, de Bortoli, Mézard, "Dynamical regimes of
diffusion models", Nature Communications 2024 (arXiv 2402.18491).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.core.grids import Levels
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.starts import Exact, sobol_points
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.panels import run_styles, score_name
from samplerbench.figures.style import add_legend, curve_style, new_figure, subtitle
from samplerbench.metrics.modes import modes_of
from samplerbench.samplers.base import final_state

_EVEN = 4096


@dataclass(frozen=True)
class Clones(Picture):
    """φ against the noise-to-signal ratio: exact, and by samplers."""

    points: int = 2000  # the number of pairs of clones at a level
    levels: int = 9  # the number of levels at which clones begin

    def __post_init__(self) -> None:
        require_counts(self, points=10, levels=1)

    def why_incompatible(self, scene: Scene) -> str | None:
        modes = modes_of(scene.dataset)
        if modes is None or len(modes.weights) < 2:
            return "it needs a Gaussian mixture of at least two modes, none of them flat"
        return None

    def draw(self, scene: Scene) -> Drawings:
        law = scene.dataset
        assert isinstance(law, GaussianMixture)  # see why_incompatible
        runs = [run for run in scene.runs() if run.sampler.stochastic and not run.sampler.holds]
        rows = scene.levels(max(scene.steps)).rows
        ratios = [row.sigma / row.alpha for row in rows if row.alpha > 0 and row.sigma > 0]
        kappa = np.geomspace(ratios[-1], ratios[0], 60)
        u = sobol_points(_EVEN, law.uniform_dim, 0, "clones", scene.seed)
        exact = [same_mode(law, float(one), u) for one in kappa]
        with new_figure(7.0, 3.8) as figure:
            axes = figure.subplots()
            handles: list[Artist] = [*axes.plot(kappa, exact, color="0.5", label="exact")]
            styles, scores = run_styles(scene), {score_name(scene, run.denoiser) for run in runs}
            several = len(scores) > 1
            for place, run in enumerate(runs):
                shares = self.shares(scene, run)
                x, share = np.array(list(shares)), np.array(list(shares.values()))
                half = 1.96 * np.sqrt(share * (1 - share) / self.points)
                look = curve_style(place) if several else styles[run.label]
                name = run.label + f"\n{score_name(scene, run.denoiser)}" * several
                points: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ms": 4}
                axes.errorbar(x, share, half, ls="", **points)
                handles.append(Line2D([], [], ls="", label=name, **points))
            axes.set_xscale("log")
            axes.invert_xaxis()
            axes.set_ylim(None, 1.02)
            axes.set_xlabel("noise-to-signal ratio σ/α of the shared state")
            axes.set_ylabel("clones that end in the same mode")
            add_legend(figure, handles)
            score = "" if several else f"{scores.pop()}, "
            count = f"{self.points:,} pairs at each level"
            subtitle(figure, f"{score}N = {max(scene.steps)}; {count}; bars: 95 % intervals")
        return {"clones": figure}

    def shares(self, scene: Scene, run: SamplerRun) -> dict[float, float]:
        """The share of pairs that end in the same mode, by σ/α of the state that they share."""
        levels, modes = scene.levels(run.steps, run.sampler), modes_of(scene.dataset)
        assert modes is not None  # see why_incompatible
        usable = [k for k, row in enumerate(levels.rows[:-1]) if row.alpha > 0]
        places = np.linspace(0, len(usable) - 1, min(self.levels, len(usable))).round().astype(int)
        found = {}
        for first in (usable[place] for place in places):
            ends = self._ends(scene, run, levels, first)
            same = modes.assign(ends[0]) == modes.assign(ends[1])
            row = levels.rows[first]
            found[row.sigma / row.alpha] = float(same.double().mean())
        return found

    @torch.no_grad()
    def _ends(
        self, scene: Scene, run: SamplerRun, levels: Levels, first: int
    ) -> list[torch.Tensor]:
        """The last states of two runs from the same states at a level, (points, dim) each."""
        rest = Levels(levels.t[first:], levels.alpha[first:], levels.sigma[first:])
        key = ("clones", scene.seed, first)
        x = Exact().draw(scene.dataset, self.points, rest.rows[0], key)
        x, model = x.to(scene.device, scene.dtype), scene.denoisers[run.denoiser]
        return [
            final_state(run.sampler, model, x, rest, KeyedNoise((*key, clone))).cpu().double()
            for clone in (0, 1)
        ]


def same_mode(law: GaussianMixture, ratio: float, u: torch.Tensor) -> float:
    """φ at a noise-to-signal ratio: the mean of Σ r_k² over draws of x_t/α from uniform numbers."""
    noised = law.noised(ratio)
    modes = modes_of(noised)
    assert modes is not None  # no mode is flat
    return float(modes.posterior(noised.from_uniforms(u)).square().sum(0).mean())
