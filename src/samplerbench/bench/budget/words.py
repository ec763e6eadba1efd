"""An error budget in words: what dominates each sampler's distance, and what would help."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pandas as pd
import torch

from samplerbench.bench.budget.mismatch import Mismatch, enough_noise, mismatch
from samplerbench.bench.budget.parts import CONVERGED, KEY, NOT, PARTS, convergence, parts
from samplerbench.bench.budget.run import NEIGHBOURS, ODE, Budget
from samplerbench.bench.cell import sampler_name
from samplerbench.bench.rounding import difference, distance, plain, sum_of
from samplerbench.bench.statistics import floor_p_values, holm, lost_repetitions, welch
from samplerbench.bench.store import LIMIT
from samplerbench.bench.sweep import Sweep
from samplerbench.core.fitted_grids import settings_of
from samplerbench.core.starts import FixedGaussian, Sobol, plain_start
from samplerbench.metrics.base import Divergence


def verdict(budget: Budget, table: pd.DataFrame) -> list[str]:
    """What dominates each sampler's distance, and what would help.

    The first lines say if the path does not fit the data. In that case the path is named as the
    cause of a cell's parts, instead of the network or the amount of data.
    """
    found = parts(table, budget.converged_steps)
    moved = convergence(table, budget.converged_steps, budget.tolerance)
    cells = table[~table["sampler"].str.endswith(LIMIT) & (table["denoiser"] != "law")]
    unfit = mismatch(budget.sweep)
    above = _above_the_floor(budget, table)
    lines = unfit.lines
    without: dict[tuple[str, str], list[str]] = {}  # samplers by metric with N, and reason
    for key, group in cells.groupby(KEY):
        own = found[(found[KEY] == pd.Series(key, KEY)).all(axis=1)]
        metric, name = str(key[0]), sampler_name(*map(str, key[1:]))
        reason = _why_none(budget, table, group, own)
        if reason is None:
            lines += _words(budget, table, group, own, moved, unfit)
        else:
            steps = int(group["steps"].max())
            without.setdefault((f"N={steps}: {reason}", metric), []).append(name)
    for (reason, metric), names in without.items():
        lines.append(f"{metric}, {', '.join(names)}, {reason}")
    for _, line in moved.iterrows():
        at = pd.Series(line[KEY], KEY)
        of_limit = table[table["sampler"].str.endswith(LIMIT) & (table[KEY] == at).all(axis=1)]
        lines.append(_words_of_limit(budget, line, _lost(of_limit)))
    lines += above
    if "learned" in budget.sweep.denoisers:
        lines.append(
            "one training: the interval of the network's part is only over samples; "
            "use -m train_seed=0,1,2 for an interval over trainings"
        )
    return lines


def _why_none(
    budget: Budget, table: pd.DataFrame, cells: pd.DataFrame, found: pd.DataFrame
) -> str | None:
    """Why a sampler with its settings has no budget at its most steps; None if it has one."""
    metric, sampler, settings = (str(cells[name].iloc[0]) for name in KEY)
    limit = _limit_of(budget, table, metric, sampler, settings)
    if not (limit["status"] == "ok").any():
        why = "; ".join(dict.fromkeys(limit["message"])) or "it was not run"
        impossible = len(limit) > 0 and (limit["status"] == "incompatible").all()
        return f"no budget: {why}" if impossible else f"no budget: its limit failed: {why}"
    most = found[(found["steps"] == cells["steps"].max()) & (found["kind"] == "difference")]
    if {"total", "floor"} <= set(most["part"]):
        return None
    why = "; ".join(dict.fromkeys(filter(None, cells["message"]))) or "they did not finish"
    return f"no budget: its cells have no value: {why}"


def _words(
    budget: Budget,
    table: pd.DataFrame,
    cells: pd.DataFrame,
    found: pd.DataFrame,
    moved: pd.DataFrame,
    unfit: Mismatch,
) -> list[str]:
    """The lines of one sampler with its settings, which has a budget."""
    metric, sampler, settings = (str(cells[name].iloc[0]) for name in KEY)
    most = int(cells["steps"].max())
    last = found[found["steps"] == most]
    means = last[last["kind"] == "difference"].set_index("part")
    title = f"{metric}, {sampler_name(sampler, settings)}, N={most}"
    limit = _limit_of(budget, table, metric, sampler, settings)
    names = [part for part in PARTS[1:] if part in means.index]
    if isinstance(budget.sweep.metrics[metric], Divergence) and "start" in names:
        # its path begins with the start; see `run`
        names.insert(names.index("discretisation"), names.pop(names.index("start")))
    parts_of = [float(means["mean"][part]) for part in ("floor", *names)]
    numbers = sum_of(float(means["mean"]["total"]), parts_of)
    terms = " ".join(
        f"{'' if number.startswith('-') else '+'}{number} {part}"
        for number, part in zip(numbers[2:], names, strict=True)
    )
    lines = [f"{title}: {numbers[0]} = {numbers[1]} floor {terms}"]
    if not budget.sweep.metrics[metric].smaller_is_better:
        lines.append("  no advice: a smaller value of this metric is not better")
    else:
        # the parts of a cell are means over the repetitions that have all of them
        lost = {steps: _lost(cells[cells["steps"] == steps]) for steps in set(cells["steps"])}
        lost = {steps: lost[steps] or _lost(limit) for steps in sorted(lost)}
        whole = found[~found["steps"].isin([steps for steps, why in lost.items() if why])]
        if not whole.empty:
            lines += _largest_parts(budget, metric, whole, unfit)
        lines += [
            f"  N={steps}: no verdict: repetitions are lost ({why}), and the parts are means over "
            "the others"
            for steps, why in lost.items()
            if why
        ]
    lines += _between(budget, found[found["steps"] == most], most)
    neighbours = (found["kind"] == "neighbours") & (found["part"] == "discretisation")
    falls = found[neighbours].set_index("steps")["mean"].sort_index()
    if most in falls.index:
        paired = "paired" if budget.paired(sampler, settings) else "not paired: fresh noise"
        text = f"  discretisation ({paired}): {plain(falls[most], 2)} at N={most}{_slope(falls)}"
        own = moved["sampler"].isin(limit["sampler"]) & (moved["metric"] == metric)
        own &= moved["sampler_settings"].isin(limit["sampler_settings"])
        apart = float(moved.loc[own, "apart"].max())
        if paired == "paired" and falls[most] <= apart:
            text += (
                f"; not resolved: doubling its limit's steps moves the samples by {plain(apart, 2)}"
            )
        lines.append(text)
    return lines


def _lost(rows: pd.DataFrame) -> str:
    """The lost repetitions of cells in words; empty if there are none."""
    return "; ".join(lost_repetitions(rows)["why"].unique())


def _largest_parts(budget: Budget, metric: str, found: pd.DataFrame, unfit: Mismatch) -> list[str]:
    """The dominant part at the most steps, and the numbers of steps where another one dominates."""
    sentences: dict[int, str] = {}
    differences = found[found["kind"] == "difference"]
    for steps, lines in differences.groupby("steps"):
        of_cell = lines.set_index("part")
        if {"total", "floor"} <= set(of_cell.index):
            sentences[cast(int, steps)] = _dominates(budget, metric, of_cell, unfit)
    most = max(sentences)
    different: dict[str, list[int]] = {}
    for steps, sentence in sentences.items():
        if sentence != sentences[most]:
            different.setdefault(sentence, []).append(steps)
    same = "; the same at every N" if len(sentences) > 1 and not different else ""
    return [f"  {sentences[most]}{same}"] + [
        f"  N={', '.join(map(str, at))}: {sentence}" for sentence, at in different.items()
    ]


def _dominates(budget: Budget, metric: str, means: pd.DataFrame, unfit: Mismatch) -> str:
    """The part that is at least half of a cell's distance, and what would lower it."""
    total, floor = float(means["mean"]["total"]), float(means["mean"]["floor"])
    # a part with a large mean may have an interval that contains zero
    certain = [
        part for part in PARTS[1:] if part in means.index and float(means["lower"][part]) > 0
    ]
    worst = max(certain, key=lambda part: float(means["mean"][part]), default=None)
    share = float(means["mean"][worst]) / total if worst is not None and total > 0 else 0.0
    if unfit.unseen and worst in ("finite data", "optimisation", "score") and share >= 0.5:
        return (
            f"start dominates, as {worst}: the prior is far from the states that the network was "
            "trained on; centre the data, or raise the path's noise"
        )
    in_distances = budget.sweep.metrics[metric].is_wasserstein
    if worst != "start" and unfit.end and (unfit.lost >= 0.5 * total or not in_distances):
        return "grid dominates: its last level has too much noise for data of this scale; see above"
    if worst is None:
        return "no part is significantly above zero at this n and number of repetitions"
    advice = _advice(budget, worst, metric, floor)
    if unfit.unseen and worst == "start":
        advice = f"the data's mean is far from the prior's: centre them; else {advice}"
    if share >= 0.5:
        return f"{worst} dominates: {advice}"
    return (
        f"nothing dominates: the largest part above the floor is {worst}, {100 * share:.0f} % of "
        f"the total: {advice}"
    )


