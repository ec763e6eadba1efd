"""The error budget: identities that hold exactly, closed forms on Gaussians, its words."""

import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from helpers import Shrunk, mostly_slow, sweep_of
from samplerbench.app.job.refusals import check
from samplerbench.bench.budget.mismatch import enough_noise, mismatch, scale_of
from samplerbench.bench.budget.parts import convergence, parts
from samplerbench.bench.budget.run import DOUBLED, Budget
from samplerbench.bench.budget.words import _more_noise, verdict
from samplerbench.bench.cell import fragment_name
from samplerbench.bench.store import as_table
from samplerbench.core.grids import karras, uniform
from samplerbench.core.models import Denoiser
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import Exact, FixedGaussian, Prior, sobol_exact, sobol_prior
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.file import from_file
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.gaussian_spectrum import gaussian_spectrum
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.energy import Energy
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.mmd import MMD
from samplerbench.metrics.nearest_training import NearestTraining
from samplerbench.metrics.sliced import Sliced
from samplerbench.metrics.w2_law_gaussian import W2LawGaussian
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.restart import Restart
from samplerbench.verify.exact_law import output_law

MEAN, COVARIANCE = [1.0, -0.5], [[4.0, 1.0], [1.0, 1.0]]
#: The converged number of steps of most budgets here: at twice as many Heun has converged.
STEPS = 24
DOUBLING = f"{STEPS} → {2 * STEPS} steps"


def budget(
    dataset, samplers, learned=True, tolerance=0.05, converged_steps=STEPS, **changes
) -> Budget:
    oracle = dataset.oracle(EDM(10.0))
    plain = {"n_samples": 200, "repetitions": 3, "floor_repetitions": 3, "block": 100}
    plain |= {"steps": [5, 20], "metrics": {"sliced": Sliced(directions=20)}, **changes}
    if "reference" not in plain:
        plain["reference"] = dataset.draws(500, "evaluation", 0)
    denoisers = {**({"learned": Shrunk(oracle)} if learned else {}), "oracle": oracle}
    sweep = sweep_of(dataset, samplers, denoisers=denoisers, **plain)
    return Budget(sweep, converged_steps=converged_steps, tolerance=tolerance)


def table(of: Budget) -> pd.DataFrame:
    rows = of.run()
    assert len(rows) == of.row_count() == len({fragment_name(row) for row in rows})
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


@pytest.mark.slow
def test_another_score_stands_in_the_place_of_the_learned_one():
    """A corrupted or guided score has the part of the score, by any name."""
    of = budget(gaussian(MEAN, COVARIANCE), [("heun", Heun())], steps=[5])
    oracle, wrong = (of.sweep.denoisers[name] for name in ("oracle", "learned"))
    named = {"oracle": oracle, "corrupted 0.1": wrong}
    other = replace(of, sweep=replace(of.sweep, denoisers=named))
    rows = [table(one) for one in (of, other)]
    lines = [parts(one, of.converged_steps).drop(columns="eta") for one in rows]
    assert "score" in set(lines[0]["part"])
    pd.testing.assert_frame_equal(*lines)
    advised = [line for line in verdict(other, rows[1]) if "score dominates" in line]
    assert all("it is the effect of the changed score" in line for line in advised)
    assert not any("one training" in line for line in verdict(other, rows[1]))


def student(values):
    """Mean and the ends of the 95 % interval."""
    return values.mean(), *stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))


def test_the_intervals_are_scipy_s(gaussian_budget):
    _, rows = gaussian_budget
    found = parts(rows, STEPS).set_index(["sampler", "steps", "part", "kind"]).sort_index()
    key = ["steps", "denoiser", "start", "reference", "repetition"]
    value = rows[rows["sampler"] == "heun"].set_index(key).sort_index()["value"]
    ends = ["mean", "lower", "upper"]
    for steps in (5, 20):
        of = {
            (denoiser, start): value[steps, denoiser, start, "data"].to_numpy()
            for denoiser, start in (("learned", "prior"), ("oracle", "prior"), ("oracle", "exact"))
        }
        score = student(of["learned", "prior"] - of["oracle", "prior"])
        start = student(of["oracle", "prior"] - of["oracle", "exact"])
        total = student(of["learned", "prior"])
        between = student(value[steps, "learned", "prior", "oracle"].to_numpy())
        for part, kind, want in (
            ("score", "difference", score),
            ("start", "difference", start),
            ("total", "difference", total),
            ("score", "neighbours", between),
        ):
            assert tuple(found.loc[("heun", steps, part, kind), ends]) == pytest.approx(want)


