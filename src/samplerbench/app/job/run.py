"""Run one job: train and sweep; `show` prints, draws and logs the results."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from samplerbench.app.config.compose import check_choices
from samplerbench.app.config.groups import drop_settings_of_replaced
from samplerbench.app.folder.claim import amend, claim, write_status
from samplerbench.app.folder.runs import State, weights_folder
from samplerbench.app.job.build import Job, build, with_sweep
from samplerbench.app.job.console import print_designs
from samplerbench.app.job.racing import fitted_grids, named_grids, racing_grids
from samplerbench.app.job.scenes import scene
from samplerbench.app.job.show import Showing
from samplerbench.app.job.training import Training
from samplerbench.app.terminal import console, shown
from samplerbench.bench.best_grids import (
    CHOICES,
    EACH_BEST,
    Best,
    chosen,
    with_best,
    without_choice,
    written,
)
from samplerbench.bench.budget.mismatch import mismatch
from samplerbench.bench.cache import ABOUT, Cache
from samplerbench.bench.cell import Row
from samplerbench.bench.chains import chain_cells, diagnose, diagnostic_names
from samplerbench.bench.design import DESIGNED
from samplerbench.bench.designing import DESIGNS, DesignedGrid, designed, to_json
from samplerbench.bench.fitting import TABLE, fitted
from samplerbench.bench.rounding import counted
from samplerbench.bench.scene import Scene
from samplerbench.bench.store import Store, to_data
from samplerbench.bench.sweep import Sweep
from samplerbench.core.fitted_grids import FittedGrid
from samplerbench.errors import InvalidSetting, RunFailed, first_line, kind_and_line, require
from samplerbench.figures.common import looking
from samplerbench.files import set_aside, write_atomically
from samplerbench.logs.base import Log, NoLog, RunInfo, run_name
from samplerbench.memory import first_import, keep_freed_memory
from samplerbench.samplers.peers import Peer
from samplerbench.training.weights import LOSSES, STATE, WEIGHTS, check_losses, load

message = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Run the composed config in Hydra's output folder.

    Returns:
        The value for a sweeper that minimises, see `mean_value`; None if there is no such sweeper
        or no metric.

    Raises:
        InvalidSetting: before any work, if the config cannot be run.
        RunFailed: the training failed, a cell failed, or the disk is full.
    """
    keep_freed_memory()
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    about = {
        "choices": OmegaConf.to_container(hydra.runtime.choices),
        "overrides": list(hydra.overrides.task),
        "values": 0,
    }
    searching = hydra.mode == RunMode.MULTIRUN and "BasicSweeper" not in hydra.sweeper._target_
    try:
        allowed = "null here: only a multirun with a searching sweeper, such as Optuna's, uses it"
        unused = config.sweeper_metric is not None and not searching
        require(not unused, "sweeper_metric", config.sweeper_metric, allowed)
        check_choices(hydra.overrides.task)
        drop_settings_of_replaced(config)
        job = build_job(config, hydra.runtime.choices, directory.name)
    except (InvalidSetting, OmegaConfBaseException) as error:
        if hydra.mode == RunMode.MULTIRUN:  # the folder says why it has no values
            claim(directory, config, about)
            write_status(directory, "failed", first_line(error))
        raise
    # the sweep has no identity before its grids are fitted and chosen
    waits = bool(job.grids) or isinstance(job.sweep.grid, FittedGrid | DesignedGrid)
    sweep_id = "" if waits else job.sweep.books.sweep_id
    about |= {"values": value_count(job), "sweep_id": sweep_id}
    claim(directory, config, about)
    print(f"run:    {os.path.relpath(directory)}", flush=True)
    try:
        with open_log(job, directory) as log, looking(job.look):
            failed = execute(job, directory, log)
        if failed:
            raise RunFailed("; ".join(failed))
    except BaseException as error:
        stopped: State = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError):  # the disk may be full
            write_status(directory, stopped, kind_and_line(error))
        if isinstance(error, OSError):
            kept = "finished results are kept, and the same command continues from there"
            raise RunFailed(f"{first_line(error)}; {kept}") from error
        raise
    write_status(directory, "finished")
    if not searching or not job.sweep.metrics:
        return None
    metric = config.sweeper_metric or next(iter(job.sweep.metrics))
    return mean_value(Store(directory).readable()[0], metric)


def mean_value(table: pd.DataFrame, metric: str) -> float:
    """The mean of a metric over the cells of a job, without its floors.

    It is infinite if a cell has no value, because its sampler diverged or cannot run. A mean over
    the other cells would prefer settings that fail in difficult cells.
    """
    cells = to_data(table)
    values = cells[(cells["metric"] == metric) & (cells["denoiser"] != "law")]["value"]
    return float(values.mean()) if len(values) > 0 and values.notna().all() else math.inf