def _between(budget: Budget, lines: pd.DataFrame, steps: int) -> list[str]:
    """The distances between neighbours at the largest number of steps, and what the floor hides."""
    neighbours = lines[lines["kind"] == "neighbours"].set_index("part")
    parts_of = [part for part in NEIGHBOURS if part in neighbours.index]
    if not parts_of:
        return []
    texts = []
    for part in parts_of:
        mean, upper = (float(neighbours[name][part]) for name in ("mean", "upper"))
        texts.append(f"{part} {distance(mean, upper - mean)}")
    lower = lines[lines["kind"] == "difference"].set_index("part")["lower"]
    hidden = [part for part in parts_of if part in lower.index and not lower[part] > 0]
    text = f"  between neighbours, N={steps}: {', '.join(texts)}"
    *first, last = hidden or [""]
    names = f"{', '.join(first)} and {last}" if first else last
    return [f"{text}; the floor hides {names}" if hidden else text]


def _limit_of(
    budget: Budget, table: pd.DataFrame, metric: str, sampler: str, settings: str
) -> pd.DataFrame:
    """The rows of d(C∞) of a sampler with its settings: of its own limit, or of the shared one."""
    rows = table[(table["metric"] == metric) & table["reference"].isin(["data", "law"])]
    rows = rows[rows["steps"] == 2 * budget.converged_steps]
    own = (table["sampler"] == f"{sampler}{LIMIT}") & (table["sampler_settings"] == settings)
    return rows[own[rows.index] if own.any() else rows["sampler"] == ODE]


