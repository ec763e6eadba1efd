"""The report's charts, as plotly figures: distances with the Pareto front, heat maps, waterfalls.

A chart has one panel, so the page can put two of them side by side, or below each other on a phone.
Colours are those of the figures (Okabe and Ito), for colour-blind readers, too. The page sets the
colours of background, text and grid, since it knows whether it is dark.

The *Pareto front* of a denoiser is the line through the cells for which no other cell is better in
both cost and distance.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go

from samplerbench.bench.cell import sampler_name
from samplerbench.bench.rounding import distance
from samplerbench.figures.distance import floor_of
from samplerbench.figures.style import COLOURS, PART_COLOURS, metric_title, ticks
from samplerbench.report.cells import curves, floors, pareto
from samplerbench.report.compare import Comparison

#: Black is invisible on a dark page.
PALETTE = (*COLOURS[:-1], "#8a8a8a")
GREY, FRONT = "rgba(128,128,128,0.22)", "rgba(128,128,128,0.45)"
#: Sampler settings in a chart: more curves cannot be distinguished.
MOST_CURVES = 10
AXES = {
    "steps": "number of steps N",
    "nfe": "network evaluations per sample (NFE)",
    "seconds": "seconds for a cell's samples",
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_DASHES = {"learned": "solid", "oracle": "dash", "empirical": "dot"}
_CLOSED = {"learned": "", "oracle": "-open", "empirical": "-open-dot"}


@dataclass(frozen=True, eq=False)
class Chart:
    """One chart of the page.

    Args:
        section: the heading of its section.
        group: the heading inside the section; empty if the section has one group only.
        title: above the chart, plain text.
        figure: of plotly.
    """

    section: str
    group: str
    title: str
    figure: go.Figure


def distance_charts(lines: pd.DataFrame, distances: pd.DataFrame) -> Iterator[Chart]:
    """Distance against steps, NFE and seconds, one chart for each measure and start.

    Args:
        lines: from `cells.cell_lines`.
        distances: from `entries.distances`, for the floors.
    """
    finished = lines[lines["mean"].notna()]
    law = floors(distances)
    for measure, own in finished.groupby("measure", sort=False):
        drawn = curves(own, MOST_CURVES)
        places = _places(drawn)
        own_law = law[law["measure"] == measure]
        for x, title in AXES.items():
            if drawn[x].nunique() < 2:  # one point is no curve
                continue
            for start in _in_order(drawn["start"], ("prior", "exact")):
                floor = floor_of(own_law, start)
                figure = _distance(drawn[drawn["start"] == start], floor, x, places)
                figure.update_xaxes(title=title)
                figure.update_yaxes(title=html.escape(metric_title(str(measure))))
                yield Chart(f"{measure}", f"Against {title}", f"Start: {start}", figure)


def settings_left_out(lines: pd.DataFrame) -> int:
    """The number of settings that the distance charts do not show."""
    key = ["run", "measure", "start", "name"]
    finished = lines[lines["mean"].notna()]
    return len(finished[key].drop_duplicates()) - len(
        curves(finished, MOST_CURVES)[key].drop_duplicates()
    )


def _distance(
    lines: pd.DataFrame, floor: pd.Series, x: str, places: dict[tuple[str, str], int]
) -> go.Figure:
    figure = go.Figure()
    denoisers = _in_order(lines["denoiser"], _DASHES)
    for denoiser in denoisers:
        front = pareto(lines[lines["ordered"] & (lines["denoiser"] == denoiser)], x)
        if front.empty:  # no value of such a metric is better than another
            continue
        figure.add_scatter(
            x=front[x].tolist(),
            y=front["mean"].tolist(),
            name="Pareto front",
            legendgroup="Pareto front",
            showlegend=denoiser == denoisers[0],
            mode="lines",
            line={"shape": "hv", "width": 9, "color": FRONT},
            hoverinfo="skip",
        )
    in_legend: set[str] = set()
    several = lines["run"].nunique() > 1
    for key, curve in lines.sort_values(x).groupby(["run", "name", "denoiser"]):
        run, name, denoiser = cast(tuple[str, str, str], key)
        title = html.escape(f"{run} {name}" if several else name)
        figure.add_scatter(
            x=curve[x].tolist(),
            y=curve["mean"].tolist(),
            error_y=_bars(curve["half"], PALETTE[places[run, name] % len(PALETTE)]),
            name=title,
            legendgroup=title,
            showlegend=title not in in_legend,
            text=[_hover_text(line) for line in curve.to_dict("records")],
            hovertemplate=f"%{{text}}<extra>{title}<br>{html.escape(denoiser)}</extra>",
            **_style(places[run, name], denoiser),
        )
        in_legend.add(title)
    if len(floor) > 0:
        low, high = floor.quantile([0.025, 0.975])
        figure.add_hrect(y0=low, y1=high, fillcolor=GREY, line_width=0, layer="below")
        figure.add_hline(y=float(floor.mean()), line_width=1, line_color="rgba(128,128,128,0.8)")
    labels = _decimals(lines[x]) if x == "seconds" else ticks(lines[x], apart=1.35)
    figure.update_xaxes(type="log", tickvals=labels, ticktext=[f"{label:g}" for label in labels])
    figure.update_yaxes(range=_range(lines))
    return figure


def _style(place: int, denoiser: str) -> dict[str, Any]:
    """A colour and a symbol for a setting, dashes for a denoiser."""
    symbol = _SYMBOLS[place // len(PALETTE) % len(_SYMBOLS)] + _CLOSED.get(denoiser, "-open")
    colour, dash = PALETTE[place % len(PALETTE)], _DASHES.get(denoiser, "dot")
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1.8, "dash": dash},
        "marker": {"symbol": symbol, "size": 7},
    }


def _range(lines: pd.DataFrame) -> list[float]:
    """The range of the axis: it shows all means, and not all of a very long interval."""
    low, high = float(lines["mean"].min()), float(lines["mean"].max())
    low = min(low, 0.0)  # unbiased estimates of squares can be negative
    half = lines["half"].fillna(0).clip(upper=0.3 * (high - low))
    top, bottom = float((lines["mean"] + half).max()), float((lines["mean"] - half).min())
    room = 0.05 * (top - low) or 1.0
    return [min(0.0, bottom if low < 0 else 0.0) - (room if low < 0 else 0.0), top + room]


def _hover_text(line: dict[Any, Any]) -> str:
    return (
        f"<b>{distance(line['mean'], line['half'])}</b> ({line['count']:.0f} repetitions)<br>"
        f"N = {line['steps']}, NFE {line['nfe']:.0f}, {line['seconds']:.3g} s<br>"
        f"{html.escape(str(line['verdict']))}"
    )


def _decimals(numbers: pd.Series) -> list[float]:
    """1, 2 and 5 times the powers of ten between numbers on a log axis."""
    positive = numbers[numbers > 0]
    low, high = (math.floor(math.log10(end)) for end in (positive.min(), positive.max()))
    decimals = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    return [x for x in decimals if positive.min() / 1.5 <= x <= positive.max() * 1.5]


def _places(lines: pd.DataFrame) -> dict[tuple[str, str], int]:
    """A number for each sampler setting of each run, the same in all charts of a measure."""
    settings = lines.sort_values(["run", "sampler", "eta", "name"])[["run", "name"]]
    unique = settings.drop_duplicates().itertuples(index=False)
    return {(str(run), str(name)): place for place, (run, name) in enumerate(unique)}


def _in_order(names: pd.Series, first: Sequence[str] | dict[str, str]) -> list[str]:
    """The names in a column, those of `first` before the others."""
    present = set(names)
    return [name for name in first if name in present] + sorted(present - set(first))


def heat_maps(lines: pd.DataFrame) -> Iterator[Chart]:
    """The mean over η × steps, if a sampler has at least two of each."""
    with_eta = lines[lines["mean"].notna() & lines["eta"].notna()]
    with_eta = with_eta.sort_values(
        ["run", "measure", "start", "denoiser"], ascending=[True, True, False, True]
    )
    key = ["run", "measure", "start", "denoiser", "sampler"]
    for values, rows in with_eta.groupby(key, sort=False):
        run, measure, start, denoiser, sampler = cast(tuple[str, ...], values)
        grid = rows.pivot_table(index="eta", columns="steps", values="mean", aggfunc="min")
        if min(grid.shape) < 2:
            continue
        figure = go.Figure(
            go.Heatmap(
                x=[f"{steps}" for steps in grid.columns],
                y=[f"{eta:g}" for eta in grid.index],
                z=grid.to_numpy().round(6).tolist(),
                texttemplate="%{z:.3g}" if grid.size <= 120 else "",
                colorscale="Cividis",
                reversescale=True,
                colorbar={"thickness": 10, "outlinewidth": 0},
                hovertemplate="η = %{y}, N = %{x}: %{z:.4g}<extra></extra>",
                hoverongaps=False,
            )
        )
        figure.update_xaxes(title="number of steps N", type="category")
        figure.update_yaxes(title="η", type="category")
        prefix = f"{run}, " if with_eta["run"].nunique() > 1 else ""
        title = f"{prefix}{sampler}, {measure}, {start} start, {denoiser}"
        yield Chart("η × steps", "", title, figure)


def waterfalls(parts: pd.DataFrame, run: str) -> Iterator[Chart]:
    """The budget of each sampler setting at its largest number of steps.

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
            figure = _waterfall(differences, neighbours, top)
            figure.update_yaxes(title=html.escape(metric_title(str(metric))))
            title = f"{sampler_name(sampler, settings)}, N = {rows['steps'].iloc[0]}"
            yield Chart("Parts of the error", "", f"{run}, {title}" if run else title, figure)


