"""Confidence intervals and tests for the distance of a cell, from its repetitions.

The estimand is the *expected* distance at the stated n, m and metric, to the reference that the
rows share. Repetitions are independent sets of samples, so with R of them, s their standard
deviation,

    mean ± t_{0.975, R−1}·s/√R

is a 95 % interval (Student, "The probable error of a mean", Biometrika 6, 1908). A bootstrap over
the samples is not used: it is biased near zero distance. Distances near zero are skewed, so the
coverage at R = 8 is a little lower: in the simulation of the tests 93.8 % for the floor of a normal
law in one dimension, 94.7 % if the weights of modes dominate, 94.3 % for paired differences.

*Differences.* Within a repetition all cells share the start's draws and the noise, so two cells are
compared by the interval of the R differences d_r = a_r − b_r, not by whether two intervals overlap.
Variances are not pooled over pairs, because they differ much between pairs of samplers. Two cells
of runs that share no random numbers have Welch's interval ("The generalization of
'Student's' problem when several different population variances are involved", Biometrika 34, 1947):

    ā − b̄ ± t_{0.975, ν}·se,   se² = s_a²/R_a + s_b²/R_b,
    ν = se⁴ / [(s_a²/R_a)²/(R_a − 1) + (s_b²/R_b)²/(R_b − 1)].

*Against the floor.* Under the hypothesis that samples are perfect, the R distances of a cell and
the M of fresh draws are exchangeable. So all orders of the R + M are equally likely, and

    U = #{(i, j): a_i > b_j},   p = P(U' ≥ U)

is exact for any law (Mann and Whitney, "On a test of whether one of two random variables is
stochastically larger than the other", Annals of Mathematical Statistics 18, 1947; ties count
against the claim). Welch's test would estimate a variance from R values, and detect nothing with
R = 3. A cell may be above or below its floor, so p is doubled, and the smallest p is
2/C(R + M, R). If this is not significant after Holm's correction, the test is Student's with the
pooled variance of the logarithms, which are less skewed than the distances (if these are positive).

*Lost repetitions.* A repetition that diverged has no value. The mean of the other repetitions may
be as near to the data as that of perfect samples. So such a cell is never tested or ranked: its
lines have the number of lost repetitions instead of a verdict.

*Many comparisons.* p-values in ascending order are corrected to max_{j ≤ i} min(1, (m − j + 1)·p_j)
(Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979): the
probability of a false claim in a family is at most 1 − level, under any dependence. Two cells that
are equal in every repetition are the same by construction, so they are not compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

from samplerbench.bench.cell import (
    CELL,
    CURVE,
    DISTINGUISHING,
    MEASURE,
    NOT_A_DENSITY,
    SEEDS,
    distinct,
)
from samplerbench.bench.rounding import SIGNED, plain
from samplerbench.errors import InvalidSetting, require

Array = NDArray[np.float64]

#: Differences below this share of the values are rounding errors and count as zero.
_ROUNDING = 1e-9
#: Chains with a split R̂ up to this value have mixed.
MIXED = 1.01
#: The column `reference` of the diagnostics of chains.
CHAIN = "chain"
#: Columns that distinguish groups of chains.
CHAINS = ["start", "denoiser", "sampler", "sampler_settings"]
#: Selects rows: a mask, or a mapping from columns to a value or a list of values.
Selection = Mapping[str, object] | pd.Series


def at_equal_cost(table: pd.DataFrame, bounds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of cells with a value, with `steps` replaced by the bound on the evaluations.

    Samplers of a sweep at equal cost have different numbers of steps, but the same bounds. For each
    bound the table has, for each sampler with its settings, the run with the most counted
    evaluations within the bound. So a run can appear at several bounds. If that run has no value,
    because it failed, there is none at this bound, since the value of a shorter run would be
    mistaken for it. The rows of the floor do not change.

    Args:
        bounds: the largest numbers of evaluations.

    Returns:
        The rows, and the lines of `summary` of the cells above every bound. Only an adaptive
        sampler can have such cells.
    """
    ok = distinct(table[table["status"] == "ok"])
    law = ok["denoiser"] == "law"
    cells = summary(ok[~law])
    curve = present(cells, CURVE)
    columns = [*curve, "steps", "nfe"]
    failed = table.loc[(table["status"] != "ok") & (table["nfe"] > 0), columns]
    # `cells` already has the cells of which some repetitions have a value
    tried = pd.concat([cells[columns], failed]).drop_duplicates([*curve, "steps"])
    chosen = []
    for bound in bounds:
        within = tried[tried["nfe"] <= bound].sort_values(["nfe", "steps"])
        longest = within.drop_duplicates(curve, keep="last")
        chosen.append(longest[[*curve, "steps"]].assign(allowed=bound))
    taken = pd.concat(chosen)
    # with the lost repetitions of these cells, see the module
    all_rows = distinct(table)
    rows = all_rows[all_rows["denoiser"] != "law"].merge(taken, on=[*curve, "steps"])
    rows = rows.merge(cells[[*curve, "steps"]], on=[*curve, "steps"])
    rows = rows.assign(steps=rows["allowed"]).drop(columns="allowed")
    beyond = cells[cells["nfe"] > max(bounds)]
    return pd.concat([ok[law], rows], ignore_index=True), beyond


