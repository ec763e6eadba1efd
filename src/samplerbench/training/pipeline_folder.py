"""Read a diffusers pipeline from its folder: the table of levels, the target, the U-Net.

No code of a pipeline is executed: its configuration is read as JSON and its weights as safetensors.
diffusers itself builds the scheduler from the configuration, as it does when it runs the pipeline,
and the table is read from that object. Settings that this version of diffusers would ignore are
refused, and so are pipelines that are not a discrete DDPM on pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from samplerbench.core.schedules import DDPMTable
from samplerbench.core.targets import DataTarget, NoiseTarget, Target, VTarget
from samplerbench.errors import InvalidSetting, first_line
from samplerbench.paths import expanded
from samplerbench.samplers.diffusers import quiet
from samplerbench.training.weights import finite

#: diffusers' names of the targets.
TARGETS: dict[str, Target] = {
    "epsilon": NoiseTarget(),
    "v_prediction": VTarget(),
    "sample": DataTarget(),
}
#: diffusers' pipelines that only need noise, a U-Net on pixels and a scheduler.
PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
_AT_SIGMA = "its network takes σ, and images between 0 and 1"
#: Other pipelines of a U-Net on pixels and a scheduler, and why they are not a discrete DDPM.
OTHER_PIPELINES = {
    "ConsistencyModelPipeline": "its network gives the end of a path, not the mean x̂₀",
    "ScoreSdeVePipeline": _AT_SIGMA,
    "KarrasVePipeline": _AT_SIGMA,
    "RePaintPipeline": "it also needs an image and a mask",
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
AGAIN = "if its download is incomplete, hf download and its id complete it"
#: Advice for networks with channels of a learned variance.
WITHOUT_VARIANCE = (
    "no sampler here uses a learned variance: keep the first half of the rows of conv_out, "
    "set out_channels=in_channels and the scheduler's variance_type=fixed_small, and save it again"
)


class Unsuitable(Exception):
    """The pipeline is not an unconditional DDPM on pixels; the message gives the reason."""


def locate(model: str) -> Path:
    """The folder of a pipeline: `model` itself, or its folder in the cache of the hub.

    Raises:
        InvalidSetting: neither exists; the message has the command that downloads the pipeline.
    """
    folder = expanded(model)
    if os.path.isdir(folder):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    allowed = "an existing folder, or the id of a pipeline on the Hugging Face hub"
    try:
        return Path(snapshot_download(model, local_files_only=True))
    except HFValidationError as error:
        raise InvalidSetting("model", model, allowed) from error
    except OSError as error:
        once = f"that is in its cache: no job downloads; do it once with hf download {model}"
        raise InvalidSetting("model", model, f"{allowed} {once}") from error


def read_folder(folder: Path, model: str) -> tuple[Any, Target, DDPMTable, tuple[int, int, int]]:
    """The U-Net, its target, its table, and the shape of an image.

    Args:
        folder: the folder of the pipeline.
        model: the name of the pipeline, for messages.

    Raises:
        InvalidSetting: its weights are in a format that can execute code.
        Unsuitable: it is not an unconditional DDPM on pixels.
        Exception: an error of diffusers or safetensors, for broken files.
    """
    with quiet():
        if not (folder / "model_index.json").is_file():
            raise Unsuitable(_why_no_pipeline(folder))
        index = _read(folder / "model_index.json")
        config = _read(_part(folder, "scheduler") / "scheduler_config.json")
        scheduler = _scheduler(index, config)
        table = _table(scheduler)
        unet = _part(folder, "unet")
        shape = _shape(_read(unet / "config.json"), table.train_steps)
        _require_weights(unet, model)
        return _load_unet(unet), TARGETS[scheduler.config.prediction_type], table, shape


def _part(folder: Path, name: str) -> Path:
    """The folder of a pipeline's part; the oldest pipelines have all files in one folder."""
    return folder / name if (folder / name).is_dir() else folder


