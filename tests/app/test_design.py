"""`samplerbench design`, grid=designed in a job, and exported designs."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import samplerbench as sb
import samplerbench.library
from samplerbench.app.commands import design
from samplerbench.bench import designing
from samplerbench.bench.designing import DESIGNS, AtTimes, Carried, from_json
from samplerbench.bench.exported_grids import exported, nearest_timesteps
from samplerbench.core.grids import custom, to_data
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.errors import InvalidSetting
from samplerbench.figures.design_gain import design_gain
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.heun import Heun

FEW = ["grid.paths=48", "grid.choice=48", "grid.held_out=200", "grid.budget=60"]
SETTINGS = {"paths": 48, "choice": 48, "held_out": 200, "budget": 60}
LAW = "grid_mixture"


@pytest.fixture(scope="module")
def designs():
    return sb.design(LAW, ["heun"], nfe=[6], carry=["two_moons"], settings=SETTINGS)


@pytest.mark.slow  # quick: the library's, below
def test_the_command_prints_tables_and_levels_and_writes_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sampler=[heun,ddim]", "sampler.ddim.eta=0", "nfe=[6]", "dataset=two_moons", *FEW]
    design.main([*words, "carry=grid_mixture", "out=levels.json"])
    text = capsys.readouterr().out
    parts = ("designed grids, oracle, prior", "σ/α, heun, N=3", LAW, "η=0.5", "sd", "evaluations")
    for part in parts:
        assert part in text
    heun, ddim = json.loads((tmp_path / "levels.json").read_text())
    assert (heun["steps"], heun["nfe"], ddim["steps"]) == (3, 5, 6)
    assert len(heun["ratios"]) == 3
    design.main([*words, "out=gains.png"])  # known: nothing is computed again
    assert (tmp_path / "gains.png").stat().st_size > 1000
    again = capsys.readouterr().out
    assert [line for line in text.splitlines() if "σ/α" in line] == [
        line for line in again.splitlines() if "σ/α" in line
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampler=ddim", "nfe=10"], "this sampler draws noise"),
        (["sampler=ula", "nfe=6"], "sampler=ula.*: must be one that runs on the levels of a grid"),
        (["sampler=[heun,hmc]", "steps=6"], "sampler=hmc.* levels of a grid"),
        (["sampler=dpm_solver_3", "nfe=3"], "nfe=3: must be at least 4 for dpm_solver_3"),
        (["sampler=heun", "nfe=[2,6]"], "nfe=2: must be at least 3 for heun .* no free level"),
        (["sampler=heun", "steps=[1,6]"], "steps=1: must be at least 2 for heun"),
        (["sampler=heun", "nfe=6", "carry=[two_moons,digits]"], "carry=digits: .* 2 dimensions"),
        (["sampler=heun", "nfe=6", "eta=1"], "eta=1.0: must be left out"),
        (["sampler=picard", "sampler.picard.rule=euler", "steps=4", "eta=1"], "eta=1.0: must be"),
        (["sampler=ddim", "sampler.ddim.eta=0", "nfe=6", "eta=-1"], "eta=-1.0: .* at least 0"),
        (["sampler=ddim", "sampler.ddim.eta=0", "nfe=6", "eta=0"], "eta=0.0: must be above 0"),
        (["sampler=[heun,unipc]", "nfe=6", "out=a.yaml"], "has one design, and there are 2"),
        (["sampler=heun", "nfe=6", "grid=karras"], "this command designs it"),
        (["sampler=heun", "nfe=6", "out=levels.txt"], "a file of .json"),
        (["sampler=heun", "nfe=6", "metric=sliced"], "design uses"),
        (["sampler=heun", "nfe=6", "grid.criterion=w2"], "one of paired, kl, spectrum"),
        (["sampler=heun", "nfe=6", "grid.criterion=spectrum"], "law=gaussian_twin"),
        (["sampler=heun", "nfe=6", "grid.denoiser=learned"], "null, or one of oracle"),
        (["sampler=heun", "nfe=6", "grid.start=x"], "null, or one of prior, exact"),
    ],
)
def test_bad_words_are_refused_in_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(designing, "design", None)  # before any work
    with pytest.raises(InvalidSetting, match=message) as refused:
        design.main([*words, f"dataset={LAW}"])
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_job_runs_on_designed_levels_and_keeps_them(tmp_path, typed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["experiment=tiny", "denoiser=oracle", "sampler=heun", "steps=[3]", "grid=designed"]
    words += [*FEW, "logger=none", "picture=[]", "hydra.run.dir=run"]
    status, out, err = typed(*words)
    assert (status, err) == (0, "")
    assert "designed grids" in out
    (record,) = json.loads((tmp_path / "run" / DESIGNS).read_text())
    kept = from_json(record)
    table = pd.read_parquet(tmp_path / "run" / "cells.parquet")
    cells = table[table["denoiser"] != "law"]
    assert set(cells["grid"]) == {kept.grid}
    run = sb.load(tmp_path / "run")  # from the file, not by a new design
    (own,) = run.sweep.own_grids
    assert own.levels(run.schedule).t[:-1].tolist() == list(kept.levels.times)
    again = sb.sweep(run, n_samples=None)
    assert set(again["cell_id"]) >= set(cells["cell_id"])
    # an exported list is the same grid, and has the same samples
    listed = sb.sample(
        run, "heun", steps=3, n=50, grid=partial(custom, ratios=kept.ratios), denoiser="oracle"
    )
    own = sb.sample(run, "heun", steps=3, n=50, denoiser="oracle")
    assert np.allclose(own, listed, atol=1e-9)
    (tmp_path / "run" / DESIGNS).write_text("[{}]")
    with pytest.raises(InvalidSetting, match="designs of its own grids"):
        sb.load(tmp_path / "run")


def test_a_design_is_computed_once(designs, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("it is known")

    monkeypatch.setattr(designing, "design", fail)
    again = sb.design(LAW, ["heun"], nfe=[6], settings=SETTINGS)
    assert again.designs == designs.designs
    other = sb.design(LAW, {"mine": Heun()}, nfe=[6], settings=SETTINGS)
    assert other.designs[0].sampler == "mine"
    assert other.designs[0].levels == designs.designs[0].levels


def test_the_library_says_what_the_command_says(designs):
    line = designs.table.iloc[0]
    assert line["gain"] == pytest.approx(line["standard_value"] / line["designed_value"])
    assert "times better" in repr(designs)
    assert list(designs.carried_table["to"]) == ["two_moons"]
    assert designs.export()[0]["words"][0] == "grid=custom"
    for settings, message in (
        ({"samplers": ["ancestral"]}, "this sampler draws noise"),
        ({"samplers": ["ula"]}, "sampler=ula.*: must be one that runs on the levels of a grid"),
        ({"carry": ["digits"]}, "carry=digits: must be data with an exact denoiser"),
        ({"eta": 0.5}, "eta=0.5: must be left out"),
        ({"nfe": 2}, "nfe=2: must be at least 3"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            sb.design(LAW, **{"samplers": ["heun"], "nfe": [6], **settings})


def test_a_worse_design_is_called_worse():
    one = Carried("heun, N=3", "digits", "karras", 1.0, 2.0, 0.5, 0.4, 0.6, "sd")
    assert "WORSE" in one.verdict
    assert Carried("", "", "", 1, 1, 1.0, 0.9, 1.1, "").verdict == "not distinguishable"


def test_the_figure_has_a_mark_for_each_place(designs):
    figure = design_gain(designs.designs, designs.carried, "grid_mixture")
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert len(marks) == 2


def test_exported_sigmas_give_the_same_result_in_diffusers(designs):
    """EulerDiscreteScheduler on σ is DDIM(0) on the same κ, and so is a flow's on t = κ/(1 + κ)."""
    diffusers = pytest.importorskip("diffusers")
    record = exported(designs.designs[0], EDM(10.0))
    ratios, law = record["ratios"], sb.dataset(LAW)
    oracle = law.oracle(EDM(10.0))
    levels = custom(EDM(10.0), len(ratios), ratios=ratios)
    x = ratios[0] * torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double()
    ours = final_state(DDIM(0.0), oracle, x, levels, KeyedNoise(("x",)))

    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(sigmas=record["diffusers"]["sigmas"])
    state = x.clone()
    for t, row in zip(scheduler.timesteps, levels.rows, strict=False):
        scheduler.scale_model_input(state, t)
        state = scheduler.step(oracle.denoiser(state, row), t, state).prev_sample
    assert torch.allclose(state.double(), ours, atol=1e-4)

    flow = Rectified()
    velocity = law.oracle(flow)
    times = custom(flow, len(ratios), ratios=ratios)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=record["diffusers"]["flow_sigmas"])
    state = x * times.rows[0].alpha  # x/α is the same on both paths
    for t, row in zip(scheduler.timesteps, times.rows, strict=False):
        x0_hat = velocity.denoiser(state, row)
        direction = (state - row.alpha * x0_hat) / row.sigma - x0_hat
        state = scheduler.step(direction, t, state).prev_sample
    assert torch.allclose(state.double(), ours, atol=1e-4)


