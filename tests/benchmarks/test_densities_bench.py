"""What a divergence costs beside the sampling of as many points, by the processor's time.

Asked are at most dim + 2 times as much. Run with `make bench ARGS="-k densities"`; never asserted.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
import torch

from helpers import by_turns, sweep_of
from samplerbench.bench.cell import Cell
from samplerbench.bench.densities import log_ratios
from samplerbench.core.models import Learned
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun

pytestmark = pytest.mark.bench

AGAIN = 7


@pytest.mark.parametrize("denoiser", ["learned", "oracle"])
@pytest.mark.parametrize("sampler", [DDIM(0.0), Heun()], ids=lambda s: type(s).__name__)
def test_densities(benchmark, sampler, denoiser):
    law, schedule = grid_mixture(), EDM(10.0)
    network = ResidualMLP(2, 0).requires_grad_(False)
    learned = Learned(network, EDMTarget(), schedule, torch.zeros(2), 8.0).eval()
    denoisers = {"learned": learned, "oracle": law.oracle(schedule)}
    settings = {"denoisers": denoisers, "starts": {"exact": Exact()}, "n_samples": 2048}
    sweep = sweep_of(law, [("sampler", sampler)], [36], metrics={"kl_law": KLLaw()}, **settings)
    sweep = replace(sweep, block=2048)
    cell = Cell(denoiser, "exact", "sampler", sampler, 36, 0)
    ways = {"alone": lambda: sweep.draw(cell), "density": lambda: log_ratios(sweep, cell)}
    found = {}
    benchmark.pedantic(lambda: found.update(by_turns(ways, AGAIN, warm=0)), rounds=1)
    ratio = median(found["density"]) / median(found["alone"])
    benchmark.extra_info |= {"times_the_sampling": round(ratio, 2), "asked": sweep.dataset.dim + 2}
    print(f"\n{denoiser}, {type(sampler).__name__}: {benchmark.extra_info}")
