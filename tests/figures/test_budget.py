"""The waterfall shows all of a budget: parts below zero, diamonds, and their intervals."""

import math

import numpy as np
import pandas as pd
import pytest

from samplerbench.figures.budget import waterfall


def lines(floor, steps, apart, metric="w"):
    plain = {"metric": metric, "sampler": "heun", "sampler_settings": "", "eta": math.nan}
    found = [
        ("floor", "difference", floor),
        ("discretisation", "difference", steps),
        ("total", "difference", floor + steps),
        *([("discretisation", "neighbours", apart)] if apart else []),
    ]
    return [
        plain
        | {"steps": count, "part": part, "kind": kind}
        | {"mean": mean * scale, "lower": mean * scale - 0.1, "upper": mean * scale + 0.1}
        for count, scale in ((4, 1.0), (8, 0.1))
        for part, kind, mean in found
    ]


def test_nothing_is_cut_off():
    """The highest diamond is in the first panel, the deepest bar too; the second is flat."""
    figure = waterfall(pd.DataFrame(lines(0.2, -0.5, 3.0)), "w")
    low, high = figure.axes[0].get_ylim()
    assert low < -0.4
    assert high > 3.1
    ends = [line.get_ydata() for line in figure.axes[0].lines]
    assert any(list(y) == [2.9, 3.1] for y in ends)
    assert waterfall(pd.DataFrame(lines(2.0, 0.5, 3.0)), "w").axes[0].get_ylim()[0] == 0


def test_diamonds_are_explained_where_there_are_some():
    for apart, count in ((1.0, 2), (None, 1)):
        (legend,) = waterfall(pd.DataFrame(lines(0.2, 0.5, apart)), "w").legends
        assert len(legend.get_texts()) == count


def test_a_sampler_without_a_limit_has_no_bars():
    table = pd.DataFrame(lines(0.2, 0.5, None))
    figure = waterfall(table[table["part"] == "total"], "w")
    assert not figure.axes[0].patches
    assert "no budget" in figure.axes[0].texts[0].get_text()


def test_each_end_of_an_interval_is_drawn_where_it_is():
    """By intervals that are longer above than below."""
    table = pd.DataFrame(lines(2.0, 0.5, 3.0))
    table["upper"] = table["mean"] + 0.3
    axes = waterfall(table, "w").axes[0]
    ends = [tuple(line.get_ydata()) for line in axes.lines if len(set(line.get_xdata())) == 1]
    ends = [end for end in ends if len(end) == 2]
    # of the floor, the steps, their diamond and the total
    wanted = [(1.9, 2.3), (2.4, 2.8), (2.9, 3.3), (2.4, 2.8)]
    assert np.array(sorted(ends)) == pytest.approx(np.array(sorted(wanted)))
