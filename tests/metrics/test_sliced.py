"""The mean over directions against POT and its largest term."""

from __future__ import annotations

import ot
import pytest
import torch

from helpers import normal
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.projections import random_directions
from samplerbench.metrics.sliced import Sliced
from samplerbench.metrics.sliced_pca import SlicedPCA, principal_components


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (41, 60)])
def test_is_pots_on_the_same_directions(p, n, m):
    x, y = normal(n, 3), 2 * normal(m, 3, seed=1)
    value = Sliced(p, 50, "float64").against(y, seed=4)(x).value
    lines = random_directions(3, 50, seed=4).T.numpy()
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), p=p, projections=lines)
    assert value == pytest.approx(float(expected), rel=1e-9)


def test_large_orders_approach_the_largest_and_do_not_overflow():
    x, y = 1e6 * normal(20, 2), 1e6 * normal(30, 2, seed=1)
    most = MaxSliced(200.0, 64, "float64").against(y, seed=0)(x).value
    mean = Sliced(200.0, 64, "float64").against(y, seed=0)(x).value
    assert 0.95 * most < mean < most


def test_components_may_be_larger_than_coordinates():
    """A coordinate of 1e15 is refused; a principal component of that size is not."""
    x, y = (torch.randn(30, 1, generator=torch.Generator().manual_seed(k)) for k in range(2))
    value = SlicedPCA(directions=9).against(y.expand(-1, 2), seed=0)(x.expand(-1, 2)).value
    scale = 0.9e15 / float(torch.cat([x, y]).abs().max())
    x, y = ((scale * line.double()).expand(-1, 2) for line in (x, y))
    found = SlicedPCA(directions=9).against(y, seed=0)(x).value
    assert found == pytest.approx(scale * value, rel=1e-5)


def test_points_that_are_all_equal_are_at_no_distance():
    assert Sliced().against(torch.ones(5, 2), seed=0)(torch.ones(3, 2)).value == 0


def test_components_are_those_that_the_points_vary_in():
    """Points on a line in R³ have one component: the variance along two others is a rounding."""
    line = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    direction = torch.tensor([[-2.0, 6.0, -3.0]], dtype=torch.float64) / 7
    for points in (line @ direction, (line @ direction)[:2]):  # more points than axes, and fewer
        basis = principal_components(points - points.mean(dim=0), 3)
        torch.testing.assert_close(basis, direction.T)
