"""What the repetitions of a cell say about its distance.

The estimand is the *expected* distance at the stated n, m and metric, to the reference that the
rows share. Repetitions are independent sets of samples, so with R of them, s their standard
deviation,

    mean ± t_{0.975, R−1}·s/√R

is a 95 % interval (Student, "The probable error of a mean", Biometrika 6, 1908). No bootstrap over
the samples: near zero distance it is biased. Distances near zero are skewed, which costs a little
at R = 8: in the tests' simulation 93.8 % of the intervals hold the truth for the floor of a normal
law in one dimension, 94.7 % where the weights of modes decide, 94.3 % for paired differences.

*Differences.* Within a repetition all cells share the start's draws and the noise, so two cells are
compared by the interval of the R differences d_r = a_r − b_r, not by whether two intervals overlap.
The floor shares nothing with a cell; there the interval is Welch's ("The generalization of
'Student's' problem when several different population variances are involved", Biometrika 34, 1947):

    ā − b̄ ± t_{0.975, ν}·se,   se² = s_a²/R_a + s_b²/R_b,
    ν = se⁴ / [(s_a²/R_a)²/(R_a − 1) + (s_b²/R_b)²/(R_b − 1)].

*Many comparisons.* p-values in ascending order are corrected to max_{j ≤ i} min(1, (m − j + 1)·p_j)
(Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979): the
chance of one false claim in the whole table stays below 1 − level, whatever the dependence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

from samplerbench.bench.cell import CELL, CURVE, MEASURE, SEEDS, TELLING, distinct
from samplerbench.errors import InvalidSetting, require

Array = NDArray[np.float64]

_ROUNDING = 1e-9
"""Differences smaller than that share of the values are none."""

#: Rows of the table: a column must equal a value, or be one of a list; or a mask of rows.
Selection = Mapping[str, object] | pd.Series


def at_equal_cost(table: pd.DataFrame, bounds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished rows with `steps` replaced by the number of evaluations that were allowed.

    Samplers of a sweep at equal cost have no number of steps in common: this is what they share.
    Within a bound a setting stands with its run of the most counted evaluations that are no more. A
    run that is the longest within several bounds stands at each of them, more than once in the
    table; the floor stays as it is.

    Args:
        table: rows of the results store.
        bounds: numbers of evaluations allowed.

    Returns:
        The rows, and the lines of `summary` of the cells that are within no bound: the sampler
        chooses its steps and took more than any of them.
    """
    ok = distinct(table[table["status"] == "ok"])
    law = ok["denoiser"] == "law"
    cells = summary(ok[~law])
    curve = present(cells, CURVE)
    chosen = []
    for bound in bounds:
        within = cells[cells["nfe"] <= bound].sort_values(["nfe", "steps"])
        longest = within.drop_duplicates(curve, keep="last")
        chosen.append(longest[[*curve, "steps"]].assign(allowed=bound))
    taken = pd.concat(chosen)
    rows = ok[~law].merge(taken, on=[*curve, "steps"])
    rows = rows.assign(steps=rows["allowed"]).drop(columns="allowed")
    beyond = cells[cells["nfe"] > max(bounds)]
    return pd.concat([ok[law], rows], ignore_index=True), beyond


