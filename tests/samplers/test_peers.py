"""Samplers of other packages: their own loops, bit for bit, with our model and our noise."""

from __future__ import annotations

import math
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from inspect import signature
from logging import Handler, getLogger
from threading import Thread
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import randn as RANDN
from torch import randn_like as own_name

from helpers import each, mostly_slow, refused_in_one_line
from samplerbench.bench.sweep import most_steps
from samplerbench.core import grids
from samplerbench.core.grids import Level
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, DDPMTable, Rectified, VPCosine, VPLinear
from samplerbench.errors import InvalidSetting
from samplerbench.figures.distance_families import FAMILIES, family
from samplerbench.samplers.azula import Azula
from samplerbench.samplers.base import final_state, iterate
from samplerbench.samplers.diffusers import Diffusers, Network, quiet
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.k_diffusion import KDiffusion, sampling
from samplerbench.samplers.peers import Brownian, Drawing, by_name, places
from samplerbench.samplers.toy import Toy
from samplerbench.verify.peer_curves import point
from samplerbench.verify.sampler_contract import evaluations

diffusers = pytest.importorskip("diffusers")
azula_sample = pytest.importorskip("azula.sample")
azula_noise = pytest.importorskip("azula.noise")
if find_spec("k_diffusion") is None:
    pytest.skip("needs: pip install --no-deps k-diffusion", allow_module_level=True)

FLOW = "FlowMatchEulerDiscreteScheduler"
KEY = (3, "peers")
N = 7


def keyed(step_of):
    """Draws of `KEYED` in their order, for a code that calls torch.randn."""
    noise, counts = KeyedNoise(KEY), {}

    def draw(like):
        step = step_of()
        counts[step] = counts.get(step, -1) + 1
        return noise.normal(like, step, counts[step])

    def randn(*shape, generator=None, dtype=None, device=None, layout=None):
        return draw(torch.empty(*shape, dtype=dtype, device=device))

    return patch.multiple(torch, randn=randn, randn_like=lambda x: draw(x))


def run(sampler, model, x, steps=N):
    """The states of a run."""
    levels = sampler.levels(grids.uniform, model.schedule, steps)
    assert sampler.why_incompatible(model, levels) is None
    found = [step.x for step in sampler.steps(model, x, levels, KeyedNoise(KEY))]
    assert len(found) == levels.steps
    return found


def first(sampler, schedule, states, steps=N, dtype=torch.float64):
    level = sampler.levels(grids.uniform, schedule, steps).rows[0]
    return (level.sigma * states(5, 2)).to(dtype)


