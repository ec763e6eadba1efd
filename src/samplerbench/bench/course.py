"""The course of a race: runs of samplers from common starts, and two distances without a floor.

*Paths.* From the same first state x, the output F(x) of a sampler without noise is compared with
the output F*(x) of a converged run of the probability-flow ODE:

    d² = E‖F(x) − F*(x)‖² / s²,     s² = tr Cov(x₀)/dim,

in units of s, the standard deviation of a coordinate of the data. It is paired: two samplers are
compared by the mean of one difference per state.

*Laws.* For a sampler with noise there is no F*: its output is right if its *law* is. It is compared
with the data by the squared energy distance (see `metrics.energy`), whose expectation is 0 for
perfect samples, in independent batches. A paired distance of noisy runs on one Brownian path would
be unfair: it is a strong error, and a sampler with a large strong error can have a small error of
the law.

On a line the law of the output is known, also with noise, and W₂ to the data is exact. There the
finalists are compared by W₂ instead of the energy distance.

The distance of paths is the error of the steps alone. The distance of laws also has the errors of
the score and the start, a part of which fresh noise removes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.bench.cell import Cell, sampler_name
from samplerbench.bench.criteria import Targets
from samplerbench.bench.densities import density
from samplerbench.bench.design import CHOICE as CHOSEN
from samplerbench.bench.design import PATHS, design, usual_budget
from samplerbench.bench.designing import at_times
from samplerbench.bench.own_grids import OwnGrid
from samplerbench.bench.sweep import Sweep, most_steps
from samplerbench.core import grids
from samplerbench.core.grids import Grid, Level, Levels, in_data_units
from samplerbench.core.line_laws import LineNodes
from samplerbench.core.models import Counted, Denoiser
from samplerbench.core.noise import KeyedNoise
from samplerbench.datasets.base import LARGEST
from samplerbench.errors import InvalidSetting, first_line, require
from samplerbench.identity import settings_text
from samplerbench.metrics.base import Distance
from samplerbench.metrics.energy import Energy
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.samplers.unipc import UniPC

Array = NDArray[np.float64]

#: The purposes of starts, noise and data; different purposes never share any of them.
CHOICE, MEASUREMENT = "choice", "measurement"
#: In more dimensions a design and a race are smaller.
MANY = 16
#: The held-out starts of a design: few, since the race measures its levels itself.
LEAST_HELD_OUT = 100
#: Steps of the converged run: UniPC-3 on a Karras grid with ρ = 7.
CONVERGED_STEPS = 200
#: The smallest κ of the converged run, in units of the data's deviation.
LEAST_NOISE = 1e-3
#: The name of the grid of a sampler that brings its levels.
ITS_OWN = "its own levels"
#: The number of independent batches of a distance of laws. For good samples the values are skewed,
#: so Student's interval needs several of them.
BATCHES = 16


@dataclass(frozen=True, eq=False)
class Entrant:
    """A sampler with its settings, on the levels of a grid."""

    name: str  # of the sampler
    sampler: Sampler
    grid: str  # the name of the grid
    levels: Levels  # of its run
    function: Grid | None = None  # makes the levels of the grid

    @property
    def label(self) -> str:
        """Sampler, settings and grid, for readers."""
        return f"{sampler_name(self.name, settings_text(self.sampler))} on {self.grid}"


@dataclass(frozen=True)
class Refusal:
    """A sampler, or a sampler on a grid, that cannot run, and the reason in one line."""

    label: str
    reason: str


@dataclass(frozen=True, eq=False)
class Course:
    """Runs from common starts; a denoiser of one noise level is refused."""

    sweep: Sweep  # its law, path, evaluation points, end and seed; its other fields are not used
    denoiser: str  # the name of one of its denoisers, for every noise level
    start: str  # the name of one of its starts
    held_out: int = 0  # a seed that only the measurement uses, so that no choice depends on it
    _targets: dict[object, Tensor] = field(default_factory=dict)
    _distances: dict[object, Distance] = field(default_factory=dict)
    _spent: list[int] = field(default_factory=list)
    _exact: dict[object, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        good = isinstance(self.sweep.denoisers[self.denoiser], Denoiser)
        allowed = "a denoiser for every noise level, such as objective=edm learns"
        require(good, "denoiser", self.denoiser, allowed)

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser so far: calls times states."""
        return sum(self._spent)

    @cached_property
    def scale(self) -> float:
        """s, in units of the data; 1 for a pretrained model without data."""
        return self.sweep.dataset.deviation

    @property
    def model(self) -> Denoiser:
        """The denoiser."""
        model = self.sweep.denoisers[self.denoiser]
        assert isinstance(model, Denoiser)
        return model

    def entrants(
        self, samplers: Sequence[tuple[str, Sampler]], levels: Mapping[str, Grid], nfe: int
    ) -> tuple[list[Entrant], list[Refusal]]:
        """Every sampler on every grid, with the most steps within `nfe`, and the refusals."""
        found, refused = list[Entrant](), list[Refusal]()
        for name, sampler in samplers:
            label = sampler_name(name, settings_text(sampler))
            reason = self._why_not(sampler, nfe)
            if reason is not None:
                refused.append(Refusal(label, reason))
                continue
            steps = most_steps(sampler, nfe, plain=self.sweep.final == "none")
            own = {ITS_OWN: self.sweep.grid} if sampler.brings_levels else levels
            for grid, function in own.items():
                one = self.entrant(name, sampler, grid, function, steps)
                if isinstance(one, Entrant):
                    found.append(one)
                else:
                    refused.append(one)
        return found, refused

    def entrant(
        self, name: str, sampler: Sampler, grid: str, function: Grid, steps: int
    ) -> Entrant | Refusal:
        """A sampler on a grid, or the reason why it cannot run there."""
        try:
            rows = replace(self.sweep, grid=function, own_grids=()).levels(steps, sampler)
            reason = sampler.why_incompatible(self.model, rows)
        except InvalidSetting as error:
            reason = first_line(error)
        if reason is None:
            return Entrant(name, sampler, grid, rows, function)
        return Refusal(f"{sampler_name(name, settings_text(sampler))} on {grid}", reason)

    def _why_not(self, sampler: Sampler, nfe: int) -> str | None:
        if sampler.holds:
            return "it stays at one noise level"
        plain = self.sweep.final == "none"
        few = sampler.fewest_steps
        least = sampler.least_evaluations(few, plain=plain)
        if (sampler.plain_evaluations(few) if plain else sampler.evaluations(few)) is None:
            return "its number of evaluations is not fixed"
        run = "one step takes" if few == 1 else f"{few} steps take"
        return None if least <= nfe else f"{run} {least} evaluations"

    def _key(self, purpose: str, block: int) -> tuple[int | str, ...]:
        seeds = (self.sweep.seed,) if purpose == CHOICE else (self.sweep.seed, self.held_out)
        return ("race", purpose, *seeds, block)

    @torch.no_grad()
    def _run(
        self, sampler: Sampler, levels: Levels, first: Level[float], draws: tuple[str, int, int]
    ) -> Tensor:
        """The outputs of runs from starts at the level `first`, shape (count, dim)."""
        sweep, outputs = self.sweep, list[Tensor]()
        purpose, block, count = draws
        sizes = [min(sweep.block, count - begun) for begun in range(0, count, sweep.block)]
        for piece, size in enumerate(sizes):
            key = (*self._key(purpose, block), piece)
            x = sweep.starts[self.start].draw(sweep.dataset, size, first, key)
            model = Counted(self.model)
            noise = KeyedNoise(("sampler", *key))
            x = final_state(sampler, model, x.to(sweep.device, sweep.dtype), levels, noise)
            self._spent.append(model.evaluations * size)
            outputs.append(in_data_units(x, levels))
        return torch.cat(outputs)

    def outputs(self, entrant: Entrant, purpose: str, block: int, count: int) -> Tensor:
        """Samples of an entrant, shape (count, dim): the same starts and noise for all entrants."""
        levels = entrant.levels
        return self._run(entrant.sampler, levels, levels.rows[0], (purpose, block, count))

    def paths(self, entrant: Entrant, x: Tensor, purpose: str, block: int) -> Array:
        """‖F(x) − F*(x)‖²/s² of outputs of `outputs`, shape (count,); ∞ if it diverged."""
        first = self._first(entrant)
        key = (first, purpose, block, len(x))
        if key not in self._targets:
            self._targets[key] = self._converged(first, key[1:], CONVERGED_STEPS)
        squares = (x - self._targets[key]).double().square().sum(1) / self.scale**2
        return squares.nan_to_num(nan=math.inf).cpu().numpy()

    def converged_to(self, entrant: Entrant, count: int) -> float:
        """d between the converged run and the same run with half its steps."""
        first, draws = self._first(entrant), (CHOICE, 0, count)
        fine, rough = (
            self._converged(first, draws, steps)
            for steps in (CONVERGED_STEPS, CONVERGED_STEPS // 2)
        )
        return math.sqrt(float((fine - rough).square().sum(1).mean())) / self.scale

    def _first(self, entrant: Entrant) -> Level[float]:
        """The level at which the converged run begins.

        From the prior it is the top of the path. So a grid that begins below it shows the error of
        its start too.
        """
        is_prior = self.sweep.starts[self.start].held is False
        return self._top if is_prior else entrant.levels.rows[0]

    @cached_property
    def _top(self) -> Level[float]:
        schedule = self.sweep.schedule
        most = min(schedule.noise_range[1], grids.MOST_NOISE, self.model.trained_noise)
        return grids.log_snr(schedule, 1, noise_min=most / 2, noise_max=most).rows[0]

    def _converged(self, first: Level[float], draws: tuple[str, int, int], steps: int) -> Tensor:
        return self._run(UniPC(3), self._fine(first, steps), first, draws)

    def _fine(self, first: Level[float], steps: int) -> Levels:
        """Many levels from the first one to the data; the first one may have no signal."""
        schedule = self.sweep.schedule
        ratio = first.sigma / first.alpha if first.alpha > 0 else math.inf
        most = min(ratio, schedule.noise_range[1], grids.MOST_NOISE)
        least = min(LEAST_NOISE * self.scale, most / 2)
        fine = grids.karras(schedule, steps, noise_min=least, noise_max=most)
        if ratio <= most * (1 + 1e-9):
            return fine
        row = torch.tensor([[first.t], [first.alpha], [first.sigma]], dtype=torch.float64)
        columns = zip(row, (fine.t, fine.alpha, fine.sigma), strict=True)
        return Levels(*(torch.cat([one, rest]) for one, rest in columns))

    def designed(self, entrant: Entrant) -> Levels:
        """Levels designed for an entrant's sampler, from starts that nothing else uses."""
        sweep = self.sweep
        few, steps = sweep.dataset.dim <= MANY, entrant.levels.steps
        found = design(
            entrant.sampler,
            steps,
            self.model,
            sweep.starts[self.start],
            sweep.dataset,
            entrant.function or sweep.grid,
            name=entrant.grid,
            seed=sweep.seed,
            held_out=LEAST_HELD_OUT,
            final=sweep.final,
            dtype=sweep.dtype,
            device=sweep.device,
            targets=self._converged_runs,
            budget=usual_budget(steps) if few else min(usual_budget(steps), 120),
            paths=PATHS if few else 64,
            choice=CHOSEN if few else 128,
        )
        self._spent.append(found.evaluations)
        return found.designed.levels

    @cached_property
    def _converged_runs(self) -> Targets:
        return Targets()

    @property
    def why_no_laws(self) -> str | None:
        """Why laws cannot be compared, or None."""
        if len(self.sweep.reference) < 4 * BATCHES:
            return "there are too few data to compare the law of samples with"
        return None

    def exact_law(self, entrant: Entrant) -> float | None:
        """W₂ between the law of an entrant's samples and that of the data, by quadrature.

        It is known on a line, also with noise, see `densities`. None in more dimensions, and for
        samplers whose law is not known.
        """
        sweep = self.sweep
        data = sweep.dataset.line_law() if sweep.dataset.dim == 1 else None
        if data is None:
            return None
        key = ("law", id(entrant))
        if key not in self._exact:
            steps, grid = entrant.levels.steps, at_times(entrant.levels)
            own = [OwnGrid(entrant.sampler, steps, grid, entrant.grid)]
            alone = replace(sweep, own_grids=() if entrant.sampler.brings_levels else own)
            cell = Cell(self.denoiser, self.start, entrant.name, entrant.sampler, steps, 0)
            found = density(alone, cell)
            self._spent.append(found.nfe)
            values = found.values
            known = isinstance(values, LineNodes)
            self._exact[key] = values.distance(data, 2) if known else None  # type: ignore[union-attr]
        return self._exact[key]

    def laws(self, x: Tensor, purpose: str, batch: int) -> float:
        """The squared energy distance of samples to a batch of data; ∞ if they diverged.

        The evaluation points of the sweep are divided: the choice and the measurement have
        `BATCHES` batches each, which share no point.
        """
        if not bool((x.abs() < LARGEST).all()):
            return math.inf
        key = (purpose, batch)
        if key not in self._distances:
            place = batch + (0 if purpose == CHOICE else BATCHES)
            points = self.sweep.reference[place :: 2 * BATCHES].to(self.sweep.device)
            self._distances[key] = Energy().against(points, seed=0)
        return self._distances[key](x).value
