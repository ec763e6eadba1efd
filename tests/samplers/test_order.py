"""Orders of convergence, against the exact flow (Gaussian) and a fine reference (mixture)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from samplerbench.core.grids import Level
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM
from samplerbench.samplers.base import final_state
from samplerbench.samplers.rk2 import RK2
from samplerbench.verify.exact_law import noised_law, output_law

STEPS = [40, 80, 160, 320]
FEWER = STEPS[:3]  # of the exact law, whose cost is quadratic
# The midpoint method on x' = σ·x/(λ + σ²): of the local error x‴/24 + f_x·x″/8 nothing is left
# for x = √(λ + σ²), where x″ = λ/x³, x‴ = −3λσ/x⁵ and f_x = σ/x². A mixture does not do that.
ONE_MORE_ON_A_GAUSSIAN = {(RK2(0.5), "EDM"), (RK2(0.5), "Rectified")}
NO_NOISE = KeyedNoise(("must not matter",))


def test_samplers_are_found(all_samplers):
    from samplerbench.samplers.annealed_langevin import AnnealedLangevin
    from samplerbench.samplers.ddim import DDIM
    from samplerbench.samplers.dormand_prince import DormandPrince
    from samplerbench.samplers.euler import Euler
    from samplerbench.samplers.heun import Heun
    from samplerbench.samplers.mala import MALA
    from samplerbench.samplers.reverse_sde import ReverseSDE
    from samplerbench.samplers.ula import ULA

    assert {DDIM(), DDIM(0.3), DDIM(1.0), Euler(), Heun()} <= set(all_samplers)
    assert {ULA(), MALA(), AnnealedLangevin(), ReverseSDE()} <= set(all_samplers)
    assert {RK2(), DormandPrince()} <= set(all_samplers)
    assert len(set(all_samplers)) == len(all_samplers)
    assert {type(sampler)() for sampler in all_samplers} <= set(all_samplers), "the defaults"


def gaussian_flow(law, x, now, to):
    """x_s = α_s·m + Σ √((α_s²λ + σ_s²)/(α_t²λ + σ_t²))·(x_t − α_t·m), per eigen-direction."""
    mean, covariance = (torch.tensor(v[0], dtype=x.dtype) for v in (law.means, law.covariances))
    eigenvalues, basis = torch.linalg.eigh(covariance)
    widths = [(at.alpha**2 * eigenvalues + at.sigma**2).sqrt() for at in (to, now)]
    rotated = (x - now.alpha * mean) @ basis
    return to.alpha * mean + (widths[0] / widths[1] * rotated) @ basis.T


def test_gaussian_order(deterministic, schedule, interior, normal_law, states, log_slope):
    oracle, unit, errors = normal_law.oracle(schedule), states(8, 3), []
    for steps in STEPS:
        levels = interior(schedule, steps)
        first, last = levels.rows[0], levels.rows[-1]
        start = first.alpha * torch.tensor(normal_law.means[0]) + 2 * first.sigma * unit
        end = final_state(deterministic, oracle, start, levels, NO_NOISE)
        exact = gaussian_flow(normal_law, start, first, last)
        errors.append(float((end - exact).norm()))
    slope = log_slope(STEPS, errors)
    order = deterministic.order
    order += (deterministic, type(schedule).__name__) in ONE_MORE_ON_A_GAUSSIAN
    assert slope == pytest.approx(order, abs=0.15)


@pytest.fixture(scope="module")
def mixture_reference():
    """x/α at σ/α = .2 of the probability flow from given x/α at 1.9, to 1e-12.

    In x̄ = x/α and u = ln σ/α the flow is dx̄/du = x̄ − x̂₀ on every schedule: it needs no rates, and
    one reference serves all of them.
    """
    cache = {}

    def solve(law, start):
        if law not in cache:
            oracle = law.oracle(EDM())

            def slope(u, flat):
                x = torch.from_numpy(flat).reshape(start.shape)
                return (x - oracle.denoiser(x, Level(0.0, 1.0, float(np.exp(u))))).flatten().numpy()

            ends = np.log([1.9, 0.2])
            flat = start.flatten().numpy()
            result = solve_ivp(slope, ends, flat, method="DOP853", rtol=1e-12, atol=1e-12)
            cache[law] = torch.from_numpy(result.y[:, -1]).reshape(start.shape)
        return cache[law]

    return solve


def test_mixture_order(
    deterministic,
    schedule,
    interior,
    mixture_law,
    mixture_reference,
    states,
    log_slope,
):
    oracle, start, errors = mixture_law.oracle(schedule), 2 * states(8, 2), []
    exact = mixture_reference(mixture_law, start)
    for steps in STEPS:
        levels = interior(schedule, steps, "noise")
        scales = levels.rows[0].alpha, levels.rows[-1].alpha
        end = final_state(deterministic, oracle, scales[0] * start, levels, NO_NOISE)
        errors.append(float((end / scales[1] - exact).norm()))
    slope = log_slope(STEPS, errors)
    assert slope == pytest.approx(deterministic.order, abs=0.15)


def test_gaussian_weak_order(
    stochastic, schedule, interior, normal_law, gaussian_moments, log_slope
):
    """The output's mean and covariance approach the path's own."""
    oracle, moments, errors = normal_law.oracle(schedule), gaussian_moments(normal_law), []
    for steps in FEWER:
        levels = interior(schedule, steps)
        start, exact = (noised_law(*moments, levels.rows[row]) for row in (0, -1))
        law = output_law(stochastic, oracle, levels, *start)
        errors.append(sum(float((got - want).norm()) for got, want in zip(law, exact, strict=True)))
    slope = log_slope(FEWER, errors)
    assert slope == pytest.approx(stochastic.order, abs=0.15)
