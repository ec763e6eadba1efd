"""Several runs: values that may be compared, values that are kept separate, and the notes."""

import subprocess
import sys

import pytest

from samplerbench.bench.store import LIMIT
from samplerbench.logs.base import run_name
from samplerbench.report.entries import (
    all_values,
    distances,
    distinguished,
    labelled,
    warnings,
    without_sampler,
)


def test_runs_that_measure_the_same_share_a_measure(rows, entry):
    limits = rows(sampler=f"ddim{LIMIT}")  # of a budget
    both = [entry("#1", rows()), entry("#2", rows(seed=1) + limits)]
    measured = distances(all_values(both))
    assert len(measured) == 2 * len(rows())
    assert set(measured["measure"]) == {"sliced"}
    assert set(measured["run"]) == {"#1", "#2"}
    assert warnings(both, measured) == []


def test_metric_settings_n_and_data_keep_measures_apart(rows, entry):
    runs = [
        entry("#1", rows()),
        entry("#2", rows(metric_settings='{"class": "Sliced", "p": 1}')),
        entry("#3", rows(n_samples=900)),
    ]
    measured = distances(all_values(runs))
    assert {frozenset(name.split(", ")) for name in measured["measure"]} == {
        frozenset({"sliced", "p=2", "n=500"}),
        frozenset({"sliced", "p=1", "n=500"}),
        frozenset({"sliced", "p=2", "n=900"}),
    }
    assert "has 3 different measures" in warnings(runs, measured)[0]


def test_two_laws_of_one_name_differ_by_their_identity(rows, entry):
    """Such as two data sets of a script, which have no config."""
    entries = [entry("#1", rows(measure_id="abcdefgh")), entry("#2", rows(measure_id="12345678"))]
    names = set(distances(all_values(entries))["measure"])
    assert names == {"sliced, measure abcdef", "sliced, measure 123456"}


def test_two_data_sets_of_one_name_are_named_by_what_differs(rows, entry):
    runs = [
        entry("#1", rows(), config={"dataset": {"noise": 0.1}}),
        entry("#2", rows(), config={"dataset": {"noise": 0.2}}),
    ]
    assert set(all_values(runs)["dataset"]) == {"moons, noise=0.1", "moons, noise=0.2"}


def test_versions_that_differ_and_problems_are_notes(rows, entry):
    runs = [
        entry("#1", rows(), versions={"torch": "2.13.0"}),
        entry("#2", rows(), versions={"torch": "2.12.0"}, problems=["a.json: cut"]),
    ]
    notes = warnings(runs, distances(all_values(runs)))
    assert "#2: skipped a.json: cut" in notes
    assert "versions of torch differ: 2.13.0 in #1; 2.12.0 in #2" in notes


def test_the_summary_says_what_is_missing_and_why(rows, entry):
    some = rows(status="incompatible", message="needs signal\nand more", value=float("nan"))
    run = entry("#1", some, state="failed", message="OSError: disk", expected=90)
    assert run.summary == f"failed, {len(some)} of 90 values: OSError: disk"
    assert run.without_value() == [f"{len(some)} incompatible: needs signal"]


def test_distinguished_names_only_what_differs():
    assert distinguished("a", [{"p": 1, "k": 3}]) == ["a"]
    assert distinguished("a", [{"p": 1, "k": 3}, {"p": 2, "k": 3}]) == ["a, p=1", "a, p=2"]


@pytest.mark.slow  # quick: test_main.py
def test_a_report_is_made_without_torch_and_without_hydra():
    modules = "samplerbench.app.main, samplerbench.app.commands.report, samplerbench.report.page"
    code = f"import {modules}, sys; print({{'torch', 'hydra'}} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_a_label_is_what_varies_in_the_words_of_a_logged_run(rows, entry):
    words = [f"objective={name} seed={seed}" for name in ("edm", "ncsn") for seed in (0, 1)]
    runs = [
        entry(
            f"#{place}",
            rows(objective=word.split()[0].partition("=")[2]),
            overrides=["experiment=tiny", f"hydra.run.dir={place}", *word.split()],
        )
        for place, word in enumerate(words, 1)
    ]
    labels = [run.label for run in labelled(runs)]
    assert labels == ["edm · seed=0", "edm · seed=1", "ncsn · seed=0", "ncsn · seed=1"]
    for run, word in zip(runs, words, strict=True):
        name = run_name(["ddim"], run.values["objective"].max(), "moons", word.split())
        assert set(labelled(runs)[runs.index(run)].label.split(" · ")) < set(name.split(" · "))
    assert [run.label for run in labelled(runs[:1])] == ["#1"]
    assert [run.label for run in labelled([runs[0], runs[0]])] == ["#1", "#1"]


def test_a_run_that_cannot_be_read_keeps_its_number_and_labels_are_unique(rows, entry):
    broken = entry("#1", [], config={}, overrides=[])
    twice = [entry(f"#{k}", rows(), overrides=["seed=1"]) for k in (2, 3)]
    other = entry("#4", rows(), overrides=["seed=2"])
    labels = [run.label for run in labelled([broken, *twice, other])]
    assert labels == ["#1", "seed=1 · #2", "seed=1 · #3", "seed=2"]


def test_a_long_label_is_cut_between_its_parts_and_says_how_many_are_left_out(rows, entry):
    settings = [f"trainer.a_long_setting_{k}=0.000{{}}" for k in range(3)]
    runs = [
        entry(f"#{run}", rows(), overrides=[text.format(run) for text in settings])
        for run in (1, 2)
    ]
    labels = [run.label for run in labelled(runs)]
    assert labels == [f"trainer.a_long_setting_0=0.000{run} · … 2 more" for run in (1, 2)]


def test_the_part_of_a_label_that_lists_the_samplers(rows, entry):
    names = ("ddim", "heun", "rk2", "rk4", "euler")
    many = [row for name in names for row in rows(sampler=name)]
    few = entry("#2", rows(sampler="heun"), overrides=["sampler=heun"])
    several = entry("#1", many, overrides=[f"sampler=[{','.join(names)}]"])
    assert [run.label for run in labelled([several, few])] == ["ddim,euler,heun +2", "heun"]
    for label, short in (
        ("ddim,heun,rk2 +4 · ncsn", "ncsn"),
        ("heun · seed=1", "seed=1"),
        ("heun", ""),
        ("ddim · seed=1", "ddim · seed=1"),
        ("ncsn · seed=1", "ncsn · seed=1"),
    ):
        assert without_sampler(label, "heun") == short
