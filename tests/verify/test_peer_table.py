"""The table of other packages' samplers: three rows by hand, a dozen again, its sentences."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import mostly_slow
from samplerbench.app.commands.examine import runs
from samplerbench.bench.line_densities import StartLaw, law_of_output
from samplerbench.core.grids import Level, Levels, uniform
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.samplers.azula import Azula
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.diffusers import Diffusers, scheduler_names
from samplerbench.samplers.k_diffusion import KDiffusion
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.verify import peer_table
from samplerbench.verify.peer_curves import (
    GAUSSIAN,
    MIXTURE,
    WIDTHS,
    Curve,
    Line,
    Point,
    curve,
    error_in_double,
    keeps_only_x0,
    point,
    quantiles,
    touches_other_rows,
)

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("azula.sample")

MEAN, WIDTH = 0.3, 0.4
PAGE = Path(__file__).parents[2] / "docs" / "peers.md"


def test_quantiles_are_those_of_the_law():
    """Against the empirical ones of a million draws, and against the Gaussian's closed form."""
    random = np.random.default_rng(0)
    modes = random.random(10**6) < 0.35
    x0 = np.where(modes, random.normal(-0.7, 0.12, 10**6), random.normal(0.35, 0.3, 10**6))
    x = 0.8 * x0 + 0.5 * random.standard_normal(10**6)
    found = np.quantile(x, [(k + 0.5) / 12 for k in range(12)])
    np.testing.assert_allclose(quantiles(MIXTURE, 0.8, 0.5)[:, 0].numpy(), found, atol=5e-3)
    assert float(x0.std()) == pytest.approx(WIDTHS[MIXTURE], rel=2e-3)
    z = torch.special.ndtri(torch.tensor([0.07, 0.35, 0.65, 0.93], dtype=torch.float64))
    exact = 0.8 * MEAN + math.hypot(0.8 * WIDTH, 0.5) * z
    torch.testing.assert_close(quantiles(GAUSSIAN, 0.8, 0.5)[:, 0], exact, rtol=0, atol=1e-12)


def test_the_denoiser_is_the_mean_of_the_posterior():
    """By quadrature over x₀."""
    x0 = np.linspace(-3, 3, 20001)
    density = 0.35 * np.exp(-0.5 * ((x0 + 0.7) / 0.12) ** 2) / 0.12
    density += 0.65 * np.exp(-0.5 * ((x0 - 0.35) / 0.3) ** 2) / 0.3
    for x in (-0.9, 0.1, 0.6):
        weight = density * np.exp(-0.5 * ((x - 0.6 * x0) / 0.4) ** 2)
        state = torch.tensor([[x]], dtype=torch.float64)
        found = float(Line([MIXTURE]).denoiser(state, Level(0.0, 0.6, 0.4)))
        assert found == pytest.approx(float((weight * x0).sum() / weight.sum()), rel=1e-8)


def by_hand(levels, factor):
    """The error on the Gaussian of x → α'·x̂₀ + factor·(x − α·x̂₀) over levels (α, σ)."""
    u = np.array([0.07, 0.35, 0.65, 0.93])
    z = torch.special.ndtri(torch.from_numpy(u)).numpy()
    (alpha, sigma), (end, noise) = levels[0], levels[-1]
    x = alpha * MEAN + math.hypot(alpha * WIDTH, sigma) * z
    for (a, s), (b, r) in pairwise(levels):
        mean = MEAN + a * WIDTH**2 / ((a * WIDTH) ** 2 + s**2) * (x - a * MEAN)
        x = b * mean + factor(s, r) * (x - a * mean)
    right = end * MEAN + math.hypot(end * WIDTH, noise) * z
    return math.sqrt(((x - right) ** 2).mean()) / WIDTH


