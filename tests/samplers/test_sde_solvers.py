"""Samplers of newer papers, from ER-SDE to HMC: other formulas, limits, laws."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, qmc

from samplerbench.core.grids import Level, Levels, hold, karras, uniform
from samplerbench.core.line_laws import MixtureLine
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.datasets.gaussian import gaussian
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_optimal import DDPMOptimal
from samplerbench.samplers.er_sde import ERSDE
from samplerbench.samplers.etd2rk import ETD2RK
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.flow_sde import FlowSDE
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.hmc import HMC
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.multistep import adams_weights, constant_weights, quadrature
from samplerbench.samplers.restart import Restart
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.sa_solver import SASolver
from samplerbench.samplers.sde_dpmpp_1 import SDEDPMpp1
from samplerbench.samplers.unipc import UniPC
from samplerbench.verify.exact_law import gaussian_w2, noised_law, output_law
from samplerbench.verify.orders import GAUSSIAN, LINE, interior

NOISE = KeyedNoise((0, "sde solvers"))
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def run(mixture_law, states):
    """The last state on uneven levels of a path."""

    def last(sampler, schedule=None, levels=None, noise=NOISE):
        schedule = schedule or VPLinear()
        levels = levels or karras(schedule, 9, noise_min=0.05, noise_max=20.0, rho=4)
        x = levels.rows[0].sigma * states(16, 2)
        return final_state(sampler, mixture_law.oracle(schedule), x, levels, noise)

    return last


# ER-SDE


def scale(kappa):
    return kappa * (math.exp(kappa**0.3) + 10)


def rate(kappa):
    """dφ/dκ."""
    return math.exp(kappa**0.3) * (1 + 0.3 * kappa**0.3) + 10


@pytest.mark.parametrize("points", [1, 2, 3])
def test_er_sde_integrates_a_polynomial(mixture_law, states, points):
    """The exact solution x̄_s = r·x̄_t + φ(κ_s)·∫ φ'/φ²·x̂₀(κ) dκ, by scipy, with noise in x/α."""
    schedule = VPLinear()
    levels = karras(schedule, 8, noise_min=0.05, noise_max=20.0, rho=4)
    oracle, past = mixture_law.oracle(schedule), []
    x = levels.rows[0].sigma * states(8, 2)
    ours = ERSDE(points).steps(oracle, x, levels, NOISE)
    for (i, now, to), step in zip(levels.pairs(), ours, strict=True):
        x0_hat = oracle.denoiser(x, now)
        here, there = now.sigma / now.alpha, to.sigma / to.alpha
        past = [(here, x0_hat), *past][:points]
        if there == 0:
            x = x0_hat
        else:
            differences = [
                (new[1] - old[1]) / (new[0] - old[0]) for new, old in itertools.pairwise(past)
            ]
            taylor = [x0_hat, *differences[:1]]
            if len(differences) == 2:
                one, other = differences
                taylor.append((one - other) / (here - past[2][0]))
            bar = scale(there) / scale(here) * x / now.alpha
            for power, term in enumerate(taylor):

                def integrand(kappa, power=power, here=here):
                    return rate(kappa) / scale(kappa) ** 2 * (kappa - here) ** power

                bar = bar + scale(there) * quad(integrand, there, here, epsabs=1e-14)[0] * term
            fresh = there**2 - (scale(there) / scale(here) * here) ** 2
            x = to.alpha * (bar + math.sqrt(fresh) * NOISE.normal(x, i))
        torch.testing.assert_close(step.x, x, rtol=1e-8, atol=1e-8)


def test_er_sde_without_a_scale_of_its_own(run):
    """φ = κ is the flow, φ = κ² the plain reverse SDE; two points in κ are Adams–Bashforth's."""
    for name, eta in (("ode", 0.0), ("sde", 1.0)):
        torch.testing.assert_close(run(ERSDE(1, name)), run(DDIM(eta)), **CLOSE)
    levels = karras(VPLinear(), 9, noise_min=0.05, noise_max=20.0, rho=4)
    at, spacing = quadrature(levels)
    measure = levels.alpha[1:, None] * (at - (levels.alpha / levels.sigma).log()[1:, None]).exp()
    weights = adams_weights(
        levels.sigma / levels.alpha, (-at).exp(), measure * spacing, constant_weights(levels), 2
    )
    sampler = ERSDE(2, "ode")
    kept, _, first, _ = sampler._coefficients(levels)
    for i, now, to in list(levels.pairs())[1:-1]:
        before = levels.rows[i - 1]
        own = -to.alpha * first[i] / (now.sigma / now.alpha - before.sigma / before.alpha)
        assert own == pytest.approx(weights[i][1], rel=1e-9)
        assert kept[i] == pytest.approx(to.sigma / now.sigma)


