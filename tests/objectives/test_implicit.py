"""Implicit losses: against naive Jacobians probe by probe, least at the score of the data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samplerbench.core.grids import Level
from samplerbench.core.noise import torch_generator
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import InvalidSetting
from samplerbench.networks.layer_norm_mlp import LayerNormMLP
from samplerbench.networks.time_mlp import TimeMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.derivatives import draw_probes, probe_pairs
from samplerbench.objectives.hutchinson import Hutchinson, hutchinson_loss
from samplerbench.objectives.implicit import Implicit, implicit_loss
from samplerbench.objectives.single_level import single_level_loss
from samplerbench.objectives.sliced import Sliced, sliced_loss

LAW = gaussian((0.5, -1.0), ((1.5, 0.4), (0.4, 0.3)))
MEAN = torch.tensor(LAW.means[0], dtype=torch.float64)
COVARIANCE = torch.tensor(LAW.covariances[0], dtype=torch.float64)
COUNT = 20_000


@pytest.fixture
def smooth():
    """A smooth score of three coordinates, with parameters."""
    network = TimeMLP(3, 0).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.5, generator=torch_generator("smooth"))
    return network


def at_once(network):
    return lambda x: network(x, Level(0.3, 1.0, 1.0))


def naive_jacobian(score, x):
    rows = [torch.autograd.functional.jacobian(score, row[None])[0, :, 0] for row in x]
    return torch.stack(rows)


def gradient(loss, network):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, network.parameters())])


def test_the_divergence_is_the_jacobians_trace(smooth, states):
    score, x = at_once(smooth), states(5, 3)
    trace = naive_jacobian(score, x).diagonal(dim1=1, dim2=2).sum(-1)
    expected = (trace + 0.5 * score(x).square().sum(-1)).mean()
    for chunk in (1, 2, 3, 7):
        torch.testing.assert_close(implicit_loss(score, x, chunk), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("loss", [hutchinson_loss, sliced_loss])
def test_probes_one_by_one(smooth, states, loss, count):
    """With more probes than coordinates the products are with e_j; the result is the same."""
    score, x, probes = at_once(smooth), states(5, 3), states(count, 5, 3)
    jacobian, s = naive_jacobian(score, x), score(x)
    form = torch.einsum("kni,nij,knj->kn", probes, jacobian, probes)
    square = s.square().sum(-1) if loss is hutchinson_loss else (probes * s).sum(-1).square()
    expected = (form + 0.5 * square).mean()
    for chunk in (1, 2, 100):
        torch.testing.assert_close(loss(score, x, probes, chunk), expected)


def test_more_probes_than_coordinates_cost_no_more():
    left, right = probe_pairs(torch.randn(50, 7, 3))
    assert left.shape == right.shape == (3, 7, 3)
    left, right = probe_pairs(torch.randn(2, 7, 3))
    assert left.shape == right.shape == (2, 7, 3)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("kind", ["implicit", "hutchinson", "sliced"])
def test_gradients_are_those_of_finite_differences(smooth, states, kind, chunk):
    score, x, probes = at_once(smooth), states(4, 3), states(2, 4, 3)

    def loss():
        if kind == "implicit":
            return implicit_loss(score, x, chunk)
        of = {"hutchinson": hutchinson_loss, "sliced": sliced_loss}[kind]
        return of(score, x, probes, chunk)

    slopes = gradient(loss(), smooth).split([p.numel() for p in smooth.parameters()])
    for parameter, slope in zip(smooth.parameters(), slopes, strict=True):
        direction = torch.randn(parameter.shape, generator=torch_generator(1), dtype=x.dtype)
        values = []
        for step in (1e-5, -2e-5):
            parameter.data += step * direction
            values.append(float(loss().detach()))
        parameter.data += 1e-5 * direction
        expected = (values[0] - values[1]) / 2e-5
        assert float(slope @ direction.flatten()) == pytest.approx(expected, rel=1e-6, abs=1e-8)


class Linear(nn.Module):
    """s(x) = A·x + b."""

    def __init__(self, matrix, shift):
        super().__init__()
        self.matrix, self.shift = nn.Parameter(matrix.clone()), nn.Parameter(shift.clone())

    def forward(self, x):
        return x @ self.matrix.T + self.shift


def optimum(noise=0.0):
    """The score of the Gaussian with that much noise: −(C + υ²I)⁻¹·(x − m)."""
    precision = torch.linalg.inv(COVARIANCE + noise**2 * torch.eye(2, dtype=torch.float64))
    return Linear(-precision, precision @ MEAN)


def whitened(count=COUNT):
    """Standard normal numbers with mean and covariance exactly those."""
    z = torch.randn(count, 2, generator=torch_generator("white"), dtype=torch.float64)
    z = z - z.mean(0)
    return z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / count)).T


def data(count=COUNT):
    """Draws whose mean and covariance are exactly the law's."""
    return MEAN + whitened(count) @ torch.linalg.cholesky(COVARIANCE).T