def test_three_rows_by_hand():
    """DDIM, Euler and flow matching on the Gaussian, in NumPy and float64."""
    betas = np.linspace(1e-4, 0.02, 1000)
    table = np.cumprod(1 - betas)
    times = np.arange(9, -1, -1) * 100  # leading
    pairs = [(math.sqrt(a), math.sqrt(1 - a)) for a in table[times]] + [(1.0, 0.0)]
    ddim = by_hand(pairs, lambda s, r: r / s)
    found = point(Diffusers(settings={"clip_sample": False}), 10)
    assert found.gaussian == pytest.approx(ddim, rel=1e-4)
    times = np.linspace(0, 999, 10)[::-1]
    ratio = np.interp(times, np.arange(1000), np.sqrt((1 - table) / table))
    euler = by_hand([(1.0, s) for s in [*ratio, 0.0]], lambda s, r: r / s)
    assert point(Diffusers("EulerDiscreteScheduler"), 10).gaussian == pytest.approx(euler, rel=1e-3)
    flow = by_hand([(1 - s, s) for s in [*np.linspace(1, 0.001, 10), 0.0]], lambda s, r: r / s)
    found = point(Diffusers("FlowMatchEulerDiscreteScheduler"), 10)
    assert found.gaussian == pytest.approx(flow, rel=1e-4)


def test_the_law_of_a_sampler_with_noise_is_exact():
    """Against 200 000 runs of ancestral Euler in three steps."""
    sampler = KDiffusion("sample_euler_ancestral", sigmas_settings={"sigma_max": 3.0})
    found = point(sampler, 3)
    sigmas = sampler._grid(3).double().tolist()
    random = np.random.default_rng(0)
    x = MEAN + math.hypot(WIDTH, sigmas[0]) * random.standard_normal(200_000)
    for now, to in pairwise(sigmas):
        mean = MEAN + WIDTH**2 / (WIDTH**2 + now**2) * (x - MEAN)
        up = min(to, math.sqrt(to**2 * (now**2 - to**2) / now**2))
        down = math.sqrt(to**2 - up**2)
        x = x + (x - mean) / now * (down - now) + up * random.standard_normal(200_000)
    assert found.spread == pytest.approx(x.std() / WIDTH - 1, abs=5e-3)
    off, wide = x.mean() - MEAN, x.std() - WIDTH
    assert found.gaussian == pytest.approx(math.hypot(off, wide) / WIDTH, abs=5e-3)


def test_the_law_on_the_mixture_is_that_of_many_runs():
    """Its W₂ against sorted runs from random starts."""
    sampler, random, count = Diffusers("EulerAncestralDiscreteScheduler"), KeyedNoise((2,)), 20_000
    levels = sampler.levels(uniform, Rectified(), 10)
    modes = random.uniform(torch.empty(count, 1, dtype=torch.float64), 0) < 0.35
    z = random.normal(torch.empty(count, 1, dtype=torch.float64), 1)
    data = torch.where(modes, -0.7 + 0.12 * z, 0.35 + 0.3 * z)
    x = data + levels.rows[0].sigma * random.normal(z, 2)
    end = final_state(sampler, Line([MIXTURE] * count), x, levels, KeyedNoise((3,)))
    gap = (end[:, 0].sort().values - data[:, 0].sort().values).square().mean().sqrt()
    found = point(sampler, 10).mixture
    assert found == pytest.approx(float(gap) / WIDTHS[MIXTURE], abs=0.02)
    assert found > 0.1


def test_what_a_result_depends_on():
    azula_, euler = Azula("DDPMSampler"), Diffusers("EulerAncestralDiscreteScheduler")
    assert azula_.global_draws
    assert not euler.global_draws  # it takes a generator
    assert not Azula("EulerSampler").global_draws
    assert KDiffusion("sample_heun").global_draws  # of numbers that it does not use
    assert not touches_other_rows(euler)

    class Mixing(diffusers.EulerDiscreteScheduler):
        def step(self, model_output, timestep, sample, **more):
            out = super().step(model_output, timestep, sample, **more)
            out.prev_sample = out.prev_sample + out.prev_sample.mean(0)
            return out

    assert touches_other_rows(Diffusers(custom=Mixing))


def test_what_a_step_keeps():
    """Of a state: nothing in LCM and its kind, which leaves a floor; part of it in DDPM."""
    for name, only in (
        ("LCMScheduler", True),
        ("FlowMatchLCMScheduler", True),
        ("SCMScheduler intermediate_timesteps=null", True),
        ("CMStochasticIterativeScheduler clip_denoised=false", True),
        ("DDPMScheduler clip_sample=false", False),
        ("UnCLIPScheduler clip_sample=false", False),
        ("EulerAncestralDiscreteScheduler", False),
        ("HeliosDMDScheduler stages=1", False),
        ("DDIMScheduler", False),
    ):
        assert keeps_only_x0(Diffusers(name)) is only, name
    row = next(one for one in peer_table.kept() if one.name == "SCMScheduler")
    assert "stays at 3.0e-01: a step keeps x̂₀ only" in " ".join(peer_table.sentences(row))