# SA-Solver


@pytest.mark.parametrize(
    "sampler",
    [
        SASolver(),
        SASolver(3, 0),
        SASolver(1, 2, tau=0.4),
        SASolver(2, 1, tau=1.5, tau_min=0.3, tau_max=3.0),
        SASolver(2, 3, pece=True),
        SASolver(3, 3, tau=0.0),
    ],
    ids=repr,
)
def test_sa_solver_is_algorithm_1(mixture_law, states, sampler):
    """With scipy's quadrature of numpy's Lagrange polynomials, as a loop of predict and correct."""
    schedule = VPLinear()
    levels = karras(schedule, 8, noise_min=0.05, noise_max=20.0, rho=4)
    oracle = mixture_law.oracle(schedule)
    lam = (levels.alpha / levels.sigma).log().tolist()

    def moved(x, i, nodes, outputs, z):
        """From level i to i + 1 with the polynomial through the outputs at the nodes."""
        now, to = levels.rows[i], levels.rows[i + 1]
        tau = sampler.tau if sampler.tau_min <= now.sigma / now.alpha <= sampler.tau_max else 0.0
        h = lam[i + 1] - lam[i]
        x = to.sigma / now.sigma * math.exp(-(tau**2) * h) * x
        for j, output in enumerate(outputs):
            others = [lam[k] for k in nodes if k != nodes[j]]

            def integrand(at, own=lam[nodes[j]], others=others):
                basis = math.prod((at - other) / (own - other) for other in others)
                return math.exp(-(tau**2) * (lam[i + 1] - at) + at) * (1 + tau**2) * basis

            x = x + to.sigma * quad(integrand, lam[i], lam[i + 1], epsabs=1e-13)[0] * output
        return x + to.sigma * math.sqrt(1 - math.exp(-2 * tau**2 * h)) * z

    base = levels.rows[0].sigma * states(8, 2)
    ours = [step.x for step in sampler.steps(oracle, base, levels, NOISE)]
    known = {0: oracle.denoiser(base, levels.rows[0])}
    for i in range(levels.steps - 1):
        z = NOISE.normal(base, i)
        nodes = [i - j for j in range(sampler.predictor) if i >= j]
        x = moved(base, i, nodes, [known[k] for k in nodes], z)
        torch.testing.assert_close(ours[i], x, **CLOSE)
        known[i + 1] = oracle.denoiser(x, levels.rows[i + 1])
        if sampler.corrector > 0:
            nodes = [i + 1 - j for j in range(sampler.corrector) if i + 1 >= j]
            x = moved(base, i, nodes, [known[k] for k in nodes], z)
            if sampler.pece:
                known[i + 1] = oracle.denoiser(x, levels.rows[i + 1])
        base = x
    torch.testing.assert_close(ours[-1], known[levels.steps - 1], **CLOSE)


def test_limits_of_sa_solver(run):
    for tau in (0.0, 0.5, 1.0):
        one = run(SASolver(1, 0, tau=tau))
        torch.testing.assert_close(one, run(SDEDPMpp1(tau**2)), **CLOSE)
    # UniPC-3's polynomials, except for its own rules in the first steps
    outside = {"tau_min": 50.0, "tau_max": 60.0}
    assert torch.equal(run(SASolver(**outside)), run(SASolver(tau=0.0)))
    levels = karras(VPLinear(), 80, noise_min=0.05, noise_max=20.0)
    one, two = (run(s, levels=levels) for s in (SASolver(3, 3, tau=0.0), UniPC(2)))
    assert float((one - two).norm()) < 1e-3 * float(two.norm())


