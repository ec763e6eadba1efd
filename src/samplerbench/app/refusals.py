"""What cannot work is said before anything runs.

Asked of the built objects, wherever they come from: the config of a job, or the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplerbench.errors import InvalidSetting, require
from samplerbench.evaluation.sweep import Sweep
from samplerbench.grids import Levels
from samplerbench.level_laws import LevelLaw
from samplerbench.metrics.base import LawMetric, Metric, finite_points
from samplerbench.models import Learned
from samplerbench.objectives.base import Objective
from samplerbench.samplers.base import Sampler
from samplerbench.schedules import NoiseSchedule

MOST_VALUES = 10**6


def check(sweep: Sweep, objective: Objective[Any] | None) -> None:
    """Ask what cannot work before anything runs.

    A sampler that cannot run gives rows that say so; it is a mistake in the config where none can,
    or none on what is to be trained.

    Args:
        sweep: the grid of cells.
        objective: of what is to be trained; None where nothing is.

    Raises:
        InvalidSetting: naming the key, its value and what is allowed.
    """
    _require_values(sweep)
    _check_metrics(sweep)
    for name, start in sweep.starts.items():
        reason = start.why_incompatible(sweep.dataset)
        if reason is not None:
            raise InvalidSetting("start", name, f"another one: {reason}")
    # a finite data set may not have so many fresh draws
    if sweep.metrics and sweep.floor_repetitions > 0:
        sweep.law.draws(sweep.n_samples, "floor", sweep.seed, 0)
    try:
        levels = {steps: sweep.levels(steps) for steps in sweep.all_steps}
    except InvalidSetting as error:
        group = "" if error.field == "steps" else "grid."
        raise InvalidSetting(f"{group}{error.field}", error.value, error.allowed) from error
    if objective is not None:
        _check_training(sweep, levels, objective)
    tried = [
        (denoiser, name, sampler.why_incompatible(model, levels[steps]))
        for denoiser, model in sweep.denoisers.items()
        for name, sampler in sweep.samplers
        for steps in sweep.steps_of(sampler)
    ]
    # nothing would run, or nothing on what is trained
    for asked in (tried, [one for one in tried if one[0] == "learned"]):
        if asked and all(reason is not None for *_, reason in asked):
            _, name, reason = asked[0]
            raise InvalidSetting("sampler", name, f"another one: {reason}")


def _require_values(sweep: Sweep) -> None:
    """Refuse a grid of more values than a table or a folder of fragments can have."""
    steps = sum(len(sweep.steps_of(sampler)) for _, sampler in sweep.samplers)
    cells = len(sweep.denoisers) * len(sweep.starts) * steps * sweep.repetitions
    values = (cells + sweep.floor_repetitions) * len(sweep.metrics)
    allowed = f"less: this makes {values:,} values, and a job has at most {MOST_VALUES:,}"
    require(values <= MOST_VALUES, "repetitions", sweep.repetitions, allowed)


def _check_metrics(sweep: Sweep) -> None:
    """Each must be able to measure samples of this law, at this n, against these points."""
    points = sweep.reference
    if sweep.metrics:
        points = finite_points(points, "evaluation points")
    for name, metric in sweep.metrics.items():
        if isinstance(metric, LawMetric):
            reason = metric.why_incompatible(sweep.law)
        else:
            reason = metric.why_incompatible(sweep.dataset.dim) or metric.why_too_large(
                sweep.n_samples, len(points)
            )
        if reason is not None:
            raise InvalidSetting("metric", name, f"another one: {reason}")
        if isinstance(metric, Metric):
            try:  # some points show what is wrong with all; all of them may take minutes
                metric.against(points[:: -(-len(points) // 1000)], seed=sweep.metric_seed)
            except InvalidSetting as error:
                field = f"metric.{name}.{error.field}"
                raise InvalidSetting(field, error.value, error.allowed) from error


def _check_training(sweep: Sweep, levels: Mapping[int, Levels], objective: Objective[Any]) -> None:
    """What is learned must be defined, and trained, at every level that samplers ask for."""
    model = objective.model
    law: LevelLaw | None = getattr(objective, "level_law", None)
    for rows in levels.values():
        reason = model.target.why_incompatible(rows) if isinstance(model, Learned) else None
        if reason is not None:
            name = type(model.target).__name__
            raise InvalidSetting("target", name, f"another one: {reason}")
        _require_trained(law, sweep.schedule, rows)
    # a sampler may go above the grid's first level
    for _, sampler in sweep.samplers:
        for steps in sweep.steps_of(sampler):
            _require_trained(law, sweep.schedule, levels[steps], sampler)


def _require_trained(
    law: LevelLaw | None, schedule: NoiseSchedule, rows: Levels, sampler: Sampler | None = None
) -> None:
    """Refuse levels, or a sampler on them, with more noise than the training has."""
    reason = None if law is None else law.why_incompatible(schedule, rows, sampler)
    if reason is not None:
        raise InvalidSetting("level_law", type(law).__name__, f"another one: {reason}")
