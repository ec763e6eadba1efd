"""Orders as they are measured for users."""

import math

import pytest

from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ula import ULA
from samplerbench.verify.orders import Order, measured_order

FEW = (20, 40, 80)


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (Heun(), 2)], ids=repr)
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_deterministic(sampler, order, law):
    found = measured_order(sampler, VPLinear(), law, FEW)
    assert found.slope == pytest.approx(order, abs=0.1)
    assert not found.weak
    assert found.steps == FEW


def test_weak():
    found = measured_order(DDIM(1.0), EDM(10.0), "gaussian", FEW)
    assert found.weak
    assert found.slope == pytest.approx(1, abs=0.1)
    assert measured_order(DDIM(1.0), EDM(10.0), "mixture", FEW) is None


def test_none_to_measure():
    assert measured_order(ULA(), EDM(10.0), "gaussian") is None
    assert measured_order(DormandPrince(), EDM(10.0), "gaussian") is None


def test_an_exact_method_has_no_slope():
    assert math.isnan(Order("gaussian", False, (1, 2), (0.0, 0.0)).slope)
    assert Order("gaussian", False, (1, 2), (1.0, 0.25)).slope == pytest.approx(2)
