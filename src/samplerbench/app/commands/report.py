"""`samplerbench report DIR…`: one page about any number of runs, finished or not.

    samplerbench report multirun/
    samplerbench report A B out=page panels=true figures=[png,pdf] style=column
    samplerbench report A B --compare
    samplerbench report multirun/ where='objective=edm,ncsn seed=0' group=objective
    samplerbench report A reach=0.5

Each DIR is a run or a folder of runs. The report is a new folder, `out`, with `report.html`, which
needs no network, `cells.csv`, `table.md` and `table.tex`. `--compare` adds the paired differences
of two runs with the same measures, and prints them. Two slow parts are optional: `panels=true`
draws samples beside the data, and `figures` writes figures, in the `style` page, slides or column.

`where` keeps the cells that have these values in columns of `cells.csv`; spaces separate columns,
commas separate values. `group` is a column: it comes first in the tables and colours the charts.
`reach` is a distance, or a list: a table shows from how many evaluations each sampler stays at or
below it.

Files that cannot be read are left out, and listed on the page and in the output. A run may still be
active.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf
from rich.table import Table

from samplerbench.app.commands.words import read_words, require_folder
from samplerbench.app.config.folders import run_name
from samplerbench.app.folder.plan import PLAN, read_plan
from samplerbench.app.folder.runs import (
    CHECKPOINTS,
    CONFIG,
    StoredRun,
    find_runs,
    open_run,
    read_about,
)
from samplerbench.app.terminal import console
from samplerbench.bench.rounding import counted, difference, plain
from samplerbench.bench.store import Store
from samplerbench.errors import InvalidSetting, first_line, require
from samplerbench.figures.common import Look, looking
from samplerbench.report.charts import Chart
from samplerbench.report.chosen import conditions, group_column
from samplerbench.report.compare import Comparison, compare
from samplerbench.report.content import Report, gather
from samplerbench.report.entries import Entry, few, labelled
from samplerbench.report.folder import write_report
from samplerbench.report.references import declared

#: Names of folders of a multirun's jobs; the report adds the name of the multirun.
NUMBERED = re.compile(r"\d+(_[0-9a-f]{8})?")

#: The largest number of differences that are printed.
MOST_PRINTED = 40

#: The largest number of runs with sample panels; each takes about a second.
MOST_PANELS = 4


def main(words: list[str]) -> None:
    """Write a report and print its path."""
    keys = ["out", "panels", "figures", "style", "where", "group", "reach"]
    folders, values = read_words("report", words, keys, options=["--compare"])
    require_folder("report", folders)
    panels, comparing = values.get("panels", "false").lower(), "--compare" in values
    require(panels in ("true", "false"), "panels", panels, "true or false")
    figures = tuple(re.findall(r"[^\[\],\s]+", values.get("figures", "")))
    require(
        "figures" in values or "style" not in values, "style", values.get("style"), "with figures"
    )
    where, group = values.get("where", ""), group_column(values.get("group", ""))
    conditions(where)
    targets = _targets(values.get("reach", ""))
    allowed = "left out beside --compare, which compares all cells"
    require(not (comparing and where), "where", where, allowed)
    look = Look(values.get("style", "page"), figures or ("png",))
    out = Path(values["out"]) if "out" in values else None
    if out is not None and (out.exists() or out.is_symlink()):  # before any work
        raise InvalidSetting("out", out, "a new folder: nothing is overwritten")
    found: list[list[Path]] = []
    skipped: list[InvalidSetting] = []
    for folder in map(Path, folders):
        try:
            found.append(_runs_in(folder))
        except InvalidSetting as error:
            if comparing or len(folders) == 1:
                raise
            skipped.append(error)
    if skipped and not found:
        raise skipped[0]
    paths = list(dict.fromkeys(path.resolve() for runs in found for path in runs))
    if comparing:
        counts = [len(runs) for runs in found]
        held = ", ".join(f"{folder} has {n}" for folder, n in zip(folders, counts, strict=True))
        allowed = f"two folders with one run each, such as multirun/NAME/0 multirun/NAME/1: {held}"
        given = " ".join(folders)
        require(counts == [1, 1], "--compare", given, allowed)
        require(len(paths) == 2, "--compare", given, "two different runs")
    out = out or Path("multirun") / f"report_{run_name()}"
    left_out = [f"left out: {error}" for error in skipped]
    with looking(look):
        report(
            paths,
            list(map(Path, folders)),
            left_out,
            out,
            panels=panels == "true",
            figures=figures,
            comparing=comparing,
            content=partial(gather, where=where, group=group, targets=targets),
        )


def _targets(text: str) -> list[float]:
    """The distances of `reach`."""
    targets = []
    for word in re.findall(r"[^\[\],\s]+", text):
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        require(0 < number < math.inf, "reach", text, "a distance above 0, or a list of them")
        targets.append(number)
    return targets


def _runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, including runs without a config."""
    try:
        return find_runs(folder)
    except InvalidSetting:
        if (folder / "cells").is_dir() or (folder / "cells.parquet").is_file():
            return [folder]
        if any(folder.rglob(PLAN)):  # its jobs have not started
            return []
        raise


