"""The content of a report: the runs, their values and warnings for comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from samplerbench.report.cells import cell_lines, over_seeds
from samplerbench.report.charts import Chart
from samplerbench.report.compare import Comparison
from samplerbench.report.entries import Entry, all_values, distances, warnings


@dataclass(frozen=True, eq=False)
class Report:
    """The content of a report."""

    entries: Sequence[Entry]
    values: pd.DataFrame  # all their rows, from `entries.all_values`
    distances: pd.DataFrame  # from `entries.distances`
    lines: pd.DataFrame  # from `cells.cell_lines`
    curves: pd.DataFrame  # from `cells.over_seeds`
    # the parts of a run by its label, from `bench.budget.parts`
    budgets: Mapping[str, pd.DataFrame]
    panels: Sequence[Chart]
    notes: Sequence[str]  # missing content and the reasons, one line each
    comparison: Comparison | None = None  # of two runs, with --compare


def gather(entries: Sequence[Entry]) -> Report:
    """The content of a report about some runs, without budgets and panels."""
    values = all_values(entries)
    rows = distances(values)
    unordered = {name for entry in entries for name in entry.unordered}
    notes = warnings(entries, rows)
    notes += [
        f"{name}: a smaller value is not better, so no value is marked as best: see its floor"
        for name in sorted(unordered)
    ]
    lines = cell_lines(rows, unordered)
    return Report(entries, values, rows, lines, over_seeds(lines), {}, (), notes)
