"""Levels of single samplers: the cells that run on them, and their rows."""

import functools
from dataclasses import replace

import pytest
import torch

from helpers import sweep_of
from samplerbench.bench.cell import Cell, Labels, Origin
from samplerbench.bench.own_grids import OwnGrid
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import custom
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Prior
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.sliced import Sliced
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ula import ULA

LAW = gaussian([1.0, -0.5], [[4.0, 1.0], [1.0, 1.0]])
PATH = EDM(10.0)
MINE = functools.partial(custom, ratios=[10.0, 2.0, 0.3])


@pytest.fixture
def sweep() -> Sweep:
    return sweep_of(
        LAW,
        [("ddim", DDIM(0.0)), ("heun", Heun())],
        [3, 5],
        schedule=PATH,
        starts={"prior": Prior()},
        metrics={"sliced": Sliced(directions=10)},
        n_samples=20,
        origins={"oracle": Origin("oracle")},
        labels=Labels(grid="karras"),
    )


def with_own(sweep: Sweep, **about: str) -> Sweep:
    return replace(sweep, own_grids=[OwnGrid(Heun(), 3, MINE, "mine", **about)])


def test_only_the_cells_of_that_sampler_and_number_of_steps_change(sweep):
    before, after = sweep.run(), with_own(sweep).run()
    grids = {(row.sampler, row.steps): row.grid for row in after}
    assert grids == {
        ("ddim", 3): "karras",
        ("ddim", 5): "karras",
        ("heun", 3): "mine",
        ("heun", 5): "karras",
    }
    for one, other in zip(before, after, strict=True):
        own = (one.sampler, one.steps) == ("heun", 3)
        assert (one.cell_id == other.cell_id) is not own
        assert (one.setting_id == other.setting_id) is not own
        assert (one.value == other.value) is not own
    assert before[0].sweep_id != after[0].sweep_id


def test_a_cell_runs_on_its_own_levels(sweep):
    own = with_own(sweep)
    cell = Cell("oracle", "prior", "heun", Heun(), 3, 0)
    assert own.levels_of(cell).sigma.tolist() == pytest.approx([10.0, 2.0, 0.3, 0.0])
    # as on a sweep with that grid for all
    whole = replace(sweep, grid=MINE)
    assert torch.equal(own.draw(cell).points, whole.draw(cell).points)


def test_a_cell_with_another_end_runs_on_the_grid_of_the_sweep(sweep):
    cell = Cell("oracle", "prior", "heun", Heun(), 3, 0, final="none")
    own = with_own(sweep)
    assert torch.equal(own.levels_of(cell).sigma, sweep.levels_of(cell).sigma)
    assert own.books.samples_id(cell) == sweep.books.samples_id(cell)


def test_a_recipe_makes_one_curve_of_several_numbers_of_steps(sweep):
    grids = [
        OwnGrid(Heun(), 3, MINE, "designed", id="a", recipe="r"),
        OwnGrid(Heun(), 5, functools.partial(custom, ratios=[9, 8, 7, 6, 5]), "designed", "b", "r"),
    ]
    one, other = (row for row in replace(sweep, own_grids=grids).run() if row.sampler == "heun")
    assert one.setting_id == other.setting_id
    assert one.cell_id != other.cell_id
    again = with_own(sweep, id="c", recipe="r").run()[2]
    assert (again.setting_id, again.cell_id != one.cell_id) == (one.setting_id, True)


@pytest.mark.parametrize(
    ("grids", "words"),
    [
        ([OwnGrid(ULA(), 3, MINE, "mine")], "runs on the levels"),
        ([OwnGrid(Heun(), 3, MINE, "a"), OwnGrid(Heun(), 3, MINE, "b")], "two are for 3 steps"),
    ],
)
def test_grids_that_cannot_be_used_are_refused(sweep, grids, words):
    with pytest.raises(InvalidSetting, match=words):
        replace(sweep, own_grids=grids)


def test_levels_of_another_number_of_steps_fail_in_their_cells_alone(sweep):
    wrong = replace(sweep, own_grids=[OwnGrid(Heun(), 5, lambda s, n: MINE(s, 3), "mine", "id")])
    status = {(row.sampler, row.steps): row.status for row in wrong.run()}
    assert status.pop(("heun", 5)) == "failed"
    assert set(status.values()) == {"ok"}