def test_sa_solver_of_order_1_is_diffusers(mixture_law, states):
    """On our levels. From order 2 on their weight of the difference of two outputs is another."""
    module = pytest.importorskip("diffusers.schedulers.scheduling_sasolver")
    levels = uniform(VPLinear(), 9)
    theirs = module.SASolverScheduler(
        1000,
        predictor_order=1,
        corrector_order=1,
        prediction_type="sample",
        lower_order_final=False,
        tau_func=lambda t: 1.0,
    )
    theirs.set_timesteps(levels.steps)
    theirs.sigmas = levels.sigma / levels.alpha
    theirs.timesteps = torch.arange(levels.steps, 0, -1)
    oracle, x = mixture_law.oracle(VPLinear()), levels.rows[0].sigma * states(8, 2)
    ours = SASolver(1, 1).steps(oracle, x, levels, NOISE)
    draws = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda *_, **__: draws[-1])
        for (i, now, to), step in zip(levels.pairs(), ours, strict=True):
            if to.sigma == 0:  # theirs would correct and go to σ = 0
                break
            draws.append(NOISE.normal(x, i))
            x0_hat = oracle.denoiser(x, now)
            x = theirs.step(x0_hat, theirs.timesteps[i], x).prev_sample
            torch.testing.assert_close(step.x, x, rtol=1e-5, atol=1e-5)


# the SDE of a flow


def test_the_flow_sde_between_its_limits(run, mixture_law, states):
    """Without noise it is Euler's method; with half of g² on a VE path it is written out here."""
    for schedule in (VPLinear(), Rectified()):
        levels = uniform(schedule, 9, t_max=0.9)
        runs = [run(one, schedule, levels) for one in (FlowSDE(scale=0.0), Euler())]
        torch.testing.assert_close(*runs, **CLOSE)
    schedule = EDM(20.0)
    levels = uniform(schedule, 9)
    runs = [run(one, schedule, levels) for one in (FlowSDE(scale=2.0), ReverseSDE())]
    torch.testing.assert_close(*runs, **CLOSE)


def test_the_flow_sde_is_sits_on_the_rectified_path(mixture_law, states):
    """x_s = x_t − Δt·v + ½w·Δt·s + √(w·Δt)·z with v = ε̂ − x̂₀ and w = σ_t or sin²(πt)."""
    levels, oracle = uniform(Rectified(), 9), mixture_law.oracle(Rectified())
    for name, w in (("sigma", lambda t: t), ("sine", lambda t: math.sin(math.pi * t) ** 2)):
        x = states(8, 2)
        ours = FlowSDE(name, 0.7).steps(oracle, x, levels, NOISE)
        for (i, now, to), step in zip(levels.pairs(), ours, strict=True):
            x0_hat = oracle.denoiser(x, now)
            eps = (x - (1 - now.t) * x0_hat) / now.t
            h, rate = now.t - to.t, 0.7 * w(now.t)
            x = x - h * (eps - x0_hat) - 0.5 * rate * h * eps / now.t
            x = x + math.sqrt(rate * h) * NOISE.normal(x, i)
            if to.sigma == 0:
                x = x0_hat
            torch.testing.assert_close(step.x, x, **CLOSE)


def test_the_flow_sde_has_the_width_of_wide_and_of_narrow_data():
    """Exact laws: with 250 steps all widths are right to 1 %."""
    widths, zero = torch.tensor([1.0, 0.4, 0.1], dtype=torch.float64), torch.zeros(3).double()
    law = gaussian([0.3] * 3, widths.square().diag().tolist())
    oracle, levels = law.oracle(Rectified()), uniform(Rectified(), 250)
    mean, covariance = output_law(FlowSDE(), oracle, levels, zero, torch.eye(3).double())
    torch.testing.assert_close(mean, zero + 0.3, **CLOSE)
    torch.testing.assert_close(covariance.diagonal().sqrt(), widths, rtol=0.01, atol=0.0)


# the optimal covariance


def test_full_covariance_has_no_error_on_a_gaussian():
    """Three steps suffice. With the diagonal alone, and with DDIM(1), there is an error."""
    levels = interior(VPLinear(), 3)
    mean, covariance = (torch.tensor(v[0]).double() for v in (GAUSSIAN.means, GAUSSIAN.covariances))
    start, exact = (noised_law(mean, covariance, levels.rows[row]) for row in (0, -1))
    oracle = GAUSSIAN.oracle(VPLinear())
    errors = [
        gaussian_w2(*output_law(sampler, oracle, levels, *start), *exact)
        for sampler in (DDPMOptimal(), DDPMOptimal("diagonal"), DDIM(1.0))
    ]
    assert errors[0] < 1e-7
    assert 1e-3 < errors[1] < errors[2]


