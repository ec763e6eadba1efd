"""Gaussian mixtures: D1 and D2 as published, singular ones, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import refused_in_one_line
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.datasets.grid_mixture import WEIGHTS, grid_mixture
from samplerbench.datasets.two_clusters import two_clusters


def test_grid_mixture_is_d1():
    law = grid_mixture()
    published = (
        ".0991055, .1378562, .1249738, .1137685, .0913863, .1188078, .0151706, .1571894, .1417420"
    )
    assert [float(w) for w in published.split(",")] == list(WEIGHTS)
    assert law.weights == pytest.approx(WEIGHTS, rel=1e-6)
    assert sum(law.weights) == pytest.approx(1, abs=1e-15)
    assert law.means[:4] == ((-10, -10), (0, -10), (10, -10), (-10, 0))  # x fastest
    assert law.means[8] == (10, 10)
    assert set(law.covariances) == {((0.1, 0.0), (0.0, 0.1))}
    assert law.event_shape == (2,)
    assert law.dim == 2
    mean, variance, *_ = law.moments()
    assert mean.tolist() == pytest.approx([1.57, -0.48], abs=0.005)
    assert variance.sqrt().tolist() == pytest.approx([7.7, 8.2], abs=0.05)
    assert grid_mixture(3.0, 0.5).means[0] == (-3, -3)
    assert grid_mixture(3.0, 0.5).covariances[0] == ((0.5, 0.0), (0.0, 0.5))


def test_two_clusters_are_d2():
    """Training data are 100 + 200 points in random order; the counts of a floor are random."""
    law, drawn = two_clusters(), two_clusters(exact_shares=False)
    assert law.weights == pytest.approx((1 / 3, 2 / 3))
    assert law.means == ((-10, 1), (10, 0))
    assert set(law.covariances) == {((1.0, 0.0), (0.0, 1.0))}
    for seed in range(3):
        on_the_left = law.draws(300, "train", seed)[:, 0] < 0
        assert int(on_the_left.sum()) == 100
        assert not on_the_left[:100].all()
        assert torch.equal(law.draws(300, "floor", seed), drawn.draws(300, "floor", seed))
    assert int((law.draws(300, "validation", 1)[:, 0] < 0).sum()) == 100
    assert len({int((drawn.draws(300, "train", k)[:, 0] < 0).sum()) for k in range(5)}) > 1


def test_singular_gaussian():
    law = gaussian((1, 2), ((4, 2), (2, 1)))  # on the line through (1, 2) along (2, 1)
    x = law.draws(1000, "train", 0)
    assert ((x[:, 0] - 1) - 2 * (x[:, 1] - 2)).abs().max() < 1e-7
    assert x[:, 0].std() == pytest.approx(2, rel=0.1)
    point = gaussian((1, 2), ((0, 0), (0, 0)))
    assert (point.draws(10, "train", 0) == torch.tensor([1.0, 2.0])).all()


def test_singular_at_any_scale():
    """Rounding leaves eigenvalues a little below 0, in proportion to the largest."""
    for scale in (1e-6, 1.0, 1e6):
        basis = torch.linalg.qr(torch.arange(9.0).reshape(3, 3).double().cos())[0]
        rank_one = scale * torch.outer(basis[0], basis[0]) * 3
        gaussian((0, 0, 0), rank_one.tolist())


def mixture(weights=(0.5, 0.5), means=((0.0,), (1.0,)), covariances=(((1.0,),), ((1.0,),))):
    return GaussianMixture(weights, means, covariances)


def test_refusals():
    for build, field, allowed in (
        (lambda: mixture(weights=()), "weights", "not empty"),
        (lambda: mixture(weights=0.5), "weights", "a list"),
        (lambda: mixture(weights=(0.5, 0.6)), "weights", "positive, with sum 1"),
        (lambda: mixture(weights=(1.5, -0.5)), "weights", "positive, with sum 1"),
        (lambda: mixture(weights=(1.0, 0.0)), "weights", "positive, with sum 1"),
        (lambda: mixture(weights=(math.nan, 0.5)), "weights", "positive, with sum 1"),
        (lambda: mixture(weights=("a", "b")), "weights", "numbers"),
        (lambda: mixture(means=((0.0,), (math.nan,))), "means", "2 finite points"),
        (lambda: mixture(means=((0.0,),)), "means", "2 finite points"),
        (lambda: mixture(means=(0.0, 1.0)), "means", "2 finite points"),
        (lambda: mixture(means=5.0), "means", "2 finite points"),
        (lambda: mixture(means=((0.0,), (1.0, 2.0))), "means", "in rows of equal length"),
        (lambda: mixture(means=((), ())), "means", "2 finite points"),
        (lambda: mixture(covariances=(((1.0,),),)), "covariances", "2 symmetric"),
        (lambda: mixture(covariances=(((1.0,),), ((math.inf,),))), "covariances", "2 symmetric"),
        (lambda: mixture(covariances=(((1.0,),), ((-1.0,),))), "covariances", "semi-definite"),
        (lambda: gaussian((0, 0), ((1, 0.5), (0.4, 1))), "covariances", "1 symmetric"),
        (lambda: gaussian((0, 0), ((1, 2), (2, 1))), "covariances", "semi-definite 2×2"),
        (lambda: gaussian((0, 0), ((1e-8, 2e-8), (2e-8, 1e-8))), "covariances", "semi-definite"),
        (lambda: gaussian((0, 0), ((1, 0, 0), (0, 1, 0))), "covariances", "1 symmetric"),
        (lambda: isotropic((1.0,), ((0.0,),), -0.1), "variance", "at least 0"),
        (lambda: grid_mixture(variance=math.nan), "variance", "at least 0"),
        (lambda: grid_mixture(spacing=math.inf), "means", "9 finite points"),
        (lambda: two_clusters(-1), "variance", "at least 0"),
    ):
        with refused_in_one_line(allowed, field=field):
            build()
