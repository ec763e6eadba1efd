"""Ranking of samplers, and the pairs that the repetitions cannot distinguish.

All samplers of a ranking start from the same draws, so every pair is compared by its paired
difference (see `statistics`). With k samplers there are k·(k − 1)/2 comparisons, minus the pairs
with equal values. Holm's procedure corrects their p-values together: the probability of any false
claim of a difference in the table is at most 1 − level. The rank of a sampler is a range: the best
rank is one more than the number of samplers that are significantly better, the worst rank is k
minus the number that are significantly worse.

A sampler that lost a repetition, for example because it diverged, is not ranked: the mean of the
other repetitions says nothing about the lost ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from samplerbench.bench.cell import (
    DISTINGUISHING,
    MEASURE,
    SEEDS,
    curve_names,
    distinct,
    sampler_name,
    sampler_names,
)
from samplerbench.bench.statistics import (
    Estimate,
    complete,
    holm,
    lost_repetitions,
    mean_evaluations,
    paired,
    require_single,
    t_interval,
    units,
)
from samplerbench.errors import InvalidSetting, require

#: Competitors differ in at least one of these: a sampler on two grids is two competitors.
SAMPLER = ["sampler", "sampler_settings", "eta", "setting_id"]
#: All competitors agree in these and in `MEASURE`.
_SHARED = ["denoiser", "start", "schedule", "network", "objective", "target"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The result of a ranking."""

    # one line per sampler, the smallest mean first: rank, best and worst (the range of the rank),
    # name, mean, lower, upper (the interval of the mean alone), count, nfe, ties (the names of the
    # samplers from which it is not distinguishable)
    order: pd.DataFrame
    # one line per pair, the better first: first, second, difference (second − first), lower, upper,
    # p_value, p_holm, significant
    pairs: pd.DataFrame
    # the samplers with lost repetitions, which have no rank, and the reason: "1 of 8 diverged"
    apart: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The result in words."""
        names = ", ".join(f"{name} ({why})" for name, why in self.apart.items())
        return self._of_ranked + (f"; not ranked: {names}" if names else "")

    @property
    def _of_ranked(self) -> str:
        name = str(self.order.iloc[0]["name"])
        same = self.pairs[self.pairs["p_value"].isna()]
        own = same[(same[["first", "second"]] == name).any(axis=1)]
        equal = [
            other
            for other in pd.unique(own[["first", "second"]].to_numpy().ravel())
            if other != name
        ]
        ties = [other for other in self.order.iloc[0]["ties"] if other not in equal]
        count = len(self.pairs) - len(same)
        family = f"Holm over {count} comparison" + "s" * (count != 1)
        if equal:
            name += f" (and {', '.join(equal)}, with the same values)"
        if count == 0:
            return f"{name}: nothing to compare"
        if not ties:
            return f"{name} is best, and distinguishable from all others ({family})"
        best = f"{name} has the smallest mean; it is not distinguishable from"
        return f"{best} {', '.join(ties)} ({family})"


def ranking(
    table: pd.DataFrame,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    level: float = 0.95,
    over: str = "repetition",
    min_repetitions: int = 2,
) -> Ranking:
    """Rank the samplers of a table at one number of steps or of evaluations.

    Args:
        table: rows of the results store: one data set, metric, n, denoiser and start. A sampler
            with a repetition that is not ok has no rank, see `Ranking.apart`.
        steps: the number of steps at which samplers are compared, or None.
        nfe: the number of network evaluations at which they are compared, or None.
        level: the level of intervals, and one minus the chance of a false claim in the table.
        over: the independent units, see `paired_difference`.
        min_repetitions: the smallest number of pairs in a comparison.

    Raises:
        InvalidSetting: not exactly one of steps and nfe is given, or there are fewer than two
            samplers, values that cannot be compared, or too few repetitions.
    """
    require((steps is None) != (nfe is None), "steps", steps, "given, or nfe: one of the two")
    require(0 < level < 1, "level", level, "between 0 and 1")
    column, at = ("nfe", nfe) if steps is None else ("steps", steps)
    rows = possible = distinct(table[table["denoiser"] != "law"])
    key = [name for name in [*SAMPLER, "steps"] if name in rows]
    if steps is None:
        # an adaptive sampler may need other numbers of evaluations in other repetitions
        counted = rows["nfe"].where(rows["nfe"] > 0)
        of_cell = counted.groupby([rows[name] for name in key], dropna=False).transform("mean")
        rows = rows[np.ceil(of_cell) == at]
    else:
        rows = rows[rows["steps"] == at]
    apart = {
        sampler_name(line["sampler"], line["sampler_settings"]): line["why"]
        for _, line in lost_repetitions(rows).iterrows()
    }
    rows = complete(rows)
    require_single(rows, [*_SHARED, *MEASURE])
    telling = [name for name in ["metric", "denoiser", "start", *DISTINGUISHING] if name in rows]
    cells = rows.drop_duplicates(key)[list(dict.fromkeys([*key, *telling]))]
    if len(cells) < 2:
        present = sorted(set(complete(possible)[column]))
        who = f"there are values at {present}" if present else "none has"
        who = f"only {_names(cells)[0]} has" if len(cells) else who
        allowed = f"one at which two samplers have all their values; {who}"
        allowed += "".join(f"; {name}: {why}" for name, why in apart.items())
        raise InvalidSetting(column, at, allowed)
    names = _names(cells)
    masks = {
        name: _rows(rows, cell)
        for name, (_, cell) in zip(names, cells[key].iterrows(), strict=True)
    }
    own = {name: _mean(rows[mask], level, over, min_repetitions) for name, mask in masks.items()}
    ordered = sorted(own, key=lambda name: own[name].mean)
    values = {name: units(rows, mask, name, over) for name, mask in masks.items()}
    pairs = []
    for first, second in combinations(ordered, 2):
        gap = paired(
            values[second], values[first], level, over=over, min_repetitions=min_repetitions
        )
        # incomplete pairs are left out, which can change the order of two close means
        better, worse, sign = (first, second, 1) if gap.mean >= 0 else (second, first, -1)
        ends = sorted((sign * gap.lower, sign * gap.upper))
        pairs.append((better, worse, abs(gap.mean), *ends, gap.p_value, gap.count))
    columns = ["first", "second", "difference", "lower", "upper", "p_value", "count"]
    compared = pd.DataFrame(pairs, columns=columns)
    corrected = holm(compared["p_value"])
    compared = compared.assign(p_holm=corrected, significant=corrected <= 1 - level)
    lines = []
    for rank, name in enumerate(ordered, 1):
        ties, above, below = _standing(compared, name)
        best, last = 1 + len(above), len(ordered) - len(below)
        line = {"rank": rank, "best": best, "worst": last, "name": name, "mean": own[name].mean}
        line |= {"lower": own[name].lower, "upper": own[name].upper, "count": own[name].count}
        lines.append(line | {"nfe": mean_evaluations(rows.loc[masks[name], "nfe"]), "ties": ties})
    return Ranking(pd.DataFrame(lines), compared, apart)


def _standing(pairs: pd.DataFrame, name: str) -> tuple[list[str], list[str], list[str]]:
    """The names of samplers that are not distinguishable, better, and worse."""
    compared = list(zip(pairs["first"], pairs["second"], pairs["significant"], strict=True))
    ahead = [(first, apart) for first, second, apart in compared if second == name]
    behind = [(second, apart) for first, second, apart in compared if first == name]
    ties = [other for other, apart in (*ahead, *behind) if not apart]
    above, below = ([other for other, apart in side if apart] for side in (ahead, behind))
    return ties, above, below


def _mean(rows: pd.DataFrame, level: float, over: str, min_repetitions: int) -> Estimate:
    """The interval of one sampler's own mean."""
    units = rows.groupby(over)["value"].mean()
    return t_interval(units, level, min_repetitions=min_repetitions)


def _rows(rows: pd.DataFrame, cell: Mapping[str, object] | pd.Series) -> pd.Series:
    """The rows of one competitor; NaN equals NaN, as for the eta of samplers without one."""
    mask = pd.Series(True, index=rows.index)
    for name, value in cell.items():
        mask &= rows[str(name)].isin([value])
    return mask


def _names(cells: pd.DataFrame) -> list[str]:
    """The shortest unique names of the samplers: with η, or with all settings, if needed."""
    steps = cells["steps"].map(lambda count: f" at {count} steps")
    eta = cells["eta"].map(lambda value: "" if value != value else f" η={value:g}")
    plain = cells["sampler"] + eta
    full = sampler_names(cells)
    seedless = cells.drop(columns=[name for name in SEEDS if name in cells])
    unique = curve_names(seedless) if "setting_id" in cells else full
    for names in (plain, full, full + steps, unique, unique + steps):
        if not names.duplicated().any():
            return list(names)
    raise AssertionError("cells are distinct")
