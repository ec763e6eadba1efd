"""Schedules: the published formulas, the SDEs they stand for, small noise, bad settings."""

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


def test_ends():
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for path, sigma in (
        (EDM(7.0), 7),
        (GeometricVE(0.1, 7.0), 7),
        (VPCosine(), 1),
        (Rectified(), 1),
    ):
        assert path(one)[1].item() == pytest.approx(sigma, rel=1e-14)
    assert GeometricVEKernel(0.1, 7.0)(one)[1].item() == pytest.approx(math.sqrt(49 - 0.01))
    assert VPLinear()(one)[0].item() == pytest.approx(math.exp(-0.25 * 19.9 - 0.05))
    assert [s(one)[0].item() for s in (VPCosine(), Rectified())] == [0, 0]
    assert GeometricVE(0.1, 7.0)(zero)[1].item() == pytest.approx(0.1)
    others = EDM(), GeometricVEKernel(), VPLinear(), VPCosine(), Rectified()
    assert [s(zero)[1].item() for s in others] == [0] * 5
    assert EDM(7.0).noise_range == pytest.approx((0, 7))


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


BAD = [
    (lambda: EDM(0.0), "sigma_max=0.0: must be positive"),
    (lambda: EDM(math.inf), "sigma_max=inf: must be positive"),
    (lambda: EDM(math.nan), "sigma_max=nan: must be positive"),
    (lambda: GeometricVE(-1.0), "sigma_min=-1.0: must be positive"),
    (lambda: GeometricVE(2.0, 2.0), "sigma_max=2.0: must be above sigma_min=2.0"),
    (lambda: GeometricVEKernel(0.0), "sigma_min=0.0: must be positive"),
    (lambda: GeometricVEKernel(2.0, 1.0), "sigma_max=1.0: must be above sigma_min=2.0"),
    (lambda: VPLinear(0.0), "beta_min=0.0: must be positive"),
    (lambda: VPLinear(2.0, 1.0), "beta_max=1.0: must be at least beta_min=2.0"),
    (lambda: VPCosine(-0.1), "offset=-0.1: must be at least 0 and below 1"),
    (lambda: VPCosine(1.0), "offset=1.0: must be at least 0 and below 1"),
]


def test_bad_settings():
    for build, message in BAD:
        with pytest.raises(InvalidSetting) as error:
            build()
        assert str(error.value) == message
        assert f"{error.value.field}={error.value.value}: must be {error.value.allowed}" == message
