"""Build and check the objects of one job from its composed config, before any work.

Objects that several others need are built once and passed on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from samplerbench.app.config.compose import check_keys
from samplerbench.app.config.construct import construct, convert
from samplerbench.app.config.folders import member_files
from samplerbench.app.config.groups import (
    chosen_members,
    chosen_nodes,
    is_typed,
    samplers_of,
    title_of_data,
)
from samplerbench.app.config.numbers import whole_number, whole_numbers
from samplerbench.app.job.basis import (
    Basis,
    chosen_block,
    chosen_cache,
    chosen_denoisers,
    chosen_dtype,
    chosen_look,
    make_basis,
    noised_law,
    processor_count,
)
from samplerbench.app.job.denoisers import build_trainings, make_origin, scores_of
from samplerbench.app.job.racing import NOT_RACED, named_grids, racing_grids
from samplerbench.app.job.refusals import SUITE, check
from samplerbench.app.job.scenes import scene
from samplerbench.app.job.training import PARTS, Training, training_keys
from samplerbench.bench.best_grids import EACH_BEST, require_choices
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.cache import Cache
from samplerbench.bench.cell import Labels
from samplerbench.bench.chains import require_chains
from samplerbench.bench.design import DESIGNED
from samplerbench.bench.designing import DesignedGrid
from samplerbench.bench.floor_free import FloorFree
from samplerbench.bench.sweep import Sweep, recall_nothing
from samplerbench.core.models import Denoiser
from samplerbench.datasets.base import finite
from samplerbench.errors import require, require_compatible
from samplerbench.figures.common import Look
from samplerbench.logs.base import Logger
from samplerbench.metrics.base import Metric, OutputLawMetric

if TYPE_CHECKING:  # slow: imports matplotlib
    from samplerbench.figures.base import Picture


@dataclass(frozen=True)
class Job:
    """Everything that one job needs, built and checked."""

    sweep: Sweep  # the grid of cells; its learned denoiser, if any, is not trained yet
    budget: Budget | None  # the error budget of the sweep, or None
    # shows errors below the floor; None with a budget or without metrics that have a floor
    floor_free: FloorFree | None
    # the trainings of the sweep's learned denoiser, `learned`, and of its guides: see `denoisers`
    trainings: Mapping[str, Training]
    pictures: Mapping[str, Picture]  # by name; each is possible for this job
    logger: Logger  # the logger of the run
    cache: Cache | None  # of models and values, or None
    wanted: float  # a distance that the user wants to detect, as a share of the floor
    chains: int  # the number of chains of each Langevin sampler to examine, or 0
    config: dict[str, Any]  # the resolved config, plain values only
    look: Look = field(default_factory=Look)
    # names of grids, or `EACH_BEST`: each sampler runs on the grid that is best for it, chosen
    # after the training; empty if all samplers run on the grid of the sweep
    grids: tuple[str, ...] = ()
    # numbers of points, by key, where a finite data set has no more
    all_rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def training(self) -> Training | None:
        """The training of the learned denoiser, if there is one."""
        return self.trainings.get("learned")


def build(config: DictConfig, choices: Mapping[str, Any], run: str) -> Job:
    """Build and check everything."""
    check_keys(config)
    base = make_basis(config, choices)
    pictures = chosen_members(config, "picture")
    logger = construct(config.logger, "logger")
    cache = chosen_cache(config)
    # a job without samplers only shows the data, and needs no denoiser
    wants_none = (
        not chosen_nodes(config, "sampler")
        and config.denoiser is not None
        and len(config.denoiser) == 0
    )
    scores = [] if wants_none else chosen_denoisers(config)
    sweep, trainings = assemble(base, scores, run=run, cache=cache)
    # some pictures need no samplers or metrics: they show data or scores
    chains = chosen_chains(config, sweep)
    for key, chosen in (("metric", sweep.metrics), ("sampler", sweep.samplers)):
        enough = len(chosen) > 0 or len(pictures) > 0 or chains > 0
        require(enough, key, "[]", f"at least one member of conf/{key}/")
    named = config.get("sweeper_metric")
    allowed = f"null or one of the metrics: {', '.join(sweep.metrics) or 'there is none'}"
    require(named is None or named in sweep.metrics, "sweeper_metric", named, allowed)
    of_suite = str(choices.get("experiment", "")).startswith(SUITE)
    check(sweep, of_suite=of_suite)
    unseen = sweep.dataset.known_law and not sweep.dataset.can_be_drawn
    allowed = "[] here: pictures show draws of the law, and dataset.exact_draws is not given"
    require(not (pictures and unseen), "picture", ", ".join(pictures), allowed)
    for name, picture in pictures.items():
        plain = replace(sweep, own_grids=())  # they may need a model that is not trained yet
        view = scene(plain, trainings.get("learned"))
        require_compatible(picture.why_incompatible(view), "picture", name)
    wanted = convert(config.wanted, float, "wanted")
    require(0 < wanted < math.inf, "wanted", wanted, "positive: a share of the floor")
    budget = chosen_budget(config, sweep)
    floor_free = convert(config.get("floor_free", False), bool, "floor_free") and budget is None
    with_floor = not all(isinstance(one, OutputLawMetric) for one in sweep.metrics.values())
    used = {
        "n_train": len(trainings) > 0 or "empirical" in scores,
        "n_validation": len(trainings) > 0,
        "n_reference": len(sweep.reference) > 0,
    }
    return Job(
        sweep,
        budget,
        FloorFree(sweep) if floor_free and with_floor else None,
        trainings,
        pictures,
        logger,
        cache,
        wanted,
        chains,
        base.plain,
        chosen_look(config),
        chosen_grids(config, sweep, of_suite),
        {key: n for key, n in base.reduced.items() if used[key]},
    )


def with_sweep(job: Job, sweep: Sweep) -> Job:
    """The job with another sweep in all of its parts."""
    return replace(
        job,
        sweep=sweep,
        budget=None if job.budget is None else replace(job.budget, sweep=sweep),
        floor_free=None if job.floor_free is None else replace(job.floor_free, sweep=sweep),
    )


def assemble(
    base: Basis, scores: Sequence[str], *, run: str = "", cache: Cache | None = None
) -> tuple[Sweep, dict[str, Training]]:
    """The sweep of a config, for the command and the library, and its trainings."""
    config: DictConfig = base.config
    seeds: dict[str, Any] = dict(base.seeds)
    starts, metrics = chosen_members(config, "start"), chosen_members(config, "metric")
    require(len(starts) > 0, "start", "[]", "at least one member of conf/start/")
    nfe = whole_numbers(config, "nfe")
    steps = whole_numbers(config, "steps") or nfe  # the sweep ignores steps if nfe is given
    require(len(steps) > 0, "steps", config.steps, "numbers of steps, or null with nfe given")
    allowed = "left out beside nfe, which determines the numbers of steps"
    given_twice = nfe and is_typed("steps") and config.steps is not None
    require(not given_twice, "steps", config.steps, allowed)
    noise: float = convert(config.reference_noise, float, "reference_noise")
    truth = noised_law(base.dataset, noise)
    reference = torch.empty(0, base.dataset.dim)
    if any(isinstance(metric, Metric) for metric in metrics.values()):  # only these use points
        law, m = truth or base.dataset, base.plain["n_reference"]
        reference = finite(law.draws(m, "evaluation", seeds["data_seed"]), "dataset")
    trainings = build_trainings(base, scores)
    denoisers, kinds = {}, {}
    for kind in scores:
        for name, score in scores_of(base, kind, trainings).items():
            denoisers[name], kinds[name] = score, kind
    workers = whole_number(config, "workers") if config.workers is not None else processor_count()
    sweep = Sweep(
        dataset=base.dataset,
        schedule=base.schedule,
        grid=construct(config.grid, "grid"),
        denoisers=denoisers,
        starts=starts,
        samplers=list(samplers_of(config)),
        steps=steps,
        nfe=nfe,
        metrics=metrics,
        reference=reference,
        truth=truth,
        recall=recall_nothing if cache is None else cache.recall,
        final=str(config.get("final", "denoise")),
        n_samples=whole_number(config, "n_samples"),
        repetitions=whole_number(config, "repetitions"),
        floor_repetitions=whole_number(config, "floor_repetitions"),
        origins={
            name: make_origin(base, kinds[name], score, trainings)
            for name, score in denoisers.items()
        },
        block=chosen_block(config, base.dataset.event_shape),
        dtype=chosen_dtype(config.dtype),
        device=base.device,
        workers=workers if base.device.type == "cpu" else 1,
        labels=make_labels(base, run, f" + {noise:g}·ε" if truth else ""),
        **seeds,
    )
    return sweep, trainings


def make_labels(base: Basis, run: str, noise: str) -> Labels:
    """Names for the table; empty for parts that the training does not use."""
    used = training_keys(base.config)
    twin = "" if base.config.get("law") is None else "Gaussian twin of "
    named = {
        key: str(base.choices.get(key, "")) if key in used or key not in PARTS else ""
        for key in ("network", "objective", "target", "grid")
    }
    dataset = str(base.choices.get("dataset") or "")
    return Labels(
        run=run,
        experiment=str(base.choices.get("experiment") or "main"),
        **named,
        schedule=str(base.choices.get("schedule", "")) if base.model is None else "pretrained",
        model=str(base.config.get("model") or ""),
        dataset=twin + title_of_data(dataset, base.config.get("dataset") or {}) + noise,
    )


def chosen_grids(config: DictConfig, sweep: Sweep, of_suite: bool) -> tuple[str, ...]:
    """The names of the grids among which each sampler's is chosen; empty if all have one grid."""
    value = config.get("grids")
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else tuple(map(str, value))
    known = [*(name for name in member_files("grid") if name not in NOT_RACED), DESIGNED]
    good = names == (EACH_BEST,) or (0 < len(names) == len({*names}) and {*names} <= {*known})
    allowed = f"null, {EACH_BEST}, or a list of grids, each once, of {', '.join(known)}"
    require(good and names != (DESIGNED,), "grids", value, allowed)
    allowed = "null with grid=designed: the choice includes designed levels in any case"
    require(not isinstance(sweep.grid, DesignedGrid), "grids", value, allowed)
    first = next(iter(sweep.denoisers.values()), None)
    allowed = "null here: it compares grids by runs of the first denoiser, and there is none"
    require(isinstance(first, Denoiser), "grids", value, allowed)
    if not of_suite:  # in the suite, rows with the reason replace this error
        require_choices(sweep, racing_grids(sweep, named_grids(names)))
    return names


def chosen_budget(config: DictConfig, sweep: Sweep) -> Budget | None:
    """The error budget of the sweep, if the config has one."""
    if config.budget is None:
        return None
    allowed = "null, or converged_steps and tolerance: see experiment=budget"
    require(isinstance(config.budget, DictConfig), "budget", config.budget, allowed)
    return Budget(
        sweep,
        converged_steps=whole_number(config.budget, "converged_steps"),
        tolerance=convert(config.budget.tolerance, float, "budget.tolerance"),
    )


def chosen_chains(config: DictConfig, sweep: Sweep) -> int:
    """The number of chains of each Langevin sampler that are examined."""
    chains = whole_number(config, "chains")
    if chains > 0:
        require_chains(sweep, chains)
    return chains
