"""`grids=each-best`: a job whose samplers have the grids that are best for them."""

import json

import numpy as np
import pandas as pd
import pytest

import samplerbench as sb
from samplerbench.app.job import build
from samplerbench.app.job import run as job_run
from samplerbench.bench import best_grids
from samplerbench.bench.best_grids import CHOICES
from samplerbench.bench.race import Size


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small = Size(first=32, batch=2, finalists=2, noisy_finalists=1, designs=1)
    monkeypatch.setattr(best_grids, "_size", lambda sweep, designs: small)
    few = {name: sb.grid(name) for name in ("karras", "log_snr", "entropic")}
    monkeypatch.setattr(job_run, "racing_grids", lambda sweep, names=None: dict(few))


@pytest.fixture(scope="module")
def words(tiny):
    return (*tiny, "grids=each-best", "steps=[3]", "repetitions=1")


@pytest.fixture
def best(command, words, tmp_path, capsys):
    folder = tmp_path / "best"
    assert command(*words, f"hydra.run.dir={folder}") == 0
    return folder, capsys.readouterr().out


@pytest.mark.slow
def test_the_run_says_and_keeps_what_was_chosen(best, command, capsys, tmp_path, monkeypatch):
    folder, said = best
    choices = json.loads((folder / CHOICES).read_text())
    assert [(one["sampler"], one["steps"]) for one in choices] == [("ddim", 3), ("heun", 3)]
    # designed levels are one of the choices without noise
    assert [one["choices"] for one in choices] == [3, 4]
    for one in choices:
        line = f"grid of {one['sampler']}, N=3: {one['grid']}, the best of {one['choices']} grids"
        assert line in " ".join(said.split())
    table = pd.read_parquet(folder / "cells.parquet")
    cells = table[table["denoiser"] != "law"]
    for one in choices:
        assert set(cells.loc[cells["sampler"] == one["sampler"], "grid"]) == {one["grid"]}

    # `sample` and the library run on the chosen levels
    out = tmp_path / "x.npy"
    assert command("sample", folder, "sampler=heun", "steps=3", "n=50", f"out={out}") == 0
    run = sb.load(folder)
    own = [tuple(one.levels(run.schedule).t.tolist()) for one in run.sweep.own_grids]
    assert own == [(*one["levels"]["times"], 0.0) for one in choices]
    heun = dict(run.sweep.samplers)["heun"]
    assert np.array_equal(np.load(out), sb.sample(run, heun, steps=3, n=50))
    plain = tmp_path / "plain.npy"
    more = ("sampler=heun", "steps=3", "n=50", "grid=log_snr", f"out={plain}")
    assert command("sample", folder, *more) == 0
    levels = sb.sample(run, heun, steps=3, n=50, grid="log_snr")
    assert np.array_equal(np.load(plain), levels)


@pytest.mark.slow
def test_a_choice_is_made_once(best, command, words, tmp_path, monkeypatch):
    """The cache keeps the choice and the values of its cells."""
    folder, _ = best
    monkeypatch.setattr(best_grids, "halve", None)
    again = tmp_path / "again"
    assert command(*words, f"hydra.run.dir={again}") == 0
    assert (again / CHOICES).read_bytes() == (folder / CHOICES).read_bytes()


@pytest.mark.slow
def test_a_run_without_its_choices_is_refused_in_one_line(best, command, capsys, tmp_path):
    folder, _ = best
    (folder / CHOICES).write_text("[{}]")
    words = ("sampler=heun", "steps=3", "n=5", f"out={tmp_path / 'x.npy'}")
    assert command("sample", folder, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the choices of its grids" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grids=best"], "grids=best: must be null, each-best, or a list of grids"),
        (["grids=[]"], "or a list of grids"),
        (["grids=[karras,karras]"], "each once"),
        (["grids=[designed]"], "or a list of grids"),
        (["grids=each-best", "grid=designed"], "null with grid=designed"),
        (["grids=each-best"], "heun runs on none: "),
    ],
)
def test_bad_values_are_one_line(command, words, message, capsys, monkeypatch):
    words = ["sampler=heun", *words]
    grids = {"karras": sb.grid("karras", noise_max=1e9)}
    monkeypatch.setattr(build, "racing_grids", lambda sweep, names=None: grids)
    assert command("experiment=tiny", "logger=none", *words) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert message in line
    assert "run:" not in said.out  # before any work


@pytest.mark.parametrize(
    ("grids", "counts"),
    [("karras,log_snr", 2), pytest.param("karras,designed", 2, marks=pytest.mark.slow)],
)
def test_a_list_of_grids_has_the_choices(grids, counts, command, tmp_path, monkeypatch):
    """Levels are designed only if the list says so."""
    monkeypatch.undo()
    folder = tmp_path / "listed"
    words = ("experiment=tiny", "logger=none", "sampler=heun", "steps=[3]", "denoiser=oracle")
    assert command(*words, f"grids=[{grids}]", "cache=off", f"hydra.run.dir={folder}") == 0
    (choice,) = json.loads((folder / CHOICES).read_text())
    assert choice["choices"] == counts
    assert choice["grid"] in grids.split(",")
