"""The contract's checks: each finds the sampler that breaks its promise, and no other complains."""

from __future__ import annotations

import pytest
import torch

from samplerbench.core.grids import Level
from samplerbench.core.models import Score
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.samplers.base import Step
from samplerbench.samplers.ddim import DDIM
from samplerbench.verify import contract
from samplerbench.verify.contract import PROMISES, broken


class InPlace(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(x.copy_(step.x), step.x0_hat)


class OneTooMany(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield step
        yield Step(step.x.clone(), step.x0_hat)


class NotTheEnd(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x + 1e-9, step.x0_hat)


class OtherBits(DDIM):
    def steps(self, model, x, levels, noise):
        return super().steps(model, x + 1e-3 * torch.rand_like(x), levels, noise)


class SecretNoise(DDIM):
    def steps(self, model, x, levels, noise):
        return super().steps(model, x + noise.normal(x, 99), levels, noise)


class Crowd(DDIM):
    def steps(self, model, x, levels, noise):
        centre = x.mean(0, keepdim=True) if x.ndim > 1 else 0.0
        return super().steps(model, x + centre, levels, noise)


class Single(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x.float(), step.x0_hat.float())


class Miscounted(DDIM):
    def evaluations(self, steps):
        return steps + 1


class Above(DDIM):
    def steps(self, model, x, levels, noise):
        first = levels.rows[0]
        model.denoiser(x, Level(first.t, first.alpha, 1.1 * first.sigma))
        return super().steps(model, x, levels, noise)


class AnyScore(DDIM):
    needs = Score


class Anywhere(DDIM):
    def why_incompatible(self, model, levels):
        return super()._why_not_on(levels) if not isinstance(model, self.needs) else None


class Forgetful(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x.nan_to_num(0.5), step.x0_hat.nan_to_num(0.5))


class Spreading(DDIM):
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            spread = 0 * step.x.sum(0, keepdim=True) if x.ndim > 1 else 0
            yield Step(step.x + spread, step.x0_hat + spread)


class Raises(DDIM):
    def steps(self, model, x, levels, noise):
        raise RuntimeError("out of order\nand more")


@pytest.fixture
def bed(simple_mixture):
    return contract.TestBed(simple_mixture, Rectified())


@pytest.mark.parametrize(
    ("sampler", "promise", "words"),
    [
        (InPlace(), "states", "changed in place"),
        (OneTooMany(), "states", "5 steps yield 6 states"),
        (NotTheEnd(), "end", "is not its x̂₀, and ends_at_data is True"),
        (OtherBits(), "bits", "the same key gives other bits"),
        (OtherBits(), "generators", "global"),
        (SecretNoise(), "bits", "draws from noise, and stochastic is False"),
        (Crowd(), "neighbours", "depends on its neighbours"),
        (Single(), "type", "from a torch.float64 start on cpu the state is torch.float32"),
        (Miscounted(), "evaluations", "is 2, and 1 are made"),
        (AnyScore(), "needs", "denoiser"),
        (Anywhere(), "needs", "does not refuse a score"),
        (Anywhere(), "levels", "takes levels that stand still"),
        (Above(), "noise", "most_noise is"),
        (Forgetful(), "lost", "becomes a number again"),
        (Spreading(), "lost", "makes others NaN"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, DDIM) else None,
)
def test_a_broken_promise_is_named(bed, sampler, promise, words):
    named = {line.partition(": ")[0]: line for line in broken(sampler, bed)}
    assert words in named[promise]
    assert not any("\n" in line for line in named.values())


def test_others_do_not_complain(bed):
    for sampler in (Miscounted(), NotTheEnd(), Single()):
        assert len(broken(sampler, bed)) == 1
    assert broken(DDIM(), bed) == []
    assert broken(DDIM(), contract.TestBed(bed.law, EDM())) == []


def test_what_raises_is_named(bed):
    lines = broken(Raises(), bed)
    assert "states: RuntimeError: out of order" in lines
    assert len(lines) >= len(PROMISES) - 2
