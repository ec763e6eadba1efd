"""What a job shows of its results: printed, drawn and logged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from samplerbench.app.build import Job
from samplerbench.app.console import (
    print_budget,
    print_cells,
    print_chains,
    print_claims,
    print_failures,
    print_score_errors,
)
from samplerbench.app.terminal import shown
from samplerbench.evaluation.budget import Budget, parts, verdict
from samplerbench.evaluation.chains import CHAIN
from samplerbench.evaluation.identity import settings_text
from samplerbench.evaluation.scene import Scene
from samplerbench.evaluation.score_error import score_errors
from samplerbench.evaluation.statistics import at_equal_cost, sampler_name, summary
from samplerbench.evaluation.store import to_data
from samplerbench.evaluation.sweep import most_steps
from samplerbench.figures.base import write
from samplerbench.figures.budget import waterfall
from samplerbench.figures.distance_families import distance_figure, family
from samplerbench.figures.paired_error import paired_error_against_nfe, paired_errors
from samplerbench.figures.style import save
from samplerbench.files import write_atomically
from samplerbench.logs import Log


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


def show_pictures(job: Job, view: Scene, directory: Path, log: Log, out: Console) -> None:
    """Draw what was asked for, of the trained model."""
    for name, picture in job.pictures.items():
        for path in write(picture.draw(view), directory):
            log.figure(f"{name}/{path.stem}", path)
            out.print(f"figure: {shown(path)}")
