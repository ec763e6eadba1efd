"""The parts of an error budget, computed from the table of a run; see `bench.budget.run`."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from samplerbench.bench.budget.run import DOUBLED, NEIGHBOURS, ODE, scores
from samplerbench.bench.cell import require_one_sweep
from samplerbench.bench.statistics import student_half
from samplerbench.bench.store import LIMIT
from samplerbench.errors import InvalidSetting

#: Parts of the additive budget, in the order from the data to the cell used in practice. A budget
#: has the parts that its sweep can separate.
PARTS = (
    *("floor", "generalisation", "truncation", "discretisation"),
    *("start", "finite data", "optimisation", "score"),
)


#: A metric, and a sampler with its settings. Joins do not use the column eta, which can be NaN.
KEY = ["metric", "sampler", "sampler_settings"]
#: The columns that a budget needs; pandas copies all columns of a table in each step.
_USED = [*KEY, "denoiser", "start", "reference", "steps", "repetition", "eta", "status", "value"]


def parts(table: pd.DataFrame, converged_steps: int, level: float = 0.95) -> pd.DataFrame:
    """The budget of every cell, one line per part.

    Columns: metric, sampler, sampler_settings, eta, steps, part (one of `PARTS`, or total), kind,
    and mean, lower, upper, count. With `kind` difference the mean is that of a difference of
    distances, paired within a repetition; with `kind` neighbours it is that of the distance between
    neighbours. A part whose cells did not finish has no line. Differences use only the repetitions
    that have all parts, if there are any, so that the means add up too.

    Args:
        table: rows of the results store, written by `Budget.run`.

    Raises:
        InvalidSetting: the table has no budget.
    """
    require_one_sweep(table)
    table = table[_USED]
    limits = table[table["sampler"].str.endswith(LIMIT)]
    if limits.empty:
        raise InvalidSetting("experiment", "this run", "budget: the table has no converged run")
    ok = table[table["status"] == "ok"]
    to_data = ok[ok["reference"].isin(["data", "law"])]
    cells = to_data[~to_data["sampler"].str.endswith(LIMIT) & (to_data["denoiser"] != "law")]
    start = _exact_start(limits, converged_steps)
    oracle, exact = cells["denoiser"] == "oracle", cells["start"] == start
    index = [*KEY, "steps", "repetition"]

    def distances(rows: pd.DataFrame) -> pd.Series:
        return rows.set_index(index)["value"]

    frame = pd.DataFrame({"C": distances(cells[oracle & exact])})
    of_prior = limits[limits["start"] != start]
    limits = limits[limits["start"] == start]
    end = 2 * converged_steps
    frame["C∞"] = _at_limit(limits, ["data", "law"], end, frame.index)
    # with final=none: the same runs with one more step, to x̂₀
    truncated = limits["steps"].eq(end + 1).any()
    end_at_data = end + 1 if truncated else end
    denoised = _at_limit(limits, ["data", "law"], end_at_data, frame.index)
    differences = {"floor": denoised}
    if truncated:
        differences["truncation"] = frame["C∞"] - denoised
    differences["discretisation"] = frame["C"] - frame["C∞"]
    training = _at_limit(limits, ["training"], end_at_data, frame.index)
    to_points = training.notna().groupby(level="metric").transform("any")
    if to_points.any():  # a metric against the law has no distance to training points
        differences["floor"] = training.where(to_points, denoised)
        differences["generalisation"] = denoised - training
    # a part that is not in the sweep is left out; if its cells diverged, it is NaN, and A too
    last = frame["C"]
    if (table["denoiser"].eq("oracle") & table["start"].ne(start)).any():
        here = distances(cells[oracle & ~exact]).reindex(frame.index)
        differences["start"], last = here - last, here
        if not of_prior.empty:  # of divergences
            there = _at_limit(of_prior, ["law"], end, frame.index)
            first = there.notna().groupby(level="metric").transform("any")
            for part, values in (("discretisation", here - there), ("start", there - frame["C∞"])):
                differences[part] = values.where(first, differences[part])
    empirical = ["empirical"] * bool(table["denoiser"].eq("empirical").any())
    for denoiser in [*empirical, *scores(table["denoiser"])]:
        part = "finite data" if denoiser == "empirical" else "score"
        if part == "score" and "finite data" in differences:
            part = "optimisation"
        here = distances(cells[cells["denoiser"] == denoiser]).reindex(frame.index)
        differences[part], last = here - last, here
    differences["total"] = last
    differences = _complete(differences)
    once = _metrics_without_repetitions(table)
    blocks = [_intervals(own, part, "difference", level, once) for part, own in differences.items()]
    for part, reference in NEIGHBOURS.items():
        if part == "truncation":  # between limits, which many cells share
            apart = _at_limit(limits, [reference], end, frame.index)
        else:
            rows = ok[ok["reference"] == reference]
            if reference == "oracle":  # of two parts
                rows = rows[rows["denoiser"].eq("empirical") == (part == "finite data")]
            apart = distances(rows)
        if not apart.dropna().empty:
            blocks.append(_intervals(apart, part, "neighbours", level, once))
    etas = cells[[*KEY, "eta"]].drop_duplicates()
    return pd.concat(blocks, ignore_index=True).merge(etas, on=KEY)


def _exact_start(limits: pd.DataFrame, converged_steps: int) -> str:
    """The name of the exact start: only its limits run with M and 2M steps. Empty without one."""
    return next(iter(limits.loc[limits["steps"] == converged_steps, "start"]), "")


def _at_limit(
    limits: pd.DataFrame, references: list[str], steps: int, index: pd.Index
) -> pd.Series:
    """The value of the converged run with `steps` steps for each entry of an index of cells.

    A sampler that draws noise has its own limit, or none if that run failed. All other samplers
    have the limit of the ODE.
    """
    own = {
        (sampler.removesuffix(LIMIT), settings)
        for sampler, settings in zip(limits["sampler"], limits["sampler_settings"], strict=True)
        if sampler != ODE
    }
    rows = limits[limits["reference"].isin(references) & (limits["status"] == "ok")]
    rows = rows[rows["steps"] == steps]
    ends = rows.set_index(["metric", "sampler", "sampler_settings", "repetition"])["value"]
    known = ends.to_dict()
    values = []
    for metric, sampler, settings, _, repetition in index:
        has_own = (sampler, settings) in own
        limit = (f"{sampler}{LIMIT}", settings) if has_own else (ODE, "")
        values.append(known.get((metric, *limit, repetition), math.nan))
    return pd.Series(values, index=index, dtype=float)


def _complete(differences: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """Keep the repetitions of a cell that have all differences, if there are any.

    Otherwise the parts would be means over different repetitions, and would not add up.
    """
    there = pd.concat(list(differences.values()), axis=1).notna()
    # a part that no cell of a metric has is left out
    none = ~there.groupby(level="metric").transform("any")
    whole = (there | none).all(axis=1)
    some = whole.groupby(level=[*KEY, "steps"]).transform("any")
    return {part: values.where(whole | ~some) for part, values in differences.items()}


def _metrics_without_repetitions(table: pd.DataFrame) -> list[str]:
    """Exact metrics, which have one repetition; all other metrics of a budget have at least two."""
    most = table.groupby("metric")["repetition"].max()
    return list(most.index[most == 0])


def _intervals(
    values: pd.Series, part: str, kind: str, level: float, once: list[str]
) -> pd.DataFrame:
    groups = values.dropna().groupby(level=[*KEY, "steps"])
    lines = groups.agg(["mean", "std", "size"]).reset_index()
    lines["std"] = lines["std"].mask(lines["metric"].isin(once), 0.0)
    half = student_half(lines["std"], lines["size"], level)
    lower = lines["mean"] - half
    return lines.assign(
        part=part,
        kind=kind,
        lower=lower.clip(lower=0) if kind == "neighbours" else lower,
        upper=lines["mean"] + half,
        count=lines["size"],
    ).drop(columns=["std", "size"])


OF_IT, SMALLEST = "it", "the smallest distance of the budget"
CONVERGED, PERHAPS_NOT, NOT = "converged", "perhaps not converged", "NOT converged"


def convergence(table: pd.DataFrame, converged_steps: int, tolerance: float) -> pd.DataFrame:
    """The change of each limit's distance when the converged number of steps M is doubled.

    Columns besides `KEY` and eta:

    - moved: the change, a mean over repetitions, paired; half: half of its 95 % interval
    - allowed: the tolerance times a distance; of: the description of that distance
    - apart, apart_half: the distance between the two runs, and half of its interval; NaN if the
      metric needs independent clouds
    - state: see `run`; converged: whether the state is "converged"

    The distance of `allowed` is the root mean square of d(C_2M), since an unbiased estimate may be
    negative. For a metric of laws, which has no floor of draws, d(C_2M) can be as small as
    rounding; then it is the smallest distance that the budget decomposes, if that is larger.
    """
    require_one_sweep(table)
    whole, table = table, table[_USED]
    ok = table[(table["status"] == "ok") & table["sampler"].str.endswith(LIMIT)]
    to_data = ok[ok["reference"].isin(["data", "law"])]
    to_data = to_data[to_data["start"] == _exact_start(ok, converged_steps)]
    wide = to_data.pivot_table(index=[*KEY, "repetition"], columns="steps", values="value")
    wide = wide.reindex(columns=[converged_steps, 2 * converged_steps])
    once = _metrics_without_repetitions(table)
    moved = _means((wide[2 * converged_steps] - wide[converged_steps]).dropna(), once)
    between = ok[ok["reference"] == DOUBLED].set_index([*KEY, "repetition"])["value"]
    apart = _means(between, once).rename(columns={"mean": "apart", "half": "apart_half"})
    squares = wide[2 * converged_steps].pow(2).groupby(level=KEY).mean()
    own = squares.pow(0.5)
    of_laws = list(table.loc[table["reference"] == "law", "metric"].unique())
    smallest: pd.Series = pd.Series(dtype=float)
    if of_laws:
        found = parts(whole, converged_steps)
        totals = found[(found["part"] == "total") & found["metric"].isin(of_laws)]
        smallest = totals.groupby("metric")["mean"].min()
    least = pd.Series(
        own.index.get_level_values("metric").map(smallest.to_dict()), own.index, dtype=float
    )
    allowed = (tolerance * own.combine(least.fillna(0.0), max)).rename("allowed").to_frame()
    allowed = allowed.assign(of=np.where(least > own, SMALLEST, OF_IT)).reset_index()
    lines = moved.rename(columns={"mean": "moved"}).merge(apart, on=KEY, how="left")
    lines = lines.merge(allowed, on=KEY)
    size = lines["moved"].abs()
    state = np.where(size + lines["half"] <= lines["allowed"], CONVERGED, PERHAPS_NOT)
    state = np.where(size > lines["allowed"], NOT, state)
    lines = lines.assign(state=state, converged=state == CONVERGED)
    return lines.merge(to_data[[*KEY, "eta"]].drop_duplicates(), on=KEY)


def _means(values: pd.Series, once: list[str]) -> pd.DataFrame:
    """The mean over repetitions and half of its 95 % interval, for each limit."""
    lines = values.groupby(level=KEY).agg(["mean", "std", "size"]).reset_index()
    lines["std"] = lines["std"].mask(lines["metric"].isin(once), 0.0)
    half = student_half(lines["std"], lines["size"])
    return lines.assign(half=half).drop(columns=["std", "size"])
