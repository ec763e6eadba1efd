"""Densities of samplers' outputs: against closed forms, quadrature and published values."""

import functools
import json
import math
from dataclasses import replace

import pytest
import torch

from helpers import Clipped, mostly_slow, sweep_of
from samplerbench.app.job.refusals import check
from samplerbench.bench.criteria import CRITERIA, Problem
from samplerbench.bench.densities import log_ratios
from samplerbench.core.grids import Levels, karras
from samplerbench.core.models import Counted, Learned
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import Exact, FixedGaussian, Prior, sobol_prior
from samplerbench.core.tangents import WithTangents, jacobian, log_volume, with_tangents
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.density import DensityScore
from samplerbench.datasets.four_well_boltzmann import FourWellBoltzmann
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.base import total
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.kl_paths import KLPaths
from samplerbench.metrics.outliers import Outliers
from samplerbench.metrics.sliced import Sliced
from samplerbench.metrics.tv_law import TVLaw
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.unipc import UniPC
from samplerbench.verify.exact_law import output_law

KARRAS = functools.partial(karras, noise_min=0.02, rho=5.0)


def divergences(law, samplers, steps, start="prior", n=2048, **changes):
    starts = {start: {"prior": Prior(), "exact": Exact()}[start]}
    settings = {"starts": starts, "grid": KARRAS, "metrics": {"kl": KLLaw(), "tv": TVLaw()}}
    return sweep_of(law, samplers, steps, n_samples=n, **settings | changes)


def ratios(sweep):
    (cell,) = [cell for cell in sweep.cells() if cell.settings is not None]
    return log_ratios(sweep, cell)


@pytest.mark.parametrize("sampler", [DDIM(0.0), Heun(), UniPC()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("schedule", [EDM(10.0), VPLinear()], ids=lambda s: type(s).__name__)
def test_on_a_gaussian_it_is_the_closed_form(sampler, schedule):
    """Outputs from the prior are Gaussian, and `exact_law` has their mean and covariance."""
    law = gaussian([1.0, -0.5], [[4.0, 1.0], [1.0, 1.0]])
    sweep = divergences(law, [sampler], [6], schedule=schedule)
    levels = sweep.levels(6)
    sigma = levels.rows[0].sigma
    start_covariance = sigma**2 * torch.eye(2).double()
    mean, covariance = output_law(
        sampler, law.oracle(schedule), levels, torch.zeros(2).double(), start_covariance
    )
    p = torch.distributions.MultivariateNormal(
        torch.tensor([1.0, -0.5]).double(), torch.tensor([[4.0, 1.0], [1.0, 1.0]]).double()
    )
    q = torch.distributions.MultivariateNormal(mean, covariance)
    expected = float(torch.distributions.kl_divergence(q, p))
    found = ratios(sweep)
    assert found.values is not None
    measured = KLLaw().estimate(found.values)
    assert measured.value == pytest.approx(expected, rel=0.05, abs=1e-5)
    # the ratio itself, at every point
    levels_start = sobol_prior().draw(law, 2048, levels.rows[0], (0, 0, 0))
    y = final_state(sampler, law.oracle(schedule), levels_start, levels, KeyedNoise(("x",)))
    torch.testing.assert_close(found.values, p.log_prob(y) - q.log_prob(y), rtol=1e-6, atol=1e-6)


#: Computed by two other implementations, with 6 × 2¹⁵ Sobol starts; within 5 % unless stated.
VALUES = {
    ("exact", DDIM): {9: 0.291, 36: 0.0128},
    ("exact", Heun): {9: 0.0204, 25: 0.00056},
    ("prior", DDIM): {9: 0.557, 36: 0.162},
    ("prior", Heun): {9: 0.1149, 36: 0.1247},
}


@pytest.mark.parametrize(("start", "kind"), mostly_slow(VALUES, 0))
def test_the_values_are_those_of_other_implementations(start, kind):
    steps = list(VALUES[start, kind])
    sampler = DDIM(0.0) if kind is DDIM else Heun()
    rows = divergences(grid_mixture(), [sampler], steps, start=start, n=8192).run()
    found = {row.steps: row for row in rows if row.metric == "kl"}
    for number, value in VALUES[start, kind].items():
        assert found[number].status == "ok"
        half = 2 * json_of(found[number])["half_width"]
        assert found[number].value == pytest.approx(value, abs=half + 0.05 * value)
        info = json_of(found[number])
        assert info["mean_ratio"] == pytest.approx(1, abs=0.05)
        assert abs(info["mean_ratio"] - 1) < 2 * info["mean_ratio_half_width"] + 1e-3


def json_of(row):
    return json.loads(row.info)


def test_a_map_that_folds_has_no_density():
    sweep = divergences(grid_mixture(), [Heun()], [4])
    rows = sweep.run()
    assert [row.status for row in rows] == ["not a density"] * 2
    assert all(math.isnan(row.value) for row in rows)
    assert "not one-to-one" in rows[0].message
    assert json_of(rows[0])["mean_ratio"] > 2
    assert json_of(rows[0])["turned"] > 0.1


def test_a_law_that_misses_a_mode_has_no_density():
    """A start that reaches one mode only: the mean of p/q is not 1, it is that mode's weight."""
    law = grid_mixture()
    sweep = replace(
        divergences(law, [DDIM(0.0)], [50]), starts={"one": FixedGaussian(mean=0.0, std=0.05)}
    )
    found = ratios(sweep)
    assert found.status == "not a density"
    assert found.info["mean_ratio"] < 0.5
    assert "the outputs miss a part of the data, or" in found.message


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(0.8, "miss a part"), (1.25, "not one-to-one"), (math.nan, "not a number")],
)
def test_a_density_that_is_not_normalised_is_named_as_a_cause(factor, cause):
    class Scaled(type(grid_mixture())):
        def log_density(self, x):
            return super().log_density(x) + math.log(factor)

    base = grid_mixture()
    law = Scaled(base.weights, base.means, base.covariances)
    found = ratios(divergences(law, [Heun()], [36], start="exact"))
    assert found.status == "not a density"
    assert cause in found.message
    assert ("the data's density is not normalised" in found.message) == (factor > 0)
    assert found.info["mean_ratio"] == pytest.approx(factor, rel=1e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samplers": [("mine", Clipped(0.0))]}, "not linear in states and x̂₀ is not known"),
        (
            {"samplers": [("mine", DDIM(0.5))]},
            "draws noise is not known .in one it is.; see metric=kl_paths, and for DDIM eta=0",
        ),
        ({"samplers": [("mine", DormandPrince())]}, "chooses its own steps"),
        ({"dataset": isotropic((1.0,), ((0.0, 1.0),), 0.0)}, "a density"),
    ],
)
def test_what_has_no_density_is_one_line(changes, message):
    sweep = divergences(grid_mixture(), [DDIM(0.0)], [5])
    if "dataset" in changes:
        changes = changes | {"denoisers": {"oracle": changes["dataset"].oracle(EDM(10.0))}}
    with pytest.raises(InvalidSetting, match=message):
        check(replace(sweep, **changes))


