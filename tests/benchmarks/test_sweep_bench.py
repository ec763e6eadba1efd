"""Sweeps: the 36 cells of the notebook N1's figure against the same cells measured by POT, sweeps
against the bare calls of their network, and two workers against one.

POT's cells have the same network and the same code; only the metric differs, by turns in one run.
POT's metric is timed on one cell in nine and counted for all of them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import ot
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from samplerbench.app.config.folders import conf_directory
from samplerbench.app.job.build import build
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import Grid, karras
from samplerbench.core.models import Learned
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM, NoiseSchedule
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


def seconds(sweep):
    began = time.perf_counter()
    sweep.run()
    return time.perf_counter() - began


def test_the_sweep_of_36_cells(benchmark):
    data, schedule = grid_mixture(), EDM(10.0)
    network = ResidualMLP(2, 0).requires_grad_(False)
    learned = Learned(network, EDMTarget(), schedule, torch.zeros(2), 8.0).eval()
    sweep = Sweep(
        dataset=data,
        schedule=schedule,
        grid=partial(karras, noise_min=0.02, rho=5.0),
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


class Bare:
    """The calls of a sweep's network alone: as many, on as many rows, at the same levels."""

    def __init__(self, model: Learned, schedule: NoiseSchedule, grid: Grid) -> None:
        self.network, self.schedule, self.grid = model.network, schedule, grid
        self.level_of = model.standard_level

    @torch.no_grad()
    def run(self, steps: int, rows: int, dim: int) -> None:
        u = torch.randn(rows, dim, generator=torch_generator("bare", steps))
        for level in self.grid(self.schedule, steps).rows[:-1]:
            self.network(u, self.level_of(level))


def job(name):
    """The sweep of an experiment with an untrained network, of the learned denoiser alone."""
    words = [*JOBS[name], "denoiser=learned", "repetitions=1", "floor_repetitions=0"]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("config", [*words, "floor_free=false", "workers=1", "cache=off"])
    built = build(config, {}, name)
    assert built.training is not None
    built.training.objective.model.eval().requires_grad_(False)
    return built.sweep


#: The jobs whose sweeps are compared with bare calls.
JOBS = {
    "default": ["start=prior"],
    "notebook": ["start=prior", "metric=max_sliced"],
    "digits": ["experiment=digits", "sampler=[ddim]", "steps=[10]", "sampler.ddim.eta=[0,0.5]"],
}


@pytest.mark.parametrize("name", JOBS)
def test_the_sweep_against_bare_calls(benchmark, name):
    """Sampling and metric by the processor's time of the bare calls, cell after cell by turns."""
    sweep = job(name)
    model = sweep.denoisers["learned"]
    assert isinstance(model, Learned)
    bare = Bare(model, sweep.schedule, sweep.path_grid)
    distances = sweep.distances()
    spent = {"sweep": 0.0, "bare": 0.0}

    def timed(key, work):
        began = time.process_time()
        work()
        spent[key] += time.process_time() - began

    def run():
        for cell in sweep.cells():
            samples = sweep.lazy_samples(cell)
            for metric in sweep.metrics_of(cell):
                timed("sweep", lambda m=metric, s=samples: sweep.measure(s, m, distances[m]))
            timed("bare", lambda c=cell: bare.run(c.steps, sweep.n_samples, sweep.dataset.dim))

    run()  # the reference is sorted once
    spent = dict.fromkeys(spent, 0.0)
    benchmark.pedantic(run, rounds=1)
    ratio = spent["sweep"] / spent["bare"]
    benchmark.extra_info |= {**spent, "ratio": round(ratio, 3)}
    print(f"\n{name}: the sweep takes {ratio:.2f} times its bare calls, {spent['bare']:.2f} s")


def test_two_workers_against_one(benchmark):
    """Wall time, so only on an idle machine with two cores or more.

    Two threads with the bare calls alone tell how much the machine allows: two virtual cores may be
    one real one.
    """
    one = job("default")
    model, rows, dim = one.denoisers["learned"], one.n_samples, one.dataset.dim
    assert isinstance(model, Learned)
    bare = Bare(model, one.schedule, one.path_grid)
    counts = [cell.steps for cell in one.cells()]
    taken = defaultdict(list)

    def timed(name, workers, work):
        began = time.perf_counter()
        work()
        taken[name, workers].append(time.perf_counter() - began)

    def calls(workers):
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda steps: bare.run(steps, rows, dim), counts))

    def run():
        for _ in range(3):
            for workers in (1, 2):
                timed("sweep", workers, replace(one, workers=workers).run)
                timed("bare calls", workers, partial(calls, workers))

    one.run()  # imports and allocates
    benchmark.pedantic(run, rounds=1)
    for name in ("sweep", "bare calls"):
        ratio = statistics.median(taken[name, 1]) / statistics.median(taken[name, 2])
        benchmark.extra_info[name] = round(ratio, 2)
        print(f"\n{name}: two workers are {ratio:.2f} times as fast as one")
