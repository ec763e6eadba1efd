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
"score error" against it is not a defect. A metric against the law itself cannot be asked of
training points: there the floor is d(C∞), with the generalisation in it.

Neighbours depend on each other, so a metric that supposes independent clouds (an unbiased energy
distance, an MMD) has the differences only.

*Converged* keeps the sampler's settings, since the limits of DDIM at η = 0 and 1 are an ODE and an
SDE, and a learned score has different laws on them; every deterministic member has the same limit,
the probability-flow ODE, which Heun reaches soonest. It is checked by doubling M, the number of
steps. With μ the mean over repetitions of d(C_2M) − d(C_M) and h half of its 95 % interval, a
limit is

    converged                where |μ| + h ≤ tolerance,
    NOT converged            where |μ| > tolerance,
    perhaps not converged    in between, or where one repetition has no h.

That is about distances to the data, behind whose floor much can hide. So W(C_M, C_2M) is given as
well, between runs that share starts and noise: a paired discretisation is not resolved below it.

C∞ is the law of the data only where the path and its grid lead there: a last step from a σ that is
too large, or a path that keeps noise, leaves C∞ above the floor of fresh draws. Where Welch's test
with Holm's correction can tell, the words say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samplerbench.errors import InvalidSetting, require
from samplerbench.evaluation.cell import Against, Cell, Row, sampler_name
from samplerbench.evaluation.identity import content, settings_text
from samplerbench.evaluation.statistics import holm, student_half, welch
from samplerbench.evaluation.store import LIMIT
from samplerbench.evaluation.sweep import Drawing, Drawn, Once, Reference, Sweep
from samplerbench.metrics.base import Distance, LawMetric, Metric
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.heun import Heun
from samplerbench.starts import FixedGaussian, Sobol

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