def column(x):
    return -x.square().sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (column, r"float64 of shape \(2, 1\)"),
        (lambda x: -x.square().sum(-1)[1:], r"float64 of shape \(1,\)"),
        (lambda x: -x.square().sum(), r"float64 of shape \(\)"),
        (lambda x: x.long().sum(-1), r"int64 of shape \(2,\)"),
        (lambda x: -float(x.square().sum()), "float$"),
        (lambda x: -x.square().sum(-1).numpy(), "ndarray$"),
    ],
)
def test_a_log_density_of_ones_own_that_gives_something_else_is_one_line(function, found):
    class Mine(type(grid_mixture())):
        def log_density(self, x):
            return function(x)

    base = grid_mixture()
    law = Mine(base.weights, base.means, base.covariances)
    with pytest.raises(InvalidSetting, match=rf"shape \(2,\) for states \(2, 2\): .*{found}"):
        check(divergences(law, [DDIM(0.0)], [5]))
    levels = KARRAS(EDM(10.0), 5)
    problem = Problem(DDIM(0.0), law.oracle(EDM(10.0)), law, Prior(), levels)
    for reason in (Outliers().why_incompatible(law), CRITERIA["kl"].why_incompatible(problem)):
        assert "log_density gives a tensor of real numbers" in reason


def test_a_models_log_density_has_one_number_for_each_state():
    """A column would make a table of all pairs of states in a Metropolis test."""
    model = DensityScore(column)
    levels = Levels(*torch.tensor([[0.0] * 3, [1.0] * 3, [0.0] * 3]).double())
    with pytest.raises(InvalidSetting, match=r"denoiser=DensityScore: .* shape \(4, 1\)"):
        final_state(MALA(0.1), Counted(model), torch.zeros(4, 2), levels, KeyedNoise(("x",)))


@pytest.mark.slow
def test_a_density_on_a_line_with_half_of_its_mass_has_no_divergence():
    """It would be wrong by ln 2."""

    class Half(GaussianMixture):
        def log_density(self, x):
            return super().log_density(x) - math.log(2)

    law = Half((0.5, 0.5), ((-1.0,), (2.0,)), (((0.3,),), ((0.2,),)))
    row = divergences(law, [Heun()], [5], start="exact").run()[0]
    assert row.status == "failed"
    assert "the mean of p/q is 0.5, and 1 of the data lie between the ends" in row.message


