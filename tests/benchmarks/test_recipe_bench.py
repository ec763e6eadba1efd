"""Recipes on three training seeds; `make bench` prints the tables.

On the grid mixture the scores of the default recipe and of `trainer=quick` are as good as the exact
one: within 0.2 of the oracle's max-sliced W₂ at every cell with N ≥ 16, from the same start draws,
at n = 20 000. Minutes; `-k recipe_on_every_cell`.

On digits the recipe of the U-Net is compared with DDPM's output, levels and twice the steps. Their
validation losses do not compare, since the levels have other laws. 40 minutes; `-k
recipe_of_digits`.
"""

from __future__ import annotations

import time

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from samplerbench.app.config.folders import conf_directory
from samplerbench.app.job.build import build
from samplerbench.training.loop import train

SEEDS = (0, 1, 2)


def differences(words, directory):
    """Learned minus oracle, mean over repetitions, by start, η and N."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("config", ["n_samples=20000", "floor_repetitions=0", *words])
    job = build(config, {}, "recipe")
    assert job.training is not None
    train(job.training.objective, job.training.data, directory=directory, progress=False)
    rows = pd.DataFrame([vars(row) for row in job.sweep.run()])
    cells = rows.pivot_table("value", ["start", "eta", "steps"], "denoiser")
    return cells["learned"] - cells["oracle"]


@pytest.mark.bench
@pytest.mark.parametrize("train_seed", SEEDS)
@pytest.mark.parametrize("recipe", ["default", "quick"])
def test_the_recipe_on_every_cell(recipe, train_seed, tmp_path):
    words = ["repetitions=2", "steps=[16,25,36,49,64,81,100]"]
    found = differences([*words, f"trainer={recipe}", f"train_seed={train_seed}"], tmp_path)
    print(f"\n{recipe}, train_seed {train_seed}: largest {found.abs().max():.3f}")
    print(found.unstack().round(3).to_string())
    assert found.abs().max() <= 0.2


@pytest.mark.slow
def test_the_recipe_has_not_broken(tmp_path):
    """DDIM(0) draws no noise, so that one repetition says it: about .05 of .2."""
    words = ["repetitions=1", "steps=[16,49]", "sampler.ddim.eta=0"]
    assert differences(words, tmp_path).abs().max() <= 0.2


#: DDPM's output and levels, and twice the steps: the recipe of digits until 2026-11-30.
DDPM = ("target=noise", "weighting=uniform", "level_law=uniform_time", "trainer.steps=2000")
DDPM += ("trainer.lr=1e-3", "trainer.warmup=100", "trainer.ema_decay=0.998")
DDPM += ("~level_law.mean", "~level_law.std", "~level_law.minimum")
#: The cells and metrics of docs/images.md with N = 20.
TABLE = ("experiment=digits", "denoiser=learned", "sampler=ddim", "sampler.ddim.eta=[0,0.5,1]")
TABLE += ("steps=[20]", "n_samples=179", "block=179", "repetitions=4", "floor_repetitions=0")
TABLE += ("metric=[one_minus_precision,one_minus_recall,sliced_pca]", "picture=[]", "workers=1")


@pytest.mark.bench
@pytest.mark.parametrize("train_seed", SEEDS)
@pytest.mark.parametrize("recipe", [(), DDPM], ids=["recipe", "ddpm"])
def test_the_recipe_of_digits(recipe, train_seed, tmp_path):
    words = [*TABLE, *recipe, f"train_seed={train_seed}"]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        job = build(compose("config", words), {}, "recipe")
    assert job.training is not None
    began = time.process_time()
    train(job.training.objective, job.training.data, directory=tmp_path, progress=False)
    spent = time.process_time() - began
    losses = pd.read_csv(tmp_path / "losses.csv").query("name == 'validation'")
    print(f"\ntrain_seed {train_seed}: {spent:.0f} s; {losses['loss'].round(2).tolist()}")
    rows = pd.DataFrame([vars(row) for row in job.sweep.run()])
    print(rows.groupby(["metric", "eta"])["value"].agg(["mean", "sem"]).round(3).to_string())
