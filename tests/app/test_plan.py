"""A multirun's folder: started, extended, refused; and the jobs of its plan."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from omegaconf import OmegaConf

from helpers import until
from samplerbench.app.commands import report
from samplerbench.app.config.construct import trusting
from samplerbench.app.folder.claim import versions, why_refused
from samplerbench.app.folder.plan import read_plan
from samplerbench.app.folder.runs import find_runs, open_run
from samplerbench.bench.store import CLOCKS

WORDS = ("experiment=tiny", "logger=none", "denoiser=oracle", "start=exact", "steps=4")
WORDS += ("sampler.ddim.eta=0", "n_samples=50", "block=50", "workers=1", "hydra.sweep.dir=grid")


@pytest.fixture
def multirun(command, monkeypatch, tmp_path, capfd):
    """Run a multirun in an empty folder: (status, standard error)."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: (command("-m", *WORDS, *words), capfd.readouterr().err)


def jobs(folder):
    """The seeds of the runs in a folder, by the name of each."""
    told = {path.name: open_run(path).config for path in find_runs(folder)}
    return {name: (config.n_samples, config.seed) for name, config in told.items()}


@pytest.mark.slow
def test_a_widened_multirun_goes_on_in_its_folder(multirun, tmp_path, capfd):
    """The numbers of jobs change: 3 in the second command is 2 in the first, and 4 is 3."""
    grid = tmp_path / "grid"
    assert multirun("n_samples=50,60", "seed=0,1")[0] == 0
    before = jobs(grid)
    assert before == {"0": (50, 0), "1": (50, 1), "2": (60, 0), "3": (60, 1)}
    values = {path: pd.read_parquet(path) for path in grid.rglob("cells.parquet")}
    for _ in range(2):  # the same command again finds every job where it is
        assert multirun("n_samples=50,60", "seed=0,1,2")[0] == 0
        after = jobs(grid)
        beside = next(name for name in after if name.startswith("2_"))
        assert after == before | {beside: (50, 2), "5": (60, 2)}
        assert sorted(path.name for path in grid.iterdir()) == sorted([*after, "multirun.yaml"])
    for path, table in values.items():
        clocks = list(CLOCKS)
        pd.testing.assert_frame_equal(
            pd.read_parquet(path).drop(columns=clocks), table.drop(columns=clocks)
        )
    capfd.readouterr()
    report.main(["grid", "out=page", "panels=false"])
    out = capfd.readouterr().out
    assert "note: grid: " not in out
    assert f"grid/{beside}: finished" in out
    assert multirun("n_samples=50", "seed=0,2")[0] == 0  # narrower
    assert jobs(grid) == after
    capfd.readouterr()
    report.main(["grid", "out=narrow", "panels=false"])
    assert (
        "note: grid: runs that its last command does not have: 1, 2, 3, 5\n"
        in capfd.readouterr().out
    )


@pytest.mark.slow
def test_every_refused_job_is_named(multirun, tmp_path):
    assert multirun("seed=0,1,2")[0] == 0
    assert multirun("seed=1,2")[0] == 0
    for path in tmp_path.glob("grid/*/run.json"):
        about = json.loads(path.read_text())
        about["versions"]["torch"] = "1.0"
        path.write_text(json.dumps(about))
    status, err = multirun("seed=1,2")
    assert status == 2
    lines = [line for line in err.splitlines() if line.startswith("samplerbench: job")]
    assert len(lines) == 2  # not that of seed=0, which is not of this command
    assert all("with other versions: torch 1.0" in line for line in lines)
    assert f"{tmp_path}/grid/1: must be a folder" in lines[0]
    assert "job 2 of grid: it was made with other versions" in lines[1]


def test_jobs_stay_below_their_multirun(multirun, tmp_path):
    for subdir in ("../../out_${hydra.job.num}", "/tmp/x", "'../x'", "a,../b"):
        status, err = multirun("seed=0,1", f"hydra.sweep.subdir={subdir}")
        assert (status, err.count("\n")) == (2, 1)
        assert "must be a folder below hydra.sweep.dir" in err
    assert not list(tmp_path.iterdir())


def test_jobs_stay_below_their_multirun_also_by_the_environment(multirun, tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "../other")
    status, err = multirun("seed=0,1", "hydra.sweep.subdir=${oc.env:WHERE}")
    assert status == 2
    assert "job 0 of grid: hydra.sweep.subdir=../other: must be a folder" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.slow
def test_nested_folders_of_jobs_are_counted(multirun, capfd):
    assert multirun("seed=0", "hydra.sweep.subdir=a/b/${hydra.job.num}")[0] == 0
    report.main(["grid", "out=page", "panels=false"])
    assert "note" not in capfd.readouterr().out


@pytest.mark.slow
def test_workers_of_joblib_end_with_the_command(tmp_path):
    """After the command was killed, its jobs are interrupted, and their folders are free."""
    words = ["-m", *WORDS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "repetitions=50000"]
    command = [sys.executable, "-m", "samplerbench", *words, "seed=0,1"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    until(lambda: all(any(tmp_path.glob(f"grid/{job}/cells/*.json")) for job in (0, 1)))
    assert running.poll() is None
    folders = find_runs(tmp_path)
    assert {open_run(folder).state for folder in folders} == {"running"}
    running.kill()
    running.wait()
    until(lambda: {open_run(folder).state for folder in folders} == {"interrupted"})


def plan(tmp_path, words, **sweeper):
    path = tmp_path / "multirun.yaml"
    OmegaConf.save({"hydra": {"overrides": {"task": words}, "sweeper": sweeper}}, path)
    return read_plan(path)


def test_a_plan_is_hydra_s_own(tmp_path):
    found = plan(tmp_path, ["b=1,2", "c=[1,2]", "b=3,4"], params={"a": "range(0,2)"})
    assert found.count == 4
    assert found.jobs == tuple(
        frozenset({f"a={a}", f"b={b}", "c=[1,2]"}) for a in (0, 1) for b in (3, 4)
    )
    assert found.short_names(found.jobs[:1]) == ["a=0 b=3"]
    assert plan(tmp_path, ["a=1,2"], _target_="optuna.Sweeper") is None
    assert plan(tmp_path, ["a=interval(0,1)"]) is None
    assert plan(tmp_path, ["a=range(0,1000)", "b=range(0,1000)"]).count == 10**6
    assert len(plan(tmp_path, ["a=range(0,1e18)"]).jobs) == 10**4
    (tmp_path / "multirun.yaml").write_text("hydra: [")
    assert read_plan(tmp_path / "multirun.yaml") is None


def test_a_trusted_package_is_part_of_the_versions_that_are_compared(tmp_path, monkeypatch):
    """After the command, when no package is trusted any more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trusted_one").mkdir()
    code = tmp_path / "trusted_one" / "__init__.py"
    code.write_text("value = 1\n")
    with trusting("trusted_one"):
        before = versions()
    assert "trusted_one" in before
    config = OmegaConf.create({"trusted": "trusted_one"})
    run = SimpleNamespace(state="finished", config=config, versions=before)
    assert why_refused(run) == ""
    code.write_text("value = 2\n")
    assert "it was made with other versions: trusted_one" in why_refused(run)
