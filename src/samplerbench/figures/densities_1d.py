"""The laws of the path on the line: p(x, t) at a few times, and the prior that they approach.

For n data x₀ the law of x_t = α_t·x₀ + σ_t·ε is known,

    p(x, t) = 1/n·Σ N(x; α_t·x₀, σ_t²).

It is a kernel estimate with the noise as kernel, without time steps and random numbers. If the
noise is almost zero, Scott's rule gives the kernel. (The notebook N2 simulates the SDE instead, and
reads t = .7 one index too early.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from samplerbench.bench.scene import Scene
from samplerbench.core.grids import Level
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.common import COLOURS
from samplerbench.figures.panels import density, kernel_width, level_name, span_of
from samplerbench.figures.style import new_figure


@dataclass(frozen=True)
class Densities1D(Picture):
    """One panel: a curve for each time, and N(0, σ(1)²) dashed."""

    # t of the curves; 0 is data (or the least noise of the path), 1 is noise
    times: tuple[float, ...] = (0.0, 0.5, 0.7, 1.0)
    points: int = 10_000  # largest number of data
    # width of the smallest kernel, in units of Scott's rule, which is too wide for several modes
    bandwidth: float = 0.5

    def __post_init__(self) -> None:
        require_times(self.times)
        require_counts(self, points=2)
        require(0 < self.bandwidth < math.inf, "bandwidth", self.bandwidth, "positive")

    def why_incompatible(self, scene: Scene) -> str | None:
        return scene.why_not_dim(1)

    def draw(self, scene: Scene) -> Drawings:
        x0 = scene.data(self.points)
        levels = [level_at(scene.schedule, t) for t in self.times]
        prior = level_at(scene.schedule, 1.0).sigma
        reach = 3.0 * max(level.sigma for level in levels)
        low, high = span_of([level.alpha * x0 for level in levels], 0.0)
        span = low - reach, high + reach
        with new_figure(6.0, 3.6) as figure:
            axes = figure.subplots()
            for place, level in enumerate(levels):
                signal = level.alpha * x0[:, 0]
                density(
                    axes,
                    signal,
                    width=max(level.sigma, kernel_width(signal, self.bandwidth)),
                    span=span,
                    color=COLOURS[place % len(COLOURS)],
                    label=f"t = {level.t:g}: {level_name(level)}",
                )
            x = torch.linspace(*span, 500, dtype=torch.float64)
            normal = torch.exp(-0.5 * (x / prior) ** 2) / (prior * math.sqrt(2 * math.pi))
            axes.plot(x, normal, "--", color="black", lw=1.2, label=f"prior N(0, {prior:.3g}²)")
            axes.set(xlabel="x, data units", ylabel="density p(x, t)")
            axes.legend()
        return {"densities_1d": figure}


def require_times(times: Sequence[float]) -> None:
    """Refuse an empty list of times, and times outside of the path."""
    good = len(times) > 0 and all(0 <= t <= 1 for t in times)
    require(good, "times", list(times), "a list of numbers from 0 to 1, not empty")


def level_at(schedule: NoiseSchedule, t: float) -> Level[float]:
    """The level of the path at a time."""
    alpha, sigma = schedule(torch.tensor(t, dtype=torch.float64))
    return Level(t, float(alpha), float(sigma))
