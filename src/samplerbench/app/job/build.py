"""From the composed config to the objects of one job, all of them checked before any work.

One object a line; what several need is built once and passed on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from samplerbench.app.config.compose import check_keys
from samplerbench.app.config.construct import construct, construct_grid, convert
from samplerbench.app.config.folders import member_files
from samplerbench.app.config.groups import chosen_members, chosen_nodes, is_typed
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
from samplerbench.app.job.racing import NOT_RACED
from samplerbench.app.job.refusals import check
from samplerbench.app.job.scenes import scene
from samplerbench.app.job.training import (
    PARTS,
    Training,
    build_training,
    training_identities,
    training_keys,
    with_weights,
)
from samplerbench.bench.best_grids import EACH_BEST
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.cache import Cache
from samplerbench.bench.cell import Labels, Origin
from samplerbench.bench.chains import require_chains
from samplerbench.bench.design import DESIGNED
from samplerbench.bench.designing import DesignedGrid
from samplerbench.bench.floor_free import FloorFree
from samplerbench.bench.sweep import Sweep, recall_nothing
from samplerbench.core.cuda_graphs import Graphed
from samplerbench.core.models import Corrupted, Denoiser, Guided, Score
from samplerbench.datasets.base import Dataset, finite
from samplerbench.datasets.empirical import Empirical
from samplerbench.errors import InvalidSetting, require
from samplerbench.figures.common import Look
from samplerbench.identity import identity, identity_of_model
from samplerbench.logs.base import Logger
from samplerbench.metrics.base import Metric, OutputLawMetric

if TYPE_CHECKING:  # slow: imports matplotlib
    from samplerbench.figures.base import Picture


@dataclass(frozen=True)
class Job:
    """Everything that one job needs, built and checked.

    Args:
        sweep: the grid of cells; its learned denoiser, if any, is not trained yet.
        budget: the error budget of the sweep, or None.
        floor_free: what the floor hides, or None; budgets and metrics without a floor show it.
        training: trains the sweep's learned denoiser; None if there is none.
        pictures: by name; each is possible for this job.
        logger: the logger of the run.
        cache: of models and values, or None.
        wanted: a distance that the user wants to detect, as a share of the floor.
        chains: the number of chains of each Langevin sampler to examine, or 0.
        config: the resolved config, plain values only.
        look: of figures.
        grids: names of grids, or `EACH_BEST`: every sampler runs on the best of them for it, which
            is chosen once the denoiser is trained; empty if all run on the grid of the sweep.
        all_rows: the numbers of points that are all that a finite data set has, by key.
    """

    sweep: Sweep
    budget: Budget | None
    floor_free: FloorFree | None
    training: Training | None
    pictures: Mapping[str, Picture]
    logger: Logger
    cache: Cache | None
    wanted: float
    chains: int
    config: dict[str, Any]
    look: Look = field(default_factory=Look)
    grids: tuple[str, ...] = ()
    all_rows: Mapping[str, int] = field(default_factory=dict)


def build(config: DictConfig, choices: Mapping[str, Any], run: str) -> Job:
    """Build and check everything.

    Raises:
        InvalidSetting: it names the key, its value and what is allowed.
    """
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
    sweep, training = assemble(base, scores, run=run, cache=cache)
    # some pictures need no samplers or metrics: they show data or scores
    chains = chosen_chains(config, sweep)
    for key, chosen in (("metric", sweep.metrics), ("sampler", sweep.samplers)):
        enough = len(chosen) > 0 or len(pictures) > 0 or chains > 0
        require(enough, key, config.get(key), f"at least one member of conf/{key}/")
    named = config.get("sweeper_metric")
    allowed = f"null or one of the metrics: {', '.join(sweep.metrics) or 'there is none'}"
    require(named is None or named in sweep.metrics, "sweeper_metric", named, allowed)
    check(sweep)
    unseen = sweep.dataset.known_law and not sweep.dataset.can_be_drawn
    allowed = "[] here: pictures show draws of the law, and dataset.exact_draws is not given"
    require(not (pictures and unseen), "picture", ", ".join(pictures), allowed)
    for name, picture in pictures.items():
        plain = replace(sweep, own_grids=())  # they may need a model that is not trained yet
        reason = picture.why_incompatible(scene(plain, training))
        if reason is not None:
            raise InvalidSetting("picture", name, f"another one: {reason}")
    wanted = convert(config.wanted, float, "wanted")
    require(0 < wanted < math.inf, "wanted", wanted, "positive: a share of the floor")
    budget = chosen_budget(config, sweep)
    floor_free = convert(config.get("floor_free", False), bool, "floor_free") and budget is None
    with_floor = not all(isinstance(one, OutputLawMetric) for one in sweep.metrics.values())
    used = {
        "n_train": training is not None or "empirical" in scores,
        "n_validation": training is not None,
        "n_reference": len(sweep.reference) > 0,
    }
    return Job(
        sweep,
        budget,
        FloorFree(sweep) if floor_free and with_floor else None,
        training,
        pictures,
        logger,
        cache,
        wanted,
        chains,
        base.plain,
        chosen_look(config),
        chosen_grids(config, sweep),
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
) -> tuple[Sweep, Training | None]:
    """The sweep of a config, for the command and the library, and the training of its denoiser.

    Raises:
        InvalidSetting: it names the key, its value and what is allowed.
    """
    config: DictConfig = base.config
    seeds: dict[str, Any] = dict(base.seeds)
    starts, metrics = chosen_members(config, "start"), chosen_members(config, "metric")
    require(len(starts) > 0, "start", config.get("start"), "at least one member of conf/start/")
    nfe = whole_numbers(config, "nfe")
    steps = whole_numbers(config, "steps") or nfe  # the sweep does not use steps beside nfe
    require(len(steps) > 0, "steps", config.steps, "numbers of steps, or null with nfe given")
    allowed = "left out beside nfe, which determines the numbers of steps"
    given_twice = nfe and is_typed("steps") and config.steps is not None
    require(not given_twice, "steps", config.steps, allowed)
    noise: float = convert(config.reference_noise, float, "reference_noise")
    truth = noised_law(base.dataset, noise)
    reference = torch.empty(0, base.dataset.dim)
    if any(isinstance(metric, Metric) for metric in metrics.values()):  # others use no points
        law, m = truth or base.dataset, base.plain["n_reference"]
        reference = finite(law.draws(m, "evaluation", seeds["data_seed"]), "dataset")
    training = build_training(base) if "learned" in scores else None
    if training is not None and config.get("weights") is not None:
        training = with_weights(training, Path(str(config.weights)))
    denoisers, kinds = {}, {}
    for kind in scores:
        for name, score in scores_of(base, kind, training).items():
            denoisers[name], kinds[name] = score, kind
    workers = whole_number(config, "workers") if config.workers is not None else processor_count()
    sweep = Sweep(
        dataset=base.dataset,
        schedule=base.schedule,
        grid=construct(config.grid, "grid"),
        denoisers=denoisers,
        starts=starts,
        samplers=[
            (name, sampler)
            for name, node in chosen_nodes(config, "sampler").items()
            for sampler in construct_grid(node, f"sampler.{name}")
        ],
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
            name: make_origin(base, kinds[name], score, training)
            for name, score in denoisers.items()
        },
        block=chosen_block(config, base.dataset.event_shape),
        dtype=chosen_dtype(config.dtype),
        device=base.device,
        workers=workers if base.device.type == "cpu" else 1,
        labels=make_labels(base, run, f" + {noise:g}·ε" if truth else ""),
        **seeds,
    )
    return sweep, training


def scores_of(base: Basis, kind: str, training: Training | None) -> dict[str, Score]:
    """The denoisers of one of `DENOISERS` by name: several if its setting is a list."""
    key = {"guided": "guidance", "corrupted": "corruption.amplitude"}.get(kind)
    if key is None:
        return {kind: chosen_denoiser(base, kind, training)}
    node = OmegaConf.select(base.config, key)
    values = list(node) if isinstance(node, ListConfig) else [node]
    require(len(values) > 0, key, values, "a number, or a list of numbers")
    numbers = [convert(value, float, key) for value in values]
    require(len(set(numbers)) == len(numbers), key, values, "different numbers")
    short = {value: f"{value:g}" for value in numbers}
    if len(set(short.values())) < len(numbers):  # equal in six digits
        short = {value: repr(value) for value in numbers}
    names = [f"{kind} {short[value]}" if len(numbers) > 1 else kind for value in numbers]
    return {
        name: chosen_denoiser(base, kind, training, value)
        for name, value in zip(names, numbers, strict=True)
    }


def chosen_denoiser(
    base: Basis, name: str, training: Training | None, value: float = math.nan
) -> Score:
    """One of `DENOISERS`, on the job's device; the learned one is not trained yet.

    Args:
        base: of the job.
        name: of the kind.
        training: of the learned one.
        value: γ of the guided one, or ε of the corrupted one.
    """
    score: Score
    if name == "learned":
        assert training is not None
        score = training.objective.model
    elif name == "empirical":
        n, seed = base.plain["n_train"], base.seeds["data_seed"]
        points = finite(base.dataset.draws(n, "train", seed), "dataset")
        score = Empirical(points).oracle(base.schedule).to(base.device)
    elif name == "pretrained":
        assert base.model is not None
        score = base.model.to(base.device)
    elif name == "guided":
        score = guided(base, value).to(base.device)
    elif name == "corrupted":
        exact = exact_denoiser(base, "dataset", base.dataset)
        settings = {key: str(base.config.corruption[key]) for key in ("profile", "direction")}
        cut = convert(base.config.corruption.cut, float, "corruption.cut")
        score = Corrupted(exact, value, cut=cut, **settings).to(base.device)
        across = settings["direction"] == "across"
        dim = base.dataset.dim
        require(
            not across or dim % 2 == 0, "corruption.direction", "across", f"along: dim={dim} is odd"
        )
    else:
        oracle = base.dataset.exact_score(base.schedule)
        if oracle is None:
            reason = f"learned or empirical: {base.choices.get('dataset')} has no exact denoiser"
            raise InvalidSetting("denoiser", name, reason)
        score = oracle.to(base.device)
    if not convert(base.config.graphs, bool, "graphs"):
        return score
    cuda = base.device.type == "cuda"
    require(cuda, "graphs", True, "false: CUDA graphs need device=cuda")
    return Graphed(score) if isinstance(score, Denoiser) else score


def exact_denoiser(base: Basis, key: str, law: Dataset) -> Denoiser:
    """The exact denoiser of a law, or an error that names its key."""
    oracle = law.oracle(base.schedule)
    if oracle is None:
        raise InvalidSetting(key, type(law).__name__, "one with an exact denoiser")
    return oracle


def guided(base: Basis, weight: float) -> Guided:
    """The exact denoiser of the data, guided by that of another data set."""
    config, allowed = base.config, "a data set, such as +dataset@guide=gaussian_spectrum"
    require(config.get("guide") is not None, "guide", None, allowed)
    # twins are in bases of their own, in which the two cannot be mixed
    require(config.get("law") is None, "law", config.get("law"), "null with denoiser=guided")
    guide: Dataset = construct(config.guide, "guide")
    dim = base.dataset.dim
    require(guide.dim == dim, "guide.dim", guide.dim, f"{dim}, as the data's")
    model, other = (
        exact_denoiser(base, key, law) for key, law in (("dataset", base.dataset), ("guide", guide))
    )
    return Guided(model, other, weight)


def make_origin(base: Basis, name: str, score: Score, training: Training | None) -> Origin:
    """The origin of one of `DENOISERS`, for identities."""
    n = base.plain["n_train"]
    if name == "learned":
        assert training is not None
        if training.weights is not None:  # whatever made them
            own = identity_of_model(training.objective.model)
            return Origin(name, own, own)
        return Origin(name, *training_identities(base, training))
    if name == "empirical":
        return Origin(name, identity(score), identity(n))
    if name in ("guided", "corrupted"):
        return Origin(name, identity(score), identity(score))
    if name == "pretrained":
        assert base.model is not None
        weights = identity([base.model.digest(), version("diffusers")])
        return Origin(name, weights, weights)
    return Origin(name)


def make_labels(base: Basis, run: str, noise: str) -> Labels:
    """Names for the table; empty for parts that the training does not use."""
    used = training_keys(base.config)
    twin = "" if base.config.get("law") is None else "Gaussian twin of "
    named = {
        key: str(base.choices.get(key, "")) if key in used or key not in PARTS else ""
        for key in ("network", "objective", "target", "grid")
    }
    return Labels(
        run=run,
        experiment=str(base.choices.get("experiment") or "main"),
        **named,
        schedule=str(base.choices.get("schedule", "")) if base.model is None else "pretrained",
        model=str(base.config.get("model") or ""),
        dataset=twin + str(base.choices.get("dataset") or "") + noise,
    )


def chosen_grids(config: DictConfig, sweep: Sweep) -> tuple[str, ...]:
    """The names of the grids from which each sampler gets its best; none if all have one grid."""
    value = config.get("grids")
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else tuple(map(str, value))
    known = [*(name for name in member_files("grid") if name not in NOT_RACED), DESIGNED]
    good = names == (EACH_BEST,) or (0 < len(names) == len({*names}) and {*names} <= {*known})
    allowed = f"null, {EACH_BEST}, or a list of grids, each once, of {', '.join(known)}"
    require(good and names != (DESIGNED,), "grids", value, allowed)
    allowed = "null beside grid=designed: the best grid may be a designed one in any case"
    require(not isinstance(sweep.grid, DesignedGrid), "grids", value, allowed)
    first = next(iter(sweep.denoisers.values()), None)
    allowed = "null here: it compares grids by runs of the first denoiser, and there is none"
    require(isinstance(first, Denoiser), "grids", value, allowed)
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