def varied_setting(table: pd.DataFrame) -> str | None:
    """The numeric setting with at least three values, if only it and the denoiser vary."""
    cells = table[table["denoiser"] != "law"]
    if any(cells[name].nunique() != 1 for name in ("sampler", "start", "steps")):
        return None
    values = [json.loads(text or "{}") for text in cells["sampler_settings"].unique()]
    varied = [key for key in values[0] if len({str(one.get(key)) for one in values}) > 1]
    numeric = all(_is_number(one.get(key)) for one in values for key in varied)
    return varied[0] if len(varied) == 1 and numeric and len(values) >= 3 else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def summary(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """One line per cell: mean, sd, count, the interval [lower, upper], nfe, rounds, seconds, names.

    An expected distance is not negative, so if the mean is at least 0, `lower` is at least 0 too.
    `lost` is the number of repetitions without a value, such as those that diverged; the mean is
    over the other repetitions. A cell has no line if one of its repetitions is not a density.

    Rows with different settings or seeds are different cells, even if they have the same name;
    `cell.curve_names` makes the names unique.

    Args:
        table: rows of the results store; only those with status ok are used.
        level: the level of the interval. A single repetition has no interval, unless its metric
            gives the `half_width` of a 95 % interval.
    """
    ok = distinct(table[table["status"] == "ok"])
    # one repetition shows it of the law, and others may have too few points to see it
    no_density = table[table["status"] == NOT_A_DENSITY]
    if len(no_density) > 0:
        columns = present(ok, CELL)
        ok = ok[~_index(ok, columns).isin(_index(no_density, columns))]
    if "rounds" not in ok:
        ok = ok.assign(rounds=ok["nfe"])
    if "info" in ok:
        ok = ok.assign(own_half=[_own_half(info) for info in ok["info"].fillna("")])
    else:
        ok = ok.assign(own_half=math.nan)
    # eta is NaN for samplers without one, and pandas would drop those groups
    cell = present(ok, CELL)
    named = {name: (name, "first") for name in present(ok, DISTINGUISHING) if name not in cell}
    lines = (
        ok.groupby(cell, dropna=False, sort=True)
        .agg(
            mean=("value", "mean"),
            sd=("value", "std"),
            count=("value", "size"),
            nfe=("nfe", mean_evaluations),
            rounds=("rounds", mean_evaluations),
            seconds=("seconds", "mean"),
            own_half=("own_half", "first"),
            **named,
        )
        .reset_index()
    )
    own = lines.pop("own_half") * (stdtrit(math.inf, 0.5 + level / 2) / 1.96)
    half = student_half(lines["sd"], lines["count"], level).where(lines["count"] > 1, own)
    lower = lines["mean"] - half
    free = (lines["mean"] < 0) | lines["metric"].isin(SIGNED)
    lower = lower.where(free, lower.clip(lower=0))
    lines = lines.assign(lower=lower, upper=lines["mean"] + half)
    lost = lost_repetitions(table)[[*cell, "lost"]]
    return lines.merge(lost, on=cell, how="left").fillna({"lost": 0}).astype({"lost": int})


def lost_repetitions(table: pd.DataFrame) -> pd.DataFrame:
    """The cells that lost repetitions, without cells that cannot run.

    Returns:
        One line per cell: its columns (`CELL`), lost (the number of repetitions without a value)
        and why (in words: "1 of 8 diverged", with the status of the first of them).
    """
    cell, sampled = present(table, CELL), table["denoiser"] != "law"
    if (table["status"].isin(["ok", "incompatible"]) | ~sampled).all():
        return table[cell].head(0).assign(lost=0, why="")
    rows = distinct(table[sampled & (table["status"] != "incompatible")])
    rows = rows.assign(lost=rows["status"] != "ok")
    counts = rows.groupby(cell, dropna=False)["lost"].agg(["sum", "size"]).reset_index()
    first = rows[rows["lost"]].drop_duplicates(cell)[[*cell, "status"]]
    lines = counts[counts["sum"] > 0].merge(first, on=cell)
    sizes, status = lines.pop("size").astype(str), lines.pop("status")
    why = lines["sum"].astype(str) + " of " + sizes + " " + status
    return lines.rename(columns={"sum": "lost"}).assign(why=why)


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a value, also of floors, without the cells that lost a repetition."""
    ok = table[table["status"] == "ok"]
    lost = lost_repetitions(table)
    if lost.empty:
        return ok
    cell = present(table, CELL)
    return ok[~_index(ok, cell).isin(_index(lost, cell))]


def _index(lines: pd.DataFrame, names: list[str]) -> pd.MultiIndex:
    # NaN equals NaN here, as for the eta of samplers without one
    return pd.MultiIndex.from_frame(lines[names])


def _own_half(info: str) -> float:
    """Half of the 95 % interval that a metric gives for one value; NaN if it gives none."""
    return float(json.loads(info).get("half_width", math.nan)) if "half_width" in info else math.nan


def student_half(sd: pd.Series, count: pd.Series, level: float = 0.95) -> pd.Series:
    """Half of Student's interval for each line; NaN for a single repetition."""
    half: pd.Series = stdtrit((count - 1).clip(lower=1), 0.5 + level / 2) * sd / count**0.5
    return half


def mean_evaluations(nfe: pd.Series) -> int:
    """Evaluations of a cell: the mean over its repetitions, rounded up; usually all are equal."""
    return math.ceil(nfe.mean())


@dataclass(frozen=True)
class Estimate:
    """A mean over independent repetitions and its interval."""

    mean: float  # the estimate
    lower: float  # end of the interval
    upper: float  # end of the interval
    sd: float  # of one repetition
    # two-sided, for the hypothesis that the expectation is zero; NaN if every repetition is zero
    p_value: float
    count: int  # repetitions
    dropped: int = 0  # repetitions left out because one side of a pair is missing or not ok

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.upper - self.lower) / 2


