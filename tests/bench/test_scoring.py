"""Differences of two sets of samples: false claims are rare, and pairing detects more."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from samplerbench.bench.scoring import Cloud, differences, distances, to_law
from samplerbench.core.noise import torch_generator
from samplerbench.datasets.gaussian import gaussian
from samplerbench.metrics.sliced import Sliced

LAW = gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)))
TRUTH = to_law(LAW, "gaussian", "sliced", Sliced(directions=4), 2000, 0)


def gap(first, second):
    (line,) = differences({"first": Cloud(first), "second": Cloud(second)}, TRUTH)
    return line


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paired", "independent", "heavy tails"])
def test_two_sets_of_one_law_are_rarely_told_apart(kind):
    generator, told = torch_generator("scoring", kind), 0
    for trial in range(100):
        first, second = (LAW.draws(100, name, trial) for name in ("first", "second"))
        if kind == "paired":  # both have the same starts, and an error of their own
            first, second = (
                first + 0.1 * torch.randn(first.shape, generator=generator).double()
                for _ in range(2)
            )
        elif kind == "heavy tails":
            first, second = (
                x / torch.randn(3, 100, 1, generator=generator).double().square().mean(0).sqrt()
                for x in (first, second)
            )
        told += gap(first, second).verdict == "distinguishable"
    assert told <= 13  # 5 are expected at most: more has a chance of .1 %


def test_pairs_find_a_difference_that_independent_sets_hide():
    wide = 1.5 * LAW.draws(500, "wide", 0)
    found = gap(wide, 1.03 * wide)
    assert found.verdict == "distinguishable"
    assert (found.minus, found.samples) == ("first", "second")
    wanted = TRUTH.distance(1.03 * wide).value - TRUTH.distance(wide).value
    assert found.distance == pytest.approx(wanted)
    apart = gap(wide, 1.03 * 1.5 * LAW.draws(500, "wide", 1))
    assert apart.verdict == "not distinguishable"
    assert apart.half_width > 5 * found.half_width


def test_sets_of_two_sizes_are_compared_at_the_smaller_one():
    long = LAW.draws(300, "long", 0)
    same = gap(long, long[:200])
    assert (same.n, same.distance) == (200, 0.0)
    assert math.isnan(same.p_value)
    assert same.verdict == "the same values"


def test_few_samples_and_dependent_rows_are_not_compared():
    points = LAW.draws(200, "points", 0)
    sorted_rows = Cloud(points.sort(0).values)
    clouds = {"a": Cloud(points), "b": Cloud(points[:49]), "d": sorted_rows}
    assert sorted_rows.lag == 1
    assert differences(clouds, TRUTH) == []


def test_flattened_chains_are_seen_and_independent_rows_are_not():
    """Also with heavy tails, equal numbers and a constant column, and in few rows."""
    random = np.random.default_rng(0)

    def chains(rho, draws, count):
        noise = random.standard_normal((draws + 200, count, 2))
        return lfilter([1.0], [1.0, -rho], noise, axis=0)[200:]

    for shape in ((0.8, 40, 10), (0.5, 400, 32)):
        states = chains(*shape)
        assert Cloud(torch.from_numpy(states.reshape(-1, 2))).lag == shape[-1]
        by_chain = np.ascontiguousarray(states.swapaxes(0, 1)).reshape(-1, 2)
        assert Cloud(torch.from_numpy(by_chain)).lag == 1
        assert Cloud(torch.from_numpy(random.permutation(by_chain))).lag == 0
    outliers = random.standard_normal((4000, 2))
    outliers[[1000, 1700], 0] = 1e6
    for rows in (
        *(random.standard_normal((n, 2)) for n in (2, 3, 4, 10, 1000)),
        random.standard_cauchy((4000, 2)),
        outliers,
        random.integers(0, 2, (1000, 20)).astype(float),
        np.stack([np.ones(500), random.standard_normal(500)], 1),
    ):
        assert Cloud(torch.from_numpy(rows)).lag == 0
    words = "its rows depend on the rows 10 places before them, as those of 10 chains do"
    assert Cloud(torch.from_numpy(chains(0.8, 40, 10).reshape(-1, 2))).dependence == words


def test_the_wrong_layout_of_chains_has_no_verdict():
    """Consecutive states look like chains that agree: R̂ is 1, and the ESS too large."""
    pytest.importorskip("arviz")
    noise = np.random.default_rng(1).standard_normal((500, 20, 2))
    states = torch.from_numpy(lfilter([0.6], [1.0, -0.8], noise, axis=0)[200:].copy())
    right = Cloud.of_chains(states, "right")
    wrong = Cloud.of_chains(states.swapaxes(0, 1).contiguous(), "wrong")
    assert wrong.ess_and_r_hat[0] > 5 * right.ess_and_r_hat[0]
    assert wrong.ess_and_r_hat[1] < 1.01
    named = {"right": right, "wrong": wrong}
    verdicts = [line.verdict for line in distances(named, TRUTH)]
    assert verdicts[1] == "no verdict: its chains depend on each other"
    assert "chains" not in verdicts[0]
    assert differences(named, TRUTH) == []
    asked = "neighbouring chains depend on each other: is it the other layout?"
    assert wrong.other_layout == f"300 chains of 20 draws: {asked}"
    assert right.other_layout == ""
    mixed = torch.from_numpy(np.random.default_rng(2).standard_normal((100, 40, 2)))
    assert not Cloud.of_chains(mixed, "mixed").chains_depend
