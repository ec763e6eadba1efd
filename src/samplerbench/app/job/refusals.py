"""Refuse a sweep that cannot work, before anything runs.

The checks use the built objects, from the config of a job or from the library.
"""

from __future__ import annotations

from dataclasses import replace

from samplerbench.bench.cell import Cell
from samplerbench.bench.designing import require_designs
from samplerbench.bench.fitting import require_fits
from samplerbench.bench.sweep import OUTPUT_LAWS, Sweep
from samplerbench.core.models import Denoiser
from samplerbench.errors import InvalidSetting, require, require_compatible
from samplerbench.identity import identity
from samplerbench.metrics.base import LawMetric, Metric, OutputLawMetric, finite_points

MOST_VALUES = 10**6
#: The experiments of the suite are in this folder of conf/experiment/, by version and task.
SUITE = "suite/"


def check(sweep: Sweep, *, of_suite: bool = False) -> None:
    """Refuse a sweep that cannot work, before anything runs.

    A sampler that cannot run gives rows with the reason. If no sampler can run, or none on the
    learned model, or if no metric can measure that model, this is an error. With `of_suite` it is
    not an error: a task of the suite has a row with the reason for each value that cannot be
    measured; see `why_nothing`.
    """
    # own grids may need a model that is not trained yet; they start at the same level as the grid
    sweep = replace(sweep, own_grids=())
    _require_described(sweep)
    _require_values(sweep)
    _check_metrics(sweep, of_suite)
    for name, start in sweep.all_starts.items():
        require_compatible(start.why_incompatible(sweep.dataset), "start", name)
    # a finite data set may have too few fresh draws
    if sweep.metrics and sweep.floor_cells():
        sweep.law.draws(sweep.n_samples, "floor", sweep.seed, 0)
    try:
        levels = {steps: sweep.levels(steps) for steps in sweep.all_steps}
    except InvalidSetting as error:
        group = "" if error.field in ("steps", "schedule") else "grid."
        raise InvalidSetting(f"{group}{error.field}", error.value, error.allowed) from error
    require_fits(sweep)
    require_designs(sweep)
    for name, model in sweep.denoisers.items():
        reasons = [model.why_incompatible(rows) for rows in levels.values()]
        if isinstance(model, Denoiser) and all(reasons):
            raise InvalidSetting("denoiser", name, f"another one: {reasons[0]}")
    if of_suite:
        return
    tried = _tried(sweep)
    # no sampler would run, or none on the trained model
    for runs in (tried, [one for one in tried if one[0] == "learned"]):
        if runs and all(reason is not None for *_, reason in runs):
            _, name, reason = runs[0]
            raise InvalidSetting("sampler", name, f"another one: {reason}")
    learned = {name: model for name, model in sweep.denoisers.items() if name == "learned"}
    reason = why_nothing(replace(sweep, denoisers=learned)) if learned and sweep.metrics else None
    require(reason is None, "denoiser", "learned", f"left out: {reason}")


def why_nothing(sweep: Sweep) -> str | None:
    """Why no value of a sweep can be measured, in one line; None if one can be."""
    reasons = [reason for *_, reason in _tried(sweep)]
    if all(reasons):
        return reasons[0]
    laws = [metric for metric in sweep.metrics.values() if isinstance(metric, OutputLawMetric)]
    reasons = [_why_no_law(sweep, metric) for metric in laws]
    return reasons[0] if all(reasons) and len(laws) == len(sweep.metrics) else None


def _tried(sweep: Sweep) -> list[tuple[str, str, str | None]]:
    """Denoiser, sampler and the reason if it cannot run, for each number of steps."""
    return [
        (denoiser, name, sampler.why_incompatible(model, sweep.levels(steps, sampler)))
        for denoiser, model in sweep.denoisers.items()
        for name, sampler in sweep.samplers
        for steps in sweep.steps_of(sampler)
    ]


def _require_described(sweep: Sweep) -> None:
    """Refuse an object without an identity: its values could be taken for those of another."""
    objects = {
        "dataset": sweep.dataset,
        "schedule": sweep.schedule,
        "grid": sweep.grid,
        **{f"start.{name}": start for name, start in sweep.starts.items()},
        **{f"sampler.{name}": sampler for name, sampler in sweep.samplers},
        **{f"metric.{name}": metric for name, metric in sweep.metrics.items()},
    }
    for key, value in objects.items():
        try:
            identity(value)
        except TypeError as error:
            allowed = f"a frozen dataclass of plain settings, or a function: {error}"
            raise InvalidSetting(key, type(value).__name__, allowed) from error


def _require_values(sweep: Sweep) -> None:
    """Refuse a grid with more values than a table or a folder of fragments can have."""
    steps = sum(len(sweep.steps_of(sampler)) for _, sampler in sweep.samplers)
    cells = len(sweep.denoisers) * len(sweep.starts) * steps * sweep.repetitions
    values = (cells + sweep.floor_repetitions) * len(sweep.metrics)
    allowed = f"smaller: it makes {values:,} values, and a job has at most {MOST_VALUES:,}"
    require(values <= MOST_VALUES, "repetitions", sweep.repetitions, allowed)


def _why_no_law(sweep: Sweep, metric: OutputLawMetric) -> str | None:
    """Why the output law is not known for any cell; None if it is known for one."""
    why, _ = OUTPUT_LAWS[metric.needs]
    reasons = [
        why(sweep, Cell(denoiser, start, name, sampler, max(sweep.steps_of(sampler)), 0))
        for denoiser in sweep.denoisers
        for name, sampler in sweep.samplers
        for start in sweep.starts_of(sampler)
    ]
    return reasons[0] if all(reasons) else None


def _check_metrics(sweep: Sweep, of_suite: bool) -> None:
    """Refuse a metric that cannot measure n samples of this law against these points."""
    points = sweep.reference
    for name, metric in sweep.metrics.items():
        allowed = "another one: it compares with draws of the law, and there are none; see moments"
        drawn = isinstance(metric, LawMetric) or len(points) > 0
        require(drawn, "metric", name, allowed)
    if len(points) > 0:
        points = finite_points(points, "evaluation points")
    for name, metric in sweep.metrics.items():
        if isinstance(metric, LawMetric):
            reason = metric.why_incompatible(sweep.law)
        else:
            reason = metric.why_incompatible(sweep.dataset.dim) or metric.why_too_large(
                sweep.n_samples, len(points)
            )
        if reason is None and isinstance(metric, OutputLawMetric) and sweep.samplers:
            reason = None if of_suite else _why_no_law(sweep, metric)
        require_compatible(reason, "metric", name)
        if isinstance(metric, Metric):
            try:  # a part of the points is enough to find an error; all may take minutes
                metric.against(points[:: -(-len(points) // 1000)], seed=sweep.metric_seed)
            except InvalidSetting as error:
                field = f"metric.{name}.{error.field}"
                raise InvalidSetting(field, error.value, error.allowed) from error
