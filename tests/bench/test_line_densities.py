"""Laws of outputs on a line: against closed forms, an independent quadrature, and samples."""

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch

from helpers import mostly_slow, sweep_of
from samplerbench.app.job.refusals import check
from samplerbench.bench import line_densities
from samplerbench.bench.budget.parts import parts
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.line_densities import (
    RESOLUTIONS,
    Folded,
    Resolution,
    StartLaw,
    gauss_and_kronrod,
    gauss_rule,
    law_of_output,
)
from samplerbench.bench.store import as_table
from samplerbench.bench.transitions import Refused
from samplerbench.core.grids import hold, karras, uniform
from samplerbench.core.line_laws import LineNodes
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.core.starts import Exact, FixedGaussian, Overdispersed, Prior
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.four_well_boltzmann import FourWellBoltzmann
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.sliced import Sliced
from samplerbench.metrics.tv_law import TVLaw
from samplerbench.metrics.w_output_1d import WOutput1D
from samplerbench.samplers.ais import AIS
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.base import Sampler, Step, final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_large import DDPMLarge
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.edm_churn import EDMChurn
from samplerbench.samplers.er_sde import ERSDE
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.hmc import HMC
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.picard import Picard
from samplerbench.samplers.predictor_corrector import PredictorCorrector
from samplerbench.samplers.replica_exchange import ReplicaExchange
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.sa_solver import SASolver
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.samplers.smc import SMC
from samplerbench.samplers.ula import ULA
from samplerbench.samplers.underdamped import Underdamped
from samplerbench.samplers.unipc import UniPC
from samplerbench.verify.exact_law import output_law

WEIGHTS, MEANS, VARIANCES = (0.2, 0.5, 0.3), (1.5, -1.0, 4.0), (0.1, 0.3, 0.05)
LAW = GaussianMixture(WEIGHTS, tuple((m,) for m in MEANS), tuple(((v,),) for v in VARIANCES))
KARRAS = functools.partial(karras, noise_min=0.02, rho=5.0)


def carried(sampler, levels, law=LAW, schedule=None, start=None, **more):
    oracle, first = law.oracle(schedule or EDM(10.0)), levels.rows[0]
    start = start or Exact()
    starts = start.draw(law, 64, first, (0, 0, 0))
    begin = StartLaw(lambda x: start.log_density(x, first, oracle.log_density), starts)
    return law_of_output(sampler, oracle, levels, begin, **more)[0]


def compared(sampler, steps, law):
    """The law of an output that will be compared with the law of the data."""
    levels = KARRAS(EDM(10.0), steps)
    return carried(sampler, levels, law, log_p=lambda y: law.log_density(y[:, None]), linear=True)


def kl(nodes, law=LAW):
    return float(nodes.mean(nodes.log_density - law.log_density(nodes.points[:, None])))


