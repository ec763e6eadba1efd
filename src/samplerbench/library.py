"""samplerbench in a script or a notebook.

    import samplerbench as sb

    law = sb.dataset("grid_mixture")
    table = sb.sweep(law, ["ddim", "heun", MySampler()], steps=[4, 8, 16])
    sb.plot(table)

The package itself has these functions too. A member of a config group is given by its name
(`samplerbench list`), or as an object: a frozen dataclass that derives from `Sampler`, `Dataset`,
`NoiseSchedule`, `Start` or `Metric`. All other settings are those of the main job, so the numbers
are the same as on the command line, bit for bit. `sweep` returns the table of `cells.parquet`, one
row per value (see `bench.cell.Row`), for `bench.ranking` and the functions of `bench.statistics`.

Every function raises `InvalidSetting` before any work if its arguments do not fit.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import partial, wraps
from io import BytesIO
from itertools import count
from operator import index
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, get_args

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from samplerbench.bench import statistics
from samplerbench.bench.cell import KINDS, Cell, Origin, Row
from samplerbench.bench.chains import diagnose, require_chains
from samplerbench.bench.designing import (
    Carried,
    Designed,
    carried,
    designed,
    require_carried,
    require_each_designed,
)
from samplerbench.bench.fitting import fitted
from samplerbench.bench.recommendation import Recommendation
from samplerbench.bench.sampling import require_runs, sample_into, shape_of
from samplerbench.bench.store import as_table, to_data
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import Grid, Level
from samplerbench.core.models import Denoiser, Score
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Start
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.file import as_chains, as_points, require_upright
from samplerbench.errors import InvalidSetting, kind_and_line, require, similar, warn
from samplerbench.figures.distance import X_TITLES, distance_against
from samplerbench.figures.setting import setting_figure
from samplerbench.figures.style import styled
from samplerbench.identity import describe
from samplerbench.metrics.base import AnyMetric
from samplerbench.paths import expanded
from samplerbench.samplers.base import Sampler

#: The attribute that keeps the name of a member that was built by name.
_NAME = "_samplerbench_name"

#: Denoisers that alter the exact one and have settings in the config.
_BY_NAME = ("corrupted", "autoguided")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

# the types of arguments: names and objects of a group
Samplers = (
    str
    | Sampler
    | Sequence[str | Sampler | Sequence[Sampler]]
    | Mapping[str, Sampler | Sequence[Sampler]]
    | None
)
Denoisers = str | Sequence[str] | Mapping[str, Score] | None
Starts = str | Start | Sequence[str | Start] | Mapping[str, Start] | None
Metrics = str | AnyMetric | Sequence[str | AnyMetric] | Mapping[str, AnyMetric] | None
Array = NDArray[Any] | torch.Tensor


def _hinting(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with a hint in its error for a wrong keyword: "did you mean metrics?"."""
    known = inspect.signature(function).parameters

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                question = similar(name, known) or f"; it has {', '.join(known)}"
                raise TypeError(f"{function.__name__}() has no argument {name}{question}")
        return function(*args, **kwargs)

    return call


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained score model with its data set, schedule and grid; the result of `load` and `train`.

    Args:
        sweep: the objects of the run, and its grid of cells.
        losses: one row for each logged loss: step, name ("train", "validation") and loss.
        table: the values of the run so far; empty after `train`.
    """

    sweep: Sweep
    losses: pd.DataFrame
    table: pd.DataFrame

    def __repr__(self) -> str:
        models = ", ".join(self.denoisers)
        return f"Run({self.sweep.labels.dataset}: {models}; {len(self.table):,} values)"

    @property
    def dataset(self) -> Dataset:
        """The law."""
        return self.sweep.dataset

    @property
    def schedule(self) -> NoiseSchedule:
        """The path that the model was trained for."""
        return self.sweep.schedule

    @property
    def grid(self) -> Grid:
        """The levels for a number of steps: `run.grid(run.schedule, 10)`."""
        return self.sweep.grid

    @property
    def denoisers(self) -> Mapping[str, Score]:
        """The score models: learned, and oracle if the exact one is known."""
        return self.sweep.denoisers


class ByName(Protocol[T_co]):
    """Builds a member of a config group from its name and settings."""

    def __call__(self, name: str, **settings: object) -> T_co:
        """See the docstring of each function."""
        ...


def _by_name(group: str, example: str) -> ByName[Any]:
    """The function that builds a member of a group."""

    def build(name: str, **settings: object) -> Any:
        return _built(group, name, settings)

    build.__name__ = build.__qualname__ = group
    build.__doc__ = f"""A member of conf/{group}/ by the name of its yaml: `{example}`.

    Args:
        name: a name of `samplerbench list {group}`.
        settings: settings that replace those of the yaml. If a setting of a sampler is a list, such
            as η of ddim, the result is a list of samplers, which `sweep` accepts.

    Raises:
        InvalidSetting: there is no such member or setting.
    """
    return build


dataset: ByName[Dataset] = _by_name("dataset", 'dataset("grid_mixture", spacing=5.0)')
schedule: ByName[NoiseSchedule] = _by_name("schedule", 'schedule("edm", sigma_max=80.0)')
grid: ByName[Grid] = _by_name("grid", 'grid("karras", rho=7.0)')
sampler: ByName[Any] = _by_name("sampler", 'sampler("ddim", eta=[0, 1])')
start: ByName[Start] = _by_name("start", 'start("gaussian", std=3.0)')
metric: ByName[AnyMetric] = _by_name("metric", 'metric("sliced", directions=500)')


@_hinting
def check(kind: str, member: Any) -> pd.DataFrame:
    """Check whether a member keeps the contract of its kind: `check("dataset", MyRings())`.

    Args:
        kind: "dataset", "schedule", "network", …: a config group.
        member: a name of conf/KIND/, a class "package.Class", or an object. For a network it is a
            function of the seed, for an objective a function of the network (None for its own).

    Returns:
        One row per promise: promise, meaning, value ("kept", "broken" or a measured value), and
        fault, which is None for a kept promise.
    """
    from samplerbench.app.commands.examine import measurements, objects, promises, trust

    name = member if isinstance(member, str) else ""
    rows = []
    with trust(name):
        for one in objects(kind, name) if name else [member]:
            rows += measurements(one) if kind == "sampler" else []
            rows += promises(kind, one)
    return pd.DataFrame(rows)


@_hinting
def load(directory: str | Path, *, trusted: str | Sequence[str] = (), device: str = "cpu") -> Run:
    """A run of the command line, with its trained weights.

    Args:
        directory: the folder of the run: "multirun/2026-01-31_12-00-00_…".
        trusted: your packages, one or several, whose classes the config of the run may name.
        device: the device of the models.
    """
    from samplerbench.app.job.objects import stored_sweep

    require(isinstance(directory, str | PathLike), "run", directory, "the folder of a run")
    with _one_thread():
        return Run(*stored_sweep(Path(directory), trusted, device))


#: Groups of the config, besides objective and network, that a training uses.
_TRAINING_PARTS = ("trainer", "target", "level_law", "weighting")


@_hinting
def train(
    law: Dataset | str,
    *,
    objective: str = "edm",
    network: str | None = None,
    schedule: NoiseSchedule | str | None = None,
    steps: int | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    progress: bool | None = None,
) -> Run:
    """Train a score model in memory; no file is written.

    Args:
        law: a data set, or its name.
        objective: the name of a training loss; its yaml selects a target, weighting and so on.
        network: the name of a network; None for the network of the objective.
        schedule: the path, or its name; None for the path of the objective.
        steps: the number of steps of the optimiser; None for the trainer's.
        seed: the seed of data and training.
        settings: other keys of a job's config: {"trainer.lr": 1e-3, "objective.noise": 3.0}; also
            the names of its parts: {"trainer": "long", "level_law": "uniform"}.
        progress: whether to show a progress bar; None: only in a notebook or a terminal.

    Raises:
        RunFailed: the loss or the weights are not finite.
    """
    from samplerbench.app.config.compose import member_node
    from samplerbench.app.job.objects import trained_sweep

    words = [f"seed={_whole('seed', seed, 0)}"]
    changed = dict(settings or {})
    parts: list[tuple[str, object]] = [("objective", objective), ("network", network)]
    parts += [(group, changed.pop(group, None)) for group in _TRAINING_PARTS]
    for group, name in parts:
        if name is not None:
            require(isinstance(name, str), group, name, "the name of a member")
            member_node(group, str(name))  # refuses a wrong name
            words.append(f"{group}={name}")
    if steps is not None:
        changed["trainer.steps"] = _whole("steps", steps)
    path = schedule
    if isinstance(path, str):
        member_node("schedule", path)
        words.append(f"schedule={path}")
    given = None if path is None or isinstance(path, str) else (type(path).__name__, path)
    with _one_thread():
        law_by_name = _one("dataset", law, Dataset)
        bar = partial(_bar, "training", progress)
        sweep, losses = trained_sweep(law_by_name, given, words, changed, bar)
    return Run(sweep, losses, as_table([]))


@_hinting
def sweep(
    model: Run | Dataset | str,
    samplers: Samplers = None,
    *,
    steps: int | Sequence[int] | None = None,
    nfe: int | Sequence[int] | None = None,
    denoisers: Denoisers = None,
    starts: Starts = None,
    metrics: Metrics = None,
    schedule: NoiseSchedule | str | None = None,
    grid: Grid | str | None = None,
    final: str | None = None,
    n_samples: int | None = None,
    repetitions: int | None = None,
    floor_repetitions: int | None = None,
    chains: int = 0,
    seed: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run samplers and measure the distance of their samples to the data.

    If an argument is None, the setting of the run is used, or for a data set that of the main job.
    Samplers, starts and metrics are given as a list of names and objects, or as a mapping from
    names to objects; an object without a name gets the name of its class.

    Args:
        model: a run, or a data set (or its name), whose exact denoiser is then used.
        samplers: a name means all settings of its yaml: "ddim" is four samplers.
        steps: numbers of steps.
        nfe: bounds on the network evaluations, instead of steps: each sampler takes the largest
            number of steps within each bound.
        denoisers: names of denoisers of the run ("learned", "oracle"); "corrupted" and
            "autoguided", which change the exact denoiser by the settings of the main job; or your
            denoisers by name.
        starts: laws of the first state.
        metrics: distances to the data.
        schedule: the path; a run has its own.
        grid: the levels of the samplers.
        final: the end of a run: "denoise" (x̂₀), or "none", a normal step to the smallest σ > 0.
        n_samples: the number of samples per cell and repetition.
        repetitions: the number of independent sets of samples per cell.
        floor_repetitions: the number of sets of fresh draws, for the distance of a perfect sampler.
        chains: the number of chains of each Langevin sampler to examine, see docs/mcmc.md.
        seed: the seed of starts and noise, and of the draws of a data set.
        progress: whether to show a progress bar; None: only in a notebook or a terminal.

    Returns:
        One row per value, with the columns of `cells.parquet`. If a value could not be computed,
        its row has the reason, and a warning has the number of such rows.
    """
    with _one_thread():
        arranged = _arranged(
            _base(model, schedule, grid, seed, final),
            samplers,
            steps=steps,
            nfe=nfe,
            denoisers=denoisers,
            starts=starts,
            metrics=metrics,
            n_samples=n_samples,
            repetitions=repetitions,
            floor_repetitions=floor_repetitions,
        )
        if _whole("chains", chains, 0) > 0:
            require_chains(arranged, chains)
        total = sum(len(arranged.metrics_of(cell)) for cell in arranged.cells())
        with _bar("sweep", progress, total) as advance:
            done = count(1)
            rows = arranged.run(lambda _: advance(next(done)))
            rows += diagnose(arranged, chains) if chains else []
        table = as_table(map(asdict, rows))
    _warn_of_missing(table)
    return table


