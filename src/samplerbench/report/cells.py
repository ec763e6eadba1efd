"""The cells of all runs, one line each: mean, interval, floor and verdict.

Mean and interval are from `statistics.summary`. The verdict is from `statistics.against_floor`: an
exact rank test against the floor, with Holm's correction over the cells of a run and measure that
share a floor. With one repetition or without a floor, the verdict says so. A cell that lost
repetitions has no verdict either: its mean is only over the others.

A cell that several runs share, such as a cell of the exact score, has one line. Runs that differ
only in their seeds have one curve, the mean over the seeds: see `over_seeds`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import pandas as pd
from scipy.special import stdtrit

from samplerbench.bench.cell import CELL, SEEDS, curve_names, distinct, sampler_names
from samplerbench.bench.statistics import (
    CHAINS,
    against_floor,
    by_floor,
    complete,
    summary,
    unmixed,
)
from samplerbench.figures.common import EXACT_METRICS
from samplerbench.report.entries import common, without_sampler

#: Columns of `cell_lines`.
COLUMNS = [
    *("run", "measure", *CELL, "name", "curve", "objective", "network", "schedule", "grid"),
    *("nfe", "rounds", "seconds", "mean", "half", "sd", "count", "lost"),
    *("floor", "excess", "p_holm", "verdict", "ordered"),
]
#: Columns of a line that are copied from its first repetition.
_OF_ROWS = ["objective", "network", "schedule", "grid", "cell_id"]
_NO_TEST = dict.fromkeys(("floor", "excess", "p_holm"), float("nan"))
ABOVE, BELOW, SAME = "above the floor", "below the floor", "not distinguishable from the floor"


def cell_lines(
    distances: pd.DataFrame, unordered: Collection[str] = (), chains: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One line for each cell; within a run and measure, the nearest to the data is first.

    Cells that lost repetitions come last.

    Args:
        distances: from `entries.distances`.
        unordered: metrics whose smaller values need not be better; the column `ordered` is false
            for them.
        chains: the diagnostics of chains. If they have not mixed, a cell that is not
            distinguishable from the floor has no verdict.
    """
    blocks = []
    for (run, measure), rows in distances.groupby(["run", "measure"], sort=False):
        lines = _lines_of_measure(rows)
        if chains is not None:
            lines = lines.assign(verdict=_of_chains(lines, chains[chains["run"] == run]))
        ordered = rows["metric"].iloc[0] not in unordered
        blocks.append(lines.assign(run=str(run), measure=str(measure), ordered=ordered))
    if not blocks:
        return pd.DataFrame(columns=COLUMNS)
    lines = pd.concat(blocks, ignore_index=True)
    return _named(_shared(lines.assign(name=sampler_names(lines))))[COLUMNS]