def summary(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """One line a cell: mean, sd, count, the interval [lower, upper], nfe, seconds and names.

    Rows of different settings or seeds are different cells, also where their names are the same;
    `cell.curve_names` tells them apart.

    Args:
        table: rows of the results store; only those with status ok are used.
        level: of the interval, which is NaN for fewer than two repetitions.
    """
    ok = distinct(table[table["status"] == "ok"])
    # eta is NaN for samplers without one, and pandas would drop those groups
    cell = present(ok, CELL)
    named = {name: (name, "first") for name in present(ok, TELLING) if name not in cell}
    lines = (
        ok.groupby(cell, dropna=False, sort=True)
        .agg(
            mean=("value", "mean"),
            sd=("value", "std"),
            count=("value", "size"),
            nfe=("nfe", mean_evaluations),
            seconds=("seconds", "mean"),
            **named,
        )
        .reset_index()
    )
    half = student_half(lines["sd"], lines["count"], level)
    return lines.assign(lower=lines["mean"] - half, upper=lines["mean"] + half)


def student_half(sd: pd.Series, count: pd.Series, level: float = 0.95) -> pd.Series:
    """Half of Student's interval for each line; NaN where one repetition has no deviation."""
    half: pd.Series = stdtrit((count - 1).clip(lower=1), 0.5 + level / 2) * sd / count**0.5
    return half


def mean_evaluations(nfe: pd.Series) -> int:
    """Evaluations of a cell: the mean over its repetitions, rounded up; most spend the same."""
    return math.ceil(nfe.mean())


@dataclass(frozen=True)
class Estimate:
    """A mean over independent repetitions and its interval.

    Attributes:
        mean: the estimate.
        lower: end of the interval.
        upper: end of the interval.
        sd: of one repetition.
        p_value: two-sided, of the hypothesis that the expectation is zero.
        count: repetitions.
        dropped: repetitions left out because one side of a pair is missing or not ok.
    """

    mean: float
    lower: float
    upper: float
    sd: float
    p_value: float
    count: int
    dropped: int = 0

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.upper - self.lower) / 2


def t_interval(
    values: ArrayLike, level: float = 0.95, *, min_repetitions: int = 2, dropped: int = 0
) -> Estimate:
    """Student's interval for the expectation of independent values, shape (R,).

    Args:
        values: one number a repetition.
        level: of the interval.
        min_repetitions: fewest that an interval may be asked of.
        dropped: carried to the result.

    Raises:
        InvalidSetting: too few values, or a level outside (0, 1).
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    require_repetitions(len(x), min_repetitions)
    require(0 < level < 1, "level", level, "between 0 and 1")
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    error = sd / math.sqrt(len(x))
    half = float(stdtrit(len(x) - 1, 0.5 + level / 2)) * error
    p_value = float(_two_sided(mean, error, len(x) - 1))
    return Estimate(mean, mean - half, mean + half, sd, p_value, len(x), dropped)


def require_repetitions(count: int, least: int = 2, what: str = "an interval") -> None:
    """Refuse fewer repetitions than an interval needs.

    Raises:
        InvalidSetting: one line with the number there is and the number needed.
    """
    least = max(least, 2)
    require(count >= least, "repetitions", count, f"at least {least} for {what}")


def select(table: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The rows of a selection: every named column has the value, or one of the list of values.

    NaN selects NaN, as for the eta of samplers without one.

    Raises:
        InvalidSetting: a name is not a column.
    """
    if isinstance(selection, pd.Series):
        return table[selection.astype(bool)]
    mask = pd.Series(True, index=table.index)
    for name, value in selection.items():
        require(name in table.columns, "selection", name, "a column of the table")
        plain = isinstance(value, str) or not isinstance(value, Sequence)
        mask &= table[name].isin([value] if plain else list(cast(Sequence[object], value)))
    return table[mask]


def paired_difference(
    table: pd.DataFrame,
    first: Selection,
    second: Selection,
    level: float = 0.95,
    *,
    over: str = "repetition",
    min_repetitions: int = 2,
) -> Estimate:
    """The expected difference first − second of two cells, from the repetitions they share.

    Args:
        table: rows of the results store; only those with status ok are used.
        first: one cell.
        second: the other cell.
        level: of the interval.
        over: the column whose values are the independent units. The default says what another set
            of samples would give; "train_seed" (rows of one unit are averaged) what another
            training would give, which is what a claim about training needs.
        min_repetitions: fewest pairs that an interval may be asked of.

    Raises:
        InvalidSetting: a selection is empty or holds more than one cell, or there are too few
            pairs.
    """
    one, other = units(table, first, "first", over), units(table, second, "second", over)
    return paired(one, other, level, over=over, min_repetitions=min_repetitions)


