"""Errors that the floor of a distance hides: two views in addition to the distances to the data.

If a sampler draws no noise, the density of its output is known, and KL(samples' law ‖ data's law)
is measured, in nats; see `densities`. For a sampler that draws noise this density is not known. Its
run is compared with a run of the same sampler with `TIMES` times the largest number of steps, from
the same starts and on the same Brownian path: the *paired* distance of an error budget. It shows
the error that more steps would remove, but no error of the start or the score. So it is measured
with the exact score, from the exact start, if the job has them.

Both views have one repetition. They use only some of the job's numbers of steps, each about twice
the next smaller one, so that a view costs a small part of its job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from samplerbench.bench.budget.run import between
from samplerbench.bench.cell import Cell, Row
from samplerbench.bench.densities import why_no_density
from samplerbench.bench.sweep import Sweep
from samplerbench.core.models import Denoiser
from samplerbench.metrics.base import AnyMetric, Metric
from samplerbench.metrics.kl_law import KLLaw

#: The name of the divergence, as in conf/metric/.
KL = "kl_law"
#: A divergence costs dim + 2 times the sampling: in more dimensions only the user can choose it.
MOST_DIM = 16
#: The steps of a converged run, in units of the largest number of steps of the job.
TIMES = 3
#: The `reference` of paired distances, as in an error budget.
CONVERGED = "converged"


@dataclass(frozen=True)
class FloorFree:
    """The two views of a sweep; see the module."""

    sweep: Sweep

    @property
    def converged_steps(self) -> int:
        """The number of steps of the converged runs."""
        return TIMES * max(self.sweep.all_steps)

    @property
    def why_no_divergence(self) -> str:
        """Why no divergence is measured, in one line; empty if one is."""
        sweep = self.sweep
        if KL in sweep.metrics:
            return "the job measures it"
        if sweep.truth is not None:
            return "it compares with the data, and the job compares with noised data"
        if sweep.dataset.dim > MOST_DIM:
            return f"in {sweep.dataset.dim:,} dimensions it takes long; metric={KL} measures it"
        return KLLaw().why_incompatible(sweep.dataset) or (
            "" if self._with_density else "no sampler here has an output with a known density"
        )

    @property
    def _with_density(self) -> list[Cell]:
        sweep = self.sweep
        cells = [
            Cell(denoiser, start, name, sampler, steps, 0)
            for denoiser in sweep.denoisers
            for name, sampler in sweep.samplers
            if not sampler.stochastic
            for start in sweep.starts_of(sampler)
            for steps in spread(sweep.steps_of(sampler))
        ]
        return [cell for cell in cells if why_no_density(sweep, cell) is None]

    @cached_property
    def divergences(self) -> list[Cell]:
        """The cells whose divergence is measured."""
        return [] if self.why_no_divergence else self._with_density

    @cached_property
    def paired(self) -> list[Cell]:
        """The cell of the converged run of each sampler that draws its noise on a Brownian path."""
        sweep = self.sweep
        names = [name for name, model in sweep.denoisers.items() if isinstance(model, Denoiser)]
        if self.metric is None or not names or sweep.truth is not None:
            return []
        denoiser = "oracle" if "oracle" in names else names[0]
        cells = []
        for name, sampler in sweep.samplers:
            if sampler.stochastic and sampler.couples and not sampler.holds:
                starts = sweep.starts_of(sampler)
                start = next((n for n, one in starts.items() if one.uses_data), next(iter(starts)))
                steps = self.converged_steps
                cells.append(Cell(denoiser, start, name, sampler, steps, 0, coupled=True))
        return cells

    @property
    def metric(self) -> str | None:
        """The name of the metric of paired distances: the first one that can compare runs."""
        n = self.sweep.n_samples
        return next(
            (
                name
                for name, metric in self.sweep.metrics.items()
                if isinstance(metric, Metric)
                and metric.is_wasserstein
                and metric.allows_coupled
                and metric.why_too_large(n, n) is None
            ),
            None,
        )

    @property
    def metric_above(self) -> str:
        """The name of the metric that is drawn above the views."""
        return self.metric or next(iter(self.sweep.metrics))

    @property
    def metrics(self) -> dict[str, AnyMetric]:
        """The divergence by its name; empty if none is measured."""
        return {KL: KLLaw()} if self.divergences else {}

    def pairs(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a results table that are paired distances."""
        return table[(table["reference"] == CONVERGED) & (table["metric"] == self.metric)]

    @property
    def absent(self) -> list[str]:
        """A line for each view that is missing, although samplers of this job could have it."""
        moving = [sampler for _, sampler in self.sweep.samplers if not sampler.holds]
        lines = []
        noisy = [sampler.stochastic for sampler in moving]
        if self.why_no_divergence and KL not in self.sweep.metrics and not all(noisy):
            lines.append(f"no {KL}: {self.why_no_divergence}")
        if not self.paired and any(noisy):
            space = "a distance between samples, such as sliced"
            driven = "a sampler whose noise is one Brownian path for every N, such as ancestral"
            needed = f"{driven}, and {space}"
            if self.metric is None:
                needed = space
            elif not any(sampler.stochastic and sampler.couples for sampler in moving):
                needed = driven
            lines.append(f"no paired distances: they need {needed}")
        return lines

    def row_count(self) -> int:
        """The number of rows of `run`."""
        steps = [spread(self.sweep.steps_of(cell.algorithm)) for cell in self.paired]
        return len(self.divergences) + sum(map(len, steps))

    def run(self, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """All rows; `on_row` as in `Sweep.run`."""
        sweep = replace(self.sweep, metrics={KL: KLLaw()})
        to_law = sweep.distances()[KL]

        def divergence(cell: Cell) -> list[Row]:
            return [sweep.measure(sweep.lazy_samples(cell), KL, to_law)]

        rows = sweep.side_by_side(divergence, self.divergences, on_row)
        return rows + sweep.side_by_side(self._pairs, self.paired, on_row)

    def _pairs(self, cell: Cell) -> list[Row]:
        """The distances of a sampler's runs to its converged run."""
        sweep, metric = self.sweep, self.metric
        assert metric is not None
        end = sweep.lazy_samples(cell)
        steps = spread(sweep.steps_of(cell.algorithm))
        runs = [sweep.lazy_samples(replace(cell, steps=count)) for count in steps]
        return [row for run in runs for row in between(sweep, run, metric, CONVERGED, end)]


def spread(steps: Sequence[int]) -> list[int]:
    """The largest number, the next one that is at most about half of it, and so on, ascending."""
    chosen: list[int] = []
    for count in sorted(steps, reverse=True):
        if not chosen or 1.9 * count <= chosen[0]:
            chosen.insert(0, count)
    return chosen
