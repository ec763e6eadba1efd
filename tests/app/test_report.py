"""`samplerbench report`: over real runs, broken ones, running ones, and none."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module

import pandas as pd
import pytest
from omegaconf import OmegaConf

from samplerbench.app.commands import report
from samplerbench.app.commands.report import _unordered
from samplerbench.app.config.construct import read_member
from samplerbench.app.config.folders import members
from samplerbench.errors import InvalidSetting

RUN = ["experiment=tiny", "logger=none", "n_samples=100", "n_reference=200", "steps=[2,4]"]


def job(folder, *words):
    environment = dict(os.environ, WANDB_MODE="offline")
    command = [sys.executable, "-m", "samplerbench", *RUN, *words]
    subprocess.run(
        [*command, f"hydra.run.dir={folder}"], env=environment, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs that measure the same, the second with a budget's helpers and its training."""
    folder = tmp_path_factory.mktemp("runs")
    job(folder / "a", "sampler=[ddim,heun]")
    job(folder / "b", "train_seed=1")
    return folder


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def page(folder):
    return (folder / "report.html").read_text()


def test_a_report_over_a_folder_of_runs(runs, capsys):
    report.main(["runs", "out=out"])
    out = capsys.readouterr().out
    assert "#1 a: finished" in out
    assert "#2 b: finished" in out
    assert out.splitlines()[-1] == "report: out/report.html"
    text = page(runs.parent / "out")
    values = pd.read_csv(runs.parent / "out" / "cells.csv")
    assert set(values["run"]) == {"#1", "#2"}
    assert "train_seed=1" in text
    assert "2010.02502" in text
    assert "Samples beside the data" in text
    assert "best: " in text


def test_the_default_folder_is_a_new_one(runs, capsys):
    report.main(["runs/a", "panels=false"])
    report.main(["runs/a", "panels=false"])
    written = sorted((runs.parent / "multirun").iterdir())
    assert len(written) == 2
    assert all(path.name.startswith("report_2") for path in written)
    assert "Samples beside the data" not in page(written[0])


def test_two_trainings_are_compared_by_common_random_numbers(runs, capsys):
    report.main(["runs/a", "runs/b", "--compare", "out=out", "panels=false"])
    lines = pd.read_csv(runs.parent / "out" / "differences.csv")
    assert lines["paired"].all()
    oracle = lines[lines["denoiser"] == "oracle"]
    assert (oracle["difference"] == 0).all()
    assert (lines[lines["denoiser"] == "learned"]["difference"] != 0).any()
    assert "cells of only one run" in page(runs.parent / "out")


def test_a_cut_fragment_is_named_and_the_rest_is_read(runs, capsys):
    (runs / "a" / "cells.parquet").unlink()
    cut, other = sorted((runs / "a" / "cells").glob("*.json"))[:2]
    cut.write_bytes(cut.read_bytes()[:40])
    other.write_text('{"value": 1}')
    count = len(list((runs / "a" / "cells").glob("*.json")))
    report.main(["runs/a", "out=out", "panels=false"])
    out = capsys.readouterr().out
    assert f"note: #1: skipped {cut.name}: " in out
    assert f"note: #1: skipped {other.name}: no cell_id, dataset" in out
    assert cut.name in page(runs.parent / "out")
    assert len(pd.read_csv(runs.parent / "out" / "cells.csv")) == count - 2


def test_a_parquet_that_is_none_is_named_and_the_fragments_are_read(runs, capsys):
    (runs / "a" / "cells.parquet").write_bytes(b"PAR1 nonsense")
    report.main(["runs/a", "out=out", "panels=false"])
    assert "note: #1: skipped cells.parquet: " in capsys.readouterr().out
    values = pd.read_csv(runs.parent / "out" / "cells.csv")
    assert len(values) == len(list((runs / "a" / "cells").glob("*.json")))


def test_a_table_of_another_version_is_read_with_the_columns_it_has(runs, capsys):
    shutil.rmtree(runs / "a" / "cells")
    path = runs / "a" / "cells.parquet"
    table = pd.read_parquet(path).drop(columns=["block", "info", "lower"]).assign(novel=1)
    table.to_parquet(path)
    report.main(["runs/a", "out=out", "panels=false"])
    values = pd.read_csv(runs.parent / "out" / "cells.csv")
    assert len(values) == len(table)
    table.drop(columns=["metric"]).to_parquet(path)
    report.main(["runs/a", "out=other", "panels=false"])
    assert "note: #1: skipped cells.parquet: no metric" in capsys.readouterr().out


def test_a_config_that_cannot_be_read_costs_the_config_only(runs, capsys):
    (runs / "a" / "config.yaml").write_text("a: [1, {")
    (runs / "b" / "run.json").write_text("{")
    report.main(["runs", "out=out"])
    out = capsys.readouterr().out
    assert "#1 a: unreadable" in out
    assert "#2 b: unreadable" in out
    assert len(pd.read_csv(runs.parent / "out" / "cells.csv")["run"].unique()) == 2


