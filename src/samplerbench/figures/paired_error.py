"""A sampler's own error against its cost: the distance to the converged run from the same starts.

Both axes are logarithmic, so a power law is a line and its slope is the rate. The distance to data
would hide all this in its floor; paired runs share their starts, and the floor cancels. Cost is
the counted network evaluations, so a method of several stages gets no advantage.

W₂ on a mixture falls half as fast as the states themselves: what changes is which points cross to
another mode, and W₂² is proportional to their share.
"""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from samplerbench.evaluation.statistics import sampler_name, t_interval
from samplerbench.figures.distance import ticks
from samplerbench.figures.style import COLOURS, metric_title, styled

_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
_MARKERS = "osD^v<>"


def paired_errors(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The paired distances of a budget: sampler, nfe, mean and its 95 % interval, one line each.

    Args:
        table: rows of the results store, written by a budget.
        metric: which of its metrics.
    """
    rows = table[
        (table["metric"] == metric)
        & (table["reference"] == "converged")
        & (table["denoiser"] == "oracle")
        & (table["status"] == "ok")
    ]
    names = list(map(sampler_name, rows["sampler"], rows["sampler_settings"]))
    lines = []
    for (name, nfe), group in rows.assign(name=names).groupby(["name", "nfe"]):
        found = t_interval(group["value"])
        lines.append((name, nfe, found.mean, found.lower, found.upper))
    return pd.DataFrame(lines, columns=["sampler", "nfe", "mean", "lower", "upper"])


def paired_error_against_nfe(table: pd.DataFrame, metric: str) -> Figure:
    """One curve for each sampler setting; the legend is in the order of their right ends.

    Args:
        table: rows of the results store, written by a budget.
        metric: which of its metrics.
    """
    lines = paired_errors(table, metric)
    last = lines.sort_values("nfe").groupby("sampler")["mean"].last().sort_values(ascending=False)
    with mpl.rc_context(styled()):
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(last.index):
            curve = lines[lines["sampler"] == name]
            # an interval that reaches below 0 has no end on a log axis
            low = (curve["mean"] - curve["lower"]).clip(upper=0.9 * curve["mean"])
            axes.errorbar(
                curve["nfe"],
                curve["mean"],
                yerr=[low, curve["upper"] - curve["mean"]],
                color=COLOURS[place % len(COLOURS)],
                ls=_DASHES[place // len(COLOURS) % len(_DASHES)],
                marker=_MARKERS[place % len(_MARKERS)],
                ms=4,
                lw=1.3,
                elinewidth=0.8,
                capsize=1.5,
                label=name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator(ticks(set(lines["nfe"]))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("network evaluations per sample (NFE)")
        axes.set_ylabel(f"{metric_title(metric)} to the converged run, same starts")
        figure.legend(loc="outside right center")
    return figure