def test_the_covariance_is_that_of_many_draws(states):
    """Cov[x₀ | x_t] of a mixture on a line, by weights on a fine grid of x₀."""
    schedule, x = VPLinear(), states(5, 1)
    levels = uniform(schedule, 4)
    now, to = levels.rows[1:3]
    grid = np.linspace(-6, 6, 20001)
    weights, means, variances = (v.flatten().numpy() for v in LINE.tensors())
    density = sum(
        w * norm.pdf(grid, m, math.sqrt(v))
        for w, m, v in zip(weights, means, variances, strict=True)
    )
    first = Levels(*(c[1:3] for c in (levels.t, levels.alpha, levels.sigma)))

    class Ones:
        def __init__(self, size: float) -> None:
            self.size = size

        def normal(self, like, step, draw=0):
            return self.size * torch.ones_like(like)

    oracle = LINE.oracle(schedule)
    low, high = (final_state(DDPMOptimal(), oracle, x, first, Ones(z)) for z in (-1.0, 1.0))
    for row in range(5):
        share = density * norm.pdf(float(x[row]), now.alpha * grid, now.sigma)
        share = share / share.sum()
        centre = (share * grid).sum()
        spread = (share * grid**2).sum() - centre**2
        kept = now.alpha * to.sigma**2 / (to.alpha * now.sigma**2)
        pull = to.alpha * (1 - (now.alpha * to.sigma / (now.sigma * to.alpha)) ** 2)
        bridge = to.sigma**2 - (now.alpha * to.sigma**2 / (to.alpha * now.sigma)) ** 2
        mean = kept * float(x[row]) + pull * centre
        assert float(low[row] + high[row]) / 2 == pytest.approx(mean, rel=1e-6)
        variance = (float(high[row] - low[row]) / 2) ** 2
        assert variance == pytest.approx(bridge + pull**2 * spread, rel=1e-6)


def test_a_network_has_no_covariance(mixture_law):
    levels = uniform(VPLinear(), 4)
    oracle = mixture_law.oracle(VPLinear())
    assert DDPMOptimal().why_incompatible(oracle, levels) is None
    oracle.has_covariance = False
    assert "only exact denoisers have" in DDPMOptimal().why_incompatible(oracle, levels)


# Restart


def test_restart_is_heun_with_a_loop(mixture_law, states):
    """At the level nearest to κ_min, as nested loops of EDM's Heun in σ; counted evaluations."""
    schedule = EDM(10.0)
    levels, oracle = karras(schedule, 8, noise_min=0.02), mixture_law.oracle(schedule)
    sampler = Restart(repeats=3, restart_steps=4, restart_min=0.3, restart_max=1.5)
    sigmas, evaluations = levels.sigma.tolist(), 0
    place = int(np.argmin([abs(s - 0.3) for s in sigmas]))

    def slope(x, sigma):
        nonlocal evaluations
        evaluations += 1
        return (x - oracle.denoiser(x, dataclasses.replace(levels.rows[0], sigma=sigma))) / sigma

    def heun(x, path):
        for now, to in itertools.pairwise(path):
            d = slope(x, now)
            late = d if to == 0 else slope(x + (to - now) * d, to)
            x = x + (to - now) * (d + late) / 2
        return x

    x = start = 10 * states(8, 2)
    x = heun(x, sigmas[: place + 1])
    inner = [
        (1.5 ** (1 / 7) + i / 3 * (sigmas[place] ** (1 / 7) - 1.5 ** (1 / 7))) ** 7
        for i in range(4)
    ]
    for repeat in range(3):
        kick = math.sqrt(1.5**2 - sigmas[place] ** 2)
        x = heun(x + kick * NOISE.normal(x, place - 1, repeat), inner)
    x = heun(x, sigmas[place:])
    ours = final_state(sampler, oracle, start, levels, NOISE)
    torch.testing.assert_close(ours, x, rtol=1e-8, atol=1e-8)
    assert evaluations == sampler.least_evaluations(8) == 15 + 18


def test_restart_without_a_level_below_is_heun(run):
    levels = uniform(VPLinear(), 3)
    low = Restart(restart_min=0.01, restart_max=0.02)
    assert torch.equal(run(low, levels=levels), run(Heun(), levels=levels))
    assert torch.equal(run(Restart(repeats=0)), run(Heun()))
    high = Restart(restart_max=30.0)
    assert "the path to 20" in high.why_incompatible(GAUSSIAN.oracle(EDM(20.0)), levels)


