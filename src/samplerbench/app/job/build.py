"""From the composed config to the objects of one job, all checked before any work.

Objects that several parts need are built once and passed on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from samplerbench.app.config.compose import check_keys
from samplerbench.app.config.construct import (
    construct,
    construct_grid,
    convert,
    parameters,
    read_member,
    trusted,
)
from samplerbench.app.config.folders import conf_directory
from samplerbench.app.config.groups import chosen_members, chosen_nodes, is_typed
from samplerbench.app.config.numbers import whole_number, whole_numbers
from samplerbench.app.job.refusals import check
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.cache import Cache
from samplerbench.bench.cell import Labels, Origin
from samplerbench.bench.chains import require_chains
from samplerbench.bench.floor_free import FloorFree
from samplerbench.bench.scene import Scene
from samplerbench.bench.sweep import Sweep, recall_nothing
from samplerbench.core.cuda_graphs import Graphed
from samplerbench.core.models import Denoiser, Guided, Score
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset, finite
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.gaussian_spectrum import gaussian_twin
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting, require
from samplerbench.figures.common import Look
from samplerbench.identity import VERSIONS, arithmetic, describe, identity
from samplerbench.logs.base import Logger
from samplerbench.metrics.base import Metric
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective
from samplerbench.training.batches import TensorData
from samplerbench.training.pretrained import Pretrained, pretrained

if TYPE_CHECKING:  # slow: imports matplotlib
    from samplerbench.figures.base import Picture

CACHE = ("on", "off", "refresh")
LAWS = (None, "gaussian_twin")
DENOISERS = ("learned", "empirical", "oracle", "guided", "pretrained")
#: The parts of a training that an objective names in its constructor if it has a use for them.
PARTS = ("target", "level_law", "weighting")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: The largest number of values in a block of images.
IMAGE_NUMBERS = 10**6


@dataclass(frozen=True)
class Training:
    """The objective that is trained, and its data."""

    objective: Objective[Any]
    data: TensorData


@dataclass(frozen=True)
class Job:
    """Everything that one job needs, built and checked.

    Args:
        sweep: the grid of cells; its learned denoiser, if any, is not trained yet.
        budget: the error budget of the sweep, or None.
        floor_free: what the floor hides, or None; a budget shows it itself.
        training: trains the sweep's learned denoiser; None if there is none.
        pictures: by name; each is possible for this job.
        logger: the logger of the run.
        cache: of models and values, or None.
        wanted: a distance that the user wants to detect, as a share of the floor.
        chains: the number of chains of each Langevin sampler to examine, or 0.
        config: the resolved config, plain values only.
        look: of figures.
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


def scene(sweep: Sweep, training: Training | None) -> Scene:
    """The scene of the job's pictures, before the training."""
    untrained = training.objective.model if training else None
    return Scene(
        dataset=sweep.dataset,
        schedule=sweep.schedule,
        grid=sweep.path_grid,
        denoisers=sweep.denoisers,
        starts=sweep.starts,
        samplers=sweep.samplers,
        steps=sweep.all_steps,
        untrained=untrained,
        train=training.data.x0 if training else torch.empty(0, sweep.dataset.dim),
        seed=sweep.seed,
        dtype=sweep.dtype,
        device=sweep.device,
        training=training_name(sweep) if training else "",
    )


def training_name(sweep: Sweep) -> str:
    """A description of the training."""
    labels = sweep.labels
    return f"{labels.network} trained with {labels.objective} on {labels.dataset}"


def scene_description(sweep: Sweep) -> dict[str, Any]:
    """Everything that determines a `scene` of the trained model, for an identity."""
    described = partial(describe, code=True)
    return {
        "dataset": described(sweep.dataset),
        "schedule": described(sweep.schedule),
        "grid": described(sweep.path_grid),
        # in their order, since panels and legends have this order
        "denoisers": [(name, asdict(origin)) for name, origin in sweep.books.origins.items()],
        "starts": [(name, described(start)) for name, start in sweep.starts.items()],
        "samplers": [(name, described(sampler)) for name, sampler in sweep.samplers],
        "steps": sweep.all_steps,
        "training": training_name(sweep),
        "seed": sweep.seed,
        "dtype": str(sweep.dtype),
        "device": sweep.device.type,
        "threads": torch.get_num_threads(),
    }


def chosen_denoisers(config: DictConfig) -> list[str]:
    """The names of the score models, without repetitions."""
    value = config.denoiser
    listed = list(value) if isinstance(value, ListConfig) else [value]
    allowed = f"one or several of {', '.join(DENOISERS)}, each named once"
    good = len(listed) > 0 and all(name in DENOISERS for name in listed)
    require(good and len(set(listed)) == len(listed), "denoiser", value, allowed)
    return listed


def chosen_law(config: DictConfig, dataset: Dataset) -> Dataset:
    """The law of a data set, or its Gaussian twin. Earlier configs do not have the key."""
    law = config.get("law")
    require(law in LAWS, "law", law, "null or gaussian_twin")
    return dataset if law is None else gaussian_twin(dataset)


