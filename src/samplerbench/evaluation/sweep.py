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

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from samplerbench import __version__
from samplerbench.coupling import BrownianNoise
from samplerbench.cuda_graphs import Graphed
from samplerbench.datasets.base import LARGEST, Dataset
from samplerbench.errors import kind_and_line, require
from samplerbench.evaluation.identity import VERSIONS, describe, described_identity, settings_text
from samplerbench.evaluation.store import Row
from samplerbench.grids import Levels
from samplerbench.metrics.base import Distance, LawMetric, Measurement, Metric
from samplerbench.models import Counted, Denoiser, Score
from samplerbench.noise import KeyedNoise, Noise
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.schedules import NoiseSchedule
from samplerbench.starts import Sobol, Start, stratified_draws

T = TypeVar("T")
Grid = Callable[[NoiseSchedule, int], Levels]


@dataclass(frozen=True)
class Labels:
    """The names a row carries for people; they decide nothing."""

    run: str = ""
    experiment: str = ""
    dataset: str = ""
    network: str = ""
    objective: str = ""
    schedule: str = ""
    target: str = ""
    grid: str = ""
    model: str = ""


@dataclass(frozen=True)
class Cell:
    """One set of n samples, by names in the sweep's mappings.

    The floor's denoiser is law; its start is the name of a stratified start whose floor it is, or
    empty. `coupled` cells draw the increments of one Brownian path, so that runs with different
    numbers of steps see the same noise, see `coupling`.
    """

    denoiser: str
    start: str
    sampler: str
    settings: Sampler | None
    steps: int
    repetition: int
    coupled: bool = False


@dataclass(frozen=True, eq=False)
class Drawn:
    """The samples of a cell, shape (n, dim), or why there are none."""

    samples: Tensor | None
    nfe: int
    seconds: float
    status: str
    message: str


NOT_DRAWN = Drawn(samples=None, nfe=0, seconds=0.0, status="", message="")

FOUND = ("value", "lower", "upper", "info", "nfe", "seconds", "status", "message")
"""The columns that take work; all others follow from what was asked for."""


def nothing(cell_id: str) -> Row | None:
    """What is known where nothing is kept."""
    return None


