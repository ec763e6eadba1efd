"""Paired distances to the flow: a closed form, orders, and states of other packages."""

import json
import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers import mostly_slow, sweep_of
from samplerbench.core.grids import log_snr
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.metrics.paired import Paired
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun

GRID = partial(log_snr, noise_min=0.02)
LAW = GaussianMixture((0.4, 0.6), ((1.5,), (-1.0,)), (((0.1,),), ((0.3,),)))


def rows_of(samplers, steps, law=LAW, schedule=None, n=200, grid=GRID):
    settings = {"grid": grid, "starts": {"exact": Exact()}, "metrics": {"paired": Paired()}}
    settings |= {"schedule": schedule or EDM(10.0), "reference": torch.empty(0, law.dim)}
    return sweep_of(law, samplers, steps, n_samples=n, block=100, **settings).run()


@pytest.mark.slow
def test_on_a_gaussian_it_is_the_closed_form():
    """The flow of N(0, c²) is x·c/√(c² + σ²); a step of DDIM(0) is x̂₀ + (σ'/σ)(x − x̂₀)."""
    spectrum = torch.tensor([[0.2], [0.49]], dtype=torch.float64)
    c, law = 0.7, GaussianSpectrum(*spectrum)
    (row,) = rows_of([("ddim", DDIM(0.0))], [5], law, n=4096)
    sigmas = GRID(EDM(10.0), 5).sigma.numpy()
    kept = 1.0
    for now, to in pairwise(sigmas):
        shrink = c**2 / (c**2 + now**2)
        kept *= shrink + (to / now) * (1 - shrink)
    flow = c / math.hypot(c, sigmas[0])
    # the start has the variance c² + σ², and the unit is c
    expected = abs(kept - flow) * math.hypot(c, sigmas[0]) / c
    info = json.loads(row.info)
    assert abs(row.value - expected) < info["half_width"] + info["converged_to"]
    assert info["half_width"] < 0.03 * expected


@pytest.mark.parametrize(("sampler", "order"), mostly_slow([(DDIM(0.0), 1), (Heun(), 2)], 1))
def test_it_falls_with_the_order_of_the_sampler(sampler, order):
    first, second = (row.value for row in rows_of([("one", sampler)], [32, 64]))
    assert abs(math.log2(first / second) - order) < 0.3


def test_all_blocks_and_samplers_share_the_flow(monkeypatch):
    from samplerbench.bench import converged

    runs, plain = [], converged.converged
    monkeypatch.setattr(converged, "converged", lambda *a: runs.append(1) or plain(*a))
    rows = rows_of([("ddim", DDIM(0.0)), ("heun", Heun())], [4, 8])
    assert [row.status for row in rows] == ["ok"] * 4
    assert len(runs) == 2  # one for each block


def test_a_sampler_with_noise_has_no_flow():
    (row,) = rows_of([("ddim", DDIM(1.0))], [4])
    assert row.status == "incompatible"
    assert "does not follow the flow" in row.message


@pytest.mark.parametrize("schedule", mostly_slow([VPLinear(), EDM(10.0)], 0))
def test_states_of_another_package_have_the_same_flow(schedule):
    """States x₀ + κ·ε, also above the noise of the path, converge to the flow of the path."""
    pytest.importorskip("diffusers")
    from samplerbench.samplers.diffusers import Diffusers

    euler = Diffusers("EDMEulerScheduler")  # it begins at κ = 80
    rows = rows_of([("euler", euler)], [50, 400], schedule=schedule, n=50)
    first, second = (row.value for row in rows)
    assert second < 0.01
    assert np.isclose(first / second, 8, rtol=0.4)
