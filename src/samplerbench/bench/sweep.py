"""The sweep: every cell of a grid of denoisers × starts × samplers × steps × repetitions.

A cell is a law Φ(denoiser, start, sampler, steps); a repetition is one independent set of n of its
samples. Within a repetition all cells share the draws of the start and the noise of the samplers
(common random numbers), so the difference between two cells is paired. Samples are drawn in blocks
of one fixed shape: sample i is in row i mod block of block ⌊i/block⌋. The last block is filled up
and then cut, so neither n nor the other cells change the bits of a sample.

The *floor* is the same metric for n fresh draws of the law itself. A perfect sampler would have
this value at this n: two finite samples of one law are never at distance zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from samplerbench.bench.books import Books, columns
from samplerbench.bench.cell import FINAL, RESULTS, SEEDS, Against, Cell, Labels, Origin, Row
from samplerbench.bench.converged import Converged, distances_to_converged, why_not_converged
from samplerbench.bench.densities import OutputLaw, density, why_no_density
from samplerbench.bench.log_z import log_z_of, why_no_log_z
from samplerbench.bench.own_grids import OwnGrid, require_no_doubles
from samplerbench.bench.paths import paths_of, why_no_paths
from samplerbench.bench.spectra import spectrum_of, why_no_divergence, why_no_spectrum
from samplerbench.core import grids
from samplerbench.core.coupling import BrownianNoise
from samplerbench.core.cuda_graphs import Graphed
from samplerbench.core.fitted_grids import Fitted, FittedGrid
from samplerbench.core.grids import Grid, Levels, in_data_units
from samplerbench.core.lazy import Lazy
from samplerbench.core.models import Counted, Denoiser, Score
from samplerbench.core.noise import KeyedNoise, Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Sobol, Start, for_samplers, stratified_draws
from samplerbench.datasets.base import LARGEST, Dataset, all_usable
from samplerbench.errors import InvalidSetting, kind_and_line, require
from samplerbench.identity import VERSIONS, arithmetic, content, identity, identity_of_model
from samplerbench.metrics.base import LawMetric, Measurement, Metric, OutputLawMetric, exact_names
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.samplers.peers import Peer

T = TypeVar("T")
#: The levels of more steps would fill the memory.
MOST_STEPS = 10**6


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a cell, shape (n, dim), or the reason why there are none."""

    points: Tensor | None
    nfe: int
    rounds: int
    seconds: float
    status: str
    message: str


def recall_nothing(cell_id: str) -> Row | None:
    """The `recall` of a sweep without a store: None for every cell."""
    return None


