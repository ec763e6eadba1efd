"""Runtimes, shares and ratios of a suite: by hand, for planted samplers, and by simulation."""

import math

import numpy as np
import pandas as pd
import pytest

from samplerbench.bench.suite.standing import (
    PEERS,
    UNSOLVED,
    interval,
    ratio,
    ratios,
    runtimes,
    shares,
    standing,
)
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.azula import Azula
from samplerbench.samplers.diffusers import Diffusers
from samplerbench.samplers.k_diffusion import KDiffusion

TARGETS = {"paired": (0.1, 0.01), "kl_law": (0.1,)}


def curve(entrant, errors, *, law="rings", quantity="paired", grid="own", order=2.0):
    """Rows of one entrant on one task: errors by number of evaluations, or their status."""
    about = {"package": "samplerbench", "version": "1", "sampler": entrant, "order": order}
    task = {"law": law, "path": "edm", "denoiser": "oracle", "quantity": quantity}
    shared = {**task, **about, "sampler_settings": "{}", "noise": False, "grid": grid}
    rows = []
    for nfe, error in errors.items():
        status = error if isinstance(error, str) else "ok"
        value = math.nan if isinstance(error, str) else error
        place = {"entrant": entrant, "nfe": nfe, "steps": nfe}
        rows.append(shared | place | {"value": value, "status": status})
    return pd.DataFrame(rows)


def runtime_of(*curves, targets=TARGETS):
    table = runtimes(pd.concat(curves, ignore_index=True), targets)
    return table.set_index(["entrant", "quantity", "target"])["runtime"]


@pytest.mark.parametrize(
    ("errors", "coarse", "fine"),
    [
        ({4: 0.5, 8: 0.05, 16: 0.005}, 8, 16),
        # the error rises again: only the last stretch below the target counts
        ({4: 0.05, 8: 0.5, 16: 0.05, 32: 0.05}, 16, math.inf),
        ({4: 0.1, 8: 0.1, 16: 0.01}, 4, 16),  # at the target is enough
        ({4: 0.001, 8: "diverged", 16: 0.001}, 16, 16),
        ({4: 0.001, 8: 0.001, 16: "failed"}, math.inf, math.inf),
        ({4: 0.001, 8: 0.001, 16: "not a density"}, math.inf, math.inf),
        ({4: "incompatible", 8: 0.001}, 8, 8),
        ({4: 0.001, 8: "incompatible"}, math.inf, math.inf),  # it cannot leave one out
        ({4: 0.001, 8: math.nan}, math.inf, math.inf),
        ({100: 0.5, 200: 0.001}, math.inf, math.inf),  # beyond the budget
        ({100: 0.001, 200: 0.5}, math.inf, math.inf),
    ],
)
def test_runtime_by_hand(errors, coarse, fine):
    found = runtime_of(curve("a", errors))
    assert found["a", "paired", 0.1] == coarse
    assert found["a", "paired", 0.01] == fine


def test_the_order_of_rows_does_not_matter():
    rows = curve("a", {4: 0.05, 8: 0.5, 16: 0.05, 32: 0.002})
    for seed in range(3):
        table = runtimes(rows.sample(frac=1, random_state=seed), TARGETS)
        assert list(table["runtime"]) == [16, 32]


def test_a_run_that_failed_before_its_count_stands_at_its_place():
    rows = curve("a", {4: 0.05, 8: 0.05, 16: "failed", 32: 0.05})
    rows.loc[rows["status"] == "failed", "nfe"] = 0
    assert runtime_of(rows)["a", "paired", 0.1] == 32
    rows = curve("a", {4: "failed", 8: 0.05})
    rows.loc[rows["status"] == "failed", "nfe"] = 0
    assert runtime_of(rows)["a", "paired", 0.1] == 8


def test_equal_numbers_of_evaluations_count_with_the_larger_error():
    rows = curve("a", {4: 0.05, 8: 0.05}).assign(nfe=8)
    rows.loc[0, "value"] = 0.5
    assert runtime_of(rows)["a", "paired", 0.1] == math.inf


