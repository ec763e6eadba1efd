"""Fixed targets: how many evaluations a sampler needs for a given error, over all tasks.

A *task* is a law, a path, a denoiser and a quantity. A *problem* is a task with a target for its
quantity. The *runtime* of an entrant on a problem is

    T = min{n : error(m) ≤ target for every m ≥ n},

with n and m from its own numbers of evaluations: the smallest number from which its error stays at
or below the target. If there is none within `BUDGET` evaluations, the problem is unsolved, T = ∞. A
run that failed or diverged is above every target, and so is a run that cannot be made or measured
(status incompatible), whatever the reason: an entrant cannot leave a problem out. Samplers of other
packages (`PEERS`) are the exception: such a problem does not count for them.

*Shares.* The share of its problems that an entrant solves within n evaluations, as a function of n,
is the empirical distribution function of T. Fixed targets, runtimes and their distribution over
problems follow Hansen, Auger, Ros, Mersmann, Tušar and Brockhoff, "COCO: a platform for comparing
continuous optimizers in a black-box setting", 2021 (arXiv 1603.08785), and the performance profiles
of Dolan and Moré, "Benchmarking optimization software with performance profiles", Mathematical
Programming 91, 2002.

*Ratios.* An unsolved problem counts as `UNSOLVED` = 2·`BUDGET` evaluations (PAR2: the penalised
average runtime with factor 2). With l = log(T_a/T_b), averaged over the problems of a task and then
over tasks, the ratio of two entrants is exp(l̄). Problems that neither solves are left out.

*Intervals* are 95 % intervals of the studentised bootstrap over tasks (Efron and Tibshirani, "An
introduction to the bootstrap", 1993, chapter 12.5): with task means l_1 … l_K, their mean l̄, its
standard error s, and t* = (l̄* − l̄)/s* of K draws with replacement,

    [l̄ − t*_{0.975}·s, l̄ − t*_{0.025}·s].

With fewer than `FEW` = 12 task means each end is the outer one of this interval and of Student's,
l̄ ± t_{K−1, 0.975}·s: draws of so few means take few different values, and the bootstrap alone is
too narrow. The intervals are for the expectation over a population of tasks from which the suite's
tasks are independent draws. Tasks of one law resemble each other, so an interval over `unit="law"`,
which is for other laws, is wider. The draws have a fixed seed. In the simulations of the tests the
coverage is between 93 and 97 % from 5 units on, also for skewed populations. With 6 to 9 units the
bootstrap alone has 92 to 96 %, and Student's interval alone has 90 to 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # scipy.stats takes a second to import

from samplerbench.errors import require

Array = NDArray[np.float64]
Codes = NDArray[np.integer[Any]]

#: A task is all rows that agree in these.
TASK = ["law", "path", "denoiser", "quantity"]
#: A problem is a task with a target.
PROBLEM = [*TASK, "target"]
#: The packages whose samplers the suite runs as they are shipped, by its own adapters.
PEERS = ("azula", "diffusers", "k-diffusion")
#: Columns that describe an entrant; a runtime has them too.
ABOUT = ["package", "version", "sampler", "sampler_settings", "order", "noise"]
#: The largest number of evaluations of a solved problem.
BUDGET = 128
#: The runtime of an unsolved problem in means and ratios.
UNSOLVED = 2.0 * BUDGET
#: A table has the share of problems that are solved within these numbers of evaluations.
AT = (8, 16, 32, 128)
#: An entrant with less than this share of the problems of a table has no rank in it.
RANKED = 0.5
#: The number of draws of a bootstrap, and the places of the 2.5 and 97.5 % quantiles of t*.
DRAWS, LOW, HIGH = 1999, 49, 1949
#: With fewer values an interval contains Student's, whose 97.5 % quantiles are these by the number
#: of values.
FEW = 12
STUDENT = {count: float(stdtrit(count - 1, 0.975)) for count in range(2, FEW)}
#: Differences below this share of the values are rounding errors.
_ROUNDING = 1e-12


def not_counted(results: pd.DataFrame) -> pd.Series[bool]:
    """The mask of rows that do not count: values of `PEERS` that cannot be made or measured.

    Only for these samplers does the suite's own code decide that a value cannot be measured.
    """
    return (results["status"] == "incompatible") & results["package"].isin(PEERS)


def runtimes(results: pd.DataFrame, targets: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """The runtime of every entrant on every problem.

    A run that failed before its first evaluation has no number of evaluations. It gets the number
    of the run with the next smaller number of steps.

    Args:
        results: one row per value, with the columns of `TASK` and `ABOUT`, and grid, entrant, nfe,
            steps, value, status.
        targets: the targets of each quantity.

    Returns:
        One row per entrant × grid × problem that counts for the entrant: the columns of `PROBLEM`
        and `ABOUT`, and grid, entrant, runtime (evaluations; inf if unsolved), solved.

    Raises:
        InvalidSetting: a column is missing, or a quantity has no targets.
    """
    curve = [*TASK, "grid", "entrant"]
    needed = {*curve, *ABOUT, "nfe", "steps", "value", "status"}
    missing = sorted(needed - set(results.columns))
    require(not missing, "results", f"no column {', '.join(missing)}", "the results of a suite")
    for quantity in sorted({*results["quantity"]} - {*targets}):
        require(False, "quantity", quantity, f"one with targets: {', '.join(targets)}")
    rows = results[~not_counted(results)]
    rows = rows.assign(code=rows.groupby(curve, sort=True).ngroup())
    first = rows.drop_duplicates("code").set_index("code")[[*curve, *ABOUT]].sort_index()
    worst = worst_from(rows)
    lines = []
    for quantity, own in first.groupby("quantity", sort=True):
        mine = worst[worst["code"].isin(own.index)]
        for target in targets[str(quantity)]:
            least = least_from(mine, target, BUDGET)
            lines.append(own.assign(target=float(target), runtime=least.reindex(own.index)))
    require(bool(lines), "results", f"{len(results)} rows", "some that count")
    table = pd.concat(lines).fillna({"runtime": math.inf})
    table["solved"] = np.isfinite(table["runtime"])
    table = table.sort_values([*curve, "target"], ascending=[True] * len(curve) + [False])
    order = [*PROBLEM, "grid", "entrant", *ABOUT, "runtime", "solved"]
    return table[order].reset_index(drop=True)


def worst_from(rows: pd.DataFrame) -> pd.DataFrame:
    """The largest error of a curve from each of its numbers of evaluations on.

    Args:
        rows: with the columns code (of the curve), steps, nfe, value and status.

    Returns:
        The columns code, nfe and worst; a run without a value has an infinite error.
    """
    rows = rows.sort_values(["code", "steps", "nfe"], ignore_index=True)
    counted = rows["nfe"].where(rows["nfe"] > 0)
    before = counted.groupby(rows["code"]).ffill()
    rows["nfe"] = counted.fillna(before).fillna(0)
    bad = (rows["status"] != "ok") | rows["value"].isna()
    rows["value"] = rows["value"].astype(float).mask(bad, math.inf)
    errors = rows.groupby(["code", "nfe"], sort=True)["value"].max().reset_index()[::-1]
    worst = errors.groupby("code")["value"].cummax()
    return errors.drop(columns="value").assign(worst=worst)


def least_from(worst: pd.DataFrame, target: float, most: float = math.inf) -> pd.Series:
    """The fewest evaluations from which an error stays at or below the target, by curve code.

    Curves that do not reach it within `most` evaluations are left out.
    """
    reached = worst[(worst["worst"] <= target) & worst["nfe"].between(1, most)]
    least: pd.Series = reached.groupby("code")["nfe"].min()
    return least


def shares(
    runtimes: pd.DataFrame, by: Sequence[str] = (), at: Sequence[int] | None = None
) -> pd.DataFrame:
    """The share of its problems that an entrant solves within n evaluations.

    Args:
        runtimes: from `runtimes`.
        by: columns whose values have shares of their own, such as law or order.
        at: n; None for all numbers at which a share rises.

    Returns:
        One row per entrant × grid × value of `by` × n: the columns of `by`, entrant, grid, nfe,
        share, problems (their number). Between two n the share is that of the smaller n.
    """
    steps = sorted({*runtimes.loc[runtimes["solved"], "runtime"]}) if at is None else sorted(at)
    groups = runtimes.groupby([*by, "entrant", "grid"], dropna=False, sort=True)
    names = groups.size().rename("problems").reset_index()
    code = groups.ngroup().to_numpy()
    place = np.searchsorted(np.array(steps, float), runtimes["runtime"].to_numpy(float))
    solved = np.zeros((len(names), len(steps) + 1))
    np.add.at(solved, (code, place), 1)
    share = solved[:, :-1].cumsum(1) / names["problems"].to_numpy()[:, None]
    long = names.loc[names.index.repeat(len(steps))].reset_index(drop=True)
    long["nfe"] = np.tile(np.array(steps, dtype=int), len(names))
    long["share"] = share.ravel()
    return long[[*by, "entrant", "grid", "nfe", "share", "problems"]]


@dataclass(frozen=True)
class Ratio:
    """How many times the evaluations of b the entrant a needs.

    Attributes:
        value: the geometric mean of runtime(a)/runtime(b); NaN without problems.
        lower: end of the 95 % interval.
        upper: end of the interval.
        tasks: the number of tasks.
        problems: the number of problems, without those that neither solves.
    """

    value: float
    lower: float
    upper: float
    tasks: int
    problems: int

    @property
    def distinct(self) -> bool:
        """Whether 1 is outside the interval."""
        return self.upper < 1 or self.lower > 1


def ratio(runtimes: pd.DataFrame, a: str, b: str, grid: str = "own", unit: str = "task") -> Ratio:
    """The ratio of the runtimes of two entrants, over the problems that both can run.

    Args:
        runtimes: from `runtimes`; select rows first, for example for the ratio on one path.
        a: an entrant.
        b: another one.
        grid: the grid setting.
        unit: the independent units of the interval, task or law.

    Raises:
        InvalidSetting: an entrant has no rows on this grid setting.
    """
    table = _Table.of(runtimes[runtimes["entrant"].isin([a, b])], grid, unit)
    for name in (a, b):
        allowed = f"an entrant with results on the grid setting {grid}"
        require(name in table.entrants, "entrant", name, allowed)
    return table.ratio(table.entrants.index(a), table.entrants.index(b))


def ratios(runtimes: pd.DataFrame, grid: str = "own", unit: str = "task") -> pd.DataFrame:
    """The `ratio` of every pair of entrants: a, b, value, lower, upper, tasks, problems.

    A pair has one row; the ratio of b to a is the reciprocal.
    """
    table = _Table.of(runtimes, grid, unit)
    rows = [
        {"a": a, "b": table.entrants[j], **vars(table.ratio(i, j))}
        for i, a in enumerate(table.entrants)
        for j in range(i + 1, len(table.entrants))
    ]
    return pd.DataFrame(rows, columns=["a", "b", *Ratio.__dataclass_fields__])


def standing(runtimes: pd.DataFrame, unit: str = "task") -> pd.DataFrame:
    """The table of a suite, one row per grid setting and entrant, the best first.

    The rank is by `to_field`: the ratio of the entrant's runtime to that of the field, averaged
    like a `Ratio` over the entrant's own problems. The field of a problem is the geometric mean of
    all entrants that can run it. So an entrant that cannot run everywhere is not favoured by easier
    problems. An entrant with less than half (`RANKED`) of the problems of its grid setting has no
    rank, and its row is below those with a rank.

    Args:
        runtimes: from `runtimes`; select rows first, for example for the table of one path.
        unit: the independent units of the intervals, task or law.

    Returns:
        grid, rank (missing if it has none), entrant, the columns of `ABOUT`, problems, solved_8,
        solved_16, … (shares within the numbers of `AT`), log2_runtime (mean), lower, upper (its
        interval), to_field, tied (whether 1 is within the interval of the ratio to the entrant one
        rank above), all_problems (the number of those that any entrant can run).
    """
    parts = []
    for grid, own in runtimes.groupby("grid", sort=True):
        table = _Table.of(own, str(grid), unit)
        field = np.nanmean(table.logs, axis=1, keepdims=True)
        behind = [table.mean(column)[0] for column in (table.logs - field).T]
        means = [table.mean(column) for column in table.logs.T]
        unranked = (~np.isnan(table.logs)).mean(axis=0) < RANKED
        order = np.lexsort([behind, unranked])
        ranks = [None if unranked[one] else place for place, one in enumerate(order, 1)]
        tied = [False] + [
            not (unranked[below] or table.ratio(below, above).distinct)
            for above, below in pairwise(order)
        ]
        lines = pd.DataFrame(
            {
                "entrant": table.entrants,
                "log2_runtime": [mean for mean, *_ in means],
                "lower": [lower for _, lower, *_ in means],
                "upper": [upper for *_, upper in means],
                "to_field": np.exp2(behind),
            }
        )
        lines = lines.iloc[order].assign(grid=grid, tied=tied, all_problems=len(table.logs))
        lines["rank"] = pd.array(ranks, dtype="Int64")
        parts.append(lines)
    lines = pd.concat(parts, ignore_index=True)
    solved = shares(runtimes, at=AT).pivot(
        index=["grid", "entrant", "problems"], columns="nfe", values="share"
    )
    solved = solved.rename(columns=lambda nfe: f"solved_{nfe}").reset_index()
    about = runtimes.drop_duplicates(["grid", "entrant"])[["grid", "entrant", *ABOUT]]
    lines = lines.merge(about, on=["grid", "entrant"]).merge(solved, on=["grid", "entrant"])
    first = ["grid", "rank", "entrant", *ABOUT, "problems", *(f"solved_{nfe}" for nfe in AT)]
    last = ["log2_runtime", "lower", "upper", "to_field", "tied", "all_problems"]
    return lines[[*first, *last]]


@dataclass(frozen=True, eq=False)
class _Table:
    """log₂ of the runtimes on one grid setting.

    Args:
        entrants: their names.
        logs: shape (problems, entrants); NaN where an entrant cannot run.
        task: the number of each problem's task.
        unit: the number of each task's unit.
    """

    entrants: list[str]
    logs: Array
    task: Codes
    unit: Codes

    @classmethod
    def of(cls, runtimes: pd.DataFrame, grid: str, unit: str) -> _Table:
        require(unit in ("task", "law"), "unit", unit, "task or law")
        own = runtimes[runtimes["grid"] == grid]
        require(len(own) > 0, "grid", grid, f"one of {', '.join(sorted({*runtimes['grid']}))}")
        wide = own.pivot(index=PROBLEM, columns="entrant", values="runtime")
        tasks = wide.index.to_frame(index=False)[TASK]
        task = tasks.groupby(TASK).ngroup().to_numpy()
        first = tasks.assign(task=task).drop_duplicates("task").sort_values("task")
        units = first["task"] if unit == "task" else first.groupby("law").ngroup()
        logs = np.log2(wide.clip(upper=UNSOLVED).to_numpy(float))
        return cls(list(wide.columns), logs, task, units.to_numpy())

    def ratio(self, i: int, j: int) -> Ratio:
        """The ratio of entrants i and j."""
        first, second = self.logs[:, i], self.logs[:, j]
        solved = np.minimum(first, second) < math.log2(UNSOLVED)  # False for NaN
        difference = np.where(solved, first - second, math.nan)
        mean, lower, upper = np.exp2(self.mean(difference))
        tasks = len(np.unique(self.task[solved]))
        return Ratio(float(mean), float(lower), float(upper), tasks, int(solved.sum()))

    def mean(self, values: Array) -> tuple[float, float, float]:
        """The mean over units of means over tasks of means over problems, and its interval.

        Problems whose value is NaN are left out; NaN if no problem is left.
        """
        kept = ~np.isnan(values)
        of_tasks = _means(values[kept], self.task[kept])
        of_units = _means(of_tasks, self.unit[np.unique(self.task[kept])])
        if not len(of_units):
            return math.nan, math.nan, math.nan
        lower, upper = interval(of_units)
        return float(of_units.mean()), float(lower), float(upper)


def _means(values: Array, group: Codes) -> Array:
    """The mean of the values of each group that has one, in the order of their numbers."""
    counts = np.bincount(group)
    sums = np.bincount(group, weights=values)
    return sums[counts > 0] / counts[counts > 0]


def interval(values: ArrayLike) -> Array:
    """The 95 % interval of the expectation of independent values, by the studentised bootstrap.

    With fewer than `FEW` values each end is the outer one of this interval and Student's. Equal
    values have an interval of one point, and a single value has (−∞, ∞). A few values can have an
    infinite end: then many of their resamples are equal values, whose t* is infinite.

    Args:
        values: shape (*batch, K).

    Returns:
        The ends, shape (2, *batch).
    """
    x = np.asarray(values, dtype=float)
    count = x.shape[-1]
    mean = x.mean(-1)
    if count == 1:
        return np.stack([np.full_like(mean, -math.inf), np.full_like(mean, math.inf)])
    x = x - mean[..., None]
    x[np.abs(x) <= _ROUNDING * np.abs(mean)[..., None]] = 0
    # sums over draws: how often each value is drawn, times the value
    draws = _draws(count)
    means = x @ draws.T / count
    variances = np.square(x) @ draws.T / count - np.square(means)
    variances[variances <= _ROUNDING * np.square(means)] = 0  # draws of one value
    with np.errstate(divide="ignore", invalid="ignore"):
        t = means / np.sqrt(variances / (count - 1))
    t[np.isnan(t)] = 0
    t.partition((LOW, HIGH), axis=-1)
    error = np.sqrt(np.square(x).sum(-1) / (count * (count - 1)))
    ends: Array = mean - np.stack([t[..., HIGH], t[..., LOW]]) * error
    if count < FEW:
        half = STUDENT[count] * error
        ends = np.stack([np.minimum(ends[0], mean - half), np.maximum(ends[1], mean + half)])
    return ends


@cache
def _draws(count: int) -> Array:
    """How often each of `count` values is drawn, shape (DRAWS, count)."""
    rng = np.random.default_rng(0)
    return rng.multinomial(count, np.full(count, 1 / count), DRAWS).astype(float)
