"""D2: its parts, its draws, its noised law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import float64

from samplerbench.core.grids import Level
from samplerbench.core.models import IsotropicMixtureOracle
from samplerbench.core.schedules import EDM
from samplerbench.datasets.two_clusters import two_clusters
from samplerbench.errors import InvalidSetting


def test_shares_and_places():
    x = two_clusters().draws(60_000, "train", 0)
    left = x[:, 0] < 0
    assert left.double().mean() == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 60_000))
    for rows, centre in ((x[left], (-10.0, 1.0)), (x[~left], (10.0, 0.0))):
        offset = rows - torch.tensor(centre, dtype=float64)
        assert offset.mean(0).abs().max() < 4 / len(rows) ** 0.5
        covariance = offset.T @ offset / len(rows)
        assert (covariance - torch.eye(2)).abs().max() < 6 / len(rows) ** 0.5


@pytest.mark.parametrize("seed", range(3))
def test_the_notebooks_counts(seed):
    """100 + 200 points to learn from; what stands for the law is drawn."""
    law = two_clusters()
    data = law.draws(300, "train", seed)
    assert (
        int((data[:, 0] < 0).sum()) == int((law.draws(300, "validation", 1)[:, 0] < 0).sum()) == 100
    )
    assert not torch.equal(data, law.draws(300, "train", seed + 1))
    assert not (data[:100, 0] < 0).all(), "in no order"
    drawn = two_clusters(exact_shares=False)
    assert torch.equal(law.draws(300, "floor", seed), drawn.draws(300, "floor", seed))
    counts = {int((drawn.draws(300, "train", k)[:, 0] < 0).sum()) for k in range(5)}
    assert len(counts) > 1


def test_noised_law_in_closed_form():
    """With σ = 3, as the notebook noises it, both clusters have covariance 10·I."""
    model = two_clusters().oracle(EDM(3.0))
    assert isinstance(model, IsotropicMixtureOracle)
    x = torch.tensor([[-10.0, 1.0], [0.0, 0.0], [3.0, -2.0], [25.0, 8.0]], dtype=float64)
    x.requires_grad_()
    weights = torch.tensor([1 / 3, 2 / 3], dtype=float64)
    means = torch.tensor([[-10.0, 1.0], [10.0, 0.0]], dtype=float64)
    terms = weights.log() - (x[:, None] - means).square().sum(-1) / 20 - math.log(20 * math.pi)
    log_q = terms.logsumexp(-1)
    at = Level(1.0, 1.0, 3.0)
    torch.testing.assert_close(model.log_density(x, at), log_q, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(log_q.sum(), x)
    torch.testing.assert_close(model.score(x, at), gradient, rtol=1e-12, atol=1e-12)


def test_refuses_a_negative_variance():
    with pytest.raises(InvalidSetting, match="variance=-1: must be at least 0"):
        two_clusters(-1)