def test_what_a_sampler_leaves_out_is_unsolved():
    """A sampler that declares that it cannot run on the second task has solved half of them."""
    rows = pd.concat(
        [
            *(curve(name, {4: 0.005}) for name in "ab"),
            curve("a", {4: 0.05}, quantity="kl_law"),
            curve("b", {4: "incompatible"}, quantity="kl_law").assign(nfe=0),
        ]
    )
    found = runtimes(rows, {"paired": (0.01,), "kl_law": (0.1,)})
    table = shares(found, at=[4]).set_index("entrant")
    assert table["problems"].tolist() == [2, 2]
    assert table["share"].tolist() == [1.0, 0.5]
    # over tasks, of log₂: a has 2 and 2, and b has 2 and 8
    assert ratio(found, "b", "a").value == pytest.approx(2 ** ((0 + 6) / 2))


def test_a_problem_that_another_package_cannot_run_does_not_count():
    cannot = curve("b", {4: "incompatible", 8: "incompatible"}, quantity="kl_law")
    cannot["package"] = "diffusers"
    assert {*PEERS} == {peer.package for peer in (Azula, Diffusers, KDiffusion)}
    found = runtimes(pd.concat([curve("a", {4: 0.05}), curve("b", {4: 0.05}), cannot]), TARGETS)
    assert len(found) == 4
    assert set(found["quantity"]) == {"paired"}
    table = shares(found, at=[4]).set_index("entrant")
    assert table["problems"].tolist() == [2, 2]
    with pytest.raises(InvalidSetting, match="must be some that count"):
        runtimes(cannot, TARGETS)


def test_bad_results_are_refused_in_one_line():
    rows = curve("a", {4: 0.05})
    with pytest.raises(InvalidSetting, match="results=no column nfe"):
        runtimes(rows.drop(columns="nfe"), TARGETS)
    with pytest.raises(InvalidSetting, match="quantity=paired: must be one with targets"):
        runtimes(rows, {"kl_law": (1.0,)})
    found = runtimes(rows, TARGETS)
    with pytest.raises(InvalidSetting, match="entrant=b: must be an entrant with results"):
        ratio(found, "a", "b")
    with pytest.raises(InvalidSetting, match="grid=common: must be one of own"):
        ratio(found, "a", "a", "common")


@pytest.mark.parametrize(("order", "constant"), [(1, 0.413), (2, 3.17), (3, 41.3)])
def test_a_planted_sampler_lands_where_its_order_says(order, constant):
    """error(n) = C·n^−p: the runtime is (C/target)^(1/p), rounded up to the next run."""
    counts = np.unique(np.geomspace(4, 128, 40).astype(int))
    targets = (0.3, 0.1, 0.03, 0.01, 0.003)
    rows = curve("a", {int(n): constant * float(n) ** -order for n in counts})
    found = runtime_of(rows, targets={"paired": targets})
    for target in targets:
        exact = (constant / target) ** (1 / order)
        above = counts[counts >= exact]
        assert found["a", "paired", target] == (above[0] if len(above) else math.inf)
    assert len(set(found)) >= 3


def test_shares_are_the_empirical_distribution_function():
    found = runtimes(
        pd.concat(
            [
                curve("a", {4: 0.5, 8: 0.05, 16: 0.005}),
                curve("a", {4: 0.5, 8: 0.5, 32: 0.05}, law="moons"),
                curve("b", {4: 0.5, 8: "diverged"}, order=math.nan),
            ]
        ),
        TARGETS,
    )
    table = shares(found)
    a = table[table["entrant"] == "a"]
    assert a[["nfe", "share", "problems"]].to_numpy().tolist() == [
        [8, 0.25, 4],
        [16, 0.5, 4],
        [32, 0.75, 4],
    ]
    assert table.loc[table["entrant"] == "b", "share"].tolist() == [0, 0, 0]
    by_law = shares(found, by=["law"], at=[10]).set_index(["law", "entrant"])["share"]
    assert by_law.to_dict() == {("rings", "a"): 0.5, ("moons", "a"): 0, ("rings", "b"): 0}
    by_order = shares(found, by=["order"], at=[16])
    assert by_order["order"].isna().tolist() == [False, True]


