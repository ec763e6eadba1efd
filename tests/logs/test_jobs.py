"""The logs of jobs: what docs/wandb.md promises, one whole log for a job, no effect of ranks."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from samplerbench.app.main import main
from samplerbench.logs.base import NoLogger

PAGE = Path(__file__).parents[2] / "docs" / "wandb.md"
KEY = "0123456789abcdef" * 2 + "01234567"
METRIC = "max_sliced_certified"
FEW = ["steps=[2,3]", "n_samples=60", "block=30", "n_train=100", "n_validation=20", "workers=1"]
FEW += ["n_reference=80", "repetitions=2", "floor_repetitions=2", "trainer=tiny"]
TRAINED = ["trainer.steps=3", "trainer.log_every=1", "cache=off"]


def documented(heading):
    """The first command in a section of the page, without `samplerbench`."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2]
    return shlex.split(re.search(r"^samplerbench (.+)$", section, re.M)[1], comments=True)


def children():
    """The running child processes of this process, from Linux's own list."""
    lists = Path("/proc/self/task").glob("*/children")
    return {child for children in lists for child in children.read_text().split()}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Runs a command line in an empty folder, with a key in the environment: its run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)

        def run(*words):
            patch.chdir(tmp_path_factory.mktemp("run"))
            patch.setenv("WANDB_API_KEY", KEY)
            patch.setattr(sys, "argv", ["samplerbench", *words, *FEW, *TRAINED])
            before = children()
            main()
            assert children() <= before, "a process is still there"
            [folder] = Path("multirun").absolute().glob("20*")
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert any(path.suffix == ".wandb" for path in files)
            assert not [path for path in files if KEY.encode() in path.read_bytes()]
            return folder

        yield run


def curves(run, prefix, x="nfe"):
    keys = {key for row in run["history"] for key in row if key.startswith(prefix)}
    return {
        key.removeprefix(prefix): {row[x]: row[key] for row in run["history"] if key in row}
        for key in keys
    }


@pytest.mark.slow  # quick: test_logs.py, and test_main.py's whole job
def test_samplers_on_one_model_are_curves_over_evaluations_in_one_run(job, wandb_runs):
    folder = job(*documented("Samplers on one model"))
    [run] = wandb_runs(folder)
    assert run["display_name"] == "ddim,heun,dpm_solver_pp · edm · grid_mixture"
    assert set(run["tags"]) == {"ddim", "heun", "dpm_solver_pp", "edm", "grid_mixture"}
    assert not run.get("run_group")
    assert run["config"]["choices"]["sampler"] == "ddim,heun,dpm_solver_pp"
    assert run["config"]["sampler"]["ddim"]["eta"] == [0, 1]
    assert run["losses"] == rows_of(folder / "losses.csv")

    cells = pd.read_parquet(folder / "cells.parquet")
    shown = curves(run, f"{METRIC}/learned/prior/")
    assert set(shown) == {"ddim_eta_0", "ddim_eta_1", "heun", "dpm_solver_pp_points_2"}
    heun = cells.query("denoiser == 'learned' and start == 'prior' and sampler == 'heun'")
    assert shown["heun"] == pytest.approx(dict(heun.groupby("nfe")["value"].mean()))
    assert list(shown["heun"]) == [3, 5]
    in_steps = curves(run, f"{METRIC}/learned/prior/", "steps")["heun"]
    assert in_steps == pytest.approx(dict(heun.groupby("steps")["value"].mean()))
    for key in {key for row in run["history"] for key in row if key.startswith(f"{METRIC}/")}:
        assert run["metrics"][key]["step_metric"] == "nfe"
        assert re.fullmatch("[a-zA-Z][a-zA-Z0-9_/]*", key)  # the app can sort and filter by it

    table = json.loads((run["files"] / run["last"]["cells.path"]).read_text())
    assert len(table["data"]) == len(cells)
    drawn = run["files"] / run["last"][f"distance/{METRIC}.path"]
    assert drawn.read_bytes() == (folder / f"distance_{METRIC}.png").read_bytes()
    for name in ("report.txt", "cells.parquet", "losses.csv"):
        assert (run["files"] / name).read_bytes() == (folder / name).read_bytes()

    # one call for each loss, two tables, the figure, and each pair of steps and evaluations
    pairs = cells[cells["denoiser"] != "law"][["steps", "nfe"]].drop_duplicates()
    assert len(run["history"]) == len(run["losses"]) + 3 + len(pairs)


