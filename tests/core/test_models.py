"""Oracles against Tweedie, naive formulas and each other; learned denoisers against an oracle."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from samplerbench.core.grids import Level, hold, karras, uniform
from samplerbench.core.models import (
    Corrupted,
    Counted,
    Denoiser,
    Guided,
    IsotropicMixtureOracle,
    Learned,
    LevelFree,
    MixtureOracle,
)
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.core.targets import (
    DataTarget,
    EDMTarget,
    NoiseTarget,
    ScoreTarget,
    VelocityTarget,
    VTarget,
)
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.verify.network_contract import randomised

EYE = torch.eye(2, dtype=torch.float64)
TARGETS = [
    kind() for kind in (DataTarget, NoiseTarget, ScoreTarget, VTarget, VelocityTarget, EDMTarget)
]


@pytest.fixture(params=["any", "isotropic"])
def law(request, mixture_law, simple_mixture):
    return {"any": mixture_law, "isotropic": simple_mixture}[request.param]


@pytest.fixture
def oracle(law, schedule):
    return law.oracle(schedule)


def tensors(law):
    values = (law.weights, law.means, law.covariances)
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def at(level):
    """α and σ of a level of floats, as tensors."""
    return torch.tensor([level.alpha, level.sigma], dtype=torch.float64).unbind()


def many(dim, count=40):
    """A mixture of many Gaussians with different covariances, some of them thin."""
    random = torch.Generator().manual_seed(dim)
    means, roots = (
        torch.randn(count, *shape, generator=random, dtype=torch.float64)
        for shape in ((dim,), (dim, dim))
    )
    roots[::3, :, 0] *= 0.01
    covariances = 0.03 * roots @ roots.mT
    weights = torch.rand(count, generator=random, dtype=torch.float64) + 0.1
    values = (weights / weights.sum()).tolist(), means.tolist(), covariances.tolist()
    return GaussianMixture(
        tuple(values[0]),
        tuple(map(tuple, values[1])),
        tuple(tuple(map(tuple, one)) for one in values[2]),
    )


@pytest.mark.parametrize("dim", [2, 3, 4])
@pytest.mark.parametrize("path", [EDM(), VPLinear(), Rectified()], ids=lambda p: type(p).__name__)
def test_many_components_are_evaluated_as_quadratic_forms(dim, path, states):
    """With the same result, also for states with levels of their own, and for few dimensions."""
    law = many(dim)
    oracle, (weights, means, covariances) = law.oracle(path), tensors(law)
    for level in karras(path, 5, noise_min=1e-2).rows[:-1]:
        alpha, sigma = at(level)
        x = alpha * means[states(30, 1).abs().argsort(0)[:, 0]] + (sigma + 0.05) * states(30, dim)
        assert (oracle._forms(level) is None) == (dim == 4)
        eye = torch.eye(dim, dtype=torch.float64)
        spread = alpha**2 * covariances + sigma**2 * eye
        components = torch.distributions.MultivariateNormal(alpha * means, spread)
        shares = (weights.log() + components.log_prob(x[:, None])).softmax(-1)
        offset = torch.linalg.solve(spread, (x[:, None] - alpha * means)[..., None])
        terms = means + (alpha * covariances @ offset)[..., 0]
        expected = (shares[..., None] * terms).sum(1)
        torch.testing.assert_close(oracle.denoiser(x, level), expected, rtol=0, atol=1e-9)
        rows = Level(*(torch.full((30, 1), v, dtype=torch.float64) for v in (0.5, alpha, sigma)))
        torch.testing.assert_close(oracle.denoiser(x, rows), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(
            oracle.score(x, level) * sigma**2, alpha * expected - x, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("dim", [2, 3, 4])
@pytest.mark.parametrize("path", [EDM(), VPLinear(), Rectified()], ids=lambda p: type(p).__name__)
def test_the_derivative_of_many_components_is_that_of_their_mean(dim, path, states):
    """Of the denoiser itself, by autograd; in few dimensions it comes from quadratic forms."""
    law = many(dim)
    oracle, means = law.oracle(path), tensors(law)[1]
    for level in karras(path, 5, noise_min=1e-2).rows[:-1]:
        alpha, sigma = at(level)
        x = alpha * means[states(30, 1).abs().argsort(0)[:, 0]] + (sigma + 0.05) * states(30, dim)
        assert (oracle._forms(level, derivative=True) is None) == (dim == 4)
        expected = Denoiser.derivative(oracle, x, level)
        found = oracle.derivative(x, level)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "law", [isotropic((0.2, 0.8), ((0.5,), (-1.0,)), 0.3), many(2)], ids=["line", "forms"]
)
def test_a_derivative_goes_through_the_derivative(law, states):
    """The tangent of its x̂₀ is its J, with dual numbers and with the transforms of torch.func."""
    oracle, level = law.oracle(EDM()), Level(0.5, 1.0, 0.5)
    x = states(5, law.dim)
    x0_hat, derivative = oracle.derivative(x, level)

    def first(y):
        return oracle.derivative(y, level)[0]

    with forward_ad.dual_level():
        y = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(first(y)).tangent
    torch.testing.assert_close(tangent, derivative.sum(-1), rtol=1e-8, atol=1e-9)
    tangent = torch.func.jvp(first, (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(tangent, derivative.sum(-1), rtol=1e-8, atol=1e-9)
    rows = torch.func.vmap(lambda row: first(row[None])[0])(x)
    torch.testing.assert_close(rows, x0_hat, rtol=1e-8, atol=1e-9)


def test_quadratic_forms_are_not_used_where_their_terms_cancel(states):
    """Far from the origin in units of the width of a component a logarithm would lose digits."""
    law = many(2)
    thin = GaussianMixture(
        law.weights, law.means, tuple(((1e-9, 0.0), (0.0, 1e-2)) for _ in law.weights)
    )
    oracle = thin.oracle(EDM())
    assert oracle._forms(Level(1e-2, 1.0, 1e-2)) is not None
    assert oracle._forms(Level(1e-5, 1.0, 1e-5)) is None
    wide = replace(thin, covariances=tuple(((0.01, 0.0), (0.0, 0.02)) for _ in law.weights))
    oracle = wide.oracle(EDM())  # the logarithms do not cancel there, the covariances of means do
    assert oracle._forms(Level(1e-5, 1.0, 1e-5)) is not None
    assert oracle._forms(Level(1e-5, 1.0, 1e-5), derivative=True) is None
    x = tensors(thin)[1]
    x0_hat = oracle.denoiser(x, Level(1e-9, 1.0, 1e-9))
    torch.testing.assert_close(x0_hat, x, rtol=0, atol=1e-9)


def test_the_cheaper_oracle_is_taken_where_it_can_be(mixture_law):
    assert isinstance(mixture_law.oracle(EDM()), MixtureOracle)
    for dim in range(1, 9):
        law = isotropic((0.5, 0.5), ((0.0,) * dim, (1.0,) * dim), 0.1)
        assert isinstance(law.oracle(EDM()), IsotropicMixtureOracle)


def test_score_is_the_gradient_of_the_log_density(oracle, law, schedule, states):
    """By autograd, at every level; and Tweedie's x̂₀ = (x + σ²·s)/α where α > 0."""
    for level in uniform(schedule, 6).rows[:-1]:
        x = (2 * states(20, 2)).requires_grad_()
        density = oracle.log_density(x, level)
        assert density.shape == (20,)
        score = torch.autograd.grad(density.sum(), x)[0]
        x = x.detach()
        scale = 1 / level.sigma**2
        torch.testing.assert_close(oracle.score(x, level), score, rtol=1e-9, atol=1e-12 * scale)
        x0_hat = oracle.denoiser(x, level)
        assert x0_hat.isfinite().all()
        torch.testing.assert_close(
            level.alpha * x0_hat, x + level.sigma**2 * score, rtol=1e-10, atol=1e-10
        )
    if isinstance(schedule, Rectified):  # without signal it is the mean of the data
        weights, means, _ = tensors(law)
        silent = oracle.denoiser(x, Level(1.0, 0.0, 1.0))
        torch.testing.assert_close(silent, (weights @ means).expand(20, 2))


