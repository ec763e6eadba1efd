"""`samplerbench report DIR…`: one page over any number of runs, finished or not.

    samplerbench report multirun/
    samplerbench report A B out=page panels=false
    samplerbench report A B --compare

Each DIR is a run or a folder of runs. Written is a folder with `report.html`, which needs no
network, `cells.csv`, `table.md`, `table.tex` and figures; `out` names it, and nothing that is there
already is overwritten. `--compare` adds the paired differences of two runs that measure the same.

What cannot be read is named, on the page and here, and left out. Runs that still run are read as
they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from samplerbench.app.main import run_name
from samplerbench.app.runs import CHECKPOINTS, CONFIG, StoredRun, find_runs, open_run
from samplerbench.errors import InvalidSetting, first_line, require
from samplerbench.evaluation.store import Store
from samplerbench.report.charts import Chart
from samplerbench.report.compare import compare
from samplerbench.report.entries import Entry
from samplerbench.report.page import Report, gather, write_report

#: Runs of which samples are drawn again: each costs about a second.
MOST_PANELS = 4
_PLAN = "multirun.yaml"


def main(words: list[str]) -> None:
    """Write a report and say where it is.

    Raises:
        InvalidSetting: a word is not understood, a folder holds no run, or `out` is there already.
    """
    folders, out, panels, comparing = _read(words)
    found = [_found(folder) for folder in folders]
    if comparing:
        allowed = "two folders with one run each"
        require([len(of) for of in found] == [1, 1], "--compare", " ".join(words), allowed)
    paths = list(dict.fromkeys(path.resolve() for of in found for path in of))
    read = [_entry(path, f"#{place}") for place, path in enumerate(paths, 1)]
    entries = [entry for entry, _ in read]
    if comparing:
        require(len(entries) == 2, "--compare", " ".join(words), "two different runs")
    comparison = compare(*entries) if comparing else None
    report = _with_budgets(replace(gather(entries), comparison=comparison))
    notes = [line for folder in folders for line in _not_begun(folder)]
    report = replace(report, notes=[*report.notes, *notes])
    if panels:
        report = _with_panels(report, {entry.label: run for entry, run in read if run is not None})
    out = out or Path("multirun") / f"report_{run_name()}"
    write_report(report, out)
    for entry in entries:
        print(f"{entry.label} {entry.name}: {entry.told}")
        for line in entry.without_value():
            print(f"   {line}")
    for note in report.notes:
        print(f"note: {note}")
    print(f"report: {out / 'report.html'}")


def _read(words: list[str]) -> tuple[list[Path], Path | None, bool, bool]:
    """Folders, out, panels and whether to compare."""
    folders, out, panels, comparing = [], None, True, False
    for word in words:
        key, _, value = word.partition("=")
        if word == "--compare":
            comparing = True
        elif key == "out" and value:
            out = Path(value)
        elif key == "panels" and value.lower() in ("true", "false"):
            panels = value.lower() == "true"
        elif word.startswith("-") or (not Path(word).exists() and "=" in word):
            allowed = "folders of runs, out=FOLDER, panels=false or --compare"
            raise InvalidSetting("report", word, allowed)
        else:
            folders.append(Path(word))
    require(len(folders) > 0, "report", "no folder", "one or more folders of runs")
    if out is not None and (out.exists() or out.is_symlink()):  # before any work
        raise InvalidSetting("out", out, "a folder that is not there yet: nothing is overwritten")
    return folders, out, panels, comparing


def _found(folder: Path) -> list[Path]:
    """The runs in a folder; a run that lost its config is one still."""
    try:
        return find_runs(folder)
    except InvalidSetting:
        if (folder / "cells").is_dir() or (folder / "cells.parquet").is_file():
            return [folder]
        raise


def _entry(path: Path, label: str) -> tuple[Entry, StoredRun | None]:
    """A run for the report, and itself where it can be opened."""
    values, problems = Store.readable(path)
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    try:
        run = open_run(path)
        config = OmegaConf.to_container(run.config, resolve=True)
    except Exception as error:  # whatever somebody else's file holds
        message = first_line(error)
        entry = Entry(
            label, path.name, "unreadable", message, 0, values, (), {}, text, {}, problems
        )
        return entry, None
    entry = Entry(
        label=label,
        name=path.name if not path.name.isdigit() else f"{path.parent.name}/{path.name}",
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
    )
    return entry, run


def _with_budgets(report: Report) -> Report:
    """The report with the error budgets of the runs that have one."""
    budgets: dict[str, pd.DataFrame] = {}
    notes = list(report.notes)
    for entry in report.entries:
        budget = entry.config.get("budget")
        if not isinstance(budget, dict) or entry.values.empty:
            continue
        # torch takes seconds to import, and most runs have no budget
        from samplerbench.evaluation.budget import parts

        try:
            budgets[entry.label] = parts(entry.values, int(budget["converged_steps"]))
        except (InvalidSetting, IndexError, KeyError, ValueError) as error:
            notes.append(f"{entry.label}: no error budget yet: {first_line(error)}")
    return replace(report, budgets=budgets, notes=notes)


def _with_panels(report: Report, runs: Mapping[str, StoredRun]) -> Report:
    """The report with samples of the best and the worst cell of the first runs.

    Args:
        report: without them.
        runs: by their label.
    """
    charts: list[Chart] = []
    notes = list(report.notes)
    with_cells = report.lines[report.lines["mean"].notna()]
    of_run = {str(label): of for label, of in with_cells.groupby("run") if label in runs}
    for label, lines in list(of_run.items())[:MOST_PANELS]:
        first = lines[lines["measure"] == lines["measure"].iloc[0]]
        title = label if len(report.entries) > 1 else ""
        try:
            charts += _panels(runs[label], first, title)
        except Exception as error:  # a stored run is somebody's; a page is worth having without
            notes.append(f"{label}: no sample panels: {first_line(error)}")
    if len(of_run) > MOST_PANELS:
        notes.append(f"sample panels are of the first {MOST_PANELS} runs")
    return replace(report, panels=charts, notes=notes)


def _panels(run: StoredRun, lines: pd.DataFrame, title: str) -> list[Chart]:
    """The panels of one run, from its trained weights."""
    if "learned" in set(lines["denoiser"]) and not (run.directory / CHECKPOINTS).is_dir():
        # before torch is imported, which takes seconds
        raise InvalidSetting("panels", run.name, "a run whose trained weights are there")
    from samplerbench.app.build import scene
    from samplerbench.report.samples import panels

    job = run.job(device="cpu")
    return list(panels(scene(job.sweep, job.training), lines, title))


def _not_begun(folder: Path) -> list[str]:
    """Which multiruns below a folder have begun fewer jobs than they were told to, a line each."""
    lines = []
    for path in sorted(folder.rglob(_PLAN)):
        try:
            words = OmegaConf.select(OmegaConf.load(path), "hydra.overrides.task")
            overrides = OverridesParser.create().parse_overrides(list(words))
            # a plan may be somebody else's, with a range that has no end
            sweeps = (
                sum(1 for _ in islice(override.sweep_iterator(), 10**5))
                for override in overrides
                if override.is_sweep_override()
            )
            planned = math.prod(sweeps)
        except Exception:  # a sweeper of another kind decides for itself how many jobs there are
            continue
        begun = sum(
            child.is_dir() and (child / CONFIG).is_file() for child in path.parent.iterdir()
        )
        if begun < planned:
            lines.append(f"{path.parent.name}: {begun} of {planned} jobs have begun")
    return lines
