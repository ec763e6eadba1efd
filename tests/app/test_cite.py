"""`samplerbench cite`: what a run used, as BibTeX that can be parsed."""

import json
import shutil
import sys

import pytest
import yaml
from pybtex.database import parse_string

from samplerbench.app.main import main
from samplerbench.errors import InvalidSetting

MODULE = '''"""A sampler of somebody's."""
from samplerbench.samplers.heun import Heun

class Mine(Heun):
    """As Author, "A paper", 2024 (arXiv 2401.99999), says."""
'''


def command(*words):
    before, sys.argv = sys.argv, ["samplerbench", *map(str, words)]
    try:
        main()
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A tiny run of two samplers."""
    folder = tmp_path_factory.mktemp("cite") / "run"
    words = ["experiment=tiny", "logger=none", "steps=4", "trainer.steps=2", "metric=exact_w2"]
    command(*words, "sampler=[unipc,rk4]", f"hydra.run.dir={folder}")
    return folder


def cited(out):
    """Comments by member, and the entries."""
    comments = [line[2:].partition(": ") for line in out.splitlines() if line.startswith("% ")]
    return {name: keys for name, _, keys in comments}, parse_string(out, "bibtex").entries


def test_what_a_run_used(stored, capsys):
    command("cite", stored)
    members, entries = cited(capsys.readouterr().out)
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


def test_a_run_without_training_cites_no_training(stored, tmp_path, capsys):
    copy = shutil.copytree(stored, tmp_path / "copy")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config |= {"denoiser": ["oracle", "empirical", "pretrained"], "chains": ["ula"]}
    config["budget"] = {"converged_steps": 8}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    command("cite", copy)
    members, entries = cited(capsys.readouterr().out)
    parts = {name for name in members if name.startswith("part ")}
    assert parts == {"part empirical", "part pretrained", "part budget", "part chains"}
    assert not {"objective edm", "target edm", "network residual_mlp"} & set(members)
    assert "tancik2020fourier" not in entries
    command("cite", stored, copy)
    both = capsys.readouterr().out
    assert cited(both)[0].keys() > members.keys(), "several runs are one list"
    assert both.count("@software") == 1


def test_parts_of_a_run_are_cited(stored, tmp_path, capsys):
    copy = shutil.copytree(stored, tmp_path / "copy")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config |= {"denoiser": ["empirical", "pretrained"], "budget": {}, "chains": 4}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    command("cite", copy)
    members, _ = cited(capsys.readouterr().out)
    assert members["part pretrained"] == "ho2020denoising"
    assert members["part empirical"] == "karras2022elucidating"
    assert {"part budget", "part chains"} <= members.keys()


def test_a_foreign_member_is_read_where_it_is_trusted(stored, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cited_lab.py").write_text(MODULE)
    copy = shutil.copytree(stored, tmp_path / "copy")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["sampler"] = {"mine": {"_target_": "cited_lab.Mine"}}
    config["trusted"] = ["cited_lab"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit, match="2"):
        command("cite", copy)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "add trusted=cited_lab if you trust its code" in message
    command("cite", copy, "trusted=cited_lab")
    members, _ = cited(capsys.readouterr().out)
    assert members["sampler mine"] == "arXiv 2401.99999, no entry here"


@pytest.mark.parametrize("words", [["cite"], ["cite", "/nothing/there"]])
def test_bad_input_is_one_line(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        command(*words)
    assert capsys.readouterr().err.count("\n") == 1


def test_the_versions_of_its_run(stored, tmp_path, capsys):
    copy = shutil.copytree(stored, tmp_path / "copy")
    about = json.loads((copy / "run.json").read_text())
    about["versions"]["samplerbench"] = "0.0.7 0123456789abcdef"
    (copy / "run.json").write_text(json.dumps(about))
    command("cite", copy)
    assert cited(capsys.readouterr().out)[1]["samplerbench"].fields["version"] == "0.0.7"


def test_cite_refuses_without_a_word():
    from samplerbench.app.commands import cite

    with pytest.raises(InvalidSetting, match="one or more folders"):
        cite.main([])
