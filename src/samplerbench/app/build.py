"""From the composed config to the objects of one job, all of them checked before any work.

One object a line; what several need is built once and passed on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from samplerbench.app.construct import (
    construct,
    construct_grid,
    convert,
    parameters,
    read_member,
    trusted,
    trusted_packages,
)
from samplerbench.app.folders import conf_directory
from samplerbench.app.groups import members, nodes
from samplerbench.app.numbers import count, numbers
from samplerbench.batches import TensorData
from samplerbench.cuda_graphs import Graphed
from samplerbench.datasets.base import Dataset, finite
from samplerbench.datasets.empirical import empirical
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting, require
from samplerbench.evaluation.budget import Budget
from samplerbench.evaluation.cache import Cache
from samplerbench.evaluation.identity import VERSIONS, code, describe, identity
from samplerbench.evaluation.scene import Scene
from samplerbench.evaluation.sweep import Labels, Sweep, nothing
from samplerbench.figures.base import Picture
from samplerbench.logs import Logger
from samplerbench.metrics.base import LawMetric, Metric, finite_points
from samplerbench.models import Denoiser, Learned, Score
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective
from samplerbench.pretrained import Pretrained, pretrained
from samplerbench.schedules import NoiseSchedule

CACHE = ("on", "off", "refresh")
DENOISERS = ("learned", "empirical", "oracle", "pretrained")
MOST_VALUES = 10**6
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Training:
    """What is trained, and on what."""

    objective: Objective[Any]
    data: TensorData


@dataclass(frozen=True)
class Job:
    """Everything one job needs, built and checked.

    Args:
        sweep: the grid of cells; its learned denoiser, where it has one, is not trained yet.
        budget: of the sweep, where one is asked for.
        training: trains the sweep's learned denoiser; None where it has none.
        pictures: by name; each can be drawn of this job.
        logger: where the run is logged.
        cache: of models and values; None for none.
        wanted: a distance that one would like to find, in the units of the data.
        chains: how many chains of each Langevin sampler are examined; 0 for none.
        config: the resolved config, plain values only.
    """

    sweep: Sweep
    budget: Budget | None
    training: Training | None
    pictures: Mapping[str, Picture]
    logger: Logger
    cache: Cache | None
    wanted: float
    chains: int
    config: dict[str, Any]


def scene(sweep: Sweep, training: Training | None) -> Scene:
    """The job as pictures see it, before anything has been trained."""
    untrained = training.objective.model if training else None
    return Scene(
        dataset=sweep.dataset,
        schedule=sweep.schedule,
        grid=sweep.grid,
        denoisers=sweep.denoisers,
        starts=sweep.starts,
        samplers=sweep.samplers,
        steps=sweep.all_steps,
        untrained=untrained,
        train=training.data.x0 if training else torch.empty(0, sweep.dataset.dim),
        seed=sweep.seed,
        dtype=sweep.dtype,
        device=sweep.device,
    )


def names(config: DictConfig, key: str, allowed: Sequence[str]) -> list[str]:
    """One name or a list of names, each allowed and none twice."""
    value = config[key]
    listed = list(value) if isinstance(value, ListConfig) else [value]
    message = f"one or several of {', '.join(allowed)}"
    require(len(listed) > 0 and len(set(listed)) == len(listed), key, value, message)
    for name in listed:
        require(name in allowed, key, name, message)
    return listed


def noised(dataset: Dataset, noise: float) -> Dataset | None:
    """The law at a noise level, or None for the data themselves."""
    require(0 <= noise < math.inf, "reference_noise", noise, "at least 0")
    if noise == 0:
        return None
    law = dataset.noised(noise)
    allowed = "0: the noised law is known for Gaussian mixtures only"
    require(law is not None, "reference_noise", noise, allowed)
    return law


def require_values(sweep: Sweep) -> None:
    """Refuse a grid of more values than a table or a folder of fragments can have."""
    steps = sum(len(sweep.steps_of(sampler)) for _, sampler in sweep.samplers)
    cells = len(sweep.denoisers) * len(sweep.starts) * steps * sweep.repetitions
    values = (cells + sweep.floor_repetitions) * len(sweep.metrics)
    allowed = f"less: this makes {values:,} values, and a job has at most {MOST_VALUES:,}"
    require(values <= MOST_VALUES, "repetitions", sweep.repetitions, allowed)


def processor_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chosen_dtype(name: object) -> torch.dtype:
    """The dtype of the state."""
    require(name in DTYPES, "dtype", name, f"one of {', '.join(DTYPES)}")
    return DTYPES[str(name)]


def chosen_device(name: object) -> torch.device:
    """The device, if this machine has it."""
    here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    known = [*here, "cuda"] if len(here) > 1 else here
    require(name in known, "device", name, f"one that torch sees here: {', '.join(known)}")
    return torch.device(str(name))


def chosen_model(config: DictConfig) -> Pretrained | None:
    """The pretrained model, if one is among the denoisers."""
    name, clip = config.get("model"), config.get("clip_x0")
    listed = config.denoiser if isinstance(config.denoiser, ListConfig) else [config.denoiser]
    if "pretrained" not in listed:
        for key, value in (("model", name), ("clip_x0", clip)):
            require(value is None, key, value, "null unless denoiser=pretrained")
        return None
    return pretrained(name, None if clip is None else convert(clip, float, "clip_x0"))


def chosen_cache(config: DictConfig) -> Cache | None:
    """The cache that the job shares with others, or None."""
    mode = config.cache
    require(mode in CACHE, "cache", mode, f"one of {', '.join(CACHE)}")
    require(bool(config.cache_dir), "cache_dir", config.cache_dir, "a folder")
    return None if mode == "off" else Cache(Path(str(config.cache_dir)), mode == "refresh")


def build(config: DictConfig, choices: Mapping[str, Any], run: str) -> Job:
    """Build and check everything.

    Args:
        config: the composed config.
        choices: which member of each group was chosen, for the table's labels.
        run: the run's name, for the same.

    Raises:
        InvalidSetting: naming the key, its value and what is allowed.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    torch.set_num_threads(count(config, "threads"))
    device = chosen_device(config.device)
    seeds = {key: count(config, key) for key in ("seed", "data_seed", "train_seed", "metric_seed")}

    model = chosen_model(config)  # first, since what is missing of it takes longest to get
    dataset: Dataset
    if model is not None and config.get("dataset") is None:
        dataset = Unseen(model.event_shape)
    else:
        dataset = construct(config.dataset, "dataset")
    schedule = construct(config.schedule, "schedule") if model is None else model.schedule
    if model is not None:
        allowed = f"images of the model's shape, {model.event_shape}, not {dataset.event_shape}"
        good = dataset.event_shape == model.event_shape
        require(good, "dataset", choices.get("dataset"), allowed)
    grid = construct(config.grid, "grid")
    starts, metrics = members(config, "start"), members(config, "metric")
    pictures = members(config, "picture")
    samplers = [
        (name, sampler)
        for name, node in nodes(config, "sampler").items()
        for sampler in construct_grid(node, f"sampler.{name}")
    ]
    # pictures can do without samplers or metrics, where they look at data or scores
    for key, chosen in (("start", starts), ("metric", metrics), ("sampler", samplers)):
        enough = len(chosen) > 0 or (key != "start" and len(pictures) > 0)
        require(enough, key, config.get(key), f"at least one member of conf/{key}/")
    nfe = numbers(config, "nfe")
    steps = numbers(config, "steps") or nfe  # which are not used as steps
    require(len(steps) > 0, "steps", config.steps, "numbers of steps, or null with nfe given")
    logger = construct(config.logger, "logger")
    cache = chosen_cache(config)

    # of somebody else's package its code as it is now: no release tells its states apart
    versions = VERSIONS | {package: code(package) for package in trusted_packages()}
    data_seed = seeds["data_seed"]
    noise: float = convert(config.reference_noise, float, "reference_noise")
    truth = noised(dataset, noise)
    law = truth or dataset
    n_reference = count(config, "n_reference")
    reference = torch.empty(0, dataset.dim)
    if metrics:  # nothing else compares
        reference = finite(law.draws(n_reference, "evaluation", data_seed), "dataset")
    denoisers: dict[str, Score] = {}
    training = None
    training_id = ""
    used = decisive(config)
    # without a sampler there may be no denoiser either: a look at the data
    wants_none = not samplers and config.denoiser is not None and len(config.denoiser) == 0
    for name in [] if wants_none else names(config, "denoiser", DENOISERS):
        if name == "learned":
            training = build_training(config, dataset, schedule, data_seed, seeds["train_seed"])
            packages = training.objective.model.network.packages
            training_id = identity(
                {
                    **{key: plain[key] for key in used},
                    "path": describe(schedule),  # a pretrained model brings its own
                    "data": describe(dataset),  # of a file its content, not its path
                    "train_seed": seeds["train_seed"],
                    "data_seed": data_seed,
                    "device": device.type,
                    "threads": torch.get_num_threads(),
                    "versions": versions | {name: version(name) for name in packages},
                }
            )
            denoisers[name] = training.objective.model
        elif name == "empirical":
            points = finite(dataset.draws(count(config, "n_train"), "train", data_seed), "dataset")
            denoisers[name] = empirical(points).oracle(schedule).to(device)
        elif name == "pretrained":
            assert model is not None
            denoisers[name] = model.to(device)
        else:
            oracle = dataset.oracle(schedule)
            if oracle is None:
                reason = f"learned or empirical: {choices.get('dataset')} has no exact denoiser"
                raise InvalidSetting("denoiser", name, reason)
            denoisers[name] = oracle.to(device)

    if convert(config.graphs, bool, "graphs"):
        require(device.type == "cuda", "graphs", True, "false: CUDA graphs need device=cuda")
        denoisers = {
            name: Graphed(model) if isinstance(model, Denoiser) else model
            for name, model in denoisers.items()
        }

    workers = count(config, "workers") if config.workers is not None else processor_count()
    sweep = Sweep(
        dataset=dataset,
        schedule=schedule,
        grid=grid,
        denoisers=denoisers,
        starts=starts,
        samplers=samplers,
        steps=steps,
        nfe=nfe,
        metrics=metrics,
        reference=reference,
        truth=truth,
        recall=nothing if cache is None else cache.recall,
        versions=versions,
        n_samples=count(config, "n_samples"),
        repetitions=count(config, "repetitions"),
        floor_repetitions=count(config, "floor_repetitions"),
        training_id=training_id,
        empirical_id=identity([describe(dataset), plain["n_train"], data_seed]),
        pretrained_id="" if model is None else identity([model.digest(), version("diffusers")]),
        block=count(config, "block"),
        dtype=chosen_dtype(config.dtype),
        device=device,
        workers=workers if device.type == "cpu" else 1,
        labels=Labels(
            run=run,
            experiment=str(choices.get("experiment") or "main"),
            **{
                key: str(choices.get(key, "")) if key in used or key not in PARTS else ""
                for key in ("network", "objective", "target", "grid")
            },
            schedule=str(choices.get("schedule", "")) if model is None else "pretrained",
            model=str(config.get("model") or ""),
            dataset=str(choices.get("dataset") or "") + (f" + {noise:g}·ε" if truth else ""),
        ),
        **seeds,
    )
    require_values(sweep)
    check(sweep, training)
    for name, picture in pictures.items():
        reason = picture.why_incompatible(scene(sweep, training))
        if reason is not None:
            raise InvalidSetting("picture", name, f"another one: {reason}")
    budget = None
    if config.budget is not None:
        allowed = "null, or converged_steps and tolerance: see experiment=budget"
        require(isinstance(config.budget, DictConfig), "budget", config.budget, allowed)
        budget = Budget(
            sweep,
            converged_steps=count(config.budget, "converged_steps"),
            tolerance=convert(config.budget.tolerance, float, "budget.tolerance"),
        )
    wanted = convert(config.wanted, float, "wanted")
    require(0 < wanted < math.inf, "wanted", wanted, "positive")
    chains = count(config, "chains")
    if chains > 0:
        installed = find_spec("arviz") is not None
        require(installed, "chains", chains, "0, or pip install 'samplerbench[chains]'")
        holding = any(sampler.holds for _, sampler in samplers)
        require(holding, "chains", chains, "0: no sampler here stays at one level; see sampler=ula")
    return Job(
        sweep,
        budget,
        training,
        pictures,
        logger,
        cache,
        wanted,
        chains,
        {str(key): value for key, value in plain.items()},
    )


