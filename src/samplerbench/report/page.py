"""The page of a report, as HTML that needs no other file and no network.

Names and messages are data of unknown origin: the template escapes them, and the script of the page
writes them as text, never as markup.
"""

from __future__ import annotations

import html
import json
import re
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from samplerbench.bench.cell import SEEDS
from samplerbench.report.cells import in_order
from samplerbench.report.charts import (
    PALETTE,
    Chart,
    difference_charts,
    floor_bands,
    heat_maps,
    waterfalls,
)
from samplerbench.report.compare import Comparison
from samplerbench.report.content import Report
from samplerbench.report.references import ARXIV, sources
from samplerbench.version import __version__

MOST_CHARTS = 60
#: A column of a table: its name, its title, whether it has numbers, and its kind: "shown"; "choice"
#: (shown, with a menu if it has several values); "menu" (only that menu); "hidden" (only for the
#: filter, the charts and the CSV).
Column = tuple[str, str, bool, str]
_COLUMNS: tuple[Column, ...] = (
    ("name", "sampler", False, "shown"),
    ("denoiser", "denoiser", False, "choice"),
    ("start", "start", False, "choice"),
    ("steps", "N", True, "shown"),
    ("nfe", "NFE", True, "shown"),
    ("rounds", "rounds", True, "shown"),
    ("mean", "mean", True, "shown"),
    ("half", "± 95 %", True, "hidden"),
    ("floor", "floor", True, "shown"),
    ("verdict", "verdict", False, "shown"),
    ("measure", "metric", False, "choice"),
    ("dataset", "data", False, "choice"),
    ("run", "run", False, "choice"),
    ("count", "reps", True, "shown"),
    ("lost", "lost", True, "hidden"),
    ("seconds", "seconds", True, "shown"),
    *((name, name, False, "hidden") for name in ("objective", "network", "schedule", "grid")),
    ("curve", "curve", False, "hidden"),
)
_REACH_COLUMNS: tuple[Column, ...] = (
    ("name", "sampler", False, "shown"),
    ("denoiser", "denoiser", False, "choice"),
    ("start", "start", False, "choice"),
    ("target", "distance", True, "choice"),
    ("evaluations", "evaluations", True, "shown"),
    ("earliest", "earliest", True, "shown"),
    ("latest", "latest", True, "shown"),
    ("most", "measured to", True, "shown"),
    ("floor", "floor", True, "shown"),
    ("verdict", "in words", False, "shown"),
    ("measure", "metric", False, "choice"),
    ("run", "run", False, "choice"),
)
#: A line has its seeds; a curve may be a mean over seeds.
_SEED_COLUMNS: tuple[Column, ...] = tuple((name, name, True, "hidden") for name in SEEDS)


def _difference_columns(labels: tuple[str, str]) -> tuple[Column, ...]:
    return (
        ("name", "sampler", False, "shown"),
        ("denoiser", "denoiser", False, "choice"),
        ("start", "start", False, "choice"),
        ("steps", "N", True, "shown"),
        ("first", labels[0], True, "shown"),
        ("second", labels[1], True, "shown"),
        ("difference", "difference", True, "shown"),
        ("half", "± 95 %", True, "hidden"),
        ("p_holm", "p (Holm)", True, "shown"),
        ("verdict", "verdict", False, "shown"),
        ("measure", "metric", False, "choice"),
    )


