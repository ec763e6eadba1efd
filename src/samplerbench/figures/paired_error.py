"""A sampler's own error against its cost: the distance to the converged run from the same starts.

Both axes are logarithmic, so a power law is a line and its slope is the rate. In the distance to
the data the floor would hide this; paired runs have the same starts, so the floor cancels. The cost
is the number of network evaluations, so a method with several stages has no advantage.

On a mixture, W₂ falls half as fast as the error of the states: some points end in another mode, and
W₂² is proportional to their share.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from samplerbench.bench.cell import require_one_sweep, sampler_names
from samplerbench.bench.statistics import mean_evaluations, t_interval
from samplerbench.figures.common import metric_title, repetitions
from samplerbench.figures.style import (
    add_legend,
    fit_distances,
    folded_label,
    interval_curve,
    label_log_axis,
    new_figure,
    sampler_styles,
    subtitle,
)


def paired_errors(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The paired distances of a budget: sampler, nfe, mean and its 95 % interval, one line each.

    Args:
        table: rows of the results store, written by a budget.

    Raises:
        InvalidSetting: the rows are of several sweeps.
    """
    rows = _paired(table, metric)
    require_one_sweep(rows)
    lines = []
    # not by evaluations: an adaptive sampler needs different numbers in different repetitions
    for (name, _), group in rows.assign(name=sampler_names(rows)).groupby(["name", "steps"]):
        interval, nfe = t_interval(group["value"]), mean_evaluations(group["nfe"])
        lines.append((name, nfe, interval.mean, interval.lower, interval.upper))
    return pd.DataFrame(lines, columns=["sampler", "nfe", "mean", "lower", "upper"])


def paired_error_against_nfe(table: pd.DataFrame, metric: str) -> Figure:
    """One curve for each sampler setting; the legend has the order of the curves' right ends."""
    lines = paired_errors(table, metric)
    last = lines.sort_values("nfe").groupby("sampler")["mean"].last().sort_values(ascending=False)
    styles = sampler_styles(table)
    with new_figure(7.6, 4.6) as figure:
        axes = figure.subplots()
        axes.set_yscale("log")
        for name in last.index:
            curve = lines[lines["sampler"] == name]
            interval_curve(axes, curve, "nfe", cap=1.5, label=name, **styles[name].line)
        label_log_axis(axes, lines["nfe"], 0.63)
        fit_distances(axes, lines, pd.Series(dtype=float))
        axes.set_xlabel("network evaluations per sample (NFE)")
        title = f"{metric_title(metric)} to the converged run, same starts"
        axes.set_ylabel(folded_label(axes, title))
        add_legend(figure, [Line2D([], [], label=name, **styles[name].line) for name in last.index])
        rows = _paired(table, metric)
        first, starts = rows.iloc[0], " and ".join(sorted(set(rows["start"])))
        count = rows.groupby(["sampler", "sampler_settings", "steps"]).size()
        subtitle(
            figure,
            f"{first['dataset']}, n = {first['n_samples']:,} samples, {starts} start, "
            f"exact score,\n{repetitions(count)}; bars: 95 % intervals of the mean",
        )
    return figure


def _paired(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of the exact score's runs, measured against their converged runs."""
    return table[
        (table["metric"] == metric)
        & (table["reference"] == "converged")
        & (table["denoiser"] == "oracle")
        & (table["status"] == "ok")
    ]
