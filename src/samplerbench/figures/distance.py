"""Distance to the data against the number of steps, with the floor and intervals.

The floor is the distance of n fresh draws of the law itself. Compared with the curves of the
learned score and the prior, those of the exact score and the exact start show which part of a
distance the sampler causes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from samplerbench.bench.cell import NOT_A_DENSITY, curve_names, sampler_names
from samplerbench.bench.statistics import floor_of, summary
from samplerbench.errors import require
from samplerbench.figures.common import (
    EXACT_LAWS,
    distance_title,
    look,
    repetitions,
    score_title,
    sizes,
)
from samplerbench.figures.style import (
    CurveStyle,
    add_legend,
    curve_styles,
    fit_distances,
    folded_label,
    interval_curve,
    label_log_axis,
    legend_above,
    narrow,
    sized,
    spans_decades,
    styled,
    subtitle,
)

#: A line style of matplotlib.
LineStyle: TypeAlias = str | tuple[int, tuple[int, ...]]
Lines: TypeAlias = Mapping[str, LineStyle]

_LINES: Lines = {"learned": "-", "oracle": (0, (4, 2))}
#: Of other denoisers, in alphabetical order.
_OTHER_LINES: Sequence[LineStyle] = (
    ":",
    (0, (3, 1, 1, 1)),
    (0, (2, 2)),
    (0, (1, 3)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (6, 1)),
)
#: A name of a curve with more characters leaves out what all curves of its sampler share.
_LONG = 24
#: The smallest factor between the places of two curves at one number, and their distance in points
#: if there is room.
_SHIFT, _APART = 1.012, 3.2
#: The width of a panel in inches.
_PANEL = 4.6
#: The height of the line of a mark, in points for text of 10 points.
MARK = 11
X_TITLES = {
    "steps": "number of steps N",
    "nfe": "network evaluations per sample (NFE)",
    "rounds": "sequential rounds of evaluations",
}
_START_TITLES = {
    "prior": "Start: the prior N(0, σ²I)",
    "exact": "Start: exact, α·x₀ + σ·ε",
    "overdispersed": "Start: overdispersed, wider than the data",
    "gaussian": "Start: a fixed Gaussian",
    "prior_sobol": "Start: the prior N(0, σ²I), even draws (Sobol)",
    "exact_sobol": "Start: exact, α·x₀ + σ·ε, even draws (Sobol)",
}


def distance_against(
    table: pd.DataFrame, metric: str, x: str = "steps", axes: Sequence[Axes] = ()
) -> Figure:
    """One panel for each start, a colour and a marker for each sampler setting, dashes by denoiser.

    With one denoiser and more settings than colours, curves with the same colour have different
    dashes.

    Args:
        metric: a metric of the table.
        x: steps; nfe, the counted evaluations, for a comparison at equal cost; or rounds, the
            sequential evaluations.
        axes: the axes to draw into, one for each start; empty for a new figure.

    Raises:
        ValueError: if the table has no finished value of that metric.
        InvalidSetting: there are not as many axes as starts.
    """
    own = table[table["metric"] == metric]
    cells = summary(own)
    cells = cells[cells["denoiser"] != "law"]
    if cells.empty:
        raise ValueError(f"no finished cell with metric {metric!r} to draw")
    cells = cells.assign(name=curve_names(cells))
    styles = curve_styles(table, cells)
    title = distance_title(metric, own["reference"])
    floors = own[own["denoiser"] == "law"]
    missing = own[own["status"] == NOT_A_DENSITY]
    return distance_curves(cells, floors, x, title, styles, about(cells), missing, axes)


def distance_curves(
    cells: pd.DataFrame,
    floors: pd.DataFrame,
    x: str,
    title: str,
    styles: Mapping[str, CurveStyle],
    caption: str,
    missing: pd.DataFrame | None = None,
    axes: Sequence[Axes] = (),
) -> Figure:
    """The figure of given curves.

    Args:
        cells: lines of `statistics.summary` with the column `name` of a curve.
        floors: rows of fresh draws of the law.
        x: a key of `X_TITLES`.
        title: the title of the axis of distances.
        styles: styles by name, in the order of the legend.
        caption: text above the panels; not used with `axes`.
        missing: rows of outputs without a density, which are marked.
        axes: the axes to draw into, one for each start; empty for a new figure.

    Raises:
        InvalidSetting: there are not as many axes as starts.
    """
    starts = ordered_starts(cells)
    allowed = f"an axes for each of the {len(starts)} starts: {', '.join(starts)}"
    require(len(axes) in (0, len(starts)), "ax", f"{len(axes)} axes", allowed)
    denoisers = sorted(set(cells["denoiser"]))
    alike = len({style.colour for style in styles.values()}) < len(styles)
    by_setting = len(denoisers) == 1 and alike
    lines = None if by_setting else score_lines(denoisers)
    with mpl.rc_context(styled()):
        panels, width = (axes, None) if axes else _panels(len(starts))
        figure = cast(Figure, panels[0].get_figure(root=True))
        if spans_decades(cells["mean"]):
            for panel in panels:
                panel.set_yscale("log")
        of_starts = [floor_of(floors, start) for start in starts]
        for start, panel, floor in zip(starts, panels, of_starts, strict=True):
            draw_floor(panel, floor, mean=True)
            draw_curves(panel, cells[cells["start"] == start], x, styles, lines)
            if missing is not None:
                mark_missing(panel, missing[missing["start"] == start], x, styles)
            panel.set_title(start_title(start))
            share = panel.get_position().width if width is None else (_PANEL - 0.5) / width
            numbers = cells[x] if missing is None else pd.concat([cells[x], missing[x]])
            label_log_axis(panel, numbers, share)
            panel.set(xlabel=X_TITLES[x], ylabel=folded_label(panel, title))
        # given axes have no caption, so their legend has the whole names
        short, left_out = ({}, "") if axes else short_names(styles, caption)
        with_floor = any(not floor.empty for floor in of_starts)
        handles = legend_keys(styles, cells, lines, with_floor, short)
        for panel in axes or panels[:1]:
            fit_distances(panel, cells, pd.concat(of_starts))
        if axes:
            legend_above(panels[-1], handles)
        else:
            for panel in panels:
                panel.label_outer()
            add_legend(figure, handles)
            subtitle(figure, caption + left_out + spread(cells, x))
    return figure


def ordered_starts(cells: pd.DataFrame) -> list[str]:
    """The names of starts in the order of panels."""
    names = set(cells["start"])
    first = [name for name in ("prior", "exact") if name in names]
    return first + sorted(names - set(first))


def start_title(start: str) -> str:
    """The title of a start's panel."""
    return _START_TITLES.get(start, f"Start: {start}")


