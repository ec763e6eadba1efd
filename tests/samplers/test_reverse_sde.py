"""Euler–Maruyama on the reverse SDE: the notebook's and diffusers' steps, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.core.grids import Level, Levels, karras, uniform
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import GeometricVE, Rectified, VPCosine, VPLinear
from samplerbench.samplers.reverse_sde import ReverseSDE

NOISE = KeyedNoise((0, "reverse"))


def test_it_is_the_notebooks_step(mixture_law, states):
    """N2: Y ← Y + β(T − t)·s·Δt + √(β(T − t)·Δt)·z with its β, 30 steps from t = 1 to 0."""
    low, high, steps = 0.03, 2.0, 30
    schedule, y = GeometricVE(low, high), 2 * states(8, 2)
    oracle, levels = mixture_law.oracle(schedule), uniform(schedule, steps + 1)
    ours = list(ReverseSDE(denoise=False).steps(oracle, y, levels, NOISE))
    for k in range(steps):
        t, dt = 1 - k / steps, 1 / steps
        beta = 2 * low**2 * math.log(high / low) * (high / low) ** (2 * t)
        score = oracle.score(y, Level(t, 1.0, low * (high / low) ** t))
        y = y + beta * score * dt + math.sqrt(beta * dt) * NOISE.normal(y, k)
        torch.testing.assert_close(ours[k].x, y, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours[-1].x, ours[-2].x), "the step from t = 0 to t = 0 has no length"


def test_it_is_diffusers(mixture_law, states):
    """Their Euler–Maruyama on VP; they take Δt = 1/N, so the levels must be that far apart."""
    module = pytest.importorskip("diffusers.schedulers.deprecated.scheduling_sde_vp")
    theirs, steps, x = module.ScoreSdeVpScheduler(), 20, states(8, 2)
    theirs.set_timesteps(steps)
    times = torch.linspace(1, 0.05, steps, dtype=torch.float64)
    schedule = VPLinear()
    levels, oracle = Levels(times, *schedule(times)), mixture_law.oracle(schedule)
    ours = ReverseSDE().steps(oracle, x, levels, NOISE)
    for index, (level, step) in enumerate(zip(levels.rows, ours, strict=False)):
        eps = (x - level.alpha * oracle.denoiser(x, level)) / level.sigma
        t = torch.tensor(level.t, dtype=torch.float64)
        mean = theirs.step_pred(eps, x, t)[1]
        beta = 0.1 + level.t * 19.9
        expected = mean + math.sqrt(beta / steps) * NOISE.normal(x, index)
        torch.testing.assert_close(step.x, expected, rtol=1e-12, atol=1e-12)
        x = step.x


@pytest.mark.parametrize("path", [VPCosine(), Rectified()], ids=repr)
def test_it_needs_signal(path, mixture_law):
    oracle, sampler = mixture_law.oracle(path), ReverseSDE()
    reason = sampler.why_incompatible(oracle, uniform(path, 5))
    assert "no signal is left" in reason
    assert "\n" not in reason
    for levels in (uniform(path, 5, t_max=0.9), karras(path, 5, noise_min=0.02)):
        assert sampler.why_incompatible(oracle, levels) is None
