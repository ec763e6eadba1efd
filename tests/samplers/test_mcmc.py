"""MALA and underdamped Langevin: their steps, their stationary laws, detailed balance."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import mostly_slow
from samplerbench.core.grids import hold
from samplerbench.core.models import Learned
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.targets import DataTarget
from samplerbench.samplers.base import final_state
from samplerbench.samplers.hmc import HMC
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.ula import ULA
from samplerbench.samplers.underdamped import Underdamped
from samplerbench.verify.exact_law import noised_law, output_law

NOISE = KeyedNoise((0, "mcmc"))
IDENTITY = torch.eye(3, dtype=torch.float64)


class Given:
    """Noise that the test sets: one normal number, and one uniform number."""

    def __init__(self, normal, uniform):
        self.numbers = normal, uniform

    def normal(self, like, step, draw=0):
        return self.numbers[0].expand_as(like)

    def uniform(self, like, step, draw=0):
        return torch.full_like(like, self.numbers[1])


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize("step_size", [0.02, 0.3, 2.0])
def test_mala_is_in_detailed_balance(mixture_law, noise, step_size):
    """q(x)·p(x → y) = q(y)·p(y → x) for all pairs of points of a coarse grid in the plane.

    The noise that proposes y from x is known, so the chain itself is asked: with u = 0 it goes to
    y, and `acceptance` is the probability that it would have.
    """
    oracle, levels = mixture_law.oracle(EDM(10.0)), hold(EDM(10.0), 1, noise=noise)
    at = torch.linspace(-2, 2, 5, dtype=torch.float64)
    points, level = torch.cartesian_prod(at, at), levels.rows[0]
    x = points.repeat_interleave(25, 0)
    y = points.repeat(25, 1)
    offset = y - x - step_size * oracle.score(x, level)
    noise_to_y = Given(offset / math.sqrt(2 * step_size), 0.0)
    step = next(iter(MALA(step_size).steps(oracle, x, levels, noise_to_y)))
    accepted = step.info["acceptance"]
    torch.testing.assert_close(step.x[accepted > 0], y[accepted > 0])
    log_flux = (
        oracle.log_density(x, level) - offset.square().sum(-1) / (4 * step_size) + accepted.log()
    ).reshape(25, 25)
    both = log_flux.isfinite() & log_flux.T.isfinite()
    assert both.sum() > 300
    torch.testing.assert_close(log_flux[both], log_flux.T[both], rtol=1e-9, atol=1e-9)
    refused = next(
        iter(MALA(step_size).steps(oracle, x, levels, Given(noise_to_y.numbers[0], 1.0)))
    )
    assert torch.equal(refused.x, x)


def test_mala_without_refusals_is_ula(mixture_law, states):
    oracle, levels, x = mixture_law.oracle(EDM()), hold(EDM(), 1), states(8, 2)
    z = NOISE.normal(x, 0)
    one = final_state(MALA(0.01), oracle, x, levels, Given(z, 0.0))
    torch.testing.assert_close(one, final_state(ULA(0.01), oracle, x, levels, Given(z, 0.0)))


def test_mala_stays_where_the_proposal_has_no_density(mixture_law, states):
    """A far too large step is rejected, also if the log-density there is −∞ or NaN."""
    oracle, levels, x = mixture_law.oracle(EDM()), hold(EDM(), 3), states(8, 2)
    for step_size in (1e6, 1e200):
        steps = list(MALA(step_size).steps(oracle, x, levels, NOISE))
        assert torch.equal(steps[-1].x, x)
        assert steps[-1].info["acceptance"].max() == 0


@pytest.mark.parametrize(
    ("share", "friction"),
    mostly_slow([(0.95, 0.3), (0.3, 4.0), (0.3, math.inf), (0.95, math.inf)], 1),
)
def test_baoab_has_the_exact_law_on_a_gaussian(wide_law, gaussian_moments, friction, share):
    """N(m, S) at every stable step size, where ULA is off by ½h; the start is forgotten."""
    levels = hold(EDM(), 400 if friction < 1 else 150)
    mean, spread = noised_law(*gaussian_moments(wide_law), levels.rows[0])
    step_size = share * 2 * float(torch.linalg.eigvalsh(spread)[0]) ** 0.5
    start = torch.full((3,), 2.0, dtype=torch.float64), 3 * IDENTITY
    got = output_law(Underdamped(step_size, friction), wide_law.oracle(EDM()), levels, *start)
    torch.testing.assert_close(got, (mean, spread), rtol=1e-3, atol=1e-3)


def test_baoab_is_its_five_parts(mixture_law, states):
    """Leimkuhler and Matthews 2013; here each B evaluates the force again."""
    h, gamma, x = 0.3, 0.7, states(8, 2)
    oracle, levels = mixture_law.oracle(EDM(10.0)), hold(EDM(10.0), 6, noise=0.4)
    level, v = levels.rows[0], NOISE.normal(x, 0, 1)
    for i, step in enumerate(Underdamped(h, gamma).steps(oracle, x, levels, NOISE)):
        v = v + h / 2 * oracle.score(x, level)
        x = x + h / 2 * v
        v = math.exp(-gamma * h) * v + math.sqrt(1 - math.exp(-2 * gamma * h)) * NOISE.normal(x, i)
        x = x + h / 2 * v
        v = v + h / 2 * oracle.score(x, level)
        torch.testing.assert_close(step.x, x, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(step.x0_hat, oracle.denoiser(x, level), rtol=1e-9, atol=1e-9)


def test_baoab_at_infinite_friction(mixture_law, states):
    """x ← x + τ·s(x) + √(2τ)·½(z + z'), τ = ½h²: ULA's drift, and each draw used twice."""
    h, x = 0.3, states(8, 2)
    oracle, levels = mixture_law.oracle(EDM(10.0)), hold(EDM(10.0), 6, noise=0.4)
    steps = Underdamped(h, math.inf).steps(oracle, x, levels, NOISE)
    for i, step in enumerate(steps):
        z = NOISE.normal(x, i)
        if i > 0:
            tau, drift = h**2 / 2, oracle.score(x, levels.rows[0])
            x = x + tau * drift + math.sqrt(2 * tau) * (NOISE.normal(x, i - 1) + z) / 2
            torch.testing.assert_close(step.x, x, rtol=1e-11, atol=1e-11)
        x = step.x


def test_what_they_refuse(mixture_law):
    """A network has no density, and if it learned x̂₀ it has no score at the data."""
    learned = Learned(torch.nn.Identity(), DataTarget(), EDM(), torch.zeros(2))
    reason = MALA().why_incompatible(learned, hold(EDM(), 4, noise=0.1))
    assert "needs the log-density" in reason
    assert "sampler=ula" in reason
    assert "no score without noise" in Underdamped().why_incompatible(learned, hold(EDM(), 4))
    assert Underdamped().why_incompatible(learned, hold(EDM(), 4, noise=0.1)) is None
    assert MALA().why_incompatible(mixture_law.oracle(EDM()), hold(EDM(), 4)) is None


def test_hmc_has_the_denoised_state(mixture_law, states):
    """It is that of Tweedie's formula, also at a level with α < 1."""
    levels, oracle = hold(VPLinear(), 3, noise=0.7), mixture_law.oracle(VPLinear())
    level = levels.rows[0]
    assert level.alpha < 0.9
    for step in HMC(0.3, 2).steps(oracle, states(5, 2), levels, NOISE):
        torch.testing.assert_close(step.x0_hat, oracle.denoiser(step.x, level))
