"""One line for each cell, its verdict, and the Pareto front."""

import pandas as pd
import pytest

from samplerbench.bench.statistics import against_floor
from samplerbench.report.cells import ABOVE, BELOW, SAME, cell_lines, curves, pareto
from samplerbench.report.entries import all_values, distances


def lines_of(*entries):
    return cell_lines(distances(all_values(entries)))


def test_mean_interval_and_verdict_are_the_statistics(rows, entry):
    run = entry("#1", rows())
    lines = lines_of(run)
    tests = against_floor(run.values)
    assert len(lines) == len(tests) == 6
    merged = lines.merge(tests, on=["eta", "steps"], suffixes=("", "_own"))
    assert merged["mean"].tolist() == pytest.approx(merged["mean_own"].tolist())
    assert merged["p_holm"].tolist() == pytest.approx(merged["p_holm_own"].tolist())
    assert ((merged["verdict"] != SAME) == merged["told_apart"]).all()


def test_the_three_verdicts(rows, entry):
    assert set(lines_of(entry("#1", rows(shift=3)))["verdict"]) == {ABOVE}
    low = lines_of(entry("#1", rows(etas=[0.0], shift=-0.7, steps=[40, 400])))
    assert set(low["verdict"]) == {BELOW}
    near = lines_of(entry("#1", rows(etas=[0.0], steps=[4000])))
    assert set(near["verdict"]) == {SAME}


def test_a_cell_without_a_verdict_says_why(rows, entry):
    assert set(lines_of(entry("#1", rows(repetitions=1)))["verdict"]) == {
        "one repetition: no interval"
    }
    some = [row for row in rows() if (row.steps, row.eta) != (4, 1.0) or row.repetition == 0]
    verdicts = lines_of(entry("#1", some))["verdict"].value_counts()
    assert verdicts["one repetition: no interval"] == 1
    assert verdicts.sum() == 6
    without = [row for row in rows() if row.denoiser != "law"]
    assert set(lines_of(entry("#1", without))["verdict"]) == {"no floor"}


def test_cells_without_a_value_stay_in_the_table(rows, entry):
    some = [
        vars(row)
        | (
            {"status": "incompatible", "message": "needs signal", "value": float("nan")}
            if row.eta == 1.0 and row.steps == 4
            else {}
        )
        for row in rows()
    ]
    lines = lines_of(entry("#1", rows(), values=pd.DataFrame(some)))
    assert len(lines) == 6
    bad = lines[lines["mean"].isna()]
    assert bad["verdict"].tolist() == ["incompatible: needs signal"]
    assert bad["name"].tolist() == ["ddim η=1"]


def test_runs_keep_their_own_floors(rows, entry):
    lines = lines_of(entry("#1", rows()), entry("#2", rows(seed=1)))
    assert lines.groupby("run")["floor"].nunique().tolist() == [1, 1]
    assert lines["floor"].nunique() == 2


def test_the_front_has_the_lines_that_none_beats():
    points = pd.DataFrame({"nfe": [1, 2, 2, 4, 6, 8], "mean": [5.0, 3.0, 2.5, 2.6, 2.5, 1.0]})
    assert pareto(points, "nfe")["mean"].tolist() == [5.0, 2.5, 1.0]


def test_curves_are_the_nearest_settings(rows, entry):
    lines = lines_of(entry("#1", rows(etas=[0.0, 0.1, 0.2, 5.0])))
    assert set(curves(lines, 3)["eta"]) == {0.0, 0.1, 0.2}