def _read(path: Path) -> dict[str, Any]:
    """The configuration of a pipeline or of a part."""
    if not path.is_file():
        raise Unsuitable(
            f"it has no {path.name}; save a whole pipeline by its save_pretrained; {AGAIN}"
        )
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a mapping")
    return content


def _scheduler(index: Mapping[str, Any], config: dict[str, Any]) -> Any:
    """The scheduler that diffusers builds: by its own class, then by the class of the pipeline.

    Settings that are missing in the file get the defaults of the scheduler's class. A
    `DDIMPipeline` and a `PNDMPipeline` convert the scheduler to a class of their own, and missing
    settings get the defaults of that class. No network is needed for that.

    Args:
        index: model_index.json, the parts of a pipeline and their classes.
        config: scheduler_config.json.
    """
    import diffusers

    pipeline = index.get("_class_name")
    if pipeline not in PIPELINES:
        why = OTHER_PIPELINES.get(str(pipeline), "")
        only = f"{', '.join(PIPELINES)} on pixels" + (f": {why}" if why else "")
        raise Unsuitable(f"its pipeline is {pipeline}, not one of {only}")
    parts = {name: part for name, part in index.items() if part not in (None, [None, None])}
    for name in sorted(parts):
        if not name.startswith("_") and name not in ("unet", "scheduler"):
            raise Unsuitable(
                f"it has a {name}; a pipeline on pixels has a unet and a scheduler only"
            )
    _require_unet(_class_name(parts, "unet"))
    name = _class_name(parts, "scheduler")
    if config.get("_class_name", name) != name:
        both = f"model_index.json says {name}, scheduler_config.json {config['_class_name']}"
        raise Unsuitable(f"its files do not agree: {both}")
    kind: Any = getattr(diffusers, name, None)
    is_scheduler = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
    if not is_scheduler:
        raise Unsuitable(f"diffusers {version('diffusers')} has no scheduler {name}")
    config = _modernised(config)
    _refuse_unknown_settings(kind, config)
    return getattr(diffusers, pipeline)(unet=None, scheduler=kind.from_config(config)).scheduler


def _class_name(parts: Mapping[str, Any], name: str) -> str:
    """The class of a part. Classes outside diffusers are refused: their code would be executed."""
    match parts.get(name):
        case ["diffusers", str(class_name)]:
            return class_name
        case part:
            raise Unsuitable(f"its {name} is {part}, which is not a class of diffusers")


def _require_unet(class_name: object) -> None:
    if class_name != "UNet2DModel":
        raise Unsuitable(
            f"its network is {class_name}; only a UNet2DModel takes nothing but pixels"
        )


