"""The style of all figures, and the only way to save them.

Figures are made without pyplot: no global state, no window, safe in threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from samplerbench.files import replacing

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_STYLE = files("samplerbench.figures") / "samplerbench.mplstyle"

#: Okabe and Ito's palette in the order of the style file.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

#: The parts of an error budget by name; the floor and the total are grey.
PART_COLOURS = {
    "floor": "#b0b0b0",
    "generalisation": COLOURS[5],
    "finite data": COLOURS[3],
    "optimisation": COLOURS[4],
    "discretisation": COLOURS[0],
    "start": COLOURS[1],
    "score": COLOURS[2],
    "total": "#4d4d4d",
}

_MARKERS = "osD^v<>"
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class CurveStyle:
    """The look of a curve; the first 49 all differ in colour or marker.

    Attributes:
        colour: of line and marker.
        marker: as matplotlib names it.
        dashes: the same for the first seven curves, others for the next seven.
    """

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, float]]


def curve_style(place: int) -> CurveStyle:
    """The style of the curve at a place in the legend, from 0."""
    lap = place // len(COLOURS)
    marker = _MARKERS[(place + lap) % len(_MARKERS)]
    return CurveStyle(COLOURS[place % len(COLOURS)], marker, _DASHES[lap % len(_DASHES)])


def interval_curve(
    axes: Axes, curve: pd.DataFrame, x: str, style: CurveStyle, *, label: str = "", cap: float = 0.0
) -> None:
    """Draw a curve of means with their intervals; it works on a log axis, too.

    Args:
        axes: where it is drawn.
        curve: with the columns mean, lower and upper, and that of `x`; an interval may be NaN.
        x: the column along the axis.
        style: of the curve.
        label: in the legend.
        cap: length of the intervals' caps, in points.
    """
    # an interval that extends below 0 has no end on a log axis
    low = (curve["mean"] - curve["lower"]).clip(upper=0.9 * curve["mean"].abs())
    axes.errorbar(
        curve[x],
        curve["mean"],
        yerr=[low, curve["upper"] - curve["mean"]],
        color=style.colour,
        ls=style.dashes,
        marker=style.marker,
        ms=4,
        lw=1.3,
        elinewidth=0.8,
        capsize=cap,
        label=label,
    )


def label_log_axis(axes: Axes, numbers: Iterable[float], apart: float = 1.16) -> None:
    """Make x logarithmic, with labels at those of the numbers that have room for one."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks(numbers, apart)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())


def ticks(numbers: Iterable[float], apart: float) -> list[float]:
    """The numbers on a log axis that have room for a label, from the largest one down.

    Args:
        numbers: positive.
        apart: the smallest ratio of two neighbours.
    """
    chosen: list[float] = []
    for number in sorted(set(numbers), reverse=True):
        if not chosen or chosen[-1] / number > apart:
            chosen.append(number)
    return chosen


def legend_height(entries: int) -> float:
    """The height in inches of a legend beside the panels, with the figure's margins."""
    return 0.19 * entries + 0.6


def subtitle(figure: Figure, text: str) -> None:
    """Write above all panels, small and grey."""
    figure.suptitle(text, fontsize=9, color="0.3")


def styled() -> dict[RcKeyType, Any]:
    """The matplotlib parameters of the style, for `matplotlib.rc_context`.

    All parameters are set, except the backend: the user's own matplotlib settings change no figure.
    """
    with as_file(_STYLE) as path:
        style = dict(mpl.rc_params_from_file(path))
    del style["backend"]
    return style


def enlarged(points: float) -> dict[RcKeyType, Any]:
    """The style with all text, including titles, in one size."""
    style = styled()
    style["font.size"] = style["axes.titlesize"] = style["axes.labelsize"] = points
    style["xtick.labelsize"] = style["ytick.labelsize"] = style["legend.fontsize"] = points
    return style


def metric_title(metric: str) -> str:
    """The usual name of a metric, for an axis."""
    if metric.startswith("max_sliced"):
        return "max-sliced W₂"
    if metric == "moments":
        return "error of mean and deviation"
    return "sliced W₂" if metric == "sliced" else metric.replace("_", " ")


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, whole or not at all; the suffix of the path is the format."""
    FigureCanvasAgg(figure)
    with mpl.rc_context(styled()), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
    return path
