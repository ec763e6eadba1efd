"""One job: train, sweep, and show the result in every way asked for."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
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

from samplerbench.app.build import Job, Training, build, scene
from samplerbench.app.console import (
    print_budget,
    print_cells,
    print_chains,
    print_claims,
    print_failures,
    print_score_errors,
)
from samplerbench.app.runs import CHECKPOINTS, State, claim, tell
from samplerbench.app.terminal import console
from samplerbench.errors import CellsFailed, InvalidSetting, first_line, kind_and_line
from samplerbench.evaluation.budget import Budget, parts, verdict
from samplerbench.evaluation.cache import ABOUT, Cache
from samplerbench.evaluation.chains import CHAIN, DIAGNOSTICS, chain_cells, diagnose
from samplerbench.evaluation.identity import settings_text
from samplerbench.evaluation.scene import Scene
from samplerbench.evaluation.score_error import score_errors
from samplerbench.evaluation.statistics import at_equal_cost, sampler_name, summary
from samplerbench.evaluation.store import Row, Store, to_data
from samplerbench.evaluation.sweep import most_steps
from samplerbench.figures.base import write
from samplerbench.figures.budget import waterfall
from samplerbench.figures.distance_families import distance_figure, family
from samplerbench.figures.paired_error import paired_error_against_nfe, paired_errors
from samplerbench.figures.style import save
from samplerbench.files import set_aside, write_atomically
from samplerbench.logs import Log, open_log, run_name
from samplerbench.weights import LOSSES, STATE, WEIGHTS, load


def run(config: DictConfig) -> None:
    """Run the composed config in Hydra's output folder.

    Raises:
        InvalidSetting: before any work, if the config cannot be run.
        CellsFailed: at the end, if a cell failed.
    """
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    about = {
        "choices": OmegaConf.to_container(hydra.runtime.choices),
        "overrides": list(hydra.overrides.task),
        "values": 0,
    }
    try:
        job = built(config, hydra.runtime.choices, directory.name)
    except (InvalidSetting, OmegaConfBaseException) as error:
        if hydra.mode == RunMode.MULTIRUN:  # who looks at the jobs later sees why it has no values
            claim(directory, config, about)
            tell(directory, "failed", first_line(error))
        raise
    claim(directory, config, about | {"values": planned(job)})
    with logged(job, directory) as log:
        try:
            failed = execute(job, directory, log)
        except BaseException as error:
            stopped: State = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(OSError):  # the disk may be full
                tell(directory, stopped, kind_and_line(error))
            if isinstance(error, OSError):
                kept = "what was finished is kept, and the same command goes on from there"
                raise CellsFailed(f"{error}; {kept}") from error
            raise
    if failed:
        message = f"{failed} values failed, see the column message in {shown(directory)}"
        tell(directory, "failed", message)
        raise CellsFailed(message)
    tell(directory, "finished")


def built(config: DictConfig, choices: Mapping[str, Any], name: str) -> Job:
    """The job of a config; whatever it cannot be built from is an `InvalidSetting`."""
    try:
        return build(config, choices, name)
    except InvalidSetting:
        raise
    except Exception as error:  # settings that nobody thought of
        if config.get("debug") or isinstance(error, OmegaConfBaseException):
            raise
        reason = kind_and_line(error)
        raise InvalidSetting("config", reason, "one that can be built; see debug=true") from error


def logged(job: Job, directory: Path) -> AbstractContextManager[Log]:
    """The log of the run, named by what it compares and by what varies in its multirun."""
    hydra, labels = HydraConfig.get(), job.sweep.labels
    samplers = [name for name, _ in job.sweep.samplers]
    model = labels.objective if job.training else next(iter(job.sweep.denoisers), "")
    group, varied = None, list[str]()
    if hydra.mode == RunMode.MULTIRUN:
        folder = Path(os.path.abspath(os.path.join(hydra.runtime.cwd, hydra.sweep.dir)))
        # Hydra's own sweeper leaves the words of the command here; another one may leave nothing
        stored = folder / "multirun.yaml"
        fixed = OmegaConf.load(stored).hydra.overrides.task if stored.is_file() else []
        group = folder.name
        varied = [word for word in hydra.overrides.task if word not in fixed]
    # Hydra keeps no choice for a group of several; what is one word can be grouped by
    choices = {
        key: choice
        for key, choice in hydra.runtime.choices.items()
        if isinstance(choice, str) and "/" not in str(key)
    }
    choices["sampler"] = ",".join(dict.fromkeys(samplers))
    return open_log(
        job.logger,
        directory=directory,
        name=run_name(samplers, model, labels.dataset, varied),
        config={**job.config, "choices": choices},
        group=group,
        tags=list(dict.fromkeys(filter(None, [labels.dataset, model, *samplers]))),
    )


def planned(job: Job) -> int:
    """How many values the job is to have."""
    sweep = job.sweep
    chains = len(chain_cells(sweep)) * len(DIAGNOSTICS) if job.chains else 0
    if not sweep.metrics:
        return chains
    values = job.budget.row_count() if job.budget else len(sweep.cells()) * len(sweep.metrics)
    return values + chains


def execute(job: Job, directory: Path, log: Log) -> int:
    """Train, sweep and draw; returns how many values failed."""
    out = console()
    view = scene(job.sweep, job.training)
    if job.training is not None:
        view = fit(job, job.training, view, directory, log, out)
        show_score_errors(job, directory, log, out)
    failed = 0
    if planned(job) > 0:
        table = measure(job, directory, out)
        failed = int((table["status"] == "failed").sum())
        show(job, table, directory, log, out)
        out.print(f"table:  {shown(directory / 'cells.parquet')}")
    for name, picture in job.pictures.items():
        for path in write(picture.draw(view), directory):
            log.figure(f"{name}/{path.stem}", path)
            out.print(f"figure: {shown(path)}")
    if log.where:
        out.print(f"log:    {shown(log.where)}")
    write_atomically(directory / "report.txt", out.export_text().encode())
    kept = (directory / name for name in ("report.txt", "cells.parquet", "budget.csv", LOSSES))
    log.files(path for path in kept if path.exists())
    return failed


def fit(
    job: Job, training: Training, view: Scene, directory: Path, log: Log, out: Console
) -> Scene:
    """Train the sweep's learned denoiser, or find it trained; returns what pictures see of it."""
    recipe, labels = training.objective.recipe, job.sweep.labels
    out.print(
        f"training {labels.network} with {labels.objective} on {labels.dataset}: "
        f"{recipe.steps:,} steps of {recipe.batch_size:,}"
    )
    untrained = copy.deepcopy(training.objective.model).eval().requires_grad_(False)
    own = directory / CHECKPOINTS
    found = None if job.cache is None else from_cache(job, job.cache, training, log, out)
    if found is None:
        train_here(job, training, own, log, out)
        (own / LOSSES).replace(directory / LOSSES)
    else:
        own.mkdir(exist_ok=True)  # it is there if the job was begun before
        write_atomically(own / WEIGHTS, (found / WEIGHTS).read_bytes())
        write_atomically(directory / LOSSES, (found / LOSSES).read_bytes())
    training.objective.model.to(job.sweep.device)
    losses = read_losses(directory / LOSSES)
    return replace(view, untrained=untrained.to(job.sweep.device), losses=losses)


