"""What a cell costs beyond its network calls and metrics, and what a command costs around its work.

Run with `make bench ARGS="-k overhead"`; printed, never asserted.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from samplerbench.datasets.gaussian import gaussian
from samplerbench.evaluation.cache import Cache
from samplerbench.evaluation.store import Row, Store
from samplerbench.evaluation.sweep import Sweep
from samplerbench.grids import uniform
from samplerbench.metrics.sliced import Sliced
from samplerbench.noise import KeyedNoise
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.schedules import EDM
from samplerbench.starts import Prior

pytestmark = pytest.mark.bench

CELLS = 200


def test_overhead_of_a_cell(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """200 cells of 16 samples and 2 steps: rows, identities, fragments and cache, per cell."""
    law, schedule = gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0))), EDM(10.0)
    oracle, metric = law.oracle(schedule), Sliced(directions=4)
    reference = law.draws(32, "evaluation")
    cache, store = Cache(tmp_path / "cache"), Store(tmp_path)
    sweep = Sweep(
        dataset=law,
        schedule=schedule,
        grid=uniform,
        denoisers={"oracle": oracle},
        starts={"prior": Prior()},
        samplers=[("ddim", DDIM(0.0))],
        steps=[2],
        metrics={"sliced": metric},
        reference=reference,
        n_samples=16,
        repetitions=CELLS,
        block=16,
        recall=cache.recall,
    )

    def keep(row: Row) -> None:
        store.write(row)
        cache.keep(row)

    distance, levels = metric.against(reference, seed=0), uniform(schedule, 2)
    seconds = {}

    def run() -> None:
        began = time.perf_counter()
        with torch.no_grad():
            for repetition in range(CELLS):
                x = Prior().draw(law, 16, levels.rows[0], (0, repetition, 0))
                distance(final_state(DDIM(0.0), oracle, x, levels, KeyedNoise((repetition,))))
        bare = time.perf_counter()
        sweep.run(keep)
        whole = time.perf_counter()
        sweep.run(keep)
        seconds["bare"], seconds["cell"] = bare - began, whole - bare
        seconds["known"] = time.perf_counter() - whole

    benchmark.pedantic(run, rounds=1)
    for name, spent in seconds.items():
        benchmark.extra_info[f"{name}_ms"] = round(1e3 * spent / CELLS, 2)
    print(f"\nper cell: {benchmark.extra_info}")


def processor_seconds() -> float:
    """What the commands that have ended took of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("job", [["experiment=tiny"], []], ids=["tiny", "main"])
def test_overhead_of_a_command(benchmark: BenchmarkFixture, tmp_path: Path, job: list[str]) -> None:
    """Seconds until the first line, and of a command that finds all it needs in the cache.

    The processor's seconds are those that a busy machine tells too.
    """
    words = [sys.executable, "-u", "-m", "samplerbench", *job]

    def run() -> None:
        for name in ("first", "again"):
            began, spent = time.perf_counter(), processor_seconds()
            with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE) as command:
                assert command.stdout is not None
                command.stdout.readline()
                benchmark.extra_info[f"{name}: first line, s"] = round(
                    time.perf_counter() - began, 2
                )
                command.stdout.read()
            assert command.returncode == 0
            benchmark.extra_info[f"{name}: whole, s"] = round(time.perf_counter() - began, 2)
            of_processor = round(processor_seconds() - spent, 2)
            benchmark.extra_info[f"{name}: of the processor, s"] = of_processor

    benchmark.pedantic(run, rounds=1)
    print(f"\n{benchmark.extra_info}")
