"""The small U-Net on the CPU in other arithmetic, beside float32 on one thread.

Steps of training and calls without gradients alternate between the variants, so that a busy machine
slows all of them. Of two threads only the wall time on an idle machine says something, of all
others the processor's time. Run with `make bench ARGS="-k images_bench"`; printed, never asserted.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from statistics import median

import pytest
import torch

from samplerbench.core.grids import Level
from samplerbench.networks.unet import UNet

pytestmark = pytest.mark.bench

ROUNDS = 12


@dataclass(frozen=True)
class Variant:
    """One way to compute the same network."""

    bfloat16: bool = False
    channels_last: bool = False
    compiled: bool = False
    threads: int = 1
    batch: int = 64

    def network(self, network):
        """A copy of the network in this variant."""
        copy = deepcopy(network)
        if self.channels_last:
            copy = copy.to(memory_format=torch.channels_last)
        return torch.compile(copy, dynamic=False) if self.compiled else copy

    @contextmanager
    def arithmetic(self):
        """Its precision and threads."""
        torch.set_num_threads(self.threads)
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                yield
        finally:
            torch.set_num_threads(1)


VARIANTS = {
    "float32": Variant(),
    "bfloat16": Variant(bfloat16=True),
    "channels last": Variant(channels_last=True),
    "both": Variant(bfloat16=True, channels_last=True),
    "two threads": Variant(threads=2),
    "batch of 32": Variant(batch=32),
    "batch of 128": Variant(batch=128),
}
if shutil.which("g++"):
    VARIANTS["compiled"] = Variant(compiled=True)


@pytest.mark.parametrize("gradients", [True, False], ids=["training", "calls"])
@pytest.mark.parametrize("side", [8, 28])
def test_u_net(benchmark, side, gradients):
    """The time of 64 images of side × side pixels; that of the first call is printed too."""
    original = UNet((1, side, side), 0, level="time")
    networks = {name: each.network(original) for name, each in VARIANTS.items()}
    optimisers = {
        name: torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
        for name, network in networks.items()
    }
    spent = defaultdict(list)

    def work(name, variant):
        u = torch.randn(variant.batch, side * side)
        t = torch.rand(variant.batch, 1)
        with variant.arithmetic(), torch.set_grad_enabled(gradients):
            y = networks[name](u, Level(t, (1 - t).sqrt(), t.sqrt()))
            if gradients:
                optimisers[name].zero_grad()
                (y.float() - u).square().sum(-1).mean().backward()
                optimisers[name].step()

    def run():
        for _ in range(1 + ROUNDS):
            for name, variant in VARIANTS.items():
                began = time.process_time(), time.perf_counter()
                work(name, variant)
                ended = time.process_time(), time.perf_counter()
                share = 64 / variant.batch
                spent[name].append((share * (ended[0] - began[0]), share * (ended[1] - began[1])))

    benchmark.pedantic(run, rounds=1)
    for name, (first, *others) in spent.items():
        processor, wall = (median(times) for times in zip(*others, strict=True))
        text = f"{1e3 * processor:.1f} ms of processor, {1e3 * wall:.1f} ms of wall time"
        benchmark.extra_info[name] = f"{text}; the first {first[1]:.1f} s"
        print(f"\n{side} × {side}, {name}: {benchmark.extra_info[name]}", end="")
