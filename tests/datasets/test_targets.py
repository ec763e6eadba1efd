"""Laws that papers test samplers on: published numbers, and other ways to their densities."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, simpson

from helpers import each
from samplerbench.datasets.gmm40 import gmm40
from samplerbench.datasets.lifted_modes import lifted_modes
from samplerbench.datasets.mixture import mixture
from samplerbench.datasets.random_modes import random_modes
from samplerbench.datasets.targets import banana, funnel, ill_conditioned, many_well
from samplerbench.datasets.tree import tree
from samplerbench.errors import InvalidSetting

RANDOM = np.random.default_rng(0)


def test_a_mixture_from_settings():
    """One variance, one for each component, diagonals and matrices mean what they say."""
    points = [[0.0, 0.0], [3.0, 1.0], [-1.0, 2.0]]
    eye = np.eye(2)
    expected = {
        "number": (2.0, [2 * eye] * 3),
        "list": ([1, 2, 3], [eye, 2 * eye, 3 * eye]),
        "diagonals": ([[1, 2], [3, 4], [5, 6]], [np.diag(d) for d in ([1, 2], [3, 4], [5, 6])]),
        "mixed": ([1, [3, 4], [[2, 1], [1, 2]]], [eye, np.diag([3, 4]), [[2, 1], [1, 2]]]),
    }
    for covariances, matrices in expected.values():
        law = mixture(points, covariances, [2, 1, 1])
        assert law.weights == (0.5, 0.25, 0.25)
        np.testing.assert_array_equal(law.tensors()[1], points)
        np.testing.assert_array_equal(law.tensors()[2], np.array(matrices, dtype=float))
    assert mixture(points).weights == pytest.approx((1 / 3,) * 3)


def test_a_mixture_from_a_file(tmp_path):
    points, matrices = RANDOM.standard_normal((2, 3)), np.stack([np.eye(3), 2 * np.eye(3)])
    path = tmp_path / "law.npz"
    np.savez(path, means=points, covariances=matrices, weights=[1.0, 3.0])
    assert mixture(path=str(path)) == mixture(points.tolist(), matrices.tolist(), [1, 3])
    np.savez(path, means=points, covariances=np.array(0.3))
    assert mixture(path=str(path)) == mixture(points.tolist(), 0.3)
    # what the file does not have comes from the settings
    assert mixture(path=str(path), weights=[1, 3]) == mixture(points.tolist(), 0.3, [1, 3])
    assert mixture(path=str(path), covariances=1) == mixture(points.tolist(), 0.3)
    for name, value in (("means", [[0, 0, 0]]), ("covariances", 2.0), ("covariances", [1, 2])):
        with pytest.raises(InvalidSetting, match=f"^{name}=.*: must be left out beside path="):
            mixture(path=str(path), **{name: value})


BAD = {
    "means": [
        ({}, "a list of points such as"),
        ({"means": [1, 2]}, "points of one dimension"),
        ({"means": [[1, 2], [3]]}, "in rows of equal length"),
        ({"means": [[math.nan, 2]]}, "finite points"),
    ],
    "weights": [
        ({"means": [[0], [1]], "weights": [1]}, "2 positive numbers"),
        ({"means": [[0], [1]], "weights": [1, -1]}, "2 positive numbers"),
        ({"means": [[0], [1]], "weights": [1, math.nan]}, "2 positive numbers"),
    ],
    "covariances": [
        ({"means": [[0, 0]], "covariances": -1.0}, "variances at least 0"),
        ({"means": [[0, 0]], "covariances": [1, 2]}, "a list of 1"),
        ({"means": [[0, 0]], "covariances": "abc"}, "covariances=abc: must be numbers"),
        ({"means": [[0, 0]], "covariances": [[1, 2, 3]]}, "lists of 2 variances"),
        ({"means": [[0, 0]], "covariances": [[[1, 2], [2, 1]]]}, "positive semi-definite"),
        ({"means": [[0, 0]], "covariances": [[[1, 0.5], [0, 1]]]}, "symmetric"),
    ],
}


@pytest.mark.parametrize("field", BAD)
def test_what_is_no_mixture_is_refused(field):
    for settings, words in BAD[field]:
        with pytest.raises(InvalidSetting) as error:
            mixture(**settings)
        assert error.value.field == field
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_file_that_is_no_mixture_is_refused(tmp_path):
    path = tmp_path / "law.npz"
    np.savez(path, centres=[[0.0]])
    with pytest.raises(InvalidSetting, match="it has centres"):
        mixture(path=str(path))
    np.savez(path, means=[[0.0]], weight=[1.0])
    with pytest.raises(InvalidSetting, match="it also has weight"):
        mixture(path=str(path))
    np.save(tmp_path / "law.npy", np.zeros((3, 2)))
    with pytest.raises(InvalidSetting, match="it has one array without a name"):
        mixture(path=str(tmp_path / "law.npy"))
    path.write_text("0,1\n")
    with pytest.raises(InvalidSetting, match="means and, if given"):
        mixture(path=str(path))
    with pytest.raises(InvalidSetting, match="a file that exists"):
        mixture(path=str(tmp_path / "none.npz"))


def test_gmm40_has_the_published_places():
    """PyTorch's first numbers for the seed 0 are .4963, .7682, .0885, .1320; sd is softplus(1)."""
    law = gmm40()
    assert len(law.weights) == 40
    first = (torch.tensor([[0.4963, 0.7682], [0.0885, 0.1320]]).double() - 0.5) * 80
    torch.testing.assert_close(law.tensors()[1][:2], first, atol=0.005, rtol=0)
    sd = float(torch.nn.functional.softplus(torch.tensor(1.0).double()))
    torch.testing.assert_close(law.tensors()[2][7], sd**2 * torch.eye(2).double())