def test_a_running_and_a_failed_run_say_how_far_they_are(runs, capsys):
    (runs / "a" / "status.json").write_text(
        json.dumps({"state": "running", "message": "", "host": "elsewhere", "process": 1})
    )
    (runs / "b" / "status.json").write_text(
        json.dumps({"state": "failed", "message": "OSError: <disk>", "host": "x", "process": 1})
    )
    (runs / "a" / "cells.parquet").unlink()
    fragments = sorted((runs / "a" / "cells").glob("*.json"))
    for path in fragments[: len(fragments) // 2]:
        path.unlink()
    left, total = len(fragments) - len(fragments) // 2, len(fragments)
    report.main(["runs", "out=out", "panels=false"])
    out = capsys.readouterr().out
    assert f"#1 a: running, {left:,} of {total:,} values" in out
    assert "#2 b: failed" in out
    text = page(runs.parent / "out")
    assert "OSError: &lt;disk&gt;" in text
    assert f"{left} of {total}" in text


def test_jobs_that_have_not_begun_are_counted(runs, capsys):
    words = [*RUN, "train_seed=0,1,2", "seed=0,1"]
    plan = {"hydra": {"overrides": {"task": words}}}
    OmegaConf.save(OmegaConf.create(plan), runs / "multirun.yaml")
    shutil.move(runs / "b", runs / "inner" / "b")  # hydra.sweep.subdir=inner/…
    about = json.loads((runs / "inner" / "b" / "run.json").read_text())
    about["overrides"] = [*RUN, "seed=0", "train_seed=1"]
    (runs / "inner" / "b" / "run.json").write_text(json.dumps(about))
    report.main(["runs", "out=out", "panels=false"])
    out = capsys.readouterr().out
    missing = ["seed=0 train_seed=0", "seed=1 train_seed=0", "seed=1 train_seed=1"]
    missing += ["seed=0 train_seed=2", "seed=1 train_seed=2"]
    assert f"runs: 1 of 6 jobs have begun; not: {'; '.join(missing)}\n" in out
    assert "runs: not of its last command: a\n" in out
    (runs / "a" / "run.json").unlink()  # which of the jobs it is nobody knows
    report.main(["runs", "out=other", "panels=false"])
    out = capsys.readouterr().out
    assert "runs: 2 of 6 jobs have begun" in out
    assert "last command" not in out


def test_a_multirun_whose_jobs_all_wait_and_a_folder_that_is_none(runs, capsys):
    plan = {"hydra": {"overrides": {"task": ["seed=1,2"]}}}
    (runs.parent / "waiting").mkdir()
    OmegaConf.save(OmegaConf.create(plan), runs.parent / "waiting" / "multirun.yaml")
    report.main(["waiting", "out=none"])
    assert "waiting: 0 of 2 jobs have begun" in capsys.readouterr().out
    assert not (runs.parent / "none").exists()
    report.main(["waiting", "nowhere", "runs/a", "out=out", "panels=false"])
    out = capsys.readouterr().out
    assert "waiting: 0 of 2 jobs have begun" in out
    assert "left out: run=nowhere: must be a folder" in out
    assert "#1 a: finished" in out


def test_weights_that_are_gone_cost_the_panels_only(runs, capsys):
    shutil.rmtree(runs / "a" / "checkpoints")
    report.main(["runs/a", "out=out"])
    assert "#1: no sample panels: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "report=no folder"),
        (["nowhere"], "run=nowhere: must be a folder"),
        (["empty"], "run=empty: must be a folder"),
        (["runs", "out=runs"], "out=runs: must be a folder that is not there yet"),
        (["runs", "--comparee"], "report=--comparee: must be left out: report uses out, panels"),
        (["runs", "panels=maybe"], "panels=maybe: must be true or false"),
        (["runs", "--compare"], "two folders with one run each"),
        (["runs/a", "runs/a", "--compare"], "two different runs"),
    ],
)
def test_mistakes_are_one_line(runs, words, message):
    (runs.parent / "empty").mkdir()
    before = sorted(runs.parent.rglob("*"))
    with pytest.raises(InvalidSetting, match=message) as caught:
        report.main(words)
    assert "\n" not in str(caught.value)
    assert sorted(runs.parent.rglob("*")) == before


def test_runs_that_measure_differently_are_not_compared(runs):
    path = runs / "b" / "cells.parquet"
    table = pd.read_parquet(path)
    table.assign(n_samples=99).to_parquet(path, index=False)
    with pytest.raises(InvalidSetting, match="n_samples=100 and 99: must be the same in both"):
        report.main(["runs/a", "runs/b", "--compare", "out=out"])
    assert not (runs.parent / "out").exists()


def test_a_read_only_run_is_only_read(runs):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    report.main(["runs", "out=out", "panels=false"])
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_what_has_no_better_direction_is_read_from_the_source():
    targets = {path.stem: read_member(path)["_target_"] for path in members("metric").values()}
    found = _unordered({"metric": {name: {"_target_": of} for name, of in targets.items()}})
    classes = {
        name: getattr(import_module(of.rpartition(".")[0]), of.rpartition(".")[2])
        for name, of in targets.items()
    }
    assert found == {n for n, of in classes.items() if not getattr(of, "smaller_is_better", True)}
    assert found == {"nearest_training"}
    for odd in (
        None,
        {},
        {"metric": 3},
        {"metric": {"a": 3, "b": {"_target_": "samplerbench.x.y.Z"}}},
    ):
        assert _unordered(odd) == frozenset()


def test_the_command_is_one_of_the_program(runs):
    command = [sys.executable, "-m", "samplerbench", "report", "empty"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("samplerbench: run=empty: must be a folder")
    assert done.stderr.count("\n") == 1
