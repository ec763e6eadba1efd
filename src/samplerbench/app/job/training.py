"""The training of a job: its objective, its data and its identity."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from samplerbench.app.config.construct import construct, parameters, read_member, trusted
from samplerbench.app.config.folders import conf_directory
from samplerbench.app.job.basis import Basis
from samplerbench.datasets.base import finite
from samplerbench.errors import InvalidSetting, refusing, require
from samplerbench.identity import VERSIONS, arithmetic, describe, identity, identity_of_model
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective
from samplerbench.training.batches import TensorData
from samplerbench.training.weights import load

#: Parts of a training that the constructor of an objective may have as parameters.
PARTS = ("target", "level_law", "weighting")
#: Groups whose settings the key `worse` changes.
WORSE = ("network", "trainer")


@dataclass(frozen=True)
class Training:
    """The objective that is trained, its data, and its identities."""

    objective: Objective[Any]  # with the model
    data: TensorData  # the data of the batches
    id: str  # the identity of the training
    recipe: str  # the identity without the seeds
    weights: Path | None = None  # a file with the model's weights; None if it is trained here


def build_training(base: Basis) -> Training:
    """The objective with its model, and the batches."""
    config, dataset, seeds = base.config, base.dataset, base.seeds
    train_seed = seeds["train_seed"]
    train, validation = (
        finite(dataset.draws(base.plain[key], purpose, seeds["data_seed"]), "dataset")
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
        objective = construct(config.objective, "objective", **shared)
    except InvalidSetting as error:
        if error.field != "objective.network":
            raise
        refused = shared["network"].needs_level
        possible = ", ".join(name for name, level in networks().items() if level != refused)
        raise InvalidSetting("network", error.value, f"{error.allowed}: {possible}") from error
    return Training(objective, data, *training_identities(base, objective, data))


def worse_training(base: Basis) -> Training:
    """A worse network than the learned one on the same data, by the settings `worse`."""
    config, plain = copy.deepcopy(base.config), dict(base.plain)
    for group in WORSE:
        for key, value in (plain["worse"].get(group) or {}).items():
            known = [str(name) for name in config[group] if not str(name).startswith("_")]
            allowed = f"left out; {group} has {', '.join(known)}"
            require(key in known, f"worse.{group}.{key}", value, allowed)
            config[group][key] = value
        plain[group] = OmegaConf.to_container(config[group], resolve=True)
    changed = any(plain[group] != base.plain[group] for group in WORSE)
    allowed = "with settings that differ: 'worse.network={width: 32}' 'worse.trainer={steps: 200}'"
    require(changed, "worse", {group: plain["worse"].get(group) for group in WORSE}, allowed)
    return build_training(replace(base, config=config, plain=plain))


def with_weights(training: Training, path: Path) -> Training:
    """The training with its model loaded from a file of weights, so that it is not trained."""
    with refusing("weights", path, "a file with weights of this network, as a run has"):
        load(training.objective.model, path)
    own = identity_of_model(training.objective.model)
    return replace(training, weights=path, id=own, recipe=own)


def training_keys(config: DictConfig) -> list[str]:
    """The keys of the config that affect the training."""
    named = parameters(config.objective, "objective")
    parts = [key for key in ("schedule", *PARTS) if key in named]
    return [*parts, "network", "objective", "trainer", "n_train", "n_validation"]


def training_identities(
    base: Basis, objective: Objective[Any], data: TensorData
) -> tuple[str, str]:
    """The identity of a training, and its identity without the seeds."""
    network = objective.model.network
    recipe = {
        **{key: base.plain[key] for key in training_keys(base.config)},
        "path": describe(base.schedule),  # a pretrained model has its own
        "data": describe(base.dataset, code=True),
        # with the code of members of trusted packages
        "members": [member_code(base.config, key) for key in training_keys(base.config)],
        "device": base.device.type,
        "precision": objective.precision(base.device.type),
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


def networks() -> dict[str, bool]:
    """The members of conf/network/, each with whether it takes a noise level."""
    paths = sorted((conf_directory() / "network").glob("*.yaml"))
    return {
        path.stem: cast(
            type[Network], trusted(read_member(path)["_target_"], "network")
        ).needs_level
        for path in paths
    }
