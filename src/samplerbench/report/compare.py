"""Two runs side by side: the difference of every cell that both have, with its interval.

Where both runs have a cell from the same seed, n and block, their starts and noise are the same
random numbers, and a difference is paired by repetition (`statistics.paired_difference`); otherwise
it is Welch's. p-values are Holm's, over all cells compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from samplerbench.bench.cell import sampler_name
from samplerbench.bench.statistics import Estimate, holm, paired_difference, welch
from samplerbench.errors import InvalidSetting
from samplerbench.report.entries import Entry, distinguished, to_data

_KEY = ["metric", "denoiser", "start", "sampler", "sampler_settings", "steps"]
_SEEDS = ["train_seed", "data_seed"]
_COMMON = ["seed", "n_samples", "block", "dtype"]
"""What two cells share if their random numbers are the same."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """The differences first − second of two runs.

    Args:
        labels: of the runs.
        lines: one a cell: the columns of the key, name, first and second (means), difference,
            lower, upper, p_holm, count, paired and verdict.
        unmatched: cells that one run has alone, a line each.
    """

    labels: tuple[str, str]
    lines: pd.DataFrame
    unmatched: Sequence[str]


def compare(first: Entry, second: Entry) -> Comparison:
    """Compare two runs that measure the same.

    Raises:
        InvalidSetting: they do not, naming what differs; or they have no cell in common.
    """
    one, other = to_data(first.values), to_data(second.values)
    _require_same(first, second, one, other)
    cells_a, cells_b = (_cells(rows) for rows in (one, other))
    shared = [key for key in cells_a if key in cells_b]
    if not shared:
        raise InvalidSetting("compare", f"{first.name} {second.name}", "runs with a cell in common")
    found = [_difference(cells_a[key], cells_b[key]) for key in shared]
    lines = pd.DataFrame(shared, columns=_KEY).assign(
        name=[sampler_name(str(key[3]), str(key[4])) for key in shared],
        first=[cells_a[key]["value"].mean() for key in shared],
        second=[cells_b[key]["value"].mean() for key in shared],
        difference=[
            cells_a[key]["value"].mean() - cells_b[key]["value"].mean() if of is None else of.mean
            for key, (of, _) in zip(shared, found, strict=True)
        ],
        lower=[of.lower if of else float("nan") for of, _ in found],
        upper=[of.upper if of else float("nan") for of, _ in found],
        count=[of.count if of else 1 for of, _ in found],
        paired=[paired for _, paired in found],
        p_value=[of.p_value if of else float("nan") for of, _ in found],
    )
    known = lines["p_value"].notna()
    lines.loc[known, "p_holm"] = holm(lines.loc[known, "p_value"])
    lines = (
        lines.assign(
            verdict=[
                _verdict(*of)
                for of in zip(lines["p_holm"], lines["difference"], lines["count"], strict=True)
            ]
        )
        if known.any()
        else lines.assign(p_holm=float("nan"), verdict="one repetition: no interval")
    )
    alone = [
        f"only in {entry.label}: {_told(key)}"
        for entry, own, others in ((first, cells_a, cells_b), (second, cells_b, cells_a))
        for key in own
        if key not in others
    ]
    return Comparison((first.label, second.label), lines.drop(columns="p_value"), alone)


def _require_same(first: Entry, second: Entry, one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse runs whose difference would not be the samplers', the starts' or the networks'."""
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
            _require_equal(f"{metric}: {column}", *values)


def _require_equal(field: str, one: str, other: str) -> None:
    if one != other:
        raise InvalidSetting(field, f"{one} and {other}", "the same in both runs to compare them")


def _cells(rows: pd.DataFrame) -> dict[tuple[object, ...], pd.DataFrame]:
    """The finished rows of each cell, by its key."""
    ok = rows[(rows["status"] == "ok") & (rows["denoiser"] != "law")]
    # two trainings share the samplers' random numbers, and are compared here
    groups = ok.drop(columns=_SEEDS).groupby(_KEY, sort=True)
    return {key: of for key, of in groups if isinstance(key, tuple)}


def _difference(one: pd.DataFrame, other: pd.DataFrame) -> tuple[Estimate | None, bool]:
    """The estimate, none where there is no interval, and whether it is paired."""
    common = [one[name].unique().tolist() == other[name].unique().tolist() for name in _COMMON]
    paired = all(common)
    try:
        if not paired:
            return welch(one["value"], other["value"]), False
        both = pd.concat([one.assign(run="first"), other.assign(run="second")])
        return paired_difference(both, {"run": "first"}, {"run": "second"}), True
    except InvalidSetting:
        return None, paired


def _verdict(p_holm: float, difference: float, count: int) -> str:
    if p_holm != p_holm:
        return "one repetition: no interval"
    if p_holm > 0.05:
        return "cannot be told apart"
    return "the first is nearer" if difference < 0 else "the second is nearer"


def _told(key: tuple[object, ...]) -> str:
    metric, denoiser, start, sampler, settings, steps = map(str, key)
    return f"{metric}, {start} start, {denoiser}, {sampler_name(sampler, settings)}, N={steps}"