def report(
    paths: Sequence[Path],
    folders: Sequence[Path],
    skipped: Sequence[str],
    out: Path,
    *,
    panels: bool,
    figures: Sequence[str],
    comparing: bool,
    content: Callable[[Sequence[Entry]], Report],
) -> None:
    """Write a report of runs and print a line for each."""
    read = [_entry(path, f"#{place}") for place, path in enumerate(paths, 1)]
    entries = labelled([entry for entry, _ in read])
    notes = [*skipped, *(line for folder in folders for line in _plan_notes(folder))]
    if not entries:
        print("\n".join([*notes, "report: none, because no job has started"]))
        return
    comparison = compare(*entries) if comparing else None
    page = _with_budgets(replace(content(entries), comparison=comparison))
    page = replace(page, notes=[*page.notes, *notes])
    if panels:
        runs = zip(entries, (run for _, run in read), strict=True)
        page = _with_panels(page, {entry.label: run for entry, run in runs if run is not None})
    write_report(page, out, figures)
    for entry in page.entries:
        print(f"{entry.label} {entry.name}: {entry.summary}")
        for line in entry.without_value():
            print(f"   {line}")
    for note in page.notes:
        print(f"note: {note}")
    if comparison is not None:
        print_differences(comparison)
    print_reached(page.reached)
    print(f"report: {out / 'report.html'}")