def t_interval(
    values: ArrayLike, level: float = 0.95, *, min_repetitions: int = 2, dropped: int = 0
) -> Estimate:
    """Student's interval for the expectation of independent values, shape (R,).

    Args:
        values: one number per repetition.
        min_repetitions: the smallest allowed number of values.

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
    """Refuse fewer repetitions than an interval needs."""
    least = max(least, 2)
    require(count >= least, "repetitions", count, f"at least {least} for {what}")


def select(table: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The rows of a selection: every named column has the value, or one of the list of values.

    NaN selects NaN, as for the eta of samplers without one. Each name must be a column.
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
        over: the column whose values are the independent units. With the default, the interval is
            for other sets of samples. With "train_seed" it is for other trainings, as a claim about
            training needs; the rows of one training are averaged.
        min_repetitions: the smallest allowed number of pairs.

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
    # two forms of one method differ by rounding, perhaps always in the same direction
    gaps = pd.Series(np.where(np.abs(a - b) <= _ROUNDING * np.abs(a), 0.0, a - b))
    unit = first.index.get_level_values(over)
    difference = gaps.groupby(unit).mean().dropna()
    require_repetitions(len(difference), min_repetitions, f"a paired difference over {over}")
    return t_interval(difference, level, dropped=unit.nunique() - len(difference))


def units(table: pd.DataFrame, selection: Selection, name: str, over: str) -> pd.Series:
    """The values of one cell, indexed by the columns in which its rows differ."""
    chosen = distinct(select(table, selection))
    keys = list(dict.fromkeys([over, *present(table, [*SEEDS, "repetition"])]))
    require(over in table.columns, "over", over, "a column of the table")
    require(len(chosen) > 0, name, _selection_text(selection), "a selection with rows")
    index = pd.MultiIndex.from_frame(chosen[keys])
    twice = index.duplicated(keep=False)
    several = "setting_id" in chosen and _several(chosen["setting_id"])
    if twice.any() or several:
        rows = chosen if several else chosen[twice]
        columns = dict.fromkeys([*CELL, *MEASURE, *DISTINGUISHING])
        differ = [c for c in columns if c not in SEEDS and c in rows and _several(rows[c])]
        what = f"one cell: these rows differ in {', '.join(differ) or 'nothing'}"
        raise InvalidSetting(name, _selection_text(selection), what)
    return chosen["value"].where(chosen["status"] == "ok").set_axis(index)


def welch(first: ArrayLike, second: ArrayLike) -> Estimate:
    """The difference of two expectations from independent values, shapes (R,) and (S,), R, S > 1.

    The interval has the level .95; count is the smaller of R and S, and sd is that of the first.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    require_repetitions(min(len(a), len(b)), what="a comparison")
    sd_a, sd_b = float(a.std(ddof=1)), float(b.std(ddof=1))
    square_a, square_b = sd_a**2 / len(a), sd_b**2 / len(b)
    error = math.sqrt(square_a + square_b)
    freedom = len(a) + len(b) - 2.0  # if nothing varies
    if error > 0:
        freedom = error**4 / (square_a**2 / (len(a) - 1) + square_b**2 / (len(b) - 1))
    mean = float(a.mean() - b.mean())
    half = float(stdtrit(freedom, 0.975) * error)
    p_value = float(_two_sided(mean, error, freedom))
    return Estimate(mean, mean - half, mean + half, sd_a, p_value, min(len(a), len(b)))