def noised_law(dataset: Dataset, noise: float) -> Dataset | None:
    """The law at a noise level, or None for the data themselves."""
    require(0 <= noise < math.inf, "reference_noise", noise, "at least 0")
    if noise == 0:
        return None
    law = dataset.noised(noise)
    allowed = "0: the noised law is known for Gaussian mixtures only"
    require(law is not None, "reference_noise", noise, allowed)
    return law


def processor_count() -> int:
    """The number of processors that this process may use."""
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


def chosen_block(config: DictConfig, event_shape: tuple[int, ...]) -> int:
    """The number of rows of a block; by default it depends on the shape of the data.

    It does not depend on n: the last bits of a network in single precision depend on the size of
    the batch, so sample i would depend on n. Blocks of images are small because the last block is
    filled up, and a U-Net takes the same time per image in a block of 100 as in one of 2 000.
    """
    if config.block is not None:
        return whole_number(config, "block")
    if len(event_shape) < 3:
        return 2000
    return max(1, min(100, IMAGE_NUMBERS // math.prod(event_shape)))


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
    given = config.cache_dir
    require(isinstance(given, str) and bool(given), "cache_dir", given, "a folder")
    return None if mode == "off" else Cache(Path(str(config.cache_dir)), mode == "refresh")


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
        reason = picture.why_incompatible(scene(sweep, training))
        if reason is not None:
            raise InvalidSetting("picture", name, f"another one: {reason}")
    wanted = convert(config.wanted, float, "wanted")
    require(0 < wanted < math.inf, "wanted", wanted, "positive: a share of the floor")
    budget = chosen_budget(config, sweep)
    floor_free = convert(config.get("floor_free", False), bool, "floor_free") and budget is None
    return Job(
        sweep,
        budget,
        FloorFree(sweep) if floor_free else None,
        training,
        pictures,
        logger,
        cache,
        wanted,
        chains,
        base.plain,
        chosen_look(config),
    )


def chosen_look(config: DictConfig) -> Look:
    """The format and style of the job's figures. Earlier configs do not have the key."""
    node = OmegaConf.to_container(config.get("figure") or OmegaConf.create())
    assert isinstance(node, dict)
    formats = node.get("format", "png")
    node["format"] = [formats] if isinstance(formats, str) else formats
    kinds = {"style": str, "format": tuple[str, ...], "font": float | None, "width": float | None}
    given = {name: kind for name, kind in kinds.items() if name in node}
    return Look(**{name: convert(node[name], of, f"figure.{name}") for name, of in given.items()})


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
        law, m = truth or base.dataset, whole_number(config, "n_reference")
        reference = finite(law.draws(m, "evaluation", seeds["data_seed"]), "dataset")
    training = build_training(base) if "learned" in scores else None
    denoisers = {name: chosen_denoiser(base, name, training) for name in scores}
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
            name: make_origin(base, name, score, training) for name, score in denoisers.items()
        },
        block=chosen_block(config, base.dataset.event_shape),
        dtype=chosen_dtype(config.dtype),
        device=base.device,
        workers=workers if base.device.type == "cpu" else 1,
        labels=make_labels(base, run, f" + {noise:g}·ε" if truth else ""),
        **seeds,
    )
    return sweep, training


@dataclass(frozen=True, eq=False)
class Basis:
    """The law, the path and the seeds, from which the other parts of a job are built.

    Args:
        config: the composed config.
        plain: the same, resolved, plain values only.
        choices: the chosen member of each group.
        device: of the states.
        model: the pretrained model, if any.
        dataset: the law.
        schedule: the path.
        seeds: by the config's names.
    """

    config: DictConfig
    plain: dict[str, Any]
    choices: Mapping[str, Any]
    device: torch.device
    model: Pretrained | None
    dataset: Dataset
    schedule: NoiseSchedule
    seeds: Mapping[str, int]


def make_basis(
    config: DictConfig,
    choices: Mapping[str, Any],
    dataset: Dataset | None = None,
    schedule: NoiseSchedule | None = None,
) -> Basis:
    """Law, path, device and seeds; sets the number of threads."""
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    torch.set_num_threads(whole_number(config, "threads"))
    device = chosen_device(config.device)
    seeds = {
        key: whole_number(config, key) for key in ("seed", "data_seed", "train_seed", "metric_seed")
    }
    model = chosen_model(config)  # first, since a missing model takes longest to download
    if dataset is not None:
        pass
    elif model is not None and config.get("dataset") is None:
        dataset = Unseen(model.event_shape)
    else:
        allowed = "a data set: only a pretrained model makes pictures without, denoiser=pretrained"
        require(config.get("dataset") is not None, "dataset", "null", allowed)
        dataset = chosen_law(config, construct(config.dataset, "dataset"))
    if model is not None:
        schedule = model.schedule
    elif schedule is None:
        schedule = construct(config.schedule, "schedule")
    if model is not None:
        allowed = "left out: the path is the pipeline's own table"
        require(not is_typed("schedule"), "schedule", choices.get("schedule"), allowed)
        allowed = f"images of the model's shape, {model.event_shape}, not {dataset.event_shape}"
        good = dataset.event_shape == model.event_shape
        require(good, "dataset", choices.get("dataset"), allowed)
    plain = {str(key): value for key, value in resolved.items()}
    return Basis(config, plain, choices, device, model, dataset, schedule, seeds)


