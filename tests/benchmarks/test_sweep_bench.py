"""The 36 cells of the notebook N1's figure, ours against the same cells measured by POT.

Both sample with the same network and the same code; only the metric differs, by turns in one run.
POT's metric is timed on one cell in nine and counted for all of them.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from dataclasses import dataclass, replace

import ot
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import karras
from samplerbench.core.models import Learned
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Prior
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.base import Distance, Measurement, Metric
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.projections import random_directions
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.ddim import DDIM

pytestmark = pytest.mark.bench


@dataclass(frozen=True)
class POT(Metric):
    """Max-sliced W₂ over 1 000 random directions by POT in float32, as the notebook has it."""

    def why_incompatible(self, dim: int) -> str | None:
        return None

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        return POTDistance(reference, seed)


class POTDistance(Distance):
    def __init__(self, reference: Tensor, seed: int) -> None:
        super().__init__(reference.shape[1])
        self.reference = reference.float().numpy()
        self.directions = random_directions(self.dim, 1000, seed).T.float().numpy()

    def measure(self, samples: Tensor) -> Measurement:
        clouds = samples.float().numpy(), self.reference
        value = float(ot.max_sliced_wasserstein_distance(*clouds, projections=self.directions))
        return Measurement(value, math.nan, math.nan, None, 1000)


def seconds(sweep: Sweep) -> float:
    began = time.perf_counter()
    sweep.run()
    return time.perf_counter() - began


def test_the_sweep_of_36_cells(benchmark: BenchmarkFixture) -> None:
    torch.set_num_threads(1)
    data, schedule = grid_mixture(), EDM(10.0)
    network = ResidualMLP(2, 0).requires_grad_(False)
    learned = Learned(network, EDMTarget(), schedule, torch.zeros(2), 8.0).eval()
    sweep = Sweep(
        dataset=data,
        schedule=schedule,
        grid=functools.partial(karras, noise_min=0.02, rho=5.0),
        denoisers={"learned": learned},
        starts={"prior": Prior()},
        samplers=[("ddim", DDIM(eta)) for eta in (0.0, 0.1, 0.5, 1.0)],
        steps=[4, 9, 16, 25, 36, 49, 64, 81, 100],
        metrics={"certified": MaxSlicedCertified()},
        reference=data.draws(10_000, "evaluation", 0),
        n_samples=2000,
        repetitions=1,
    )
    one = replace(sweep, samplers=sweep.samplers[:1], steps=[4])
    pot = replace(one, metrics={"pot": POT()})
    seconds(one)
    ours = [seconds(sweep) for _ in range(3)]
    extra = [seconds(pot) - seconds(one) for _ in range(4)]
    whole = statistics.median(ours)
    ratio = (whole + 36 * statistics.median(extra)) / whole
    print(f"\n36 cells: {whole:.1f} s on one thread; {ratio:.1f} × as fast as with POT's metric")
    benchmark.extra_info |= {"seconds": whole, "times_as_fast_as_with_pot": ratio}
    benchmark.pedantic(seconds, args=(sweep,), rounds=1)
