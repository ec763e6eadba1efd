"""Methods that must agree: with each other, with the papers' algorithm boxes, with diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samplerbench.core.grids import Levels, karras, to_data, uniform
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPCosine, VPLinear
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.heun import Heun

NOISE = KeyedNoise((0, "equivalences"))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("vp", [VPLinear(), VPCosine()], ids=repr)
def test_ddim_on_vp_is_ddim_on_ve(vp, mixture_law, states, eta):
    """With x/α for x and the same noise-to-signal ratios."""
    times = torch.linspace(0.9, 0.05, 12, dtype=torch.float64)
    vp_levels, ve = to_data(vp, times), EDM()
    ve_levels = to_data(ve, ve.time_at(vp.noise_to_signal(times)))
    x = 2 * states(16, 2)
    start = vp_levels.rows[0].alpha * x
    preserving = DDIM(eta).steps(mixture_law.oracle(vp), start, vp_levels, NOISE)
    exploding = DDIM(eta).steps(mixture_law.oracle(ve), x, ve_levels, NOISE)
    for level, one, two in zip(vp_levels.rows[1:], preserving, exploding, strict=True):
        torch.testing.assert_close(one.x / level.alpha, two.x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("steps", [7, 20])
def test_ddim_is_diffusers(mixture_law, states, eta, steps):
    """Their DDIMScheduler on VP, ε-prediction by the oracle, the same noise, clipping off."""
    scheduling_ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    theirs = scheduling_ddim.DDIMScheduler(
        1000, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading"
    )
    # their table is float32, which costs 1e-6 (1 − ᾱ cancels); in float64 nothing is left of that
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    theirs.final_alpha_cumprod = theirs.final_alpha_cumprod.double()
    theirs.set_timesteps(steps)
    assert (theirs.timesteps.diff() == -(1000 // steps)).all()  # the step they take, whatever t is
    kept = torch.cat([theirs.alphas_cumprod[theirs.timesteps], torch.ones(1).double()])
    t = torch.cat([(theirs.timesteps + 1) / 1000, torch.zeros(1)]).double()
    levels, oracle = Levels(t, kept.sqrt(), (1 - kept).sqrt()), mixture_law.oracle(VPLinear())
    x = states(16, 2)
    for index, step in enumerate(DDIM(eta).steps(oracle, x, levels, NOISE)):
        level = levels.rows[index]
        eps = (x - level.alpha * oracle.denoiser(x, level)) / level.sigma
        z, time = NOISE.normal(x, index), int(theirs.timesteps[index])
        x = theirs.step(eps, time, x, eta=eta, variance_noise=z if eta else None).prev_sample
        torch.testing.assert_close(step.x, x, rtol=1e-11, atol=1e-11)


def test_heun_is_edm_algorithm_2(mixture_law, states):
    """Karras et al. 2022, Algorithm 2 with S_churn = 0, on the grid of Eq. 5."""
    schedule, steps, smallest, largest, rho = EDM(80.0), 18, 0.002, 80.0, 7
    oracle, x = mixture_law.oracle(schedule), largest * states(16, 2)
    levels = karras(schedule, steps, noise_max=largest, noise_min=smallest, rho=rho)

    def d(x, sigma):
        level = type(levels.rows[0])(sigma / 80, 1.0, sigma)
        return (x - oracle.denoiser(x, level)) / sigma

    i = np.arange(steps)
    bottom, top = smallest ** (1 / rho), largest ** (1 / rho)
    sigmas = [*((top + i / (steps - 1) * (bottom - top)) ** rho).tolist(), 0.0]
    ours = Heun().steps(oracle, x, levels, NOISE)
    for now, to, step in zip(sigmas[:-1], sigmas[1:], ours, strict=True):
        slope = d(x, now)
        euler = x + (to - now) * slope
        x = euler if to == 0 else x + (to - now) * (slope / 2 + d(euler, to) / 2)
        torch.testing.assert_close(step.x, x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("linear", [EDM(), Rectified()], ids=repr)
def test_euler_is_ddim_where_the_path_is_linear(linear, mixture_law, states):
    levels, oracle = uniform(linear, 30), mixture_law.oracle(linear)
    x = levels.rows[0].sigma * states(16, 2)
    one, two = (final_state(s, oracle, x, levels, NOISE) for s in (Euler(), DDIM(0.0)))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_euler_is_not_ddim_elsewhere(mixture_law, states):
    levels, oracle = uniform(VPLinear(), 30), mixture_law.oracle(VPLinear())
    one, two = (final_state(s, oracle, states(16, 2), levels, NOISE) for s in (Euler(), DDIM(0.0)))
    assert (one - two).abs().max() > 1e-3
