"""experiment=digits as a user runs it, also without the extra and without images."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.build import build
from samplerbench.app.job.rebuild import rebuild

QUICK = ("logger=none", "trainer.steps=3", "network.channels=[8,16]", "n_samples=20", "block=20")
FEW = ("n_train=9", "n_reference=9", "n_samples=9")
METRICS = "metric=[sliced_pca,nearest_training]"
CELLS = ("steps=[2,4]", "sampler=ddim", "sampler.ddim.eta=[0,1]", "repetitions=1")
DIGITS = ("experiment=digits", METRICS, *QUICK, *CELLS)


@pytest.fixture(scope="module")
def job(command, tmp_path_factory):
    """A digits job of seconds: its folder."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("digits")
    words = (f"hydra.run.dir={folder}/run", f"cache_dir={folder}/cache")
    assert command(*DIGITS, *words) == 0
    return folder / "run"


@pytest.mark.slow
def test_every_cell_has_a_value_and_a_floor(job):
    table = pd.read_parquet(job / "cells.parquet").query("metric == 'sliced_pca'")
    grid = table.query("sampler != ''")
    # learned and oracle × two η × two N
    assert len(grid) == 2 * 2 * 2
    assert set(table["status"]) == {"ok"}
    assert len(table) - len(grid) == 359 // 20


@pytest.mark.slow
def test_the_floor_is_of_images_that_no_training_has_seen(job):
    """A floor of training images would have some at the distance 0."""
    table = pd.read_parquet(job / "cells.parquet").query("metric == 'nearest_training'")
    floor = table.query("sampler == ''")
    assert len(floor) == 359 // 20
    assert (floor["value"] > 1.5).all()
    oracle = table.query("denoiser == 'oracle' and steps == 4")
    assert oracle["value"].mean() < 0.9 * floor["value"].mean()


@pytest.mark.slow
def test_another_version_of_the_networks_package_is_another_model(job, monkeypatch):
    table = pd.read_parquet(job / "cells.parquet")
    (known,) = set(table["training_id"]) - {""}
    run = open_run(job)
    assert build(run.config, run.choices, "again").sweep.origins["learned"].id == known
    monkeypatch.setattr("samplerbench.app.job.training.version", lambda package: f"{package} 0")
    assert build(run.config, run.choices, "again").sweep.origins["learned"].id != known
    # the weights that are there keep their own
    assert rebuild(run).sweep.origins["learned"].id == known


@pytest.mark.slow
def test_the_panels_are_written(job):
    for denoiser in ("learned", "oracle"):
        with Image.open(job / f"image_panel_{denoiser}.png") as image:
            assert image.format == "PNG"


@pytest.mark.slow
def test_the_weights_are_a_unets(job):
    weights = load_file(job / "checkpoints" / "model.safetensors")
    assert "network.unet.conv_in.weight" in weights
    assert weights["network.unet.conv_in.weight"].shape == (8, 1, 3, 3)


def test_what_cannot_work_ends_in_one_line(refuses, monkeypatch):
    for missing, words, line in (
        ("sklearn.datasets", DIGITS, "dataset.needs=scikit-learn: must be installed: pip install "),
        ("diffusers", DIGITS, "network.needs=diffusers: must be installed: pip install "),
        ("", ("dataset=image_folder", "dataset.path=."), "dataset.path=.: must be a folder with"),
        ("", ("network=unet",), "network.event_shape=(2,): must be another one: a U-Net needs im"),
        ("", ("dataset=digits", *FEW), "metric=max_sliced_certified: must be another one: "),
        ("", ("picture=image_panel",), "picture=image_panel: must be another one: it shows images"),
    ):
        with monkeypatch.context() as patch:
            if missing:
                patch.setitem(sys.modules, missing, None)
            refuses(["logger=none", *words, "n_validation=5"], f"samplerbench: {line}")
