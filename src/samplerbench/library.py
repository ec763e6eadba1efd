"""samplerbench in a script or a notebook: a few lines from import to a curve.

    import samplerbench as sb

    law = sb.dataset("grid_mixture")
    table = sb.sweep(law, ["ddim", "heun", MySampler()], steps=[4, 8, 16])
    sb.plot(table)

What stands here is in the package itself too. A member of a config group is named as there
(`samplerbench list`), or given as an object of yours: a frozen dataclass that derives from
`Sampler`, `Dataset`, `NoiseSchedule`, `Start` or `Metric`. What is not given is what the config of
the main job says, so the numbers are those of the command line, bit for bit. `sweep` returns the
table of `cells.parquet`, one row per value (see `bench.store.Row`), which `ranking` and the
functions of `bench.statistics` read.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from io import BytesIO
from operator import index
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from samplerbench.bench.cell import KINDS, Cell, Origin, Row
from samplerbench.bench.chains import diagnose, require_chains
from samplerbench.bench.sampling import require_runs, sample_into, shape_of
from samplerbench.bench.store import as_table, to_data
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import Grid
from samplerbench.core.models import Denoiser, Score
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.core.starts import Start
from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting, require
from samplerbench.figures.distance import distance_against
from samplerbench.figures.style import styled
from samplerbench.identity import describe
from samplerbench.metrics.base import LawMetric, Metric
from samplerbench.samplers.base import Sampler

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Run:
    """A trained score model with all that it was trained for: what `load` and `train` return.

    Args:
        sweep: its objects, and the grid of cells that it is measured on.
        losses: one row for each logged loss: step, name ("train", "validation") and loss.
        table: the values that the run has so far; none after `train`.
    """

    sweep: Sweep
    losses: pd.DataFrame
    table: pd.DataFrame

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
        """Makes the levels for a number of steps: `run.grid(run.schedule, 10)`."""
        return self.sweep.grid

    @property
    def denoisers(self) -> Mapping[str, Score]:
        """The score models: learned, and oracle where the exact one is known."""
        return self.sweep.denoisers


def dataset(name: str, **settings: object) -> Dataset:
    """A data set by the name of its yaml: `dataset("grid_mixture", spacing=5.0)`.

    Args:
        name: see `samplerbench list datasets`.
        settings: of its yaml, where they are to be different.

    Raises:
        InvalidSetting: there is no such data set or setting.
    """
    law: Dataset = _made("dataset", name, settings)
    return law


def schedule(name: str, **settings: object) -> NoiseSchedule:
    """A noise schedule by the name of its yaml: `schedule("edm", sigma_max=80.0)`.

    Args:
        name: see `samplerbench list schedules`.
        settings: of its yaml, where they are to be different.

    Raises:
        InvalidSetting: there is no such schedule or setting.
    """
    path: NoiseSchedule = _made("schedule", name, settings)
    return path


def grid(name: str, **settings: object) -> Grid:
    """A grid by the name of its yaml: `grid("karras", rho=7.0)`.

    Args:
        name: see `samplerbench list grids`.
        settings: of its yaml, where they are to be different.

    Raises:
        InvalidSetting: there is no such grid or setting.
    """
    levels: Grid = _made("grid", name, settings)
    return levels


def sampler(name: str, **settings: object) -> Sampler:
    """A sampler by the name of its yaml: `sampler("ddim", eta=0.5)`.

    Args:
        name: see `samplerbench list samplers`.
        settings: of its yaml, where they are to be different. A list there, such as ddim's η, is
            several samplers, and has to be given here as one value.

    Raises:
        InvalidSetting: there is no such sampler or setting.
    """
    method: Sampler = _made("sampler", name, settings)
    return method


def start(name: str, **settings: object) -> Start:
    """A start by the name of its yaml: `start("gaussian", std=3.0)`.

    Args:
        name: see `samplerbench list starts`.
        settings: of its yaml, where they are to be different.

    Raises:
        InvalidSetting: there is no such start or setting.
    """
    law: Start = _made("start", name, settings)
    return law


def metric(name: str, **settings: object) -> Metric | LawMetric:
    """A metric by the name of its yaml: `metric("sliced", directions=500)`.

    Args:
        name: see `samplerbench list metrics`.
        settings: of its yaml, where they are to be different.

    Raises:
        InvalidSetting: there is no such metric or setting.
    """
    distance: Metric | LawMetric = _made("metric", name, settings)
    return distance


def load(directory: str | Path, *, trusted: str | Sequence[str] = (), device: str = "cpu") -> Run:
    """A run that the command line left, with its trained weights.

    Args:
        directory: of the run: "multirun/2026-01-31_12-00-00_…".
        trusted: packages of your own, one or several, whose classes its config may name.
        device: where the models are put.

    Raises:
        InvalidSetting: it holds no run, or one that is broken or cannot be built here.
    """
    from samplerbench.app.job.objects import stored

    require(isinstance(directory, str | PathLike), "run", directory, "the folder of a run")
    with _one_thread():
        return Run(*stored(Path(directory), trusted, device))


def train(
    law: Dataset | str,
    *,
    objective: str = "edm",
    network: str | None = None,
    schedule: NoiseSchedule | str | None = None,
    steps: int | None = None,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
) -> Run:
    """Train a score model here and now; nothing is left on the disk.

    Args:
        law: a data set, or its name.
        objective: the name of a training loss. It brings what belongs to it, such as its target.
        network: the name of one; None for the objective's own.
        schedule: the path, or its name; None for the objective's own.
        steps: of the optimiser; None for the recipe's own.
        seed: of data and training.
        settings: other keys of a job's config: {"trainer.lr": 1e-3, "objective.noise": 3.0}.

    Raises:
        InvalidSetting: before the training, if something cannot be trained so.
        RunFailed: the loss or the weights are no longer finite.
    """
    from samplerbench.app.config.compose import member
    from samplerbench.app.job.objects import trained

    words = [f"seed={_whole('seed', seed, 0)}"]
    for group, name in (("objective", objective), ("network", network)):
        if name is not None:
            member(group, name)  # which says what there is
            words.append(f"{group}={name}")
    changed = dict(settings or {})
    if steps is not None:
        changed["trainer.steps"] = _whole("steps", steps)
    path = schedule
    if isinstance(path, str):
        member("schedule", path)
        words.append(f"schedule={path}")
    given = None if path is None or isinstance(path, str) else (type(path).__name__, path)
    with _one_thread():
        sweep, losses = trained(_one("dataset", law, Dataset), given, words, changed)
    return Run(sweep, losses, as_table([]))


def sweep(
    model: Run | Dataset | str,
    samplers: str | Sampler | Sequence[str | Sampler] | Mapping[str, Sampler] | None = None,
    *,
    steps: int | Sequence[int] | None = None,
    nfe: int | Sequence[int] | None = None,
    denoisers: str | Sequence[str] | Mapping[str, Score] | None = None,
    starts: str | Start | Sequence[str | Start] | Mapping[str, Start] | None = None,
    metrics: str
    | Metric
    | LawMetric
    | Sequence[str | Metric | LawMetric]
    | Mapping[str, Metric | LawMetric]
    | None = None,
    schedule: NoiseSchedule | str | None = None,
    grid: Grid | str | None = None,
    n_samples: int | None = None,
    repetitions: int | None = None,
    floor_repetitions: int | None = None,
    chains: int = 0,
    seed: int | None = None,
) -> pd.DataFrame:
    """Run samplers and measure how far their samples are from the data.

    What is None is what the run has; on a data set, what the main job has. Where several can be
    given, a list may hold names of members and objects of yours, and a mapping gives objects the
    names that they have in the table, which is otherwise that of their class.

    Args:
        model: a run, or a data set (or its name), whose exact denoiser is then sampled from.
        samplers: names bring the settings of their yaml, where a list is a grid: "ddim" is four.
        steps: numbers of steps.
        nfe: instead, numbers of network evaluations: each sampler takes the most steps that need
            no more.
        denoisers: which of the run's ("learned", "oracle"), or denoisers of your own by name.
        starts: laws of the first state.
        metrics: distances to the data.
        schedule: the path; a run has its own.
        grid: where on the path a sampler stops.
        n_samples: per cell and repetition.
        repetitions: independent sets of samples per cell.
        floor_repetitions: sets of fresh draws, which show what a perfect sampler would.
        chains: how many of each Langevin sampler are examined for mixing, see docs/mcmc.md.
        seed: of starts and noise; on a data set, also of its draws.

    Returns:
        One row per value, with the columns of `cells.parquet`. A value that could not be had has
        the reason in its row; a warning says how many.

    Raises:
        InvalidSetting: before any work, if something cannot be run so.
    """
    from samplerbench.app.config.compose import sampler_settings
    from samplerbench.app.job.refusals import check

    with _one_thread():
        base = _base(model, schedule, grid, seed)
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
            given["nfe"] = _numbers("nfe", nfe)
            given["steps"] = _numbers("steps", steps) or given["nfe"]  # then not used as steps
        if samplers is not None:
            given["samplers"] = _several("sampler", samplers, Sampler, sampler_settings)
        if starts is not None:
            given["starts"] = _unique("start", starts, Start)
        if metrics is not None:
            given["metrics"] = _unique("metric", metrics, (Metric, LawMetric))
        changed = replace(_with_denoisers(base, denoisers), **given)
        _require_some(changed)
        check(changed)
        if _whole("chains", chains, 0) > 0:
            require_chains(changed, chains)
        examined = diagnose(changed, chains) if chains else []
        table = as_table(asdict(row) for row in [*changed.run(), *examined])
    bad = table[table["status"] != "ok"]
    if len(bad):
        warnings.warn(f"{len(bad)} of {len(table)} values: {bad['message'].iloc[0]}", stacklevel=2)
    return table


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
    seed: int | None = None,
) -> NDArray[np.floating]:
    """Samples, the same ones as those of a sweep's first repetition; sample i does not depend on n.

    Args:
        model: a run, or a data set (or its name), whose exact denoiser is then sampled from.
        sampler: an object, or the name of a member that has one setting.
        steps: how many.
        n: how many samples.
        every: k, to keep the way: the states after 0, k, 2k, … steps and after the last one.
        denoiser: which of the run's, or one of your own; None is the learned one if there is one.
        start: the law of the first state; None is the first of the run's.
        schedule: the path; a run has its own.
        grid: where on the path the sampler stops.
        seed: of starts and noise.

    Returns:
        Shape (n, dim), or (frames, n, dim) with `every`.

    Raises:
        InvalidSetting: before any work, if the sampler cannot run so.
    """
    n, steps = _points("n", n), _whole("steps", steps)
    every = None if every is None else _whole("every", every)
    with _one_thread():
        base = _base(model, schedule, grid, seed)
        name, method = _one("sampler", sampler, Sampler)
        own = {type(denoiser).__name__: denoiser} if isinstance(denoiser, Score) else denoiser
        base = _with_denoisers(base, own)
        _require_some(base)
        starts = base.starts if start is None else dict([_one("start", start, Start)])
        one = replace(base, starts=starts, samplers=[(name, method)], n_samples=n)
        first = next(iter(one.starts_of(method)))
        cell = Cell(next(iter(one.denoisers)), first, name, method, steps, 0)
        require_runs(one, cell)
        array = torch.empty(shape_of(one, cell, every), dtype=one.dtype).numpy()
        made = sample_into(array, one, cell, every)
    if made.bad:
        warnings.warn(f"{made.bad} of {n} samples are not finite", stacklevel=2)
    return array


def plot(table: pd.DataFrame, *, metric: str | None = None, x: str = "steps") -> Figure:
    """The distance to the data against the number of steps, with the floor and with intervals.

    Args:
        table: of `sweep`, or a run's.
        metric: which of its metrics; None is the first.
        x: "steps", or "nfe", the counted evaluations: the fair axis for samplers of several stages.

    Returns:
        A matplotlib figure; a notebook shows it where it is a cell's last value.

    Raises:
        InvalidSetting: the table has no finished value, or not of that metric.
    """
    columns = {field.name for field in fields(Row)}
    whole = isinstance(table, pd.DataFrame) and columns <= set(table.columns)
    require(whole, "table", type(table).__name__, "what sweep returns, or a run's table")
    # without what an error budget adds, and diagnostics of chains
    rows = to_data(table)
    known = list(dict.fromkeys(rows.loc[rows["denoiser"] != "law", "metric"]))
    allowed = f"one of {', '.join(known)}" if known else "a table with values"
    require(bool(known) and (metric is None or metric in known), "metric", metric, allowed)
    require(x in ("steps", "nfe"), "x", x, "steps or nfe")
    _show_figures()
    return distance_against(rows, known[0] if metric is None else metric, x)


def _made(group: str, name: str, settings: Mapping[str, object]) -> Any:
    from samplerbench.app.config.compose import made

    return made(group, name, settings)


def _base(
    model: Run | Dataset | str,
    schedule: NoiseSchedule | str | None,
    grid: Grid | str | None,
    seed: int | None,
) -> Sweep:
    """The sweep of a run, or the main job's on a law, before samplers and the like are changed."""
    if isinstance(model, Run):
        allowed = "left out: a run has the one that it was trained for"
        require(schedule is None, "schedule", schedule, allowed)
        base = model.sweep
        if seed is not None:
            base = replace(base, seed=_whole("seed", seed, 0))
    else:
        from samplerbench.app.job.objects import untrained

        path = None if schedule is None else _one("schedule", schedule, NoiseSchedule)
        words = [] if seed is None else [f"seed={_whole('seed', seed, 0)}"]
        base = untrained(_one("dataset", model, Dataset), path, words)
    if grid is None:
        return base
    allowed = "a name, or a function of schedule and steps"
    require(isinstance(grid, str) or callable(grid), "grid", grid, allowed)
    function = getattr(grid, "func", grid)
    name = grid if isinstance(grid, str) else getattr(function, "__name__", type(grid).__name__)
    levels: Grid = _made("grid", grid, {}) if isinstance(grid, str) else grid
    return replace(base, grid=levels, labels=replace(base.labels, grid=name))


