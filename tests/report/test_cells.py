"""One line for each cell, its verdict, and the Pareto front."""

from dataclasses import replace

import pandas as pd
import pytest
import scipy.stats

from samplerbench.bench.statistics import CHAIN, against_floor
from samplerbench.report.cells import ABOVE, BELOW, SAME, cell_lines, floors, nearest, over_seeds
from samplerbench.report.content import gather
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
    assert ((merged["verdict"] != SAME) == merged["significant"]).all()


def test_the_three_verdicts(rows, entry):
    assert set(lines_of(entry("#1", rows(shift=3)))["verdict"]) == {ABOVE}
    low = lines_of(entry("#1", rows(etas=[0.0], shift=-0.7, steps=[40, 400])))
    assert set(low["verdict"]) == {BELOW}
    near = lines_of(entry("#1", rows(etas=[0.0], steps=[4000])))
    assert set(near["verdict"]) == {SAME}


@pytest.mark.slow
def test_chains_that_have_not_mixed_are_not_called_near_the_floor(rows, entry):
    """Few repetitions do not see how far they are; a difference that is seen stays one."""

    def chains(r_hat, start="prior"):
        row = next(row for row in rows(etas=[0.0]) if row.denoiser != "law")
        return replace(row, metric="split_r_hat", reference=CHAIN, value=r_hat, start=start)

    near = rows(etas=[0.0], steps=[4000])
    stuck = entry("#1", [*near, chains(33.0)])
    verdict = "no verdict: its chains have not mixed (split R̂ 33)"
    assert set(gather([stuck]).lines["verdict"]) == {verdict}
    assert set(gather([stuck], where="steps=4000").lines["verdict"]) == {verdict}
    for other in (chains(1.0), chains(33.0, start="exact")):
        assert set(gather([entry("#1", [*near, other])]).lines["verdict"]) == {SAME}
    far = entry("#1", [*rows(etas=[0.0], shift=3), chains(33.0)])
    assert set(gather([far]).lines["verdict"]) == {ABOVE}


@pytest.mark.slow
def test_a_cell_without_a_verdict_says_why(rows, entry):
    assert set(lines_of(entry("#1", rows(repetitions=1)))["verdict"]) == {
        "one repetition: no interval"
    }
    some = [row for row in rows() if (row.steps, row.eta) != (4, 1.0) or row.repetition == 0]
    verdicts = lines_of(entry("#1", some))["verdict"].value_counts()
    assert verdicts["one repetition: no interval"] == 1
    assert verdicts.sum() == 6
    without = [row for row in rows() if row.denoiser != "law"]
    of_its_own = [replace(row, info='{"half_width": 0.1}') for row in without[:1]]
    for some in (without, of_its_own):
        assert set(lines_of(entry("#1", some))["verdict"]) == {"no floor"}


def test_a_value_of_an_exact_law_is_called_exact(rows, entry):
    exact = [
        replace(row, metric="w2_law_gaussian")
        for row in rows(repetitions=1)
        if row.denoiser != "law"
    ]
    assert set(lines_of(entry("#1", exact))["verdict"]) == {"exact"}


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


@pytest.mark.slow
def test_survivors_have_no_verdict(rows, entry):
    """A cell of perfect survivors is behind the others, and not in the family of tests."""
    sound, shown = rows(steps=[40, 4000], etas=[0.0]), []
    for row in sound:
        lost = row.steps == 4000 and row.repetition == 0
        bad = {"status": "diverged", "message": "1 of 9", "value": float("nan")} if lost else {}
        shown.append(vars(row) | bad)
    run = entry("#1", sound, values=pd.DataFrame(shown))
    lines = lines_of(run)
    assert lines["steps"].tolist() == [40, 4000]
    assert lines["lost"].tolist() == [0, 1]
    assert lines["verdict"][1] == "1 of 4 diverged: 1 of 9"
    alone = lines_of(entry("#1", [row for row in sound if row.steps != 4000]))
    assert lines["p_holm"][0] == alone["p_holm"][0]
    assert len(against_floor(run.values)) == 1
    curve = replace(run, label="#2")
    assert nearest(lines_of(curve).assign(curve=["far", "lost"]), 1)["curve"].tolist() == ["far"]
    # over seeds, one of which has no value at all
    gone = run.values.assign(seed=1, cell_id="", status="diverged", value=float("nan"))
    gone = gone[gone["steps"] == 4000]
    more = [entry("#1", sound), entry("#2", rows(steps=[40, 4000], etas=[0.0], seed=2))]
    pooled = over_seeds(lines_of(*more, entry("#3", sound, values=gone)))
    said = pooled.set_index("steps")["verdict"]
    assert said[40] == "mean over 2 seeds"
    assert said[4000] == "mean over 2 seeds, without 4 lost repetitions"


