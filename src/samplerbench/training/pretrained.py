"""Pretrained image models: the U-Net of a diffusers pipeline as a denoiser.

A discrete DDPM (Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, arXiv
2006.11239) is trained on T levels, and its network gets a level as an integer k = 0, …, T − 1. The
table of α² is the path, `schedules.DDPMTable`, with level k at t = (k + 1)/T. The grids
`ddpm_leading`, `ddpm_linspace` and `ddpm_trailing` stop at these levels. From t back to k,

    k = max(T·t − 1, 0):

an integer at the levels of the table, a fraction between them (for other grids, and for methods
with several stages), and 0 below the first level, where the network was not trained. Most U-Nets
compute sines and cosines of k, so k can be a fraction. For a network with a learned table of k, k
is rounded.

The network predicts ε, v or x₀. diffusers' schedulers clip x̂₀ to the range of pixels, but use the
unclipped ε̂ of the network. Such a step is not a step of DDIM for any x̂₀, so no sampler here does
it. With `clip` the step is a DDIM step: x̂₀ is clipped, and ε̂ = (x − α·x̂₀)/σ is computed from it
(diffusers' `use_clipped_model_output`).

Nothing is downloaded, and no code of a pipeline is executed; see `pipeline_folder`.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from samplerbench.core.grids import AnyLevel, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.schedules import DDPMTable
from samplerbench.core.targets import NoiseTarget, Target
from samplerbench.errors import InvalidSetting, kind_and_line, require
from samplerbench.training.pipeline_folder import Unsuitable, locate, read_folder


class Pretrained(Denoiser):
    """A U-Net of a discrete DDPM. One call of the network for each evaluation.

    Args:
        unet: diffusers' `UNet2DModel`, float32: (images, k) ↦ y.
        target: the meaning of y.
        schedule: the table it was trained on.
        event_shape: the shape of an image: (channels, height, width).
        clip: x̂₀ is clipped to [−clip, clip]; None: no clipping.
    """

    has_covariance = False

    def __init__(
        self,
        unet: Any,
        target: Target,
        schedule: DDPMTable,
        event_shape: tuple[int, ...],
        clip: float | None = None,
    ) -> None:
        super().__init__()
        require(clip is None or clip > 0, "clip_x0", clip, "positive, or null")
        # with this layout convolutions on a CPU take up to a fifth less time
        self.unet = unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.target = target
        self.schedule: DDPMTable = schedule
        self.trained_noise = schedule.noise_range[1]
        self.event_shape = event_shape
        self.clip = clip
        self._needs_integer = isinstance(getattr(unet, "time_proj", None), nn.Embedding)

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """x̂₀ of flattened images: the network in float32, the rest in x's precision."""
        images = x.float().reshape(-1, *self.event_shape)
        y = self.unet(images, self._level_number(x, level), return_dict=False)[0]
        x0_hat = self.target.denoise(x, y.reshape(x.shape).to(x.dtype), level)
        return x0_hat if self.clip is None else x0_hat.clamp(-self.clip, self.clip)

    def _level_number(self, x: Tensor, level: AnyLevel) -> Tensor:
        """k: one number for all images, or one for each."""
        t = torch.as_tensor(level.t, dtype=torch.float64, device=x.device)
        if t.ndim > 0:
            t = t.expand(*x.shape[:-1], 1).reshape(-1)
        k = (self.schedule.train_steps * t - 1).clamp(min=0)
        return k.round().long() if self._needs_integer else k.float()

    def why_incompatible(self, levels: Levels) -> str | None:
        if isinstance(self.target, NoiseTarget) and levels.alpha[0] == 0:
            return "it predicts ε, which does not determine x₀ at the first level, where α = 0"
        return None

    def digest(self) -> str:
        """A hash of weights, target and clipping; together with the path they determine x̂₀."""
        # keys with an underscore only describe the origin of the configuration
        settings = {k: v for k, v in self.unet.config.items() if not k.startswith("_")}
        about = [type(self.target).__name__, self.clip, self.event_shape, settings]
        digest = blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=8)
        for name, values in sorted(self.unet.state_dict().items()):
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def pretrained(model: str | None, clip: float | None = None) -> Pretrained:
    """The denoiser of a diffusers pipeline.

    Args:
        model: the pipeline's folder, or its id on the Hugging Face hub if it has been downloaded.
        clip: as in `Pretrained`.

    Raises:
        InvalidSetting: the pipeline is missing, or is not an unconditional DDPM on pixels.
    """
    allowed = "another one, or pip install 'samplerbench[images]' for diffusers"
    require(find_spec("diffusers") is not None, "denoiser", "pretrained", allowed)
    allowed = "the id of a diffusers pipeline, such as google/ddpm-ema-celebahq-256, or its folder"
    if not isinstance(model, str) or not model:
        raise InvalidSetting("model", model, allowed)
    folder = locate(model)
    try:
        return Pretrained(*read_folder(folder, model), clip)
    except InvalidSetting:
        raise
    except Unsuitable as error:
        raise InvalidSetting("model", model, f"another one: {error}") from error
    except Exception as error:  # the files may have any content
        raise InvalidSetting("model", model, f"{allowed} ({kind_and_line(error)})") from error
