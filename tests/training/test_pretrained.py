"""Pretrained pipelines, saved to disk and loaded again: the path, the clock, diffusers' DDIM."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

from helpers import Touch, mostly_slow, refused_in_one_line
from samplerbench.app.job.build import build
from samplerbench.core import grids
from samplerbench.core.grids import Level
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import DDPMTable
from samplerbench.core.targets import DataTarget, NoiseTarget, VTarget
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.diffusers import Diffusers
from samplerbench.training import pipeline_folder, pretrained
from samplerbench.verify.contract import CONTRACTS, broken

diffusers = pytest.importorskip("diffusers")

NOISE = KeyedNoise((0, "pretrained"))
STEPS, BATCH, SHAPE = 4, 3, (1, 8, 8)
FLOAT32 = 1e-5  # for four steps in single precision; the first multiplies by 1/α = 150
KINDS = {"epsilon": NoiseTarget(), "v_prediction": VTarget(), "sample": DataTarget()}
GRIDS = {"leading": grids.leading, "trailing": grids.trailing, "linspace": grids.linspace}


def unet(**settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.UNet2DModel(
            **{
                "sample_size": 8,
                "in_channels": 1,
                "out_channels": 1,
                "block_out_channels": (8, 16),
                "layers_per_block": 1,
                "norm_num_groups": 4,
                "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
                **settings,
            }
        )


def save(folder, network=None, **settings):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, **settings)
    diffusers.DDIMPipeline(unet=network or unet(), scheduler=scheduler).save_pretrained(folder)
    return str(folder)


def save_ddpm(folder, scheduler):
    """A `DDPMPipeline` with any scheduler."""
    if not folder.joinpath(FILES["index"]).exists():
        pipeline = diffusers.DDPMPipeline(unet=unet(), scheduler=diffusers.DDPMScheduler())
        pipeline.save_pretrained(folder)
    scheduler.save_pretrained(folder / "scheduler")
    rewrite(folder / FILES["index"], scheduler=["diffusers", type(scheduler).__name__])
    return folder


FILES = {
    "index": "model_index.json",
    "unet": "unet/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}


def rewrite(path, without=(), **settings):
    content = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in without}))


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """No network, and an empty cache of the hub."""

    def refused(*_):
        raise AssertionError("the network was asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        cache = tmp_path_factory.mktemp("hub")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.setattr(socket, "getaddrinfo", refused)
        patch.setattr(socket.socket, "connect", refused)
        yield cache


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A pipeline of each prediction type."""
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: save(root / kind, prediction_type=kind) for kind in KINDS}


@pytest.fixture
def tiny(folders, tmp_path):
    """A copy of one, to be spoilt."""
    return shutil.copytree(folders["epsilon"], tmp_path / "tiny")


def alphas_cumprod(**settings):
    return diffusers.DDIMScheduler(1000, **settings).alphas_cumprod.double()


def table(**settings):
    return DDPMTable(tuple(alphas_cumprod(**settings).tolist()))


@pytest.mark.parametrize(
    "settings", [{}, {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}]
)
def test_a_table_is_a_path(settings):
    """Its levels are kept, and between them it keeps the contract of schedules."""
    expected, path = alphas_cumprod(**settings), table(**settings)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    alpha, sigma = path(t)
    torch.testing.assert_close(alpha.square(), expected, rtol=1e-11, atol=1e-17)
    torch.testing.assert_close(sigma.square(), 1 - expected, rtol=1e-13, atol=0)
    assert broken(CONTRACTS["schedule"], path) == []


def test_impossible_tables():
    for bad in ((), (1.0,), (0.5, 0.5), (0.5, -0.1), (math.nan,), (0.9, 0.95)):
        with pytest.raises(InvalidSetting, match=r"signal=\d numbers: must be numbers between 0 a"):
            DDPMTable(bad)


class Recorder(nn.Module):
    """A network that keeps the number of the level."""

    def forward(self, images, k, return_dict):
        self.k = k
        return (torch.zeros_like(images),)


def recorder():
    return pretrained.Pretrained(Recorder(), DataTarget(), table(), SHAPE)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_networks_clock_is_exact_on_the_grids_of_ddpm(grid):
    model, scheduler = recorder(), diffusers.DDIMScheduler(1000, timestep_spacing=grid)
    for steps in (7, 10, 1000):
        scheduler.set_timesteps(steps)
        asked = []
        for row in GRIDS[grid](model.schedule, steps).rows[:-1]:
            model.denoiser(torch.zeros(1, 64), row)
            asked.append(model.unet.k.item())
        assert asked == scheduler.timesteps.tolist()


