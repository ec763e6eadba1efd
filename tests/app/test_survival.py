"""Sweeps that are killed at any moment, damaged or run twice at once end with the same bits."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from samplerbench.app.folder.runs import find_runs, open_run
from samplerbench.app.job import run as job  # imported once, not in each child
from samplerbench.app.main import main
from samplerbench.bench.store import CLOCKS

WORDS = [
    "experiment=tiny",
    "logger=none",
    "trainer.steps=20",
    "trainer.log_every=5",
    "n_samples=50",
]
WORDS += ["block=50", "sampler.ddim.eta=[0,1]", "steps=[2,3,4]", "workers=2", "figure.format=[]"]


def start(directory: Path, *words: str) -> int:
    """Begin a command in a process of its own, which has imported everything already."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(directory)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            sys.argv = ["samplerbench", *WORDS, *words]
            main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            os._exit(code)
    return child


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def table(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "cells.parquet").drop(columns=list(CLOCKS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of an undisturbed command, and the seconds it took."""
    assert job is not None
    directory = tmp_path_factory.mktemp("whole")
    began = time.perf_counter()
    assert finish(start(directory)) == 0
    (run,) = find_runs(directory)
    return table(run), time.perf_counter() - began


@pytest.mark.slow
def test_killed_at_twenty_moments_the_table_is_that_of_a_run_left_alone(whole, tmp_path):
    """If a command ends before it is killed, the next one begins in a new folder."""
    expected, seconds = whole
    moments = random.Random(0)
    killed, folders = 0, [tmp_path / "0"]
    folders[0].mkdir()
    while killed < 20:
        assert len(folders) <= 20
        child = start(folders[-1])
        time.sleep(moments.uniform(0.0, 0.8 * seconds))
        os.kill(child, signal.SIGKILL)
        status = finish(child)
        killed += status == -signal.SIGKILL
        if status == 0:
            seconds *= 0.8  # the machine has become faster since
            folders.append(tmp_path / str(len(folders)))
            folders[-1].mkdir()
        else:
            assert status == -signal.SIGKILL
    assert finish(start(folders[-1])) == 0
    runs = [open_run(path) for path in find_runs(tmp_path)]
    finished = [run for run in runs if run.state == "finished"]
    assert {run.state for run in runs} == {"finished", "interrupted"}
    assert len(finished) >= len(folders)  # a kill may come after the end
    for run in finished:
        pd.testing.assert_frame_equal(table(run.directory), expected, check_exact=True)
    assert not list(tmp_path.rglob("*.unusable"))


@pytest.mark.slow
def test_the_same_command_goes_on_in_its_folder_and_no_other_does(whole, tmp_path, capfd):
    words = ["hydra.run.dir=here"]
    child = start(tmp_path, *words)
    while not list(tmp_path.glob("here/cells/*")):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    finish(child)
    for _ in range(2):  # after a kill, and after an end
        assert finish(start(tmp_path, *words)) == 0
        pd.testing.assert_frame_equal(table(tmp_path / "here"), whole[0], check_exact=True)
    capfd.readouterr()
    assert finish(start(tmp_path, *words, "n_samples=40")) == 2
    assert "hydra.run.dir=" in capfd.readouterr().err
    pd.testing.assert_frame_equal(table(tmp_path / "here"), whole[0], check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["begun", "done"])
def test_a_cache_that_fails_during_a_training_stops_no_job(
    whole, tmp_path, monkeypatch, capfd, moment
):
    """Its disk may be full, or a finished training may be pruned before it is read."""
    train_here = job.train_here

    def fails(*args, resumable=False):
        place = args[2]
        if not resumable:  # in the run's own folder
            train_here(*args)
            return
        if moment == "done":
            train_here(*args, resumable=True)
            (place / "losses.csv").unlink()
            return
        with torch.no_grad():  # some steps were taken
            for parameter in args[1].objective.model.parameters():
                parameter.add_(1.0)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(job, "train_here", fails)
    assert finish(start(tmp_path)) == 0
    (run,) = find_runs(tmp_path)
    pd.testing.assert_frame_equal(table(run), whole[0], check_exact=True)
    assert ("No space left on device" in capfd.readouterr().err) == (moment == "begun")


@pytest.mark.slow  # quick: test_cache.py
def test_jobs_that_race_train_once_and_agree(whole, tmp_path):
    first, second = start(tmp_path), start(tmp_path)
    assert (finish(first), finish(second)) == (0, 0)
    reports = [path.read_text() for path in tmp_path.glob("multirun/*/report.txt")]
    assert len(reports) == 2
    assert sum("trained before" in text for text in reports) == 1
    for run in find_runs(tmp_path):
        pd.testing.assert_frame_equal(table(run), whole[0], check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("written", [0, 12, 40])
def test_a_full_disk_ends_with_one_line_and_the_command_goes_on(
    whole, tmp_path, monkeypatch, capfd, written
):
    """The disk is full after the files that claim the run and some others."""
    real, count = os.fsync, iter(range(10_000))

    def full(handle: int) -> None:
        if next(count) >= written + 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert finish(start(tmp_path)) == 1
    monkeypatch.setattr(os, "fsync", real)
    said = capfd.readouterr().err.strip().splitlines()
    assert "No space left on device" in said[-1]
    assert "Traceback" not in "".join(said)
    assert finish(start(tmp_path)) == 0
    last = max(find_runs(tmp_path), key=lambda run: run.stat().st_mtime)
    pd.testing.assert_frame_equal(table(last), whole[0], check_exact=True)


@pytest.mark.slow
def test_another_number_of_threads_changes_the_last_digits_only(whole, tmp_path):
    """Sums have another order; docs/conventions.md says how much that changes the oracle's cells.

    A new process, not a fork: if this process has used two threads, a fork waits for them forever.
    """
    words = [*WORDS, "threads=2", "cache=off", "denoiser=oracle"]
    subprocess.run([sys.executable, "-m", "samplerbench", *words], cwd=tmp_path, check=True)
    (run,) = find_runs(tmp_path)
    keys = ["denoiser", "start", "sampler", "sampler_settings", "steps", "repetition"]
    both = table(run).merge(whole[0], on=keys, suffixes=("", "_one"))
    assert len(both) == len(table(run)) == 28
    assert (both["cell_id"] != both["cell_id_one"]).all()  # threads are part of the identity
    assert ((both["value"] - both["value_one"]).abs() <= 1e-5 * both["value_one"]).all()