def print_differences(comparison: Comparison) -> None:
    """Print the differences of two runs: the first `MOST_PRINTED`, the smallest p-values first."""
    out, (first, second) = console(), comparison.labels
    lines = comparison.lines.sort_values("p_holm", kind="stable", na_position="last")
    family = f", with 95 % intervals; p-values by Holm over {counted(comparison.tests, 'cell')}"
    out.print(f"\ndifferences {first} − {second}{family if comparison.tests else ''}:")
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "start", "denoiser", "sampler"):
        table.add_column(name, overflow="fold")
    for name in ("N", first, second, "difference", "p-value"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("verdict", overflow="fold")
    for line in lines.head(MOST_PRINTED).to_dict("records"):
        verdict = line["verdict"] if line["paired"] else f"{line['verdict']} (not paired)"
        table.add_row(
            *(str(line[name]) for name in ("metric", "start", "denoiser", "name")),
            f"{line['steps']:,}",
            plain(line["first"]),
            plain(line["second"]),
            difference(line["difference"], line["upper"] - line["difference"]),
            plain(line["p_holm"], 2),
            verdict,
        )
    out.print(table)
    left, alone = len(lines) - MOST_PRINTED, len(comparison.unmatched)
    if left > 0:
        out.print(f"and {counted(left, 'cell')} more in differences.csv")
    if alone:
        out.print(f"{counted(alone, 'cell')} of only one run: see the page")


def print_reached(lines: pd.DataFrame) -> None:
    """Print the evaluations that each curve needs, in a table for each target."""
    out = console()
    for (measure, _), own in lines.groupby(["measure", "target"], sort=False):
        distance = plain(float(own["target"].iloc[0]))
        out.print(f"\nevaluations from which {measure} stays at or below {distance}:")
        table = Table(box=None, pad_edge=False)
        several = own["run"].nunique() > 1
        shown = [*(["run"] * several), "start", "denoiser", "name", "verdict"]
        for name in shown:
            title = {"name": "sampler", "verdict": "evaluations (95 % interval)"}.get(name, name)
            table.add_column(title, overflow="fold")
        for line in own[shown].itertuples(index=False):
            table.add_row(*map(str, line))
        out.print(table)


def _entry(path: Path, label: str) -> tuple[Entry, StoredRun | None]:
    """The report's entry of a run, and the run itself if it can be opened."""
    values, problems = Store(path).readable()
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    try:
        run = open_run(path)
        values, problems = run.values_and_problems()
        config = OmegaConf.to_container(run.config, resolve=True)
    except Exception as error:  # the file may have any content
        message = first_line(error)
        entry = Entry(
            label, path.name, "unreadable", message, 0, values, (), {}, text, {}, problems
        )
        return entry, None
    entry = Entry(
        label=label,
        name=f"{path.parent.name}/{path.name}" if NUMBERED.fullmatch(path.name) else path.name,
        state=run.state,
        message=run.message,
        expected=run.values,
        values=values,
        overrides=run.overrides,
        config={str(key): value for key, value in config.items()}
        if isinstance(config, dict)
        else {},
        config_text=text,
        versions=run.versions,
        problems=problems,
        unordered=_unordered(config),
    )
    return entry, run


def _unordered(config: object) -> frozenset[str]:
    """The metrics of a config with `smaller_is_better = False`."""
    metrics = config.get("metric") if isinstance(config, dict) else None
    return frozenset(
        str(name)
        for name, node in (metrics if isinstance(metrics, dict) else {}).items()
        if isinstance(node, dict)
        and declared(str(node.get("_target_")), "smaller_is_better") is False
    )


def _with_budgets(report: Report) -> Report:
    """The report with the error budgets of the runs that have one."""
    budgets: dict[str, pd.DataFrame] = {}
    notes = list(report.notes)
    for entry in report.entries:
        budget = entry.config.get("budget")
        if not isinstance(budget, dict) or entry.values.empty:
            continue
        # slow: imports torch, and most runs have no budget
        from samplerbench.bench.budget.parts import parts

        rows = report.values[report.values["run"] == entry.label]
        try:
            budgets[entry.label] = parts(rows, int(budget["converged_steps"]))
        except (InvalidSetting, IndexError, KeyError, ValueError) as error:
            notes.append(f"{entry.label}: no error budget yet: {first_line(error)}")
    return replace(report, budgets=budgets, notes=notes)


def _with_panels(report: Report, runs: Mapping[str, StoredRun]) -> Report:
    """The report with samples of the best and the worst cell of each of the first runs."""
    charts: list[Chart] = []
    notes = list(report.notes)
    with_cells = report.lines[report.lines["mean"].notna()]
    lines_of_runs = {str(label): own for label, own in with_cells.groupby("run") if label in runs}
    for label, lines in list(lines_of_runs.items())[:MOST_PANELS]:
        first = lines[lines["measure"] == lines["measure"].iloc[0]]
        title = label if len(report.entries) > 1 else ""
        try:
            charts += _panels(runs[label], first, title)
        except Exception as error:  # the run may have any content; the page has other parts
            notes.append(f"{label}: no sample panels: {first_line(error)}")
    if len(lines_of_runs) > MOST_PANELS:
        notes.append(f"only the first {MOST_PANELS} runs have sample panels")
    return replace(report, panels=charts, notes=notes)


def _panels(run: StoredRun, lines: pd.DataFrame, title: str) -> list[Chart]:
    """The panels of one run, from its trained weights."""
    if "learned" in set(lines["denoiser"]) and not (run.directory / CHECKPOINTS).is_dir():
        # before torch is imported
        raise InvalidSetting("panels", run.name, "a run with its trained weights")
    from samplerbench.app.job.rebuild import rebuild
    from samplerbench.app.job.scenes import scene
    from samplerbench.report.samples import panels

    job = rebuild(run, device="cpu")
    return list(panels(scene(job.sweep, job.training), lines, title))


def _plan_notes(folder: Path) -> list[str]:
    """For each multirun below a folder: jobs that have not started, and jobs outside its plan."""
    lines = []
    for path in sorted(folder.rglob(PLAN)):
        plan = read_plan(path)
        if plan is None:
            continue
        found = {run: _overrides(path.parent / run) for run in _runs_of(path.parent)}
        begun = {run: frozenset(words) for run, words in found.items() if words is not None}
        unknown = len(found) - len(begun)
        name = path.parent.name
        if plan.count > len(plan.jobs):  # not all jobs are listed
            lines.append(f"{name}: {len(found):,} of {plan.count:,} jobs have started")
            continue
        there = set(begun.values())
        missing = [job for job in plan.jobs if job not in there]
        other_runs = [str(run) for run, words in begun.items() if not plan.includes(words)]
        if len(missing) > unknown:
            started = plan.count - len(missing) + unknown
            text = f"{name}: {started} of {plan.count} jobs have started"
            lines.append(f"{text}; not: {few(plan.short_names(missing), '; ')}")
        if other_runs:
            lines.append(f"{name}: runs that its last command does not have: {few(other_runs)}")
    return lines


def _overrides(directory: Path) -> list[str] | None:
    """The words of a run's command; None if they cannot be read."""
    with suppress(Exception):  # the file may have any content
        return read_about(directory)[1]
    return None


def _runs_of(multirun: Path) -> list[Path]:
    """The folders of a multirun's jobs, without the jobs of multiruns inside it."""
    inner = {path.parent for path in multirun.rglob(PLAN)} - {multirun}
    runs = (path.parent for path in multirun.rglob(CONFIG))
    return sorted(
        run.relative_to(multirun) for run in runs if not inner.intersection((run, *run.parents))
    )
