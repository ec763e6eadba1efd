"""Rankings of samplers: the order, ties, and samplers that cannot be compared."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import rows_of
from samplerbench.bench.ranking import ranking
from samplerbench.bench.statistics import holm
from samplerbench.errors import InvalidSetting

SIZES = {"heun": 1.0, "euler": 3.0, "ddim": 1.005}


@pytest.fixture
def table():
    """Three samplers with a large common part and a small one of their own, and a floor."""
    rng = np.random.default_rng(1)
    common = 0.5 * rng.standard_normal(8)
    own = {name: size + common + 0.02 * rng.standard_normal(8) for name, size in SIZES.items()}
    cells = [rows_of(values, sampler=name) for name, values in own.items()]
    floor = rows_of(rng.standard_normal(8), denoiser="law", sampler="", steps=0)
    return pd.concat([*cells, floor], ignore_index=True)


def test_order_ties_and_ranges(table):
    result = ranking(table, steps=4)
    order = result.order.set_index("name")
    assert list(order["rank"]) == [1, 2, 3]
    assert order.index[2] == "euler"
    assert order.loc["heun", "ties"] == ["ddim"]
    assert order.loc["euler", "ties"] == []
    assert order[["best", "worst"]].to_numpy().tolist() == [[1, 2], [1, 2], [3, 3]]
    assert f"is not distinguishable from {order.index[1]} (Holm over" in result.sentence


def test_pairs_are_scipy_s_with_holm_s_correction(table):
    pairs = ranking(table, steps=4).pairs
    assert list(pairs["p_holm"]) == pytest.approx(holm(pairs["p_value"]))
    for line in pairs.itertuples():
        first, second = (
            table.loc[table["sampler"] == name, "value"].to_numpy()
            for name in (line.first, line.second)
        )
        theirs = stats.ttest_rel(second, first)
        interval = theirs.confidence_interval()
        assert line.p_value == pytest.approx(theirs.pvalue)
        assert (line.lower, line.upper) == pytest.approx((interval.low, interval.high))
        assert line.difference == pytest.approx((second - first).mean())
        assert line.difference >= 0


def test_the_pairing_tells_apart_what_overlapping_intervals_do_not():
    common = np.linspace(0, 1, 8)
    own = 0.01 * np.tile([-1, 1], 4)
    table = pd.concat([rows_of(common, sampler="a"), rows_of(common + 0.1 + own, sampler="b")])
    result = ranking(table, steps=4)
    a, b = result.order.iloc[0], result.order.iloc[1]
    assert a["upper"] > b["lower"]
    assert a["ties"] == []
    assert (
        result.sentence == "a is best, and distinguishable from all others (Holm over 1 comparison)"
    )


def test_more_competitors_need_stronger_evidence():
    """A pair that is distinguishable alone is not distinguishable among many."""
    rng = np.random.default_rng(3)
    gap = rng.standard_normal(8)
    gap = 0.1 * (gap - gap.mean()) / gap.std(ddof=1) + 0.1  # t = 2.8, p = .026
    base = rng.standard_normal(8)
    pair = [rows_of(base, sampler="a"), rows_of(base + gap, sampler="b")]
    assert ranking(pd.concat(pair), steps=4).pairs["significant"].all()
    many = [rows_of(base + 5 + 9 * rng.standard_normal(8), sampler=f"s{k}") for k in range(4)]
    pairs = ranking(pd.concat([*pair, *many]), steps=4).pairs
    both = (pairs["first"] == "a") & (pairs["second"] == "b")
    assert not pairs.loc[both, "significant"].item()


def test_names_tell_settings_apart():
    rng = np.random.default_rng(0)
    cells = [
        rows_of(rng.random(4), sampler="ddim", eta=0.0, sampler_settings='{"eta": 0}'),
        rows_of(rng.random(4), sampler="ddim", eta=1.0, sampler_settings='{"eta": 1}'),
        rows_of(rng.random(4), sampler="edm", sampler_settings='{"churn": 1}'),
    ]
    assert set(ranking(pd.concat(cells), steps=4).order["name"]) == {"ddim η=0", "ddim η=1", "edm"}
    cells.append(rows_of(rng.random(4), sampler="edm", sampler_settings='{"churn": 2}'))
    names = set(ranking(pd.concat(cells), steps=4).order["name"])
    assert len(names) == 4
    assert "edm churn=2" in names


def test_a_seed_is_no_name():
    """One of two settings may lack the rows of a seed; this does not distinguish them."""
    rng = np.random.default_rng(0)
    cells = [
        rows_of(rng.random(4), sampler="mine", setting_id=identity * 16, seed=0, train_seed=seed)
        for identity, seed in (("a", 0), ("a", 1), ("b", 1))
    ]
    names = set(ranking(pd.concat(cells), steps=4).order["name"])
    assert names == {"mine (setting aaaaaa)", "mine (setting bbbbbb)"}


def test_at_equal_evaluations(table):
    """A second-order method with half the steps competes at the same nfe."""
    halved = rows_of([0.1, 0.2, 0.3], sampler="dpm", steps=2, nfe=4)
    both = pd.concat([table, halved])
    assert len(ranking(both, steps=4).order) == 3
    assert ranking(both, nfe=4).order.iloc[0]["name"] == "dpm"


def test_a_sampler_that_lost_repetitions_has_no_rank(table):
    """It has no rank even if the mean of its other repetitions is the smallest."""
    lost = (table["sampler"] == "heun") & (table["repetition"] > 1)
    table.loc[lost, ["status", "value"]] = ["diverged", math.nan]
    table.loc[table["sampler"] == "heun", "value"] -= 1
    for at in ({"steps": 4}, {"nfe": 4}):
        result = ranking(table, **at)
        assert list(result.order["name"]) == ["ddim", "euler"]
        assert result.apart == {"heun": "6 of 8 diverged"}
        assert result.sentence.startswith("ddim is best, and")
        assert result.sentence.endswith("; not ranked: heun (6 of 8 diverged)")
    table.loc[table["sampler"] == "ddim", ["status", "value"]] = ["diverged", math.nan]
    with pytest.raises(InvalidSetting, match="heun: 6 of 8 diverged"):
        ranking(table, steps=4)


def test_trainings_as_units(table):
    """Eight repetitions of two trainings are two units."""
    twice = pd.concat(
        [table.assign(train_seed=seed, value=table["value"] + seed) for seed in (0, 1)]
    )
    assert (ranking(twice, steps=4, over="train_seed").pairs["count"] == 2).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "steps=None: must be given, or nfe"),
        ({"steps": 4, "nfe": 4}, "steps=4: must be given, or nfe: one of the two"),
        ({"steps": 5}, r"steps=5: .* there are values at \[4\]"),
        ({"steps": 4, "level": 95}, "level=95: must be between"),
        ({"steps": 4, "min_repetitions": 9}, "repetitions=8: must be at least 9"),
    ],
)
def test_bad_settings(table, settings, message):
    with pytest.raises(InvalidSetting, match=message):
        ranking(table, **settings)


@pytest.mark.parametrize("column", ["dataset", "metric", "denoiser", "start", "n_samples"])
def test_what_cannot_be_compared(table, column):
    other = 20 if column == "n_samples" else "other"
    mixed = pd.concat([table, table.assign(**{column: other})])
    with pytest.raises(
        InvalidSetting, match=rf"{column}=.*: must be one of these: select it first"
    ):
        ranking(mixed, steps=4)


def test_one_repetition_ranks_nothing(table):
    with pytest.raises(InvalidSetting, match="repetitions=1: must be at least 2"):
        ranking(table[table["repetition"] == 0], steps=4)


def test_the_sentence_says_how_many_comparisons(table):
    third = table[table["sampler"] == "heun"].assign(sampler="more")
    third["value"] += 0.01 * np.arange(len(third))
    result = ranking(pd.concat([table, third]), steps=4)
    count = len(result.order)
    assert result.sentence.endswith(f"(Holm over {count * (count - 1) // 2} comparisons)")


def test_two_names_of_one_method_are_no_comparison():
    """DDIM(0) and Euler on this path have the same values: no test, and no correction for one."""
    far = rows_of(2 + 0.1 * np.arange(4), sampler="far")
    both = [rows_of(np.ones(4), sampler="ddim"), rows_of(np.ones(4) + 1e-15, sampler="euler")]
    result = ranking(pd.concat([*both, far]), steps=4)
    assert result.sentence == (
        "ddim (and euler, with the same values) is best, and distinguishable from all others "
        "(Holm over 2 comparisons)"
    )
    assert "nothing to compare" in ranking(pd.concat(both), steps=4).sentence


def test_at_equal_evaluations_a_cell_is_whole():
    """The repetitions of an adaptive sampler differ in cost; those that fit are not selected."""
    own = rows_of([5.0, 5.1, 5.2, 5.0], sampler="adaptive").assign(nfe=[61, 55, 55, 57])
    one = rows_of([5.0, 5.0, 5.1, 5.1], sampler="heun", nfe=57)
    other = rows_of([4.0, 4.1, 4.0, 4.1], sampler="late", nfe=55)
    table = pd.concat([own, one, other])
    assert set(ranking(table, nfe=57).order["name"]) == {"adaptive", "heun"}
    with pytest.raises(InvalidSetting, match=r"nfe=55: .*; only late has"):
        ranking(table, nfe=55)
