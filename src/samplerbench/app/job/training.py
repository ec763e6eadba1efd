"""The training of a job: its objective, its data and its identity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig

from samplerbench.app.config.construct import construct, parameters, read_member, trusted
from samplerbench.app.config.folders import conf_directory
from samplerbench.app.job.basis import Basis
from samplerbench.datasets.base import finite
from samplerbench.errors import InvalidSetting, kind_and_line
from samplerbench.identity import VERSIONS, arithmetic, describe, identity
from samplerbench.networks.base import Network
from samplerbench.objectives.base import Objective
from samplerbench.training.batches import TensorData
from samplerbench.training.weights import load

#: Parts of a training that the constructor of an objective may have as parameters.
PARTS = ("target", "level_law", "weighting")


@dataclass(frozen=True)
class Training:
    """The objective that is trained, and its data.

    Args:
        objective: with its model.
        data: the batches.
        weights: the file of the model's weights, if it is not trained here.
    """

    objective: Objective[Any]
    data: TensorData
    weights: Path | None = None


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
        return Training(construct(config.objective, "objective", **shared), data)
    except InvalidSetting as error:
        if error.field != "objective.network":
            raise
        refused = shared["network"].needs_level
        possible = ", ".join(name for name, level in networks().items() if level != refused)
        raise InvalidSetting("network", error.value, f"{error.allowed}: {possible}") from error


def with_weights(training: Training, path: Path) -> Training:
    """The training whose model has the weights of a file, and is not trained.

    Raises:
        InvalidSetting: the file cannot be read, or has the weights of another network.
    """
    try:
        load(training.objective.model, path)
    except Exception as error:  # the file may have any content
        allowed = f"a file with weights of this network, as a run has ({kind_and_line(error)})"
        raise InvalidSetting("weights", path, allowed) from error
    return replace(training, weights=path)


def training_keys(config: DictConfig) -> list[str]:
    """The keys of the config that affect the training."""
    named = parameters(config.objective, "objective")
    parts = [key for key in ("schedule", *PARTS) if key in named]
    return [*parts, "network", "objective", "trainer", "n_train", "n_validation"]


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
        "precision": training.objective.precision(base.device.type),
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
    """Whether each member of conf/network/ has a noise level."""
    paths = sorted((conf_directory() / "network").glob("*.yaml"))
    return {
        path.stem: cast(
            type[Network], trusted(read_member(path)["_target_"], "network")
        ).needs_level
        for path in paths
    }
