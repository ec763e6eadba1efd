"""The forward process on the line: whole trajectories from data to noise.

    x ← x + f·x·Δt + g·√Δt·z        with the band of the path's mean ± 2 standard deviations,

by Euler–Maruyama as in `core.forward`, from data points. The band belongs to the law of the path.
Trajectories leave it if there are too few steps, or if the path has noise at t = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from samplerbench.bench.scene import Scene
from samplerbench.core.forward import euler_maruyama
from samplerbench.core.noise import KeyedNoise
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.panels import GENERATED, legend_below
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class ForwardPaths1D(Picture):
    """Trajectories of the forward SDE from t = 0 to t_max."""

    chains: int = 40  # number of trajectories
    steps: int = 500  # number of steps of Euler–Maruyama
    t_max: float = 1.0  # the last time; below 1 if the path ends without signal

    def __post_init__(self) -> None:
        require_counts(self, chains=1, steps=1)
        require(0 < self.t_max <= 1, "t_max", self.t_max, "above 0 and at most 1")

    def why_incompatible(self, scene: Scene) -> str | None:
        if float(scene.schedule.alpha(torch.tensor(self.t_max, dtype=torch.float64))) == 0:
            return "the rates of the forward SDE are infinite without signal: set t_max=0.99"
        return scene.why_not_dim(1)

    def draw(self, scene: Scene) -> Drawings:
        data = scene.data(10_000)
        # spread over all data, which may be sorted by time
        start = data[torch.linspace(0, len(data) - 1, self.chains).long()]
        noise = KeyedNoise(("forward", scene.seed))
        states = list(euler_maruyama(scene.schedule, start, self.steps, noise, t_max=self.t_max))
        times = torch.tensor([t for t, _ in states], dtype=torch.float64)
        alpha, sigma = scene.schedule(times)
        centre = alpha * data.mean()
        half = 2 * (alpha.square() * data.var(correction=0) + sigma.square()).sqrt()
        with new_figure(7.0, 3.6) as figure:
            axes = figure.subplots()
            axes.fill_between(
                times,
                centre - half,
                centre + half,
                color="0.88",
                lw=0,
                label="mean ± 2 sd of the path",
            )
            paths = torch.stack([x[:, 0] for _, x in states], 1)
            for number, path in enumerate(paths):
                label = "trajectories" if number == 0 else None
                axes.plot(times, path, color=GENERATED, lw=0.5, alpha=0.7, label=label)
            axes.set(xlabel="t, from data to noise", ylabel="x, data units")
            axes.set_xlim(0, self.t_max)
            axes.set_title(f"forward SDE, N = {self.steps:,} steps of Euler–Maruyama")
            legend_below(figure, axes)
        return {"forward_paths_1d": figure}
