"""`samplerbench cite`: what a run used, as BibTeX that can be parsed."""

import json

import pytest
import yaml
from pybtex.database import parse_string

MODULE = '''"""A sampler of somebody's."""
from samplerbench.samplers.heun import Heun

class Mine(Heun):
    """As Author, "A paper", 2024 (arXiv 2401.99999), says."""
'''


@pytest.fixture
def change(run):
    """Changes top-level keys of the run's config."""

    def write(**nodes):
        path = run / "config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | nodes))

    return write


@pytest.fixture
def cited(typed):
    """The output of cite for runs: a comment for each member, and the entries."""

    def cite(*words):
        status, out, err = typed("cite", *words)
        assert status == 0, err
        comments = [line[2:].partition(": ") for line in out.splitlines() if line.startswith("% ")]
        return {name: keys for name, _, keys in comments}, parse_string(out, "bibtex").entries

    return cite


def target(kind, name, cls):
    return {"_target_": f"samplerbench.{kind}.{name}.{cls}"}


def test_what_a_run_used(run, cited, change):
    samplers = {
        "unipc": target("samplers", "unipc", "UniPC"),
        "rk4": target("samplers", "rk4", "RK4"),
    }
    change(sampler=samplers, metric={"exact_w2": target("metrics", "exact_w2", "ExactW2")})
    members, entries = cited(run)
    assert members["sampler unipc"] == "zhao2023unipc"
    assert members["sampler rk4"].split(", ") == ["kutta1901beitrag", "hairer1993solving"]
    assert members["metric exact_w2"].startswith("flamary2021pot"), "POT"
    assert members["objective edm"] == members["target edm"] == "karras2022elucidating"
    assert members["dataset grid_mixture"] == "–"
    assert "network residual_mlp" in members
    keys = {key for line in members.values() for key in line.split(", ") if key != "–"}
    assert set(entries) == keys | {"samplerbench"}
    own = entries["samplerbench"]
    assert own.type == "software"
    assert own.fields["version"]
    assert "samplerbench" in own.fields["title"]


def test_a_recipe_with_several_data_per_target_cites_them(run, cited, change):
    recipe = yaml.safe_load((run / "config.yaml").read_text())["trainer"]
    for count, expected in ((1, None), (64, "xu2023stable")):
        change(trainer={**recipe, "data_per_target": count})
        assert cited(run)[0].get("part targets") == expected


def test_a_run_without_training_cites_no_training(run, finished, cited, change):
    change(denoiser=["oracle", "empirical", "pretrained"], chains=4, budget={"converged_steps": 8})
    members, entries = cited(run)
    parts = {name: keys for name, keys in members.items() if name.startswith("part ")}
    assert parts.keys() == {"part empirical", "part pretrained", "part budget", "part chains"}
    assert parts["part pretrained"] == "ho2020denoising"
    assert parts["part empirical"] == "karras2022elucidating"
    assert not {"objective edm", "target edm", "network residual_mlp"} & set(members)
    assert "tancik2020fourier" not in entries
    both, entries = cited(finished, run)
    assert both.keys() > members.keys(), "several runs are one list"
    assert list(entries).count("samplerbench") == 1


def test_a_foreign_member_is_read_where_it_is_trusted(run, cited, change, refuses, tmp_path):
    (tmp_path / "cited_lab.py").write_text(MODULE)
    change(sampler={"mine": {"_target_": "cited_lab.Mine"}}, trusted=["cited_lab"])
    refuses(["cite", run], "add trusted=cited_lab if you trust its code")
    members, _ = cited(run, "trusted=cited_lab")
    assert members["sampler mine"] == "arXiv 2401.99999, no entry here"


def test_the_version_is_that_of_the_run_and_no_run_is_one_line(run, cited, refuses):
    about = json.loads((run / "run.json").read_text())
    about["versions"]["samplerbench"] = "0.0.7 0123456789abcdef"
    (run / "run.json").write_text(json.dumps(about))
    assert cited(run)[1]["samplerbench"].fields["version"] == "0.0.7"
    refuses(["cite"], "one or more folders")
    refuses(["cite", "/nothing/there"], "run=/nothing/there")