def _modernised(config: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration without two settings from before diffusers 0.9.

    `tensor_format` has no effect. `predict_epsilon` became `prediction_type`. Today's diffusers
    ignores the old name, assumes that every network predicts ε, and writes both names when it saves
    such a scheduler again.
    """
    config = {name: value for name, value in config.items() if name != "tensor_format"}
    epsilon = config.pop("predict_epsilon", None)
    if epsilon is not None:
        meant = "epsilon" if epsilon else "sample"
        stated = config.setdefault("prediction_type", meant)
        if stated != meant:
            both = f"predict_epsilon={epsilon} and prediction_type={stated}"
            raise Unsuitable(f"its scheduler has {both}, a contradiction; remove one of them")
    return config


def _refuse_unknown_settings(kind: Any, config: dict[str, Any]) -> None:
    """Refuse settings that this diffusers would ignore: they may change the network's meaning."""
    ignored = kind.extract_init_dict(config)[1]
    unknown = ", ".join(sorted(name for name, value in ignored.items() if value is not None))
    if unknown:
        settings = f"settings that diffusers {version('diffusers')} does not know: {unknown}"
        advice = "try a newer diffusers, or remove them if they have no effect"
        raise Unsuitable(f"its {kind.__name__} has {settings}; {advice}")


def _table(scheduler: Any) -> DDPMTable:
    """The path, from the table that diffusers has computed, mostly in float32."""
    kind, config = type(scheduler).__name__, scheduler.config
    prediction = config.get("prediction_type")
    if not hasattr(scheduler, "alphas_cumprod"):
        raise Unsuitable(f"{kind} has no table of a discrete DDPM")
    if config.get("use_flow_sigmas"):
        raise Unsuitable(f"{kind} with use_flow_sigmas is flow matching, not a DDPM")
    if config.get("timestep_type") == "continuous" and prediction == "v_prediction":
        raise Unsuitable(f"{kind} with timestep_type=continuous does not number its levels")
    if "timestep_scaling" in config:
        raise Unsuitable(f"{kind} is for consistency models, which are not denoisers")
    if str(config.get("variance_type")).startswith("learned"):
        raise Unsuitable(f"its network predicts a variance too, and {WITHOUT_VARIANCE}")
    if prediction not in TARGETS:
        raise Unsuitable(f"it predicts {prediction}, not one of {', '.join(TARGETS)}")
    signal, steps = scheduler.alphas_cumprod.double().tolist(), config.num_train_timesteps
    if len(signal) != steps:
        raise Unsuitable(f"its table has {len(signal)} levels, and num_train_timesteps={steps}")
    try:
        return DDPMTable(tuple(signal))
    except InvalidSetting as error:
        raise Unsuitable(f"the α² of its table must be {error.allowed}") from error


def _shape(config: dict[str, Any], train_steps: int) -> tuple[int, int, int]:
    """The shape of the network's images, (channels, height, width).

    The network is tried on that shape without weights, on torch's meta device.

    Args:
        config: the configuration of the network.
        train_steps: T, the number of levels that the network must accept.
    """
    from diffusers import UNet2DModel

    _require_unet(config.get("_class_name"))
    if config.get("quantization_config"):
        raise Unsuitable("its weights are quantised")
    _refuse_unknown_settings(UNet2DModel, config)
    meta = torch.device("meta")
    with meta:
        unet = UNet2DModel.from_config(config)
    settings, embedding = unet.config, unet.time_proj
    if unet.class_embedding is not None:
        raise Unsuitable("its network needs a class label")
    if settings.time_embedding_type == "fourier":
        raise Unsuitable("its network takes σ (a score SDE), not the number of a level (a DDPM)")
    if settings.in_channels != settings.out_channels:
        channels = f"{settings.in_channels} channels and gives {settings.out_channels}"
        reason = "an image as a second input, as for a higher resolution, cannot be given here"
        if settings.out_channels == 2 * settings.in_channels:
            reason = WITHOUT_VARIANCE
        raise Unsuitable(f"its network takes {channels}: {reason}")
    if isinstance(embedding, nn.Embedding) and embedding.num_embeddings < train_steps:
        levels = f"{embedding.num_embeddings} levels, and its scheduler has {train_steps}"
        raise Unsuitable(f"its network knows {levels}")
    shape = event_shape(settings)
    try:
        with torch.no_grad():
            unet(torch.empty(1, *shape, device=meta), torch.zeros(1, dtype=torch.long, device=meta))
    except RuntimeError as error:
        raise Unsuitable(f"its network does not run on {shape}: {first_line(error)}") from error
    return shape


def event_shape(unet: Mapping[str, Any]) -> tuple[int, int, int]:
    """(channels, height, width) from a U-Net's configuration; a single size means a square."""
    match unet["sample_size"]:
        case int(size) if size > 0:
            return unet["in_channels"], size, size
        case [int(height), int(width)] if height > 0 and width > 0:
            return unet["in_channels"], height, width
        case size:
            raise Unsuitable(f"its network has no image size: sample_size={size}")


def _why_no_pipeline(folder: Path) -> str:
    """Why a folder without model_index.json is refused, and the model to give instead."""
    missing = "it has no model_index.json"
    if (folder.parent / "model_index.json").is_file():
        return f"{missing}; a pipeline is in the folder above it: model={folder.parent}"
    networks = [name for name in ("unet_ema", "unet") if (folder / name / "config.json").is_file()]
    if networks:
        command = (
            "from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel; "
            f"DDPMPipeline(UNet2DModel.from_pretrained('{folder / networks[0]}'), "
            "DDPMScheduler(...)).save_pretrained('NEW')"
        )
        what = f"it is a state of a training, with {' and '.join(networks)}"
        how = f'with its settings of the scheduler in place of ...: python -c "{command}"'
        return f"{missing}: {what}; {how}, then model=NEW"
    states = sorted(path.name for path in folder.glob("checkpoint-*"))
    if states:
        return f"{missing}; it holds states of a training: model={folder / states[-1]}"
    return f"{missing}; save a whole pipeline by its save_pretrained; {AGAIN}"


def _require_weights(folder: Path, model: str) -> None:
    """Refuse weights that are missing, incomplete, or in another format.

    Raises:
        InvalidSetting: the weights are in a format that can execute code, or of a variant.
        Unsuitable: the weights are missing or damaged.
    """
    index = folder / f"{WEIGHTS}.index.json"
    whole = (folder / WEIGHTS).is_file() or not index.is_file()
    names = [WEIGHTS] if whole else sorted({*json.loads(index.read_bytes())["weight_map"].values()})
    missing = [name for name in names if not (folder / name).is_file()]
    if missing == [WEIGHTS]:
        stem = WEIGHTS.partition(".")[0]
        files = [path.name for path in folder.glob(f"{stem}.*") if path.is_file()]
        of_kind = [name for kind in ("safetensors", "bin") for name in files if name.endswith(kind)]
        if of_kind:
            raise InvalidSetting("model", model, _how_to_convert(model, of_kind[0]))
    if missing:
        raise Unsuitable(f"its weights are missing: {missing[0]}; {AGAIN}")
    for name in names:
        with (folder / name).open("rb") as file:
            if file.read(20).startswith(b"version https://git"):
                raise Unsuitable(f"{name} only points to the weights; run git lfs pull there")
        try:
            with safe_open(folder / name, "pt"):
                pass
        except SafetensorError as error:
            raise Unsuitable(f"{name} is incomplete ({first_line(error)}); {AGAIN}") from error


def _how_to_convert(model: str, name: str) -> str:
    """The advice for weights of a variant, or in a format that can execute code.

    Args:
        model: the user's name of the pipeline.
        name: the file of weights, diffusion_pytorch_model[.VARIANT].safetensors or .bin.
    """
    _, *parts, kind = name.split(".")
    variant = "".join(parts).partition("-")[0]  # a shard of a variant: fp16-00001-of-00002
    settings = [f"variant='{variant}'"] if variant else []
    reason = f"and these are of the variant {variant}"
    if kind == "bin":
        settings.append("use_safetensors=False")
        reason = f"since {name} can execute code; if you trust it"
    command = (
        "from diffusers import DDPMPipeline as P; "
        f"P.from_pretrained('{model}', {', '.join(settings)}).save_pretrained('NEW')"
    )
    return f'one with its weights in {WEIGHTS}, {reason}: python -c "{command}", then model=NEW'


def _load_unet(folder: Path) -> Any:
    """The U-Net with its weights, in float32.

    Raises:
        Unsuitable: weights are missing (diffusers would draw random ones), superfluous (diffusers
            would ignore them), or not finite.
    """
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):  # a network draws weights before it loads them
        unet, report = UNet2DModel.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    missing, superfluous = len(report["missing_keys"]), len(report["unexpected_keys"])
    if missing or superfluous:
        counts = f"lacks {missing} of the network's weights and has {superfluous} additional ones"
        raise Unsuitable(f"its file {counts}")
    if not finite(unet.state_dict()):
        raise Unsuitable("the network's weights are not all finite")
    return unet
