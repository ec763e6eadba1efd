"""One job: train, sweep, and show the result in every way asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from samplerbench.app.build import Job, build
from samplerbench.app.console import console, print_budget, print_cells, print_claims
from samplerbench.errors import CellsFailed, InvalidSetting
from samplerbench.evaluation.budget import LIMIT, Budget, parts, verdict
from samplerbench.evaluation.statistics import sampler_name
from samplerbench.evaluation.store import Row, Store, write_atomically
from samplerbench.figures.budget import waterfall
from samplerbench.figures.distance import distance_against_steps
from samplerbench.figures.style import save
from samplerbench.logs import Log, open_log
from samplerbench.training import train


def run(config: DictConfig) -> None:
    """Run the composed config in Hydra's output folder.

    Raises:
        InvalidSetting: before any work, if the config cannot be run.
        CellsFailed: at the end, if a cell failed.
    """
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    try:
        job = build(config, hydra.runtime.choices, directory.name)
    except InvalidSetting:
        raise
    except (ArithmeticError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        if config.get("debug"):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InvalidSetting("config", reason, "one that can be built; see debug=true") from error
    claim(directory, config)
    many = hydra.mode == RunMode.MULTIRUN
    with open_log(
        job.logger,
        directory=directory,
        name=hydra.job.override_dirname or job.sweep.labels.experiment,
        group=directory.parent.name if many else None,
        config=job.config,
    ) as log:
        failed = execute(job, directory, log)
    if failed:
        raise CellsFailed(f"{failed} values failed, see the column message in {shown(directory)}")


def claim(directory: Path, config: DictConfig) -> None:
    """Make the folder this run's, by a file that only one run can create: the resolved config.

    Raises:
        InvalidSetting: if another run has the folder; nothing of it is touched.
    """
    try:
        with (directory / "config.yaml").open("x") as file:
            file.write(OmegaConf.to_yaml(config, resolve=True))
    except FileExistsError:
        allowed = "a folder that holds no run; what is there is kept"
        raise InvalidSetting("hydra.run.dir", directory, allowed) from None


def execute(job: Job, directory: Path, log: Log) -> int:
    """Train and sweep; returns how many values failed."""
    out = console()
    sweep = job.sweep
    if job.training is not None:
        recipe = job.training.objective.recipe
        labels = sweep.labels
        out.print(
            f"training {labels.network} with {labels.objective} on {labels.dataset}: "
            f"{recipe.steps:,} steps of {recipe.batch_size:,}"
        )
        model = train(
            job.training.objective,
            job.training.data,
            directory=directory / "checkpoints",
            logger=log.lightning or None,
            accelerator="cpu" if sweep.device.type == "cpu" else "gpu",
            progress=sys.stderr.isatty(),
        )
        model.to(sweep.device)
    store = Store(directory)
    budget = job.budget
    total = budget.row_count() if budget else len(sweep.cells()) * len(sweep.metrics)
    out.print(
        f"{'budget' if budget else 'sweep'}: {total:,} values of n = {sweep.n_samples:,} samples, "
        f"{sweep.repetitions} repetitions, in blocks of {sweep.block:,}, "
        f"{sweep.workers} at a time on {sweep.device}"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=out) as progress:
        task = progress.add_task("sweep", total=total)

        def keep(row: Row) -> None:
            store.write(row)
            progress.advance(task)

        try:
            (budget or sweep).run(keep)
        finally:  # also when it is interrupted: what is there can be read
            table = store.compact()
    print_cells(out, to_data(table))
    print_claims(out, to_data(table), job.wanted)
    log.table("cells", table.drop(columns=["metric_settings"]))
    if budget is not None:
        show_budget(budget, table, directory, log, out)
    ok = to_data(table)
    ok = ok[(ok["status"] == "ok") & (ok["denoiser"] != "law")]
    for metric in sweep.metrics:
        if (ok["metric"] == metric).any():
            path = directory / f"distance_{metric}.png"
            log.figure(
                f"distance/{metric}", save(distance_against_steps(to_data(table), metric), path)
            )
            rows = ok[ok["metric"] == metric]
            names = list(map(sampler_name, rows["sampler"], rows["sampler_settings"]))
            rows = rows.assign(name=names)
            log.curves(metric, rows, "steps", "value", ["denoiser", "start", "name"])
            out.print(f"figure: {shown(path)}")
    out.print(f"table:  {shown(directory / 'cells.parquet')}")
    if log.where:
        out.print(f"log:    {shown(log.where)}")
    return int((table["status"] == "failed").sum())


def to_data(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the grid itself: distances to data or law, without a budget's helpers."""
    limits = table["sampler"].str.endswith(LIMIT)
    return table[table["reference"].isin(["data", "law"]) & ~limits]


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
        path = directory / f"budget_{metric}.png"
        log.figure(f"budget/{metric}", save(waterfall(lines, metric, title), path))
        out.print(f"figure: {shown(path)}")


def shown(place: Path | str) -> str:
    """A path as it is short to read: below the current folder; an address as it is."""
    return str(place).removeprefix(f"{Path.cwd()}{os.sep}")
