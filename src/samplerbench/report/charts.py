"""The report's charts, in plotly's format: heat maps, waterfalls, and differences of two runs.

A script on the page makes the charts of distances from the rows of its table, see
`templates/distances.js`. This module has the other charts, and the additional data for that script.

A chart has one panel, so the page can put two charts side by side, or below each other on a phone.
The colours are those of the figures (Okabe and Ito), which colour-blind readers can distinguish.
The page sets the colours of background, text and grid, since it knows whether it is dark. Charts
are plain mappings: importing and filling plotly's own classes takes longer than the rest of the
page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from samplerbench.bench.cell import sampler_name
from samplerbench.bench.statistics import floor_of
from samplerbench.figures.common import COLOURS, PART_COLOURS, metric_title, score_title, ticks
from samplerbench.report.cells import floors
from samplerbench.report.compare import Comparison

#: Black is invisible on a dark page.
PALETTE = (*COLOURS[:-1], "#8a8a8a")
_ZERO = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_DASHES = {"learned": "solid", "oracle": "dash", "empirical": "dot"}
_CLOSED = {"learned": "", "oracle": "-open", "empirical": "-open-dot"}


@dataclass(frozen=True, eq=False)
class Chart:
    """One chart of the page."""

    section: str  # the heading of its section
    title: str  # above the chart, plain text
    figure: Mapping[str, Any]  # data and layout of plotly


def figure(data: Sequence[Mapping[str, Any]], x: Any, y: Any, **layout: Any) -> Mapping[str, Any]:
    """A figure of plotly."""
    return {"data": data, "layout": {"xaxis": x, "yaxis": y, **layout}}


def titled(text: str) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": html.escape(text)}}


def floor_bands(lines: pd.DataFrame, distances: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    """The floor and the title of each chart, one for each measure and start."""
    law = floors(distances)
    for measure, own in lines.groupby("measure", sort=False):
        own_law = law[law["measure"] == measure]
        for start in own["start"].unique():
            floor = floor_of(own_law, start)
            low, high = floor.quantile([0.025, 0.975]) if len(floor) > 0 else (None, None)
            yield {
                "measure": measure,
                "start": start,
                "title": metric_title(str(own["metric"].iloc[0])),
                "ordered": bool(own["ordered"].all()),
                "band": None if low is None else [low, float(floor.mean()), high],
            }


def heat_maps(lines: pd.DataFrame) -> Iterator[Chart]:
    """The mean over η × steps, if a sampler has at least two of each.

    Maps of one measure and sampler share their colour scale, so they can be compared. Each
    combination of settings other than η has its own map. Cells that lost repetitions are gaps.
    """
    with_eta = lines[lines["mean"].notna() & lines["eta"].notna() & (lines["lost"] == 0)]
    with_eta = with_eta.assign(
        sampler=list(map(_without_eta, with_eta["sampler"], with_eta["sampler_settings"]))
    )
    with_eta = with_eta.sort_values(
        ["run", "measure", "start", "denoiser"], ascending=[True, True, False, True]
    )
    key = ["run", "measure", "start", "denoiser", "sampler"]
    ends = with_eta.groupby(["measure", "sampler"])["mean"].agg(["min", "max"])
    for values, rows in with_eta.groupby(key, sort=False):
        run, measure, start, denoiser, sampler = cast(tuple[str, ...], values)
        grid = rows.pivot_table(index="eta", columns="steps", values="mean", aggfunc="first")
        if min(grid.shape) < 2:
            continue
        low, high = ends.loc[[(measure, sampler)]].to_numpy()[0].tolist()
        heat = {
            "type": "heatmap",
            "x": [f"{steps}" for steps in grid.columns],
            "y": [f"{eta:g}" for eta in grid.index],
            "z": grid.astype(object).where(grid.notna(), None).to_numpy().tolist(),
            "zmin": low,
            "zmax": high,
            "texttemplate": "%{z:.3g}" if grid.size <= 120 else "",
            "colorscale": "Cividis",
            "reversescale": True,
            "colorbar": {"thickness": 10, "outlinewidth": 0},
            "hovertemplate": "η = %{y}, N = %{x}: %{z:.4g}<extra></extra>",
            "hoverongaps": False,
        }
        x = {**titled("number of steps N"), "type": "category"}
        prefix = f"{run}, " if with_eta["run"].nunique() > 1 else ""
        title = f"{prefix}{sampler}, {measure}, {start} start, {score_title(denoiser)}"
        yield Chart("η × steps", title, figure([heat], x, {**titled("η"), "type": "category"}))


def _without_eta(sampler: str, settings: str) -> str:
    """The name of a sampler with its settings other than η."""
    kept = {key: value for key, value in json.loads(settings or "{}").items() if key != "eta"}
    return sampler_name(sampler, json.dumps(kept))


def waterfalls(parts: pd.DataFrame, run: str) -> Iterator[Chart]:
    """The budget of each sampler with its settings, at its largest number of steps.

    Args:
        parts: from `bench.budget.parts.parts`.
        run: label, or empty if there is only one run.
    """
    for metric, own in parts.groupby("metric", sort=True):
        keys = ["sampler", "sampler_settings"]
        most = own.groupby(keys)["steps"].transform("max")
        last = own[own["steps"] == most].sort_values(["sampler", "eta"])
        whole = last[last["part"] == "total"]
        top = 1.18 * float((whole["upper"].fillna(whole["mean"])).max())
        for key, rows in last.groupby(keys, sort=False):
            sampler, settings = cast(tuple[str, str], key)
            differences = rows[rows["kind"] == "difference"].set_index("part")
            if not {"floor", "total"} <= set(differences.index):
                continue
            neighbours = rows[rows["kind"] == "neighbours"].set_index("part")
            title = f"{sampler_name(sampler, settings)}, N = {rows['steps'].iloc[0]}"
            drawn = _waterfall(differences, neighbours, top, metric_title(str(metric)))
            yield Chart("Parts of the error", f"{run}, {title}" if run else title, drawn)


def _waterfall(
    differences: pd.DataFrame, neighbours: pd.DataFrame, top: float, metric: str
) -> Mapping[str, Any]:
    parts = list(differences.index)  # in the order of the path: floor first, total last
    places = list(range(len(parts)))
    means = differences["mean"].tolist()
    bases, level = [], 0.0
    for part, mean in zip(parts, means, strict=True):
        bases.append(0.0 if part in ("floor", "total") else level)
        level = bases[-1] + mean
    half = (differences["upper"] - differences["mean"]).fillna(0)
    bars = {
        "type": "bar",
        "x": places,
        "y": means,
        "base": bases,
        "width": 0.66,
        "marker": {"color": [PART_COLOURS[part] for part in parts]},
        "error_y": _bars(half),
        "name": "differences, which add up",
        "customdata": parts,
        "hovertemplate": "%{customdata}: %{y:+.3g}<extra></extra>",
    }
    ends = [base + max(mean, 0) + h for base, mean, h in zip(bases, means, half, strict=True)]
    numbers = {
        "type": "scatter",
        "x": places,
        "y": ends,
        "text": [
            f"{mean:.3g}" if base == 0 else f"{mean:+.2g}"
            for mean, base in zip(means, bases, strict=True)
        ],
        "mode": "text",
        "textposition": "top center",
        "showlegend": False,
        "hoverinfo": "skip",
    }
    traces: list[Mapping[str, Any]] = [bars, numbers]
    if len(neighbours) > 0:
        shown = [part for part in parts if part in neighbours.index]
        diamonds = {
            "type": "scatter",
            "x": [parts.index(part) + 0.2 for part in shown],  # beside the bar's interval
            "y": neighbours.loc[shown, "mean"].tolist(),
            "error_y": _bars((neighbours["upper"] - neighbours["mean"])[shown]),
            "mode": "markers",
            "marker": {
                "symbol": "diamond",
                "size": 9,
                "color": "#ffffff",
                "line": {"width": 1.5, "color": "#444444"},
            },
            "name": "distance between neighbours",
            "hovertemplate": "%{y:.3g}<extra>neighbours</extra>",
        }
        traces.append(diamonds)
    x = {"tickvals": places, "ticktext": parts, "showgrid": False}
    spread = [min(0.0, *bases, level), max(top, 1.1 * max(ends))]
    return figure(traces, x, {**titled(metric), "range": spread})


def _bars(half: pd.Series, colour: str = "#8a8a8a") -> dict[str, Any]:
    """Intervals, from half of their width."""
    lengths = half.fillna(0).tolist()
    return {"type": "data", "array": lengths, "thickness": 1.2, "width": 3, "color": colour}


def difference_charts(comparison: Comparison) -> Iterator[Chart]:
    """The differences of two runs against the steps, one chart for each metric and start."""
    first, second = comparison.labels
    for key, rows in comparison.lines.groupby(["metric", "start"], sort=False):
        metric, start = cast(tuple[str, str], key)
        names = list(dict.fromkeys(rows["name"]))
        traces: list[Mapping[str, Any]] = []
        for (name, denoiser), curve in rows.sort_values("steps").groupby(["name", "denoiser"]):
            place, title = names.index(name), html.escape(f"{name}, {score_title(str(denoiser))}")
            symbol = _SYMBOLS[place // len(PALETTE) % len(_SYMBOLS)]
            colour, dash = PALETTE[place % len(PALETTE)], _DASHES.get(str(denoiser), "dot")
            traces.append(
                {
                    "type": "scatter",
                    # side by side, by equal shifts on the log axis
                    "x": (curve["steps"] * 1.012 ** (place - len(names) / 2)).tolist(),
                    "y": curve["difference"].tolist(),
                    "error_y": _bars(curve["upper"] - curve["difference"], colour),
                    "name": title,
                    "text": [
                        f"N = {steps}: {difference:.4g}<br>{html.escape(verdict)}"
                        for steps, difference, verdict in zip(
                            curve["steps"], curve["difference"], curve["verdict"], strict=True
                        )
                    ],
                    "hovertemplate": f"%{{text}}<extra>{title}</extra>",
                    "mode": "lines+markers",
                    "line": {"color": colour, "width": 1.8, "dash": dash},
                    "marker": {"symbol": symbol + _CLOSED.get(str(denoiser), "-open"), "size": 7},
                }
            )
        x = {**titled("number of steps N"), "type": "log", "tickvals": ticks(rows["steps"], 4.0)}
        drawn = figure(traces, x, titled(f"difference {first} − {second}"), shapes=[_ZERO])
        yield Chart(f"{first} − {second}", f"{metric}, {start} start", drawn)
