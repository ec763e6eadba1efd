"""A model trained here, exported, loaded by diffusers: the same images."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from samplerbench.app.commands.export import LEVELS
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.bench.designing import DESIGNS
from samplerbench.core import grids
from samplerbench.core.models import Learned
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPCosine, VPLinear
from samplerbench.core.targets import DataTarget, EDMTarget, NoiseTarget, VTarget
from samplerbench.errors import InvalidSetting
from samplerbench.networks.mlp import MLP
from samplerbench.networks.unet import UNet
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.training.exported import pipeline
from samplerbench.training.pretrained import pretrained

diffusers = pytest.importorskip("diffusers")

NOISE = KeyedNoise((0, "export"))
STEPS, DIGIT = 10, (1, 8, 8)
RUN = ("experiment=digits", "trainer.steps=10", "trainer.batch_size=32", "sampler=[ddim]")
RUN += ("network.channels=[8,16]", "sampler.ddim.eta=0", "denoiser=learned", "logger=none")
RUN += ("steps=[10]", "n_samples=4", "block=4", "floor_repetitions=0", "picture=[]", "threads=1")


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    """A U-Net that was trained for a moment, with ε as its target."""
    folder = tmp_path_factory.mktemp("digits")
    words = ("grid=ddpm_trailing", f"hydra.run.dir={folder}/run", f"cache_dir={folder}/cache")
    assert command(*RUN, *words) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(command, run):
    out = run.parent / "exported"
    assert command("export", run, f"out={out}") == 0
    return out


@pytest.mark.slow
def test_levels_of_single_samplers_are_exported_too(command, run, exported, capsys):
    assert not (exported / LEVELS).exists()
    few = ("grid.paths=8", "grid.choice=8", "grid.held_out=100", "grid.budget=10", "steps=[3]")
    own, out = run.parent / "designed", run.parent / "with_levels"
    words = ("grid=designed", "grid.denoiser=oracle", "denoiser=[learned,oracle]")
    folders = (f"hydra.run.dir={own}", f"cache_dir={run.parent}/cache")
    assert command(*RUN, *few, *words, *folders) == 0
    assert command("export", own, f"out={out}") == 0
    assert LEVELS in capsys.readouterr().out
    (record,) = json.loads((out / LEVELS).read_text())
    (kept,) = json.loads((own / DESIGNS).read_text())
    assert record["ratios"] == pytest.approx(kept["ratios"])
    assert (record["grid"], record["steps"]) == (kept["grid"], 3)
    assert record["diffusers"]["timesteps"][0] == 999
    assert diffusers.DDIMPipeline.from_pretrained(out) is not None


def feed(monkeypatch):
    """Give diffusers' pipeline our noise: draw 1 000 is the first state, then one for each step."""
    numbers = itertools.chain([1000], itertools.count())

    def draw(shape, **_):
        return NOISE.normal(torch.empty(shape).flatten(1), next(numbers)).reshape(shape)

    for module in ("pipelines.ddim.pipeline_ddim", "schedulers.scheduling_ddim"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", draw)


def theirs(folder, eta, monkeypatch):
    """Images of `DDIMPipeline` as it is, between 0 and 1, shape (4, dim)."""
    feed(monkeypatch)
    pipe = diffusers.DDIMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    made = pipe(4, num_inference_steps=STEPS, eta=eta, output_type="pt")
    return made.images.flatten(1)


def ours(model, eta, schedule):
    """The same of our DDIM from the same noise."""
    x = NOISE.normal(torch.empty(4, 64), 1000)
    with torch.no_grad():
        x = final_state(DDIM(eta), model, x, grids.trailing(schedule, STEPS), NOISE)
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_diffusers_makes_the_same_images(run, exported, eta, monkeypatch):
    """Their table is a product of float32 numbers, 1e-6 of ours."""
    images = theirs(exported, eta, monkeypatch)
    model = rebuild(open_run(run)).training.objective.model
    torch.testing.assert_close(ours(model, eta, model.schedule), images, rtol=0, atol=2e-5)
    again = pretrained(str(exported))
    torch.testing.assert_close(ours(again, eta, again.schedule), images, rtol=0, atol=1e-5)
    assert images.std() > 0.1


def test_it_says_how_to_load_it(command, run, tmp_path, capsys):
    assert command("export", run, f"out={tmp_path}/mine") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["exported", "there", "here"]
    assert f"DDIMPipeline.from_pretrained('{tmp_path}/mine')" in lines[1]
    assert f"model={tmp_path}/mine" in lines[2]


def test_what_cannot_be_done_ends_in_one_line(refuses, run, tmp_path):
    for words, said in (
        (["{run}"], "out=: must be given"),
        (["{run}", "out="], "out=: must be followed by its value"),
        (["out={tmp}/new"], "export: must be followed by one folder of a run"),
        (["{run}", "{run}", "out={tmp}/new"], "must be followed by one folder of a run"),
        (["{run}", "out={tmp}/new", "eta=0"], "eta=0: must be left out"),
        (["{run}", "out={tmp}"], "must be a new folder; the existing one is kept"),
        (["{run}", "out={tmp}/no/new"], "in a folder that exists"),
        (["{tmp}", "out={tmp}/new"], "must be a folder that a job of samplerbench made"),
    ):
        refuses(["export", *(word.format(run=run, tmp=tmp_path) for word in words)], said)


@pytest.mark.slow
def test_a_run_without_a_trained_model(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ("experiment=tiny", "denoiser=oracle", "steps=[2]", "start=exact", "logger=none")
    assert command(*tiny, "hydra.run.dir=run") == 0
    assert command("export", "run", "out=new") == 2
    assert "must be one that trained a denoiser" in capsys.readouterr().err


def test_a_failure_leaves_nothing(command, run, tmp_path, monkeypatch):
    def full(self, folder, **_):
        folder.mkdir()
        (folder / "model_index.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(diffusers.DDIMPipeline, "save_pretrained", full)
    assert command("export", run, f"out={tmp_path}/new") == 2
    assert list(tmp_path.iterdir()) == []


def learned(network=None, target=None, schedule=None, mean=0.0, std=1.0, shape=DIGIT, **settings):
    settings = {"level": "time", "channels": (8, 16), **settings}
    network = network or UNet(shape, 0, **settings)
    dim = int(np.prod(shape))
    mean = torch.full((dim,), mean)
    return Learned(network, target or NoiseTarget(), schedule or VPLinear(), mean, std)


@pytest.mark.parametrize(
    ("target", "schedule"), [(VTarget(), VPCosine()), (DataTarget(), VPLinear(0.2, 10.0))]
)
def test_other_targets_and_paths(target, schedule, tmp_path, monkeypatch):
    model = learned(target=target, schedule=schedule).eval()
    torch.nn.init.normal_(model.network.unet.conv_out.weight, std=0.1)
    pipeline(model).save_pretrained(tmp_path)
    images = theirs(tmp_path, 0.5, monkeypatch)
    torch.testing.assert_close(ours(model, 0.5, schedule), images, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: learned(network=MLP(64, 0)), "network=MLP: must be unet"),
        (lambda: learned(level="noise"), "network.level=noise: must be time"),
        (lambda: learned(std=0.5), "objective.standardise=True: must be false"),
        (lambda: learned(mean=0.1), "objective.standardise=True: must be false"),
        (lambda: learned(shape=(1, 5, 5)), r"dataset=\(1, 5, 5\): must be images of \(1, 6, 6\)"),
        (lambda: learned(target=EDMTarget()), "target=EDMTarget: must be noise, v or data"),
        (lambda: learned(schedule=EDM()), "schedule=EDM: must be one with α² \\+ σ² = 1"),
    ],
)
def test_what_a_pipeline_cannot_hold(model, said):
    with pytest.raises(InvalidSetting, match=said):
        pipeline(model())
