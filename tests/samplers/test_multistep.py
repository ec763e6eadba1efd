"""Multistep samplers: weights by other means, each other, diffusers and azula, special settings."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from samplerbench.core.grids import Level, Levels, karras, to_data
from samplerbench.core.models import Counted
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPCosine, VPLinear
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.adams_bashforth import AdamsBashforth
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.deis import DEISLogRho, DEISRho, DEISTime
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.ipndm import IPNDM
from samplerbench.samplers.multistep import data_weights, half_weights
from samplerbench.samplers.unipc import UniPC

NOISE = KeyedNoise((0, "multistep"))
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
DEIS = [DEISTime, DEISRho, DEISLogRho]
NOT_VARIANTS = [DPMSolverPP(points=3), UniPC(3), UniPC(3, bh1=True), *(kind(4) for kind in DEIS)]


@pytest.fixture
def uneven():
    """Levels whose steps differ in every clock, on a variance-preserving path, with the data."""
    times = torch.tensor([0.93, 0.9, 0.78, 0.7, 0.52, 0.41, 0.33, 0.2, 0.14, 0.05])
    return to_data(VPLinear(), times.double())


@pytest.fixture
def oracle(mixture_law):
    return mixture_law.oracle(VPLinear())


@pytest.fixture
def compare(oracle, uneven, states):
    """Our states against `step(x0_hat, index, x) -> x` of another code, until the data."""

    def run(sampler, step, tolerance=CLOSE, data=True):
        x, count = states(16, 2), uneven.steps - (not data)
        for index, ours in zip(range(count), sampler.steps(oracle, x, uneven, NOISE), strict=False):
            x = step(oracle.denoiser(x, uneven.rows[index]), index, x)
            torch.testing.assert_close(ours.x, x, **tolerance)

    return run


# --- weights


def lagrange(nodes, j):
    return lambda u: np.prod(
        [(u - other) / (nodes[j] - other) for i, other in enumerate(nodes) if i != j]
    )


@pytest.mark.parametrize(
    ("points", "newest"), [(1, 0), (2, 0), (3, 0), (4, 0), (2, 1), (3, 1), (4, 1)]
)
def test_weights_are_the_integrals(uneven, points, newest):
    """Against adaptive quadrature, with as many nodes as there are in the first steps."""
    lam = (uneven.alpha.log() - uneven.sigma.log()).tolist()
    weights = data_weights(uneven, points, newest)
    for step in range(uneven.steps - 1):
        nodes = lam[max(0, step + newest - points + 1) : step + newest + 1][::-1]
        for j in range(points):
            want = 0.0
            if j < len(nodes):
                basis = lagrange(nodes, j)
                kernel = lambda u, b=basis, end=lam[step + 1]: np.exp(u - end) * b(u)  # noqa: E731
                integral = quad(kernel, lam[step], lam[step + 1], epsabs=1e-13, epsrel=1e-13)
                want = float(uneven.alpha[step + 1]) * integral[0]
            assert weights[step][j] == pytest.approx(want, rel=1e-11, abs=1e-12)


def test_weights_of_long_and_short_steps():
    """Steps of h = 13.8 and of 1e-6 in log-SNR, against the closed form in extended precision."""
    kappas = torch.tensor([1e3, 1e-3, 1e-3 * np.exp(-1e-6)], dtype=torch.float64)
    levels = Levels(kappas / 80, torch.ones_like(kappas), kappas)
    h = np.longdouble(kappas.log().diff().neg().numpy())
    slope = 1 + np.expm1(-h) / h  # w₁·h'/h, where it does not cancel
    assert data_weights(levels, 2, newest=1)[0][0] == pytest.approx(float(slope[0]), rel=1e-13)
    short = float(h[1] / 2 - h[1] ** 2 / 6)
    assert data_weights(levels, 2, newest=1)[1][0] == pytest.approx(short, rel=1e-9)


def test_half_weights_differ_by_a_second_power(log_slope):
    """½·b·h/h' from the exact two-point weight; what it multiplies is O(h) itself."""
    steps, gaps = [20, 40, 80], []
    for count in steps:
        levels = karras(EDM(10.0), count, noise_max=2.0, noise_min=0.2)
        halves, exact = half_weights(levels)[5], data_weights(levels, 2)[5]
        gaps.append(abs(halves[1] - exact[1]))
    assert log_slope(steps, gaps) == pytest.approx(2, abs=0.2)


