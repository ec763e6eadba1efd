"""What every sampler promises, on every schedule, from t = 1 (no signal left, on some) to data.

One that says that it needs signal, or stays at one level, is taken at its word: see `suited`.
"""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from samplerbench.grids import Levels, hold
from samplerbench.models import Counted, Score
from samplerbench.noise import KeyedNoise
from samplerbench.samplers.base import final_state
from samplerbench.schedules import EDM, Rectified

STEPS = 5
NOISE = KeyedNoise((0, "contract"))
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def model(simple_mixture, schedule):
    return simple_mixture.oracle(schedule)


@pytest.fixture
def levels(suited, sampler, schedule):
    return suited(sampler, schedule, STEPS)


class ScoreAndDensity(Score):
    """A model that has a score and a density, and no x̂₀."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def score(self, x, level):
        return self.model.score(x, level)

    def log_density(self, x, level):
        return self.model.log_density(x, level)


class ScoreAlone(Score):
    """A model that has nothing but a score."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def score(self, x, level):
        return self.model.score(x, level)


def test_compatible(sampler, model, levels):
    assert sampler.why_incompatible(model, levels) is None


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_steps(sampler, model, levels, states, batch):
    x = levels.rows[0].sigma * states(*batch, 2)
    before = x.clone()
    steps = list(sampler.steps(model, x, levels, NOISE))
    assert len(steps) == levels.steps == STEPS
    for step in steps:
        assert step.x.shape == step.x0_hat.shape == (*batch, 2)
        assert step.x.isfinite().all()
        assert step.x0_hat.isfinite().all()
    assert torch.equal(steps[-1].x, steps[-1].x0_hat) == sampler.ends_at_data
    assert torch.equal(x, before), "the start was changed in place"
    for step, later in pairwise(steps):
        assert step.x.data_ptr() != later.x.data_ptr(), "a yielded state was changed in place"


def test_bits_depend_on_the_key_alone(sampler, model, levels, states):
    x = levels.rows[0].sigma * states(4, 2)
    first, again, other = (
        final_state(sampler, model, x, levels, KeyedNoise((seed, "bits"))) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) != sampler.stochastic


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_independent_of_neighbours(sampler, model, levels, states, dtype):
    x = (levels.rows[0].sigma * states(16, 2)).to(dtype)
    other = 3 * x.flip(0) + 1
    other[5] = x[5]
    one, two = (final_state(sampler, model, start, levels, NOISE) for start in (x, other))
    assert torch.equal(one[5], two[5])
    if not sampler.stochastic:  # at η = 1 a start without signal is forgotten
        assert not torch.equal(one[4], two[4])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dtype_and_device(sampler, model, levels, states, dtype, device):
    x = (levels.rows[0].sigma * states(3, 2)).to(device, dtype)
    for step in sampler.steps(model.to(device), x, levels, NOISE):
        assert step.x.dtype == step.x0_hat.dtype == dtype
        assert step.x.device == step.x0_hat.device == x.device


@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_evaluations(sampler, schedule, model, suited, states, steps):
    expected = sampler.evaluations(steps)
    if expected is None:
        pytest.skip("the run decides")
    counted, levels = Counted(model), suited(sampler, schedule, steps)
    final_state(sampler, counted, states(3, 2), levels, NOISE)
    assert counted.evaluations == expected


def test_needs_no_more_than_it_says(sampler, model, levels, states):
    """Any score serves a sampler that needs a score; the others refuse it in one line."""
    alone, x = ScoreAlone(model), states(3, 2)
    reason = sampler.why_incompatible(alone, levels)
    if sampler.needs_density:
        assert "needs the log-density" in reason
        assert "\n" not in reason
        alone = ScoreAndDensity(model)
        reason = sampler.why_incompatible(alone, levels)
    if sampler.needs is Score:
        assert reason is None
        runs = [final_state(sampler, m, x, levels, NOISE) for m in (alone, model)]
        assert torch.equal(*runs)
    else:
        assert "needs a denoiser" in reason
        assert "\n" not in reason


def test_refuses_the_wrong_levels(sampler, simple_mixture, full):
    """Levels that stand still, or that move, or without signal: a line that says what would do."""

    def reason(path, levels):
        return sampler.why_incompatible(simple_mixture.oracle(path), levels)

    times = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    no_signal_twice = Levels(times, *Rectified()(times))
    if sampler.holds:
        assert "grid=hold" in reason(EDM(), full(EDM(), 3))
        assert reason(EDM(), hold(EDM(), 3)) is None
    else:
        for path, levels in (
            (EDM(), hold(EDM(), 3)),
            (EDM(), hold(EDM(), 3, noise=0.5)),
            (Rectified(), no_signal_twice),
        ):
            assert "stand still: use a grid" in reason(path, levels)
        lost = reason(Rectified(), full(Rectified(), 3))
        assert ("no signal is left" in lost) if sampler.needs_signal else lost is None


def test_global_generators_are_left_alone(sampler, model, levels, states):
    def state():
        return repr((torch.get_rng_state().tolist(), np.random.get_state(), random.getstate()))  # noqa: NPY002

    before = state()
    final_state(sampler, model, states(3, 2), levels, NOISE)
    assert state() == before