@pytest.mark.slow
def test_exported_timesteps_give_the_same_result_in_diffusers():
    """Schedulers with the table of a VP path, at the integers of the list."""
    diffusers = pytest.importorskip("diffusers")
    path, law = VPLinear(), sb.dataset(LAW)
    oracle = law.oracle(path)
    done = sb.design(LAW, ["heun"], nfe=[6], schedule="vp_linear", settings=SETTINGS)
    (record,) = done.export()
    timesteps, rounding = (record["diffusers"][key] for key in ("timesteps", "rounding"))
    assert timesteps[0] == path.train_steps - 1
    assert rounding < 0.02
    times = (torch.tensor(timesteps).double() + 1) / path.train_steps
    alpha, sigma = path(times)
    assert (sigma / alpha).log().numpy() == pytest.approx(np.log(record["ratios"]), abs=rounding)
    levels = to_data(path, times)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double()
    start = levels.rows[0].sigma * x
    grid = torch.arange(path.train_steps + 1, dtype=torch.float64) / path.train_steps
    square = path.alpha(grid).square()
    table = {"trained_betas": (1 - square[1:] / square[:-1]).tolist(), "prediction_type": "sample"}
    for name, ours, scaled in (
        ("EulerDiscreteScheduler", DDIM(0.0), True),
        ("DPMSolverMultistepScheduler", DPMSolverPP(), False),
    ):
        scheduler = getattr(diffusers, name)(**table)
        scheduler.set_timesteps(timesteps=timesteps)
        assert scheduler.timesteps.tolist() == timesteps
        state = start / levels.rows[0].alpha if scaled else start
        for t, row in zip(scheduler.timesteps, levels.rows, strict=False):
            scheduler.scale_model_input(state, t)
            x0_hat = oracle.denoiser(state * row.alpha if scaled else state, row)
            state = scheduler.step(x0_hat, t, state).prev_sample
        want = final_state(ours, oracle, start, levels, KeyedNoise(("x",)))
        assert torch.allclose(state.double(), want, atol=1e-3), name