def test_the_interval_of_a_limit_is_of_the_repetitions_that_have_both(gaussian_budget):
    _, rows = gaussian_budget
    rows = rows.copy()
    rows.loc[(rows["sampler"] == "ODE limit") & (rows["repetition"] == 0), "status"] = "failed"
    limit = rows[(rows["sampler"] == "ODE limit") & (rows["repetition"] > 0)]
    value = limit.set_index(["reference", "steps", "repetition"]).sort_index()["value"]
    moved = student((value["data", 2 * STEPS] - value["data", STEPS]).to_numpy())
    apart = student(value[DOUBLED, STEPS].to_numpy())
    line = convergence(rows, STEPS, 0.05).set_index("sampler").loc["ODE limit"]
    want = (moved[0], moved[2] - moved[0], apart[0], apart[2] - apart[0])
    assert tuple(line[["moved", "half", "apart", "apart_half"]]) == pytest.approx(want)


def test_the_deterministic_members_share_one_limit(gaussian_budget):
    _, rows = gaussian_budget
    limits = rows[rows["sampler"].str.endswith(" limit")]
    assert set(limits["sampler"]) == {"ODE limit", "ddim limit"}
    assert set(limits["steps"]) == {STEPS, 2 * STEPS}
    assert len(limits) == 2 * (2 + 1) * 3
    assert convergence(rows, STEPS, 0.5)["converged"].all()


@pytest.mark.slow
def test_neighbours_have_their_closed_form(max_sliced_w2):
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
        metrics={"certified": MaxSlicedCertified()},
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
        "C∞": output_law(Heun(), oracle, of.sweep.levels(2 * of.converged_steps), *exact),
    }
    for part, one, other in (
        ("score", "A", "B"),
        ("start", "B", "C"),
        ("discretisation", "C", "C∞"),
    ):
        expected = max_sliced_w2(*laws[one], *laws[other])
        # a linear map of shared starts: sampling moves the distance by about σ/√n, σ = 2
        assert found[part] == pytest.approx(expected, abs=3 * 2 / 20_000**0.5), part
        assert expected > 0.1, "too small to test"


