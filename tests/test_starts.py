"""Starts: their laws, their common noise, their settings."""

from __future__ import annotations

import math

import pytest
import torch

from samplerbench.datasets.base import Dataset
from samplerbench.errors import InvalidSetting
from samplerbench.evaluation.exact_law import noised_law
from samplerbench.grids import Level
from samplerbench.starts import Exact, FixedGaussian, Prior

COUNT = 40_000


@pytest.mark.parametrize("start", [Prior(), Exact(), FixedGaussian(1.5, 0.7)], ids=repr)
def test_moments(start, schedule, full, normal_law, gaussian_moments):
    level = full(schedule, 3).rows[1]
    x = start.draw(normal_law, COUNT, level, (0, 0, 0))
    assert x.shape == (COUNT, 3)
    assert x.dtype == torch.float64
    mean, covariance = noised_law(*gaussian_moments(normal_law), level)
    identity = torch.eye(3, dtype=torch.float64)
    if start == Prior():
        mean, covariance = 0 * mean, level.sigma**2 * identity
    elif isinstance(start, FixedGaussian):
        mean, covariance = torch.full_like(mean, 1.5), 0.49 * identity
    width = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 5 * (width / COUNT).sqrt()).all()
    error = ((torch.outer(width, width) + covariance.square()) / COUNT).sqrt()
    assert ((x.T.cov() - covariance).abs() < 5 * error).all()


def test_starts_share_their_noise(schedule, full, normal_law):
    """The difference of two starts with one key is the signal alone, at every level."""
    for level in full(schedule, 3).rows[:-1]:
        key = (0, 1, 2)
        exact, prior, fixed = (
            s.draw(normal_law, 16, level, key) for s in (Exact(), Prior(), FixedGaussian(0.5, 2.0))
        )
        eps = (fixed - 0.5) / 2
        torch.testing.assert_close(prior, level.sigma * eps, rtol=1e-12, atol=1e-12)
        signal = exact - prior
        assert torch.equal(exact, Exact().draw(normal_law, 16, level, key))
        if level.alpha == 0:
            assert not signal.any()
        else:  # a draw of the law, which has no width in one direction, and no relation to eps
            direction = torch.linalg.eigh(torch.tensor(normal_law.covariances[0]))[1][:, 0].double()
            flat = (signal / level.alpha - torch.tensor(normal_law.means[0])) @ direction
            assert flat.abs().max() < 1e-6
            assert signal.std(0).min() > 0


def test_signal_and_noise_have_streams_of_their_own():
    class Stream(Dataset):
        event_shape = (2,)

        def sample(self, count, generator):
            return torch.from_numpy(generator.standard_normal((count, 2)))

    level = Level(0.5, 1.0, 1.0)
    x = Exact().draw(Stream(), 500, level, (0, 0, 0))
    eps = Prior().draw(Stream(), 500, level, (0, 0, 0))
    assert not torch.isin(x - eps, eps).any()
    assert abs(((x - eps) * eps).mean()) < 5 / 1000**0.5


@pytest.mark.parametrize("key", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=str)
def test_seed_repetition_and_block_matter(key, schedule, full, normal_law):
    level = full(schedule, 3).rows[1]
    for start in (Prior(), Exact(), FixedGaussian()):
        one, other = (start.draw(normal_law, 16, level, k) for k in ((0, 0, 0), key))
        assert not (one == other).any()


def test_exact_start_is_not_an_evaluation_point(normal_law, full, schedule):
    level = full(schedule, 3).rows[-1]  # the data: the start is x₀ itself
    x0 = Exact().draw(normal_law, 500, level, (0, 0, 0))
    for purpose in ("train", "validation", "evaluation", "floor"):
        assert not torch.isin(x0, normal_law.draws(500, purpose, 0)).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": math.nan}, "mean=nan: must be finite"),
        ({"mean": math.inf}, "mean=inf: must be finite"),
        ({"std": 0.0}, "std=0.0: must be positive"),
        ({"std": -1.0}, "std=-1.0: must be positive"),
        ({"std": math.inf}, "std=inf: must be positive"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InvalidSetting, match=message):
        FixedGaussian(**settings)
