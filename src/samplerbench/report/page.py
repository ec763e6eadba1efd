"""The report's folder: one page without a network, tables, values and figures.

    report.html        all of it, plotly included
    cells.csv          every value, one row each
    differences.csv    of two runs compared
    table.md, .tex     means and intervals, for a README and for a paper
    figures/           as PNG and as PDF

It is made beside its place and moved there when it is whole. Names and messages are somebody's
data: templates escape them, and the page's own script writes them as text, never as markup.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from samplerbench.errors import InvalidSetting
from samplerbench.figures.distance import distance_against
from samplerbench.figures.style import save
from samplerbench.files import temporary_name, write_atomically
from samplerbench.report.cells import cell_lines, curves
from samplerbench.report.charts import (
    Chart,
    difference_charts,
    distance_charts,
    heat_maps,
    left_out,
    waterfalls,
)
from samplerbench.report.compare import Comparison
from samplerbench.report.entries import Entry, all_values, to_data, warnings
from samplerbench.report.references import sources
from samplerbench.report.tables import grids
from samplerbench.version import __version__

#: Curves of a static figure: as many as its colours, for each start and denoiser.
MOST_IN_FIGURE = 7
MOST_CHARTS = 60
_FIGURES = "figures"


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says.

    Args:
        entries: the runs.
        values: all their rows, of `entries.all_values`.
        measured: of `entries.to_data`.
        lines: of `cells.cell_lines`.
        budgets: label of a run to `bench.budget.parts` of it.
        panels: the sample panels.
        notes: what is missing and why, a line each.
        comparison: of two runs, where it was asked for.
    """

    entries: Sequence[Entry]
    values: pd.DataFrame
    measured: pd.DataFrame
    lines: pd.DataFrame
    budgets: Mapping[str, pd.DataFrame]
    panels: Sequence[Chart]
    notes: Sequence[str]
    comparison: Comparison | None = None


def gather(entries: Sequence[Entry]) -> Report:
    """The tables of a report over some runs, without budgets and panels."""
    values = all_values(entries)
    measured = to_data(values)
    unordered = {name for entry in entries for name in entry.unordered}
    lines = cell_lines(measured, unordered)
    notes = warnings(entries, measured)
    notes += [
        f"{name}: neither small nor large is better, so nothing is called best: see its floor"
        for name in sorted(unordered)
    ]
    return Report(entries, values, measured, lines, {}, (), notes)


def write_report(report: Report, directory: Path) -> None:
    """Write the folder, whole or not at all.

    Raises:
        InvalidSetting: something is there already, or it cannot be written.
    """
    allowed = "a folder that is not there yet: nothing is overwritten"
    if directory.exists() or directory.is_symlink():
        raise InvalidSetting("out", directory, allowed)
    beside = temporary_name(directory)
    try:
        (beside / _FIGURES).mkdir(parents=True)
        _fill(report, beside)
        beside.rename(directory)
    except OSError as error:
        raise InvalidSetting("out", directory, f"a place to write to ({error.strerror})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fill(report: Report, directory: Path) -> None:
    """Everything the folder holds."""
    comparison = report.comparison
    _write(directory / "cells.csv", report.values.to_csv(index=False))
    known = []
    if comparison is not None:
        _write(directory / "differences.csv", comparison.lines.to_csv(index=False))
        known = comparison.lines.dropna(subset=["p_holm"]).to_dict("records")
    tables = {
        "grids": list(grids(report.lines, report.measured)),
        "differences": known,
        "labels": comparison.labels if comparison else (),
    }
    _write(directory / "table.md", _markdown().get_template("table.md.jinja").render(tables))
    _write(directory / "table.tex", _latex().get_template("table.tex.jinja").render(tables))
    _draw(report, directory / _FIGURES)
    _write(directory / "report.html", render(report))


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode(errors="replace"))  # the name of a folder may be no text


def _draw(report: Report, directory: Path) -> None:
    """The figures of matplotlib, for slides and papers."""
    several = len(report.entries) > 1
    finished = report.lines[report.lines["mean"].notna()]
    chosen = curves(finished, MOST_IN_FIGURE)
    key = ["run", "start", "denoiser", "sampler", "sampler_settings"]
    for place, (measure, lines) in enumerate(chosen.groupby("measure", sort=False)):
        rows = report.measured[report.measured["measure"] == measure]
        drawn = pd.MultiIndex.from_frame(rows[key]).isin(pd.MultiIndex.from_frame(lines[key]))
        rows = rows[drawn | (rows["denoiser"] == "law")]
        if several:  # a figure tells curves apart by their samplers
            rows = rows.assign(sampler=rows["run"] + " " + rows["sampler"])
        # where an evaluation is a step, one figure says it all
        axes = ("steps",) if (lines["nfe"] == lines["steps"]).all() else ("steps", "nfe")
        for x in axes:
            if lines[x].nunique() > 1:
                name = f"distance_{place + 1}_{_file_name(str(measure))}_{x}"
                figure = distance_against(rows, str(rows["metric"].iloc[0]), x)
                for suffix in ("png", "pdf"):
                    save(figure, directory / f"{name}.{suffix}")
    for label, parts in report.budgets.items():
        _draw_budget(label.lstrip("#"), parts, report, directory)