def _one(group: str, given: str | T, kind: Any) -> tuple[str, T]:
    """A member's name, or that of its class, and the object."""
    if isinstance(given, str):
        return given, _made(group, given, {})
    require(isinstance(given, kind), group, given, f"a name, or a {_kind_name(kind)}")
    try:
        describe(given)
    except TypeError as error:
        allowed = "a frozen dataclass, whose fields are its settings"
        raise InvalidSetting(group, type(given).__name__, f"{allowed} ({error})") from error
    return type(given).__name__, given


def _kind_name(kind: Any) -> str:
    return " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))


def _several(
    group: str, given: Any, kind: Any, settings: Callable[[str], Sequence[Any]]
) -> list[tuple[str, Any]]:
    """(name, object) pairs from one or several names and objects, or a mapping."""
    if isinstance(given, Mapping):
        return [(str(name), _one(group, thing, kind)[1]) for name, thing in given.items()]
    several = isinstance(given, Sequence) and not isinstance(given, str)
    listed = list(given) if several else [given]
    found: list[tuple[str, Any]] = []
    for thing in listed:
        if isinstance(thing, str):
            found += [(thing, one) for one in settings(thing)]
        else:
            found.append(_one(group, thing, kind))
    texts = [(name, str(describe(thing))) for name, thing in found]
    allowed = "at least one, and none twice; a mapping gives them names"
    require(0 < len(found) == len(set(texts)), group, [name for name, _ in found], allowed)
    return found


