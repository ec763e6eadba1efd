"""The error budget: identities that hold exactly, closed forms on Gaussians, published numbers."""

import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from samplerbench.datasets.empirical import empirical
from samplerbench.datasets.file import from_file
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.evaluation.budget import (
    Budget,
    convergence,
    enough_noise,
    parts,
    verdict,
)
from samplerbench.evaluation.exact_law import gaussian_max_sliced_w2, output_law
from samplerbench.evaluation.store import as_table
from samplerbench.evaluation.sweep import Sweep
from samplerbench.grids import karras
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.models import Denoiser
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.schedules import EDM
from samplerbench.starts import Exact, Prior, sobol_exact, sobol_prior

MEAN, COVARIANCE = [1.0, -0.5], [[4.0, 1.0], [1.0, 1.0]]


class Shrunk(Denoiser):
    """A score that is wrong in a known way: x̂₀ of the oracle, 10 % too small."""

    def __init__(self, oracle: Denoiser) -> None:
        super().__init__()
        self.oracle, self.schedule = oracle, oracle.schedule

    def denoiser(self, x, level):
        return 0.9 * self.oracle.denoiser(x, level)


def budget(
    dataset, samplers, learned=True, tolerance=0.05, converged_steps=60, **changes
) -> Budget:
    schedule = EDM(10.0)
    oracle = dataset.oracle(schedule)
    plain = {
        "n_samples": 500,
        "repetitions": 3,
        "floor_repetitions": 3,
        "block": 250,
        "steps": [5, 20],
        **changes,
    }
    if "reference" not in plain:
        plain["reference"] = dataset.draws(2000, "evaluation", 0)
    sweep = Sweep(
        dataset=dataset,
        schedule=schedule,
        grid=functools.partial(karras, noise_min=0.02, rho=5.0),
        denoisers={**({"learned": Shrunk(oracle)} if learned else {}), "oracle": oracle},
        starts={"prior": Prior(), "exact": Exact()},
        samplers=samplers,
        metrics={"certified": MaxSlicedCertified()},
        **plain,
    )
    return Budget(sweep, converged_steps=converged_steps, tolerance=tolerance)


def table(of: Budget) -> pd.DataFrame:
    rows = of.run()
    assert len(rows) == of.row_count() == len({row.cell_id for row in rows})
    assert {row.status for row in rows} == {"ok"}
    return as_table(vars(row) for row in rows)


@pytest.fixture(scope="module")
def gaussian_budget():
    samplers = [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0)), ("heun", Heun())]
    of = budget(gaussian(MEAN, COVARIANCE), samplers)
    return of, table(of)


def test_differences_add_up_and_neighbours_bound_the_total(gaussian_budget):
    of, rows = gaussian_budget
    assert set(rows["sampler"]) == {"", "ddim", "heun", "ddim limit", "ODE limit"}
    lines = parts(rows, of.converged_steps)
    assert len(lines) == 3 * 2 * (4 + 1 + 3)
    for _, group in lines.groupby(["sampler", "sampler_settings", "steps"]):
        mean = group.set_index(["kind", "part"])["mean"]
        total = mean["difference", "total"]
        parts_of = mean["difference"].drop("total")
        assert set(parts_of.index) == {"floor", "discretisation", "start", "score"}
        assert parts_of.sum() == pytest.approx(total, abs=1e-12)
        bound = mean["difference", "floor"] + mean["neighbours"].sum()
        assert total <= bound + 1e-9
        assert (group["lower"] <= group["mean"]).all()
        assert (group["count"] == 3).all()


def test_the_deterministic_members_share_one_limit(gaussian_budget):
    _, rows = gaussian_budget
    limits = rows[rows["sampler"].str.endswith(" limit")]
    assert set(limits["sampler"]) == {"ODE limit", "ddim limit"}
    assert set(limits["steps"]) == {60, 120}
    assert len(limits) == 2 * 2 * 3
    assert convergence(rows, 60, 0.05)["converged"].all()