@pytest.mark.slow
def test_the_grid_mixture_s_published_numbers():
    """The paired discretisation of DDIM(0) that n = 2 000 fresh draws cannot see: .95 .62 .35."""
    of = budget(
        grid_mixture(),
        [("ddim", DDIM(0.0))],
        learned=False,
        steps=[16, 36, 100],
        n_samples=2000,
        block=1000,
        repetitions=2,
        converged_steps=150,
        metrics={"certified": MaxSlicedCertified()},
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


@pytest.mark.slow
def test_the_training_set_s_denoiser_splits_the_score():
    dataset = gaussian(MEAN, COVARIANCE)
    of = budget(dataset, [("ddim", DDIM(0.0))], steps=[5], reference=dataset.draws(500, "e", 0))
    oracle = Empirical(dataset.draws(50, "train", 0)).oracle(EDM(10.0))
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


@pytest.mark.slow
def test_a_metric_against_the_law_of_finite_data_has_a_budget_beside_others():
    """It has no distance to training points: its floor is d(C∞), also beside other metrics."""
    rows = gaussian(MEAN, COVARIANCE).draws(400, "rows", 0)
    dataset = Divided(rows)
    more = {"reference": dataset.draws(80, "evaluation", 0), "n_samples": 80, "block": 80}
    metrics = {"nearest": NearestTraining(), "sliced": Sliced(directions=20)}
    settings = {"steps": [10], "learned": False, "metrics": metrics, **more}
    both = budget(dataset, [("heun", Heun())], **settings)
    found = table(both)
    lines = parts(found, both.converged_steps).query("metric == 'nearest' and kind == 'difference'")
    mean = lines.set_index("part")["mean"]
    assert set(mean.index) == {"floor", "discretisation", "start", "total"}
    assert mean.drop("total").sum() == pytest.approx(mean["total"], abs=1e-12)
    alone = replace(both, sweep=replace(both.sweep, metrics={"nearest": NearestTraining()}))
    expected = parts(table(alone), both.converged_steps).query("kind == 'difference'")
    assert dict(expected.set_index("part")["mean"]) == dict(mean)
    of_both = parts(found, both.converged_steps).query("metric == 'sliced'")
    mean = of_both[of_both["kind"] == "difference"].set_index("part")["mean"]
    assert set(mean.index) == {"floor", "generalisation", "discretisation", "start", "total"}
    assert mean.drop("total").sum() == pytest.approx(mean["total"], abs=1e-12)
    text = verdict(both, found)
    (title,) = [line for line in text if line.startswith("nearest, heun, N=10: ")]
    assert " floor " in title
    assert text[text.index(title) + 1] == (
        "  no advice: a smaller value of this metric is not better"
    )


def test_cells_without_a_value_say_why(gaussian_budget):
    of, rows = gaussian_budget
    lost = (rows["start"] == "prior") & (rows["steps"] == 20) & (rows["sampler"] == "heun")
    rows = rows.copy()
    rows.loc[lost, ["status", "message"]] = ["diverged", "3 of 9 samples are not finite"]
    (line,) = [line for line in verdict(of, rows) if "no budget" in line]
    assert line.endswith("N=20: no budget: its cells have no value: 3 of 9 samples are not finite")


def test_a_limit_that_is_not_reached_is_named_with_its_trend(gaussian_budget):
    of, rows = gaussian_budget
    assert not convergence(rows, STEPS, 1e-9)["converged"].any()
    words = verdict(replace(of, tolerance=1e-9), rows)
    lines = [line for line in words if line.startswith("NOT converged")]
    assert lines
    assert all(DOUBLING in line for line in lines)
    assert all("raise budget.converged_steps" in line for line in lines)
    assert all(" and the samples by W = " in line for line in lines)


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


def test_enough_noise_is_enough_on_a_gaussian(max_sliced_w2):
    """The estimate is exact up to its rounding: at that ratio the start has the allowed error."""
    dataset = gaussian([0.0, 3.0], [[1.0, 0.0], [0.0, 9.0]])
    points = dataset.draws(100_000, "evaluation", 0)
    ratio = enough_noise(points, 0.5)
    assert ratio == float(f"{ratio:.0e}")
    for kappa, cheap in ((ratio, True), (ratio / 2, False)):
        scale = (9 / (9 + kappa**2)) ** 0.5
        cost = max_sliced_w2(
            torch.tensor([0.0, 3.0 * (1 - scale)]).double(),
            torch.diag(torch.tensor([1 / (1 + kappa**2), 9 / (9 + kappa**2)]).double()) * kappa**2,
            torch.tensor([0.0, 3.0]).double(),
            torch.diag(torch.tensor([1.0, 9.0]).double()),
        )
        assert (cost <= 0.5) == cheap


def test_impossible_budgets_are_refused(tmp_path):
    law, ddim = gaussian(MEAN, COVARIANCE), [("ddim", DDIM(0.0))]
    whole = budget(law, ddim)
    sweep, oracle = whole.sweep, whole.sweep.denoisers["oracle"]

    def with_starts(prior, exact):
        return replace(whole, sweep=replace(sweep, starts={"prior": prior, "exact": exact}))

    np.save(tmp_path / "rows.npy", law.draws(100, "rows", 0).numpy())
    few = from_file(str(tmp_path / "rows.npy"), train=0.2, evaluation=0.5)
    points = few.draws(50, "evaluation", 0)
    for impossible, message in (
        (lambda: budget(law, ddim, converged_steps=20), "budget.converged_steps=20: must be above"),
        (lambda: budget(law, ddim, tolerance=0.0), "budget.tolerance"),
        (lambda: budget(law, ddim, tolerance=math.inf), "budget.tolerance"),
        (lambda: budget(law, ddim, repetitions=1), "repetitions=1: must be at least 2"),
        (lambda: budget(law, [("annealed_langevin", AnnealedLangevin())]), "not applicable"),
        # the error of a restart falls with `restart_steps`
        (lambda: budget(law, [("restart", Restart())]), r"sampler=restart: must be one that"),
        (lambda: Budget(replace(sweep, denoisers={"learned": oracle})), "oracle"),
        (
            lambda: Budget(replace(sweep, denoisers=dict.fromkeys(["oracle", "a", "b"], oracle))),
            r"denoiser=\['a', 'b'\]: must be one score beside oracle",
        ),
        (
            lambda: Budget(
                replace(sweep, denoisers=dict.fromkeys(["oracle", "empirical", "a"], oracle))
            ),
            r"denoiser=.*: must be without empirical",
        ),
        (lambda: Budget(replace(sweep, starts={"prior": Prior()})), "exact"),
        # an even start and a random one have different floors; that is no mismatch
        (lambda: with_starts(Prior(), sobol_exact()), r"both drawn evenly .* or neither"),
        (lambda: with_starts(sobol_prior(), Exact()), r"both drawn evenly .* or neither"),
        (
            lambda: budget(few, [("heun", Heun())], learned=False, reference=points),
            r"n_reference=50: must be at most 20: .*error budget",
        ),
    ):
        with pytest.raises(InvalidSetting, match=message):
            impossible()
    starts = {"even": sobol_prior(), "law": sobol_exact()}
    even = replace(whole, sweep=replace(sweep, starts=starts))
    assert (even.exact, even.prior) == ("law", "even"), "by any name"


@pytest.mark.parametrize(
    ("move", "spread", "state"),
    mostly_slow(
        [
            (0.01, 0.001, "converged"),
            (0.04, 0.1, "perhaps not converged"),
            (0.06, 0.1, "NOT converged"),
            (-0.06, 0.0001, "NOT converged"),
        ],
        3,
    ),
)
def test_the_rule_of_convergence(gaussian_budget, move, spread, state):
    of, rows = gaussian_budget
    rows = rows.copy()
    to_data = rows["sampler"].str.endswith(" limit") & (rows["reference"] == "data")
    first, double = to_data & (rows["steps"] == STEPS), to_data & (rows["steps"] == 2 * STEPS)
    rows.loc[first, "value"] = 1.0
    rows.loc[double, "value"] = 1.0 + move + spread * (rows.loc[double, "repetition"] - 1.0)
    assert set(convergence(rows, STEPS, 0.05)["state"]) == {state}
    words = [line for line in verdict(of, rows) if DOUBLING in line]
    assert len(words) == 2
    assert all(line.startswith(f"{state}, ") for line in words)


@pytest.mark.slow
def test_a_failed_limit_is_not_the_ode_s(gaussian_budget):
    of, rows = gaussian_budget
    rows = rows.copy()
    lost = rows["sampler"] == "ddim limit"
    rows.loc[lost, ["status", "message"]] = ["failed", "no luck"]
    rows.loc[lost, "value"] = np.nan
    lines = parts(rows, STEPS)
    stochastic = lines["sampler_settings"] == '{"eta": 1.0}'
    found = set(lines.loc[stochastic & (lines["kind"] == "difference"), "part"])
    assert found == {"start", "score", "total"}
    deterministic = lines[~stochastic & (lines["kind"] == "difference")]
    assert {"floor", "discretisation"} < set(deterministic["part"])
    (line,) = [line for line in verdict(of, rows) if "η=1, N=" in line]
    assert "no budget: its limit failed: no luck" in line


@pytest.mark.slow
def test_all_limits_may_fail(gaussian_budget):
    of, rows = gaussian_budget
    rows = rows.copy()
    lost = rows["sampler"].str.endswith(" limit")
    rows.loc[lost, ["status", "message"]] = ["failed", "no luck"]
    rows.loc[lost, "value"] = np.nan
    words = verdict(of, rows)
    names = "ddim η=0, ddim η=1, heun"
    assert f"sliced, {names}, N=20: no budget: its limit failed: no luck" in words
    assert not any("→" in line for line in words)
    rows.loc[lost, "status"] = "incompatible"
    assert f"sliced, {names}, N=20: no budget: no luck" in verdict(of, rows)


def test_parts_are_of_the_same_repetitions(gaussian_budget):
    """Otherwise they would not add up."""
    _, rows = gaussian_budget
    rows = rows.copy()
    lost = (rows["denoiser"] == "learned") & (rows["repetition"] == 1)
    rows.loc[lost, "status"] = "diverged"
    lines = parts(rows, STEPS)
    lines = lines[lines["kind"] == "difference"]
    assert set(lines["count"]) == {2}
    for _, group in lines.groupby(["sampler", "sampler_settings", "steps"]):
        mean = group.set_index("part")["mean"]
        assert mean.drop("total").sum() == pytest.approx(mean["total"], abs=1e-12)


@pytest.mark.slow
def test_parts_of_survivors_have_no_verdict(gaussian_budget):
    of, rows = gaussian_budget
    rows = rows.copy()
    lost = (rows["denoiser"] == "learned") & (rows["repetition"] == 1)
    rows.loc[lost, ["status", "value"]] = ["diverged", np.nan]
    words = verdict(of, rows)
    assert not any(" dominates" in line or "largest part" in line for line in words)
    assert sum("no verdict: repetitions are lost (1 of 3 diverged)" in line for line in words) > 2
    limits = rows["sampler"].str.endswith(" limit") & (rows["repetition"] == 0)
    rows.loc[limits, ["status", "value"]] = ["diverged", np.nan]
    assert any(line.startswith("no verdict (1 of 3 diverged), ") for line in verdict(of, rows))


@pytest.mark.slow
def test_a_part_that_is_not_certain_does_not_dominate(gaussian_budget):
    of, rows = gaussian_budget
    rows = rows.copy()
    learned = (rows["denoiser"] == "learned") & (rows["reference"] == "data")
    rows.loc[learned, "value"] += 100.0 * rows.loc[learned, "repetition"]
    exact = (rows["start"] == "prior") & (rows["reference"] == "data")
    rows.loc[exact, "value"] += 1.0
    words = verdict(of, rows)
    assert sum("the largest part above the floor is start" in line for line in words) == 3
    assert not any("score dominates" in line for line in words)


@pytest.mark.slow
def test_an_unbiased_estimate_has_no_neighbours():
    """Between clouds with the same starts it is negative; and its floor may be."""
    of = budget(gaussian(MEAN, COVARIANCE), [("ddim", DDIM(0.0))], steps=[20], learned=False)
    of = replace(of, sweep=replace(of.sweep, metrics={"energy": Energy()}))
    rows = table(of)
    rows.loc[rows["start"] == "prior", "value"] += 1.0
    assert set(rows["reference"]) == {"data"}
    rows.loc[rows["sampler"].str.endswith(" limit"), "value"] = -0.01  # as chance would have it
    assert set(parts(rows, STEPS)["kind"]) == {"difference"}
    words = "\n".join(verdict(of, rows))
    assert "start dominates: prior mismatch: raise schedule.sigma_max; σ/α is 10 at" in words
    assert "W =" not in words
    assert "paired" not in words


@pytest.mark.slow
def test_a_limit_above_the_floor_is_named(gaussian_budget):
    of = budget(
        gaussian(MEAN, COVARIANCE), [("heun", Heun())], steps=[5], repetitions=4, learned=False
    )
    grid = partial(karras, noise_min=2.0, rho=5.0)
    of = replace(of, sweep=replace(of.sweep, grid=grid))
    rows = table(of)
    (line,) = [line for line in verdict(of, rows) if "the limit itself is" in line]
    assert "above the floor of fresh draws" in line
    assert "the last step from σ/α=2 to the data" in line
    once = rows[(rows["denoiser"] != "law") | (rows["repetition"] == 0)]
    assert not any("the limit itself is" in line for line in verdict(of, once))
    assert not any("the limit itself is" in line for line in verdict(*gaussian_budget))


@pytest.mark.slow
def test_a_limit_of_even_starts_is_held_against_the_floor_of_even_draws():
    """Only the limit that draws noise may be above it because of that noise."""
    of = budget(
        gaussian(MEAN, COVARIANCE),
        [("ddim", DDIM(1.0)), ("heun", Heun())],
        learned=False,
        converged_steps=20,
        steps=[5],
        repetitions=4,
        n_samples=256,
        block=256,
    )
    grid = partial(karras, noise_min=2.0, rho=5.0)
    of = replace(of, sweep=replace(of.sweep, grid=grid, starts={"exact": sobol_exact()}))
    lines = [line for line in verdict(of, table(of)) if "the limit itself is" in line]
    assert len(lines) == 2
    for line in lines:
        assert "above the floor of even draws" in line
        assert ("fresh noise that is not even" in line) is ("ddim" in line)


def test_the_setting_that_limits_the_noise_is_named():
    of = budget(gaussian(MEAN, COVARIANCE), [("heun", Heun())])
    made = partial(karras, noise_min=0.02, rho=5.0)

    def advice(schedule, grid, now, want):
        return _more_noise(replace(of.sweep, schedule=schedule, grid=grid), now, want)

    assert "raise schedule.sigma_max from 10 to about 70" in advice(EDM(10.0), made, 10.0, 70.0)
    short = partial(made, noise_max=5.0)
    assert "raise grid.noise_max from 5 to about 8" in advice(EDM(10.0), short, 5.0, 8.0)
    both = advice(EDM(10.0), short, 5.0, 70.0)
    assert "raise grid.noise_max and schedule.sigma_max from 5 to about 70" in both
    fixed = partial(made, noise_max=10.0)
    assert "raise grid.noise_max and schedule.sigma_max from 10" in advice(
        EDM(10.0), fixed, 10.0, 70.0
    )
    end = float(VPLinear().noise_to_signal(torch.ones(1).double()))
    assert "raise schedule.beta_max until σ/α" in advice(VPLinear(), uniform, end, 2 * end)
    early = partial(uniform, t_max=0.5)
    assert "raise grid.t_max until σ/α" in advice(EDM(10.0), early, 5.0, 8.0)
    assert "too little noise is not the cause" in advice(EDM(10.0), made, 10.0, 4.0)


@pytest.mark.slow
def test_a_fixed_start_is_not_told_to_raise_the_noise(gaussian_budget):
    of, rows = gaussian_budget
    fixed = replace(
        of, sweep=replace(of.sweep, starts={"prior": FixedGaussian(), "exact": Exact()})
    )
    rows = rows.copy()
    mismatch = (rows["start"] == "prior") & (rows["reference"] == "data")
    rows.loc[mismatch, "value"] += 5.0
    (*_, words) = [line for line in verdict(fixed, rows) if "start dominates" in line]
    assert "its mean 0 and std 1 are not those of the path" in words


def test_no_noise_is_enough_for_nothing():
    for allowed in (0.0, -0.1, float("nan")):
        with pytest.raises(InvalidSetting, match=r"allowed=.*positive"):
            enough_noise(torch.randn(10, 2), allowed)
    assert enough_noise(torch.ones(10, 2), 0.1) >= 0


@pytest.mark.slow
def test_the_slope_has_its_error(gaussian_budget):
    of, rows = gaussian_budget
    words = [line for line in verdict(of, rows) if "discretisation (" in line]
    assert len(words) == 3
    assert all(", falls like N^-" in line for line in words)
    assert not any(" ± " in line for line in words)  # two N have none
    kept = rows[rows["steps"] != 5]
    assert all(
        line.split(" at N=20")[1].split(";")[0] == ""
        for line in verdict(of, kept)
        if "discretisation (" in line
    )
    middle = rows[rows["steps"] == 5].assign(steps=10)
    three = verdict(of, pd.concat([rows, middle], ignore_index=True))
    assert all(" ± " in line for line in three if "discretisation (" in line)


def test_points_that_no_metric_takes_are_found_before_a_training():
    sweep = budget(gaussian(MEAN, COVARIANCE), [("heun", Heun())]).sweep
    check(sweep)
    huge = sweep.reference.clone()
    huge[7, 1] = 1e20
    with pytest.raises(InvalidSetting, match=r"evaluation points\[7, 1\]=1e\+20: must be finite"):
        check(replace(sweep, reference=huge))
    same = torch.zeros(5000, 2).double()
    same[0] = 1.0
    with pytest.raises(InvalidSetting, match=r"metric.mmd.bandwidth=0.0: must be above 0"):
        check(replace(sweep, reference=same, metrics={"mmd": MMD()}))


def test_rows_of_two_sweeps_are_no_budget(gaussian_budget):
    """Two laws or two seeds: their parts would belong to neither."""
    _, one = gaussian_budget
    for other in (one.assign(sweep_id="other"), one.assign(setting_id="another model")):
        for compute in (parts, partial(convergence, tolerance=0.1)):
            with pytest.raises(InvalidSetting, match="table=rows of 2 sweeps: must be those"):
                compute(pd.concat([one, other]), STEPS)


class Trained(Denoiser):
    """A network that is exact on its training states, and useless far away from them."""

    def __init__(self, oracle: Denoiser, points: torch.Tensor) -> None:
        super().__init__()
        self.oracle, self.schedule, self.points = oracle, oracle.schedule, points

    def denoiser(self, x, level):
        mean, sd = level.alpha * self.points.mean(0), self.points.std(0)
        width = (level.alpha**2 * sd**2 + level.sigma**2) ** 0.5
        near = ((x - mean).abs() < 6 * width).all(-1, keepdim=True)
        return torch.where(near, self.oracle.denoiser(x, level), x)


def mixture(mean: float, scale: float) -> GaussianMixture:
    """Two modes, moved and scaled."""
    means = tuple((mean + scale * side, mean) for side in (-3.0, 3.0))
    narrow = ((scale**2, 0.0), (0.0, scale**2))
    return GaussianMixture((0.5, 0.5), means, (narrow, narrow))


def at(mean: float, sd: float) -> GaussianMixture:
    return gaussian([mean, mean], [[sd**2, 0.0], [0.0, sd**2]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "said", "dominates"),
    [
        (at(293.0, 5.0), "start", "start dominates, as score"),  # two temperatures in kelvin
        (at(0.0, 0.007), "end", "grid dominates"),  # daily returns
        (mixture(1e4, 1.0), "start", "start dominates, as score"),
        (mixture(0.0, 1e3), "start", "start dominates: prior mismatch"),
        (mixture(0.0, 1.0), "", "no part is significantly above zero"),
    ],
    ids=["kelvin", "returns", "moved", "large", "two modes"],
)
def test_what_does_not_fit_is_blamed_and_said_first(dataset, said, dominates):
    of = budget(
        dataset,
        [("heun", Heun())],
        steps=[36],
        n_samples=250,
        converged_steps=40,
        reference=dataset.draws(1000, "evaluation", 0),
        floor_repetitions=8,
    )
    oracle = of.sweep.denoisers["oracle"]
    network = Trained(oracle, of.sweep.reference)
    parts_of = {
        "denoisers": {"learned": network, "oracle": oracle},
        "metrics": {"certified": MaxSlicedCertified(relative_tolerance=1e-2, evaluations=30)},
    }
    of = replace(of, sweep=replace(of.sweep, **parts_of))
    unfit = mismatch(of.sweep)
    assert [bool(unfit.start), bool(unfit.end)] == [said == "start", said == "end"]
    words = verdict(of, table(of))
    assert words[: len(unfit.lines)] == unfit.lines
    (blame,) = [line for line in words if "dominates" in line or "no part is" in line]
    assert blame.startswith(f"  {dominates}"), words
    assert not any("-0.00 " in line or "train longer" in line for line in words)


@pytest.mark.slow
def test_a_far_mean_is_to_be_centred_also_for_an_exact_score():
    of = budget(at(293.0, 5.0), [("heun", Heun())], steps=[16], n_samples=250, learned=False)
    words = verdict(of, table(of))
    (blame,) = [line for line in words if "dominates" in line]
    assert blame.startswith("  start dominates: the data's mean is far from the prior's: centre")
    assert "raise schedule.sigma_max from 10" in blame


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tails", "scale", "fits"),
    [(3.0, 1.0, True), (1e6, 0.007, False)],
    ids=["heavy tails", "returns"],
)
def test_a_file_of_points_is_not_told_to_have_more(tails, scale, fits):
    """Heavy tails fit the path; for data of small scale the cause is the grid, not their number."""
    rows = torch.from_numpy(scale * np.random.default_rng(0).standard_t(tails, (600, 2)))
    dataset = Divided(rows)
    more = {"reference": dataset.draws(120, "evaluation", 0), "n_samples": 120, "block": 120}
    of = budget(dataset, [("heun", Heun())], steps=[16], learned=False, floor_repetitions=1, **more)
    assert (mismatch(of.sweep).lines == []) == fits
    words = verdict(of, table(of))
    assert any(line.startswith("  grid dominates") for line in words) != fits
    assert not any("take more training data" in line and " dominates: " in line for line in words)


