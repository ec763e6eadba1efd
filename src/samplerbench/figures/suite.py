"""The figures of a suite: the share of problems solved, and error against evaluations on tasks.

The shares are defined in `bench/suite/standing.py`; each grid setting has a panel. × marks runs
that failed, diverged or could not be measured: at the end of a curve of shares, and at the top of a
task's panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from samplerbench.bench.suite.standing import BUDGET, TASK, not_counted, runtimes, shares, standing
from samplerbench.figures.common import quantity_title, score_title, unit_title
from samplerbench.figures.style import (
    CurveStyle,
    add_legend,
    interval_curve,
    label_log_axis,
    new_figure,
    save,
    styles_of,
    subtitle,
)

#: The largest numbers of curves in the figure of shares, and in a panel of a task.
MOST_SHARES, MOST_ERRORS = 12, 7
#: The largest numbers of characters of a name in a legend, and of a line in a panel.
_LONGEST, _WIDTH = 44, 40


def write_suite_figures(
    results: pd.DataFrame, folder: Path, targets: Mapping[str, Sequence[float]]
) -> list[Path]:
    """Write suite_shares.png and suite_tasks.png from `bench.suite.results`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = suite_tasks(results, targets, different_tasks(results))
    return [
        save(suite_shares(results, targets), folder / "suite_shares.png"),
        save(tasks, folder / "suite_tasks.png"),
    ]


def suite_shares(results: pd.DataFrame, targets: Mapping[str, Sequence[float]]) -> Figure:
    """The share of problems solved against evaluations, for the best entrants."""
    times = runtimes(results, targets)
    best = _best(times, MOST_SHARES)
    styles = styles_of(best)
    bad = _failed(results)
    grids = sorted(times["grid"].unique())
    with new_figure(4.1 * len(grids), 3.6) as figure:
        panels = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
        shown = times[times["entrant"].isin(best) & times["solved"]]
        least = float(shown["runtime"].min()) if len(shown) else 1.0
        for axes, grid in zip(panels, grids, strict=True):
            own = times[times["grid"] == grid]
            for name, curve in shares(own[own["entrant"].isin(best)]).groupby("entrant"):
                style = styles[str(name)]
                rises = np.diff(curve["share"], prepend=0.0) > 0
                x = np.concatenate([[least], curve["nfe"][rises], [BUDGET]])
                y = np.concatenate([[0.0], curve["share"][rises], curve["share"][-1:]])
                axes.plot(x, y, **style.line, drawstyle="steps-post", ms=3.5, lw=1.2)
                if (grid, name) in bad:
                    axes.plot([1.1 * BUDGET], [y[-1]], color=style.colour, marker="x", mew=1.6)
            axes.set(title=f"{grid} grid", xlabel="evaluations (NFE)")
            label_log_axis(axes, [2.0**k for k in range(2, 8)], 0.8 / len(grids))
            axes.set_ylim(-0.02, 1.03)
        panels[0].set_ylabel("share of its problems solved")
        panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        add_legend(figure, _handles(best, styles, results))
        problems = times.drop_duplicates([*TASK, "target"])
        entrants = times["entrant"].nunique()
        text = (
            f"{len(problems)} problems of {len(problems.drop_duplicates(TASK))} tasks; "
            f"the best {len(best)} of {entrants} samplers; ×: runs failed or could not be measured"
        )
        counts = times[times["entrant"].isin(best)].groupby(["grid", "entrant"]).size()
        if counts.nunique() > 1:
            text += f"\n{counts.min()} to {counts.max()} problems each: without those of tasks on "
            text += "which a sampler of another package cannot run"
        subtitle(figure, text)
    return figure