def test_log_density_is_the_mixtures(oracle, law, schedule, states):
    weights, means, covariances = tensors(law)
    for level in uniform(schedule, 4).rows[:-1]:
        alpha, sigma = at(level)
        spread = alpha**2 * covariances + sigma**2 * EYE
        components = torch.distributions.MultivariateNormal(alpha * means, spread)
        x = 2 * states(20, 1, 2)
        naive = (weights.log() + components.log_prob(x)).logsumexp(-1)
        torch.testing.assert_close(
            oracle.log_density(x[:, 0], level), naive, rtol=1e-10, atol=1e-10
        )


def test_far_from_the_origin(law, schedule, states):
    """Data around (1000, −1000) lose nothing."""
    shift = torch.tensor([1000.0, -1000.0], dtype=torch.float64)
    far_means = tuple((x + 1000, y - 1000) for x, y in law.means)
    far = GaussianMixture(law.weights, far_means, law.covariances).oracle(schedule)
    near, x = law.oracle(schedule), states(20, 2)
    for level in uniform(schedule, 6).rows[:-1]:
        moved = far.denoiser(x + level.alpha * shift, level) - shift
        torch.testing.assert_close(moved, near.denoiser(x, level), rtol=0, atol=1e-8)


def test_counted(oracle, states):
    counted, x, level = Counted(oracle), states(4, 2), Level(0.5, 0.8, 0.6)
    assert counted.schedule == oracle.schedule
    assert torch.equal(counted.denoiser(x, level), oracle.denoiser(x, level))
    assert torch.equal(counted.score(x, level), oracle.score(x, level))
    assert (counted.evaluations, counted.rounds) == (2, 2)
    column = Level(*(torch.full((3, 4, 1), value).double() for value in (0.5, 0.8, 0.6)))
    side_by_side = counted.parallel(counted.denoiser, x.expand(3, 4, 2), column)
    torch.testing.assert_close(side_by_side[2], oracle.denoiser(x, level))
    assert counted.taken() == (5, 3)  # three evaluations in one round
    assert (counted.evaluations, counted.rounds) == (0, 0)


