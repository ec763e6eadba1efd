"""The tables and conclusions that a job prints."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar, cast

import pandas as pd
from rich.console import Console
from rich.table import Table

from samplerbench.app.config.construct import read_member
from samplerbench.app.config.folders import member_files
from samplerbench.bench.budget.parts import PARTS
from samplerbench.bench.cell import CELL, NAMES, point_count, sampler_name, sampler_names
from samplerbench.bench.designing import Carried, Designed
from samplerbench.bench.ranking import Ranking, ranking
from samplerbench.bench.resolution import resolution
from samplerbench.bench.rounding import difference, distance, plain
from samplerbench.bench.statistics import (
    CHAINS,
    MIXED,
    by_floor,
    complete,
    r_hat_text,
    summary,
    unmixed,
)
from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.base import AnyMetric, OutputLawMetric

Key = TypeVar("Key")

#: The largest number of samplers that one line names.
_MOST_NAMES = 3
#: The end of names in `info` that are half-widths of intervals.
HALF = "_half_width"


def print_cells(
    out: Console,
    table: pd.DataFrame,
    unit: str = "N",
    known_law: bool = True,
    metrics: Mapping[str, AnyMetric] | None = None,
    exact: Collection[str] = (),
) -> None:
    """Print a table for each metric: a line for each curve, a column for each number of steps.

    Args:
        unit: N or NFE, the meaning of a column's number.
        known_law: whether the law of the data is known.
        metrics: the metrics by name; their kind determines the words in the title.
        exact: the names of metrics whose values have no sampling error.
    """
    law = "the law itself" if known_law else "the law that the data represent"
    source = "the law itself" if known_law else "the data set itself"
    for metric, rows in table.groupby("metric"):
        lines = summary(rows)
        floor = lines[lines["denoiser"] == "law"]
        cells = lines[lines["denoiser"] != "law"]
        first = rows.iloc[0]
        data = f"{first['n_reference']:,} data points"
        against = law if first["reference"] == "law" else data
        title = metric_name(str(metric), first["metric_settings"])
        caption = f"n = {first['n_samples']:,} samples against {against}; "
        caption += "mean ± half of the 95 % interval"
        used = (metrics or {}).get(str(metric))
        if isinstance(used, OutputLawMetric):
            points = point_count(first["n_samples"])
            how = f"at {points:,} points; value ± half of the 95 % interval"
            how = "exact" if metric in exact else how
            caption = f"the law of the output against that of the data, {how}"
            if used.needs == "paths":
                caption = f"an upper bound of the divergence of the law of the output, {how}"
            if used.needs == "converged":
                caption = "root mean square distance to the converged run from the same starts, "
                caption += f"in sds of the data, {how}"
            if used.needs == "log_z":
                caption = f"ln of the estimate − ln Z by n = {first['n_samples']:,} samples; "
                caption += "value ± half of the 95 % interval"
        if "final" in cells and set(cells["final"]) == {"none"}:
            caption += "; final=none"
        out.print(f"\n{title} on {first['dataset']}: {caption}")
        if not cells.empty:
            _print_means(out, cells, unit)
        print_info(out, rows[rows["denoiser"] != "law"], unit)
        for _, own in floor.iterrows():
            kind = "even" if own["start"] else "fresh"
            draws = f"{first['n_samples']:,} {kind} draws of {source}"
            draws += f" (for {own['start']})" if own["start"] else ""
            if own["count"] == 1:  # a finite data set may have only one
                text = f"{plain(own['mean'])} for one set of {draws}: its spread is not known"
            else:
                spread = f"sd {plain(own['sd'], 2)} over {own['count']} sets"
                text = f"{plain(own['mean'])} on average, {spread} of {draws}"
            out.print(f"floor: {text}")
        out.print()


def metric_name(metric: str, settings: str) -> str:
    """A metric with the settings that differ from conf/metric/."""
    path = member_files("metric").get(metric)
    usual = read_member(path) if path else {}
    own = json.loads(settings) if settings else {}
    other = [
        f"{key}={json.dumps(value)}"
        for key, value in own.items()
        if key not in ("class", "function") and not (key in usual and usual[key] == value)
    ]
    return f"{metric} ({', '.join(other)})" if other else metric


def _print_means(out: Console, cells: pd.DataFrame, unit: str) -> None:
    keys = ["start", "denoiser", "sampler", "eta", "sampler_settings"]
    ordered = cells.sort_values(keys, ascending=[False, True, True, True, True])
    fewer = unit == "NFE" and bool((cells["nfe"] != cells["steps"]).any())
    lines, metric = [], str(cells["metric"].iloc[0])
    for key, line in ordered.groupby(keys, dropna=False, sort=False):
        start, denoiser, sampler, _, settings = cast(tuple[str, str, str, float, str], key)
        found = {
            count: distance(mean, upper - mean, metric)
            + _evaluations(unit, count, nfe, rounds)
            + f" ({lost} of {lost + ok} lost)" * (lost > 0)
            for count, mean, upper, nfe, rounds, ok, lost in zip(
                *(
                    line[name]
                    for name in ("steps", "mean", "upper", "nfe", "rounds", "count", "lost")
                ),
                strict=True,
            )
        }
        lines.append(((start, denoiser, sampler_name(sampler, settings)), found))
    columns = {count: _bound(unit, count) for count in sorted(set(cells["steps"]))}
    _print_grid(out, ("start", "denoiser", "sampler"), lines, columns)
    if fewer:
        out.print(
            "(in brackets: the number of evaluations, if it is below the bound; one more step "
            "would exceed the bound)"
        )
    if (cells["lost"] > 0).any():
        out.print("(lost: repetitions without a value; the number is the mean of the others)")
    if (cells["rounds"] != cells["nfe"]).any():
        out.print("(20 in 5: 20 evaluations, in 5 sequential rounds of parallel ones)")


def _evaluations(unit: str, count: int, nfe: int, rounds: int) -> str:
    """The evaluations of a cell in brackets, if they differ from the title of its column."""
    if rounds != nfe:
        return f" ({nfe} in {rounds})"
    return f" ({nfe})" if unit == "NFE" and nfe != count else ""


def _print_grid(
    out: Console,
    names: Sequence[str],
    lines: Sequence[tuple[tuple[str, ...], Mapping[Key, str]]],
    columns: Mapping[Key, str],
) -> None:
    """Print a table; divide it into several if it is too wide.

    If one column of values is too wide, the last names are folded: no number is cut.
    """
    own = zip(names, *(texts for texts, _ in lines), strict=True)
    taken = sum(max(map(len, texts)) + 2 for texts in own)
    tables: list[list[Key]] = [[]]
    width = taken
    for key, title in columns.items():
        texts = [title, *(found.get(key, "–") for _, found in lines)]
        wide = max(map(len, texts)) + 2
        if tables[-1] and width + wide > out.width:
            tables.append([])
            width = taken
        tables[-1].append(key)
        width += wide
    for keys in tables:
        grid = Table(box=None, pad_edge=False)
        for name in names:
            grid.add_column(name, no_wrap=name != names[-1])
        for key in keys:
            grid.add_column(columns[key], justify="right", no_wrap=True)
        for labels, found in lines:
            grid.add_row(*labels, *(found.get(key, "–") for key in keys))
        out.print(grid)


def print_paired(out: Console, rows: pd.DataFrame, converged_steps: int, unit: str) -> None:
    """Print distances of runs to their converged run; these distances have no floor."""
    for metric, own in rows[rows["status"] == "ok"].groupby("metric"):
        first = own.iloc[0]
        out.print(
            f"{metric} to the same run with {converged_steps} steps, from the same start and "
            f"noise: n = {first['n_samples']:,} samples, one repetition"
        )
        _print_means(out, summary(own), unit)
        out.print()


def print_beyond(out: Console, cells: pd.DataFrame) -> None:
    """Print the cells that need more evaluations than every bound, for samplers at equal cost."""
    for line in cells.to_dict("records"):
        name = sampler_name(line["sampler"], line["sampler_settings"])
        out.print(
            f"above every bound: {line['metric']}, {line['start']} start, {line['denoiser']} "
            f"score, {name}, {line['steps']} levels: {line['nfe']} evaluations, "
            f"{distance(line['mean'], line['upper'] - line['mean'])}"
        )


def _bound(unit: str, count: int | str) -> str:
    """A number of steps, N=8, or a bound on the evaluations, NFE ≤ 8."""
    return f"{unit} ≤ {count}" if unit == "NFE" else f"{unit}={count}"


def print_failures(out: Console, table: pd.DataFrame) -> None:
    """Print a line for each kind of reason why rows have no value, with the samplers."""
    bad = table[table["status"] != "ok"]
    # messages that differ only in the number at their beginning are of one kind
    parts = bad["message"].str.extract(r"^(?P<count>\d+)?(?P<kind>.*)$", flags=re.DOTALL)
    for (status, kind), rows in bad.groupby(["status", parts["kind"]]):
        counts = parts.loc[rows.index, "count"].dropna().astype(int)
        span = "–".join(f"{n}" for n in sorted({counts.min(), counts.max()})) if len(counts) else ""
        names = sampler_names(rows).unique()
        samplers = ", ".join(filter(None, names[:_MOST_NAMES]))
        samplers += f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        text = f"{len(rows)} {status}: {samplers}{': ' * bool(samplers)}{span}{kind}"
        out.print(text, style="bold red")


def print_info(out: Console, rows: pd.DataFrame, unit: str = "N") -> None:
    """Print the further results of a metric at each number of steps.

    Tests of single repetitions, such as χ² of `mode_weights`, are left out: they have another null
    hypothesis and another power than the verdicts over all repetitions.
    """
    rows = rows[rows["info"].fillna("") != ""]
    keys = ["start", "denoiser", "sampler", "sampler_settings"]
    for key, group in rows.groupby(keys):
        start, denoiser, sampler, settings = cast(tuple[str, str, str, str], key)
        infos = pd.DataFrame(map(json.loads, group["info"]))
        if "p_value" in infos:
            continue
        of_steps = infos.groupby(group["steps"].to_numpy())
        means, counts = of_steps.mean(), of_steps.size()
        texts = []
        for name in means.columns:
            if name.removesuffix(HALF) in means.columns and name.endswith(HALF):
                continue
            halves = means.get(name + HALF, pd.Series(math.nan, means.index)) / counts**0.5
            pairs = zip(means[name], halves, strict=True)
            texts.append(f"{name} {', '.join(difference(*pair) for pair in pairs)}")
        at = _bound(unit, ", ".join(map(str, means.index)))
        title = f"{start}, {denoiser}, {sampler_name(sampler, settings)}, {at}"
        out.print(f"{title}: {'; '.join(texts)}")


def print_claims(
    out: Console,
    table: pd.DataFrame,
    wanted: float,
    metrics: Mapping[str, AnyMetric],
    unit: str = "N",
    chains: pd.DataFrame | None = None,
    data: Dataset | None = None,
) -> None:
    """Print which sampler is best, and which cells differ from the data.

    With one repetition or without a floor, print what is missing. A cell with too few values is
    listed and left out. Samplers are not ranked if their `chains` (rows of `bench.chains.diagnose`)
    have not mixed, and these are not called near the data. Cells with lost repetitions have no rank
    and no verdict. Advice never asks for more points than `data` has.
    """
    not_mixed = {} if chains is None else unmixed(chains)
    counts = table.groupby("metric")["repetition"].nunique()
    # metrics of output laws have their own intervals in the tables, even with one repetition
    once = [n for n, m in metrics.items() if isinstance(m, OutputLawMetric) and counts.get(n) == 1]
    table = table[~table["metric"].isin(once)]
    sampled = table[table["denoiser"] != "law"]
    if sampled.empty:
        return
    if sampled["repetition"].nunique() < 2:
        out.print("one repetition: no interval and no ranking; repetitions=8 gives both")
        return
    of_samples = [m for m in metrics.values() if not isinstance(m, OutputLawMetric)]
    if of_samples and not (table["denoiser"] == "law").any():
        out.print("no floor: the distance of a perfect sampler at this n is not known")
    for key, group in sampled[sampled["status"] == "ok"].groupby(["start", "denoiser"]):
        start, denoiser = cast(tuple[str, str], key)
        there = dict.fromkeys(map(tuple, group[CHAINS].itertuples(index=False)))
        stuck = [
            (sampler_name(*chain[2:]), not_mixed[chain]) for chain in there if chain in not_mixed
        ]
        names = ", ".join(f"{name} ({why})" for name, why in stuck)
        if names:
            text = "not ranked, since their chains have not mixed"
            out.print(f"{start} start, {denoiser} score: {text}: {names}")
    for metric, rows in table.groupby("metric"):
        rows = _with_intervals(out, rows, unit)
        ok = rows[rows["status"] == "ok"]
        cells = rows[rows["denoiser"] != "law"]
        if (ok["denoiser"] == "law").all():
            continue
        steps = int(ok["steps"].max())
        ranked = metrics[str(metric)].smaller_is_better
        if not ranked:
            text = f"{metric}: no ranking, since a smaller value is not better"
            text += ": see its floor" if len(cells) < len(rows) else ""
            out.print(text)
        for key, group in cells.groupby(["start", "denoiser"]) if ranked else ():
            group = group[~pd.MultiIndex.from_frame(group[CHAINS]).isin(list(not_mixed))]
            last = group[group["steps"] == steps]
            if last[["sampler", "sampler_settings"]].drop_duplicates().shape[0] > 1:
                start, denoiser = cast(tuple[str, str], key)
                at = _bound(unit, steps)
                try:
                    found = ranking(group, steps=steps)
                    at, sentence = _compared_at(unit, steps, found), found.sentence
                except InvalidSetting as error:  # two samplers that share too few repetitions
                    sentence = f"no ranking: {error}"
                where = f"{metric}, {start} start, {denoiser} score, {at}"
                out.print(f"{where}: {sentence}")
        # at equal cost one run may appear at several bounds
        cut = list(by_floor(rows.drop_duplicates(["cell_id", *NAMES])))
        for starts, own in cut:
            law = own["denoiser"] == "law"
            if own[law]["repetition"].nunique() < 2 or complete(own[~law]).empty:
                continue
            known = metrics[str(metric)]
            power = resolution(
                own,
                wanted,
                exponent=known.floor_exponent,
                squares_add=known.is_wasserstein,
                most_reference=None if data is None else data.most_draws("evaluation"),
                most_floors=None if data is None else data.floor_sets(_n(own)),
                not_mixed=list(not_mixed),
            )
            title = f"{metric}, {' and '.join(starts)} start" if len(cut) > 1 else f"{metric}"
            out.print(f"{title}: {power.sentence}")


def _n(rows: pd.DataFrame) -> int:
    return int(rows["n_samples"].iloc[0])


def _compared_at(unit: str, count: int, found: Ranking) -> str:
    """The cost at which samplers are compared, and the evaluations of each."""
    evaluations = dict(zip(found.order["name"], found.order["nfe"], strict=True))
    other = [f"{name} {nfe}" for name, nfe in evaluations.items() if nfe != count]
    if unit != "NFE" or not other:
        return f"{unit}={count}"
    return f"at most {count} evaluations ({', '.join(other)})"


def _with_intervals(out: Console, rows: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Leave out cells with a single value, and print them."""
    ok = rows[rows["status"] == "ok"]
    counts = ok.groupby(CELL, dropna=False)["value"].transform("size")
    alone = ok[(counts < 2) & (ok["denoiser"] != "law")]
    for _, row in alone.iterrows():
        name = sampler_name(row["sampler"], row["sampler_settings"])
        out.print(
            f"{row['metric']}, {row['start']} start, {row['denoiser']} score, {name}, "
            f"{_bound(unit, row['steps'])}: left out, because only one repetition has a value"
        )
    return rows.drop(alone.index)


