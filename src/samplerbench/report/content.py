"""The content of a report: the runs, their values and warnings for comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from samplerbench.bench.statistics import CHAIN
from samplerbench.report.cells import cell_lines, over_seeds
from samplerbench.report.charts import Chart
from samplerbench.report.chosen import chosen
from samplerbench.report.compare import Comparison
from samplerbench.report.entries import Entry, all_values, distances, warnings
from samplerbench.report.reach import reach


@dataclass(frozen=True, eq=False)
class Report:
    """The content of a report."""

    entries: Sequence[Entry]
    values: pd.DataFrame  # all rows of the entries, from `entries.all_values`
    distances: pd.DataFrame  # from `entries.distances`
    lines: pd.DataFrame  # from `cells.cell_lines`
    curves: pd.DataFrame  # from `cells.over_seeds`
    # the parts of a run by its label, from `bench.budget.parts`
    budgets: Mapping[str, pd.DataFrame]
    panels: Sequence[Chart]
    notes: Sequence[str]  # warnings, and missing content with its reason, one line each
    reached: pd.DataFrame  # from `reach.reach`
    group: str = ""  # the column that comes first in tables and colours charts
    comparison: Comparison | None = None  # of two runs, with --compare


def gather(
    entries: Sequence[Entry], where: str = "", group: str = "", targets: Sequence[float] = ()
) -> Report:
    """The content of a report about some runs, without budgets and panels.

    Args:
        where: the cells to keep, see `chosen`; all if it is empty.
        group: a column of `chosen.GROUPS`, or empty; see `Report`.
        targets: distances for `reach`.
    """
    values = every = all_values(entries)
    if where:
        values = chosen(every, where)
        left = values["run"].unique()
        entries = [entry for entry in entries if entry.label in left]
    rows = distances(values)
    unordered = {name for entry in entries for name in entry.unordered}
    notes = warnings(entries, rows)
    notes += [
        f"{name}: a smaller value is not better, so no value is marked as best: see its floor"
        for name in sorted(unordered)
    ]
    if where:
        notes.insert(0, f"only {' '.join(where.split())}: {len(values):,} of {len(every):,} values")
    lines = cell_lines(rows, unordered, every[every["reference"] == CHAIN])
    curves = over_seeds(lines)
    reached = reach(curves, lines, targets)
    if targets and reached.empty:
        notes.append("reach: no cell with a metric of which smaller values are better")
    return Report(entries, values, rows, lines, curves, {}, (), notes, reached, group=group)