class ExactNetwork(nn.Module):
    """The best answer of a network to standardised data: E[y | u], by the standardised law."""

    def __init__(self, law, schedule, target, mean, std):
        super().__init__()
        weights, means, covariances = tensors(law)
        self.oracle = MixtureOracle(schedule, weights, (means - mean) / std, covariances / std**2)
        self.target = target

    def forward(self, u, level):
        x0_hat = self.oracle.denoiser(u, level)
        return self.target.regress(x0_hat, (u - level.alpha * x0_hat) / level.sigma, level)


def test_learned_is_in_the_units_of_the_data(target, schedule, mixture_law, states):
    mean, std = torch.tensor([3.5, -1.25], dtype=torch.float64), 2.5
    network = ExactNetwork(mixture_law, schedule, target, mean, std)
    learned = Learned(network, target, schedule, mean, std).double()
    oracle, x = mixture_law.oracle(schedule), 2 * states(20, 2)
    levels = uniform(schedule, 6)
    if target.why_incompatible(levels):
        levels = uniform(schedule, 6, t_max=0.9)
    for level in levels.rows[:-1]:
        for call in ("denoiser", "score"):
            torch.testing.assert_close(
                getattr(learned, call)(x, level),
                getattr(oracle, call)(x, level),
                rtol=1e-8,
                atol=1e-8,
            )
    times = torch.linspace(0.1, 0.9, 20, dtype=torch.float64)
    level = Level(*(v.unsqueeze(-1) for v in (times, *schedule(times))))
    torch.testing.assert_close(
        learned.denoiser(x, level), oracle.denoiser(x, level), rtol=1e-8, atol=1e-8
    )


