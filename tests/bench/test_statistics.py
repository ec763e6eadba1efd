"""Intervals over repetitions, differences, corrections, and the smallest detectable difference."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import mostly_slow, rows_of
from samplerbench.bench.cell import CELL
from samplerbench.bench.resolution import excess_found, floor_exponent, resolution
from samplerbench.bench.rounding import plain
from samplerbench.bench.statistics import (
    against_floor,
    at_equal_cost,
    by_floor,
    floor_p_values,
    holm,
    paired_difference,
    rank_tail,
    ranks_suffice,
    select,
    summary,
    t_interval,
    welch,
)
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified


def test_the_interval_is_student_s():
    values = [11.0, 12.0, 14.0, 17.0]
    line = summary(rows_of(values)).iloc[0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (line["lower"], line["upper"]) == pytest.approx((low, high))
    assert line["mean"] == 13.5
    assert line["count"] == 4


def test_the_interval_of_a_distance_ends_at_zero():
    """The end may be below zero if the mean is, as for unbiased estimates."""
    assert summary(rows_of([0.1, 0.3])).iloc[0]["lower"] == 0
    assert summary(rows_of([-0.1, -0.3])).iloc[0]["lower"] < -0.5


def test_one_repetition_has_no_interval():
    line = summary(rows_of([1.0])).iloc[0]
    assert line["mean"] == 1.0
    assert math.isnan(line["lower"])
    assert math.isnan(line["upper"])


def test_samplers_without_eta_are_kept_and_settings_apart():
    table = pd.concat([rows_of([1.0, 2.0]), rows_of([3.0, 4.0], eta=0.5), rows_of([9.0], steps=9)])
    assert len(summary(table)) == 3


def test_rows_that_are_not_ok_do_not_count():
    table = pd.concat([rows_of([1.0, 2.0]), rows_of([math.nan], status="diverged")])
    assert summary(table).iloc[0]["count"] == 2


def test_a_law_without_a_density_has_no_value():
    """One repetition shows it; the others, which have too few points to see it, do not count."""
    table = rows_of([1.0, 2.0, 9.0])
    table.loc[2, ["status", "value"]] = "not a density", math.nan
    assert summary(table).empty
    table.loc[2, "status"] = "diverged"
    assert summary(table)[["mean", "lost"]].to_numpy().tolist() == [[1.5, 1]]


class TestOneSample:
    def test_it_is_scipy_s(self):
        values = [0.3, -0.1, 0.8, 0.4, 0.2]
        ours, theirs = t_interval(values, 0.9), stats.ttest_1samp(values, 0)
        interval = theirs.confidence_interval(0.9)
        assert (ours.lower, ours.upper) == pytest.approx((interval.low, interval.high))
        assert ours.p_value == pytest.approx(theirs.pvalue)
        assert (ours.mean, ours.count, ours.dropped) == (pytest.approx(0.32), 5, 0)
        assert ours.half == pytest.approx((interval.high - interval.low) / 2)

    def test_repetitions_that_all_agree(self):
        """A constant difference is certain (p = 0); if all differences are 0, nothing is tested."""
        ours = t_interval([0.5] * 3)
        assert (ours.lower, ours.upper, ours.p_value) == (0.5, 0.5, 0.0)
        ours = t_interval([0.0] * 3)
        assert (ours.lower, ours.upper) == (0, 0)
        assert math.isnan(ours.p_value)

    @pytest.mark.parametrize(("count", "least"), [(0, 2), (1, 2), (1, 0), (7, 8)])
    def test_too_few(self, count, least):
        with pytest.raises(InvalidSetting, match=rf"repetitions={count}: must be at least [28] "):
            t_interval([1.0] * count, min_repetitions=least)

    def test_level(self):
        for level in (95, 1, 0):
            with pytest.raises(InvalidSetting, match=f"level={level}: must be between 0 and 1"):
                t_interval([1.0, 2.0], level)


class TestPairedDifference:
    first = (1.5, 2.7, 3.1, 2.2)
    second = (1.1, 2.2, 2.9, 1.9)

    def table(self):
        mixed = [rows_of(self.first, sampler="a"), rows_of(self.second, sampler="b", eta=0.5)]
        # the order of rows must not matter
        return pd.concat(mixed, ignore_index=True).sample(frac=1, random_state=1)

    def test_it_is_scipy_s(self):
        ours = paired_difference(self.table(), {"sampler": "a"}, {"sampler": "b"})
        theirs = stats.ttest_rel(self.first, self.second)
        interval = theirs.confidence_interval()
        assert (ours.lower, ours.upper) == pytest.approx((interval.low, interval.high))
        assert ours.p_value == pytest.approx(theirs.pvalue)
        assert (ours.count, ours.dropped) == (4, 0)

    def test_masks_lists_and_nan_select_too(self):
        table = self.table()
        plain = paired_difference(table, {"sampler": "a"}, {"sampler": "b"})
        assert paired_difference(table, table["sampler"] == "a", {"eta": 0.5}) == plain
        assert paired_difference(table, {"eta": math.nan}, {"eta": [0.5, 1.0]}) == plain
        assert len(select(table, {"repetition": [0, 3]})) == 4

    def test_incomplete_pairs_are_dropped_and_counted(self):
        table = self.table()
        table.loc[(table["sampler"] == "a") & (table["repetition"] == 2), "status"] = "diverged"
        table = table[~((table["sampler"] == "b") & (table["repetition"] == 0))]
        ours = paired_difference(table, {"sampler": "a"}, {"sampler": "b"})
        assert ours.mean == pytest.approx((0.5 + 0.3) / 2)
        assert (ours.count, ours.dropped) == (2, 2)

    def test_training_seeds_are_units_of_their_own(self):
        """Two trainings with four repetitions each say nothing of more than two trainings."""
        tables = []
        for train_seed, shift in ((0, 0.0), (1, 0.4)):
            shifted = [value + shift for value in self.first]
            for name, values in (("a", shifted), ("b", self.second)):
                tables.append(rows_of(values, sampler=name, train_seed=train_seed))
        table, a, b = pd.concat(tables, ignore_index=True), {"sampler": "a"}, {"sampler": "b"}
        trainings = paired_difference(table, a, b, over="train_seed")
        by_hand = t_interval([0.35, 0.75])
        assert (trainings.lower, trainings.upper) == pytest.approx((by_hand.lower, by_hand.upper))
        repetitions = paired_difference(table, a, b)
        assert repetitions.count == 4
        assert repetitions.mean == pytest.approx(trainings.mean)
        assert repetitions.half < trainings.half / 5

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [
            ({"sampler": "c"}, {"sampler": "b"}, r"first=\{sampler: c\}: must be a selection with"),
            ({"sampler": "a"}, {"steps": 4}, r"second=\{steps: 4\}: must be one cell: .* sampler"),
            ({"samplr": "a"}, {"sampler": "b"}, "selection=samplr: must be a column"),
        ],
    )
    def test_bad_selections(self, first, second, message):
        with pytest.raises(InvalidSetting, match=message):
            paired_difference(self.table(), first, second)

    def test_rounding_is_no_difference(self):
        """Two forms of one method, one of them always larger in the last bit."""
        values = np.array(self.first)
        mixed = [rows_of(values, sampler="a"), rows_of(np.nextafter(values, 9), sampler="b")]
        ours = paired_difference(pd.concat(mixed), {"sampler": "a"}, {"sampler": "b"})
        assert ours.mean == 0
        assert math.isnan(ours.p_value)

    def test_too_few_pairs(self):
        table = self.table()
        few = table[(table["sampler"] == "a") | (table["repetition"] == 1)]
        with pytest.raises(InvalidSetting, match="repetitions=1: must be at least 2 for a paired"):
            paired_difference(few, {"sampler": "a"}, {"sampler": "b"})
        with pytest.raises(InvalidSetting, match="repetitions=4: must be at least 8"):
            paired_difference(table, {"sampler": "a"}, {"sampler": "b"}, min_repetitions=8)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_welch_is_scipy_s(size):
    first, second = [1.1, 1.9, 1.4, 2.8, 2.2][:size], [1.0, 0.8, 1.3]
    ours, theirs = welch(first, second), stats.ttest_ind(first, second, equal_var=False)
    interval = theirs.confidence_interval()
    assert (ours.lower, ours.upper) == pytest.approx((interval.low, interval.high))
    assert ours.p_value == pytest.approx(theirs.pvalue)
    with pytest.raises(InvalidSetting, match="repetitions=1"):
        welch(first, [1.0])


class TestHolm:
    def test_a_published_example(self):
        """Four p-values of the article "Holm–Bonferroni method" in Wikipedia; .03 stays above .05.

        There, at .05: .005 and .01 are rejected, .03 is compared with .025 and kept, and so is .04.
        """
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_it_never_exceeds_one_nor_falls_below_the_plain_value(self):
        p = np.random.default_rng(0).random(30)
        corrected = holm(p)
        assert (corrected >= p).all()
        assert corrected.max() == 1
        assert holm([0.2]) == [0.2]
        assert len(holm([])) == 0

    def test_what_is_equal_by_construction_is_no_comparison(self):
        corrected = holm([0.01, math.nan, 0.04, math.nan])
        assert list(corrected[[0, 2]]) == pytest.approx([0.02, 0.04])
        assert np.isnan(corrected[[1, 3]]).all()


def wasserstein_to_normal(x):
    """W₂ of samples (…, n) to N(0, 1), in closed form: quantile cells and their mean."""
    n = x.shape[-1]
    density = stats.norm.pdf(stats.norm.ppf(np.linspace(0, 1, n + 1)))
    moment = density[:-1] - density[1:]  # ∫ of the quantile function over a cell
    x = np.sort(x, axis=-1)
    return np.sqrt((x**2).mean(-1) - 2 * x @ moment + 1)


def test_intervals_of_unevenly_weighted_modes_cover():
    """95 % intervals from 8 repetitions contain the mean in 93 to 97 % of 5 000 cells.

    Far modes, whose weights decide: W₂ is d·√|share − w|, the extreme of skewness.
    """
    cells, repetitions = 5000, 8
    rng, k = np.random.default_rng(4), np.arange(2001)
    values = 10 * np.sqrt(abs(rng.binomial(2000, 0.1, cells * repetitions) / 2000 - 0.1))
    truth = 10 * (np.sqrt(abs(k / 2000 - 0.1)) * stats.binom.pmf(k, 2000, 0.1)).sum()
    plain = {**dict.fromkeys(CELL, ""), "nfe": 1, "seconds": 1.0, "status": "ok"}
    steps = np.repeat(np.arange(cells), repetitions)
    lines = summary(pd.DataFrame({**plain, "steps": steps, "value": values}))
    assert len(lines) == cells
    assert 0.93 <= ((lines["lower"] <= truth) & (truth <= lines["upper"])).mean() <= 0.97


def floors_and_cells(n, floor, distances, sd=0.03, repetitions=8, seed=2):
    """A floor of mean n^(−a)-like size and cells whose excess adds in squares, with noise."""
    rng = np.random.default_rng(seed)
    wide = {"n_samples": n, "reference": "data", "n_reference": 5 * n}
    tables = [rows_of(floor * (1 + sd * rng.standard_normal(40)), denoiser="law", steps=0, **wide)]
    for steps, delta in enumerate(distances, 1):
        values = math.hypot(floor, delta) + floor * sd * rng.standard_normal(repetitions)
        tables.append(rows_of(values, denoiser="oracle", sampler="a", steps=steps, **wide))
    return pd.concat(tables, ignore_index=True)


LAWS = {
    "one mode": lambda rng, *shape: wasserstein_to_normal(rng.standard_normal((*shape, 50))),
    "weights": lambda rng, *shape: 10 * np.sqrt(abs(rng.binomial(2000, 0.1, shape) / 2000 - 0.1)),
    "heavy tails": lambda rng, *shape: np.exp(0.4 * rng.standard_normal(shape)),
    # mean and sd of the main job's floor
    "main job": lambda rng, *shape: 1.42 * np.exp(0.18 * rng.standard_normal(shape)),
}
"""Laws of distances of perfect samples; all are skewed."""


def told(law, count, floor_count, cells, tables, excess=0.0, seed=0):
    """Which of many cells are distinguishable from their floor, shape (tables, cells).

    Cells are independent, the worst case for a correction. An excess is in units of the floor.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(tables):
        floor = LAWS[law](rng, floor_count)
        values = LAWS[law](rng, cells, count) + excess * floor.mean()
        found.append(holm(floor_p_values([(own, floor) for own in values])) <= 0.05)
    return np.array(found)


