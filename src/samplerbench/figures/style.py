"""The style of all figures, and the only function that saves them.

Figures are made without pyplot, so there is no window and no list of open figures. Matplotlib's
parameters are shared by all threads, so one thread draws.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    NullFormatter,
    NullLocator,
    StrMethodFormatter,
)

from samplerbench.bench.cell import sampler_names
from samplerbench.bench.store import LIMIT
from samplerbench.figures.common import COLOURS, look, ticks
from samplerbench.files import replacing

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_STYLE = files("samplerbench.figures") / "samplerbench.mplstyle"

_SIZES: tuple[RcKeyType, ...] = (
    *("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize"),
    *("lines.linewidth", "lines.markersize", "grid.linewidth", "axes.linewidth"),
)
_FAR = 4.0
MARKERS = "osD^v<>"
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class CurveStyle:
    """The look of a curve; the first 49 all differ in colour or marker."""

    colour: str  # of line and marker
    marker: str  # matplotlib's name of the marker
    # one pattern for the first seven curves, another one for the next seven
    dashes: str | tuple[int, tuple[float, float]]

    @property
    def line(self) -> dict[str, Any]:
        """The line's style as parameters of matplotlib."""
        return {"color": self.colour, "marker": self.marker, "ls": self.dashes}


def curve_style(place: int) -> CurveStyle:
    """The style of the curve at a place in the legend, from 0."""
    lap = place // len(COLOURS)
    marker = MARKERS[(place + lap) % len(MARKERS)]
    return CurveStyle(COLOURS[place % len(COLOURS)], marker, _DASHES[lap % len(_DASHES)])


def styles_of(names: Iterable[str]) -> dict[str, CurveStyle]:
    """The styles of curves by name, in the order of the legend."""
    return {name: curve_style(place) for place, name in enumerate(names)}


def by_number(text: str) -> tuple[str | float, ...]:
    """A key for sorting in which numbers have their own order: repeats=2 before repeats=10."""
    words = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple(float(word) if place % 2 else word for place, word in enumerate(words))


def _by_numbers(column: pd.Series) -> pd.Series:
    return column if pd.api.types.is_numeric_dtype(column) else column.map(by_number)


def sampler_styles(table: pd.DataFrame) -> Mapping[str, CurveStyle]:
    """The style of each sampler setting of a table, by name; all its figures share the styles."""
    # the converged runs of a budget have no curves
    own = (table["sampler"] != "") & ~table["sampler"].str.endswith(LIMIT)
    names = table.loc[own, ["sampler", "eta", "sampler_settings"]]
    names = names.drop_duplicates()
    names = names.sort_values(["sampler", "eta", "sampler_settings"], key=_by_numbers)
    return styles_of(sampler_names(names).unique())


def curve_styles(table: pd.DataFrame, cells: pd.DataFrame) -> dict[str, CurveStyle]:
    """The style of each curve of `cells` by its name, as `sampler_styles` of the whole table.

    Names that also distinguish runs have styles of their own.
    """
    names = cells.sort_values(["sampler", "eta", "name"], key=_by_numbers)["name"].unique()
    styles = sampler_styles(table)
    if not set(names) <= set(styles):
        return styles_of(names)
    return {name: style for name, style in styles.items() if name in set(names)}


def interval_curve(
    axes: Axes, curve: pd.DataFrame, x: str, *, cap: float = 0.0, **line: Any
) -> None:
    """Draw a curve of means with their intervals.

    Args:
        curve: a table with the columns mean, lower, upper and `x`; an interval may be NaN.
            Where the column lost is above 0, the point has a cross.
        x: the column along the axis.
        cap: length of the intervals' caps, in points.
    """
    low = curve["mean"] - curve["lower"]
    if axes.get_yscale() == "log":  # an interval that extends below 0 has no end there
        low = low.clip(upper=0.999 * curve["mean"].abs())
    axes.errorbar(
        curve[x],
        curve["mean"],
        yerr=[low, curve["upper"] - curve["mean"]],
        **{"ms": 4 * look().scale, "lw": 1.3 * look().scale, **line},
        elinewidth=0.8,
        capsize=cap,
    )
    if "lost" in curve and (curve["lost"] > 0).any():
        lost = curve[curve["lost"] > 0]
        size = 8 * look().scale
        axes.plot(lost[x], lost["mean"], ls="", marker="x", ms=size, color="0.2", zorder=3)


def narrow(width: float) -> bool:
    """Whether panels, in inches for text of 10 points, are too narrow to be side by side."""
    inches = look().inches
    return inches is not None and inches < 0.6 * width * look().scale


def sized(width: float, height: float, titles: float = 0.9) -> tuple[float, float]:
    """The size of a figure in inches, given the size for text of 10 points.

    If the look sets another width, panels are scaled by the same factor, and titles like the text.

    Args:
        titles: the height of titles, labels and legend.
    """
    chosen = look()
    if chosen.inches is None:
        return width, height
    return chosen.inches, (height - titles) * chosen.inches / width + titles * chosen.scale


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of the `sized` size; within the block all that is drawn has the style."""
    with mpl.rc_context(styled()):
        yield Figure(figsize=sized(width, height), layout="constrained")


def label_log_axis(axes: Axes, numbers: Iterable[float], share: float) -> None:
    """Make x logarithmic, with labels at the (positive) numbers that have space for one.

    `share` is the panel's share of the figure's width.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    width = share * figure.get_size_inches()[0] / look().scale
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks(numbers, width)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def label_log_values(axis: Axis, form: str = "{x:g}") -> None:
    """Label a logarithmic axis of a few factors of ten at 1, 2 and 5 with plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter(form))
    axis.set_minor_formatter(NullFormatter())


def folded_label(axes: Axes, text: str, character: float = 0.075) -> str:
    """A label of y with line breaks, so that it is not longer than the axis.

    `character` is the width of one at 10 points, in inches.
    """
    return _folded_to(axes, text, 1, character)


def folded_title(axes: Axes, text: str, character: float = 0.062) -> str:
    """A title with line breaks, so that it is not wider than its panel; see `folded_label`."""
    return _folded_to(axes, text, 0, character)


def _folded_to(axes: Axes, text: str, side: int, character: float) -> str:
    """A text with line breaks, so that it is not longer than a side of a panel; 0 is the width."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = axes.get_position().size[side] * figure.get_size_inches()[side] / look().scale
    return "\n".join(_wrapped(text, max(12, int(inches / character))))


