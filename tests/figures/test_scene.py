"""The paths that pictures show: reproducible, bounded, and of the samplers that can run."""

import functools
from dataclasses import replace

import pytest
import torch

from samplerbench.core import grids
from samplerbench.core.models import LevelFree
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.starts import Prior
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.figures.quiver import Quiver
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ula import ULA

HOLD = functools.partial(grids.hold, noise=1.0)


def test_every_kth_state_and_both_ends_are_kept(plane):
    ddim = DDIM(1.0)
    all_states = plane.paths("oracle", "prior", ddim, 10, chains=5)
    some = plane.paths("oracle", "prior", ddim, 10, chains=5, every=4)
    assert all_states.steps == list(range(11))
    assert some.steps == [0, 4, 8, 10]
    assert torch.equal(some.x, all_states.x[some.steps])
    rows = plane.levels(10).rows
    assert some.levels == [rows[step] for step in some.steps]


def test_a_long_chain_is_a_few_frames(scene_of, line_law):
    scene = scene_of(line_law, learned=False, grid=HOLD, samplers=[("ula", ULA())], steps=[300])
    (run,) = scene.runs()
    path = scene.follow(run, chains=1, every=100)
    assert path.x.shape == (4, 1, 1)
    assert path.x.dtype == torch.float64
    assert run.every(4) == 100


def test_a_path_is_that_of_the_sampler_with_its_keys(plane):
    levels = plane.levels(8)
    x = Prior().draw(plane.dataset, 6, levels.rows[0], ("picture", 0, 0))
    end = final_state(DDIM(1.0), plane.denoisers["oracle"], x, levels, KeyedNoise(("picture", 0)))
    path = plane.paths("oracle", "prior", DDIM(1.0), 8, chains=6, every=3)
    assert torch.equal(path.x[0], x)
    assert torch.equal(path.x[-1], end)
    other = replace(plane, seed=1).paths("oracle", "prior", DDIM(1.0), 8, chains=6, every=3)
    assert not torch.equal(path.x, other.x)


def test_the_last_level_is_that_of_the_last_state(scene_of, line_law):
    scene = scene_of(line_law, samplers=[("annealed", AnnealedLangevin())])
    path = scene.paths("oracle", "prior", AnnealedLangevin(), 8, chains=3)
    assert path.levels[-1].sigma == pytest.approx(0.02)
    denoised = scene.paths("oracle", "prior", AnnealedLangevin(denoise=True), 8, chains=3)
    assert denoised.levels[-1].sigma == 0


def test_only_samplers_that_can_run_are_followed(scene_of, plane):
    held = replace(plane, grid=HOLD)
    with pytest.raises(ValueError, match="DDIM goes from level to level"):
        held.paths("oracle", "prior", DDIM(), 4, chains=3)
    with pytest.raises(InvalidSetting, match="start=prior: must be one of overdispersed, exact"):
        held.paths("oracle", "prior", ULA(), 4, chains=3)
    one_level = LevelFree(ResidualMLP(2, 0, width=8), 1.0, torch.zeros(2))
    denoisers = {"learned": one_level, "oracle": plane.denoisers["oracle"]}
    scene = scene_of(grid_mixture(), denoisers=denoisers)
    assert {run.denoiser for run in scene.runs()} == {"oracle"}
    scene = replace(scene, grid=HOLD, samplers=[("ula", ULA()), ("ddim", DDIM())])
    assert [(run.denoiser, run.label) for run in scene.runs()] == [
        ("learned", "ula"),
        ("oracle", "ula"),
    ]
    picture = Quiver(chains=2, points=10, frames=2, mesh=3)
    assert list(picture.draw(scene)) == ["quiver_learned_ula", "quiver_oracle_ula"]


def test_settings_of_one_name_have_different_labels(scene_of, line_law):
    samplers = [("ula", ULA(0.1)), ("ula", ULA(0.01)), ("ddim", DDIM(0.5))]
    scene = scene_of(line_law, learned=False, samplers=samplers)
    assert [run.stem for run in scene.runs()][-1] == "ddim_eta0.5"
    held = replace(scene, grid=HOLD)
    assert [run.label for run in held.runs()] == ["ula step_size=0.1", "ula step_size=0.01"]
