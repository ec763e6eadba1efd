"""The gains of designed grids, where they were designed and elsewhere.

There is a row for each sampler and number of steps. A dot is the value on the best standard grid
divided by the value on the designed grid; the bar is its 95 % interval over held-out starts. Right
of 1 the design is better. One colour is for the data and denoiser of the design, the other colours
for other ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from samplerbench.bench.designing import Carried, Designed
from samplerbench.figures.style import add_legend, curve_style, new_figure, styles_of, subtitle


def design_gain(designs: Sequence[Designed], carried: Sequence[Carried], made_for: str) -> Figure:
    """The gains of designs where they were made (`made_for`, in words), and elsewhere."""
    rows = {one.name: place for place, one in enumerate(reversed(designs))}
    marks = [(made_for, one.name, one.gain, one.lower, one.upper) for one in designs]
    marks += [(one.to, one.design, one.gain, one.lower, one.upper) for one in carried]
    kinds = list(dict.fromkeys(mark[0] for mark in marks))
    with new_figure(7.2, 1.2 + 0.3 * len(rows)) as figure:
        axes = figure.subplots()
        for kind, name, gain, lower, upper in marks:
            place = kinds.index(kind)
            y = rows[name] + 0.16 * ((len(kinds) - 1) / 2 - place)
            style = curve_style(place)
            axes.plot([lower, upper], [y, y], color=style.colour, lw=1.4)
            axes.plot([gain], [y], color=style.colour, marker=style.marker, ms=4.5, ls="")
        axes.axvline(1, color="0.4", lw=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(list(rows.values()), list(rows))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("best standard grid / designed grid: right of 1 the design is better")
        handles = [
            Line2D([], [], color=style.colour, marker=style.marker, ms=4.5, label=kind)
            for kind, style in styles_of(kinds).items()
        ]
        add_legend(figure, handles)
        subtitle(figure, "bars: 95 % intervals over held-out starts")
    return figure
