"""The printed text of a table: claims that its numbers support, or what is missing for them."""

import io
import json
import math
from itertools import count

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from samplerbench.app.job.console import (
    print_beyond,
    print_budget,
    print_cells,
    print_claims,
    print_failures,
    print_info,
)
from samplerbench.bench.cell import CELL
from samplerbench.bench.statistics import at_equal_cost
from samplerbench.metrics.energy import Energy
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.nearest_training import NearestTraining
from samplerbench.metrics.paired import Paired

IDS = map(str, count())
METRICS = {"w": MaxSlicedCertified(), "energy": Energy(), "nearest": NearestTraining()}


def cell(values, **changes):
    plain = dict.fromkeys(CELL, "") | {"dataset": "d", "metric": "w", "denoiser": "oracle"}
    plain |= {"start": "exact", "sampler": "a", "eta": math.nan, "steps": 4, "n_samples": 10}
    plain |= {"nfe": 4, "seconds": 1.0, "status": "ok", "message": "", "info": ""}
    plain |= {"reference": "data", "n_reference": 50, "metric_settings": ""} | changes
    # as a store's rows, each has a name of its own
    return pd.DataFrame(
        [plain | {"repetition": r, "value": v, "cell_id": next(IDS)} for r, v in enumerate(values)]
    )


def floor(size=1.0, **changes):
    law = {"denoiser": "law", "start": "", "sampler": "", "steps": 0, "nfe": 0}
    values = size + 0.01 * np.random.default_rng(0).standard_normal(8)
    return cell(values, **(law | changes))


def printed(show, *tables, **more):
    out = Console(file=io.StringIO(), width=more.pop("width", 300), markup=False, record=True)
    show(out, pd.concat(tables, ignore_index=True), *more.values())
    return out.export_text()


def claims(*tables, **more):
    return printed(print_claims, *tables, wanted=0.5, metrics=METRICS, **more)


NEAR = [1.0, 1.01, 0.99, 1.02]
FAR = [2.0, 2.02, 2.01, 1.99]


def test_claims_of_a_whole_table():
    text = claims(floor(), cell(NEAR), cell(FAR, sampler="b"))
    assert "a is best, and distinguishable from all others (Holm over 1 comparison)" in text
    assert "w: 1 of 2 cells is not distinguishable from data" in text


def test_nothing_is_ranked_where_a_smaller_value_need_not_be_better():
    tables = [floor(), cell(NEAR), cell(FAR, sampler="b")]
    text = claims(*(table.assign(metric="nearest") for table in tables))
    assert "nearest: no ranking, since a smaller value is not better: see its floor" in text
    assert "best" not in text
    assert "smallest mean" not in text
    assert "nearest: 1 of 2 cells is not distinguishable from data" in text


def test_a_cell_with_one_value_costs_only_itself():
    lost = cell(FAR, sampler="c")
    lost.loc[1:, "status"] = "diverged"
    text = claims(floor(), cell(NEAR), cell(FAR, sampler="b"), lost)
    assert "exact start, oracle score, c, N=4: left out, because only one" in text
    assert "a is best" in text
    assert "1 of 2 cells" in text


def test_samplers_that_lost_repetitions_are_neither_ranked_nor_judged():
    one, other = cell(NEAR), cell(FAR, sampler="b")
    one.loc[:1, "status"] = "diverged"
    other.loc[2:, "status"] = "diverged"
    text = claims(floor(), one, other)
    assert "must be one at which two samplers have all their values; none has; a: 2 of" in text
    assert "; a: 2 of 4 diverged; b: 2 of 4 diverged\n" in text
    assert "distinguishable from data" not in text
    table = printed(print_cells, floor(), one, other)
    assert table.count("(2 of 4 lost)") == 2
    better = claims(floor(), cell(NEAR, sampler="b"), cell(FAR, sampler="c"), one)
    assert "b is best" in better
    assert "not ranked: a (2 of 4 diverged)" in better
    assert "1 of 2 cells is not" in better
    assert "1 more cell lost repetitions: no verdict" in better