@pytest.mark.slow
def test_a_floor_of_float32_is_told_from_others():
    for name, settings, below in (
        ("DEISMultistepScheduler", {"solver_order": 3}, True),
        ("HeunDiscreteScheduler", {}, False),
    ):
        peer = Diffusers(name, settings)
        ratio = error_in_double(peer, 320) / point(peer, 320).error
        assert (ratio < 0.1) is below
        found = replace(peer_table.known(peer), floor=1e-2, in_double=1e-2 * ratio)
        assert ("tables are float32" in " ".join(peer_table.sentences(found))) is below


def test_levels_of_every_number_of_steps():
    """The trailing spacing has a level too many at some N, also above those that are run."""
    peer = Diffusers("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"})
    lists = tuple(peer.levels(uniform, Rectified(), n).steps for n in range(1, 105))
    found = Curve(tuple(point(peer, n) for n in (10, 11, 20)), False, (*lists[:103], None))
    assert [n for n, count in enumerate(lists, 1) if count != n] == [61, 103]
    assert found.refused == [104]


@pytest.mark.parametrize(
    ("function", "settings", "ours"),
    mostly_slow(
        [
            ("sample_euler_ancestral", {}, DDIM(1.0)),
            ("sample_dpmpp_2m_sde", {"solver_type": "midpoint"}, SDEDPMpp2M()),
        ],
        0,
    ),
)
def test_the_law_of_a_function_is_that_of_our_sampler(function, settings, ours):
    """k-diffusion yields no states during a run; its states are seen when it calls the model."""
    peer = KDiffusion(function, settings)
    own = peer.levels(uniform, Rectified(), 8)
    levels = Levels(own.t, own.alpha, own.sigma)
    law = GaussianMixture((0.35, 0.65), ((-0.7,), (0.35,)), (((0.0144,),), ((0.09,),)))
    oracle = law.oracle(EDM(1e9))
    first = own.rows[0]
    starts = Exact().draw(law, 64, first, (0, 0, 0))
    begin = StartLaw(lambda x: oracle.log_density(x, first), starts)
    theirs, of_ours = (
        law_of_output(one, oracle, at, begin)[0] for one, at in ((peer, own), (ours, levels))
    )
    moments = [
        torch.stack([nodes.mean(nodes.points**k) for k in (1, 2, 3, 4)])
        for nodes in (theirs, of_ours)
    ]
    assert torch.allclose(*moments, rtol=1e-5, atol=1e-6)


def test_noise_of_a_last_step_that_is_all_but_0_is_left_out():
    """DDPM's last step draws with a width of 1e-10; Euler's ancestral step is the same method."""
    ddpm, euler = (
        point(Diffusers(f"{name} timestep_spacing=trailing", settings), 10)
        for name, settings in (
            ("DDPMScheduler", {"clip_sample": False}),
            ("EulerAncestralDiscreteScheduler", {}),
        )
    )
    assert ddpm.mixture == pytest.approx(euler.mixture, rel=1e-3)
    assert ddpm.gaussian == pytest.approx(euler.gaussian, rel=1e-3)


#: A row of each package, and in the slow suite a dozen.
AGAIN = (
    *(("DPMSolverMultistepScheduler", ""), ("sample_dpmpp_2m", ""), ("zABSampler", "")),
    *(
        pytest.param(row, marks=pytest.mark.slow)
        for row in (
            *(("DDIMScheduler", "clip_sample=false"), ("PNDMScheduler", "")),
            ("DPMSolverMultistepScheduler", "final_sigmas_type=sigma_min"),
            *(("EulerAncestralDiscreteScheduler", ""), ("HeunDiscreteScheduler", "")),
            *(("UniPCMultistepScheduler", ""), ("DEISMultistepScheduler", "")),
            *(("FlowMatchEulerDiscreteScheduler", ""), ("EDMEulerScheduler", "")),
            *(("HeliosScheduler", "stages=1"), ("KarrasVeScheduler", "s_churn=0")),
            *(("HeunSampler", ""), ("sample_dpmpp_2m_sde", "")),
        )
    ),
)