class TestAgainstFloor:
    @pytest.mark.parametrize(("count", "floor_count"), [(1, 1), (2, 3), (3, 40), (8, 40), (40, 9)])
    def test_ranks_are_scipy_s(self, count, floor_count):
        rng = np.random.default_rng(count)
        for shift in (0.0, 0.7, 9.0):
            a, b = rng.standard_normal(count) + shift, rng.standard_normal(floor_count)
            theirs = stats.mannwhitneyu(a, b, alternative="greater", method="exact")
            above = int((a[:, None] > b).sum())
            assert rank_tail(count, floor_count)[above] == pytest.approx(theirs.pvalue, rel=1e-12)

    def test_all_above_all_is_enough(self):
        """Three repetitions above forty draws: 2/C(43, 3) = 1.6e-4, and 144 times that is .023."""
        floor = np.arange(40.0)
        pair = (np.array([41.0, 50.0, 90.0]), floor)
        p = floor_p_values([pair] * 144)
        assert p == pytest.approx([2 / 12_341] * 144)
        assert holm(p).max() == pytest.approx(144 * 2 / 12_341)
        ties = floor_p_values([(np.full(3, 39.0), floor)])  # equal to the largest: not above it
        assert ties == pytest.approx(floor_p_values([(np.full(3, 38.5), floor)]))

    def test_where_ranks_are_too_few_it_is_student_s(self):
        """Student's test on logarithms, of one variance; ranks if a distance is not positive."""
        values, floor = np.array([2.1, 2.0]), np.array([1.0, 1.1, 0.9, 1.2])
        theirs = stats.ttest_ind(np.log(values), np.log(floor))
        assert floor_p_values([(values, floor)] * 9) == pytest.approx([theirs.pvalue] * 9)
        below = floor_p_values([(1 / values, 1 / floor)] * 9)
        assert below == pytest.approx([theirs.pvalue] * 9)
        assert floor_p_values([(values - 2, floor - 2)] * 9) == pytest.approx([2 / 15] * 9)
        same = np.ones(2)
        assert list(floor_p_values([(same, same), (2 * same, same)])) == [1, 0]

    def test_size_and_power_at_the_main_job_s_setting(self):
        """144 cells, 3 repetitions, 40 draws: a cell one floor above the floor is detected."""
        wrong = told("main job", 3, 40, 144, 100).any(1).mean()
        assert wrong <= 0.05 + 2.6 * (0.05 * 0.95 / 100) ** 0.5
        assert told("main job", 3, 40, 144, 20, excess=1.0).mean() > 0.97

    @pytest.mark.slow
    @pytest.mark.parametrize("law", LAWS)
    @pytest.mark.parametrize(
        ("count", "floor_count", "cells", "most"),
        [
            (3, 40, 144, 0.05),
            (8, 40, 48, 0.05),
            (3, 8, 2, 0.05),
            # too few ranks: Student's of logarithms, which are nearly normal only
            (2, 40, 144, 0.065),
            (3, 8, 32, 0.065),
            (2, 4, 32, 0.065),
        ],
    )
    def test_the_size_of_every_setting(self, law, count, floor_count, cells, most):
        wrong = told(law, count, floor_count, cells, 2000).any(1).mean()
        assert wrong <= most + 2.6 * (most * (1 - most) / 2000) ** 0.5

    def test_cells_apart_and_not(self):
        table = floors_and_cells(1000, 1.0, [2.0, 1.0, 0.01, 0.0])
        lines = against_floor(table).set_index("steps")
        assert list(lines["significant"]) == [True, True, False, False]
        law = table.loc[table["denoiser"] == "law", "value"]
        values = table.loc[table["steps"] == 3, "value"]
        theirs = stats.mannwhitneyu(values, law, method="exact")
        assert lines.loc[3, "p_value"] == pytest.approx(theirs.pvalue)
        assert list(lines["p_holm"]) == pytest.approx(holm(lines["p_value"]))
        assert (lines["floor"] == law.mean()).all()
        assert list(lines["sd"]) == pytest.approx(
            [table.loc[table["steps"] == steps, "value"].std() for steps in lines.index]
        )

    def test_below_the_floor(self):
        """Stratified starts: distinguishable, with a negative excess."""
        table = floors_and_cells(1000, 1.0, [0.0])
        table.loc[table["denoiser"] != "law", "value"] -= 0.5
        line = against_floor(table).iloc[0]
        assert line["significant"]
        assert line["excess"] < -0.4

    def test_a_start_may_have_a_floor_of_its_own(self):
        table = floors_and_cells(1000, 1.0, [0.0]).assign(start="")
        table.loc[table["denoiser"] != "law", "start"] = "even"
        table.loc[table["denoiser"] != "law", "value"] -= 0.5
        law = table[table["denoiser"] == "law"]
        even, other = (law.assign(start=s, value=law["value"] - 0.5) for s in ("even", "other"))
        assert against_floor(pd.concat([table, other])).iloc[0]["floor"] == law["value"].mean()
        line = against_floor(pd.concat([table, even])).iloc[0]
        assert not line["significant"]
        assert line["floor_count"] == 40

    def test_every_n_has_its_own_floor(self):
        table = pd.concat([floors_and_cells(1000, 1.0, [1.0]), floors_and_cells(9000, 0.5, [1.0])])
        lines = against_floor(table).set_index("n_samples")
        assert lines["floor"].to_dict() == pytest.approx({1000: 1.0, 9000: 0.5}, rel=0.03)

    def test_bad_tables(self):
        table = floors_and_cells(1000, 1.0, [1.0])
        with pytest.raises(InvalidSetting, match=r"floor_repetitions=0: .* no floor at n = 1000"):
            against_floor(table[table["denoiser"] != "law"])
        with pytest.raises(InvalidSetting, match="no cells"):
            against_floor(table[table["denoiser"] == "law"])
        with pytest.raises(InvalidSetting, match=r"repetitions=1: .* a at 1 steps"):
            against_floor(table[(table["denoiser"] == "law") | (table["repetition"] == 0)])
        with pytest.raises(InvalidSetting, match="repetitions=8: must be at least 9"):
            against_floor(table, min_repetitions=9)