#: The parts of a training that an objective names in its constructor if it has a use for them.
PARTS = ("target", "level_law", "weighting")


def decisive(config: DictConfig) -> list[str]:
    """The parts of the config that decide what is learned."""
    named = parameters(config.objective, "objective")
    parts = [key for key in ("schedule", *PARTS) if key in named]
    return [*parts, "network", "objective", "trainer", "n_train", "n_validation"]


def build_training(
    config: DictConfig, dataset: Dataset, schedule: NoiseSchedule, data_seed: int, train_seed: int
) -> Training:
    """The objective with its model, and the batches."""
    train = finite(dataset.draws(count(config, "n_train"), "train", data_seed), "dataset")
    validation = finite(
        dataset.draws(count(config, "n_validation"), "validation", data_seed), "dataset"
    )
    recipe = construct(config.trainer, "trainer")
    data = TensorData(
        train,
        validation,
        batch_size=recipe.batch_size,
        replacement=recipe.replacement,
        keep_last=recipe.keep_last,
        train_seed=train_seed,
    )
    # a network on images is told their shape, any other one the length of a state
    event = {"dim": dataset.dim, "event_shape": dataset.event_shape}
    event = {key: event[key] for key in event if key in parameters(config.network, "network")}
    shared = {
        "network": construct(config.network, "network", **event, seed=train_seed),
        "schedule": schedule,
        "recipe": recipe,
        "mean": data.mean,
        "std": data.std,
        "train_seed": train_seed,
    }
    named = parameters(config.objective, "objective")
    shared |= {key: construct(config[key], key) for key in PARTS if key in named}
    shared = {key: value for key, value in shared.items() if key in named}
    try:
        return Training(construct(config.objective, "objective", **shared), data)
    except InvalidSetting as error:
        if error.field != "objective.network":
            raise
        refused = shared["network"].needs_level
        others = ", ".join(name for name, level in networks().items() if level != refused)
        raise InvalidSetting("network", error.value, f"{error.allowed}: {others}") from error


