"""Runs that end above the data (final=none): their laws, evaluations, and part of a budget."""

import functools
import json
import math
from dataclasses import replace

import pytest
import torch

from helpers import mostly_slow, sweep_of
from samplerbench.app.job.refusals import check
from samplerbench.bench.budget.mismatch import mismatch
from samplerbench.bench.budget.parts import PARTS, parts
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.budget.words import verdict
from samplerbench.bench.cell import Cell
from samplerbench.bench.sampling import sample_into, shape_of
from samplerbench.bench.store import as_table
from samplerbench.bench.sweep import most_steps
from samplerbench.core.grids import karras, uniform
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import Exact, Prior, sobol_exact, sobol_prior
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_spectrum import gaussian_spectrum
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.exact_w2 import ExactW2
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.moments import Moments
from samplerbench.metrics.w2_law_gaussian import W2LawGaussian
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.rk4 import RK4
from samplerbench.samplers.ula import ULA
from samplerbench.verify.exact_law import output_law

COVARIANCE = [[4.0, 1.0], [1.0, 1.0]]


def truncated(law, samplers, steps, metrics, **changes):
    grid = functools.partial(karras, noise_min=0.3, rho=5.0)
    settings = {"grid": grid, "starts": {"exact": Exact()}, "metrics": metrics, "final": "none"}
    return sweep_of(law, samplers, steps, **settings | changes)


def test_the_output_is_the_state_at_the_last_level_in_units_of_the_data():
    sweep = truncated(
        gaussian([1.0, -0.5], COVARIANCE),
        [DDIM(1.0)],
        [5],
        {"moments": Moments()},
        schedule=VPLinear(),
        grid=functools.partial(uniform, t_min=0.2),
    )
    cell = Cell("oracle", "exact", "DDIM", DDIM(1.0), 5, 0)
    levels = sweep.levels(5)
    assert levels.steps == 5
    x, noise = sweep.beginning(cell, levels, 0)
    state = final_state(DDIM(1.0), sweep.denoisers["oracle"], x, levels, noise)[:100]
    samples = sweep.draw(cell)
    torch.testing.assert_close(samples.points, state / levels.rows[-1].alpha)
    assert samples.nfe == 5
    # and all the way, whose last state is the sample
    array = torch.empty(shape_of(sweep, cell, 2), dtype=torch.float64).numpy()
    sample_into(array, sweep, cell, 2)
    torch.testing.assert_close(torch.from_numpy(array[-1]), samples.points)


@pytest.mark.parametrize(
    "schedule", mostly_slow([EDM(10.0), VPLinear()], 1), ids=lambda s: type(s).__name__
)
def test_the_law_of_a_converged_run_is_that_of_the_noised_data(schedule):
    """It is that of x₀ + κ·ε on every path, for every α, by spectra and by densities, in nats."""
    law = gaussian_spectrum(dim=20)
    spectrum = truncated(law, [Heun()], [400], {"w2": W2LawGaussian()}, schedule=schedule)
    (row,) = spectrum.run()
    noisy = (law.variances + 0.3**2).sqrt()
    expected = float((noisy - law.variances.sqrt()).norm())
    assert row.value == pytest.approx(expected, rel=2e-3)
    assert (row.final, row.nfe) == ("none", 800)
    plane = gaussian([1.0, -0.5], COVARIANCE)
    changes = {"schedule": schedule, "floor_repetitions": 1, "block": 64}
    (row,) = truncated(plane, [Heun()], [100], {"kl": KLLaw()}, **changes).run()
    p = torch.tensor(COVARIANCE).double()
    q = p + 0.09 * torch.eye(2).double()
    ratio = torch.linalg.solve(p, q)
    expected = 0.5 * float(ratio.trace() - 2 - torch.logdet(ratio))
    half = json.loads(row.info)["half_width"]
    assert row.value == pytest.approx(expected, abs=2 * half, rel=0.02)


def test_evaluations_without_the_step_to_the_data():
    for sampler, steps, count in ((DDIM(0.0), 4, 4), (Heun(), 4, 8), (RK4(), 3, 12)):
        sweep = truncated(grid_mixture(), [sampler], [steps], {"moments": Moments()})
        (row,) = [row for row in sweep.run() if row.denoiser == "oracle"]
        assert row.nfe == count == sampler.plain_evaluations(steps)
    assert [most_steps(Heun(), nfe, plain=True) for nfe in (1, 2, 7, 8)] == [0, 1, 3, 4]
    assert [most_steps(DormandPrince(), nfe, plain=True) for nfe in (6, 7, 13)] == [0, 1, 2]
    adaptive = truncated(grid_mixture(), [DormandPrince()], [2], {"moments": Moments()})
    (row,) = adaptive.run()
    assert row.status == "ok"
    assert row.nfe >= DormandPrince().least_evaluations(2, plain=True)
    with pytest.raises(InvalidSetting, match=r"nfe.*at least 2, the cost of one step of Heun"):
        truncated(grid_mixture(), [Heun()], [2], {"moments": Moments()}, nfe=[1])


