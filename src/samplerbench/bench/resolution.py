"""What n samples and R repetitions can tell from data, and what it would take to tell more.

A law at distance δ from the data shows as more than the floor F(n): to leading order
squares add, so the expected distance is √(F² + δ²) and the excess √(F² + δ²) − F, which is far less
than δ where F is large. It is found, with the stated power, where it exceeds

    D(n, R) = (t_{1−α/2c, ν} + t_{power, ν})·se,   c the number of comparisons (Holm's first step).

F and all standard deviations shrink like (1/n + 1/m)^a: a = 1/2 for a unimodal law, 1/4 where modes
are unevenly weighted and far apart, since a share of √(1/n) of the mass then travels a fixed
distance. So √(F² + δ²) − F = D is solved by δ² = D² + 2·F·D, which falls like (1/n + 1/m)^{2a}.

Squares add for Wasserstein distances. For another metric (a difference of shares, an unbiased
squared distance, whose floor may be negative) nothing is said of a δ: the smallest excess that is
found is D itself, in the metric's own units, and it falls like (1/n + 1/m)^a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # scipy.stats takes a second to import

from samplerbench.bench.cell import MEASURE, distinct
from samplerbench.bench.statistics import against_floor, present, require_single, welch_error
from samplerbench.errors import require


@dataclass(frozen=True)
class Resolution:
    """What n samples and R repetitions can tell from data, and what it would take to tell more.

    Attributes:
        cells: how many cells were compared.
        hidden: how many of them cannot be told from data.
        n_samples: n.
        n_reference: m; 0 where the distance is to the law itself.
        repetitions: R, the fewest of any cell.
        floor: the floor's mean.
        resolved: the smallest distance of laws found at (n, R), in data units; where squares do not
            add, the smallest excess over the floor, in the units of the metric.
        wanted: the distance of laws that is to be found.
        n_needed: n that finds it with R repetitions, m growing in proportion; n where squares do
            not add.
        repetitions_needed: R that finds it with n samples, for cells and floor alike; none above
            `MOST_REPETITIONS`, or where squares do not add.
        exponent: a.
        estimated: whether a comes from the table; otherwise it is an assumption.
        squares_add: whether the floor and a distance of laws add in squares.
    """

    cells: int
    hidden: int
    n_samples: int
    n_reference: int
    repetitions: int
    floor: float
    resolved: float
    wanted: float
    n_needed: int
    repetitions_needed: int | None
    exponent: float
    estimated: bool
    squares_add: bool = True

    @property
    def sentence(self) -> str:
        """The finding in words."""
        verb = "cell" if self.cells == 1 else "cells"
        now = f"{self.hidden} of {self.cells} {verb} cannot be told from data at n = "
        now += f"{_thousands(self.n_samples)} with {self.repetitions} repetitions"
        basis = "measured" if self.estimated else "assumed"
        if not self.squares_add:
            return (
                f"{now}: an excess over the floor below {self.resolved:.2g} is not found, in the "
                f"metric's own units (it falls like n^-{self.exponent:.2f}, {basis})"
            )
        if self.n_needed <= self.n_samples:
            return f"{now}; a distance of {self.wanted:.3g} would be found"
        more = f"n = {_thousands(self.n_needed)}"
        if self.n_reference:
            m = self.n_reference * self.n_needed / self.n_samples
            more += f" (and {_thousands(_round_up(m))} data points)"
        if self.repetitions_needed is not None:
            more += f" or {_thousands(self.repetitions_needed)} repetitions"
        if self.n_needed > OUT_OF_REACH and self.repetitions_needed is None:
            more = "no sample size within reach"
        text = (
            f"{now}: below {self.resolved:.2g} nothing is found; {more} would resolve "
            f"{self.wanted:.3g} (the floor falls like n^-{self.exponent:.2f}, {basis})"
        )
        if self.n_needed > MOST_SAMPLES:
            text += "; paired distances to the converged run see more at this n"
        return text


MOST_REPETITIONS = 10_000
MOST_SAMPLES = 1_000_000
"""More repetitions, or more samples a cell, are no advice."""

OUT_OF_REACH = 10**10
"""A sample size that is not even worth printing: a cell would take hours."""


def resolution(
    table: pd.DataFrame,
    wanted: float,
    level: float = 0.95,
    *,
    power: float = 0.8,
    exponent: float = 0.25,
    squares_add: bool = True,
) -> Resolution:
    """The n, or the R, that would find a wanted distance of laws; see the module for the model.

    The table holds one data set, one metric and one floor (see `by_floor`); where it holds several
    n, the exponent is measured from the floors and all else is said of the largest n.

    Args:
        table: rows of the results store, with a floor.
        wanted: distance δ between a cell's law and the data's, in data units.
        level: one minus the chance of a false claim in the table.
        power: chance of finding δ.
        exponent: a, used where the table holds one n only: 1/4 for unevenly weighted modes (the
            default, the worst case), 1/2 for a unimodal law.
        squares_add: whether the metric is a Wasserstein distance; see the module.

    Raises:
        InvalidSetting: a number is out of range, a mixed table, too few repetitions or no floor.
    """
    require(0 < wanted < math.inf, "wanted", wanted, "positive and finite")
    require(0 < power < 1, "power", power, "between 0 and 1")
    require(0 < exponent < math.inf, "exponent", exponent, "positive and finite")
    mixed = [name for name in MEASURE if name not in ("n_samples", "n_reference")]
    require_single(table[table["status"] == "ok"], mixed)
    fitted = floor_exponent(table)
    a = exponent if fitted is None else fitted
    n = int(table.loc[table["denoiser"] != "law", "n_samples"].max())
    here = against_floor(table[table["n_samples"] == n], level)
    m = int(here["n_reference"].max()) if _has_reference(here) else 0
    sd = math.sqrt(float((here["sd"] ** 2).mean()))
    floor, floor_sd = float(here["floor"].mean()), math.sqrt(float((here["floor_sd"] ** 2).mean()))
    repetitions, floor_count = int(here["count"].min()), int(here["floor_count"].min())
    tail = 1 - (1 - level) / (2 * len(here))

    def detectable(cells: int, floors: int) -> float:
        error, freedom = welch_error(sd, cells, floor_sd, floors)
        return float((stdtrit(freedom, tail) + stdtrit(freedom, power)) * error)

    excess = detectable(repetitions, floor_count)
    known: dict[str, Any] = {
        "cells": len(here),
        "hidden": int((~here["told_apart"]).sum()),
        "n_samples": n,
        "n_reference": m,
        "repetitions": repetitions,
        "floor": floor,
        "wanted": wanted,
        "exponent": a,
        "estimated": fitted is not None,
    }
    if not squares_add or floor < 0:  # no Wasserstein distance is negative
        return Resolution(
            **known, resolved=excess, n_needed=n, repetitions_needed=None, squares_add=False
        )
    resolved = math.sqrt(excess**2 + 2 * floor * excess)
    # both terms of δ² = D² + 2FD shrink like n^(−2a)
    n_needed = n if resolved <= wanted else _round_up(n * (resolved / wanted) ** (1 / a))
    enough = math.hypot(floor, wanted) - floor
    low, high = 1, 2
    while high <= MOST_REPETITIONS and detectable(high, max(high, floor_count)) > enough:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        found = detectable(middle, max(middle, floor_count)) <= enough
        low, high = (low, middle) if found else (middle, high)
    return Resolution(
        **known,
        resolved=resolved,
        n_needed=n_needed,
        repetitions_needed=high if high <= MOST_REPETITIONS else None,
    )


def floor_exponent(table: pd.DataFrame) -> float | None:
    """a of floor ∝ (1/n + 1/m)^a, by least squares on logarithms; None for a single n.

    Also None where the floors do not fall with n, which too few repetitions can bring about.
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
    """Whether the distance is to finitely many points and not to a law."""
    if "n_reference" not in table or not (table["n_reference"] > 0).all():
        return False
    return "reference" not in table or not (table["reference"] == "law").all()


def _round_up(count: float) -> int:
    """Up to two significant digits: the model is not better than that."""
    unit = int(10 ** max(math.floor(math.log10(count)) - 1, 0))
    return math.ceil(round(count / unit, 9)) * unit


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")
