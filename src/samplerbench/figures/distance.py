"""Distance to the data against the number of steps, with the floor and intervals.

The floor is the distance of n fresh draws of the law itself. Curves of the oracle and of the exact
start, besides those of the learned score and the prior, show which part of a distance is due to the
sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from samplerbench.bench.cell import MEASURE, curve_names
from samplerbench.bench.statistics import summary
from samplerbench.figures.style import (
    COLOURS,
    CurveStyle,
    curve_style,
    label_log_axis,
    legend_height,
    metric_title,
    styled,
    subtitle,
)

_LINES = {"learned": "-", "oracle": (0, (4, 2))}
_SHIFT = 1.012
_X_TITLES = {"steps": "number of steps N", "nfe": "network evaluations per sample (NFE)"}
_START_TITLES = {
    "prior": "Start: the prior N(0, σ²I)",
    "exact": "Start: exact, α·x₀ + σ·ε",
    "overdispersed": "Start: overdispersed, wider than the data",
}


def distance_against(table: pd.DataFrame, metric: str, x: str = "steps") -> Figure:
    """One panel for each start, a colour and a marker for each sampler setting, dashes by denoiser.

    With one denoiser and more settings than colours, curves of one colour differ by their dashes.

    Args:
        table: rows of the results store.
        metric: one of its metrics.
        x: steps, or nfe, the counted evaluations: the fair axis for samplers of several stages.

    Raises:
        ValueError: if the table has no finished value of that metric.
    """
    lines = summary(table[table["metric"] == metric])
    cells = lines[lines["denoiser"] != "law"]
    if cells.empty:
        raise ValueError(f"no finished cell with metric {metric!r} to draw")
    starts = [name for name in ("prior", "exact") if name in set(cells["start"])]
    starts += sorted(set(cells["start"]) - set(starts))
    cells = cells.assign(name=curve_names(cells))
    settings = list(cells.sort_values(["sampler", "eta", "name"])["name"].unique())
    denoisers = sorted(set(cells["denoiser"]))
    styles = {name: curve_style(place) for place, name in enumerate(settings)}
    dashes_by_setting = len(denoisers) == 1 and len(settings) > len(COLOURS)
    with mpl.rc_context(styled()):
        height = max(4.2, legend_height(len(settings) + len(denoisers) + 2))
        figure = Figure(figsize=(4.6 * len(starts) + 1.7, height), layout="constrained")
        panels: Sequence[Axes] = figure.subplots(1, len(starts), sharey=True, squeeze=False)[0]
        floors = table[(table["metric"] == metric) & (table["denoiser"] == "law")]
        with_floor = any(not floor_of(floors, start).empty for start in starts)
        for start, axes in zip(starts, panels, strict=True):
            floor = floor_of(floors, start)
            if not floor.empty:
                floor_band(axes, floor)
                axes.axhline(floor.mean(), color="0.55", lw=1)
            groups = cells[cells["start"] == start].groupby(["denoiser", "name"])
            for place, (key, curve) in enumerate(groups):
                denoiser, name = cast(tuple[str, str], key)
                style = styles[name]
                half = curve["upper"] - curve["mean"]  # Student's interval is even
                axes.errorbar(
                    # side by side, by equal shifts on the log axis
                    curve[x] * _SHIFT ** (place - (len(groups) - 1) / 2),
                    curve["mean"],
                    yerr=half if curve["sd"].notna().all() else None,
                    color=style.colour,
                    ls=style.dashes if dashes_by_setting else _LINES.get(denoiser, ":"),
                    marker=style.marker,
                    mfc=None if denoiser == "learned" else "white",
                    elinewidth=0.8,
                    capsize=1.5,
                )
            axes.set_title(_START_TITLES.get(start, f"Start: {start}"))
            label_log_axis(axes, cells[x])
            axes.set_xlabel(_X_TITLES[x])
        # after all are drawn: they share the axis, and a limit ends its scaling; unbiased estimates
        # of squares can be negative
        if cells["mean"].min() >= 0:
            panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel(distance_title(table, metric))
        figure.legend(
            handles=_legend(styles, denoisers, dashes_by_setting, with_floor),
            loc="outside right center",
            handlelength=2.8,  # room for a dash on both sides of the marker
        )
        caption(figure, cells)
    return figure


def distance_title(table: pd.DataFrame, metric: str) -> str:
    """The metric, and what it is measured to: "sliced W₂ to the data"."""
    to_law = set(table[table["metric"] == metric]["reference"]) == {"law"}
    return f"{metric_title(metric)} to the {'law' if to_law else 'data'}"


def caption(figure: Figure, cells: pd.DataFrame) -> None:
    """Write above a figure what its cells have in common."""
    datasets = " and ".join(cells["dataset"].unique())
    sizes = " and ".join(f"{n:,}" for n in sorted(cells["n_samples"].unique()))
    subtitle(
        figure,
        f"{datasets}, n = {sizes} samples, "
        f"{cells['count'].min()} repetitions; bars: 95 % intervals of the mean",
    )


def floor_of(floors: pd.DataFrame, start: str) -> pd.Series:
    """The values of the floor for the cells of a start.

    Empty if the rows have several measures or sizes, since each of them has its own floor.

    Args:
        floors: rows of fresh draws of the law.
        start: name of the start.
    """
    measures = [name for name in MEASURE if name in floors]
    if len(floors[measures].drop_duplicates()) > 1:
        return pd.Series(dtype=float)
    # a start that is drawn evenly has a floor that is drawn evenly; all others share one
    own = floors[floors["start"] == start]
    return (own if not own.empty else floors[floors["start"] == ""])["value"].dropna()


def floor_band(axes: Axes, floor: pd.Series) -> None:
    """Draw the band that contains 95 % of the floor's values."""
    low, high = floor.quantile([0.025, 0.975])
    axes.axhspan(low, high, color="0.85", lw=0)


def _legend(
    styles: dict[str, CurveStyle],
    denoisers: Sequence[str],
    dashes_by_setting: bool,
    with_floor: bool,
) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D(
            [],
            [],
            color=style.colour,
            ls=style.dashes if dashes_by_setting else "-",
            marker=style.marker,
            label=name,
        )
        for name, style in styles.items()
    ]
    handles += [
        Line2D(
            [],
            [],
            color="0.3",
            ls="" if dashes_by_setting else _LINES.get(name, ":"),
            marker="o",
            mfc=None if name == "learned" else "white",
            label=f"{name} score",
        )
        for name in denoisers
    ]
    if with_floor:
        handles.append(Patch(color="0.85", label="floor: fresh draws\nof the data, 95 %"))
    return handles