#: The one converged run of all samplers that draw no noise; each of the others has its own.
ODE = f"ODE{LIMIT}"
#: The `reference` of the rows W(C_M, C_2M), M the converged number of steps.
DOUBLED = "doubled"


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
        most = max(self.sweep.all_steps)
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
        even = {isinstance(start, Sobol) for start in starts.values()}
        # their floors differ, and the difference would be taken for a part of the start's
        allowed = "both drawn evenly (exact_sobol, prior_sobol) or neither: their floors differ"
        require(len(even) == 1, "start", list(starts), allowed)
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
            reason = None
            if isinstance(metric, Metric) and metric.allows_coupled:
                reason = metric.why_too_large(n, n)
            if reason is not None:
                raise InvalidSetting("metric", name, f"another one: {reason}")
        self._require_training_points()
        require(
            self.sweep.repetitions >= 2,
            "repetitions",
            self.sweep.repetitions,
            "at least 2: one repetition has no interval",
        )

    def _require_training_points(self) -> None:
        """Ask for what `_to_training` draws before any work: a finite data set may not have it."""
        if self.sweep.dataset.known_law:
            return
        count = len(self.sweep.reference)
        try:
            self.sweep.dataset.draws(count, "train", self.sweep.data_seed)
        except InvalidSetting as error:
            allowed = f"{error.allowed}; an error budget measures to as many training points"
            raise InvalidSetting("n_reference", count, allowed) from error

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
        clouds = [metric for metric in sweep.metrics.values() if isinstance(metric, Metric)]
        between = sum(metric.allows_coupled for metric in clouds)
        path = 1 + (self.prior is not None) + len(self.others)
        counts = sum(len(sweep.steps_of(sampler)) for _, sampler in sweep.samplers)
        of_cells = path * counts * (len(sweep.metrics) + between)
        of_limit = 2 * len(sweep.metrics) + between
        if not sweep.dataset.known_law:
            of_limit += len(clouds)
        stochastic = sum(sampler.stochastic for _, sampler in sweep.samplers)
        limits = stochastic + (stochastic < len(sweep.samplers))
        floor = len(sweep.floor_cells()) * len(sweep.metrics)
        return floor + sweep.repetitions * (of_cells + limits * of_limit)

    def paired(self, name: str, settings: str) -> bool:
        """Whether runs of a sampler with different numbers of steps see the same noise.

        Args:
            name: the sampler's, or its limit's.
            settings: as in the table's column `sampler_settings`.
        """
        name = name.removesuffix(LIMIT)
        return all(
            sampler.couples or not sampler.stochastic
            for other, sampler in self.sweep.samplers
            if other == name and settings in ("", settings_text(sampler))
        )

    def run(self, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """All rows of all budgets; `on_row` as in `Sweep.run`."""
        sweep = self.sweep
        to_data = sweep.distances()
        repetitions = range(sweep.repetitions)

        def floor(cell: Cell) -> list[Row]:
            return self._walk(cell, to_data)[1]

        ode: dict[int, Drawing] = {}

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

    def _walk(self, cell: Cell, to_data: dict[str, Reference]) -> tuple[Drawing, list[Row]]:
        drawing = self.sweep.drawing(cell)
        return drawing, [self.sweep.measure(drawing, name, to) for name, to in to_data.items()]

    def _limit(
        self, name: str, sampler: Sampler, repetition: int, to_data: dict[str, Reference]
    ) -> tuple[Drawing, list[Row]]:
        """C∞, from twice the converged steps, with its rows and those of the check."""
        coupled = sampler.stochastic and sampler.couples
        first = Cell("oracle", self.exact, name, sampler, self.converged_steps, repetition, coupled)
        before, rows = self._walk(first, to_data)
        end, more = self._walk(replace(first, steps=2 * self.converged_steps), to_data)
        rows += more
        for metric in self.sweep.metrics:
            rows += self._between(before, metric, DOUBLED, end)
        if not self.sweep.dataset.known_law:
            rows += self._to_training(end)
        return end, rows

    @cached_property
    def _training_points(self) -> Tensor:
        """As many training points as there are evaluation points."""
        sweep = self.sweep
        return sweep.dataset.draws(len(sweep.reference), "train", sweep.data_seed).to(sweep.device)

    def _to_training(self, drawing: Drawing) -> list[Row]:
        """The distances to training points."""
        sweep, points = self.sweep, self._training_points
        against = Against("training", len(points), content(points))

        def to(metric: Metric) -> Reference:
            distance = Once(lambda: metric.against(points, seed=sweep.metric_seed))
            return Reference(distance, against)

        return [
            sweep.measure(drawing, name, to(metric))
            for name, metric in sweep.metrics.items()
            if not isinstance(metric, LawMetric)
        ]

    def _path(
        self,
        name: str,
        sampler: Sampler,
        repetition: int,
        end: Drawing,
        to_data: dict[str, Reference],
    ) -> list[Row]:
        """C, B and A at every number of steps, each measured to the data and to its neighbour."""
        rows: list[Row] = []
        for steps in self.sweep.steps_of(sampler):
            before = end
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
                drawing, more = self._walk(cell, to_data)
                rows += more
                for metric in self.sweep.metrics:
                    rows += self._between(drawing, metric, NEIGHBOURS[part][1], before)
                before = drawing
        return rows

    def _between(self, drawing: Drawing, metric: str, reference: str, other: Drawing) -> list[Row]:
        """The row of W(drawing, other), or none where the metric cannot be asked for it."""
        sweep = self.sweep
        plain = sweep.metrics[metric]
        if isinstance(plain, LawMetric) or not plain.allows_coupled:
            return []

        def drawn() -> Drawn:
            ours, there = drawing.drawn(), other.drawn()
            if there.samples is not None:
                return ours
            return replace(ours, samples=None, status=there.status, message=there.message)

        def distance() -> Distance:
            there = other.drawn().samples
            assert there is not None  # otherwise nothing is measured, see above
            return plain.against(there, seed=sweep.metric_seed)

        books = sweep.books
        neighbour = Against(
            reference,
            sweep.n_samples,
            books.samples_id(other.cell),
            books.samples_setting(other.cell),
        )
        paired = Drawing(drawing.cell, Once(drawn))
        return [sweep.measure(paired, metric, Reference(Once(distance), neighbour))]


#: A sampler with its settings; its eta is part of them, and NaN is no key to join on.
KEY = ["metric", "sampler", "sampler_settings"]


def parts(table: pd.DataFrame, converged_steps: int, level: float = 0.95) -> pd.DataFrame:
    """The budget of every cell, one line per part.

    Columns: metric, sampler, sampler_settings, eta, steps, part (one of `PARTS`, or total), and
    mean, lower, upper, count of its difference of distances (`kind` difference, paired within a
    repetition) or of its distance between neighbours (`kind` neighbours). A part whose cells did
    not finish has no line; differences are of the repetitions that have all parts, if any has, so
    that their means add up too.

    Args:
        table: rows of the results store, written by `Budget.run`.
        converged_steps: of the budget.
        level: of the t intervals over repetitions.

    Raises:
        InvalidSetting: if the table holds no budget.
    """
    limits = table[table["sampler"].str.endswith(LIMIT)]
    if limits.empty:
        raise InvalidSetting("experiment", "this run", "budget: the table holds no converged run")
    ok = table[table["status"] == "ok"]
    to_data = ok[ok["reference"].isin(["data", "law"])]
    cells = to_data[~to_data["sampler"].str.endswith(LIMIT) & (to_data["denoiser"] != "law")]
    start = limits["start"].iloc[0]  # the converged run has the exact one
    oracle, exact = cells["denoiser"] == "oracle", cells["start"] == start
    index = [*KEY, "steps", "repetition"]

    def distances(rows: pd.DataFrame) -> pd.Series:
        return rows.set_index(index)["value"]

    frame = pd.DataFrame({"C": distances(cells[oracle & exact])})
    frame["C∞"] = _at_limit(limits, ["data", "law"], converged_steps, frame.index)
    differences = {"floor": frame["C∞"], "discretisation": frame["C"] - frame["C∞"]}
    training = _at_limit(limits, ["training"], converged_steps, frame.index)
    to_points = training.notna().groupby(level="metric").transform("any")
    if to_points.any():  # a metric against the law is asked of no training points
        differences["floor"] = training.where(to_points, frame["C∞"])
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
    differences = _complete(differences)
    blocks = [_intervals(of, part, "difference", level) for part, of in differences.items()]
    for part, (denoiser, reference) in NEIGHBOURS.items():
        rows = ok[(ok["reference"] == reference) & (ok["denoiser"] == denoiser)]
        if not rows.empty:
            blocks.append(_intervals(distances(rows), part, "neighbours", level))
    etas = cells[[*KEY, "eta"]].drop_duplicates()
    return pd.concat(blocks, ignore_index=True).merge(etas, on=KEY)


def _at_limit(
    limits: pd.DataFrame, references: list[str], converged_steps: int, index: pd.Index
) -> pd.Series:
    """The value of the converged run that belongs to each entry of an index of cells.

    A sampler that draws noise has a limit of its own; where that failed it has none: the ODE's is
    that of the others.
    """
    own = {
        (sampler.removesuffix(LIMIT), settings)
        for sampler, settings in zip(limits["sampler"], limits["sampler_settings"], strict=True)
        if sampler != ODE
    }
    rows = limits[limits["reference"].isin(references) & (limits["status"] == "ok")]
    rows = rows[rows["steps"] == 2 * converged_steps]
    ends = rows.set_index(["metric", "sampler", "sampler_settings", "repetition"])["value"]
    known = ends.to_dict()
    values = []
    for metric, sampler, settings, _, repetition in index:
        has_own = (sampler, settings) in own
        limit = (f"{sampler}{LIMIT}", settings) if has_own else (ODE, "")
        values.append(known.get((metric, *limit, repetition), math.nan))
    return pd.Series(values, index=index, dtype=float)


def _complete(differences: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """The differences of those repetitions of a cell that have all of them, where any has.

    Otherwise the parts would be means over different repetitions, and not add up.
    """
    there = pd.concat(list(differences.values()), axis=1).notna()
    # what no cell of a metric has is no part of it
    none = ~there.groupby(level="metric").transform("any")
    whole = (there | none).all(axis=1)
    some = whole.groupby(level=[*KEY, "steps"]).transform("any")
    return {part: values.where(whole | ~some) for part, values in differences.items()}


def _intervals(values: pd.Series, part: str, kind: str, level: float) -> pd.DataFrame:
    groups = values.dropna().groupby(level=[*KEY, "steps"])
    lines = groups.agg(["mean", "std", "size"]).reset_index()
    half = student_half(lines["std"], lines["size"], level)
    return lines.assign(
        part=part,
        kind=kind,
        lower=lines["mean"] - half,
        upper=lines["mean"] + half,
        count=lines["size"],
    ).drop(columns=["std", "size"])


CONVERGED, PERHAPS_NOT, NOT = "converged", "perhaps not converged", "NOT converged"


def convergence(table: pd.DataFrame, converged_steps: int, tolerance: float) -> pd.DataFrame:
    """How far doubling the converged number of steps moved the distance, one line per limit.

    Columns: those of `KEY`, eta, moved (mean over repetitions, paired), half (of its 95 %
    interval), apart and apart_half (the same of the distance between the two runs, NaN where the
    metric cannot be asked for it), state (see the module) and converged, whether it is just that.
    """
    ok = table[(table["status"] == "ok") & table["sampler"].str.endswith(LIMIT)]
    to_data = ok[ok["reference"].isin(["data", "law"])]
    wide = to_data.pivot_table(index=[*KEY, "repetition"], columns="steps", values="value")
    wide = wide.reindex(columns=[converged_steps, 2 * converged_steps])
    moved = _means((wide[2 * converged_steps] - wide[converged_steps]).dropna())
    between = ok[ok["reference"] == DOUBLED].set_index([*KEY, "repetition"])["value"]
    apart = _means(between).rename(columns={"mean": "apart", "half": "apart_half"})
    lines = moved.rename(columns={"mean": "moved"}).merge(apart, on=KEY, how="left")
    size = lines["moved"].abs()
    state = np.where(size + lines["half"] <= tolerance, CONVERGED, PERHAPS_NOT)
    state = np.where(size > tolerance, NOT, state)
    lines = lines.assign(state=state, converged=state == CONVERGED)
    return lines.merge(to_data[[*KEY, "eta"]].drop_duplicates(), on=KEY)


def _means(values: pd.Series) -> pd.DataFrame:
    """The mean over repetitions and half of its 95 % interval, for each limit."""
    lines = values.groupby(level=KEY).agg(["mean", "std", "size"]).reset_index()
    half = student_half(lines["std"], lines["size"])
    return lines.assign(half=half).drop(columns=["std", "size"])


def enough_noise(points: Tensor, allowed: float) -> float:
    """The noise-to-signal ratio κ at which the start costs about `allowed`, in the data's units.

    For Gaussian data N(m, λ) the probability-flow map takes a start N(0, σ²) to a Gaussian whose
    mean is off by |m|·√(λ/(λ + κ²)) and whose standard deviation is off by √λ·(1 − κ/√(λ + κ²));
    their root sum of squares is the W₂ that the prior costs. Other data are taken at their mean
    and at the largest eigenvalue λ of their covariance: an estimate, rounded up to one digit.

    Args:
        points: of the data, shape (n, dim).
        allowed: the W₂ allowed to the start, above 0.
    """
    require(0 < allowed < math.inf, "allowed", allowed, "positive and finite")
    mean = float(points.mean(0).norm())
    covariance = points.T.cov().reshape(2 * (points.shape[1],))
    variance = max(0.0, float(torch.linalg.eigvalsh(covariance)[-1]))

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
    found = parts(table, budget.converged_steps)
    moved = convergence(table, budget.converged_steps, budget.tolerance)
    cells = table[~table["sampler"].str.endswith(LIMIT) & (table["denoiser"] != "law")]
    lines = []
    for key, group in cells.groupby(KEY):
        of_key = (found[KEY] == pd.Series(key, KEY)).all(axis=1)
        lines += _words(budget, table, group, found[of_key], moved)
    for _, line in moved.iterrows():
        lines.append(_words_of_limit(budget, line))
    lines += _above_the_floor(budget, table)
    if "learned" in budget.sweep.denoisers:
        lines.append(
            "one training: an interval of the network's part is over samples; "
            "-m train_seed=0,1,2 for trainings"
        )
    return lines


def _words(
    budget: Budget,
    table: pd.DataFrame,
    cells: pd.DataFrame,
    found: pd.DataFrame,
    moved: pd.DataFrame,
) -> list[str]:
    """The lines of one sampler setting.

    Args:
        budget: that wrote the table.
        table: all its rows.
        cells: the rows of the setting.
        found: its lines of `parts`.
        moved: all lines of `convergence`.
    """
    metric, sampler, settings = (str(cells[name].iloc[0]) for name in KEY)
    most = int(cells["steps"].max())
    last = found[found["steps"] == most]
    means = last[last["kind"] == "difference"].set_index("part")
    title = f"{metric}, {sampler_name(sampler, settings)}, N={most}"
    limit = _limit_of(budget, table, metric, sampler, settings)
    if not (limit["status"] == "ok").any():
        why = "; ".join(dict.fromkeys(limit["message"])) or "it was not run"
        return [f"{title}: no budget: its limit failed: {why}"]
    if not {"total", "floor"} <= set(means.index):
        why = "; ".join(dict.fromkeys(filter(None, cells["message"]))) or "they did not finish"
        return [f"{title}: no budget: its cells have no value: {why}"]
    form = ".2f" if budget.sweep.metrics[metric].is_wasserstein else ".2g"
    names = [part for part in PARTS[1:] if part in means.index]
    sum_of = " ".join(f"{means['mean'][part]:+{form}} {part}" for part in names)
    lines = [
        f"{title}: {means['mean']['total']:{form}} = {means['mean']['floor']:{form}} floor {sum_of}"
    ]
    # not the largest mean: that may be one of which nothing is known
    certain = [part for part in names if means["lower"][part] > 0]
    if not budget.sweep.metrics[metric].smaller_is_better:
        lines.append("  no advice: of this metric neither a small value nor a large one is better")
    elif certain:
        worst = max(certain, key=lambda part: float(means["mean"][part]))
        advice = _advice(budget, worst, metric, float(means["mean"]["floor"]))
        lines.append(f"  {worst} dominates: {advice}")
    else:
        lines.append("  nothing stands out of the floor at this n and number of repetitions")
    neighbours = (found["kind"] == "neighbours") & (found["part"] == "discretisation")
    falls = found[neighbours].set_index("steps")["mean"].sort_index()
    if most in falls.index:
        paired = "paired" if budget.paired(sampler, settings) else "not paired: fresh noise"
        text = f"  discretisation ({paired}): {falls[most]:.2f} at N={most}{_fall(falls)}"
        own = moved["sampler"].isin(limit["sampler"]) & (moved["metric"] == metric)
        own &= moved["sampler_settings"].isin(limit["sampler_settings"])
        apart = float(moved.loc[own, "apart"].max())
        if paired == "paired" and falls[most] <= apart:
            text += f"; not resolved: doubling its limit's steps moves the samples by {apart:.2f}"
        lines.append(text)
    return lines


def _limit_of(
    budget: Budget, table: pd.DataFrame, metric: str, sampler: str, settings: str
) -> pd.DataFrame:
    """The rows of d(C∞) of a sampler setting: of its own limit, or of the one that all share."""
    rows = table[(table["metric"] == metric) & table["reference"].isin(["data", "law"])]
    rows = rows[rows["steps"] == 2 * budget.converged_steps]
    own = (table["sampler"] == f"{sampler}{LIMIT}") & (table["sampler_settings"] == settings)
    return rows[own[rows.index] if own.any() else rows["sampler"] == ODE]


def _fall(falls: pd.Series) -> str:
    """How a paired discretisation falls with N, in words; nothing where one N cannot say."""
    if len(falls) < 2 or not (falls > 0).all():
        return ""
    x, y = np.log(falls.index.to_numpy(float)), np.log(falls.to_numpy(float))
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    rest = y - slope * x
    error = ""
    if len(falls) > 2:
        error = f" ± {math.sqrt(rest @ rest / (len(falls) - 2) / (x @ x)):.2f}"
    if slope >= 0:
        return f", does not fall: N^{slope:+.2f}{error}"
    return f", falls like N^{slope:.2f}{error}"


def _words_of_limit(budget: Budget, line: pd.Series) -> str:
    """Whether a limit is one."""
    steps, tolerance = budget.converged_steps, f"the tolerance {budget.tolerance:g}"
    name = sampler_name(line["sampler"], line["sampler_settings"])
    form = ".3f" if budget.sweep.metrics[line["metric"]].is_wasserstein else ".2g"
    text = (
        f"{line['state']}, {line['metric']}, {name}: {steps} → {2 * steps} steps move the "
        f"distance by {line['moved']:+{form}} ± {line['half']:{form}}"
    )
    if not math.isnan(line["apart"]):
        text += f" and lie W = {line['apart']:.3f} ± {line['apart_half']:.3f} apart"
        if not budget.paired(line["sampler"], line["sampler_settings"]):
            text += " (not paired: fresh noise)"
        elif line["apart"] > budget.tolerance:
            text += " (a paired discretisation below that is not resolved)"
    if line["state"] == CONVERGED:
        return f"{text}: within {tolerance}"
    if line["state"] == NOT:
        return f"{text}: more than {tolerance}; raise budget.converged_steps"
    return f"{text}: too uncertain for {tolerance}; raise repetitions"


def _above_the_floor(budget: Budget, table: pd.DataFrame) -> list[str]:
    """Limits whose distance is not that of fresh draws of the law, by Welch's test and Holm's.

    Data without a known law are left out: there the limit is the training set, and its difference
    from held-out draws has a part of its own.
    """
    sweep = budget.sweep
    if not sweep.dataset.known_law:
        return []
    even = isinstance(sweep.starts[budget.exact], Sobol)
    ok = table[(table["status"] == "ok") & table["reference"].isin(["data", "law"])]
    floors = ok[(ok["denoiser"] == "law") & (ok["start"] == (budget.exact if even else ""))]
    limits = ok[ok["sampler"].str.endswith(LIMIT) & (ok["steps"] == 2 * budget.converged_steps)]
    lines = []
    for metric, of_metric in limits.groupby("metric"):
        floor = floors.loc[floors["metric"] == metric, "value"]
        groups = [
            (sampler_name(*cast(tuple[str, str], key)), group["value"])
            for key, group in of_metric.groupby(["sampler", "sampler_settings"])
            if len(group) > 1 and len(floor) > 1
        ]
        gaps = [welch(values, floor) for _, values in groups]
        for (name, _), gap, p_value in zip(
            groups, gaps, holm([gap.p_value for gap in gaps]), strict=True
        ):
            if p_value > 0.05:
                continue
            side = "above" if gap.mean > 0 else "below"
            draws = "even" if even else "fresh"
            text = (
                f"{metric}, {name}: the limit itself is {abs(gap.mean):.2g} ± {gap.half:.2g} "
                f"{side} the floor of {draws} draws ({floor.mean():.2g})"
            )
            if gap.mean > 0:
                text += f": {_what_is_left(budget, even and name != ODE)}"
            lines.append(text)
    return lines


def _what_is_left(budget: Budget, fresh_noise: bool) -> str:
    """What can keep a limit from the law of the data."""
    level = budget.sweep.levels(2 * budget.converged_steps).rows[-2]
    ratio = level.sigma / level.alpha if level.alpha > 0 else math.inf
    causes = f"the last step from σ/α={ratio:.3g} to the data, or the path's own noise"
    return f"{causes}, or fresh noise that is not even" if fresh_noise else causes


def _advice(budget: Budget, part: str, metric: str, floor: float) -> str:
    sweep = budget.sweep
    if part == "discretisation":
        return "take more steps, or a sampler of higher order"
    if part in ("finite data", "generalisation"):
        return "take more training data"
    if part in ("score", "optimisation"):
        return "train longer, or a larger network" + (", or on more data" * (part == "score"))
    start = sweep.starts[cast(str, budget.prior)]
    start = start.start if isinstance(start, Sobol) else start
    if isinstance(start, FixedGaussian):
        return (
            f"its mean {start.mean:g} and std {start.std:g} are not those of the path at the first "
            "level; compare start=prior"
        )
    first = sweep.levels(max(sweep.all_steps)).rows[0]
    if first.alpha == 0:
        return "start from the exact law: this path ends without signal, so the start is a choice"
    want = None  # a floor that is not a distance says nothing about σ
    if sweep.metrics[metric].is_wasserstein and floor > 0:
        want = enough_noise(sweep.reference, floor / 5)
    return _more_noise(sweep, first.sigma / first.alpha, want)


def _more_noise(sweep: Sweep, now: float, want: float | None) -> str:
    """Which setting gives the first level more noise: σ/α is now so much, and wanted so much."""
    if want is not None and want <= now:
        return (
            f"the start's mismatch is not from too little noise: σ/α is {now:g} at the first "
            f"level, and {want:g} would do for a Gaussian"
        )
    end = float(sweep.schedule.noise_to_signal(torch.ones(1, dtype=torch.float64)))
    settings = {
        name: parameter.default for name, parameter in signature(sweep.grid).parameters.items()
    }
    keys = []
    # the grid may stop before the path does, or be told where to, which binds when the path goes on
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
