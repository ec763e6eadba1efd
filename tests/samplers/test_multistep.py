"""Multistep samplers: weights by other means, each other, diffusers and azula, special settings."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from helpers import each, mostly_slow
from samplerbench.core.grids import Level, Levels, to_data, uniform
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPCosine, VPLinear
from samplerbench.samplers.adams_bashforth import AdamsBashforth
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.deis import DEISLogRho, DEISRho, DEISTime
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.ipndm import IPNDM
from samplerbench.samplers.multistep import data_weights
from samplerbench.samplers.unipc import UniPC
from samplerbench.verify.contract import broken
from samplerbench.verify.orders import measured_order
from samplerbench.verify.sampler_contract import SAMPLER, TestBed

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


# --- each other


@each("sampler", [AdamsBashforth(1), IPNDM(1), *(kind(1) for kind in DEIS)])
@each("path", [VPCosine(), Rectified(), EDM(10.0)])
def test_one_point_is_ddim(sampler, path, mixture_law, states):
    """From the very end of the path too, where no signal is left."""
    levels, model = uniform(path, 9), mixture_law.oracle(path)
    start = levels.rows[0].sigma * states(16, 2)
    one, two = (final_state(s, model, start, levels, NOISE) for s in (sampler, DDIM(0.0)))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("points", [2, 3])
def test_deis_clocks_are_one_where_they_are_linear(points, mixture_law, states):
    """t is linear in σ on `EDM`: tAB is ρAB."""
    model, levels = mixture_law.oracle(EDM(10.0)), uniform(EDM(10.0), 12)
    start = 10 * states(16, 2)
    one, two = (
        final_state(kind(points), model, start, levels, NOISE) for kind in (DEISTime, DEISRho)
    )
    torch.testing.assert_close(one, two, **CLOSE)


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


@each(
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


# --- settings that `variants` leaves out


@pytest.mark.parametrize("sampler", NOT_VARIANTS, ids=repr)
def test_contract_of_the_other_settings(sampler, simple_mixture):
    assert broken(SAMPLER, sampler, TestBed(simple_mixture, Rectified())) == []


@pytest.mark.parametrize(
    ("sampler", "steps", "lowest", "highest"),
    mostly_slow(
        [
            # 3M's errors in h² and h³ have opposite signs on some grids: it settles late
            (DPMSolverPP(points=3), (320, 640), 1.85, 2.15),
            # the first step is of order two, and its share is small: the slope falls to 3 very late
            (UniPC(points=3), (40, 80), 2.85, 4.5),
            (UniPC(points=3, bh1=True), (40, 80), 2.85, 4.5),
            (DEISTime(points=4), (80, 160), 1.85, 2.15),
        ],
        1,
    ),
    ids=repr,
)
def test_order_of_the_other_settings(sampler, steps, lowest, highest):
    for path, law in ((EDM(10.0), "mixture"), (VPCosine(), "gaussian")):
        assert lowest <= measured_order(sampler, path, law, steps).slope <= highest