def spans_decades(means: pd.Series) -> bool:
    """Whether distances need a logarithmic axis."""
    return bool(0 < 10 * means.min() < means.max())


def fit_distances(axes: Axes, cells: pd.DataFrame, floor: pd.Series) -> None:
    """Set the ends of the axis of distances, after all panels that share it are drawn.

    A logarithmic axis has all means and all ends of intervals, except ends that are more than
    `_FAR` times below the smallest or above the largest mean: an interval of few repetitions may
    extend far.

    Args:
        cells: a table with the columns mean, lower and upper.
        floor: the values of the floor; it may be empty.
    """
    means = cells["mean"]
    if axes.get_yscale() == "log":
        bottom = min([float(means[means > 0].min()), *floor[floor > 0].quantile([0.025]).dropna()])
        top = float(means.max())
        ends = pd.concat([cells["lower"], cells["upper"]])
        ends = ends[ends.between(bottom / _FAR, top * _FAR)]
        bottom, top = min([bottom, *ends]), max([top, *ends])
        axes.set_ylim(bottom / 1.4, top * 1.4)
        if top < 200 * bottom:
            label_log_values(axes.yaxis)
    elif means.min() >= 0:  # unbiased estimates of squares can be negative
        axes.set_ylim(bottom=0)


def add_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend beside the panels, or below if it is wider than a quarter of the figure.

    The figure becomes higher if the legend needs more space.
    """
    width, height, rows = _legend_size(handles)
    whole, tall = figure.get_size_inches()
    if width <= whole / 4:
        figure.set_figheight(max(tall, height * rows + 0.6))
        figure.legend(handles=handles, loc="outside right center", handlelength=2.8)
        return
    columns = max(1, min(len(handles), int(whole / width)))
    figure.set_size_inches(whole, tall + height * -(-rows // columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.8)


def legend_above(axes: Axes, handles: Sequence[Artist]) -> None:
    """Put a legend into a panel, above its curves, by raising the upper end of the axis.

    The legend gets at most two thirds of the panel. The user's layout of the figure is kept.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    wide, tall = axes.get_position().size * figure.get_size_inches()
    width, height, rows = _legend_size(handles)
    columns = max(1, min(len(handles), int(wide / width)))
    share = min(2 / 3, height * (-(-rows // columns) + 1) / tall)
    above = axes.transAxes.transform((0, 1 / (1 - share)))
    axes.set_ylim(top=axes.transData.inverted().transform(above)[1])
    axes.legend(handles=handles, handlelength=2.8, ncols=columns, loc="upper center")


def _legend_size(handles: Sequence[Artist]) -> tuple[float, float, int]:
    """The width of a legend in one column, the height of a line, in inches, and its lines."""
    size = mpl.rcParams["legend.fontsize"] / 72
    lines = [str(handle.get_label()).split("\n") for handle in handles]
    # the line, the spaces around it, and characters of half the size of the font
    width = size * (5.2 + 0.56 * max(len(line) for label in lines for line in label))
    return width, 1.52 * size, sum(map(len, lines))


def subtitle(figure: Figure, text: str) -> None:
    """Write a small grey text above all panels."""
    figure.suptitle(_folded(text, figure), fontsize="small", color="0.3")


def _folded(text: str, figure: Figure) -> str:
    """A text with line breaks, so that it fits the figure; its lines have similar lengths."""
    room = int(figure.get_size_inches()[0] / (0.065 * look().scale))
    return "\n".join(line for long in text.split("\n") for line in _wrapped(long, room))


def _wrapped(text: str, room: int) -> list[str]:
    """As few lines as `wrap` makes, of similar lengths."""
    count = len(wrap(text, room))
    widths = range(max(map(len, text.split()), default=1), room)
    return wrap(text, next((n for n in widths if len(wrap(text, n)) == count), room))


def styled() -> dict[RcKeyType, Any]:
    """The matplotlib parameters of the style, for `matplotlib.rc_context`.

    All parameters are set, except the backend: the user's own matplotlib settings change no figure.
    """
    with as_file(_STYLE) as path:
        style = dict(mpl.rc_params_from_file(path))
    del style["backend"]
    for key in _SIZES:
        style[key] *= look().scale
    return style


def enlarged(points: float) -> dict[RcKeyType, Any]:
    """The style with all text, including titles, in one size."""
    style = styled()
    points *= look().scale
    style["font.size"] = style["axes.titlesize"] = style["axes.labelsize"] = points
    style["xtick.labelsize"] = style["ytick.labelsize"] = style["legend.fontsize"] = points
    return style


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, completely or not at all, in the format of the path's suffix."""
    FigureCanvasAgg(figure)
    suffix = path.suffix.removeprefix(".")
    # the same figure is the same file
    without = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix)
    with mpl.rc_context(styled()), replacing(path) as temporary:
        figure.savefig(temporary, format=suffix, metadata=without)
    return path
