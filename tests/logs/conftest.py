"""Logs are tested without the settings of wandb that a user may have in the environment."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_wandb_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