def build_job(config: DictConfig, choices: Mapping[str, Any], name: str) -> Job:
    """The job of a config; any failure to build it is an `InvalidSetting`."""
    try:
        return build(config, choices, name)
    except InvalidSetting:
        raise
    except Exception as error:  # an untested combination of settings
        if config.get("debug") or isinstance(error, OmegaConfBaseException):
            raise
        reason = kind_and_line(error)
        raise InvalidSetting("config", reason, "one that can be built; see debug=true") from error


def open_log(job: Job, directory: Path) -> Log:
    """Open the log of the run; its name has the chosen members and the words that vary."""
    hydra, labels = HydraConfig.get(), job.sweep.labels
    samplers = [name for name, _ in job.sweep.samplers]
    model = labels.objective if job.training else next(iter(job.sweep.denoisers), "")
    group, varied = None, list[str]()
    if hydra.mode == RunMode.MULTIRUN:
        folder = Path(os.path.abspath(os.path.join(hydra.runtime.cwd, hydra.sweep.dir)))
        # Hydra's own sweeper writes the words of the command here; other sweepers may not
        stored = folder / "multirun.yaml"
        fixed = OmegaConf.load(stored).hydra.overrides.task if stored.is_file() else []
        group = folder.name
        varied = [word for word in hydra.overrides.task if word not in fixed]
    # choices that are one word, so that wandb can group by them
    choices = {
        key: choice
        for key, choice in hydra.runtime.choices.items()
        if isinstance(choice, str) and "/" not in str(key)
    }
    choices["sampler"] = ",".join(dict.fromkeys(samplers))
    name = run_name(samplers, model, labels.dataset, varied)
    tags = list(dict.fromkeys(filter(None, [labels.dataset, model, *samplers])))
    config = {**job.config, "choices": choices}
    with first_import("wandb"):
        return job.logger.open(RunInfo(directory, name, config, group, tags))


def known_of_peers(sweep: Sweep) -> list[str]:
    """Known faults of the sweep's samplers from other packages, a line for each sampler."""
    peers = [sampler for _, sampler in sweep.samplers if isinstance(sampler, Peer)]
    if not peers:
        return []
    from samplerbench.verify.peer_table import advice  # it imports what only the table needs

    return [f"known: {line}" for line in map(advice, peers) if line is not None]


def value_count(job: Job) -> int:
    """The number of values of the complete job."""
    sweep = job.sweep
    diagnostics = (len(diagnostic_names(sweep, cell)) for cell in chain_cells(sweep))
    chains = sum(diagnostics) if job.chains else 0
    if not sweep.metrics:
        return chains
    values = job.budget.row_count() if job.budget else sweep.row_count()
    views = job.floor_free.row_count() if job.floor_free else 0
    return values + views + chains


def execute(job: Job, directory: Path, log: Log) -> list[str]:
    """Train, sweep and draw; return a line for each kind of failure."""
    out = console()
    view = scene(job.sweep, job.training)
    if job.all_rows:
        sizes = ", ".join(f"{key}={n:,}" for key, n in job.all_rows.items())
        out.print(f"data:   {sizes}: all rows of these parts of the data set")
    for line in [*mismatch(job.sweep).lines, *known_of_peers(job.sweep)]:
        out.print(line)
    for name in job.trainings:
        view = fit(job, name, view, directory, log, out)
    if isinstance(job.sweep.grid, FittedGrid):
        job = fit_grid(job, directory, out)
    if job.grids:
        job = choose_grids(job, directory, out)
    if isinstance(job.sweep.grid, DesignedGrid):
        job = design_grids(job, directory, out)
    view = replace(view, grid=job.sweep.path_grid, own_grids=job.sweep.own_grids)
    showing = Showing(job, directory, log, out)
    kinds = {origin.kind for origin in job.sweep.origins.values()}
    if kinds & {"learned", "corrupted"}:
        showing.score_errors()
    failed = []
    if value_count(job) > 0:
        table = measure(job, directory, out)
        count = int((table["status"] == "failed").sum())
        if count > 0:
            failed.append(f"{count} values failed, see the column message in {shown(directory)}")
        showing.results(table)
        out.print(f"table:  {shown(directory / 'cells.parquet')}")
    failed += showing.pictures(view)
    if log.where:
        out.print(f"log:    {shown(log.where)}")
    write_atomically(directory / "report.txt", out.export_text().encode())
    kept = (directory / name for name in ("report.txt", "cells.parquet", "budget.csv", LOSSES))
    log.files(path for path in kept if path.exists())
    return failed