def test_a_floor_has_no_row_of_a_divergence():
    sweep = divergences(grid_mixture(), [DDIM(0.0), DDIM(1.0)], [5, 9], n=64, floor_repetitions=3)
    sweep = replace(sweep, metrics=sweep.metrics | {"sliced": Sliced(directions=10)})
    rows = sweep.run()
    assert len(rows) == sweep.row_count() == 3 + 4 * 3
    assert {row.metric for row in rows if row.denoiser == "law"} == {"sliced"}
    status = {(row.sampler_settings, row.metric): row.status for row in rows if row.sampler}
    assert status['{"eta": 1.0}', "kl"] == "incompatible"
    assert status['{"eta": 1.0}', "sliced"] == "ok"


def test_tangents_are_the_derivatives_of_a_learned_model():
    torch.manual_seed(0)
    network = ResidualMLP(2, 0, width=8, blocks=1)
    model = Learned(network, EDMTarget(), EDM(10.0), torch.zeros(2)).double()
    model.mean, model.std = model.mean.double(), model.std.double()
    levels = KARRAS(EDM(10.0), 4)
    x = torch.randn(3, 2, dtype=torch.float64)

    def end(x):
        return final_state(Euler(), model, x, levels, KeyedNoise(("x",)))

    batch = final_state(Euler(), WithTangents(model), with_tangents(x), levels, KeyedNoise(("x",)))
    for place in range(3):
        expected = torch.autograd.functional.jacobian(end, x[place])
        torch.testing.assert_close(jacobian(batch)[place], expected, rtol=1e-6, atol=1e-8)


def test_the_volume_of_a_small_matrix_is_its_determinant():
    random = torch.Generator().manual_seed(0)
    for dim in (2, 3):
        matrices = torch.randn(40, dim, dim, generator=random, dtype=torch.float64)
        sign, volume = log_volume(matrices)
        torch.testing.assert_close(sign * volume.exp(), torch.linalg.det(matrices))
        assert set(sign.tolist()) == {-1.0, 1.0}
    sign, volume = log_volume(torch.ones(1, 2, 2).double())
    assert (float(sign), float(volume)) == (0.0, -math.inf)


def test_the_estimates_are_those_of_known_laws():
    """q = N(0, 1) and p = N(μ, 1): KL = μ²/2, TV = 2Φ(μ/2) − 1."""
    x = torch.special.ndtri((torch.arange(4096).double() + 0.5) / 4096)
    for shift in (0.01, 0.3, 1.0):
        values = -0.5 * (x - shift).square() + 0.5 * x.square()
        kl, tv = KLLaw().estimate(values), TVLaw().estimate(values)
        assert kl.value == pytest.approx(shift**2 / 2, rel=0.01)
        assert tv.value == pytest.approx(math.erf(shift / math.sqrt(8)), rel=0.01)
        assert kl.info["mean_ratio"] == pytest.approx(1, abs=0.01)
    # the coefficient leaves less variance than 0 and 1 do, and no value is negative
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(200, generator=generator, dtype=torch.float64)
        values = -0.5 * (x - 0.01).square() + 0.5 * x.square()
        assert 0 <= KLLaw().estimate(values).value < 0.01


def test_pieces_of_the_points_change_no_estimate(monkeypatch):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 3
    whole = KLLaw().estimate(values)
    excess = values.expm1()
    both = torch.stack([-values, excess])
    covariance = both.cov()
    coefficient = float(-covariance[0, 1] / covariance[1, 1])
    terms = coefficient * excess - values
    assert whole.value == pytest.approx(float(terms.mean()), rel=1e-12)
    assert whole.info["coefficient"] == pytest.approx(coefficient, rel=1e-12)
    assert whole.info["half_width"] == pytest.approx(1.96 * float(terms.std()) / 1000**0.5)
    shares, far = excess.abs() / 2, values - 1
    tv, paths = TVLaw().estimate(values), KLPaths().estimate(far)
    assert tv.value == pytest.approx(float(shares.mean()), rel=1e-14)
    assert tv.info["half_width"] == pytest.approx(1.96 * float(shares.std()) / 1000**0.5)
    assert paths.value == pytest.approx(-float(far.mean()), rel=1e-14)
    monkeypatch.setattr("samplerbench.metrics.base.PIECE", 64)
    sizes = []

    def noted(piece):
        sizes.append(len(piece))
        return piece

    assert total(values, noted) == pytest.approx(float(values.sum()), rel=1e-12)
    assert max(sizes) == 64
    for metric, given, before in (
        (KLLaw(), values, whole),
        (TVLaw(), values, tv),
        (KLPaths(), far, paths),
    ):
        pieces = metric.estimate(given)
        assert pieces.value == pytest.approx(before.value, rel=1e-12)
        assert dict(pieces.info) == pytest.approx(dict(before.info), rel=1e-12)


@pytest.mark.slow
def test_four_wells_have_a_density():
    law = FourWellBoltzmann()
    found = ratios(divergences(law, [Heun()], [30], start="exact", n=512))
    assert found.status == "ok"
    assert KLLaw().estimate(found.values).value == pytest.approx(0, abs=0.05)