def test_learned_standardises(states):
    x0, eps, level = 3 + 2 * states(9, 2), states(2, 9).T, Level(0.5, 0.8, 0.6)
    mean = torch.tensor([3.0, -1.0])
    seen = {}

    class Spy(nn.Module):
        def forward(self, u, level):
            seen.update(u=u, level=level)
            return u

    learned = Learned(Spy(), DataTarget(), EDM(), mean, 2.0)
    x = level.alpha * x0 + level.sigma * eps
    x0_hat = learned.denoiser(x, level)
    assert x0_hat.dtype == torch.float64
    assert seen["u"].dtype == torch.float32
    standard = learned.standard_level(level)
    assert seen["level"] == standard == Level(0.5, 0.8, 0.3)
    path = standard.alpha * learned.standardise(x0) + standard.sigma * eps
    torch.testing.assert_close(seen["u"].double(), path, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x0_hat, 2 * path + mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_learned_refuses_an_impossible_scale(std):
    with pytest.raises(InvalidSetting, match=r"std=.*: must be positive and finite"):
        Learned(nn.Identity(), DataTarget(), EDM(), torch.zeros(2), std)
    with pytest.raises(InvalidSetting, match=r"mean=.*: must be finite"):
        Learned(nn.Identity(), DataTarget(), EDM(), torch.tensor([0.0, math.nan]))


def test_learned_gives_the_same_bits_after_loading(states):
    def build(std):
        return Learned(nn.Identity(), DataTarget(), EDM(), torch.tensor([0.1, 0.2]), std)

    class Network(nn.Identity):
        def forward(self, u, level):
            return u

    before, after = build(0.1), build(7.0)
    before.network = after.network = Network()
    after.load_state_dict(before.state_dict())
    x, level = states(9, 2), Level(0.5, 0.8, 0.6)
    assert torch.equal(before.denoiser(x, level), after.denoiser(x, level))
    assert before.standard_level(level) == after.standard_level(level)


@pytest.mark.parametrize("sigma", [0.1, 0.002])
def test_a_float32_state_does_not_cost_the_oracle_its_accuracy(sigma):
    """Expanded distances cancel in float32 at small σ; the oracle must not."""
    data = grid_mixture().draws(500, "train", 0)
    oracle = IsotropicMixtureOracle(EDM(10.0), torch.ones(500), data, torch.zeros(500))
    x = (data + sigma * torch.randn(data.shape, generator=torch.Generator().manual_seed(0))).float()
    level = Level(sigma / 10, 1.0, sigma)
    single, double = oracle.denoiser(x, level), oracle.denoiser(x.double(), level)
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 1e-6 * data.abs().max()
    per_sample = Level(*(torch.full((500, 1), s, dtype=torch.float64) for s in (0.1, 1.0, sigma)))
    torch.testing.assert_close(oracle.denoiser(x, per_sample), single)


def test_level_free_is_in_the_units_of_the_data(mixture_law, states):
    """A network that knows the score of standardised data noised by υ/std."""
    mean, std, noise = torch.tensor([3.5, -1.25], dtype=torch.float64), 2.5, 0.7
    weights, means, covariances = tensors(mixture_law)
    exact = MixtureOracle(EDM(), weights, (means - mean) / std, covariances / std**2)

    class Network(nn.Module):
        def forward(self, u, level):
            return exact.score(u, Level(0.0, 1.0, noise / std))

    model, x = LevelFree(Network(), noise, mean, std).double(), 2 * states(20, 2)
    expected = mixture_law.oracle(EDM()).score(x, Level(0.0, 1.0, noise))
    torch.testing.assert_close(model.score(x, model.level), expected, rtol=1e-6, atol=1e-6)
    assert model.level == Level(0.0, 1.0, noise)
    assert model.standard_noise == pytest.approx(noise / std)
    torch.testing.assert_close(model.standardise(x), (x - mean) / std)
    # whatever level is asked
    torch.testing.assert_close(model.score(x, Level(0.9, 1.0, 9.0)), expected)


def test_level_free_has_one_level():
    model = LevelFree(nn.Identity(), 0.7, torch.zeros(2))
    assert model.why_incompatible(hold(EDM(10.0), 5, noise=0.7)) is None
    for levels in (hold(EDM(10.0), 5), uniform(EDM(10.0), 5)):
        reason = model.why_incompatible(levels)
        assert reason is not None
        assert "grid=hold grid.noise=0.7" in reason
    of_data = LevelFree(nn.Identity(), 0.0, torch.zeros(2))
    assert of_data.why_incompatible(hold(EDM(10.0), 5)) is None


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf])
def test_level_free_refuses_an_impossible_noise(noise):
    with pytest.raises(InvalidSetting, match=r"noise=.*: must be at least 0"):
        LevelFree(nn.Identity(), noise, torch.zeros(2))


