"""The floor of Markov chains: correct chains lie in it, and wrong ones do not."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from scipy.stats import binom

from samplerbench.bench.blocks import floor_of_chains
from samplerbench.bench.scoring import FLOORS, Cloud, differences, distances, to_law, to_points
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.sliced import Sliced

pytest.importorskip("arviz")

UNIT = ((1.0, 0.0), (0.0, 1.0))
NORMAL = gaussian((0.0, 0.0), UNIT)
TWO_MODES = GaussianMixture((0.5, 0.5), ((-4.0, 0.0), (4.0, 0.0)), (UNIT, UNIT))
SLICED = Sliced(directions=8)


def autoregressive(rho, draws, chains, seed, modes=False):
    """Stationary AR(1) chains, shape (draws, chains, 2); the sign of another one is the mode."""
    z = np.random.default_rng(seed).standard_normal((draws, chains, 3))
    z[1:] *= math.sqrt(1 - rho**2)
    x = lfilter([1.0], [1.0, -rho], z, axis=0)
    if modes:
        x[..., 0] += 4 * np.sign(x[..., 2])
    return torch.from_numpy(x[..., :2].copy())


def lines(truth, *chains):
    named = {str(number): Cloud.of_chains(one, str(number)) for number, one in enumerate(chains)}
    return distances(named, truth), differences(named, truth)


@pytest.mark.slow
@pytest.mark.parametrize("metric", [SLICED, MaxSliced(directions=8)], ids=["mean", "max"])
@pytest.mark.parametrize("law", ["normal", "two modes"])
@pytest.mark.parametrize(
    ("rho", "draws", "chains"), [(0.5, 2000, 1), (0.8, 500, 4), (0.95, 4000, 1)]
)
def test_correct_chains_lie_in_their_interval(metric, law, rho, draws, chains):
    trials, modes = 100, law == "two modes"
    truth = to_law(TWO_MODES if modes else NORMAL, law, "metric", metric, 10_000, 0)
    inside = told = 0
    for trial in range(trials):
        one, two = (autoregressive(rho, draws, chains, 2 * trial + k, modes) for k in (0, 1))
        (first, _), pairs = lines(truth, one, two)
        inside += first.floor_lower <= first.distance <= first.floor_upper
        told += any(pair.verdict == "distinguishable" for pair in pairs)
    assert inside >= binom.ppf(0.001, trials, 0.95)
    assert told <= binom.ppf(0.999, trials, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("rho", "as_independent"), [(0.8, 10), (0.95, 18)])
def test_none_of_twenty_correct_chains_is_told_but_most_are_as_independent_rows(
    rho, as_independent
):
    """The interval of the floor is that of 390 other chains, in sets of 39 as the floor's.

    `as_independent`: so many of 20, or more, are beyond the floor of independent draws.
    """
    law, chains = to_law(NORMAL, "normal", "sliced", SLICED, 10_000, 0), range(20)
    states = [autoregressive(rho, 4000, 1, seed) for seed in chains]
    unread = distances({str(k): Cloud(states[k][:, 0]) for k in chains}, law)
    assert {line.verdict for line in unread} == {"no verdict: its rows depend on each other"}
    assert sum(line.distance > line.floor_upper for line in unread) >= as_independent
    found, _ = lines(law, *states)
    inside = [line.floor_lower <= line.distance <= line.floor_upper for line in found]
    assert sum(inside) >= binom.ppf(0.001, len(inside), 0.95)
    seeds = range(100, 100 + 10 * FLOORS)
    others = [law.distance(autoregressive(rho, 4000, 1, seed)[:, 0]).value for seed in seeds]
    sets = np.reshape(others, (10, FLOORS))
    lower, upper = (
        np.mean([getattr(line, f"floor_{end}") for line in found]) for end in ("lower", "upper")
    )
    assert lower == pytest.approx(sets.min(1).mean(), rel=0.2)
    assert upper == pytest.approx(sets.max(1).mean(), rel=0.2)


def test_the_floor_of_a_chain_is_that_of_other_chains_of_its_kind():
    """It is between the floor of n independent draws and that of ESS draws."""
    truth = to_law(NORMAL, "normal", "sliced", SLICED, 10_000, 0)
    (line,), _ = lines(truth, autoregressive(0.8, 2000, 1, 0))
    others = [truth.distance(autoregressive(0.8, 2000, 1, k)[:, 0]).value for k in range(1, 40)]
    floors = {n: truth.floor(torch.zeros(n, 2)).mean() for n in (2000, line.ess)}
    assert line.floor == pytest.approx(np.mean(others), rel=0.2)
    assert floors[2000] * 1.3 < line.floor < floors[line.ess] / 1.3
    assert line.floor_lower < min(others) * 1.3
    assert line.floor_upper > np.quantile(others, 0.9)


def test_independent_states_have_nearly_the_floor_of_independent_draws():
    independent = np.linspace(0.05, 0.07, FLOORS)
    frames = torch.from_numpy(np.random.default_rng(0).standard_normal((1000, 2, 2)))
    found = floor_of_chains(frames, 2000, SLICED, independent, 0)
    assert found.mean() == pytest.approx(independent.mean(), rel=0.1)


@pytest.mark.slow
def test_a_chain_of_another_law_is_told_and_pairs_are_compared():
    chains = autoregressive(0.5, 1000, 4, 0), 1.3 * autoregressive(0.5, 1000, 4, 1)
    for truth in (
        to_law(NORMAL, "normal", "sliced", SLICED, 2000, 0),
        to_points(NORMAL.draws(2000, "data", 1), "data.npy", "sliced", SLICED, 0),
    ):
        (right, wide), (pair,) = lines(truth, *chains)
        verdicts = [right.verdict, wide.verdict, pair.verdict]
        assert verdicts == [
            "not distinguishable from the data",
            "differs from the data",
            "distinguishable",
        ]
        assert (pair.samples, pair.minus, pair.n) == ("1", "0", 4000)
        assert 0 < right.half_width < right.distance


def test_chains_that_have_not_mixed_or_are_short_are_not_compared():
    truth = to_law(NORMAL, "normal", "sliced", SLICED, 2000, 0)
    good, short = autoregressive(0.5, 500, 2, 0), autoregressive(0.95, 500, 1, 1)
    apart = autoregressive(0.5, 500, 2, 2) + 3 * torch.arange(2)[:, None]
    (_, few, unmixed), pairs = lines(truth, good, short, apart)
    assert pairs == []
    assert few.ess < 50
    assert math.isnan(few.half_width)
    assert unmixed.verdict == "no verdict: R̂ is above 1.01"
    (stuck,), _ = lines(truth, torch.full_like(good, 0.3))
    assert stuck.verdict == "no verdict: R̂ is unknown"
