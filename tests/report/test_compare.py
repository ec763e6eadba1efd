"""Two runs compared: paired if their random numbers are equal, refused if their measures differ."""

from dataclasses import replace

import pytest

from helpers import refused_in_one_line
from samplerbench.app.commands import report
from samplerbench.errors import InvalidSetting
from samplerbench.report.compare import compare


def test_common_random_numbers_are_paired(rows, entry):
    # noise of 0.05 a repetition, shared by both runs, and a shift of 0.001
    found = compare(entry("#1", rows()), entry("#2", rows(shift=0.001, train_seed=7)))
    assert len(found.lines) == 6
    assert found.lines["paired"].all()
    assert found.lines["difference"].tolist() == pytest.approx([-0.001] * 6)
    assert set(found.lines["verdict"]) == {"the first is nearer"}
    assert found.unmatched == []


def test_other_seeds_or_blocks_are_not_paired(rows, entry):
    for change in ({"seed": 1}, {"block": 100}):
        found = compare(entry("#1", rows()), entry("#2", rows(shift=0.001, **change)))
        assert not found.lines["paired"].any()
        assert set(found.lines["verdict"]) == {"not distinguishable"}


def test_p_values_have_holms_correction_over_all_cells(rows, entry):
    found = compare(entry("#1", rows()), entry("#2", rows(shift=0.3, seed=1)))
    one = compare(
        entry("#1", rows(etas=[0.0], steps=[4])),
        entry("#2", rows(etas=[0.0], steps=[4], shift=0.3, seed=1)),
    )
    assert found.lines["p_holm"].min() > one.lines["p_holm"].min()


@pytest.mark.slow
def test_a_difference_is_distinguishable_if_p_is_at_most_five_percent(rows, entry):
    p_values = []
    for shift in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1):
        other = entry("#2", rows(etas=[0.0], steps=[4], shift=shift, seed=1))
        (line,) = compare(entry("#1", rows(etas=[0.0], steps=[4])), other).lines.itertuples()
        assert (line.verdict == "not distinguishable") == (line.p_holm > 0.05)
        p_values.append(line.p_holm)
    assert any(p < 0.05 for p in p_values)
    assert any(0.05 < p < 0.5 for p in p_values)


def test_cells_of_only_one_run_are_named(rows, entry):
    found = compare(entry("#1", rows(steps=[4, 8])), entry("#2", rows(steps=[8, 16])))
    assert len(found.lines) == 2
    assert "only in #1: sliced, prior start, learned, ddim η=0.0, N=4" in [
        line.replace("η=0,", "η=0.0,") for line in found.unmatched
    ]
    assert len(found.unmatched) == 4


def test_survivors_are_not_compared(rows, entry):
    """Also if they are nearer; the other cells are compared as without them."""
    one, other = entry("#1", rows()), entry("#2", rows(shift=0.001))
    lost = (one.values["steps"] == 4) & (one.values["repetition"] > 1)
    values = one.values["value"].mask(lost, float("nan"))
    status = one.values["status"].mask(lost, "diverged")
    found = compare(replace(one, values=one.values.assign(value=values, status=status)), other)
    lines = found.lines.set_index("steps")
    assert set(lines.loc[4, "verdict"]) == {"2 of 4 diverged in #1"}
    assert lines.loc[4, ["lower", "p_holm"]].isna().all(axis=None)
    less = compare(
        entry("#1", rows(steps=[16, 64])), entry("#2", rows(steps=[16, 64], shift=0.001))
    )
    assert sorted(lines["p_holm"].dropna()) == pytest.approx(sorted(less.lines["p_holm"]))


def test_one_repetition_gives_a_difference_without_an_interval(rows, entry):
    found = compare(entry("#1", rows(repetitions=1)), entry("#2", rows(repetitions=1, shift=1.0)))
    assert found.lines["difference"].tolist() == pytest.approx([-1.0] * 6)
    assert set(found.lines["verdict"]) == {"one repetition: no interval"}


def test_runs_with_different_measures_are_refused_in_one_line(rows, entry):
    for change, message in (
        ({"metric_settings": '{"class": "Sliced", "p": 1}'}, 'sliced: metric_settings=.*"p": 2'),
        ({"n_samples": 900}, "n_samples=500 and 900: must be the same in both runs"),
        ({"dataset": "rings"}, "dataset=moons and rings"),
        ({"data_seed": 3}, "data_seed=0 and 3: .* also changes the data, train_seed=… only the"),
        ({"metric_seed": 3}, "metric_seed=0 and 3"),
        ({"measure_id": "ab"}, "metric=sliced: must be of the same law and the same code"),
        ({"n_reference": 9}, "sliced: n_reference=1000 and 9"),
        ({"metric": "energy"}, "metric=sliced and energy"),
    ):
        with refused_in_one_line(message):
            compare(entry("#1", rows()), entry("#2", rows(**change)))


def test_one_name_for_two_data_sets_is_refused(rows, entry):
    other = entry("#2", rows(), config={"dataset": {"noise": 0.3}})
    with pytest.raises(InvalidSetting, match=r"dataset=moons, noise=0.1 and moons, noise=0.3"):
        compare(entry("#1", rows(), config={"dataset": {"noise": 0.1}}), other)


def test_the_console_has_the_clearest_differences_first(rows, entry, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shifted = [replace(row, value=row.value + 0.3 * (row.steps == 16)) for row in rows(seed=1)]
    found = compare(entry("#1", rows()), entry("#2", shifted))
    report.print_differences(found)
    title, head, *lines = capsys.readouterr().out.strip().splitlines()
    assert title.startswith("differences #1 − #2, with 95 % intervals; p-values by Holm over 6 ce")
    assert head.split()[-5:] == ["#1", "#2", "difference", "p-value", "verdict"]
    assert [line.split()[5] for line in lines[:2]] == ["16", "16"]
    assert all(line.endswith("the first is nearer (not paired)") for line in lines[:2])
    assert all(line.endswith("not distinguishable (not paired)") for line in lines[2:])
    least = found.lines.sort_values("p_holm").iloc[0]
    difference, half = lines[0].split(" ± ")
    assert float(difference.split()[-1]) == pytest.approx(least["difference"], abs=0.005)
    assert float(half.split()[0]) == pytest.approx(least["upper"] - least["difference"], abs=0.005)
    monkeypatch.setattr(report, "MOST_PRINTED", 2)
    report.print_differences(found)
    _, _, *lines, last = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2
    assert last == "and 4 cells more in differences.csv"


def test_the_console_says_if_no_cell_has_an_interval(rows, entry, capsys):
    one = entry("#1", rows(repetitions=1, steps=[4, 8]))
    report.print_differences(compare(one, entry("#2", rows(repetitions=1, steps=[4], shift=1.0))))
    title, _, *lines, last = capsys.readouterr().out.strip().splitlines()
    assert title == "differences #1 − #2:"
    assert len(lines) == 2
    assert all("  -1.00        –  one repetition: no interval" in line for line in lines)
    assert last == "2 cells of only one run: see the page"