@pytest.mark.parametrize("variance", [0.0, 0.3])
@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (1.0, 0.05), (0.0, 1.0)])
def test_the_derivative_of_a_mixture_is_that_of_differences(alpha, sigma, variance):
    """And that by backward passes, which the base class makes."""
    level = Level(0.5, alpha, sigma)
    means = torch.tensor([[5.0, 5.0, 6.0], [6.0, 4.0, 5.0], [3.0, 5.0, 4.5]]).double()
    weights = torch.tensor([1.0, 2.0, 1.5])
    variances = variance * torch.tensor([1.0, 1.0, 2.0])
    oracle = IsotropicMixtureOracle(EDM(10.0), weights, means, variances)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = level.alpha * means[torch.arange(40) % 3] + (level.sigma + variance) * x
    x0_hat, derivative = oracle.derivative(x, level)
    torch.testing.assert_close(x0_hat, oracle.denoiser(x, level))
    h = 1e-5
    columns = [
        (oracle.denoiser(x + h * e, level) - oracle.denoiser(x - h * e, level)) / (2 * h)
        for e in torch.eye(3).double()
    ]
    torch.testing.assert_close(derivative, torch.stack(columns, -1), rtol=1e-5, atol=1e-6)
    _, passes = Denoiser.derivative(oracle, x, level)
    torch.testing.assert_close(derivative, passes, rtol=1e-8, atol=1e-8)


def some_mixture(count, dim, *, equal=True, round_=True):
    """Overlapping components at random places, with their oracle."""
    random = torch.Generator().manual_seed(count + dim)
    means = torch.randn(count, dim, generator=random, dtype=torch.float64) + 5
    weights = 0.5 + torch.rand(count, generator=random, dtype=torch.float64)
    sizes = torch.rand(count, generator=random, dtype=torch.float64) + 0.1
    if round_:
        variances = torch.full_like(sizes, 0.3) if equal else sizes
        return IsotropicMixtureOracle(EDM(10.0), weights, means, variances)
    roots = torch.randn(count, dim, dim, generator=random, dtype=torch.float64)
    return MixtureOracle(EDM(10.0), weights, means, roots @ roots.mT / dim)


def exact_denoisers():
    """Oracles for each way to a derivative, and denoisers that are made of others."""
    few = {name: some_mixture(2, 8, equal=name == "few") for name in ("few", "few, unequal")}
    many = {name: some_mixture(25, 4, equal=name == "many") for name in ("many", "many, unequal")}
    wide, large = some_mixture(6, 3, equal=False), some_mixture(5, 4, round_=False)
    wide.products = None  # as for large sets of means
    made = {
        "guided": Guided(large, some_mixture(2, 4), 2.5),
        "corrupted": Corrupted(large, 0.3, "sine", "across"),
        "counted": Counted(large),
    }
    line = {"line": some_mixture(5, 1), "line, unequal": some_mixture(5, 1, equal=False)}
    return few | many | line | {"without products": wide, "any": large} | made


@pytest.mark.parametrize("name", exact_denoisers())
@pytest.mark.parametrize("sigma", [0.02, 0.6, 5.0])
def test_tangents_through_a_denoiser_are_those_of_backward_passes(name, sigma, monkeypatch):
    """x̂₀, J and J·v, also some states at a time, at a level for each state, and in float32."""
    model = exact_denoisers()[name]
    inner = getattr(model, "model", model)
    dim, count = inner.means.shape[1], 30
    random = torch.Generator().manual_seed(3)
    x = 5 + 2 * torch.randn(count, dim, generator=random, dtype=torch.float64)
    tangents = torch.randn(3, count, dim, generator=random, dtype=torch.float64)
    rows = torch.linspace(0.5, 1.5, count, dtype=torch.float64)[:, None]
    for level in (Level(0.3, 0.8, sigma), Level(0.3 * rows, 0.8 * rows, sigma * rows)):
        x0_hat, expected = Denoiser.derivative(model, x, level)
        along = torch.einsum("nji,cni->cnj", expected, tangents)
        for piece in (inner.piece, 7):
            monkeypatch.setattr(inner, "piece", piece)
            for found, wanted in (
                (model.derivative(x, level), (x0_hat, expected)),
                (model.along(x, tangents, level), (x0_hat, along)),
            ):
                for one, other in zip(found, wanted, strict=True):
                    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    half = model.along(x.float(), tangents.float(), Level(0.3, 0.8, sigma))
    assert [part.dtype for part in half] == [torch.float32] * 2