@dataclass(frozen=True, eq=False, repr=False)
class ErrorBudget:
    """The parts of the distances of a sweep; see docs/budget.md.

    Args:
        parts: one line per cell and part: mean, sd, the interval and so on.
        words: sentences about the dominant part, and what would reduce it.
        table: all values, one row each, as `sweep` returns them.
    """

    parts: pd.DataFrame
    words: Sequence[str]
    table: pd.DataFrame

    def __repr__(self) -> str:
        return "\n".join(self.words)

    def plot(self, metric: str | None = None) -> Figure:
        """The waterfalls of a metric; None for the first one."""
        from samplerbench.figures.budget import waterfall

        metrics = list(dict.fromkeys(self.parts["metric"]))
        allowed = f"one of {', '.join(metrics)}"
        require(metric is None or metric in metrics, "metric", metric, allowed)
        _show_figures()
        return waterfall(self.parts, metric or metrics[0])


@_hinting
def budget(
    model: Run | Dataset | str,
    samplers: Samplers = None,
    *,
    steps: int | Sequence[int] | None = None,
    nfe: int | Sequence[int] | None = None,
    denoisers: Denoisers = None,
    starts: Starts = None,
    metrics: Metrics = None,
    schedule: NoiseSchedule | str | None = None,
    grid: Grid | str | None = None,
    final: str | None = None,
    n_samples: int | None = None,
    repetitions: int | None = None,
    floor_repetitions: int | None = None,
    converged_steps: int = 400,
    tolerance: float = 0.05,
    seed: int | None = None,
    progress: bool | None = None,
) -> ErrorBudget:
    """The parts of the distances: floor, start, discretisation and score; see docs/budget.md.

    Other arguments are those of `sweep`.

    Args:
        denoisers: as in `sweep`, with "oracle" among them.
        starts: an exact start, and at most one other.
        final: as in `sweep`; "none" adds the part truncation.
        repetitions: as in `sweep`, at least 2.
        converged_steps: the number of steps of the converged runs.
        tolerance: the largest relative change of the distance when that number is doubled.
    """
    from samplerbench.bench.budget.parts import parts
    from samplerbench.bench.budget.run import Budget
    from samplerbench.bench.budget.words import verdict

    with _one_thread():
        arranged = _arranged(
            _base(model, schedule, grid, seed, final),
            samplers,
            steps=steps,
            nfe=nfe,
            denoisers=denoisers,
            starts=starts,
            metrics=metrics,
            n_samples=n_samples,
            repetitions=repetitions,
            floor_repetitions=floor_repetitions,
        )
        whole = Budget(arranged, _whole("converged_steps", converged_steps), tolerance)
        with _bar("budget", progress, whole.row_count()) as advance:
            done = count(1)
            table = as_table(map(asdict, whole.run(lambda _: advance(next(done)))))
        _warn_of_missing(table)
        return ErrorBudget(parts(table, converged_steps), verdict(whole, table), table)