@pytest.mark.slow
def test_the_costs_of_start_and_end_are_those_of_a_gaussian(max_sliced_w2):
    """On Gaussian data both are measured without Monte Carlo: the law of the output is known."""
    dataset = gaussian([30.0, 0.0], [[4.0, 0.0], [0.0, 4.0]])
    of = budget(dataset, [("heun", Heun())])
    grid = partial(karras, noise_min=3.0, rho=5.0)
    sweep = replace(of.sweep, grid=grid)
    scale = scale_of(dataset.draws(200_000, "evaluation", 0))
    levels, oracle = sweep.levels(200), sweep.denoisers["oracle"]
    mean, cov = torch.tensor([30.0, 0.0]).double(), 4 * torch.eye(2).double()
    square = 100 * torch.eye(2).double()
    exact = output_law(Heun(), oracle, levels, mean, cov + square)
    prior = output_law(Heun(), oracle, levels, torch.zeros(2).double(), square)
    # the end's cost is a root sum of squares over both directions
    assert scale.end_cost(3.0) / 2**0.5 == pytest.approx(max_sliced_w2(*exact, mean, cov), rel=0.02)
    fine = sweep.grid.func(sweep.schedule, 200, noise_min=0.002, rho=5.0)
    prior = output_law(Heun(), oracle, fine, torch.zeros(2).double(), square)
    assert scale.start_cost(10.0) == pytest.approx(max_sliced_w2(*prior, mean, cov), rel=0.02)


