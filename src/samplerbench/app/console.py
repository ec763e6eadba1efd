"""What the job prints: its settings, the table of cells, and where everything is."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import cast

import pandas as pd
from rich.console import Console
from rich.table import Table

from samplerbench.errors import InvalidSetting
from samplerbench.evaluation.budget import PARTS
from samplerbench.evaluation.ranking import ranking
from samplerbench.evaluation.statistics import (
    CELL,
    by_floor,
    resolution,
    sampler_name,
    summary,
)
from samplerbench.metrics.base import LawMetric, Metric


def console() -> Console:
    """Standard output, never narrower than the table of the main job; it remembers what it said."""
    width = max(120, Console(file=sys.stdout).width)
    return Console(file=sys.stdout, width=width, highlight=False, record=True)


def print_cells(out: Console, table: pd.DataFrame, unit: str = "N") -> None:
    """One table a metric: a line for each start, denoiser and sampler setting, a column for each N.

    Args:
        out: where to print.
        table: rows of the results store.
        unit: what its steps are: N, or the evaluations allowed, NFE.
    """
    for metric, rows in table.groupby("metric"):
        lines = summary(rows)
        floor = lines[lines["denoiser"] == "law"]
        cells = lines[lines["denoiser"] != "law"]
        first = rows.iloc[0]
        data = f"{first['n_reference']:,} data points"
        against = "the law itself" if first["reference"] == "law" else data
        out.print(
            f"\n{metric} on {first['dataset']}: n = {first['n_samples']:,} samples against "
            f"{against}; mean ± half of the 95 % interval"
        )
        grid = Table(box=None, pad_edge=False)
        for name in ("start", "denoiser", "sampler"):
            grid.add_column(name, no_wrap=True)
        steps = sorted(set(cells["steps"]))
        for count in steps:
            grid.add_column(f"{unit}={count}", justify="right", no_wrap=True)
        keys = ["start", "denoiser", "sampler", "eta", "sampler_settings"]
        ordered = cells.sort_values(keys, ascending=[False, True, True, True, True])
        for key, line in ordered.groupby(keys, dropna=False, sort=False):
            start, denoiser, sampler, _, settings = cast(tuple[str, str, str, float, str], key)
            texts = map(_cell, line["mean"], line["upper"])
            found = dict(zip(line["steps"], texts, strict=True))
            name = sampler_name(sampler, settings)
            grid.add_row(start, denoiser, name, *(found.get(count, "–") for count in steps))
        if not cells.empty:
            out.print(grid)
        print_info(out, rows[rows["denoiser"] != "law"])
        for _, own in floor.iterrows():
            kind = "even" if own["start"] else "fresh"
            draws = f"{first['n_samples']:,} {kind} draws of the law itself"
            draws += f" (for {own['start']})" if own["start"] else ""
            if own["count"] == 1:  # a finite data set may have no more than one
                text = f"{_number(own['mean'])} for one set of {draws}: its spread is not known"
            else:
                spread = f"sd {_number(own['sd'])} over {own['count']} sets"
                text = f"{_number(own['mean'])} on average, {spread} of {draws}"
            out.print(f"floor: {text}")
        out.print()


def print_failures(out: Console, table: pd.DataFrame) -> None:
    """What did not give a value, and why: a line for each reason.

    Args:
        out: where to print.
        table: all rows of the results store, also those behind an error budget.
    """
    bad = table[table["status"] != "ok"]
    for (status, message), rows in bad.groupby(["status", "message"]):
        out.print(f"{len(rows)} {status}: {message}", style="bold red", markup=False)


def print_info(out: Console, rows: pd.DataFrame) -> None:
    """What else a metric found, at the largest number of steps: a p-value, a share.

    Args:
        out: where to print.
        rows: of one metric.
    """
    rows = rows[(rows["info"].fillna("") != "") & (rows["steps"] == rows["steps"].max())]
    keys = ["start", "denoiser", "sampler", "sampler_settings", "steps"]
    for key, group in rows.groupby(keys):
        start, denoiser, sampler, settings, steps = cast(tuple[str, str, str, str, int], key)
        means = pd.DataFrame(map(json.loads, group["info"])).mean()
        found = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        name = sampler_name(sampler, settings)
        out.print(f"{start}, {denoiser}, {name}, N={steps}: {found}", markup=False)


def print_claims(
    out: Console,
    table: pd.DataFrame,
    wanted: float,
    metrics: Mapping[str, Metric | LawMetric],
    unit: str = "N",
) -> None:
    """What the numbers support: which sampler is best, and which cells are told from the data.

    Where there is one repetition or no floor, it says what is missing; a cell with too few values
    is named and left out.

    Args:
        out: where to print.
        table: rows of the results store: distances to the data or the law.
        wanted: a distance that one would like to find, in the units of the data.
        metrics: those of the table, by name.
        unit: what its steps are, as in `print_cells`.
    """
    sampled = table[table["denoiser"] != "law"]
    if sampled.empty:
        return
    if sampled["repetition"].nunique() < 2:
        text = "one repetition: no interval and no ranking; repetitions=8 gives both"
        out.print(text, markup=False)
        return
    if not (table["denoiser"] == "law").any():
        text = "no floor: what a perfect sampler would show is not known; floor_repetitions=8 shows"
        out.print(f"{text} it", markup=False)
    for metric, ok in table[table["status"] == "ok"].groupby("metric"):
        ok = _with_intervals(out, ok, unit)
        cells = ok[ok["denoiser"] != "law"]
        if cells.empty:
            continue
        steps = int(cells["steps"].max())
        for key, group in cells.groupby(["start", "denoiser"]):
            last = group[group["steps"] == steps]
            if last[["sampler", "sampler_settings"]].drop_duplicates().shape[0] > 1:
                start, denoiser = cast(tuple[str, str], key)
                title = f"{start} start, {denoiser} score, {unit}={steps}"
                try:
                    sentence = ranking(group, steps=steps).sentence
                except InvalidSetting as error:  # two samplers that share too few repetitions
                    sentence = f"no ranking: {error}"
                out.print(f"{title}: {sentence}", markup=False)
        cut = list(by_floor(ok))
        for starts, rows in cut:
            if rows[rows["denoiser"] == "law"]["repetition"].nunique() < 2:
                continue
            known = metrics[str(metric)]
            found = resolution(
                rows, wanted, exponent=known.floor_exponent, squares_add=known.is_wasserstein
            )
            title = f"{metric}, {' and '.join(starts)} start" if len(cut) > 1 else f"{metric}"
            out.print(f"{title}: {found.sentence}", markup=False)


def _with_intervals(out: Console, ok: pd.DataFrame, unit: str) -> pd.DataFrame:
    """The rows without those of cells that have one value only, which are named."""
    counts = ok.groupby(CELL, dropna=False)["value"].transform("size")
    alone = ok[(counts < 2) & (ok["denoiser"] != "law")]
    for _, row in alone.iterrows():
        name = sampler_name(row["sampler"], row["sampler_settings"])
        out.print(
            f"{row['metric']}, {row['start']} start, {row['denoiser']} score, {name}, "
            f"{unit}={row['steps']}: one repetition gave a value, so nothing is claimed of it",
            markup=False,
        )
    return ok.drop(alone.index)


def print_score_errors(out: Console, errors: pd.DataFrame) -> None:
    """E‖s − s*‖² of each score, at each level where it was measured.

    Args:
        out: where to print.
        errors: of `evaluation.score_error.score_errors`.
    """
    for name, rows in errors.groupby("denoiser", sort=False):
        means = rows.groupby("sigma", sort=False)[["error", "size"]].mean()
        texts = [
            f"{line['error']:.2g} at σ={sigma:.3g} (E‖s*‖² {line['size']:.2g})"
            for sigma, line in means.iterrows()
        ]
        out.print(f"score error E‖s − s*‖², {name}: {', '.join(texts)}", markup=False)


def print_chains(out: Console, table: pd.DataFrame) -> None:
    """How well chains mix, a line for each cell whose chains could be examined.

    Args:
        out: where to print.
        table: rows of the results store, of `evaluation.chains.diagnose`.
    """
    ok = table[table["status"] == "ok"]
    for key, rows in ok.groupby(["start", "denoiser", "sampler", "sampler_settings", "steps"]):
        start, denoiser, sampler, settings, steps = cast(tuple[str, str, str, str, int], key)
        values = dict(zip(rows["metric"], rows["value"], strict=True))
        states = json.loads(rows["info"].iloc[0])["states"]
        out.print(
            f"chains, {start}, {denoiser}, {sampler_name(sampler, settings)}, N={steps}: "
            f"acceptance {values['acceptance']:.2f}, {states:,.0f} states are worth "
            f"{values['effective_sample_size']:.0f}, split R̂ {values['split_r_hat']:.3f}"
            + ("" if values["split_r_hat"] <= 1.01 else ": not mixed"),
            markup=False,
        )


_HYPHENATED = {
    "discretisation": "discreti-\nsation",
    "generalisation": "generali-\nsation",
    "optimisation": "optimi-\nsation",
    "finite data": "finite\ndata",
}


def print_budget(out: Console, lines: pd.DataFrame) -> None:
    """Two tables: a line for each sampler setting and number of steps, a column for each part.

    Args:
        out: where to print.
        lines: of `evaluation.budget.parts`.
    """
    titles = {
        "difference": "differences of distances, which add up to the total",
        "neighbours": "distances between neighbours, which see what the floor hides",
    }
    for metric, of_metric in lines.groupby("metric"):
        out.print(f"\nerror budget in {metric}; mean ± half of the 95 % interval")
        for kind, title in titles.items():
            of_kind = of_metric[of_metric["kind"] == kind]
            if of_kind.empty:
                continue
            out.print(f"{title}:")
            out.print(_budget_table(of_kind))


def _budget_table(lines: pd.DataFrame) -> Table:
    """The table of one kind of parts."""
    columns = [part for part in (*PARTS, "total") if part in set(lines["part"])]
    grid = Table(box=None, pad_edge=False)
    names = list(map(sampler_name, lines["sampler"], lines["sampler_settings"]))
    # rich takes from the columns that it may, where a terminal is narrow: not what names a line
    grid.add_column("sampler", no_wrap=True, min_width=max(map(len, names)))
    counts = [len(str(count)) for count in lines["steps"]]
    grid.add_column("N", justify="right", no_wrap=True, min_width=max(counts))
    for part in columns:
        grid.add_column(_HYPHENATED.get(part, part), justify="right", no_wrap=True)
    for key, group in lines.groupby(["sampler", "sampler_settings", "steps"]):
        sampler, settings, steps = cast(tuple[str, str, int], key)
        found = dict(zip(group["part"], map(_cell, group["mean"], group["upper"]), strict=True))
        texts = (found.get(part, "–") for part in columns)
        grid.add_row(sampler_name(sampler, settings), str(steps), *texts)
    return grid


def _cell(mean: float, upper: float) -> str:
    half = upper - mean
    if half != half:
        return _number(mean)
    return f"{_number(mean)}±{_number(half)}".replace("±0.", "±.")


def _number(value: float) -> str:
    """Two decimals, or two digits where those would all be zero (MMD, energy)."""
    return f"{value:.2f}" if abs(value) >= 0.05 or value == 0 else f"{value:.2g}"
