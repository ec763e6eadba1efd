"""Weighted particles: unbiased constants, weights by hand, laws that the weights make right."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import mostly_slow, sweep_of
from samplerbench.bench.cell import CURVE
from samplerbench.bench.rounding import distance
from samplerbench.bench.statistics import summary
from samplerbench.core.grids import Truncated, hold, karras, uniform
from samplerbench.core.models import Counted
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import FixedGaussian
from samplerbench.datasets.density import DensityScore
from samplerbench.datasets.gaussian_mixture import isotropic
from samplerbench.datasets.targets import many_well
from samplerbench.metrics.log_z import LogZ
from samplerbench.samplers.ais import AIS
from samplerbench.samplers.base import final_state, iterate
from samplerbench.samplers.hmc import HMC
from samplerbench.samplers.particles import Particles
from samplerbench.samplers.smc import SMC

NOISE = KeyedNoise((0, "particles"))
TWO = isotropic((0.7, 0.3), ((-2.0, 0.0), (2.0, 1.0)), 0.3)


def estimate(log_z):
    """ln of the mean of the estimates, and its standard error."""
    ratios = log_z.exp()
    return float(ratios.mean().log()), float(ratios.std() / ratios.mean()) / len(ratios) ** 0.5


def last(sampler, model, x, levels):
    *_, step = iterate(sampler, model, x, levels, NOISE)
    return step


@pytest.mark.slow
def test_systematic_resampling():
    """A particle has P·weight copies, rounded up or down; with equal weights nothing changes."""
    weights = torch.tensor([[0.05, 0.55, 0.3, 0.1], [0.25] * 4], dtype=torch.float64).T
    x = torch.arange(8, dtype=torch.float64).reshape(4, 2, 1)
    start = Particles.equal(x).reweighted((4 * weights).log())
    torch.testing.assert_close(start.log_z, torch.zeros(2).double(), atol=1e-12, rtol=0)
    counts = np.zeros((2, 4))
    for u in np.linspace(0.0005, 0.9995, 1000):
        at = torch.full((2,), float(u), dtype=torch.float64)
        cloud = start.resampled(0.7, at)
        chosen = cloud.states[0][:, 0, 0] / 2
        times = torch.bincount(chosen.long(), minlength=4).numpy()
        assert (abs(times - 4 * weights[:, 0].numpy()) < 1).all()
        counts += [times, torch.bincount((start.drawn(at)[0][:1, 0] / 2).long(), minlength=4)]
        assert torch.equal(cloud.states[0][:, 1], x[:, 1])
    torch.testing.assert_close(cloud.log_weights, torch.full((4, 2), -math.log(4)).double())
    assert (counts / 1000).tolist() == [
        pytest.approx(4 * weights[:, 0], abs=0.01),
        pytest.approx(weights[:, 0], abs=0.01),
    ]


@pytest.mark.parametrize("below", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", mostly_slow([EDM(8.0), VPLinear()], 1), ids=repr)
def test_smc_estimates_one_without_bias(states, schedule, below):
    """With five coarse steps, from a start that is not the law at the first level."""
    levels = karras(schedule, 5, noise_min=0.3, noise_max=7.0)
    model = Counted(TWO.oracle(schedule))
    step = last(SMC(8, below), model, states(8000, 2), levels)
    value, error = estimate(step.info["log_z"])
    assert 0.001 < error < 0.02
    assert abs(value) < 4 * error
    assert (model.evaluations, model.rounds) == (8 * 11, 11)


def test_smc_weights_are_ratios_of_path_densities(states):
    """All steps of one particle, with the densities of torch.distributions."""
    schedule = VPLinear()
    levels, model = karras(schedule, 4, noise_min=0.2, noise_max=5.0), TWO.oracle(schedule)
    start = states(3, 2)
    path = [levels.rows[0].sigma * NOISE.normal(start.expand(1, 3, 2), 0, 1)[0]]
    steps = list(SMC(1).steps(model, start, levels, NOISE))
    path += [step.x for step in steps]

    def normal(mean, sd):
        return torch.distributions.Independent(torch.distributions.Normal(mean, sd), 1)

    total = -normal(torch.zeros(2).double(), levels.rows[0].sigma).log_prob(path[0])
    for now, to, x, y in zip(levels.rows, levels.rows[1:], path, path[1:], strict=False):
        first, second = now.sigma / now.alpha, to.sigma / to.alpha
        width = (first**2 - second**2) ** 0.5
        total = total + normal(now.alpha / to.alpha * y, now.alpha * width).log_prob(x)
        x0_hat = model.denoiser(x, now)
        mean = to.alpha * (x0_hat + second**2 / first**2 * (x / now.alpha - x0_hat))
        total = total - normal(mean, to.alpha * width).log_prob(y)
    total = total + model.log_density(path[-1], levels.rows[-1])
    torch.testing.assert_close(steps[-1].info["log_z"], total, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_smc_corrects_steps_and_start(states):
    """Its modes have the right weights and widths; those of the plain steps are wrong."""
    levels, x = karras(EDM(4.0), 4, noise_min=0.3, noise_max=3.0), states(4000, 2)
    errors = []
    for particles in (1, 64):
        out = last(SMC(particles), TWO.oracle(EDM(4.0)), x, levels).x
        right = out[:, 0] > 0
        spread = (out - torch.where(right[:, None], *torch.tensor(TWO.means)[[1, 0]])).std(0)
        errors.append(float(right.double().mean() - 0.3))
        errors.append(float((spread / 0.3**0.5 - 1).abs().max()))
    assert errors[1] > 0.08
    assert abs(errors[2]) < 4 * (0.21 / 4000) ** 0.5 + 0.005
    assert errors[3] < 0.03


def test_smc_ends_with_noise_too(states):
    levels = Truncated(uniform)(EDM(8.0), 6)
    step = last(SMC(8), TWO.oracle(EDM(8.0)), states(4000, 2), levels)
    value, error = estimate(step.info["log_z"])
    assert abs(value) < 4 * error < 0.1


@pytest.mark.parametrize("below", mostly_slow([0.0, 0.5], 1))
def test_annealing_estimates_the_integral(states, below):
    """ln ∫ of a function that is not a density: e times a Gaussian mixture."""

    def log_p(x):
        return TWO.log_density(x.reshape(-1, 2)).reshape(x.shape[:-1]) + 1.0

    model = Counted(DensityScore(log_p))
    sampler = AIS(6, 0.4, 2, resample_below=below)
    step = last(sampler, model, states(3000, 2), hold(EDM(), 12))
    value, error = estimate(step.info["log_z"])
    assert 0.001 < error < 0.02
    assert abs(value - 1) < 4 * error
    assert (model.evaluations, model.rounds) == (6 * 38, 38)
    assert sampler.evaluations(12) == 6 * 38


def test_annealing_is_hmc_in_between(states):
    """One particle by hand: weights before each move, and the moves of HMC on the tempered law."""
    model, levels, start = TWO.oracle(EDM()), hold(EDM(), 4, noise=0.2), states(5, 2)
    level, base = levels.rows[0], torch.distributions.Normal(*torch.tensor([0.0, 2.0]).double())
    sampler = AIS(1, 0.5, 2, std=2.0)
    x = 2 * NOISE.normal(start.expand(1, 5, 2), 0, 1)[0]
    total = torch.zeros(5).double()
    for number, step in enumerate(sampler.steps(model, start, levels, NOISE)):
        betas = (number / 4) ** 2, ((number + 1) / 4) ** 2

        def log_p(y, beta=betas[1]):
            return beta * model.log_density(y, level) + (1 - beta) * base.log_prob(y).sum(-1)

        total = total + (betas[1] - betas[0]) * (
            model.log_density(x, level) - base.log_prob(x).sum(-1)
        )
        tempered, noise = DensityScore(log_p), _Given(number)
        x = final_state(HMC(0.5, 2), tempered, x, hold(EDM(), 1), noise)
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(step.info["log_z"], total, rtol=1e-9, atol=1e-9)


class _Given:
    """The numbers of one particle in a step."""

    def __init__(self, step):
        self.step = step

    def normal(self, like, step, draw=0):
        return NOISE.normal(like[None], self.step)[0]

    def uniform(self, like, step, draw=0):
        return NOISE.uniform(like[None], self.step, 2)[0]


@pytest.mark.slow
def test_the_table_has_the_error_of_log_z():
    """Many wells, whose ln Z is known by quadrature; HMC has no estimate."""
    law = many_well(4)
    sweep = sweep_of(
        law,
        [("ais", AIS(8, 0.2, 2, std=1.5)), ("hmc", HMC(0.1, 2))],
        [5, 40],
        schedule=EDM(),
        grid=hold,
        starts={"gaussian": FixedGaussian()},
        metrics={"log_z": LogZ()},
        n_samples=300,
        block=150,
    )
    rows = {(row.sampler, row.steps): row for row in sweep.run()}
    few, many = (rows["ais", steps] for steps in (5, 40))
    halves = [json.loads(row.info)["half_width"] for row in (few, many)]
    assert halves[1] < 0.7 * halves[0]
    assert halves[1] < 0.2
    assert abs(many.value) < 2 * halves[1]
    assert json.loads(few.info)["mean_log"] < json.loads(many.info)["mean_log"] < 0
    assert (many.nfe, many.rounds) == (8 * 122, 122)
    assert rows["hmc", 40].status == "incompatible"
    assert "no estimate of ln Z" in rows["hmc", 40].message


def test_the_interval_of_log_z_may_have_both_signs():
    """Other metrics are distances: their intervals end at 0."""
    rows = pd.DataFrame(
        {
            **{name: ["x"] * 6 for name in (*CURVE, "status", "cell_id")},
            "cell_id": list("abcdef"),
            "status": "ok",
            "metric": ["log_z", "energy"] * 3,
            "value": [0.1, 0.1, 0.4, 0.4, -0.2, -0.2],
            "repetition": [0, 0, 1, 1, 2, 2],
            "steps": 4,
            "nfe": 4,
            "rounds": 4,
            "seconds": 1.0,
            "eta": math.nan,
            "info": "",
        }
    )
    lower = summary(rows).set_index("metric")["lower"]
    assert lower["log_z"] < -0.5
    assert lower["energy"] == 0
    assert distance(0.1, 0.74, "log_z") == "0.10 ± 0.74"
    assert distance(0.1, 0.74, "energy") == "0.10 (≤ 0.84)"
