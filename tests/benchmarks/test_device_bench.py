"""On a GPU: what replaying a denoiser's calls as CUDA graphs gains. Skipped where there is none."""

from __future__ import annotations

import statistics
import time
from functools import partial

import pytest
import torch

from helpers import by_turns
from samplerbench.core.cuda_graphs import Graphed
from samplerbench.core.grids import karras
from samplerbench.core.models import Learned
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import EDMTarget
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.base import final_state
from samplerbench.samplers.heun import Heun

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

ROUNDS = 20


@pytest.mark.parametrize("rows", [2_000, 100_000])
def test_a_run_with_graphs(rows, benchmark):
    """Heun with 50 steps on the default network: a run by recorded calls against a plain one."""
    model = Learned(ResidualMLP(2, 0), EDMTarget(), EDM(10.0), torch.zeros(2), 8.0)
    model = model.cuda().eval().requires_grad_(False)
    x = 10 * torch.randn(rows, 2, dtype=torch.float64, device="cuda")
    levels = karras(EDM(10.0), 50)

    def run(denoiser):
        def once():
            final_state(Heun(), denoiser, x, levels, KeyedNoise((0,)))
            torch.cuda.synchronize()

        return once

    ways = {"graphed": run(Graphed(model)), "plain": run(model)}
    seconds = {}
    turns = partial(by_turns, ways, ROUNDS, time.perf_counter)  # the first one records
    with torch.no_grad():
        benchmark.pedantic(lambda: seconds.update(turns()), rounds=1)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    benchmark.extra_info |= {f"{name}_ms": round(1e3 * m, 3) for name, m in medians.items()}
    benchmark.extra_info["ratio"] = round(medians["plain"] / medians["graphed"], 2)
    print(f"\n{torch.cuda.get_device_name()}, {rows:,} rows: {benchmark.extra_info}")