@dataclass(frozen=True, eq=False)
class LazySamples:
    """A cell and its samples, which are only drawn if some of its values are not stored."""

    cell: Cell
    draw: Lazy[Samples]  # draws the samples at its first call
    laws: Mapping[str, Lazy[OutputLaw]]  # the law of the output, by the keys of `OUTPUT_LAWS`


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference of a distance."""

    distance: Lazy[Callable[[Any], Measurement]]
    to: Against


#: The kinds of output laws: a function for the reason why a cell has none, and its computation.
OUTPUT_LAWS: Mapping[
    str, tuple[Callable[[Sweep, Cell], str | None], Callable[[Sweep, Cell], OutputLaw]]
] = {
    "density": (why_no_density, density),
    "paths": (why_no_paths, paths_of),
    "spectrum": (why_no_spectrum, spectrum_of),
    "spectrum with a density": (why_no_divergence, spectrum_of),
    "log_z": (why_no_log_z, log_z_of),
    "converged": (why_not_converged, distances_to_converged),
}


@dataclass(frozen=True)
class Sweep:
    """A grid of cells and their shared settings."""

    dataset: Dataset
    schedule: NoiseSchedule  # the path; every denoiser is for it
    # makes the levels for a number of steps. A `FittedGrid` must be fitted before a cell runs, see
    # `fitting`.
    grid: Grid
    denoisers: Mapping[str, Score]  # by name
    starts: Mapping[str, Start]  # by name
    # (name, sampler) pairs; a name may come with several settings
    samplers: Sequence[tuple[str, Sampler]]
    steps: Sequence[int]  # numbers of steps
    metrics: Mapping[str, Metric | LawMetric]  # by name
    reference: Tensor  # evaluation points, shape (m, dim); no other draw shares points with them
    n_samples: int  # n, per cell and repetition
    repetitions: int  # independent sets of samples per cell
    floor_repetitions: int = 0  # independent sets of fresh draws for the floor
    seed: int = 0  # of starts, samplers' noise and floor draws
    data_seed: int = 0  # of the reference
    train_seed: int = 0  # of the training; for the table
    metric_seed: int = 0  # of the random numbers of metrics, such as directions
    # the origins of denoisers, by name; a denoiser without one is identified by its content
    origins: Mapping[str, Origin] = field(default_factory=dict)
    block: int = 1000  # the number of rows of a block
    dtype: torch.dtype = torch.float64  # of the state
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # of the state
    workers: int = 1  # the number of threads, one cell each; it changes no bit
    labels: Labels = field(default_factory=Labels)  # names for the table
    # the law that samples are measured against; None for the law of the data. Otherwise it is the
    # data with the noise of a Langevin sampler's level
    truth: Dataset | None = None
    # bounds on the evaluations, for comparisons at equal cost. If given, each sampler takes the
    # most steps within each bound, and `steps` is not used.
    nfe: Sequence[int] = ()
    # the end of a run: "denoise" is a last step to x̂₀; "none" is a normal step to the smallest
    # level with σ > 0, whose state is rescaled to x/α
    final: str = "denoise"
    # returns the stored row of a cell_id, or None; a stored row is not computed again
    recall: Callable[[str], Row | None] = recall_nothing
    # versions of the software that determines the bits; part of every identity
    versions: Mapping[str, str] = field(default_factory=lambda: VERSIONS)
    # levels of single samplers at single numbers of steps, in place of `grid`
    own_grids: Sequence[OwnGrid] = ()

    def __post_init__(self) -> None:
        for name in ("n_samples", "repetitions", "block", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.final in FINAL, "final", self.final, " or ".join(FINAL))
        require(self.floor_repetitions >= 0, "floor_repetitions", self.floor_repetitions, ">= 0")
        require(len(self.steps) > 0, "steps", list(self.steps), "not empty")
        require_no_doubles(self.own_grids)
        for name in ("nfe", "steps"):
            for number in getattr(self, name):
                allowed = f"at least 1 and at most {MOST_STEPS:,}"
                require(1 <= number <= MOST_STEPS, name, number, allowed)
        for name, sampler in self.samplers:
            if not self.steps_of(sampler):
                few = sampler.fewest_steps
                least = sampler.least_evaluations(few, plain=self.final == "none")
                cost = f"the cost of {'one step' if few == 1 else f'{few} steps'} of {name}"
                raise InvalidSetting("nfe", list(self.nfe), f"at least {least}, {cost}")

    def steps_of(self, sampler: Sampler) -> list[int]:
        """The numbers of steps of a sampler."""
        if not self.nfe:
            return list(self.steps)
        return sorted({steps for nfe in self.nfe if (steps := self._most(sampler, nfe)) > 0})

    def _most(self, sampler: Sampler, nfe: int) -> int:
        return most_steps(sampler, nfe, plain=self.final == "none")

    def starts_of(self, sampler: Sampler) -> dict[str, Start]:
        """The starts of a sampler; chains have no prior, see `for_samplers`."""
        return for_samplers(self.starts, sampler.holds)

    @property
    def all_starts(self) -> dict[str, Start]:
        """The field `starts`, and the starts of all samplers of the sweep."""
        every = dict(self.starts)
        for _, sampler in self.samplers:
            every |= self.starts_of(sampler)
        return every

    @property
    def all_steps(self) -> list[int]:
        """All numbers of steps in the sweep; `steps` if it has no sampler."""
        every = {steps for _, sampler in self.samplers for steps in self.steps_of(sampler)}
        return sorted(every) or list(self.steps)

    @property
    def law(self) -> Dataset:
        """The law that samples are measured against."""
        return self.dataset if self.truth is None else self.truth

    @cached_property
    def converged_runs(self) -> dict[Hashable, Lazy[Converged | InvalidSetting]]:
        """The converged runs that its cells are compared with, each computed once."""
        return {}

    @cached_property
    def exact_score(self) -> Score | None:
        """The exact score of the data on the path, or None."""
        return self.dataset.exact_score(self.schedule)

    @cached_property
    def known(self) -> dict[object, Any]:
        """What several cells need and one of them has computed, by a name and its arguments."""
        return {}

    @cached_property
    def books(self) -> Books:
        """The shared part of all rows, computed once, since a large law takes long to describe."""
        return Books(
            law=identity(self.dataset),
            truth="" if self.truth is None else identity(self.truth),
            schedule=identity(self.schedule),
            path=identity([self.schedule, self._fitted_grid]),
            path_setting=self._path_setting,
            held=self._held,
            starts={name: identity(start) for name, start in self.all_starts.items()},
            origins={name: self.origin_of(name) for name in self.denoisers},
            n_samples=self.n_samples,
            block=self.block,
            dtype=str(self.dtype).removeprefix("torch."),
            device=self.device.type,
            arithmetic=arithmetic(),
            threads=torch.get_num_threads(),
            versions=self.versions,
            seeds={name: getattr(self, name) for name in SEEDS},
            labels=self.labels,
            final=self.final,
            own_grids=self.own_grids,
        )

    @property
    def _fitted_grid(self) -> Grid:
        """The grid; for a fitted grid its table."""
        if isinstance(self.grid, FittedGrid):
            raise ValueError("the grid must be fitted first: see bench.fitting")
        return self.grid.grid if isinstance(self.grid, Fitted) else self.grid

    @property
    def _path_setting(self) -> str:
        """Identity of the path without seeds; a table depends on the seeds of its denoiser."""
        grid = self.grid
        own = [grid.recipe, grid.to] if isinstance(grid, Fitted) else grid
        return identity([self.schedule, own])

    @property
    def path_grid(self) -> Grid:
        """The grid of samplers that go from level to level; it ends as `final` says."""
        return self._ending(self.final)

    def _ending(self, final: str) -> Grid:
        return grids.Truncated(self.grid) if final == "none" else self.grid

    @property
    def _held(self) -> tuple[str, str]:
        """Identity of the path for chains, and the name of their grid."""
        if not any(sampler.holds for _, sampler in self.samplers):
            return "", ""
        own = self.path_grid
        grid = grids.for_samplers(own, self.schedule, self.all_steps[0], holds=True)
        name = self.labels.grid if grid is own else "hold"
        return identity([self.schedule, grid]), name

    def origin_of(self, name: str) -> Origin:
        """The origin of one of the denoisers, for identities."""
        model = self.denoisers[name]
        origin = self.origins.get(name)
        if origin is None or origin.content not in ("", identity_of_model(model)):
            own = identity_of_model(model)
            return Origin("own", own, own)
        # a graph gets tensors instead of numbers, which can change the last bits
        words = " graphed" if isinstance(model, Graphed) else ""
        return Origin(origin.kind, origin.id + words, origin.recipe + words)

    def cells(self) -> list[Cell]:
        """All cells: the floor first, then the grid; the repetitions of a cell are neighbours."""
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
        """The cells of fresh draws: random ones, and even ones for starts that are drawn evenly."""
        plain = [name for name, start in self.starts.items() if not isinstance(start, Sobol)]
        even = [name for name, start in self.starts.items() if isinstance(start, Sobol)]
        if self.law.uniform_dim is None:  # the law cannot be drawn from evenly
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
        """The metrics of a cell: floors have no output law, exact values have one repetition."""
        floor = cell.settings is None
        return [
            name
            for name, metric in self.metrics.items()
            if not (floor and isinstance(metric, OutputLawMetric))
            and not (cell.repetition > 0 and name in self.exact_metrics)
        ]

    @property
    def exact_metrics(self) -> list[str]:
        """The names of metrics of exact laws: without samples, repetitions and intervals."""
        return exact_names(self.metrics, self.law)

    def row_count(self) -> int:
        """The number of rows of `run`."""
        return sum(len(self.metrics_of(cell)) for cell in self.cells())

    def levels(self, steps: int, sampler: Sampler | None = None, final: str = "") -> Levels:
        """The levels for a number of steps: of the sweep's grid, or those that a sampler brings.

        Args:
            steps: the number of steps.
            sampler: the sampler that runs on the levels; None for the levels of the grid.
            final: as in `Cell`.
        """
        require(1 <= steps <= MOST_STEPS, "steps", steps, f"at least 1, at most {MOST_STEPS:,}")
        grid = self._ending(final or self.final)
        if sampler is None:
            levels = grid(self.schedule, steps)
        else:
            levels = sampler.levels(grid, self.schedule, steps)
            if sampler.brings_levels:
                return levels
        return _of_steps(levels, steps)

    def levels_of(self, cell: Cell) -> Levels:
        """The levels of a cell's runs: of its own grid if it has one, else of the sweep's."""
        own = self.books.own_grid(cell)
        if own is None:
            return self.levels(cell.steps, cell.settings, cell.final)
        return _of_steps(own.levels(self.schedule), cell.steps)

    def samples(self, cell: Cell, denoiser: Denoiser) -> Iterator[Tensor]:
        """The cell's samples, block by block, shape (block or fewer, dim)."""
        levels = self.levels_of(cell)
        for block in range(math.ceil(self.n_samples / self.block)):
            x, noise = self.beginning(cell, levels, block)
            x = final_state(cell.algorithm, denoiser, x, levels, noise)
            x = in_data_units(x, levels)
            yield x[: self.n_samples - block * self.block]

    def beginning(self, cell: Cell, levels: Levels, block: int) -> tuple[Tensor, Noise]:
        """The first states of a block, shape (rows, dim), and the noise of its sampler.

        There are as many rows as the block has, or fewer in the last block, see `_rows`.
        """
        key = (self.seed, cell.repetition, block)
        start = self.starts_of(cell.algorithm)[cell.start]
        x = start.draw(self.dataset, self.block, levels.rows[0], key)
        shape = (self.block, self.dataset.dim)
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        require(found == shape, f"start.{cell.start}", found, f"states of shape {shape}")
        x = x[: self._rows(cell, block)].to(self.device, self.dtype)
        if cell.coupled:
            return x, BrownianNoise(("coupled", *key), levels)
        return x, KeyedNoise(("sampler", *key))

    def _rows(self, cell: Cell, block: int) -> int:
        """The number of rows of a block that are run, without a change of a bit of the samples.

        A denoiser of a large finite data set evaluates a few states at a time. Then the pieces
        that have no sample of the cell are left out. An adaptive sampler keeps them, since its
        number of evaluations is that of the whole block; and the code of other packages may use
        the whole batch.
        """
        piece = self.denoisers[cell.denoiser].piece
        if piece is None or isinstance(cell.algorithm, Peer) or cell.algorithm.adaptive:
            return self.block
        samples = self.n_samples - block * self.block
        return min(self.block, -(-samples // piece) * piece)

    def distances(self) -> dict[str, Reference]:
        """The reference of each metric, by name: the evaluation points, or the law."""
        reference = Lazy(lambda: self.reference.to(self.device))
        data = Against("data", len(self.reference), content(self.reference))

        def to(metric: Metric | LawMetric) -> Reference:
            if isinstance(metric, OutputLawMetric):
                of_output = partial(metric.of_output, dataset=self.law)
                return Reference(Lazy(lambda: of_output), Against("law"))
            if isinstance(metric, LawMetric):
                to_law = partial(metric.against_law, self.law, seed=self.metric_seed)
                return Reference(Lazy(to_law), Against("law"))
            against = metric.against
            return Reference(Lazy(lambda: against(reference(), seed=self.metric_seed)), data)

        return {name: to(metric) for name, metric in self.metrics.items()}

    def run(self, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """Evaluate all cells.

        Args:
            on_row: called in this thread with each row as soon as it is finished, to store it.

        Returns:
            The rows, in the order of `cells`, one per cell and metric.
        """
        distances = self.distances()

        def evaluate(cell: Cell) -> list[Row]:
            samples = self.lazy_samples(cell)
            return [self.measure(samples, name, distances[name]) for name in self.metrics_of(cell)]

        return self.side_by_side(evaluate, self.cells(), on_row)

    def side_by_side(
        self, work: Callable[[T], list[Row]], items: Sequence[T], on_row: Callable[[Row], None]
    ) -> list[Row]:
        """The rows of all items, in their order, computed by `workers` threads.

        `on_row` is called in this thread with each row as soon as it is finished.
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

    def lazy_samples(self, cell: Cell) -> LazySamples:
        """The cell with its samples, which are drawn when they are first needed."""

        def guarded(compute: Callable[[Sweep, Cell], OutputLaw]) -> OutputLaw:
            try:
                return compute(self, cell)
            except Exception as error:  # a defect of one cell must not stop the others
                return OutputLaw(None, 0, 0.0, "failed", kind_and_line(error))

        once = {law: Lazy(partial(guarded, law)) for _, law in OUTPUT_LAWS.values()}
        laws = {name: once[law] for name, (_, law) in OUTPUT_LAWS.items()}
        return LazySamples(cell, Lazy(lambda: self.draw(cell)), laws)

    @torch.no_grad()
    def draw(self, cell: Cell) -> Samples:
        """The cell's samples; a failure is in their status and message, never an exception."""
        began = time.perf_counter()
        nfe, rounds, status, message = 0, 0, "ok", ""
        samples = None
        try:
            if cell.settings is None:
                key = ("floor", self.seed, cell.repetition)
                even = isinstance(self.starts.get(cell.start), Sobol)
                if even:
                    draws = stratified_draws(self.law, self.n_samples, *key)
                else:  # a finite data set has its own part for them
                    draws = self.law.draws(self.n_samples, *key)
                samples = draws.to(self.device, self.dtype)
            else:
                model = Counted(self.denoisers[cell.denoiser])
                reason = cell.settings.why_incompatible(model.model, self.levels_of(cell))
                if reason is not None:
                    status, message = "incompatible", reason
                else:
                    counts: list[tuple[int, int]] = []
                    sizes: list[int] = []
                    for block in self.samples(cell, model):
                        if samples is None:
                            samples = block.new_empty(self.n_samples, *block.shape[1:])
                        samples[sum(sizes) : sum(sizes) + len(block)] = block
                        counts.append(model.taken())
                        sizes.append(len(block))
                    nfe, rounds = (mean_over_samples(c, sizes) for c in zip(*counts, strict=True))
            if samples is not None and not all_usable(samples):
                bad = int((~(samples.abs() < LARGEST)).any(-1).sum())  # NaN counts as bad
                if bad:
                    message = (
                        f"{bad} of {len(samples)} samples are not finite, or {LARGEST:g} and more"
                    )
                    status, samples = "diverged", None
        except Exception as error:  # a defect of one cell must not stop the others
            status, message, samples = "failed", kind_and_line(error), None
        return Samples(samples, nfe, rounds, time.perf_counter() - began, status, message)

    def measure(self, lazy: LazySamples, metric: str, to: Reference) -> Row:
        """The row of one distance of a cell's samples; `seconds` is the time of both.

        A stored value is returned without sampling or measuring.
        """
        settings = self.metrics[metric]
        row = self.books.row(lazy.cell, metric, settings, to.to)
        stored = self.recalled(row)
        if stored is not None:
            return stored
        samples: Samples | OutputLaw
        if isinstance(settings, OutputLawMetric):
            samples = lazy.laws[settings.needs]()
            values = samples.values
        else:
            samples = lazy.draw()
            values = samples.points
        began = time.perf_counter()
        measured, status, message = None, samples.status, samples.message
        if values is not None:
            try:
                measured = to.distance()(values)
                if not math.isfinite(measured.value):  # a user's metric may return anything
                    status, message = "failed", f"{metric} gives {measured.value}"
                    measured = None
            except Exception as error:
                status, message = "failed", kind_and_line(error)
        seconds = samples.seconds + time.perf_counter() - began
        return replace(
            row,
            nfe=samples.nfe,
            rounds=samples.nfe if samples.rounds is None else samples.rounds,
            seconds=seconds,
            status=status,
            message=message,
            **columns(measured, {} if isinstance(samples, Samples) else samples.info),
        )

    def recalled(self, row: Row) -> Row | None:
        """The row with the stored results of its cell, or None if there are none."""
        stored = self.recall(row.cell_id)
        if stored is None:
            return None
        return replace(row, **{name: getattr(stored, name) for name in RESULTS})


def _of_steps(levels: Levels, steps: int) -> Levels:
    """The levels, which must have this number of steps: a user's grid may return anything."""
    found = f"{levels.steps} steps" if isinstance(levels, Levels) else type(levels).__name__
    require(found == f"{steps} steps", "levels", found, f"Levels of {steps} steps")
    return levels


def mean_over_samples(evaluations: Sequence[int], sizes: Sequence[int]) -> int:
    """The mean of the blocks' numbers of evaluations, weighted by their sizes, rounded up.

    The number differs between blocks only for an adaptive sampler.
    """
    total = sum(count * size for count, size in zip(evaluations, sizes, strict=True))
    return -(-total // sum(sizes))


def most_steps(sampler: Sampler, nfe: int, *, plain: bool = False) -> int:
    """The largest number of steps with at most nfe evaluations; 0 if one step needs more.

    An adaptive sampler may need more; `statistics.at_equal_cost` uses the counted evaluations.
    `plain` if final=none.
    """

    def fits(steps: int) -> bool:
        return sampler.least_evaluations(steps, plain=plain) <= nfe

    few = sampler.fewest_steps
    if nfe >= few and fits(nfe):
        return nfe
    steps, too_many = few - 1, max(nfe, few)
    while too_many - steps > 1:  # more steps never need fewer evaluations
        middle = (steps + too_many) // 2
        if fits(middle):
            steps = middle
        else:
            too_many = middle
    return steps if steps >= few else 0