@pytest.mark.slow
def test_the_law_of_restart_converges():
    """With N and restart_steps together, by order 2 on a Gaussian; from a start of twice the width
    a restart removes most of the error of the start."""
    schedule, oracle = EDM(20.0), GAUSSIAN.oracle(EDM(20.0))
    mean, covariance = (torch.tensor(v[0]).double() for v in (GAUSSIAN.means, GAUSSIAN.covariances))

    def error(sampler, steps, width=1.0):
        levels = karras(schedule, steps, noise_min=0.02)
        start, spread = noised_law(mean, covariance, levels.rows[0])
        law = output_law(sampler, oracle, levels, start, width * spread)
        return gaussian_w2(*law, mean, covariance)

    few, many = (
        error(Restart(2, steps, restart_min=0.5, restart_max=3.0), steps) for steps in (20, 80)
    )
    assert few / many == pytest.approx(16, rel=0.35)
    plain = error(Heun(), 80, width=1.2)
    assert error(Restart(4, 40, restart_min=0.1, restart_max=10.0), 80, width=1.2) < plain / 5


# weak orders on a mixture


class EvenNoise:
    """Standard normal draws from the columns of even uniform numbers, one for each draw."""

    def __init__(self, uniforms) -> None:
        self.columns = iter(torch.special.ndtri(uniforms).T)

    def normal(self, like, step, draw=0):
        return next(self.columns)[:, None]


def error_of_moments(sampler, steps):
    """Of the first three moments on the line, with the standard error over scrambled Sobol sets."""
    oracle, levels = LINE.oracle(Rectified()), interior(Rectified(), steps)
    first, last = levels.rows[0], levels.rows[-1]
    weights, means, variances = (v.flatten() for v in LINE.tensors())
    law = MixtureLine(weights, first.alpha * means, spread(first, variances).sqrt())
    m, v = last.alpha * means, spread(last, variances)
    exact = torch.stack([weights @ m, weights @ (m**2 + v), weights @ (m**3 + 3 * m * v)])
    errors = []
    for seed in range(4):
        u = torch.from_numpy(qmc.Sobol(steps + 1, seed=seed).random_base2(16)).clamp(1e-12)
        x = law.quantile(u[:, 0])[:, None]
        y = final_state(sampler, oracle, x, levels, EvenNoise(u[:, 1:]))
        errors.append(torch.stack([(y**k).mean() for k in (1, 2, 3)]) - exact)
    found = torch.stack(errors)
    return float(found.mean(0).norm()), float(found.std(0).norm()) / 2


def spread(level, variances):
    return level.alpha**2 * variances + level.sigma**2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "steps", "least", "most"),
    [
        (ERSDE(), 10, 1.85, 2.35),
        (SASolver(1, 2), 10, 1.75, 2.15),
        (SASolver(1, 2, pece=True), 10, 1.7, 2.15),
        (SASolver(), 6, 2.0, 3.3),  # still falls faster than N⁻²; later it is below the noise
    ],
    ids=repr,
)
def test_weak_order_on_a_mixture_by_even_draws(sampler, steps, least, most):
    """For samplers with too much memory for a density; exact moments, and even normal draws."""
    (few, of_few), (many, of_many) = (error_of_moments(sampler, n) for n in (steps, 2 * steps))
    assert of_few / few < 0.1
    assert of_many / many < 0.35
    assert least < math.log2(few / many) < most


@pytest.mark.slow
def test_weak_order_of_the_optimal_covariance_on_a_mixture():
    """By a matrix of transition probabilities on a fine grid of states."""
    schedule, oracle = VPLinear(), LINE.oracle(VPLinear())
    grid = torch.linspace(-7, 7, 1401, dtype=torch.float64)[:, None]

    class Sizes:
        def __init__(self, size: float) -> None:
            self.size = size

        def normal(self, like, step, draw=0):
            return self.size * torch.ones_like(like)

    def error(steps):
        levels = interior(schedule, steps)
        mass = density(levels.rows[0])
        for step in range(steps):
            part = Levels(*(c[step : step + 2] for c in (levels.t, levels.alpha, levels.sigma)))
            low, high = (
                final_state(DDPMOptimal(), oracle, grid, part, Sizes(z)).numpy() for z in (-1, 1)
            )
            mean, width = (high + low) / 2, (high - low) / 2
            mass = mass @ norm.pdf(grid.T.numpy(), mean, width) * float(grid[1] - grid[0])
        return np.abs(np.cumsum(mass - density(levels.rows[-1]))).sum() * 0.01**2

    def density(level):
        return oracle.log_density(grid, level).exp().numpy()

    few, many = error(16), error(32)
    assert math.log2(few / many) == pytest.approx(2, abs=0.25)


