"""The forward process: its law at every time, its scheme's order, the notebook's step."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.core.forward import euler_maruyama, path
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, GeometricVE, GeometricVEKernel, Rectified, VPCosine
from samplerbench.errors import InvalidSetting

NOISE = KeyedNoise((0, "forward"))
LOSE_SIGNAL = (VPCosine, Rectified)


class Impulses:
    """No noise in row 0; row k + 1 gets one unit in step k."""

    def normal(self, like, step, draw=0):
        z = torch.zeros_like(like)
        z[step + 1] = 1
        return z


def exact_law(states, steps):
    """(gain, variance) at each time of a process that is affine in its state: no Monte Carlo.

    x_t = gain·x + Σ_k c_k·z_k in each coordinate alike, so variance = Σ c_k².
    """
    return [(t, float(x[0, 0]), float((x[1:, 0] - x[0, 0]).square().sum())) for t, x in states]


def test_exact_transitions(schedule):
    """From x₀ ~ the path's law at 0, the law at every t is the path's: mean and covariance."""
    steps = 7
    states = path(schedule, torch.ones(steps + 1, 1).double(), steps, Impulses())
    law = exact_law(states, steps)
    assert [t for t, *_ in law] == pytest.approx([k / steps for k in range(steps + 1)])
    first = schedule.variance(torch.zeros((), dtype=torch.float64))
    for t, gain, variance in law:
        alpha, sigma = schedule(torch.tensor(t, dtype=torch.float64))
        assert gain == pytest.approx(float(alpha), abs=1e-13)  # α(0) = 1 on every path
        total = gain**2 * float(first) + variance
        assert total == pytest.approx(float(sigma) ** 2, rel=1e-12, abs=1e-13)


def test_euler_maruyama_weak_order(schedule, log_slope):
    t_max = 0.8 if isinstance(schedule, LOSE_SIGNAL) else 1.0
    many, errors = [40, 80, 160], []
    exact = exact_law(path(schedule, torch.ones(2, 1).double(), 1, Impulses(), t_max=t_max), 1)[-1]
    for steps in many:
        start = torch.ones(steps + 1, 1).double()
        states = euler_maruyama(schedule, start, steps, Impulses(), t_max=t_max)
        got = exact_law(states, steps)[-1]
        errors.append(abs(got[1] - exact[1]) + abs(got[2] - exact[2]))
    assert log_slope(many, errors) == pytest.approx(1, abs=0.15)


def test_a_trajectory_is_the_notebooks(states):
    """N2: X ← X + √(β(t)·Δt)·z from the data; the law is that of the path without η_min."""
    low, high, steps = 0.03, 2.0, 20
    schedule, x = GeometricVE(low, high), states(5, 1)
    ours = list(euler_maruyama(schedule, x, steps, NOISE))
    assert len(ours) == steps + 1
    assert torch.equal(ours[0][1], x)
    for k in range(steps):
        beta = 2 * low**2 * math.log(high / low) * (high / low) ** (2 * k / steps)
        x = x + math.sqrt(beta / steps) * NOISE.normal(x, k)
        torch.testing.assert_close(ours[k + 1][1], x, rtol=1e-12, atol=1e-12)
    one, two = (
        [x for _, x in path(p, states(5, 1), steps, NOISE)]
        for p in (schedule, GeometricVEKernel(low, high))
    )
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("process", [path, euler_maruyama])
def test_states(process, states, batch, dtype):
    """Any batch; same key, same bits; what was yielded stays as it was."""
    x = states(*batch, 2).to(dtype)
    first, again = (list(process(EDM(), x, 3, NOISE)) for _ in range(2))
    kept = [state.clone() for _, state in process(EDM(), x, 3, NOISE)]
    for (t, one), (s, two), three in zip(first, again, kept, strict=True):
        assert one.shape == (*batch, 2)
        assert one.dtype == dtype
        assert t == s
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@pytest.mark.parametrize("process", [path, euler_maruyama])
def test_bad_settings(process, states):
    for settings, message in (
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"steps": 2, "t_max": 0.0}, "t_max=0.0: must be above 0"),
        ({"steps": 2, "t_max": 1.5}, "t_max=1.5: must be above 0 and at most 1"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            process(EDM(), states(2), noise=NOISE, **settings)


@pytest.mark.parametrize("schedule", [VPCosine(), Rectified()], ids=repr)
def test_rates_are_infinite_without_signal(schedule, states):
    with pytest.raises(InvalidSetting, match=r"t_max=1\.0: must be below 1"):
        euler_maruyama(schedule, states(2), 4, NOISE)
    last = list(path(schedule, states(2), 4, NOISE))[-1][1]
    torch.testing.assert_close(last, NOISE.normal(last, 3))  # only the noise is left
