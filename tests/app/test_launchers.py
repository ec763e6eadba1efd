"""Hydra's launchers: all give the same table, and report a job that fails.

Slurm is a real one, of a single node, started and stopped by `.ci/slurm`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers import until
from samplerbench.bench.store import CLOCKS

ROOT = Path(__file__).parents[2]
JOB = ("experiment=tiny", "logger=none", "start=exact", "steps=4", "sampler.ddim.eta=0")
ALONE = ("workers=1", "cache_dir=cache", "hydra.sweep.dir=runs")
ORACLE = (*JOB, *ALONE, "denoiser=oracle")


def command(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A multirun in a folder, by the command that a user types."""
    return typed(folder, "-m", *words, **settings)


def typed(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "samplerbench", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The jobs' tables, without their clocks and the folders' names."""
    return {
        path.parent.name: pd.read_parquet(path).drop(columns=list(CLOCKS))
        for path in sorted(folder.glob("runs/*/cells.parquet"))
    }


def same(first: dict[str, pd.DataFrame], second: dict[str, pd.DataFrame]) -> None:
    assert first.keys() == second.keys()
    for job, table in first.items():
        pd.testing.assert_frame_equal(table, second[job], check_exact=True)


def one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Checks that standard error ends with one line with these parts, without a traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith("samplerbench: ")]
    assert len(ours) == 1, done.stderr
    for part in parts:
        assert part in ours[0]


#: Two models, each wanted by two jobs, side by side.
GRID = ("train_seed=0,1", "seed=0,1", "data_seed=0", *JOB, *ALONE, "denoiser=learned")


@pytest.fixture(scope="module")
def basic(tmp_path_factory) -> dict[str, pd.DataFrame]:
    """The grid, one job after the other, without a cache."""
    folder = tmp_path_factory.mktemp("basic")
    done = command(folder, *GRID, "cache=off")
    assert done.returncode == 0, done.stderr
    return tables(folder)


def trainings(folder: Path) -> int:
    """How many jobs trained, as their reports say."""
    return sum("trained in" in path.read_text() for path in folder.glob("runs/*/report.txt"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "slurm"])
def test_a_launcher_changes_no_bit_and_jobs_share_a_training(tmp_path, basic, launcher, request):
    words, settings = [f"hydra/launcher={launcher}"], {}
    if launcher == "joblib":
        words += ["hydra.launcher.n_jobs=4"]
    elif launcher == "slurm":  # an array of jobs
        words, settings = ON_SLURM, request.getfixturevalue("slurm")
    done = command(tmp_path, *words, *GRID, **settings)
    assert done.returncode == 0, done.stderr
    same(tables(tmp_path), basic)
    assert trainings(tmp_path) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_with_bad_input_is_named_and_the_others_run(tmp_path, launcher):
    # no folder is given: all jobs must use the same generated name
    words = [word for word in ORACLE if not word.startswith("hydra.sweep")]
    done = command(tmp_path, f"hydra/launcher={launcher}", *words, "seed=0,-1,1")
    assert done.returncode == 2
    one_line(done, "job 1 of multirun/", "seed=-1: must be at least 0")
    (folder,) = (tmp_path / "multirun").iterdir()
    assert [p.parent.name for p in sorted(folder.glob("*/cells.parquet"))] == ["0", "2"]


@pytest.mark.slow
def test_a_defect_is_one_line_here_and_a_traceback_in_its_log(tmp_path):
    (tmp_path / "lab.py").write_text(
        "from dataclasses import dataclass\n"
        "from samplerbench.logs.base import Logger\n"
        "@dataclass(frozen=True)\n"
        "class Broken(Logger):\n"
        "    def open(self, run):\n"
        "        raise LookupError('defect')\n"
    )
    words = ("logger._target_=lab.Broken", "seed=0,1", "trusted=lab")
    done = command(
        tmp_path, "hydra/launcher=submitit_local", *ORACLE, *words, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith("samplerbench: ")]
    assert ours == [
        f"samplerbench: job {job} of runs: LookupError: defect (lab.py, line 6)" for job in (0, 1)
    ]
    logs = "".join(path.read_text() for path in tmp_path.glob("runs/.submitit/*/*_log.err"))
    assert "Traceback" in logs


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The settings of a running Slurm, which is removed at the end."""
    missing = [name for name in ("slurmctld", "slurmdbd", "mariadbd") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and Debian's Slurm; missing: {' '.join(missing) or 'root'}")
    folder = tmp_path_factory.mktemp("slurm")
    script = ROOT / ".ci" / "slurm"
    try:
        subprocess.run([script, "start", folder], check=True, timeout=120)
        yield {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run([script, "stop", folder], check=True, timeout=120)
    assert not list(folder.glob("*.pid"))


NO_RAY = "needs an environment of its own with '.[ray]', see docs/cluster.md"
ON_SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=60")


@pytest.mark.slow
def test_two_devices_train_in_one_job_of_slurm(tmp_path, slurm):
    """Slurm's variables say that there is one task; the training forks its two processes itself."""
    words = (*JOB, *ALONE, "denoiser=learned", "trainer=ddp", "trainer.devices=2")
    few = ("trainer.steps=50", "trainer.warmup=0")
    on = command(
        tmp_path / "on", *ON_SLURM, "hydra.launcher.cpus_per_task=2", *words, *few, **slurm
    )
    alone = command(tmp_path / "alone", *words, *few, "cache=off")
    assert on.returncode == alone.returncode == 0, on.stderr + alone.stderr
    same(tables(tmp_path / "on"), tables(tmp_path / "alone"))


def begin(folder: Path, slurm: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """A multirun on Slurm, begun."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "samplerbench", "-m", *ON_SLURM, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | slurm,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_slurm(slurm: dict[str, str], *words: str | Path) -> str:
    """The output of a command of Slurm."""
    done = subprocess.run(
        words,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | slurm,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    return done.stdout


def urgent(slurm: dict[str, str]) -> None:
    """A job for which Slurm takes the others off the machine."""
    words = ("--wait", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true")
    on_slurm(slurm, "sbatch", *words)


def signal_job(slurm: dict[str, str], folder: Path, job: int) -> None:
    """The warning before a job is taken away."""
    (path,) = folder.glob(f"runs/.submitit/*_{job}")
    on_slurm(slurm, "scancel", "--signal=USR2", path.name)


@pytest.mark.slow
def test_a_job_that_slurm_kills_is_said_in_one_line(tmp_path, slurm):
    running = begin(tmp_path, slurm, *ORACLE, "repetitions=2,3000")
    until(lambda: any(tmp_path.glob("runs/1/cells/*.json")))
    (path,) = tmp_path.glob("runs/.submitit/*_1")
    on_slurm(slurm, "scancel", path.name)
    out, err = running.communicate(timeout=200)
    done = subprocess.CompletedProcess([], running.returncode, out, err)
    assert done.returncode == 1
    one_line(done, path.name, "CANCELLED")
    assert (tmp_path / "runs" / "0" / "cells.parquet").is_file()


#: A job that trains and one that does not, each long enough to be taken away in the middle.
LONG = (*JOB, *ALONE, "denoiser=learned,oracle", "trainer.steps=4000", "repetitions=300")


@pytest.mark.slow
def test_jobs_that_are_taken_away_go_on_and_end_with_the_table_of_ones_left_alone(tmp_path, slurm):
    """Slurm preempts one job in its training for a more urgent job, and a signal stops another."""
    alone, folder = tmp_path / "alone", tmp_path / "taken"
    done = command(alone, *LONG, "cache=off")
    assert done.returncode == 0, done.stderr
    running = begin(folder, slurm, *LONG)
    # which comes first depends on how many jobs run at a time
    taken = {
        "cache/trainings/*/state.ckpt": lambda: urgent(slurm),
        "runs/1/cells/*.json": lambda: signal_job(slurm, folder, 1),
    }
    while taken:
        until(lambda: any(any(folder.glob(sign)) for sign in taken))
        sign = next(sign for sign in taken if any(folder.glob(sign)))
        taken.pop(sign)()
    _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    same(tables(folder), tables(alone))
    for job in ("0", "1"):
        status = json.loads((folder / "runs" / job / "status.json").read_bytes())
        assert status["slurm"][1] != "0"  # it was begun again
    assert "it continues where it was interrupted" in (folder / "runs/0/report.txt").read_text()


@pytest.mark.slow
def test_a_job_goes_on_after_its_time_limit(tmp_path, slurm):
    """A job of hours with a time limit of two minutes: Slurm warns it, and submitit requeues it."""
    limit = ("timeout_min=2", "signal_delay_s=60", "max_num_timeout=1")
    words = (f"hydra.launcher.{setting}" for setting in limit)
    running = begin(tmp_path, slurm, *ORACLE, "repetitions=50000", *words)
    values, stored = tmp_path / "runs" / "0" / "cells", tmp_path / "runs" / "0" / "status.json"
    until(stored.is_file)

    def slurms() -> list[str]:
        number, begun_again = json.loads(stored.read_bytes())["slurm"]
        return [number, begun_again]

    number, begun_again = slurms()
    assert begun_again == "0"
    until(lambda: slurms() == [number, "1"], 300)
    before = {path.name for path in values.glob("*.json")}
    assert before
    until(lambda: len(list(values.glob("*.json"))) > len(before))
    assert before <= {path.name for path in values.glob("*.json")}
    on_slurm(slurm, "scancel", "--signal=KILL", number)
    running.kill()
    running.communicate()


@pytest.mark.slow
def test_the_batch_script_of_the_docs_requeues_its_job(tmp_path, slurm):
    page = (ROOT / "docs" / "cluster.md").read_text()
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    (tmp_path / "job.sh").write_text(script)
    words = (*JOB, "workers=1", "denoiser=oracle", "repetitions=1000", "hydra.run.dir=runs/0")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    submit = ("sbatch", "--parsable", f"--chdir={tmp_path}", tmp_path / "job.sh", *words)
    number = on_slurm(slurm | {"PATH": path}, *submit).strip()
    until(lambda: any(tmp_path.glob("runs/0/cells/*.json")))
    on_slurm(slurm, "scancel", "--batch", "--signal=USR1", number)

    def status() -> dict[str, Any]:
        return json.loads((tmp_path / "runs" / "0" / "status.json").read_bytes())

    until(lambda: status()["state"] == "finished")
    assert status()["slurm"] == [number, "1"]
    done = command(tmp_path / "alone", *words[:-1], "hydra.sweep.dir=runs", "cache=off")
    assert done.returncode == 0, done.stderr
    same(tables(tmp_path), tables(tmp_path / "alone"))


#: A few minutes' work of the suite: two entrants on five tasks.
SUITE = ("suite", "suite=quick", "sampler=[euler,heun]", "logger=none", "workers=1", "cache=off")
SUITE += ("hydra.sweep.dir=runs",)


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The uninterrupted suite in one process: its folder and its output."""
    folder = tmp_path_factory.mktemp("suite")
    done = typed(folder, *SUITE)
    assert done.returncode == 0, done.stderr
    return folder, done


def same_suite(folder: Path, other: Path) -> None:
    same(tables(folder), tables(other))
    for name in ("results.parquet", "entry.parquet"):
        pd.testing.assert_frame_equal(
            *(pd.read_parquet(one / "runs" / name) for one in (folder, other)), check_exact=True
        )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "slurm", "ray"])
def test_the_suite_has_the_same_bits_and_is_as_quiet(tmp_path, launcher, request):
    words, settings = (f"hydra/launcher={launcher}",), {}
    if launcher == "joblib":
        words += ("hydra.launcher.n_jobs=2",)
    elif launcher == "slurm":
        words, settings = ON_SLURM, request.getfixturevalue("slurm")
    elif find_spec("ray") is None:
        pytest.skip(NO_RAY)
    folder, alone = request.getfixturevalue("suite")
    done = typed(tmp_path, *SUITE, *words, **settings)
    assert done.returncode == 0, done.stderr
    same_suite(tmp_path, folder)
    lines, expected = done.stdout.splitlines(), alone.stdout.splitlines()
    if launcher == "ray":  # its driver prints the last lines of the jobs in between
        lines = [line for line in lines if "(_run_job pid=" not in line]
    assert lines == expected
    if launcher == "joblib":  # the others have logs of their own
        assert done.stderr == alone.stderr
        assert (tmp_path / "runs" / "output.txt").read_text().count("\ntable: ") == 5


@pytest.mark.slow
def test_a_suite_that_is_killed_goes_on_and_computes_no_value_again(tmp_path, suite):
    """Finished values are in the cache."""
    words = [word for word in SUITE if word != "cache=off"] + ["cache_dir=cache"]
    command = [sys.executable, "-m", "samplerbench", *words]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    # the first job is done, the second is among its values
    until(lambda: any(tmp_path.glob("runs/1/cells/*.json")), 300)
    running.kill()
    running.communicate()
    assert not (tmp_path / "runs" / "results.parquet").exists()
    finished = tmp_path.glob("cache/values/**/*.json")
    before = {path: path.stat().st_mtime_ns for path in finished}
    assert len(before) >= len(tables(tmp_path)["0"])
    done = typed(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    same_suite(tmp_path, suite[0])
    assert before == {path: path.stat().st_mtime_ns for path in before}
    output = (tmp_path / "runs" / "output.txt").read_text()
    known = re.findall(r"^(\d+) values were known", output, re.MULTILINE)
    assert sum(map(int, known)) == len(before)


@pytest.mark.slow
def test_optuna_minimises_the_mean_of_one_metric(tmp_path):
    if find_spec("optuna") is None:
        pytest.skip("needs pip install -c constraints.txt '.[optuna]'")
    sweeper = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1")
    words = ("metric=[sliced,exact_w2]", "sweeper_metric=exact_w2", "denoiser=oracle")
    words += (*JOB[:-1], *ALONE, "sampler.ddim.eta=interval(0,1)")
    done = command(tmp_path, *sweeper, *words)
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "runs" / "optimization_results.yaml").read_text()
    best = float(found.split("best_value:")[1].split()[0])
    own = "metric == 'exact_w2' and denoiser == 'oracle'"
    means = [table.query(own)["value"].mean() for table in tables(tmp_path).values()]
    assert best == pytest.approx(min(means))
