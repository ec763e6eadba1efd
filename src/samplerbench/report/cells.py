"""The cells of all runs, one line each: mean, interval, floor and what they support.

A cell's mean and interval are `statistics.summary`'s, its verdict `statistics.against_floor`'s:
Welch's interval of the excess over the floor, with Holm's correction over the cells of a run and
measure that share a floor. Where there is one repetition or no floor, that is what it says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
ABOVE, BELOW, SAME = "above the floor", "below the floor", "not told from the floor"


def cell_lines(measured: pd.DataFrame, unordered: Collection[str] = ()) -> pd.DataFrame:
    """One line a cell, the nearest to the data first within its run and measure.

    Args:
        measured: of `entries.to_data`.
        unordered: metrics of which a smaller value need not be a better one; the column `ordered`
            is false of them.
    """
    blocks = [
        _of_one(rows).assign(
            run=str(run), measure=str(measure), ordered=rows["metric"].iloc[0] not in unordered
        )
        for (run, measure), rows in measured.groupby(["run", "measure"], sort=False)
    ]
    if not blocks:
        return pd.DataFrame(columns=COLUMNS)
    lines = pd.concat(blocks, ignore_index=True)
    names = list(map(sampler_name, lines["sampler"], lines["sampler_settings"]))
    return lines.assign(name=names)[COLUMNS]


def floors(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of fresh draws of the law."""
    return measured[(measured["denoiser"] == "law") & (measured["status"] == "ok")]


def floor_of(of_measure: pd.DataFrame, start: str) -> pd.Series:
    """The floor's values of a start: its own where it is drawn evenly, else the random one's.

    Args:
        of_measure: rows of `floors` of one measure.
        start: name of a start.
    """
    own = of_measure[of_measure["start"] == start]
    return (own if not own.empty else of_measure[of_measure["start"] == ""])["value"]


def curves(lines: pd.DataFrame, most: int) -> pd.DataFrame:
    """The lines of the settings that come nearest to the data, so many for a measure and start.

    Args:
        lines: of `cell_lines`.
        most: how many settings, a setting being a sampler's in a run, on whatever denoiser.
    """
    key = ["run", "measure", "start", "name"]
    best = lines.groupby(key)["mean"].min().sort_values(kind="stable")
    chosen = best.groupby(["measure", "start"]).head(most).index
    return lines[pd.MultiIndex.from_frame(lines[key]).isin(chosen)]


def pareto(points: pd.DataFrame, x: str) -> pd.DataFrame:
    """The lines that no other one beats in both x and mean, in order of x."""
    ordered = points[points[x] > 0].sort_values([x, "mean"], kind="stable")
    before = ordered["mean"].cummin().shift(fill_value=float("inf"))
    return ordered[ordered["mean"] < before]


def _of_one(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of one run and measure."""
    sampled = rows[rows["denoiser"] != "law"]
    lines = summary(rows)
    lines = lines[lines["denoiser"] != "law"]
    lines = lines.assign(half=lines["upper"] - lines["mean"]).drop(columns=["lower", "upper"])
    known = _floors_and_verdicts(rows[rows["status"] == "ok"])
    lines = lines.merge(known, on=CELL, how="left") if len(known) else _without(lines)
    bad = sampled[sampled["status"] != "ok"]
    said = bad.groupby(CELL, dropna=False).agg(
        bad=("status", "size"), status=("status", "first"), message=("message", "first")
    )
    lines = lines.merge(said.reset_index(), on=CELL, how="outer" if len(said) else "left")
    return lines.assign(verdict=_verdicts(lines)).sort_values("mean", ignore_index=True)


def _floors_and_verdicts(ok: pd.DataFrame) -> pd.DataFrame:
    """Columns of a cell, floor, excess and p_holm, for the cells that have them."""
    blocks = []
    for _, sharing in by_floor(ok):
        law = sharing["denoiser"] == "law"
        counts = sharing.groupby(CELL, dropna=False)["value"].transform("size")
        several = sharing[law | (counts > 1)]
        if law.sum() > 1 and not (several["denoiser"] == "law").all():
            blocks.append(against_floor(several)[[*CELL, "floor", "excess", "p_holm"]])
    return pd.concat(blocks) if blocks else pd.DataFrame()


def _without(lines: pd.DataFrame) -> pd.DataFrame:
    nothing = float("nan")
    return lines.assign(floor=nothing, excess=nothing, p_holm=nothing)


def _verdicts(lines: pd.DataFrame) -> Sequence[str]:
    """In words what is known of each line."""
    found = []
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
        found.append(text)
    return found