def from_cache(job: Job, cache: Cache, training: Training, log: Log, out: Console) -> Path | None:
    """The folder of the training, which is done there first if it has not been done.

    None where it has not been done and the folder cannot be written to.
    """

    def wait() -> None:
        out.print("another job trains this model: waiting for it")

    def readable(weights: Path) -> None:
        # into a copy: a file that stops in the middle must not leave its half in what is to train
        load(copy.deepcopy(training.objective.model), weights)

    def trained(place: Path) -> bool:
        if cache.refresh or not (place / WEIGHTS).exists():
            return False
        for name, read in ((LOSSES, read_losses), (WEIGHTS, readable)):
            try:
                read(place / name)
            except Exception as error:  # whatever the file holds
                set_aside(place / name, error)
                return False
        load(training.objective.model, place / WEIGHTS)
        out.print("it was trained before; cache=refresh trains again")
        return True

    # weights are whole or absent, so this needs no lock, which a folder may not let us have
    if trained(cache.place(job.sweep.training_id)):
        return cache.place(job.sweep.training_id)
    with cache.training(job.sweep.training_id, wait) as place:
        if place is None or trained(place):
            return place
        if cache.refresh:
            (place / STATE).unlink(missing_ok=True)
        if (place / STATE).exists():
            out.print("it goes on where it was interrupted")
        about = json.dumps(asdict(job.sweep.labels), indent=1, ensure_ascii=False)
        write_atomically(place / ABOUT, about.encode())
        train_here(job, training, place, log, out, resumable=True)
    return place


def train_here(
    job: Job, training: Training, place: Path, log: Log, out: Console, resumable: bool = False
) -> None:
    """Train, with weights and losses left in a folder."""
    from samplerbench.training import train  # Lightning takes seconds to import

    began = time.perf_counter()
    train(
        training.objective,
        training.data,
        directory=place,
        logger=log.lightning or None,
        device=job.sweep.device,
        progress=sys.stderr.isatty(),
        resumable=resumable,
    )
    losses = read_losses(place / LOSSES)
    last = losses[losses["name"] == "train"]["loss"]
    loss = f", loss {last.iloc[-1]:.4g}" if len(last) > 0 else ""
    out.print(f"trained in {time.perf_counter() - began:.0f} s{loss}")


def read_losses(path: Path) -> pd.DataFrame:
    """The losses of a training; ValueError where the file holds none."""
    losses = pd.read_csv(path)
    if list(losses.columns) != ["step", "name", "loss"] or losses.empty:
        raise ValueError("it has no losses, which are step,name,loss")
    return losses