def test_lifted_modes_have_variance_1_on_a_subspace():
    law = lifted_modes()
    torch.testing.assert_close(law.moments().variance, torch.ones(20).double())
    rank = torch.linalg.matrix_rank(law.tensors()[2][0], atol=1e-9)
    assert (law.weights, law.dim, int(rank)) == ((0.3, 0.7), 20, 4)
    assert lifted_modes(seed=1) != law


def test_random_modes_have_mean_0_and_deviation_1_as_a_whole():
    law = random_modes(deviation=0.3)
    moments = law.moments()
    assert (len(law.weights), law.dim) == (15, 1)
    assert abs(float(moments.mean)) < 1e-15
    assert float(moments.variance) == pytest.approx(1, abs=1e-14)
    assert law.covariances == (((0.3**2,),),) * 15
    assert random_modes(deviation=0.3, seed=1) != law


def test_the_tree_grows_from_its_first_numbers():
    """The first branch by hand; 127 branches; both trees together have mean 0 and deviation ½.

    Its origin and scale are chosen for that, so another order of the random numbers would be seen.
    """
    a, b, both = tree("a"), tree("b"), tree("both")
    assert (len(a.weights), len(b.weights), len(both.weights)) == (1016, 1016, 2032)
    assert both.means == a.means + b.means
    length = 0.292 * (1 + 0.2 * np.random.RandomState(2).randn())
    scale = np.array([1.3136, 1.3844])
    for place, mean in zip(np.linspace(0.07, 0.93, 8), a.means[:8], strict=True):
        expected = (np.array([0.003, 0.0325]) + place * length * math.sqrt(0.5)) * scale
        assert mean == pytest.approx(tuple(expected))
    covariance = np.array(a.covariances[0])
    along = np.ones((2, 2)) / 2
    shape = along + (0.2 / length) ** 2 * (np.eye(2) - along)
    np.testing.assert_allclose(covariance, shape * np.outer(scale, scale) * (0.06 * length) ** 2)
    # every depth has 2^k branches of weight 2^-k times their length, .8^k of the first on average
    shares = [sum(a.weights[i * 8 : i * 8 + 8]) for i in range(127)]
    assert shares[0] == pytest.approx(1 / sum(0.8**k for k in range(7)), rel=0.35)
    np.testing.assert_allclose(both.moments().mean, 0.0, atol=1e-3)
    np.testing.assert_allclose(both.moments().variance.sqrt(), 0.5, rtol=1e-3)


