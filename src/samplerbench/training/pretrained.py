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
weights as safetensors. diffusers itself builds the scheduler from the configuration, as for whoever
runs the pipeline there, and the table is read off that object. What this diffusers would pass over,
or what no table of a discrete DDPM says, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samplerbench.core.grids import AnyLevel, Levels
from samplerbench.core.models import Denoiser, Learned
from samplerbench.core.schedules import TRAIN_STEPS, DDPMTable, NoiseSchedule
from samplerbench.core.targets import DataTarget, NoiseTarget, Target, VTarget
from samplerbench.errors import InvalidSetting, first_line, kind_and_line, require
from samplerbench.networks.unet import UNet
from samplerbench.training.weights import finite

#: diffusers' names of the targets.
TARGETS: dict[str, Target] = {
    "epsilon": NoiseTarget(),
    "v_prediction": VTarget(),
    "sample": DataTarget(),
}
#: diffusers' pipelines that make images from noise alone, by a U-Net and a scheduler on pixels.
PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Unsuitable(Exception):
    """A pipeline that is no unconditional DDPM on pixels; the message says why, in one line."""


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
    try:
        with _quiet():
            index = _read(folder / "model_index.json")
            config = _read(_part(folder, "scheduler") / "scheduler_config.json")
            scheduler = _scheduler(index, config)
            schedule = _table(scheduler)
            unet = _part(folder, "unet")
            shape = _shape(_read(unet / "config.json"), schedule.train_steps)
            if not any((unet / name).is_file() for name in (WEIGHTS, f"{WEIGHTS}.index.json")):
                raise InvalidSetting("model", model, _converted(model))
            target = TARGETS[scheduler.config.prediction_type]
            return Pretrained(_loaded(unet), target, schedule, shape, clip)
    except InvalidSetting:
        raise
    except Unsuitable as error:
        raise InvalidSetting("model", model, f"another one: {error}") from error
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
    """A part's configuration; there is none where a part was saved without its pipeline."""
    if not path.is_file():
        raise Unsuitable(f"it has no {path.name}; save a whole pipeline, by its save_pretrained")
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no mapping")
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' log: what it would only warn of is refused here, or decides nothing."""
    from diffusers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(told)


def _scheduler(index: Mapping[str, Any], config: dict[str, Any]) -> Any:
    """The scheduler as diffusers builds it: by its class, and then by its pipeline.

    What the file leaves out is the default of that class. A `DDIMPipeline` and a `PNDMPipeline`
    make their own scheduler of the one that they are given, and what was left out becomes the
    default of the new class. No network is needed for that.

    Args:
        index: model_index.json, the parts of a pipeline and their classes.
        config: scheduler_config.json.
    """
    import diffusers

    pipeline = index.get("_class_name")
    if pipeline not in PIPELINES:
        raise Unsuitable(
            f"its pipeline is {pipeline}, none of those on pixels: {', '.join(PIPELINES)}"
        )
    parts = {name: part for name, part in index.items() if part not in (None, [None, None])}
    for name in sorted(parts):
        if not name.startswith("_") and name not in ("unet", "scheduler"):
            raise Unsuitable(f"it has a {name}; one on pixels has a unet and a scheduler only")
    network, name = _named(parts, "unet"), _named(parts, "scheduler")
    if network != "UNet2DModel":
        raise Unsuitable(f"its network is {network}; only UNet2DModel is on pixels alone")
    if config.get("_class_name", name) != name:
        both = f"model_index.json says {name}, scheduler_config.json {config['_class_name']}"
        raise Unsuitable(f"its files do not agree: {both}")
    kind: Any = getattr(diffusers, name, None)
    known = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
    if not known:
        raise Unsuitable(f"its scheduler {name} is none that diffusers {version('diffusers')} has")
    config = _modern(config)
    _require_known(kind, config)
    return getattr(diffusers, pipeline)(unet=None, scheduler=kind.from_config(config)).scheduler