def test_ratio_by_hand():
    """Two tasks: ratios 2 and 4 of one problem each, and of one that b alone does not solve."""
    found = runtimes(
        pd.concat(
            [
                curve("a", {4: 0.5, 8: 0.05}),
                curve("b", {4: 0.05, 8: 0.05}),
                curve("a", {4: 0.5, 16: 0.05, 32: 0.005}, law="moons"),
                curve("b", {4: 0.05, 16: 0.05}, law="moons"),
            ]
        ),
        TARGETS,
    )
    # rings: 8/4, and 0.01 by neither; moons: 16/4 and 32/UNSOLVED
    expected = math.sqrt(2 * math.sqrt(4 * 32 / UNSOLVED))
    found_ratio = ratio(found, "a", "b")
    assert found_ratio.value == pytest.approx(expected)
    assert (found_ratio.tasks, found_ratio.problems) == (2, 3)
    # two tasks: half of the draws are one of them twice
    assert (found_ratio.lower, found_ratio.upper) == (0, math.inf)
    assert ratio(found, "b", "a").value == pytest.approx(1 / expected)


def test_the_ratio_to_itself_is_one_and_of_one_task_unknown():
    rows = [curve("a", {4: 0.5, 8: 0.05}, law=law) for law in "xyz"]
    found = runtimes(pd.concat(rows), TARGETS)
    same = ratio(found, "a", "a")
    assert (same.value, same.lower, same.upper) == (1, 1, 1)
    alone = ratio(found[found["law"] == "x"], "a", "a")
    assert (alone.value, alone.lower, alone.upper) == (1, 0, math.inf)
    never = ratio(found[found["target"] == 0.01], "a", "a")
    assert math.isnan(never.value)
    assert never.problems == 0


def planted(entrants, laws=24, *, seed=0, quantities=("paired", "kl_law")):
    """Error curves C·n^−p on many tasks, with another constant on each."""
    rng = np.random.default_rng(seed)
    rows = []
    for law in range(laws):
        for quantity in quantities:
            hard = math.exp(rng.standard_normal())
            for name, (order, constant) in entrants.items():
                own = hard * constant * math.exp(0.3 * rng.standard_normal())
                errors = {n: own * n**-order for n in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)}
                rows.append(curve(name, errors, law=str(law), quantity=quantity, order=order))
    return pd.concat(rows, ignore_index=True)


TEN = {"paired": (0.3, 0.1, 0.03, 0.01), "kl_law": (0.3, 0.1, 0.03, 0.01)}


def test_a_planted_factor_is_the_ratio():
    """With order 1 and constants 2 and 1 the ratio of runtimes is 2, up to whole numbers.

    The factors exp(0.1·ε) spread it by 0.14/√24 around that.
    """
    rng = np.random.default_rng(0)
    rows = []
    for law in range(24):
        for name, constant in (("a", 2), ("b", 1)):
            own = constant * math.exp(0.1 * rng.standard_normal())
            rows.append(curve(name, {n: own / n for n in range(1, 129)}, law=str(law)))
    found = runtimes(pd.concat(rows), {"paired": (0.1, 0.05)})
    one, other = ratio(found, "a", "b"), ratio(found, "b", "a")
    assert 1.8 < one.value < 2.2
    assert one.lower < one.value < one.upper
    assert one.distinct
    assert (other.value, other.lower, other.upper) == pytest.approx(
        (1 / one.value, 1 / one.upper, 1 / one.lower), rel=0.01
    )


