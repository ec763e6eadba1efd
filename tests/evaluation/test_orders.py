"""Orders as they are measured for users."""

import math

import pytest

from samplerbench.evaluation.orders import Order, interior, measured_order
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.samplers.ula import ULA
from samplerbench.schedules import EDM, VPLinear

FEW = (20, 40, 80)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (Heun(), 2)], ids=repr)
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_deterministic(sampler, order, law):
    found = measured_order(sampler, VPLinear(), law, FEW)
    assert found.slope == pytest.approx(order, abs=0.1)
    assert not found.weak
    assert found.steps == FEW


@pytest.mark.parametrize(
    ("sampler", "order"), [(DDIM(1.0), 1), (ReverseSDE(), 1), (SDEDPMpp2M(), 2)], ids=repr
)
def test_weak(sampler, order):
    """Of order 2, a wrong law at either end by one step's length would be of order 1."""
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