def _unique(group: str, given: Any, kind: Any) -> dict[str, Any]:
    """The same for groups whose members have one setting each."""
    found = _several(group, given, kind, lambda name: [_made(group, name, {})])
    names = [name for name, _ in found]
    allowed = "of different names; a mapping gives them"
    require(len(names) == len(set(names)), group, names, allowed)
    return dict(found)


def _with_denoisers(base: Sweep, given: str | Sequence[str] | Mapping[str, Score] | None) -> Sweep:
    """The sweep with the denoisers of those names, or with those of the user, by their names.

    A user's must be for the sweep's path, and are known by their content, not by a name.
    """
    if given is None:
        return base
    if isinstance(given, Mapping):
        for name, model in given.items():
            require(isinstance(model, Score), f"denoiser.{name}", model, "a Score or Denoiser")
            taken = name in KINDS and base.denoisers.get(name) is not model
            allowed = f"of another name: {', '.join(KINDS)} are names of this package's own"
            require(not taken, f"denoiser.{name}", type(model).__name__, allowed)
            if isinstance(model, Denoiser):
                own, allowed = model.schedule, f"{base.schedule}: or give schedule=its own"
                require(own == base.schedule, f"denoiser.{name}.schedule", own, allowed)
        origins = {name: base.origins[name] for name in given if name in base.origins}
        return replace(base, denoisers=dict(given), origins=origins)
    known, origins = dict(base.denoisers), dict(base.origins)
    oracle = None if "oracle" in known else base.dataset.exact_score(base.schedule)
    if oracle is not None:
        known["oracle"], origins["oracle"] = oracle.to(base.device), Origin("oracle")
    listed = isinstance(given, str | Sequence)
    require(listed, "denoiser", given, "a name, a list of names, or a mapping to models")
    names = [given] if isinstance(given, str) else list(given)
    require(len(set(names)) == len(names) > 0, "denoiser", names, "at least one, and none twice")
    for name in names:
        require(name in known, "denoiser", name, f"one of {', '.join(known) or 'none here'}")
    return replace(base, denoisers={name: known[name] for name in names}, origins=origins)