# --- each other


@pytest.mark.parametrize("sampler", [AdamsBashforth(1), IPNDM(1), *(kind(1) for kind in DEIS)])
@pytest.mark.parametrize("path", [VPCosine(), Rectified(), EDM(10.0)], ids=repr)
def test_one_point_is_ddim(sampler, path, mixture_law, states, full):
    """From the very end of the path too, where no signal is left."""
    levels, model = full(path, 9), mixture_law.oracle(path)
    start = levels.rows[0].sigma * states(16, 2)
    one, two = (final_state(s, model, start, levels, NOISE) for s in (sampler, DDIM(0.0)))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("points", [2, 3, 4])
def test_ipndm_is_rho_ab_on_a_uniform_grid(points, mixture_law, states, full):
    """On levels uniform in σ/α the classical weights are the right ones."""
    model, levels = mixture_law.oracle(EDM(10.0)), full(EDM(10.0), 12)
    start = 10 * states(16, 2)
    one, two = (
        final_state(s, model, start, levels, NOISE) for s in (IPNDM(points), DEISRho(points))
    )
    torch.testing.assert_close(one, two, **CLOSE)
    three = final_state(DEISLogRho(points), model, start, levels, NOISE)
    assert (one - three).abs().max() > 1e-3


@pytest.mark.parametrize("points", [2, 3])
def test_deis_clocks_are_one_where_they_are_linear(points, mixture_law, states, full):
    """t is linear in σ on `EDM`: tAB is ρAB."""
    model, levels = mixture_law.oracle(EDM(10.0)), full(EDM(10.0), 12)
    start = 10 * states(16, 2)
    one, two = (
        final_state(kind(points), model, start, levels, NOISE) for kind in (DEISTime, DEISRho)
    )
    torch.testing.assert_close(one, two, **CLOSE)


def test_three_points_are_3m_with_twice_the_second_difference(oracle, uneven, states):
    """From the third step on; the first one is the trapezoid's, done again."""
    lam = uneven.alpha.log() - uneven.sigma.log()
    outputs, xs = [], [states(16, 2)]
    for step in AdamsBashforth(3).steps(oracle, xs[0], uneven, NOISE):
        outputs.append(step.x0_hat)
        xs.append(step.x)
    for i in range(2, uneven.steps - 1):
        h2, h1, h = (float(v) for v in lam.diff()[i - 2 : i + 1])
        alpha, scale = uneven.alpha[i + 1], uneven.sigma[i + 1] / uneven.sigma[i]
        d = (outputs[i] - outputs[i - 1]) * (h / h1)
        before = (outputs[i - 1] - outputs[i - 2]) * (h / h2)
        first = d + h1 / (h1 + h2) * (d - before)
        second = h / (h1 + h2) * (d - before)
        phi = 1 + np.expm1(-h) / h
        x = scale * xs[i] - alpha * np.expm1(-h) * outputs[i] + alpha * phi * first
        x = x + alpha * (0.5 - phi / h) * 2 * second
        torch.testing.assert_close(xs[i + 1], x, **CLOSE)


# --- other codes


def diffusers_scheduler(levels, module, name, **settings):
    """One of their schedulers on our levels, in float64 where it allows that."""
    module = pytest.importorskip(f"diffusers.schedulers.scheduling_{module}")
    theirs = getattr(module, name)(1000, lower_order_final=False, **settings)
    theirs.set_timesteps(levels.steps)
    theirs.sigmas = levels.sigma / levels.alpha
    theirs.timesteps = torch.arange(levels.steps, 0, -1)
    return theirs


def stepping(theirs):
    return lambda x0_hat, index, x: theirs.step(x0_hat, theirs.timesteps[index], x).prev_sample