def test_neighbours_have_their_closed_form():
    """On Gaussian data every law of the path is Gaussian, and known without Monte Carlo."""
    dataset = gaussian(MEAN, COVARIANCE)
    of = budget(
        dataset,
        [("ddim", DDIM(0.0))],
        steps=[5],
        n_samples=20_000,
        block=5000,
        repetitions=2,
        floor_repetitions=0,
    )
    lines = parts(table(of), of.converged_steps)
    found = lines[lines["kind"] == "neighbours"].set_index("part")["mean"]

    levels, oracle = of.sweep.levels(5), of.sweep.denoisers["oracle"]
    mean, cov = torch.tensor(MEAN).double(), torch.tensor(COVARIANCE).double()
    square = levels.rows[0].sigma ** 2 * torch.eye(2).double()
    prior, exact = (torch.zeros(2).double(), square), (mean, cov + square)
    laws = {
        "A": output_law(DDIM(0.0), of.sweep.denoisers["learned"], levels, *prior),
        "B": output_law(DDIM(0.0), oracle, levels, *prior),
        "C": output_law(DDIM(0.0), oracle, levels, *exact),
        "C∞": output_law(Heun(), oracle, of.sweep.levels(120), *exact),
    }
    for part, one, other in (
        ("score", "A", "B"),
        ("start", "B", "C"),
        ("discretisation", "C", "C∞"),
    ):
        expected, _ = gaussian_max_sliced_w2(*laws[one], *laws[other])
        # a linear map of shared starts: sampling moves the distance by about σ/√n, σ = 2
        assert found[part] == pytest.approx(expected, abs=3 * 2 / 20_000**0.5), part
        assert expected > 0.1, "too small to test"


def test_the_grid_mixture_s_published_numbers():
    """The paired discretisation of DDIM(0) that n = 2 000 fresh draws cannot see: .95 .62 .35."""
    of = budget(
        grid_mixture(),
        [("ddim", DDIM(0.0))],
        learned=False,
        steps=[16, 36, 100],
        n_samples=2000,
        block=1000,
        repetitions=4,
        converged_steps=150,
        reference=grid_mixture().draws(10_000, "evaluation", 0),
    )
    rows = table(of)
    lines = parts(rows, of.converged_steps)
    paired = lines[(lines["kind"] == "neighbours") & (lines["part"] == "discretisation")]
    np.testing.assert_allclose(paired.sort_values("steps")["mean"], [0.95, 0.62, 0.35], atol=0.15)
    at = lines[(lines["kind"] == "difference") & (lines["steps"] == 100)].set_index("part")["mean"]
    assert at["total"] == pytest.approx(3.05, abs=0.15)
    assert at["floor"] == pytest.approx(1.3, abs=0.3)
    assert at["start"] > 1.3
    assert abs(at["discretisation"]) < 0.2
    words = "\n".join(verdict(of, rows))
    assert "start dominates: prior mismatch: raise schedule.sigma_max from 10 to about" in words
    assert "discretisation (paired)" in words
    assert "NOT converged" not in words


def test_the_training_set_s_denoiser_splits_the_score():
    dataset = gaussian(MEAN, COVARIANCE)
    of = budget(dataset, [("ddim", DDIM(0.0))], steps=[5], reference=dataset.draws(500, "e", 0))
    oracle = empirical(dataset.draws(50, "train", 0)).oracle(EDM(10.0))
    sweep = replace(of.sweep, denoisers={**of.sweep.denoisers, "empirical": oracle})
    of = replace(of, sweep=sweep)
    lines = parts(table(of), of.converged_steps)
    mean = lines.set_index(["kind", "part"])["mean"]
    found = mean["difference"].drop("total")
    assert {"finite data", "optimisation"} < set(found.index)
    assert "score" not in found.index
    assert found.sum() == pytest.approx(mean["difference", "total"], abs=1e-12)
    assert mean["neighbours", "finite data"] > 0.1
    assert mean["neighbours", "optimisation"] > 0.1


def test_data_without_a_law_have_a_generalisation_part(tmp_path):
    rows = gaussian(MEAN, COVARIANCE).draws(400, "rows", 0)
    np.save(tmp_path / "rows.npy", rows.numpy())
    dataset = from_file(str(tmp_path / "rows.npy"))
    of = budget(
        dataset,
        [("heun", Heun())],
        steps=[10],
        learned=False,
        reference=dataset.draws(80, "evaluation", 0),
        n_samples=80,
        block=80,
    )
    mean = parts(table(of), of.converged_steps).set_index(["kind", "part"])["mean"]
    found = mean["difference"].drop("total")
    assert set(found.index) == {"floor", "generalisation", "discretisation", "start"}
    assert found.sum() == pytest.approx(mean["difference", "total"], abs=1e-12)