@pytest.fixture(scope="module")
def rows(gallery_script):
    """The samplers of the table, by what they are called there."""
    return {peer_table.called(one): one for one in gallery_script("peers").rows()}


@pytest.mark.parametrize("row", AGAIN, ids=" ".join)
def test_a_row_again(row, rows):
    """A package that behaves differently from the table is a changed row."""
    kept = next(one for one in peer_table.kept() if (one.name, one.settings) == row)
    peer = rows[row]
    assert kept.version == peer.installed()
    assert kept.evaluations == tuple(peer.evaluations(n) for n in (10, 11, 20))
    for n in (10, 20, 40):
        found, at = point(peer, n), peer_table.SHOWN.index(n)
        want = [kept.gaussian[at], kept.mixture[at]]
        # three digits are kept
        assert [found.gaussian, found.mixture] == pytest.approx(
            want, rel=1e-2, abs=1e-7, nan_ok=True
        )
        if n == 20:
            assert [found.first, found.last] == pytest.approx([kept.first, kept.last], rel=1e-2)


def test_the_page_is_that_of_the_facts(gallery_script, rows):
    script = gallery_script("peers")
    assert script.page(peer_table.kept()) == PAGE.read_text(encoding="utf-8")
    known = {(one.package, one.name, one.settings) for one in peer_table.kept()}
    assert known == {(one.package, *called) for called, one in rows.items()}
    assert len([one for one in peer_table.kept() if one.package == "diffusers"]) > 55
    said = (PAGE.parent / "samplers_peers.md").read_text(encoding="utf-8")
    assert f"faults of {len(known)} settings" in said


def test_advice_is_of_the_table():
    peer = Diffusers("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"})
    said = peer_table.advice(peer)
    assert said.startswith("diffusers DPMSolverMultistepScheduler final_sigmas_type=sigma_min: ")
    assert "from N = 14 to 15 the error is" in said
    assert "ends at σ/α = 0.01, not at the data" in said
    unknown = Diffusers("DPMSolverMultistepScheduler", {"num_train_timesteps": 500})
    assert peer_table.advice(unknown) is None
    assert "not a number at every N" in peer_table.advice(
        Diffusers("UniPCMultistepScheduler", {"solver_type": "bh1"})
    )


def test_sentences_say_what_the_numbers_are():
    plain = next(one for one in peer_table.kept() if one.name == "FlowMatchEulerDiscreteScheduler")
    plain = replace(plain, floor=0.0, jump=(0, 1.0), worse=0, lengths=(), last=0.0, floats=False)
    plain = replace(plain, refused=(), not_finite=(), time_error=0.0, clips=False)
    plain = replace(plain, lowest=(0, math.nan))
    assert peer_table.sentences(plain) == []
    for change, said in (
        ({"jump": (14, 10.3)}, "from N = 14 to 15 the error is 10.3 times larger"),
        ({"worse": 160}, "more steps than 160 are worse"),
        ({"floor": 3.4e-3, "before": (0.029, 0.029)}, "stays at 3.4e-03: the last step begins at"),
        ({"time_error": 0.02}, "a rounded time, up to 2 % off"),
        ({"not_finite": (7, 9, 11, 12, 13)}, "not a number at N = 7, 9, 11 and 2 more"),
        ({"floats": True}, "float32 inside"),
        ({"clips": True}, "clips x̂₀ to ±1"),
    ):
        (line,) = peer_table.sentences(replace(plain, **change))
        assert re.search(re.escape(said), line)
    assert peer_table.kept_promises(plain) == [
        "a result does not depend on the other rows of its batch",
        "float64 states stay float64",
        f"our nearest on the same levels: ddim, η = 0, {plain.apart:.0e} apart at N = 20",
    ]
    (*_, said) = peer_table.kept_promises(replace(plain, visited=(999, 1000), apart=math.nan))
    assert said == "with N = 1000 it visits 999 of the 1000 levels of its table"
    drawn = replace(plain, neighbours=True, floats=True, global_draws=True, apart=math.nan)
    (said,) = peer_table.kept_promises(drawn)
    assert said.startswith("as shipped it draws from torch's global generator")