# ETD2RK


def test_etd2rk_integrates_a_line_through_two_outputs(mixture_law, states):
    """x_s = (σ_s/σ_t)·x_t + α_s·∫ e^{λ−λ_s}·x̂₀(λ) dλ, x̂₀ linear in λ; the middle by DDIM(0)."""
    schedule = VPLinear()
    levels = karras(schedule, 8, noise_min=0.05, noise_max=20.0, rho=4)
    oracle, x = mixture_law.oracle(schedule), levels.rows[0].sigma * states(8, 2)
    ours = ETD2RK().steps(oracle, x, levels, NOISE)
    for (_, now, to), step in zip(levels.pairs(), ours, strict=True):
        early = oracle.denoiser(x, now)
        if to.sigma == 0:
            x = early
        else:
            first, last = (math.log(level.alpha / level.sigma) for level in (now, to))
            t = schedule.time_at(torch.tensor([math.exp(-(first + last) / 2)]).double())
            middle = Level(*(float(v) for v in (t, *schedule(t))))
            kept = middle.sigma / now.sigma
            u = kept * x + (middle.alpha - kept * now.alpha) * early
            slope = (oracle.denoiser(u, middle) - early) / ((last - first) / 2)
            x = to.sigma / now.sigma * x
            for power, term in enumerate((early, slope)):

                def integrand(at, power=power, first=first, last=last):
                    return math.exp(at - last) * (at - first) ** power

                x = x + to.alpha * quad(integrand, first, last, epsabs=1e-13)[0] * term
        torch.testing.assert_close(step.x, x, rtol=1e-8, atol=1e-8)


# Hamiltonian Monte Carlo


def test_hmc_with_one_leapfrog_step_is_mala(states):
    """MALA has h = ½ε², the same noise and the same uniform number; some proposals are rejected."""
    law = GAUSSIAN.oracle(EDM())
    levels = hold(EDM(), 30, noise=0.0)
    ends = [
        torch.stack([step.x for step in sampler.steps(law, 2 * states(50, 2), levels, NOISE)])
        for sampler in (HMC(0.9, 1), MALA(0.5 * 0.9**2))
    ]
    torch.testing.assert_close(*ends, **CLOSE)
    stays = (ends[0][1:] == ends[0][:-1]).all(-1)
    assert 0.02 < float(stays.double().mean()) < 0.5


def test_hmc_follows_hamiltons_equations(states):
    """On N(0, c²) an exact trajectory turns (x, c·v) by the angle εL/c, and is never rejected."""
    law = gaussian([0.0], [[4.0]]).oracle(EDM())
    levels, x = hold(EDM(), 1, noise=0.0), states(50, 1)
    (step,) = HMC(0.001, 500).steps(law, x, levels, NOISE)
    angle = 0.001 * 500 / 2
    exact = math.cos(angle) * x + 2 * math.sin(angle) * NOISE.normal(x, 0)
    torch.testing.assert_close(step.x, exact, rtol=1e-6, atol=1e-6)
    assert float(step.info["acceptance"].min()) > 1 - 1e-6


# types


@pytest.mark.parametrize(
    "sampler",
    [ERSDE(), SASolver(), SASolver(2, 3, pece=True), FlowSDE(), Restart(), DDPMOptimal()],
    ids=repr,
)
def test_states_in_float32_are_near_those_in_float64(mixture_law, states, sampler):
    schedule = VPLinear()
    levels = karras(schedule, 20, noise_min=0.05, noise_max=20.0)
    x = levels.rows[0].sigma * states(16, 2)

    class Rounded:
        """The same noise for states of every type."""

        def normal(self, like, step, draw=0):
            return NOISE.normal(x, step, draw).to(like)

    ends = [
        final_state(sampler, mixture_law.oracle(schedule), start, levels, Rounded()).double()
        for start in (x, x.float())
    ]
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-3)