@pytest.mark.slow
def test_it_is_the_exact_law_on_a_gaussian(all_samplers):
    """Mean and variance of every sampler with noise, by the dense affine map; and the density."""
    law, schedule = gaussian((0.7,), ((0.3,),)), VPLinear()
    q = FixedGaussian(0.2, 1.1)
    checked, refused = 0, set()
    for sampler in all_samplers:
        if not sampler.stochastic or sampler.brings_levels:
            continue
        moving = karras(schedule, 6, noise_max=5.0, noise_min=0.1)
        levels = hold(schedule, 4, noise=0.5) if sampler.holds else moving
        try:
            nodes = carried(sampler, levels, law, schedule, q)
        except Refused:
            refused.add(type(sampler))
            continue
        mean, covariance = output_law(
            sampler,
            law.oracle(schedule),
            levels,
            torch.tensor([0.2], dtype=torch.float64),
            torch.tensor([[1.21]], dtype=torch.float64),
        )
        sd = float(covariance) ** 0.5
        exact = torch.distributions.Normal(mean, sd)
        inside = (nodes.points - mean).abs() < 6 * sd
        y = nodes.points[inside]
        torch.testing.assert_close(nodes.cdf[inside], exact.cdf(y), rtol=0, atol=1e-7)
        torch.testing.assert_close(nodes.log_density[inside], exact.log_prob(y), rtol=0, atol=1e-5)
        assert float(nodes.masses.sum()) == pytest.approx(1, abs=1e-10)
        assert float(nodes.mean(nodes.points)) == pytest.approx(float(mean), abs=1e-8)
        assert nodes.distance(law.line_law(), 2) == pytest.approx(
            math.hypot(float(mean) - 0.7, sd - 0.3**0.5), abs=1e-6
        )
        checked += 1
    assert checked > 12
    # they weigh, reject, keep a velocity, draw noise whose width depends on the state or all of it
    # beforehand, or remember more than the last state and x̂₀
    weighting, rejecting = {AIS, SMC}, {HMC, MALA, ReplicaExchange}
    others = {ERSDE, Picard, PredictorCorrector, SASolver, Underdamped}
    assert refused == weighting | rejecting | others


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_it_is_an_independent_quadrature_on_a_mixture(eta):
    """DDIM(η) by a dense matrix on a fixed grid, with its coefficients and x̂₀ written again."""
    levels = KARRAS(EDM(10.0), 4)
    sigmas = levels.sigma.numpy()

    def posterior(x, sigma):
        spread = np.array(VARIANCES)[:, None] + sigma**2
        means = np.array(MEANS)[:, None]
        terms = np.array(WEIGHTS)[:, None] / np.sqrt(2 * np.pi * spread)
        terms = terms * np.exp(-0.5 * (x - means) ** 2 / spread)
        density = terms.sum(0)
        each = means + np.array(VARIANCES)[:, None] / spread * (x - means)
        return density, (terms * each).sum(0) / density

    # the masses of the first state, and then of the others, on ever finer grids
    x = np.linspace(-100, 100, 4001)
    masses = posterior(x, sigmas[0])[0] * (x[1] - x[0])
    for now, to in pairwise(sigmas[:-1]):
        fresh = eta * to / now * math.sqrt(now**2 - to**2)
        kept = math.sqrt(to**2 - fresh**2) / now
        x0 = posterior(x, now)[1]
        means = kept * x + (1 - kept) * x0
        y = np.linspace(means.min() - 9 * fresh, means.max() + 9 * fresh, 4001)
        kernel = np.exp(-0.5 * ((y[:, None] - means) / fresh) ** 2)
        density = kernel @ masses / (math.sqrt(2 * math.pi) * fresh)
        x, masses = y, density * (y[1] - y[0])
    # the last step is x̂₀: E f(x̂₀) for f of the data's score of moments
    x0 = posterior(x, sigmas[-2])[1]
    nodes = carried(DDIM(eta), levels)
    for f in (lambda v: v, lambda v: v**2, np.cos, lambda v: np.exp(-(v**2))):
        ours = float(nodes.mean(torch.from_numpy(f(nodes.points.numpy()))))
        assert ours == pytest.approx(float(masses @ f(x0)), abs=1e-8)


SAMPLED = [DDIM(0.4), DDPMLarge(), SDEDPMpp2M(), EDMChurn(), PredictorCorrector(), DDIM(0.0)]


def distance_from_samples(sampler, blocks, size):
    """The Kolmogorov-Smirnov distance of samples from the law, times √n."""
    levels, oracle = KARRAS(EDM(10.0), 5), LAW.oracle(EDM(10.0))
    nodes = carried(sampler, levels)
    parts = []
    for block in range(blocks):
        x = Exact().draw(LAW, size, levels.rows[0], (1, 0, block))
        noise = KeyedNoise(("sampler", 1, 0, block))
        parts.append(final_state(sampler, oracle, x, levels, noise)[:, 0])
    y = torch.cat(parts).sort().values.numpy()
    cdf = np.interp(y, nodes.points.numpy(), nodes.cdf.numpy())
    n = len(y)
    steps = np.arange(n + 1) / n
    return max(np.abs(cdf - steps[1:]).max(), np.abs(cdf - steps[:-1]).max()) * math.sqrt(n)