def test_what_a_curve_says():
    """For an invented curve: error 1/N² to 1e-3, a jump at 15, and one N that is not a number."""
    sampler = Diffusers("FlowMatchEulerDiscreteScheduler")
    found = curve(sampler, steps=(5, 10, 20))
    points = [
        Point(n, n, n, gaussian=max(n**-2.0, 1e-4) * (20 if n == 15 else 1), mixture=0.0, spread=-1)
        for n in (5, 10, 14, 15, 20, 40, 80, 160, 320, 640, 1000)
    ]
    made = replace(found, points=(*points, Point(1001, finite=False)))
    assert made.order("gaussian") == pytest.approx(2, abs=0.05)
    assert made.floor == pytest.approx(1e-4)
    assert made.jump == (14, pytest.approx(20 * (14 / 15) ** 2))
    assert made.worse == 14
    assert made.not_finite == [1001]
    assert found.order("gaussian") == pytest.approx(1, abs=0.15)


def test_runs_at_every_number_of_steps():
    peer = Diffusers("DPMSolverMultistepScheduler num_train_timesteps=12")
    found = curve(peer, steps=range(1, 13))
    assert found.not_finite == [12]
    worse = replace(found.points[7], mixture=9.0)
    ended, jump = runs(replace(found, points=(*found.points[:7], worse)))
    assert ended == "runs at every N from 1 to 8: all ended with numbers"
    times = 9 / found.at(7).error
    assert jump.endswith(f"is at most {times:.3g} times larger (from N = 7 to 8)")
    assert runs(found)[0] == "runs at every N from 1 to 12: 1 did not end with numbers"


def test_a_scheduler_with_a_short_table_has_its_facts():
    """It refuses the numbers of steps at which other schedulers are compared."""
    peer = Diffusers("DDIMScheduler num_train_timesteps=12")
    known = peer_table.facts(peer, curve(peer, steps=(5, 10, 11, 12, 20, *peer_table.SHOWN[2:])))
    assert known.refused[0] == 13
    assert known.visited == (12, 12)
    assert math.isnan(known.apart)
    assert "with N = 12 it visits each level of its table" in peer_table.kept_promises(known)


def test_our_nearest_sampler():
    """The same method on the same levels, with the same draws; and a scheduler unlike ours."""
    for peer, same in (
        (Diffusers("DDIMScheduler clip_sample=false eta=1"), "ddim, η = 1"),
        (Diffusers("DPMSolverMultistepScheduler solver_order=3"), "dpm_solver_pp, points=3"),
        (Diffusers("HeunDiscreteScheduler"), "heun"),
        (KDiffusion("sample_dpm_2"), "dpm_solver_2"),
        (KDiffusion("sample_dpmpp_2m_sde"), "sde_dpmpp_2m"),
        (Azula("xEABSampler"), "adams_bashforth, points=2"),
    ):
        name, apart = peer_table.nearest(peer)
        assert name == same
        assert apart < 1e-5
    assert peer_table.nearest(Azula("REABSampler"))[0] == ""


def test_where_a_run_begins():
    """The leading spacing begins at (N − 1)·(T // N): at 500 of 999 for N = 501, at 998 for 500."""
    found = curve(Diffusers("DDIMScheduler clip_sample=false"), steps=(5, 10, 20))
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[500]
    assert found.lowest == (501, pytest.approx(math.sqrt((1 - signal) / signal), rel=1e-5))
    kept = next(one for one in peer_table.kept() if one.settings == "clip_sample=false")
    begins = replace(kept, lowest=found.lowest)
    assert "begins at σ/α = 3.4 at N = 501, and at 97.1 at N = 20" in peer_table.sentences(begins)


def test_every_scheduler_has_a_row_or_a_reason(gallery_script):
    script = gallery_script("peers")
    refused = {name for names in script.refusals().values() for name in names}
    assert set(scheduler_names()) == refused | set(script.SCHEDULERS)
    assert not refused & {name for name, all_ in script.SCHEDULERS.items() if {} in all_}