#: If the largest N is below this, the slope may differ from the one at large N.
_ASYMPTOTIC = 32


def _slope(falls: pd.Series) -> str:
    """How a paired discretisation falls with N, in words; empty for a single N."""
    if len(falls) < 2 or not (falls > 0).all():
        return ""
    x, y = np.log(falls.index.to_numpy(float)), np.log(falls.to_numpy(float))
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    rest = y - slope * x
    error = math.sqrt(rest @ rest / (len(falls) - 2) / (x @ x)) if len(falls) > 2 else math.nan
    text = f"N^{slope:.2f}" + (f" ± {error:.2f}" if len(falls) > 2 else "")
    if slope >= 0:
        return f", does not fall: {text}"
    early = int(falls.index[-1]) < _ASYMPTOTIC
    return f", falls like {text}" + (f" (pre-asymptotic: N ends at {falls.index[-1]})" * early)


def _words_of_limit(budget: Budget, line: pd.Series, lost: str) -> str:
    """Whether a limit has converged, in words; `lost` describes its lost repetitions."""
    steps = budget.converged_steps
    tolerance = (
        f"the tolerance {plain(line['allowed'], 2)}, {100 * budget.tolerance:g} % of {line['of']}"
    )
    name = sampler_name(line["sampler"], line["sampler_settings"])
    state = f"no verdict ({lost})" if lost else line["state"]
    text = (
        f"{state}, {line['metric']}, {name}: {steps} → {2 * steps} steps move the "
        f"distance by {difference(line['moved'], line['half'], signed=True)}"
    )
    if not math.isnan(line["apart"]):
        text += f" and the samples by W = {distance(line['apart'], line['apart_half'])}"
        if not budget.paired(line["sampler"], line["sampler_settings"]):
            text += " (not paired: fresh noise)"
        elif line["apart"] > line["allowed"]:
            text += " (a paired discretisation below that is not resolved)"
    if lost:
        return text
    if line["state"] == CONVERGED:
        return f"{text}: within {tolerance}"
    if line["state"] == NOT:
        return f"{text}: more than {tolerance}; raise budget.converged_steps"
    return f"{text}: too uncertain for {tolerance}; raise repetitions"


