"""The cells as tables for people: a line for each sampler setting, a column for each N."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from samplerbench.report.cells import SAME, floor_of, floors

#: Columns that a page of paper has room for.
MOST_COLUMNS = 8


@dataclass(frozen=True)
class Value:
    """One entry: the mean with half of its interval, whether the floor hides it, and is it best."""

    mean: float
    half: float
    hidden: bool
    best: bool

    def text(self, plus_minus: str = " ± ") -> str:
        """The numbers, with as many digits as the interval supports."""
        if self.half != self.half:
            return f"{self.mean:.3g}"
        digits = 2 if self.half >= 0.1 else 3 if self.half >= 0.01 else 4
        if self.half < 0.001:
            return f"{self.mean:.3g}{plus_minus}{self.half:.1g}"
        return f"{self.mean:.{digits}f}{plus_minus}{self.half:.{digits}f}"


@dataclass(frozen=True)
class Grid:
    """The cells of one measure, for some of the numbers of steps.

    Args:
        measure: its name.
        about: data set, n and floor, in words.
        columns: numbers of steps.
        lines: names of a setting (run, start, denoiser, sampler) and its values; None is a gap.
    """

    measure: str
    about: str
    columns: list[int]
    lines: list[tuple[list[str], list[Value | None]]]


def grids(lines: pd.DataFrame, measured: pd.DataFrame) -> Iterator[Grid]:
    """The tables of all measures, cut where they are too wide.

    Args:
        lines: of `cells.cell_lines`.
        measured: of `entries.to_data`.
    """
    law = floors(measured)
    for measure, rows in lines[lines["mean"].notna()].groupby("measure", sort=False):
        own = law[law["measure"] == measure]
        steps = sorted(set(rows["steps"]))
        about = _about(rows, own)
        for first in range(0, len(steps), MOST_COLUMNS):
            columns = steps[first : first + MOST_COLUMNS]
            chosen = rows[rows["steps"].isin(columns)]
            yield Grid(str(measure), about, columns, _lines(chosen, columns))


def _about(rows: pd.DataFrame, law: pd.DataFrame) -> str:
    line = rows.iloc[0]
    text = f"{line['dataset']}, n = {line['n_samples']:,}, {_range(rows['count'])} repetitions"
    told = []
    for start in dict.fromkeys(law["start"]):
        values = floor_of(law, start)
        sd = f", sd {values.std():.2g}" if len(values) > 1 else ""
        told.append(f"{values.mean():.3g}{sd}" + (f" ({start})" if start else ""))
    return f"{text}; floor {', '.join(told)}" if told else f"{text}; no floor"


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _lines(rows: pd.DataFrame, columns: list[int]) -> list[tuple[list[str], list[Value | None]]]:
    # of one start and denoiser, since the exact score and start are no samplers' merit
    known = rows[rows["ordered"]]
    best = known.groupby(["start", "denoiser", "steps"])["mean"].min().to_dict()
    lines = rows.sort_values(["run", "start", "denoiser", "sampler", "eta", "name"])
    key = ["run", "start", "denoiser", "name"]
    found: dict[tuple[str, ...], dict[int, Value]] = {}
    for run, start, denoiser, name, steps, mean, half, verdict in zip(
        *(lines[column] for column in [*key, "steps", "mean", "half", "verdict"]), strict=True
    ):
        value = Value(mean, half, verdict == SAME, mean == best.get((start, denoiser, steps)))
        found.setdefault((run, start, denoiser, name), {})[steps] = value
    return [
        (list(names), [values.get(count) for count in columns]) for names, values in found.items()
    ]