def _require_some(sweep: Sweep) -> None:
    allowed = f"given: the law of {sweep.labels.dataset} is not known; or train a model"
    require(len(sweep.denoisers) > 0, "denoiser", None, allowed)


def _points(name: str, value: object) -> int:
    """A number of points that this machine can hold."""
    from samplerbench.app.config.numbers import ROW, memory

    number, most = _whole(name, value), memory() // ROW
    require(number <= most, name, number, f"at most {most:,}: the memory holds no more points")
    return number


def _whole(name: str, value: object, least: int = 1) -> int:
    """A whole number, of Python or NumPy."""
    allowed = f"a whole number, at least {least}"
    try:
        number = index(value)  # type: ignore[arg-type]  # which is what is asked
    except TypeError as error:
        raise InvalidSetting(name, value, allowed) from error
    require(number >= least and not isinstance(value, bool), name, value, allowed)
    return number


def _numbers(name: str, values: int | Sequence[int] | None) -> list[int]:
    listed = np.atleast_1d(np.array([] if values is None else values, dtype=object)).tolist()
    found = [_whole(name, value) for value in listed]
    require(len(set(found)) == len(found), name, values, "whole numbers, none twice")
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per operation, as jobs have: part of a number's identity, and the fastest here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show_figures() -> None:
    """Teach a notebook to show matplotlib's figures; by itself it shows those of pyplot only."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["image/png"]
    try:
        formatter.lookup_by_type(Figure)  # somebody has
    except KeyError:
        formatter.for_type(Figure, _png)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    with mpl.rc_context(styled()):
        figure.savefig(buffer, format="png", dpi="figure")
    return buffer.getvalue()
