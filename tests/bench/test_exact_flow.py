"""The exact flow: closed forms, its order, and the ends of a run."""

import math

import pytest
import torch

from samplerbench.bench.exact_flow import end_of_flow, graded
from samplerbench.core.grids import MOST_NOISE, Levels, TruncatedLevels
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.samplers.base import final_state
from samplerbench.samplers.rk4 import RK4

GAUSSIAN = GaussianSpectrum(*torch.tensor([[0.49, 0.2], [0.3, -0.8]], dtype=torch.float64))
MIXTURE = GaussianMixture(
    (0.4, 0.6), ((1.5, 0.2), (-1.0, 0.0)), (((0.1, 0.05), (0.05, 0.2)), ((0.3, 0.0), (0.0, 0.1)))
)
PATHS = [EDM(10.0), VPLinear(), Rectified()]


def levels_of(schedule, steps, top=8.0, low=0.02, plain=False):
    kappa = torch.from_numpy(graded(math.log(top), math.log(low), steps)).exp()
    times = schedule.time_at(kappa).clamp(0, 1)
    alpha, sigma = schedule(times)
    if plain:
        return TruncatedLevels(times, alpha, sigma)
    zero, one = times.new_zeros(1), times.new_ones(1)
    return Levels(torch.cat([times, zero]), torch.cat([alpha, one]), torch.cat([sigma, zero]))


def starts(levels, count=50):
    first = levels.rows[0]
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return first.alpha * 0.5 + first.sigma * noise


def on_gaussian(x, levels, plain):
    """x − αm shrinks like the standard deviation of the state; the last step is x̂₀."""
    first, last = levels.rows[0], levels.rows[-1 if plain else -2]
    mean, variance = GAUSSIAN.mean, GAUSSIAN.variances
    most, least = first.sigma / first.alpha, last.sigma / last.alpha
    shrunk = ((variance + least**2) / (variance + most**2)).sqrt()
    end = (x / first.alpha - mean) * shrunk
    return mean + (end if plain else end * variance / (variance + least**2))


@torch.no_grad()
def error(law, schedule, steps, plain=False):
    levels, model = levels_of(schedule, steps, plain=plain), law.oracle(schedule)
    x = starts(levels)
    if law is GAUSSIAN:
        exact = on_gaussian(x, levels, plain)
    else:
        exact = end_of_flow(model, x, levels_of(schedule, 2000, plain=plain))
    return float((end_of_flow(model, x, levels) - exact).square().mean().sqrt())


@pytest.mark.parametrize("law", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("schedule", PATHS, ids=lambda path: type(path).__name__)
def test_it_has_order_six(schedule, law):
    coarse, fine = (error(law, schedule, steps) for steps in (80, 160))
    assert 5.5 < math.log2(coarse / fine) < 6.7
    assert fine < 1e-8


@torch.no_grad()
def test_it_ends_where_the_method_of_runge_and_kutta_ends():
    """On the mixture, whose flow has no closed form, and at levels of another method."""
    schedule = VPLinear()
    model, levels = MIXTURE.oracle(schedule), levels_of(schedule, 400)
    x = starts(levels)
    other = final_state(RK4(), model, x, levels, KeyedNoise(("none",)))
    assert (end_of_flow(model, x, levels) - other).abs().max() < 1e-7


def test_it_may_end_at_noise():
    assert error(GAUSSIAN, EDM(10.0), 160, plain=True) < 1e-8
    assert error(GAUSSIAN, VPLinear(), 160, plain=True) < 1e-8


@torch.no_grad()
def test_it_may_begin_without_signal():
    """There x = σ·ε, and the flow of a Gaussian ends at m + √variance·ε."""
    levels = levels_of(Rectified(), 400, top=MOST_NOISE, low=1e-4)
    levels.t[0], levels.alpha[0], levels.sigma[0] = 1.0, 0.0, 1.0
    levels = Levels(levels.t, levels.alpha, levels.sigma)
    noise = starts(levels)
    out = end_of_flow(GAUSSIAN.oracle(Rectified()), noise, levels)
    assert (out - GAUSSIAN.mean - GAUSSIAN.variances.sqrt() * noise).abs().max() < 1e-6


@torch.no_grad()
def test_the_first_interval_is_divided():
    logs = graded(2.0, -4.0, 6)
    assert logs[0] == 2.0
    assert logs[-1] == -4.0
    assert len(logs) == 7 + 5
    assert (logs[1] - logs[0]) == pytest.approx(-1 / 32)
    # the low order of the first steps costs accuracy if they are not short
    schedule, even = EDM(10.0), torch.linspace(math.log(8.0), math.log(0.02), 86).double().exp()
    times = schedule.time_at(even)
    alpha, sigma = schedule(times)
    plain = TruncatedLevels(times, alpha, sigma)
    x = starts(plain)
    exact = on_gaussian(x, plain, True)
    undivided = (end_of_flow(GAUSSIAN.oracle(schedule), x, plain) - exact).square().mean().sqrt()
    assert undivided > 10 * error(GAUSSIAN, schedule, 80, plain=True)