def _draw_budget(number: str, parts: pd.DataFrame, report: Report, directory: Path) -> None:
    # torch is imported by these, and most reports have no budget
    from samplerbench.figures.budget import waterfall
    from samplerbench.figures.paired_error import paired_error_against_nfe, paired_errors

    rows = report.values[report.values["run"] == f"#{number}"]
    for metric in dict.fromkeys(parts["metric"]):
        figures = {"budget": waterfall(parts, metric, "bars: 95 % intervals of the mean")}
        if paired_errors(rows, metric)["nfe"].nunique() > 1:
            figures["paired_error"] = paired_error_against_nfe(rows, metric)
        for name, figure in figures.items():
            for suffix in ("png", "pdf"):
                save(figure, directory / f"{name}_{number}_{_file_name(metric)}.{suffix}")


def _file_name(measure: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", measure)[:80].strip("_.")


#: Columns of the page's table: name, title, and whether it is a number.
_COLUMNS = (
    ("name", "sampler", False),
    ("denoiser", "denoiser", False),
    ("start", "start", False),
    ("steps", "N", True),
    ("nfe", "NFE", True),
    ("mean", "mean", True),
    ("half", "± 95 %", True),
    ("floor", "floor", True),
    ("verdict", "verdict", False),
    ("measure", "metric", False),
    ("dataset", "data", False),
    ("run", "run", False),
    ("count", "reps", True),
    ("seconds", "seconds", True),
)


def _difference_columns(labels: tuple[str, str]) -> tuple[tuple[str, str, bool], ...]:
    """The same for the table of two runs compared."""
    return (
        ("name", "sampler", False),
        ("denoiser", "denoiser", False),
        ("start", "start", False),
        ("steps", "N", True),
        ("first", labels[0], True),
        ("second", labels[1], True),
        ("difference", "difference", True),
        ("half", "± 95 %", True),
        ("p_holm", "p (Holm)", True),
        ("verdict", "verdict", False),
        ("measure", "metric", False),
    )


def render(report: Report) -> str:
    """The page, as HTML that needs nothing else."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samplerbench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["arxiv"] = _with_links
    charts = list(_charts(report))
    dropped = left_out(report.lines)
    notes = list(report.notes)
    if dropped:
        notes.append(f"{dropped:,} settings farther from the data are in the table only")
    if len(charts) > MOST_CHARTS:
        notes.append(
            f"{len(charts) - MOST_CHARTS} charts are left out; figures/ and cells.csv stay"
        )
    sections: dict[str, dict[str, list[tuple[int, Chart]]]] = {}
    for number, chart in enumerate(charts[:MOST_CHARTS]):
        groups = sections.setdefault(chart.section, {})
        groups.setdefault(chart.group, []).append((number, chart))
    figures = ",".join(chart.figure.to_json() for chart in charts[:MOST_CHARTS])
    return environment.get_template("report.html.jinja").render(
        report=report,
        notes=notes,
        sections=sections,
        sources=sources([entry.config for entry in report.entries]),
        comparison=report.comparison,
        differences=_differences(report.comparison),
        version=__version__,
        plotly=Markup(get_plotlyjs()),
        data=_sheet(_COLUMNS, report.lines),
        figures=_inline(f"[{figures}]"),
    )


def _charts(report: Report) -> Any:
    """All charts in the order of the page."""
    if report.comparison is not None:
        yield from difference_charts(report.comparison)
    yield from distance_charts(report.lines, report.measured)
    for label, parts in report.budgets.items():
        yield from waterfalls(parts, label if len(report.entries) > 1 else "")
    yield from report.panels
    yield from heat_maps(report.lines)


def _sheet(columns: Sequence[tuple[str, str, bool]], lines: pd.DataFrame) -> Markup:
    """A table for the page's script, numbers at the precision that is shown in its CSV."""
    found: list[list[Any]] = []
    for name, _, number in columns:
        column = lines[name]
        if number:
            values = np.array(column, dtype=float)
            found.append([float(f"{v:.6g}") if np.isfinite(v) else None for v in values])
        else:
            found.append(column.astype(str).tolist())
    return _json({"columns": columns, "rows": list(zip(*found, strict=True))})


def _differences(comparison: Comparison | None) -> Markup | None:
    """The table of two runs compared."""
    if comparison is None:
        return None
    lines = comparison.lines
    apart = lines["verdict"].where(lines["paired"], lines["verdict"] + " (not paired)")
    half = lines["upper"] - lines["difference"]
    shown = lines.assign(half=half, verdict=apart, measure=lines["metric"])
    return _sheet(_difference_columns(comparison.labels), shown)


def _json(value: Any) -> Markup:
    return _inline(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def _inline(text: str) -> Markup:
    """JSON that may stand in a script element: no character of it can end one."""
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}
    for character, escape in (escapes | {"\u2029": "\\u2029"}).items():
        text = text.replace(character, escape)
    return Markup(text)


def _with_links(text: str) -> Markup:
    """A reference with its numbers of arXiv as links."""
    link = r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>'
    return Markup(re.sub(r"arXiv (\d{4}\.\d{4,5})", link, html.escape(text)))


def _markdown() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samplerbench.report"), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["md"] = lambda text: re.sub(
        r"([\\`*_{}\[\]<>|#&!])", r"\\\1", " ".join(str(text).split())
    )
    return environment


#: Characters that mean something to LaTeX, and Greek letters that its default fonts lack.
_TEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "η": r"$\eta$",
    "σ": r"$\sigma$",
    "α": r"$\alpha$",
    "·": r"$\cdot$",
    "ε": r"$\varepsilon$",
    "±": r"$\pm$",
    "−": "$-$",
}


def _latex() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samplerbench.report"),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tex"] = lambda text: "".join(
        _TEX.get(character, character) for character in " ".join(str(text).split())
    )
    return environment
