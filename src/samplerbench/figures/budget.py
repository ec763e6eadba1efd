"""The error budget as waterfalls: from the floor to the total distance, one part after another.

Bars are differences of distances: they add up to the total and may be negative. Diamonds are the
distances between neighbours: they do not add up, but they also show errors below the floor. Both
have intervals. `bench.budget` defines both.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from samplerbench.bench.budget.parts import KEY, PARTS
from samplerbench.bench.cell import sampler_name
from samplerbench.figures.common import PART_COLOURS, metric_title
from samplerbench.figures.style import narrow, new_figure, subtitle

#: The width of a panel in inches.
_PANEL = 3.1

_SHORT = {
    "discretisation": "steps",
    "generalisation": "general.",
    "truncation": "trunc.",
    "finite data": "data",
    "optimisation": "optim.",
}


def waterfall(lines: pd.DataFrame, metric: str, title: str = "") -> Figure:
    """One row for each sampler setting; columns for the fewest, a middle and the most steps.

    A narrow figure has no middle column.
    """
    lines = lines[lines["metric"] == metric]
    settings = lines.sort_values(["sampler", "eta"])[[*KEY, "eta"]].drop_duplicates()
    steps = sorted(set(lines["steps"]))
    columns = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    stacked = narrow(_PANEL * len(columns) + 1.0)
    if stacked:
        columns = sorted({columns[0], columns[-1]})
    # names of parts under narrow panels are upright, and their legend has two lines
    height = 3.4 * len(settings) + 2.3 if stacked else 2.1 * len(settings) + 0.9
    with new_figure(_PANEL * len(columns) + 1.0, height) as figure:
        panels = figure.subplots(
            len(settings), len(columns), sharex=True, sharey=True, squeeze=False
        )
        lowest = [0.0]
        for row, setting in zip(panels, settings.itertuples(index=False), strict=True):
            own = lines[
                (lines["sampler"] == setting.sampler)
                & (lines["sampler_settings"] == setting.sampler_settings)
            ]
            name = sampler_name(str(setting.sampler), str(setting.sampler_settings))
            for axes, count in zip(row, columns, strict=True):
                lowest.append(_panel(axes, own[own["steps"] == count]))
                axes.set_title(f"{name}, N = {count}", fontsize="small")
        figure.supylabel(metric_title(metric), fontsize="medium")
        # set both ends of the shared axis after all panels: setting one end fixes the other one
        panels[0, 0].set_ylim(bottom=1.1 * min(lowest))
        subtitle(figure, title)
        handles = _legend()[: 1 + (lines["kind"] == "neighbours").any()]
        ncols = 1 if stacked or len(columns) < 3 else 2
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols)
        if stacked:
            for axes in panels[-1]:
                axes.tick_params(axis="x", labelrotation=90)
    return figure


def _panel(axes: Axes, lines: pd.DataFrame) -> float:
    """Draw one budget; return the lowest value in it."""
    differences = lines[lines["kind"] == "difference"].set_index("part")
    neighbours = lines[lines["kind"] == "neighbours"].set_index("part")
    parts = [part for part in (*PARTS, "total") if part in differences.index]
    if "floor" not in parts:  # bars that do not start at the floor would look like distances
        axes.text(0.5, 0.5, "no budget: no limit", transform=axes.transAxes, ha="center")
        return 0.0
    level, lowest = 0.0, 0.0
    for place, part in enumerate(parts):
        mean = float(differences["mean"][part])
        bottom = 0.0 if part in ("floor", "total") else level
        axes.bar(place, mean, 0.7, bottom=bottom, color=PART_COLOURS[part])
        low, high = (bottom + float(differences[end][part]) for end in ("lower", "upper"))
        axes.plot([place, place], [low, high], color="black", lw=1)
        lowest = min(lowest, bottom, bottom + mean, low if low == low else 0.0)
        if part != "total":
            level = bottom + mean
            # also along the end of this bar: a bar without height would leave a gap
            axes.plot([place - 0.35, place + 0.65], [level, level], color="0.5", lw=0.8)
        if part in neighbours.index:
            low, high = (float(neighbours[end][part]) for end in ("lower", "upper"))
            beside = place + 0.2  # the interval of the bar is at the centre
            axes.plot([beside, beside], [low, high], color="black", lw=1)
            apart = float(neighbours["mean"][part])
            # a mark at zero is whole
            axes.plot(beside, apart, "D", color="black", mfc="white", ms=5, clip_on=False)
            lowest = min(lowest, low if low == low else 0.0)
    axes.set_xticks(range(len(parts)), [_SHORT.get(part, part) for part in parts], fontsize="small")
    axes.grid(visible=False, axis="x")
    if lowest < 0:
        axes.axhline(0, color="0.5", lw=0.8)
    return lowest


def _legend() -> list[Line2D | Patch]:
    return [
        Patch(color="0.6", label="difference of distances: these add up to the total"),
        Line2D(
            [],
            [],
            color="black",
            marker="D",
            mfc="white",
            ls="",
            label="distance between neighbours (same starts)",
        ),
    ]