def _waterfall(differences: pd.DataFrame, neighbours: pd.DataFrame, top: float) -> go.Figure:
    parts = list(differences.index)  # in the order of the path: floor first, total last
    means = differences["mean"].tolist()
    bases, level = [], 0.0
    for part, mean in zip(parts, means, strict=True):
        bases.append(0.0 if part in ("floor", "total") else level)
        level = bases[-1] + mean
    half = (differences["upper"] - differences["mean"]).fillna(0)
    figure = go.Figure(
        go.Bar(
            x=list(range(len(parts))),
            y=means,
            base=bases,
            width=0.66,
            marker={"color": [PART_COLOURS[part] for part in parts]},
            error_y=_bars(half),
            name="differences, which add up",
            customdata=parts,
            hovertemplate="%{customdata}: %{y:+.3g}<extra></extra>",
        )
    )
    ends = [base + max(mean, 0) + h for base, mean, h in zip(bases, means, half, strict=True)]
    figure.add_scatter(
        x=list(range(len(parts))),
        y=ends,
        text=[
            f"{mean:.3g}" if base == 0 else f"{mean:+.2g}"
            for mean, base in zip(means, bases, strict=True)
        ],
        mode="text",
        textposition="top center",
        showlegend=False,
        hoverinfo="skip",
    )
    if len(neighbours) > 0:
        shown = [part for part in parts if part in neighbours.index]
        figure.add_scatter(
            x=[parts.index(part) + 0.2 for part in shown],  # beside the bar's interval
            y=neighbours.loc[shown, "mean"].tolist(),
            error_y=_bars((neighbours["upper"] - neighbours["mean"])[shown]),
            mode="markers",
            marker={
                "symbol": "diamond",
                "size": 9,
                "color": "#ffffff",
                "line": {"width": 1.5, "color": "#444444"},
            },
            name="distance between neighbours",
            hovertemplate="%{y:.3g}<extra>neighbours</extra>",
        )
    figure.update_xaxes(tickvals=list(range(len(parts))), ticktext=parts, showgrid=False)
    figure.update_yaxes(range=[min(0.0, *bases, level), max(top, 1.1 * max(ends))])
    return figure


