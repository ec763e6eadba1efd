"""Starts: their laws, their common noise, their settings."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import mostly_slow
from samplerbench.core.grids import Level, uniform
from samplerbench.core.starts import (
    Exact,
    FixedGaussian,
    Overdispersed,
    Prior,
    Sobol,
    for_samplers,
    sobol_exact,
    sobol_points,
    sobol_prior,
    stratified_draws,
)
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting


class Measured(Dataset):
    """Data that are not a map of the unit cube."""

    event_shape = (2,)

    def sample(self, count, generator):
        return torch.from_numpy(generator.standard_normal((count, 2)))


def test_combine(states):
    x0, eps, level = states(9, 3), states(3, 9).T, Level(0.5, 0.8, 1.3)
    assert torch.equal(Exact().combine(x0, eps, level), 0.8 * x0 + 1.3 * eps)
    assert torch.equal(Prior().combine(x0, eps, level), 1.3 * eps)
    assert torch.equal(FixedGaussian(1.5, 0.7).combine(x0, eps, level), 1.5 + 0.7 * eps)
    assert torch.equal(sobol_exact().combine(x0, eps, level), 0.8 * x0 + 1.3 * eps)


def test_starts_share_their_noise(schedule, normal_law):
    """The difference of two starts with one key is the signal alone, at every level."""
    for level in uniform(schedule, 3).rows[:-1]:
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
    level = Level(0.5, 1.0, 1.0)
    x = Exact().draw(Measured(), 500, level, (0, 0, 0))
    eps = Prior().draw(Measured(), 500, level, (0, 0, 0))
    assert not torch.isin(x - eps, eps).any()
    assert abs(((x - eps) * eps).mean()) < 5 / 1000**0.5


def test_an_overdispersed_start_is_wider_than_the_law(mixture_law):
    """Against the moments of the mixture's own draws, on a level with signal and noise."""
    level, x0 = Level(0.5, 0.8, 1.3), mixture_law.draws(200_000, "test", 0)
    x = Overdispersed(3.0).draw(mixture_law, 200_000, level, (0, 0, 0))
    torch.testing.assert_close(x.mean(0), 0.8 * x0.mean(0), rtol=0, atol=0.05)
    wanted = (3 * 0.8 * x0.std(0)).square() + 1.3**2
    torch.testing.assert_close(x.var(0), wanted, rtol=0.02, atol=0)
    torch.testing.assert_close(mixture_law.moments()[0], x0.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(mixture_law.moments()[1], x0.var(0), rtol=0.02, atol=0)
    mean, variance, *_ = Measured().moments()  # of draws
    assert mean.abs().max() < 0.05
    assert (variance - 1).abs().max() < 0.05


def test_chains_have_no_prior():
    prior, exact, wide = Prior(), Exact(), Overdispersed(3.0)
    both = {"prior": prior, "exact": exact}
    assert for_samplers(both, holds=False) == both
    chains = {"overdispersed": Overdispersed(), "exact": exact}
    assert for_samplers(both, holds=True) == chains
    assert next(iter(for_samplers(both, holds=True))) == "overdispersed"
    assert for_samplers({"even": sobol_prior()}, holds=True) == {"overdispersed": Overdispersed()}
    assert for_samplers(both | {"wide": wide}, holds=True) == {"exact": exact, "wide": wide}
    assert for_samplers(both | {"wide": wide}, holds=False) == both
    assert for_samplers({"exact": exact}, holds=True) == {"exact": exact}
    with pytest.raises(InvalidSetting, match="these are for chains"):
        for_samplers({"wide": wide}, holds=False)
    with pytest.raises(InvalidSetting, match="factor=1"):
        Overdispersed(1.0)
    with pytest.raises(InvalidSetting, match="start="):
        Sobol(wide)
    assert "start=gaussian" in wide.why_incompatible(Unseen((1, 2, 2)))


def test_exact_start_is_not_an_evaluation_point(normal_law):
    data = Level(0.0, 1.0, 0.0)  # where the start is x₀
    x0 = Exact().draw(normal_law, 500, data, (0, 0, 0))
    for purpose in ("train", "validation", "evaluation", "floor"):
        assert not torch.isin(x0, normal_law.draws(500, purpose, 0)).any()


def test_bad_settings():
    for settings, message in (
        ({"mean": math.nan}, "mean=nan: must be finite"),
        ({"mean": math.inf}, "mean=inf: must be finite"),
        ({"std": 0.0}, "std=0.0: must be positive"),
        ({"std": -1.0}, "std=-1.0: must be positive"),
        ({"std": math.inf}, "std=inf: must be positive"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            FixedGaussian(**settings)


@pytest.fixture(params=mostly_slow(["mixture", "gaussian"], 0))
def law(request, mixture_law, normal_law):
    return mixture_law if request.param == "mixture" else normal_law


def first_states(start, law, level, blocks, size, repetition=0):
    return torch.cat([start.draw(law, size, level, (0, repetition, b)) for b in range(blocks)])


def test_sobol_starts_have_the_law_of_the_start(law):
    """Over many scrambles each single point has the start's law: nothing is biased."""
    level = Level(0.5, 0.8, 1.3)
    even = torch.cat([first_states(sobol_exact(), law, level, 1, 4, r) for r in range(400)])
    random = first_states(Exact(), law, level, 1, 100_000)
    for k in range(law.dim):  # 1 600 independent numbers exceed .06 with chance .00002
        assert stats.ks_2samp(even[:, k].numpy(), random[:, k].numpy()).statistic < 0.06


def test_sobol_points_are_even(mixture_law):
    """2ᵏ points are a net: each of 2ᵏ slices of every coordinate contains exactly one of them."""
    u = sobol_points(1024, 5, 0, "start", 0, 0)
    assert u.min() > 0
    assert u.max() < 1
    for column in u.T:
        assert torch.equal((1024 * column).long().sort().values, torch.arange(1024))
    # so each component gets its share up to one sample, where chance is off by 16
    u = sobol_points(1024, mixture_law.uniform_dim, 0, "draws", "floor", 0, 0)
    component = torch.bucketize(u[:, 0].contiguous(), torch.tensor([0.2, 0.7], dtype=torch.float64))
    counts = component.bincount(minlength=3)
    assert (counts - 1024 * torch.tensor([0.2, 0.5, 0.3])).abs().max() <= 1
    x0 = stratified_draws(mixture_law, 1024, "floor", 0, 0)
    for k, (mean, covariance) in enumerate(
        zip(mixture_law.means, mixture_law.covariances, strict=True)
    ):
        spread = x0[component == k] - torch.tensor(mean, dtype=torch.float64)
        # chance would leave .03 or more
        assert spread.mean(0).abs().max() < 0.01
        assert (spread.T.cov() - torch.tensor(covariance)).abs().max() < 0.03


def test_blocks_cut_one_sequence(law):
    """The block size does not matter; SciPy, which warns of sizes like 1 000, stays silent."""
    level = Level(0.5, 0.8, 1.3)
    whole = first_states(sobol_exact(), law, level, 1, 1200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for blocks, size in ((3, 400), (12, 100), (2, 600)):
            parts = first_states(sobol_exact(), law, level, blocks, size)
            torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)


def test_repetitions_have_scrambles_of_their_own(law):
    level = Level(0.5, 0.8, 1.3)
    first, same, other = (first_states(sobol_exact(), law, level, 1, 64, r) for r in (0, 0, 1))
    assert torch.equal(first, same)
    assert not (first == other).any()
    # independent: a coordinate's product with its own in another repetition averages to zero
    level = Level(1.0, 0.0, 1.0)
    pairs = [
        [first_states(sobol_prior(), law, level, 1, 1, r)[0, 0].item() for r in (2 * k, 2 * k + 1)]
        for k in range(150)
    ]
    assert abs(np.mean(np.prod(pairs, axis=1))) < 5 / 150**0.5


def test_sobol_starts_are_paired(law):
    """With α = 0 the exact start is the prior's; else they differ by the signal alone."""
    key = (0, 1, 2)
    gone = Level(1.0, 0.0, 1.0)
    eps = sobol_prior().draw(law, 128, gone, key)
    torch.testing.assert_close(sobol_exact().draw(law, 128, gone, key), eps)
    level = Level(0.5, 0.8, 1.3)
    signal = sobol_exact().draw(law, 128, level, key) - 1.3 * eps
    clean = sobol_exact().draw(law, 128, Level(0.0, 1.0, 0.0), key)
    torch.testing.assert_close(signal, 0.8 * clean)


def test_data_without_a_map_of_the_cube_are_named():
    level = Level(0.5, 0.8, 1.3)
    assert "Measured" in sobol_exact().why_incompatible(Measured())
    with pytest.raises(InvalidSetting, match="Measured cannot be drawn from given uniform numbers"):
        sobol_exact().draw(Measured(), 8, level, (0, 0, 0))
    assert sobol_prior().why_incompatible(Measured()) is None
    assert sobol_prior().draw(Measured(), 8, level, (0, 0, 0)).shape == (8, 2)
    with pytest.raises(ValueError, match="Measured cannot be drawn"):
        stratified_draws(Measured(), 8, 0)


def test_without_data_no_start_begins_at_them():
    unseen = Unseen((1, 4, 4))
    for start in (Prior(), FixedGaussian(), sobol_prior()):
        assert start.why_incompatible(unseen) is None
    for start in (Exact(), sobol_exact()):
        assert start.why_incompatible(unseen).startswith("it begins at data, but there are no")
