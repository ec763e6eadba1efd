"""Small jobs as pictures see them, and rows of a results table."""

import copy
import functools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from samplerbench.bench.scene import Scene
from samplerbench.core import grids
from samplerbench.core.models import Learned
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact, Prior
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.four_well import FourWell
from samplerbench.datasets.gaussian_mixture import isotropic
from samplerbench.datasets.gaussian_spectrum import gaussian_spectrum
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.datasets.two_modes import two_modes
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun

SCHEDULE = EDM(10.0)


def make_scene(dataset, *, learned=True, **changes):
    """A job: an untrained network beside the oracle, two settings of DDIM, 4 and 8 steps."""
    settings = {
        "dataset": dataset,
        "schedule": SCHEDULE,
        "grid": functools.partial(grids.karras, noise_min=0.02, rho=5.0),
        "denoisers": {"oracle": dataset.oracle(SCHEDULE)},
        "starts": {"prior": Prior(), "exact": Exact()},
        "samplers": [("ddim", DDIM(0.2)), ("ddim", DDIM(1.0))],
        "steps": [4, 8],
        "train": dataset.draws(200, "train", 0),
    }
    if learned:
        train, network = settings["train"], ResidualMLP(dataset.dim, 0, width=16)
        untrained = Learned(network, EDMTarget(), SCHEDULE, train.mean(0), float(train.std()))
        settings["denoisers"] = {"learned": copy.deepcopy(untrained), **settings["denoisers"]}
        steps = np.arange(10, 100, 10)
        losses = pd.DataFrame({"step": steps, "name": "train", "loss": 100.0 / steps})
        settings |= {"untrained": untrained, "losses": losses}
    return Scene(**settings | changes)


@pytest.fixture(scope="session")
def scene_of():
    return make_scene


@pytest.fixture(scope="session")
def line_law():
    return isotropic((0.3, 0.7), ((-1.0,), (0.5,)), 0.04)


@pytest.fixture(scope="session")
def plane():
    return make_scene(grid_mixture())


@pytest.fixture(scope="session")
def line(line_law):
    return make_scene(line_law)


@pytest.fixture(scope="session")
def modes():
    return make_scene(two_modes(2, weight=0.7, variance=0.1))


@pytest.fixture(scope="session")
def trajectory():
    return make_scene(FourWell(steps=300))


@pytest.fixture(scope="session")
def images():
    pixels = torch.rand(500, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return make_scene(Divided(pixels))


@pytest.fixture(scope="session")
def spectrum():
    law = gaussian_spectrum(dim=5, exponent=1.0)
    return make_scene(law, learned=False, samplers=[("ddim", DDIM(0.2)), ("heun", Heun())])


@pytest.fixture(scope="session")
def row():
    """A row of the results table, as a dictionary."""

    def build(denoiser, start, sampler, steps, repetition, value, **changes):
        settings = changes.pop("settings", {})
        return {
            "dataset": "grid_mixture",
            "metric": "w",
            "denoiser": denoiser,
            "start": start,
            "sampler": sampler,
            "sampler_settings": json.dumps(settings) if settings else "",
            "eta": settings.get("eta", math.nan),
            "steps": steps,
            "repetition": repetition,
            "n_samples": 2000,
            "reference": "data",
            "nfe": steps,
            "seconds": 0.1,
            "value": value,
            "status": "ok",
        } | changes

    return build