def fit_grid(job: Job, directory: Path, out: Console) -> Job:
    """Fit the job's grid to a denoiser; store the table and its cost in the run."""
    sweep, done = fitted(job.sweep, job.cache, refresh=job.cache is not None and job.cache.refresh)
    assert done is not None
    out.print(done.line)
    write_atomically(directory / TABLE, done.table)
    about = {name: getattr(done, name) for name in ("grid", "denoiser", "evaluations", "fit_id")}
    amend(directory, {"sweep_id": sweep.books.sweep_id, "grid": about})
    return with_sweep(job, sweep)


def choose_grids(job: Job, directory: Path, out: Console) -> Job:
    """Put every sampler on the grid that is best for it; store the choices in the run."""
    choices = chosen_grids(job, out)
    write_atomically(directory / CHOICES, written(choices))
    sweep = with_best(job.sweep, choices)
    amend(directory, {"sweep_id": sweep.books.sweep_id})
    return with_sweep(job, sweep)


def chosen_grids(job: Job, out: Console) -> list[Best]:
    """The grid that is best for each sampler of a job at each number of steps."""
    grids = racing_grids(job.sweep, named_grids(job.grids))
    candidates, _, missing = fitted_grids(job.sweep, grids, job.cache)
    for one in missing:
        out.print(f"grids: without {one.label}: {one.reason}")
    kept = without_choice(job.sweep)
    if kept:
        out.print(kept)
    return chosen(
        job.sweep,
        candidates,
        job.cache,
        lambda best: out.print(f"grid of {best.line}"),
        designs=bool({EACH_BEST, DESIGNED} & {*job.grids}),
        on_none=out.print,
    )


def design_grids(job: Job, directory: Path, out: Console) -> Job:
    """Design levels for each of the job's samplers; store them in the run."""
    refresh = job.cache is not None and job.cache.refresh
    sweep, designs = designed(job.sweep, job.cache, refresh)
    print_designs(designs, out)
    write_atomically(
        directory / DESIGNS, json.dumps(list(map(to_json, designs)), indent=1).encode()
    )
    amend(directory, {"sweep_id": sweep.books.sweep_id})
    return with_sweep(job, sweep)


def fit(job: Job, name: str, view: Scene, directory: Path, log: Log, out: Console) -> Scene:
    """Train one of the job's networks, or load it; return the scene for pictures.

    Pictures and logs show the learned denoiser, not its guides.
    """
    training, labels = job.trainings[name], job.sweep.labels
    own = directory / weights_folder(name)
    own.mkdir(parents=True, exist_ok=True)  # it exists if the job was started before
    if training.weights is not None:
        out.print(f"weights of {training.weights}: no training")
        write_atomically(own / WEIGHTS, training.weights.read_bytes())
        training.objective.model.to(job.sweep.device)
        return view
    recipe = training.objective.recipe
    precision = training.objective.precision(job.sweep.device.type)
    arithmetic = "" if precision == "32-true" else f" in {precision}"
    steps = f"{recipe.steps:,} steps of {recipe.batch_size:,}{arithmetic}"
    learned = name == "learned"
    if learned:
        model_text = f"{labels.network} with {labels.objective} on {labels.dataset}"
        out.print(f"training {model_text}: {steps}")
    else:
        out.print(f"training the guide of {name}: {steps}")
    model = training.objective.model
    initial = copy.deepcopy(model)
    untrained = copy.deepcopy(model).eval().requires_grad_(False)
    if not learned:
        log = NoLog()
    if job.cache is None or not from_cache(job, job.cache, training, own, log, out):
        restore_weights(model, initial)  # the cache may have failed during a training
        train_here(job, training, own, log, out)
    model.to(job.sweep.device)
    if not learned:
        return view
    (own / LOSSES).replace(directory / LOSSES)
    losses = read_losses(directory / LOSSES)
    log.losses(list(losses.itertuples(index=False, name=None)))
    return replace(view, untrained=untrained.to(job.sweep.device), losses=losses)


def restore_weights(model: nn.Module, initial: nn.Module) -> None:
    """Reset a model, in place, to an earlier copy of it."""
    model.load_state_dict(initial.state_dict())
    model.train(initial.training)
    for own, first in zip(model.parameters(), initial.parameters(), strict=True):
        own.requires_grad_(first.requires_grad)


