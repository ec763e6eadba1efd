"""`grids=each-best`: the choice for every sampler and number of steps, and its identity."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import samplerbench as sb
from samplerbench.app.job.objects import exact_sweep
from samplerbench.bench import best_grids
from samplerbench.bench.best_grids import chosen, read, with_best, without_choice, written
from samplerbench.bench.race import Size
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.heun import Heun

CANDIDATES = {name: sb.grid(name) for name in ("karras", "log_snr", "uniform")}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small = Size(first=32, batch=4, finalists=2, noisy_finalists=1, designs=0)
    monkeypatch.setattr(best_grids, "_size", lambda sweep, designs: small)


@pytest.fixture(scope="module")
def sweep():
    words = ["n_reference=640", "n_samples=100", "repetitions=1", "floor_repetitions=0"]
    whole = exact_sweep(("grid_mixture", sb.dataset("grid_mixture")), None, words)
    samplers = [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0)), ("heun", Heun())]
    return replace(whole, samplers=samplers, steps=[3, 6], starts={"prior": sb.start("prior")})


class Kept:
    """A cache in memory."""

    def __init__(self):
        self.files = {}

    def recall_archive(self, archive_id, check):
        files = self.files.get(archive_id)
        if files is not None:
            check(files)
        return files

    def keep_archive(self, archive_id, files):
        self.files[archive_id] = files


def test_every_sampler_and_number_of_steps_has_a_choice(sweep):
    lines = []
    choices = chosen(sweep, CANDIDATES, on_choice=lambda best: lines.append(best.line))
    assert [(one.place, one.steps) for one in choices] == [(p, n) for p in range(3) for n in (3, 6)]
    assert all(one.grid in CANDIDATES and one.choices == 3 for one in choices)
    assert lines[0] == f"ddim, N=3: {choices[0].grid}, the best of 3 grids"
    own = with_best(sweep, choices)
    for cell in own.cells():
        (best,) = (
            one
            for one in choices
            if sweep.samplers[one.place][1] == cell.settings and one.steps == cell.steps
        )
        want = CANDIDATES[best.grid](sweep.schedule, cell.steps)
        assert torch.equal(own.levels_of(cell).sigma, want.sigma)
        row = own.books.row(cell, "x", sb.metric("sliced"), own.distances().popitem()[1].to)
        assert row.grid == best.grid


def test_the_choice_is_the_grid_with_the_smallest_distance(sweep, monkeypatch):
    many = Size(first=512, finalists=2, designs=0)
    monkeypatch.setattr(best_grids, "_size", lambda sweep, designs: many)
    one = replace(sweep, samplers=[("heun", Heun())], steps=[6])
    (best,) = chosen(one, CANDIDATES)
    course = best_grids.Course(one, "oracle", "prior", held_out=1)
    means = {}
    for name, grid in CANDIDATES.items():
        entrant = course.entrant("heun", Heun(), name, grid, 6)
        x = course.outputs(entrant, "measurement", 0, 1000)
        means[name] = course.paths(entrant, x, "measurement", 0).mean()
    assert best.grid == min(means, key=means.__getitem__)


@pytest.mark.slow
def test_other_repetitions_and_sizes_of_a_sweep_change_no_choice(sweep):
    """A choice uses no start of a cell: the samples of a sweep are held out."""
    other = replace(sweep, n_samples=7, repetitions=3)
    assert written(chosen(sweep, CANDIDATES)) == written(chosen(other, CANDIDATES))


def test_the_identity_knows_what_determines_a_choice(sweep):
    one = replace(sweep, samplers=[("heun", Heun())], steps=[3])
    (first,) = chosen(one, CANDIDATES)
    few = {"karras": CANDIDATES["karras"]}
    for changed, candidates in (
        (replace(one, seed=1), CANDIDATES),
        (replace(one, steps=[4]), CANDIDATES),
        (replace(one, starts={"exact": sb.start("exact")}), CANDIDATES),
        (one, few),
    ):
        (other,) = chosen(changed, candidates)
        assert other.id != first.id
    # cells of one curve, and of other seeds, have one recipe
    (longer,) = chosen(replace(one, steps=[4], seed=1), CANDIDATES)
    assert longer.recipe == first.recipe


def test_a_choice_is_kept_and_recalled_bit_for_bit(sweep, monkeypatch):
    one, cache = replace(sweep, samplers=[("heun", Heun())], steps=[3]), Kept()
    (first,) = chosen(one, CANDIDATES, cache)
    monkeypatch.setattr(best_grids, "halve", None)
    (again,) = chosen(one, CANDIDATES, cache)
    assert again == first
    (stored,) = read(written([first]))
    for name in ("t", "alpha", "sigma"):
        rows = [getattr(each.levels(one.schedule, 3), name) for each in (first, stored)]
        assert torch.equal(*rows)


def test_samples_are_those_of_the_chosen_grid(sweep):
    one = replace(sweep, samplers=[("heun", Heun())], steps=[3])
    (best,) = chosen(one, CANDIDATES)
    own, plain = with_best(one, [best]), replace(one, grid=CANDIDATES[best.grid])
    (cell,) = own.cells()
    assert np.array_equal(own.draw(cell).points, plain.draw(cell).points)
    assert own.books.sweep_id != one.books.sweep_id
    assert own.books.samples_id(cell) != one.books.samples_id(cell)


@dataclass(frozen=True)
class Fails(Euler):
    """Its code raises an error."""

    def steps(self, model, x, levels, noise):
        raise RuntimeError("a defect")
        yield


def test_a_sampler_that_fails_keeps_the_grid_and_costs_no_other_its_choice(sweep):
    lines = []
    both = replace(sweep, samplers=[("mine", Fails()), ("heun", Heun())], steps=[3])
    found = chosen(both, CANDIDATES, on_none=lines.append)
    assert [one.sampler for one in found] == ["heun"]
    assert len(lines) == 1
    assert lines[0].startswith("no grid is chosen for mine, N=3: RuntimeError: a defect")
    (cell, _) = with_best(both, found).cells()
    assert with_best(both, found).draw(cell).status == "failed"


def test_without_data_samplers_with_noise_keep_the_grid(sweep):
    both = [("ddim", DDIM(1.0)), ("heun", Heun())]
    few = replace(sweep, samplers=both, steps=[3], reference=sweep.reference[:20])
    assert [one.sampler for one in chosen(few, CANDIDATES)] == ["heun"]
    assert "too few data to compare" in without_choice(few)
    assert without_choice(replace(few, reference=sweep.reference)) == ""