def test_what_is_missing_is_said_once():
    both = [cell([1.0]), cell([0.1], metric="energy")]
    text = claims(floor(), *both)
    assert text.strip() == "one repetition: no interval and no ranking; repetitions=8 gives both"
    assert "no floor: " in claims(cell(NEAR))
    assert claims(floor()) == ""


def test_every_floor_speaks_for_its_own_starts():
    text = claims(floor(), cell(NEAR), floor(0.5, start="even"), cell(NEAR, start="even"))
    assert "w, even start: 0 of 1 cell is not" in text
    assert "w, exact start: 1 of 1 cell is not" in text


def test_an_unbiased_metric_promises_no_distance():
    low = floor(-0.001, metric="energy")
    text = claims(low, cell([-0.02, 0.0, 0.01, -0.01], metric="energy"))
    assert text.endswith("over the floor of 0.00252 would be found with 80 % chance\n")


def test_failures_of_the_whole_table_are_named():
    limit = cell([math.nan], sampler="a limit", status="failed", message="no luck")
    assert "1 failed: a limit: no luck" in printed(print_failures, limit, cell(NEAR))
    assert printed(print_failures, cell(NEAR)) == ""


def test_divergence_is_a_line_a_kind_and_names_the_samplers():
    """Messages of one kind are one line, for all samplers and numbers of samples."""

    def diverged(sampler, count, settings=""):
        message = f"{count} of 50 samples are not finite, or 1e+15 and more"
        changes = {"status": "diverged", "message": message, "sampler_settings": settings}
        return cell([math.nan], sampler=sampler, **changes)

    table = [diverged("ula", 7, '{"step_size": 5}'), diverged("ula", 12, '{"step_size": 5}')]
    table += [diverged("underdamped", 50), cell([math.nan], status="failed", message="no luck")]
    assert printed(print_failures, *table).splitlines() == [
        "3 diverged: ula step_size=5, underdamped: 7–50 of 50 samples are not finite, or 1e+15 and"
        " more",
        "1 failed: a: no luck",
    ]
    many = [diverged(f"s{k}", 50) for k in range(5)]
    assert printed(print_failures, *many).startswith("5 diverged: s0, s1, s2 and 2 more: 50 of 50")


@pytest.mark.slow
def test_what_has_not_mixed_is_not_ranked():
    """The smallest mean is from chains that disagree: it is listed separately, and is not best."""

    def chain(sampler, **values):
        rows = [cell([value], sampler=sampler, metric=name) for name, value in values.items()]
        return pd.concat(rows)

    table = [
        floor(),
        cell(NEAR),
        cell(FAR, sampler="b"),
        cell([3.0, 3.02, 3.01, 2.99], sampler="c"),
    ]
    stuck = chain("a", split_r_hat=12.9)
    assert "a is best" in claims(*table)
    text = claims(*table, unit="N", chains=pd.concat([stuck, chain("b", split_r_hat=1.0)]))
    assert (
        "exact start, oracle score: not ranked, since their chains have not mixed: a (split R̂ 12.9)"
        in text
    )
    assert "b is best, and distinguishable from all others (Holm over 1 comparison)" in text
    assert "w: 1 of 3 cells is not distinguishable from data" in claims(*table)
    assert "w: 0 of 3 cells are not distinguishable from data" in text
    assert "; 1 more has chains that have not mixed: no verdict" in text
    lost = chain("b", split_r_hat=1.0, mass_not_reached=0.91)
    text = claims(*table, unit="N", chains=pd.concat([stuck, lost]))
    assert "a (split R̂ 12.9), b (split R̂ 1.000, 0.910 of the mass not reached)" in text
    assert "best" not in text
    unasked = chain("a", split_r_hat=math.nan).assign(status="incompatible")
    assert "a is best" in claims(*table, unit="N", chains=unasked)
    assert "not mixed" in claims(*table, unit="N", chains=chain("a", split_r_hat=math.nan))


