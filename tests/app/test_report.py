"""`samplerbench report`: over real runs, broken ones, running ones, and none."""

import json
import shutil
from importlib import import_module

import pandas as pd
import pytest
from omegaconf import OmegaConf

from samplerbench.app.commands import report
from samplerbench.app.commands.report import _unordered
from samplerbench.app.config.construct import read_member
from samplerbench.app.config.folders import member_files
from samplerbench.errors import InvalidSetting


@pytest.fixture(scope="module")
def made(finished, command, tiny, tmp_path_factory):
    """Two runs that measure the same, the second of another training."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(finished, folder / "a")
    assert command(*tiny, "train_seed=1", "sampler=[ddim]", f"hydra.run.dir={folder}/b") == 0
    return folder


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def reported(runs, capsys):
    """Writes a report without sample panels; returns the output, the page and the values."""

    def write(*words, out="out"):
        capsys.readouterr()
        report.main([*words, f"out={out}"])
        folder = runs.parent / out
        return capsys.readouterr().out, page(folder), pd.read_csv(folder / "cells.csv")

    return write


def page(folder):
    return (folder / "report.html").read_text()


def test_a_report_over_a_folder_of_runs(runs, capsys):
    report.main(["runs", "out=out", "panels=true", "figures=[svg]"])
    out = capsys.readouterr().out
    assert "ddim,heun a: finished" in out
    assert "ddim · train_seed=1 b: finished" in out
    assert out.splitlines()[-1] == "report: out/report.html"
    text = page(runs.parent / "out")
    values = pd.read_csv(runs.parent / "out" / "cells.csv")
    assert set(values["run"]) == {"ddim,heun", "ddim · train_seed=1"}
    assert {path.suffix for path in (runs.parent / "out" / "figures").iterdir()} == {".svg"}
    assert "train_seed=1" in text
    assert "2010.02502" in text
    assert "Samples beside the data" in text
    assert "best: " in text


@pytest.mark.slow
def test_the_default_folder_is_a_new_one(runs, capsys):
    report.main(["runs/a"])
    report.main(["runs/a"])
    written = sorted((runs.parent / "multirun").iterdir())
    assert len(written) == 2
    assert all(path.name.startswith("report_2") for path in written)
    assert "Samples beside the data" not in page(written[0])


@pytest.mark.slow  # quick: test_compare.py
def test_two_trainings_are_compared_by_common_random_numbers(runs, capsys):
    report.main(["runs/a", "runs/b", "--compare", "out=out"])
    lines = pd.read_csv(runs.parent / "out" / "differences.csv")
    printed = capsys.readouterr().out
    assert "differences ddim,heun − ddim · train_seed=1, with 95 % intervals; p-values" in printed
    assert printed.count(" oracle ") == (lines["denoiser"] == "oracle").sum()
    assert lines["paired"].all()
    oracle = lines[lines["denoiser"] == "oracle"]
    assert (oracle["difference"] == 0).all()
    assert (lines[lines["denoiser"] == "learned"]["difference"] != 0).any()
    assert "cells of only one run" in page(runs.parent / "out")


@pytest.mark.slow
def test_what_cannot_be_read_of_the_values_is_named_and_the_rest_is_read(runs, reported, capsys):
    run = runs / "a"
    count = len(list((run / "cells").glob("*.json")))
    table = pd.read_parquet(run / "cells.parquet")
    (run / "cells.parquet").write_bytes(b"PAR1 nonsense")
    printed, _, values = reported("runs/a")
    assert "note: #1: skipped cells.parquet: " in printed
    assert len(values) == count
    (run / "cells.parquet").unlink()
    cut, other = sorted((run / "cells").glob("*.json"))[:2]
    cut.write_bytes(cut.read_bytes()[:40])
    other.write_text('{"value": 1}')
    printed, text, values = reported("runs/a", out="cut")
    assert f"note: #1: skipped {cut.name}: " in printed
    assert f"note: #1: skipped {other.name}: no cell_id, dataset" in printed
    assert cut.name in text
    assert len(values) == count - 2
    # a table of another version is read with the columns that it has
    shutil.rmtree(run / "cells")
    old = table.drop(columns=["block", "info", "lower"]).assign(novel=1)
    old.to_parquet(run / "cells.parquet")
    assert len(reported("runs/a", out="old")[2]) == len(table)
    old.drop(columns=["metric"]).to_parquet(run / "cells.parquet")
    report.main(["runs/a", "out=none"])
    assert "note: #1: skipped cells.parquet: no metric" in capsys.readouterr().out


def test_runs_that_are_broken_running_or_failed_say_so(runs, reported):
    def write_status(run, **status):
        status |= {"host": "elsewhere", "process": 1}
        (runs / run / "status.json").write_text(json.dumps(status))

    write_status("a", state="running", message="")
    write_status("b", state="failed", message="OSError: <disk>")
    (runs / "a" / "cells.parquet").unlink()
    fragments = sorted((runs / "a" / "cells").glob("*.json"))
    for path in fragments[: len(fragments) // 2]:
        path.unlink()
    left, total = len(fragments) - len(fragments) // 2, len(fragments)
    printed, text, _ = reported("runs")
    assert f"ddim,heun a: running, {left:,} of {total:,} values" in printed
    assert "ddim · train_seed=1 b: failed" in printed
    assert "OSError: &lt;disk&gt;" in text
    assert f"{left} of {total}" in text
    (runs / "a" / "config.yaml").write_text("a: [1, {")
    (runs / "b" / "run.json").write_text("{")
    printed, _, values = reported("runs", out="broken")
    assert "#1 a: unreadable" in printed
    assert "#2 b: unreadable" in printed
    assert len(values["run"].unique()) == 2


@pytest.mark.slow  # quick: test_plan.py
def test_jobs_that_have_not_begun_are_counted(runs, capsys):
    words = ["n_samples=100", "train_seed=0,1,2", "seed=0,1"]
    plan = {"hydra": {"overrides": {"task": words}}}
    OmegaConf.save(OmegaConf.create(plan), runs / "multirun.yaml")
    shutil.move(runs / "b", runs / "inner" / "b")  # hydra.sweep.subdir=inner/…
    about = json.loads((runs / "inner" / "b" / "run.json").read_text())
    about["overrides"] = ["n_samples=100", "seed=0", "train_seed=1"]
    (runs / "inner" / "b" / "run.json").write_text(json.dumps(about))
    report.main(["runs", "out=out"])
    out = capsys.readouterr().out
    missing = ["seed=0 train_seed=0", "seed=1 train_seed=0", "seed=1 train_seed=1"]
    missing += ["seed=0 train_seed=2", "seed=1 train_seed=2"]
    assert f"runs: 1 of 6 jobs have started; not: {'; '.join(missing)}\n" in out
    assert "runs: runs that its last command does not have: a\n" in out
    (runs / "a" / "run.json").unlink()  # it is not known which of the jobs it is
    report.main(["runs", "out=other"])
    out = capsys.readouterr().out
    assert "runs: 2 of 6 jobs have started" in out
    assert "last command" not in out


def test_a_multirun_whose_jobs_all_wait_and_a_folder_that_is_none(runs, capsys):
    plan = {"hydra": {"overrides": {"task": ["seed=1,2"]}}}
    (runs.parent / "waiting").mkdir()
    OmegaConf.save(OmegaConf.create(plan), runs.parent / "waiting" / "multirun.yaml")
    report.main(["waiting", "out=none"])
    assert "waiting: 0 of 2 jobs have started" in capsys.readouterr().out
    assert not (runs.parent / "none").exists()
    report.main(["waiting", "nowhere", "runs/a", "out=out"])
    out = capsys.readouterr().out
    assert "waiting: 0 of 2 jobs have started" in out
    assert "left out: run=nowhere: must be a folder" in out
    assert "#1 a: finished" in out


@pytest.mark.slow
def test_weights_that_are_gone_cost_the_panels_only(runs, capsys):
    shutil.rmtree(runs / "a" / "checkpoints")
    report.main(["runs/a", "out=out", "panels=true"])
    assert "#1: no sample panels: " in capsys.readouterr().out


def test_mistakes_are_one_line(runs, refuses):
    (runs.parent / "empty").mkdir()
    for words, *messages in (
        ([], "report: must be followed by one or more folders of runs"),
        (["nowhere"], "run=nowhere: must be a folder"),
        (["empty"], "run=empty: must be a folder"),
        (["rnus"], "run=rnus: must be a folder that a job of samplerbench made", "near it: runs"),
        (["runs", "out=runs"], "out=runs: must be a new folder"),
        (["runs", "--comparee"], "report=--comparee: must be left out: report uses out, p"),
        (["runs", "panels=maybe"], "panels=maybe: must be true or false"),
        (["runs", "figures=[png,gif]"], "figure.format=png,gif: must be one or several of"),
        (["runs", "style=column"], "style=column: must be with figures"),
        (["runs", "figures=png", "style=poster"], "figure.style=poster: must be one of page"),
        (["runs", "--compare"], "two folders with one run each", "/1: runs has "),
        (["runs/a", "runs/a", "--compare"], "two different runs"),
    ):
        refuses(["report", *words], *messages)


def test_runs_that_measure_differently_are_not_compared(runs):
    path = runs / "b" / "cells.parquet"
    table = pd.read_parquet(path)
    table.assign(n_samples=99).to_parquet(path, index=False)
    with pytest.raises(InvalidSetting, match="n_samples=150 and 99: must be the same in both"):
        report.main(["runs/a", "runs/b", "--compare", "out=out"])
    assert not (runs.parent / "out").exists()


def test_what_has_no_better_direction_is_read_from_the_source():
    targets = {path.stem: read_member(path)["_target_"] for path in member_files("metric").values()}
    found = _unordered({"metric": {name: {"_target_": of} for name, of in targets.items()}})
    classes = {
        name: getattr(import_module(of.rpartition(".")[0]), of.rpartition(".")[2])
        for name, of in targets.items()
    }
    assert found == {n for n, of in classes.items() if not getattr(of, "smaller_is_better", True)}
    assert found == {"nearest_training", "log_z"}
    for odd in (
        None,
        {},
        {"metric": 3},
        {"metric": {"a": 3, "b": {"_target_": "samplerbench.x.y.Z"}}},
    ):
        assert _unordered(odd) == frozenset()