#: Schedulers of diffusers that are run by the loop of its documentation, and settings of each kind.
SCHEDULERS = [
    ("DDIMScheduler", {}, {}),
    ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, {"eta": 0.7}),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, {}),
    ("DDIMParallelScheduler", {"prediction_type": "sample"}, {}),
    ("CogVideoXDDIMScheduler", {}, {}),
    ("DDPMScheduler", {}, {}),
    ("DDPMParallelScheduler", {"variance_type": "fixed_large"}, {}),
    ("DEISMultistepScheduler", {"solver_order": 3}, {}),
    ("DPMSolverMultistepScheduler", {}, {}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "solver_order": 3}, {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    (
        "DPMSolverMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        {},
    ),
    ("DPMSolverSinglestepScheduler", {"final_sigmas_type": "sigma_min"}, {}),
    ("EulerDiscreteScheduler", {}, {"s_churn": 2.0}),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous", "use_karras_sigmas": True}, {}),
    ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading"}, {}),
    ("EDMEulerScheduler", {}, {}),
    ("EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    ("FlowMatchHeunDiscreteScheduler", {}, {}),
    ("FlowMatchLCMScheduler", {}, {}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, {}),
    ("IPNDMScheduler", {}, {}),
    ("KDPM2DiscreteScheduler", {}, {}),
    ("KDPM2AncestralDiscreteScheduler", {}, {}),
    ("LCMScheduler", {}, {}),
    ("LMSDiscreteScheduler", {}, {"order": 3}),
    ("PNDMScheduler", {}, {}),
    ("PNDMScheduler", {"skip_prk_steps": True}, {}),
    ("SASolverScheduler", {}, {}),
    ("TCDScheduler", {}, {}),
    ("UnCLIPScheduler", {}, {}),
    ("UniPCMultistepScheduler", {"solver_order": 3}, {}),
]


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize(
    ("name", "config", "of_step"),
    mostly_slow(SCHEDULERS, *range(1, len(SCHEDULERS), 3)),
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_scheduler_is_its_documented_loop(name, config, of_step, dtype, mixture_law, states):
    sampler = Diffusers(name, config | of_step)
    model = mixture_law.oracle(VPLinear())
    x = first(sampler, model.schedule, states, dtype=dtype)
    # no run changes what is kept for the next one
    once = run(sampler, model, x)
    run(sampler, mixture_law.oracle(Rectified()), x)
    ours = run(sampler, model, x)
    assert all(map(torch.equal, once, ours))
    scheduler, of_step = getattr(diffusers, name)(**config), dict(of_step)
    scheduler.set_timesteps(N)
    network, at = Network(model, scheduler), 0
    with keyed(lambda: at):
        for at, t in enumerate(scheduler.timesteps):
            scaled = (
                scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            )
            if name == "UnCLIPScheduler":  # as its pipeline does
                of_step["prev_timestep"] = (*scheduler.timesteps[1:], None)[at]
            x = scheduler.step(network(scaled, at, x), t, x, **of_step).prev_sample
            assert torch.equal(ours[at], x.to(dtype)), at
    assert at + 1 == len(ours) == sampler.evaluations(N)
    assert x.isfinite().all()


def scm(scheduler, net, x):
    scheduler.set_timesteps(N, intermediate_timesteps=None)
    for t in scheduler.timesteps[:-1]:
        signal, noise = math.cos(float(t)), math.sin(float(t))
        y = net(x, max(signal, 0.0), 0.5 * noise, signal / noise, -1 / noise)
        x = scheduler.step(y, t, x).prev_sample
        yield x


def consistency(scheduler, net, x):
    scheduler.set_timesteps(N)
    low, width = scheduler.config.sigma_min, 0.5
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        sigma = math.exp(float(t) / 250)
        kept = (low / sigma) ** 2
        skip = width**2 / ((sigma - low) ** 2 + width**2)
        out = (sigma - low) * width / math.hypot(sigma, width)
        y = net(x, 1.0, sigma, (kept - skip) / out, (1 - kept) / out)
        x = scheduler.step(y, t, x)[0]
        yield x


def cogvideo(scheduler, net, x):
    scheduler.set_timesteps(N)
    timesteps, old_pred_original_sample = scheduler.timesteps, None
    for i, t in enumerate(timesteps):
        alpha = math.sqrt(scheduler.alphas_cumprod[t])
        sigma = math.sqrt(1 - scheduler.alphas_cumprod[t])
        x, old_pred_original_sample = scheduler.step(
            net(x, alpha, sigma, 1 / sigma, -alpha / sigma),
            old_pred_original_sample,
            t,
            timesteps[i - 1] if i > 0 else None,
            x,
            return_dict=False,
        )
        yield x


def wuerstchen(scheduler, net, x):
    scheduler.set_timesteps(N)
    for t in scheduler.timesteps[:-1]:
        angle = (float(t) + 0.008) / 1.008 * math.pi / 2
        signal = (math.cos(angle) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
        signal = min(max(signal, 1e-4), 0.9999)
        alpha, sigma = math.sqrt(signal), math.sqrt(1 - signal)
        y = net(x, alpha, sigma, 1 / sigma, -alpha / sigma)
        x = scheduler.step(model_output=y, timestep=t.expand(x.size(0)), sample=x).prev_sample
        yield x


def minimax(scheduler, net, x):
    scheduler.set_timesteps(N)
    for t in scheduler.timesteps:
        sigma = 1 - float(t)
        y = net(x, 1 - sigma, sigma, -1 / sigma, 1 / sigma)
        x = scheduler.step(y, t, x, return_dict=False)[0]
        yield x


def helios(scheduler, net, x):
    scheduler.set_timesteps(N, sigmas=np.linspace(0.999, 0.0, N + 1)[:-1])
    for t in scheduler.timesteps:
        sigma = float(t) / 1000
        y = net(x, 1 - sigma, sigma, 1 / sigma, -1 / sigma)
        x = scheduler.step(y, t, x, return_dict=False)[0]
        yield x


def distilled_helios(scheduler, net, x):
    scheduler.set_timesteps(N, 0, is_amplify_first_chunk=False)
    start, timesteps = x[..., None, None, None], scheduler.timesteps
    for i, t in enumerate(timesteps):
        sigma = int(t) / 1000
        y = net(x, 1 - sigma, sigma, 1 / sigma, -1 / sigma)
        x = scheduler.step(
            y[..., None, None, None],
            t,
            x[..., None, None, None],
            cur_sampling_step=i,
            dmd_noisy_tensor=start,
            dmd_sigmas=scheduler.sigmas,
            dmd_timesteps=timesteps,
            all_timesteps=timesteps,
        ).prev_sample[..., 0, 0, 0]
        yield x


def piflow(scheduler, net, x):
    scheduler.set_timesteps(N)
    for t in scheduler.timesteps:
        sigma = float(t) / 1000
        y = net(x, 1 - sigma, sigma, 1 / sigma, -1 / sigma, scheduler.n_grid)
        x = scheduler.step(y, t, x, return_dict=False)[0]
        yield x


def score_sde_ve(scheduler, net, x):
    scheduler.set_timesteps(N)
    scheduler.set_sigmas(N)
    for i, t in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[i])
        for _ in range(scheduler.config.correct_steps):
            y = net(x, 1.0, sigma, -1 / sigma**2, 1 / sigma**2)
            x = scheduler.step_correct(y, x).prev_sample
        y = net(x, 1.0, sigma, -1 / sigma**2, 1 / sigma**2)
        output = scheduler.step_pred(y, t, x)
        x, mean = output.prev_sample, output.prev_sample_mean
        yield mean if i + 1 == N else x


def karras_ve(scheduler, net, x):
    scheduler.set_timesteps(N)
    for t in scheduler.timesteps:
        sigma = scheduler.schedule[t]
        sigma_prev = scheduler.schedule[t - 1] if t > 0 else 0
        x_hat, sigma_hat = scheduler.add_noise_to_input(x, sigma)
        y = net(x_hat, 1.0, float(sigma_hat), -1 / float(sigma_hat), 1 / float(sigma_hat))
        out = scheduler.step(y, sigma_hat, sigma_prev, x_hat)
        if sigma_prev != 0:
            s = float(sigma_prev)
            out = scheduler.step_correct(
                net(out.prev_sample, 1.0, s, -1 / s, 1 / s),
                *(sigma_hat, sigma_prev, x_hat, out.prev_sample, out["derivative"]),
            )
        x = out.prev_sample
        yield x


def score_sde_vp(scheduler, net, x):
    scheduler.set_timesteps(N)
    for i, t in enumerate(scheduler.timesteps):
        t = t * torch.ones(x.shape[0])
        alpha = math.exp(-0.25 * float(t[0]) ** 2 * (20 - 0.1) - 0.5 * float(t[0]) * 0.1)
        sigma = math.sqrt(1 - alpha**2)
        x, mean = scheduler.step_pred(net(x, alpha, sigma, 1 / sigma, -alpha / sigma), x, t)
        yield mean if i + 1 == N else x


#: Schedulers with a loop or a network of their own: settings, their pipeline's loop, evaluations.
PIPELINES = [
    ("SCMScheduler", {"intermediate_timesteps": None}, scm, N),
    ("CMStochasticIterativeScheduler", {}, consistency, N),
    ("CMStochasticIterativeScheduler", {"clip_denoised": False, "sigma_min": 0.2}, consistency, N),
    ("CogVideoXDPMScheduler", {"timestep_spacing": "trailing"}, cogvideo, N),
    ("DDPMWuerstchenScheduler", {}, wuerstchen, N),
    ("MiniMaxH3Scheduler", {}, minimax, N - 1),
    ("HeliosScheduler", {"stages": 1}, helios, N),
    ("HeliosScheduler", {"stages": 1, "scheduler_type": "euler"}, helios, N),
    ("HeliosDMDScheduler", {"stages": 1}, distilled_helios, N),
    ("PiflowScheduler", {}, piflow, N),
    ("ScoreSdeVeScheduler", {}, score_sde_ve, 2 * N),
    ("ScoreSdeVeScheduler", {"correct_steps": 0}, score_sde_ve, N),
    ("KarrasVeScheduler", {}, karras_ve, 2 * N - 1),
    ("ScoreSdeVpScheduler", {}, score_sde_vp, N),
]


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize(
    ("name", "settings", "loop", "evaluations"),
    PIPELINES,
    ids=[" ".join([name, *settings]) for name, settings, *_ in PIPELINES],
)
def test_a_scheduler_is_the_loop_of_its_pipeline(
    name, settings, loop, evaluations, dtype, mixture_law, states
):
    """Bit for bit with our network; and with a network that is written again, to rounding."""
    sampler = Diffusers(name, settings)
    model = mixture_law.oracle(Rectified())
    start = first(sampler, model.schedule, states, dtype=dtype)
    ours = run(sampler, model, start)
    config = {k: v for k, v in settings.items() if k != "intermediate_timesteps"}
    prepared = sampler._prepared(N)
    network = Network(model, prepared)

    def bits(x, *_):
        calls.append(x)
        scaled = x
        if name.startswith("CM"):
            scaled = x / (prepared.sigmas[len(calls) - 1] ** 2 + 0.25) ** 0.5
        return network(scaled, len(calls) - 1, x)

    def ideal(x, alpha, sigma, of_x, of_x0, times=1):
        calls.append(x)
        x0_hat = model.denoiser(x, Level(0.5, alpha, sigma))
        return (of_x * x + of_x0 * x0_hat).repeat(1, times)

    for net in (bits, ideal):
        calls, found = [], []
        with keyed(lambda found=found: len(found)):
            for x in loop(sampler.code(**config), net, start):
                found.append(x)
        assert len(found) == len(ours)
        assert len(calls) == evaluations == sampler.evaluations(N)
        if net is bits:
            assert all(torch.equal(a, b.to(dtype)) for a, b in zip(ours, found, strict=True))
        else:
            size = [float(x.abs().max()) for x in found]
            gaps = [float((a - b).abs().max()) for a, b in zip(ours, found, strict=True)]
            assert all(gap <= 3e-5 * s for gap, s in zip(gaps, size, strict=True)), (gaps, size)
    assert ours[-1].isfinite().all()


#: From 40 to 160 steps: the errors on a Gaussian fall by this factor.
FALLING = [
    ("CogVideoXDPMScheduler timestep_spacing=trailing", 8.5),
    ("DDPMWuerstchenScheduler", 3.3),
    ("MiniMaxH3Scheduler", 3.7),
    ("HeliosScheduler stages=1", 16.0),
    ("HeliosScheduler stages=1 scheduler_type=euler", 3.9),
    ("PiflowScheduler", 3.6),
    ("ScoreSdeVeScheduler correct_steps=0", 4.5),
    ("KarrasVeScheduler s_churn=0", 16.0),
    ("KarrasVeScheduler s_noise=1", 6.1),
    ("ScoreSdeVpScheduler", 4.5),
]


@pytest.mark.parametrize(("name", "factor"), mostly_slow(FALLING, 3, 5, 7))
def test_the_law_of_a_scheduler_converges_on_its_path(name, factor):
    """So the levels of its states and of its network are right."""
    few, many = (point(Diffusers(name), steps) for steps in (40, 160))
    assert few.gaussian / many.gaussian == pytest.approx(factor, rel=0.15)
    assert many.gaussian < 0.1


def test_distilled_helios_adds_the_noise_of_the_start_again():
    """On N(0, w²): x' = (1 − s')·g·x + s'·z with the same z, g = (1 − s)·w²/((1 − s)²w² + s²)."""
    width, sigmas = 0.4, [1 - 0.999 * k / 11 for k in range(10)]
    factor = 1.0  # of z
    for s, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        rounded = math.floor(1000 * s + 1e-4) / 1000
        signal = 1 - rounded
        gain = signal * width**2 / ((signal * width) ** 2 + rounded**2)
        # the network gives the velocity at its rounded time, the scheduler knows its own
        x0_hat = factor - s * (factor - gain * factor) / rounded
        factor = (1 - after) * x0_hat + after
    found = point(Diffusers("HeliosDMDScheduler stages=1"), 10)
    assert found.spread == pytest.approx(factor / width - 1, abs=1e-4)


def test_a_corrector_that_mixes_rows():
    """Its step is of the norms of the batch: no law is claimed, and many rows have nearly it."""
    sampler = Diffusers("ScoreSdeVeScheduler")
    assert not sampler.affine
    found = point(sampler, 20)
    assert math.isnan(found.gaussian)
    assert math.isnan(found.mixture)
    model = Toy(EDM(2000.0))
    levels = sampler.levels(grids.uniform, model.schedule, 400)
    x = levels.rows[0].sigma * KeyedNoise(KEY).normal(torch.empty(4000, 1), 9999)
    end = final_state(sampler, model, x, levels, KeyedNoise(KEY))
    assert float(end.std()) == pytest.approx(1, abs=0.05)
    plain = Diffusers("ScoreSdeVeScheduler correct_steps=0")
    assert plain.affine
    assert sampler.evaluations(400) == 2 * plain.evaluations(400) == 800


@pytest.mark.parametrize("name", ["SCMScheduler", "KarrasVeScheduler", "ScoreSdeVeScheduler"])
def test_an_unseen_subclass_has_the_loop_of_its_class(name, mixture_law, states):
    settings = {"intermediate_timesteps": None} if name.startswith("SCM") else {}
    known = Diffusers(name, settings)
    mine = Diffusers(custom=type("Mine", (known.code,), {}), settings=settings)
    model = mixture_law.oracle(Rectified())
    x = first(known, model.schedule, states)
    one, two = (run(sampler, model, x) for sampler in (known, mine))
    assert all(map(torch.equal, one, two))


def test_clipping_is_measured():
    """CogVideoX has `clip_sample: true` in its config, and no code for it."""
    for name, clips in (
        ("DDIMScheduler", "clip_sample"),
        ("DDIMScheduler clip_sample=false", ""),
        ("DDPMScheduler", "clip_sample"),
        ("CMStochasticIterativeScheduler", "clip_denoised"),
        ("CogVideoXDDIMScheduler", ""),
        ("CogVideoXDPMScheduler", ""),
        ("ScoreSdeVeScheduler", ""),
    ):
        assert Diffusers(name).clips == clips, name
    assert Diffusers("DPMSolverSDEScheduler").affine


def test_the_most_noise_of_a_network_is_after_the_churn():
    sampler = Diffusers("KarrasVeScheduler s_max=100000 s_churn=4")
    levels = sampler.levels(grids.uniform, EDM(), 10)
    assert sampler.most_noise(EDM(), levels) == pytest.approx(1.4 * levels.rows[0].sigma)


def test_the_network_of_a_table(mixture_law, states):
    """ε, v and x₀ at the integers of a table, written again; bit for bit on the same table."""
    for prediction in ("epsilon", "v_prediction", "sample"):
        settings = {"prediction_type": prediction, "clip_sample": False}
        scheduler = diffusers.DDIMScheduler(**settings)
        table = DDPMTable(tuple(scheduler.alphas_cumprod.double().tolist()))
        oracle = mixture_law.oracle(table)

        def ideal(x, t, oracle=oracle, scheduler=scheduler, prediction=prediction):
            signal = float(scheduler.alphas_cumprod[t])
            alpha, sigma = signal**0.5, (1 - signal) ** 0.5
            x0_hat = oracle.denoiser(x, Level((int(t) + 1) / 1000, alpha, sigma))
            eps_hat = torch.sub(x, x0_hat, alpha=alpha) / sigma
            v_hat = alpha * eps_hat - sigma * x0_hat
            return {"epsilon": eps_hat, "sample": x0_hat, "v_prediction": v_hat}[prediction]

        x = states(5, 2)
        sampler = Diffusers("DDIMScheduler", settings)
        ours = run(sampler, oracle, x)
        other = run(sampler, mixture_law.oracle(Rectified()), x)
        scheduler.set_timesteps(N)
        for at, t in enumerate(scheduler.timesteps):
            x = scheduler.step(ideal(x, t), t, x).prev_sample
            assert torch.equal(ours[at], x)
        # the path of the job does not matter
        torch.testing.assert_close(other[-1], x, rtol=1e-9, atol=1e-9)


def test_a_flow_gets_the_velocity(mixture_law, states):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(N)
    oracle, x = mixture_law.oracle(Rectified()), states(5, 2)
    ours = run(Diffusers("FlowMatchEulerDiscreteScheduler"), oracle, x)
    for t in scheduler.timesteps:
        sigma = float(t.double()) / 1000
        x0_hat = oracle.denoiser(x, Level(sigma, 1 - sigma, sigma))
        x = scheduler.step((x - x0_hat) / sigma, t, x).prev_sample
    torch.testing.assert_close(ours[-1], x, rtol=1e-10, atol=1e-10)


def test_edm_is_preconditioned_as_it_says(mixture_law, states):
    """c_skip = σ_d²/(σ² + σ_d²) and c_out = σ·σ_d/√(σ² + σ_d²), Karras et al., Table 1."""
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(N)
    oracle, x = mixture_law.oracle(EDM()), 80 * states(5, 2)
    ours = run(Diffusers("EDMEulerScheduler"), oracle, x)
    for step, t in enumerate(scheduler.timesteps):
        sigma, width = float(scheduler.sigmas[step].double()), scheduler.config.sigma_data
        root = math.hypot(sigma, width)
        x0_hat = oracle.denoiser(x, Level(0.0, 1.0, sigma))
        y = (x0_hat - (width / root) ** 2 * x) / (sigma * width / root)
        scheduler.scale_model_input(x, t)
        x = scheduler.step(y, t, x).prev_sample
    torch.testing.assert_close(ours[-1], x, rtol=1e-6, atol=1e-6)


FUNCTIONS = [
    *(("sample_euler", {"s_churn": 3.0}), ("sample_euler_ancestral", {"eta": 0.5})),
    *(("sample_heun", {}), ("sample_dpm_2", {}), ("sample_dpm_2_ancestral", {})),
    *(("sample_lms", {"order": 3}), ("sample_dpmpp_2m", {}), ("sample_dpmpp_2s_ancestral", {})),
    *(("sample_dpmpp_sde", {}), ("sample_dpmpp_2m_sde", {}), ("sample_dpmpp_3m_sde", {})),
]


@pytest.mark.parametrize(
    ("name", "settings"), FUNCTIONS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_function_is_its_own_call(name, settings, mixture_law, states):
    theirs, oracle = sampling(), mixture_law.oracle(EDM())
    sampler = KDiffusion(name, settings)
    x = first(sampler, EDM(), states)
    ours = run(sampler, oracle, x)
    draws, calls = Drawing(KeyedNoise(KEY)), []

    def model(x, sigma):
        calls.append(x)
        return oracle.denoiser(x, Level(0.0, 1.0, float(sigma[0])))

    more = {}
    if "noise_sampler" in signature(getattr(theirs, name)).parameters:
        more["noise_sampler"] = Brownian(SimpleNamespace(x0_hat=x), draws)
    with keyed(lambda: 0):
        sigmas = theirs.get_sigmas_karras(N, 0.01, 80.0)
        last = getattr(theirs, name)(model, x, sigmas, disable=True, **settings, **more)
    assert torch.equal(ours[-1], last)
    assert len(calls) == sampler.evaluations(N)
    assert all(any(torch.equal(state, call) for call in calls) for state in ours[:-1])


def test_functions_that_choose_their_steps(mixture_law, states):
    oracle, theirs = mixture_law.oracle(EDM()), sampling()

    def model(x, sigma):
        return oracle.denoiser(x, Level(0.0, 1.0, float(sigma[0])))

    fast, x = KDiffusion("sample_dpm_fast"), 80 * states(5, 2)
    (last,) = run(fast, oracle, x)
    assert torch.equal(last, theirs.sample_dpm_fast(model, x, 0.01, 80.0, N, disable=True))
    assert fast.evaluations(N) == N
    adaptive = KDiffusion("sample_dpm_adaptive", {"rtol": 0.01})
    (last,) = run(adaptive, oracle, x)
    assert torch.equal(
        last, theirs.sample_dpm_adaptive(model, x, 0.01, 80.0, rtol=0.01, disable=True)
    )
    assert adaptive.adaptive
    assert adaptive.evaluations(N) is None


def test_increments_of_a_brownian_path_are_those_of_one_formula():
    """Numbers of a path that starts at 0, also where several draws of a step overlap."""
    like = torch.zeros(3, dtype=torch.float64)
    path = Brownian(SimpleNamespace(x0_hat=like), Drawing(KeyedNoise(KEY)))
    z = [KeyedNoise(KEY).normal(like, 0, draw) for draw in range(5)]
    four, three, two, one, half = (torch.tensor(v) for v in (4.0, 3.0, 2.0, 1.0, 0.5))
    at_one, at_two = 3**0.5 * z[0], 2 / 3 * (3**0.5 * z[0]) + (2 / 3) ** 0.5 * z[1]
    at_half = at_one + 0.5**0.5 * z[2]
    at_three = at_two / 2 + 0.5**0.5 * z[3]
    for to, known in ((one, at_one), (two, at_two), (half, at_half), (three, at_three)):
        expected = known / (4 - float(to)) ** 0.5
        for _ in range(2):  # a second call draws nothing
            torch.testing.assert_close(path(four, to), expected, rtol=1e-15, atol=1e-15)
    assert torch.equal(path(three, two), z[4])  # the next step
    assert path(three, three).isnan().all()
    with pytest.raises(ValueError, match="empty"):
        path(three, four)


@pytest.mark.parametrize(
    ("peer", "name", "module"),
    [
        (KDiffusion, "sample_dpm_2", "k_diffusion"),  # with σ between those of its grid
        (Azula, "zABSampler", "azula"),
    ],
)
def test_the_levels_of_a_run_are_found_once(peer, name, module):
    sampler, noise = peer(name), KeyedNoise(KEY)
    model, x = Toy(EDM(1000.0)), torch.ones(2, 3, dtype=torch.float64)
    levels = sampler.levels(grids.uniform, model.schedule, N)
    once = final_state(sampler, model, x, levels, noise)
    with patch(f"samplerbench.samplers.{module}.places", side_effect=AssertionError):
        assert torch.equal(final_state(sampler, model, x, levels, noise), once)
    other = Toy(VPCosine())  # the same κ at other t
    alone = final_state(peer(name), other, x, levels, noise)
    assert torch.equal(final_state(sampler, other, x, levels, noise), alone)


METHODS = [
    *(("DDIMSampler", {"eta": 0.5}), ("DDPMSampler", {}), ("EulerSampler", {})),
    *(("HeunSampler", {}), ("ItoSampler", {}), ("zABSampler", {"order": 3})),
    *(("vABSampler", {}), ("zEABSampler", {}), ("xEABSampler", {}), ("REABSampler", {})),
    ("PCSampler", {"corrections": 2}),
]


@pytest.mark.parametrize(
    ("name", "settings"), METHODS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_an_azula_sampler_is_its_own_call(name, settings, mixture_law, states):
    """On the schedule VE of azula, whose path is that of EDM."""
    oracle, path = mixture_law.oracle(EDM()), azula_noise.VESchedule(0.01, 80.0)
    scales = {"sigma_min": 0.01, "sigma_max": 80.0}
    sampler = Azula(name, settings, "VESchedule", scales)
    x = first(sampler, EDM(), states)
    ours = run(sampler, oracle, x)
    calls = []

    class Posterior(torch.nn.Module):
        schedule = path

        def forward(self, x, t):
            calls.append(x)
            _, sigma = path(t)
            return type("Mean", (), {"mean": oracle.denoiser(x, Level(0.0, 1.0, float(sigma)))})

    kind = getattr(azula_sample, name)
    base = azula_sample.Sampler.__call__
    per_step = 3 if name == "PCSampler" else 2 if name == "HeunSampler" else 1
    with keyed(lambda: (len(calls) - 1) // per_step if kind.__call__ is base else 0):
        last = kind(Posterior(), steps=N, silent=True, **settings)(x)
    assert torch.equal(ours[-1], last)
    assert len(calls) == sampler.evaluations(N)


def test_a_peer_beyond_the_end_of_the_path():
    """An exact denoiser is asked at the peer's own level; κ on the path is kept."""
    beyond, inside = places(EDM(10.0), [(1.0, 80.0), (0.6, 0.8)])
    assert (beyond.level.alpha, beyond.level.sigma, beyond.scale) == (1.0, 80.0, 1.0)
    assert inside.level.sigma / inside.level.alpha == pytest.approx(0.8 / 0.6, rel=1e-12)
    assert inside.scale == pytest.approx(1 / 0.6, rel=1e-12)
    (lost,) = places(VPCosine(), [(0.0, 1.0)])
    assert (lost.level.t, lost.level.alpha, lost.scale) == (1.0, 0.0, 1.0)


def test_a_network_is_not_asked_beyond_its_training(mixture_law):
    oracle = mixture_law.oracle(EDM(10.0))
    oracle.trained_noise = 10.0
    sampler = Diffusers("EulerDiscreteScheduler")
    levels = sampler.levels(grids.uniform, oracle.schedule, N)
    assert "trained up to σ/α = 10" in sampler.why_incompatible(oracle, levels)


def test_what_differs_is_what_counts(tmp_path):
    """A default that is given, and the same settings from a file, are the same sampler."""
    plain = Diffusers("DPMSolverMultistepScheduler", {"use_karras_sigmas": True})
    given = Diffusers("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "solver_order": 2})
    diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True).save_pretrained(tmp_path)
    read = Diffusers(None, config=str(tmp_path))
    more = Diffusers(None, {"solver_order": 3}, config=str(tmp_path / "scheduler_config.json"))
    assert plain == given == read
    assert read.settings == {"use_karras_sigmas": True}
    assert more.settings == {"use_karras_sigmas": True, "solver_order": 3}
    assert read.version == diffusers.__version__
    swapped = Diffusers("EulerDiscreteScheduler", config=str(tmp_path))
    assert swapped.settings == {"use_karras_sigmas": True}
    assert KDiffusion(settings={}) == KDiffusion(
        sigmas="get_sigmas_karras", sigmas_settings={"rho": 7.0}
    )
    assert Azula(settings={"eta": 0.0}) == Azula()


class Unknown(diffusers.FlowMatchEulerDiscreteScheduler.__base__, diffusers.ConfigMixin):
    """A scheduler whose path nothing tells."""

    @diffusers.configuration_utils.register_to_config
    def __init__(self):
        pass

    def set_timesteps(self, num_inference_steps):
        self.timesteps = torch.arange(num_inference_steps)

    def step(self, model_output, timestep, sample):
        return SimpleNamespace(prev_sample=sample)


@each(
    ("build", "said"),
    [
        (lambda: Diffusers("Euler"), "a scheduler of diffusers 0.42.1; did you mean EulerAnc"),
        (lambda: Diffusers(settings={"beta": 1}), "left out: DDIMScheduler has .*beta_start.*eta"),
        (lambda: Diffusers(settings={"beta_schedule": "no"}), "no is not implemented for"),
        (lambda: Diffusers("AmusedScheduler", {"mask_token_id": 5}), "its states are discrete"),
        (lambda: Diffusers("FlowMapEulerDiscreteScheduler"), "a map from one time to another"),
        (lambda: Diffusers("RePaintScheduler"), "needs original_image and mask, which a law"),
        (lambda: Diffusers("DDIMInverseScheduler"), "from the data to the noise"),
        (lambda: Diffusers("DDPMScheduler", {"variance_type": "learned"}), "predicts a variance"),
        (lambda: Diffusers(settings={"prediction_type": "no"}), "no is none of epsilon"),
        (lambda: Diffusers("VQDiffusionScheduler"), "its states are discrete"),
        (lambda: Diffusers("RFD4ProteinaScheduler"), "needs emit_mask, which a law"),
        (lambda: Diffusers("HeliosScheduler"), "its 3 stages have resolutions .*: stages=1"),
        (lambda: Diffusers("HeliosScheduler stages=1 stage_index=0"), "left out: .*shift"),
        (lambda: Diffusers("HeliosDMDScheduler stages=1 use_flow_sigmas=false"), "timesteps are"),
        (lambda: Diffusers("HeliosScheduler stages=1 scheduler_type=dmd"), "NotImplemented"),
        (lambda: Diffusers("SCMScheduler prediction_type=v"), "type=v is not trigflow"),
        (lambda: Diffusers("KarrasVeScheduler sigma=1"), "left out: KarrasVeScheduler has sigma_m"),
        (lambda: Diffusers(custom=int), r"it has no step\(\) and no set_timesteps\(\)"),
        (lambda: Diffusers(custom=Unknown), "no table of ᾱ, and is not one of"),
        (lambda: Diffusers(settings={"timestep_spacing": "no"}), "settings=.*no is not supported"),
        (lambda: Diffusers(settings={"eta": "a"}), "settings=.*must be another one"),
        (lambda: Diffusers(settings={"beta_start": 2}), "settings=.*must be another one"),
        (lambda: Diffusers("EulerDiscreteScheduler s_churn=a"), "unsupported operand type"),
        (lambda: Diffusers(FLOW, {"use_dynamic_shifting": True}), "settings=.*`mu` must be passed"),
        (lambda: Diffusers(config="nowhere"), "an existing scheduler_config.json"),
        (lambda: KDiffusion("sample_no"), "a function of .*sample_heun"),
        (lambda: KDiffusion(settings={"no": 1}), "has no setting at all"),
        (lambda: KDiffusion(sigmas_settings={"no": 1}), "has sigma_min, sigma_max, rho"),
        (lambda: KDiffusion(sigmas_settings={"rho": 0}), "sigmas_settings=.*another one"),
        (lambda: KDiffusion(sigmas_settings={"sigma_min": -1}), "which σ falls"),
        (lambda: KDiffusion(sigmas_settings={"sigma_min": 1, "sigma_max": 0.1}), "which σ falls"),
        (
            lambda: KDiffusion("sample_dpm_fast", sigmas_settings={"sigma_min": 90}),
            "which σ falls, as with 0 < sigma_min < sigma_max",
        ),
        (lambda: Azula(settings={"start": 0.0, "stop": 1.0}), "its noise does not fall"),
        (
            lambda: Diffusers("EDMEulerScheduler", {"sigma_min": 80.0, "sigma_max": 0.1}),
            "its noise does not fall",
        ),
        (
            lambda: Diffusers("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}),
            "its noise does not fall",
        ),
        (lambda: KDiffusion("sample_heun", {"s_churn": "a"}), "settings=.*another one"),
        (lambda: KDiffusion("sample_dpm_fast", sigmas="get_sigmas_vp"), "between sigma_min"),
        # at one step they are levels; at four the negative shift gives a negative σ
        (lambda: Diffusers(FLOW, {"shift": -1.0}).own(EDM(), 4), "steps=4: .*must not be negative"),
        (lambda: Diffusers().levels(grids.uniform, EDM(), 1001), "cannot be larger than `self.con"),
        (lambda: Azula("no"), "a class of azula.sample: DDPMSampler"),
        (lambda: Azula(settings={"no": 1}), "has start, stop, eta"),
        (lambda: Azula("zABSampler", {"order": "a"}), "settings=.*another one"),
        (lambda: Azula(schedule_settings={"sigma_min": "a"}), "schedule_settings=.*another one"),
        (lambda: Azula(schedule="no"), "a class of azula.noise: VESchedule"),
    ],
)
def test_bad_input_is_one_line(build, said):
    with refused_in_one_line(said):
        build()


@pytest.mark.parametrize(
    ("name", "last"), [("DPMSolverSDEScheduler", 0.03), ("CosineDPMSolverMultistepScheduler", 0.3)]
)
def test_a_scheduler_with_a_brownian_tree_gets_our_path(name, last):
    """Its law converges, but for the last step: x̂₀ from σ has the width w²/√(w² + σ²)."""
    sampler = Diffusers(name)
    assert sampler.stochastic
    found = point(sampler, 80)
    assert found.before == pytest.approx(last, rel=0.05)
    assert found.spread == pytest.approx(0.4 / math.hypot(0.4, last) - 1, abs=0.03)


@pytest.mark.parametrize(("method", "kept"), [("EulerSampler", False), ("zABSampler", True)])
def test_only_methods_that_run_in_one_call_keep_their_states(method, kept):
    """N states of a block are much memory."""
    seen = []

    class Watched(Toy):
        def denoiser(self, x, level):
            x0_hat = super().denoiser(x, level)
            seen.append(weakref.ref(x0_hat))
            return x0_hat

    model = Watched(EDM())
    sampler, x = Azula(method), torch.ones(3, 2, dtype=torch.float64)
    run = sampler.steps(model, x, sampler.levels(grids.uniform, EDM(), 8), KeyedNoise(KEY))
    alive = [sum(one() is not None for one in seen) for _ in run]
    assert (max(alive) >= 8) is kept


OTHER_DRAWS = {
    "normal_": lambda x, g: torch.empty_like(x).normal_(0, 0.5, generator=g),
    "normal": lambda x, g: torch.normal(torch.zeros_like(x), 0.5),
    "normal of a size": lambda x, g: torch.normal(0.0, 0.5, x.shape, generator=g).to(x),
    "rand": lambda x, g: torch.rand(x.shape, generator=g).to(x) - 0.5,
    "rand_like": lambda x, g: torch.rand_like(x) - 0.5,
    "uniform_": lambda x, g: torch.empty_like(x).uniform_(-1, 1),
    "randint": lambda x, g: torch.randint(0, 2, x.shape, generator=g).to(x) - 0.5,
    "bernoulli": lambda x, g: torch.bernoulli(torch.full_like(x, 0.5), generator=g) - 0.5,
    "exponential_": lambda x, g: torch.empty_like(x).exponential_(generator=g) - 1,
    "randperm": lambda x, g: torch.randperm(x.numel(), generator=g).view(x.shape).to(x) / 9,
}


@pytest.mark.parametrize("draw", OTHER_DRAWS.values(), ids=OTHER_DRAWS)
def test_other_random_functions_draw_by_our_key(draw):
    """Also with the generator that is handed in; the global generator is left alone."""

    class Own(diffusers.DDIMScheduler):
        def step(self, model_output, timestep, sample, generator=None, **more):
            out = super().step(model_output, timestep, sample, **more)
            out.prev_sample = out.prev_sample + 0.1 * draw(sample, generator)
            return out

    sampler = Diffusers(custom=Own)
    assert sampler.stochastic
    levels = sampler.levels(grids.uniform, Rectified(), 4)
    model, x = Toy(Rectified()), torch.zeros(3, 2, dtype=torch.float64)
    before = torch.get_rng_state()
    one, again, other = (
        final_state(sampler, model, x, levels, KeyedNoise((key,))) for key in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert (one != other).any()
    assert one.unique().numel() > 1


def test_a_scheduler_that_refuses_few_steps_is_swept():
    """PNDM takes at least four steps, with 13 evaluations; with four levels it refuses six."""
    sampler = Diffusers("PNDMScheduler")
    assert [most_steps(sampler, nfe) for nfe in (11, 13, 20)] == [0, 4, 11]
    assert sampler.fewest_steps == 4
    assert KDiffusion("sample_dpmpp_2m_sde").fewest_steps == 2  # N = 1 is an error in its code
    for one in (sampler, KDiffusion("sample_dpm_fast")):  # it always has two levels
        assert evaluations(one) is None
    assert family(sampler) == FAMILIES[1]
    short = Diffusers("DDPMScheduler", {"num_train_timesteps": 4})
    assert short.stochastic
    assert most_steps(short, 4) == 4


def test_a_state_without_a_batch(mixture_law, states):
    """UniPC's code needs one; the result is that of the only row of a batch."""
    sampler, model = Diffusers("UniPCMultistepScheduler"), mixture_law.oracle(VPLinear())
    x = first(sampler, model.schedule, states)[:1]
    alone, row = run(sampler, model, x[0]), run(sampler, model, x)
    assert all(torch.equal(one, two[0]) for one, two in zip(alone, row, strict=True))


def test_without_the_packages(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("samplerbench.samplers.peers.version", version)
    for kind, name in ((Diffusers, "diffusers"), (KDiffusion, "k-diffusion"), (Azula, "azula")):
        with pytest.raises(InvalidSetting, match=rf"{name}: must be installed.*\[peers\]"):
            kind()


@pytest.mark.parametrize(
    ("sampler", "draws"),
    [
        (KDiffusion("sample_heun"), True),  # numbers that it multiplies by 0
        (Azula("DDIMSampler"), True),
        (KDiffusion("sample_lms"), False),
        (Diffusers(), False),
    ],
    ids=lambda v: getattr(v, "package", ""),
)
def test_draws_that_do_not_matter_leave_the_global_generator_alone(
    sampler, draws, mixture_law, states
):
    before = torch.get_rng_state()
    assert sampler.draws is draws
    assert not sampler.stochastic
    run(sampler, mixture_law.oracle(EDM()), first(sampler, EDM(), states))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "sampler",
    [
        Diffusers("EulerDiscreteScheduler", {"s_churn": 9.0, "s_tmin": 1.0, "s_tmax": 1.3}),
        KDiffusion("sample_heun", {"s_churn": 9.0, "s_tmin": 1.0, "s_tmax": 1.3}),
    ],
    ids=lambda v: v.package,
)
def test_churn_in_a_window_that_few_steps_miss_has_the_keyed_noise(sampler, mixture_law, states):
    oracle, steps = mixture_law.oracle(EDM()), 60
    levels = sampler.levels(grids.uniform, EDM(), steps)
    x = levels.rows[0].sigma * states(5, 2)
    one, two = (
        final_state(sampler, oracle, x, levels, KeyedNoise((key, "window"))) for key in (0, 1)
    )
    assert any(1.0 <= row.sigma <= 1.3 for row in levels.rows)
    assert not torch.equal(one, two)


class Imported(diffusers.DDPMScheduler):
    """One of a code that has imported `torch.randn_like` itself."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        noise = own_name(sample)
        out = super().step(model_output, timestep, sample, generator=generator)
        out.prev_sample = out.prev_sample + 0 * noise
        return out


def test_draws_by_an_imported_name_are_keyed_too(mixture_law, states):
    sampler = Diffusers(custom=Imported)
    before = torch.get_rng_state()
    assert not sampler._draws_by_name
    x = first(sampler, EDM(), states)
    one, two = (run(sampler, mixture_law.oracle(EDM()), x)[-1] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.randn is RANDN


def test_other_threads_draw_from_the_generator_of_torch():
    draws, found = Drawing(KeyedNoise(KEY)), []

    def work():
        found.append(torch.randn(3, generator=torch.Generator().manual_seed(5)))

    with by_name(draws):
        thread = Thread(target=work)
        thread.start()
        thread.join()
        mine = torch.randn(3)
    assert torch.equal(found[0], torch.randn(3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(mine, KeyedNoise(KEY).normal(torch.empty(3), 0, 0))
    assert torch.randn is RANDN


class Heard(Handler):
    """A handler that keeps its texts."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def test_warnings_are_off_in_one_thread_and_come_back():
    """Of two threads the one that entered first leaves first."""
    logger, heard = getLogger("diffusers"), Heard()
    logger.addHandler(heard)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        first, second = quiet(), quiet()
        one.submit(first.__enter__).result()
        two.submit(second.__enter__).result()
        one.submit(logger.warning, "in a quiet thread").result()
        logger.warning("beside it")
        one.submit(first.__exit__, None, None, None).result()
        two.submit(second.__exit__, None, None, None).result()
        for thread in (one, two):
            thread.submit(logger.warning, "after it").result()
    logger.removeHandler(heard)
    assert heard.texts == ["beside it", "after it", "after it"]


@pytest.mark.parametrize(
    "made",
    mostly_slow(
        [
            lambda: Diffusers("UniPCMultistepScheduler"),
            lambda: Diffusers("EulerAncestralDiscreteScheduler"),
            lambda: KDiffusion("sample_dpmpp_2m"),
            lambda: Azula("HeunSampler"),
        ],
        1,
    ),
    ids=["unipc", "ancestral", "k_diffusion", "azula"],
)
def test_threads_that_ask_for_a_fact_at_the_same_time_get_one_answer(made):
    """The workers of a sweep share its samplers, and the first question is answered by runs."""
    for fact in ("stochastic", "draws", "global_draws", "_draws_by_name"):
        alone, shared = made(), made()
        with ThreadPoolExecutor(4) as workers:
            found = list(workers.map(lambda _, one=shared, f=fact: getattr(one, f), range(12)))
        assert found == [getattr(alone, fact)] * 12, fact


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        *((KDiffusion, name) for name in ("sample_dpmpp_2m", "sample_euler_ancestral")),
        *((KDiffusion, name) for name in ("sample_dpm_fast", "sample_dpmpp_sde")),
        *((Azula, name) for name in ("zABSampler", "HeunSampler")),
    ],
)
def test_the_last_state_alone_is_that_of_the_steps(peer, name):
    """`final_state` may leave out the states before it."""
    sampler, noise = peer(name), KeyedNoise(("last",))
    model, x = Toy(EDM(1000.0)), 80.0 * torch.linspace(-1, 1, 10).double().view(5, 2)
    levels = sampler.levels(grids.uniform, model.schedule, 8)
    *_, last = iterate(sampler, model, x, levels, noise)
    assert torch.equal(final_state(sampler, model, x, levels, noise), last.x)


def test_a_last_state_of_another_shape_is_refused():
    class Wrong(Heun):
        def last_state(self, model, x, levels, noise):
            return x[:, :1]

    model, x = Toy(EDM()), torch.zeros(3, 2, dtype=torch.float64)
    levels = grids.uniform(model.schedule, 4)
    with pytest.raises(InvalidSetting, match=r"step\.x\.shape=\(3, 1\): .*\(3, 2\)"):
        final_state(Wrong(), model, x, levels, KeyedNoise(("wrong",)))
