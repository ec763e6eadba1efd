"""The sweep: every cell of a grid of denoisers × starts × samplers × steps × repetitions.

A cell is a law Φ(denoiser, start, sampler, steps); a repetition is one independent set of n samples
of it. Within a repetition all cells share the start's draws and the samplers' noise (common random
numbers), so the difference between two cells is paired. Samples are made in blocks of one fixed
shape: sample i sits in row i mod block of block ⌊i/block⌋, the last block is filled up and cut, and
so neither n nor the other cells change a sample's bits.

The *floor* is the same metric for n fresh draws of the law itself: what a perfect sampler would
show at this n, since two finite samples of one law are never at distance zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import Generic, TypeVar

import torch
from torch import Tensor

from samplerbench.bench.books import Books, columns
from samplerbench.bench.cell import FOUND, SEEDS, Against, Cell, Labels, Origin, Row
from samplerbench.bench.densities import Ratios, log_ratios
from samplerbench.core import grids
from samplerbench.core.coupling import BrownianNoise
from samplerbench.core.cuda_graphs import Graphed
from samplerbench.core.grids import Grid, Levels
from samplerbench.core.models import Counted, Denoiser, Score
from samplerbench.core.noise import KeyedNoise, Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Sobol, Start, for_samplers, stratified_draws
from samplerbench.datasets.base import LARGEST, Dataset
from samplerbench.errors import kind_and_line, require
from samplerbench.identity import (
    VERSIONS,
    arithmetic,
    content,
    identity,
    identity_of_model,
)
from samplerbench.metrics.base import Distance, Divergence, LawMetric, Metric
from samplerbench.samplers.base import Sampler, final_state

T = TypeVar("T")
#: More steps would take the memory of their levels before they take the time.
MOST_STEPS = 10**6


@dataclass(frozen=True, eq=False)
class Drawn:
    """The samples of a cell, shape (n, dim), or why there are none."""

    samples: Tensor | None
    nfe: int
    seconds: float
    status: str
    message: str


def nothing(cell_id: str) -> Row | None:
    """What is known where nothing is kept."""
    return None


class Once(Generic[T]):
    """Something that is made when it is first asked for, and never twice.

    Args:
        make: makes it; called in the thread that asks first, while others wait.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._lock = Lock()

    def __call__(self) -> T:
        """The thing."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A cell and its samples, which nobody makes if all that is asked of them is known already.

    Args:
        cell: whose they are.
        drawn: the samples.
        ratios: of the densities, for divergences.
    """

    cell: Cell
    drawn: Once[Drawn]
    ratios: Once[Ratios]


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are measured against.

    Args:
        distance: to it.
        to: what it is.
    """

    distance: Once[Distance]
    to: Against


@dataclass(frozen=True)
class Sweep:
    """A grid of cells and what they share.

    Args:
        dataset: the law.
        schedule: the path; every denoiser is for it.
        grid: makes the levels for a number of steps.
        denoisers: by name.
        starts: by name.
        samplers: (name, sampler) pairs; a name may come with several settings.
        steps: numbers of steps.
        nfe: numbers of network evaluations, for comparisons at equal cost: where they are given, a
            sampler takes the most steps that can be had for them, and `steps` is not used.
        metrics: by name.
        reference: evaluation points, shape (m, dim), which no other draw overlaps.
        truth: the law that samples are measured against, where it is not the data's: the data
            noised by so much as a Langevin sampler's level has.
        recall: the row with a cell_id, if it is known from before: it is not worked out again.
        versions: of the software that decides the bits; part of every identity.
        n_samples: n, per cell and repetition.
        repetitions: independent sets of samples per cell.
        floor_repetitions: independent sets of fresh draws for the floor.
        seed: of starts, samplers' noise and floor draws.
        data_seed: of the reference.
        train_seed: of the training; for the table.
        metric_seed: of random directions and the like.
        origins: where denoisers come from, by their names; one that is not among them is known by
            its content.
        block: rows of a block.
        dtype: of the state.
        device: where states live.
        workers: threads that work on cells side by side; does not change a bit.
        labels: names for the table.
    """

    dataset: Dataset
    schedule: NoiseSchedule
    grid: Grid
    denoisers: Mapping[str, Score]
    starts: Mapping[str, Start]
    samplers: Sequence[tuple[str, Sampler]]
    steps: Sequence[int]
    metrics: Mapping[str, Metric | LawMetric]
    reference: Tensor
    n_samples: int
    repetitions: int
    floor_repetitions: int = 0
    seed: int = 0
    data_seed: int = 0
    train_seed: int = 0
    metric_seed: int = 0
    origins: Mapping[str, Origin] = field(default_factory=dict)
    block: int = 1000
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 1
    labels: Labels = field(default_factory=Labels)
    truth: Dataset | None = None
    nfe: Sequence[int] = ()
    recall: Callable[[str], Row | None] = nothing
    versions: Mapping[str, str] = field(default_factory=lambda: VERSIONS)

    def __post_init__(self) -> None:
        for name in ("n_samples", "repetitions", "block", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.floor_repetitions >= 0, "floor_repetitions", self.floor_repetitions, ">= 0")
        require(len(self.steps) > 0, "steps", list(self.steps), "not empty")
        for name in ("nfe", "steps"):
            for number in getattr(self, name):
                allowed = f"at least 1 and at most {MOST_STEPS:,}"
                require(1 <= number <= MOST_STEPS, name, number, allowed)
        for name, sampler in self.samplers:
            allowed = f"at least {sampler.least_evaluations(1)}, what one step of {name} takes"
            require(len(self.steps_of(sampler)) > 0, "nfe", list(self.nfe), allowed)

    def steps_of(self, sampler: Sampler) -> list[int]:
        """The numbers of steps at which a sampler is run."""
        if not self.nfe:
            return list(self.steps)
        return sorted({steps for nfe in self.nfe if (steps := most_steps(sampler, nfe)) > 0})

    def starts_of(self, sampler: Sampler) -> dict[str, Start]:
        """The starts from which a sampler is run: chains have no prior, see `for_samplers`."""
        return for_samplers(self.starts, sampler.holds)

    @property
    def all_starts(self) -> dict[str, Start]:
        """The starts of all samplers of the sweep, and its own."""
        every = dict(self.starts)
        for _, sampler in self.samplers:
            every |= self.starts_of(sampler)
        return every

    @property
    def all_steps(self) -> list[int]:
        """All numbers of steps in the sweep, or `steps` where it has no sampler."""
        every = {steps for _, sampler in self.samplers for steps in self.steps_of(sampler)}
        return sorted(every) or list(self.steps)

    @property
    def law(self) -> Dataset:
        """The law that samples are measured against."""
        return self.dataset if self.truth is None else self.truth

    @cached_property
    def books(self) -> Books:
        """What all cells share, described once: of a file's or a mixture's law that is long."""
        return Books(
            law=identity(self.dataset),
            truth="" if self.truth is None else identity(self.truth),
            path=identity([self.schedule, self.grid]),
            held=self._held,
            starts={name: identity(start) for name, start in self.all_starts.items()},
            origins={name: self._origin(name) for name in self.denoisers},
            n_samples=self.n_samples,
            block=self.block,
            dtype=str(self.dtype).removeprefix("torch."),
            device=self.device.type,
            arithmetic=arithmetic(),
            threads=torch.get_num_threads(),
            versions=self.versions,
            seeds={name: getattr(self, name) for name in SEEDS},
            labels=self.labels,
        )

    @property
    def _held(self) -> tuple[str, str]:
        """Identity of the path of chains, and the name of their grid."""
        if not any(sampler.holds for _, sampler in self.samplers):
            return "", ""
        grid = grids.for_samplers(self.grid, self.schedule, self.all_steps[0], holds=True)
        name = self.labels.grid if grid is self.grid else "hold"
        return identity([self.schedule, grid]), name

    def _origin(self, name: str) -> Origin:
        model = self.denoisers[name]
        known = self.origins.get(name)
        if known is None or known.content not in ("", identity_of_model(model)):
            own = identity_of_model(model)
            return Origin("own", own, own)
        # a graph is fed with tensors where a call has numbers, which can change the last bits
        words = " graphed" if isinstance(model, Graphed) else ""
        return Origin(known.kind, known.id + words, known.recipe + words)

    def cells(self) -> list[Cell]:
        """All cells: the floor first, then the grid, the repetitions of a cell side by side."""
        floor = self.floor_cells()
        grid = [
            Cell(denoiser, start, name, sampler, steps, repetition)
            for denoiser in self.denoisers
            for name, sampler in self.samplers
            for start in self.starts_of(sampler)
            for steps in self.steps_of(sampler)
            for repetition in range(self.repetitions)
        ]
        return floor + grid

    def floor_cells(self) -> list[Cell]:
        """Fresh draws of the law: random ones, and even ones for starts that are drawn evenly."""
        plain = [name for name, start in self.starts.items() if not isinstance(start, Sobol)]
        even = [name for name, start in self.starts.items() if isinstance(start, Sobol)]
        if self.law.uniform_dim is None:  # then nothing is drawn evenly from the law
            plain, even = plain or even, []
        names = ([""] if plain else []) + even
        most = self.law.floor_sets(self.n_samples)
        count = self.floor_repetitions if most is None else min(self.floor_repetitions, most)
        return [
            Cell("law", name, "", None, 0, repetition)
            for name in names
            for repetition in range(count)
        ]

    def metrics_of(self, cell: Cell) -> list[str]:
        """The names of the metrics of a cell: a divergence has no floor."""
        floor = cell.settings is None
        return [
            name
            for name, metric in self.metrics.items()
            if not (floor and isinstance(metric, Divergence))
        ]

    def row_count(self) -> int:
        """The number of rows of `run`."""
        return sum(len(self.metrics_of(cell)) for cell in self.cells())

    def levels(self, steps: int, sampler: Sampler | None = None) -> Levels:
        """The levels for a number of steps: of the job's grid, or of a sampler's own."""
        require(1 <= steps <= MOST_STEPS, "steps", steps, f"at least 1, at most {MOST_STEPS:,}")
        holds = sampler is not None and sampler.holds
        return grids.for_samplers(self.grid, self.schedule, steps, holds)(self.schedule, steps)

    def samples(self, cell: Cell, denoiser: Denoiser) -> Iterator[Tensor]:
        """The cell's samples, block by block, shape (block or fewer, dim)."""
        if cell.settings is None:
            raise ValueError("the floor has no sampler")
        levels = self.levels(cell.steps, cell.settings)
        for block in range(math.ceil(self.n_samples / self.block)):
            x, noise = self.beginning(cell, levels, block)
            x = final_state(cell.settings, denoiser, x, levels, noise)
            yield x[: self.n_samples - block * self.block]

    def beginning(self, cell: Cell, levels: Levels, block: int) -> tuple[Tensor, Noise]:
        """The first states of a block, shape (block, dim), and the noise of its sampler."""
        key = (self.seed, cell.repetition, block)
        assert cell.settings is not None  # a floor begins nowhere
        start = self.starts_of(cell.settings)[cell.start]
        x = start.draw(self.dataset, self.block, levels.rows[0], key)
        x = x.to(self.device, self.dtype)
        if cell.coupled:
            return x, BrownianNoise(("coupled", *key), levels)
        return x, KeyedNoise(("sampler", *key))

    def distances(self) -> dict[str, Reference]:
        """What every cell is measured against, by metric: the evaluation points, or the law."""
        reference = Once(lambda: self.reference.to(self.device))
        data = Against("data", len(self.reference), content(self.reference))

        def to(metric: Metric | LawMetric) -> Reference:
            if isinstance(metric, LawMetric):
                law = metric
                return Reference(
                    Once(lambda: law.against_law(self.law, seed=self.metric_seed)), Against("law")
                )
            points = metric
            return Reference(Once(lambda: points.against(reference(), seed=self.metric_seed)), data)

        return {name: to(metric) for name, metric in self.metrics.items()}

    def run(self, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """Evaluate all cells.

        Args:
            on_row: called in this thread with each row as soon as it is there; it stores it.

        Returns:
            The rows, in the order of `cells`, one per cell and metric.
        """
        distances = self.distances()

        def evaluate(cell: Cell) -> list[Row]:
            drawing = self.drawing(cell)
            return [self.measure(drawing, name, distances[name]) for name in self.metrics_of(cell)]

        return self.side_by_side(evaluate, self.cells(), on_row)

    def side_by_side(
        self, work: Callable[[T], list[Row]], items: Sequence[T], on_row: Callable[[Row], None]
    ) -> list[Row]:
        """The rows of all items, in their order, worked on by `workers` threads.

        Each row is handed to `on_row` in this thread as soon as it is there.
        """
        rows: dict[int, list[Row]] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(work, item): index for index, item in enumerate(items)}
            try:
                pending = set(futures)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        rows[futures[future]] = future.result()
                        for row in rows[futures[future]]:
                            on_row(row)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [row for index in range(len(items)) for row in rows[index]]

    def drawing(self, cell: Cell) -> Drawing:
        """The cell with its samples, which are made when they are first needed."""
        return Drawing(cell, Once(lambda: self.draw(cell)), Once(lambda: self._ratios(cell)))

    def _ratios(self, cell: Cell) -> Ratios:
        """The ratios of densities; a cell that fails is a `Ratios` that says so."""
        try:
            return log_ratios(self, cell)
        except Exception as error:  # a defect of one cell must not cost the others
            return Ratios(None, 0, 0.0, "failed", kind_and_line(error))

    @torch.no_grad()
    def draw(self, cell: Cell) -> Drawn:
        """The cell's samples; one that fails is a `Drawn` that says so, never an exception."""
        began = time.perf_counter()
        nfe, status, message = 0, "ok", ""
        samples = None
        try:
            if cell.settings is None:
                key = ("floor", self.seed, cell.repetition)
                even = isinstance(self.starts.get(cell.start), Sobol)
                if even:
                    draws = stratified_draws(self.law, self.n_samples, *key)
                else:  # of finite data from a part of their own
                    draws = self.law.draws(self.n_samples, *key)
                samples = draws.to(self.device, self.dtype)
            else:
                model = Counted(self.denoisers[cell.denoiser])
                reason = cell.settings.why_incompatible(
                    model.model, self.levels(cell.steps, cell.settings)
                )
                if reason is not None:
                    status, message = "incompatible", reason
                else:
                    blocks: list[Tensor] = []
                    counts: list[int] = []
                    for block in self.samples(cell, model):
                        blocks.append(block)
                        counts.append(model.evaluations - sum(counts))
                    samples = torch.cat(blocks)
                    nfe = mean_over_samples(counts, list(map(len, blocks)))
            if samples is not None:
                bad = int((~(samples.abs() < LARGEST)).any(-1).sum())  # NaN is below nothing
                if bad:
                    message = (
                        f"{bad} of {len(samples)} samples are not finite, or {LARGEST:g} and more"
                    )
                    status, samples = "diverged", None
        except Exception as error:  # a defect of one cell must not cost the others
            status, message, samples = "failed", kind_and_line(error), None
        return Drawn(samples, nfe, time.perf_counter() - began, status, message)

    def measure(self, drawing: Drawing, metric: str, to: Reference) -> Row:
        """The row of one distance of a cell's samples; its seconds are of sampling and metric.

        If the value is known already, nothing is drawn and nothing measured.
        """
        row = self.books.row(drawing.cell, metric, self.metrics[metric], to.to)
        known = self.recalled(row)
        if known is not None:
            return known
        settings = self.metrics[metric]
        divergence = settings if isinstance(settings, Divergence) else None
        drawn = drawing.drawn() if divergence is None else drawing.ratios()
        values = drawn.samples if isinstance(drawn, Drawn) else drawn.values
        began = time.perf_counter()
        measured, status, message = None, drawn.status, drawn.message
        if values is not None:
            try:
                measured = divergence.estimate(values) if divergence else to.distance()(values)
                if not math.isfinite(measured.value):  # of a metric of somebody's own
                    status, message = "failed", f"{metric} gives {measured.value}"
                    measured = None
            except Exception as error:
                status, message = "failed", kind_and_line(error)
        seconds = drawn.seconds + time.perf_counter() - began
        return replace(
            row,
            nfe=drawn.nfe,
            seconds=seconds,
            status=status,
            message=message,
            **columns(measured, {} if isinstance(drawn, Drawn) else drawn.info),
        )

    def recalled(self, row: Row) -> Row | None:
        """The row with what was found before, or None where it is not known."""
        known = self.recall(row.cell_id)
        if known is None:
            return None
        return replace(row, **{name: getattr(known, name) for name in FOUND})


def mean_over_samples(evaluations: Sequence[int], sizes: Sequence[int]) -> int:
    """Evaluations for a sample, on average over the samples of all blocks, rounded up.

    A sample takes as many as there are calls for its block: the same number in every block, unless
    the sampler chooses its steps by its samples.

    Args:
        evaluations: calls of the model for each block.
        sizes: samples of each block that count.
    """
    total = sum(count * size for count, size in zip(evaluations, sizes, strict=True))
    return -(-total // sum(sizes))


def most_steps(sampler: Sampler, nfe: int) -> int:
    """The most steps that can be had for nfe evaluations; 0 where one takes more.

    Of a sampler whose evaluations the run decides it may take more; `statistics.at_equal_cost` goes
    by what was counted.
    """
    steps = 0
    while steps < nfe and sampler.least_evaluations(steps + 1) <= nfe:
        steps += 1
    return steps
