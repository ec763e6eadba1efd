"""The error budget: the parts of a distance due to the floor, the steps, the start and the score.

A cell is n samples of a law Φ(denoiser, start, N). The budget goes from the cell that is used in
practice to the data, and changes one thing at a time:

    A = Φ(learned, prior, N)  →  B = Φ(oracle, prior, N)  →  C = Φ(oracle, exact, N)
                              →  C∞ = Φ(oracle, exact, ∞) = data.

There are two budgets. Let d be the distance to the data.

- *Differences of distances* add up exactly, for every repetition:

      d(A) = d(C∞) + [d(C) − d(C∞)] + [d(B) − d(C)] + [d(A) − d(B)]
             floor   discretisation   start           score

  A difference may be negative (two errors can cancel) and depends on the order of the path. For a
  divergence such as kl_law the start comes first, so the discretisation is the part that more steps
  remove: with B∞ = Φ(oracle, prior, ∞),

      d(A) = d(C∞) + [d(B∞) − d(C∞)] + [d(B) − d(B∞)] + [d(A) − d(B)]
             floor   start             discretisation   score

  A divergence has no floor of draws; d(C∞) is the error at the end of the path.

  With `final=none` all runs end at the smallest level with σ > 0 and keep its noise. With D the
  converged run that continues to x̂₀ from the same states, the floor is d(D), and d(C∞) − d(D) is
  the *truncation*. With `final=denoise` C∞ is D, so there is no such part.
- *Distances between neighbours*, W(A, B), W(B, C), W(C, C∞), are never negative. They do not add
  up; by the triangle inequality d(A) ≤ W(A, B) + W(B, C) + W(C, C∞) + d(C∞). Neighbours share their
  starts and noise, so most sampling noise cancels: W(C, C∞), the *paired* discretisation, shows an
  error of the sampler far below the floor. If a sampler draws noise, all its runs in a budget draw
  the increments of one Brownian path (see `coupling`). A sampler that does not couple shares the
  start only; then W(C, C∞) is not paired, and the text says so.

A corrupted or guided score may replace *learned*. Then the score's part is the effect of that
change. If the sweep also has the denoiser *empirical*, the ideal denoiser of the training set, the
part of a learned score is split in two: oracle to empirical is the error of finite data, empirical
to network is the error of the optimisation. If the law of the data is not known, the oracle is the
ideal denoiser of the training set, the floor is the distance of C∞ to training points, and the
signed part *generalisation* is the distance to held-out data minus that to training points. The
ideal denoiser memorises, so a "score error" against it is not a defect. A metric against the law
itself has no distance to training points: its floor is d(C∞), which contains the generalisation.

Neighbours depend on each other, so a metric that needs independent clouds (an unbiased energy
distance, an MMD) has only the differences.

*Converged runs* have the settings of their sampler: the limits of DDIM at η = 0 and 1 are an ODE
and an SDE, whose laws differ with a learned score. All deterministic samplers have the same
limit, the probability-flow ODE, which Heun reaches with the fewest steps. Convergence is checked by
doubling M, the number of steps. Let μ be the mean over repetitions of d(C_2M) − d(C_M), and h half
of its 95 % interval. A limit is

    converged                if |μ| + h ≤ tolerance·d(C_2M),
    NOT converged            if |μ| > tolerance·d(C_2M),
    perhaps not converged    otherwise, and for a single repetition, which has no h.

For a metric of laws d(C_2M) can be as small as rounding. There the smallest distance that the
budget decomposes replaces it, if that is larger.

Distances to the data cannot show errors far below the floor. So the table also has W(C_M, C_2M),
between runs that share starts and noise: a paired discretisation below it is not resolved.

C∞ is the law of the data only if the path and its grid end there. After a last step from a σ that
is too large, or on a path that keeps noise, C∞ is above the floor of fresh draws. The text says so
if the rank test with Holm's correction finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from samplerbench.bench.cell import Against, Cell, Row
from samplerbench.bench.store import LIMIT
from samplerbench.bench.sweep import LazySamples, Reference, Samples, Sweep
from samplerbench.core.lazy import Lazy
from samplerbench.core.starts import Sobol
from samplerbench.errors import InvalidSetting, require, require_compatible
from samplerbench.identity import content, settings_text
from samplerbench.metrics.base import Distance, Divergence, LawMetric, Metric
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.heun import Heun

#: Distances between neighbours, by part: the `reference` column of their rows.
NEIGHBOURS = {
    "truncation": "denoised",
    "discretisation": "converged",
    "start": "exact",
    "finite data": "oracle",
    "optimisation": "empirical",
    "score": "oracle",
}


#: The converged run of all samplers that draw no noise; each other sampler has its own.
ODE = f"ODE{LIMIT}"
#: The `reference` of the rows W(C_M, C_2M), M the converged number of steps.
DOUBLED = "doubled"


def scores(denoisers: Iterable[str]) -> list[str]:
    """The denoisers whose error is the part `score`: all except the references, each once."""
    return [name for name in dict.fromkeys(denoisers) if name not in ("oracle", "empirical", "law")]


@dataclass(frozen=True)
class Budget:
    """A sweep whose distances are divided into parts."""

    # its denoisers are oracle and, for the part score, one more; its starts are an exact one and,
    # for the part start, one more
    sweep: Sweep
    converged_steps: int = 400  # the number of steps of the converged runs
    # the largest change of the distance, as a share of it, when `converged_steps` is doubled
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        most = max(self.sweep.all_steps)
        steps, allowed = self.converged_steps, f"above the largest number of steps, {most}"
        require(steps > most, "budget.converged_steps", steps, allowed)
        allowed = "positive and below 1: a share of the distance, not in the units of the data"
        require(0 < self.tolerance < 1, "budget.tolerance", self.tolerance, allowed)
        denoisers = list(self.sweep.denoisers)
        allowed = "with oracle: the budget needs the exact denoiser"
        require("oracle" in denoisers, "denoiser", denoisers, allowed)
        tested = scores(denoisers)
        allowed = "one score beside oracle: an error budget has one part for it; run one for each"
        require(len(tested) <= 1, "denoiser", tested, allowed)
        split = "empirical" in denoisers and tested not in ([], ["learned"])
        allowed = "without empirical, which splits the error of a learned score only"
        require(not split, "denoiser", denoisers, allowed)
        starts = self.sweep.starts
        exact = [name for name, start in starts.items() if start.uses_data]
        allowed = "exact or exact_sobol: the budget needs one exact start"
        require(len(exact) == 1, "start", list(starts), f"with {allowed}")
        require(len(starts) <= 2, "start", list(starts), "the exact one and at most one other")
        even = {isinstance(start, Sobol) for start in starts.values()}
        # the floors differ, and the difference would count as a part of the start
        allowed = "both drawn evenly (exact_sobol, prior_sobol) or neither: their floors differ"
        require(len(even) == 1, "start", list(starts), allowed)
        require(self.sweep.truth is None, "reference_noise", "above 0", "0 in an error budget")
        for name, sampler in self.sweep.samplers:
            if sampler.order is None and not sampler.brings_levels:
                allowed = (
                    "one that declares an order: the error of the others need not vanish with many "
                    "steps of the path, so an error budget is not applicable; leave budget=null"
                )
                raise InvalidSetting("sampler", name, allowed)
        n = self.sweep.n_samples  # neighbours are clouds of n points each
        for name, metric in self.sweep.metrics.items():
            if isinstance(metric, Metric) and metric.allows_coupled:
                require_compatible(metric.why_too_large(n, n), "metric", name)
        self._require_training_points()
        once = {*self.sweep.metrics} <= {*self.sweep.exact_metrics}
        count, allowed = self.sweep.repetitions, "at least 2: one repetition has no interval"
        require(once or count >= 2, "repetitions", count, allowed)

    def _require_training_points(self) -> None:
        """Refuse, before any work, a finite data set with too few points for `_to_training`."""
        if self.sweep.dataset.known_law:
            return
        count = len(self.sweep.reference)
        try:
            self.sweep.dataset.draws(count, "train", self.sweep.data_seed)
        except InvalidSetting as error:
            allowed = f"{error.allowed}; an error budget also uses as many training points"
            raise InvalidSetting("n_reference", count, allowed) from error

    @property
    def exact(self) -> str:
        """The name of the exact start, which uses the data."""
        return next(name for name, start in self.sweep.starts.items() if start.uses_data)

    @property
    def prior(self) -> str | None:
        """The name of the other start, or None."""
        return next((name for name in self.sweep.starts if name != self.exact), None)

    @property
    def other_denoisers(self) -> list[str]:
        """The denoisers besides the oracle, in the order of the path."""
        names = self.sweep.denoisers
        return [*(["empirical"] * ("empirical" in names)), *scores(names)]

    def row_count(self) -> int:
        """The number of rows of `run`."""
        sweep = self.sweep
        clouds = [metric for metric in sweep.metrics.values() if isinstance(metric, Metric)]
        between = sum(metric.allows_coupled for metric in clouds)
        path = 1 + (self.prior is not None) + len(self.other_denoisers)
        counts = sum(len(sweep.steps_of(sampler)) for _, sampler in sweep.samplers)
        stochastic = sum(sampler.stochastic for _, sampler in sweep.samplers)
        limits = stochastic + (stochastic < len(sweep.samplers))
        ends = 2 + (sweep.final == "none")
        # for each metric: its number of repetitions, and whether it is a divergence
        once = sweep.exact_metrics
        of_laws = [
            (1 if name in once else sweep.repetitions, (name in self._divergences))
            for name in sweep.metrics
        ]
        rows = sum(
            times * (path * counts + limits * (ends + (begins and self.prior is not None)))
            for times, begins in of_laws
        )
        of_pairs = path * counts * between + limits * (ends - 1) * between
        if not sweep.dataset.known_law:
            of_pairs += limits * len(clouds)
        floor = sum(len(sweep.metrics_of(cell)) for cell in sweep.floor_cells())
        return floor + rows + sweep.repetitions * of_pairs

    def paired(self, name: str, settings: str) -> bool:
        """Whether runs of a sampler, or its limit, with different steps have the same noise."""
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

        ode: dict[int, LazySamples] = {}

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

    def _walk(self, cell: Cell, to_data: dict[str, Reference]) -> tuple[LazySamples, list[Row]]:
        samples = self.sweep.lazy_samples(cell)
        names = self.sweep.metrics_of(cell)
        return samples, [self.sweep.measure(samples, name, to_data[name]) for name in names]

    def _limit(
        self, name: str, sampler: Sampler, repetition: int, to_data: dict[str, Reference]
    ) -> tuple[LazySamples, list[Row]]:
        """C∞ by twice the converged steps, with its rows and the rows of the convergence check."""
        coupled = sampler.stochastic and sampler.couples
        first = Cell("oracle", self.exact, name, sampler, self.converged_steps, repetition, coupled)
        before, rows = self._walk(first, to_data)
        end, more = self._walk(replace(first, steps=2 * self.converged_steps), to_data)
        rows += more
        for metric in self.sweep.metrics:
            rows += between(self.sweep, before, metric, DOUBLED, end)
        denoised = end
        if self.sweep.final == "none":
            # one more step: the same levels, then the data
            cell = replace(end.cell, steps=end.cell.steps + 1, final="denoise")
            denoised, more = self._walk(cell, to_data)
            rows += more
            for metric in self.sweep.metrics:
                rows += between(self.sweep, end, metric, NEIGHBOURS["truncation"], denoised)
        if not self.sweep.dataset.known_law:
            rows += self._to_training(denoised)
        if self.prior is not None:
            cell = replace(end.cell, start=self.prior)
            from_prior, names = self.sweep.lazy_samples(cell), self.sweep.metrics_of(cell)
            for one in self._divergences:
                if one in names:
                    rows.append(self.sweep.measure(from_prior, one, to_data[one]))
        return end, rows

    @property
    def _divergences(self) -> list[str]:
        """The names of the divergences, in whose budget the start comes first."""
        metrics = self.sweep.metrics
        return [name for name, metric in metrics.items() if isinstance(metric, Divergence)]

    @cached_property
    def _training_points(self) -> Tensor:
        """As many training points as there are evaluation points."""
        sweep = self.sweep
        return sweep.dataset.draws(len(sweep.reference), "train", sweep.data_seed).to(sweep.device)

    def _to_training(self, samples: LazySamples) -> list[Row]:
        """The distances to training points."""
        sweep, points = self.sweep, self._training_points
        against = Against("training", len(points), content(points))

        def to(metric: Metric) -> Reference:
            return Reference(Lazy(lambda: metric.against(points, seed=sweep.metric_seed)), against)

        return [
            sweep.measure(samples, name, to(metric))
            for name, metric in sweep.metrics.items()
            if not isinstance(metric, LawMetric)
        ]

    def _path(
        self,
        name: str,
        sampler: Sampler,
        repetition: int,
        end: LazySamples,
        to_data: dict[str, Reference],
    ) -> list[Row]:
        """C, B and A at every number of steps, with the distances to the data and the neighbour."""
        rows: list[Row] = []
        for steps in self.sweep.steps_of(sampler):
            before = end
            coupled = sampler.stochastic and sampler.couples
            cell = Cell("oracle", self.exact, name, sampler, steps, repetition, coupled)
            path = [("discretisation", cell)]
            if self.prior is not None:
                cell = replace(cell, start=self.prior)
                path.append(("start", cell))
            for denoiser in self.other_denoisers:
                part = "finite data" if denoiser == "empirical" else "score"
                if part == "score" and "empirical" in self.other_denoisers:
                    part = "optimisation"
                path.append((part, replace(cell, denoiser=denoiser)))
            for part, cell in path:
                after, more = self._walk(cell, to_data)
                rows += more
                for metric in self.sweep.metrics:
                    rows += between(self.sweep, after, metric, NEIGHBOURS[part], before)
                before = after
        return rows


def between(
    sweep: Sweep, samples: LazySamples, metric: str, reference: str, other: LazySamples
) -> list[Row]:
    """The row of W(samples, other); none for a metric that needs independent clouds.

    Args:
        metric: the name of a metric of the sweep.
        reference: the name of the other samples in the column `reference`.
    """
    plain = sweep.metrics[metric]
    if isinstance(plain, LawMetric) or not plain.allows_coupled:
        return []

    def draw() -> Samples:
        ours, theirs = samples.draw(), other.draw()
        if theirs.points is not None:
            return ours
        return replace(ours, points=None, status=theirs.status, message=theirs.message)

    def distance() -> Distance:
        points = other.draw().points
        assert points is not None  # otherwise nothing is measured, see above
        return plain.against(points, seed=sweep.metric_seed)

    books = sweep.books
    neighbour = Against(
        reference, sweep.n_samples, books.samples_id(other.cell), books.samples_setting(other.cell)
    )
    paired = replace(samples, draw=Lazy(draw))
    return [sweep.measure(paired, metric, Reference(Lazy(distance), neighbour))]