def holm(p_values: ArrayLike) -> Array:
    """Holm's corrected p-values, in the given order: reject those at or below 1 − level.

    NaN stays NaN and does not count as a comparison.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # NaN is sorted last
    factors = np.arange(len(order), 0, -1)
    corrected = np.full_like(p, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return corrected


@cache
def rank_tail(count: int, floor_count: int) -> Array:
    """P(U ≥ u) for u = 0 … count·floor_count, if all orders are equally likely.

    The number of orders with U = u is the coefficient of q^u in
    ∏_{i=1}^{R} (1 − q^{M+i})/(1 − q^i).
    """
    few, many = sorted((count, floor_count))
    orders = np.zeros(count * floor_count + 1, dtype=object)  # integers of any size
    orders[0] = 1
    for i in range(1, few + 1):
        orders[many + i :] = orders[many + i :] - orders[: -many - i]
        for first in range(i):
            orders[first::i] = np.add.accumulate(orders[first::i])
    total = math.comb(count + floor_count, count)
    upper = np.add.accumulate(orders[::-1])[::-1]
    return np.array([int(ways) / total for ways in upper])


def ranks_suffice(count: int, floor_count: int, comparisons: int, level: float = 0.95) -> bool:
    """Whether the smallest p of the rank test is significant after Holm's correction."""
    return 2 * comparisons <= (1 - level) * math.comb(count + floor_count, count)


