"""A sampler of another package here, against that package's own loop: same network, same batch.

As in a job, freed memory is kept. 2026-11-29: functions of k-diffusion 1.02 to 1.06, methods of
azula 1.00 to 1.08, twice 21 turns; schedulers of diffusers 1.02 to 1.09, 13 turns (2 % of it is x̂₀
made into ε̂). They were 1.06 to 1.14 before the prepared scheduler and the levels of a run were kept
for the next one.

2026-11-30, AMD EPYC with other work beside it: schedulers 1.02 to 1.07, functions 1.02 to 1.07,
methods of azula 0.93 to 1.00. Methods that run step by step no longer keep their states.

2026-11-30, Intel Xeon (two virtual cores of one): schedulers 1.06 to 1.18 (median 1.13), functions
1.05 to 1.21 (median 1.09), methods of azula .65 to .97. Functions took 1.19 to 1.48, `zABSampler`
1.35 to 1.52 in the minutes before, when runs for the last state alone kept all states: 80 tensors
of 256 kB leave the processor's cache there.

What is compared: their loop draws with `torch.randn`, ours with keyed noise, and the cost of the
generator is part of both. For 512 x 64 numbers in float64 they take as long: on this Xeon 490 and
470 µs. Ours converts the stub's x̂₀ into their ε̂ and, where the paths differ, their state into the
stub's: 4 to 6 % of a step of DDIM there. Functions of k-diffusion with an argument `noise_sampler`
get increments of a Brownian path, two more operations on each draw.

2026-11-30, the same Xeon with much other work, before and after the increments of a step with one
draw need no zeros, and the levels of functions and methods are kept for the next run (31 turns):
`sample_euler_ancestral` 1.10 to 1.12, now 1.08; `sample_dpmpp_2m` 1.03 to 1.04, now 1.00.
"""

from __future__ import annotations

import statistics

import pytest
import torch

from helpers import by_turns
from samplerbench.core import grids
from samplerbench.core.grids import Level
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.memory import keep_freed_memory
from samplerbench.samplers.azula import Azula
from samplerbench.samplers.base import final_state
from samplerbench.samplers.diffusers import Diffusers, Network
from samplerbench.samplers.k_diffusion import KDiffusion, sampling

diffusers = pytest.importorskip("diffusers")
azula_sample = pytest.importorskip("azula.sample")
pytestmark = pytest.mark.bench

STEPS, REPEATS, NOISE = 40, 15, KeyedNoise((0, "bench"))


@pytest.fixture(autouse=True, scope="module")
def memory():
    keep_freed_memory()


class Stub(Denoiser):
    """A small network, so that a step is mostly the sampler's own."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
        layers = torch.nn.Linear(64, 256), torch.nn.SiLU(), torch.nn.Linear(256, 64)
        self.layer = torch.nn.Sequential(*layers).double()

    def denoiser(self, x, level):
        return self.layer(x)


def compare(name, theirs, ours):
    """The ratio of the median times, measured in turn, printed."""
    times = by_turns({"theirs": theirs, "ours": ours}, REPEATS, warm=0).values()
    ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
    least = 1e6 * min(next(iter(times))) / STEPS
    print(f"\n{name}: {ratio:.2f} times their own loop, {least:.0f} µs a step")


@pytest.fixture
def x():
    return NOISE.normal(torch.empty(512, 64, dtype=torch.float64), 0)


def ours(sampler, model, x):
    levels = sampler.levels(grids.uniform, model.schedule, STEPS)
    return lambda: final_state(sampler, model, x, levels, NOISE)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DDIMScheduler", {}),
        ("DPMSolverMultistepScheduler", {}),
        ("EulerDiscreteScheduler", {}),
        ("UniPCMultistepScheduler", {}),
        ("DDPMScheduler", {}),
    ],
)
@torch.no_grad()
def test_a_scheduler(x, name, settings):
    """The stub gives x̂₀ here, and ε there: the conversion is ours and counts."""
    model = Stub(Rectified())
    sampler = Diffusers(name, settings)
    kind = getattr(diffusers, name)
    scheduler = kind(**settings)

    def theirs(y=x):
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            eps = model.layer(scheduler.scale_model_input(y, t))
            y = scheduler.step(eps, t, y).prev_sample

    compare(name, theirs, ours(sampler, model, x))
    assert len(Network(model, sampler._prepared(STEPS)).places) == STEPS


@pytest.mark.parametrize("name", ["sample_dpmpp_2m", "sample_heun", "sample_euler_ancestral"])
@torch.no_grad()
def test_a_function(x, name):
    model, function = Stub(EDM()), getattr(sampling(), name)
    sigmas = sampling().get_sigmas_karras(STEPS, 0.01, 80.0)

    def theirs():
        function(lambda y, sigma: model.layer(y), x, sigmas, disable=True)

    compare(name, theirs, ours(KDiffusion(name), model, x))


@pytest.mark.parametrize("name", ["EulerSampler", "zABSampler", "DDPMSampler"])
@torch.no_grad()
def test_a_method(x, name):
    from azula.noise import VPSchedule

    model = Stub(EDM(1000.0))

    class Own(torch.nn.Module):
        schedule = VPSchedule()

        def forward(self, y, t):
            return type("Mean", (), {"mean": model.layer(y)})

    theirs = getattr(azula_sample, name)(Own(), steps=STEPS, silent=True)
    compare(name, lambda: theirs(x), ours(Azula(name), model, x))
    assert model.denoiser(x, Level(0.0, 1.0, 1.0)).shape == x.shape
