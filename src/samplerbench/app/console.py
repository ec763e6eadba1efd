"""What the job prints: its settings, the table of cells, and where everything is."""

from __future__ import annotations

import json
import sys
from typing import cast

import pandas as pd
from rich.console import Console
from rich.table import Table

from samplerbench.evaluation.budget import PARTS
from samplerbench.evaluation.ranking import ranking
from samplerbench.evaluation.statistics import resolution, sampler_name, summary


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
            draws = f"even draws, for {own['start']}" if own["start"] else "fresh draws"
            draws = f"{first['n_samples']:,} {draws} of the law itself"
            if own["count"] == 1:  # a finite data set may have no more than one
                text = f"{_number(own['mean'])} for one set of {draws}: its spread is not known"
            else:
                spread = f"sd {_number(own['sd'])} over {own['count']} sets"
                text = f"{_number(own['mean'])} on average, {spread} of {draws}"
            out.print(f"floor: {text}")
        out.print()
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


def print_claims(out: Console, table: pd.DataFrame, wanted: float, unit: str = "N") -> None:
    """What the numbers support: which sampler is best, and which cells are told from the data.

    Says nothing where there is one repetition, one sampler, or no floor: then nothing is supported.

    Args:
        out: where to print.
        table: rows of the results store: distances to the data or the law.
        wanted: a distance that one would like to find, in the units of the data.
        unit: what its steps are, as in `print_cells`.
    """
    for metric, ok in table[table["status"] == "ok"].groupby("metric"):
        cells = ok[ok["denoiser"] != "law"]
        if cells["repetition"].nunique() < 2:
            continue
        steps = int(cells["steps"].max())
        for key, group in cells.groupby(["start", "denoiser"]):
            last = group[group["steps"] == steps]
            if last[["sampler", "sampler_settings"]].drop_duplicates().shape[0] > 1:
                start, denoiser = cast(tuple[str, str], key)
                sentence = ranking(group, steps=steps).sentence
                out.print(
                    f"{start} start, {denoiser} score, {unit}={steps}: {sentence}", markup=False
                )
        if ok[ok["denoiser"] == "law"]["repetition"].nunique() > 1:
            out.print(f"{metric}: {resolution(ok, wanted).sentence}", markup=False)


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
    """How well chains mix, a line for each of `table`'s rows."""
    for _, line in table.iterrows():
        mixed = line["split_r_hat"] <= 1.01
        out.print(
            f"chains, {line['start']}, {line['denoiser']}, "
            f"{sampler_name(line['sampler'], line['settings'])}, N={line['steps']}: "
            f"acceptance {line['acceptance']:.2f}, {line['states']:,} states are worth "
            f"{line['effective_sample_size']:.0f}, split R̂ {line['split_r_hat']:.3f}"
            + ("" if mixed else ": not mixed"),
            markup=False,
        )


_HYPHENATED = {
    "discretisation": "discreti-\nsation",
    "generalisation": "generali-\nsation",
    "optimisation": "optimi-\nsation",
    "finite data": "finite\ndata",
}


def print_budget(out: Console, lines: pd.DataFrame) -> None:
    """A line for each sampler setting and number of steps, a column for each part.

    Args:
        out: where to print.
        lines: of `evaluation.budget.parts`.
    """
    for metric, of_metric in lines.groupby("metric"):
        out.print(
            f"\nerror budget in {metric}; mean ± half of the 95 % interval. Differences add up to "
            "the total; W are distances between neighbours, which see what the floor hides"
        )
        held = set(zip(of_metric["part"], of_metric["kind"], strict=True))
        columns = [(part, "difference") for part in (*PARTS, "total")]
        columns += [(part, "neighbours") for part in PARTS]
        columns = [column for column in columns if column in held]
        grid = Table(box=None, pad_edge=False)
        grid.add_column("sampler", no_wrap=True)
        grid.add_column("N", justify="right")
        for part, kind in columns:
            title = _HYPHENATED.get(part, part)
            title = title if kind == "difference" else f"W {title}"
            grid.add_column(title, justify="right", no_wrap=True)
        for key, group in of_metric.groupby(["sampler", "sampler_settings", "steps"]):
            sampler, settings, steps = cast(tuple[str, str, int], key)
            found = {
                (part, kind): _cell(mean, upper)
                for part, kind, mean, upper in zip(
                    *(group[name] for name in ("part", "kind", "mean", "upper")), strict=True
                )
            }
            name = sampler_name(sampler, settings)
            grid.add_row(name, str(steps), *(found.get(column, "–") for column in columns))
        out.print(grid)


def _cell(mean: float, upper: float) -> str:
    half = upper - mean
    if half != half:
        return _number(mean)
    return f"{_number(mean)}±{_number(half)}".replace("±0.", "±.")


def _number(value: float) -> str:
    """Two decimals, or two digits where those would all be zero (MMD, energy)."""
    return f"{value:.2f}" if abs(value) >= 0.05 or value == 0 else f"{value:.2g}"
