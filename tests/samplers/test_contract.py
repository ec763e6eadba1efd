"""Every sampler keeps its contract, converges at its order, and has the right law.

The measurements are those of `verify`, which users' samplers are checked with too.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from samplerbench.core.schedules import DDPMTable, GeometricVE, Rectified, VPLinear
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.ais import AIS
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_optimal import DDPMOptimal
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.edm_churn import EDMChurn
from samplerbench.samplers.er_sde import ERSDE
from samplerbench.samplers.flow_sde import FlowSDE
from samplerbench.samplers.hmc import HMC
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.picard import Picard
from samplerbench.samplers.predictor_corrector import PredictorCorrector
from samplerbench.samplers.replica_exchange import ReplicaExchange
from samplerbench.samplers.restart import Restart
from samplerbench.samplers.rk2 import RK2
from samplerbench.samplers.sa_solver import SASolver
from samplerbench.samplers.sde_dpmpp_1 import SDEDPMpp1
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.samplers.smc import SMC
from samplerbench.samplers.ula import ULA
from samplerbench.samplers.underdamped import Underdamped
from samplerbench.verify.contract import broken
from samplerbench.verify.laws import measured_law
from samplerbench.verify.orders import measured_order
from samplerbench.verify.sampler_contract import (
    ON_EVERY_SCHEDULE,
    SAMPLER,
    TestBed,
    sampler_type,
    strong_order,
)


def test_samplers_are_found(all_samplers):
    names = {type(sampler).__name__ for sampler in all_samplers}
    assert {"DDIM", "Heun", "DormandPrince", "DEISTime", "ULA", "MALA", "AnnealedLangevin"} <= names
    assert len(set(all_samplers)) == len(all_samplers)
    assert {type(sampler)() for sampler in all_samplers} <= set(all_samplers), "the defaults"


#: Noise at t = 0, a variance that is preserved, and a path without closed forms; beside one that
#: begins without signal, the hardest of all.
PATHS = (GeometricVE(), VPLinear(), DDPMTable(tuple(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))))


def is_default(sampler):
    return sampler == type(sampler)()


def test_contract(default_sampler, simple_mixture):
    assert broken(SAMPLER, default_sampler, TestBed(simple_mixture, Rectified())) == []


@pytest.mark.slow
def test_contract_of_all_settings_on_all_paths(all_samplers, simple_mixture):
    for sampler in all_samplers:
        assert broken(SAMPLER, sampler, TestBed(simple_mixture, Rectified())) == [], sampler
        for schedule in PATHS:
            bed = TestBed(simple_mixture, schedule)
            assert broken(ON_EVERY_SCHEDULE, sampler, bed) == [], (sampler, schedule)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_states_stay_on_the_device(all_samplers, simple_mixture):
    bed = TestBed(simple_mixture, Rectified(), torch.device("cuda"))
    assert [line for one in all_samplers if (line := sampler_type(one, bed))] == []


def check_order(sampler, schedule):
    """On the mixture, whose field is not linear; of a stochastic sampler on the Gaussian."""
    law, steps = ("gaussian", (40, 80)) if sampler.stochastic else ("mixture", (60, 120))
    order = measured_order(sampler, schedule, law, steps)
    if order is not None and max(order.errors) > 1e-12:
        assert order.slope == pytest.approx(sampler.order, abs=0.15), (sampler, schedule)
    unknown = sampler.order is None or sampler.adaptive
    unknown |= sampler.stochastic and not sampler.affine  # its strong order is below
    assert (order is None) == unknown, (sampler, schedule)


def test_order(common_sampler):
    check_order(common_sampler, Rectified())


@pytest.mark.slow
def test_order_of_all_settings(all_samplers):
    """The defaults on a second schedule; `test_order` has them on the first."""
    for sampler in all_samplers:
        check_order(sampler, GeometricVE() if is_default(sampler) else Rectified())


@pytest.mark.slow
def test_weak_order_on_the_mixture_where_it_is_known(all_samplers):
    for sampler in all_samplers:
        if sampler.stochastic and not isinstance(sampler, Picard):  # its states are those of DDIM
            # the churn of a step is cut where steps are few
            steps = (60, 120) if isinstance(sampler, EDMChurn) else (30, 60)
            order = measured_order(sampler, Rectified(), "mixture", steps)
            if order is not None and max(order.errors) > 1e-12:
                assert order.slope == pytest.approx(sampler.order, abs=0.15), sampler


def has_right_law(sampler):
    error = measured_law(sampler, VPLinear())
    if error is None:
        assert sampler.order is None
        assert not sampler.holds
    return error is None or error.right


def test_law(common_sampler):
    assert has_right_law(common_sampler)


@pytest.mark.slow
def test_law_of_other_settings(all_samplers):
    others = (sampler for sampler in all_samplers if not is_default(sampler))
    assert [sampler for sampler in others if not has_right_law(sampler)] == []


def couples(sampler):
    if not (sampler.couples and sampler.stochastic):
        return True
    # the levels inside the window of EDMChurn depend on N: strong order 1/2
    return strong_order(sampler) > (0.4 if sampler == EDMChurn(4.0, 0.3, 5.0) else 0.85)


def test_coupling(default_sampler):
    assert couples(default_sampler)


@pytest.mark.slow
def test_coupling_of_all_settings(all_samplers):
    assert [sampler for sampler in all_samplers if not couples(sampler)] == []


BAD = [
    (ULA, {"step_size": 0.0}, "positive and finite"),
    (MALA, {"step_size": math.inf}, "positive and finite"),
    (Underdamped, {"step_size": 0.0}, "positive and finite"),
    (Underdamped, {"friction": 0.0}, "positive"),
    (AnnealedLangevin, {"step_size": 0.0}, "positive and finite"),
    (AnnealedLangevin, {"inner": 0}, "at least 1"),
    (DDIM, {"eta": -0.1}, "at least 0 and finite"),
    (EDMChurn, {"churn": -1.0}, "at least 0 and finite"),
    (EDMChurn, {"churn_min": -1.0}, "at least 0"),
    (EDMChurn, {"churn_min": 2.0, "churn_max": 1.0}, "at least churn_min=2.0"),
    (EDMChurn, {"churn_noise": 0.0}, "positive"),
    (SDEDPMpp1, {"stochasticity": -0.1}, "at least 0 and finite"),
    (SDEDPMpp2M, {"stochasticity": math.inf}, "at least 0 and finite"),
    (PredictorCorrector, {"signal_to_noise": 0.0}, "positive and finite"),
    (PredictorCorrector, {"inner": -1}, "at least 0"),
    (ERSDE, {"points": 4}, "1, 2 or 3"),
    (ERSDE, {"scale": "cubic"}, "er or ode or sde"),
    (SASolver, {"corrector": 4}, "0, 1, 2 or 3"),
    (SASolver, {"tau": -1.0}, "at least 0 and finite"),
    (SASolver, {"tau_min": 2.0, "tau_max": 1.0}, "at least tau_min=2.0"),
    (SASolver, {"corrector": 0, "pece": True}, "false without a corrector"),
    (Restart, {"repeats": -1}, "at least 0"),
    (Restart, {"restart_steps": 1}, "at least 2"),
    (Restart, {"restart_max": 0.05}, "above restart_min=0.06 and finite"),
    (Picard, {"rule": "heun"}, "ddim or euler"),
    (Picard, {"window": 0}, "at least 1"),
    (Picard, {"tolerance": -1.0}, "at least 0 and finite"),
    (Picard, {"eta": -0.1}, "at least 0 and finite"),
    (Picard, {"rule": "euler", "eta": 1.0}, "0 with rule=euler"),
    (FlowSDE, {"diffusion": "linear"}, "sigma or sine"),
    (FlowSDE, {"scale": -1.0}, "at least 0 and finite"),
    (DDPMOptimal, {"covariance": "isotropic"}, "full or diagonal"),
    (HMC, {"step_size": 0.0}, "positive and finite"),
    (HMC, {"leapfrog": 0}, "at least 1"),
    (ReplicaExchange, {"step_size": 0.0}, "positive and finite"),
    (ReplicaExchange, {"leapfrog": 0}, "at least 1"),
    (ReplicaExchange, {"replicas": 0}, "at least 1"),
    (ReplicaExchange, {"temperature": 1.0}, "above 1 and finite"),
    (SMC, {"particles": 0}, "at least 1"),
    (SMC, {"resample_below": 1.5}, "between 0 and 1"),
    (AIS, {"particles": 0}, "at least 1"),
    (AIS, {"step_size": 0.0}, "positive and finite"),
    (AIS, {"leapfrog": 0}, "at least 1"),
    (AIS, {"std": 0.0}, "positive and finite"),
    (AIS, {"resample_below": -0.1}, "between 0 and 1"),
    (RK2, {"alpha": 0.0}, "above 0 and at most 1"),
    (RK2, {"alpha": 1.5}, "above 0 and at most 1"),
    (DormandPrince, {"rtol": 0.0}, "positive and finite"),
    (DormandPrince, {"atol": math.inf}, "positive and finite"),
    (DormandPrince, {"attempts": 0}, "at least 1"),
]


def test_bad_settings(all_samplers):
    for kind, settings, allowed in BAD:
        *_, (field, value) = settings.items()
        with pytest.raises(InvalidSetting) as error:
            kind(**settings)
        assert str(error.value) == f"{field}={value}: must be {allowed}"
    for kind in {type(sampler) for sampler in all_samplers}:
        for field in dataclasses.fields(kind):
            wrong = [math.nan] if isinstance(field.default, float) else []
            wrong += [0, 5, 2.5] if field.name == "points" else []
            for value in wrong:
                with pytest.raises(InvalidSetting, match=f"{field.name}={value}: must be"):
                    kind(**{field.name: value})