@pytest.mark.parametrize("sampler", mostly_slow(SAMPLED, 0, 1), ids=lambda s: type(s).__name__)
def test_samples_have_this_law(sampler):
    """1.95 is exceeded once in a thousand times."""
    assert distance_from_samples(sampler, 1, 100_000) < 1.95


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLED, ids=lambda s: type(s).__name__)
def test_ten_million_samples_have_this_law(sampler):
    assert distance_from_samples(sampler, 10, 1_000_000) < 1.95


def crossed(sampler, levels, law):
    """The total variation from the places where q = p, by bisection; F and G are closed forms."""
    oracle, first = law.oracle(EDM(10.0)), levels.rows[0]

    def run(x):
        x = x[:, None].requires_grad_()
        y = final_state(sampler, oracle, x, levels, KeyedNoise(("none",)))
        (slope,) = torch.autograd.grad(y.sum(), x)
        log_q = oracle.log_density(x.detach(), first) - slope[:, 0].log()
        return y.detach()[:, 0], log_q - law.log_density(y.detach())

    grid = torch.linspace(-80, 80, 4001).double()
    sign = run(grid)[1].sign()
    places = (sign[1:] != sign[:-1]).nonzero().flatten()
    low, high, below = grid[places], grid[places + 1], sign[places]
    for _ in range(45):
        middle = (low + high) / 2
        same = run(middle)[1].sign() == below
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    weights, means, covariances = (values.flatten() for values in law.tensors())
    z = (low[:, None] - means) / (covariances + first.sigma**2).sqrt()
    gap = (weights * torch.special.ndtr(z)).sum(1) - law.line_law().cdf(run(low)[0])
    ends = torch.zeros(1).double()
    return float(torch.cat([ends, gap, ends]).diff().clamp_min(0).sum())


CROSSED = mostly_slow([(UniPC(), 9), (DDIM(0.0), 9), (Heun(), 20), (Heun(), 9), (UniPC(), 20)], 0)


@pytest.mark.parametrize(("sampler", "steps"), CROSSED, ids=repr)
def test_the_total_variation_has_its_stated_error(sampler, steps):
    """A plain sum over nodes is wrong by 1e-6 to 5e-5, where q and p cross; stated were 4e-8."""
    found = TVLaw().of_output(compared(sampler, steps, LAW), LAW)
    exact = crossed(sampler, KARRAS(EDM(10.0), steps), LAW)
    assert found.info["quadrature_error"] < 1e-7
    assert abs(found.value - exact) <= found.info["quadrature_error"] + 1e-11


LONG = [pytest.param(one, marks=pytest.mark.slow) for one in (EDMChurn(), Heun(), SDEDPMpp2M(0.7))]
REFINED = [DDIM(1.0), *LONG]


@pytest.mark.parametrize("sampler", REFINED, ids=repr)
def test_the_stated_error_is_one(sampler, monkeypatch):
    """Against a law at a much finer resolution."""
    metrics = [KLLaw(), TVLaw(), WOutput1D(1), WOutput1D(2)]

    def measured(spacings):
        monkeypatch.setattr(line_densities, "RESOLUTIONS", spacings)
        nodes = carried(sampler, KARRAS(EDM(10.0), 8))
        return [metric.of_output(nodes, LAW) for metric in metrics]

    rough = [Resolution(1.6, 2, 1e-4), Resolution(1.2, 3, 1e-5)]
    finest = RESOLUTIONS[1:3] if isinstance(sampler, SDEDPMpp2M) else RESOLUTIONS[-2:]
    for coarse, fine in zip(measured(rough), measured(finest), strict=True):
        stated, own = coarse.info["quadrature_error"], fine.info["quadrature_error"]
        assert abs(coarse.value - fine.value) <= stated + own
        assert own < 1e-4
        assert coarse.lower <= coarse.value <= coarse.upper


