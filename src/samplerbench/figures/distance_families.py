"""Distance against steps or evaluations for many samplers, which would not fit into one panel.

There is one row for each family of samplers and one column for each denoiser and start, all with
the same axes. Equal methods with different names, such as DDIM(0), Euler and DPM-Solver-1 on a
variance-exploding path, share a curve and a line of the legend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from samplerbench.bench.cell import curve_names
from samplerbench.bench.statistics import floor_of, summary
from samplerbench.figures.common import distance_title, score_title
from samplerbench.figures.distance import about, distance_against, draw_floor
from samplerbench.figures.style import (
    CurveStyle,
    curve_styles,
    fit_distances,
    folded_label,
    interval_curve,
    label_log_axis,
    new_figure,
    spans_decades,
    styles_of,
    subtitle,
)
from samplerbench.samplers.base import Sampler

#: The largest number of curves of each denoiser in one panel.
MOST_CURVES = 14
FAMILIES = (
    "deterministic, one\nevaluation a step",
    "deterministic, several\nevaluations a step",
    "with noise",
)
#: As `distance.X_TITLES`, for narrow panels.
_X_TITLES = {"steps": "steps N", "nfe": "evaluations (NFE)", "rounds": "sequential rounds"}
#: Curves with a smaller relative difference look equal.
_ALIKE = 1e-3


def family(sampler: Sampler) -> str:
    """The title of a sampler's row in the figure."""
    one, several, noisy = FAMILIES
    if sampler.stochastic:
        return noisy
    steps = max(2, sampler.fewest_steps)
    return one if sampler.evaluations(steps) == steps else several


def distance_figure(
    table: pd.DataFrame, metric: str, x: str, families: Mapping[str, str]
) -> Figure:
    """Distance against x, a key of `X_TITLES`; with many samplers there are panels by family.

    The families are given by the `sampler_name` of each sampler with its settings.
    """
    if len(families) <= MOST_CURVES:
        return distance_against(table, metric, x)
    return distance_of_families(table, metric, x, families)


def distance_of_families(
    table: pd.DataFrame, metric: str, x: str, families: Mapping[str, str]
) -> Figure:
    """One row for each family, one column for each denoiser and start; see `distance_figure`.

    The axis has the numbers that most curves have: longer curves are cut at its ends, but keep a
    value, and the caption has the number of points that are cut. The entries of a legend are sorted
    by the geometric mean of the curve, largest first.
    """
    lines = summary(table[table["metric"] == metric])
    cells = lines[lines["denoiser"] != "law"]
    cells = cells.assign(name=curve_names(cells))
    cells = cells.assign(family=cells["name"].map(families))
    spans = cells.groupby("name")[x].agg(["min", "max"])
    end = max(spans["max"].median(), spans["min"].max())
    begin = min(spans["min"].median() / 2, spans["max"].min())
    shown = cells[cells[x].between(begin, 1.02 * end)].sort_values(x)
    columns = sorted(set(zip(cells["denoiser"], cells["start"], strict=True)))
    rows = [row for row in FAMILIES if row in set(shown["family"])]
    own = table[table["metric"] == metric]
    floors, ylabel = own[own["denoiser"] == "law"], distance_title(metric, own["reference"])
    # rows one after another, so that the curves of a row have different colours
    names = sorted(curve_styles(table, cells), key=lambda name: FAMILIES.index(families[name]))
    by_name = styles_of(names)
    # a quarter of the width, except for one column, which would be too narrow for names
    beside_width = min(2.3, max(1.7, 1.05 * len(columns)))
    width = 3.15 * len(columns) + beside_width + 0.3
    with new_figure(width, 2.75 * len(rows) + 0.5) as figure:
        grid = figure.add_gridspec(
            len(rows), len(columns) + 1, width_ratios=[3.15] * len(columns) + [beside_width]
        )
        first: Axes | None = None
        for row, title in enumerate(rows):
            of_row = shown[shown["family"] == title]
            alike = _alike(of_row, x)
            styles = {names[0]: by_name[names[0]] for names in alike}
            for column, (denoiser, start) in enumerate(columns):
                axes = figure.add_subplot(grid[row, column], sharex=first, sharey=first)
                if first is None:
                    first = axes
                    first.set_yscale("log" if spans_decades(shown["mean"]) else "linear")
                draw_floor(axes, floor_of(floors, start))
                here = (of_row["denoiser"] == denoiser) & (of_row["start"] == start)
                in_panel = of_row[here]
                for name, style in styles.items():
                    interval_curve(axes, in_panel[in_panel["name"] == name], x, **style.line)
                axes.label_outer()
                if row == 0:
                    axes.set_title(f"{score_title(denoiser)}, {start} start")
                if column == 0:
                    axes.set_ylabel(f"{title}\n\n{folded_label(axes, ylabel)}")
                if row == len(rows) - 1:
                    axes.set_xlabel(_X_TITLES[x])
            beside = figure.add_subplot(grid[row, len(columns)])
            beside.axis("off")
            beside.legend(
                handles=_legend(alike, styles, _short_names(cells), row == 0 and not floors.empty),
                loc="center left",
                borderaxespad=0,
                handlelength=2.6,
            )
        assert first is not None
        label_log_axis(first, shown[x], 2.5 / (width))
        fit_distances(first, shown, pd.concat([floor_of(floors, at) for _, at in columns]))
        cut = len(cells) - len(shown)
        points = f"; {cut} point{'s' * (cut > 1)} beyond the ends not shown" * (cut > 0)
        subtitle(figure, about(shown) + points)
    return figure


def _alike(cells: pd.DataFrame, x: str) -> list[list[str]]:
    """Groups of names whose curves look equal, the largest geometric mean first."""
    keys = ["denoiser", "start", x]
    curves = {
        str(name): curve.set_index(keys)["mean"].sort_index()
        for name, curve in cells.groupby("name")
    }
    size = {name: float(np.log(curve.abs() + 1e-300).mean()) for name, curve in curves.items()}
    groups: list[list[str]] = []
    for name in sorted(curves, key=lambda name: -size[name]):
        for group in groups:
            other = curves[group[0]]
            same = other.index.equals(curves[name].index)
            if same and np.allclose(other, curves[name], rtol=_ALIKE, atol=0):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _short_names(cells: pd.DataFrame) -> dict[str, str]:
    """Names without the settings that all curves of a sampler share."""
    short = {}
    for sampler, own in cells.groupby("sampler"):
        settings = {name: name.split()[1:] for name in own["name"].unique()}
        common = set.intersection(*map(set, settings.values()))
        for name, words in settings.items():
            short[name] = " ".join([str(sampler), *(word for word in words if word not in common)])
    return short


def _legend(
    alike: Sequence[Sequence[str]],
    styles: Mapping[str, CurveStyle],
    short: Mapping[str, str],
    with_floor: bool,
) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for names in alike:
        style = styles[names[0]]
        lines = (wrap(short[name], 24, subsequent_indent="  ") for name in sorted(names))
        label = ",\n".join("\n".join(line) for line in lines)
        handles.append(Line2D([], [], label=label, **style.line))
    if with_floor:
        handles.append(Patch(color="0.85", label="floor: fresh draws, 95 %"))
    return handles
