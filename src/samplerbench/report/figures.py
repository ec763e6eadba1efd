"""Figures of a report for slides and papers; the page has its own charts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from samplerbench.bench.cell import NOT_A_DENSITY, sampler_names
from samplerbench.figures.budget import waterfall
from samplerbench.figures.common import distance_title, repetitions
from samplerbench.figures.distance import about, distance_curves
from samplerbench.figures.paired_error import paired_error_against_nfe, paired_errors
from samplerbench.figures.style import MARKERS, CurveStyle, curve_style, save, styles_of
from samplerbench.report.cells import floors, in_order, nearest
from samplerbench.report.content import Report

#: The number of curves in a figure, for each start: the number of colours.
MOST_IN_FIGURE = 7


def write_figures(report: Report, directory: Path, formats: Sequence[str]) -> None:
    """Write distance against steps, NFE and rounds, and budgets."""
    law = floors(report.distances)
    samplers = in_order(report.curves)
    for number, (measure, own) in enumerate(report.curves.groupby("measure", sort=False), 1):
        shown = nearest(own, MOST_IN_FIGURE)
        cells = shown.assign(
            name=shown["curve"],
            lower=shown["mean"] - shown["half"],
            upper=shown["mean"] + shown["half"],
        )
        styles = _styles(shown, samplers, report.group)
        metric = str(own["metric"].iloc[0])
        own_law = law[law["measure"] == measure]
        title = distance_title(metric, own_law["reference"])
        caption = _caption(cells, own["curve"].nunique())
        missing = _missing(report.distances[report.distances["measure"] == measure], shown)
        axes = ["steps"]  # equal numbers would give the same figure again
        axes += ["nfe"] * bool((own["nfe"] != own["steps"]).any())
        axes += ["rounds"] * bool((own["rounds"] != own["nfe"]).any())
        for x in axes:
            if shown[x].nunique() > 1:
                name = f"distance_{number}_{_file_name(str(measure))}_{x}"
                drawn = distance_curves(cells, own_law, x, title, styles, caption, missing)
                _save(drawn, directory / name, formats)
    for label, parts in report.budgets.items():
        _write_budget(label, parts, report, directory, formats)


def _missing(rows: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """The rows of the shown samplers and starts whose outputs have no density."""
    rows = rows[(rows["status"] == NOT_A_DENSITY) & rows["start"].isin(shown["start"])]
    return rows[sampler_names(rows).isin(shown["name"])]


def _caption(cells: pd.DataFrame, curves: int) -> str:
    """The common settings of the cells of a figure, and the number of curves that are drawn."""
    caption = about(cells)
    if cells["verdict"].str.startswith("mean over").any():
        words = "repetitions", "repetitions, or seeds of runs that differ only in their seeds"
        caption = caption.replace(*words)
    shown = cells["curve"].nunique()
    nearest_only = f"\n{shown} of {curves} curves: those nearest to the data"
    return caption + nearest_only * (shown < curves)


def _styles(shown: pd.DataFrame, samplers: Sequence[str], group: str) -> dict[str, CurveStyle]:
    """A colour for each sampler of the report, and a marker for each curve of that colour.

    With a group, each value of the group has a colour instead. If there is only one sampler and no
    group, its curves have different colours.
    """
    if group and group != "denoiser":  # denoisers have dashes
        # exact scores have no objective and no network
        shown = shown.assign(name=shown.groupby("curve")[group].transform("max"))
        samplers = sorted(shown["name"].unique())
    curves = shown.sort_values(["sampler", "eta", "curve"])[["curve", "name"]].drop_duplicates()
    if curves["name"].nunique() == 1 and not group:
        return styles_of(curves["curve"])
    of_name = curves.groupby("name").cumcount()
    return {
        curve: replace(curve_style(samplers.index(name)), marker=MARKERS[place % len(MARKERS)])
        for curve, name, place in zip(curves["curve"], curves["name"], of_name, strict=True)
    }


def _save(figure: Figure, stem: Path, formats: Sequence[str]) -> None:
    for suffix in formats:
        save(figure, stem.with_name(f"{stem.name}.{suffix}"))


def _write_budget(
    label: str, parts: pd.DataFrame, report: Report, directory: Path, formats: Sequence[str]
) -> None:
    rows = report.values[report.values["run"] == label]
    for metric in dict.fromkeys(parts["metric"]):
        figures = {"budget": waterfall(parts, metric, _of_budget(rows, parts))}
        if paired_errors(rows, metric)["nfe"].nunique() > 1:
            figures["paired_error"] = paired_error_against_nfe(rows, metric)
        for name, figure in figures.items():
            stem = directory / f"{name}_{_file_name(label)}_{_file_name(metric)}"
            _save(figure, stem, formats)


def _of_budget(rows: pd.DataFrame, parts: pd.DataFrame) -> str:
    """The common settings of a budget's bars, as a caption."""
    count = repetitions(parts.loc[parts["part"] != "floor", "count"])
    first = rows.iloc[0]
    bars = "bars: 95 % intervals of the mean"
    return f"{first['dataset']}, n = {first['n_samples']:,}, {count}; {bars}"


def _file_name(measure: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", measure)[:80].strip("_.")
