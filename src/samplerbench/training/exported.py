"""Export a trained model as a diffusers pipeline.

A pipeline can contain a U-Net that gets the level as the number k (see `pretrained`), trained on
data that are not standardised, on a path with α² + σ² = 1. The table of the pipeline has the T
levels t = 1/T, …, 1 of the path.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from samplerbench.core.models import Learned
from samplerbench.core.schedules import TRAIN_STEPS, NoiseSchedule
from samplerbench.errors import InvalidSetting, require
from samplerbench.networks.unet import UNet
from samplerbench.training.pipeline_folder import TARGETS, event_shape


def pipeline(model: Learned) -> Any:
    """A `DDIMPipeline` that makes the same images as our DDIM on the grid `ddpm_trailing`.

    Raises:
        InvalidSetting: a pipeline cannot contain this model.
    """
    allowed = "another one, or pip install 'samplerbench[images]' for diffusers"
    require(find_spec("diffusers") is not None, "network", "unet", allowed)
    from diffusers import DDIMPipeline, DDIMScheduler

    network, name = model.network, type(model.network).__name__
    if not isinstance(network, UNet):
        raise InvalidSetting(
            "network", name, "unet: a diffusers pipeline cannot contain another network"
        )
    allowed = "time: a diffusers pipeline knows a level by its number"
    require(network.level == "time", "network.level", network.level, allowed)
    plain = bool((model.mean == 0).all()) and float(model.std) == 1
    allowed = "false: a diffusers pipeline has no place for the mean and the scale of the data"
    require(plain, "objective.standardise", True, allowed)
    shape, padded = network.event_shape, event_shape(network.unet.config)
    allowed = f"images of {padded}: a diffusers pipeline does not crop the output of its network"
    require(shape == padded, "dataset", shape, allowed)
    predictions = [name for name, target in TARGETS.items() if target == model.target]
    if not predictions:
        name = type(model.target).__name__
        raise InvalidSetting("target", name, "noise, v or data, which a diffusers pipeline knows")
    scheduler = DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        trained_betas=_betas(model.schedule),
        clip_sample=False,
        prediction_type=predictions[0],
        timestep_spacing="trailing",  # begins at the last level of the table, as `ddpm_trailing`
    )
    return DDIMPipeline(unet=network.unet, scheduler=scheduler)


def _betas(schedule: NoiseSchedule) -> list[float]:
    """β_k = 1 − α_k²/α_{k−1}² at the T levels of a path."""
    t = torch.arange(TRAIN_STEPS + 1, dtype=torch.float64) / TRAIN_STEPS
    square = schedule.alpha(t).square()
    gap = float((square + schedule.variance(t) - 1).abs().max())
    name = type(schedule).__name__
    allowed = "one with α² + σ² = 1, such as vp_linear: a diffusers pipeline has no other path"
    require(gap < 1e-9, "schedule", name, allowed)
    betas: list[float] = (1 - square[1:] / square[:-1]).tolist()
    return betas