@pytest.mark.parametrize("steps", [8, 12])
def test_noise_between_almost_folded_maps_has_its_stated_error(steps, monkeypatch):
    """With churn in eight steps KL was wrong by 2.7e-4 where 5.9e-5 were stated."""

    def found():
        nodes = carried(EDMChurn(), KARRAS(EDM(10.0), steps))
        return [metric.of_output(nodes, LAW) for metric in (KLLaw(), TVLaw(), WOutput1D(2))]

    values = found()
    monkeypatch.setattr(line_densities, "RESOLUTIONS", [Resolution(0.07, 4, 1e-10)] * 2)
    for one, other in zip(values, found(), strict=True):
        assert abs(one.value - other.value) <= one.info["quadrature_error"]
        assert one.info["quadrature_error"] < 2e-5


def test_the_levels_before_do_not_matter_to_a_sampler_that_forgets():
    """DDIM(1) from a level without signal: all starts give one law."""
    levels = uniform(Rectified(), 5)
    one = carried(DDIM(1.0), levels, schedule=Rectified(), start=Prior())
    other = carried(DDIM(1.0), levels, schedule=Rectified(), start=FixedGaussian(0.5, 0.2))
    assert kl(one) == pytest.approx(kl(other), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [SDEDPMpp2M(), ERSDE(2)])
def test_a_remembered_estimate_may_have_no_effect_at_much_noise(sampler):
    """At σ = 800 the previous x̂₀ moves a state by less than its rounding; later it matters."""
    schedule = EDM(800.0)
    levels = functools.partial(karras, noise_min=0.1, rho=7.0)(schedule, 10)
    nodes = carried(sampler, levels, schedule=schedule)
    count = 40_000
    x = Exact().draw(LAW, count, levels.rows[0], (1, 0, 0))
    x = final_state(sampler, LAW.oracle(schedule), x, levels, KeyedNoise(("far",)))[:, 0]
    mean = nodes.mean(nodes.points)
    spread = nodes.mean((nodes.points - mean).square()).sqrt()
    assert abs(float(x.mean() - mean)) < 4 * float(spread) / math.sqrt(count)
    assert abs(float(x.std() / spread) - 1) < 0.02


def test_more_memory_than_one_estimate_is_refused_also_where_it_hardly_matters():
    """At few steps from much noise the older x̂₀ is not seen by exchanging rows."""
    schedule = EDM(800.0)
    levels = functools.partial(karras, noise_min=0.01, rho=7.0)(schedule, 4)
    with pytest.raises(Refused, match="remember more"):
        carried(ERSDE(3), levels, schedule=schedule)


def test_the_nested_rule():
    """Nodes and weights of QUADPACK's 15 nodes; exact to degree 22, and 13 for the seven."""
    gauss, rule = gauss_and_kronrod(7)
    assert float(rule.nodes[-1]) == pytest.approx(0.991455371120812639206854697526329, rel=1e-15)
    assert float(rule.weights[7]) == pytest.approx(0.209482141084727828012999174891714, rel=1e-14)
    assert torch.equal(rule.nodes[1::2], gauss.nodes)
    for one, degree in ((gauss, 13), (rule, 22)):
        powers = one.nodes[:, None] ** torch.arange(degree + 3)
        whole = one.weights @ powers
        exact = torch.tensor([2 / (k + 1) if k % 2 == 0 else 0.0 for k in range(degree + 3)])
        torch.testing.assert_close(whole[: degree + 1], exact[: degree + 1].double())
        assert (whole - exact).abs().max() > 1e-9
        part = one.within @ one.nodes.exp()
        atol = 1e-6 if one is gauss else 1e-14
        torch.testing.assert_close(part, one.nodes.exp() - math.exp(-1), rtol=0, atol=atol)


NARROW = GaussianMixture(
    WEIGHTS, tuple((m,) for m in MEANS), tuple(((v,),) for v in (1e-4, 0.3, 2.5e-5))
)


