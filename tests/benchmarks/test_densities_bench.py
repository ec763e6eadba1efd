"""What a divergence costs beside the sampling of as many points, by the processor's time.

Asked are at most dim + 2 times as much. Run with `make bench ARGS="-k densities"`; never asserted.
"""

from __future__ import annotations

import functools
import time
from statistics import median

import pytest
import torch

from samplerbench.bench.cell import Cell
from samplerbench.bench.densities import log_ratios
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import karras
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


def spent(work):
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.parametrize("denoiser", ["learned", "oracle"])
@pytest.mark.parametrize("sampler", [DDIM(0.0), Heun()], ids=lambda s: type(s).__name__)
def test_densities(benchmark, sampler, denoiser):
    torch.set_num_threads(1)
    law, schedule = grid_mixture(), EDM(10.0)
    network = ResidualMLP(2, 0).requires_grad_(False)
    learned = Learned(network, EDMTarget(), schedule, torch.zeros(2), 8.0).eval()
    sweep = Sweep(
        dataset=law,
        schedule=schedule,
        grid=functools.partial(karras, noise_min=0.02, rho=5.0),
        denoisers={"learned": learned, "oracle": law.oracle(schedule)},
        starts={"exact": Exact()},
        samplers=[("sampler", sampler)],
        steps=[36],
        metrics={"kl_law": KLLaw()},
        reference=torch.empty(0, 2),
        n_samples=2048,
        repetitions=1,
        block=2048,
    )
    cell = Cell(denoiser, "exact", "sampler", sampler, 36, 0)
    alone, density = [], []

    def run():
        for _ in range(AGAIN):  # by turns: the machine may be busy for a while
            alone.append(spent(lambda: sweep.draw(cell)))
            density.append(spent(lambda: log_ratios(sweep, cell)))

    benchmark.pedantic(run, rounds=1)
    ratio = median(density) / median(alone)
    benchmark.extra_info |= {"times_the_sampling": round(ratio, 2), "asked": sweep.dataset.dim + 2}
    print(f"\n{denoiser}, {type(sampler).__name__}: {benchmark.extra_info}")
