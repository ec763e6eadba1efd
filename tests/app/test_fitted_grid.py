"""A job on a grid that is fitted to its network: printed, kept with the run, and used again."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

import samplerbench as sb
from helpers import refused_in_one_line
from samplerbench.app.commands import sample
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.build import build
from samplerbench.app.job.rebuild import rebuild
from samplerbench.bench import fitting
from samplerbench.bench.store import Store
from samplerbench.library import load

FIT = ("grid=entropic", "grid.denoiser=learned", "grid.states=40", "grid.points=8")


@pytest.fixture(scope="module")
def run(command, tiny, tmp_path_factory):
    fitting._KNOWN.clear()
    folder = tmp_path_factory.mktemp("fitted") / "run"
    assert command(*tiny, *FIT, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.mark.slow
def test_the_cost_is_printed_and_stored(run):
    line = "grid: entropic, 320 evaluations of the learned denoiser, kept"
    assert line in (run / "report.txt").read_text().splitlines()
    about = json.loads((run / "run.json").read_text())
    assert about["grid"].items() >= {"denoiser": "learned", "evaluations": 320}.items()
    assert about["sweep_id"] == rebuild(open_run(run)).sweep.books.sweep_id
    assert open_run(run).sweep_id == about["sweep_id"]
    assert set(Store(run).readable()[0]["grid"]) == {"entropic", ""}  # floors have none


@pytest.mark.slow
def test_a_second_run_fits_nothing_and_measures_nothing(run, command, tiny, tmp_path, capsys):
    fitting._KNOWN.clear()
    assert command(*tiny, *FIT, f"hydra.run.dir={tmp_path}/again") == 0
    out = capsys.readouterr().out
    assert "grid: entropic, 320 evaluations of the learned denoiser, known" in out
    assert (tmp_path / "again" / "grid.json").read_bytes() == (run / "grid.json").read_bytes()
    ids = [set(Store(folder).readable()[0]["cell_id"]) for folder in (run, tmp_path / "again")]
    assert ids[0] == ids[1]
    assert f"{len(ids[0])} values were known" in out


@pytest.mark.slow
def test_its_table_serves_samples_and_the_library(run, tmp_path, monkeypatch):
    """No grid is fitted again: on another machine a new fit could have other bits."""
    monkeypatch.setattr("samplerbench.app.job.rebuild.fitted", None)
    sweep = rebuild(open_run(run)).sweep
    cell = next(c for c in sweep.cells() if c.sampler == "heun" and c.denoiser == "learned")
    with torch.no_grad():
        want = torch.cat(list(sweep.samples(cell, sweep.denoisers["learned"]))).numpy()
    out = tmp_path / "x.npy"
    sample.main([str(run), "sampler=heun", f"steps={cell.steps}", "n=150", f"out={out}"])
    assert np.array_equal(np.load(out), want)
    assert load(run).grid(sweep.schedule, 6).sigma.equal(sweep.levels(6).sigma)
    spoilt = tmp_path / "spoilt"
    shutil.copytree(run, spoilt)
    (spoilt / "grid.json").write_text("{}")
    with refused_in_one_line(r"^run=.*grid\.json: must be one with the table"):
        rebuild(open_run(spoilt))


@pytest.mark.slow
def test_another_grid_of_a_stored_run_is_fitted_there(run, tmp_path):
    words = ["sampler=heun", "steps=4", "n=20"]
    grids = [["grid=entropic", "grid.states=30"], ["grid=gits", "grid.points=9"], ["grid=karras"]]
    seen = []
    for number, grid in enumerate(grids):
        out = tmp_path / f"{number}.npy"
        sample.main([str(run), *words, *grid, f"out={out}"])
        seen.append(np.load(out))
    assert not any(np.array_equal(a, b) for a, b in pairwise(seen))


@pytest.mark.slow
def test_the_library_fits_the_same_grid(command, tmp_path):
    """The same bits for a grid by name and as an object, in a sweep and in `levels`."""
    words = ("experiment=tiny", "denoiser=oracle", "sampler=heun", "steps=[3]", "grid=gits")
    few = ("n_samples=50", "n_reference=100", "block=50", "repetitions=1", "floor_repetitions=0")
    job = (*words, *few, "logger=none", "cache=off", f"hydra.run.dir={tmp_path}/job")
    assert command(*job) == 0
    want = rebuild(open_run(tmp_path / "job")).sweep.levels(3)
    fitting._KNOWN.clear()
    found = sb.levels("grid_mixture", 3, grid="gits")
    assert found.attrs["fit"] == "grid: gits, 15,360 evaluations of the oracle denoiser, kept"
    assert found["sigma"].tolist() == found["noise_to_signal"].tolist() == want.sigma.tolist()
    assert found.loc[3].tolist() == [0, 1, 0, 0]
    assert sb.levels("grid_mixture", 3, grid="karras").attrs["fit"] == ""
    finer = sb.levels("grid_mixture", 3, grid=sb.grid("gits", points=99))
    assert finer.attrs["fit"] == "grid: GITS, 25,088 evaluations of the oracle denoiser, kept"
    settings = {
        "progress": False,
        "steps": 3,
        "n_samples": 50,
        "repetitions": 1,
        "floor_repetitions": 0,
    }
    rows = [
        sb.sweep("grid_mixture", "heun", grid=grid, starts="exact", **settings)
        for grid in ("gits", sb.grid("gits"), sb.grid("gits", seed=1))
    ]
    one, same, other = (set(table["samples_id"]) for table in rows)
    assert one == same != other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("grid=entropic schedule.sigma_max=0.01", r"^grid\.noise_min=0\.02: must be positive"),
        ("grid=gits grid.points=2", r"^grid\.points=2: must be at least 3"),
        ("grid=entropic grid.denoiser=mine", r"^grid\.denoiser=mine: must be null, or one of"),
        ("grid=spectral grid.criterion=w1", r"^grid\.criterion=w1: must be kl or w2"),
        ("grid=ays_table grid.table=SD3", r"^grid\.table=SD3: must be one of StableDiffusion,"),
        ("grid=ays_table schedule.sigma_max=10", r"^schedule=EDM: must be one whose σ/α reaches"),
        (
            "grid=entropic grid.denoiser=learned objective=hyvarinen network=mlp sampler=ula "
            "start=gaussian",
            r"^grid=entropic: must be another one: it is fitted to a denoiser of all noise",
        ),
    ],
)
def test_refusals(composed, words, message):
    few = ("n_train=50", "n_validation=10", "n_reference=20", "n_samples=10")
    with refused_in_one_line(message):
        build(composed(*few, *words.split()), {"grid": "entropic"}, "test")
