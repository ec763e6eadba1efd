"""What a picture may look at: the objects of a job, and the way from noise to data.

A sweep keeps the last states only. A picture wants the states on the way, so it runs the samplers
again, on few chains: a *path* is every k-th state of a number of chains, with the level and the
number of the step. Its start and its noise are keyed by (seed, "picture"), so a picture is the same
whenever it is drawn, and shares no random number with the values in the table. All runs of a job
share them: two samplers side by side begin at the same points.

A path of N steps holds ⌈N/k⌉ + 1 frames at most: 100 000 Langevin steps with k = 1 000 are 101.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from samplerbench.bench.cell import setting_text
from samplerbench.core import grids
from samplerbench.core.grids import Grid, Level, Levels
from samplerbench.core.models import Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Start, for_samplers
from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting, require
from samplerbench.identity import describe
from samplerbench.samplers.base import Sampler, iterate

#: The columns of `Scene.losses`.
LOSSES = ("step", "name", "loss")


@dataclass(frozen=True, eq=False)
class Paths:
    """States of some chains on their way.

    Args:
        steps: after how many steps each frame was taken; 0 comes first, the last step last.
        levels: the level of each frame.
        x: the states, shape (frames, chains, dim), float64, on the CPU.
    """

    steps: list[int]
    levels: list[Level[float]]
    x: Tensor

    def __len__(self) -> int:
        return len(self.steps)

    def nearest(self, t: float) -> int:
        """The frame whose time is nearest to t."""
        return min(range(len(self)), key=lambda frame: abs(self.levels[frame].t - t))


@dataclass(frozen=True)
class Run:
    """What a path follows.

    Args:
        denoiser: its name in the scene.
        start: its name in the scene.
        label: the sampler as people write it: "ddim η=0.2".
        sampler: with its settings.
        steps: how many.
        law: of the start, in words.
    """

    denoiser: str
    start: str
    label: str
    sampler: Sampler
    steps: int
    law: str

    @property
    def stem(self) -> str:
        """The sampler's label as a part of a file's name."""
        words = self.label.replace("η", "eta").replace("=", "").split()
        return "_".join("".join(c for c in word if c.isalnum() or c in ".-") for word in words)

    def every(self, frames: int) -> int:
        """The k with which a path has about that many frames, and not more after the first."""
        return -(-self.steps // max(frames - 1, 1))


@dataclass(frozen=True, eq=False)
class Scene:
    """A job as a picture sees it; before the training it says which pictures are possible.

    Args:
        dataset: the law.
        schedule: the path.
        grid: makes the levels for a number of steps.
        denoisers: score models by name.
        starts: by name; the first one that fits a sampler is a picture's default.
        samplers: (name, sampler) pairs; a name may come with several settings.
        steps: numbers of steps; the largest is a picture's default.
        untrained: the learned model before its training; None where nothing is trained.
        train: training data, shape (n, dim), float64; empty where nothing is trained.
        losses: one row for each logged loss: step, name ("train", "validation") and loss.
        seed: of starts and noise.
        dtype: of the state.
        device: where states live while a sampler runs.
    """

    dataset: Dataset
    schedule: NoiseSchedule
    grid: Grid
    denoisers: Mapping[str, Score]
    starts: Mapping[str, Start]
    samplers: Sequence[tuple[str, Sampler]]
    steps: Sequence[int]
    untrained: Score | None = None
    train: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    losses: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(LOSSES)))
    seed: int = 0
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def levels(self, steps: int, sampler: Sampler | None = None) -> Levels:
        """The levels for a number of steps: of the job's grid, or of a sampler's own."""
        holds = sampler is not None and sampler.holds
        return grids.for_samplers(self.grid, self.schedule, steps, holds)(self.schedule, steps)

    def data(self, count: int | None = None) -> Tensor:
        """Data to show, shape (count or fewer, dim), float64: the training's, else fresh draws.

        Args:
            count: at most that many; None for all the training has, or 10 000 draws.
        """
        rows = len(self.train)
        if rows > 0:
            # spread over all rows, which may be in an order, such as that of time
            chosen = torch.linspace(0, rows - 1, min(count or rows, rows)).round().long()
            return self.train.cpu().double()[chosen]
        return self.dataset.draws(10_000 if count is None else count, "picture", self.seed)

    def runs(
        self,
        *,
        denoisers: Sequence[str] | None = None,
        start: str | None = None,
        steps: int | None = None,
    ) -> list[Run]:
        """Every denoiser with every sampler that runs on it.

        Args:
            denoisers: their names; all of the job's where none are given.
            start: the name of one of the starts; where none is given, a sampler's first one.
            steps: how many; the job's largest number where none is given.

        Raises:
            InvalidSetting: if there is no such denoiser or start.
        """
        runs = self._all_runs(denoisers, start, steps)
        return [run for run in runs if self._reason(run) is None]

    def why_no_runs(
        self,
        *,
        denoisers: Sequence[str] | None = None,
        start: str | None = None,
        steps: int | None = None,
    ) -> str | None:
        """Why no sampler runs on any of these, in one line, or None if one does."""
        try:
            reasons = [self._reason(run) for run in self._all_runs(denoisers, start, steps)]
        except InvalidSetting as error:
            return str(error)
        return None if None in reasons else next(iter(reasons), "the job has no sampler")

    def why_not_dim(self, dim: int) -> str | None:
        """Why a picture of `dim` coordinates cannot be drawn, in one line, or None if it can."""
        if self.dataset.dim == dim:
            return None
        return (
            f"it shows data in {dim} dimension{'s' * (dim > 1)}, and these have {self.dataset.dim}"
        )

    def paths(
        self,
        denoiser: str,
        start: str,
        sampler: Sampler,
        steps: int,
        *,
        chains: int,
        every: int = 1,
    ) -> Paths:
        """Run the sampler and keep every `every`-th state, the first and the last one always.

        Args:
            denoiser: its name.
            start: its name.
            sampler: with its settings.
            steps: how many.
            chains: how many, all in one batch.
            every: k.

        Raises:
            ValueError: if the sampler cannot run on the denoiser, with the reason.
        """
        require(chains >= 1, "chains", chains, "at least 1")
        require(every >= 1, "every", every, "at least 1")
        levels = self.levels(steps, sampler)
        model = self.denoisers[denoiser]
        reason = sampler.why_incompatible(model, levels)
        if reason is not None:
            raise ValueError(reason)
        starts = for_samplers(self.starts, sampler.holds)
        require(start in starts, "start", start, f"one of {', '.join(starts)}")
        first = starts[start].draw(self.dataset, chains, levels.rows[0], ("picture", self.seed, 0))
        x = first.to(self.device, self.dtype)
        numbers, frames = [0], [_kept(x)]
        number = 0
        with torch.no_grad():
            noise = KeyedNoise(("picture", self.seed))
            for step in iterate(sampler, model, x, levels, noise):
                number, x = number + 1, step.x
                if number % every == 0:
                    numbers.append(number)
                    frames.append(_kept(x))
        if numbers[-1] != number:
            numbers.append(number)
            frames.append(_kept(x))
        rows = levels.rows
        if not sampler.ends_at_data and rows[-1].sigma == 0:
            # it keeps the noise of the last level that has some
            last = rows[-2]
            rows = [*rows[:-1], Level(last.t, 1.0, last.sigma / last.alpha)]
        return Paths(numbers, [rows[k] for k in numbers], torch.stack(frames))

    def follow(self, run: Run, *, chains: int, every: int) -> Paths:
        """The paths of a run."""
        return self.paths(
            run.denoiser, run.start, run.sampler, run.steps, chains=chains, every=every
        )

    def _all_runs(
        self, denoisers: Sequence[str] | None, start: str | None, steps: int | None
    ) -> list[Run]:
        chosen = list(self.denoisers) if denoisers is None else list(denoisers)
        known = bool(chosen) and all(name in self.denoisers for name in chosen)
        require(known, "denoisers", chosen, f"null, or some of {', '.join(self.denoisers)}")
        steps = max(self.steps) if steps is None else steps
        runs = []
        for label, (_, sampler) in zip(self._labels(), self.samplers, strict=True):
            fitting = for_samplers(self.starts, sampler.holds)
            own = next(iter(fitting)) if start is None else start
            require(own in fitting, "start", own, f"one of {', '.join(fitting)}")
            law = fitting[own].law
            runs += [Run(denoiser, own, label, sampler, steps, law) for denoiser in chosen]
        return sorted(runs, key=lambda run: chosen.index(run.denoiser))

    def _reason(self, run: Run) -> str | None:
        levels = self.levels(run.steps, run.sampler)
        return run.sampler.why_incompatible(self.denoisers[run.denoiser], levels)

    def _labels(self) -> list[str]:
        """The samplers' names, each with what tells it from others of its name, and its η."""
        settings: list[dict[str, Any]] = [describe(sampler) for _, sampler in self.samplers]
        labels = []
        for (name, _), own in zip(self.samplers, settings, strict=True):
            same = [
                other
                for (other_name, _), other in zip(self.samplers, settings, strict=True)
                if other_name == name
            ]
            words = [
                f"{'η' if key == 'eta' else key}={setting_text(value)}"
                for key, value in own.items()
                if key != "class"
                and (key == "eta" or any(other.get(key) != value for other in same))
            ]
            labels.append(" ".join([name, *words]))
        return labels


def _kept(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64, copy=True)
