"""Samplers of other packages on the command line: in one table with ours, or refused."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pandas as pd
import pytest

from samplerbench.verify import peer_curves

pytest.importorskip("diffusers")
pytest.importorskip("azula.sample")

SMALL = ("experiment=tiny", "denoiser=oracle", "logger=none", "start=exact", "n_samples=60")
SMALL += ("n_reference=100", "repetitions=1", "floor_repetitions=2", "workers=1")
LAB = """
from diffusers import DDIMScheduler

class Slow(DDIMScheduler):
    def step(self, model_output, timestep, sample, **more):
        return super().step(model_output, timestep, sample, **more)
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with a scheduler of the user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow_lab").mkdir()
    (tmp_path / "slow_lab" / "scheduler.py").write_text(LAB)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "slow_lab"]:
        del sys.modules[name]


def cells(folder):
    table = pd.read_parquet(folder / "run" / "cells.parquet")
    return table[table["denoiser"] != "law"]


@pytest.mark.slow
def test_beside_ours_at_equal_cost(command, lab):
    """In a sweep at equal counted evaluations, by name and version, on their own grid."""
    words = (*SMALL, "sampler=[diffusers,k_diffusion,azula,heun]", "nfe=[9]", "hydra.run.dir=run")
    words += (
        "sampler.diffusers.scheduler=[DPMSolverMultistepScheduler,HeunDiscreteScheduler]",
        "sampler.diffusers.settings={use_karras_sigmas: true}",
        "sampler.k_diffusion.function=sample_dpm_2",
    )
    assert command(*words) == 0
    table = cells(lab).set_index("sampler_settings")
    assert set(table["status"]) == {"ok"}
    assert table["nfe"].max() == 9
    settings = {
        (s := json.loads(text)).get("scheduler", s.get("function", s.get("method", "heun"))): row
        for text, row in (((text or "{}"), row) for text, row in table.iterrows())
    }
    assert settings["HeunDiscreteScheduler"]["steps"] == settings["heun"]["steps"] == 5
    assert settings["DPMSolverMultistepScheduler"]["steps"] == 9
    assert settings["sample_dpm_2"]["nfe"] == 9
    assert settings["heun"]["grid"] != "own" == settings["DDIMSampler"]["grid"]
    text = next(text for text in table.index if "DPMSolverMultistep" in text)
    assert json.loads(text)["settings"] == {"use_karras_sigmas": True}
    assert json.loads(text)["version"].startswith("0.")


@pytest.mark.slow
def test_a_scheduler_of_ones_own(command, lab, capfd):
    words = (*SMALL, "sampler=diffusers", "steps=[4]", "hydra.run.dir=run")
    custom = "sampler.diffusers.custom=slow_lab.scheduler.Slow"
    assert command(*words, custom) == 2
    assert "add trusted=slow_lab if you trust its code" in capfd.readouterr().err
    assert command(*words) == 0
    (plain,) = cells(lab).itertuples()
    shutil.rmtree(lab / "run")
    assert command(*words, custom, "trusted=slow_lab") == 0
    (own,) = cells(lab).itertuples()
    assert own.value == plain.value
    assert own.cell_id != plain.cell_id  # its code is another one
    settings = json.loads(own.sampler_settings)
    assert settings["scheduler"] == "Slow"
    assert settings["custom"] == {"function": "slow_lab.scheduler.Slow"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler.diffusers.scheduler=Euler"], "must be a scheduler of diffusers"),
        (["sampler.diffusers.settings={foo: 1}"], "settings.foo=1: must be left out: DDIM"),
        (["steps=[1001]"], "steps=1001: must be a number that DDIMScheduler takes: `num_infer"),
        (["sampler.diffusers.settings={prediction_type: no}"], "no is none of epsilon"),
        (["sampler.diffusers.config=nowhere"], "sampler.diffusers.config=nowhere: must be an"),
    ],
)
def test_bad_input(command, lab, capfd, words, said):
    assert command(*SMALL, "sampler=diffusers", *words) == 2
    error = capfd.readouterr().err.strip().splitlines()
    assert said in error[-1]


def test_a_network_is_asked_within_its_training(command, lab, capfd):
    words = ("sampler=diffusers", "denoiser=learned", "sampler.diffusers.scheduler=IPNDMScheduler")
    assert command(*SMALL, *words) == 2
    assert "Diffusers needs" in capfd.readouterr().err


@pytest.mark.slow  # quick: test_peer_table.py
def test_check_prints_the_curve(command, lab, capsys, monkeypatch):
    """For any settings; here those whose last step has order two from 15 steps on."""
    monkeypatch.setattr(peer_curves, "EVERY", 16)
    monkeypatch.setattr(peer_curves, "FROM_THERE", 500)
    settings = "sampler.diffusers.settings={final_sigmas_type: sigma_min}"
    kind = "sampler.diffusers.scheduler=DPMSolverMultistepScheduler"
    assert command("check", "diffusers", kind, settings) == 0
    out = capsys.readouterr().out
    assert "DPMSolverMultistepScheduler" in out
    assert "from N = 14 to 15 the error is" in out
    assert "ends at σ/α = 0.01" in out
    assert re.search(r"sign changes +\d+ *\n", out)
    assert command("check", "diffusers", "sampler.diffusers.scheduler=Euler") == 2


@pytest.mark.slow
def test_a_job_says_what_is_known_once(command, lab, capsys):
    words = (*SMALL, "sampler=diffusers", "steps=[4,5]", "hydra.run.dir=run")
    assert command(*words) == 0
    assert capsys.readouterr().out.count("known: diffusers DDIMScheduler: clips") == 1