def test_standing_orders_entrants_and_shows_ties():
    rows = planted({"slow": (1.0, 1.0), "fast": (2.0, 3.0), "twin": (2.0, 3.0)})
    found = runtimes(rows, TEN)
    table = standing(found)
    assert table["entrant"].tolist()[2] == "slow"
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["tied"].tolist() == [False, True, False]
    assert (table["lower"] < table["log2_runtime"]).all()
    assert (table["log2_runtime"] < table["upper"]).all()
    assert np.prod(table["to_field"]) == pytest.approx(1)
    at = shares(found, at=[8, 128]).set_index(["entrant", "nfe"])["share"]
    for line in table.itertuples():
        assert line.problems == 24 * 2 * 4
        assert (line.solved_8, line.solved_128) == (at[line.entrant, 8], at[line.entrant, 128])
        own = found[found["entrant"] == line.entrant]
        logs = np.log2(own["runtime"].clip(upper=UNSOLVED))
        assert line.log2_runtime == pytest.approx(logs.mean())


def easy_and_hard(easy):
    """Two entrants on some easy tasks, and one of them on nine hard ones too."""
    good, poor = {4: 0.05, 8: 0.005}, {4: 0.5, 8: 0.05, 16: 0.005}
    hard = {4: 0.5, 64: 0.05, 128: 0.005}
    rows = [curve("good", good, law=f"easy {i}") for i in range(easy)]
    rows += [curve("poor", poor, law=f"easy {i}") for i in range(easy)]
    rows += [curve("good", hard, law=f"hard {i}") for i in range(9)]
    return standing(runtimes(pd.concat(rows), TARGETS)).set_index("entrant")


def test_an_entrant_of_easy_problems_only_is_not_ranked_above_a_better_one():
    """The easy tasks are solved with fewer evaluations by every entrant."""
    table = easy_and_hard(9)
    assert table.loc["poor", "log2_runtime"] < table.loc["good", "log2_runtime"]
    assert table["rank"].to_dict() == {"good": 1, "poor": 2}
    assert table["problems"].to_dict() == {"good": 36, "poor": 18}


def test_an_entrant_with_less_than_half_of_the_problems_has_no_rank_and_comes_last():
    """It is the best of all on the tasks on which it runs."""
    table = easy_and_hard(8)
    assert table.loc["good", "rank"] == 1
    assert pd.isna(table.loc["poor", "rank"])
    assert not table.loc["poor", "tied"]
    assert table["all_problems"].tolist() == [34, 34]
    few = curve("best", {4: 0.005}, law="0")
    table = standing(runtimes(pd.concat([planted({"a": (1.0, 1.0), "b": (2.0, 9.0)}), few]), TEN))
    assert table["entrant"].tolist()[-1] == "best"
    assert table["to_field"].idxmin() == 2
    assert table["rank"].isna().tolist() == [False, False, True]
    assert table["rank"].tolist()[:2] == [1, 2]