def from_cache(
    job: Job, cache: Cache, training: Training, own: Path, log: Log, out: Console
) -> bool:
    """Copy the training from the cache into `own`, after training there if it is missing.

    Returns:
        Whether `own` has the training; False if the cache lacks it and cannot be written to.
    """

    def wait() -> None:
        out.print("another job trains this model: waiting for it")

    def trained(place: Path) -> bool:
        known = not cache.refresh and copy_training(place, own, training)
        if known:
            out.print("it was trained before; cache=refresh trains again")
        return known

    # weights are complete or absent, so this needs no lock
    if trained(cache.place(training.id)):
        return True
    with cache.training(training.id, wait) as place:
        if place is None or trained(place):
            return place is not None
        try:
            if cache.refresh:
                (place / STATE).unlink(missing_ok=True)
            if (place / STATE).exists():
                out.print("it continues where it was interrupted")
            about = json.dumps(asdict(job.sweep.labels), indent=1, ensure_ascii=False)
            write_atomically(place / ABOUT, about.encode())
            train_here(job, training, place, log, out, resumable=True)
        except OSError as error:  # for example the disk of the cache is full
            message.warning("cache: %s; the training is repeated and not kept there", error)
            return False
        return copy_training(place, own, training)


def copy_training(place: Path, own: Path, training: Training) -> bool:
    """Copy a training from the cache into a folder; return whether it is there and complete."""
    weights, losses = own / WEIGHTS, own / LOSSES

    def read() -> None:
        # into a copy: an incomplete file must not change the model
        load(copy.deepcopy(training.objective.model), weights)

    def agree() -> None:
        read_losses(losses)
        check_losses(losses.read_bytes(), weights)

    for path, check in ((weights, read), (losses, agree)):
        try:
            content = (place / path.name).read_bytes()
        except FileNotFoundError:  # not trained, or just pruned
            return False
        except OSError as error:
            set_aside(place / path.name, error)
            return False
        write_atomically(path, content)  # the checked copy stays in the run
        try:
            check()
        except Exception as error:  # the file may have any content
            set_aside(place / path.name, error)
            return False
    load(training.objective.model, weights)
    return True


def train_here(
    job: Job, training: Training, place: Path, log: Log, out: Console, resumable: bool = False
) -> None:
    """Train, and write weights and losses into a folder."""
    with first_import("pytorch_lightning"):
        from samplerbench.training.loop import train

    began = time.perf_counter()
    train(
        training.objective,
        training.data,
        directory=place,
        log=log.losses,
        device=job.sweep.device,
        progress=sys.stderr.isatty(),
        resumable=resumable,
        training_id=training.id,
    )
    losses = read_losses(place / LOSSES)
    last = losses[losses["name"] == "train"]["loss"]
    loss = f", loss {last.iloc[-1]:.4g}" if len(last) > 0 else ""
    out.print(f"trained in {time.perf_counter() - began:.0f} s{loss}")


def read_losses(path: Path) -> pd.DataFrame:
    """The losses of a training; ValueError if the file has none."""
    losses = pd.read_csv(path, float_precision="round_trip")
    if list(losses.columns) != ["step", "name", "loss"] or losses.empty:
        raise ValueError("it has no losses with the columns step,name,loss")
    return losses


def measure(job: Job, directory: Path, out: Console) -> pd.DataFrame:
    """Evaluate all cells; return their table, which is also written after an interruption."""
    sweep, budget = job.sweep, job.budget
    store = Store(directory, sweep.books.sweep_id)
    total = value_count(job)
    exact = set(sweep.metrics) <= {*sweep.exact_metrics}
    samples = (
        f"values of n = {sweep.n_samples:,} samples, {counted(sweep.repetitions, 'repetition')}, "
        f"in blocks of {sweep.block:,}"
    )
    out.print(
        f"{'budget' if budget else 'sweep'}: {total:,} {'exact values' if exact else samples}, "
        f"{sweep.workers} at a time on {sweep.device}"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # a separate console: the bar is not part of the report
    with Progress(*columns, TimeRemainingColumn(), console=console()) as progress:
        task = progress.add_task("sweep", total=total)

        def keep(row: Row) -> None:
            store.write(row, durable=job.cache is None or row.cell_id not in job.cache.recalled)
            if job.cache is not None:
                job.cache.keep(row)
            progress.advance(task)

        try:
            if sweep.metrics:
                (budget or sweep).run(keep)
            if job.floor_free:
                job.floor_free.run(keep)
            for row in diagnose(sweep, job.chains) if job.chains else []:
                keep(row)
        finally:  # also after an interruption
            table = store.compact()
    if len(table) != total:
        raise RunFailed(f"{len(table):,} of {total:,} values are in the table: this is a bug")
    if job.cache is not None and job.cache.recalled:
        known = len(job.cache.recalled)
        out.print(f"{known:,} values were known; cache=refresh measures them again")
    return table
