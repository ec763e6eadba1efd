"""The folder of a report: the page, tables, values and figures.

    report.html        the page, with plotly in it: it needs no network
    cells.csv          every value, one row each
    differences.csv    of two runs, with --compare
    table.md, .tex     means and intervals, for a README and for a paper
    figures/           as PNG and as PDF

A temporary folder beside it is filled first and gets the final name when it is complete.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd

from samplerbench.errors import InvalidSetting
from samplerbench.figures.distance import distance_against
from samplerbench.figures.style import save
from samplerbench.files import temporary_name, write_atomically
from samplerbench.report.cells import curves
from samplerbench.report.content import Report
from samplerbench.report.page import render
from samplerbench.report.tables import latex, markdown

#: Sampler settings in a figure, for each start: as many as it has colours.
MOST_IN_FIGURE = 7


def write_report(report: Report, directory: Path) -> None:
    """Write the folder, complete or not at all.

    Raises:
        InvalidSetting: the folder exists already, or it cannot be written.
    """
    allowed = "a folder that is not there yet: nothing is overwritten"
    if directory.exists() or directory.is_symlink():
        raise InvalidSetting("out", directory, allowed)
    temporary = temporary_name(directory)
    try:
        (temporary / "figures").mkdir(parents=True)
        _write_tables(report, temporary)
        _write_figures(report, temporary / "figures")
        _write(temporary / "report.html", render(report))
        temporary.rename(directory)
    except OSError as error:
        raise InvalidSetting("out", directory, f"a place to write to ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    # the name of a run's folder may contain bytes that no encoding has
    write_atomically(path, text.encode(errors="replace"))


def _write_tables(report: Report, directory: Path) -> None:
    _write(directory / "cells.csv", report.values.to_csv(index=False))
    if report.comparison is not None:
        _write(directory / "differences.csv", report.comparison.lines.to_csv(index=False))
    _write(directory / "table.md", markdown(report))
    _write(directory / "table.tex", latex(report))


def _write_figures(report: Report, directory: Path) -> None:
    """Write matplotlib's figures, for slides and papers."""
    several = len(report.entries) > 1
    finished = report.lines[report.lines["mean"].notna()]
    key = ["run", "start", "denoiser", "sampler", "sampler_settings"]
    groups = curves(finished, MOST_IN_FIGURE).groupby("measure", sort=False)
    for number, (measure, lines) in enumerate(groups, 1):
        rows = report.distances[report.distances["measure"] == measure]
        drawn = pd.MultiIndex.from_frame(rows[key]).isin(pd.MultiIndex.from_frame(lines[key]))
        rows = rows[drawn | (rows["denoiser"] == "law")]
        if several:  # a figure distinguishes curves by their samplers
            rows = rows.assign(sampler=rows["run"] + " " + rows["sampler"])
        # if each step is one evaluation, both figures would be the same
        axes = ("steps",) if (lines["nfe"] == lines["steps"]).all() else ("steps", "nfe")
        for x in axes:
            if lines[x].nunique() > 1:
                figure = distance_against(rows, str(rows["metric"].iloc[0]), x)
                name = f"distance_{number}_{_file_name(str(measure))}_{x}"
                for suffix in ("png", "pdf"):
                    save(figure, directory / f"{name}.{suffix}")
    for label, parts in report.budgets.items():
        _write_budget(label, parts, report, directory)


def _write_budget(label: str, parts: pd.DataFrame, report: Report, directory: Path) -> None:
    # these import torch, and most reports have no budget
    from samplerbench.figures.budget import waterfall
    from samplerbench.figures.paired_error import paired_error_against_nfe, paired_errors

    rows = report.values[report.values["run"] == label]
    for metric in dict.fromkeys(parts["metric"]):
        figures = {"budget": waterfall(parts, metric, "bars: 95 % intervals of the mean")}
        if paired_errors(rows, metric)["nfe"].nunique() > 1:
            figures["paired_error"] = paired_error_against_nfe(rows, metric)
        for name, figure in figures.items():
            for suffix in ("png", "pdf"):
                file = f"{name}_{label.lstrip('#')}_{_file_name(metric)}.{suffix}"
                save(figure, directory / file)


def _file_name(measure: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", measure)[:80].strip("_.")
