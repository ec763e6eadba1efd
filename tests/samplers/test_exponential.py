"""DPM-Solver 1, 2, 3: DDIM, the paper's boxes in exact cases, k-diffusion's steps."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from helpers import each
from samplerbench.core.grids import Level, Levels
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.datasets.gaussian import gaussian
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dpm_solver import DPMSolver1, DPMSolver2, DPMSolver3
from samplerbench.verify.orders import interior
from samplerbench.verify.sampler_contract import TestBed

NOISE = KeyedNoise((0, "exponential"))


def test_first_order_is_ddim(schedule, mixture_law, states):
    levels, oracle = (
        TestBed(mixture_law, schedule).levels(DPMSolver1(), 17),
        mixture_law.oracle(schedule),
    )
    x = levels.rows[0].sigma * states(16, 2)
    one, two = (final_state(s, oracle, x, levels, NOISE) for s in (DPMSolver1(), DDIM(0.0)))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@each("sampler", [DPMSolver1(), DPMSolver2(), DPMSolver3()])
def test_exact_for_a_point(sampler, schedule, states):
    """If ε̂ is constant along the path, one step of any length is exact."""
    mean = (0.7, -1.2, 0.3)
    law, eps = gaussian(mean, torch.zeros(3, 3).tolist()), states(5, 3)
    levels = interior(schedule, 1)
    start, end = (at.alpha * torch.tensor(mean).double() + at.sigma * eps for at in levels.rows)
    got = final_state(sampler, law.oracle(schedule), start, levels, NOISE)
    torch.testing.assert_close(got, end, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", [DPMSolver2(), DPMSolver3()], ids=repr)
def test_stages_are_levels_of_the_path(sampler, schedule, mixture_law, states):
    """They lie between the step's ends, at equal distances in log-SNR."""
    oracle, asked = mixture_law.oracle(schedule), []
    original = oracle.denoiser
    oracle.denoiser = lambda x, level: asked.append(level) or original(x, level)
    levels = TestBed(mixture_law, schedule).levels(sampler, 5)
    final_state(sampler, oracle, states(4, 2), levels, NOISE)
    for step, ends in enumerate(pairwise(levels.rows[:-1])):
        first, last = (math.log(level.alpha / level.sigma) for level in ends)
        for stage in range(sampler.order):
            level = asked[step * sampler.order + stage]
            want = first + stage / sampler.order * (last - first)
            assert math.log(level.alpha / level.sigma) == pytest.approx(want, abs=1e-9)
            scales = (float(v) for v in schedule(torch.tensor(level.t, dtype=torch.float64)))
            assert (level.alpha, level.sigma) == pytest.approx(tuple(scales), rel=1e-12)


@pytest.mark.parametrize("sampler", [DPMSolver1(), DPMSolver2(), DPMSolver3()], ids=repr)
def test_a_step_is_k_diffusion(mixture_law, states, k_sampling, sampler):
    """Their time is λ, on a variance-exploding path."""
    ends = torch.tensor([3.0, 0.7], dtype=torch.float64)
    path, x = EDM(80.0), 3 * states(16, 2)
    model = mixture_law.oracle(path)

    def network(x, sigma):
        return model.denoiser(x, Level(float(sigma[0]) / 80, 1.0, float(sigma[0])))

    step = getattr(k_sampling.DPMSolver(network), f"dpm_solver_{sampler.order}_step")
    levels = Levels(ends / 80, torch.ones_like(ends), ends)
    ours = final_state(sampler, model, x, levels, NOISE)
    torch.testing.assert_close(ours, step(x, *-ends.log())[0], rtol=1e-10, atol=1e-10)
