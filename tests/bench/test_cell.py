"""Names of samplers and curves, as people read them in tables and figures."""

import json
import math

import pandas as pd
import pytest

from samplerbench.bench.cell import curve_names, distinct, sampler_name, setting_text


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "s"),
        ({"eta": 0.2}, "s η=0.2"),
        ({"eta": 0.0}, "s η=0"),
        ({"last": True, "first": False, "most": None, "top": math.inf}, "s last=true"),
        ({"kind": "midpoint", "points": [1.0, 0.5]}, "s kind=midpoint points=[1,0.5]"),
        ({"config": None, "settings": {"middle": None, "rho": 3.0}}, "s middle=null rho=3"),
        (
            {"config": None, "settings": {"clip_sample": False, "eta": 0.0}},
            "s clip_sample=false η=0",
        ),
    ],
)
def test_a_sampler_with_its_settings(settings, name):
    assert sampler_name("s", json.dumps(settings) if settings else "") == name


def test_a_number_is_as_short_as_it_stays_itself():
    assert [setting_text(x) for x in (1.0, 0.1, 1e-5, 1 / 3, math.nan)] == [
        "1",
        "0.1",
        "1e-05",
        repr(1 / 3),
        "nan",
    ]


def test_a_value_counts_once_and_is_known_by_its_cell_and_names():
    table = pd.DataFrame(
        [("a", "s", 1), ("a", "s", 1), ("a", "t", 1), ("a", "s", 2), ("b", "s", 1)]
        + 2 * [("", "s", 1)],  # rows of somebody's own have no identity
        columns=["cell_id", "sampler", "steps"],
    )
    assert list(distinct(table).index) == [0, 2, 3, 4, 5, 6]
    assert len(distinct(table.drop(columns="cell_id"))) == 7


def lines(**columns):
    plain = {"sampler": "s", "sampler_settings": "", "metric": "m", "seed": 0}
    count = max(len(of) for of in columns.values())
    return pd.DataFrame({**plain, **columns}, index=range(7, 7 + count))


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"setting_id": ["a", "a"]}, ["s", "s"]),  # two cells of one curve
        ({"setting_id": ["a", "b"], "grid": ["x", "y"]}, ["s (grid=x)", "s (grid=y)"]),
        (
            {"setting_id": ["a", "b"], "grid": ["x", "x"], "n_samples": [1, 2]},
            ["s (n_samples=1)", "s (n_samples=2)"],
        ),
        (
            {"setting_id": list("abc"), "grid": list("xxy"), "seed": [0, 1, 0]},
            ["s (grid=x, seed=0)", "s (grid=x, seed=1)", "s (grid=y, seed=0)"],
        ),
        ({"setting_id": ["012345678", "0123ab678"]}, ["s (setting 012345)", "s (setting 0123ab)"]),
        # curves with another metric or name need no further distinction
        ({"setting_id": ["a", "b"], "metric": ["m", "n"], "grid": ["x", "y"]}, ["s", "s"]),
        ({"setting_id": ["a", "b"], "sampler": ["s", "t"], "grid": ["x", "y"]}, ["s", "t"]),
    ],
)
def test_curves_of_one_name_are_told_apart(columns, names):
    found = curve_names(lines(**columns))
    assert list(found) == names
    assert list(found.index) == list(range(7, 7 + len(names)))
