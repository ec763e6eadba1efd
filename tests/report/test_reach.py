"""From how many evaluations a curve stays at or below a distance, and which cells are asked for."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from scipy import stats

from samplerbench.errors import InvalidSetting
from samplerbench.report.content import gather
from samplerbench.report.tables import markdown

NAN = float("nan")


def least(ends, target):
    """The definition, read word by word."""
    return min(
        (n for n in ends if all(end <= target for m, end in ends.items() if m >= n)),
        default=math.inf,
    )


def test_the_runtime_is_that_of_the_definition(rows, entry):
    """With its interval; not monotone, so that the first number at the target is not the one."""
    steps, heights = [4, 8, 16, 32], [1.5, 3.0, 1.45, 1.2]
    of = dict(zip(steps, heights, strict=True))
    values = [
        replace(row, value=of[row.steps] + 0.1 * row.repetition) if row.steps else row
        for row in rows(etas=[0.0], steps=steps)
    ]
    half = stats.t.ppf(0.975, 3) * pd.Series([0, 0.1, 0.2, 0.3]).std() / 2
    targets = (1.3, 1.4, 1.55, 1.61, 1.9, 1.82)
    found = gather([entry("#1", values)], targets=targets).reached.set_index("target")
    for target in targets:
        means = {n: height + 0.15 for n, height in of.items()}
        lower, upper = ({n: m + sign * half for n, m in means.items()} for sign in (-1, 1))
        line = found.loc[target]
        assert line["evaluations"] == least(means, target) or target == 1.3
        assert (line["earliest"], line["latest"]) == (least(lower, target), least(upper, target))
    assert found["verdict"][1.3] == "not reached within 32 (the lower end of its interval: 32)"
    assert found["verdict"][1.61] == "16 (16 to 32)"
    assert found["verdict"][1.4] == "32 (16 to more than 32)"
    unordered = entry("#1", values, unordered=frozenset({"sliced"}))
    assert gather([unordered], targets=[2.0]).notes[-1].startswith("reach: no cell with a metric")
    floor = gather([entry("#1", values)], targets=[0.9]).reached
    assert floor["verdict"][0].startswith("no verdict: not above the floor of ")


@pytest.mark.slow
def test_a_cell_without_all_values_is_above_every_target(rows, entry):
    run = entry("#1", rows(etas=[0.0], steps=[4, 40, 400]))
    for repetitions, most in ((1, 400), (4, 40)):
        lost = (run.values["steps"] == 400) & (run.values["repetition"] < repetitions)
        bad = run.values.assign(
            status=run.values["status"].mask(lost, "diverged"),
            value=run.values["value"].mask(lost, NAN),
        )
        reached = gather([replace(run, values=bad)], targets=[9.0]).reached
        assert reached["verdict"].tolist() == [
            f"not reached within {most}; repetitions are lost at N=400"
        ]
    assert gather([run], targets=[9.0]).reached["verdict"].tolist() == ["4"]


@pytest.fixture
def two(rows, entry):
    one = rows(etas=[0.0], steps=[4, 40])
    other = rows(etas=[0.0, 1.0], steps=[4, 40], objective="ncsn", network="ncsn_mlp", seed=1)
    return [entry("edm", one), entry("ncsn", other)]


@pytest.mark.slow
def test_where_keeps_cells_with_their_floor(two):
    """And they are tested as if there were no others."""
    found = gather(two, where="objective=ncsn eta=0,0.5 steps=4".replace(",0.5", ""))
    assert [one.label for one in found.entries] == ["ncsn"]
    assert found.lines[["eta", "steps"]].to_numpy().tolist() == [[0.0, 4]]
    assert (found.values["denoiser"] == "law").sum() == 4
    assert found.notes[0] == "only objective=ncsn eta=0 steps=4: 8 of 32 values"
    alone = two[1].values.query("denoiser == 'law' or (eta == 0 and steps == 4)")
    alone = gather([replace(two[1], values=alone)]).lines
    assert found.lines["p_holm"].tolist() == alone["p_holm"].tolist()
    assert len(gather(two, where="steps=4,40 seed=0").lines) == 2


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("objectve=edm", "where=objectve: .*; did you mean objective?"),
        ("objective=ncsm", "objective=ncsm: must be one of edm, ncsn; did you mean ncsn?"),
        ("edm", "where=edm: must be column=value"),
        ("steps=4 steps=40", "where=steps: must be given once"),
        ("objective=edm eta=1", "such that some cell has all of these values"),
    ],
)
def test_what_is_not_there_is_one_line(two, where, message):
    with pytest.raises(InvalidSetting, match=message):
        gather(two, where=where)


@pytest.mark.slow
def test_a_group_comes_first(two):
    lines = markdown(gather(two, group="objective")).splitlines()
    titles, *_, last = (line for line in lines if line.startswith("|"))
    assert titles.startswith("| objective | run | start | denoiser | sampler | N=4 |")
    assert last.startswith("| ncsn | ncsn |")
    assert any("the runs differ in objective (edm, ncsn)" in note for note in gather(two).notes)