@pytest.mark.parametrize(
    ("sampler", "steps", "law"),
    mostly_slow(
        [
            (DDIM(0.0), 12, NARROW),
            (Heun(), 36, NARROW),
            (UniPC(), 12, LAW),
            (Heun(), 36, LAW),
            (DDIM(0.0), 12, FourWellBoltzmann()),
            (UniPC(), 12, FourWellBoltzmann()),
        ],
        0,
    ),
    ids=repr,
)
def test_without_noise_it_is_right_to_seven_digits(sampler, steps, law, monkeypatch):
    """Against a rule of 31 nodes with a thousandth of the tolerance, also with narrow modes."""

    def found():
        return KLLaw().of_output(compared(sampler, steps, law), law)

    value = found()
    monkeypatch.setattr(line_densities, "_GAUSS", 15)
    monkeypatch.setattr(line_densities, "_ALONE", Resolution(1.0, 4, 1e-12))
    finer = found()
    assert value.info["quadrature_error"] < 1e-7
    error = abs(value.value - finer.value)
    assert error < value.info["quadrature_error"] + finer.info["quadrature_error"] + 1e-12


@pytest.mark.parametrize(("sampler", "steps"), mostly_slow([(DDIM(0.0), 12), (UniPC(), 36)], 0))
def test_the_mean_ratio_is_one_with_narrow_modes(sampler, steps):
    """The law is four times as narrow as a mode: where p has a hundredth, q has 1e-21."""
    nodes = compared(sampler, steps, NARROW)
    inner = nodes.masses > 1e-21
    ratios = (NARROW.log_density(nodes.points[:, None]) - nodes.log_density).exp()
    assert float((nodes.masses * ratios)[inner].sum()) < 0.999
    info = KLLaw().of_output(nodes, NARROW).info
    assert abs(info["mean_ratio"] - 1) <= info["mean_ratio_error"] + 1e-9
    assert info["mean_ratio_error"] < 1e-4


def test_far_starts_reach_the_flanks_of_very_narrow_modes():
    """The law is 400 times as narrow as its modes; the inner flanks stay beyond float64."""
    law = GaussianMixture((0.3, 0.7), ((0.0,), (4.0,)), (((1e-6,),), ((1e-6,),)))
    nodes = compared(DDIM(0.0), 12, law)
    info = KLLaw().of_output(nodes, law).info
    reached = law.line_law().cdf(torch.stack([nodes.points.min(), nodes.points.max()]))
    assert reached[0] < 0.03
    assert reached[1] > 0.95
    assert 0.95 < info["mean_ratio"] < 0.97  # no error: the oracle's density is normalised


def test_without_noise_it_takes_fewer_states_than_samples(monkeypatch):
    """In three runs; tangents and dual numbers give one law."""
    oracle, seen = type(LAW.oracle(EDM(10.0))), []

    def watched(self, x, level, derivative=oracle.derivative):
        seen.append(len(x))
        return derivative(self, x, level)

    monkeypatch.setattr(oracle, "derivative", watched)
    levels = KARRAS(EDM(10.0), 9)
    one = carried(DDIM(0.0), levels, linear=True)
    assert len(seen) / 9 <= 3
    assert 200 < sum(seen) / 9 < 2048
    other = carried(DDIM(0.0), levels)
    torch.testing.assert_close(one.log_density, other.log_density, rtol=0, atol=1e-9)


@dataclass(frozen=True)
class Sly(Sampler):
    """DDIM, which says that it draws no noise."""

    eta: float = 0.0
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def steps(self, model, x, levels, noise):
        return DDIM(self.eta).steps(model, x, levels, noise)


def test_noise_is_found_whatever_the_sampler_says():
    levels = KARRAS(EDM(10.0), 3)
    one, other = carried(Sly(0.5), levels), carried(DDIM(0.5), levels)
    assert torch.equal(one.masses, other.masses)


def test_a_fold_is_found_early(monkeypatch):
    """Two neighbours between which the map falls are enough."""
    oracle, seen = type(LAW.oracle(EDM(10.0))), []

    def watched(self, x, level, derivative=oracle.derivative):
        seen.append(len(x))
        return derivative(self, x, level)

    monkeypatch.setattr(oracle, "derivative", watched)
    with pytest.raises(Folded, match="do not increase"):
        carried(Heun(), KARRAS(EDM(10.0), 9), NARROW, linear=True)
    assert sum(seen) / 17 < 3000