def test_the_exact_losss_least_value_is_at_the_score_of_the_data():
    best = optimum()
    loss = implicit_loss(best, data())
    # −½·E‖∇ log q‖² = −½·tr C⁻¹
    expected = -0.5 * float(torch.linalg.inv(COVARIANCE).trace())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-9)
    assert gradient(loss, best).abs().max() < 1e-9
    for change in torch.eye(6, dtype=torch.float64):
        other = Linear(best.matrix + 0.1 * change[:4].reshape(2, 2), best.shift + 0.1 * change[4:])
        assert implicit_loss(other, data()) > loss


@pytest.mark.parametrize("gaussian", [False, True])
def test_probes_have_covariance_one(gaussian):
    x = torch.zeros(50_000, 2)
    v = draw_probes(x, 2, gaussian, torch_generator(0))
    assert v.shape == (2, 50_000, 2)
    flat = v.reshape(-1, 2).double()
    torch.testing.assert_close(flat.T @ flat / len(flat), torch.eye(2).double(), atol=0.02, rtol=0)
    assert flat.mean(0).abs().max() < 0.02
    assert gaussian or set(flat.unique().tolist()) == {-1.0, 1.0}
    again = draw_probes(x, 2, gaussian, torch_generator(0))
    assert torch.equal(v, again)


def test_denoising_is_twice_the_implicit_loss_of_the_noised_law_and_a_constant():
    """E‖s(x) + ε/υ‖² = 2·E[∇·s + ½‖s‖²] + dim/υ², exactly where the sample moments are."""
    noise, count = 0.7, 10_000
    z = torch.randn(count, 4, generator=torch_generator(0), dtype=torch.float64)
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / count)).T
    x0, eps = MEAN + z[:, :2] @ torch.linalg.cholesky(COVARIANCE).T, z[:, 2:]
    for score in (Linear(-COVARIANCE, MEAN), optimum(noise), optimum()):
        denoising = single_level_loss(score, x0, eps, noise)
        implicit = implicit_loss(score, x0 + noise * eps)
        torch.testing.assert_close(denoising, 2 * implicit + 2 / noise**2)
        torch.testing.assert_close(gradient(denoising, score), 2 * gradient(implicit, score))


def objective(kind=Implicit, **settings):
    return kind(
        network=LayerNormMLP(2, 0, smooth=True),
        recipe=Recipe(steps=1, batch_size=1, lr=1e-3),
        mean=torch.tensor([3.0, -1.0]),
        std=4.0,
        train_seed=0,
        **settings,
    )


@pytest.mark.parametrize("kind", [Implicit, Hutchinson, Sliced])
@pytest.mark.parametrize("standardise", [False, True])
def test_the_loss_is_of_the_network_in_its_own_units(kind, standardise):
    trained, x0 = objective(kind, standardise=standardise), torch.randn(50, 2)
    u = (x0 - torch.tensor([3.0, -1.0])) / 4 if standardise else x0
    found = trained.loss(x0, torch_generator(0))
    generator, score = torch_generator(0), at_once(trained.model.network)
    if kind is Implicit:
        expected = implicit_loss(score, u)
    else:
        probes = draw_probes(u, 1, False, generator)
        expected = (hutchinson_loss if kind is Hutchinson else sliced_loss)(score, u, probes)
    torch.testing.assert_close(found, expected)
    level = trained.model.level
    assert (level.alpha, level.sigma) == (1.0, 0.0)
    scale = 4 if standardise else 1
    torch.testing.assert_close(trained.model.score(x0, level), score(u) / scale)


def test_impossible_settings():
    for kind, setting in (
        (Hutchinson, "probes"),
        (Sliced, "probes"),
        (Implicit, "chunk"),
        (Hutchinson, "chunk"),
    ):
        with pytest.raises(InvalidSetting, match=f"^{setting}=0: must be at least 1"):
            objective(kind, **{setting: 0})