def floor_p_values(pairs: Sequence[tuple[Array, Array]], level: float = 0.95) -> Array:
    """Two-sided p-values of cells against their floors, before correction; see the module.

    Args:
        pairs: for each cell its values, shape (R,), and the values of its floor, shape (M,).
        level: one minus the probability of a false claim among all cells.
    """
    sides = np.array([_sides(*pair, len(pairs), level) for pair in pairs]).reshape(-1, 2)
    p_values: Array = np.minimum(2 * sides.min(1), 1.0)
    return p_values


def _sides(values: Array, floor: Array, comparisons: int, level: float) -> tuple[float, float]:
    """The p-values of "above the floor" and of "below the floor"."""
    count, floor_count = len(values), len(floor)
    positive = min(values.min(), floor.min()) > 0
    if positive and not ranks_suffice(count, floor_count, comparisons, level):
        a, b = np.log(values), np.log(floor)
        freedom = count + floor_count - 2
        squares = a.var() * count + b.var() * floor_count
        error = math.sqrt(squares / freedom * (1 / count + 1 / floor_count))
        gap = float(a.mean() - b.mean())
        if error == 0:  # all values are equal
            return float(gap <= 0), float(gap >= 0)
        return float(stdtr(freedom, -gap / error)), float(stdtr(freedom, gap / error))
    differences = values[:, None] - floor
    tail = rank_tail(count, floor_count)
    return tail[(differences > 0).sum()], tail[(differences < 0).sum()]


def against_floor(
    table: pd.DataFrame, level: float = 0.95, *, min_repetitions: int = 2
) -> pd.DataFrame:
    """Compare every cell with fresh draws of the law: one line per cell.

    Columns: the columns of a cell, mean, sd, count, floor, floor_sd, floor_count, excess (mean −
    floor), p_value, p_holm (corrected over the whole table) and significant. A cell can also be
    significantly below the floor, with a negative excess, as with stratified starts against random
    draws. If the table has floor rows with the name of the cell's start, they are its floor;
    otherwise the floor rows without a start are. Cells with lost repetitions are left out.

    Args:
        table: rows of the results store; only those with status ok are used.
        level: one minus the probability of a false claim in the table.
        min_repetitions: the smallest allowed number, of a cell and of its floor.

    Raises:
        InvalidSetting: a cell has too few repetitions, or no floor.
    """
    require(0 < level < 1, "level", level, "between 0 and 1")
    ok = distinct(complete(table))
    law = ok["denoiser"] == "law"
    shared = present(ok, [*MEASURE, "data_seed", "metric_seed"])
    columns = list(dict.fromkeys(present(ok, [*CELL, *MEASURE, *DISTINGUISHING])))
    floors = {
        key: values.to_numpy(np.float64)
        for key, values in ok[law].groupby([*shared, "start"], dropna=False)["value"]
    }
    cells = ok[~law].groupby(columns, dropna=False)["value"].agg(list).reset_index(name="values")
    allowed = "one with at least one cell that ran in all repetitions"
    require(len(cells) > 0, "table", "no cells", allowed)
    pairs = []
    for *at, start, sampler, steps, n_samples, values in zip(
        *(cells[name] for name in [*shared, "start", "sampler", "steps", "n_samples", "values"]),
        strict=True,
    ):
        name = f"{sampler} at {steps} steps"
        floor = floors.get((*at, start), floors.get((*at, "")))
        if floor is None:
            allowed = f"at least 2: {name} has no floor at n = {n_samples}"
            raise InvalidSetting("floor_repetitions", 0, allowed)
        require_repetitions(len(values), min_repetitions, f"a comparison of {name}")
        require_repetitions(len(floor), min_repetitions, f"the floor of {name}")
        pairs.append((np.asarray(values, dtype=np.float64), floor))
    p_value = floor_p_values(pairs, level)
    p_holm = holm(p_value)
    sides = {id(own): own for pair in pairs for own in pair}  # many cells share a floor
    known = {key: (own.mean(), own.std(ddof=1), len(own)) for key, own in sides.items()}
    (mean, sd, count), (floor_mean, floor_sd, floor_count) = (
        zip(*(known[id(own)] for own in side), strict=True) for side in zip(*pairs, strict=True)
    )
    return cells.drop(columns="values").assign(
        mean=mean,
        sd=sd,
        count=count,
        floor=floor_mean,
        floor_sd=floor_sd,
        floor_count=floor_count,
        excess=np.subtract(mean, floor_mean),
        p_value=p_value,
        p_holm=p_holm,
        significant=p_holm <= 1 - level,
    )


