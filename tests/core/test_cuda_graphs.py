"""CUDA graphs: what they are recorded with gives what numbers give, and replays are the calls."""

import pytest
import torch

from helpers import each
from samplerbench.core.cuda_graphs import Graphed, written_out
from samplerbench.core.grids import Level, karras
from samplerbench.core.models import Learned
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.networks.ncsn_mlp import NCSNMLP
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.networks.time_mlp import TimeMLP
from samplerbench.samplers.base import final_state
from samplerbench.samplers.heun import Heun

SCHEDULE = EDM(10.0)
LEVELS = [Level(0.3, 1.0, 3.0), Level(0.002, 1.0, 0.02)]
NETWORKS = [NCSNMLP, ResidualMLP, TimeMLP]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def learned(network):
    return Learned(network(2, 0), EDMTarget(), SCHEDULE, torch.tensor([0.5, -1.0]), 8.0)


MODELS = [
    grid_mixture().oracle(SCHEDULE),
    gaussian((1.0, 2.0), ((2.0, 0.5), (0.5, 1.0))).oracle(SCHEDULE),
    *map(learned, NETWORKS),
]
of_each_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)


@of_each_model
@each("level", LEVELS)
def test_a_level_written_out_gives_what_its_numbers_give(model, level):
    x = KeyedNoise((0,)).normal(torch.zeros(7, 2, dtype=torch.float64), 0) * 5
    place = written_out(x, level)
    assert place.sigma.shape == (7, 1)
    with torch.no_grad():
        for call in (model.denoiser, model.score):
            expected = call(x, level)
            # a network works in float32
            close = 1e-4 if isinstance(model, Learned) else 1e-12
            assert torch.allclose(call(x, place), expected, rtol=close, atol=close * 100)


@on_gpu
@of_each_model
def test_a_replayed_run_is_the_run(model):
    model = model.cuda().eval().requires_grad_(False)
    x = KeyedNoise((1,)).normal(torch.zeros(256, 2, dtype=torch.float64), 0).cuda() * 10
    levels = karras(SCHEDULE, 12)
    with torch.no_grad():
        expected = final_state(Heun(), model, x, levels, KeyedNoise((2,)))
        graphed = Graphed(model)
        for _ in range(2):  # recorded, then replayed
            found = final_state(Heun(), graphed, x, levels, KeyedNoise((2,)))
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)
