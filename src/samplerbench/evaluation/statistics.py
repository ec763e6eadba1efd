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

*Resolution.* A law at distance δ from the data shows as more than the floor F(n): to leading order
squares add, so the expected distance is √(F² + δ²) and the excess √(F² + δ²) − F, which is far less
than δ where F is large. It is found, with the stated power, where it exceeds

    D(n, R) = (t_{1−α/2c, ν} + t_{power, ν})·se,   c the number of comparisons (Holm's first step).

F and all standard deviations shrink like (1/n + 1/m)^a: a = 1/2 for a unimodal law, 1/4 where modes
are unevenly weighted and far apart, since a share of √(1/n) of the mass then travels a fixed
distance. So √(F² + δ²) − F = D is solved by δ² = D² + 2·F·D, which falls like (1/n + 1/m)^{2a}.

Squares add for Wasserstein distances. For another metric (a difference of shares, an unbiased
squared distance, whose floor may be negative) nothing is said of a δ: the smallest excess that is
found is D itself, in the metric's own units, and it falls like (1/n + 1/m)^a.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

from samplerbench.errors import InvalidSetting, require
from samplerbench.evaluation.cell import CELL, CURVE, MEASURE, SEEDS, TELLING

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
    ok = table[table["status"] == "ok"]
    law = ok["denoiser"] == "law"
    cells = summary(ok[~law])
    curve = _present(cells, CURVE)
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
    ok = table[table["status"] == "ok"]
    # eta is NaN for samplers without one, and pandas would drop those groups
    cell = _present(ok, CELL)
    named = {name: (name, "first") for name in _present(ok, TELLING) if name not in cell}
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
    chosen = select(table, selection)
    keys = list(dict.fromkeys([over, *_present(table, [*SEEDS, "repetition"])]))
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
    error, freedom = _welch_error(sd_a, len(a), sd_b, len(b))
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
    ok = table[table["status"] == "ok"]
    floors = ok[ok["denoiser"] == "law"]
    shared = _present(ok, [*MEASURE, "data_seed", "metric_seed"])
    columns = list(dict.fromkeys(_present(ok, [*CELL, *MEASURE, *TELLING])))
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
    error, freedom = _welch_error(sd, count, floor_sd, floor_count)
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


@dataclass(frozen=True)
class Resolution:
    """What n samples and R repetitions can tell from data, and what it would take to tell more.

    Attributes:
        cells: how many cells were compared.
        hidden: how many of them cannot be told from data.
        n_samples: n.
        n_reference: m; 0 where the distance is to the law itself.
        repetitions: R, the fewest of any cell.
        floor: the floor's mean.
        resolved: the smallest distance of laws found at (n, R), in data units; where squares do not
            add, the smallest excess over the floor, in the units of the metric.
        wanted: the distance of laws that is to be found.
        n_needed: n that finds it with R repetitions, m growing in proportion; n where squares do
            not add.
        repetitions_needed: R that finds it with n samples, for cells and floor alike; none above
            `MOST_REPETITIONS`, or where squares do not add.
        exponent: a.
        estimated: whether a comes from the table; otherwise it is an assumption.
        squares_add: whether the floor and a distance of laws add in squares.
    """

    cells: int
    hidden: int
    n_samples: int
    n_reference: int
    repetitions: int
    floor: float
    resolved: float
    wanted: float
    n_needed: int
    repetitions_needed: int | None
    exponent: float
    estimated: bool
    squares_add: bool = True

    @property
    def sentence(self) -> str:
        """The finding in words."""
        verb = "cell" if self.cells == 1 else "cells"
        now = f"{self.hidden} of {self.cells} {verb} cannot be told from data at n = "
        now += f"{_thousands(self.n_samples)} with {self.repetitions} repetitions"
        basis = "measured" if self.estimated else "assumed"
        if not self.squares_add:
            return (
                f"{now}: an excess over the floor below {self.resolved:.2g} is not found, in the "
                f"metric's own units (it falls like n^-{self.exponent:.2f}, {basis})"
            )
        if self.n_needed <= self.n_samples:
            return f"{now}; a distance of {self.wanted:.3g} would be found"
        more = f"n = {_thousands(self.n_needed)}"
        if self.n_reference:
            m = self.n_reference * self.n_needed / self.n_samples
            more += f" (and {_thousands(_round_up(m))} data points)"
        if self.repetitions_needed is not None:
            more += f" or {_thousands(self.repetitions_needed)} repetitions"
        if self.n_needed > OUT_OF_REACH and self.repetitions_needed is None:
            more = "no sample size within reach"
        text = (
            f"{now}: below {self.resolved:.2g} nothing is found; {more} would resolve "
            f"{self.wanted:.3g} (the floor falls like n^-{self.exponent:.2f}, {basis})"
        )
        if self.n_needed > MOST_SAMPLES:
            text += "; paired distances to the converged run see more at this n"
        return text


MOST_REPETITIONS = 10_000
MOST_SAMPLES = 1_000_000
"""More repetitions, or more samples a cell, are no advice."""

OUT_OF_REACH = 10**10
"""A sample size that is not even worth printing: a cell would take hours."""


def resolution(
    table: pd.DataFrame,
    wanted: float,
    level: float = 0.95,
    *,
    power: float = 0.8,
    exponent: float = 0.25,
    squares_add: bool = True,
) -> Resolution:
    """The n, or the R, that would find a wanted distance of laws; see the module for the model.

    The table holds one data set, one metric and one floor (see `by_floor`); where it holds several
    n, the exponent is measured from the floors and all else is said of the largest n.

    Args:
        table: rows of the results store, with a floor.
        wanted: distance δ between a cell's law and the data's, in data units.
        level: one minus the chance of a false claim in the table.
        power: chance of finding δ.
        exponent: a, used where the table holds one n only: 1/4 for unevenly weighted modes (the
            default, the worst case), 1/2 for a unimodal law.
        squares_add: whether the metric is a Wasserstein distance; see the module.

    Raises:
        InvalidSetting: a number is out of range, a mixed table, too few repetitions or no floor.
    """
    require(0 < wanted < math.inf, "wanted", wanted, "positive and finite")
    require(0 < power < 1, "power", power, "between 0 and 1")
    require(0 < exponent < math.inf, "exponent", exponent, "positive and finite")
    mixed = [name for name in MEASURE if name not in ("n_samples", "n_reference")]
    require_single(table[table["status"] == "ok"], mixed)
    fitted = floor_exponent(table)
    a = exponent if fitted is None else fitted
    n = int(table.loc[table["denoiser"] != "law", "n_samples"].max())
    here = against_floor(table[table["n_samples"] == n], level)
    m = int(here["n_reference"].max()) if _has_reference(here) else 0
    sd = math.sqrt(float((here["sd"] ** 2).mean()))
    floor, floor_sd = float(here["floor"].mean()), math.sqrt(float((here["floor_sd"] ** 2).mean()))
    repetitions, floor_count = int(here["count"].min()), int(here["floor_count"].min())
    tail = 1 - (1 - level) / (2 * len(here))

    def detectable(cells: int, floors: int) -> float:
        error, freedom = _welch_error(sd, cells, floor_sd, floors)
        return float((stdtrit(freedom, tail) + stdtrit(freedom, power)) * error)

    excess = detectable(repetitions, floor_count)
    known: dict[str, Any] = {
        "cells": len(here),
        "hidden": int((~here["told_apart"]).sum()),
        "n_samples": n,
        "n_reference": m,
        "repetitions": repetitions,
        "floor": floor,
        "wanted": wanted,
        "exponent": a,
        "estimated": fitted is not None,
    }
    if not squares_add or floor < 0:  # no Wasserstein distance is negative
        return Resolution(
            **known, resolved=excess, n_needed=n, repetitions_needed=None, squares_add=False
        )
    resolved = math.sqrt(excess**2 + 2 * floor * excess)
    # both terms of δ² = D² + 2FD shrink like n^(−2a)
    n_needed = n if resolved <= wanted else _round_up(n * (resolved / wanted) ** (1 / a))
    enough = math.hypot(floor, wanted) - floor
    low, high = 1, 2
    while high <= MOST_REPETITIONS and detectable(high, max(high, floor_count)) > enough:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        found = detectable(middle, max(middle, floor_count)) <= enough
        low, high = (low, middle) if found else (middle, high)
    return Resolution(
        **known,
        resolved=resolved,
        n_needed=n_needed,
        repetitions_needed=high if high <= MOST_REPETITIONS else None,
    )


def floor_exponent(table: pd.DataFrame) -> float | None:
    """a of floor ∝ (1/n + 1/m)^a, by least squares on logarithms; None for a single n.

    Also None where the floors do not fall with n, which too few repetitions can bring about.
    """
    floors = table[(table["status"] == "ok") & (table["denoiser"] == "law")]
    sizes = _present(floors, ["n_samples", "n_reference"])
    means = floors.groupby(sizes)["value"].mean().reset_index()
    if means["n_samples"].nunique() < 2:
        return None
    inverse = 1 / means["n_samples"].to_numpy(dtype=np.float64)
    if _has_reference(floors):
        inverse = inverse + 1 / means["n_reference"].to_numpy(dtype=np.float64)
    values = means["value"].to_numpy(dtype=np.float64)
    if np.ptp(inverse) == 0 or not (values > 0).all():
        return None
    slope = float(np.polyfit(np.log(inverse), np.log(values), 1)[0])
    return slope if slope > 0.05 else None


def require_single(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table in which one of the columns has several values.

    Raises:
        InvalidSetting: naming the column and its values.
    """
    for name in _present(table, columns):
        values = list(table[name].drop_duplicates())
        require(len(values) <= 1, name, values, "one of these: select it first")


def _told(selection: Selection) -> str:
    if isinstance(selection, pd.Series):
        return f"{int(selection.sum())} rows"
    return "{" + ", ".join(f"{name}: {value}" for name, value in selection.items()) + "}"


def _several(column: pd.Series) -> bool:
    return len(column.drop_duplicates()) > 1


def _present(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in table.columns]


def _has_reference(table: pd.DataFrame) -> bool:
    """Whether the distance is to finitely many points and not to a law."""
    if "n_reference" not in table or not (table["n_reference"] > 0).all():
        return False
    return "reference" not in table or not (table["reference"] == "law").all()


def _welch_error(
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


def _round_up(count: float) -> int:
    """Up to two significant digits: the model is not better than that."""
    unit = int(10 ** max(math.floor(math.log10(count)) - 1, 0))
    return math.ceil(round(count / unit, 9)) * unit


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")