def test_the_words_of_an_even_floor():
    text = printed(print_cells, floor(start="exact_sobol"), cell(NEAR))
    assert "sets of 10 even draws of the law itself (for exact_sobol)" in text


def test_a_paired_distance_is_not_called_one_of_laws():
    text = printed(print_cells, cell(NEAR), unit="N", law=True, metrics={"w": Paired()})
    assert "w on d: root mean square distance to the converged run from the same starts" in text
    assert "law of the output" not in text


def test_at_equal_cost_columns_are_bounds_and_cells_say_what_was_made():
    table = [cell(NEAR, steps=6, nfe=6), cell(FAR, sampler="b", steps=6, nfe=4)]
    text = printed(print_cells, floor(), *table, unit="NFE")
    assert "NFE ≤ 6" in text
    assert "NFE=" not in text
    (own,) = [line for line in text.splitlines() if "  b  " in line]
    assert own.endswith("2.005 ± 0.021 (4)")
    (other,) = [line for line in text.splitlines() if "  a  " in line]
    assert "(" not in other
    assert text.count("(in brackets: the number of evaluations") == 1
    assert "in brackets" not in printed(print_cells, cell(NEAR, steps=6, nfe=6), unit="NFE")
    assert "in brackets" not in printed(print_cells, cell(NEAR, steps=3, nfe=5))


@pytest.mark.slow
def test_a_ranking_at_equal_cost_says_who_made_fewer():
    near, far = cell(NEAR, steps=64, nfe=64), cell(FAR, sampler="heun", steps=64, nfe=63)
    text = claims(floor(), near, far, unit="NFE")
    assert "w, exact start, oracle score, at most 64 evaluations (heun 63): a is best" in text
    text = claims(floor(), near, far.assign(nfe=64), unit="NFE")
    assert "w, exact start, oracle score, NFE=64: a is best" in text


def test_what_took_more_than_any_bound_is_told_apart():
    """It is in no column and has no rank."""
    near, far = cell(NEAR, steps=64, nfe=64), cell(FAR, sampler="adaptive", steps=11, nfe=109)
    _, beyond = at_equal_cost(pd.concat([near, far]), [64])
    out = Console(file=io.StringIO(), width=200, markup=False)
    print_beyond(out, beyond)
    text = out.file.getvalue()
    assert text.startswith("above every bound: w, exact start, oracle score, adaptive, 11 levels: ")
    assert "109 evaluations" in text
    assert text.count("\n") == 1


def test_a_run_at_two_bounds_is_one_cell():
    near = cell(NEAR, steps=6, nfe=5)
    text = claims(floor(), near, near.assign(steps=8), unit="NFE")
    assert "w: 1 of 1 cell is not distinguishable from data" in text


def test_what_else_a_metric_found_is_at_a_bound_too():
    rows = cell(NEAR, steps=6, nfe=4, info='{"share": 0.5}')
    assert "exact, oracle, a, NFE ≤ 6: share 0.5" in printed(print_info, rows, unit="NFE")
    tested = cell(NEAR, steps=6, nfe=4, info='{"chi_square": 99, "p_value": 1e-15}')
    assert printed(print_info, tested) == "", "the verdict is another test"


@pytest.mark.parametrize("width", [60, 120])
def test_no_number_is_cut_off_however_many_columns(width):
    table = [cell(NEAR, steps=steps, nfe=steps - 1) for steps in range(10, 40)]
    text = printed(print_cells, *table, unit="NFE", width=width)
    assert "…" not in text
    assert all(text.count(f"NFE ≤ {steps}") == 1 for steps in range(10, 40))
    assert all(text.count(f"({steps - 1})") == 1 for steps in range(10, 40))
    assert max(map(len, text.splitlines())) <= width


