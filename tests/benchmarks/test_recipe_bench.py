"""The default recipe's promise: on the grid mixture the learned score is as good as the exact one.

Within 0.2 of the oracle's max-sliced W₂ at every cell with N ≥ 16, from the same start draws, at
n = 20 000, on three training seeds. Minutes; `make bench` prints the table.
"""

from __future__ import annotations

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
def test_the_recipe_on_every_cell(train_seed, tmp_path):
    words = ["repetitions=2", "steps=[16,25,36,49,64,81,100]", f"train_seed={train_seed}"]
    found = differences(words, tmp_path)
    print(f"\ntrain_seed {train_seed}: largest {found.abs().max():.3f}")
    print(found.unstack().round(3).to_string())
    assert found.abs().max() <= 0.2


@pytest.mark.slow
def test_the_recipe_has_not_broken(tmp_path):
    """DDIM(0) draws no noise, so that one repetition says it: about .05 of .2."""
    words = ["repetitions=1", "steps=[16,49]", "sampler.ddim.eta=0"]
    assert differences(words, tmp_path).abs().max() <= 0.2