def _bars(half: pd.Series, colour: str = "#8a8a8a") -> dict[str, Any]:
    """Intervals, given half of their width."""
    lengths = half.fillna(0).tolist()
    return {"type": "data", "array": lengths, "thickness": 1.2, "width": 3, "color": colour}


def difference_charts(comparison: Comparison) -> Iterator[Chart]:
    """The differences of two runs against the steps, one chart for each metric and start."""
    first, second = comparison.labels
    for key, rows in comparison.lines.groupby(["metric", "start"], sort=False):
        metric, start = cast(tuple[str, str], key)
        figure = go.Figure()
        names = list(dict.fromkeys(rows["name"]))
        for (name, denoiser), curve in rows.sort_values("steps").groupby(["name", "denoiser"]):
            place, title = names.index(name), html.escape(f"{name}, {denoiser}")
            style = _style(place, str(denoiser))
            figure.add_scatter(
                # side by side, by equal shifts on the log axis
                x=(curve["steps"] * 1.012 ** (place - len(names) / 2)).tolist(),
                y=curve["difference"].tolist(),
                error_y=_bars(curve["upper"] - curve["difference"], style["line"]["color"]),
                name=title,
                text=[
                    f"N = {steps}: {difference:.4g}<br>{html.escape(verdict)}"
                    for steps, difference, verdict in zip(
                        curve["steps"], curve["difference"], curve["verdict"], strict=True
                    )
                ],
                hovertemplate=f"%{{text}}<extra>{title}</extra>",
                **style,
            )
        figure.add_hline(y=0, line_width=1, line_color="rgba(128,128,128,0.9)")
        figure.update_xaxes(title=AXES["steps"], type="log", tickvals=ticks(rows["steps"], 1.35))
        figure.update_yaxes(title=f"difference {first} − {second}")
        yield Chart(f"{first} − {second}", "", f"{metric}, {start} start", figure)