def _named(parts: Mapping[str, Any], name: str) -> str:
    """The class of a part, which must be one of diffusers' own: no other code is executed."""
    match parts.get(name):
        case ["diffusers", str(found)]:
            return found
        case part:
            raise Unsuitable(f"its {name} is {part}, none of diffusers' own classes")


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration without two words that diffusers had before version 0.9.

    `tensor_format` decides nothing. `predict_epsilon` said what `prediction_type` says now. Today's
    diffusers passes over it, takes every network for one that predicts ε, and writes both words
    when it saves such a scheduler again.
    """
    config = {name: value for name, value in config.items() if name != "tensor_format"}
    epsilon = config.pop("predict_epsilon", None)
    if epsilon is not None:
        meant = "epsilon" if epsilon else "sample"
        said = config.setdefault("prediction_type", meant)
        if said != meant:
            both = f"predict_epsilon={epsilon} and prediction_type={said}"
            raise Unsuitable(f"its scheduler says {both}, which cannot both be; take one out")
    return config


def _require_known(kind: Any, config: dict[str, Any]) -> None:
    """Refuse settings that this diffusers passes over: they may decide what the network means."""
    others = kind.extract_init_dict(config)[1]
    unknown = ", ".join(sorted(name for name, value in others.items() if value is not None))
    if unknown:
        known = f"diffusers {version('diffusers')} does not know: {unknown}"
        either = "a newer one may, or take them out if they decide nothing"
        raise Unsuitable(f"its {kind.__name__} has settings that {known}; {either}")


def _table(scheduler: Any) -> DDPMTable:
    """The path, of diffusers' own numbers, which are mostly float32."""
    kind, config = type(scheduler).__name__, scheduler.config
    prediction = config.get("prediction_type")
    if not hasattr(scheduler, "alphas_cumprod"):
        raise Unsuitable(f"{kind} has no table of a discrete DDPM")
    if config.get("use_flow_sigmas"):
        raise Unsuitable(f"{kind} with use_flow_sigmas is flow matching, not a DDPM")
    if config.get("timestep_type") == "continuous" and prediction == "v_prediction":
        raise Unsuitable(f"{kind} with timestep_type=continuous tells no number of a level")
    if "timestep_scaling" in config:
        raise Unsuitable(f"{kind} is for consistency models, which are no denoisers")
    if str(config.get("variance_type")).startswith("learned"):
        raise Unsuitable("its network predicts a variance too")
    if prediction not in TARGETS:
        raise Unsuitable(f"it predicts {prediction}, none of {', '.join(TARGETS)}")
    signal, steps = scheduler.alphas_cumprod.double().tolist(), config.num_train_timesteps
    if len(signal) != steps:
        raise Unsuitable(f"its table has {len(signal)} levels, and num_train_timesteps={steps}")
    try:
        return DDPMTable(tuple(signal))
    except InvalidSetting as error:
        raise Unsuitable(f"the α² of its table must be {error.allowed}") from error


def _shape(config: dict[str, Any], train_steps: int) -> tuple[int, int, int]:
    """The shape of the network's images, if it runs on them.

    It is tried without weights and without numbers, on torch's meta device.

    Args:
        config: of the network.
        train_steps: T, how many levels it must know.
    """
    from diffusers import UNet2DModel

    if config.get("_class_name") != "UNet2DModel":
        network = config.get("_class_name")
        raise Unsuitable(f"its network is {network}; only UNet2DModel is on pixels alone")
    if config.get("quantization_config"):
        raise Unsuitable("its weights are quantised")
    _require_known(UNet2DModel, config)
    meta = torch.device("meta")
    with meta:
        unet = UNet2DModel.from_config(config)
    about, clock = unet.config, unet.time_proj
    if unet.class_embedding is not None:
        raise Unsuitable("its network wants a class")
    if about.time_embedding_type == "fourier":
        raise Unsuitable("its network's clock is no number of a level: a score SDE, not a DDPM")
    if about.in_channels != about.out_channels:
        channels = f"{about.in_channels} channels and gives {about.out_channels}"
        other = "a variance that is learned, or a picture to begin from, has no place here"
        raise Unsuitable(f"its network takes {channels}: {other}")
    if isinstance(clock, nn.Embedding) and clock.num_embeddings < train_steps:
        known = f"{clock.num_embeddings} levels, and its scheduler has {train_steps}"
        raise Unsuitable(f"its network knows {known}")
    shape = _event_shape(about)
    try:
        with torch.no_grad():
            unet(torch.empty(1, *shape, device=meta), torch.zeros(1, dtype=torch.long, device=meta))
    except RuntimeError as error:
        raise Unsuitable(f"its network does not run on {shape}: {first_line(error)}") from error
    return shape


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


def _event_shape(unet: Mapping[str, Any]) -> tuple[int, int, int]:
    """(channels, height, width); one number for the size is a square."""
    match unet["sample_size"]:
        case int(size) if size > 0:
            return unet["in_channels"], size, size
        case [int(height), int(width)] if height > 0 and width > 0:
            return unet["in_channels"], height, width
        case size:
            raise Unsuitable(f"its network does not say the size of an image: sample_size={size}")


def _loaded(folder: Path) -> Any:
    """The U-Net with its weights, in float32.

    Raises:
        Unsuitable: weights are missing, for which diffusers would take random ones, or left over,
            which it would leave out, or not all finite.
    """
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):  # a network draws its weights before it has them
        unet, about = UNet2DModel.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    missing, left = len(about["missing_keys"]), len(about["unexpected_keys"])
    if missing or left:
        raise Unsuitable(f"its file lacks {missing} of the network's weights and has {left} others")
    if not finite(unet.state_dict()):
        raise Unsuitable("the network's weights are not all finite")
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
