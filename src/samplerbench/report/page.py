"""The page of a report, as HTML that needs no other file and no network.

Names and messages are data of unknown origin: the template escapes them, and the page's script
writes them as text, never as markup.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from samplerbench.report.charts import (
    Chart,
    difference_charts,
    distance_charts,
    heat_maps,
    settings_left_out,
    waterfalls,
)
from samplerbench.report.compare import Comparison
from samplerbench.report.content import Report
from samplerbench.report.references import ARXIV, sources
from samplerbench.version import __version__

MOST_CHARTS = 60
#: Columns of the page's table: name, title, and whether it has numbers.
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
    """The columns of the table of differences, in the same form."""
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
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samplerbench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["arxiv"] = _with_links
    charts = list(_charts(report))
    notes = list(report.notes)
    if left_out := settings_left_out(report.lines):
        notes.append(f"{left_out:,} settings farther from the data are in the table only")
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


def _charts(report: Report) -> Iterator[Chart]:
    """All charts in the order of the page."""
    if report.comparison is not None:
        yield from difference_charts(report.comparison)
    yield from distance_charts(report.lines, report.distances)
    for label, parts in report.budgets.items():
        yield from waterfalls(parts, label if len(report.entries) > 1 else "")
    yield from report.panels
    yield from heat_maps(report.lines)


def _sheet(columns: Sequence[tuple[str, str, bool]], lines: pd.DataFrame) -> Markup:
    """A table for the page's script; its CSV has numbers of six digits."""
    content: list[list[Any]] = []
    for name, _, numeric in columns:
        column = lines[name]
        if numeric:
            values = np.array(column, dtype=float)
            content.append([float(f"{v:.6g}") if np.isfinite(v) else None for v in values])
        else:
            content.append(column.astype(str).tolist())
    table = {"columns": columns, "rows": list(zip(*content, strict=True))}
    return _inline(json.dumps(table, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def _differences(comparison: Comparison | None) -> Markup | None:
    """The table of differences."""
    if comparison is None:
        return None
    lines = comparison.lines
    verdict = lines["verdict"].where(lines["paired"], lines["verdict"] + " (not paired)")
    half = lines["upper"] - lines["difference"]
    shown = lines.assign(half=half, verdict=verdict, measure=lines["metric"])
    return _sheet(_difference_columns(comparison.labels), shown)


def _inline(text: str) -> Markup:
    """JSON for a script element; every tag and comment begins with the escaped character."""
    return Markup(text.replace("<", "\\u003c"))


def _with_links(text: str) -> Markup:
    """A reference whose arXiv numbers are links."""
    link = r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>'
    return Markup(re.sub(ARXIV, link, html.escape(text)))
