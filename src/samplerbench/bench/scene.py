"""The scene of a picture: the objects of a job, and paths from noise to data.

A sweep keeps only the last states. Pictures also show earlier states, so they run the samplers
again, on few chains: a *path* is every k-th state of some chains, with its level and the number of
its step. Start and noise have the key (seed, "picture"). So a picture is always the same, and it
shares no random numbers with the values in the table. All samplers of a job start at the same
points.

A path of N steps has at most ⌈N/k⌉ + 1 frames: 101 for 100 000 Langevin steps with k = 1 000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from samplerbench.bench.cell import setting_text
from samplerbench.bench.own_grids import OwnGrid, find_own
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
    """States of some chains between start and end."""

    steps: list[int]  # the number of steps before each frame, from 0 to the last step
    levels: list[Level[float]]  # the level of each frame
    x: Tensor  # the states, shape (frames, chains, dim), float64, on the CPU

    def __len__(self) -> int:
        return len(self.steps)

    def nearest(self, t: float) -> int:
        """The frame whose time is nearest to t."""
        return min(range(len(self)), key=lambda frame: abs(self.levels[frame].t - t))


@dataclass(frozen=True)
class SamplerRun:
    """A run of a sampler: denoiser, start, sampler and number of steps."""

    denoiser: str  # its name in the scene
    start: str  # its name in the scene
    label: str  # name and settings of the sampler: "ddim η=0.2"
    sampler: Sampler  # with its settings
    steps: int  # the number of steps
    law: str  # of the start, in words

    @property
    def stem(self) -> str:
        """The sampler's label as a part of a file's name."""
        words = self.label.replace("η", "eta").replace("=", "").split()
        return "_".join("".join(c for c in word if c.isalnum() or c in ".-") for word in words)

    def every(self, frames: int) -> int:
        """The k for a path with at most that many frames, not counting the first."""
        return -(-self.steps // max(frames - 1, 1))


@dataclass(frozen=True, eq=False)
class Scene:
    """The parts of a job that pictures use; it exists before the training, to check pictures."""

    dataset: Dataset
    schedule: NoiseSchedule
    grid: Grid  # makes the levels for a number of steps
    denoisers: Mapping[str, Score]  # score models by name
    starts: Mapping[str, Start]  # by name; the first one that fits a sampler is a picture's default
    # (name, sampler) pairs; a name may come with several settings
    samplers: Sequence[tuple[str, Sampler]]
    steps: Sequence[int]  # numbers of steps; a picture uses the largest by default
    # the learned model before its training; None if nothing is trained
    untrained: Score | None = None
    # training data, shape (n, dim), float64; empty if nothing is trained
    train: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    # one row for each logged loss: step, name ("train", "validation") and loss
    losses: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(LOSSES)))
    seed: int = 0  # of starts and noise
    dtype: torch.dtype = torch.float64  # of the state
    # where states live while a sampler runs
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    training: str = ""  # a description of the training
    own_grids: Sequence[OwnGrid] = ()  # levels of single samplers, in place of `grid`

    def levels(self, steps: int, sampler: Sampler | None = None) -> Levels:
        """The levels for a number of steps: of the job's grid, or of the sampler's own grid."""
        own = find_own(self.own_grids, sampler, steps)
        if own is not None:
            return own.levels(self.schedule)
        if sampler is None:
            return self.grid(self.schedule, steps)
        return sampler.levels(self.grid, self.schedule, steps)

    def data(self, count: int | None = None) -> Tensor:
        """At most `count` training data to show, or fresh draws; None: all, or 10 000 draws."""
        rows = len(self.train)
        if rows > 0:
            # spread over all rows, which may be sorted, by time for example
            chosen = torch.linspace(0, rows - 1, min(count or rows, rows)).round().long()
            return self.train.cpu().double()[chosen]
        return self.dataset.draws(10_000 if count is None else count, "picture", self.seed)

    def runs(
        self,
        *,
        denoisers: Sequence[str] | None = None,
        start: str | None = None,
        steps: int | None = None,
    ) -> list[SamplerRun]:
        """Every denoiser with every sampler that runs on it.

        By default with all denoisers of the job, the first start that fits the sampler, and the
        largest number of steps.
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
        """Why no sampler runs on these denoisers, in one line; None if one runs."""
        try:
            reasons = [self._reason(run) for run in self._all_runs(denoisers, start, steps)]
        except InvalidSetting as error:
            return str(error)
        return None if None in reasons else next(iter(reasons), "the job has no sampler")

    def why_not_dim(self, dim: int) -> str | None:
        """Why these data cannot be drawn as `dim` coordinates, in one line; None if they can."""
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
        """Run the sampler and keep every k-th state, and the first and the last one.

        Args:
            steps: the number of steps.
            chains: the number of chains, all in one batch.
            every: k.

        Raises:
            ValueError: the sampler cannot run on the denoiser; the message is the reason.
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
        kept, frames = [0], [_kept(x)]
        number = 0
        with torch.no_grad():
            noise = KeyedNoise(("picture", self.seed))
            for step in iterate(sampler, model, x, levels, noise):
                number, x = number + 1, step.x
                if number % every == 0:
                    kept.append(number)
                    frames.append(_kept(x))
        if kept[-1] != number:
            kept.append(number)
            frames.append(_kept(x))
        rows = levels.rows
        if not sampler.ends_at_data and rows[-1].sigma == 0:
            # the last state still has the noise of the level before
            last = rows[-2]
            rows = [*rows[:-1], Level(last.t, 1.0, last.sigma / last.alpha)]
        return Paths(kept, [rows[k] for k in kept], torch.stack(frames))

    def follow(self, run: SamplerRun, *, chains: int, every: int) -> Paths:
        """The paths of a run."""
        return self.paths(
            run.denoiser, run.start, run.sampler, run.steps, chains=chains, every=every
        )

    def _all_runs(
        self, denoisers: Sequence[str] | None, start: str | None, steps: int | None
    ) -> list[SamplerRun]:
        chosen = list(self.denoisers) if denoisers is None else list(denoisers)
        exist = bool(chosen) and all(name in self.denoisers for name in chosen)
        require(exist, "denoisers", chosen, f"null, or some of {', '.join(self.denoisers)}")
        steps = max(self.steps) if steps is None else steps
        runs = []
        for label, (_, sampler) in zip(self._labels(), self.samplers, strict=True):
            fitting = for_samplers(self.starts, sampler.holds)
            own = next(iter(fitting)) if start is None else start
            require(own in fitting, "start", own, f"one of {', '.join(fitting)}")
            law = fitting[own].law
            runs += [SamplerRun(denoiser, own, label, sampler, steps, law) for denoiser in chosen]
        return sorted(runs, key=lambda run: chosen.index(run.denoiser))

    def _reason(self, run: SamplerRun) -> str | None:
        levels = self.levels(run.steps, run.sampler)
        return run.sampler.why_incompatible(self.denoisers[run.denoiser], levels)

    def _labels(self) -> list[str]:
        """The samplers' names, with η and the settings in which samplers of one name differ."""
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