def test_all_ratios_are_those_of_the_pairs():
    rows = planted({"a": (1.0, 1.0), "b": (2.0, 3.0), "c": (3.0, 9.0)}, laws=4)
    rows = rows[~((rows["entrant"] == "c") & (rows["law"] == "1"))]
    found = runtimes(rows, TEN)
    table = ratios(found)
    assert list(zip(table["a"], table["b"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    for line in table.itertuples():
        own = ratio(found, line.a, line.b)
        assert (line.value, line.lower, line.upper) == (own.value, own.lower, own.upper)
        assert (line.tasks, line.problems) == (own.tasks, own.problems)


#: Populations of task means with the expectation zero, mostly skewed, and their draws. The last one
#: is the log₂ ratio of runtimes on powers of two, min(⌊2·X⌋, 5) with X exponential, where
#: P(⌊2·X⌋ ≥ k) is exp(−k/2).
POPULATIONS = {
    "exponential": lambda rng, shape: rng.exponential(1, shape) - 1,
    "turned": lambda rng, shape: 1 - rng.exponential(1, shape),
    "lognormal": lambda rng, shape: np.exp(0.6 * rng.standard_normal(shape)) - math.exp(0.18),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "powers of two": lambda rng, shape: (
        np.minimum(np.floor(2 * rng.exponential(1, shape)), 5)
        - sum(math.exp(-k / 2) for k in range(1, 6))
    ),
}


def coverage(population, count, seeds, repetitions=10_000):
    """How often the interval has the expectation, zero, and three standard errors of this share.

    Tasks have 1 to 8 noisy problems.
    """
    covered = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        tasks = POPULATIONS[population](rng, (repetitions, count))
        problems = rng.integers(1, 9, tasks.shape)
        of_tasks = tasks + 0.5 * rng.standard_normal(tasks.shape) / np.sqrt(problems)
        for some in np.array_split(of_tasks, 10):  # the draws of all would take gigabytes
            lower, upper = interval(some)
            covered += ((lower <= 0) & (upper >= 0)).tolist()
    share = float(np.mean(covered))
    return share, 3 * math.sqrt(share * (1 - share) / len(covered))


def test_the_interval_of_the_ratio_covers():
    share, error = coverage("exponential", 30, 1, 4000)
    assert 0.93 - error <= share <= 0.97 + error


@pytest.mark.slow
@pytest.mark.parametrize("population", [*POPULATIONS])
@pytest.mark.parametrize(("count", "seeds"), [(12, 3), (20, 1), (42, 1), (80, 1)])
def test_the_interval_of_the_ratio_covers_for_all_sizes(population, count, seeds):
    """From 12 tasks on, by the bootstrap alone; three standard errors are .4 to .8 %."""
    share, error = coverage(population, count, seeds)
    assert 0.93 - error <= share <= 0.97 + error, (share, error)


@pytest.mark.slow
@pytest.mark.parametrize("population", [*POPULATIONS])
@pytest.mark.parametrize("count", [5, 6, 7, 8, 9, 11])
def test_the_interval_of_few_tasks_covers_too(population, count):
    """Since it contains Student's; without it these populations have 92 to 96 %."""
    share, error = coverage(population, count, 1)
    assert 0.93 <= share <= 0.97, (share, error)


def test_the_interval_of_few_values_contains_student_s():
    """Its ends by hand: the 97.5 % quantile of Student's law with 5 degrees of freedom is 2.571."""
    wide, skewed = np.array([-4.0, -4, -3, 3, 4, 4]), np.array([0.0, 0, 0.1, 0.2, 1, 3])
    student = 2.5706 * wide.std(ddof=1) / math.sqrt(6)
    assert interval(wide) == pytest.approx(np.array([-student, student]), rel=1e-4)
    lower, upper = interval(skewed)
    student = 2.5706 * skewed.std(ddof=1) / math.sqrt(6)
    assert lower == pytest.approx(skewed.mean() - student, rel=1e-4)
    assert upper > skewed.mean() + 1.2 * student  # the bootstrap's
    twelve = np.tile(wide, 2)
    student = 2.2010 * twelve.std(ddof=1) / math.sqrt(12)
    assert np.ptp(interval(twelve)) < 0.97 * 2 * student


def test_the_interval_of_a_ratio_is_that_of_the_means_of_its_tasks():
    """From results to the ratio: suites of 24 tasks with 1 to 8 targets each."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        rows, means = [], []
        for law in range(24):
            logs = rng.integers(-1, 5, rng.integers(1, 9))
            place = {"law": str(law), "path": "edm", "denoiser": "oracle", "quantity": "paired"}
            means.append(logs.mean())
            for target, log in enumerate(logs):
                for name, runtime in (("a", 4 * 2.0**log), ("b", 4.0)):
                    rows.append(place | {"entrant": name, "runtime": runtime, "target": target})
        table = pd.DataFrame(rows).assign(grid="own").sample(frac=1, random_state=0)
        found = ratio(table, "a", "b")
        # tasks are in the order of their names, and the draws belong to places
        order = sorted(range(24), key=str)
        ends = np.exp2([np.mean(means), *interval(np.array(means)[order])])
        assert [found.value, found.lower, found.upper] == pytest.approx(ends.tolist())


def test_a_few_equal_values_among_others_give_wide_or_infinite_intervals():
    assert interval([0.0, 0.0]).tolist() == [0, 0]
    assert interval(np.full(7, 0.3)).tolist() == pytest.approx([0.3, 0.3])
    lower, upper = interval([0.0, 1.0])
    assert (lower, upper) == (-math.inf, math.inf)
    assert interval(np.zeros((3, 5))).shape == (2, 3)