def test_a_long_name_is_folded_and_no_number_is_cut_off():
    long = '{"leapfrog": 2, "particles": 8, "resample_below": 0.5, "step_size": 0.2}'
    table = [cell(NEAR, sampler="ais", sampler_settings=long, nfe=7984, rounds=998)]
    text = printed(print_cells, *table, unit="NFE", width=80)
    assert "1.005 ± 0.021 (7984 in 998)" in text
    words = ["ais", "leapfrog=2", "particles=8", "resample_below=0.5", "step_size=0.2"]
    assert all(text.count(word) == 1 for word in words)


def test_the_floor_says_whose_draws_it_is_of():
    table = [floor(reference="law"), cell(NEAR, reference="law")]
    text = printed(print_cells, *table)
    assert "against the law itself;" in text
    assert "10 fresh draws of the law itself" in text
    text = printed(print_cells, *table, unit="N", known_law=False)
    assert "against the law that the data represent;" in text
    assert "10 fresh draws of the data set itself" in text
    assert "the law itself" not in text


@pytest.mark.parametrize(
    ("settings", "heading"),
    [
        ({"p": 1.0, "directions": 1}, "max_sliced (p=1.0, directions=1) on d"),
        ({"p": 1.0, "directions": 1000}, "max_sliced (p=1.0) on d"),
        ({"p": 2.0, "directions": 1000}, "max_sliced on d"),
    ],
)
def test_a_metric_is_headed_by_what_is_not_its_default(settings, heading):
    text = json.dumps({"class": "samplerbench.metrics.max_sliced.MaxSliced", **settings})
    rows = cell(NEAR, metric="max_sliced", metric_settings=text)
    assert heading in printed(print_cells, rows)


def test_a_metric_of_another_package_is_headed_by_all_its_settings():
    rows = cell(NEAR, metric="mine", metric_settings='{"class": "m.Mine", "p": 3, "of": null}')
    assert "mine (p=3, of=null) on d" in printed(print_cells, rows)


@pytest.mark.parametrize("width", [60, 120])
def test_a_narrow_budget_keeps_what_names_its_lines(width):
    parts = ["floor", "generalisation", "discretisation", "start", "finite data", "optimisation"]
    lines = [
        {"metric": "w", "sampler": "ddim", "sampler_settings": '{"eta": 0.5}', "steps": 100}
        | {"part": part, "kind": kind, "mean": 12.34, "lower": 10.0, "upper": 14.0}
        for kind, some in (("difference", [*parts, "total"]), ("neighbours", parts[2:]))
        for part in some
    ]
    text = printed(print_budget, pd.DataFrame(lines), width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert all(f" {part}" in text for part in parts)
    assert text.count("12.3 ± 1.7") == 11
    assert sum("ddim η=0.5  100" in line for line in text.splitlines()) == text.count("sampler")
    assert "distances between neighbours" in text
    plain = pd.DataFrame(lines).query("kind == 'difference'")
    assert "neighbours" not in printed(print_budget, plain)


def test_an_interval_of_a_distance_ends_at_zero():
    """A difference may be negative; a distance has only an upper end."""
    line = {"metric": "w", "sampler": "a", "sampler_settings": "", "steps": 4}
    line |= {"kind": "difference", "lower": -0.03, "mean": 0.09, "upper": 0.21}
    lines = [line | {"part": "start"}, line | {"part": "total"}]
    text = printed(print_budget, pd.DataFrame(lines))
    assert "0.09 ± 0.12" in text
    assert "0.09 (≤ 0.21)" in text
    assert "(≤ " in printed(print_cells, cell([0.1, 0.01, 0.3]))


def test_rounds_are_printed_where_they_are_not_the_evaluations():
    parallel = cell(NEAR, sampler="picard", nfe=40, rounds=9, steps=20)
    plain = cell(NEAR, sampler="heun", nfe=39, rounds=39, steps=20)
    text = printed(print_cells, parallel, plain, unit="N")
    assert "(40 in 9)" in text
    assert "(39" not in text
    assert "in 5 sequential rounds" in text
    assert "rounds" not in printed(print_cells, plain, unit="N")