def suite_tasks(
    results: pd.DataFrame,
    targets: Mapping[str, Sequence[float]],
    tasks: Sequence[tuple[str, str, str, str]],
) -> Figure:
    """Error against evaluations on some tasks, each sampler with the best of its grids."""
    times = runtimes(results, targets)
    best = _best(times, MOST_ERRORS)
    styles = styles_of(best)
    grid = sorted(results["grid"].unique())[-1]
    rows = -(-len(tasks) // 2)
    columns = min(len(tasks), 2)
    with new_figure(4.1 * columns, 3.0 * rows + 0.4) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(tasks) :]:
            axes.remove()
        for axes, task in zip(panels, tasks, strict=False):
            here = (results[TASK] == list(task)).all(axis=1) & (results["grid"] == grid)
            own = results[here & results["entrant"].isin(best)]
            _task_panel(axes, own, targets[task[3]], styles)
            law, path, denoiser, quantity = task
            axes.set_title(f"{law} · {path} · {score_title(denoiser)}", fontsize="medium")
            axes.set_ylabel(
                ", ".join([quantity_title(quantity), *map(unit_title, own["unit"].unique()[:1])])
            )
            label_log_axis(axes, [2.0**k for k in range(2, 8)], 0.8 / columns)
        for axes in panels[max(0, len(tasks) - columns) : len(tasks)]:
            axes.set_xlabel("evaluations (NFE)")
        add_legend(figure, _handles(best, styles, results))
        subtitle(
            figure,
            f"{grid} grid; the best {len(best)} of {times['entrant'].nunique()} samplers over all "
            "tasks; bars: 95 % intervals; dotted: targets; "
            "×: failed, diverged, not a density or not measured",
        )
    return figure


def _task_panel(
    axes: Axes, rows: pd.DataFrame, targets: Sequence[float], styles: Mapping[str, CurveStyle]
) -> None:
    axes.set_yscale("log")
    for target in targets:
        axes.axhline(target, color="0.75", lw=0.7, ls=(0, (1, 2)), zorder=0)
    ran = rows[~not_counted(rows)].rename(columns={"value": "mean"})
    for name, style in styles.items():
        curve = ran[(ran["entrant"] == name) & (ran["status"] == "ok")].sort_values("nfe")
        interval_curve(axes, curve, "nfe", **style.line)
    bad = ran[ran["status"] != "ok"]
    # a run that failed before its first evaluation has no number of evaluations
    x = bad["nfe"].where(bad["nfe"] > 0, bad["steps"])
    height = 0.97 - 0.05 * x.groupby(x).cumcount()  # one below the other
    for at, y, name in zip(x, height, bad["entrant"], strict=True):
        place = axes.get_xaxis_transform()  # y in shares of the panel
        axes.plot([at], [y], color=styles[name].colour, marker="x", mew=1.6, transform=place)
    if len(bad) == len(ran) > 0:  # nothing to see: say why
        reason = "\n".join(wrap(bad["message"].iloc[0], _WIDTH))
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color="0.4")
    positive = ran.loc[(ran["status"] == "ok") & (ran["mean"] > 0), "mean"]
    high = max([*positive, *targets])
    low = min([*positive, *targets])
    axes.set_ylim(low / 1.5, high * (high / low) ** 0.1)


def different_tasks(results: pd.DataFrame, most: int = 4) -> list[tuple[str, str, str, str]]:
    """Some tasks that have as many different quantities, laws and paths as possible."""
    left = [tuple(map(str, row)) for row in results[TASK].drop_duplicates().to_numpy()]
    chosen: list[tuple[str, ...]] = []
    while left and len(chosen) < most:

        def alike(task: tuple[str, ...]) -> tuple[int, ...]:
            return tuple(sum(task[k] == other[k] for other in chosen) for k in (3, 0, 1, 2))

        chosen.append(min(left, key=alike))
        left.remove(chosen[-1])
    return [(law, path, denoiser, quantity) for law, path, denoiser, quantity in chosen]


def _best(times: pd.DataFrame, most: int) -> list[str]:
    """The best entrants on the last grid setting, where each sampler has its own grid."""
    lines = standing(times[times["grid"] == max(times["grid"])])
    return [str(name) for name in lines["entrant"][:most]]


def _failed(results: pd.DataFrame) -> set[tuple[str, str]]:
    """Grid setting and name of the entrants with a run that failed."""
    bad = results[(results["status"] != "ok") & ~not_counted(results)]
    return set(zip(bad["grid"], bad["entrant"], strict=True))


def _handles(
    names: Sequence[str], styles: Mapping[str, CurveStyle], results: pd.DataFrame
) -> list[Line2D]:
    """The legend: names without the version of their package, and not too long."""
    versions = dict(zip(results["entrant"], results["version"], strict=True))
    labels = [" ".join(word for word in name.split() if word != versions[name]) for name in names]
    return [
        Line2D([], [], label=shorten(label, _LONGEST, placeholder=" …"), **styles[name].line)
        for name, label in zip(names, labels, strict=True)
    ]