def print_score_errors(out: Console, errors: pd.DataFrame) -> None:
    """Print E‖s − s*‖² of each score and level."""
    for name, rows in errors.groupby("denoiser", sort=False):
        by = rows.groupby("noise_to_signal", sort=False)
        means = by[["error", "size", "moving"]].mean()
        texts = []
        for ratio, line in means.iterrows():
            moving = "" if math.isnan(line["moving"]) else f", {line['moving']:.2g} move the law"
            texts.append(
                f"{line['error']:.2g} at σ/α={ratio:.3g} (E‖s*‖² {line['size']:.2g}{moving})"
            )
        out.print(f"score error E‖s − s*‖², {name}: {', '.join(texts)}")


def print_designs(designs: Sequence[Designed], out: Console) -> None:
    """Print for each design the best standard grid, the designed grid, the gain and the levels."""
    if not designs:
        return
    first = designs[0]
    by = {"sd": "root mean square distance to the converged run, in units of the data's sd"}
    what = by.get(first.unit, f"{first.criterion}, in {first.unit}")
    held = "exact" if first.lower == first.upper else "on held-out starts"
    out.print(f"designed grids, {first.denoiser}, {first.start}: {what}, {held}")
    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", overflow="fold")
    for column in ("N", "NFE", "standard", "value", "designed", "times better", "tried"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("result", overflow="fold")
    for one in designs:
        table.add_row(
            sampler_name(one.sampler, one.settings),
            *(f"{one.steps}", f"{one.nfe}", one.standard),
            *(plain(one.standard_value), plain(one.designed_value)),
            gain_text(one.gain, one.lower, one.upper),
            f"{one.candidates} grids",
            one.verdict,
        )
    out.print(table)
    for one in designs:
        levels = ", ".join(f"{ratio:.4g}" for ratio in one.ratios)
        out.print(f"σ/α, {one.name}, {one.grid}: {levels}", soft_wrap=True)
    spent = sum(one.evaluations for one in designs)
    out.print(f"cost: {spent:,} evaluations of the {first.denoiser} denoiser, one state each")


def print_carried(lines: Sequence[Carried], out: Console) -> None:
    """Print whether each design also helps on data and samplers that it was not designed for."""
    if not lines:
        return
    out.print("the designs elsewhere: each design that is better, on what it was not designed for")
    table = Table(box=None, pad_edge=False)
    table.add_column("designed for", overflow="fold")
    table.add_column("run with", overflow="fold")
    for column in ("standard", "value", "designed", "unit", "times better"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("the design is", overflow="fold")
    for one in lines:
        table.add_row(
            *(one.design, one.to, one.standard),
            *(plain(one.standard_value), plain(one.designed_value), one.unit),
            gain_text(one.gain, one.lower, one.upper),
            one.verdict,
        )
    out.print(table)


def gain_text(gain: float, lower: float, upper: float) -> str:
    """A ratio of values with its interval."""
    if lower == upper:
        return f"{plain(gain)}"
    return f"{plain(gain)} ({plain(lower)} to {plain(upper)})"


def print_chains(out: Console, table: pd.DataFrame) -> None:
    """Print the diagnostics of chains, a line for each cell whose chains could be examined."""
    ok = table[table["status"] == "ok"]
    for key, rows in ok.groupby(["start", "denoiser", "sampler", "sampler_settings", "steps"]):
        start, denoiser, sampler, settings, steps = cast(tuple[str, str, str, str, int], key)
        values = dict(zip(rows["metric"], rows["value"], strict=True))
        states = json.loads(rows["info"].iloc[0])["states"]
        acceptance = f"acceptance {values['acceptance']:.2f}, " if "acceptance" in values else ""
        out.print(
            f"chains, {start}, {denoiser}, {sampler_name(sampler, settings)}, N={steps} "
            f"({rows['nfe'].iloc[0]:,} evaluations): {acceptance}ESS "
            f"{values['effective_sample_size']:.0f} of {states:,.0f} states, "
            f"split R̂ {r_hat_text(values['split_r_hat'])}"
            + ("" if values["split_r_hat"] <= MIXED else " (not mixed)")
            + _errors_text(values)
            + _cost_text(values)
        )


def _errors_text(values: Mapping[str, float]) -> str:
    """The errors of the chains against the known law; empty if it is not known."""
    missing = values.get("mass_not_reached", 0.0)
    if missing > 0:
        return f", and {plain(missing)} of the mass is in modes no chain reached"
    if "mass_misplaced" in values:
        return f", all modes reached, {plain(values['mass_misplaced'])} of the mass misplaced"
    if "mean_error" in values:
        return (
            f", error of the mean {plain(values['mean_error'])} sd of the law, "
            f"of the sd {100 * values['sd_error']:.0f} %"
        )
    return ""


def _cost_text(values: Mapping[str, float]) -> str:
    """The evaluations until the second moments are right; empty without known moments."""
    needed = values.get("evaluations_to_moments")
    if needed is None:
        return ""
    if math.isnan(needed):
        return "; its second moments are not right (b² < .01) within one chain"
    return f"; second moments right (b² < .01) after {needed:,.0f} evaluations of one chain"


def print_budget(out: Console, lines: pd.DataFrame) -> None:
    """Print two tables: a line for each sampler and number of steps, a column for each part."""
    titles = {
        "difference": "differences of distances, which add up to the total",
        "neighbours": "distances between neighbours, which also show errors below the floor",
    }
    for metric, of_metric in lines.groupby("metric"):
        out.print(f"\nerror budget in {metric}; mean ± half of the 95 % interval")
        for kind, title in titles.items():
            of_kind = of_metric[of_metric["kind"] == kind]
            if of_kind.empty:
                continue
            out.print(f"{title}:")
            _print_parts(out, of_kind)


def _print_parts(out: Console, lines: pd.DataFrame) -> None:
    columns = {part: part for part in (*PARTS, "total") if part in set(lines["part"])}
    rows = []
    for key, group in lines.groupby(["sampler", "sampler_settings", "steps"]):
        sampler, settings, steps = cast(tuple[str, str, int], key)
        texts = {}
        for part, kind, mean, upper in zip(
            *(group[name] for name in ("part", "kind", "mean", "upper")), strict=True
        ):
            signed = kind == "difference" and part not in ("floor", "total")
            texts[part] = (difference if signed else distance)(mean, upper - mean)
        rows.append(((sampler_name(sampler, settings), str(steps)), texts))
    _print_grid(out, ("sampler", "N"), rows, columns)
