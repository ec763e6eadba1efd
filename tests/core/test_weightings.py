"""Weightings: what error each target's weight measures, and the likelihood's weight."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.core.grids import Level
from samplerbench.core.targets import EDMTarget, NoiseTarget, ScoreTarget
from samplerbench.core.weightings import SignalShare, Uniform, Variance


def error_in_eps(target, level):
    """How much ε̂ moves when y moves by one."""
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    x0_hat = target.denoise(zero, one, level) - target.denoise(zero, zero, level)
    return abs(float(x0_hat)) * level.alpha / level.sigma


@pytest.mark.parametrize(
    ("target", "weighting"),
    [(NoiseTarget(), Uniform()), (ScoreTarget(), Variance()), (EDMTarget(), SignalShare())],
    ids=repr,
)
def test_weights_that_make_the_error_one_of_eps(target, weighting):
    for level in (Level(0.1, 0.95, 0.3), Level(0.5, 1.0, 2.0), Level(0.9, 0.1, 0.9)):
        weight = float(weighting.weight(level))
        assert weight == pytest.approx(error_in_eps(target, level) ** 2)


def test_likelihood_weight_is_variance_if_log_ratio_is_uniform(schedule):
    """g² = 2·σ²·d ln κ/dt, g² = dσ²/dt − 2·(α̇/α)·σ²."""
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64).requires_grad_()
    alpha_rate, variance_rate = schedule.rates(t)
    alpha, sigma = schedule(t)
    g_square = variance_rate - 2 * alpha_rate / alpha * sigma**2
    (rate,) = torch.autograd.grad(schedule.noise_to_signal(t).log().sum(), t)
    torch.testing.assert_close(g_square, 2 * sigma**2 * rate, rtol=1e-9, atol=1e-12)
    for a, s, g, slope in zip(*(v.tolist() for v in (alpha, sigma, g_square, rate)), strict=True):
        level = Level(0.0, a, s)
        score = float(Variance().weight(level))
        assert g == pytest.approx(2 * score * slope, rel=1e-9)


def test_signal_share_on_tensors():
    sigma = torch.tensor([[0.0], [1.0], [math.inf]])
    share = SignalShare().weight(Level(sigma, torch.ones_like(sigma), sigma))
    assert isinstance(share, torch.Tensor)
    assert share.flatten().tolist() == [1.0, 0.5, 0.0]