def render(report: Report) -> str:
    """The page."""
    charts = list(_charts(report))
    notes = list(report.notes)
    if len(charts) > MOST_CHARTS:
        notes.append(f"{len(charts) - MOST_CHARTS} charts are left out; cells.csv has all values")
    sections: dict[str, list[tuple[int, Chart]]] = {}
    for number, chart in enumerate(charts[:MOST_CHARTS]):
        sections.setdefault(chart.section, []).append((number, chart))
    finished = report.lines[report.lines["mean"].notna()]
    bands = [
        {"place": place, **band}
        for place, band in enumerate(floor_bands(finished, report.distances))
    ]
    content = {
        "figures": [chart.figure for chart in charts[:MOST_CHARTS]],
        "data": _sheet((*_columns(report.lines), *_SEED_COLUMNS), report.lines),
        "curves": None
        if report.curves["curve"].nunique() == finished["curve"].nunique()
        else _sheet(_columns(report.curves), report.curves),
        "differences": _differences(report.comparison),
        "reach": None if report.reached.empty else _sheet(_REACH_COLUMNS, report.reached),
        "distances": {
            "floors": bands,
            "order": in_order(finished),
            "palette": PALETTE,
            "group": report.group,
        },
    }
    return filled(
        "report.html.jinja",
        content,
        report=report,
        notes=notes,
        sections=sections,
        floors=bands,
        sources=sources([entry.config for entry in report.entries]),
        comparison=report.comparison,
    )


def filled(template: str, content: Mapping[str, Any], **words: Any) -> str:
    """A page that needs no other file, from a file of `templates` and content for its scripts."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("samplerbench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["arxiv"] = _with_links
    return environment.get_template(template).render(
        asset=_asset,
        version=__version__,
        plotly=_plotly(),
        content=_packed(json.dumps(content, ensure_ascii=False, default=_plain).encode()),
        **words,
    )


def _asset(name: str) -> Markup:
    """A style sheet or script of the page."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


@cache  # the script has 4 MB, and every page has it
def _plotly() -> str:
    """The script of plotly, packed; its Python package is slow to import, so it is not used."""
    (folder,) = getattr(find_spec("plotly"), "submodule_search_locations", None) or ("",)
    return _packed((Path(folder) / "package_data" / "plotly.min.js").read_bytes())


def _packed(data: bytes) -> str:
    """Data for a script element: compressed, in characters that are not markup."""
    return b64encode(zlib.compress(data, 6)).decode()


def _plain(value: Any) -> Any:
    """A value of NumPy as a value of JSON."""
    return value.tolist()


def _charts(report: Report) -> Iterator[Chart]:
    """All charts in the order of the page."""
    if report.comparison is not None:
        yield from difference_charts(report.comparison)
    for label, parts in report.budgets.items():
        yield from waterfalls(parts, label if len(report.entries) > 1 else "")
    yield from report.panels
    yield from heat_maps(report.curves)


def _columns(lines: pd.DataFrame) -> Sequence[Column]:
    """The columns of lines; rounds are hidden if they equal the evaluations."""
    shown = (lines["rounds"] != lines["nfe"]) & lines["nfe"].notna()
    hidden: Column = ("rounds", "rounds", True, "hidden")
    keep = shown.any()
    return [one if keep or one[0] != "rounds" else hidden for one in _COLUMNS]


def _sheet(columns: Sequence[Column], lines: pd.DataFrame) -> Mapping[str, Any]:
    """A table for the script of the page; its CSV has numbers of six digits."""
    content: list[list[Any]] = []
    for name, _, numeric, _ in columns:
        column = lines[name]
        if numeric:
            values = np.array(column, dtype=float)
            content.append([float(f"{v:.6g}") if np.isfinite(v) else None for v in values])
        else:
            content.append(column.fillna("").astype(str).tolist())
    return {"columns": columns, "rows": list(zip(*content, strict=True))}


def _differences(comparison: Comparison | None) -> Mapping[str, Any] | None:
    if comparison is None:
        return None
    lines = comparison.lines
    verdict = lines["verdict"].where(lines["paired"], lines["verdict"] + " (not paired)")
    half = lines["upper"] - lines["difference"]
    shown = lines.assign(half=half, verdict=verdict, measure=lines["metric"])
    return _sheet(_difference_columns(comparison.labels), shown)


def _with_links(text: str) -> Markup:
    """A reference whose arXiv numbers are links."""
    link = r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>'
    return Markup(re.sub(ARXIV, link, html.escape(text)))