def test_the_networks_clock_between_and_below_the_tables_levels():
    model, x = recorder(), torch.zeros(2, 3, 64)
    for t, k in ((0.5005, 499.5), (1.0, 999.0), (0.001, 0.0), (0.0004, 0.0)):
        model.denoiser(x, Level(t, 0.5, 0.5))
        assert model.unet.k.item() == pytest.approx(k, abs=1e-4)
    t = torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64)
    model.denoiser(x, Level(t, t, t))
    torch.testing.assert_close(model.unet.k, torch.tensor([99.0, 199.0, 299.0] * 2))
    model.denoiser(torch.zeros(64), Level(0.1, 0.5, 0.5))
    assert model.unet.k.shape == ()


def diffusers_states(folder, grid, eta, x, step_of=None, clipped=None, **settings):
    """The states of their own scheduler's loop, with our noise."""
    pipe = diffusers.DDIMPipeline.from_pretrained(folder)
    config = pipe.scheduler.config
    scheduler = diffusers.DDIMScheduler.from_config(config, timestep_spacing=grid, **settings)
    scheduler.set_timesteps(STEPS)
    if step_of is not None:
        scheduler.num_inference_steps = step_of
    for index, t in enumerate(scheduler.timesteps):
        z = NOISE.normal(x.flatten(1), index).reshape(x.shape)
        with torch.no_grad():
            y = pipe.unet(x, t).sample
        x = scheduler.step(
            y,
            t,
            x,
            eta=eta,
            variance_noise=z if eta else None,
            **({} if clipped is None else {"use_clipped_model_output": clipped}),
        ).prev_sample
        yield x.flatten(1)


def our_states(folder, grid, eta, x, clip=None):
    model = pretrained.pretrained(folder, clip)
    with torch.no_grad():
        steps = DDIM(eta).steps(model, x.flatten(1), GRIDS[grid](model.schedule, STEPS), NOISE)
        return [step.x for step in steps]


def apart(ours, theirs):
    """The largest difference of two ways, in units of the largest entry of a state."""
    gaps = [
        float((one - two).abs().max() / two.abs().max())
        for one, two in zip(ours, theirs, strict=True)
    ]
    assert len(gaps) == STEPS
    return max(gaps)


@pytest.fixture
def first():
    return NOISE.normal(torch.empty(BATCH, *SHAPE), 1000)


