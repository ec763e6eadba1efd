"""The second part of a run: how much it contracts the earlier error, and how much error it adds.

A run is cut at its last level with κ = σ/α of at least `ratio`. Let q be the law of its state
there, p the law of the path, and Φ the rest of the run. Then

    W₁(Φ(q), data) ≤ W₁(Φ(q), Φ(p)) + W₁(Φ(p), data):    total ≤ contracted + additional.

The ODE keeps the difference of two states, so its contracted error is large and its additional
error small; fresh noise does the opposite. Xu, Deng, Cheng, Tian, Liu, Jaakkola, "Restart sampling
for improving generative processes", NeurIPS 2023 (arXiv 2306.14878), Section 3 and Fig. 2.

- *Contracted error.* States of p and q are coupled: both come from one start, by the exact flow in
  many small steps (p) and by Heun's method on the levels and the score of the run (q), the same for
  all samplers. Then both runs of Φ have the same noise, and the mean distance of their ends,
  E‖Φ(x_q) − Φ(x_p)‖, is shown. It bounds the W₁ and has no floor.
- *Additional and total error* are W₁ to fresh draws by optimal assignment. Their floor, W₁ between
  two sets of draws, is a band of two standard deviations over four pairs of sets.

The prior differs from the law at the first level; this error is in both p and q, and in the total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.core.grids import Levels
from samplerbench.core.models import Counted, Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.errors import require
from samplerbench.figures.base import Drawings, Picture, require_counts
from samplerbench.figures.panels import run_styles, score_name, start_name
from samplerbench.figures.style import add_legend, label_log_axis, new_figure, subtitle
from samplerbench.metrics.exact_w1 import ExactW1
from samplerbench.samplers.base import final_state
from samplerbench.samplers.heun import Heun

#: Steps of the exact flow to the level.
_FINE = 100
#: Pairs of sets of fresh draws for the floor.
_PAIRS = 4
PANELS = ("contracted", "additional", "total")


class Errors(NamedTuple):
    """The errors of one run, in the units of the data, and its evaluations."""

    nfe: int
    contracted: float
    additional: float
    total: float


@dataclass(frozen=True)
class Contraction(Picture):
    """Three panels, against the number of evaluations of the whole run."""

    ratio: float = 0.3  # the smallest κ = σ/α of the level at which a run is cut
    points: int = 2000  # the number of samples of each run
    steps: tuple[int, ...] | None = None  # the numbers of steps; null is all of the job
    denoiser: str | None = None  # the name of a denoiser of the job; null is the first

    def __post_init__(self) -> None:
        require(0 < self.ratio < float("inf"), "ratio", self.ratio, "positive and finite")
        require_counts(self, points=10)
        good = self.steps is None or (len(self.steps) > 0 and min(self.steps) >= 2)
        require(good, "steps", self.steps, "null, or numbers of at least 2")

    def why_incompatible(self, scene: Scene) -> str | None:
        if not scene.dataset.known_law or scene.dataset.oracle(scene.schedule) is None:
            return "it needs a law with an exact denoiser"
        reason = ExactW1().why_too_large(self.points, self.points)
        if reason is not None:
            return reason
        names = None if self.denoiser is None else [self.denoiser]
        return scene.why_no_runs(denoisers=names, steps=max(self._steps(scene)))

    def draw(self, scene: Scene) -> Drawings:
        runs = self._runs(scene)
        found = {run: self.errors(scene, run) for run in runs}
        labels = list(dict.fromkeys(run.label for run in runs))
        floor = self.floor(scene)
        with new_figure(10.0, 3.6) as figure:
            panels = figure.subplots(1, 3)
            handles: list[Artist] = []
            styles = run_styles(scene)
            for label in labels:
                rows = sorted(errors for run, errors in found.items() if run.label == label)
                look: dict[str, Any] = {**styles[label].line, "ms": 4, "lw": 1.2}
                for axes, part in zip(panels, PANELS, strict=True):
                    axes.plot(
                        [row.nfe for row in rows], [getattr(row, part) for row in rows], **look
                    )
                handles.append(Line2D([], [], label=label, **look))
            for axes, part in zip(panels, PANELS, strict=True):
                label_log_axis(axes, [errors.nfe for errors in found.values()], 0.25)
                axes.set(xlabel="evaluations of the run (NFE)", title=f"{part} error")
                if part != "contracted":
                    mean, two_sd = floor.mean(), 2 * floor.std(ddof=1)
                    axes.axhspan(mean - two_sd, mean + two_sd, color="0.85", lw=0)
                    axes.axhline(mean, color="0.55", lw=1)
            panels[0].set_ylim(bottom=0)
            panels[0].set_ylabel("mean distance of coupled ends, data units")
            panels[1].set_ylabel("W₁ to fresh draws, data units")
            tops = [axes.get_ylim() for axes in panels[1:]]
            for axes in panels[1:]:
                axes.set_ylim(min(low for low, _ in tops), max(high for _, high in tops))
            handles.append(Patch(color="0.85", label=f"floor of W₁, n = {self.points:,}"))
            add_legend(figure, handles)
            text = f"{score_name(scene, runs[0].denoiser)}; {start_name(runs)}; cut at σ/α = "
            subtitle(figure, f"{text}{self.ratio:g}; n = {self.points:,} samples")
        return {"contraction": figure}

    @torch.no_grad()
    def errors(self, scene: Scene, run: SamplerRun) -> Errors:
        """The errors of a run that is cut at the level."""
        levels = scene.levels(run.steps, run.sampler)
        above = (levels.sigma >= self.ratio * levels.alpha).nonzero()
        place = min(max(int(above.max()) if len(above) else 0, 1), levels.steps - 1)
        model, exact = scene.denoisers[run.denoiser], scene.dataset.oracle(scene.schedule)
        assert exact is not None  # see why_incompatible
        first = scene.starts[run.start].draw(
            scene.dataset, self.points, levels.rows[0], ("contraction", scene.seed)
        )
        x = first.to(scene.device, scene.dtype)
        counted = Counted(model)
        until, rest = _part(levels, 0, place + 1), _part(levels, place, len(levels.rows))
        x_q = final_state(Heun(), counted, x, until, KeyedNoise(("none",)))
        x_p = self._exact(scene, exact.to(scene.device), x, levels, place)
        end_q = self._run(scene, run, counted, x_q, rest)
        end_p = self._run(scene, run, model, x_p, rest)
        draws = scene.dataset.draws(self.points, "contraction", scene.seed)
        data = ExactW1().against(draws, seed=scene.seed)
        contracted = float((end_q - end_p).norm(dim=-1).mean())
        additional, total = (data.measure(end.cpu().double()).value for end in (end_p, end_q))
        return Errors(counted.evaluations, contracted, additional, total)

    def floor(self, scene: Scene) -> np.ndarray:
        """W₁ between sets of fresh draws, shape (pairs,)."""
        values = []
        for pair in range(_PAIRS):
            one, other = (
                scene.dataset.draws(self.points, "contraction floor", scene.seed, pair, half)
                for half in (0, 1)
            )
            values.append(ExactW1().against(one, seed=scene.seed).measure(other).value)
        return np.array(values)

    def _run(
        self, scene: Scene, run: SamplerRun, model: Score, x: Tensor, levels: Levels
    ) -> Tensor:
        key = ("contraction", scene.seed, len(levels.rows))
        return final_state(run.sampler, model, x, levels, KeyedNoise(key))

    def _exact(self, scene: Scene, exact: Score, x: Tensor, levels: Levels, place: int) -> Tensor:
        """The states of the exact flow at the level, from the same start."""
        fine = scene.levels(_FINE)
        ends = levels.rows[0], levels.rows[place]
        inner = [row for row in fine.rows if ends[1].t < row.t < ends[0].t]
        rows = [ends[0], *inner, ends[1]]
        t, alpha, sigma = (
            torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64)
            for name in ("t", "alpha", "sigma")
        )
        return final_state(Heun(), exact, x, Levels(t, alpha, sigma), KeyedNoise(("none",)))

    def _steps(self, scene: Scene) -> tuple[int, ...]:
        return tuple(scene.steps) if self.steps is None else self.steps

    def _runs(self, scene: Scene) -> list[SamplerRun]:
        names = [next(iter(scene.denoisers)) if self.denoiser is None else self.denoiser]
        steps = sorted(set(self._steps(scene)))
        return [run for n in steps for run in scene.runs(denoisers=names, steps=n)]


def _part(levels: Levels, first: int, end: int) -> Levels:
    return Levels(levels.t[first:end], levels.alpha[first:end], levels.sigma[first:end])
