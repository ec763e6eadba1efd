"""Measured orders: known orders, the exact flow of a Gaussian, and samplers without an order."""

import inspect
import math
import sys
import types

import pytest
import torch

from helpers import mostly_slow
from samplerbench.app.commands.examine import is_wrong, order_text
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.samplers import (
    ddim,
    ddpm_large,
    edm_churn,
    reverse_sde,
    sde_dpmpp_1,
    sde_dpmpp_2m,
)
from samplerbench.samplers.adams_bashforth import AdamsBashforth
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_optimal import DDPMOptimal
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ipndm import IPNDM
from samplerbench.samplers.predictor_corrector import PredictorCorrector
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.rk2 import RK2
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.samplers.ula import ULA
from samplerbench.verify.orders import (
    GAUSSIAN,
    Order,
    _flow,
    _start,
    interior,
    measured_order,
    relative_error,
    rough,
)

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
    ("sampler", "order"),
    mostly_slow([(DDIM(1.0), 1), (ReverseSDE(), 1), (SDEDPMpp2M(), 2)], 0, 2),
    ids=repr,
)
def test_weak(sampler, order):
    """A method of order 2 would have order 1 if the law at either end were one step off."""
    found = measured_order(sampler, VPLinear(), "gaussian", FEW)
    assert found.weak
    assert found.slope == pytest.approx(order, abs=0.15)


def on_the_mixture(sampler):
    return measured_order(sampler, VPLinear(), "mixture", (40, 80))


MUTANTS = [
    (ddim, "DDIM", "to.alpha - kept * now.alpha", "to.alpha - 1.02 * kept * now.alpha"),
    (ddim, "DDIM", "(to.sigma**2 - fresh**2) ** 0.5", "(to.sigma**2 - 0.9 * fresh**2) ** 0.5"),
    (ddpm_large, "DDPMLarge", "(to.sigma / now.sigma) ** 2", "(to.sigma / now.sigma) ** 1.9"),
    (reverse_sde, "ReverseSDE", "-alpha * g2 / variance", "-0.98 * alpha * g2 / variance"),
    (edm_churn, "EDMChurn", "(0.5 * h)", "(0.49 * h)"),
    (edm_churn, "EDMChurn", "ratio * x + kick", "ratio * x + 1.05 * kick"),
    (sde_dpmpp_1, "SDEDPMpp1", "ratio ** (2 * w)", "ratio ** (1.9 * w)"),
    (sde_dpmpp_2m, "SDEDPMpp2M", "h / (2 * h_before)", "h / h_before"),
    (sde_dpmpp_2m, "SDEDPMpp2M", "h_before = x0_hat, h", "h_before = x0_hat, 0.9 * h"),
]
#: A drift; the others are in the slow suite.
QUICK = (0,)


@pytest.mark.parametrize(
    ("module", "name", "right", "wrong"),
    [
        pytest.param(*mutant, marks=[pytest.mark.slow] * (place not in QUICK))
        for place, mutant in enumerate(MUTANTS)
    ],
)
def test_one_wrong_coefficient_is_found_on_the_mixture(module, name, right, wrong):
    source = inspect.getsource(module)
    assert source.count(right) == 1
    mutant = types.ModuleType("mutant")
    sys.modules["mutant"] = mutant
    try:
        exec(source.replace(right, wrong), vars(mutant))
    finally:
        del sys.modules["mutant"]
    sampler = getattr(mutant, name)(**({"eta": 1.0} if name == "DDIM" else {}))
    assert is_wrong(on_the_mixture(sampler), sampler.order)


def test_the_levels_are_those_of_the_module():
    levels = interior(VPLinear(), 20)
    ratios = levels.sigma / levels.alpha
    assert levels.steps == 20
    assert ratios[[0, -1]].tolist() == pytest.approx([1.9, 0.2])
    assert (ratios ** (1 / 3)).diff().tolist() == pytest.approx(
        [(0.2 ** (1 / 3) - 1.9 ** (1 / 3)) / 20] * 20
    )


def test_errors_are_those_beside_a_reference_method():
    for grid in (interior, rough):
        assert relative_error(AdamsBashforth(points=2), grid) == 1
        assert relative_error(DPMSolverPP(points=2), grid) == pytest.approx(0.78, abs=0.03)
        assert relative_error(IPNDM(), grid) == pytest.approx(0.3 if grid is interior else 130, 0.1)
        for sampler in (DDIM(1.0), DormandPrince(), ULA()):
            assert relative_error(sampler, grid) is None
    ratios = rough(VPLinear(), 4).sigma / rough(VPLinear(), 4).alpha
    lengths = (ratios ** (1 / 3)).diff()
    assert (lengths / lengths[0]).tolist() == pytest.approx([1, 3, 1, 3])


def test_none_to_measure():
    assert on_the_mixture(PredictorCorrector()) is None  # it declares no order
    assert measured_order(ULA(), EDM(10.0), "gaussian") is None
    assert measured_order(DormandPrince(), EDM(10.0), "gaussian") is None


def test_an_exact_method_has_no_slope():
    assert math.isnan(Order("gaussian", False, (1, 2), (0.0, 0.0)).slope)
    assert Order("gaussian", False, (1, 2), (1.0, 0.25)).slope == pytest.approx(2)
    rounding = Order("gaussian", True, (10, 20), (1e-15, 3e-15))
    assert order_text(rounding) == "exact"
    assert not is_wrong(rounding, 2)


@pytest.mark.slow
def test_a_law_without_error_has_every_order():
    """Its errors are rounding, and do not fall with N."""
    order = measured_order(DDPMOptimal(), VPLinear(), "gaussian", (10, 20))
    assert order is not None
    assert order_text(order) == "exact"
    assert not is_wrong(order, 2)
