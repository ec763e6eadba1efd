"""The job of the notebook N1 in JAX beside the same job here, from command to end, by turns.

`JAX_PYTHON` is the Python of an environment with jax, flax, optax and pot, which samplerbench does
not need: pip install jax==0.10.2 flax==0.12.8 optax==0.2.8 pot==0.9.7.post1. Ten minutes:
JAX_PYTHON=… make bench ARGS="-k notebook_bench"; printed, never asserted.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

ROUNDS = 3
#: The notebook's 36 cells: one repetition, from the prior, no floor.
JOB = ["denoiser=learned", "start=prior", "repetitions=1", "floor_repetitions=0"]
JOB += ["metric=max_sliced", "floor_free=false", "cache=refresh"]


def seconds(command, folder):
    """The seconds of a process, and what it printed."""
    variables = os.environ | {"WANDB_MODE": "offline", "MPLBACKEND": "Agg"}
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=variables, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - began, done.stdout


def test_the_job_of_the_notebook(benchmark, tmp_path):
    python = os.environ.get("JAX_PYTHON")
    if python is None:
        pytest.skip("needs JAX_PYTHON, an environment with jax, flax, optax and pot")
    script = Path(__file__).with_name("notebook_in_jax.py")
    ours = [sys.executable, "-m", "samplerbench", *JOB]
    seconds(ours, tmp_path)  # the first run reads the packages from the disk
    found = [seconds(ours, tmp_path)[0]]
    theirs, printed = seconds([python, str(script)], tmp_path)
    found += [seconds(ours, tmp_path)[0] for _ in range(ROUNDS - 1)]
    middle = statistics.median(found)
    print(f"\n{printed}JAX {theirs:.0f} s, here", *(f"{one:.1f}" for one in found))
    print(f"{theirs / middle:.1f} times as fast")
    benchmark.extra_info |= {"jax": theirs, "here": middle}
    benchmark.pedantic(seconds, args=(ours, tmp_path), rounds=1)
