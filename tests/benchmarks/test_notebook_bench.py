"""The job of the notebook N1 in JAX beside the same job here, from command to end, by turns.

JAX takes ten minutes, and the speed of a shared machine changes within them. So JAX is stopped
every 40 seconds while the job runs here once, by the default recipe and by `trainer=quick` in turn.
Then all have the same share of fast and of slow minutes, and the means of the jobs are compared
with the own time of JAX.

`JAX_PYTHON` is the Python of an environment with jax, flax, optax and pot, which samplerbench does
not need: pip install jax==0.10.2 flax==0.12.8 optax==0.2.8 pot==0.9.7.post1. 20 minutes:
JAX_PYTHON=… make bench ARGS="-k notebook_bench"; printed, never asserted.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

#: Seconds that JAX runs between two jobs.
TURN = 40.0
RECIPES = ("default", "quick")
#: The notebook's 36 cells: one repetition, from the prior, no floor.
JOB = ["denoiser=learned", "start=prior", "repetitions=1", "floor_repetitions=0"]
JOB += ["metric=max_sliced", "floor_free=false", "cache=refresh"]


def seconds(command, folder):
    """The seconds of a process."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=variables(), check=True, capture_output=True)
    return time.perf_counter() - began


def variables():
    return os.environ | {"WANDB_MODE": "offline", "MPLBACKEND": "Agg"}


def by_turns(command, turn, folder):
    """The seconds of a process without its stops, what it printed, and what every turn found.

    `turn()` runs while the process is stopped, once in every `TURN` seconds of the process.
    """
    found, took = [], 0.0
    with (folder / "printed").open("w+") as printed:
        process = subprocess.Popen(command, cwd=folder, env=variables(), stdout=printed)
        try:
            while True:
                began = time.perf_counter()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(TURN)
                took += time.perf_counter() - began
                if process.returncode is not None:
                    break
                process.send_signal(signal.SIGSTOP)
                found.append(turn())
                process.send_signal(signal.SIGCONT)
        finally:
            process.kill()  # also if it is stopped
            process.wait()
        assert process.returncode == 0
        printed.seek(0)
        return took, printed.read(), found


def test_the_job_of_the_notebook(benchmark, tmp_path):
    python = os.environ.get("JAX_PYTHON")
    if python is None:
        pytest.skip("needs JAX_PYTHON, an environment with jax, flax, optax and pot")
    script = Path(__file__).with_name("notebook_in_jax.py")
    ours = [sys.executable, "-m", "samplerbench", *JOB]
    jobs = [partial(seconds, [*ours, f"trainer={recipe}"], tmp_path) for recipe in RECIPES]
    jobs[0]()  # the first run reads the packages from the disk
    turns = cycle(jobs)
    theirs, printed, found = by_turns([python, str(script)], lambda: next(turns)(), tmp_path)
    *rows, _ = printed.splitlines()  # the last line has times that include the stops
    print("", *rows, f"JAX {theirs:.0f} s", sep="\n")
    for number, recipe in enumerate(RECIPES):
        own = found[number :: len(RECIPES)]
        mean = statistics.mean(own)
        print(f"{recipe}: {mean:.1f} s, the mean of", *(f"{one:.1f}" for one in own))
        print(f"{theirs / mean:.1f} times as fast")
        benchmark.extra_info |= {"jax": theirs, recipe: mean}
    benchmark.pedantic(jobs[0], rounds=1)
