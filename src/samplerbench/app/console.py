"""What the job prints: its settings, the table of cells, and where everything is."""

from __future__ import annotations

import sys
from typing import cast

import pandas as pd
from rich.console import Console
from rich.table import Table

from samplerbench.evaluation.statistics import summary


def console() -> Console:
    """Standard output, never narrower than the table of the main job."""
    plain = Console(file=sys.stdout, highlight=False)
    return plain if plain.width >= 120 else Console(file=sys.stdout, width=120, highlight=False)


def print_cells(out: Console, table: pd.DataFrame) -> None:
    """One table a metric: a line for each start, denoiser and sampler setting, a column for each N.

    Args:
        out: where to print.
        table: rows of the results store.
    """
    for metric, rows in table.groupby("metric"):
        lines = summary(rows)
        floor = lines[lines["denoiser"] == "law"]
        cells = lines[lines["denoiser"] != "law"]
        first = rows.iloc[0]
        out.print(
            f"\n{metric} on {first['dataset']}: n = {first['n_samples']:,} samples against "
            f"{first['n_reference']:,} data points; mean ± half of the 95 % interval"
        )
        grid = Table(box=None, pad_edge=False)
        for name in ("start", "denoiser", "sampler"):
            grid.add_column(name, no_wrap=True)
        steps = sorted(set(cells["steps"]))
        for count in steps:
            grid.add_column(f"N={count}", justify="right", no_wrap=True)
        keys = ["start", "denoiser", "sampler", "eta"]
        ordered = cells.sort_values(keys, ascending=[False, True, True, True])
        for key, line in ordered.groupby(keys, dropna=False, sort=False):
            start, denoiser, sampler, eta = cast(tuple[str, str, str, float], key)
            texts = map(_cell, line["mean"], line["upper"])
            found = dict(zip(line["steps"], texts, strict=True))
            name = sampler if eta != eta else f"{sampler} η={eta:g}"
            grid.add_row(start, denoiser, name, *(found.get(count, "–") for count in steps))
        out.print(grid)
        if not floor.empty:
            only = floor.iloc[0]
            out.print(
                f"floor: {only['mean']:.2f} on average, sd {only['sd']:.2f} over "
                f"{only['count']} sets of {first['n_samples']:,} fresh draws of the law itself\n"
            )
    bad = table[table["status"] != "ok"]
    for (status, message), rows in bad.groupby(["status", "message"]):
        out.print(f"{len(rows)} {status}: {message}", style="bold red", markup=False)


def _cell(mean: float, upper: float) -> str:
    half = upper - mean
    return f"{mean:.2f}" if half != half else f"{mean:.2f}±{half:.2f}".replace("±0.", "±.")
