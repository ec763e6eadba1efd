"""Distances to the data, and below them the errors that their floor hides.

The upper row is the figure of `distance`. The lower row has, for samplers without noise, a panel of
KL divergences for each start, and for samplers with noise a panel of paired distances. Both are
defined in `bench.floor_free` and have one repetition. In a narrow figure all panels are in one
column.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    look,
    metric_title,
    repetitions,
    score_title,
    sizes,
)
from samplerbench.figures.distance import (
    MARK,
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
    add_legend,
    fit_distances,
    folded_label,
    folded_title,
    label_log_axis,
    narrow,
    new_figure,
    sampler_styles,
    subtitle,
)

#: The number of characters in a line of the legend that fit beside the panels.
_WIDEST = 40
#: The width of a character in a long label, in inches at 10 points.
_CHARACTER = 0.055


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
    stacked = narrow(3.7 * columns)
    rows = len(starts) * (2 - finished.empty) + (not paired.empty)
    size = (5.6, 2.7 * rows) if stacked else (3.7 * columns, 6.6)
    with new_figure(*size) as figure:
        grid = figure.add_gridspec(rows, 1) if stacked else figure.add_gridspec(2, columns)

        def panel(row: int, column: int, like: Sequence[Axes] = ()) -> Axes:
            """The next panel, with the scale of the first one of `like`."""
            place = grid[len(figure.axes), 0] if stacked else grid[row, column]
            return figure.add_subplot(place, sharey=like[0] if like else None)

        upper: list[Axes] = []
        for place, start in enumerate(starts):
            axes = panel(0, place, upper)
            upper.append(axes)
            draw_floor(axes, of_starts[start], mean=True)
            draw_curves(axes, cells[cells["start"] == start], x, styles, lines)
            axes.set_title(start_title(start))
        title = distance_title(metric, own[own["metric"] == metric]["reference"])
        for axes in upper if stacked else upper[:1]:
            axes.set_ylabel(folded_label(axes, title))
        fit_distances(upper[0], cells, pd.concat(of_starts.values()))
        lower: list[Axes] = []
        exact = bool(finished["upper"].isna().all())  # on a line
        for place, start in enumerate(starts if not finished.empty else ()):
            axes = panel(1, place, lower)
            lower.append(axes)
            axes.set_yscale("log")
            draw_curves(axes, finished[finished["start"] == start], x, styles, lines)
            missing = laws[(laws["start"] == start) & (laws["status"] == NOT_A_DENSITY)]
            mark_missing(axes, missing, x, styles)
            words = "Without a floor: samplers without noise"
            words += f", {start} start" * (stacked and len(starts) > 1)
            # labels of y make the panels of a column narrower
            title = folded_title(axes, words, 0.075) if stacked else folded_title(axes, words)
            axes.set_title(title, fontsize="medium")
        for axes in lower if stacked else lower[:1]:
            axes.set_ylabel(folded_label(axes, metric_title(KL), _CHARACTER))
        if lower:
            fit_distances(lower[0], finished, pd.Series(dtype=float))
            highest = float(finished["mean"].max())
            lower[0].set_ylim(top=max(4 * highest, _above_marks(lower, highest)))
        for axes in () if stacked else (*upper[1:], *lower[1:]):
            axes.tick_params(labelleft=False)
        panels = upper + lower
        if not paired.empty:
            axes = panel(1, -1)
            panels.append(axes)
            axes.set_yscale("log")
            draw_curves(axes, paired, x, styles, lines)
            fit_distances(axes, paired, pd.Series(dtype=float))
            words = "Without a floor: samplers with noise"
            axes.set_title(folded_title(axes, words), fontsize="medium")
            what = f"{paired['start'].iloc[0]} start, {score_title(paired['denoiser'].iloc[0])}"
            to = f"to the run with {view.converged_steps} steps, same noise,"
            text = folded_label(axes, f"{metric_title(metric)} {to} {what}", _CHARACTER)
            axes.set_ylabel(text, fontsize="medium")
        for axes in panels:
            label_log_axis(axes, cells[x], 0.8 if stacked else 0.8 / columns)
            axes.set_xlabel(X_TITLES[x])
        keys = legend_keys(styles, cells, lines, any(not f.empty for f in of_starts.values()))
        if stacked:
            add_legend(figure, keys)
        else:
            beside = figure.add_subplot(grid[0, -1])
            beside.axis("off")
            legend = beside.legend(handles=keys, loc="center left", handlelength=2.8)
            for entry in legend.get_texts():
                if len(entry.get_text()) > _WIDEST:
                    entry.set_text("\n".join(wrap(entry.get_text(), _WIDEST)))
        samples = sizes([metric], cells["n_samples"])
        below = [sizes([KL], cells["n_samples"], exact)] * (not finished.empty)
        below += [samples] * (not paired.empty)
        subtitle(
            figure,
            f"{' and '.join(cells['dataset'].unique())}; above: {samples}, "
            f"{repetitions(cells['count'])}; below: {'; '.join(below)}, 1 repetition; "
            f"bars: 95 % intervals{spread(cells, x)}",
        )
    return figure


def _above_marks(panels: Sequence[Axes], highest: float) -> float:
    """The upper end of a logarithmic axis with room for the marks of any panel above all means."""
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    points = 72 * panels[0].get_position().height * figure.get_size_inches()[1] / look().scale
    share = min(0.5, (8 + MARK * max(len(axes.texts) for axes in panels)) / points)
    bottom = panels[0].get_ylim()[0]
    return float(bottom * (highest / bottom) ** (1 / (1 - share)))


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Lines of `summary` with the names of curves."""
    lines = summary(rows)
    return lines.assign(name=sampler_names(lines))