@pytest.mark.parametrize(
    ("sampler", "settings"),
    [
        (DPMSolverPP(2), {"solver_order": 2}),
        (DPMSolverPP(3), {"solver_order": 3}),
        (AdamsBashforth(2), {"solver_order": 2, "solver_type": "heun"}),
    ],
    ids=repr,
)
def test_dpm_solver_pp_is_diffusers(compare, uneven, sampler, settings):
    """To the float32 that their step rounds the state to."""
    theirs = diffusers_scheduler(
        uneven,
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        prediction_type="sample",
        **settings,
    )
    compare(sampler, stepping(theirs), {"rtol": 3e-6, "atol": 3e-6})


@pytest.mark.parametrize("bh1", [False, True])
@pytest.mark.parametrize("points", [1, 2, 3])
def test_unipc_is_diffusers(compare, uneven, points, bh1):
    theirs = diffusers_scheduler(
        uneven,
        "unipc_multistep",
        "UniPCMultistepScheduler",
        solver_order=points,
        solver_type="bh1" if bh1 else "bh2",
        prediction_type="sample",
    )
    compare(UniPC(points, bh1), stepping(theirs), data=False)


def test_both_sizes_of_unipc_are_two_methods(mixture_law, states, full):
    """The default is B₂; B₁ starts from α = 0 too, where h is infinite."""
    path = VPCosine()
    model, levels, x = mixture_law.oracle(path), full(path, 9), states(16, 2)
    two, one = (final_state(UniPC(1, bh1), model, x, levels, NOISE) for bh1 in (False, True))
    assert one.isfinite().all()
    assert (one - two).abs().max() > 1e-3
    assert torch.equal(two, final_state(UniPC(1), model, x, levels, NOISE))


@pytest.mark.parametrize("points", [1, 2, 3])
def test_deis_in_log_rho_is_diffusers(compare, uneven, points):
    theirs = diffusers_scheduler(
        uneven,
        "deis_multistep",
        "DEISMultistepScheduler",
        solver_order=points,
        prediction_type="sample",
    )
    compare(DEISLogRho(points), stepping(theirs), data=False)


def test_ipndm_is_diffusers(compare, uneven):
    """Their network's output is v = α·ε̂ − σ·x̂₀; their last step is no x̂₀."""
    module = pytest.importorskip("diffusers.schedulers.scheduling_ipndm")
    theirs = module.IPNDMScheduler(1000)
    theirs.set_timesteps(uneven.steps)
    theirs.alphas, theirs.betas = uneven.alpha, uneven.sigma

    def step(x0_hat, index, x):
        level = uneven.rows[index]
        eps = (x - level.alpha * x0_hat) / level.sigma
        v = level.alpha * eps - level.sigma * x0_hat
        return theirs.step(v, theirs.timesteps[index], x).prev_sample

    compare(IPNDM(4), step, data=False)


@pytest.mark.parametrize(
    ("kind", "theirs", "points"),
    [
        *((DEISRho, "zABSampler", points) for points in (1, 2, 3, 4)),
        *((DEISLogRho, "zEABSampler", points) for points in (1, 2, 3, 4)),
        # with three points ours starts better
        *((AdamsBashforth, "xEABSampler", points) for points in (1, 2)),
    ],
)
def test_adams_methods_are_azulas(mixture_law, states, kind, theirs, points):
    """On levels that stop before the data; their first step has one point at every order."""
    azula = pytest.importorskip("azula.sample")
    path = VPCosine()
    model, x = mixture_law.oracle(path), states(16, 2)

    class Denoiser:
        schedule = staticmethod(path)

        def __call__(self, x, t):
            level = Level(float(t), *(float(v) for v in path(t)))
            return types.SimpleNamespace(mean=model.denoiser(x, level))

    settings = {"start": 0.9, "stop": 0.05, "steps": 13, "silent": True, "dtype": torch.float64}
    other = getattr(azula, theirs)(Denoiser(), order=points, **settings)
    times = other.timesteps
    levels = Levels(times, *path(times))
    ours = final_state(kind(points), model, x, levels, NOISE)
    torch.testing.assert_close(ours, other(x), **CLOSE)