@dataclass(frozen=True)
class Against:
    """What a value is of, besides the cell's samples; part of its identity.

    Args:
        name: data, law, what other samples they are (see `budget`), or chain (see `chains`).
        count: its number of points; 0 where it has none.
        samples_id: identity of those other samples.
    """

    name: str
    count: int = 0
    samples_id: str = ""


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
    """

    cell: Cell
    drawn: Once[Drawn]


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
            sampler takes the most steps that need no more of them, and `steps` is not used.
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
        training_id: identity of the learned denoiser's training.
        empirical_id: identity of the training set, for the denoiser empirical.
        pretrained_id: identity of the pretrained model's weights.
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
    training_id: str = ""
    empirical_id: str = ""
    pretrained_id: str = ""
    block: int = 1000
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 1
    labels: Labels = Labels()
    truth: Dataset | None = None
    nfe: Sequence[int] = ()
    recall: Callable[[str], Row | None] = nothing
    versions: Mapping[str, str] = field(default_factory=lambda: VERSIONS)

    def __post_init__(self) -> None:
        for name in ("n_samples", "repetitions", "block", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.floor_repetitions >= 0, "floor_repetitions", self.floor_repetitions, ">= 0")
        require(len(self.steps) > 0, "steps", list(self.steps), "not empty")
        for steps in self.steps:
            require(steps >= 1, "steps", steps, "at least 1")
        for nfe in self.nfe:
            require(nfe >= 1, "nfe", nfe, "at least 1")
        for name, sampler in self.samplers:
            allowed = f"at least {sampler.evaluations(1)}, what one step of {name} takes"
            require(len(self.steps_of(sampler)) > 0, "nfe", list(self.nfe), allowed)

    def steps_of(self, sampler: Sampler) -> list[int]:
        """The numbers of steps at which a sampler is run."""
        if not self.nfe:
            return list(self.steps)
        return sorted({steps for nfe in self.nfe if (steps := most_steps(sampler, nfe)) > 0})

    @property
    def all_steps(self) -> list[int]:
        """All numbers of steps in the sweep, or `steps` where it has no sampler."""
        every = {steps for _, sampler in self.samplers for steps in self.steps_of(sampler)}
        return sorted(every) or list(self.steps)

    @property
    def law(self) -> Dataset:
        """The law that samples are measured against."""
        return self.dataset if self.truth is None else self.truth

    @property
    def identities(self) -> dict[str, str]:
        """What stands for a denoiser in an identity; the oracle follows from data and schedule."""
        names = {
            "learned": f"learned {self.training_id}",
            "empirical": f"empirical {self.empirical_id}",
            "pretrained": f"pretrained {self.pretrained_id}",
            "oracle": "oracle",
        }
        # a graph is fed with tensors where a call has numbers, which can change the last bits
        graphed = {name for name, model in self.denoisers.items() if isinstance(model, Graphed)}
        return {
            name: f"{text} graphed" if name in graphed else text for name, text in names.items()
        }

    def cells(self) -> list[Cell]:
        """All cells: the floor first, then the grid, the repetitions of a cell side by side."""
        floor = self.floor_cells()
        grid = [
            Cell(denoiser, start, name, sampler, steps, repetition)
            for denoiser in self.denoisers
            for start in self.starts
            for name, sampler in self.samplers
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

    def levels(self, steps: int) -> Levels:
        """The levels for a number of steps."""
        return self.grid(self.schedule, steps)

    def samples(self, cell: Cell, denoiser: Denoiser) -> Iterator[Tensor]:
        """The cell's samples, block by block, shape (block or fewer, dim)."""
        if cell.settings is None:
            raise ValueError("the floor has no sampler")
        levels = self.levels(cell.steps)
        for block in range(math.ceil(self.n_samples / self.block)):
            x, noise = self.beginning(cell, levels, block)
            x = final_state(cell.settings, denoiser, x, levels, noise)
            yield x[: self.n_samples - block * self.block]

    def beginning(self, cell: Cell, levels: Levels, block: int) -> tuple[Tensor, Noise]:
        """The first states of a block, shape (block, dim), and the noise of its sampler."""
        key = (self.seed, cell.repetition, block)
        x = self.starts[cell.start].draw(self.dataset, self.block, levels.rows[0], key)
        x = x.to(self.device, self.dtype)
        if cell.coupled:
            return x, BrownianNoise(("coupled", *key), levels)
        return x, KeyedNoise(("sampler", *key))

    def distances(self) -> dict[str, Reference]:
        """What every cell is measured against, by metric: the evaluation points, or the law."""
        reference = Once(lambda: self.reference.to(self.device))

        def to(metric: Metric | LawMetric) -> Reference:
            if isinstance(metric, LawMetric):
                law = metric
                return Reference(
                    Once(lambda: law.against_law(self.law, seed=self.metric_seed)), Against("law")
                )
            points = metric
            return Reference(
                Once(lambda: points.against(reference(), seed=self.metric_seed)),
                Against("data", len(self.reference)),
            )

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
            return [self.measure(drawing, name, to) for name, to in distances.items()]

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
        return Drawing(cell, Once(lambda: self.draw(cell)))

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
                reason = cell.settings.why_incompatible(model.model, self.levels(cell.steps))
                if reason is not None:
                    status, message = "incompatible", reason
                else:
                    samples = torch.cat(list(self.samples(cell, model)))
                    nfe = model.evaluations // math.ceil(self.n_samples / self.block)
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
        cell, settings = drawing.cell, self.metrics[metric]
        known = self.recalled(self.row(cell, NOT_DRAWN, metric, settings, to.to, None))
        if known is not None:
            return known
        drawn = drawing.drawn()
        began = time.perf_counter()
        measured, status, message = None, drawn.status, drawn.message
        if drawn.samples is not None:
            try:
                measured = to.distance()(drawn.samples)
                if not math.isfinite(measured.value):  # of a metric of somebody's own
                    status, message = "failed", f"{metric} gives {measured.value}"
                    measured = None
            except Exception as error:
                status, message = "failed", kind_and_line(error)
        seconds = drawn.seconds + time.perf_counter() - began
        drawn = replace(drawn, seconds=seconds, status=status, message=message)
        return self.row(cell, drawn, metric, settings, to.to, measured)

    def recalled(self, row: Row) -> Row | None:
        """The row with what was found before, or None where it is not known."""
        known = self.recall(row.cell_id)
        if known is None:
            return None
        return replace(row, **{name: getattr(known, name) for name in FOUND})

    @cached_property
    def _described(self) -> dict[str, Any]:
        """What all cells share, described once: of a file's or a mixture's law that is long."""
        law = {} if self.truth is None else {"law": describe(self.truth)}
        return {
            "dataset": describe(self.dataset),
            "path": {"schedule": describe(self.schedule), "grid": describe(self.grid)},
            "law": law,
        }

    def samples_identity(self, cell: Cell) -> str:
        """Identity of the cell's samples: all that decides their bits."""
        shared = {
            "dataset": self._described["dataset"],
            "n": self.n_samples,
            "seed": self.seed,
            "repetition": cell.repetition,
            "dtype": str(self.dtype),
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "versions": dict(self.versions),
        }
        if cell.settings is None:
            # two even starts have floors of their own in the table, though of the same bits
            even = {"start": cell.start} if cell.start else {}
            kind = "even" if cell.start else "random"
            return described_identity({"floor": kind, **even, **self._described["law"], **shared})
        return described_identity(
            {
                **self._described["path"],
                "denoiser": self.identities.get(cell.denoiser, cell.denoiser),
                "start": describe(self.starts[cell.start]),
                "sampler": describe(cell.settings),
                "steps": cell.steps,
                "noise": "coupled" if cell.coupled else "keyed",
                "block": self.block,
                **shared,
            }
        )

    def row(
        self,
        cell: Cell,
        drawn: Drawn,
        metric: str,
        settings: object,
        to: Against,
        measured: Measurement | None,
    ) -> Row:
        """The row of one value.

        Args:
            cell: whose it is.
            drawn: what became of the cell's samples; its seconds are those of the row.
            metric: the value's name.
            settings: of the metric, for `identity.describe`.
            to: what the samples were measured against.
            measured: the value, or None where there is none.
        """
        samples_id = self.samples_identity(cell)
        settings = describe(settings)
        reference = {"reference": to.name, "n": to.count, "samples": to.samples_id}
        value = {
            "samples": samples_id,
            "metric": settings,
            "metric_seed": self.metric_seed,
            "to": reference | ({"data_seed": self.data_seed} if to.name == "data" else {}),
            **self._described["law"],
        }
        learned, on_law = cell.denoiser == "learned", cell.settings is None
        labels = self.labels
        model_ids = {"learned": self.training_id, "pretrained": self.pretrained_id}
        networks = {"learned": labels.network, "pretrained": labels.model}
        return Row(
            cell_id=described_identity(value),
            samples_id=samples_id,
            training_id=model_ids.get(cell.denoiser, ""),
            run=labels.run,
            experiment=labels.experiment,
            dataset=labels.dataset,
            network=networks.get(cell.denoiser, ""),
            objective=labels.objective if learned else "",
            schedule="" if on_law else labels.schedule,
            target=labels.target if learned else "",
            grid="" if on_law else labels.grid,
            denoiser=cell.denoiser,
            start=cell.start,
            sampler=cell.sampler,
            sampler_settings="" if cell.settings is None else settings_text(cell.settings),
            eta=float(getattr(cell.settings, "eta", math.nan)),
            steps=cell.steps,
            nfe=drawn.nfe,
            seed=self.seed,
            data_seed=self.data_seed,
            train_seed=self.train_seed,
            repetition=cell.repetition,
            n_samples=self.n_samples,
            reference=to.name,
            n_reference=to.count,
            metric=metric,
            metric_settings=json.dumps(settings, sort_keys=True),
            value=measured.value if measured else math.nan,
            lower=measured.lower if measured else math.nan,
            upper=measured.upper if measured else math.nan,
            info=json.dumps(dict(measured.info), sort_keys=True)
            if measured and measured.info
            else "",
            seconds=drawn.seconds,
            block=self.block,
            device=self.device.type,
            dtype=str(self.dtype).removeprefix("torch."),
            version=__version__,
            status=drawn.status,
            message=drawn.message,
        )


def most_steps(sampler: Sampler, nfe: int) -> int:
    """The most steps that take no more than nfe evaluations; 0 where one takes more.

    A sampler whose evaluations the run decides has as many output points as evaluations allowed.
    """
    steps = 0
    while steps < nfe and (sampler.evaluations(steps + 1) or 0) <= nfe:
        steps += 1
    return steps