@pytest.mark.parametrize(
    ("grid", "eta"),
    [
        ("leading", 1.0),
        pytest.param("leading", 0.0, marks=pytest.mark.slow),
        pytest.param("trailing", 0.5, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", mostly_slow(KINDS, 0))
def test_ddim_is_diffusers(folders, first, kind, grid, eta):
    model = pretrained.pretrained(folders[kind])
    assert model.target == KINDS[kind]
    theirs = diffusers_states(folders[kind], grid, eta, first)
    assert apart(our_states(folders[kind], grid, eta, first), theirs) < FLOAT32


@pytest.mark.parametrize("eta", mostly_slow([0.0, 1.0], 1))
def test_ddim_on_linspace_is_diffusers_with_its_step_put_right(folders, first, eta):
    """Theirs goes down by T//N = 250, and their levels are 333 apart, which is T//(N − 1)."""
    ours = list(our_states(folders["epsilon"], "linspace", eta, first))
    right = diffusers_states(folders["epsilon"], "linspace", eta, first, step_of=STEPS - 1)
    assert apart(ours, right) < FLOAT32
    shipped = diffusers_states(folders["epsilon"], "linspace", eta, first)
    assert apart(ours, shipped) > 1e-2


def keyed(shape):
    """Step by step the numbers that a sampler of ours draws."""
    numbers = itertools.count()

    def draw(*_, **__):
        like = torch.empty(BATCH, math.prod(shape), dtype=torch.float64)
        return NOISE.normal(like, next(numbers)).float().reshape(BATCH, *shape)

    return draw


@pytest.mark.parametrize(
    ("name", "settings"),
    mostly_slow(
        [
            ("DDIMScheduler", {}),
            ("DDPMScheduler", {"variance_type": "fixed_large"}),
            ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
            ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ],
        1,
    ),
)
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "v_prediction")) for kind in KINDS],
)
def test_a_pipeline_with_another_scheduler(folders, first, monkeypatch, kind, name, settings):
    """`DDPMPipeline(scheduler=…)` as it is, clipping and all; it begins with N(0, I)."""
    scheduler = getattr(diffusers, name)
    path = f"{folders[kind]}/scheduler"
    scheduler = scheduler.from_pretrained(path, **settings)
    x = first.float()
    pipeline = diffusers.DDPMPipeline.from_pretrained(folders[kind], scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    start = "diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor"
    monkeypatch.setattr(start, lambda *_, **__: x.reshape(BATCH, *SHAPE))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", keyed(SHAPE))
        theirs = pipeline(BATCH, num_inference_steps=STEPS, output_type="numpy").images
    sampler = Diffusers(name, settings, config=path)
    model = pretrained.pretrained(folders[kind])
    levels = sampler.levels(grids.uniform, model.schedule, STEPS)
    with torch.no_grad():
        ours = final_state(sampler, model, x, levels, NOISE)
    pixels = (ours.reshape(BATCH, *SHAPE) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert float(pixels.std()) > 0.1
    np.testing.assert_allclose(pixels.numpy(), theirs, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_clipping_is_diffusers_with_its_noise_computed_again(folders, first, eta):
    folder, clip = folders["epsilon"], {"clip_sample": True}
    ours = list(our_states(folder, "leading", eta, first, clip=1.0))
    again = diffusers_states(folder, "leading", eta, first, clipped=True, **clip)
    assert apart(ours, again) < FLOAT32
    assert ours[-1].abs().max() <= 1
    kept = diffusers_states(folder, "leading", eta, first, clipped=False, **clip)
    assert apart(ours, kept) > 1e-2


@pytest.mark.slow
def test_at_a_tables_end_without_signal(tmp_path, first):
    settings = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    folder = save(tmp_path / "zero", **settings)
    # not η = 1, where they take the root of a rounding error, √(1 − ᾱ − ς²) = 2e-4 for 0
    theirs = diffusers_states(folder, "trailing", 0.5, first)
    assert apart(our_states(folder, "trailing", 0.5, first), theirs) < FLOAT32
    folder = save(tmp_path / "noise", rescale_betas_zero_snr=True)
    model = pretrained.pretrained(folder)
    levels = grids.trailing(model.schedule, STEPS)
    assert "α = 0" in DDIM().why_incompatible(model, levels)


@pytest.mark.slow
def test_a_network_with_a_table_of_its_own_is_asked_for_whole_levels(tmp_path, first):
    network = unet(time_embedding_type="learned", num_train_timesteps=1000)
    folder = save(tmp_path / "learned", network)
    theirs = diffusers_states(folder, "leading", 1.0, first)
    assert apart(our_states(folder, "leading", 1.0, first), theirs) < FLOAT32
    model = pretrained.pretrained(folder)
    x, rows = first.flatten(1), [Level(t, 0.5, 0.5) for t in (0.5, 0.5004, 0.50051)]
    here, near, next_one = (model.denoiser(x, row) for row in rows)
    assert torch.equal(here, near)
    assert not torch.equal(here, next_one)


def test_all_files_in_one_folder(tiny, tmp_path):
    """The layout of the hub's first pipelines, google/ddpm-ema-celebahq-256 among them."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for part in ("unet", "scheduler"):
        for path in (tiny / part).iterdir():
            shutil.copy(path, flat)
    shutil.copy(tiny / "model_index.json", flat)
    one, two = pretrained.pretrained(str(flat)), pretrained.pretrained(str(tiny))
    assert one.digest() == two.digest()
    assert one.schedule == two.schedule


@pytest.mark.slow
def test_the_digest_is_of_what_decides(folders, tmp_path):
    network = unet()
    network.conv_out.bias.data[0] += 1e-3
    changed = save(tmp_path / "changed", network)
    made = [pretrained.pretrained(folders[kind]) for kind in KINDS]
    made += [pretrained.pretrained(changed), pretrained.pretrained(folders["epsilon"], 1.0)]
    assert len({model.digest() for model in made}) == len(made)


def test_loading_leaves_the_generator_alone(folders):
    before = torch.get_rng_state()
    model = pretrained.pretrained(folders["epsilon"])
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(weights.requires_grad for weights in model.parameters())
    assert not model.unet.training


def test_the_hubs_cache_is_read(tiny, offline):
    place = offline / "models--me--tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tiny, place / "snapshots" / ("0" * 40))
    assert pretrained.pretrained("me/tiny").event_shape == SHAPE


def test_a_model_that_is_not_here_is_named_without_the_network():
    for model, said in (
        ("google/ddpm-ema-celebahq-256", "hf download google/ddpm-ema-celebahq-256$"),
        ("no/such/folder", "an existing folder, or the id"),
        ("../etc", "an existing folder, or the id"),
        ("", UNREADABLE),
        (None, UNREADABLE),
        (["a"], UNREADABLE),
    ):
        refused(model, said)


def test_without_diffusers(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(InvalidSetting, match=r"pip install 'samplerbench\[images\]'"):
        pretrained.pretrained("google/ddpm-ema-celebahq-256")


def refused(model, said):
    with refused_in_one_line(said):
        pretrained.pretrained(str(model) if isinstance(model, Path) else model)


NO_PIPELINE_ON_PIXELS = "not one of DDPMPipeline, DDIMPipeline, PNDMPipeline on pixels"
NO_CLASS = "which is not a class of diffusers"
CHANNELS = "no sampler here uses a learned variance: keep the first half of the rows of conv_out"
NO_SIZE = "has no image size: sample_size="
FEW_LEVELS = {"time_embedding_type": "learned", "num_train_timesteps": 999}
UNREADABLE = "must be the id of a diffusers pipeline, such as"
#: A part, settings of it, and a piece of the refusal.
REFUSED = [
    ("index", {"_class_name": "AudioDiffusionPipeline"}, NO_PIPELINE_ON_PIXELS),
    ("index", {"_class_name": None}, NO_PIPELINE_ON_PIXELS),
    ("index", {"vae": ["diffusers", "AutoencoderKL"]}, "it has a vae; a pipeline on pixels has"),
    ("index", {"unet": ["diffusers", "UNet2DConditionModel"]}, "only a UNet2DModel"),
    ("index", {"unet": ["my_unet", "UNet2DModel"]}, NO_CLASS),
    ("index", {"unet": [None, None]}, f"its unet is None, {NO_CLASS}"),
    ("index", {"scheduler": ["diffusers", "NewScheduler"]}, "says NewScheduler, scheduler_conf"),
    ("unet", {"_class_name": "UNet2DConditionModel"}, "only a UNet2DModel takes nothing but"),
    ("unet", {"num_class_embeds": 10}, "needs a class label"),
    ("unet", {"time_embedding_type": "fourier"}, "a score SDE"),
    ("unet", {"out_channels": 2}, f"takes 1 channels and gives 2: {CHANNELS}"),
    ("unet", {"in_channels": 2}, "takes 2 channels and gives 1: an image as a second input"),
    ("unet", {"sample_size": "8"}, f"{NO_SIZE}8"),
    ("unet", {"sample_size": [8]}, rf"{NO_SIZE}\[8\]"),
    ("unet", {"sample_size": 0}, f"{NO_SIZE}0"),
    ("unet", {"sample_size": [8, 9]}, r"does not run on \(1, 8, 9\)"),
    ("unet", FEW_LEVELS, "knows 999 levels"),
    ("unet", {"new_clock": "faster"}, "does not know: new_clock; try a newer diffusers"),
    ("unet", {"quantization_config": {"quant_method": "torchao"}}, "quantised"),
    ("unet", {"block_out_channels": [8, 24]}, UNREADABLE),
    ("unet", {"mid_block_type": None}, "lacks 0 of the network's weights and has 30 additional"),
    ("scheduler", {"prediction_type": "flow"}, "not one of epsilon, v_prediction, sample"),
    ("scheduler", {"beta_schedule": "nope"}, UNREADABLE),
    ("scheduler", {"trained_betas": [0.1]}, "has 1 levels, and num_train_timesteps=1000"),
    ("scheduler", {"trained_betas": [1.1] * 1000}, "the α² of its table must be numbers betw"),
    ("scheduler", {"_class_name": "DDPMScheduler"}, "says DDIMScheduler, scheduler_config.json"),
    ("scheduler", {"shift": 3.0, "warp": 1}, "DDIMScheduler .* does not know: shift, warp; try"),
    ("scheduler", {"predict_epsilon": False}, "predict_epsilon=False and prediction_type=eps"),
]


def test_what_is_no_ddpm_on_pixels(tiny):
    for part, settings, said in REFUSED:
        content = (tiny / FILES[part]).read_bytes()
        rewrite(tiny / FILES[part], **settings)
        refused(tiny, said)
        (tiny / FILES[part]).write_bytes(content)
    pretrained.pretrained(str(tiny))


def test_a_part_without_its_pipeline(tiny, tmp_path):
    for name in FILES.values():
        content = (tiny / name).read_bytes()
        (tiny / name).unlink()
        refused(tiny, f"it has no {name.split('/')[-1]}")
        (tiny / name).write_bytes(content)
    shutil.rmtree(tiny / "scheduler")
    refused(tiny, "it has no scheduler_config.json; save a whole .*; if its download is incomplete")
    refused(tiny / "unet", f"a pipeline is in the folder above it: model={tiny}$")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "save a whole pipeline by its save_pretrained; if its download is")


def run_advice(model, **replaced):
    """Follow the advice in the refusal of a model, and return the new folder."""
    with pytest.raises(InvalidSetting) as error:
        pretrained.pretrained(str(model))
    (command,) = re.findall('python -c "(.*)"', str(error.value))
    for old, new in {"'NEW'": repr(f"{model}-new"), **replaced}.items():
        command = command.replace(old, new)
    exec(command, {})  # what a user would type
    return f"{model}-new"


def test_a_state_of_a_training_says_how_to_make_a_pipeline_of_it(tmp_path, first):
    unet().save_pretrained(tmp_path / "out" / "checkpoint-500" / "unet")
    refused(tmp_path / "out", "it holds states of a training: model=.*/checkpoint-500$")
    made = run_advice(tmp_path / "out" / "checkpoint-500", **{"...": "clip_sample=False"})
    wanted = our_states(save(tmp_path / "right"), "leading", 0.0, first)
    assert apart(our_states(made, "leading", 0.0, first), wanted) == 0


@pytest.mark.slow
def test_weights_of_a_variant_say_how_to_save_them(tiny, first):
    wanted = our_states(str(tiny), "leading", 0.0, first)
    weights = tiny / "unet" / pipeline_folder.WEIGHTS
    for variant in ("fp16", "non_ema"):
        renamed = weights.with_suffix(f".{variant}.safetensors")
        weights.rename(renamed)
        refused(tiny, f"and these are of the variant {variant}: python")
        assert apart(our_states(run_advice(tiny), "leading", 0.0, first), wanted) == 0
        renamed.rename(weights)
        shutil.rmtree(f"{tiny}-new")
    torch.save(unet().state_dict(), weights.with_suffix(".fp16.bin"))
    weights.unlink()
    refused(tiny, "fp16.bin can execute code; if you trust it: .*variant='fp16', use_safe")


@pytest.mark.slow
def test_an_incomplete_download_is_called_so(tiny):
    weights = tiny / "unet" / pipeline_folder.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    refused(tiny, "is incomplete .*; if its download is incomplete, hf download and its id")
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")
    refused(tiny, "only points to the weights; run git lfs pull there")
    weights.unlink()
    weights.symlink_to("../blobs/not_there")
    refused(tiny, "its weights are missing: diffusion_pytorch_model.safetensors; if its download")
    weights.unlink()
    unet().save_pretrained(weights.parent, max_shard_size="50KB")
    shard = min(weights.parent.glob("*.safetensors"))
    pretrained.pretrained(str(tiny))
    shard.unlink()
    refused(tiny, f"its weights are missing: {shard.name}; if its download")


NO_TABLE = "Scheduler has no table of a discrete DDPM"
CONTINUOUS = {"timestep_type": "continuous", "prediction_type": "v_prediction"}


NO_DENOISER = "is for consistency models, which are not denoisers"
NO_DDPM_SCHEDULERS = [
    ("EDMEulerScheduler", {}, NO_TABLE),
    ("LCMScheduler", {}, NO_DENOISER),
    ("RePaintScheduler", {}, "predicts None, not one of epsilon, v_prediction, sample"),
    ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "is flow matching"),
    ("EulerDiscreteScheduler", CONTINUOUS, "does not number its levels"),
    ("DDPMScheduler", {"variance_type": "learned_range"}, "predicts a variance too"),
    # its last α² is set to 2^-24, which is more than the two before have
    ("UniPCMultistepScheduler", {"rescale_betas_zero_snr": True}, "each below the one before"),
]


def test_schedulers_without_a_table_of_a_ddpm(tmp_path):
    for kind, settings, said in NO_DDPM_SCHEDULERS:
        refused(save_ddpm(tmp_path, getattr(diffusers, kind)(**settings)), said)


def test_schedulers_that_this_diffusers_does_not_have(tiny):
    # 0.42.1 has only the hull of KarrasVeScheduler; the last three are no schedulers
    for name in ("NewScheduler", "KarrasVeScheduler", "UNet2DModel", "utils", "__version__"):
        rewrite(tiny / FILES["index"], scheduler=["diffusers", name])
        rewrite(tiny / FILES["scheduler"], _class_name=name)
        refused(tiny, f"diffusers .* has no scheduler {name}$")


def test_pipelines_of_pixels_that_are_no_ddpm_are_refused_with_the_reason(tmp_path):
    """As diffusers itself saves them."""
    from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

    schedulers = {
        "ConsistencyModelPipeline": diffusers.CMStochasticIterativeScheduler(),
        "ScoreSdeVePipeline": diffusers.ScoreSdeVeScheduler(),
        "KarrasVePipeline": KarrasVeScheduler(),
        "RePaintPipeline": diffusers.RePaintScheduler(),
    }
    assert schedulers.keys() == pipeline_folder.OTHER_PIPELINES.keys()
    for name, scheduler in schedulers.items():
        pipeline = getattr(diffusers, name)(unet(), scheduler)
        pipeline.save_pretrained(tmp_path / name)
        why = pipeline_folder.OTHER_PIPELINES[name]
        refused(tmp_path / name, f"its pipeline is {name}, {NO_PIPELINE_ON_PIXELS}: {why}$")


BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas")


SCHEDULERS = [
    ("DDPMScheduler", {}),
    ("DDPMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("HeunDiscreteScheduler", {}),  # its β go from .00085 to .012, and not from .0001 to .02
    ("UniPCMultistepScheduler", {"beta_schedule": "scaled_linear"}),
    ("CogVideoXDDIMScheduler", {}),  # shifts its table by snr_shift_scale, in float64
]


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", pipeline_folder.PIPELINES)
def test_the_table_is_that_of_whoever_loads_the_pipeline(tmp_path, pipeline):
    for kind, settings in SCHEDULERS:
        save_ddpm(tmp_path, getattr(diffusers, kind)(**settings))
        rewrite(tmp_path / FILES["index"], _class_name=pipeline)
        for without in ((), BETAS):
            rewrite(tmp_path / FILES["scheduler"], without=without)
            theirs = getattr(diffusers, pipeline).from_pretrained(tmp_path, unet=None).scheduler
            _, target, table, _ = pipeline_folder.read_folder(tmp_path, "tiny")
            assert table.signal == tuple(theirs.alphas_cumprod.double().tolist())
            assert target == KINDS[theirs.config.prediction_type]


@pytest.mark.parametrize(("epsilon", "kind"), [(True, "epsilon"), (False, "sample")])
def test_what_diffusers_said_before_it_had_prediction_types(tmp_path, epsilon, kind):
    """In 0.8.1 the network's output was x̂₀ itself where predict_epsilon was false."""
    folder = save_ddpm(tmp_path, diffusers.DDPMScheduler())
    old = {"predict_epsilon": epsilon, "tensor_format": "pt", "timestep_values": None}
    rewrite(folder / FILES["scheduler"], without=["prediction_type"], **old)
    assert pretrained.pretrained(str(folder)).target == KINDS[kind]
    # today's diffusers reads it as ε in any case, and says so when it saves it again
    again = diffusers.DDPMScheduler.from_pretrained(folder / "scheduler")
    again.save_pretrained(folder / "scheduler")
    if epsilon:
        assert pretrained.pretrained(str(folder)).target == KINDS["epsilon"]
    else:
        refused(folder, "predict_epsilon=False and prediction_type=epsilon, a contradiction")


@pytest.mark.slow
def test_settings_that_decide_nothing_here(tmp_path, first):
    """A newer version, keys without a value, parts that are none, clipping and thresholding."""
    folder = save_ddpm(tmp_path, diffusers.DDPMScheduler(clip_sample=True))
    plain = pretrained.pretrained(str(folder))
    rewrite(folder / FILES["index"], _diffusers_version="99.0.0", safety_checker=[None, None])
    rewrite(folder / FILES["unet"], _diffusers_version="99.0.0")
    more = {"thresholding": True, "clip_sample": False, "timestep_spacing": "trailing"}
    rewrite(folder / FILES["scheduler"], new_table=None, **more)
    other = pretrained.pretrained(str(folder))
    assert other.digest() == plain.digest()
    assert other.schedule == plain.schedule
    x = 100 * first.flatten(1)  # whose x̂₀ is far outside of the pixels' range, and stays there
    assert float(plain.denoiser(x, Level(0.5, 0.5, 0.8)).abs().max()) > 10


@pytest.mark.slow
def test_images_that_are_no_squares(tmp_path):
    network = unet(sample_size=(8, 16))
    folder = save(tmp_path, network)
    x = NOISE.normal(torch.empty(BATCH, 1, 8, 16), 1000)
    assert pretrained.pretrained(folder).event_shape == (1, 8, 16)
    theirs = diffusers_states(folder, "leading", 0.5, x)
    assert apart(our_states(folder, "leading", 0.5, x), theirs) < FLOAT32


def save_length(folder, train_steps):
    """T levels, with β that make them the same path as 1 000 nearly."""
    return save(
        folder,
        num_train_timesteps=train_steps,
        beta_start=0.1 / train_steps,
        beta_end=20 / train_steps,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("train_steps", "grid"), [(100, "leading"), (4000, "trailing")])
def test_a_table_of_another_length_needs_no_setting(tmp_path, first, train_steps, grid):
    folder = save_length(tmp_path, train_steps)
    theirs = list(diffusers_states(folder, grid, 0.5, first))
    assert apart(our_states(folder, grid, 0.5, first), theirs) < FLOAT32


def test_files_that_cannot_be_read(tiny):
    for path in (tiny / "unet" / "config.json", tiny / "unet" / pipeline_folder.WEIGHTS):
        whole = path.read_bytes()
        for content in (b"", b"{", b"[1]", b"\xff\xfe", whole[: len(whole) // 2]):
            path.write_bytes(content)
            refused(tiny, UNREADABLE if path.suffix == ".json" else f"{path.name} is incomplete")
        path.write_bytes(whole)


def test_weights_that_are_missing_or_not_finite(tiny):
    path = tiny / "unet" / pipeline_folder.WEIGHTS
    weights = safetensors.torch.load_file(path)
    without = {name: value for name, value in weights.items() if name != "conv_in.weight"}
    infinite = {**weights, "conv_in.bias": weights["conv_in.bias"] / 0}
    for spoilt, said in (
        (without, "its file lacks 1 of the network's weights and has 0 additional ones"),
        (infinite, "weights are not all finite"),
    ):
        safetensors.torch.save_file(spoilt, path, metadata={"format": "pt"})
        refused(tiny, said)


def test_nothing_of_a_pipeline_is_executed(tiny, tmp_path):
    sprung = tmp_path / "sprung"
    trap = f"import os\nos.mkdir({str(sprung)!r})\n"
    for name in ("pipeline.py", "unet/my_unet.py", "unet/diffusion_pytorch_model.py"):
        (tiny / name).write_text(trap)
    (tiny / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Touch(sprung)))
    pretrained.pretrained(str(tiny))
    for part, settings in (
        ("index", {"_class_name": ["pipeline", "Mine"]}),
        ("index", {"unet": ["my_unet", "UNet"]}),
        ("unet", {"auto_map": {"AutoModel": "my_unet.UNet"}}),
        ("scheduler", {"auto_map": {"AutoModel": "my_unet.UNet"}}),
    ):
        kept = (tiny / FILES[part]).read_bytes()
        rewrite(tiny / FILES[part], **settings)
        refused(tiny, f"{NO_PIPELINE_ON_PIXELS}|{NO_CLASS}|does not know: auto_map")
        (tiny / FILES[part]).write_bytes(kept)
    (tiny / "unet" / pipeline_folder.WEIGHTS).unlink()
    refused(tiny, "diffusion_pytorch_model.bin can execute code; if you trust it")
    assert not sprung.exists()


SMALL = ("logger=none", "workers=1", "threads=1", "dtype=float64")
SWEEP = ("dataset=digits", "grid=ddpm_leading", "start=prior", "metric=sliced", "n_reference=100")
SWEEP += ("metric.sliced.directions=50",)
SWEEP += ("n_samples=20", "block=20", "repetitions=2", "floor_repetitions=2", "n_train=50")


@pytest.mark.slow
def test_a_sweep_beside_the_ideal_denoiser_of_the_data(command, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("denoiser=[pretrained,empirical]", f"model={folders['epsilon']}", "steps=[2,3]")
    words += ("sampler=[ddim,heun]", "sampler.ddim.eta=1", "hydra.run.dir=run")
    assert command(*SWEEP, *SMALL, *words) == 0
    table = pd.read_parquet(tmp_path / "run" / "cells.parquet")
    rows = table[table["denoiser"] == "pretrained"]
    assert set(rows["status"]) == {"ok"}
    assert set(rows["network"]) == {folders["epsilon"]}
    assert rows["training_id"].nunique() == 1
    assert set(rows["schedule"]) == {"pretrained"}
    assert dict(rows.groupby("sampler")["nfe"].max()) == {"ddim": 3, "heun": 5}
    ideal = table[table["denoiser"] == "empirical"]
    assert ideal["value"].max() < rows["value"].min()


@pytest.mark.slow
def test_the_experiment_with_a_model_that_is_here(command, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("experiment=celebahq", f"model={folders['epsilon']}", *SMALL, "steps=[2]")
    assert command(*words, "hydra.run.dir=run") == 0
    assert (tmp_path / "run" / "image_panel_pretrained.png").stat().st_size > 1000
    assert not (tmp_path / "run" / "cells.parquet").exists()
    out = ("denoiser=pretrained", "sampler=ddim", "sampler.eta=1", "steps=2", "n=3", "out=x.npy")
    assert command("sample", "run", *out) == 0
    assert command("sample", "run", *out[:-1], "start=exact", "out=y.npy") == 2
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.slow
def test_a_job_stops_at_the_levels_of_the_pipeline(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values, ids = [], []
    for train_steps, asked in ((100, ()), (100, ("grid.train_steps=100",)), (1000, ())):
        model = save_length(tmp_path / f"T{train_steps}", train_steps)
        words = ("denoiser=pretrained", f"model={model}", "steps=[4]", "sampler=ddim", "cache=off")
        assert command(*SWEEP, *SMALL, *words, "hydra.run.dir=run", *asked) == 0
        cells = pd.read_parquet(tmp_path / "run" / "cells.parquet")
        cells = cells[cells["denoiser"] == "pretrained"]
        cells = cells.sort_values(["reference", "sampler_settings", "repetition"])
        values.append(cells["value"].tolist())
        ids.append(set(cells["cell_id"]))
        shutil.rmtree(tmp_path / "run")
    assert values[0] == values[1]
    assert not ids[0] & ids[2]  # the same weights on another table are another cell


@pytest.mark.slow
def test_levels_are_designed_for_a_pipeline(command, tmp_path, monkeypatch):
    """For a model alone, and the same for a run with it."""
    monkeypatch.chdir(tmp_path)
    network = unet()  # never trained: its noise is made small, so that the flow is smooth
    with torch.no_grad():
        network.conv_out.weight.mul_(0.02)
    asked = ("sampler=heun", "nfe=6", "grid.noise_max=2")
    asked += ("grid.paths=16", "grid.choice=16", "grid.held_out=100", "grid.budget=30")
    model = ("denoiser=pretrained", f"model={save(tmp_path / 'smooth', network)}")
    assert command("design", "dataset=digits", *model, *asked, "out=alone.json") == 0
    words = ("sampler=ddim", "sampler.ddim.eta=0", "steps=[2]", "hydra.run.dir=run")
    assert command(*SWEEP, *SMALL, *model, *words) == 0
    assert command("design", "run", *asked, "out=of_run.json") == 0
    assert command("design", "run", *asked, *model) == 2
    ((alone,), (of_run,)) = (
        json.loads(Path(name).read_text()) for name in ("alone.json", "of_run.json")
    )
    assert (alone["steps"], alone["nfe"]) == (of_run["steps"], of_run["nfe"]) == (3, 5)
    assert np.allclose(alone["ratios"], of_run["ratios"], rtol=1e-6)


class Rows(nn.Module):
    """A network that counts the images that it is given."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config, self.seen = network, network.config, []

    def forward(self, images, k, return_dict):
        self.seen.append(len(images))
        return self.network(images, k, return_dict=return_dict)


@pytest.mark.slow
def test_few_images_do_not_cost_what_many_do(command, folders, tmp_path, monkeypatch):
    """Image i has the same bits for every n, although other batch sizes would give other bits."""
    monkeypatch.chdir(tmp_path)
    counted = Rows(pretrained.pretrained(folders["epsilon"]).unet)
    monkeypatch.setattr(pipeline_folder, "_load_unet", lambda _: counted)
    words = ("denoiser=pretrained", f"model={folders['epsilon']}", "dataset=null", "metric=[]")
    more = ("picture=image_panel", "start=prior", "grid=ddpm_leading", "steps=[2]", "logger=none")
    assert command(*words, *more, "dtype=float32", "hydra.run.dir=run") == 0
    out = {}
    for n, rows in ((3, 100), (130, 200)):
        counted.seen = []
        asked = ("denoiser=pretrained", "sampler=ddim", "sampler.eta=1", "steps=2")
        assert command("sample", "run", *asked, f"n={n}", f"out={n}.npy") == 0
        assert sum(counted.seen) == 2 * rows
        out[n] = np.load(f"{n}.npy")
    assert np.array_equal(out[3], out[130][:3])


PRETRAINED = ["denoiser=pretrained", "model={tiny}"]
FACES = ["experiment=celebahq", "model={tiny}"]


def test_what_cannot_be_done_is_refused_before_any_work(composed, folders):
    for words, said in (
        (["denoiser=pretrained"], "model=None: must be the id of a diffusers pipeline"),
        (["clip_x0=1"], "clip_x0=1: must be null unless denoiser=pretrained"),
        (PRETRAINED, r"dataset=.*\(1, 8, 8\), not \(2,"),
        ([*PRETRAINED, "clip_x0=0"], "clip_x0=0.0: must be positive"),
        ([*PRETRAINED, "~dataset"], "dataset=null: .* metric="),
        (
            [*PRETRAINED, *SWEEP, "sampler=ddim", "schedule=edm"],
            "schedule=.*: must be left out: the path is the pipeline's own",
        ),
        ([*FACES, "metric=[sliced]"], "without data .* metric="),
        ([*FACES, "steps=[1001]"], "steps=1001: must be at least 1 and at most train_steps=1000"),
        ([*FACES, "start=[prior,exact]"], "start=exact: .* begins at"),
        (["~dataset"], "dataset=null: must be a data set: only a job with denoiser=pretrained"),
    ):
        words = [word.format(tiny=folders["epsilon"]) for word in words]
        with pytest.raises(InvalidSetting, match=said):
            build(composed(*words), {}, "test")
