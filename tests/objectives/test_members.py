"""Every member of conf/objective learns, with the members it brings; found by walking conf/."""

from __future__ import annotations

import inspect

import pytest
import torch
from hydra import compose, initialize_config_dir

from samplerbench.app.construct import construct
from samplerbench.app.folders import conf_directory
from samplerbench.core.models import Learned, LevelFree
from samplerbench.datasets.gaussian import gaussian
from samplerbench.objectives.base import Recipe
from samplerbench.training.batches import TensorData
from samplerbench.training.loop import train

CONF = conf_directory()
MEMBERS = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
GROUPS = ("target", "schedule", "level_law", "weighting")


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *words: compose("config", list(words))


def build(config, recipe, data):
    """The objective, given what its constructor names."""
    shared = {
        **{group: construct(config[group], group) for group in GROUPS},
        "network": construct(config.network, "network", dim=data.x0.shape[-1], seed=0),
        "recipe": recipe,
        "mean": data.mean,
        "std": data.std,
        "train_seed": 0,
    }
    named = inspect.signature(_class(config)).parameters
    return construct(
        config.objective, "objective", **{k: v for k, v in shared.items() if k in named}
    )


def _class(config):
    module, name = config.objective._target_.rsplit(".", 1)
    return getattr(__import__(module, fromlist=[name]), name)


@pytest.mark.parametrize("member", MEMBERS)
def test_it_learns(composed, member, tmp_path):
    config = composed(f"objective={member}")
    # correlated: without that EDM's preconditioning has little to learn
    scale = 5.0 if _class(config).conditional else 1.0
    covariance = [[scale**2 * c for c in row] for row in ((1.0, 0.8), (0.8, 1.0))]
    law = gaussian((0.3, -0.2), covariance)
    data = TensorData(
        law.draws(1000, "train"),
        law.draws(500, "validation"),
    )
    recipe = Recipe(steps=40, batch_size=128, lr=5e-3, validate_every=20, log_every=20)
    trained = build(config, recipe, data)
    assert isinstance(trained.model, Learned if trained.conditional else LevelFree)

    def loss():
        generator = torch.Generator().manual_seed(0)
        return float(trained.loss(data.validation, generator).detach())

    before = loss()
    train(trained, data, directory=tmp_path, progress=False)
    after = loss()
    print(member, before, after)
    assert after < before - 0.02 * abs(before)
    assert all(p.isfinite().all() for p in trained.parameters())
