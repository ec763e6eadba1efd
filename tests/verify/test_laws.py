"""The check of laws: it accepts right samplers, and refuses wrong noise or drift."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from samplerbench.core.grids import hold
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.base import Step
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.ula import ULA
from samplerbench.verify.exact_law import noised_law
from samplerbench.verify.laws import COVARIANCE, MEAN, measured_law, stationary_law


class TooWide(DDIM):
    """Adds noise in every step, and removes none of the noise in the state."""

    def steps(self, model, x, levels, noise):
        for index, step in enumerate(super().steps(model, x, levels, noise)):
            yield Step(step.x + 0.3 * noise.normal(x, index, 7), step.x0_hat)


class Shifted(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x + 0.2, step.x0_hat)


@dataclass(frozen=True)
class HalfTheNoise(ULA):
    """√h·z where √(2h)·z belongs: the mistake that a change of convention makes."""

    def steps(self, model, x, levels, noise):
        for step, now, _ in levels.pairs():
            score = model.score(x, now)
            x = x + self.step_size * score + self.step_size**0.5 * noise.normal(x, step)
            yield Step(x, x)


@dataclass(frozen=True)
class NoNoise(ULA):
    def steps(self, model, x, levels, noise):
        for _ in levels.pairs():
            yield Step(x, x)


class AlwaysThere(MALA):
    """Takes every proposal twice as far."""

    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(1.2 * step.x, step.x0_hat, step.info)


@pytest.mark.parametrize("sampler", [TooWide(), Shifted(), HalfTheNoise(), AlwaysThere()], ids=repr)
def test_a_wrong_law_is_seen(sampler):
    assert not measured_law(sampler, VPLinear()).right


@pytest.mark.slow
def test_what_is_refined():
    """A chain that must keep its law has nothing to refine: chance would decide which is nearer."""
    for sampler, count in ((DDIM(), 2), (ULA(), 2), (MALA(), 1)):
        assert len(measured_law(sampler, VPLinear()).errors) == count


def test_none_is_declared():
    assert measured_law(AnnealedLangevin(), EDM()) is None


def test_a_start_that_is_not_forgotten():
    with pytest.raises(ValueError, match="does not forget its start"):
        measured_law(NoNoise(), VPLinear())


def test_the_stationary_law_is_ulas_closed_form():
    h, levels = 0.2, hold(EDM(), 20, noise=0.5)
    mean, spread = noised_law(MEAN, COVARIANCE, levels.rows[0])
    exact = spread @ torch.linalg.inv(torch.eye(2) - h / 2 * torch.linalg.inv(spread))
    got = stationary_law(ULA(h), EDM(), levels)
    torch.testing.assert_close(got, (mean, exact), rtol=1e-10, atol=1e-10)
