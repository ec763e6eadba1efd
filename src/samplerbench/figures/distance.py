"""Distance to the data against the number of steps: what other tools draw as one curve.

Here it comes with the floor (n fresh draws of the law itself), an interval at every point, and the
oracle beside the learned score and the exact start beside the prior, so that a reader sees which
part of a curve is the sampler's.
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
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from samplerbench.evaluation.cell import MEASURE, curve_names
from samplerbench.evaluation.statistics import summary
from samplerbench.figures.style import (
    COLOURS,
    CurveStyle,
    curve_style,
    legend_height,
    metric_title,
    styled,
)

_LINES = {"learned": "-", "oracle": (0, (4, 2))}
_SHIFT = 1.012
_X_TITLES = {"steps": "number of steps N", "nfe": "network evaluations per sample (NFE)"}
_START_TITLES = {
    "prior": "Start: the prior N(0, σ²I)",
    "exact": "Start: exact, α·x₀ + σ·ε",
}


def distance_against(table: pd.DataFrame, metric: str, x: str = "steps") -> Figure:
    """One panel per start; a colour and a marker for each sampler setting, dashes per denoiser.

    With one denoiser and more settings than colours, dashes tell apart what shares a colour.

    Args:
        table: rows of the results store.
        metric: which of its metrics to draw.
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
    free = len(denoisers) == 1 and len(settings) > len(COLOURS)
    with mpl.rc_context(styled()):
        height = max(4.2, legend_height(len(settings) + len(denoisers) + 2))
        figure = Figure(figsize=(4.6 * len(starts) + 1.7, height), layout="constrained")
        panels: Sequence[Axes] = figure.subplots(1, len(starts), sharey=True, squeeze=False)[0]
        floors = table[(table["metric"] == metric) & (table["denoiser"] == "law")]
        with_floor = any(not floor_of(floors, start).empty for start in starts)
        for start, axes in zip(starts, panels, strict=True):
            floor = floor_of(floors, start)
            if not floor.empty:
                low, high = floor.quantile([0.025, 0.975])
                axes.axhspan(low, high, color="0.85", lw=0)
                axes.axhline(floor.mean(), color="0.55", lw=1)
            groups = cells[cells["start"] == start].groupby(["denoiser", "name"])
            for place, (key, curve) in enumerate(groups):
                denoiser, name = cast(tuple[str, str], key)
                style = styles[name]
                half = curve["upper"] - curve["mean"]  # Student's interval is even
                axes.errorbar(
                    # side by side, not on top of each other: equal shifts on the log axis
                    curve[x] * _SHIFT ** (place - (len(groups) - 1) / 2),
                    curve["mean"],
                    yerr=half if curve["sd"].notna().all() else None,
                    color=style.colour,
                    ls=style.dashes if free else _LINES.get(denoiser, ":"),
                    marker=style.marker,
                    mfc=None if denoiser == "learned" else "white",
                    elinewidth=0.8,
                    capsize=1.5,
                )
            axes.set_title(_START_TITLES.get(start, f"Start: {start}"))
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(ticks(set(cells[x]))))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.set_xlabel(_X_TITLES[x])
            if cells["mean"].min() >= 0:  # unbiased squares can be negative
                axes.set_ylim(bottom=0)
        to = "law" if set(table[table["metric"] == metric]["reference"]) == {"law"} else "data"
        panels[0].set_ylabel(f"{metric_title(metric)} to the {to}")
        figure.legend(
            handles=_legend(styles, denoisers, free, with_floor),
            loc="outside right center",
            handlelength=2.8,  # a dash is seen on both sides of its marker
        )
        caption(figure, cells)
    return figure


def caption(figure: Figure, cells: pd.DataFrame) -> None:
    """Say above a figure what its cells have in common."""
    datasets = " and ".join(cells["dataset"].unique())
    sizes = " and ".join(f"{n:,}" for n in sorted(cells["n_samples"].unique()))
    figure.suptitle(
        f"{datasets}, n = {sizes} samples, "
        f"{cells['count'].min()} repetitions; bars: 95 % intervals of the mean",
        fontsize=9,
        color="0.3",
    )


def floor_of(floors: pd.DataFrame, start: str) -> pd.Series:
    """The values of the floor that cells from a start are compared with.

    None where the rows are of several measures or sizes: each would have a floor of its own.
    """
    measures = [name for name in MEASURE if name in floors]
    if len(floors[measures].drop_duplicates()) > 1:
        return pd.Series(dtype=float)
    # an even start has an even floor, the others the random one
    own = floors[floors["start"] == start]
    return (own if not own.empty else floors[floors["start"] == ""])["value"].dropna()


def ticks(numbers: set[int], apart: float = 1.16) -> list[int]:
    """Of numbers on a log axis those that have room for a label, the largest first of all."""
    kept: list[int] = []
    for number in sorted(numbers, reverse=True):
        if not kept or kept[-1] / number > apart:
            kept.append(number)
    return kept


def _legend(
    styles: dict[str, CurveStyle], denoisers: Sequence[str], free: bool, with_floor: bool
) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D(
            [],
            [],
            color=style.colour,
            ls=style.dashes if free else "-",
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
            ls="" if free else _LINES.get(name, ":"),
            marker="o",
            mfc=None if name == "learned" else "white",
            label=f"{name} score",
        )
        for name in denoisers
    ]
    if with_floor:
        handles.append(Patch(color="0.85", label="floor: fresh draws\nof the data, 95 %"))
    return handles
