"""The style all figures share, and the one way to make and save them.

Figures are made without pyplot: no global state, no window, safe in threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from samplerbench.files import replacing

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_STYLE = files("samplerbench.figures") / "samplerbench.mplstyle"

#: Okabe and Ito's palette in the order of the style file.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

#: The parts of an error budget, by name: greys for what is in every number, and for the sum.
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
    """What a curve looks like among others: no two of the first 49 share colour and marker.

    Attributes:
        colour: of line and marker.
        marker: as matplotlib names it.
        dashes: the same for the first seven, others for the next seven.
    """

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, float]]


def curve_style(place: int) -> CurveStyle:
    """The style of the curve at a place of the legend, from 0."""
    lap = place // len(COLOURS)
    marker = _MARKERS[(place + lap) % len(_MARKERS)]
    return CurveStyle(COLOURS[place % len(COLOURS)], marker, _DASHES[lap % len(_DASHES)])


def interval_curve(
    axes: Axes, curve: pd.DataFrame, x: str, style: CurveStyle, *, label: str = "", cap: float = 0.0
) -> None:
    """A curve of means with their intervals, also for a log axis.

    Args:
        axes: where.
        curve: with the columns mean, lower and upper, and that of `x`; an interval may be NaN.
        x: the column along the axis.
        style: what it looks like.
        label: in the legend.
        cap: length of the intervals' caps, in points.
    """
    # an interval that reaches below 0 has no end on a log axis
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


def legend_height(entries: int) -> float:
    """Inches that a legend beside the panels takes in height, with the figure's margins."""
    return 0.19 * entries + 0.6


def styled() -> dict[RcKeyType, Any]:
    """The matplotlib parameters of the style, for `matplotlib.rc_context`.

    They are all there are, but for the backend: a figure is the same whatever file of settings a
    user has for figures of his own.
    """
    with as_file(_STYLE) as path:
        style = dict(mpl.rc_params_from_file(path))
    del style["backend"]
    return style


def enlarged(points: float) -> dict[RcKeyType, Any]:
    """The style with text of one size, titles too."""
    style = styled()
    style["font.size"] = style["axes.titlesize"] = style["axes.labelsize"] = points
    style["xtick.labelsize"] = style["ytick.labelsize"] = style["legend.fontsize"] = points
    return style


def metric_title(metric: str) -> str:
    """What people call a metric, for an axis."""
    if metric.startswith("max_sliced"):
        return "max-sliced W₂"
    return "sliced W₂" if metric == "sliced" else metric.replace("_", " ")


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, whole or not at all; the suffix of the path says in which format."""
    FigureCanvasAgg(figure)
    with mpl.rc_context(styled()), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
    return path
