"""Memory of cells with a million samples, beyond that of the imports, beside whole clouds at once.

Each number is the peak of a process of its own. *Whole* is the same code with pieces that hold all
points; before there were pieces, the certified cell took 137 MB, the budget 360 to 375 MB and
`kl_law` 64 MB. Run with `make bench ARGS="-k memory_bench"`; printed, never asserted.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.bench

CELL = """
import functools, re, sys, time
from pathlib import Path
import torch
from samplerbench.bench import densities
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import karras
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact, Prior
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics import kl_law, max_sliced_certified, plane, projections
from samplerbench.samplers.ddim import DDIM
torch.set_num_threads(1)
what, whole = sys.argv[1:]
if whole == "whole":
    densities.PIECE = kl_law.PIECE = 2**30
    plane.PIECE = projections._STRETCH = 2**30
law, path = grid_mixture(), EDM(10.0)
metric = kl_law.KLLaw() if what == "kl_law" else max_sliced_certified.MaxSlicedCertified()

def rows(n):
    sweep = Sweep(
        dataset=law, schedule=path, grid=functools.partial(karras, noise_min=0.02, rho=5.0),
        denoisers={"oracle": law.oracle(path)}, samplers=[("ddim", DDIM(0.0))], steps=[4],
        starts={"exact": Exact(), "prior": Prior()} if what == "budget" else {"exact": Exact()},
        metrics={"metric": metric}, reference=law.draws(10_000, "evaluation", 0), n_samples=n,
        repetitions=2 if what == "budget" else 1,
    )
    return Budget(sweep, converged_steps=8).run() if what == "budget" else sweep.run()

def memory(name):
    text = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+)", text)[1]) / 1024

rows(2000)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before, began = memory("VmRSS"), time.process_time()
value = rows(1_000_000)[0].value
print(memory("VmHWM") - before, time.process_time() - began, value)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is that of Linux")
@pytest.mark.parametrize("what", ["certified", "budget", "kl_law"])
def test_a_million_samples(benchmark, what):
    found = {}

    def run():
        for pieces in ("pieces", "whole"):
            words = [sys.executable, "-c", CELL, what, pieces]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found[pieces] = tuple(map(float, done.stdout.split()))

    benchmark.pedantic(run, rounds=1)
    for pieces, (megabytes, seconds, value) in found.items():
        benchmark.extra_info |= {f"{pieces}_megabytes": megabytes, f"{pieces}_seconds": seconds}
        print(f"\n{what}, {pieces}: {megabytes:.0f} MB, {seconds:.1f} s, {value!r}")
