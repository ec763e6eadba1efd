"""Langevin samplers: their steps, and their actual laws on a Gaussian, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers import each
from samplerbench.core.grids import Level, Levels, hold, karras, uniform
from samplerbench.core.models import Learned, LevelFree
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.core.targets import DataTarget
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ula import ULA
from samplerbench.verify.exact_law import noised_law, output_law

NOISE = KeyedNoise((0, "langevin"))
IDENTITY = torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_ula_is_the_notebooks_step(mixture_law, states, noise):
    """N0's step x + (h'/2)·s + √h'·z is ours with h = h'/2; the score is by finite differences."""
    h0, x = 0.02, states(8, 2).numpy()
    weights, means, covariances = (
        np.array(v) for v in (mixture_law.weights, mixture_law.means, mixture_law.covariances)
    )
    spread = covariances + noise**2 * np.eye(2)

    def log_q(x):
        offset = x[:, None] - means
        form = np.einsum("nki,kij,nkj->nk", offset, np.linalg.inv(spread), offset)
        return np.log(np.exp(-form / 2) @ (weights / np.sqrt(np.linalg.det(spread))))

    oracle, levels = mixture_law.oracle(EDM(10.0)), hold(EDM(10.0), 3, noise=noise)
    ours = ULA(h0 / 2).steps(oracle, torch.from_numpy(x), levels, NOISE)
    for index, step in enumerate(ours):
        shifts = 1e-5 * np.eye(2)
        s = np.stack([(log_q(x + d) - log_q(x - d)) / 2e-5 for d in shifts], axis=1)
        x0_hat = x + noise**2 * s
        x = x + h0 / 2 * s + math.sqrt(h0) * NOISE.normal(step.x, index).numpy()
        np.testing.assert_allclose(step.x.numpy(), x, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(step.x0_hat.numpy(), x0_hat, rtol=1e-8, atol=1e-8)


def stationary(spread, step_size):
    """S·(I − ½h·S⁻¹)⁻¹: the covariance ULA has in the end on N(m, S)."""
    return spread @ torch.linalg.inv(IDENTITY - step_size / 2 * torch.linalg.inv(spread))


@each("share", [0.1, 1.0, 1.9])
@each("noise", [0.0, 0.5])
def test_ula_stationary_law(wide_law, gaussian_moments, schedule, share, noise):
    """N(α·m, S·(I − ½h·S⁻¹)⁻¹), S = α²·C + σ²·I, is kept exactly at every stable step size."""
    levels = hold(schedule, 3, noise=noise)
    mean, spread = noised_law(*gaussian_moments(wide_law), levels.rows[0])
    step_size = share * float(torch.linalg.eigvalsh(spread)[0])
    exact = mean, stationary(spread, step_size)
    got = output_law(ULA(step_size), wide_law.oracle(schedule), levels, *exact)
    torch.testing.assert_close(got, exact, rtol=1e-11, atol=1e-11)
    assert (got[1] - spread).norm() > 0.01 * share * spread.norm(), "ULA is biased"


class Slope(nn.Module):
    """s(x) = −x/2 for standardised x: a network with no level."""

    def forward(self, u, level):
        return -u / 2


def test_ula_on_a_score_without_levels(states):
    """The law N(mean, 2·std²). The network has one level, and other levels are refused."""
    model = LevelFree(Slope(), 0.5, torch.tensor([1.0, -2.0]), std=2.0).double()
    levels = hold(EDM(10.0), 60, noise=0.5)
    assert ULA().why_incompatible(model, levels) is None
    got = output_law(ULA(4.0), model, levels, torch.zeros(2), torch.eye(2))
    exact = torch.tensor([1.0, -2.0]).double(), 8 / (1 - 2 / 8) * torch.eye(2).double()
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
    assert "grid.noise=0.5" in ULA().why_incompatible(model, hold(EDM(10.0), 3))
    assert "grid=hold" in ULA().why_incompatible(model, uniform(EDM(10.0), 3))
    for sampler in (DDIM(), AnnealedLangevin()):
        assert "sampler=ula" in sampler.why_incompatible(model, levels)


def test_what_ula_refuses(mixture_law):
    oracle = mixture_law.oracle(EDM())
    assert "sampler=annealed_langevin" in ULA().why_incompatible(oracle, uniform(EDM(), 4))
    # x̂₀ says nothing about the score where there is no noise; the oracle knows it
    learned = Learned(nn.Identity(), DataTarget(), EDM(), torch.zeros(2))
    assert "no score without noise" in ULA().why_incompatible(learned, hold(EDM(), 4))
    assert ULA().why_incompatible(learned, hold(EDM(), 4, noise=0.1)) is None
    times = torch.ones(5, dtype=torch.float64)
    noise_alone = Levels(times, *Rectified()(times))
    reason = ULA().why_incompatible(mixture_law.oracle(Rectified()), noise_alone)
    assert "no signal is left" in reason
    assert ULA().why_incompatible(oracle, hold(EDM(), 4)) is None


@pytest.mark.parametrize("denoise", [False, True])
def test_annealed_langevin_is_the_papers_algorithm(mixture_law, states, denoise):
    """Song and Ermon 2019, Algorithm 1, with ε = 2h; N1's levels and steps (P2)."""
    schedule, epsilon, inner = EDM(10.0), 2e-4, 5
    levels, oracle = karras(schedule, 20, noise_min=0.02, rho=5.0), mixture_law.oracle(schedule)
    x = 10 * states(8, 2)
    ours = AnnealedLangevin(epsilon / 2, inner, denoise).steps(oracle, x, levels, NOISE)
    sigmas = levels.sigma[:-1].tolist()
    for i, (sigma, step) in enumerate(zip(sigmas, ours, strict=True)):
        level = Level(sigma / 10, 1.0, sigma)
        alpha_i = epsilon * sigma**2 / sigmas[-1] ** 2
        for t in range(inner):
            x = (
                x
                + alpha_i / 2 * oracle.score(x, level)
                + math.sqrt(alpha_i) * NOISE.normal(x, i, t)
            )
        if i < 19 or not denoise:
            torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)
    if denoise:
        torch.testing.assert_close(step.x, oracle.denoiser(x, level), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("vp", [VPLinear(), Rectified()], ids=repr)
def test_annealed_langevin_is_the_same_on_every_path(vp, mixture_law, states, denoise):
    """With x/α for x and the same σ/α."""
    sampler, x, runs = AnnealedLangevin(2e-3, 3, denoise), 5 * states(8, 2), []
    for path in (vp, EDM()):
        levels = karras(path, 12, noise_max=8.0, noise_min=0.05)
        start = levels.rows[0].alpha * x
        steps = sampler.steps(mixture_law.oracle(path), start, levels, NOISE)
        runs.append([s.x / row.alpha for s, row in zip(steps, levels.rows[1:], strict=True)])
    for one, two in zip(*runs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