def test_timesteps_are_listed_only_where_a_scheduler_has_them():
    assert nearest_timesteps([10.0, 1.0], EDM(10.0)) == (None, None)
    assert nearest_timesteps([10.0, 1.0, 1.00001], VPLinear()) == (None, None)
    found, rounding = nearest_timesteps([10.0, 1.0], VPLinear())
    assert len(found) == 2
    assert rounding < 0.01


def test_a_yaml_is_a_grid(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "grid"
    folder.mkdir(parents=True)
    words = ["sampler=heun", "nfe=6", f"dataset={LAW}", *FEW]
    design.main([*words, "out=conf/grid/mine.yaml"])
    design.main([*words, "out=levels.json"])
    (record,) = json.loads((tmp_path / "levels.json").read_text())
    assert record["value"] == min(record["designed_value"], record["standard_value"])
    config = OmegaConf.load(folder / "mine.yaml")
    assert list(config.ratios) == record["ratios"]
    assert config["_target_"] == "samplerbench.core.grids.custom"


def test_a_design_that_nobody_runs_on_is_not_carried(monkeypatch):
    done = sb.design(LAW, ["heun"], nfe=[6], settings=SETTINGS)
    kept = replace(done.designs[0], grid="karras")
    monkeypatch.setattr(samplerbench.library, "designed", lambda sweep: (sweep, [kept]))
    again = sb.design(LAW, ["heun"], nfe=[6], carry=["two_moons"], settings=SETTINGS)
    assert again.carried == []


def test_levels_for_another_number_of_steps_are_refused():
    with pytest.raises(InvalidSetting, match="steps=4: must be 2, for which"):
        AtTimes((1.0, 0.5))(EDM(10.0), 4)
    assert AtTimes((1.0, 0.5, 0.1), plain=True)(EDM(10.0), 2).sigma.tolist() == [10.0, 5.0, 1.0]