def test_gauss_rules():
    """That of the normal law has Hermite's nodes; one point has all of a law without width."""
    x = torch.linspace(-12, 12, 2001).double()
    weights = torch.stack([(-0.5 * x.square()).exp(), (x.abs() < 1e-9).double()])
    points, shares = gauss_rule(weights, x, 5)
    nodes, masses = np.polynomial.hermite_e.hermegauss(5)
    np.testing.assert_allclose(points[0].sort().values, nodes, atol=1e-8)
    np.testing.assert_allclose(shares[0], masses / masses.sum(), atol=1e-8)
    assert float((shares[1] * points[1]).sum()) == pytest.approx(0, abs=1e-12)
    assert float(shares[1].sum()) == pytest.approx(1)


def test_distances_of_nodes():
    """N(m, s²) to N(0, 1), and a mixture to one with other weights, whose quantiles jump."""
    normal = gaussian((0.0,), ((1.0,),)).line_law()
    x = torch.linspace(-9, 9, 2001).double()
    m, s = 0.3, 1.2
    nodes = LineNodes(
        m + s * x,
        (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi) * (x[1] - x[0]),
        -0.5 * x.square() - math.log(s * math.sqrt(2 * math.pi)),
        torch.special.ndtr(x),
    )
    assert nodes.distance(normal, 2) == pytest.approx(math.hypot(m, s - 1), rel=1e-8)
    u = (torch.arange(200_000).double() + 0.5) / 200_000
    gap = m + (s - 1) * torch.special.ndtri(u)
    assert nodes.distance(normal, 1) == pytest.approx(float(gap.abs().mean()), rel=1e-4)
    ours = GaussianMixture((0.4, 0.6), ((-3.0,), (3.0,)), (((0.04,),), ((0.04,),)))
    theirs = replace(ours, weights=(0.5, 0.5)).line_law()
    y = torch.linspace(-6, 6, 6001).double()
    log_q, cdf = ours.log_density(y[:, None]), ours.line_law().cdf(y)
    nodes = LineNodes(y, log_q.exp() * (y[1] - y[0]), log_q, cdf)
    # a tenth of the mass goes from one mode to the other
    assert nodes.distance(theirs, 1) == pytest.approx(0.6, abs=1e-3)
    w1 = float((cdf - theirs.cdf(y)).abs().sum() * (y[1] - y[0]))
    assert nodes.distance(theirs, 1) == pytest.approx(w1, rel=2e-4)


@pytest.mark.parametrize("wrong", [1.0, math.nan])
def test_a_density_that_is_not_normalised_has_no_divergence(wrong):
    """Its ln p is too large by 1, or not a number on one side."""

    class Wrong(GaussianMixture):
        def log_density(self, x):
            return super().log_density(x) + torch.where(x[:, 0] < 0, wrong, 1.0)

    law = Wrong((1.0,), ((0.0,),), (((1.0,),),))
    x = torch.linspace(-9, 9, 2001).double()
    log_q = -0.5 * x.square() - math.log(math.sqrt(2 * math.pi))
    nodes = LineNodes(x, log_q.exp() * (x[1] - x[0]), log_q, torch.special.ndtr(x))
    for metric in (KLLaw(), TVLaw()):
        with pytest.raises(ValueError, match="not normalised"):
            metric.of_output(nodes, law)


def on_a_line(samplers, steps, law=LAW, **changes):
    settings = {
        "grid": KARRAS,
        "starts": {"exact": Exact(), "prior": Prior()},
        "metrics": {"kl": KLLaw(), "tv": TVLaw(), "w": WOutput1D()},
        "reference": law.draws(10, "evaluation", 0),
        "n_samples": 16,
        "repetitions": 3,
        "floor_repetitions": 2,
    }
    return sweep_of(law, samplers, steps, **settings | changes)