def test_runs_keep_their_own_floors(rows, entry):
    lines = lines_of(entry("#1", rows()), entry("#2", rows(seed=1)))
    assert lines.groupby("run")["floor"].nunique().tolist() == [1, 1]
    assert lines["floor"].nunique() == 2


@pytest.mark.slow
def test_a_cell_of_several_runs_has_one_line(rows, entry):
    """The exact score does not depend on the objective."""
    oracle = [row for row in rows(denoiser="oracle", objective="", etas=[0.0]) if row.sampler]
    edm = rows(etas=[0.0])
    ncsn = [replace(row, objective="ncsn", cell_id=f"ncsn {row.cell_id}") for row in edm]
    ncsn = [made if made.sampler else row for made, row in zip(ncsn, edm, strict=True)]
    runs = [entry("edm · seed=0", edm + oracle), entry("ncsn · seed=0", ncsn + oracle)]
    lines = lines_of(*runs)
    assert len(lines) == 3 * 3
    runs_of = lines.groupby("denoiser")["run"].unique().map(sorted).to_dict()
    assert runs_of == {"learned": ["edm · seed=0", "ncsn · seed=0"], "oracle": ["seed=0"]}
    curves = set(zip(lines["denoiser"], lines["curve"], strict=True))
    assert curves == {
        ("learned", "ddim η=0 · edm · seed=0"),
        ("learned", "ddim η=0 · ncsn · seed=0"),
        ("oracle", "ddim η=0 · seed=0"),
    }
    assert len(floors(distances(all_values(runs)))) == 4, "the floor is the same draws in both"


def test_runs_that_differ_in_seeds_only_are_one_curve_with_the_interval_over_them(rows, entry):
    runs = [
        entry(f"{name} · seed={seed}", rows(seed=seed, train_seed=seed, objective=name, shift=up))
        for name, up in (("edm", 0.0), ("ncsn", 1.0))
        for seed in (0, 1, 2)
    ]
    lines = lines_of(*runs)
    pooled = over_seeds(lines)
    assert len(lines) == 6 * 6
    assert len(pooled) == 2 * 6
    assert set(pooled["run"]) == {"edm", "ncsn"}
    assert set(pooled["verdict"]) == {"mean over 3 seeds"}
    for (_, curve, steps), line in pooled.groupby(["measure", "curve", "steps"]):
        name, objective = curve.split(" · ")
        own = lines[(lines["name"] == name) & (lines["steps"] == steps)]
        means = own.loc[own["objective"] == objective, "mean"].to_numpy()
        interval = scipy.stats.ttest_1samp(means, 0).confidence_interval()
        assert len(means) == 3
        assert line["mean"].item() == pytest.approx(means.mean())
        assert line["half"].item() == pytest.approx((interval.high - interval.low) / 2)


def test_what_differs_in_more_than_seeds_is_never_pooled(rows, entry):
    other = [replace(row, setting_id="another grid") for row in rows(seed=1)]
    lines = lines_of(entry("#1", rows()), entry("#2", other))
    assert len(over_seeds(lines)) == len(lines) == 12
    assert lines["curve"].nunique() == 4


def test_the_nearest_curves(rows, entry):
    lines = lines_of(entry("#1", rows(etas=[0.0, 0.1, 0.2, 5.0])))
    assert set(nearest(lines, 3)["name"]) == {"ddim η=0", "ddim η=0.1", "ddim η=0.2"}