def _above_the_floor(budget: Budget, table: pd.DataFrame) -> list[str]:
    """Limits whose distance differs from that of fresh draws, by the test against the floor.

    Data without a known law are left out: their limit is the training set, and its difference from
    held-out draws is the part generalisation.
    """
    sweep = budget.sweep
    if not sweep.dataset.known_law:
        return []
    even = isinstance(sweep.starts[budget.exact], Sobol)
    ok = table[(table["status"] == "ok") & table["reference"].isin(["data", "law"])]
    floors = ok[(ok["denoiser"] == "law") & (ok["start"] == (budget.exact if even else ""))]
    steps = 2 * budget.converged_steps + (sweep.final == "none")  # of those that end at x̂₀
    limits = ok[ok["sampler"].str.endswith(LIMIT) & (ok["steps"] == steps)]
    lines = []
    for metric, of_metric in limits.groupby("metric"):
        floor = floors.loc[floors["metric"] == metric, "value"].to_numpy(float)
        groups = [
            (sampler_name(*cast(tuple[str, str], key)), group["value"].to_numpy(float))
            for key, group in of_metric.groupby(["sampler", "sampler_settings"])
            if len(group) > 1 and len(floor) > 1
        ]
        p_values = holm(floor_p_values([(values, floor) for _, values in groups]))
        for (name, values), p_value in zip(groups, p_values, strict=True):
            if p_value > 0.05:
                continue
            gap = welch(values, floor)
            side = "above" if gap.mean > 0 else "below"
            draws = "even" if even else "fresh"
            text = (
                f"{metric}, {name}: the limit itself is {difference(abs(gap.mean), gap.half)} "
                f"{side} the floor of {draws} draws ({plain(floor.mean())})"
            )
            if gap.mean > 0:
                text += f": {_possible_causes(budget, even and name != ODE)}"
            lines.append(text)
    return lines


def _possible_causes(budget: Budget, fresh_noise: bool) -> str:
    """Why a limit may differ from the law of the data."""
    level = budget.sweep.levels(2 * budget.converged_steps, final="denoise").rows[-2]
    ratio = level.sigma / level.alpha if level.alpha > 0 else math.inf
    causes = f"the last step from σ/α={ratio:.3g} to the data, or the path's own noise"
    return f"{causes}, or fresh noise that is not even" if fresh_noise else causes


def _advice(budget: Budget, part: str, metric: str, floor: float) -> str:
    sweep = budget.sweep
    if part == "discretisation":
        return "take more steps, or a sampler of higher order"
    if part == "truncation":
        return "use final=denoise, or end the grid at less noise"
    if part in ("finite data", "generalisation"):
        return "take more training data"
    if part in ("score", "optimisation"):
        if "learned" not in sweep.denoisers:
            return "it is the effect of the changed score"
        return "train longer, or a larger network" + (", or on more data" * (part == "score"))
    start = plain_start(sweep.starts[cast(str, budget.prior)])
    if isinstance(start, FixedGaussian):
        return (
            f"its mean {start.mean:g} and std {start.std:g} are not those of the path at the first "
            "level; compare start=prior"
        )
    first = sweep.levels(max(sweep.all_steps)).rows[0]
    if first.alpha == 0:
        return "start from the exact law: this path ends without signal, so the start is a choice"
    want = None  # only a floor that is a distance, and points of the data, determine σ
    if sweep.metrics[metric].is_wasserstein and floor > 0 and len(sweep.reference) > 1:
        want = enough_noise(sweep.reference, floor / 5)
    return _more_noise(sweep, first.sigma / first.alpha, want)


def _more_noise(sweep: Sweep, now: float, want: float | None) -> str:
    """Which setting to raise, so that σ/α of the first level goes from `now` to `want`."""
    if want is not None and want <= now:
        return (
            f"too little noise is not the cause of the start's error: σ/α is {now:g} at the first "
            f"level, and {want:g} is enough for a Gaussian"
        )
    end = float(sweep.schedule.noise_to_signal(torch.ones(1, dtype=torch.float64)))
    settings = settings_of(sweep.grid)
    keys = []
    # the grid may start below the path's σ/α at t = 1, by its nature or by a setting
    if now < end * (1 - 1e-6) or settings.get("noise_max") is not None:
        name = next((name for name in ("noise_max", "t_max") if name in settings), None)
        keys.append(f"grid.{name}" if name else "the grid's first level")
    if now >= end * (1 - 1e-6) or (want is not None and want > end):
        has = next((n for n in ("sigma_max", "beta_max") if hasattr(sweep.schedule, n)), None)
        keys.append(f"schedule.{has}" if has else "the schedule's noise at t = 1")
    what = f"prior mismatch: raise {' and '.join(keys)}"
    if want is None:
        return f"{what}; σ/α is {now:g} at the first level"
    if all(key in ("grid.noise_max", "schedule.sigma_max") for key in keys):
        return f"{what} from {now:g} to about {want:g}"
    return f"{what} until σ/α at the first level, now {now:g}, is about {want:g}"