def test_chains_and_langevin_have_an_end_of_their_own():
    chains = truncated(grid_mixture(), [ULA()], [3], {"moments": Moments()})
    assert {row.final for row in chains.run()} == {""}
    annealed = truncated(grid_mixture(), [AnnealedLangevin()], [3], {"moments": Moments()})
    with pytest.raises(InvalidSetting, match="use final=denoise, and its own setting denoise"):
        check(annealed)
    with pytest.raises(InvalidSetting, match=r"^final=nothing: must be denoise or none$"):
        replace(chains, final="nothing")


@pytest.fixture(scope="module")
def budgets():
    """A budget with an end, on a Gaussian, with even starts."""
    law = gaussian([1.0, -0.5], COVARIANCE)
    metrics = {"w2": ExactW2(), "kl_law": KLLaw()}
    starts = {"prior": sobol_prior(), "exact": sobol_exact()}

    @functools.cache
    def made(final):
        sweep = truncated(law, [DDIM(0.0)], [8, 16], metrics, final=final)
        sweep = replace(sweep, starts=starts, repetitions=2, n_samples=256, block=256)
        budget = Budget(sweep, converged_steps=32)
        rows = budget.run()
        assert len(rows) == budget.row_count()
        assert all(row.status == "ok" for row in rows)
        return budget, as_table(map(vars, rows))

    return made


@pytest.mark.slow
def test_truncation_is_a_part_of_the_budget(budgets):
    budget, table = budgets("none")
    lines = parts(table, 32).set_index(["metric", "kind", "steps", "part"])["mean"].sort_index()
    for metric in ("w2", "kl_law"):
        own = lines[metric, "difference", 16]
        names = [part for part in PARTS if part in own.index]
        assert names == ["floor", "truncation", "discretisation", "start"]
        assert own[names].sum() == pytest.approx(own["total"])
    # in nats, from the law of the last level: floor and truncation are its divergence
    p = torch.tensor(COVARIANCE).double()
    ratio = torch.linalg.solve(p, p + 0.09 * torch.eye(2).double())
    noised = 0.5 * float(ratio.trace() - 2 - torch.logdet(ratio))
    own = lines["kl_law", "difference", 16]
    assert own["floor"] + own["truncation"] == pytest.approx(noised, rel=0.1)
    # x̂₀ at that level has the covariance p(p + κ²)⁻¹p
    end = p @ torch.linalg.solve(p + 0.09 * torch.eye(2).double(), p)
    ratio = torch.linalg.solve(p, end)
    assert own["floor"] == pytest.approx(
        0.5 * float(ratio.trace() - 2 - torch.logdet(ratio)), rel=0.1
    )
    # between the samples with their noise and without: |ε̂|·κ, ε̂ of variance κ²/(λ + κ²)
    eigenvalues = torch.linalg.eigvalsh(p)
    apart = math.sqrt(float((0.3**4 / (eigenvalues + 0.09)).sum()))
    assert lines["w2", "neighbours", 16, "truncation"] == pytest.approx(apart, rel=0.15)
    words = " ".join(verdict(budget, table))
    assert "truncation" in words
    grid = functools.partial(karras, noise_min=1.0)
    found = mismatch(replace(budget.sweep, grid=grid))
    assert "the samples keep noise of σ/α = 1," in found.end
    sample = torch.linalg.eigvalsh(budget.sweep.reference.T.cov())
    lost = ((sample + 1).sqrt() - sample.sqrt()).square().sum().sqrt()
    assert found.lost == pytest.approx(float(lost), rel=1e-6)


@pytest.mark.slow
def test_there_is_none_where_runs_end_at_the_denoised_state(budgets):
    _, table = budgets("denoise")
    lines = parts(table, 32)
    assert "truncation" not in set(lines["part"])
    # the two budgets have one floor: that of the run that goes on to x̂₀
    other = parts(budgets("none")[1], 32)
    floors = [
        of[(of["part"] == "floor") & (of["metric"] == "kl_law")]["mean"].iloc[0]
        for of in (lines, other)
    ]
    assert floors[0] == pytest.approx(floors[1], rel=0.02)


@pytest.mark.parametrize("sampler", [DDIM(0.0), DDIM(1.0)], ids=["map", "noise"])
def test_on_a_line_the_law_is_that_of_the_output(sampler):
    law, path = gaussian([1.0], [[2.0]]), VPLinear()
    sweep = truncated(law, [sampler], [8], {"kl": KLLaw()}, schedule=path, floor_repetitions=0)
    sweep = replace(sweep, starts={"prior": Prior()})
    (row,) = sweep.run()
    levels = sweep.levels(8)
    start = levels.rows[0].sigma ** 2 * torch.eye(1).double()
    mean, variance = output_law(sampler, law.oracle(path), levels, torch.zeros(1).double(), start)
    alpha = levels.rows[-1].alpha
    ratio, shift = float(variance) / alpha**2 / 2, float(mean) / alpha - 1
    expected = 0.5 * (ratio - 1 - math.log(ratio) + shift**2 / 2)
    assert row.value == pytest.approx(expected, rel=1e-6)
