"""How long a report of 10 000 values takes, from its command to its end.

Run with `make bench ARGS="-k report"`; printed, never asserted. The ratio is to the time in which
this machine imports torch, so it can be compared with another machine's. By turns with the version
that drew charts with plotly's Python classes, and panels and figures for everybody (484993f): 0.27
of its processor time and of its wall time (1.3 and 4.6 s of the process, the medians of seven
turns), 2.2 MB and not 5.7. Half of it are imports.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from samplerbench.bench.cell import Row
from samplerbench.bench.store import Store
from samplerbench.identity import identity, settings_text
from samplerbench.samplers.ddim import DDIM

pytestmark = pytest.mark.bench

ETAS = tuple(k / 10 for k in range(10))
STEPS = tuple(range(2, 102, 2))
REPETITIONS = 10


def command(*words):
    """Run `samplerbench` with these words; the seconds it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "samplerbench", *words], check=True, capture_output=True)
    return time.perf_counter() - began


@pytest.fixture
def many(tmp_path):
    """A run with 10 learned curves of 50 points and their oracle's, 10 repetitions of each.

    Its config, its versions and one row of each denoiser are of a real run.
    """
    folder = tmp_path / "run"
    etas = f"sampler.ddim.eta=[{','.join(map(str, ETAS))}]"
    command("experiment=tiny", "logger=none", "cache=off", etas, f"hydra.run.dir={folder}")
    store = Store(folder)
    table = store.table()
    models = [
        Row(**table[(table["denoiser"] == name) & (table["start"] == "prior")].iloc[0].to_dict())
        for name in ("learned", "oracle")
    ]
    grid = [(m, e, n, r) for m in models for e in ETAS for n in STEPS for r in range(REPETITIONS)]
    for model, eta, steps, repetition in grid:
        row = replace(
            model,
            cell_id=identity([model.denoiser, eta, steps, repetition]),
            setting_id=identity([model.denoiser, eta]),
            eta=eta,
            sampler_settings=settings_text(DDIM(eta)),
            steps=steps,
            nfe=steps,
            repetition=repetition,
            value=model.value * (1 + eta / steps + 0.01 * repetition),
        )
        store.write(row)
    return folder


@pytest.mark.parametrize("state", ["finished", "running"])
def test_a_report_of_ten_thousand_values(benchmark, many, tmp_path, state):
    if state == "finished":
        Store(many).compact()
    seconds = []

    def run():
        seconds.append(command("report", str(many), f"out={tmp_path / 'out'}"))

    benchmark.pedantic(run, rounds=1)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    torch = time.perf_counter() - began
    page = (tmp_path / "out" / "report.html").stat().st_size
    benchmark.extra_info |= {"seconds": round(seconds[0], 1), "page_MB": round(page / 1e6, 1)}
    benchmark.extra_info["torch_imports"] = round(seconds[0] / torch, 2)
    print(f"\na report of 10 000 values, {state}: {benchmark.extra_info}")
