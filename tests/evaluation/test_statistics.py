"""Intervals over repetitions."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from samplerbench.evaluation.statistics import CELL, summary


def rows(values, **cell):
    plain = dict.fromkeys(CELL, "") | {"eta": math.nan, "steps": 4, "n_samples": 10}
    shared = plain | {"nfe": 4, "seconds": 1.0, "status": "ok"} | cell
    return pd.DataFrame([shared | {"value": value} for value in values])


def test_the_interval_is_student_s():
    values = [1.0, 2.0, 4.0, 7.0]
    line = summary(rows(values)).iloc[0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (line["lower"], line["upper"]) == pytest.approx((low, high))
    assert line["mean"] == 3.5
    assert line["count"] == 4


def test_one_repetition_has_no_interval():
    line = summary(rows([1.0])).iloc[0]
    assert line["mean"] == 1.0
    assert math.isnan(line["lower"])
    assert math.isnan(line["upper"])


def test_samplers_without_eta_are_kept_and_settings_apart():
    table = pd.concat([rows([1.0, 2.0]), rows([3.0, 4.0], eta=0.5), rows([9.0], steps=9)])
    assert len(summary(table)) == 3


def test_rows_that_are_not_ok_do_not_count():
    table = pd.concat([rows([1.0, 2.0]), rows([math.nan], status="diverged")])
    assert summary(table).iloc[0]["count"] == 2
