"""FID and KID as a user runs them: on a network of their own, and without one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchmetrics.image.fid import FrechetInceptionDistance

from samplerbench.app.config.construct import trusting
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.core.noise import torch_generator
from samplerbench.metrics import features

PAGE = Path(__file__).parents[2] / "docs" / "images.md"
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
SMALL = ("experiment=digits", "logger=none", "denoiser=oracle", "picture=[]", "steps=2")
KIND = "# @package metric.my_kid\n_target_: lab.features.kid\nweights: features.safetensors\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, command):
    """A user's folder with the files of the page, and a finished run of digits in it."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("features")
    for name, text in (FILES | {"conf/metric/my_kid.yaml": KIND}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shapes = {"0.weight": (16, 1, 3, 3), "0.bias": (16,), "2.weight": (32, 16, 3, 3)}
    shapes |= {"2.bias": (32,), "5.weight": (24, 288), "5.bias": (24,)}
    generator = torch_generator("test", 0)
    weights = {name: 0.3 * torch.randn(s, generator=generator) for name, s in shapes.items()}
    save_file(weights, folder / "features.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ("sampler=ddim", "sampler.ddim.eta=0", "metric=[my_fid,my_kid]")
        where = f"hydra.run.dir={folder}/run"
        assert command("--config-dir", "conf", "trusted=lab", *SMALL, *words, where) == 0
        yield folder


def test_the_values_are_those_of_torchmetrics(folder):
    with trusting("lab"):
        sweep = rebuild(open_run(folder / "run")).sweep
        from lab.features import Small  # the user's own
    network = Small()
    network.load_state_dict(load_file(folder / "features.safetensors"))
    theirs = FrechetInceptionDistance(network.eval(), normalize=True, input_img_size=(1, 8, 8))
    table = open_run(folder / "run").table()
    assert set(table["status"]) == {"ok"}, "of KID too"
    cells = table[(table["metric"] == "my_fid") & (table["denoiser"] == "oracle")]
    values = cells.sort_values("repetition")["value"].to_numpy()
    found = []
    for cell in sweep.cells():
        if cell.denoiser == "oracle":
            samples = sweep.draw(cell).points
            theirs.reset()
            theirs.update(sweep.reference.float().reshape(-1, 1, 8, 8), real=True)
            theirs.update(samples.float().reshape(-1, 1, 8, 8), real=False)
            found.append(float(theirs.compute()))
    np.testing.assert_allclose(values, found, rtol=1e-4)


def test_other_weights_are_another_value(folder):
    table = open_run(folder / "run").table()
    told = json.loads(table.loc[table["metric"] == "my_fid", "metric_settings"].iloc[0])
    assert set(told["features"]) == {"class", "digest", "shape"}
    with trusting("lab"):
        before = rebuild(open_run(folder / "run")).sweep.metrics["my_fid"]
        kept = (folder / "features.safetensors").read_bytes()
        other = load_file(folder / "features.safetensors")
        other["0.bias"] += 1e-3
        save_file(other, folder / "features.safetensors")
        after = rebuild(open_run(folder / "run")).sweep.metrics["my_fid"]
        (folder / "features.safetensors").write_bytes(kept)
    assert told["features"]["digest"] == before.features.digest != after.features.digest


def test_samples_of_another_tool_are_scored(folder, command, capsys):
    np.save(folder / "some.npy", np.random.default_rng(0).uniform(-1, 1, (100, 64)))
    words = ("dataset=digits", "metric=my_fid", "n_reference=200")
    assert command("score", "some.npy", *words, "--config-dir", "conf", "trusted=lab") == 0
    assert "differs from the data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "metric.fid.needs=torch-fidelity: must be installed: pip install 'samplerbench[fid]'"),
        (("metric.fid.layer=5",), "metric.fid.layer=5: must be one of 64, 192, 768, 2048"),
    ],
)
def test_without_the_package_it_ends_in_one_line(
    words, line, tmp_path, command, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    assert command("experiment=digits", "logger=none", "metric=fid", *words) == 2
    assert capsys.readouterr().err == f"samplerbench: {line}\n"


def test_data_that_are_no_images_are_refused(folder, command, capsys):
    words = ("dataset=two_moons", "logger=none", "metric=my_fid")
    assert command("--config-dir", "conf", "trusted=lab", *words) == 2
    said = capsys.readouterr().err
    assert "metric=my_fid: must be another one: 2 values are not a square image" in said
    assert said.count("\n") == 1
