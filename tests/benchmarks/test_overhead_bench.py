"""What a cell costs beyond its network calls and metrics, and what a command costs around its work.

Run with `make bench ARGS="-k overhead"`; printed, never asserted.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from statistics import median

import pytest
import torch

from samplerbench.bench.cache import Cache
from samplerbench.bench.store import Store
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import uniform
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Prior
from samplerbench.datasets.gaussian import gaussian
from samplerbench.metrics.sliced import Sliced
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM

pytestmark = pytest.mark.bench

CELLS = 200


def test_overhead_of_a_cell(benchmark, tmp_path):
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

    def keep(row):
        store.write(row)
        cache.keep(row)

    distance, levels = metric.against(reference, seed=0), uniform(schedule, 2)
    seconds = {}

    def run():
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


AGAIN = 5


@dataclass(frozen=True)
class Spent:
    """Seconds of a command: until its first line, until its end, and of the processor.

    The processor's tell what the command takes where other programs run too.
    """

    first_line: float
    whole: float
    processor: float


def spent_by(words, folder):
    """Run a program in a folder."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen([sys.executable, *words], cwd=folder, stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.readline()
        line = time.perf_counter() - began
        command.stdout.read()
    assert command.returncode == 0
    whole, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(line, whole, used)


@pytest.mark.parametrize("job", [["experiment=tiny"], []], ids=["tiny", "main"])
def test_overhead_of_a_command(benchmark, tmp_path, job):
    """A command the first time, and when it finds all it needs in the cache: medians of five.

    Beside it torch's import alone, which no command can do without: it tells how fast the machine
    is now.
    """
    words = ["-u", "-m", "samplerbench", *job]

    def run():
        taken = {"first": [spent_by(words, tmp_path)], "again": [], "import torch": []}
        for _ in range(AGAIN):
            taken["again"].append(spent_by(words, tmp_path))
            taken["import torch"].append(spent_by(["-c", "import torch"], tmp_path))
        for name, times in taken.items():
            for field in fields(Spent):
                middle = median(getattr(one, field.name) for one in times)
                benchmark.extra_info[f"{name}: {field.name}, s"] = round(middle, 2)

    benchmark.pedantic(run, rounds=1)
    print(f"\n{benchmark.extra_info}")