def draw_curves(
    axes: Axes, cells: pd.DataFrame, x: str, styles: Mapping[str, CurveStyle], lines: Lines | None
) -> None:
    """Draw the curves of one panel, with their intervals side by side.

    Args:
        cells: as in `distance_curves`, for one start.
        x: a key of `X_TITLES`.
        lines: the line styles of denoisers; None if dashes distinguish settings.
    """
    groups = cells.groupby(["denoiser", "name"])
    factor = _factor_apart(axes, cells[x], len(groups))
    for place, (key, curve) in enumerate(groups):
        denoiser, name = cast(tuple[str, str], key)
        # by equal shifts on the log axis
        shift = factor ** (place - (len(groups) - 1) / 2)
        drawn = curve.assign(**{x: curve[x] * shift}).sort_values(x)
        line = curve_look(styles[name], denoiser, lines)
        interval_curve(axes, drawn, x, cap=1.5, **line)


def _factor_apart(axes: Axes, numbers: Iterable[float], curves: int) -> float:
    """The factor between the places of two curves at one number.

    At least half of each marker is visible, unless curves would come near the next number.
    """
    logs = np.log(sorted(set(numbers)))
    if len(logs) < 2 or curves < 2:
        return _SHIFT
    figure = axes.get_figure(root=True)
    assert figure is not None
    points = 72 * axes.get_position().width * figure.get_size_inches()[0] / look().scale
    apart = _APART / points * 1.1 * (logs[-1] - logs[0])  # the axis is a tenth longer
    room = 0.6 * np.diff(logs).min() / (curves - 1)
    return max(_SHIFT, math.exp(min(apart, room)))


