"""The cells of all runs, one line each: mean, interval, floor and verdict.

Mean and interval are from `statistics.summary`. The verdict is from `statistics.against_floor`: an
exact rank test against the floor, with Holm's correction over the cells of a run and
measure that share a floor. With one repetition or without a floor, the verdict says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import pandas as pd

from samplerbench.bench.cell import CELL, sampler_name
from samplerbench.bench.statistics import against_floor, by_floor, summary

#: Columns of `cell_lines`.
COLUMNS = [
    "run",
    "measure",
    *CELL,
    "name",
    "nfe",
    "seconds",
    "mean",
    "half",
    "sd",
    "count",
    "floor",
    "excess",
    "p_holm",
    "verdict",
    "ordered",
]
_NO_TEST = dict.fromkeys(("floor", "excess", "p_holm"), float("nan"))
ABOVE, BELOW, SAME = "above the floor", "below the floor", "not distinguishable from the floor"


def cell_lines(distances: pd.DataFrame, unordered: Collection[str] = ()) -> pd.DataFrame:
    """One line for each cell; within a run and measure, the nearest to the data is first.

    Args:
        distances: from `entries.distances`.
        unordered: metrics whose smaller values need not be better; the column `ordered` is false
            for them.
    """
    blocks = [
        _lines_of_measure(rows).assign(
            run=str(run), measure=str(measure), ordered=rows["metric"].iloc[0] not in unordered
        )
        for (run, measure), rows in distances.groupby(["run", "measure"], sort=False)
    ]
    if not blocks:
        return pd.DataFrame(columns=COLUMNS)
    lines = pd.concat(blocks, ignore_index=True)
    names = list(map(sampler_name, lines["sampler"], lines["sampler_settings"]))
    return lines.assign(name=names)[COLUMNS]


def floors(distances: pd.DataFrame) -> pd.DataFrame:
    """The rows of fresh draws of the law."""
    return distances[(distances["denoiser"] == "law") & (distances["status"] == "ok")]


def curves(lines: pd.DataFrame, most: int) -> pd.DataFrame:
    """The lines of the sampler settings that come nearest to the data.

    Args:
        lines: from `cell_lines`.
        most: the number of settings for each measure and start, over all denoisers together.
    """
    key = ["run", "measure", "start", "name"]
    best = lines.groupby(key)["mean"].min().sort_values(kind="stable")
    nearest = best.groupby(["measure", "start"]).head(most).index
    return lines[pd.MultiIndex.from_frame(lines[key]).isin(nearest)]


def pareto(points: pd.DataFrame, x: str) -> pd.DataFrame:
    """The lines for which no other line is smaller in both x and mean, in order of x."""
    ordered = points[points[x] > 0].sort_values([x, "mean"], kind="stable")
    before = ordered["mean"].cummin().shift(fill_value=float("inf"))
    return ordered[ordered["mean"] < before]


def _lines_of_measure(rows: pd.DataFrame) -> pd.DataFrame:
    """The lines of one run and measure."""
    sampled = rows[rows["denoiser"] != "law"]
    lines = summary(rows)
    lines = lines[lines["denoiser"] != "law"]
    lines = lines.assign(half=lines["upper"] - lines["mean"]).drop(columns=["lower", "upper"])
    tests = _tests(rows[rows["status"] == "ok"])
    lines = lines.merge(tests, on=CELL, how="left") if len(tests) else lines.assign(**_NO_TEST)
    bad = sampled[sampled["status"] != "ok"]
    problems = bad.groupby(CELL, dropna=False).agg(
        bad=("status", "size"), status=("status", "first"), message=("message", "first")
    )
    how: Literal["outer", "left"] = "outer" if len(problems) else "left"
    lines = lines.merge(problems.reset_index(), on=CELL, how=how)
    return lines.assign(verdict=_verdicts(lines)).sort_values("mean", ignore_index=True)


def _tests(ok: pd.DataFrame) -> pd.DataFrame:
    """Floor, excess and p_holm of the cells that can be tested against a floor."""
    blocks = []
    for _, rows in by_floor(ok):
        law = rows["denoiser"] == "law"
        counts = rows.groupby(CELL, dropna=False)["value"].transform("size")
        several = rows[law | (counts > 1)]
        if law.sum() > 1 and not (several["denoiser"] == "law").all():
            blocks.append(against_floor(several)[[*CELL, "floor", "excess", "p_holm"]])
    return pd.concat(blocks) if blocks else pd.DataFrame()


def _verdicts(lines: pd.DataFrame) -> Sequence[str]:
    """The verdict of each line, in words."""
    verdicts = []
    for count, p_holm, excess, bad, status, message in zip(
        *(lines[c] for c in ("count", "p_holm", "excess", "bad", "status", "message")), strict=True
    ):
        if not count > 0:
            text = f"{status}: {message}"
        elif p_holm == p_holm:
            text = SAME if p_holm > 0.05 else ABOVE if excess > 0 else BELOW
        else:
            text = "one repetition: no interval" if count < 2 else "no floor"
        if count > 0 and bad > 0:
            text += f" ({bad:.0f} {status}: {message})"
        verdicts.append(text)
    return verdicts
