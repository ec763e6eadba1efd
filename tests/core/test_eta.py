"""The conventions of η: shares of fresh noise, in closed form and read off the codes themselves."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from samplerbench.core.eta import AZULA, EXPONENTIAL, HACKABLE, PAPER, translate
from samplerbench.core.grids import Levels
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.sde_dpmpp_1 import SDEDPMpp1
from samplerbench.verify.exact_law import output_law

CONVENTIONS = {"paper": PAPER, "azula": AZULA, "hackable": HACKABLE, "exponential": EXPONENTIAL}


def test_shares_by_hand():
    for eta, ratio, shares in (
        (0.5, 0.5, (0.25, 0.5, 7 / 12, 2 / 3)),
        (0.3, 0.1, (0.09, 0.3, 0.4718182, 0.7563751)),
    ):
        found = [convention.share(eta, ratio) for convention in CONVENTIONS.values()]
        assert found == pytest.approx(shares, rel=1e-6)


def test_there_and_back():
    for one, two in product(CONVENTIONS.values(), repeat=2):
        for eta, ratio in product([0.0, 0.2, 0.7, 1.0], [0.05, 0.5, 0.95]):
            there = translate(eta, ratio, one, two)
            assert -1e-9 <= there <= 1 + 1e-9
            assert two.share(there, ratio) == pytest.approx(one.share(eta, ratio), abs=1e-12)
            assert translate(min(there, 1.0), ratio, two, one) == pytest.approx(eta, abs=1e-7)


def test_ends_are_common_and_small_steps_tend_to_azulas():
    for convention in CONVENTIONS.values():
        assert convention.share(0.0, 0.5) == 0
        assert convention.share(1.0, 0.5) == pytest.approx(1)
    for convention in (HACKABLE, EXPONENTIAL):
        assert convention.share(0.5, 0.9999) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("eta", [0.2, 0.5, 0.9])
def test_ours_are_the_papers_and_the_exponential_one(eta):
    """One step with ratio ½ of data that are one point: all its spread is fresh noise."""
    ratio, identity = 0.5, torch.eye(1, dtype=torch.float64)
    sigma = torch.tensor([1.0, ratio], dtype=torch.float64)
    levels = Levels(sigma / 80, torch.ones_like(sigma), sigma)
    oracle, x = gaussian((0.0,), ((0.0,),)).oracle(EDM()), torch.zeros(1, dtype=torch.float64)
    for sampler, convention in ((DDIM(eta), PAPER), (SDEDPMpp1(eta), EXPONENTIAL)):
        variance = output_law(sampler, oracle, levels, x, 0 * identity)[1]
        share = float(variance) / (ratio**2 * (1 - ratio**2))
        assert share == pytest.approx(convention.share(eta, ratio), rel=1e-10)
    other = translate(eta, ratio, PAPER, EXPONENTIAL)
    one, two = (
        final_state(s, oracle, x + 1, levels, KeyedNoise(("η",)))
        for s in (DDIM(eta), SDEDPMpp1(other))
    )
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.3, 0.8])
def test_azula_is_ddim_at_its_square_root(eta, mixture_law, states, monkeypatch):
    sample = pytest.importorskip("azula.sample")
    denoise = pytest.importorskip("azula.denoise")
    path, noise = VPLinear(), KeyedNoise(("azula",))
    oracle, x = mixture_law.oracle(path), states(8, 2)
    times = torch.linspace(0.9, 0.2, 5, dtype=torch.float64)
    levels = Levels(times, *path(times))

    class Theirs(denoise.Denoiser):
        schedule = staticmethod(path)

        def forward(self, x_t, t, **_):
            level = levels.rows[int((times - t).abs().argmin())]
            return denoise.DiracPosterior(mean=oracle.denoiser(x_t, level))

    theirs = sample.DDIMSampler(Theirs(), eta=eta, steps=4)
    ours = DDIM(translate(eta, 0.5, AZULA, PAPER)).steps(oracle, x, levels, noise)
    for i, step in enumerate(ours):
        monkeypatch.setattr(torch, "randn_like", lambda like, i=i: noise.normal(like, i))
        x = theirs.step(x, times[i], times[i + 1])
        torch.testing.assert_close(step.x, x, rtol=1e-11, atol=1e-11)


def test_bad_settings():
    for eta, ratio, field in ((-0.1, 0.5, "eta"), (1.1, 0.5, "eta"), (0.5, 1.0, "ratio")):
        with pytest.raises(InvalidSetting, match=f"^{field}="):
            translate(eta, ratio, PAPER, AZULA)