def by_floor(table: pd.DataFrame) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """Divide a table of one metric by floor: the starts that share a floor, and their rows.

    Random starts have the floor of random draws, and an even start has the floor of even draws. The
    mean of both floors would be wrong for each start.
    """
    law = table["denoiser"] == "law"
    floors = set(table.loc[law, "start"])
    starts = sorted(set(table.loc[~law, "start"]))
    of_start = {start: start if start in floors else "" for start in starts}
    for floor in dict.fromkeys(of_start.values()):
        sharing = [start for start in starts if of_start[start] == floor]
        cells = ~law & table["start"].isin(sharing)
        yield sharing, table[cells | (law & (table["start"] == floor))]


def floor_of(floors: pd.DataFrame, start: str) -> pd.Series:
    """The values of the floor for the cells of a start.

    Empty if the rows have several measures or sizes, since each of them has its own floor.
    """
    if len(floors[present(floors, MEASURE)].drop_duplicates()) > 1:
        return pd.Series(dtype=float)
    # a start that is drawn evenly has a floor that is drawn evenly; all others share one
    own = floors[floors["start"] == start]
    return (own if not own.empty else floors[floors["start"] == ""])["value"].dropna()


def require_single(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table in which one of the columns has several values."""
    for name in present(table, columns):
        values = list(table[name].drop_duplicates())
        if name == "measure_id" and len(values) > 1:  # a hash means nothing to a reader
            metrics = ", ".join(table["metric"].astype(str).unique())
            allowed = f"one setting against one law, not {len(values)}: select by measure_id first"
            raise InvalidSetting("metric", metrics, allowed)
        require(len(values) <= 1, name, values, "one of these: select it first")


def _selection_text(selection: Selection) -> str:
    if isinstance(selection, pd.Series):
        return f"{int(selection.sum())} rows"
    return "{" + ", ".join(f"{name}: {value}" for name, value in selection.items()) + "}"


def _several(column: pd.Series) -> bool:
    return len(column.drop_duplicates()) > 1


def present(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the names that are columns of the table."""
    return [name for name in names if name in table.columns]


def _two_sided(mean: ArrayLike, error: ArrayLike, freedom: ArrayLike) -> Array:
    size, error = np.abs(mean), np.asarray(error)
    # all repetitions are equal: the difference is certain, or the cells are the same
    certain = np.where(size == 0, np.nan, 0.0)
    ratio = size / np.where(error > 0, error, 1.0)
    found: Array = np.where(error > 0, 2 * stdtr(freedom, -ratio), certain)
    return found


def r_hat_text(value: float) -> str:
    """Split R̂ with three decimals near 1, and with three digits otherwise."""
    return f"{value:.3f}" if value < 1.1 else f"{value:.3g}"


def unmixed(chains: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """The chains that have not mixed, or did not reach some modes, with the reason in words.

    The keys are values of `CHAINS`. R̂ is NaN if the chains diverged. Chains of too few steps to be
    examined are left out.

    Args:
        chains: the rows of a run whose reference is `CHAIN`.
    """
    found: dict[tuple[str, ...], str] = {}
    for key, rows in chains.groupby(CHAINS):
        values = dict(zip(rows["metric"], rows["value"], strict=True))
        r_hat, missing = values["split_r_hat"], values.get("mass_not_reached", 0.0)
        if "incompatible" not in set(rows["status"]) and (not r_hat <= MIXED or missing > 0):
            why = f"split R̂ {r_hat_text(r_hat)}"
            why += f", {plain(missing)} of the mass not reached" if missing > 0 else ""
            found[cast(tuple[str, ...], key)] = why
    return found
