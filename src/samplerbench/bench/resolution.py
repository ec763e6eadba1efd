"""The smallest differences from the data that n samples and R repetitions can detect.

This is the *power* of the test against the floor (see `statistics`). Distances are assumed normal,
with the standard deviations of the table. A Wasserstein distance of more than ten floors is left
out of these: a sampler that nearly diverges varies much more than any cell near the floor. A cell
whose expected distance is the floor plus X is detected at the first step of Holm's correction over
c cells if U(X) = #{(i, j): a_i + X > b_j} ≥ u, where u is the smallest value with 2·P(U ≥ u) ≤ α/c.
So one draw of the R + M distances detects every X above the u-th smallest of b_j − a_i. The 0.8
quantile of this value over many draws is the excess that is detected with a probability of 80 %.
(If there are too few ranks, the test is Student's, and X = F·(exp((t_{1−α/2c, ν} + t_{power,
ν})·se) − 1), se of the logarithms.)

A law at distance δ from the data has an expected distance above the floor F(n). To leading order
squares add: the expected distance is √(F² + δ²), and the excess X = √(F² + δ²) − F is much smaller
than δ if F is large: δ² = X² + 2·F·X. F and all standard deviations shrink like (1/n + 1/m)^a, with
a = 1/2 for a unimodal law, and 1/4 for unevenly weighted modes that are far apart, since then a
share of √(1/n) of the mass travels a fixed distance. So the smallest detected δ also shrinks like
(1/n + 1/m)^a.

Squares add for Wasserstein distances. For another metric (a difference of shares, an unbiased
squared distance, whose floor may be negative) no δ is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit  # scipy.stats takes a second to import

from samplerbench.bench.cell import MEASURE, distinct
from samplerbench.bench.rounding import plain
from samplerbench.bench.statistics import (
    CHAINS,
    against_floor,
    lost_repetitions,
    present,
    rank_tail,
    ranks_suffice,
    require_single,
)
from samplerbench.errors import require


@dataclass(frozen=True)
class Resolution:
    """The smallest difference that the test detects, and the n or R that would detect `wanted`."""

    cells: int  # the number of cells that were compared
    hidden: int  # the number of them that are not distinguishable from data
    lost: int  # the number of other cells, which lost repetitions and are not compared
    n_samples: int  # n
    n_reference: int  # m; 0 if the distance is to the law itself
    repetitions: int  # R, the smallest of any cell
    floor: float  # the mean of the floor
    excess: float  # the smallest excess over the floor that is detected; infinite if none is
    power: float  # the probability of its detection
    sets_needed: int  # the smallest M with which any excess can be detected, with R repetitions
    wanted: float  # the distance of laws that the user wants to detect, as a share of the floor
    n_needed: float  # the n that detects it with R repetitions, if m grows in proportion
    # the R, of cells and floor, that detects `wanted` with n samples; None above
    # `MOST_REPETITIONS`
    repetitions_needed: int | None
    exponent: float  # a
    estimated: bool  # whether a comes from the table, or is an assumption
    # the number of cells without a verdict: not distinguishable, and their chains have not mixed
    not_mixed: int = 0
    squares_add: bool = True  # whether the floor and a distance of laws add in squares
    most_reference: float = math.inf  # the largest m that the data have

    @property
    def resolved(self) -> float:
        """δ: the smallest distance of laws that is detected, if squares add."""
        return math.sqrt(self.excess**2 + 2 * self.floor * self.excess)

    @property
    def sentence(self) -> str:
        """The finding in words."""
        text = self._of_compared
        if self.not_mixed:
            more = "1 more has" if self.not_mixed == 1 else f"{self.not_mixed} more have"
            text += f"; {more} chains that have not mixed: no verdict"
        if self.lost:
            more = "1 more cell" if self.lost == 1 else f"{self.lost} more cells"
            text += f"; {more} lost repetitions: no verdict"
        return text

    @property
    def _of_compared(self) -> str:
        cells = f"{self.cells} cell" + "s" * (self.cells != 1)
        verb = "is" if 1 in (self.hidden, self.cells) else "are"
        now = f"{self.hidden} of {cells} {verb} not distinguishable from data at n = "
        now += f"{self.n_samples:,} with {self.repetitions} repetitions"
        if self.excess == math.inf:
            return (
                f"{now}: with so few repetitions and fresh draws, and so many cells, the test "
                f"detects no distance; floor_repetitions={self.sets_needed} is enough"
            )
        now += (
            f"; an excess of {plain(self.excess, 2)} over the floor of {plain(self.floor)} would "
            f"be found with {100 * self.power:.0f} % chance"
        )
        if not self.squares_add:
            return now
        now += f", that is, a law at distance {plain(self.resolved, 2)}"
        aim = f"wanted={self.wanted:g} of the floor, {plain(self.wanted * self.floor, 2)}"
        if self.n_needed <= self.n_samples:
            return f"{now}; {aim}, would be found"
        ways = []
        m = self.n_reference * self.n_needed / self.n_samples
        if self.n_needed <= MOST_SAMPLES and m <= self.most_reference:
            more = f"n = {int(self.n_needed):,}"
            ways.append(more + (f" (and {_round_up(m):,} data points)" if m else ""))
        if self.repetitions_needed is not None:
            ways.append(f"{self.repetitions_needed:,} repetitions")
        if not ways:
            return (
                f"{now}; {aim}: no feasible n would be enough; use paired distances "
                "(experiment=budget)" + " or metric=kl_law" * (self.most_reference == math.inf)
            )
        basis = "measured" if self.estimated else "assumed"
        return (
            f"{now}; {aim}, takes {' or '.join(ways)} (the floor falls like "
            f"n^-{self.exponent:.2f}, {basis})"
        )


#: A distance of more floors is not used to estimate how much distances near the floor vary.
FAR = 10
MOST_REPETITIONS = 1_000
#: Larger numbers of repetitions, or of samples per cell, are not recommended to the user.
MOST_SAMPLES = 1_000_000


def resolution(
    table: pd.DataFrame,
    wanted: float,
    level: float = 0.95,
    *,
    power: float = 0.8,
    exponent: float = 0.25,
    squares_add: bool = True,
    most_reference: int | None = None,
    most_floors: int | None = None,
    not_mixed: Sequence[tuple[str, ...]] = (),
) -> Resolution:
    """The n, or the R, that would detect a wanted distance of laws; see the module for the model.

    The table has one data set, one metric and one floor (see `by_floor`). If it has several n, the
    exponent is fitted to the floors, and everything else is for the largest n.

    Args:
        table: rows of the results store, with a floor.
        wanted: distance δ between a cell's law and the data's, as a share of the floor.
        level: one minus the probability of a false claim in the table.
        power: the probability of detecting δ.
        exponent: a, used if the table has only one n: 1/4 for unevenly weighted modes (the
            default, the worst case), 1/2 for a unimodal law.
        squares_add: whether the metric is a Wasserstein distance; see the module.
        most_reference: the largest m that finite data allow; None if there is no limit.
        most_floors: the largest number of sets of n fresh draws that finite data allow.
        not_mixed: the chains that have not mixed, by the values of `statistics.CHAINS`.

    Raises:
        InvalidSetting: a number is out of range, a mixed table, too few repetitions or no floor.
    """
    require(0 < wanted < math.inf, "wanted", wanted, "positive and finite: a share of the floor")
    require(0 < power < 1, "power", power, "between 0 and 1")
    require(0 < exponent < math.inf, "exponent", exponent, "positive and finite")
    mixed = [name for name in MEASURE if name not in ("n_samples", "n_reference")]
    require_single(table[table["status"] == "ok"], mixed)
    fitted = floor_exponent(table)
    a = exponent if fitted is None else fitted
    n = int(table.loc[table["denoiser"] != "law", "n_samples"].max())
    here = against_floor(table[table["n_samples"] == n], level)
    m = int(here["n_reference"].max()) if _has_reference(here) else 0
    floor, floor_sd = float(here["floor"].mean()), _root_mean_square(here["floor_sd"])
    squares_add = squares_add and floor > 0  # no Wasserstein distance is negative
    near = here["mean"] <= FAR * floor if squares_add else here["mean"].notna()
    sd = _root_mean_square(here.loc[near, "sd"]) if near.any() else floor_sd
    repetitions, floor_count = int(here["count"].min()), int(here["floor_count"].min())
    excess = excess_found(
        sd, repetitions, floor, floor_sd, floor_count, len(here), level=level, power=power
    )
    sets = floor_count
    while not ranks_suffice(repetitions, sets, len(here), level):
        sets += 1
    stuck = pd.Series(False, here.index)
    if not_mixed:
        stuck |= pd.MultiIndex.from_frame(here[CHAINS]).isin(list(not_mixed))
    known: dict[str, Any] = {
        "cells": len(here),
        "hidden": int((~here["significant"] & ~stuck).sum()),
        "not_mixed": int((~here["significant"] & stuck).sum()),
        "lost": len(lost_repetitions(table[table["n_samples"] == n])),
        "n_samples": n,
        "n_reference": m,
        "repetitions": repetitions,
        "floor": floor,
        "excess": excess,
        "power": power,
        "sets_needed": sets,
        "wanted": wanted,
        "exponent": a,
        "estimated": fitted is not None,
        "squares_add": squares_add,
        "most_reference": math.inf if most_reference is None else most_reference,
    }
    if not known["squares_add"] or excess == math.inf:
        return Resolution(**known, n_needed=n, repetitions_needed=None)
    aim = wanted * floor
    resolved = math.sqrt(excess**2 + 2 * floor * excess)
    n_needed = n if resolved <= aim else n * (resolved / aim) ** (1 / a)
    # the efficiency of the rank test on many normal numbers is 3/π
    quantiles = ndtri(1 - (1 - level) / (2 * len(here))) + ndtri(power)
    wide = quantiles * math.sqrt(math.pi / 3) / (math.hypot(floor, aim) - floor)
    most = math.ceil(wide**2 * (sd**2 + floor_sd**2))
    if most > floor_count:  # then cells and floor have the same number
        enough = most
    else:
        enough = math.ceil(wide**2 * sd**2 / (1 - wide**2 * floor_sd**2 / floor_count))
    enough = _round_up(max(enough, repetitions + 1))
    if most > floor_count and most_floors is not None and enough > most_floors:
        enough = MOST_REPETITIONS + 1
    return Resolution(
        **known,
        n_needed=_round_up(n_needed) if n_needed < 1e15 else math.inf,
        repetitions_needed=enough if enough <= MOST_REPETITIONS else None,
    )


def _root_mean_square(values: pd.Series) -> float:
    return math.sqrt(float((values**2).mean()))


def excess_found(
    sd: float,
    count: int,
    floor: float,
    floor_sd: float,
    floor_count: int,
    comparisons: int,
    *,
    level: float = 0.95,
    power: float = 0.8,
) -> float:
    """The excess over the floor that the test detects with probability `power`; see the module.

    Args:
        sd: the standard deviation of a cell's distances.
        count: R.
        floor: the mean of the floor.
        floor_sd: the standard deviation of the floor.
        floor_count: M.
        comparisons: the number of cells in Holm's correction.
        level: one minus the probability of a false claim.
        power: for one cell.

    Returns:
        The excess, in the units of the distances; infinite if the test can detect none.
    """
    if not ranks_suffice(count, floor_count, comparisons, level):
        if floor <= 0:
            return math.inf
        freedom = count + floor_count - 2
        squares = (sd / floor) ** 2 * (count - 1) + (floor_sd / floor) ** 2 * (floor_count - 1)
        error = math.sqrt(squares / freedom * (1 / count + 1 / floor_count))
        tail = 1 - (1 - level) / (2 * comparisons)
        quantiles = float(stdtrit(freedom, tail) + stdtrit(freedom, power))
        return floor * math.expm1(min(quantiles * error, 700.0))
    passes = rank_tail(count, floor_count) <= (1 - level) / (2 * comparisons)
    least = int(passes.argmax())
    draws = np.random.default_rng(0)
    gaps = [
        np.partition(
            np.subtract.outer(
                floor_sd * draws.standard_normal(floor_count), sd * draws.standard_normal(count)
            ).ravel(),
            least - 1,
        )[least - 1]
        for _ in range(1000)
    ]
    return float(np.quantile(gaps, power))


def floor_exponent(table: pd.DataFrame) -> float | None:
    """a of floor ∝ (1/n + 1/m)^a, by least squares on logarithms; None for a single n.

    Also None if the floors do not fall with n, which can happen with few repetitions.
    """
    floors = distinct(table[(table["status"] == "ok") & (table["denoiser"] == "law")])
    sizes = present(floors, ["n_samples", "n_reference"])
    means = floors.groupby(sizes)["value"].mean().reset_index()
    if means["n_samples"].nunique() < 2:
        return None
    inverse = 1 / means["n_samples"].to_numpy(dtype=np.float64)
    if _has_reference(floors):
        inverse = inverse + 1 / means["n_reference"].to_numpy(dtype=np.float64)
    values = means["value"].to_numpy(dtype=np.float64)
    if np.ptp(inverse) == 0 or not (values > 0).all():
        return None
    slope = float(np.polyfit(np.log(inverse), np.log(values), 1)[0])
    return slope if slope > 0.05 else None


def _has_reference(table: pd.DataFrame) -> bool:
    """Whether the distance is to a finite set of points, not to a law."""
    if "n_reference" not in table or not (table["n_reference"] > 0).all():
        return False
    return "reference" not in table or not (table["reference"] == "law").all()


def _round_up(count: float) -> int:
    """Rounded up to two significant digits, since the model is no more precise than that."""
    unit = int(10 ** max(math.floor(math.log10(count)) - 1, 0))
    return math.ceil(round(count / unit, 9)) * unit