def test_a_tolerance_is_a_share(gaussian_budget):
    """The same data in another unit converge equally."""
    _, rows = gaussian_budget
    plain = convergence(rows, STEPS, 0.05)
    scaled = convergence(rows.assign(value=1e-6 * rows["value"]), STEPS, 0.05)
    assert list(scaled["state"]) == list(plain["state"])
    assert scaled["allowed"].tolist() == pytest.approx((1e-6 * plain["allowed"]).tolist())


def test_words_speak_of_both_budgets_and_of_every_cell(gaussian_budget):
    of, rows = gaussian_budget
    rows = rows.copy()
    few = (rows["steps"] == 5) & (rows["start"] == "exact") & (rows["sampler"] == "heun")
    rows.loc[few & (rows["reference"] == "data"), "value"] += 50.0
    words = verdict(of, rows)
    (first,) = [k for k, line in enumerate(words) if line.startswith("sliced, heun, N=20")]
    own = words[first : first + 5]
    assert any(line.startswith("  N=5: discretisation dominates") for line in own)
    (between,) = [line for line in own if line.startswith("  between neighbours, N=20: ")]
    assert all(f"{part} " in between for part in ("discretisation", "start", "score"))
    assert "(pre-asymptotic: N ends at 20)" in own[-1] + own[-2]