def test_the_names_group_tags_and_choices_of_jobs_that_are_not_run(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("samplerbench.app.job.run.execute", lambda *_: [])
    open_it = NoLogger.open
    monkeypatch.setattr(
        NoLogger, "open", lambda self, run: opened.append(run) or open_it(self, run)
    )
    monkeypatch.chdir(tmp_path)
    words = ["sampler=heun", "objective=edm,ncsn", "logger=none", "hydra.sweep.dir=runs"]
    monkeypatch.setattr(sys, "argv", ["samplerbench", "-m", *words, *FEW])
    main()
    assert [run.name for run in opened] == [f"heun · {of} · grid_mixture" for of in ("edm", "ncsn")]
    assert {run.group for run in opened} == {"runs"}
    assert [run.tags for run in opened] == [["grid_mixture", of, "heun"] for of in ("edm", "ncsn")]
    assert [run.config["choices"]["objective"] for run in opened] == ["edm", "ncsn"]
    assert {run.config["choices"]["sampler"] for run in opened} == {"heun"}


@pytest.mark.slow  # quick: the test above
def test_runs_of_a_multirun_share_a_group_and_differ_in_name_and_choices(job, wandb_runs):
    folder = job(*documented("Objectives on one sampler")[:-1], "objective=edm,ncsn")
    runs = [run for place in sorted(folder.glob("[0-9]*")) for run in wandb_runs(place)]
    assert [run["config"]["choices"]["objective"] for run in runs] == ["edm", "ncsn"]
    names = [f"heun · {objective} · grid_mixture" for objective in ("edm", "ncsn")]
    assert [run["display_name"] for run in runs] == names
    assert {run["run_group"] for run in runs} == {folder.name}
    # one panel: the same key and axis
    learned = [curves(run, f"{METRIC}/learned/prior/")["heun"] for run in runs]
    assert [list(curve) for curve in learned] == [[3, 5]] * 2
    assert learned[0] != learned[1]
    one, other = (curves(run, f"{METRIC}/oracle/") for run in runs)
    assert one == other  # it depends on the seed only


@pytest.mark.slow
def test_the_command_for_seeds_runs(job, wandb_runs):
    folder = job(*documented("Seeds"))
    assert [len(wandb_runs(place)) for place in sorted(folder.glob("[0-9]*"))] == [1, 1, 1]


@pytest.mark.slow
def test_an_error_budget_is_logged_as_table_figure_and_file(job, wandb_runs):
    words = ["experiment=budget", "denoiser=oracle", "budget.converged_steps=8"]
    folder = job(*words, "sampler.ddim.eta=0")
    [run] = wandb_runs(folder)
    assert run["display_name"] == "ddim · oracle · grid_mixture"
    table = json.loads((run["files"] / run["last"]["budget.path"]).read_text())
    assert len(table["data"]) == len(pd.read_csv(folder / "budget.csv"))
    cells = pd.read_parquet(folder / "cells.parquet")
    assert {"data", "exact", "converged", "doubled"} == set(cells["reference"])
    drawn = run["files"] / run["last"][f"budget/{METRIC}.path"]
    assert drawn.read_bytes() == (folder / f"budget_{METRIC}.png").read_bytes()
    assert (run["files"] / "budget.csv").read_bytes() == (folder / "budget.csv").read_bytes()


def rows_of(path):
    """The rows of a file of losses."""
    table = pd.read_csv(path, float_precision="round_trip")
    return list(table.itertuples(index=False, name=None))


JOB = [*FEW, "denoiser=learned", "sampler.ddim.eta=0", "hydra.run.dir=run", "cache_dir=cache"]
JOB += ["trainer.steps=30", "trainer.log_every=5", "trainer.validate_every=10"]
JOB += ["steps=[2]", "start=prior", "metric=sliced", "figure.format=[]"]


@pytest.mark.slow
def test_a_job_that_is_begun_again_has_one_whole_log(tmp_path, monkeypatch, capsys):
    """It is interrupted in its training, runs to its end, and runs again with all values known."""
    folder = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["samplerbench", *JOB, "logger=csv"])

    def stop(keeper, trainer, *_):
        if trainer.global_step == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("samplerbench.training.loop.Keeper.on_validation_end", stop)
        with pytest.raises(SystemExit):
            main()
    partial = rows_of(folder / "csv" / "losses.csv")
    assert [step for step, name, _ in partial if name == "train"] == [5, 10, 15, 20]
    for earlier in ("csv.1", "csv.2"):
        main()
        warning = f"an earlier log of this job is now {folder / earlier}; the new log is"
        assert warning in capsys.readouterr().err
        whole = rows_of(folder / "csv" / "losses.csv")
        assert [step for step, name, _ in whole if name == "train"] == [5, 10, 15, 20, 25, 30]
        assert [step for step, name, _ in whole if name == "validation"] == [10, 20, 30]
        assert whole == rows_of(folder / "losses.csv")
        assert set(partial) <= set(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK"]
)
def test_a_rank_in_the_environment_of_a_new_process_changes_no_log(variable, tmp_path):
    words = [sys.executable, "-m", "samplerbench", *JOB, "logger=csv"]
    ranked = os.environ | {variable: "1"}
    subprocess.run(words, cwd=tmp_path, env=ranked, check=True, capture_output=True)
    losses = rows_of(tmp_path / "run" / "csv" / "losses.csv")
    assert len(losses) == 9
    assert losses == rows_of(tmp_path / "run" / "losses.csv")
