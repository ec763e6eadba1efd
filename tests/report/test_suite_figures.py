"""The figures of a suite: their curves are the shares and the values, and no failure is absent."""

import numpy as np
import pytest

from samplerbench.bench.suite import standing
from samplerbench.figures.suite import (
    different_tasks,
    suite_shares,
    suite_tasks,
    write_suite_figures,
)


@pytest.fixture(scope="module")
def results(suite):
    return suite()


def curves(axes):
    """The lines of a panel by colour and marker, and its crosses."""
    lines = [line for line in axes.lines if line.get_marker() not in ("x", "None", None)]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    return {(line.get_color(), line.get_marker()): line for line in lines}, crosses


def named(figure, axes):
    """The lines of a panel by their names in the legend."""
    (legend,) = figure.legends
    lines, _ = curves(axes)
    keys = zip(legend.legend_handles, legend.get_texts(), strict=True)
    return {
        text.get_text(): lines[key.get_color(), key.get_marker()]
        for key, text in keys
        if (key.get_color(), key.get_marker()) in lines
    }


def test_a_panel_for_each_grid_has_the_shares_of_the_best(results, suite_targets):
    times = standing.runtimes(results, suite_targets)
    figure = suite_shares(results, suite_targets)
    assert [axes.get_title() for axes in figure.axes] == ["common grid", "own grid"]
    assert "32 to 58 problems each" in figure.get_suptitle()
    table = standing.standing(times[times["grid"] == "own"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(table["entrant"][:12])
    for axes, grid in zip(figure.axes, ("common", "own"), strict=True):
        shares = standing.shares(times[times["grid"] == grid], at=standing.AT)
        for name, line in named(figure, axes).items():
            for row in shares[shares["entrant"] == name].to_dict("records"):
                x, y = line.get_data()
                assert y[np.searchsorted(x, row["nfe"], side="right") - 1] == row["share"]
        _, crosses = curves(axes)
        failing = {"dpmpp_3m", "deis order=3"}
        assert {cross.get_color() for cross in crosses} == {
            named(figure, axes)[name].get_color() for name in failing
        }


def test_one_grid_setting_is_one_panel(results, suite_targets):
    figure = suite_shares(results[results["grid"] == "own"], suite_targets)
    assert [axes.get_title() for axes in figure.axes] == ["own grid"]


def test_a_task_has_its_values_and_failures_below_each_other(results, suite_targets):
    task = ("grid_mixture", "edm", "oracle", "kl_law")
    figure = suite_tasks(results, suite_targets, [task])
    (axes,) = figure.axes
    assert axes.get_title() == "grid_mixture · edm · exact score"
    assert axes.get_ylabel() == "KL divergence, nats"
    here = (results[standing.TASK] == list(task)).all(axis=1) & (results["grid"] == "own")
    own = results[here & (results["entrant"] == "heun")].sort_values("nfe")
    line = named(figure, axes)["heun"]
    assert list(line.get_xdata()) == list(own["nfe"])
    assert list(line.get_ydata()) == list(own["value"])
    _, crosses = curves(axes)
    places = [(cross.get_xdata()[0], cross.get_ydata()[0]) for cross in crosses]
    assert sorted(x for x, _ in places) == [4, 4, 8, 12]
    assert len(set(places)) == 4


@pytest.mark.slow
def test_the_tasks_differ_and_the_files_are_written(results, suite_targets, tmp_path):
    tasks = different_tasks(results)
    assert len(set(tasks)) == 4
    assert {quantity for *_, quantity in tasks} == set(suite_targets)
    paths = write_suite_figures(results, tmp_path / "figures", suite_targets)
    assert [path.name for path in paths] == ["suite_shares.png", "suite_tasks.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
