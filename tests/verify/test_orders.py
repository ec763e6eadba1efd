"""Measured orders: known orders, the exact flow of a Gaussian, and what has no order."""

import math

import pytest
import torch

from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.rk2 import RK2
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.samplers.ula import ULA
from samplerbench.verify.orders import GAUSSIAN, Order, _flow, _start, interior, measured_order

FEW = (20, 40, 80)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (Heun(), 2)], ids=repr)
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_deterministic(sampler, order, law):
    found = measured_order(sampler, VPLinear(), law, FEW)
    assert found.slope == pytest.approx(order, abs=0.1)
    assert not found.weak
    assert found.steps == FEW


def test_the_flow_of_a_gaussian_is_the_closed_form():
    """x̄ = m + Σ √((λ + κ'²)/(λ + κ²))·(x̄ − m) in each eigen-direction, from κ = 1.9 to κ' = .2."""
    mean = torch.tensor(GAUSSIAN.means[0], dtype=torch.float64)
    covariance = torch.tensor(GAUSSIAN.covariances[0], dtype=torch.float64)
    values, basis = torch.linalg.eigh(covariance)
    scale = ((values + 0.2**2) / (values + 1.9**2)).sqrt()
    exact = mean + ((_start() - mean) @ basis * scale) @ basis.T
    torch.testing.assert_close(_flow("gaussian"), exact, rtol=0, atol=1e-10)


def test_a_linear_field_flatters_the_midpoint_method():
    """On x' = σ·x/(λ + σ²) its leading error x‴/24 + f_x·x″/8 is 0 for x = √(λ + σ²)."""
    assert measured_order(RK2(0.5), EDM(10.0), "gaussian", FEW).slope == pytest.approx(3, abs=0.15)
    assert measured_order(RK2(0.5), EDM(10.0), "mixture", FEW).slope == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "order"), [(DDIM(1.0), 1), (ReverseSDE(), 1), (SDEDPMpp2M(), 2)], ids=repr
)
def test_weak(sampler, order):
    """Of order 2; with the law one step off at either end it would be of order 1."""
    found = measured_order(sampler, VPLinear(), "gaussian", FEW)
    assert found.weak
    assert found.slope == pytest.approx(order, abs=0.15)
    assert measured_order(sampler, VPLinear(), "mixture", FEW) is None


def test_the_levels_are_those_of_the_module():
    levels = interior(VPLinear(), 20)
    ratios = levels.sigma / levels.alpha
    assert levels.steps == 20
    assert ratios[[0, -1]].tolist() == pytest.approx([1.9, 0.2])
    assert (ratios ** (1 / 3)).diff().tolist() == pytest.approx(
        [(0.2 ** (1 / 3) - 1.9 ** (1 / 3)) / 20] * 20
    )


def test_none_to_measure():
    assert measured_order(ULA(), EDM(10.0), "gaussian") is None
    assert measured_order(DormandPrince(), EDM(10.0), "gaussian") is None


def test_an_exact_method_has_no_slope():
    assert math.isnan(Order("gaussian", False, (1, 2), (0.0, 0.0)).slope)
    assert Order("gaussian", False, (1, 2), (1.0, 0.25)).slope == pytest.approx(2)