def show_score_errors(job: Job, directory: Path, log: Log, out: Console) -> None:
    """The errors of the scores themselves, where the exact one is known."""
    sweep = job.sweep
    oracle = sweep.dataset.oracle(sweep.schedule) if sweep.dataset.known_law else None
    if oracle is None:
        return
    rows = [row for row in sweep.levels(max(sweep.all_steps)).rows if row.sigma > 0]
    chosen = sorted({round(k * (len(rows) - 1) / 4) for k in range(5)}) if rows else []
    errors = score_errors(
        sweep.denoisers,
        oracle.to(sweep.device),
        sweep.dataset,
        [rows[k] for k in chosen],
        count=sweep.n_samples,
        repetitions=sweep.repetitions,
        seed=sweep.seed,
        device=sweep.device,
    )
    print_score_errors(out, errors)
    write_atomically(directory / "score_errors.csv", errors.to_csv(index=False).encode())
    log.table("score_errors", errors)


def measure(job: Job, directory: Path, out: Console) -> pd.DataFrame:
    """Evaluate all cells; returns their table, which is written whatever happens."""
    sweep, budget = job.sweep, job.budget
    store = Store(directory)
    total = planned(job)
    out.print(
        f"{'budget' if budget else 'sweep'}: {total:,} values of n = {sweep.n_samples:,} samples, "
        f"{sweep.repetitions} repetitions, in blocks of {sweep.block:,}, "
        f"{sweep.workers} at a time on {sweep.device}"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # a console of its own: the bar is no part of the report
    with Progress(*columns, TimeRemainingColumn(), console=console()) as progress:
        task = progress.add_task("sweep", total=total)

        def keep(row: Row) -> None:
            store.write(row, known=job.cache is not None and row.cell_id in job.cache.recalled)
            if job.cache is not None:
                job.cache.keep(row)
            progress.advance(task)

        try:
            if sweep.metrics:
                (budget or sweep).run(keep)
            for row in diagnose(sweep, job.chains) if job.chains else []:
                keep(row)
        finally:  # also when it is interrupted: what is there can be read
            table = store.compact()
    if job.cache is not None and job.cache.recalled:
        known = len(job.cache.recalled)
        out.print(f"{known:,} values were known; cache=refresh measures them again")
    return table


def show(job: Job, table: pd.DataFrame, directory: Path, log: Log, out: Console) -> None:
    """Print the table and what it supports, draw it, and log both."""
    sweep = job.sweep
    shown_cells, unit = to_data(table), "N"
    if sweep.nfe:  # samplers at equal cost, not at equal steps
        taken = {
            (name, settings_text(sampler)): {nfe: most_steps(sampler, nfe) for nfe in sweep.nfe}
            for name, sampler in sweep.samplers
        }
        shown_cells, unit = at_equal_cost(shown_cells, taken), "NFE"
    print_cells(out, shown_cells, unit, sweep.law.known_law)
    print_chains(out, table[table["reference"] == CHAIN])
    print_failures(out, table)
    print_claims(out, shown_cells, job.wanted, sweep.metrics, unit)
    log.table("cells", table.drop(columns=["metric_settings"]))
    if job.budget is not None:
        show_budget(job.budget, table, directory, log, out)
    families = {sampler_name(n, settings_text(s)): family(s) for n, s in sweep.samplers}
    ok = to_data(table)
    ok = ok[(ok["status"] == "ok") & (ok["denoiser"] != "law")]
    for metric in sweep.metrics:
        rows = ok[ok["metric"] == metric]
        if rows["steps"].nunique() < 2:  # no curve in one point
            continue
        path = directory / f"distance_{metric}.png"
        x = "nfe" if sweep.nfe else "steps"
        figure = distance_figure(to_data(table), metric, x, families)
        log.figure(f"distance/{metric}", save(figure, path))
        lines = summary(rows)
        names = list(map(sampler_name, lines["sampler"], lines["sampler_settings"]))
        lines = lines.assign(name=names)
        log.curves(metric, lines, ["nfe", "steps"], "mean", ["denoiser", "start", "name"])
        out.print(f"figure: {shown(path)}")


def show_budget(
    budget: Budget, table: pd.DataFrame, directory: Path, log: Log, out: Console
) -> None:
    """The budget as a table, in words and as a figure, for every metric."""
    lines = parts(table, budget.converged_steps)
    print_budget(out, lines)
    for line in verdict(budget, table):
        out.print(line, markup=False)
    out.print()
    write_atomically(directory / "budget.csv", lines.to_csv(index=False).encode())
    log.table("budget", lines)
    sweep = budget.sweep
    title = (
        f"{sweep.labels.dataset}, n = {sweep.n_samples:,}, {sweep.repetitions} repetitions; "
        "bars: 95 % intervals of the mean"
    )
    for metric in dict.fromkeys(lines["metric"]):
        figures = {}
        if not sweep.nfe:  # at equal cost the samplers have no number of steps in common
            figures["budget"] = waterfall(lines, metric, title)
        if paired_errors(table, metric)["nfe"].nunique() > 1:
            figures["paired_error"] = paired_error_against_nfe(table, metric)
        for name, figure in figures.items():
            path = save(figure, directory / f"{name}_{metric}.png")
            log.figure(f"{name}/{metric}", path)
            out.print(f"figure: {shown(path)}")


def shown(place: Path | str) -> str:
    """A path as it is short to read: below the current folder; an address as it is."""
    return str(place).removeprefix(f"{Path.cwd()}{os.sep}")
