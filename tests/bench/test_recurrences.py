"""Coefficients that are read off the code of a sampler are those of its run on vectors."""

import operator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from helpers import each
from samplerbench.bench import coefficients
from samplerbench.bench.coefficients import NotLinear, table_of_states
from samplerbench.bench.recurrences import NotTraced, from_weights, traced
from samplerbench.core import grids
from samplerbench.core.grids import Truncated
from samplerbench.core.models import Denoiser
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun

#: Samplers whose code does more with a state than adding and multiplying by a number.
NOT_LINEAR = {"DDPMOptimal", "Picard"}


class Zero(Denoiser):
    """A denoiser without a density."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def denoiser(self, x, level):
        return 0 * x


def test_every_sampler_has_the_coefficients_of_its_run_on_vectors(all_samplers, monkeypatch):
    def not_traced(*given):
        raise NotTraced

    monkeypatch.setattr(coefficients, "traced", not_traced)
    path, found = VPLinear(), set()
    model, levels = Zero(path), grids.log_snr(path, 5, noise_min=0.1)
    for sampler in all_samplers:
        if sampler.brings_levels or sampler.why_incompatible(model, levels) is not None:
            continue
        try:
            table = table_of_states(sampler, path, levels)
        except NotLinear:
            continue
        if table.error > 1e-9:
            continue
        name = type(sampler).__name__
        try:
            run = traced(sampler, path, levels)
        except NotTraced:
            assert name in NOT_LINEAR or sampler.own_norms, name
            continue
        found.add(name)
        weights = table.weights.numpy()
        size = np.abs(weights).max()
        np.testing.assert_allclose(run.weights(), weights, rtol=0, atol=1e-14 * size)
        np.testing.assert_array_equal(run.levels, table.levels.numpy())
    assert {"DDIM", "Heun", "RK4", "UniPC", "DPMSolverPP", "SASolver", "EDMChurn"} <= found


def test_a_part_of_a_run_and_a_run_without_its_last_step():
    path = VPLinear()
    levels = Truncated(lambda *rest: grids.log_snr(*rest, noise_min=0.1))(path, 4)
    whole, part = traced(Heun(), path, levels), traced(Heun(), path, levels, 2)
    np.testing.assert_array_equal(whole.weights()[:4, :4], part.weights()[:4, :4])
    assert (whole.levels.shape, part.levels.shape) == ((3, 8), (3, 4))


def test_derivatives_do_not_depend_on_the_way_that_a_run_is_written():
    path = EDM(10.0)
    levels = grids.karras(path, 6, noise_min=0.1)
    gain = np.random.default_rng(0).random((6, 3))
    run = traced(DDIM(0.7), path, levels)
    other = from_weights(run.weights(), run.levels)
    for one, two in zip(run.derivatives(gain), other.derivatives(gain), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


@dataclass(frozen=True)
class Odd(DDIM):
    """DDIM with something else done to x̂₀."""

    then: object = None

    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            self.then(step.x)
            yield step


@each(
    "then",
    [
        *(lambda x: x.clamp(-1, 1), torch.sin, lambda x: x * x, lambda x: x + 1.0),
        *(lambda x: x == 0, lambda x: x > 0, bool, lambda x: operator.iadd(x, x)),
        *(lambda x: torch.ones(1) * x, lambda x: x * torch.ones(1), lambda x: 1.0 / x),
    ],
)
def test_what_is_not_linear_is_refused(then):
    levels = grids.karras(EDM(10.0), 3, noise_min=0.1)
    with pytest.raises(NotTraced):
        traced(Odd(0.0, then), EDM(10.0), levels)


@pytest.mark.parametrize(
    "then", [lambda x: -x, lambda x: sum([x, x]), lambda x: np.float64(2) * x / 3 - x]
)
def test_what_is_linear_is_not(then):
    levels = grids.karras(EDM(10.0), 3, noise_min=0.1)
    plain = traced(DDIM(0.0), EDM(10.0), levels)
    same = traced(Odd(0.0, then), EDM(10.0), levels)
    np.testing.assert_array_equal(plain.weights(), same.weights())
