"""Distances to the data, and below them the errors that their floor hides.

The upper row is the figure of `distance`. The lower row has, for samplers without noise, a panel of
KL divergences for each start, and for samplers with noise a panel of paired distances. Both are
defined in `bench.floor_free` and have one repetition.
"""

from __future__ import annotations

from textwrap import wrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from samplerbench.bench.cell import NOT_A_DENSITY, sampler_names
from samplerbench.bench.floor_free import KL, FloorFree
from samplerbench.bench.statistics import floor_of, summary
from samplerbench.bench.store import to_data
from samplerbench.figures.common import (
    distance_title,
    metric_title,
    repetitions,
    score_title,
    sizes,
)
from samplerbench.figures.distance import (
    X_TITLES,
    draw_curves,
    draw_floor,
    legend_keys,
    mark_missing,
    ordered_starts,
    score_lines,
    spread,
    start_title,
)
from samplerbench.figures.style import (
    fit_distances,
    folded_label,
    label_log_axis,
    new_figure,
    sampler_styles,
    subtitle,
)

#: The number of characters in a line of the legend that fit beside the panels.
_WIDEST = 40


def with_floor_free(table: pd.DataFrame, metric: str, x: str, view: FloorFree) -> Figure:
    """Panels of distances with their floor, and of errors without one, the rows of `view`."""
    own = to_data(table)
    floors = own[(own["metric"] == metric) & (own["denoiser"] == "law")]
    cells = _named(own[(own["metric"] == metric) & (own["denoiser"] != "law")])
    laws = own[own["metric"] == KL] if view.divergences else own.iloc[:0]
    finished, paired = _named(laws), _named(view.pairs(table))
    starts = ordered_starts(cells)
    of_starts = {start: floor_of(floors, start) for start in starts}
    styles, lines = sampler_styles(table), score_lines(cells["denoiser"])
    columns = len(starts) + 1
    with new_figure(3.7 * columns, 6.6) as figure:
        grid = figure.add_gridspec(2, columns)
        upper: list[Axes] = []
        for place, start in enumerate(starts):
            axes = figure.add_subplot(grid[0, place], sharey=upper[0] if upper else None)
            upper.append(axes)
            draw_floor(axes, of_starts[start], mean=True)
            draw_curves(axes, cells[cells["start"] == start], x, styles, lines)
            axes.set_title(start_title(start))
        title = distance_title(metric, own[own["metric"] == metric]["reference"])
        upper[0].set_ylabel(folded_label(upper[0], title))
        fit_distances(upper[0], cells, pd.concat(of_starts.values()))
        lower: list[Axes] = []
        exact = bool(finished["upper"].isna().all())  # on a line
        for place, start in enumerate(starts if not finished.empty else ()):
            axes = figure.add_subplot(grid[1, place], sharey=lower[0] if lower else None)
            lower.append(axes)
            axes.set_yscale("log")
            draw_curves(axes, finished[finished["start"] == start], x, styles, lines)
            missing = laws[(laws["start"] == start) & (laws["status"] == NOT_A_DENSITY)]
            mark_missing(axes, missing, x, styles)
            axes.set_title("Without a floor: samplers without noise", fontsize="medium")
        if lower:
            lower[0].set_ylabel(metric_title(KL))
            fit_distances(lower[0], finished, pd.Series(dtype=float))
            lower[0].set_ylim(top=4 * finished["mean"].max())  # room for the marks
        for axes in (*upper[1:], *lower[1:]):
            axes.tick_params(labelleft=False)
        panels = upper + lower
        if not paired.empty:
            axes = figure.add_subplot(grid[1, -1])
            panels.append(axes)
            axes.set_yscale("log")
            draw_curves(axes, paired, x, styles, lines)
            fit_distances(axes, paired, pd.Series(dtype=float))
            axes.set_title("Without a floor: samplers with noise", fontsize="medium")
            what = f"{paired['start'].iloc[0]} start, {score_title(paired['denoiser'].iloc[0])}"
            to = f"to the run with {view.converged_steps} steps,"
            axes.set_ylabel(f"{metric_title(metric)} {to}\nsame noise, {what}", fontsize="medium")
        for axes in panels:
            label_log_axis(axes, cells[x], 0.8 / columns)
            axes.set_xlabel(X_TITLES[x])
        keys = legend_keys(styles, cells, lines, any(not f.empty for f in of_starts.values()))
        beside = figure.add_subplot(grid[0, -1])
        beside.axis("off")
        legend = beside.legend(handles=keys, loc="center left", handlelength=2.8)
        for text in legend.get_texts():
            if len(text.get_text()) > _WIDEST:
                text.set_text("\n".join(wrap(text.get_text(), _WIDEST)))
        size = sizes([metric], cells["n_samples"])
        below = [sizes([KL], cells["n_samples"], exact)] * (not finished.empty)
        below += [size] * (not paired.empty)
        subtitle(
            figure,
            f"{' and '.join(cells['dataset'].unique())}; above: {size}, "
            f"{repetitions(cells['count'])}; below: {'; '.join(below)}, 1 repetition; "
            f"bars: 95 % intervals{spread(cells, x)}",
        )
    return figure


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Lines of `summary` with the names of curves."""
    lines = summary(rows)
    return lines.assign(name=sampler_names(lines))
