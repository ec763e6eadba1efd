"""Stochastic members: the papers' algorithms, diffusers' DDPM, their limits, their laws."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from samplerbench.core.grids import Level, Levels, karras, to_data, uniform
from samplerbench.core.models import Learned
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.targets import EDMTarget
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_large import DDPMLarge
from samplerbench.samplers.edm_churn import EDMChurn
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.predictor_corrector import PredictorCorrector
from samplerbench.samplers.sde_dpmpp_1 import SDEDPMpp1
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.verify.exact_law import noised_law, output_law
from samplerbench.verify.orders import interior

NOISE = KeyedNoise((0, "sde"))
IDENTITY = torch.eye(3, dtype=torch.float64)


def test_without_churn_it_is_heun(mixture_law, schedule, states):
    """The bits are the same, also if no level is in the window of churn."""
    levels, oracle = uniform(schedule, 9), mixture_law.oracle(schedule)
    x = levels.rows[0].sigma * states(8, 2)
    expected = final_state(Heun(), oracle, x, levels, NOISE)
    for sampler in (EDMChurn(churn=0.0), EDMChurn(churn_min=200.0, churn_max=300.0)):
        assert torch.equal(final_state(sampler, oracle, x, levels, NOISE), expected)


@pytest.mark.parametrize("churn", [4.0, 40.0])
def test_churn_is_edm_algorithm_2(mixture_law, states, churn):
    """Karras et al. 2022, with room above σ_max; S_churn = 40 is cut at √2 − 1."""
    schedule, steps, low, high, s_noise = EDM(200.0), 18, 0.05, 50.0, 1.003
    oracle, x = mixture_law.oracle(schedule), 80 * states(16, 2)
    levels = karras(schedule, steps, noise_max=80.0, noise_min=0.002, rho=7.0)

    def slope(x, sigma):
        return (x - oracle.denoiser(x, Level(sigma / 200, 1.0, sigma))) / sigma

    ours = EDMChurn(churn, low, high, s_noise).steps(oracle, x, levels, NOISE)
    for (i, now, to), step in zip(levels.pairs(), ours, strict=True):
        inside = low <= now.sigma <= high
        gamma = min(churn / steps, math.sqrt(2) - 1) if inside else 0.0
        sigma = now.sigma + gamma * now.sigma
        eps = s_noise * NOISE.normal(x, i)
        x = x + math.sqrt(sigma**2 - now.sigma**2) * eps
        d, h = slope(x, sigma), to.sigma - sigma
        late = d if to.sigma == 0 else slope(x + h * d, to.sigma)
        x = x + h * (d / 2 + late / 2)
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


def test_churn_is_capped_where_the_path_begins(mixture_law, states):
    """The model is evaluated at no level above t = 1; the first level, t = 1, is not raised."""
    asked = []
    oracle = mixture_law.oracle(EDM(10.0))
    denoise = oracle.denoiser
    oracle.denoiser = lambda x, level: asked.append(level) or denoise(x, level)
    levels = karras(EDM(10.0), 6, noise_min=0.02)
    final_state(EDMChurn(churn=40.0), oracle, 10 * states(4, 2), levels, NOISE)
    assert asked[0] == levels.rows[0]
    assert max(level.sigma for level in asked) == 10.0
    first = levels.rows[1].sigma
    assert asked[2].sigma == pytest.approx(min(10.0, math.sqrt(2) * first))


def test_churn_raises_the_same_ratio_on_every_path(mixture_law, states):
    """One raised step to the data, for x/α; more steps of Heun depend on the time of the path."""
    runs = []
    for path in (VPLinear(), EDM(80.0)):
        levels = to_data(path, path.time_at(torch.tensor([2.0], dtype=torch.float64)))
        x = levels.rows[0].alpha * states(8, 2)
        oracle = mixture_law.oracle(path)
        runs.append(final_state(EDMChurn(churn=0.3), oracle, x, levels, NOISE))
    torch.testing.assert_close(*runs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_both_ends_of_sde_dpmpp_1_are_ddim(mixture_law, schedule, states, eta):
    levels, oracle = uniform(schedule, 9), mixture_law.oracle(schedule)
    x = levels.rows[0].sigma * states(8, 2)
    one, two = (final_state(s, oracle, x, levels, NOISE) for s in (SDEDPMpp1(eta), DDIM(eta)))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("second", [False, True])
def test_sde_dpmpp_is_k_diffusions_formula(mixture_law, states, w, second):
    """`sample_dpmpp_2m_sde` with solver_type "midpoint"; order 1 is without its memory."""
    levels, oracle = karras(EDM(20.0), 12, noise_min=0.02), mixture_law.oracle(EDM(20.0))
    x, old, h_last = 20 * states(8, 2), None, None
    sampler = SDEDPMpp2M(w) if second else SDEDPMpp1(w)
    for (i, now, to), step in zip(
        levels.pairs(), sampler.steps(oracle, x, levels, NOISE), strict=True
    ):
        denoised = oracle.denoiser(x, now)
        if to.sigma == 0:
            x = denoised
        else:
            h = math.log(now.sigma) - math.log(to.sigma)
            pull = -math.expm1(-h - w * h)
            x = to.sigma / now.sigma * math.exp(-w * h) * x + pull * denoised
            if old is not None and second:
                x = x + 0.5 * pull * (h / h_last) * (denoised - old)
            x = x + to.sigma * math.sqrt(-math.expm1(-2 * w * h)) * NOISE.normal(x, i)
            old, h_last = denoised, h
        torch.testing.assert_close(step.x, x, rtol=1e-10, atol=1e-10)


def vp_levels(kept):
    """Levels of a table of ᾱ, then the data; the times do not matter."""
    kept = torch.cat([kept.double(), torch.ones(1).double()])
    t = torch.linspace(1, 0, len(kept), dtype=torch.float64)
    return Levels(t, kept.sqrt(), (1 - kept).sqrt())


@pytest.mark.parametrize(
    ("sampler", "kind"), [(DDPMLarge(), "fixed_large"), (DDIM(1.0), "fixed_small")], ids=repr
)
def test_ddpm_is_diffusers(mixture_law, states, monkeypatch, sampler, kind):
    module = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    theirs = module.DDPMScheduler(1000, variance_type=kind, clip_sample=False)
    theirs.alphas_cumprod, theirs.one = theirs.alphas_cumprod.double(), theirs.one.double()
    theirs.set_timesteps(10)
    levels = vp_levels(theirs.alphas_cumprod[theirs.timesteps])
    oracle, x = mixture_law.oracle(VPLinear()), states(8, 2)
    for i, step in enumerate(sampler.steps(oracle, x, levels, NOISE)):
        now, z = levels.rows[i], NOISE.normal(x, i)
        monkeypatch.setattr(module, "randn_tensor", lambda *_, z=z, **__: z)
        eps = (x - now.alpha * oracle.denoiser(x, now)) / now.sigma
        x = theirs.step(eps, int(theirs.timesteps[i]), x).prev_sample
        torch.testing.assert_close(step.x, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("flow", [False, True])
def test_without_a_corrector_it_is_the_predictor(mixture_law, schedule, states, flow):
    levels, oracle = uniform(schedule, 9), mixture_law.oracle(schedule)
    x = levels.rows[0].sigma * states(8, 2)
    samplers = PredictorCorrector(inner=0, probability_flow=flow), DDIM(0.0 if flow else 1.0)
    assert torch.equal(*(final_state(s, oracle, x, levels, NOISE) for s in samplers))
    assert samplers[0].stochastic is samplers[1].stochastic is not flow


def test_a_corrector_step_is_diffusers(mixture_law, states, monkeypatch):
    """On one sample: diffusers averages norms over the batch, so samples depend on others."""
    module = pytest.importorskip("diffusers.schedulers.scheduling_sde_ve")
    theirs, r = module.ScoreSdeVeScheduler(snr=0.2), 0.2
    theirs.set_timesteps(10)
    levels, oracle = karras(EDM(10.0), 5, noise_min=0.1), mixture_law.oracle(EDM(10.0))
    x = 10 * states(3, 1, 2)
    for own in x:
        sampler = PredictorCorrector(r, own_norms=True)
        first = next(iter(sampler.steps(oracle, own, levels, NOISE))).x
        at = final_state(DDIM(1.0), oracle, own, _part(levels, 2), NOISE)
        z = NOISE.normal(at, 0, 1)
        monkeypatch.setattr(module, "randn_tensor", lambda *_, z=z, **__: z)
        score = oracle.score(at, levels.rows[1])
        expected = theirs.step_correct(score, at).prev_sample
        torch.testing.assert_close(first, expected, rtol=1e-6, atol=1e-6)


def _part(levels, rows):
    return Levels(*(v[:rows] for v in (levels.t, levels.alpha, levels.sigma)))


@pytest.mark.parametrize(("inner", "flow"), [(1, False), (3, False), (1, True), (3, True)])
def test_predictor_corrector_on_a_gaussian(normal_law, gaussian_moments, schedule, inner, flow):
    """Each step multiplies x/α by a matrix: Bayes' rule or the flow, then ULA with h = 2(rκ)²."""
    mean, covariance = gaussian_moments(normal_law)
    levels, r = interior(schedule, 6), 0.3
    start = noised_law(mean, 2 * covariance, levels.rows[0])
    sampler = PredictorCorrector(r, inner, probability_flow=flow)
    got = output_law(sampler, normal_law.oracle(schedule), levels, *start)
    alpha = levels.rows[0].alpha
    at, spread = start[0] / alpha, start[1] / alpha**2
    kappa = (levels.sigma / levels.alpha).tolist()
    for one, two in pairwise(kappa):
        keep = (two / one) ** (1 if flow else 2)
        fresh = 0 if flow else keep * (one**2 - two**2)
        gain = covariance @ torch.linalg.inv(covariance + one**2 * IDENTITY)
        step = keep * IDENTITY + (1 - keep) * gain
        at = mean + step @ (at - mean)
        spread = step @ spread @ step.T + fresh * IDENTITY
        h = 2 * (r * two) ** 2
        step = IDENTITY - h * torch.linalg.inv(covariance + two**2 * IDENTITY)
        for _ in range(inner):
            at = mean + step @ (at - mean)
            spread = step @ spread @ step.T + 2 * h * IDENTITY
    alpha = levels.rows[-1].alpha
    torch.testing.assert_close(got, (alpha * at, alpha**2 * spread), rtol=1e-9, atol=1e-10)


def test_churn_above_what_was_trained_is_refused():
    """The grid begins where the training ends, and churn goes above it."""

    def reason(path, trained, sampler):
        model = Learned(nn.Identity(), EDMTarget(), path, torch.zeros(3), 1.0, trained)
        return sampler.why_incompatible(model, karras(path, 9, noise_max=10.0, noise_min=0.02))

    for calm in (Heun(), EDMChurn(0.0), EDMChurn(churn_max=9.0)):
        assert reason(EDM(80.0), 10.0, calm) is None
    message = "trained up to σ/α = 10 and EDMChurn needs 14.14: raise level_law.maximum"
    assert message in reason(EDM(80.0), 10.0, EDMChurn(9.0))
    assert reason(EDM(80.0), 14.2, EDMChurn(9.0)) is None
    assert "9 and the grid begins at 10" in reason(EDM(80.0), 9.0, Heun())
    # churn does not go beyond the end of the path
    assert reason(EDM(10.0), 10.0, EDMChurn(9.0)) is None
    # an exact denoiser is defined at all levels
    assert reason(EDM(80.0), math.inf, EDMChurn(9.0)) is None
