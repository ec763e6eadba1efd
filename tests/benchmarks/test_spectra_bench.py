"""What the exact law of a sampler on a Gaussian costs: by eigenvalues, and by dense matrices.

100 steps of DDIM(1), which draws noise in every step, one thread, processor time. At dimension 64
the law by eigenvalues stands beside two others of the same run: `exact_law`, which differentiates a
dense run, and unit impulses in every coordinate of the state and of every draw, as `exact_law` had
them before. At 3 072 and 196 608 dimensions a process of its own says its memory beyond that of
its imports. Run with `make bench ARGS="-k spectra_bench"`; printed, never asserted.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from torch import Tensor

from samplerbench.bench.spectra import output_spectrum
from samplerbench.core.grids import karras
from samplerbench.core.schedules import EDM
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_spectrum import gaussian_spectrum
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.verify.exact_law import output_law

pytestmark = pytest.mark.bench

SCHEDULE, STEPS = EDM(80.0), 100

ALONE = """
import re, time, torch
from pathlib import Path
torch.set_num_threads(1)
from tests.benchmarks.test_spectra_bench import by_eigenvalues
from samplerbench.datasets.gaussian_spectrum import gaussian_spectrum
by_eigenvalues(gaussian_spectrum(dim=3))
def memory(name):
    text = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+)", text)[1]) / 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before, began = memory("VmRSS"), time.process_time()
by_eigenvalues(gaussian_spectrum(dim={dim}))
print(time.process_time() - began, memory("VmHWM") - before)
"""


class Impulses:
    """One unit in one coordinate of one draw, another one in each row of the batch."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        z, first = torch.zeros_like(like), 1 + self.dim * (1 + step)
        z[first : first + self.dim] = torch.eye(self.dim, dtype=like.dtype)
        return z

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise NotImplementedError  # affine samplers draw normal numbers only


def levels():
    return karras(SCHEDULE, STEPS, noise_min=0.002)


def by_eigenvalues(law):
    start = law.variances + SCHEDULE.sigma_max**2
    return output_spectrum(DDIM(1.0), law.oracle(SCHEDULE), levels(), law.mean, start)


def by_impulses(model, mean, covariance):
    """Mean and covariance of the output, from one batch of 1 + dim·(1 + draws) rows."""
    dim, draws = len(mean), STEPS - 1  # none in the last step
    x = mean.repeat(1 + dim * (1 + draws), 1)
    x[1 : 1 + dim] += torch.eye(dim, dtype=mean.dtype)
    with torch.no_grad():
        out = final_state(DDIM(1.0), model, x, levels(), Impulses(dim))
    columns = out[1:] - out[0]
    by_state, by_noise = columns[:dim], columns[dim:]
    return out[0], by_state.T @ covariance @ by_state + by_noise.T @ by_noise


def test_eigenvalues_against_dense_matrices(benchmark):
    law = gaussian_spectrum(dim=64)
    model = gaussian(law.mean.tolist(), torch.diag(law.variances).tolist()).oracle(SCHEDULE)
    start = law.mean, torch.diag(law.variances + SCHEDULE.sigma_max**2)
    ways = {
        "eigenvalues": (20, lambda: by_eigenvalues(law)),
        "exact_law": (2, lambda: output_law(DDIM(1.0), model, levels(), *start)),
        "impulses": (1, lambda: by_impulses(model, *start)),
    }
    spent = {}
    found = {}

    def run():
        for name, (rounds, way) in ways.items():
            for _ in range(rounds):
                began = time.process_time()
                found[name] = way()
                seconds = time.process_time() - began
                spent[name] = min(spent.get(name, seconds), seconds)

    benchmark.pedantic(run, rounds=1)
    for name in ("exact_law", "impulses"):
        torch.testing.assert_close(
            found[name][1].diagonal(), found["eigenvalues"][1], rtol=1e-8, atol=0
        )
        benchmark.extra_info[f"{name} / eigenvalues"] = round(spent[name] / spent["eigenvalues"])
    print(f"\ndim 64, {STEPS} steps: {spent}, {benchmark.extra_info}")


@pytest.mark.parametrize("dim", [3_072, 196_608])
def test_the_law_of_images(benchmark, dim):
    words = [sys.executable, "-c", ALONE.format(dim=dim)]

    def run():
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        seconds, megabytes = map(float, done.stdout.split())
        benchmark.extra_info.update(seconds=round(seconds, 3), megabytes=round(megabytes))

    benchmark.pedantic(run, rounds=1)
    print(f"\ndim {dim:,}, {STEPS} steps: {benchmark.extra_info}")
