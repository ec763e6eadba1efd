"""What is printed of a table: claims that its numbers support, and what is missing for them."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from samplerbench.app.console import (
    print_budget,
    print_cells,
    print_claims,
    print_failures,
)
from samplerbench.evaluation.statistics import CELL
from samplerbench.metrics.energy import Energy
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified

METRICS = {"w": MaxSlicedCertified(), "energy": Energy()}


def cell(values, **changes):
    plain = dict.fromkeys(CELL, "") | {"dataset": "d", "metric": "w", "denoiser": "oracle"}
    plain |= {"start": "exact", "sampler": "a", "eta": math.nan, "steps": 4, "n_samples": 10}
    plain |= {"nfe": 4, "seconds": 1.0, "status": "ok", "message": "", "info": ""}
    plain |= {"reference": "data", "n_reference": 50} | changes
    return pd.DataFrame([plain | {"repetition": r, "value": v} for r, v in enumerate(values)])


def floor(size=1.0, **changes):
    law = {"denoiser": "law", "start": "", "sampler": "", "steps": 0, "nfe": 0}
    values = size + 0.01 * np.random.default_rng(0).standard_normal(8)
    return cell(values, **(law | changes))


def printed(show, *tables, **more):
    out = Console(file=io.StringIO(), width=more.pop("width", 300), record=True)
    show(out, pd.concat(tables, ignore_index=True), *more.values())
    return out.export_text()


def claims(*tables):
    return printed(print_claims, *tables, wanted=0.1, metrics=METRICS)


NEAR = [1.0, 1.01, 0.99, 1.02]
FAR = [2.0, 2.02, 2.01, 1.99]


def test_claims_of_a_whole_table():
    text = claims(floor(), cell(NEAR), cell(FAR, sampler="b"))
    assert "a is best, and can be told from all others (Holm over 1 comparison)" in text
    assert "w: 1 of 2 cells cannot be told from data" in text


def test_a_cell_with_one_value_costs_only_itself():
    lost = cell(FAR, sampler="c")
    lost.loc[1:, "status"] = "diverged"
    text = claims(floor(), cell(NEAR), cell(FAR, sampler="b"), lost)
    assert "exact start, oracle score, c, N=4: one repetition gave a value" in text
    assert "a is best" in text
    assert "1 of 2 cells" in text


def test_samplers_that_share_no_repetition_are_not_ranked():
    one, other = cell(NEAR), cell(FAR, sampler="b")
    one.loc[:1, "status"] = "diverged"
    other.loc[2:, "status"] = "diverged"
    text = claims(floor(), one, other)
    assert "no ranking: repetitions=0: must be at least 2" in text
    assert "1 of 2 cells" in text


def test_what_is_missing_is_said_once():
    both = [cell([1.0]), cell([0.1], metric="energy")]
    text = claims(floor(), *both)
    assert text.strip() == "one repetition: no interval and no ranking; repetitions=8 gives both"
    assert "no floor: " in claims(cell(NEAR))
    assert claims(floor()) == ""


def test_every_floor_speaks_for_its_own_starts():
    text = claims(floor(), cell(NEAR), floor(0.5, start="even"), cell(NEAR, start="even"))
    assert "w, even start: 0 of 1 cell cannot" in text
    assert "w, exact start: 1 of 1 cell cannot" in text


def test_an_unbiased_metric_promises_no_distance():
    low = floor(-0.001, metric="energy")
    text = claims(low, cell([-0.02, 0.0, 0.01, -0.01], metric="energy"))
    assert "an excess over the floor below" in text
    assert "n^-1.00, assumed" in text
    assert "would resolve" not in text


def test_failures_of_the_whole_table_are_named():
    limit = cell([math.nan], sampler="a limit", status="failed", message="no luck")
    assert "1 failed: no luck" in printed(print_failures, limit, cell(NEAR))
    assert printed(print_failures, cell(NEAR)) == ""


def test_the_words_of_an_even_floor():
    text = printed(print_cells, floor(start="exact_sobol"), cell(NEAR))
    assert "sets of 10 even draws of the law itself (for exact_sobol)" in text


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
    assert sum("ddim η=0.5  100" in line for line in text.splitlines()) == 2
    assert "distances between neighbours" in text
    plain = pd.DataFrame(lines).query("kind == 'difference'")
    assert "neighbours" not in printed(print_budget, plain)
