"""Divergences of paths: against an independent quadrature, and as a bound of the exact one."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from helpers import sweep_of
from samplerbench.app.job.refusals import check
from samplerbench.bench.line_densities import StartLaw, law_of_output
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import Exact, FixedGaussian, Start
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.kl_paths import KLPaths
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_large import DDPMLarge
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.edm_churn import EDMChurn
from samplerbench.samplers.predictor_corrector import PredictorCorrector
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.samplers.ula import ULA
from samplerbench.verify.orders import interior

WEIGHTS, MEANS, VARIANCES = (0.4, 0.6), (1.5, -1.0), (0.1, 0.3)
LAW = GaussianMixture(WEIGHTS, tuple((m,) for m in MEANS), tuple(((v,),) for v in VARIANCES))


def of_paths(sampler, steps, law=LAW, start=None, n=4096, **changes):
    settings = {"grid": interior, "starts": {"start": start or Exact()}, "n_samples": n}
    return sweep_of(
        law, [("mine", sampler)], steps, metrics={"kl": KLPaths()}, **settings, **changes
    )


def measured(*args, **settings):
    """Values and halves of their intervals, by steps."""
    rows = of_paths(*args, **settings).run()
    assert {row.status for row in rows} == {"ok"}
    return [(row.value, json.loads(row.info)["half_width"]) for row in rows]


@pytest.mark.slow
def test_it_is_an_independent_quadrature():
    """Two steps of DDIM(1) from N(0.2, 1.5²): the integral over x₀, x₁ and x₂."""
    sigmas = interior(EDM(10.0), 2).sigma.numpy()

    def posterior(x, sigma):
        spread, means = np.array(VARIANCES) + sigma**2, np.array(MEANS)
        terms = np.array(WEIGHTS) * normal(x[..., None], means, spread)
        each = means + np.array(VARIANCES) / spread * (x[..., None] - means)
        return terms.sum(-1), (terms * each).sum(-1) / terms.sum(-1)

    def normal(x, mean, variance):
        return np.exp(-0.5 * (x - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)

    def step(x, now, to):
        share = (to / now) ** 2
        return share * x + (1 - share) * posterior(x, now)[1], to**2 * (1 - share)

    x = np.linspace(-9, 9, 121)
    x0, x1, x2 = np.meshgrid(x, x, x, indexing="ij")
    q = normal(x0, 0.2, 1.5**2)
    p = posterior(x2, sigmas[2])[0]
    for before, after, now, to in ((x0, x1, *sigmas[:2]), (x1, x2, *sigmas[1:])):
        q = q * normal(after, *step(before, now, to))
        p = p * normal(before, after, now**2 - to**2)
    cell = (x[1] - x[0]) ** 3
    assert q.sum() * cell == pytest.approx(1, abs=1e-6)
    expected = float((q * (np.log(q + 1e-300) - np.log(p + 1e-300))).sum() * cell)
    ((value, half),) = measured(DDIM(1.0), [2], start=FixedGaussian(0.2, 1.5), n=65536)
    assert value == pytest.approx(expected, abs=1.5 * half)
    assert half < 0.05 * expected


@pytest.mark.parametrize("sampler", [DDIM(1.0), DDIM(0.5), DDPMLarge(), SDEDPMpp2M()], ids=repr)
def test_it_is_above_the_divergence_at_the_last_level(sampler):
    """Which is known exactly on a line."""
    schedule, steps = VPLinear(), 8
    levels, oracle = interior(schedule, steps), LAW.oracle(schedule)
    first, last = levels.rows[0], levels.rows[-1]
    starts = Exact().draw(LAW, 64, first, (0, 0, 0))
    begin = StartLaw(lambda x: oracle.log_density(x, first), starts)
    law, _ = law_of_output(sampler, oracle, levels, begin)
    exact = float(law.mean(law.log_density - oracle.log_density(law.points[:, None], last)))
    ((value, half),) = measured(sampler, [steps], schedule=schedule)
    assert value - half > exact > 0


def test_rare_large_ratios_are_not_taken_for_known():
    """The KL divergence of N(0, 1) and N(3, 1), from 256 points; none is near 3."""
    x = torch.special.ndtri((torch.arange(256).double() + 0.5) / 256)
    far, near = (KLPaths().estimate(m * x - m**2 / 2) for m in (3.0, 0.1))
    assert far.value == pytest.approx(4.5, rel=0.01)
    assert far.info["mean_ratio"] < 0.7
    assert near.value == pytest.approx(0.005, rel=0.02)
    assert near.info["coefficient"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("sampler", "line"),
    [
        (DDIM(0.0), "draws no noise has no density of paths; use metric=kl_law"),
        (EDMChurn(), "not every step draws once, after its last call of the model"),
        (PredictorCorrector(), "not every step draws once, after its last call of the model"),
        (PredictorCorrector(own_norms=True), "does not enter as a Gaussian"),
        (DormandPrince(), "draws no noise"),
        (ULA(), "does not follow the path of the data"),
    ],
    ids=repr,
)
def test_what_has_no_density_of_paths_is_one_line(sampler, line):
    with pytest.raises(InvalidSetting, match=line):
        check(of_paths(sampler, [5], start=FixedGaussian()))


@dataclass(frozen=True)
class Unknown(Start):
    """A start that says nothing of its density."""

    def combine(self, x0, eps, level):
        return level.sigma * eps


def test_a_start_without_a_density_is_one_line():
    sweep = replace(of_paths(DDIM(1.0), [5]), starts={"wide": Unknown()})
    with pytest.raises(InvalidSetting, match="the density of the start wide is not known"):
        check(sweep)
