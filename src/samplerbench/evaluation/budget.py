"""The error budget: which part of a distance is the floor, the steps, the start, the score.

A cell is a law Φ(denoiser, start, N), seen through n samples. One walks from what practice runs to
the data and changes one thing at a time:

    A = Φ(learned, prior, N)  →  B = Φ(oracle, prior, N)  →  C = Φ(oracle, exact, N)
                              →  C∞ = Φ(oracle, exact, ∞) = data.

Two budgets come of it, with d the distance to the data.

- *Differences of distances* add up exactly, for every repetition:

      d(A) = d(C∞) + [d(C) − d(C∞)] + [d(B) − d(C)] + [d(A) − d(B)]
             floor   discretisation   start           score

  A difference may be negative (two errors can cancel) and depends on the order of the path.
- *Distances between neighbours*, W(A, B), W(B, C), W(C, C∞), never are. They do not add up; by the
  triangle inequality d(A) ≤ W(A, B) + W(B, C) + W(C, C∞) + d(C∞). Neighbours share their starts
  and noise, so most sampling noise cancels: W(C, C∞), the *paired* discretisation, sees an error of
  the sampler far below the floor. Where a sampler draws noise, all runs of a budget draw the
  increments of one Brownian path (see `coupling`); a sampler for which that is not defined shares
  the start only, W(C, C∞) is then not paired, and the words say so.

The score's part is split where the sweep also holds the denoiser *empirical*, the ideal denoiser of
the training set: from it to the oracle is what finite data cost, from the network to it what the
optimisation leaves. Data without a known law have no other truth than their training set; then the
oracle is its ideal denoiser, the floor is the distance of C∞ to training points, and the signed
part *generalisation* leads from those to the held-out data: the ideal denoiser memorises, so a
"score error" against it is not a defect.

*Converged* keeps the sampler's settings, since the limits of DDIM at η = 0 and 1 are an ODE and an
SDE, and a learned score has different laws on them; every deterministic member has the same limit,
the probability-flow ODE, which Heun reaches soonest. It is checked: doubling the number of steps
must not move the distance by more than the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from samplerbench.errors import InvalidSetting, require
from samplerbench.evaluation.statistics import sampler_name
from samplerbench.evaluation.store import Row
from samplerbench.evaluation.sweep import Cell, Drawn, Reference, Sweep
from samplerbench.metrics.base import LawMetric
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.heun import Heun

#: Parts of the additive budget, in the order of the path from the data to practice. A budget has
#: those that its sweep can tell apart.
PARTS = (
    "floor",
    "generalisation",
    "discretisation",
    "start",
    "finite data",
    "optimisation",
    "score",
)
#: Distances between neighbours: of which denoiser's cells, and to what: the `reference` column.
NEIGHBOURS = {
    "discretisation": ("oracle", "converged"),
    "start": ("oracle", "exact"),
    "finite data": ("empirical", "oracle"),
    "optimisation": ("learned", "empirical"),
    "score": ("learned", "oracle"),
}


#: Ends the name of a converged run of a sampler that draws noise; the others share one limit.
LIMIT = " limit"
ODE = f"ODE{LIMIT}"
End = tuple[Cell, Drawn]


@dataclass(frozen=True)
class Budget:
    """A sweep whose cells are taken apart.

    Args:
        sweep: with the denoisers oracle and, for the score part, learned; with the starts exact
            and, for the start part, prior (or any other one).
        converged_steps: of the runs that stand for infinitely many steps.
        tolerance: by how much doubling them may move the distance, in the units of the data.
    """

    sweep: Sweep
    converged_steps: int = 400
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        most = max(self.sweep.steps)
        require(
            self.converged_steps > most,
            "budget.converged_steps",
            self.converged_steps,
            f"above the largest number of steps, {most}",
        )
        require(0 < self.tolerance < math.inf, "budget.tolerance", self.tolerance, "positive")
        require(
            "oracle" in self.sweep.denoisers,
            "denoiser",
            list(self.sweep.denoisers),
            "with oracle: the budget needs the exact denoiser",
        )
        starts = self.sweep.starts
        exact = [name for name, start in starts.items() if start.uses_data]
        allowed = "exact or exact_sobol: the budget needs one exact start"
        require(len(exact) == 1, "start", list(starts), f"with {allowed}")
        require(len(starts) <= 2, "start", list(starts), "the exact one and at most one other")
        require(
            not self.sweep.nfe, "nfe", list(self.sweep.nfe), "null in an error budget: use steps"
        )
        require(self.sweep.truth is None, "reference_noise", "above 0", "0 in an error budget")
        for name, sampler in self.sweep.samplers:
            if sampler.order is None:
                allowed = (
                    "not a Langevin sampler: its limit is a small step and a long time, not many "
                    "steps of the path, so an error budget is not applicable; leave budget=null"
                )
                raise InvalidSetting("sampler", name, allowed)
        n = self.sweep.n_samples  # neighbours are clouds of n points each
        for name, metric in self.sweep.metrics.items():
            reason = None if isinstance(metric, LawMetric) else metric.why_too_large(n, n)
            if reason is not None:
                raise InvalidSetting("metric", name, f"another one: {reason}")
        require(
            self.sweep.repetitions >= 2,
            "repetitions",
            self.sweep.repetitions,
            "at least 2: one repetition has no interval",
        )

    @property
    def exact(self) -> str:
        """The name of the start that is exact: the one that knows the data."""
        return next(name for name, start in self.sweep.starts.items() if start.uses_data)

    @property
    def prior(self) -> str | None:
        """The name of the start that is not."""
        return next((name for name in self.sweep.starts if name != self.exact), None)

    @property
    def others(self) -> list[str]:
        """The denoisers besides the oracle, in the order of the path."""
        return [name for name in ("empirical", "learned") if name in self.sweep.denoisers]

    def row_count(self) -> int:
        """How many rows `run` gives."""
        sweep = self.sweep
        plain = sum(not isinstance(metric, LawMetric) for metric in sweep.metrics.values())
        path = 1 + (self.prior is not None) + len(self.others)
        of_sampler = path * len(sweep.steps) * (len(sweep.metrics) + plain)
        stochastic = sum(sampler.stochastic for _, sampler in sweep.samplers)
        limits = 2 * (stochastic + (stochastic < len(sweep.samplers))) * len(sweep.metrics)
        floor = len(sweep.floor_cells()) * len(sweep.metrics)
        if not sweep.dataset.known_law:
            limits += limits // 2 // len(sweep.metrics) * plain
        return floor + sweep.repetitions * (len(sweep.samplers) * of_sampler + limits)

    def run(self, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """All rows of all budgets; `on_row` as in `Sweep.run`."""
        sweep = self.sweep
        to_data = sweep.distances()
        repetitions = range(sweep.repetitions)

        def floor(cell: Cell) -> list[Row]:
            return self._walk(cell, to_data)[1]

        ode: dict[int, End] = {}

        def ode_limit(repetition: int) -> list[Row]:
            ode[repetition], rows = self._limit(ODE, Heun(), repetition, to_data)
            return rows

        def sampler(unit: tuple[str, Sampler, int]) -> list[Row]:
            name, settings, repetition = unit
            if not settings.stochastic:
                return self._path(name, settings, repetition, ode[repetition], to_data)
            end, rows = self._limit(f"{name}{LIMIT}", settings, repetition, to_data)
            return rows + self._path(name, settings, repetition, end, to_data)

        rows = sweep.side_by_side(floor, sweep.floor_cells(), on_row)
        if not all(settings.stochastic for _, settings in sweep.samplers):
            rows += sweep.side_by_side(ode_limit, repetitions, on_row)
        units = [(*named, repetition) for named in sweep.samplers for repetition in repetitions]
        return rows + sweep.side_by_side(sampler, units, on_row)

    def _walk(self, cell: Cell, to_data: dict[str, Reference]) -> tuple[Drawn, list[Row]]:
        drawn = self.sweep.draw(cell)
        return drawn, [self.sweep.measure(cell, drawn, name, to) for name, to in to_data.items()]

    def _limit(
        self, name: str, sampler: Sampler, repetition: int, to_data: dict[str, Reference]
    ) -> tuple[End, list[Row]]:
        """C∞, from twice the converged steps, with its rows and those of the check."""
        rows: list[Row] = []
        for steps in (self.converged_steps, 2 * self.converged_steps):
            coupled = sampler.stochastic and sampler.couples
            cell = Cell("oracle", self.exact, name, sampler, steps, repetition, coupled)
            drawn, more = self._walk(cell, to_data)
            rows += more
        if not self.sweep.dataset.known_law:
            rows += self._to_training(cell, drawn)
        return (cell, drawn), rows

    def _to_training(self, cell: Cell, drawn: Drawn) -> list[Row]:
        """The distances to as many training points as there are evaluation points."""
        sweep = self.sweep
        count = len(sweep.reference)
        points = sweep.dataset.draws(count, "train", sweep.data_seed).to(sweep.device)
        return [
            sweep.measure(cell, drawn, name, Reference(distance, "training", count))
            for name, metric in sweep.metrics.items()
            if not isinstance(metric, LawMetric)
            for distance in [metric.against(points, seed=sweep.metric_seed)]
        ]

    def _path(
        self,
        name: str,
        sampler: Sampler,
        repetition: int,
        end: End,
        to_data: dict[str, Reference],
    ) -> list[Row]:
        """C, B and A at every number of steps, each measured to the data and to its neighbour."""
        rows: list[Row] = []
        for steps in self.sweep.steps:
            before, there = end
            coupled = sampler.stochastic and sampler.couples
            cell = Cell("oracle", self.exact, name, sampler, steps, repetition, coupled)
            path = [("discretisation", cell)]
            if self.prior is not None:
                cell = replace(cell, start=self.prior)
                path.append(("start", cell))
            for denoiser in self.others:
                part = "finite data" if denoiser == "empirical" else "score"
                if part == "score" and "empirical" in self.others:
                    part = "optimisation"
                path.append((part, replace(cell, denoiser=denoiser)))
            for part, cell in path:
                drawn, more = self._walk(cell, to_data)
                rows += more
                for metric in self.sweep.metrics:
                    rows += self._between(cell, drawn, metric, part, before, there)
                before, there = cell, drawn
        return rows

    def _between(
        self, cell: Cell, drawn: Drawn, metric: str, part: str, other: Cell, there: Drawn
    ) -> list[Row]:
        """The row of W(cell, other), or none where the metric knows only the law."""
        sweep = self.sweep
        plain = sweep.metrics[metric]
        if isinstance(plain, LawMetric):
            return []
        if there.samples is None:
            drawn = replace(drawn, samples=None, status=there.status, message=there.message)
            there = replace(there, samples=sweep.reference)
        assert there.samples is not None
        to = Reference(
            plain.against(there.samples, seed=sweep.metric_seed),
            NEIGHBOURS[part][1],
            len(there.samples),
            sweep.samples_identity(other),
        )
        return [sweep.measure(cell, drawn, metric, to)]


#: A sampler with its settings; its eta is part of them, and NaN is no key to join on.
KEY = ["metric", "sampler", "sampler_settings"]


def parts(table: pd.DataFrame, converged_steps: int, level: float = 0.95) -> pd.DataFrame:
    """The budget of every cell, one line per part.

    Columns: metric, sampler, sampler_settings, eta, steps, part (one of `PARTS`, or total), and
    mean, lower, upper, count of its difference of distances (`kind` difference, paired within a
    repetition) or of its distance between neighbours (`kind` neighbours).

    Args:
        table: rows of the results store, written by `Budget.run`.
        converged_steps: of the budget.
        level: of the t intervals over repetitions.

    Raises:
        InvalidSetting: if the table holds no budget.
    """
    ok = table[table["status"] == "ok"]
    to_data = ok[ok["reference"].isin(["data", "law"])]
    is_limit = to_data["sampler"].str.endswith(LIMIT)
    limit = to_data[is_limit & (to_data["steps"] == 2 * converged_steps)]
    if limit.empty:
        raise InvalidSetting("experiment", "this run", "budget: the table holds no converged run")
    cells = to_data[~is_limit & (to_data["denoiser"] != "law")]
    start = limit["start"].iloc[0]  # the converged run has the exact one
    oracle, exact = cells["denoiser"] == "oracle", cells["start"] == start
    index = [*KEY, "steps", "repetition"]

    def distances(rows: pd.DataFrame) -> pd.Series:
        return rows.set_index(index)["value"]

    frame = pd.DataFrame({"C": distances(cells[oracle & exact])})
    frame["C∞"] = _at_limit(limit, converged_steps, frame.index)
    differences = {"floor": frame["C∞"], "discretisation": frame["C"] - frame["C∞"]}
    training = _at_limit(ok[ok["reference"] == "training"], converged_steps, frame.index)
    if not training.isna().all():
        differences["floor"] = training
        differences["generalisation"] = frame["C∞"] - training
    # a part that is not in the sweep is left out; one whose cells diverged is NaN, and so is A
    last = frame["C"]
    if (table["denoiser"].eq("oracle") & table["start"].ne(start)).any():
        here = distances(cells[oracle & ~exact]).reindex(frame.index)
        differences["start"], last = here - last, here
    for denoiser in ("empirical", "learned"):
        if not table["denoiser"].eq(denoiser).any():
            continue
        part = "finite data" if denoiser == "empirical" else "score"
        if part == "score" and "finite data" in differences:
            part = "optimisation"
        here = distances(cells[cells["denoiser"] == denoiser]).reindex(frame.index)
        differences[part], last = here - last, here
    differences["total"] = last
    blocks = [_intervals(of, part, "difference", level) for part, of in differences.items()]
    for part, (denoiser, reference) in NEIGHBOURS.items():
        rows = ok[(ok["reference"] == reference) & (ok["denoiser"] == denoiser)]
        if not rows.empty:
            blocks.append(_intervals(distances(rows), part, "neighbours", level))
    etas = cells[[*KEY, "eta"]].drop_duplicates()
    return pd.concat(blocks, ignore_index=True).merge(etas, on=KEY)


def _at_limit(rows: pd.DataFrame, converged_steps: int, index: pd.Index) -> pd.Series:
    """The value of the converged run that belongs to each entry of an index of cells."""
    rows = rows[rows["sampler"].str.endswith(LIMIT) & (rows["steps"] == 2 * converged_steps)]
    ends = rows.set_index([*KEY, "repetition"])["value"].to_dict()
    values = [
        ends.get(
            (metric, f"{sampler}{LIMIT}", settings, repetition),
            ends.get((metric, ODE, "", repetition), math.nan),
        )
        for metric, sampler, settings, _, repetition in index
    ]
    return pd.Series(values, index=index, dtype=float)


def _intervals(values: pd.Series, part: str, kind: str, level: float) -> pd.DataFrame:
    groups = values.dropna().groupby(level=[*KEY, "steps"])
    lines = groups.agg(["mean", "std", "size"]).reset_index()
    quantile = stats.t.ppf(0.5 + level / 2, (lines["size"] - 1).clip(lower=1))
    half = quantile * lines["std"] / lines["size"] ** 0.5
    return lines.assign(
        part=part,
        kind=kind,
        lower=lines["mean"] - half,
        upper=lines["mean"] + half,
        count=lines["size"],
    ).drop(columns=["std", "size"])


def convergence(table: pd.DataFrame, converged_steps: int, tolerance: float) -> pd.DataFrame:
    """How far doubling the converged number of steps moved the distance, one line per limit.

    Columns: those of `KEY`, eta, moved (mean over repetitions, paired), half (of its 95 % interval)
    and converged: whether the move is within the tolerance, as far as the interval can tell.
    """
    ok = table[(table["status"] == "ok") & table["sampler"].str.endswith(LIMIT)]
    wide = ok.pivot_table(index=[*KEY, "repetition"], columns="steps", values="value")
    moved = (wide[2 * converged_steps] - wide[converged_steps]).dropna()
    lines = moved.groupby(level=KEY).agg(["mean", "std", "size"]).reset_index()
    half = stats.t.ppf(0.975, (lines["size"] - 1).clip(lower=1)) * lines["std"]
    half /= lines["size"] ** 0.5
    converged = lines["mean"].abs() - half.fillna(0) <= tolerance
    lines = lines.assign(moved=lines["mean"], half=half, converged=converged)
    lines = lines.merge(ok[[*KEY, "eta"]].drop_duplicates(), on=KEY)
    return lines.drop(columns=["mean", "std", "size"])


def enough_noise(points: Tensor, allowed: float) -> float:
    """The noise-to-signal ratio κ at which the start costs about `allowed`, in the data's units.

    For Gaussian data N(m, λ) the probability-flow map takes a start N(0, σ²) to a Gaussian whose
    mean is off by |m|·√(λ/(λ + κ²)) and whose standard deviation is off by √λ·(1 − κ/√(λ + κ²));
    their root sum of squares is the W₂ that the prior costs. Other data are taken at their mean
    and at the largest eigenvalue λ of their covariance: an estimate, rounded up to one digit.

    Args:
        points: of the data, shape (n, dim).
        allowed: the W₂ allowed to the start.
    """
    mean = float(points.mean(0).norm())
    variance = float(torch.linalg.eigvalsh(points.T.cov().reshape(2 * (points.shape[1],)))[-1])

    def cost(ratio: float) -> float:
        root = math.sqrt(variance + ratio**2)
        shift = mean * math.sqrt(variance) / root
        return math.hypot(shift, math.sqrt(variance) * (1 - ratio / root))

    low, high = 0.0, 1.0
    while cost(high) > allowed:
        low, high = high, 2 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if cost(middle) > allowed else (low, middle)
    digit: float = 10.0 ** math.floor(math.log10(high))
    return math.ceil(high / digit - 1e-9) * digit


def verdict(budget: Budget, table: pd.DataFrame) -> list[str]:
    """What dominates each sampler's distance at the largest number of steps, and what would help.

    Args:
        budget: that wrote the table.
        table: rows of the results store.
    """
    lines = []
    found = parts(table, budget.converged_steps)
    moved = convergence(table, budget.converged_steps, budget.tolerance)
    for key, group in found.groupby(KEY):
        metric, sampler, settings = cast(tuple[str, str, str], key)
        most = int(group["steps"].max())
        last = group[group["steps"] == most]
        means = last[last["kind"] == "difference"].set_index("part")
        name = sampler_name(sampler, settings)
        found_parts = [part for part in PARTS[1:] if part in means.index]
        if "total" not in means.index:
            lines.append(f"{metric}, {name}, N={most}: no budget, its cells did not finish")
            continue
        sum_of = " ".join(f"{means['mean'][part]:+.2f} {part}" for part in found_parts)
        lines.append(
            f"{metric}, {name}, N={most}: {means['mean']['total']:.2f} = "
            f"{means['mean']['floor']:.2f} floor {sum_of}"
        )
        worst = max(found_parts, key=lambda part: float(means["mean"][part]))
        if means["lower"][worst] <= 0:
            lines.append("  nothing stands out of the floor at this n and number of repetitions")
        else:
            advice = _advice(budget, worst, float(means["mean"]["floor"]))
            lines.append(f"  {worst} dominates: {advice}")
        falls = group[(group["kind"] == "neighbours") & (group["part"] == "discretisation")]
        if len(falls) >= 2 and (falls["mean"] > 0).all():
            slope = np.polyfit(np.log(falls["steps"]), np.log(falls["mean"]), 1)[0]
            at = falls[falls["steps"] == most]["mean"].item()
            shares = all(
                s.couples or not s.stochastic for n, s in budget.sweep.samplers if n == sampler
            )
            paired = "paired" if shares else "not paired: fresh noise"
            lines.append(
                f"  discretisation ({paired}): {at:.2f} at N={most}, falls like N^{slope:.2f}"
            )
    for _, line in moved.iterrows():
        move, half = float(line["moved"]), float(line["half"])
        name = sampler_name(line["sampler"], line["sampler_settings"])
        text = (
            f"{line['metric']}, {name}: {budget.converged_steps} → {2 * budget.converged_steps} "
            f"steps move the distance by {move:+.3f} ± {half:.3f}"
        )
        if not line["converged"]:
            more = f"more than the tolerance {budget.tolerance:g}; raise budget.converged_steps"
            lines.append(f"NOT converged, {text}, {more}")
        elif abs(move) + half > budget.tolerance:
            more = f"too uncertain for the tolerance {budget.tolerance:g}; raise repetitions"
            lines.append(f"perhaps not converged, {text}, {more}")
        else:
            lines.append(f"converged, {text}, within the tolerance {budget.tolerance:g}")
    return lines


def _advice(budget: Budget, part: str, floor: float) -> str:
    sweep = budget.sweep
    if part == "discretisation":
        return "take more steps, or a sampler of higher order"
    if part in ("finite data", "generalisation"):
        return "take more training data"
    if part in ("score", "optimisation"):
        return "train longer, or a larger network" + (", or on more data" * (part == "score"))
    first = sweep.levels(max(sweep.steps)).rows[0]
    if first.alpha == 0:
        return "start from the exact law: this path ends without signal, so the start is a choice"
    now = first.sigma / first.alpha
    want = enough_noise(sweep.reference, floor / 5)
    key = "schedule.sigma_max" if hasattr(sweep.schedule, "sigma_max") else "grid.noise_max"
    return f"prior mismatch: raise {key} from {now:g} to about {want:g}"
