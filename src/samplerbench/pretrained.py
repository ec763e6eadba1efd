"""Pretrained image models: the U-Net of a diffusers pipeline as a denoiser.

A discrete DDPM (Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, arXiv
2006.11239) is trained on T levels, which its network knows by their integers k = 0, …, T − 1.
Its table of α² is the path, `schedules.DDPMTable`, with level k at t = (k + 1)/T, where the grids
`ddpm_leading`, `ddpm_linspace` and `ddpm_trailing` stop. Back from a level to the network's clock,

    k = max(T·t − 1, 0):

an integer at the levels of the table, a fraction between them, where other grids and methods of
several stages ask, and 0 below the first level, at which nothing was trained. Most U-Nets make
sines and cosines of k, which know fractions; one that looks k up in a table of its own is asked for
the nearest integer.

What the network predicts is one of three targets: ε, v or x₀. diffusers' schedulers clip x̂₀ to the
pixels' range and keep the ε̂ that the network gave. Then no x̂₀ stands for the step that they take,
and no sampler here can take it. `clip` is the other way, in which the DDIM step stays what it is:
x̂₀ is clipped and ε̂ = (x − α·x̂₀)/σ follows from it (their `use_clipped_model_output`).

The other way round, `pipeline` makes a diffusers pipeline of a model that was trained here, where
one can hold it: a U-Net that knows a level by k, data that are not standardised, and a path with
α² + σ² = 1, of which it takes the T levels as its table.

Nothing is downloaded, and nothing of a pipeline is executed: its configuration is read as JSON, its
weights as safetensors, and of its parts only the U-Net and the table are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samplerbench.errors import InvalidSetting, kind_and_line, require
from samplerbench.grids import AnyLevel, Levels
from samplerbench.models import Denoiser, Learned
from samplerbench.networks.unet import TRAIN_STEPS, UNet
from samplerbench.schedules import DDPMTable, NoiseSchedule
from samplerbench.targets import DataTarget, NoiseTarget, Target, VTarget
from samplerbench.weights import finite

#: diffusers' names of the targets.
TARGETS: dict[str, Target] = {
    "epsilon": NoiseTarget(),
    "v_prediction": VTarget(),
    "sample": DataTarget(),
}
#: What of a scheduler's configuration decides its table of α².
TABLE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Pretrained(Denoiser):
    """A U-Net with the clock of a discrete DDPM. One call of it for one evaluation.

    Args:
        unet: diffusers' `UNet2DModel`, float32: (images, k) ↦ y.
        target: what y means.
        schedule: the table it was trained on.
        event_shape: of an image: (channels, height, width).
        clip: x̂₀ is clipped to [−clip, clip]; None leaves it as it is.
    """

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
        # a layout in which a CPU's convolutions take up to a fifth less time
        self.unet = unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.target = target
        self.schedule: DDPMTable = schedule
        self.event_shape = event_shape
        self.clip = clip
        self._whole = isinstance(getattr(unet, "time_proj", None), nn.Embedding)

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """x̂₀ of flattened images, the network in float32, the rest in x's precision."""
        images = x.float().reshape(-1, *self.event_shape)
        y = self.unet(images, self._clock(x, level), return_dict=False)[0]
        x0_hat = self.target.denoise(x, y.reshape(x.shape).to(x.dtype), level)
        return x0_hat if self.clip is None else x0_hat.clamp(-self.clip, self.clip)

    def _clock(self, x: Tensor, level: AnyLevel) -> Tensor:
        """The network's k: one for all images, or one for each."""
        t = torch.as_tensor(level.t, dtype=torch.float64, device=x.device)
        if t.ndim > 0:
            t = t.expand(*x.shape[:-1], 1).reshape(-1)
        k = (self.schedule.train_steps * t - 1).clamp(min=0)
        return k.round().long() if self._whole else k.float()

    def why_incompatible(self, levels: Levels) -> str | None:
        if isinstance(self.target, NoiseTarget) and levels.alpha[0] == 0:
            return "it predicts ε, which says nothing of x₀ at the first level, where α = 0"
        return None

    def digest(self) -> str:
        """A hash of the weights, the target and the clipping: with the path, all that decides."""
        # what begins with an underscore is where it came from
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
        model: a folder that holds one, or its id on the Hugging Face hub if it has been downloaded.
        clip: as in `Pretrained`.

    Raises:
        InvalidSetting: it is not there, or no unconditional DDPM on pixels; in one line.
    """
    allowed = "another one, or pip install 'samplerbench[images]' for diffusers"
    require(find_spec("diffusers") is not None, "denoiser", "pretrained", allowed)
    allowed = "the id of a diffusers pipeline, such as google/ddpm-ema-celebahq-256, or its folder"
    if not isinstance(model, str) or not model:
        raise InvalidSetting("model", model, allowed)
    folder = located(model)
    unet = _part(folder, "unet")
    try:
        about = _read(unet / "config.json")
        scheduler = _read(_part(folder, "scheduler") / "scheduler_config.json")
        reason = _why_not(about, scheduler)
        require(reason is None, "model", model, f"another one: {reason}")
        if not any((unet / name).is_file() for name in (WEIGHTS, f"{WEIGHTS}.index.json")):
            raise InvalidSetting("model", model, _converted(model))
        return Pretrained(
            _loaded(unet), _target(scheduler), _table(scheduler), _event_shape(about), clip
        )
    except InvalidSetting:
        raise
    except Exception as error:  # whatever the files hold
        raise InvalidSetting("model", model, f"{allowed} ({kind_and_line(error)})") from error


def located(model: str) -> Path:
    """The folder of a pipeline: as it is named, or where the hub's cache has it.

    Raises:
        InvalidSetting: it is in neither; with the command that downloads it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    allowed = "a folder that is there, or the id of a pipeline on the Hugging Face hub"
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except HFValidationError as error:
        raise InvalidSetting("model", model, allowed) from error
    except OSError as error:
        once = f"that is in its cache: no job downloads; do it once by hf download {model}"
        raise InvalidSetting("model", model, f"{allowed} {once}") from error