def chosen_denoiser(base: Basis, name: str, training: Training | None) -> Score:
    """One of `DENOISERS`, on the job's device; the learned one is not trained yet."""
    score: Score
    if name == "learned":
        assert training is not None
        score = training.objective.model
    elif name == "empirical":
        n, seed = whole_number(base.config, "n_train"), base.seeds["data_seed"]
        points = finite(base.dataset.draws(n, "train", seed), "dataset")
        score = Empirical(points).oracle(base.schedule).to(base.device)
    elif name == "pretrained":
        assert base.model is not None
        score = base.model.to(base.device)
    elif name == "guided":
        score = guided(base).to(base.device)
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


def guided(base: Basis) -> Guided:
    """The exact denoiser of the data, guided by that of another data set."""
    config, allowed = base.config, "a data set, such as +dataset@guide=gaussian_spectrum"
    require(config.get("guide") is not None, "guide", None, allowed)
    # twins are in bases of their own, in which the two cannot be mixed
    require(config.get("law") is None, "law", config.get("law"), "null with denoiser=guided")
    guide: Dataset = construct(config.guide, "guide")
    dim = base.dataset.dim
    require(guide.dim == dim, "guide.dim", guide.dim, f"{dim}, as the data's")

    def exact(key: str, law: Dataset) -> Denoiser:
        oracle = law.oracle(base.schedule)
        if oracle is None:
            raise InvalidSetting(key, type(law).__name__, "one with an exact denoiser")
        return oracle

    weight = convert(config.guidance, float, "guidance")
    return Guided(exact("dataset", base.dataset), exact("guide", guide), weight)


def make_origin(base: Basis, name: str, score: Score, training: Training | None) -> Origin:
    """The origin of one of `DENOISERS`, for identities."""
    n = base.plain["n_train"]
    if name == "learned":
        assert training is not None
        return Origin(name, *training_identities(base, training))
    if name == "empirical":
        return Origin(name, identity(score), identity(n))
    if name == "guided":
        return Origin(name, identity(score), identity(score))
    if name == "pretrained":
        assert base.model is not None
        weights = identity([base.model.digest(), version("diffusers")])
        return Origin(name, weights, weights)
    return Origin(name)


def training_identities(base: Basis, training: Training) -> tuple[str, str]:
    """The identity of a training, and the same without its seeds."""
    network, data = training.objective.model.network, training.data
    recipe = {
        **{key: base.plain[key] for key in training_keys(base.config)},
        "path": describe(base.schedule),  # a pretrained model has its own
        "data": describe(base.dataset, code=True),
        # with the code of members of trusted packages
        "members": [member_code(base.config, key) for key in training_keys(base.config)],
        "device": base.device.type,
        "threads": torch.get_num_threads(),
        "arithmetic": arithmetic(),
        "versions": VERSIONS | {name: version(name) for name in network.packages},
    }
    seeds = {
        "train_seed": base.seeds["train_seed"],
        "train": describe(data.x0),
        "validation": describe(data.validation),
    }
    return identity([recipe, seeds]), identity(recipe)


def member_code(config: DictConfig, key: str) -> object:
    """The code of the class or function that a key of the config names, if any."""
    target = config[key].get("_target_") if isinstance(config[key], DictConfig) else None
    return None if target is None else describe(trusted(target, key), code=True)


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


def training_keys(config: DictConfig) -> list[str]:
    """The keys of the config that affect the training."""
    named = parameters(config.objective, "objective")
    parts = [key for key in ("schedule", *PARTS) if key in named]
    return [*parts, "network", "objective", "trainer", "n_train", "n_validation"]


def build_training(base: Basis) -> Training:
    """The objective with its model, and the batches."""
    config, dataset, seeds = base.config, base.dataset, base.seeds
    train_seed = seeds["train_seed"]
    train, validation = (
        finite(dataset.draws(whole_number(config, key), purpose, seeds["data_seed"]), "dataset")
        for key, purpose in (("n_train", "train"), ("n_validation", "validation"))
    )
    recipe = construct(config.trainer, "trainer")
    data = TensorData(train, validation)
    # a network on images needs their shape, any other network the length of a state
    event = {"dim": dataset.dim, "event_shape": dataset.event_shape}
    event = {key: event[key] for key in event if key in parameters(config.network, "network")}
    shared = {
        "network": construct(config.network, "network", **event, seed=train_seed),
        "schedule": base.schedule,
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
        possible = ", ".join(name for name, level in networks().items() if level != refused)
        raise InvalidSetting("network", error.value, f"{error.allowed}: {possible}") from error


def networks() -> dict[str, bool]:
    """Whether each member of conf/network/ has a noise level."""
    paths = sorted((conf_directory() / "network").glob("*.yaml"))
    return {
        path.stem: cast(
            type[Network], trusted(read_member(path)["_target_"], "network")
        ).needs_level
        for path in paths
    }
