"""Diagnostics of chains, on chains whose autocorrelation is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from helpers import sweep_of
from samplerbench.bench.cell import Labels
from samplerbench.bench.chains import Chains, _Law, diagnose, record
from samplerbench.core.grids import hold, karras
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import Exact, FixedGaussian, Prior
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import isotropic
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.energy import Energy
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.ula import ULA

NOISE = KeyedNoise((0, "chains"))


@pytest.fixture(scope="module", autouse=True)
def _arviz():
    pytest.importorskip("arviz")


def chains(frames):
    return Chains(frames, torch.ones(frames.shape[1]))


def test_independent_draws_are_worth_what_they_are(states):
    drawn = chains(states(500, 4, 2))
    assert drawn.effective_sample_size().shape == drawn.split_r_hat().shape == (2,)
    assert drawn.effective_sample_size().tolist() == pytest.approx([2000, 2000], rel=0.15)
    assert (drawn.split_r_hat() - 1).abs().max() < 0.01


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [100, 500])
def test_chains_that_never_move(count, states):
    """ArviZ takes equal states for independent ones. Only R̂ says that they are not."""
    points = torch.tensor([1.0, 0.3, 0.1, 1 / 3, 0.7, 2.2, 1e-8], dtype=torch.float64)
    stuck = chains(points.expand(count, 4, 7))
    assert stuck.effective_sample_size().tolist() == [4 * count] * 7
    assert stuck.split_r_hat().isnan().all(), "whatever the rounding of the mean is"
    apart = chains(points * torch.arange(1, 5).reshape(1, 4, 1).expand(count, 4, 7))
    assert (apart.split_r_hat() > 1e6).all()
    one_moves = chains(torch.cat([points.expand(count, 4, 7), states(count, 4, 1).double()], dim=2))
    assert one_moves.split_r_hat().isnan().tolist() == [True] * 7 + [False]


def test_chains_that_disagree(states):
    far = states(200, 4, 1) + torch.tensor([[[0.0], [0.0], [0.0], [5.0]]])
    drift = states(200, 4, 1) + torch.linspace(0, 5, 200)[:, None, None]
    for frames in (far, drift):
        assert chains(frames).split_r_hat().min() > 1.3
        assert chains(frames).effective_sample_size().max() < 40


@pytest.mark.slow
def test_acceptance(mixture_law, states):
    """High for small steps, low for large ones; the mean over steps after the burn-in."""
    oracle, levels, x = mixture_law.oracle(EDM()), hold(EDM(), 200, noise=0.1), states(6, 2)
    small, large = (
        record(MALA(h), oracle, x, levels, NOISE, burn_in=20, every=3) for h in (1e-3, 0.5)
    )
    assert small.frames.shape == (60, 6, 2)
    assert small.acceptance.min() > 0.97
    assert large.acceptance.max() < 0.7
    steps = list(MALA(0.5).steps(oracle, x, levels, NOISE))[20:]
    mean = torch.stack([step.info["acceptance"] for step in steps]).mean(0)
    torch.testing.assert_close(large.acceptance, mean)
    assert torch.equal(large.frames[-1], steps[-3].x)


def test_refusals(mixture_law, states):
    oracle, levels = mixture_law.oracle(EDM()), hold(EDM(), 10)
    with pytest.raises(InvalidSetting, match="burn_in=10: must be from 0 to 9"):
        record(ULA(), oracle, states(2, 2), levels, NOISE, burn_in=10)
    with pytest.raises(InvalidSetting, match="every=0"):
        record(ULA(), oracle, states(2, 2), levels, NOISE, every=0)
    with pytest.raises(ValueError, match="step size may be too large"):
        record(ULA(1e200), oracle, states(2, 2), levels, NOISE)
    with pytest.raises(ValueError, match=r"or 1e\+15"):  # finite, and no chain
        chains(1e16 * states(8, 2, 2))
    with pytest.raises(ValueError, match="at least 4 frames"):
        chains(states(3, 2, 2))
    with pytest.raises(ValueError, match=r"\(frames, chains, dim\)"):
        Chains(states(5, 2), torch.ones(2))


def chained(law, samplers, steps):
    starts = {"gaussian": FixedGaussian(std=3.0)}
    return sweep_of(law, samplers, [steps], schedule=EDM(), grid=hold, starts=starts, n_samples=10)


def values(rows, metric):
    return {row.sampler: row.value for row in rows if row.metric == metric}


def test_diagnose_tells_chains_that_mix_from_chains_that_do_not():
    samplers = [("ula", ULA(0.2)), ("mala", MALA(0.2)), ("ddim", DDIM())]
    one = diagnose(chained(gaussian((0.0,), ((1.0,),)), samplers, 400), 8)
    assert {row.sampler for row in one} == {"ula", "mala"}  # DDIM is no chain
    assert all(value < 1.05 for value in values(one, "split_r_hat").values())
    assert all(json.loads(row.info) == {"states": 8 * 200} for row in one)
    assert 0.5 < values(one, "acceptance").pop("mala") < 1
    assert "ula" not in values(one, "acceptance")  # it never rejects
    assert len({row.cell_id for row in one}) == len(one) == 11
    small = [("ula", ULA(0.005)), ("mala", MALA(0.005))]  # below twice the variance .01: stable
    apart = isotropic((0.5, 0.5), ((-9.0,), (9.0,)), 0.1)
    two = diagnose(chained(apart, small, 400), 8)
    assert all(value > 2 for value in values(two, "split_r_hat").values())


@pytest.mark.slow
def test_the_law_stands_beside_an_r_hat_that_passes():
    """Chains that start in one of three modes agree, and four tenths of the mass are elsewhere."""
    law = isotropic((0.6, 0.1, 0.3), ((0.0,), (9.0,), (-9.0,)), 0.1)
    sweep = replace(
        chained(law, [("ula", ULA(0.02))], 2000),
        starts={"point": FixedGaussian(std=1e-9), "prior": Prior()},
        repetitions=1,
    )
    rows = {(row.start, row.metric): row for row in diagnose(sweep, 40)}
    value = {key: row.value for key, row in rows.items()}
    assert value["point", "split_r_hat"] < 1.01
    assert value["point", "mass_not_reached"] == pytest.approx(0.4)
    assert value["point", "mass_misplaced"] == pytest.approx(0.4)
    # the mean of the law is −1.8, its variance .1 + .1·81 + .3·81 − 1.8²
    sd = math.sqrt(0.1 + 0.4 * 81 - 1.8**2)
    assert value["point", "mean_error"] == pytest.approx(1.8 / sd, rel=0.05)
    assert value["point", "sd_error"] == pytest.approx(1 - math.sqrt(0.1 / 0.98) / sd, rel=0.05)
    # from the prior they start wider than the law: each mode is reached, and R̂ sees them
    assert {start for start, _ in rows} == {"point", "overdispersed"}
    assert value["overdispersed", "split_r_hat"] > 2
    assert value["overdispersed", "mass_not_reached"] == 0
    assert 0.05 < value["overdispersed", "mass_misplaced"] < 0.6


@pytest.mark.slow
def test_the_law_at_a_level_with_noise():
    """On a path that shrinks the signal, x/α is compared with the law of x₀ + (σ/α)·ε."""
    law = isotropic((0.5, 0.5), ((-4.0,), (4.0,)), 0.1)
    of = replace(
        chained(law, [("mala", MALA(0.2))], 2000),
        schedule=VPLinear(),
        grid=partial(hold, noise=3.0),
        denoisers={"oracle": law.oracle(VPLinear())},
    )
    rows = diagnose(of, 40)
    assert set(values(rows, "mass_not_reached")) == set()  # with that much noise they overlap
    assert values(rows, "split_r_hat")["mala"] < 1.05
    assert values(rows, "mean_error")["mala"] < 0.1
    assert values(rows, "sd_error")["mala"] < 0.05


def test_the_chains_are_the_paths_of_the_cell_with_as_many_samples():
    law, samplers = gaussian((0.0,), ((1.0,),)), [("ula", ULA(0.2))]
    sweep = replace(chained(law, samplers, 100), n_samples=8, block=8)
    (cell,) = [cell for cell in sweep.cells() if cell.settings]
    end = sweep.draw(cell).points
    levels = sweep.levels(100)
    x, noise = sweep.beginning(cell, levels, 0)
    chains = record(ULA(0.2), sweep.denoisers["oracle"], x, levels, noise)
    assert torch.equal(chains.frames[-1], end)
    assert {row.samples_id for row in diagnose(sweep, 8)} == {sweep.books.samples_id(cell)}


def test_a_value_is_of_the_version_that_found_it(monkeypatch):
    sweep = chained(gaussian((0.0,), ((1.0,),)), [("ula", ULA(0.2))], 100)
    first = diagnose(sweep, 8)
    monkeypatch.setattr("samplerbench.bench.chains.version", lambda package: "another")
    second = diagnose(sweep, 8)
    assert not {row.cell_id for row in first} & {row.cell_id for row in second}
    assert {row.samples_id for row in first} == {row.samples_id for row in second}


def test_too_few_steps_are_named():
    rows = diagnose(chained(gaussian((0.0,), ((1.0,),)), [("ula", ULA(0.1))], 6), 4)
    assert {row.status for row in rows} == {"incompatible"}
    assert all("steps=6" in row.message for row in rows)


def test_chains_that_cannot_be_examined_are_named():
    rows = diagnose(chained(gaussian((0.0,), ((1.0,),)), [("ula", ULA(5.0))], 700), 4)
    assert {row.status for row in rows} == {"diverged"}
    assert all("not finite" in row.message for row in rows)


def test_each_langevin_sampler_brings_its_grid_and_its_start():
    """In a job with other samplers chains have the same values as in a job with grid=hold."""
    law = isotropic((0.5, 0.5), ((-1.0,), (1.0,)), 0.1)
    samplers = [("ula", ULA(0.02)), ("annealed", AnnealedLangevin(1e-5)), ("ddim", DDIM())]
    of = replace(
        chained(law, samplers, 10),
        grid=partial(karras, noise_min=0.02),
        starts={"prior": Prior(), "exact": Exact()},
        metrics={"energy": Energy()},
        labels=Labels(grid="mine"),
    )
    rows = {(row.sampler, row.start): row for row in of.run()}
    assert {key: row.grid for key, row in rows.items()} == {
        ("ula", "overdispersed"): "hold",
        ("ula", "exact"): "hold",
        **{(name, start): "mine" for name in ("annealed", "ddim") for start in ("prior", "exact")},
    }
    assert {row.status for row in rows.values()} == {"ok"}
    held = replace(of, grid=hold, samplers=samplers[:1], labels=Labels(grid="hold"))
    for row in held.run():
        assert row == replace(rows["ula", row.start], seconds=row.seconds, sweep_id=row.sweep_id)
    # a level of the job's own is kept
    noisy = replace(held, grid=partial(hold, noise=0.5), labels=Labels(grid="loud"))
    assert {row.grid for row in noisy.run()} == {"loud"}
    assert noisy.levels(3, ULA()).rows[0].sigma == 0.5
    assert of.levels(3, ULA()).held
    assert of.levels(3, DDIM()).moving


def test_evaluations_until_second_moments_are_right(states):
    """About 100 independent draws suffice; an AR(1) process, whose x² is slower, needs more."""
    law = gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 4.0)))
    cell = next(cell for cell in chained(law, [("ula", ULA())], 10).cells() if cell.settings)
    known = _Law.at(chained(law, [("ula", ULA())], 10), cell)
    draws = states(1000, 200, 2) * torch.tensor([1.0, 2.0])
    found = known.evaluations_to_moments(draws, 3.0)["evaluations_to_moments"]
    assert found == pytest.approx(300, rel=0.3)
    # x² of an AR(1) process with the correlation r has r²; the chains begin in their law
    slow, r = [draws[0]], 0.7
    for fresh in draws[1:]:
        slow.append(r * slow[-1] + math.sqrt(1 - r**2) * fresh)
    found = known.evaluations_to_moments(torch.stack(slow), 1.0)["evaluations_to_moments"]
    assert found == pytest.approx(100 * (1 + r**2) / (1 - r**2), rel=0.35)
    wrong = known.evaluations_to_moments(1.2 * draws, 1.0)["evaluations_to_moments"]
    assert math.isnan(wrong)
