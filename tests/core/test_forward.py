"""The forward process: its weak order, the notebook's step, bad settings."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.core.forward import euler_maruyama
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, GeometricVE, Rectified, VPCosine
from samplerbench.errors import InvalidSetting

NOISE = KeyedNoise((0, "forward"))


class Impulses:
    """No noise in row 0; row k + 1 gets one unit in step k."""

    def normal(self, like, step, draw=0):
        z = torch.zeros_like(like)
        z[step + 1] = 1
        return z


def test_weak_order(every_schedule, log_slope):
    """From x₀ = 1 the law at t is N(α(t), σ(t)² − α(t)²·σ(0)²); no Monte Carlo."""
    t_max, many, errors = 0.8, [40, 80, 160], []
    t = torch.tensor([0.0, t_max], dtype=torch.float64)
    alpha, variance = every_schedule.alpha(t), every_schedule.variance(t)
    exact = variance[1] - alpha[1] ** 2 * variance[0]
    for steps in many:
        start = torch.ones(steps + 1, 1).double()
        *_, (_, x) = euler_maruyama(every_schedule, start, steps, Impulses(), t_max=t_max)
        found = (x[1:, 0] - x[0, 0]).square().sum()
        errors.append(float((x[0, 0] - alpha[1]).abs() + (found - exact).abs()))
    assert log_slope(many, errors) == pytest.approx(1, abs=0.15)


def test_a_trajectory_is_the_notebooks(states):
    """N2: X ← X + √(β(t)·Δt)·z from the data."""
    low, high, steps = 0.03, 2.0, 20
    x = states(5, 1)
    ours = list(euler_maruyama(GeometricVE(low, high), x, steps, NOISE))
    assert [t for t, _ in ours] == pytest.approx([k / steps for k in range(steps + 1)])
    assert torch.equal(ours[0][1], x)
    for k in range(steps):
        beta = 2 * low**2 * math.log(high / low) * (high / low) ** (2 * k / steps)
        x = x + math.sqrt(beta / steps) * NOISE.normal(x, k)
        torch.testing.assert_close(ours[k + 1][1], x, rtol=1e-12, atol=1e-12)


def test_states_keep_shape_and_dtype(states):
    for batch in ((), (2, 3)):
        for dtype in (torch.float32, torch.float64):
            x = states(*batch, 2).to(dtype)
            for _, state in euler_maruyama(EDM(), x, 3, NOISE):
                assert (state.shape, state.dtype) == (x.shape, dtype)


def test_bad_settings(states):
    for schedule, settings, message in (
        (EDM(), {"steps": 0}, "steps=0: must be at least 1"),
        (EDM(), {"steps": 2, "t_max": 0.0}, "t_max=0.0: must be above 0"),
        (EDM(), {"steps": 2, "t_max": 1.5}, "t_max=1.5: must be above 0 and at most 1"),
        (VPCosine(), {"steps": 4}, "t_max=1.0: must be below 1"),
        (Rectified(), {"steps": 4}, "t_max=1.0: must be below 1"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            euler_maruyama(schedule, states(2), noise=NOISE, **settings)
