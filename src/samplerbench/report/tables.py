"""The cells as Markdown and LaTeX: a line for each sampler with its settings, a column per N."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
import pandas as pd

from samplerbench.bench.rounding import difference, distance, plain
from samplerbench.bench.statistics import floor_of
from samplerbench.report.cells import SAME, floors
from samplerbench.report.content import Report

#: The largest number of columns that fit on a page of paper.
MOST_COLUMNS = 8

#: Characters with a meaning in LaTeX, and symbols that its default fonts do not have.
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
    "≤": r"$\leq$",
    "−": "$-$",
}


def markdown(report: Report) -> str:
    """The tables of all measures as Markdown, and the differences of two runs."""

    def escape(text: str) -> str:
        return re.sub(r"([\\`*_{}\[\]<>|#&!])", r"\\\1", text)

    return _render("table.md.jinja", escape, report)


def latex(report: Report) -> str:
    """The tables of `markdown` as LaTeX."""

    def escape(text: str) -> str:
        return "".join(_TEX.get(character, character) for character in text)

    delimiters = {
        "block_start_string": "<%",
        "block_end_string": "%>",
        "variable_start_string": "<<",
        "variable_end_string": ">>",
        "comment_start_string": "<#",
        "comment_end_string": "#>",
    }
    return _render("table.tex.jinja", escape, report, **delimiters)


def _render(template: str, escape: Callable[[str], str], report: Report, **delimiters: Any) -> str:
    loader = jinja2.PackageLoader("samplerbench.report")
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, **delimiters
    )
    # a line break would end a line of the table
    environment.filters["escaped"] = lambda text: escape(" ".join(str(text).split()))
    environment.filters["mathematics"] = lambda text: text.replace("±", r"\pm").replace(
        "≤", r"\leq"
    )
    environment.globals["difference"] = difference
    comparison = report.comparison
    with_p = comparison.lines.dropna(subset=["p_holm"]) if comparison else pd.DataFrame()
    return environment.get_template(template).render(
        grids=_grids(report),
        differences=with_p.to_dict("records"),
        labels=comparison.labels if comparison else (),
    )


#: The columns that name a setting; a report may begin with another one, its group.
_KEY = ("run", "start", "denoiser", "name")


@dataclass(frozen=True)
class Value:
    """One entry of a table."""

    metric: str
    mean: float  # of the cell
    half: float  # half of its interval
    same: bool  # whether it is not distinguishable from the floor
    best: bool  # whether it is the smallest for its start, denoiser and N
    lost: bool  # whether repetitions have no value

    def text(self) -> str:
        """The value with its interval."""
        return distance(self.mean, self.half, self.metric)


@dataclass(frozen=True)
class Grid:
    """The cells of one measure, for some of the numbers of steps."""

    measure: str
    about: str  # data set, n and floor, in words
    titles: list[str]  # the titles of the first columns, which name a setting
    columns: list[int]  # numbers of steps
    # the names of a setting (run, start, denoiser, sampler, …) and its values; None is a gap
    lines: list[tuple[list[str], list[Value | None]]]

    @property
    def lost(self) -> bool:
        """Whether repetitions of some cell have no value."""
        return any(value is not None and value.lost for _, own in self.lines for value in own)


@lru_cache(maxsize=1)  # for Markdown and LaTeX
def _grids(report: Report) -> list[Grid]:
    """The tables of all measures; a table that is too wide is split."""
    law, grids = floors(report.distances), []
    key = list(dict.fromkeys([*[report.group] * bool(report.group), *_KEY]))
    titles = ["sampler" if name == "name" else name for name in key]
    for measure, rows in report.curves.groupby("measure", sort=False):
        about = _about(rows, law[law["measure"] == measure])
        steps = sorted(set(rows["steps"]))
        for first in range(0, len(steps), MOST_COLUMNS):
            columns = steps[first : first + MOST_COLUMNS]
            shown = rows[rows["steps"].isin(columns)]
            grids.append(Grid(str(measure), about, titles, columns, _lines(shown, columns, key)))
    return grids


def _about(rows: pd.DataFrame, law: pd.DataFrame) -> str:
    """Data set, n, repetitions and floor in words."""
    line, fewest, most = rows.iloc[0], int(rows["count"].min()), int(rows["count"].max())
    repetitions = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    text = f"{line['dataset']}, n = {line['n_samples']:,}, {repetitions} repetitions"
    means = []
    for start in dict.fromkeys(law["start"]):
        values = floor_of(law, start)
        sd = f", sd {plain(values.std(), 2)}" if len(values) > 1 else ""
        means.append(f"{plain(values.mean())}{sd}" + (f" ({start})" if start else ""))
    return f"{text}; floor {', '.join(means)}" if means else f"{text}; no floor"


def _lines(
    rows: pd.DataFrame, columns: list[int], key: list[str]
) -> list[tuple[list[str], list[Value | None]]]:
    # best within one start and denoiser: samplers with the exact score or start have an advantage
    ordered = rows[rows["ordered"] & (rows["lost"] == 0)]
    smallest = ordered.groupby(["start", "denoiser", "steps"])["mean"].min().to_dict()
    of_name = ["sampler", "eta", "name"]
    lines = rows.sort_values([by for one in key for by in (of_name if one == "name" else [one])])
    values: dict[tuple[str, ...], dict[int, Value]] = {}
    names = ["start", "denoiser", "metric", "steps", "mean", "half", "verdict", "lost"]
    settings = zip(*(lines[column] for column in key), strict=True)
    of_cells = zip(*(lines[column] for column in names), strict=True)
    for setting, cell in zip(settings, of_cells, strict=True):
        start, denoiser, metric, steps, mean, half, verdict, lost = cell
        best = lost == 0 and mean == smallest.get((start, denoiser, steps))
        value = Value(metric, mean, half, verdict == SAME, best, lost > 0)
        values.setdefault(setting, {})[steps] = value
    return [(list(names), [own.get(count) for count in columns]) for names, own in values.items()]
