"""`samplerbench suite verify`: which commands of an entry are run, and a real entry."""

from pathlib import Path

import pandas as pd
import pytest

from helpers import each
from samplerbench.app.commands import suite as commands
from samplerbench.app.commands.suite import _of_size
from samplerbench.app.commands.suite import main as suite
from samplerbench.app.job.verifying import suite_words, tasks_of
from samplerbench.bench.suite.entry import read_entry, write_entry
from samplerbench.errors import InvalidSetting

FIXED = _of_size("v2")[1]
GALLERY = Path(__file__).parents[2] / "multirun" / "gallery" / "suite" / "v1"
JOB = "samplerbench experiment=suite/v1/two_moons-edm"


def test_the_words_of_a_job_of_the_suite_are_kept():
    words = suite_words(
        f"{JOB} grids=[karras,log_snr,uniform,quadratic,tangent] 'sampler=[mine]' sampler.mine.k=2",
        FIXED,
    )
    assert words[2:] == ["sampler=[mine]", "sampler.mine.k=2"]
    # whoever verifies an entry names the trusted packages
    assert suite_words(f"{JOB} grids=null trusted=lab cache=off", FIXED)[1:] == ["grids=null"]


@each(
    "command",
    [
        *("", "rm -rf x", "samplerbench", "samplerbench 'experiment=", "samplerbench grids=null"),
        "samplerbench experiment=tiny grids=null",
        "samplerbench experiment=suite/v1/../../tiny grids=null",
        f"{JOB} grids=[designed]",
        *(f"{JOB} {word}" for word in ("n_samples=1", "nfe=[4]", "seed=3", "metric=kl_law")),
        *(f"{JOB} {word}" for word in ("hydra.run.dir=/tmp", "+dataset.x=1", "weights=mine")),
        f"{JOB} experiment=suite/v1/two_moons-edm",
    ],
)
def test_other_commands_are_refused(command):
    with pytest.raises(InvalidSetting, match="must be that of a job of the suite"):
        suite_words(command, FIXED)


def test_an_entry_of_another_suite_is_refused():
    with pytest.raises(InvalidSetting, match=r"entry\.suite=v7: must be one of v1, v1 quick, v2"):
        _of_size("v7")


def test_quick_results_are_not_laid_on_whole_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = pd.read_parquet(GALLERY / "results.parquet")
    commands_ = whole["command"] + " 'nfe=[4,8,16,32]' n_samples=128"
    for name, command in [("quick", commands_), ("both", commands_.where(whole.index > 0, JOB))]:
        Path(name).mkdir()
        whole.assign(command=command).to_parquet(Path(name) / "results.parquet")
    with pytest.raises(InvalidSetting, match=r"quick is v1 quick, .*v1 is v1: must be all of one"):
        suite(["page", "quick", str(GALLERY), "out=page"])
    with pytest.raises(InvalidSetting, match="both is both: must be all of one size"):
        suite(["page", "both", "out=page"])
    assert not Path("page").exists()


def test_an_entrant_of_version_1_is_not_laid_on_version_2(tmp_path, monkeypatch):
    """Without the tasks that are new in version 2 its problems would be others."""
    monkeypatch.chdir(tmp_path)
    first = pd.read_parquet(GALLERY / "results.parquet")
    new = first[(first["quantity"] == "kl_law") & (first["entrant"] != "heun")]
    commands_ = new["command"].str.replace("suite/v1/", "suite/v2/")
    Path("new").mkdir()
    new.assign(law="tree", command=commands_).to_parquet(Path("new") / "results.parquet")
    with pytest.raises(InvalidSetting, match=r"no value of heun: must be with the tasks of v2 for"):
        suite(["page", str(GALLERY), "new", "out=page"])
    assert not Path("page").exists()


@pytest.fixture(scope="module")
def tasks():
    """The tasks of an entry without any results."""
    nothing = pd.DataFrame(
        [{"law": "", "path": "", "denoiser": "", "quantity": "", "grid": ""}]
    ).assign(chosen="karras", noise=False, command=f"{JOB} grids=null sampler=heun")
    return tasks_of(nothing, ["v1/two_moons-edm"], FIXED)


def test_all_tasks_are_required(tasks):
    expected = {("two_moons", "edm", "oracle", of, grid) for of in ("paired",) for grid in "ab"}
    names = {task[:3] for task in tasks}
    assert names == {task[:3] for task in expected}
    assert {task[4] for task in tasks} == {"common", "own"}
    assert "paired" in {task[3] for task in tasks}


@pytest.mark.slow
def test_a_real_entry_is_accepted_and_a_changed_one_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        suite(["suite=quick", "sampler=heun", "cache=off", "hydra.sweep.dir=runs"])
    assert ended.value.code == 0
    entry = Path("runs/entry.parquet")
    suite(["verify", str(entry), "cells=4", "seed=1"])
    assert "accepted for v2 quick: " in capsys.readouterr().out
    table, about = read_entry(entry)
    other = write_entry(table.assign(value=0.5 * table["value"]), Path("other.parquet"), about)
    with pytest.raises(SystemExit) as ended:
        suite(["verify", str(other), "cells=4"])
    assert ended.value.code == 1
    # results of another size
    write_entry(table, entry, {**about, "suite": "v2"})
    with pytest.raises(InvalidSetting, match=r"must be all of v2"):
        suite(["page", str(entry), "out=page"])


@pytest.mark.slow
def test_an_entry_with_a_learned_task_is_verified(tmp_path, monkeypatch, capsys):
    """All of its cells, with the weights of the suite; then one with a better value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "QUICK", ("v1/two_moons-edm-learned", "v2/two_moons-edm-learned"))
    monkeypatch.setattr(commands, "QUICK_WORDS", ("nfe=[4,8]", "n_samples=64"))
    with pytest.raises(SystemExit) as ended:
        suite(["suite=quick", "sampler=heun", "cache=off", "logger=none", "hydra.sweep.dir=runs"])
    assert ended.value.code == 0
    entry = Path("runs/entry.parquet")
    capsys.readouterr()
    suite(["verify", str(entry), "cells=4"])
    out = capsys.readouterr().out
    assert "accepted for v2 quick: " in out
    for quantity in ("paired", "kl_law"):  # two jobs, since the second is new in version 2
        for steps in (2, 4):
            of = f"heun, two_moons edm learned {quantity}, grid common, {steps} steps"
            assert f"{of}: passed" in out
    table, about = read_entry(entry)
    paired = table["quantity"] == "paired"
    better = table.assign(value=table["value"].where(~paired, 0.9 * table["value"]))
    write_entry(better, entry, about)
    with pytest.raises(SystemExit) as ended:
        suite(["verify", str(entry), "cells=4"])
    assert ended.value.code == 1
    assert "refused: heun, two_moons edm learned paired" in capsys.readouterr().out
