"""Seconds per image of our DDIM and of diffusers' on the same U-Net, and the memory of both.

Run with `make bench ARGS="-k pretrained"`; printed, never asserted. Theirs is `DDIMPipeline` as it
is, but for its progress bar; ours is what a cell of a sweep runs, in float32 as theirs and in the
default float64 of the state. Both load the same folder, each in its own way. Memory is the peak of
a process of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers import by_turns
from samplerbench.core.grids import leading
from samplerbench.core.noise import KeyedNoise
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.training.pretrained import pretrained

pytestmark = pytest.mark.bench

STEPS, ROUNDS = 10, 15
#: Of the U-Net: side of an image, widths, images at once.
SIZES = {"8 × 8": (8, (16, 32), 4), "32 × 32": (32, (16, 32), 2)}


def saved(folder, side, widths):
    diffusers = pytest.importorskip("diffusers")
    below = len(widths) - 1
    unet = diffusers.UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        block_out_channels=widths,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * below + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * below,
    )
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=False)
    diffusers.DDIMPipeline(unet=unet, scheduler=scheduler).save_pretrained(folder)
    return str(folder)


def ways(folder, images, eta):
    """Each makes so many images, from noise to pixels."""
    import diffusers

    model = pretrained(folder)
    pipe = diffusers.DDIMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)

    def ours(dtype):
        dim = torch.Size(model.event_shape).numel()
        with torch.no_grad():
            x = KeyedNoise((0, "first")).normal(torch.empty(images, dim, dtype=dtype), 0)
            levels = leading(model.schedule, STEPS)
            return final_state(DDIM(eta), model, x, levels, KeyedNoise((0, "bench")))

    return {
        "ours": lambda: ours(torch.float32),
        "ours, float64": lambda: ours(torch.float64),
        "diffusers": lambda: pipe(
            images, num_inference_steps=STEPS, eta=eta, output_type="pt", return_dict=False
        ),
    }


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_seconds_per_image(benchmark, tmp_path, size, eta):
    side, widths, images = SIZES[size]
    table = ways(saved(tmp_path, side, widths), images, eta)
    spent = {}
    turns = partial(by_turns, table, ROUNDS, time.thread_time)
    benchmark.pedantic(lambda: spent.update(turns()), rounds=1)
    least = {name: min(times) / images for name, times in spent.items()}
    said = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in least.items())
    print(f"\n{size}, η = {eta:g}, {STEPS} steps, {images} images, each: {said}")
    for name in ("ours", "ours, float64"):
        pairs = zip(spent[name], spent["diffusers"], strict=True)
        ratio = statistics.median(one / two for one, two in pairs)
        print(f"  {name}: {ratio:.3f} of diffusers', median of {ROUNDS} turns")
        benchmark.extra_info[f"{name}, ratio"] = ratio


MEMORY = """
import resource, sys
sys.path.insert(0, {tests!r})
from test_pretrained_bench import ways
name = {name!r}
way = ways({folder!r}, 1, 0.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
way[name](), way[name]()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before, after)
"""


def test_peak_memory(benchmark, tmp_path):
    """Of one image of 128 × 128, whose network's arrays are most of it."""
    folder = saved(tmp_path, 128, (8, 16, 16, 16))
    found = {}

    def run():
        for name in ("ours", "ours, float64", "diffusers"):
            code = MEMORY.format(tests=str(Path(__file__).parent), name=name, folder=folder)
            out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            before, after = map(int, out.stdout.split())
            found[name] = (after - before) / 1024, after / 1024

    benchmark.pedantic(run, rounds=1)
    for name, (more, most) in found.items():
        print(f"\n{name}: {more:.0f} MiB more than before, {most:.0f} MiB at the peak", end="")
    benchmark.extra_info |= {name: most for name, (_, most) in found.items()}
