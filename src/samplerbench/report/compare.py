"""Compare two runs: the difference of every cell that both have, with its interval.

If both runs have the same seed, n and block, a cell has the same starts and noise in both, and the
difference is paired by repetition (`statistics.paired_difference`); otherwise it has Welch's
interval. p-values have Holm's correction over all compared cells. A cell is not compared if it has
the same values in both runs, for example with the exact score, or lost repetitions in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from samplerbench.bench.cell import sampler_name
from samplerbench.bench.statistics import Estimate, holm, lost_repetitions, paired_difference, welch
from samplerbench.errors import InvalidSetting
from samplerbench.report.entries import Entry, distances, distinguished

_KEY = ["metric", "denoiser", "start", "sampler", "sampler_settings", "steps"]
_SEEDS = ["train_seed", "data_seed"]
#: Columns that are equal if two cells have the same random numbers.
_COMMON = ["seed", "n_samples", "block", "dtype"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The differences first − second of two runs."""

    labels: tuple[str, str]  # of the runs
    # one for each cell: the columns of the key, name, first and second (means), difference, lower,
    # upper, p_holm, count, paired and verdict
    lines: pd.DataFrame
    unmatched: Sequence[str]  # cells of only one run, one line each

    @property
    def tests(self) -> int:
        """The number of cells with a p-value, over which Holm's correction goes."""
        return int(self.lines["p_holm"].notna().sum())


def compare(first: Entry, second: Entry) -> Comparison:
    """Compare two runs; refuse runs with different measures or without common cells."""
    rows = distances(first.values), distances(second.values)
    _require_same(first, second, *rows)
    cells, other_cells = map(_cells, rows)
    lost = {
        key: f"{line['why']} in {entry.label}"
        for entry, own in ((first, rows[0]), (second, rows[1]))
        for line in lost_repetitions(own).to_dict("records")
        for key in [tuple(line[name] for name in _KEY)]
    }
    shared = [key for key in cells if key in other_cells]
    if not shared:
        raise InvalidSetting("compare", f"{first.name} {second.name}", "runs with a cell in common")
    lines = pd.DataFrame(
        [_line(key, cells[key], other_cells[key], key not in lost) for key in shared]
    )
    with_p = lines["p_value"].notna()
    lines["p_holm"] = float("nan")
    lines.loc[with_p, "p_holm"] = holm(lines.loc[with_p, "p_value"])
    of_tests = map(_verdict, lines["p_holm"], lines["difference"], lines["count"])
    verdicts = [lost.get(key, verdict) for key, verdict in zip(shared, of_tests, strict=True)]
    unmatched = [
        f"only in {entry.label}: {_cell_name(key)}"
        for entry, own, other in ((first, cells, other_cells), (second, other_cells, cells))
        for key in own
        if key not in other
    ]
    lines = lines.drop(columns="p_value").assign(verdict=verdicts)
    return Comparison((first.label, second.label), lines, unmatched)


def _require_same(first: Entry, second: Entry, one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse runs that differ in more than samplers, starts, networks and their training."""
    nodes = [entry.config.get("dataset") for entry in (first, second)]
    names = [",".join(rows["dataset"].unique()) for rows in (one, other)]
    if names[0] == names[1] and all(nodes):
        names = distinguished(names[0], nodes)
    _require_equal("dataset", *names)
    for column in ("n_samples", "data_seed", "metric_seed"):
        _require_equal(
            column, *(",".join(map(str, rows[column].unique())) for rows in (one, other))
        )
    metrics = [set(rows["metric"]) for rows in (one, other)]
    if not metrics[0] & metrics[1]:
        _require_equal("metric", *(",".join(sorted(names)) for names in metrics))
    for metric in sorted(metrics[0] & metrics[1]):
        for column in ("metric_settings", "reference", "n_reference", "measure_id"):
            values = [
                ",".join(map(str, rows.loc[rows["metric"] == metric, column].unique()))
                for rows in (one, other)
            ]
            if column == "measure_id" and values[0] != values[1]:
                allowed = "of the same law and the same code in both runs to compare them"
                raise InvalidSetting("metric", metric, allowed)
            _require_equal(f"{metric}: {column}", *values)


def _require_equal(field: str, one: str, other: str) -> None:
    if one != other:
        allowed = "the same in both runs to compare them"
        if field == "data_seed":
            allowed += ": seed=… also changes the data, train_seed=… only the training"
        raise InvalidSetting(field, f"{one} and {other}", allowed)


def _cells(rows: pd.DataFrame) -> dict[tuple[object, ...], pd.DataFrame]:
    """The finished rows of each cell, by its key."""
    ok = rows[(rows["status"] == "ok") & (rows["denoiser"] != "law")]
    # trainings with different seeds can be compared: samplers have the same random numbers
    groups = ok.drop(columns=_SEEDS).groupby(_KEY, sort=True)
    return {key: group for key, group in groups if isinstance(key, tuple)}


def _line(
    key: tuple[object, ...], one: pd.DataFrame, other: pd.DataFrame, complete: bool
) -> dict[str, object]:
    """The line of a cell, with p_value and without p_holm and verdict."""
    paired = all(one[name].unique().tolist() == other[name].unique().tolist() for name in _COMMON)
    first, second, nan = one["value"].mean(), other["value"].mean(), float("nan")
    try:
        if not complete:
            estimate = Estimate(first - second, nan, nan, sd=nan, p_value=nan, count=0)
        elif paired:
            both = pd.concat([one.assign(run="first"), other.assign(run="second")])
            estimate = paired_difference(both, {"run": "first"}, {"run": "second"})
        else:
            estimate = welch(one["value"], other["value"])
    except InvalidSetting:  # one repetition has no interval
        estimate = Estimate(first - second, nan, nan, sd=nan, p_value=nan, count=1)
    return {
        **dict(zip(_KEY, key, strict=True)),
        "name": sampler_name(str(key[3]), str(key[4])),
        "first": first,
        "second": second,
        "difference": estimate.mean,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "count": estimate.count,
        "paired": paired,
        "p_value": estimate.p_value,
    }


def _verdict(p_holm: float, difference: float, count: int) -> str:
    if p_holm != p_holm:
        return "the same values" if count > 1 else "one repetition: no interval"
    if p_holm > 0.05:
        return "not distinguishable"
    return "the first is nearer" if difference < 0 else "the second is nearer"


def _cell_name(key: tuple[object, ...]) -> str:
    metric, denoiser, start, sampler, settings, steps = map(str, key)
    return f"{metric}, {start} start, {denoiser}, {sampler_name(sampler, settings)}, N={steps}"