@pytest.mark.slow
def test_a_budget_in_nats_has_the_words_of_its_page():
    """The limit is far below all distances, so its tolerance is a share of the smallest of them."""
    of = budget(
        gaussian(MEAN, COVARIANCE),
        [("ddim", DDIM(0.0))],
        learned=False,
        metrics={"kl_law": KLLaw()},
        n_samples=128,
        repetitions=2,
        converged_steps=60,
    )
    rows = table(of)
    (line,) = convergence(rows, of.converged_steps, of.tolerance).to_dict("records")
    means = parts(rows, of.converged_steps).set_index(["steps", "part"])["mean"].unstack()
    totals = means.pop("total")
    assert means.sum(axis=1).to_dict() == pytest.approx(totals.to_dict(), rel=1e-9)
    at_limit = rows[rows["sampler"].eq("ODE limit") & rows["steps"].eq(2 * of.converged_steps)]
    assert at_limit[at_limit["start"] == "exact"]["value"].max() < 1e-3 * totals.min()
    assert line["state"] == "converged"
    assert line["allowed"] == pytest.approx(of.tolerance * totals.min())
    text = "\n".join(verdict(of, rows))
    number = r"0\.\d{1,4}"
    terms = f"{number} = 0.0+ floor \\+{number} start \\+{number} discretisation"
    assert re.search(terms, text), text
    assert f"{100 * of.tolerance:g} % of the smallest distance of the budget" in text


def test_exact_laws_need_no_points_and_no_repetitions():
    of = budget(
        gaussian_spectrum(dim=3, scale=5.0),
        [("ddim", DDIM(0.0))],
        learned=False,
        metrics={"w2_law_gaussian": W2LawGaussian()},
        reference=torch.empty(0, 3),
        repetitions=1,
        floor_repetitions=0,
        converged_steps=60,
    )
    rows = table(of)
    lines = verdict(of, rows)
    assert not [one for one in lines if "± 0" in one or "not converged" in one.lower()]
    found = parts(rows, of.converged_steps)
    assert (found["lower"] == found["mean"]).all()
    means = found[found["steps"] == 20].set_index("part")["mean"]
    assert means.drop("total").sum() == pytest.approx(means["total"], rel=1e-9)
    words = "start dominates: prior mismatch: raise schedule.sigma_max"
    assert words in "\n".join(lines)