def paired(
    first: pd.Series, second: pd.Series, level: float, *, over: str, min_repetitions: int
) -> Estimate:
    """The `paired_difference` of two cells whose `units` are known."""
    if not first.index.equals(second.index):
        first, second = first.align(second)
    a, b = first.to_numpy(np.float64), second.to_numpy(np.float64)
    # two forms of one method differ by rounding, always in the same direction perhaps
    gaps = pd.Series(np.where(np.abs(a - b) <= _ROUNDING * np.abs(a), 0.0, a - b))
    unit = first.index.get_level_values(over)
    difference = gaps.groupby(unit).mean().dropna()
    require_repetitions(len(difference), min_repetitions, f"a paired difference over {over}")
    return t_interval(difference, level, dropped=unit.nunique() - len(difference))


def units(table: pd.DataFrame, selection: Selection, name: str, over: str) -> pd.Series:
    """The values of one cell, indexed by all that tells its rows apart."""
    chosen = distinct(select(table, selection))
    keys = list(dict.fromkeys([over, *present(table, [*SEEDS, "repetition"])]))
    require(over in table.columns, "over", over, "a column of the table")
    require(len(chosen) > 0, name, _told(selection), "a selection with rows")
    index = pd.MultiIndex.from_frame(chosen[keys])
    twice = index.duplicated(keep=False)
    several = "setting_id" in chosen and _several(chosen["setting_id"])
    if twice.any() or several:
        rows = chosen if several else chosen[twice]
        columns = dict.fromkeys([*CELL, *MEASURE, *TELLING])
        differ = [c for c in columns if c not in SEEDS and c in rows and _several(rows[c])]
        what = f"one cell: these rows differ in {', '.join(differ) or 'nothing'}"
        raise InvalidSetting(name, _told(selection), what)
    return chosen["value"].where(chosen["status"] == "ok").set_axis(index)