@pytest.mark.parametrize("law", [funnel(2), banana(2, 3.0, 0.1)], ids=["funnel", "banana"])
def test_the_densities_in_the_plane_integrate_to_1(law):
    """With their means and variances: by Simpson's rule, on a grid that follows the bend."""
    u = np.linspace(-8, 8, 1201)
    first = 3 * u
    if law.variance[1] > 50:
        second = np.exp(first / 2)[:, None] * u
        stretch = np.exp(first / 2)
    else:
        second = 0.1 * (9 - first[:, None] ** 2) + u
        stretch = np.ones_like(first)
    x = torch.from_numpy(np.stack(np.broadcast_arrays(first[:, None], second), -1))
    weight = law.log_p(x).exp().numpy() * 3 * stretch[:, None]
    for values, expected in (
        (1.0, 1.0),
        (x[..., 0].numpy() ** 2, law.variance[0]),
        (x[..., 1].numpy(), law.mean[1]),
        (x[..., 1].numpy() ** 2, law.variance[1]),
    ):
        total = simpson(simpson(weight * values, x=u), x=u)
        assert total == pytest.approx(expected, rel=1e-3, abs=1e-8)


def test_many_well_is_a_product():
    law = many_well(4)
    mass, mean, square = (
        quad(lambda x, k=k: x**k * math.exp(-(x**4) + 6 * x**2 + 0.5 * x), -5, 5, limit=200)[0]
        for k in range(3)
    )
    assert law.log_z == pytest.approx(2 * (math.log(mass) + 0.5 * math.log(2 * math.pi)))
    assert many_well(32).log_z == pytest.approx(164.69568, abs=5e-6)  # the published constant
    assert law.mean[::2] == pytest.approx((mean / mass,) * 2)
    assert law.variance[::2] == pytest.approx((square / mass - (mean / mass) ** 2,) * 2)
    x = law.sample(20_000, np.random.default_rng(0))
    assert float((x[:, 0] > 0).double().mean()) == pytest.approx(0.8443, abs=0.008)
    assert abs(float(x[:, [0, 2]].T.corrcoef()[0, 1])) < 0.03


def test_ill_conditioned():
    variances = ill_conditioned(5, 100.0).variances
    torch.testing.assert_close(variances, torch.tensor([1, 10**-0.5, 0.1, 10**-1.5, 0.01]).double())


@each(
    ("call", "words"),
    [
        (lambda: funnel(1), "dim=1: must be at least 2"),
        (lambda: banana(2, -1.0), "spread=-1.0"),
        (lambda: many_well(3), "dim=3: must be even"),
        (lambda: ill_conditioned(3, 0.5), "condition=0.5"),
        (lambda: tree("c"), "label=c: must be a, b or both"),
        (lambda: gmm40(0), "count=0"),
        (lambda: lifted_modes(3, 4), "inner=4"),
        (lambda: lifted_modes(shift=math.nan), "shift=nan: must be finite"),
        (lambda: lifted_modes(seed=-1), "seed=-1"),
        (lambda: random_modes(1), "count=1: must be at least 2"),
        (lambda: random_modes(deviation=1.0), "deviation=1.0: must be between 0 and 1"),
        (lambda: random_modes(seed=-1), "seed=-1: must be at least 0"),
        (lambda: tree(seed=-1), "seed=-1: must be between"),
        (lambda: gmm40(seed=2**64), "must be a number of 64 bits"),
    ],
)
def test_bad_settings(call, words):
    with pytest.raises(InvalidSetting) as error:
        call()
    assert words in str(error.value)
