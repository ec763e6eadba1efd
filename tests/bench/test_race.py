"""Races: distances without a floor, successive halving, and the separation of choice and report."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import samplerbench as sb
from samplerbench.app.job.objects import exact_sweep
from samplerbench.bench.course import CHOICE, MEASUREMENT, Course, Entrant
from samplerbench.bench.race import EXACT, LAWS, PATHS, Size, gap, halve, race, ratio, run_count
from samplerbench.bench.recommendation import Recommendation
from samplerbench.core import grids
from samplerbench.core.starts import FixedGaussian
from samplerbench.datasets.gaussian import gaussian
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dpm_solver import DPMSolver1
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.unipc import UniPC

SMALL = Size(
    first=32, batch=8, finalists=2, noisy_finalists=2, designs=0, measured=256, measured_batch=32
)
GRIDS = {name: sb.grid(name) for name in ("karras", "log_snr", "uniform")}


@pytest.fixture(scope="module")
def sweep():
    words = ["n_reference=2000"]
    return exact_sweep(("grid_mixture", sb.dataset("grid_mixture")), None, words)


@pytest.fixture
def course(sweep):
    return Course(sweep, "oracle", "prior")


def entrants(course, samplers, nfe=6, levels=GRIDS):
    found, refused = course.entrants(samplers, levels, nfe)
    assert not refused
    return found


def test_the_distance_of_paths_is_that_of_the_closed_form():
    """On N(0, c²) the flow from σ to 0 is x ↦ x·c/√(c² + σ²), and DDIM(0) a product of factors."""
    law = gaussian([0.0, 0.0], [[0.25, 0.0], [0.0, 0.25]])
    course = Course(exact_sweep(("gaussian", law), None, []), "oracle", "prior")
    (one,) = entrants(course, [("ddim", DDIM(0.0))], levels={"karras": sb.grid("karras")})
    x = course.outputs(one, CHOICE, 0, 50)
    own = course.paths(one, x, CHOICE, 0)
    c, sigma = 0.5, one.levels.sigma.tolist()
    factor = 1.0
    for now, to in itertools.pairwise(sigma):
        shrunk = c**2 / (c**2 + now**2)
        factor *= shrunk + to / now * (1 - shrunk)
    first = x / factor
    want = (factor - c / math.hypot(c, sigma[0])) ** 2 * first.square().sum(1) / course.scale**2
    assert np.allclose(own, want.numpy(), rtol=2e-3)
    assert course.converged_to(one, 50) < 1e-4 * math.sqrt(own.mean())


@pytest.mark.slow
def test_from_the_prior_a_grid_that_begins_late_shows_its_start(course):
    """Its converged run begins at t = 1; after an exact start it begins where the grid does."""

    def low(schedule, steps):
        return grids.karras(schedule, steps, noise_min=0.02, noise_max=2.0)

    (late,), _ = course.entrants([("heun", Heun())], {"low": low}, 399)
    x = course.outputs(late, CHOICE, 0, 64)
    assert math.sqrt(course.paths(late, x, CHOICE, 0).mean()) > 0.05
    exact = replace(course, start="exact", _targets={})
    x = exact.outputs(late, CHOICE, 0, 64)
    assert math.sqrt(exact.paths(late, x, CHOICE, 0).mean()) < 1e-3


def test_the_law_of_fresh_draws_has_distance_zero(course):
    law = course.sweep.dataset
    values = [course.laws(law.draws(400, "x", 0, i), CHOICE, i) for i in range(16)]
    error = np.std(values) / 4
    assert abs(np.mean(values)) < 3 * error
    shifted = [course.laws(law.draws(400, "x", 0, i) + 1.0, CHOICE, i) for i in range(16)]
    assert np.mean(shifted) > 5 * error
    assert course.laws(torch.full((10, 2), math.nan), CHOICE, 0) == math.inf


@pytest.mark.slow
def test_held_out_starts_cannot_change_a_choice(course, sweep):
    """Another held-out seed gives the same winner and finalists, and other measurements."""
    samplers = [("ddim", DDIM(0.0)), ("unipc", UniPC()), ("heun", Heun()), ("ddim", DDIM(1.0))]
    verdicts = []
    for seed in (0, 1):
        own = Course(sweep, "oracle", "prior", held_out=seed)
        verdicts.append(race(own, entrants(own, samplers), SMALL))
    first, second = verdicts
    assert first.winner.entrant.label == second.winner.entrant.label
    for kind in (PATHS, LAWS):
        for one, other in zip(
            first.tracks[kind].finalists, second.tracks[kind].finalists, strict=True
        ):
            assert one.entrant.label == other.entrant.label
            assert np.array_equal(one.values, other.values)
    means = [[one.mean for one in verdict.measured] for verdict in verdicts]
    assert all(a != b for a, b in zip(*means, strict=True))


def test_choice_and_measurement_share_no_start_and_no_data(course):
    (one,) = entrants(course, [("ddim", DDIM(0.0))], levels={"karras": GRIDS["karras"]})
    chosen, measured = (course.outputs(one, purpose, 0, 100) for purpose in (CHOICE, MEASUREMENT))
    assert torch.cdist(chosen, measured).min() > 0
    sums = [course.laws(chosen[:50], purpose, 3) for purpose in (CHOICE, MEASUREMENT)]
    assert sums[0] != sums[1]


def test_equal_outputs_are_one_entrant(course):
    """DDIM(0) and DPM-Solver-1 are one method; the first name is kept."""
    samplers = [("ddim", DDIM(0.0)), ("dpm_solver_1", DPMSolver1()), ("heun", Heun())]
    track = halve(course, PATHS, entrants(course, samplers), SMALL)
    everyone = [*track.finalists, *track.dropped]
    assert len(everyone) == 6
    for standing in everyone:
        name, _, grid = standing.entrant.label.rpartition(" on ")
        assert standing.same == ([f"dpm_solver_1 on {grid}"] if name == "ddim η=0" else [])


class Known:
    """A course on which the distance of an entrant is the number in its name."""

    scale, evaluations = 1.0, 0

    def __init__(self):
        self.states = {}

    def outputs(self, entrant, purpose, block, count):
        self.states[entrant.name] = self.states.get(entrant.name, 0) + count
        generator = torch.Generator().manual_seed(block)
        noise = 1 + 0.5 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
        return float(entrant.name) * noise.abs()

    def paths(self, entrant, x, purpose, block):
        return x.square().sum(1).numpy()


def test_halving_keeps_the_better_half_and_doubles_the_states():
    levels = grids.karras(sb.schedule("edm"), 4, noise_min=0.02)
    names = [str(1 + 0.1 * i) for i in (5, 0, 7, 2, 3, 6, 1, 4)]
    everyone = [Entrant(name, DDIM(0.0), "karras", levels) for name in names]
    course, runs = Known(), []
    track = halve(course, PATHS, everyone, SMALL, lambda: runs.append(1))
    assert [one.entrant.name for one in track.finalists] == ["1.0", "1.1"]
    assert [one.rounds for one in track.dropped] == [2, 2, 1, 1, 1, 1]
    assert course.states["1.0"] == 32 + 32 + 64
    assert len(runs) == 8 + 4 + 2 == run_count(everyone, SMALL)
    # they differ in scale only, so every difference is certain
    assert not track.undecided


def test_an_entrant_that_is_dropped_by_chance_is_undecided():
    class Noisy(Known):
        def outputs(self, entrant, purpose, block, count):
            key = block + 100 * (entrant.name == "1.0000001")
            generator = torch.Generator().manual_seed(key)
            return float(entrant.name) + torch.randn(count, 1, generator=generator).double()

    levels = grids.karras(sb.schedule("edm"), 4, noise_min=0.02)
    everyone = [Entrant(n, DDIM(0.0), "", levels) for n in ("1.0", "1.0000001", "50.0", "51.0")]
    track = halve(Noisy(), PATHS, everyone, replace(SMALL, finalists=1))
    assert len(track.undecided) == 1
    assert track.undecided[0].entrant.name in ("1.0", "1.0000001")


def test_comparisons_know_divergence_and_ties():
    a = np.array([1.0, 2.0, 3.0])
    by = ratio(4 * a, a)
    assert by.mean == pytest.approx(math.log(4))
    assert by.lower == pytest.approx(math.log(4))  # the ratio is certain
    assert by.p_value < 1e-20
    assert ratio(a * math.inf, a).mean == math.inf
    assert math.isnan(ratio(0 * a, 0 * a).p_value)
    assert gap(a, np.array([1.0, math.inf, 1.0])).mean == -math.inf
    assert gap(a + 1, a).mean == 1


def test_noise_wins_where_it_repairs_the_start(sweep):
    """From a start far from the path, only fresh noise brings the samples to the data."""
    wrong = replace(sweep, starts={"off": FixedGaussian(mean=25.0, std=3.0)})
    course = Course(wrong, "oracle", "off")
    samplers = [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0))]
    found = entrants(course, samplers, nfe=30, levels={"karras": GRIDS["karras"]})
    verdict = race(course, found, SMALL, default=found[0])
    assert verdict.kind == LAWS
    assert verdict.winner.entrant.sampler == DDIM(1.0)
    (default,) = (one for one in verdict.measured if one.kind == LAWS and math.isfinite(one.p_holm))
    assert default.apart
    assert default.compared.lower > 0


@pytest.mark.slow
def test_designed_levels_join_the_finalists(course):
    """Heun at six evaluations is far better on its own levels."""
    found = entrants(course, [("heun", Heun())], nfe=5)
    track = halve(course, PATHS, found, replace(SMALL, designs=1))
    first, second = track.finalists
    assert first.entrant.grid == "designed"
    assert len(first.values) == len(second.values)
    assert ratio(second.values, first.values).lower > math.log(4)


def test_what_cannot_run_has_a_reason(course):
    names = ("heun", "ula", "annealed_langevin", "dormand_prince")
    samplers = [(name, sb.sampler(name)) for name in names]
    found, refused = course.entrants(samplers, {"edm": sb.grid("edm"), **GRIDS}, 2)
    assert [one.label for one in found] == [f"heun on {name}" for name in GRIDS]
    reasons = {one.label: one.reason for one in refused}
    assert "80" in reasons["heun on edm"]
    assert "stays" in reasons["ula step_size=0.01"]
    assert reasons["annealed_langevin inner=5 step_size=0.0001"] == "one step takes 5 evaluations"
    assert "not fixed" in next(why for name, why in reasons.items() if "dormand" in name)


@pytest.mark.slow
def test_on_a_line_laws_are_compared_exactly():
    law = sb.dataset("gaussian_mixture", means=[[-1.0], [1.0]], covariances=0.04)
    sweep = exact_sweep(("line", law), None, ["n_reference=2000"])
    course = Course(sweep, "oracle", "prior")
    samplers = [("ddim", DDIM(1.0)), ("ddim", DDIM(0.5)), ("heun", Heun())]
    ones = entrants(course, samplers, levels={"karras": GRIDS["karras"]})
    verdict = race(course, ones, replace(SMALL, measured=64))
    exact = {one.standing.entrant.sampler: one for one in verdict.measured if one.kind == EXACT}
    assert {DDIM(1.0), DDIM(0.5), Heun()} == {*exact}
    assert not any(one.kind == LAWS for one in verdict.measured)
    for sampler, one in exact.items():  # the metric of a sweep
        levels = one.standing.entrant.levels
        table = sb.sweep(
            law,
            {"own": sampler},
            steps=[levels.steps],
            starts=["prior"],
            metrics=["w_output_1d"],
            grid="karras",
            repetitions=1,
        )
        value = table.loc[table["sampler"] == "own", "value"].iloc[0]
        assert one.mean == one.lower == one.upper == pytest.approx(value, rel=1e-6)
    nearest = min(exact, key=lambda sampler: exact[sampler].mean)
    assert verdict.winner.entrant.sampler == nearest == DDIM(0.5)
    assert verdict.kind == EXACT
    assert exact[Heun()].apart
    second = Recommendation(6, verdict, ones[2], (), 3, 0, 0.0).lines[1]
    assert second.startswith("W₂ between the law of its samples and that of the data, exact: 0.")
    assert second.endswith(" more")
