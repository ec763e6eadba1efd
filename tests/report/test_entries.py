"""Several runs: values that may be compared, values that are kept apart, and the notes."""

import subprocess
import sys

from samplerbench.bench.store import LIMIT
from samplerbench.report.entries import all_values, distances, distinguished, warnings


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
    assert "measured in 3 ways" in warnings(runs, measured)[0]


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


def test_a_report_is_read_without_torch_and_without_hydra():
    code = "import samplerbench.report.page, sys; print({'torch', 'hydra'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