def mark_missing(axes: Axes, rows: pd.DataFrame, x: str, styles: Mapping[str, CurveStyle]) -> None:
    """Mark outputs without a density by crosses at the upper end of a panel, and name them."""
    marks = sorted(set(zip(rows[x], rows["denoiser"], sampler_names(rows), strict=True)))
    # an invisible curve, so that the axis includes the places of all marks
    places = [place for place, *_ in marks]
    axes.plot(places, [1.0] * len(places), ls="", transform=axes.get_xaxis_transform())
    for line, (place, denoiser, name) in enumerate(marks):
        colour = styles[name].colour if name in styles else "0.3"
        words = f"{NOT_A_DENSITY} ({score_title(denoiser)})"
        right = place > math.sqrt(axes.dataLim.x0 * axes.dataLim.x1)
        mark = axes.annotate(
            f"{words} ×" if right else f"× {words}",
            (place, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(4 if right else -4, -(10 + MARK * line) * look().scale),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize="small",
            color=colour,
        )
        mark.set_in_layout(False)  # it may cross a curve, and must not make the panel narrow


def _panels(count: int) -> tuple[list[Axes], float]:
    """The panels of a new figure, in one column if it is narrow, and its width before scaling."""
    width = _PANEL * count + 1.7
    stacked = narrow(width)
    rows, columns = (count, 1) if stacked else (1, count)
    natural = (5.6, 3.4 * rows) if stacked else (width, 4.2)
    figure = Figure(figsize=sized(*natural), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=stacked, sharey=True, squeeze=False)
    return list(grid.flat), natural[0]


def score_lines(denoisers: Iterable[str]) -> Lines:
    """The line styles of denoisers by name: solid for learned, dashed for exact, others differ."""
    others = sorted(set(denoisers) - set(_LINES))
    return {**_LINES, **dict(zip(others, cycle(_OTHER_LINES)))}


def curve_look(style: CurveStyle, denoiser: str, lines: Lines | None) -> dict[str, Any]:
    """The line and the markers of a curve and of its entry in the legend."""
    return {
        "color": style.colour,
        "ls": style.dashes if lines is None else lines[denoiser],
        "marker": style.marker,
        "mfc": style.colour if denoiser == "learned" else "white",
    }


def about(cells: pd.DataFrame) -> str:
    """The common settings of cells, for the line above a figure."""
    datasets = " and ".join(cells["dataset"].unique())
    uncertain = bool(cells["upper"].notna().any())
    size = sizes(cells["metric"], cells["n_samples"], exact=not uncertain)
    bars = "; bars: 95 % intervals of the mean" if uncertain else ""
    end = ", final=none" if "final" in cells and set(cells["final"]) == {"none"} else ""
    crosses = "; ×: repetitions are lost, the point is the mean of the others"
    lost = crosses * bool("lost" in cells and (cells["lost"] > 0).any())
    count = "" if size == EXACT_LAWS else f", {repetitions(cells['count'])}"
    return f"{datasets}, {size}{count}{end}{bars}{lost}"


def spread(cells: pd.DataFrame, x: str) -> str:
    """A caption's note that `draw_curves` shifts curves; empty if each panel has one curve."""
    curves = cells.groupby("start")[["denoiser", "name"]].apply(lambda own: own.drop_duplicates())
    several = curves.groupby(level=0).size().max() > 1
    number = {"steps": "N", "nfe": "NFE", "rounds": "number of rounds"}[x]
    return f"; points of one {number} are drawn side by side" if several else ""


def draw_floor(axes: Axes, floor: pd.Series, *, mean: bool = False) -> None:
    """Draw the band that contains 95 % of the floor's values, if there are any, and their mean."""
    if floor.empty:
        return
    low, high = floor.quantile([0.025, 0.975])
    axes.axhspan(low, high, color="0.85", lw=0)
    if mean:
        axes.axhline(floor.mean(), color="0.55", lw=1)


def floor_key() -> Patch:
    """The entry of the floor in a legend."""
    return Patch(color="0.85", label="floor: fresh draws\nof the data, 95 %")


def short_names(names: Iterable[str], caption: str = "") -> tuple[dict[str, str], str]:
    """Names of curves for a legend, and for the caption the settings that they leave out.

    They leave out settings that all curves of a sampler share, if one of its names is long, and
    settings of runs, after " · ", that all curves share. What the caption has is not repeated.
    """
    parts = {name: name.split(" · ") for name in names}
    of_runs = [set(own[1:]) for own in parts.values()]
    shared = set.intersection(*of_runs) if len(parts) > 1 else set()
    runs = [word for word in next(iter(parts.values()), [])[1:] if word in shared]
    runs = [word for word in runs if word.split(".")[-1] not in caption]
    settings: dict[str, str] = {}
    short = {}
    for name, (first, *others) in parts.items():
        sampler = first.split()[0]
        same = [own[0] for own in parts.values() if own[0].split()[0] == sampler]
        words = set.intersection(*(set(one.split()[1:]) for one in same))
        drop = {word for word in words if "=" in word and "(" not in first}
        drop = drop if max(map(len, same)) > _LONG else set()
        if drop:
            settings[sampler] = " ".join(word for word in first.split() if word in drop)
        kept = " ".join(word for word in first.split() if word not in drop)
        short[name] = " · ".join([kept, *(word for word in others if word not in shared)])
    left_out = runs + [f"{sampler}: {words}" for sampler, words in settings.items()]
    return short, "".join(f"; {words}" for words in left_out)


def legend_keys(
    styles: Mapping[str, CurveStyle],
    cells: pd.DataFrame,
    lines: Lines | None,
    with_floor: bool,
    short: Mapping[str, str] = MappingProxyType({}),
) -> list[Line2D | Patch]:
    """The entries of a legend: settings, denoisers, and the floor.

    `short` has the names that are shorter in the legend.
    """
    # if a setting has curves of several denoisers, its entry looks like that of the learned one
    of_names = cells.groupby("name")["denoiser"].agg(set)
    first = {name: "learned" if "learned" in own else min(own) for name, own in of_names.items()}
    looks = [(short.get(name, name), style, first[name]) for name, style in styles.items()]
    grey = CurveStyle("0.3", "o", "")
    looks += [(score_title(name), grey, name) for name in sorted(set(cells["denoiser"]))]
    handles: list[Line2D | Patch] = [
        Line2D([], [], label=label, **curve_look(style, denoiser, lines))
        for label, style, denoiser in looks
    ]
    if with_floor:
        handles.append(floor_key())
    return handles