@_hinting
def recommend(
    model: Run | Dataset | str,
    nfe: int,
    samplers: Samplers = None,
    *,
    grids: str | Sequence[str] | Mapping[str, Grid] | None = None,
    denoiser: str | Score | None = None,
    start: str | Start | None = None,
    schedule: NoiseSchedule | str | None = None,
    final: str | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> Recommendation:
    """The best sampler on the best grid for a number of evaluations, as in the command `recommend`.

    It is compared with a default: the first sampler of the run on the grid of the run. Other
    arguments are those of `sweep`.

    Args:
        nfe: the largest number of evaluations.
        samplers: as in `sweep`; None for all members.
        grids: names, or functions by name; None for all members.
        denoiser: the name of a denoiser of the run, or your own; None for the first of the run.
        start: the law of the first state; None for the first start of the run.
        seed: the seed of starts and noise.
    """
    from samplerbench.app.config.compose import sampler_settings
    from samplerbench.app.job.racing import racing_grids, racing_samplers, recommended

    nfe = _whole("nfe", nfe)
    with _one_thread():
        base = _base(model, schedule, None, seed, final)
        own = {type(denoiser).__name__: denoiser} if isinstance(denoiser, Score) else denoiser
        base = _with_denoisers(base, own)
        _require_some(base)
        if start is not None:
            base = replace(base, starts=dict([_one("start", start, Start)]))
        given = racing_samplers(base)
        if samplers is not None:
            given = _several("sampler", samplers, Sampler, sampler_settings)
        if grids is None or not isinstance(grids, Mapping):
            levels = racing_grids(base, [grids] if isinstance(grids, str) else grids)
        else:
            for name, grid in grids.items():
                require(callable(grid), f"grids.{name}", grid, "a function of schedule and steps")
            levels = dict(grids)
        bar = partial(_bar, "racing", progress)
        return recommended(base, nfe, samplers=given, levels=levels, progress=bar)


@_hinting
def score(
    samples: Array | str | Path | Mapping[str, Array | str | Path],
    data: Run | Dataset | Array | str | Path,
    *,
    metrics: Metrics = None,
    layout: str | Mapping[str, str] | None = None,
    array: str | None = None,
    columns: str | None = None,
    n_reference: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The distance of samples from any source to data, with its floor, as in the command `score`.

    Args:
        samples: an array of shape (n, dim), a file or a folder as in the command; or a mapping
            from names to several of these, which are also compared with each other.
        data: a data set or its name, a run with that data set, or the data themselves: an array of
            shape (m, dim), a file or a folder, as `reference=` of the command.
        layout: the layout of Markov chains: "draw", "chain,draw" or "draw,chain"; or a mapping
            from the names of the samples that are chains to their layouts.
        array: the name of one of several arrays in `.npz` or `.pt` files.
        columns: names of some columns of files with tables, with commas between them.
        n_reference: the number of points that represent a data set.
        seed: the seed of all random numbers.

    Returns:
        One row per set of samples and per pair of them, with the columns of the command's `out=`:
        see `bench.scoring.Line`. The column `kind` is distance or difference; in the row of a
        difference, `minus` is the name of the nearer set.
    """
    from samplerbench.app.commands.score import read_clouds, read_samples, typed_as
    from samplerbench.app.config.compose import compose_config
    from samplerbench.app.config.folders import member_files
    from samplerbench.app.config.groups import chosen_members
    from samplerbench.bench.scoring import (
        Cloud,
        differences,
        distances,
        reference_size,
        require_fits,
        table_of,
        truths,
    )

    with _one_thread():
        config, _ = compose_config([])
        size = config.n_reference if n_reference is None else _points("n_reference", n_reference)
        chosen = chosen_members(config, "metric")
        if metrics is not None:
            chosen = _unique("metric", metrics, AnyMetric)
        if isinstance(data, str) and data not in member_files("dataset"):
            data = Path(data) if os.path.exists(expanded(data)) else data
        if isinstance(data, Path | np.ndarray | torch.Tensor):
            name = str(data) if isinstance(data, Path) else "data"
            allowed = f"left out beside {name}: samples are compared with its points"
            require(n_reference is None, "n_reference", n_reference, allowed)
            with typed_as(""):
                if isinstance(data, Path):
                    points, shape = read_samples(name)
                    require_upright(points, name)
                else:
                    points, shape = as_points(np.asarray(data), name), None
            dependence = Cloud(points).dependence
            if dependence:
                warn(f"{name}: {dependence}, so the floor is too low; thin them")
            found = truths(points, name, chosen, size, _whole("seed", seed, 0))
        else:
            if isinstance(data, Run):
                name, law = data.sweep.labels.dataset, data.dataset
            else:
                name, law = _one("dataset", data, Dataset)
            shape = law.event_shape
            if n_reference is None:
                size = reference_size(law, size)
            found = truths(law, name, chosen, size, _whole("seed", seed, 0))
        clouds: dict[str, Cloud] = {}
        chosen_of_files = (("array", array), ("columns", columns))
        reading = {key: value for key, value in chosen_of_files if value is not None}
        named = samples if isinstance(samples, Mapping) else {"samples": samples}
        layouts = layout if isinstance(layout, Mapping) else dict.fromkeys(named, layout)
        for name in layouts:
            require(name in named, "layout", name, f"one of the samples {', '.join(named)}")
        for name, one in named.items():
            own = layouts.get(name)
            if isinstance(one, str | PathLike):
                with typed_as(name):
                    of_file = read_clouds(str(one), shape, layout=own, **reading)
                (clouds[name],) = of_file.values()
                continue
            for key, value in reading.items():
                require(False, key, value, f"left out: {name} is an array, not a file")
            with typed_as(""):
                if own is None:
                    clouds[name] = Cloud(as_points(np.asarray(one), name))
                else:
                    clouds[name] = Cloud.of_chains(as_chains(np.asarray(one), own, name), name)
        for truth in found:
            require_fits(clouds, truth)
        for name, cloud in clouds.items():
            if cloud.other_layout:
                warn(f"{name}: {cloud.other_layout}")
            if cloud.chains is None and cloud.lag:
                axes, of_chains = cloud.layout
                warn(f"{name}: {cloud.dependence}; layout={axes!r} for {of_chains}")
        measured = (distances, differences)
        lines = [line for truth in found for measure in measured for line in measure(clouds, truth)]
    return table_of(lines)


@_hinting
def sample(
    model: Run | Dataset | str,
    sampler: str | Sampler,
    *,
    steps: int,
    n: int = 1000,
    every: int | None = None,
    denoiser: str | Score | None = None,
    start: str | Start | None = None,
    schedule: NoiseSchedule | str | None = None,
    grid: Grid | str | None = None,
    final: str | None = None,
    seed: int | None = None,
) -> NDArray[np.floating]:
    """Samples, the same as in the first repetition of a sweep; sample i does not depend on n.

    Other arguments are those of `sweep`.

    Args:
        sampler: an object, or the name of a member with a single setting.
        steps: the number of steps.
        n: the number of samples.
        every: k, to return the states after 0, k, 2k, … steps and after the last one.
        denoiser: the name of a denoiser of the run, or your own; None for the first of the run.
        start: the law of the first state; None for the first start of the run.

    Returns:
        Shape (n, dim), or (frames, n, dim) with `every`.
    """
    n, steps = _points("n", n), _whole("steps", steps)
    every = None if every is None else _whole("every", every)
    with _one_thread():
        base = _base(model, schedule, grid, seed, final)
        name, method = _one("sampler", sampler, Sampler)
        own = {type(denoiser).__name__: denoiser} if isinstance(denoiser, Score) else denoiser
        base = _with_denoisers(base, own)
        _require_some(base)
        starts = base.starts if start is None else dict([_one("start", start, Start)])
        one = replace(base, starts=starts, samplers=[(name, method)], n_samples=n)
        one = designed(fitted(replace(one, steps=[steps]))[0])[0]
        first = next(iter(one.starts_of(method)))
        cell = Cell(next(iter(one.denoisers)), first, name, method, steps, 0)
        require_runs(one, cell)
        array = torch.empty(shape_of(one, cell, every), dtype=one.dtype).numpy()
        result = sample_into(array, one, cell, every)
    if result.bad:
        warn(f"{result.bad} of {n} samples are not finite")
    return array


@dataclass(frozen=True, eq=False, repr=False)
class Designs:
    """Designed grids; the result of `design`.

    Args:
        designs: one for each sampler and number of steps.
        carried: the comparisons of each design on other denoisers, data and samplers.
        schedule: the path.
    """

    designs: Sequence[Designed]
    carried: Sequence[Carried]
    schedule: NoiseSchedule

    @property
    def table(self) -> pd.DataFrame:
        """One line per design: the best standard grid, the designed grid, the gain, the levels."""
        columns = [
            *("sampler", "settings", "steps", "nfe", "grid", "standard", "standard_value"),
            *("designed_value", "gain", "lower", "upper", "candidates", "evaluations", "ratios"),
        ]
        return pd.DataFrame([asdict(one) for one in self.designs])[columns]

    @property
    def carried_table(self) -> pd.DataFrame:
        """One line per comparison of `carried`: the standard grid, the designed grid, the gain."""
        return pd.DataFrame([asdict(one) for one in self.carried])

    def export(self) -> list[dict[str, Any]]:
        """For each design the words of a job (grid=custom) and the lists for diffusers."""
        from samplerbench.bench.exported_grids import exported

        return [exported(one, self.schedule) for one in self.designs]

    def __repr__(self) -> str:
        lines = [
            f"{one.name}: {one.standard} {one.standard_value:.3g}, designed "
            f"{one.designed_value:.3g} {one.unit}, {one.gain:.3g} times better "
            f"({one.lower:.3g} to {one.upper:.3g}): {one.verdict}"
            for one in self.designs
        ]
        return "\n".join(lines)


@_hinting
def design(
    model: Run | Dataset | str,
    samplers: Samplers,
    *,
    steps: int | Sequence[int] | None = None,
    nfe: int | Sequence[int] | None = None,
    criterion: str = "paired",
    denoisers: Denoisers = None,
    starts: Starts = None,
    schedule: NoiseSchedule | str | None = None,
    final: str | None = None,
    carry: Sequence[str | Dataset] = (),
    eta: float | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
) -> Designs:
    """Design the best noise levels for samplers at numbers of steps; see docs/grids.md.

    Other arguments are those of `sweep`.

    Args:
        samplers: as in `sweep`, without noise for the criteria paired and kl.
        criterion: "paired", "kl" or "spectrum".
        denoisers: as in `sweep`; the levels are designed for the first one, and also measured on
            the others.
        starts: as in `sweep`; the first one is used.
        carry: other data sets, on which each design is measured too.
        eta: η of runs with noise, on which the designs of a sampler with η = 0 are measured too;
            None is 0.5.
        seed: the seed of the starts of the design.
        settings: other settings of grid=designed, such as {"budget": 500}.
    """
    chosen = {"criterion": criterion, "seed": _whole("seed", seed, 0), **(settings or {})}
    recipe = _built("grid", "designed", chosen)
    with _one_thread():
        base = _base(model, schedule, None, None, final)
        sweep = _checked(
            replace(base, grid=recipe, own_grids=(), metrics={}),
            samplers,
            steps=steps,
            nfe=nfe,
            denoisers=denoisers,
            starts=starts,
        )
        require_each_designed(sweep)
        laws = dict(_one("dataset", law, Dataset) for law in carry)
        require_carried(sweep, laws, eta)
        _, done = designed(sweep)
        return Designs(done, carried(sweep, recipe, done, laws, eta), sweep.schedule)


@_hinting
def levels(
    model: Run | Dataset | str,
    steps: int,
    *,
    schedule: NoiseSchedule | str | None = None,
    grid: Grid | str | None = None,
) -> pd.DataFrame:
    """The noise levels of a grid; a recipe is fitted first. See docs/grids.md.

    Args:
        model: a run, or a data set (or its name), whose exact denoiser is then used.
        steps: the number of steps, N.
        schedule: the path; a run has its own.
        grid: the name of a grid, or a function of schedule and steps; None for the run's grid.

    Returns:
        N + 1 rows: t, alpha, sigma and noise_to_signal, σ/α. `attrs["fit"]` has the cost of the
        fit in one line; it is empty for other grids.
    """
    with _one_thread():
        base, fit = fitted(_base(model, schedule, grid, None, None))
        rows = base.levels(_whole("steps", steps))
    found = {"t": rows.t, "alpha": rows.alpha, "sigma": rows.sigma}
    table = pd.DataFrame({name: values.numpy() for name, values in found.items()})
    table["noise_to_signal"] = table["sigma"] / table["alpha"]
    table.attrs["fit"] = "" if fit is None else fit.line
    return table


@_hinting
def plot(
    table: pd.DataFrame,
    *,
    metric: str | None = None,
    x: str = "steps",
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """The distance to the data against the number of steps, with the floor and with intervals.

    Args:
        table: the table of `sweep`, or of a run.
        metric: the name of a metric in the table; None for the first one.
        x: "steps"; "nfe", the counted evaluations, for a comparison at equal cost; "rounds", the
            sequential evaluations; or, at one number of steps, the numeric setting of the sampler
            in which the cells differ.
        ax: your axes to draw into, one for each start; None for a new figure. The last one gets
            the legend, above the curves. Points of one number of steps are side by side.

    Returns:
        A matplotlib figure; a notebook shows it as the last value of a cell.
    """
    rows = _of_cells(table)
    metrics = list(dict.fromkeys(rows.loc[rows["denoiser"] != "law", "metric"]))
    allowed = f"one of {', '.join(metrics)}" if metrics else "a table with values"
    require(bool(metrics) and (metric is None or metric in metrics), "metric", metric, allowed)
    metric = metrics[0] if metric is None else metric
    setting = statistics.varied_setting(rows[rows["metric"] == metric])
    known = [*X_TITLES, *([] if setting is None else [setting])]
    require(x in known, "x", x, " or ".join(known))
    _show_figures()
    axes: list[Axes] = [] if ax is None else list(np.ravel(np.asarray(ax, dtype=object)))
    if x == setting:
        require(not axes, "ax", f"{len(axes)} axes", f"None with x={setting}")
        return setting_figure(rows, metric, x)
    return distance_against(rows, metric, x, axes)


@_hinting
def summary(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """One line per cell: mean, deviation and Student's interval over its repetitions.

    `lost` is the number of repetitions without a value; the mean is over the other repetitions.

    Args:
        table: the table of `sweep`, or of a run; several tables may be concatenated.
        level: the level of the intervals.
    """
    require(0 < level < 1, "level", level, "between 0 and 1")
    return statistics.summary(_of_cells(table), level)


def _of_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells, without those of error budgets and chains."""
    columns = {field.name for field in fields(Row)}
    whole = isinstance(table, pd.DataFrame) and columns <= set(table.columns)
    require(whole, "table", type(table).__name__, "a table of sweep, or of a run")
    return to_data(table)


def _arranged(base: Sweep, samplers: Samplers, **given: Any) -> Sweep:
    """The sweep of `_checked`; if its grid is a recipe, the levels are fitted or designed."""
    return designed(fitted(_checked(base, samplers, **given))[0])[0]


def _checked(
    base: Sweep,
    samplers: Samplers,
    *,
    steps: int | Sequence[int] | None,
    nfe: int | Sequence[int] | None,
    denoisers: Denoisers,
    starts: Starts,
    metrics: Metrics = None,
    n_samples: int | None = None,
    repetitions: int | None = None,
    floor_repetitions: int | None = None,
) -> Sweep:
    """The checked sweep with the settings of `sweep`'s arguments; None changes nothing."""
    from samplerbench.app.config.compose import sampler_settings
    from samplerbench.app.job.objects import warn_of_mismatch
    from samplerbench.app.job.refusals import check

    given: dict[str, Any] = {
        name: _whole(name, value, least)
        for name, value, least in (
            ("repetitions", repetitions, 1),
            ("floor_repetitions", floor_repetitions, 0),
        )
        if value is not None
    }
    if n_samples is not None:
        given["n_samples"] = _points("n_samples", n_samples)
    if steps is not None or nfe is not None:
        require(steps is None or nfe is None, "steps", steps, "None where nfe is given")
        given["nfe"] = _whole_numbers("nfe", nfe)
        # steps are not used then
        given["steps"] = _whole_numbers("steps", steps) or given["nfe"]
    if samplers is not None:
        given["samplers"] = _several("sampler", samplers, Sampler, sampler_settings)
    if starts is not None:
        given["starts"] = _unique("start", starts, Start)
    if metrics is not None:
        given["metrics"] = _unique("metric", metrics, AnyMetric)
    changed = replace(_with_denoisers(base, denoisers), **given)
    _require_some(changed)
    check(changed)
    warn_of_mismatch(changed)
    return changed


def _warn_of_missing(table: pd.DataFrame) -> None:
    bad = table[table["status"] != "ok"]
    if len(bad):
        warn(f"{len(bad)} of {len(table)} values: {bad['message'].iloc[0]}")


@contextmanager
def _bar(label: str, shown: bool | None, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; yields a function that gets the number of finished units."""
    from tqdm.auto import tqdm  # a widget in a notebook

    if shown is None:
        shown = sys.stderr.isatty() or _shell() is not None
    with tqdm(total=total, desc=label, disable=not shown, leave=False) as bar:
        yield lambda done: bar.update(done - bar.n)


def _built(group: str, name: str, settings: Mapping[str, object]) -> Any:
    from samplerbench.app.config.compose import make_member
    from samplerbench.app.config.groups import title_of_data

    members = make_member(group, name, settings)
    name = title_of_data(name, settings) if group == "dataset" else name
    for member in members if isinstance(members, list) else [members]:
        if is_dataclass(member):  # tables use the same name as the command
            object.__setattr__(member, _NAME, name)
    return members


def _base(
    model: Run | Dataset | str,
    schedule: NoiseSchedule | str | None,
    grid: Grid | str | None,
    seed: int | None,
    final: str | None,
) -> Sweep:
    """The sweep of a run, or for a data set the sweep of the main job with these data."""
    if isinstance(model, Run):
        allowed = "left out: a run has the one that it was trained for"
        require(schedule is None, "schedule", schedule, allowed)
        base = model.sweep
        if seed is not None:
            base = replace(base, seed=_whole("seed", seed, 0))
    else:
        from samplerbench.app.job.objects import exact_sweep

        path = None if schedule is None else _one("schedule", schedule, NoiseSchedule)
        words = [] if seed is None else [f"seed={_whole('seed', seed, 0)}"]
        base = exact_sweep(_one("dataset", model, Dataset), path, words)
    if final is not None:
        base = replace(base, final=final)
    if grid is None:
        return base
    allowed = "a name, or a function of schedule and steps"
    require(isinstance(grid, str) or callable(grid), "grid", grid, allowed)
    function = getattr(grid, "func", grid)
    name = grid if isinstance(grid, str) else getattr(function, "__name__", type(grid).__name__)
    levels: Grid = _built("grid", grid, {}) if isinstance(grid, str) else grid
    named = replace(base.labels, grid=name)
    return replace(base, grid=levels, labels=named, own_grids=())


def _one(group: str, given: str | T, kind: Any) -> tuple[str, T]:
    """The name of a member (or of an object's class), and the object."""
    if isinstance(given, str):
        member = _built(group, given, {})
        allowed = f"one of the samplers that it is, as in sb.sampler({given!r}, eta=1.0)"
        require(not isinstance(member, list), group, given, allowed)
        return given, member
    kinds = " or ".join(one.__name__ for one in get_args(kind) or (kind,))
    require(isinstance(given, kind), group, given, f"a name, or a {kinds}")
    try:
        describe(given)
    except TypeError as error:
        allowed = "a frozen dataclass, whose fields are its settings"
        raise InvalidSetting(group, type(given).__name__, f"{allowed} ({error})") from error
    return getattr(given, _NAME, type(given).__name__), given


def _several(
    group: str, given: Any, kind: Any, settings: Callable[[str], Sequence[Any]]
) -> list[tuple[str, Any]]:
    """(name, object) pairs from a name, an object, a list of them, or a mapping."""

    def listed(things: Any) -> list[Any]:
        return list(things) if isinstance(things, list | tuple) else [things]

    if isinstance(given, Mapping):
        named = [(str(name), one) for name, things in given.items() for one in listed(things)]
        return [(name, _one(group, one, kind)[1]) for name, one in named]
    pairs: list[tuple[str, Any]] = []
    for thing in [one for things in listed(given) for one in listed(things)]:
        if isinstance(thing, str):
            pairs += [(thing, one) for one in settings(thing)]
        else:
            pairs.append(_one(group, thing, kind))
    texts = [(name, str(describe(thing))) for name, thing in pairs]
    allowed = "at least one, and none twice; a mapping gives them names"
    require(0 < len(pairs) == len(set(texts)), group, [name for name, _ in pairs], allowed)
    return pairs


def _unique(group: str, given: Any, kind: Any) -> dict[str, Any]:
    """Like `_several`, for groups whose members have one setting each."""
    pairs = _several(group, given, kind, lambda name: [_built(group, name, {})])
    names = [name for name, _ in pairs]
    allowed = "of different names; a mapping gives them"
    require(len(names) == len(set(names)), group, names, allowed)
    return dict(pairs)


def _with_denoisers(base: Sweep, given: str | Sequence[str] | Mapping[str, Score] | None) -> Sweep:
    """The sweep with some of its denoisers, or with the user's denoisers.

    A user's denoiser must have the path of the sweep. Its identity depends only on its content.
    """
    if given is None:
        return base
    if isinstance(given, Mapping):
        for name, model in given.items():
            require(isinstance(model, Score), f"denoiser.{name}", model, "a Score or Denoiser")
            taken = name in KINDS and base.denoisers.get(name) is not model
            allowed = f"under another name: this package uses {', '.join(KINDS)} itself"
            require(not taken, f"denoiser.{name}", type(model).__name__, allowed)
            if isinstance(model, Denoiser):
                own, allowed = model.schedule, f"{base.schedule}: or give schedule=its own"
                require(own == base.schedule, f"denoiser.{name}.schedule", own, allowed)
            _require_states(base, f"denoiser.{name}", model)
        origins = {name: base.origins[name] for name in given if name in base.origins}
        return replace(base, denoisers=dict(given), origins=origins)
    models, origins = dict(base.denoisers), dict(base.origins)
    oracle = None if "oracle" in models else base.dataset.exact_score(base.schedule)
    if oracle is not None:
        models["oracle"], origins["oracle"] = oracle.to(base.device), Origin("oracle")
    listed = isinstance(given, str | Sequence)
    require(listed, "denoiser", given, "a name, a list of names, or a mapping to models")
    names = [given] if isinstance(given, str) else list(given)
    require(len(set(names)) == len(names) > 0, "denoiser", names, "at least one, and none twice")
    known = dict.fromkeys([*models, *(_BY_NAME if oracle or "oracle" in models else ())])
    for name in names:
        require(name in known, "denoiser", name, f"one of {', '.join(known) or 'none here'}")
        if name not in models:
            from samplerbench.app.job.objects import altered_denoiser

            models[name], origins[name] = altered_denoiser(base, name)
    return replace(base, denoisers={name: models[name] for name in names}, origins=origins)


@torch.no_grad()
def _require_states(base: Sweep, name: str, model: Score) -> None:
    """Refuse a model whose output for two states does not have their shape."""
    dim = base.dataset.dim
    x = torch.zeros(2, dim, dtype=base.dtype, device=base.device)
    time = torch.tensor(0.5, dtype=torch.float64)
    level = Level(0.5, *(float(scale) for scale in base.schedule(time)))
    try:
        out = (model.denoiser if isinstance(model, Denoiser) else model.score)(x, level)
        found = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        fault = "" if found == (2, dim) else f"it makes {found}"
    except Exception as error:
        fault = kind_and_line(error)
    allowed = f"one that maps states (n, {dim}) to (n, {dim}), in torch: {fault}"
    require(not fault, name, type(model).__name__, allowed)


def _require_some(sweep: Sweep) -> None:
    allowed = f"given: the law of {sweep.labels.dataset} is not known; or train a model"
    require(len(sweep.denoisers) > 0, "denoiser", None, allowed)


def _points(name: str, value: object) -> int:
    """A number of points that fit into the memory of this machine."""
    from samplerbench.app.config.numbers import ROW, memory

    number, most = _whole(name, value), memory() // ROW
    require(number <= most, name, number, f"at most {most:,}: the memory cannot hold more points")
    return number


def _whole(name: str, value: object, least: int = 1) -> int:
    """An integer of Python or NumPy."""
    allowed = f"a whole number, at least {least}"
    try:
        number = index(value)  # type: ignore[arg-type]  # raises an error if it is not an integer
    except TypeError as error:
        raise InvalidSetting(name, value, allowed) from error
    require(number >= least and not isinstance(value, bool), name, value, allowed)
    return number


def _whole_numbers(name: str, values: int | Sequence[int] | None) -> list[int]:
    listed = np.atleast_1d(np.array([] if values is None else values, dtype=object)).tolist()
    numbers = [_whole(name, value) for value in listed]
    require(len(set(numbers)) == len(numbers), name, values, "whole numbers, none twice")
    return numbers


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per operation, as in jobs: the number of threads is part of an identity."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show_figures() -> None:
    """Make a notebook show every figure of matplotlib; by default it shows only pyplot's."""
    shell = _shell()
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["image/png"]
    try:
        formatter.lookup_by_type(Figure)  # raises KeyError if this was not done before
    except KeyError:
        formatter.for_type(Figure, _png)


def _shell() -> Any:
    """IPython's shell, of a notebook or a terminal; None in a script."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    with mpl.rc_context(styled()):
        figure.savefig(buffer, format="png", dpi="figure")
    return buffer.getvalue()
