"""How fast the metrics are: the random-direction metric against POT, the certified search, memory.

Run on an idle machine, with one thread: `make bench`. The ratios are in `extra_info`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import numpy as np
import ot
import pytest
import torch

from helpers import by_turns
from samplerbench.core.grids import karras
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import sobol_prior
from samplerbench.core.tangents import WithTangents, with_tangents
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.energy import Energy
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.max_sliced_law import MaxSlicedLaw
from samplerbench.metrics.max_sliced_refined import MaxSlicedRefined
from samplerbench.metrics.mmd import MMD
from samplerbench.metrics.mode_weights import ModeWeights
from samplerbench.metrics.projections import random_directions
from samplerbench.metrics.sliced import Sliced
from samplerbench.metrics.within_mode import WithinMode
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM

pytestmark = pytest.mark.bench


def _draw(n, seed):
    return grid_mixture().sample(n, np.random.default_rng(seed))


def test_max_sliced_against_pot(benchmark):
    samples, reference = _draw(2000, 0), _draw(10_000, 1)
    distance = MaxSliced().against(reference, seed=0)
    directions = random_directions(2, 1000, seed=0).T
    single = [cloud.float().numpy() for cloud in (samples, reference, directions)]
    exact = MaxSliced(precision="float64").against(reference, seed=0)(samples).value

    def pot():
        return float(ot.max_sliced_wasserstein_distance(*single[:2], projections=single[2]))

    # By turns, so that both see the same machine.
    slow, fast = [], []
    for _ in range(4):
        slow.append(_seconds(pot))
        fast += [_seconds(lambda: distance(samples)) for _ in range(15)]
    ratio = min(slow) / min(fast)
    value = benchmark(lambda: distance(samples).value)
    benchmark.extra_info |= {
        "times_as_fast_as_pot": ratio,
        "pot_seconds": min(slow),
        "pot_relative_error": pot() / exact - 1,
        "relative_error": value / exact - 1,
    }
    print(f"\nmax-sliced W₂, 2 000 × 10 000 × 1 000 directions: {ratio:.0f} × as fast as POT")


def _seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_certified_on_the_grid_mixture(benchmark):
    distance = MaxSlicedCertified().against(_draw(10_000, 0), seed=0)
    clouds = [_draw(2000, seed) for seed in range(1, 21)]
    evaluations = [distance(cloud).evaluations for cloud in clouds]
    benchmark(lambda: [distance(cloud) for cloud in clouds])
    benchmark.extra_info |= {
        "clouds": len(clouds),
        "fewest_evaluations": min(evaluations),
        "mean_evaluations": statistics.mean(evaluations),
        "most_evaluations": max(evaluations),
    }
    if benchmark.stats is not None:
        milliseconds = 1e3 * benchmark.stats.stats.min / len(clouds)
        benchmark.extra_info["milliseconds_a_distance"] = milliseconds
        print(f"\ncertified, D1, 2 000 × 10 000: {milliseconds:.1f} ms, {evaluations} evaluations")


def test_law_on_the_grid_mixture(benchmark):
    distance = MaxSlicedLaw().against_law(grid_mixture(), seed=0)
    clouds = [_draw(2000, seed) for seed in range(1, 11)]
    evaluations = [distance(cloud).evaluations for cloud in clouds]
    benchmark.pedantic(lambda: [distance(cloud) for cloud in clouds], rounds=5, warmup_rounds=1)
    benchmark.extra_info |= {
        "clouds": len(clouds),
        "mean_evaluations": statistics.mean(evaluations),
        "most_evaluations": max(evaluations),
    }
    if benchmark.stats is not None:
        milliseconds = 1e3 * benchmark.stats.stats.min / len(clouds)
        benchmark.extra_info["milliseconds_a_distance"] = milliseconds
        print(f"\nagainst the law, D1, 2 000: {milliseconds:.1f} ms, {evaluations} evaluations")


@pytest.mark.parametrize("name", ["sliced", "energy", "mmd", "mode_weights", "within_mode"])
def test_others_on_the_grid_mixture(benchmark, name):
    law, reference, cloud = grid_mixture(), _draw(10_000, 0), _draw(2000, 1)
    distances = {
        "sliced": lambda: Sliced().against(reference, seed=0),
        "energy": lambda: Energy().against(reference, seed=0),
        "mmd": lambda: MMD().against(reference, seed=0),
        "mode_weights": lambda: ModeWeights().against_law(law, seed=0),
        "within_mode": lambda: WithinMode().against_law(law, seed=0),
    }
    distance = distances[name]()
    benchmark.pedantic(lambda: distance(cloud), rounds=5, warmup_rounds=1)


def test_refined_in_many_dimensions(benchmark):
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((n, 784))) for n in (1000, 2000))
    distance = MaxSlicedRefined(directions=100, iterations=20).against(y, seed=0)
    benchmark.pedantic(lambda: distance(x + 0.1), rounds=3, warmup_rounds=1, iterations=1)


MEMORY = """
import resource, time, torch
from samplerbench.metrics.max_sliced import MaxSliced
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x, y = (torch.randn(n, 2, generator=generator) for n in ({n}, 1_000_000))
started = time.perf_counter()
MaxSliced(directions=256).against(y, seed=0)(x)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux only")
@pytest.mark.parametrize("n", [1_000_000, 999_983])
def test_peak_memory(benchmark, n):
    def measure():
        command = [sys.executable, "-c", MEMORY.format(n=n)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, kilobytes = map(float, run.stdout.split())
        return seconds, kilobytes / 1e6

    seconds, gigabytes = benchmark.pedantic(measure, rounds=1, iterations=1)
    benchmark.extra_info |= {"peak_gigabytes": gigabytes, "metric_seconds": seconds}
    print(f"\n{n:,} × 1,000,000 × 256 directions: {gigabytes:.2f} GB, {seconds:.0f} s")
    assert gigabytes <= 2


def test_a_density_against_sampling_alone(benchmark):
    """The promise is at most dim + 2 times, here 4."""
    law, schedule = grid_mixture(), EDM(10.0)
    levels, oracle, start = (
        karras(schedule, 25, noise_min=0.02),
        law.oracle(schedule),
        sobol_prior(),
    )
    x = start.draw(law, 2048, levels.rows[0], (0, 0, 0))
    noise = KeyedNoise(("bench",))

    @torch.no_grad()
    def sampling():
        final_state(DDIM(0.0), oracle, x, levels, noise)

    @torch.no_grad()
    def density():
        final_state(DDIM(0.0), WithTangents(oracle), with_tangents(x), levels, noise)

    seconds = by_turns({"plain": sampling, "whole": density}, 9, warm=0)
    benchmark.extra_info["ratio"] = statistics.median(seconds["whole"]) / statistics.median(
        seconds["plain"]
    )
    print(f"density / sampling: {benchmark.extra_info['ratio']:.2f}")
    benchmark.pedantic(density, rounds=1)