class TestResolution:
    @pytest.mark.parametrize(
        ("count", "floor_count", "cells"),
        mostly_slow([(3, 40, 144), (8, 40, 48), (8, 40, 1), (2, 8, 16)], 2),
    )
    def test_the_power_it_says(self, count, floor_count, cells):
        """A cell with that excess is found in 80 % of tables, among others that are not."""
        floor, sd, floor_sd = 1.4, 0.2, 0.26
        excess = excess_found(sd, count, floor, floor_sd, floor_count, cells)
        rng = np.random.default_rng(1)
        found = []
        for _ in range(600):
            draws = floor + floor_sd * rng.standard_normal(floor_count)
            values = floor + excess + sd * rng.standard_normal(count)
            found.append(floor_p_values([(values, draws)] * cells)[0] <= 0.05 / cells)
        # logarithms of what is normal here are not quite normal
        assert np.mean(found) == pytest.approx(0.8, abs=0.1 if (count, cells) == (2, 16) else 0.05)

    def test_nothing_is_found_with_too_few_ranks_and_no_logarithm(self):
        assert excess_found(0.1, 2, -0.1, 0.1, 4, 32) == math.inf
        table = floors_and_cells(1000, 1.0, [0.0] * 4, repetitions=2).groupby("denoiser").head(8)
        table["value"] -= 1.1
        found = resolution(table, 0.5)
        assert found.sentence.endswith(f"floor_repetitions={found.sets_needed} is enough")
        sets, cells = found.sets_needed, found.cells
        assert ranks_suffice(2, sets, cells)
        assert not ranks_suffice(2, sets - 1, cells)

    @pytest.mark.parametrize("a", [0.25, 0.5])
    def test_the_n_it_names_is_enough_and_not_much_more(self, a):
        table = floors_and_cells(1000, 1.0, [0.0] * 4)
        now = resolution(table, 0.1, exponent=a)
        aim = 0.1 * now.floor
        assert now.resolved > aim
        assert not now.estimated
        shrunk = floors_and_cells(now.n_needed, (now.n_needed / 1000) ** -a, [0.0] * 4)
        then = resolution(shrunk, 0.1, exponent=a)
        assert 0.9 * aim < then.resolved <= 1.001 * aim
        assert now.n_needed == pytest.approx(1000 * (now.resolved / aim) ** (1 / a), rel=0.1)

    @pytest.mark.parametrize("wanted", [0.15, 0.2, 0.25, 0.3, 0.35, 0.5])
    def test_its_numbers_are_those_of_the_module_s_formulas(self, wanted):
        table = floors_and_cells(1000, 1.0, [0.0, 0.3, 0.02], repetitions=5)
        found = resolution(table, wanted, level=0.9, power=0.7)
        law = table.loc[table["denoiser"] == "law", "value"]
        cells = table[table["denoiser"] != "law"].groupby("steps")["value"]
        floor, a, b = law.mean(), cells.var().mean(), law.var()
        excess = excess_found(a**0.5, 5, floor, b**0.5, 40, 3, level=0.9, power=0.7)
        resolved, aim = math.sqrt(excess**2 + 2 * floor * excess), wanted * floor
        assert (found.excess, found.resolved) == pytest.approx((excess, resolved))
        assert (found.cells, found.repetitions, found.n_reference) == (3, 5, 5000)
        assert found.floor == pytest.approx(floor)

        def two_digits(count):
            unit = 10 ** max(len(str(int(count))) - 2, 0)
            return math.ceil(count / unit) * unit

        enough = resolved <= aim
        assert found.n_needed == (1000 if enough else two_digits(1000 * (resolved / aim) ** 4))
        # ranks are worth 3/π of as many normal numbers
        width = (stats.norm.ppf(1 - 0.1 / 6) + stats.norm.ppf(0.7)) * (math.pi / 3) ** 0.5
        least = math.hypot(floor, aim) - floor
        fewest = next(r for r in range(6, 9999) if width * (a / r + b / max(r, 40)) ** 0.5 <= least)
        assert found.repetitions_needed == two_digits(fewest)

    def test_the_exponent_is_measured_where_two_n_are_there(self):
        """m = 5n, so (1/n + 1/m) falls like 1/n."""
        floors = {1000: 1.0, 8000: 8**-0.25}
        table = pd.concat([floors_and_cells(n, size, [0.0, 1.0]) for n, size in floors.items()])
        assert floor_exponent(table) == pytest.approx(0.25, abs=0.01)
        found = resolution(table, 0.2)
        assert found.estimated
        assert (found.n_samples, found.cells, found.hidden) == (8000, 2, 1)
        assert "measured" in found.sentence

    def test_the_reference_s_own_size_counts(self):
        """Against the same m points, the floor stops falling: n alone would give a too small."""
        sizes = {1000: (1 / 1000 + 1 / 4000) ** 0.5, 16_000: (1 / 16_000 + 1 / 4000) ** 0.5}
        tables = [floors_and_cells(n, size, [1.0]) for n, size in sizes.items()]
        table = pd.concat(tables).assign(n_reference=4000)
        assert floor_exponent(table) == pytest.approx(0.5, abs=0.02)
        law = table.assign(reference="law", n_reference=0)
        assert floor_exponent(law) < 0.4

    def test_no_exponent_from_one_n_or_a_floor_that_rises(self):
        assert floor_exponent(floors_and_cells(1000, 1.0, [1.0])) is None
        rising = [floors_and_cells(1000, 1.0, [1.0]), floors_and_cells(2000, 1.1, [1.0])]
        assert floor_exponent(pd.concat(rising)) is None

    def test_a_cell_that_nearly_diverged_says_nothing_about_cells_near_the_floor(self):
        table = floors_and_cells(2000, 1.0, [0.0, 0.5, 0.5])
        wild = table["steps"] == 3
        scaled = table.assign(value=table["value"].where(~wild, 1e8 * table["value"] ** 9))
        found, usual = resolution(scaled, 0.2), resolution(table, 0.2)
        assert found.excess == pytest.approx(usual.excess, rel=0.1)

    def test_the_sentence(self):
        found = resolution(floors_and_cells(2000, 1.0, [0.0, 0.01, 2.0]), 0.2)
        text = found.sentence
        assert text.startswith(
            "2 of 3 cells are not distinguishable from data at n = 2,000 with 8 repetitions; an "
            f"excess of {plain(found.excess, 2)} over the floor of {plain(found.floor)} would be "
            f"found with 80 % chance, that is, a law at distance {found.resolved:.2g}; "
            "wanted=0.2 of the floor, 0.20"
        )
        assert f"n = {found.n_needed:,}" in text
        assert f" or {found.repetitions_needed} repetitions (the floor falls like n^-0.25" in text
        enough = resolution(floors_and_cells(2000, 1.0, [0.0]), 1.0)
        assert enough.sentence.endswith("wanted=1 of the floor, 1.0, would be found")
        assert enough.n_needed == 2000
        hopeless = resolution(floors_and_cells(2000, 1.0, [0.0]), 0.01)
        assert hopeless.repetitions_needed is None
        assert hopeless.sentence.endswith(
            "n would be enough; use paired distances (experiment=budget) or metric=kl_law"
        )
        assert "n = 2,000 with" in hopeless.sentence
        assert hopeless.sentence.count("n = ") == 1
        # 4 000 data points are all that there are, and as many sets for the floor as it has
        table = floors_and_cells(2000, 1.0, [0.0, 0.01]).assign(n_reference=4000)
        free = resolution(table, 0.2)
        assert free.n_needed > 2000
        assert "data points)" in free.sentence
        held = resolution(table, 0.2, most_reference=4000, most_floors=free.repetitions_needed - 1)
        assert held.sentence.endswith("would be enough; use paired distances (experiment=budget)")

    @pytest.mark.parametrize("unit", [1e-6, 1e6])
    def test_the_unit_of_the_data_changes_no_claim(self, unit):
        table = floors_and_cells(2000, 1.0, [0.0, 0.5, 2.0])
        plain, scaled = (
            resolution(table, 0.5),
            resolution(table.assign(value=unit * table.value), 0.5),
        )
        assert scaled.excess == pytest.approx(unit * plain.excess)
        assert (scaled.hidden, scaled.n_needed) == (plain.hidden, plain.n_needed)
        assert scaled.repetitions_needed == plain.repetitions_needed

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"wanted": 0.0}, "wanted=0.0: must be positive"),
            ({"wanted": 0.1, "power": 1.0}, "power=1.0: must be between 0 and 1"),
            ({"wanted": 0.1, "exponent": 0.0}, "exponent=0.0: must be positive"),
            ({"wanted": 0.1, "level": 1.5}, "level=1.5: must be between 0 and 1"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(InvalidSetting, match=message):
            resolution(floors_and_cells(1000, 1.0, [1.0]), **settings)

    @pytest.mark.parametrize("shift", [0.0, -2.0])
    def test_where_squares_do_not_add(self, shift):
        """Any floor, also a negative one: the detected excess does not depend on its size."""
        table = floors_and_cells(1000, 1.0, [0.0, 2.0])
        plain = resolution(table, 0.1).excess
        table["value"] += shift
        found = resolution(table, 0.1, exponent=0.5, squares_add=False)
        assert found.excess == pytest.approx(plain)
        assert found.sentence.startswith(
            "1 of 2 cells is not distinguishable from data at n = 1,000"
        )
        assert found.sentence.endswith("would be found with 80 % chance")

    def test_a_negative_floor_is_no_domain_error(self):
        table = floors_and_cells(1000, 1.0, [0.0])
        table["value"] -= 1.01
        assert not resolution(table, 0.1).squares_add

    def test_floors_are_not_averaged(self):
        table = floors_and_cells(1000, 1.0, [0.0]).assign(start="")
        table.loc[table["denoiser"] != "law", "start"] = "prior"
        even = floors_and_cells(1000, 0.2, [0.0]).assign(start="even")
        cut = list(by_floor(pd.concat([table, even], ignore_index=True)))
        assert sorted(starts for starts, _ in cut) == [["even"], ["prior"]]
        floors = {starts[0]: resolution(rows, 0.1).floor for starts, rows in cut}
        assert floors == pytest.approx({"prior": 1.0, "even": 0.2}, rel=0.05)
        assert [starts for starts, _ in by_floor(table)] == [["prior"]]

    def test_mixed_tables_are_refused(self):
        table = floors_and_cells(1000, 1.0, [1.0])
        mixed = pd.concat([table, table.assign(metric="another")])
        with pytest.raises(InvalidSetting, match=r"metric=.*: must be one of these: select"):
            resolution(mixed, 0.1)


@pytest.mark.slow
def test_the_floor_of_d1_falls_as_the_module_says():
    """Floors of D1 against five times as many points, n = 250 and 4 000: a = 1/4, not 1/2."""
    law = grid_mixture()
    tables = []
    for n in (250, 4000):
        metric = MaxSlicedCertified(relative_tolerance=1e-2)
        distances = [  # a fresh reference for each: its weights are off as well
            metric.against(law.draws(5 * n, "evaluation", r), seed=0)(
                law.draws(n, "floor", 0, r)
            ).value
            for r in range(30)
        ]
        shared = {"n_samples": n, "reference": "data", "n_reference": 5 * n, "denoiser": "law"}
        tables.append(rows_of(distances, **shared))
    assert floor_exponent(pd.concat(tables)) == pytest.approx(0.25, abs=0.05)


def costing(nfe, steps, sampler, **cell):
    """Two repetitions of a cell that took so many evaluations each."""
    return rows_of([1.0, 2.0], sampler=sampler, steps=steps, **cell).assign(nfe=nfe)


def test_within_a_bound_stands_the_longest_run_that_took_no_more():
    table = pd.concat(
        [
            rows_of([0.5], denoiser="law", steps=0, nfe=0),
            *(costing(nfe, nfe, "ddim") for nfe in (8, 16)),
            *(costing(2 * steps - 1, steps, "heun") for steps in (4, 8)),
            costing(5, 2, "rk4"),
        ]
    )
    found, beyond = at_equal_cost(table, [8, 16])
    law = found["denoiser"] == "law"
    assert list(found.loc[law, "steps"]) == [0]
    taken = found[~law].groupby(["sampler", "steps"])["nfe"].agg(list).to_dict()
    assert taken == {
        ("ddim", 8): [8, 8],
        ("ddim", 16): [16, 16],
        ("heun", 8): [7, 7],
        ("heun", 16): [15, 15],
        ("rk4", 8): [5, 5],
        ("rk4", 16): [5, 5],  # at both
    }
    assert beyond.empty


def test_a_run_without_a_value_is_not_replaced_by_a_shorter_one():
    lost = costing(7, 4, "heun").assign(status="not a density", value=math.nan)
    table = pd.concat([costing(3, 2, "heun"), lost, costing(15, 8, "heun")])
    found, _ = at_equal_cost(table, [4, 8, 16])
    assert found.groupby("steps")["nfe"].agg(list).to_dict() == {4: [3, 3], 16: [15, 15]}
    half = costing(7, 4, "heun").assign(status=["ok", "diverged"])
    found, _ = at_equal_cost(pd.concat([costing(3, 2, "heun"), half]), [8])
    assert found.groupby("status")["nfe"].agg(list).to_dict() == {"ok": [7], "diverged": [7]}


def test_nothing_above_a_bound_is_within_it():
    """The counted evaluations of an adaptive sampler determine its bound, if it has one."""
    table = pd.concat(
        [costing([80, 91], 11, "a"), costing([130, 140], 22, "a"), costing(64, 64, "b")]
    )
    found, beyond = at_equal_cost(table, [64, 100])
    assert set(zip(found["sampler"], found["steps"], found["nfe"], strict=True)) == {
        ("a", 100, 80),
        ("a", 100, 91),
        ("b", 64, 64),
        ("b", 100, 64),
    }
    assert list(beyond["nfe"]) == [135]
    assert list(at_equal_cost(table, [64])[1]["nfe"]) == [86, 135]


def test_cells_that_differ_in_anything_are_not_pooled():
    """Two laws, paths or seeds under the same names are two cells."""
    one, other = (
        rows_of([1.0, 1.2], setting_id="a", seed=0),
        rows_of([3.0, 3.2], setting_id="b", seed=0),
    )
    lines = summary(pd.concat([one, other, one.assign(seed=1)]))
    assert sorted(lines["mean"]) == pytest.approx([1.1, 1.1, 3.1])
    assert set(lines["count"]) == {2}
    with pytest.raises(InvalidSetting, match="one cell: these rows differ in setting_id"):
        paired_difference(pd.concat([one, other.assign(seed=1)]), {"steps": 4}, {"steps": 4})


def test_values_that_two_tables_share_count_once():
    """For example the floor of two grids, or a notebook's cell that runs twice."""
    table = pd.concat([rows_of([1.0, 1.2], denoiser="law", steps=0), rows_of([5.0, 5.2])])
    table["cell_id"] = list("abcd")
    for of in (summary, against_floor):
        pd.testing.assert_frame_equal(of(pd.concat([table, table])), of(table))


@pytest.mark.parametrize("seed", ["data_seed", "metric_seed"])
def test_a_cell_has_the_floor_of_its_own_seed(seed):
    """Other points, or other directions: the floors differ."""
    tables = [
        pd.concat(
            [rows_of([1.0 + s, 1.1 + s], denoiser="law", steps=0), rows_of([5.0 + s, 5.1 + s])]
        )
        for s in (0, 10)
    ]
    found = against_floor(pd.concat([t.assign(**{seed: s}) for s, t in enumerate(tables)]))
    assert sorted(found["floor"]) == pytest.approx([1.05, 11.05])
    assert found["excess"].tolist() == pytest.approx([4.0, 4.0])
    assert set(found["floor_count"]) == {2}


def test_one_evaluation_too_many_is_too_many():
    table = pd.concat([costing(8, 8, "ddim"), costing(9, 5, "heun")])
    assert set(at_equal_cost(table, [8])[0]["sampler"]) == {"ddim"}
