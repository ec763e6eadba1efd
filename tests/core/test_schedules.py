"""Schedules: inverses, rates, the SDEs they stand for, and their settings."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.core.schedules import (
    EDM,
    GeometricVE,
    GeometricVEKernel,
    Rectified,
    VPCosine,
    VPLinear,
)
from samplerbench.errors import InvalidSetting

TIMES = torch.cat([torch.logspace(-4, -1, 40), torch.linspace(0.11, 1, 200)]).double()


def sde(schedule, t):
    """(f, g²) of dx = f·x dt + g dW."""
    alpha, _ = schedule(t)
    alpha_rate, variance_rate = schedule.rates(t)
    f = alpha_rate / alpha
    return f, variance_rate - 2 * f * schedule.variance(t)


def test_time_at_inverts(schedule):
    found = schedule.time_at(schedule.noise_to_signal(TIMES))
    torch.testing.assert_close(found, TIMES, rtol=0, atol=1e-12)
    assert (found - TIMES).abs().max() <= 1e-12


def test_noise_to_signal_inverts(schedule):
    """The other way round, relative: a grid's small levels come out as asked."""
    ratios = torch.logspace(-1.4, 0.2, 50, dtype=torch.float64)
    found = schedule.noise_to_signal(schedule.time_at(ratios))
    torch.testing.assert_close(found, ratios, rtol=1e-12, atol=0)


def test_noise_grows(schedule):
    ratios = schedule.noise_to_signal(torch.cat([torch.zeros(1).double(), TIMES]))
    assert (ratios.diff() > 0).all()


def test_data_end(schedule):
    """α(0) = 1 everywhere; noise is left at t = 0 by the geometric VE path alone."""
    alpha, sigma = schedule(torch.zeros(1, dtype=torch.float64))
    assert alpha.item() == 1
    assert sigma.item() == pytest.approx(schedule.sigma_min if schedule == GeometricVE() else 0)


def test_noise_end():
    one = torch.ones(1, dtype=torch.float64)
    for exploding in (EDM(7.0), GeometricVE(0.1, 7.0)):
        assert exploding(one)[1].item() == pytest.approx(7, rel=1e-14)
    assert GeometricVEKernel(0.1, 7.0)(one)[1].item() == pytest.approx(math.sqrt(49 - 0.01))
    assert VPLinear()(one)[0].item() == pytest.approx(math.exp(-0.25 * 19.9 - 0.05))
    assert [s(one)[0].item() for s in (VPCosine(), Rectified())] == [0, 0]


@pytest.mark.parametrize("vp", [VPLinear(), VPCosine()], ids=repr)
def test_variance_is_preserved(vp):
    alpha, sigma = vp(TIMES)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(TIMES), rtol=0, atol=1e-15)


def test_small_noise_does_not_cancel():
    """σ² = 1 − α² loses its digits near the data; the code must not."""
    t = torch.tensor([1e-12], dtype=torch.float64)
    assert VPLinear().variance(t).item() == pytest.approx(1e-13, rel=1e-6, abs=0)  # β_min·t
    slope = math.pi * math.tan(0.5 * math.pi * 0.008 / 1.008) / 1.008  # −dα²/dt at 0
    assert VPCosine().variance(t).item() == pytest.approx(slope * 1e-12, rel=1e-5, abs=0)


def test_cosine_formula():
    """ᾱ = f(t)/f(0), f = cos²(½π(t + s)/(1 + s)): Nichol and Dhariwal, Eq. 17."""
    angles = 0.5 * math.pi * (TIMES + 0.008) / 1.008
    kept = (angles.cos() / math.cos(0.5 * math.pi * 0.008 / 1.008)) ** 2
    torch.testing.assert_close(VPCosine().alpha(TIMES) ** 2, kept, rtol=1e-12, atol=1e-16)


def test_rates(schedule):
    t, h = torch.linspace(0.05, 0.95, 37, dtype=torch.float64), 1e-5
    for rate, function in zip(schedule.rates(t), (schedule.alpha, schedule.variance), strict=True):
        difference = (function(t + h) - function(t - h)) / (2 * h)
        torch.testing.assert_close(rate, difference, rtol=1e-6, atol=1e-8)
    assert not rate.requires_grad


def test_rates_under_no_grad(schedule):
    with torch.no_grad():
        rates = schedule.rates(TIMES)
    torch.testing.assert_close(rates, schedule.rates(TIMES), rtol=0, atol=0)


def test_linear_beta_sde():
    """f = −β/2 and g² = β (Song et al. 2021, Eq. 11)."""
    beta = 0.1 + TIMES * 19.9
    torch.testing.assert_close(sde(VPLinear(), TIMES), (-beta / 2, beta), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", [GeometricVE, GeometricVEKernel])
def test_geometric_sde(path):
    """f = 0 and g² = β(t) of the notebook N2 (T = 1), for both kernels."""
    ratio = 2.0 / 0.03
    beta = 2 * 0.03**2 * math.log(ratio) * ratio ** (2 * TIMES)
    f, square = sde(path(0.03, 2.0), TIMES)
    assert (f == 0).all()
    torch.testing.assert_close(square, beta, rtol=1e-12, atol=0)


def test_kernel_has_less_noise_by_sigma_min():
    gap = GeometricVE().variance(TIMES) - GeometricVEKernel().variance(TIMES)
    torch.testing.assert_close(gap, torch.full_like(TIMES, 0.03**2), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("build", "field", "value", "allowed"),
    [
        (lambda v: EDM(v), "sigma_max", 0.0, "positive"),
        (lambda v: EDM(v), "sigma_max", math.inf, "positive"),
        (lambda v: EDM(v), "sigma_max", math.nan, "positive"),
        (lambda v: GeometricVE(v), "sigma_min", -1.0, "positive"),
        (lambda v: GeometricVE(2.0, v), "sigma_max", 2.0, "above sigma_min=2.0"),
        (lambda v: GeometricVEKernel(v), "sigma_min", 0.0, "positive"),
        (lambda v: GeometricVEKernel(2.0, v), "sigma_max", 1.0, "above sigma_min=2.0"),
        (lambda v: VPLinear(v), "beta_min", 0.0, "positive"),
        (lambda v: VPLinear(2.0, v), "beta_max", 1.0, "at least beta_min=2.0"),
        (lambda v: VPCosine(v), "offset", -0.1, "at least 0 and below 1"),
        (lambda v: VPCosine(v), "offset", 1.0, "at least 0 and below 1"),
    ],
)
def test_bad_settings(build, field, value, allowed):
    with pytest.raises(InvalidSetting) as error:
        build(value)
    assert str(error.value) == f"{field}={value}: must be {allowed}"
    assert (error.value.field, error.value.allowed) == (field, allowed)