def _shared(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines without repeated cells; `run` is the common part of the names of their runs."""
    key = ["measure", "cell_id", "count", "denoiser", "start", "name"]
    # runs may test the cell among different other cells: keep the weakest claim
    ordered = lines.sort_values("p_holm", ascending=False, kind="stable")
    again = ordered.duplicated(key) & (ordered["cell_id"] != "")
    if not again.any():
        return lines
    runs = lines.groupby(key)["run"].transform(_of_runs)
    runs = runs.where(lines["cell_id"] != "", lines["run"])
    return lines.assign(run=runs)[~again.reindex(lines.index)].reset_index(drop=True)


def _of_runs(labels: pd.Series) -> str:
    several = labels.unique()
    return common(several) or f"{len(several)} runs"


def _named(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines with `curve`, a name for each curve of a chart: "heun · ncsn · seed=1"."""
    several = lines["run"].nunique() > 1
    runs = lines["run"].where(several & ~lines["run"].str.fullmatch(r"\d+ runs"), "")
    pairs = zip(runs, lines["sampler"], strict=True)
    short = pd.Series([without_sampler(run, sampler) for run, sampler in pairs], lines.index)
    curve = lines["name"] + (" · " + short).where(short != "", "")
    key = ["measure", "denoiser", "start", "curve"]
    of_one_run = lines.assign(curve=curve).groupby(key)["run"].transform("nunique") == 1
    curve = curve.where(of_one_run, lines["name"] + (" · " + runs).where(runs != "", ""))
    same = lines.assign(curve=curve).groupby(key)
    if same["setting_id"].nunique().max() > 1:  # for example runs of two versions
        curve = curve_names(lines) + (" · " + runs).where(runs != "", "")
    return lines.assign(curve=curve)


def over_seeds(lines: pd.DataFrame) -> pd.DataFrame:
    """Pool the lines that differ only in their seeds.

    A pooled line has the mean over the seeds and half of Student's 95 % interval of that mean; its
    `count` is the number of seeds. Its verdict only has this number and the number of lost
    repetitions, including those of seeds without any value. The tests of each seed against the
    floor are in `lines`.
    """
    curve = ["measure", "setting_id", "denoiser", "start", "name"]
    finished = lines[lines["mean"].notna()]
    seeds = finished.groupby(SEEDS, dropna=False).ngroup()
    of_curve = [finished[name] for name in curve]
    several = (seeds.groupby(of_curve).transform("nunique") > 1) & (finished["setting_id"] != "")
    if not several.any():
        return finished
    numbers = ["mean", "floor", "nfe", "rounds", "seconds"]
    each = finished[several].assign(seeds=seeds)
    own = (*curve, *numbers, "steps", "run", "lost")
    names = {name: "first" for name in COLUMNS if name not in own}
    # first one line per seed: two runs of one seed are not two trainings
    each = each.groupby([*curve, "steps", "seeds"], as_index=False).agg(
        {**names, **dict.fromkeys(numbers, "mean"), "run": _of_runs}
    )
    runs = each.groupby(curve)["run"].transform(_of_runs)
    groups = each.assign(run=runs, sd=each["mean"], count=1).groupby([*curve, "steps"])
    pooled = groups.agg(
        {**names, **dict.fromkeys(numbers, "mean"), "run": "first", "sd": "std", "count": "sum"}
    ).reset_index()
    lost = lines.groupby([*curve, "steps"], as_index=False)["lost"].sum()
    pooled = pooled.merge(lost, on=[*curve, "steps"])
    count = pooled["count"]
    half = stdtrit((count - 1).clip(lower=1), 0.975) * pooled["sd"] / count**0.5
    verdict = list(map(_over, count, pooled["lost"]))
    pooled = pooled.assign(half=half, p_holm=float("nan"), verdict=verdict)
    return _named(pd.concat([finished[~several], pooled], ignore_index=True))[COLUMNS]


def _over(seeds: int, lost: int) -> str:
    text = f"mean over {seeds} seeds" if seeds > 1 else "one seed: no interval"
    return text + f", without {lost} lost repetition{'s' * (lost > 1)}" * (lost > 0)


def floors(distances: pd.DataFrame) -> pd.DataFrame:
    """The rows of fresh draws of the law."""
    return distinct(distances[(distances["denoiser"] == "law") & (distances["status"] == "ok")])


def in_order(lines: pd.DataFrame) -> list[str]:
    """The names of all samplers with their settings, in the order of their colours in a report."""
    return list(lines.sort_values(["sampler", "eta", "name"])["name"].unique())


def nearest(curves: pd.DataFrame, most: int) -> pd.DataFrame:
    """The `most` curves (from `over_seeds`) nearest to the data, for each measure and start.

    Cells that lost repetitions do not count.
    """
    key = ["measure", "start", "curve"]
    means = curves.assign(mean=curves["mean"].where(curves["lost"] == 0, float("inf")))
    best = means.groupby(key)["mean"].min().sort_values(kind="stable")
    chosen = best.groupby(["measure", "start"]).head(most).index
    return curves[pd.MultiIndex.from_frame(curves[key]).isin(chosen)]


def _lines_of_measure(rows: pd.DataFrame) -> pd.DataFrame:
    """The lines of one run and measure."""
    sampled = rows[rows["denoiser"] != "law"]
    lines = summary(rows)
    lines = lines[lines["denoiser"] != "law"]
    lines = lines.assign(half=lines["upper"] - lines["mean"])
    lines = lines.drop(columns=["lower", "upper", "lost"])
    tests = _tests(complete(rows))
    lines = lines.merge(tests, on=CELL, how="left") if len(tests) else lines.assign(**_NO_TEST)
    bad = sampled[sampled["status"] != "ok"]
    problems = bad.groupby(CELL, dropna=False).agg(
        lost=("status", "size"), status=("status", "first"), message=("message", "first")
    )
    how: Literal["outer", "left"] = "outer" if len(problems) else "left"
    lines = lines.merge(problems.reset_index(), on=CELL, how=how)
    of_rows = sampled.sort_values("repetition").drop_duplicates(CELL)[[*CELL, *_OF_ROWS]]
    lines = lines.drop(columns=_OF_ROWS, errors="ignore").merge(of_rows, on=CELL, how="left")
    lines = lines.assign(verdict=_verdicts(lines))
    lines["lost"] = lines["lost"].where(lines["status"] != "incompatible").fillna(0).astype(int)
    near = lines["mean"].mask(lines["lost"] > 0, float("inf"))
    return lines.loc[near.sort_values(kind="stable").index].reset_index(drop=True)


def _tests(ok: pd.DataFrame) -> pd.DataFrame:
    """Floor, excess and p_holm of the cells that can be tested against a floor."""
    blocks = []
    for _, rows in by_floor(ok):
        law = rows["denoiser"] == "law"
        counts = rows.groupby(CELL, dropna=False)["value"].transform("size")
        several = rows[law | (counts > 1)]
        if law.sum() > 1 and not (several["denoiser"] == "law").all():
            blocks.append(against_floor(several)[[*CELL, "floor", "excess", "p_holm"]])
    return pd.concat(blocks) if blocks else pd.DataFrame()


def _of_chains(lines: pd.DataFrame, chains: pd.DataFrame) -> list[str]:
    """The verdicts; none if chains have not mixed and are not distinguishable from the floor."""
    found = unmixed(chains)
    verdicts = []
    for key, verdict in zip(lines[CHAINS].itertuples(index=False), lines["verdict"], strict=True):
        why = found.get(tuple(key)) if verdict == SAME else None
        verdicts.append(f"no verdict: its chains have not mixed ({why})" if why else verdict)
    return verdicts


def _verdicts(lines: pd.DataFrame) -> Sequence[str]:
    """The verdict of each line, in words."""
    verdicts = []
    columns = ("metric", "count", "half", "p_holm", "excess", "lost", "status", "message")
    for metric, count, half, p_holm, excess, lost, status, message in zip(
        *(lines[column] for column in columns), strict=True
    ):
        if not count > 0:
            text = f"{status}: {message}"
        elif lost > 0:
            text = f"{lost:.0f} of {count + lost:.0f} {status}: {message}"
        elif p_holm == p_holm:
            text = SAME if p_holm > 0.05 else ABOVE if excess > 0 else BELOW
        elif metric in EXACT_METRICS:
            text = "exact"
        else:
            # the metric may give the interval of one value
            text = "one repetition: no interval" if count < 2 and half != half else "no floor"
        verdicts.append(text)
    return verdicts
