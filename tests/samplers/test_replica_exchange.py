"""Replica exchange: the algorithm by hand, HMC without replicas, modes that HMC does not reach."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.core.grids import hold
from samplerbench.core.models import Counted
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.samplers.base import final_state
from samplerbench.samplers.hmc import HMC
from samplerbench.samplers.replica_exchange import ReplicaExchange

NOISE = KeyedNoise((0, "exchange"))
#: Two modes 6 apart with deviations of .3: a barrier of e^-50.
FAR = GaussianMixture((0.75, 0.25), ((-3.0, 0.0), (3.0, 0.0)), (((0.09, 0.0), (0.0, 0.09)),) * 2)


def test_one_replica_is_hmc(mixture_law, states):
    model, levels, x = mixture_law.oracle(EDM()), hold(EDM(), 6, noise=0.2), states(8, 2)
    ours = ReplicaExchange(0.4, 3, replicas=1).steps(model, x, levels, NOISE)
    for one, other in zip(ours, HMC(0.4, 3).steps(model, x, levels, NOISE), strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.info["acceptance"], other.info["acceptance"])


def test_it_is_the_algorithm_by_hand(mixture_law, states):
    """Each replica is HMC on ln q/T in the position x/√T; a swap is the ratio of two products."""
    sampler = ReplicaExchange(0.5, 2, replicas=4, temperature=8.0)
    model, levels = mixture_law.oracle(EDM(10.0)), hold(EDM(10.0), 5, noise=0.3)
    level, temperatures = levels.rows[0], [1.0, 2.0, 4.0, 8.0]
    assert sampler.temperatures == pytest.approx(temperatures)
    start = states(3, 2)
    ours = [step.x for step in sampler.steps(model, start, levels, NOISE)]
    swapped = 0
    for sample in range(3):
        replicas = [start[sample]] * 4
        for number in range(5):
            for k, heat in enumerate(temperatures):
                # positions x/√T with the potential −ln q/T: unit velocities and the step ε/√T
                root, x = math.sqrt(heat), replicas[k] / math.sqrt(heat)
                v = w = NOISE.normal(start, number, k)[sample]
                size = 0.5
                for _ in range(2):
                    w = w + size / 2 * root * model.score(root * x, level) / heat
                    x = x + size * w
                    w = w + size / 2 * root * model.score(root * x, level) / heat
                log_q = [model.log_density(y, level) for y in (root * x, replicas[k])]
                gain = (log_q[0] - log_q[1]) / heat - (w @ w - v @ v) / 2
                if NOISE.uniform(start[:, :1], number, k)[sample] < gain.exp():
                    replicas[k] = root * x
            for k in range(number % 2, 3, 2):
                one, two = (model.log_density(replicas[j], level) for j in (k, k + 1))
                now = one / temperatures[k] + two / temperatures[k + 1]
                then = two / temperatures[k] + one / temperatures[k + 1]
                if NOISE.uniform(start[:, :1], number, 4 + k)[sample] < (then - now).exp():
                    replicas[k], replicas[k + 1] = replicas[k + 1], replicas[k]
                    swapped += 1
            torch.testing.assert_close(ours[number][sample], replicas[0], rtol=1e-10, atol=1e-10)
    assert swapped > 5


@pytest.mark.slow
def test_it_finds_the_weights_that_hmc_does_not(states):
    """All chains start in the lighter mode."""
    model, levels = Counted(FAR.oracle(EDM())), hold(EDM(), 150)
    x = torch.tensor([3.0, 0.0], dtype=torch.float64) + 0.3 * states(400, 2)
    sampler = ReplicaExchange(0.25, 6, replicas=5, temperature=100.0)
    with torch.no_grad():
        out = final_state(sampler, model, x, levels, NOISE)
        stuck = final_state(HMC(0.25, 6), FAR.oracle(EDM()), x, levels, NOISE)
    assert (stuck[:, 0] > 0).all()
    share = float((out[:, 0] < 0).double().mean())
    assert share == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 400))
    near = out[out[:, 0] < 0] - torch.tensor([-3.0, 0.0])
    assert near.std(0).tolist() == pytest.approx([0.3, 0.3], rel=0.15)
    assert (model.evaluations, model.rounds) == (sampler.evaluations(150), 2 + 150 * 7)