@pytest.mark.slow
def test_a_sweep_has_one_row_for_a_cell():
    sweep = on_a_line([DDIM(1.0), Heun()], [6])
    sweep = replace(sweep, metrics=sweep.metrics | {"sliced": Sliced(directions=10)})
    check(sweep)
    rows = sweep.run()
    assert len(rows) == sweep.row_count()
    exact = [row for row in rows if row.metric != "sliced"]
    assert len(exact) == 2 * 2 * 3
    assert {row.status for row in exact} == {"ok"}
    assert {row.repetition for row in exact} == {0}
    assert {row.nfe for row in exact if row.sampler == "Heun"} == {11}
    value = {(row.sampler, row.start, row.metric): row.value for row in exact}
    assert value["DDIM", "exact", "kl"] == pytest.approx(kl(carried(DDIM(1.0), sweep.levels(6))))


@pytest.mark.slow
def test_a_budget_adds_up_without_intervals():
    metrics = {"kl": KLLaw(), "w": WOutput1D()}
    sweep = on_a_line([DDIM(1.0), Heun()], [3, 5], metrics=metrics, floor_repetitions=0)
    budget = Budget(sweep, converged_steps=6)
    rows = budget.run()
    assert len(rows) == budget.row_count() == 2 * 2 * 2 * 2 + 2 * (2 * 2 + 1)
    lines = parts(as_table(vars(row) for row in rows), 6)
    assert (lines["lower"] == lines["upper"]).all()
    means = lines.set_index(["metric", "sampler", "steps", "part"])["mean"]
    summed = means.drop(index="total", level="part").groupby(level=[0, 1, 2]).sum()
    total = means.xs("total", level="part")
    assert (summed - total).abs().max() < 1e-12
    assert total["kl", "DDIM", 5] == pytest.approx(
        kl(carried(DDIM(1.0), sweep.levels(5), start=Prior()))
    )


@dataclass(frozen=True)
class Velocity(Sampler):
    """A method of three steps: it remembers two x̂₀."""

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def steps(self, model, x, levels, noise):
        before = before_that = torch.zeros_like(x)
        for step, now, to in levels.pairs():
            x0 = model.denoiser(x, now)
            mean = x0 + 0.1 * (before - before_that)
            x = to.sigma / now.sigma * (x - mean) + mean + 0.1 * to.sigma * noise.normal(x, step)
            before_that, before = before, x0
            yield Step(x, x0)


@dataclass(frozen=True)
class Copies(Sampler):
    """It yields copies of its states, which cannot be replaced."""

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def steps(self, model, x, levels, noise):
        for step, now, to in levels.pairs():
            x0 = model.denoiser(x.clone(), now)
            x = x0 + to.sigma * noise.normal(x, step) + 0.1 * to.sigma * x
            yield Step(x.clone(), x0)


REFUSED = [
    (MALA(), "its density|uniform numbers"),
    (Underdamped(), "it remembers more than its state and the last x̂₀"),
    (PredictorCorrector(own_norms=True), "noise does not enter as a Gaussian of the same width"),
    (Velocity(), "it remembers more than its state and the last x̂₀"),
    (Copies(), "it remembers more than its state and the last x̂₀"),
    (DormandPrince(), "chooses its own steps"),
]


@pytest.mark.parametrize(("sampler", "line"), REFUSED, ids=lambda v: type(v).__name__)
def test_what_has_no_law_by_quadrature_is_one_line(sampler, line):
    sweep = on_a_line([sampler], [5], starts={"fixed": FixedGaussian()})
    with pytest.raises(InvalidSetting, match=line) as caught:
        check(sweep)
    assert "\n" not in str(caught.value)


def test_bad_laws_and_starts_are_one_line():
    with pytest.raises(InvalidSetting, match="w_output_1d needs 1-D data, this has 2"):
        check(on_a_line([DDIM(0.0)], [5], grid_mixture()))
    plane = replace(on_a_line([DDIM(1.0)], [5], grid_mixture()), metrics={"kl": KLLaw()})
    with pytest.raises(InvalidSetting, match="in 2 dimensions the density of a sampler that draws"):
        check(plane)
    chains = on_a_line([ULA()], [5], starts={"wide": Overdispersed()})
    with pytest.raises(InvalidSetting, match="the density of the start wide is not known"):
        check(chains)
    with pytest.raises(InvalidSetting, match="p=3: must be 1 or 2"):
        WOutput1D(p=3)