@pytest.mark.parametrize(
    ("sampler", "theirs", "settings"),
    [
        (DPMSolverPP(2), "sample_dpmpp_2m", {}),
        (AdamsBashforth(2), "sample_dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"}),
        *((DEISRho(k), "sample_lms", {"order": k}) for k in (1, 2, 3, 4)),
    ],
    ids=repr,
)
def test_multistep_is_k_diffusion(mixture_law, states, k_sampling, sampler, theirs, settings):
    """On levels that stop before the data."""
    path = EDM(80.0)
    sigmas = karras(path, 12, noise_max=80.0, noise_min=0.01).sigma[:-1]
    levels, model = Levels(sigmas / 80, torch.ones_like(sigmas), sigmas), mixture_law.oracle(path)
    x = 80 * states(16, 2)
    if "eta" in settings:
        settings = {**settings, "noise_sampler": lambda *_: 0.0}

    def network(x, sigma):
        return model.denoiser(x, Level(float(sigma[0]) / 80, 1.0, float(sigma[0])))

    other = getattr(k_sampling, theirs)(network, x, sigmas, disable=True, **settings)
    torch.testing.assert_close(final_state(sampler, model, x, levels, NOISE), other, **CLOSE)


# --- settings that `variants` leaves out


@pytest.mark.parametrize("sampler", NOT_VARIANTS, ids=repr)
def test_contract_of_the_other_settings(sampler, schedule, simple_mixture, full, states):
    model, levels = simple_mixture.oracle(schedule), full(schedule, 6)
    assert sampler.why_incompatible(model, levels) is None
    x = levels.rows[0].sigma * states(3, 4, 2)
    counted, before = Counted(model), x.clone()
    steps = list(sampler.steps(counted, x, levels, NOISE))
    assert len(steps) == counted.evaluations == sampler.evaluations(6) == 6
    assert all(step.x.isfinite().all() for step in steps)
    assert torch.equal(steps[-1].x, steps[-1].x0_hat)
    assert torch.equal(x, before)
    changed = x.clone()
    changed[0] += 1
    assert torch.equal(final_state(sampler, model, changed, levels, NOISE)[1:], steps[-1].x[1:])


@pytest.mark.parametrize(
    ("sampler", "steps", "lowest", "highest"),
    [
        # 3M's errors in h² and h³ have opposite signs on some grids: it settles late
        (DPMSolverPP(points=3), [320, 640, 1280], 1.85, 2.15),
        # a first step of order two, whose share is small: between 3 and 4, 3 in the end
        (UniPC(points=3), [40, 80, 160, 320], 2.85, 4.15),
        (UniPC(points=3, bh1=True), [40, 80, 160, 320], 2.85, 4.15),
        (DEISTime(points=4), [80, 160, 320], 1.85, 2.15),
    ],
    ids=repr,
)
def test_order_of_the_other_settings(
    sampler, steps, lowest, highest, schedule, interior, normal_law, states, log_slope
):
    model, unit, errors = normal_law.oracle(schedule), states(8, 3), []
    mean = torch.tensor(normal_law.means[0], dtype=torch.float64)
    values, basis = torch.linalg.eigh(torch.tensor(normal_law.covariances[0], dtype=torch.float64))
    for count in steps:
        levels = interior(schedule, count)
        first, last = levels.rows[0], levels.rows[-1]
        start = first.alpha * mean + 2 * first.sigma * unit
        wide, narrow = ((at.alpha**2 * values + at.sigma**2).sqrt() for at in (first, last))
        exact = last.alpha * mean + (2 * first.sigma * unit @ basis * narrow / wide) @ basis.T
        errors.append(float((final_state(sampler, model, start, levels, NOISE) - exact).norm()))
    assert lowest <= log_slope(steps, errors) <= highest


@pytest.mark.parametrize("sampler", [DPMSolverPP, AdamsBashforth, UniPC, IPNDM, *DEIS])
@pytest.mark.parametrize("points", [0, 5, 2.5])
def test_bad_points_are_refused(sampler, points):
    with pytest.raises(InvalidSetting, match="points"):
        sampler(points=points)