def test_tangents_of_unequal_components_keep_their_digits_at_little_noise():
    """All m_k are near x there: their covariance is a small difference."""
    oracle = some_mixture(6, 2, equal=False)
    level, x = Level(0.0, 1.0, 1e-3), 5 + torch.linspace(-2, 2, 60).double().reshape(30, 2)
    _, expected = Denoiser.derivative(oracle, x, level)
    torch.testing.assert_close(oracle.derivative(x, level)[1], expected, rtol=0, atol=1e-9)
    few = some_mixture(2, 8, equal=False)
    x = 5 + torch.linspace(-2, 2, 240).double().reshape(30, 8)
    _, expected = Denoiser.derivative(few, x, level)
    unit = torch.eye(8).double()[:, None].expand(8, 30, 8)
    moved = few.along(x, unit, level)[1].permute(1, 2, 0)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-9)


class Bent(DataTarget):
    """A target whose x̂₀ is not affine in the state."""

    def denoise(self, x, y, level):
        return y + 0.1 * x * y


@pytest.mark.parametrize("count", [1, 40])
def test_no_states_have_no_derivatives(count):
    means = torch.randn(count, 2, generator=torch.Generator().manual_seed(0)).double()
    ones, x = torch.ones(count), torch.empty(0, 2, dtype=torch.float64)
    round_ones = IsotropicMixtureOracle(EDM(), ones, means, ones.double())
    for oracle in (round_ones, MixtureOracle(EDM(), ones, means, torch.eye(2).expand(count, 2, 2))):
        for level in (Level(0.5, 1.0, 0.5), Level(x[:, :1], x[:, :1], x[:, :1])):
            found = [*oracle.derivative(x, level), *oracle.along(x, x.expand(3, 0, 2), level)]
            assert [tuple(one.shape) for one in found] == [(0, 2), (0, 2, 2), (0, 2), (3, 0, 2)]