def networks() -> dict[str, bool]:
    """Whether each member of conf/network/ has a noise level."""
    paths = sorted((conf_directory() / "network").glob("*.yaml"))
    return {
        path.stem: cast(
            type[Network], trusted(read_member(path)["_target_"], "network")
        ).needs_level
        for path in paths
    }


def check(sweep: Sweep, training: Training | None) -> None:
    """Ask what cannot work before anything runs.

    A sampler that cannot run gives rows that say so; it is a mistake in the config where none can,
    or none on what is to be trained.
    """
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
    if training is not None:
        model = training.objective.model
        law = getattr(training.objective, "level_law", None)
        for rows in levels.values():
            reason = model.target.why_incompatible(rows) if isinstance(model, Learned) else None
            if reason is not None:
                name = type(model.target).__name__
                raise InvalidSetting("target", name, f"another one: {reason}")
            reason = law.why_incompatible(sweep.schedule, rows) if law is not None else None
            if reason is not None:
                raise InvalidSetting("level_law", type(law).__name__, f"another one: {reason}")
        if law is not None:  # a sampler may go above the grid's first level
            asking = [(s, steps) for _, s in sweep.samplers for steps in sweep.steps_of(s)]
            for sampler, steps in asking:
                reason = law.why_incompatible(sweep.schedule, levels[steps], sampler)
                if reason is not None:
                    raise InvalidSetting("level_law", type(law).__name__, f"another one: {reason}")
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