@dataclass(frozen=True)
class Turned(Sampler):
    """The last step turns the line over."""

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def steps(self, model, x, levels, noise):
        for step, now, to in levels.pairs():
            x0 = model.denoiser(x, now)
            x = -x0 if to.sigma == 0 else x0 + to.sigma * noise.normal(x, step)
            yield Step(x, x0)


@dataclass(frozen=True)
class OwnLaw(Dataset):
    """A law with a density, and without an exact denoiser."""

    event_shape: ClassVar[tuple[int, ...]] = (1,)

    def sample(self, count, generator):
        return LAW.sample(count, generator)

    def log_density(self, x):
        return LAW.log_density(x)


@pytest.mark.slow
def test_data_of_ones_own_need_no_oracle_from_the_prior():
    sweep = on_a_line([DDIM(0.5)], [6])
    own = replace(sweep, dataset=OwnLaw(), metrics={"kl": KLLaw()}, starts={"prior": Prior()})
    check(own)
    values = {row.value for row in own.run() if row.sampler}
    assert values == {
        row.value for row in sweep.run() if (row.start, row.metric) == ("prior", "kl")
    }
    exact = replace(own, starts={"exact": Exact()})
    with pytest.raises(InvalidSetting, match="the start exact needs that of the data with noise"):
        check(exact)


@pytest.mark.slow
def test_a_law_that_is_turned_over_has_no_density_and_others_go_on():
    rows = on_a_line([Turned(), Copies(), DDIM(0.5)], [5]).run()
    status = {(row.sampler, row.status) for row in rows if row.sampler}
    assert status == {("Turned", "not a density"), ("Copies", "incompatible"), ("DDIM", "ok")}


def test_more_draws_in_a_step():
    """Annealed Langevin dynamics draws twice at each level, with a call between."""
    sampler = AnnealedLangevin(step_size=0.01, inner=2)
    nodes = carried(sampler, karras(EDM(10.0), 6, noise_max=2.0, noise_min=0.2))
    assert float(nodes.masses.sum()) == pytest.approx(1, abs=1e-9)
    assert kl(nodes, LAW.noised(0.2)) < 1


def test_reverse_sde_without_a_last_denoising_step():
    nodes = carried(ReverseSDE(denoise=False), KARRAS(EDM(10.0), 30))
    assert kl(nodes) < 0.05


@dataclass(frozen=True)
class Bent(Sampler):
    """The last step is a cubic of the state."""

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def steps(self, model, x, levels, noise):
        for _, now, to in levels.pairs():
            x0 = model.denoiser(x, now)
            slope = to.sigma / now.sigma
            x = x + 0.1 * x**3 if to.sigma == 0 else slope * (x - x0) + x0
            yield Step(x, x0)


def test_a_run_without_noise_keeps_no_graph(monkeypatch):
    """The graph of a hundred steps of the four wells took 13 GB; also of a bent map."""
    oracle, kept = type(LAW.oracle(EDM(10.0))), []

    def watched(self, x, level, derivative=oracle.derivative):
        kept.append(torch.is_grad_enabled())
        return derivative(self, x, level)

    monkeypatch.setattr(oracle, "derivative", watched)
    nodes = carried(Bent(), KARRAS(EDM(10.0), 5))
    assert kept
    assert not any(kept)
    # q is the slope of F
    y, rise = nodes.points, nodes.log_density.exp()
    slope = torch.gradient(nodes.cdf, spacing=(y,))[0]
    assert float(nodes.mean((slope / rise - 1).abs())) < 1e-2
    assert float(nodes.masses.sum()) == pytest.approx(1, abs=1e-9)


def test_laws_can_be_computed_side_by_side():
    """PyTorch has one level of dual numbers for all threads, and a sweep has several workers."""
    levels = KARRAS(EDM(10.0), 5)
    alone = carried(Bent(), levels)
    with ThreadPoolExecutor(4) as workers:
        for nodes in workers.map(lambda _: carried(Bent(), levels), range(8)):
            assert torch.equal(nodes.masses, alone.masses)