@pytest.mark.parametrize("own_levels", [False, True])
def test_the_derivative_of_a_mixture_with_covariances(own_levels):
    """Forward and backward passes through it are the covariance of its samples' x₀."""
    generator = torch.Generator().manual_seed(1)
    means, roots = torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64)
    oracle = MixtureOracle(EDM(), torch.ones(4), means[:, 0], roots @ roots.mT)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    sigma = torch.linspace(0.3, 0.9, 5)[:, None].double() if own_levels else 0.4
    level = Level(sigma, torch.ones(5, 1).double() if own_levels else 1.0, sigma)
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    columns = [
        (oracle.denoiser(x + one, level) - oracle.denoiser(x - one, level)) / 2e-6 for one in step
    ]
    x0_hat, derivative = oracle.derivative(x, level)
    torch.testing.assert_close(derivative, torch.stack(columns, -1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(x0_hat, oracle.denoiser(x, level))
    for one, column in zip(step, columns, strict=True):
        _, forward = torch.func.jvp(
            lambda u: oracle.denoiser(u, level), (x,), (1e6 * one.expand_as(x),)
        )
        torch.testing.assert_close(forward, column, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [False, True])
def test_the_derivative_of_a_network_goes_forward(rows, states):
    """For every target it agrees with automatic differentiation."""
    network = ResidualMLP(2, 0)
    randomised(network)
    x, t = states(7, 2), torch.linspace(0.2, 0.9, 7, dtype=torch.float64)[:, None]
    path = VPLinear()
    level = Level(t, *path(t)) if rows else Level(0.4, 0.8, 0.6)
    mean = torch.tensor([0.5, -1.0])
    for target in (*TARGETS, Bent()):
        learned = Learned(network, target, path, mean, 2.5).double()
        for one, other in zip(
            learned.derivative(x, level), Denoiser.derivative(learned, x, level), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        assert not learned.derivative(x, level)[1].requires_grad


def test_a_derivative_is_one_evaluation(simple_mixture):
    counted = Counted(simple_mixture.oracle(EDM(10.0)))
    counted.derivative(torch.zeros(3, 2).double(), Level(0.1, 1.0, 1.0))
    assert counted.evaluations == 1
    counted.along(torch.zeros(3, 2).double(), torch.ones(2, 3, 2).double(), Level(0.1, 1.0, 1.0))
    assert counted.evaluations == 2


def test_a_guided_denoiser_mixes_denoisers_and_scores(
    mixture_law, simple_mixture, schedule, states
):
    one, other = mixture_law.oracle(schedule), simple_mixture.oracle(schedule)
    x, level = states(20, 2), uniform(schedule, 6).rows[3]
    for weight in (0.0, 1.0, 2.5):
        guided = Guided(one, other, weight)
        for name in ("denoiser", "score"):
            first, second = (getattr(model, name)(x, level) for model in (one, other))
            expected = weight * first + (1 - weight) * second
            torch.testing.assert_close(getattr(guided, name)(x, level), expected)
        x0_hat = (x + level.sigma**2 * guided.score(x, level)) / level.alpha
        torch.testing.assert_close(guided.denoiser(x, level), x0_hat)
    with pytest.raises(InvalidSetting, match="guidance=inf: must be finite"):
        Guided(one, other, math.inf)


@pytest.mark.parametrize("profile", ["constant", "sine", "noise", "data"])
def test_a_corrupted_score_has_the_prescribed_error(mixture_law, schedule, states, profile):
    """In its size, its time and its direction; x̂₀ and score agree by Tweedie's formula."""
    oracle, x = mixture_law.oracle(schedule), states(20, 2)
    share = {
        "constant": lambda t: 1.0,
        "sine": lambda t: (1 + math.sin(2 * math.pi * t)) / 2,
        "noise": lambda t: float(t > 0.05),
        "data": lambda t: float(t <= 0.05),
    }[profile]
    for level in uniform(schedule, 30, t_max=0.9).rows[:-1:7]:
        exact = oracle.score(x, level)
        for direction, turned in (
            ("along", exact),
            ("across", exact.flip(-1) * torch.tensor([-1, 1])),
        ):
            model = Corrupted(oracle, 0.3, profile, direction)
            expected = exact + 0.3 * share(level.t) * turned
            torch.testing.assert_close(model.score(x, level), expected)
            x0_hat = (x + level.sigma**2 * model.score(x, level)) / level.alpha
            torch.testing.assert_close(model.denoiser(x, level), x0_hat, rtol=1e-9, atol=1e-9)
            rows = torch.full((20, 1), level.t, dtype=torch.float64)
            per_row = Level(rows, level.alpha + 0 * rows, level.sigma + 0 * rows)
            torch.testing.assert_close(model.denoiser(x, per_row), model.denoiser(x, level))


def test_corruptions_that_are_none(mixture_law):
    oracle = mixture_law.oracle(Rectified())
    for settings, words in (
        ({"amplitude": math.inf}, "corruption.amplitude=inf: must be finite"),
        ({"amplitude": 0.1, "profile": "late"}, "corruption.profile=late"),
        ({"amplitude": 0.1, "direction": "up"}, "corruption.direction=up"),
        ({"amplitude": 0.1, "cut": 2.0}, "corruption.cut=2.0: must be between 0 and 1"),
    ):
        with pytest.raises(InvalidSetting, match=words):
            Corrupted(oracle, **settings)
    levels = uniform(Rectified(), 4)
    assert "without signal" in Corrupted(oracle, 0.1).why_incompatible(levels)
    assert Corrupted(oracle, 0.1, "data").why_incompatible(levels) is None