def _part(folder: Path, name: str) -> Path:
    """The folder of a pipeline's part; the first pipelines have all their files in one."""
    return folder / name if (folder / name).is_dir() else folder


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no mapping")
    return content


def _why_not(unet: Mapping[str, Any], scheduler: Mapping[str, Any]) -> str | None:
    """What makes a pipeline none of ours, from its configuration."""
    kind = unet.get("_class_name")
    if kind != "UNet2DModel":
        return f"its network is {kind}, and only an unconditional UNet2DModel on pixels will do"
    if unet.get("class_embed_type") or unet.get("num_class_embeds"):
        return "its network wants a class"
    if unet.get("time_embedding_type", "positional") not in ("positional", "learned"):
        return "its network's clock is no number of a level: a score SDE, not a DDPM"
    if unet.get("in_channels", 3) != unet.get("out_channels", 3):
        return "its network predicts a variance too"
    if not unet.get("sample_size"):
        return "its network does not say the size of an image"
    if unet.get("quantization_config"):
        return "its weights are quantised"
    if not {"beta_schedule", "trained_betas"} & scheduler.keys():
        return f"{scheduler.get('_class_name')} has no table of a discrete DDPM"
    if scheduler.get("prediction_type", "epsilon") not in TARGETS:
        return f"it predicts none of {', '.join(TARGETS)}"
    return None


def _converted(model: str) -> str:
    """What to do about weights in a format that can execute code."""
    command = (
        "from diffusers import DDPMPipeline as P; "
        f"P.from_pretrained('{model}', use_safetensors=False).save_pretrained('NEW')"
    )
    return (
        f"one with its weights in {WEIGHTS}, since other formats can execute code; "
        f'if you trust it: python -c "{command}", then model=NEW'
    )


def _target(scheduler: Mapping[str, Any]) -> Target:
    return TARGETS[scheduler.get("prediction_type", "epsilon")]


def _table(scheduler: Mapping[str, Any]) -> DDPMTable:
    """The path, of diffusers' own numbers, which are float32."""
    from diffusers import DDPMScheduler

    known = {name: scheduler[name] for name in TABLE if name in scheduler}
    return DDPMTable(tuple(DDPMScheduler(**known).alphas_cumprod.double().tolist()))


def _event_shape(unet: Mapping[str, Any]) -> tuple[int, int, int]:
    size = unet["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return int(unet.get("in_channels", 3)), int(height), int(width)


def _loaded(folder: Path) -> Any:
    """The U-Net with its weights, in float32.

    Raises:
        ValueError: there are weights missing, for which diffusers would take random ones, or they
            are not all finite.
    """
    from diffusers import UNet2DModel
    from diffusers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):  # a network draws its weights before it has them
            unet, about = UNet2DModel.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
                output_loading_info=True,
            )
    finally:
        logging.set_verbosity(told)
    if about["missing_keys"]:
        raise ValueError(f"{len(about['missing_keys'])} of the network's weights are missing")
    if not finite(unet.state_dict()):
        raise ValueError("the network's weights are not all finite")
    return unet


def pipeline(model: Learned) -> Any:
    """A `DDIMPipeline` that makes the images of our DDIM on the grid `ddpm_trailing`.

    Raises:
        InvalidSetting: a pipeline cannot hold this model; in one line.
    """
    allowed = "another one, or pip install 'samplerbench[images]' for diffusers"
    require(find_spec("diffusers") is not None, "network", "unet", allowed)
    from diffusers import DDIMPipeline, DDIMScheduler

    network, name = model.network, type(model.network).__name__
    if not isinstance(network, UNet):
        raise InvalidSetting("network", name, "unet: a diffusers pipeline holds no other network")
    allowed = "time: a diffusers pipeline knows a level by its number"
    require(network.level == "time", "network.level", network.level, allowed)
    plain = bool((model.mean == 0).all()) and float(model.std) == 1
    allowed = "false: a diffusers pipeline has no place for the mean and the scale of the data"
    require(plain, "objective.standardise", True, allowed)
    shape, padded = network.event_shape, _event_shape(network.unet.config)
    allowed = f"images of {padded}: a diffusers pipeline does not crop what its network makes"
    require(shape == padded, "dataset", shape, allowed)
    kinds = [kind for kind, target in TARGETS.items() if target == model.target]
    if not kinds:
        name = type(model.target).__name__
        raise InvalidSetting("target", name, "noise, v or data, which a diffusers pipeline knows")
    scheduler = DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        trained_betas=_betas(model.schedule),
        clip_sample=False,
        prediction_type=kinds[0],
        timestep_spacing="trailing",  # the first step begins at the table's last level, as ours
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