def welch(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Estimate:
    """The difference of two expectations from independent values, shapes (R,) and (S,).

    The estimate's count is the smaller of R and S, its sd that of the first.

    Raises:
        InvalidSetting: fewer than two values on one side.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    require_repetitions(min(len(a), len(b)), what="a comparison")
    sd_a, sd_b = float(a.std(ddof=1)), float(b.std(ddof=1))
    error, freedom = welch_error(sd_a, len(a), sd_b, len(b))
    mean = float(a.mean() - b.mean())
    half = float(stdtrit(freedom, 0.5 + level / 2) * error)
    p_value = float(_two_sided(mean, error, freedom))
    return Estimate(mean, mean - half, mean + half, sd_a, p_value, min(len(a), len(b)))


def holm(p_values: ArrayLike) -> Array:
    """Holm's corrected p-values, in the order given: reject those at or below 1 − level."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return corrected


def against_floor(
    table: pd.DataFrame, level: float = 0.95, *, min_repetitions: int = 2
) -> pd.DataFrame:
    """Which cells can be told from fresh draws of the law: one line a cell.

    Columns: those of a cell, mean, sd, count, floor, floor_sd, floor_count, excess (mean − floor)
    with its interval [lower, upper], p_value, p_holm (corrected over the whole table) and
    told_apart. A cell below the floor is told apart too: its excess is negative. That is what
    stratified starts give against random draws of the law; where the table has floor rows that
    carry the name of a cell's start, that is the cell's floor, else it is the one without a start.

    Args:
        table: rows of the results store; only those with status ok are used.
        level: of intervals, and one minus the chance of a false claim in the table.
        min_repetitions: fewest of a cell and of its floor.

    Raises:
        InvalidSetting: a cell has too few repetitions, or no floor to compare it with.
    """
    require(0 < level < 1, "level", level, "between 0 and 1")
    ok = distinct(table[table["status"] == "ok"])
    floors = ok[ok["denoiser"] == "law"]
    shared = present(ok, [*MEASURE, "data_seed", "metric_seed"])
    columns = list(dict.fromkeys(present(ok, [*CELL, *MEASURE, *TELLING])))
    of_floors = floors.groupby([*shared, "start"], dropna=False)["value"]
    by_measure = {key: (of.mean(), of.std(), len(of)) for key, of in of_floors}
    sampled = ok[ok["denoiser"] != "law"].groupby(columns, dropna=False)["value"]
    cells = sampled.agg(mean="mean", sd="std", count="size").reset_index()
    require(len(cells) > 0, "table", "no cells", "one with at least one cell that ran")
    own = []
    for *at, start, sampler, steps, n_samples, count in zip(
        *(cells[name] for name in [*shared, "start", "sampler", "steps", "n_samples", "count"]),
        strict=True,
    ):
        name = f"{sampler} at {steps} steps"
        floor = by_measure.get((*at, start), by_measure.get((*at, "")))
        if floor is None:
            allowed = f"at least 2: {name} has no floor at n = {n_samples}"
            raise InvalidSetting("floor_repetitions", 0, allowed)
        require_repetitions(count, min_repetitions, f"the interval of {name}")
        require_repetitions(floor[2], min_repetitions, f"the floor of {name}")
        own.append(floor)
    floor_mean, floor_sd, floor_count = map(np.array, zip(*own, strict=True))
    sd, count = cells["sd"].to_numpy(), cells["count"].to_numpy()
    error, freedom = welch_error(sd, count, floor_sd, floor_count)
    excess = cells["mean"].to_numpy() - floor_mean
    half = stdtrit(freedom, 0.5 + level / 2) * error
    result = cells.assign(
        floor=floor_mean,
        floor_sd=floor_sd,
        floor_count=floor_count,
        excess=excess,
        lower=excess - half,
        upper=excess + half,
        p_value=_two_sided(excess, error, freedom),
    )
    corrected = holm(result["p_value"])
    return result.assign(p_holm=corrected, told_apart=corrected <= 1 - level)


def by_floor(table: pd.DataFrame) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """A table of one metric cut by floor: the starts that share one, and their rows with it.

    Fresh draws are the floor of random starts, even draws that of an even one: the mean of both
    would be the floor of neither.
    """
    law = table["denoiser"] == "law"
    floors = set(table.loc[law, "start"])
    starts = sorted(set(table.loc[~law, "start"]))
    of_start = {start: start if start in floors else "" for start in starts}
    for floor in dict.fromkeys(of_start.values()):
        sharing = [start for start in starts if of_start[start] == floor]
        cells = ~law & table["start"].isin(sharing)
        yield sharing, table[cells | (law & (table["start"] == floor))]


def require_single(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table in which one of the columns has several values.

    Raises:
        InvalidSetting: naming the column and its values.
    """
    for name in present(table, columns):
        values = list(table[name].drop_duplicates())
        require(len(values) <= 1, name, values, "one of these: select it first")


def _told(selection: Selection) -> str:
    if isinstance(selection, pd.Series):
        return f"{int(selection.sum())} rows"
    return "{" + ", ".join(f"{name}: {value}" for name, value in selection.items()) + "}"


def _several(column: pd.Series) -> bool:
    return len(column.drop_duplicates()) > 1


def present(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The columns of these names that a table has."""
    return [name for name in names if name in table.columns]


def welch_error(
    sd_a: ArrayLike, count_a: ArrayLike, sd_b: ArrayLike, count_b: ArrayLike
) -> tuple[Array, Array]:
    """Standard errors and degrees of freedom of differences of two means."""
    n, m = np.asarray(count_a), np.asarray(count_b)
    a, b = np.asarray(sd_a) ** 2 / n, np.asarray(sd_b) ** 2 / m
    some = a + b > 0  # otherwise nothing varies
    weights = a**2 / np.maximum(n - 1, 1) + b**2 / np.maximum(m - 1, 1)
    freedom = np.where(some, (a + b) ** 2 / np.where(some, weights, 1.0), n + m - 2.0)
    return np.sqrt(a + b), freedom


def _two_sided(mean: ArrayLike, error: ArrayLike, freedom: ArrayLike) -> Array:
    size, error = np.abs(mean), np.asarray(error)
    # no repetition differs from another: certain, or nothing there
    certain = np.where(size == 0, 1.0, 0.0)
    ratio = size / np.where(error > 0, error, 1.0)
    found: Array = np.where(error > 0, 2 * stdtr(freedom, -ratio), certain)
    return found