def test_samplers_without_a_limit_on_the_path_are_refused():
    with pytest.raises(InvalidSetting, match="not a Langevin sampler.* not applicable"):
        budget(gaussian(MEAN, COVARIANCE), [("annealed_langevin", AnnealedLangevin())])


def test_a_limit_that_is_not_reached_is_named_with_its_trend():
    of = budget(
        gaussian(MEAN, COVARIANCE),
        [("heun", Heun())],
        steps=[2],
        converged_steps=3,
        tolerance=1e-6,
    )
    rows = table(of)
    assert not convergence(rows, 3, 1e-6)["converged"].any()
    (line,) = [line for line in verdict(of, rows) if line.startswith("NOT converged")]
    assert "3 → 6 steps" in line
    assert "raise budget.converged_steps" in line


def test_a_diverged_cell_costs_only_its_own_rows():
    class Nan(Shrunk):
        def denoiser(self, x, level):
            return x * float("nan")

    of = budget(gaussian(MEAN, COVARIANCE), [("ddim", DDIM(0.0))])
    broken = {**of.sweep.denoisers, "learned": Nan(of.sweep.denoisers["oracle"])}
    rows = as_table(vars(r) for r in replace(of, sweep=replace(of.sweep, denoisers=broken)).run())
    assert set(rows[rows["denoiser"] == "learned"]["status"]) == {"diverged"}
    assert set(rows[rows["denoiser"] != "learned"]["status"]) == {"ok"}
    lines = parts(rows, of.converged_steps)
    assert "score" not in set(lines["part"])
    assert verdict(replace(of, sweep=replace(of.sweep, denoisers=broken)), rows)


def test_enough_noise_is_enough_on_a_gaussian():
    """The estimate is exact up to its rounding: at that ratio the start costs what is allowed."""
    dataset = gaussian([0.0, 3.0], [[1.0, 0.0], [0.0, 9.0]])
    points = dataset.draws(100_000, "evaluation", 0)
    ratio = enough_noise(points, 0.5)
    assert ratio == float(f"{ratio:.0e}")
    for kappa, cheap in ((ratio, True), (ratio / 2, False)):
        scale = (9 / (9 + kappa**2)) ** 0.5
        cost, _ = gaussian_max_sliced_w2(
            torch.tensor([0.0, 3.0 * (1 - scale)]).double(),
            torch.diag(torch.tensor([1 / (1 + kappa**2), 9 / (9 + kappa**2)]).double()) * kappa**2,
            torch.tensor([0.0, 3.0]).double(),
            torch.diag(torch.tensor([1.0, 9.0]).double()),
        )
        assert (cost <= 0.5) == cheap


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"converged_steps": 20}, "budget.converged_steps=20: must be above"),
        ({"tolerance": 0.0}, "budget.tolerance"),
        ({"repetitions": 1}, "repetitions=1: must be at least 2"),
    ],
)
def test_impossible_budgets_are_refused(changes, message):
    with pytest.raises(InvalidSetting, match=message):
        budget(gaussian(MEAN, COVARIANCE), [("ddim", DDIM(0.0))], **changes)


def test_a_budget_needs_oracle_and_exact_start():
    of = budget(gaussian(MEAN, COVARIANCE), [("ddim", DDIM(0.0))])
    with pytest.raises(InvalidSetting, match="oracle"):
        Budget(replace(of.sweep, denoisers={"learned": of.sweep.denoisers["learned"]}))
    with pytest.raises(InvalidSetting, match="exact"):
        Budget(replace(of.sweep, starts={"prior": Prior()}))


def test_even_starts_have_a_budget_too():
    of = budget(gaussian(MEAN, COVARIANCE), [("ddim", DDIM(0.0))], n_samples=256, block=128)
    of = replace(of, sweep=replace(of.sweep, starts={"even": sobol_prior(), "law": sobol_exact()}))
    assert (of.exact, of.prior) == ("law", "even")
    lines = parts(table(of), of.converged_steps)
    mean = lines[lines["steps"] == 20].set_index(["kind", "part"])["mean"]
    sums = mean["difference"].drop("total").sum()
    assert sums == pytest.approx(mean["difference", "total"], abs=1e-12)
    assert mean["neighbours", "start"] > 0
