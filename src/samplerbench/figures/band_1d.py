"""Chains on the line, from noise to data, within the band of three standard deviations of the path.

    m_t ± 3·√(α_t²·v + σ_t²),   m_t = α_t·m,

where m and v are the mean and the variance of the data. If the sampler's states have the law of the
path, nearly all of them are in this band. For one known datum x₀ (v = 0) the band is α_t·x₀ ±
3·σ_t, and DDIM with the exact denoiser is the inference process of Song, Meng, Ermon, "Denoising
diffusion implicit models", ICLR 2021 (arXiv 2010.02502), Eq. 7: all η have the same marginals, and
chains are smoother with less noise.

The axis is linear around zero, up to the smallest noise level, and logarithmic beyond it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import SymmetricalLogLocator

from samplerbench.bench.scene import Paths, SamplerRun, Scene
from samplerbench.figures.base import Animation, Drawings, PathPicture, require_counts
from samplerbench.figures.panels import GENERATED, grouped, legend_below, score_name, start_name
from samplerbench.figures.style import new_figure, sized, subtitle


@dataclass(frozen=True)
class Band1D(PathPicture):
    """One figure and one animation for each denoiser, one panel for each sampler setting."""

    shown_dim: ClassVar[int] = 1
    chains: int = 8  # number of chains
    frames: int = 60  # largest number of frames of the animation
    milliseconds: int = 80  # duration of each frame

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, chains=1, frames=2, milliseconds=20)

    def draw(self, scene: Scene) -> Drawings:
        drawings: dict[str, Figure | Animation] = {}
        for name, runs in grouped(self.runs(scene), lambda run: run.denoiser).items():
            # at most 1 000 states: more would not be visible
            paths = [
                scene.follow(run, chains=self.chains, every=-(-run.steps // 1000)) for run in runs
            ]
            drawings[f"band_1d_{name}"] = self._panels(scene, runs, paths)[0]
            drawings[f"band_1d_{name}_moving"] = self._animation(scene, runs, paths)
        return drawings

    def _animation(self, scene: Scene, runs: list[SamplerRun], paths: list[Paths]) -> Animation:
        figure, lines = self._panels(scene, runs, paths)
        figure.set_size_inches(sized(6.0, 3.8))
        longest = max(map(len, paths))
        frames = min(self.frames, longest)
        ends = [round(k * (longest - 1) / (frames - 1)) for k in range(frames)]

        def update(frame: int) -> None:
            for panel, path in zip(lines, paths, strict=True):
                end = ends[frame] + 1
                for chain, line in enumerate(panel):
                    line.set_data(path.steps[:end], path.x[:end, chain, 0].numpy())

        moving = [line for panel in lines for line in panel]
        return Animation(figure, moving, update, frames, self.milliseconds)

    def _panels(
        self, scene: Scene, runs: list[SamplerRun], paths: list[Paths]
    ) -> tuple[Figure, list[list[Line2D]]]:
        with new_figure(4.2 * len(runs) + 0.4, 3.8) as figure:
            panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
            lines = []
            for axes, run, path in zip(panels, runs, paths, strict=True):
                self._band(axes, scene, path)
                lines.append(
                    [
                        axes.plot(
                            path.steps,
                            path.x[:, chain, 0],
                            color=GENERATED,
                            lw=0.8,
                            alpha=0.8,
                            marker="." if run.steps <= 200 else "",
                            ms=2.5,
                            mew=0,
                            label="chains" if chain == 0 else None,
                        )[0]
                        for chain in range(self.chains)
                    ]
                )
                axes.set(title=run.label, xlabel=f"step of {run.steps:,}, from noise to data")
            panels[0].set_ylabel("x, data units (symlog)")
            legend_below(figure, panels[0])
            subtitle(figure, f"{score_name(scene, runs[0].denoiser)}, {start_name(runs)}")
        return figure, lines

    def _band(self, axes: Axes, scene: Scene, path: Paths) -> None:
        x0 = scene.data(10_000)
        mean, variance = float(x0.mean()), float(x0.var(correction=0))
        centre = [level.alpha * mean for level in path.levels]
        width = [3 * (level.alpha**2 * variance + level.sigma**2) ** 0.5 for level in path.levels]
        low = [m - w for m, w in zip(centre, width, strict=True)]
        high = [m + w for m, w in zip(centre, width, strict=True)]
        name = "α·x₀ ± 3σ" if variance == 0 else "mean ± 3 sd of the path"
        axes.fill_between(path.steps, low, high, color="0.88", lw=0, label=name)
        axes.plot(path.steps, centre, color="0.5", lw=0.8)
        noisy = [level.sigma for level in path.levels if level.sigma > 0]
        smallest = min(noisy, default=1.0)
        axes.set_yscale("symlog", linthresh=smallest)
        # no tick but 0 in the linear part, where they would overlap
        decade = 10.0 ** math.ceil(math.log10(smallest))
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=decade))
