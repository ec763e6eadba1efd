"""A metric against a numeric setting of one sampler, such as its amount of noise, at one N.

There is a panel for each denoiser, and the exact score is a grey curve in all of them, so that each
panel shows the effect of one error of the score.
"""

from __future__ import annotations

import json

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from samplerbench.bench.statistics import floor_of, summary
from samplerbench.figures.common import COLOURS, distance_title, score_title
from samplerbench.figures.distance import about, draw_floor, floor_key
from samplerbench.figures.panels import in_rows, panel_columns
from samplerbench.figures.style import (
    add_legend,
    fit_distances,
    folded_label,
    interval_curve,
    new_figure,
    spans_decades,
    subtitle,
)

_EXACT = "oracle"


def setting_figure(table: pd.DataFrame, metric: str, setting: str) -> Figure:
    """A panel for each denoiser except the exact one, along a setting of one sampler at one N.

    `statistics.varied_setting` finds the setting.
    """
    own = table[table["metric"] == metric]
    lines = summary(own)
    cells = lines[lines["denoiser"] != "law"]
    x = [float(json.loads(text)[setting]) for text in cells["sampler_settings"]]
    cells = cells.assign(x=x).sort_values("x")
    names = list(cells["denoiser"].unique())
    shown = sorted(name for name in names if name != _EXACT) or [_EXACT]
    exact = cells[cells["denoiser"] == _EXACT]
    floor = floor_of(own[own["denoiser"] == "law"], str(cells["start"].iloc[0]))
    columns = panel_columns(len(shown))
    rows = -(-len(shown) // columns)
    with new_figure(max(3.2 * columns, 4.6) + 1.9, 3.0 * rows + 0.6) as figure:
        panels = in_rows(figure, len(shown), columns)
        if spans_decades(cells["mean"]):
            panels[0].set_yscale("log")
        for axes, name in zip(panels, shown, strict=True):
            draw_floor(axes, floor)
            if name != _EXACT:
                interval_curve(axes, exact, "x", cap=1.5, color="0.5", marker="s", ls="--")
            curve = cells[cells["denoiser"] == name]
            interval_curve(axes, curve, "x", cap=1.5, color=COLOURS[0], marker="o")
            axes.set_title(score_title(name))
            axes.set_xlabel(f"{setting} of {cells['sampler'].iloc[0]}")
            axes.set_ylabel(folded_label(axes, distance_title(metric, own["reference"])))
            axes.label_outer()
        fit_distances(panels[0], cells, floor)
        handles: list[Artist] = [
            Line2D([], [], color=COLOURS[0], marker="o", label="score of the panel")
        ]
        if shown != [_EXACT] and not exact.empty:
            handles.append(
                Line2D([], [], color="0.5", marker="s", ls="--", label=score_title(_EXACT))
            )
        if not floor.empty:
            handles.append(floor_key())
        add_legend(figure, handles)
        subtitle(figure, f"{about(cells)}; N = {cells['steps'].iloc[0]:,}")
    return figure
