"""The law, the path and the seeds of a job, and plain settings of its config, checked."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from samplerbench.app.config.construct import construct, convert
from samplerbench.app.config.groups import is_typed
from samplerbench.app.config.numbers import whole_number
from samplerbench.bench.cache import Cache
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.gaussian_spectrum import gaussian_twin
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting, require
from samplerbench.figures.common import Look
from samplerbench.training.pretrained import Pretrained, pretrained

CACHE = ("on", "off", "refresh")
LAWS = (None, "gaussian_twin")
DENOISERS = ("learned", "empirical", "oracle", "guided", "autoguided", "corrupted", "pretrained")
#: The denoisers that `guided`, `autoguided` and `corrupted` can alter.
ALTERED = ("oracle", "learned")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: Keys with numbers of points, and the part of the data from which the points are drawn.
SIZES = {"n_train": "train", "n_validation": "validation", "n_reference": "evaluation"}
#: The largest number of values in a block of images.
IMAGE_NUMBERS = 10**6


@dataclass(frozen=True, eq=False)
class Basis:
    """The law, the path and the seeds, from which the other parts of a job are built."""

    config: DictConfig  # the composed config
    plain: dict[str, Any]  # the config as resolved plain values, with the changes of `reduced`
    choices: Mapping[str, Any]  # the chosen member of each group
    device: torch.device  # of the states
    model: Pretrained | None  # the pretrained model, if any
    dataset: Dataset
    schedule: NoiseSchedule
    seeds: Mapping[str, int]  # by the config's names
    # the numbers of points that are smaller than in the config, see `chosen_sizes`
    reduced: Mapping[str, int]


def make_basis(
    config: DictConfig,
    choices: Mapping[str, Any],
    dataset: Dataset | None = None,
    schedule: NoiseSchedule | None = None,
    given: Collection[str] = (),
) -> Basis:
    """Make the law, path, device and seeds, and set the number of threads.

    Args:
        dataset: a law to use instead of the config's.
        schedule: a path to use instead of the config's.
        given: keys that the user has set, in addition to those on the command line.
    """
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    torch.set_num_threads(whole_number(config, "threads"))
    device = chosen_device(config.device)
    seeds = {
        key: whole_number(config, key) for key in ("seed", "data_seed", "train_seed", "metric_seed")
    }
    model = chosen_model(config)  # first, since the download of a model takes longest
    if dataset is not None:
        pass
    elif model is not None and config.get("dataset") is None:
        dataset = Unseen(model.event_shape)
    else:
        allowed = "a data set: only a job with denoiser=pretrained makes pictures without one"
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
        allowed += "; an image_folder has dataset.size and dataset.colours=grey or rgb"
        good = dataset.event_shape == model.event_shape
        require(good, "dataset", choices.get("dataset"), allowed)
    reduced = chosen_sizes(config, dataset, given)
    plain = {str(key): value for key, value in resolved.items()} | reduced
    return Basis(config, plain, choices, device, model, dataset, schedule, seeds, reduced)


def chosen_sizes(config: DictConfig, dataset: Dataset, given: Collection[str]) -> dict[str, int]:
    """The `SIZES` that exceed the parts of a finite data set, reduced to the sizes of the parts."""
    most = {key: dataset.most_draws(part) for key, part in SIZES.items()}
    sizes = {key: whole_number(config, key) for key in SIZES}
    reduced = {key: n for key, n in most.items() if n is not None and n < sizes[key]}
    typed = {key: n for key, n in reduced.items() if key in given or is_typed(key)}
    if typed:
        (first, _), *_ = typed.items()
        too_many = ", ".join(f"{key}={sizes[key]}" for key in typed).removeprefix(f"{first}=")
        allowed = "at most the rows of these parts of the data set: "
        allowed += ", ".join(f"{key}={n}" for key, n in typed.items())
        raise InvalidSetting(first, too_many, allowed)
    return reduced


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

    It does not depend on n. Otherwise sample i would depend on n, since the last bits of a network
    in single precision depend on the size of the batch. Blocks of images are small because the last
    block is filled up, and a U-Net is as fast per image in a block of 100 as in one of 2 000.
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


def chosen_look(config: DictConfig) -> Look:
    """The format and style of the job's figures. Earlier configs do not have the key."""
    node = OmegaConf.to_container(config.get("figure") or OmegaConf.create())
    assert isinstance(node, dict)
    formats = node.get("format", "png")
    node["format"] = [formats] if isinstance(formats, str) else formats
    kinds = {"style": str, "format": tuple[str, ...], "font": float | None, "width": float | None}
    given = {name: kind for name, kind in kinds.items() if name in node}
    return Look(
        **{name: convert(node[name], kind, f"figure.{name}") for name, kind in given.items()}
    )
