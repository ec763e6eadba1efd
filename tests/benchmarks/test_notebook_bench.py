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
#: A training in less time, whose distances are still those of the exact score up to .2; see
#: docs/speed.md.
BRIEF = "trainer.steps=400"


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
    ours = {
        words: [sys.executable, "-m", "samplerbench", *JOB, *words.split()] for words in ("", BRIEF)
    }
    seconds(ours[""], tmp_path)  # the first run reads the packages from the disk
    found = {words: [seconds(command, tmp_path)[0]] for words, command in ours.items()}
    theirs, printed = seconds([python, str(script)], tmp_path)
    for _ in range(ROUNDS - 1):
        for words, command in ours.items():
            found[words].append(seconds(command, tmp_path)[0])
    print(f"\n{printed}JAX {theirs:.0f} s")
    for words, times in found.items():
        middle = statistics.median(times)
        print(f"here {words or 'by default'} {middle:.1f} s: {theirs / middle:.0f} times as fast")
        benchmark.extra_info |= {words or "default": middle}
    benchmark.extra_info |= {"jax": theirs}
    benchmark.pedantic(seconds, args=(ours[BRIEF], tmp_path), rounds=1)
